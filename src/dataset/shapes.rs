//! A synthetic set in which the class is the shape: colour and texture say nothing, so no model can solve it pixel by
//! pixel. It needs no files and is the same on every machine.
//!
//! [`ShapesConfig::cue`] makes it one of a family of sets, in which something else tells the class.

mod family;
mod object;
mod texture;

use serde::{Deserialize, Serialize};

use crate::dataset::{Classes, Dataset, Sample, Split};
use crate::error::{Error, Result};
use crate::image::{Image, Labels};
use crate::rng::Rng;
pub use family::ClassCue;
use family::{Family, Kind};
use object::Object;
use texture::Texture;

/// The set's name in [`DataConfig::dataset`](crate::loader::DataConfig::dataset).
pub const NAME: &str = "shapes";

const CLASSES: [(&str, [u8; 3]); 6] = [
    ("background", [40, 40, 48]),
    ("disc", [230, 80, 70]),
    ("square", [60, 130, 230]),
    ("triangle", [90, 190, 80]),
    ("ring", [170, 90, 220]),
    ("cross", [245, 200, 60]),
];

/// How large the set is, and what tells its classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ShapesConfig {
    /// Decides every picture.
    pub seed: u64,
    /// Pixels along a side, at least 16.
    pub size: usize,
    /// Pictures to train with.
    pub train: usize,
    /// Pictures to validate with, and as many to test with.
    pub val: usize,
    /// What tells the class of an object.
    #[serde(skip_serializing_if = "ClassCue::is_shape")]
    pub cue: ClassCue,
    /// The share of objects, in validation and test, whose texture is that of another class; with the cue `both`.
    #[serde(skip_serializing_if = "is_none")]
    pub conflict: f32,
    /// The share of objects whose shape is drawn at random; the label stays.
    #[serde(skip_serializing_if = "is_none")]
    pub shape_noise: f32,
    /// The share of objects whose texture is drawn at random; the label stays.
    #[serde(skip_serializing_if = "is_none")]
    pub texture_noise: f32,
}

/// What earlier recipes do not have is not written either: their fingerprints stay as they are.
fn is_none(share: &f32) -> bool {
    *share == 0.0
}

impl Default for ShapesConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            size: 128,
            train: 2000,
            val: 200,
            cue: ClassCue::Shape,
            conflict: 0.0,
            shape_noise: 0.0,
            texture_noise: 0.0,
        }
    }
}

impl ShapesConfig {
    /// Refuses sizes that cannot be made, naming the key.
    pub fn check(&self) -> Result<()> {
        let counts = 1..=MOST;
        if !(16..=4096).contains(&self.size) || !counts.contains(&self.train) || !counts.contains(&self.val) {
            return Err(Error::new(format!("data.shapes: size must be 16 to 4096, train and val 1 to {MOST}")));
        }
        Family::check(self)
    }
}

/// The most pictures of a split: lists of them are held.
const MOST: usize = 1 << 24;

/// Objects are tried at this many places before they are left out.
const PLACES: usize = 30;

/// Square pictures of one or two objects on a textured ground; a pure function of seed, split and index.
#[derive(Clone, Debug)]
pub struct Shapes {
    seed: u64,
    split: Split,
    len: usize,
    size: usize,
    family: Family,
    classes: Classes,
}

impl Shapes {
    /// `len` pictures of `size` x `size` pixels, in which the shape tells the class; objects measure two to seven
    /// tenths of a side across. `size` is at least 16.
    pub fn new(seed: u64, split: Split, len: usize, size: usize) -> Self {
        Self::of(&ShapesConfig { seed, size: size.max(16), train: len, val: len, ..ShapesConfig::default() }, split)
    }

    /// One split of the set that `config` describes.
    pub fn of(config: &ShapesConfig, split: Split) -> Self {
        Self {
            seed: config.seed,
            split,
            len: if split == Split::Train { config.train } else { config.val },
            size: config.size,
            family: Family::of(config, split),
            classes: config.cue.classes(),
        }
    }
}

impl Dataset for Shapes {
    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<Sample> {
        if index >= self.len {
            return Err(Error::new(format!("`{NAME}` has {} samples and none of number {index}", self.len)));
        }
        let mut rng = Rng::new(self.seed, &[self.split as u64, index as u64]);
        Ok(picture(&mut rng, self.size, &self.family).0)
    }

