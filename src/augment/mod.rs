//! Training samples between file and batch: resized, cropped, mirrored, recoloured, padded.
//!
//! The order and every rule are those of mmseg 0.20.2, which the paper's results were trained with; the defaults are
//! its ADE20K recipe. What it does not have is off by default, and then nothing is drawn for it. Each step is a
//! function of its draws, kept apart from the drawing.

pub mod affine;
pub mod crop;
pub mod filters;
pub mod photometric;
pub mod rand_augment;
pub mod rare;

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::augment::affine::Affine;
use crate::augment::crop::{choose_window, flip, flip_vertically, pad, window_around};
use crate::augment::photometric::Photometric;
use crate::augment::rand_augment::RandAugment;
use crate::augment::rare::RareClass;
use crate::dataset::Sample;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::resize::{rescaled_size, resize_image, resize_labels};
use crate::rng::Rng;

/// How training samples are varied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AugmentConfig {
    /// Random resizing; `"none"` in TOML keeps the size.
    #[serde(serialize_with = "write_resize", deserialize_with = "read_resize")]
    pub resize: Option<ResizeRange>,
    /// Height and width of the result.
    pub crop: [usize; 2],
    /// Crops of which one class takes this share or more are drawn again, up to ten times; 1 takes the first.
    pub cat_max_ratio: f64,
    /// Some samples are drawn for a rare class and cropped around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rare_class: Option<RareClass>,
    /// The probability of mirroring left to right.
    pub flip: f32,
    /// The probability of mirroring top to bottom.
    pub vertical_flip: f32,
    /// Turns by up to this many degrees either way, about the crop's centre.
    pub rotate: f32,
    /// Operations drawn from a list, of one strength.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
    /// Whether brightness, contrast, saturation and hue vary.
    pub photometric: bool,
    /// The probability of losing all colour.
    pub grayscale: f32,
    /// The probability of a Gaussian blur of 0.1 to 2 pixels.
    pub blur: f32,
    /// The probability that one to three rectangles of the image are covered with `pad`; labels stay.
    pub cutout: f32,
    /// The colour beyond the image's edge, the mean that normalising subtracts.
    pub pad: [u8; 3],
}

/// Resizing to a random fraction of a scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResizeRange {
    /// What the longer and the shorter side have to fit at ratio 1; none, `"image"` in TOML, leaves each image its own
    /// size at ratio 1.
    #[serde(serialize_with = "write_scale", deserialize_with = "read_scale")]
    pub scale: Option<[usize; 2]>,
    /// The least and the largest factor on `scale`.
    pub ratio: [f64; 2],
    /// Whether the sides keep their ratio; otherwise `scale` is width and height.
    pub keep_ratio: bool,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            resize: Some(ResizeRange::default()),
            crop: [512, 512],
            cat_max_ratio: 0.75,
            rare_class: None,
            flip: 0.5,
            vertical_flip: 0.0,
            rotate: 0.0,
            rand_augment: None,
            photometric: true,
            grayscale: 0.0,
            blur: 0.0,
            cutout: 0.0,
            pad: [124, 116, 104],
        }
    }
}

impl Default for ResizeRange {
    fn default() -> Self {
        Self { scale: Some([2048, 512]), ratio: [0.5, 2.0], keep_ratio: true }
    }
}

impl AugmentConfig {
    /// Nothing random but where the crop lies; for tests and for sets that vary by themselves.
    pub fn plain(crop: [usize; 2]) -> Self {
        Self { resize: None, crop, cat_max_ratio: 1.0, flip: 0.0, photometric: false, ..Self::default() }
    }

