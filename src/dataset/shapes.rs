//! A synthetic set in which the class is the shape: colour and texture say nothing, so no model can solve it pixel by
//! pixel. It needs no files and is the same on every machine.

use std::f32::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::dataset::{Classes, Dataset, Sample, Split};
use crate::error::{Error, Result};
use crate::image::{Image, Labels};
use crate::rng::Rng;

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

/// How large the set is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShapesConfig {
    /// Decides every picture.
    pub seed: u64,
    /// Pixels along a side, at least 16.
    pub size: usize,
    /// Pictures to train with.
    pub train: usize,
    /// Pictures to validate with, and as many to test with.
    pub val: usize,
}

impl Default for ShapesConfig {
    fn default() -> Self {
        Self { seed: 0, size: 128, train: 2000, val: 200 }
    }
}

impl ShapesConfig {
    /// Refuses sizes that cannot be made, naming the key.
    pub fn check(&self) -> Result<()> {
        let counts = 1..=MOST;
        if !(16..=4096).contains(&self.size) || !counts.contains(&self.train) || !counts.contains(&self.val) {
            return Err(Error::new(format!("data.shapes: size must be 16 to 4096, train and val 1 to {MOST}")));
        }
        Ok(())
    }
}

/// The most pictures of a split: lists of them are held.
const MOST: usize = 1 << 24;

/// Objects are tried at so many places before they are left out.
const PLACES: usize = 30;

/// Square pictures of one or two objects on a textured ground; a pure function of seed, split and index.
#[derive(Clone, Debug)]
pub struct Shapes {
    seed: u64,
    split: Split,
    len: usize,
    size: usize,
    classes: Classes,
}

impl Shapes {
    /// `len` pictures of `size` x `size` pixels; objects measure two to seven tenths of a side across. `size` is
    /// at least 16.
    pub fn new(seed: u64, split: Split, len: usize, size: usize) -> Self {
        let classes = Classes {
            names: CLASSES.iter().map(|(name, _)| (*name).to_string()).collect(),
            colors: CLASSES.iter().map(|(_, color)| *color).collect(),
        };
        Self { seed, split, len, size: size.max(16), classes }
    }

    /// One split of the set that `config` describes.
    pub fn of(config: &ShapesConfig, split: Split) -> Self {
        let len = if split == Split::Train { config.train } else { config.val };
        Self::new(config.seed, split, len, config.size)
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
        Ok(picture(&mut rng, self.size))
    }

    fn name(&self, index: usize) -> String {
        format!("{}-{index:05}", self.split)
    }

    fn classes(&self) -> &Classes {
        &self.classes
    }
}

fn picture(rng: &mut Rng, size: usize) -> Sample {
    let ground = Texture::draw(rng, size);
    let mut ids = vec![0; size * size];
    // Which object owns a pixel: 0 is the ground, and later objects cover earlier ones.
    let mut owners = vec![0usize; size * size];
    let mut textures = vec![ground];
    // What each drew, and what is left to see of it.
    let (mut areas, mut visible) = (vec![0], vec![size * size]);
    for _ in 0..1 + rng.below(2) {
        let class = 1 + rng.below(CLASSES.len() - 1);
        let texture = Texture::draw_apart(rng, size, textures[0].mean());
        let Some(pixels) = (0..PLACES).find_map(|_| {
            let pixels = Object::draw(rng, class, size).pixels(size);
            leaves_others_visible(&pixels, &owners, &areas, &visible).then_some(pixels)
        }) else {
            continue;
        };
        for at in &pixels {
            visible[owners[*at]] -= 1;
            (ids[*at], owners[*at]) = (class as u8, textures.len());
        }
        textures.push(texture);
        areas.push(pixels.len());
        visible.push(pixels.len());
    }
    let mut pixels = Vec::with_capacity(size * size * 3);
    for (at, owner) in owners.iter().enumerate() {
        let noise = rng.range(-8.0, 8.0);
        let rgb = textures[*owner].at((at % size) as f32, (at / size) as f32);
        pixels.extend(rgb.map(|v| (v + noise).clamp(0.0, 255.0) as u8));
    }
    Sample { image: Image { width: size, height: size, pixels }, labels: Labels { width: size, height: size, ids } }
}

/// Whether each object keeps eight tenths of its area if `pixels` are painted over; `visible` is what it has now.
fn leaves_others_visible(pixels: &[usize], owners: &[usize], areas: &[usize], visible: &[usize]) -> bool {
    let mut left = visible.to_vec();
    pixels.iter().for_each(|at| left[owners[*at]] -= 1);
    (1..areas.len()).all(|object| left[object] * 10 >= areas[object] * 8)
}