    fn name(&self, index: usize) -> String {
        format!("{}-{index:05}", self.split)
    }

    fn classes(&self) -> &Classes {
        &self.classes
    }
}

/// A picture, and the objects that are in it.
fn picture(rng: &mut Rng, size: usize, family: &Family) -> (Sample, Vec<Kind>) {
    let cue = family.cue;
    let ground = match cue {
        ClassCue::Shape | ClassCue::Parts => Texture::draw(rng, size),
        ClassCue::Texture | ClassCue::Both => Texture::draw_ground(rng, size),
        ClassCue::Color => Texture::draw_hue(rng, size, None),
    };
    let mut ids = vec![0; size * size];
    // Which object owns a pixel: 0 is the ground, and later objects cover earlier ones.
    let mut owners = vec![0usize; size * size];
    let mut textures = vec![ground];
    // What each drew, and what is left to see of it.
    let (mut areas, mut visible) = (vec![0], vec![size * size]);
    let mut kinds = Vec::new();
    for _ in 0..1 + rng.below(2) {
        let kind = family.draw(rng);
        let other = textures[0].mean();
        let texture = match (cue, kind.texture) {
            (_, None) => Texture::draw_apart(rng, size, other),
            (ClassCue::Color, class) => Texture::draw_hue(rng, size, class),
            (_, Some(class)) => Texture::draw_class(rng, size, class, other),
        };
        let Some(pixels) = (0..PLACES).find_map(|_| {
            let pixels = Object::draw(rng, cue.form(kind.form), size).pixels(size);
            leaves_others_visible(&pixels, &owners, &areas, &visible).then_some(pixels)
        }) else {
            continue;
        };
        for at in &pixels {
            visible[owners[*at]] -= 1;
            (ids[*at], owners[*at]) = (1 + kind.class as u8, textures.len());
        }
        textures.push(texture);
        areas.push(pixels.len());
        visible.push(pixels.len());
        kinds.push(kind);
    }
    let mut pixels = Vec::with_capacity(size * size * 3);
    for (at, owner) in owners.iter().enumerate() {
        let noise = rng.range(-8.0, 8.0);
        let rgb = textures[*owner].at((at % size) as f32, (at / size) as f32);
        pixels.extend(rgb.map(|v| (v + noise).clamp(0.0, 255.0) as u8));
    }
    let image = Image { width: size, height: size, pixels };
    (Sample { image, labels: Labels { width: size, height: size, ids } }, kinds)
}