    /// Whether all numbers are within their ranges.
    ///
    /// # Errors
    /// The first that is not, by key.
    pub fn check(&self) -> Result<()> {
        let wrong = |key: &str, range: &str| Err(Error::new(format!("`{key}` of the augmentation must be {range}")));
        if self.crop.iter().any(|side| !(1..=1 << 14).contains(side)) {
            return wrong("crop", "[height, width], each 1 to 16384");
        }
        if !(self.cat_max_ratio > 0.0 && self.cat_max_ratio <= 1.0) {
            return wrong("cat_max_ratio", "above 0 and at most 1");
        }
        let probabilities = [
            ("flip", self.flip),
            ("vertical_flip", self.vertical_flip),
            ("grayscale", self.grayscale),
            ("blur", self.blur),
            ("cutout", self.cutout),
        ];
        if let Some((key, _)) = probabilities.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return wrong(key, "a probability, 0 to 1");
        }
        if !(0.0..=180.0).contains(&self.rotate) {
            return wrong("rotate", "0 to 180 degrees");
        }
        if self
            .rand_augment
            .is_some_and(|rand| rand.ops > 10 || !(0.0..=rand_augment::LARGEST).contains(&rand.magnitude))
        {
            return wrong("rand_augment", "{ ops, magnitude }, at most 10 and 30");
        }
        self.rare_class.map_or(Ok(()), RareClass::check)?;
        let Some(ResizeRange { scale, ratio: [low, high], .. }) = &self.resize else { return Ok(()) };
        if scale.iter().flatten().any(|side| !(1..=1 << 16).contains(side)) {
            return wrong("resize.scale", "\"image\" or [long, short], each 1 to 65536");
        }
        if !(*low > 0.0 && low <= high && *high <= 100.0) {
            return wrong("resize.ratio", "[smallest, largest], above 0 and at most 100");
        }
        Ok(())
    }
}

/// A varied copy of `sample` of exactly `config.crop` pixels, padded at the right and below where it is smaller: the
/// image with `config.pad`, the labels with 255.
pub fn augment(sample: &Sample, config: &AugmentConfig, rng: &mut Rng) -> Sample {
    pad(augment_unpadded(sample, None, config, rng), config.crop, config.pad)
}

/// [`augment`] without the padding: at most `config.crop` pixels, around a pixel of `class` if one is given that the
/// sample has (before it is turned).
pub(crate) fn augment_unpadded(sample: &Sample, class: Option<u8>, config: &AugmentConfig, rng: &mut Rng) -> Sample {
    let Sample { image, labels } = sample;
    let size = match &config.resize {
        Some(range) => range.size((image.width, image.height), f64::from(rng.uniform())),
        None => (image.width, image.height),
    };
    let around = class.and_then(|class| window_around(labels, size, config.crop, class, |n| rng.below(n)));
    let window = match around {
        Some(window) => window,
        None => choose_window(labels, size, config.crop, config.cat_max_ratio, |n| rng.below(n)),
    };
    let drawn = config.rand_augment.map(|rand| rand.draw((window.width, window.height), rng));
    let mut affine = drawn.as_ref().map_or(Affine::IDENTITY, |drawn| drawn.affine);
    if config.rotate > 0.0 {
        affine = affine.then(Affine::rotation(f64::from(rng.range(-config.rotate, config.rotate))));
    }
    let mut varied = match affine == Affine::IDENTITY {
        true => Sample { image: resize_image(image, size, window), labels: resize_labels(labels, size, window) },
        false => affine.warp(sample, size, window, config.pad),
    };
    if rng.chance(config.flip) {
        flip(&mut varied);
    }
    if config.vertical_flip > 0.0 && rng.chance(config.vertical_flip) {
        flip_vertically(&mut varied);
    }
    recolor(&mut varied.image, config, drawn.as_ref(), rng);
    varied
}