/// A shape somewhere, turned somehow.
struct Object {
    class: usize,
    center: [f32; 2],
    radius: f32,
    turn: [f32; 2],
}

impl Object {
    fn draw(rng: &mut Rng, class: usize, size: usize) -> Self {
        let size = size as f32;
        let radius = size * rng.range(0.2, 0.34);
        let center = [(); 2].map(|()| rng.range(radius * 0.8, size - radius * 0.8));
        let angle = rng.range(0.0, TAU);
        Self { class, center, radius, turn: [angle.cos(), angle.sin()] }
    }

    fn pixels(&self, size: usize) -> Vec<usize> {
        // No shape reaches further than this many of its radii.
        let reach = 1.25 * self.radius;
        let span = |center: f32| (center - reach).max(0.0) as usize..((center + reach) as usize + 1).min(size);
        let [c, s] = self.turn;
        let mut pixels = Vec::new();
        for y in span(self.center[1]) {
            for x in span(self.center[0]) {
                let [dx, dy] = [x as f32 - self.center[0], y as f32 - self.center[1]];
                if self.covers((c * dx + s * dy) / self.radius, (c * dy - s * dx) / self.radius) {
                    pixels.push(y * size + x);
                }
            }
        }
        pixels
    }

    /// Whether the shape covers the point, its own radius being 1.
    fn covers(&self, x: f32, y: f32) -> bool {
        let distance = x.hypot(y);
        match CLASSES[self.class].0 {
            "disc" => distance < 0.9,
            "square" => x.abs().max(y.abs()) < 0.8,
            "triangle" => y > -0.55 && y < 1.1 - 1.75 * x.abs(),
            "ring" => distance < 1.0 && distance > 0.55,
            "cross" => x.abs().min(y.abs()) < 0.28 && x.abs().max(y.abs()) < 1.0,
            _ => false,
        }
    }
}

/// Two colours and how they alternate over the picture.
struct Texture {
    pattern: Pattern,
    colors: [[f32; 3]; 2],
    /// Cycles a pixel, along the pattern's direction.
    wave: [f32; 2],
    phase: f32,
}

#[derive(Clone, Copy)]
enum Pattern {
    Plain,
    Stripes,
    Checkers,
    Gradient,
}

impl Texture {
    fn draw(rng: &mut Rng, size: usize) -> Self {
        let pattern = [Pattern::Plain, Pattern::Stripes, Pattern::Checkers, Pattern::Gradient][rng.below(4)];
        let first = [(); 3].map(|()| rng.range(20.0, 235.0));
        let second = [0, 1, 2].map(|c: usize| (first[c] + rng.range(-50.0, 50.0)).clamp(0.0, 255.0));
        let angle = rng.range(0.0, TAU);
        let period = match pattern {
            Pattern::Gradient => size as f32 * rng.range(1.0, 2.0),
            _ => size as f32 * rng.range(0.04, 0.12),
        };
        let wave = [angle.cos() / period, angle.sin() / period];
        Self { pattern, colors: [first, second], wave, phase: rng.uniform() }
    }

    /// One whose mean colour is visibly not `other`, or else the last that was tried.
    fn draw_apart(rng: &mut Rng, size: usize, other: [f32; 3]) -> Self {
        let mut texture = Self::draw(rng, size);
        for _ in 0..20 {
            let mean = texture.mean();
            if (0..3).map(|c| (mean[c] - other[c]).abs()).sum::<f32>() > 180.0 {
                break;
            }
            texture = Self::draw(rng, size);
        }
        texture
    }

    fn mean(&self) -> [f32; 3] {
        [0, 1, 2].map(|c| (self.colors[0][c] + self.colors[1][c]) / 2.0)
    }

    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let along = (self.wave[0] * x + self.wave[1] * y + self.phase).rem_euclid(1.0);
        let across = (self.wave[0] * y - self.wave[1] * x + self.phase).rem_euclid(1.0);
        let share = match self.pattern {
            Pattern::Plain => 0.5,
            Pattern::Stripes => f32::from(along < 0.5),
            Pattern::Checkers => f32::from((along < 0.5) != (across < 0.5)),
            Pattern::Gradient => (2.0 * along - 1.0).abs(),
        };
        [0, 1, 2].map(|c| self.colors[0][c] * (1.0 - share) + self.colors[1][c] * share)
    }
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