/// Whether each object keeps eight tenths of its area if `pixels` are painted over; `visible` is what it has now.
fn leaves_others_visible(pixels: &[usize], owners: &[usize], areas: &[usize], visible: &[usize]) -> bool {
    let mut left = visible.to_vec();
    pixels.iter().for_each(|at| left[owners[*at]] -= 1);
    (1..areas.len()).all(|object| left[object] * 10 >= areas[object] * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_a_function_of_their_key() {
        let get = |seed, split, index| Shapes::new(seed, split, 9, 64).get(index).unwrap();
        assert_eq!(get(1, Split::Train, 3), get(1, Split::Train, 3));
        for other in [get(2, Split::Train, 3), get(1, Split::Val, 3), get(1, Split::Train, 4)] {
            assert_ne!(get(1, Split::Train, 3), other);
        }
        assert!(Shapes::new(1, Split::Train, 9, 64).get(9).is_err());
        let sample = get(1, Split::Train, 0);
        assert_eq!(crate::rng::fnv1a(&sample.labels.ids), crate::rng::fnv1a(&get(1, Split::Train, 0).labels.ids));
    }

    /// The set as it is without options, which runs and model files rely on.
    #[test]
    fn pictures_never_change() {
        let hash = |size: usize, split| {
            (0..20).fold(0, |hash: u64, index| {
                let Sample { image, labels } = Shapes::new(3, split, 20, size).get(index).unwrap();
                hash.rotate_left(7) ^ crate::rng::fnv1a(&image.pixels) ^ crate::rng::fnv1a(&labels.ids).rotate_left(31)
            })
        };
        let hashes = [(48, Split::Train), (48, Split::Val), (65, Split::Test), (16, Split::Train)];
        assert_eq!(
            hashes.map(|(size, split)| hash(size, split)),
            [2963281323588472025, 17852215323909691674, 8222630826746849003, 8842248527451465276]
        );
    }

    /// Every member of the family makes pictures of all its classes, and says so in TOML.
    #[test]
    fn the_family_is_made_and_described() {
        for cue in [ClassCue::Texture, ClassCue::Color, ClassCue::Both, ClassCue::Parts] {
            let config = ShapesConfig { cue, size: 48, train: 60, ..ShapesConfig::default() };
            let set = Shapes::of(&config, Split::Train);
            let mut seen = [false; 6];
            for index in 0..set.len() {
                let mut rng = Rng::new(0, &[0, index as u64]);
                let (sample, kinds) = picture(&mut rng, 48, &set.family);
                assert_eq!(sample, set.get(index).unwrap());
                let labels: std::collections::BTreeSet<u8> = kinds.iter().map(|kind| 1 + kind.class as u8).collect();
                let found: std::collections::BTreeSet<u8> =
                    sample.labels.ids.iter().copied().filter(|id| *id > 0).collect();
                assert_eq!(found, labels, "{cue:?} {index}");
                sample.labels.ids.iter().for_each(|id| seen[usize::from(*id)] = true);
            }
            assert_eq!(seen, [true; 6], "{cue:?}");
            let text = toml::to_string(&config).unwrap();
            assert!(text.contains("cue = ") && !text.contains("conflict"), "{text}");
            assert_eq!(toml::from_str::<ShapesConfig>(&text).unwrap(), config);
        }
        let plain = toml::to_string(&ShapesConfig::default()).unwrap();
        assert_eq!(plain, "seed = 0\nsize = 128\ntrain = 2000\nval = 200\n");
    }

    /// Where the hue tells the class, the hues of classes are apart.
    #[test]
    fn hues_tell_classes() {
        let config = ShapesConfig { cue: ClassCue::Color, size: 32, train: 100, ..ShapesConfig::default() };
        let set = Shapes::of(&config, Split::Train);
        let (mut right, mut all) = (0, 0);
        for index in 0..set.len() {
            let Sample { image, labels } = set.get(index).unwrap();
            for (id, rgb) in labels.ids.iter().zip(image.pixels.as_chunks::<3>().0).filter(|(id, _)| **id > 0) {
                let [r, g, b] = rgb.map(f32::from);
                let hue = (3f32.sqrt() * (g - b)).atan2(2.0 * r - g - b).to_degrees().rem_euclid(360.0);
                all += 1;
                right += usize::from(((hue / 72.0).round() as usize) % 5 == usize::from(*id) - 1);
            }
        }
        assert!(right * 100 > all * 97, "{right} of {all}");
    }

    #[test]
    fn classes_are_even_and_colour_does_not_tell_them() {
        let set = Shapes::new(5, Split::Train, 1000, 48);
        let mut pixels = [0f64; 6];
        let mut color = [[0f64; 3]; 6];
        let mut objects = 0;
        for index in 0..set.len() {
            let Sample { image, labels } = set.get(index).unwrap();
            let present: std::collections::HashSet<u8> = labels.ids.iter().copied().collect();
            objects += present.len() - 1;
            for (id, rgb) in labels.ids.iter().zip(image.pixels.as_chunks::<3>().0) {
                pixels[usize::from(*id)] += 1.0;
                (0..3).for_each(|c| color[usize::from(*id)][c] += f64::from(rgb[c]));
            }
        }
        let all: f64 = pixels.iter().sum();
        assert!((0.4..0.85).contains(&(pixels[0] / all)), "ground {}", pixels[0] / all);
        assert!(pixels[1..].iter().all(|n| n / all > 0.01), "{pixels:?}");
        assert!(objects > 1200, "{objects} classes in 1000 pictures");
        for class in 0..6 {
            for c in 0..3 {
                let mean = color[class][c] / pixels[class];
                assert!((mean - 127.5).abs() < 18.0, "{}: {mean}", CLASSES[class].0);
            }
        }
    }
}