fn recolor(image: &mut Image, config: &AugmentConfig, drawn: Option<&rand_augment::Drawn>, rng: &mut Rng) {
    if let Some(drawn) = drawn {
        drawn.recolor(image);
    }
    if config.photometric {
        Photometric::draw(rng).apply(image);
    }
    let chance = |probability: f32, rng: &mut Rng| probability > 0.0 && rng.chance(probability);
    if chance(config.grayscale, rng) {
        filters::color(image, 0.0);
    }
    if chance(config.blur, rng) {
        filters::blur(image, rng.range(0.1, 2.0));
    }
    if chance(config.cutout, rng) {
        filters::cutout(image, config.pad, rng);
    }
}

impl ResizeRange {
    /// The size (width, height) that an image gets at the draw `u` of 0 to 1.
    pub fn size(&self, image: (usize, usize), u: f64) -> (usize, usize) {
        let ratio = u * (self.ratio[1] - self.ratio[0]) + self.ratio[0];
        let scaled = |side: usize| ((side as f64 * ratio) as usize).max(1);
        match self.scale.map(|sides| sides.map(scaled)) {
            None => (scaled(image.0), scaled(image.1)),
            Some([long, short]) if self.keep_ratio => rescaled_size(image, (long, short)),
            Some([width, height]) => (width, height),
        }
    }
}

fn write_resize<S: Serializer>(resize: &Option<ResizeRange>, serializer: S) -> Result<S::Ok, S::Error> {
    match resize {
        Some(range) => range.serialize(serializer),
        None => serializer.serialize_str("none"),
    }
}

fn read_resize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ResizeRange>, D::Error> {
    let expected = "\"none\" or a table with `scale`, `ratio` and `keep_ratio`";
    deserializer.deserialize_any(WordOr { word: "none", expected, list: false, value: PhantomData })
}

fn write_scale<S: Serializer>(scale: &Option<[usize; 2]>, serializer: S) -> Result<S::Ok, S::Error> {
    match scale {
        Some(sides) => sides.serialize(serializer),
        None => serializer.serialize_str("image"),
    }
}

fn read_scale<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[usize; 2]>, D::Error> {
    let expected = "\"image\" or [long, short]";
    deserializer.deserialize_any(WordOr { word: "image", expected, list: true, value: PhantomData })
}

/// Reads one word as none, and else a value that is a list or a table.
struct WordOr<T> {
    word: &'static str,
    expected: &'static str,
    list: bool,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for WordOr<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == self.word { Ok(None) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        if !self.list {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        T::deserialize(SeqAccessDeserializer::new(seq)).map(Some)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        if self.list {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        }
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

/// The reference's transforms with their draws, for the tests of this module and its parts.
#[cfg(test)]
pub(crate) mod golden {
    use std::path::Path;

    use crate::image::{Image, Labels};

    pub(crate) struct Pipeline {
        pub(crate) json: serde_json::Value,
        tensors: Vec<u8>,
    }

    impl Pipeline {
        pub(crate) fn read() -> Self {
            let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/structtoken/pipeline"));
            let json = std::fs::read(folder.join("pipeline.json")).unwrap();
            let tensors = std::fs::read(folder.join("pipeline.safetensors")).unwrap();
            Self { json: serde_json::from_slice(&json).unwrap(), tensors }
        }

        fn tensor(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
            let tensors = safetensors::SafeTensors::deserialize(&self.tensors).unwrap();
            let tensor = tensors.tensor(name).unwrap();
            (tensor.shape().to_vec(), tensor.data().to_vec())
        }

        /// The pixels as stored (three channels, but not reversed).
        pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
            self.tensor(name).1
        }

        /// The image, from the reference's BGR.
        pub(crate) fn image(&self, name: &str) -> Image {
            let (shape, mut pixels) = self.tensor(name);
            pixels.as_chunks_mut::<3>().0.iter_mut().for_each(|bgr| bgr.reverse());
            Image { width: shape[1], height: shape[0], pixels }
        }

        pub(crate) fn labels(&self, name: &str) -> Labels {
            let (shape, ids) = self.tensor(name);
            Labels { width: shape[1], height: shape[0], ids }
        }
    }
}

#[cfg(test)]
mod tests;
