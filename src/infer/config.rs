//! The settings of inference.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::image::resize::rescaled_size;
use crate::infer::windows::Windows;
use crate::kernels::Precision;

/// How an image reaches the network and how its answers are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct InferConfig {
    /// Overlapping windows, or the image at once.
    pub mode: InferMode,
    /// Height and width of a window.
    pub crop: [usize; 2],
    /// Steps between windows, down and across.
    pub stride: [usize; 2],
    /// Before inference the image is resized to fit into (long side, short side), keeping its ratio; `"none"` in TOML
    /// keeps its size. A recipe that leaves it out takes the scale of `data.augment.resize`.
    #[serde(serialize_with = "write_resize", deserialize_with = "read_resize")]
    pub resize: Option<[usize; 2]>,
    /// Factors on that size; the probabilities at all of them are averaged.
    pub scales: Vec<f32>,
    /// Whether each scale is also seen mirrored left to right.
    pub flip: bool,
    /// The most windows that enter the network at once.
    pub windows_per_batch: usize,
    /// Where the logits of an image lie that had to be padded to whole patches.
    pub padding: Padding,
    /// In what precision the CPU multiplies matrices.
    pub precision: Precision,
    /// Megabytes that logits at image size may take, about; what is larger is made in bands of rows, with equal
    /// results.
    pub logits_mb: usize,
}

/// Whether an image is seen in windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InferMode {
    /// Windows of the training crop's size, logits averaged where they overlap.
    #[default]
    Slide,
    /// The whole image at once.
    Whole,
}

/// Where the logits of an image lie that had to be padded to whole patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Padding {
    /// On their patches; what lies in the padding is cut off.
    #[default]
    Exact,
    /// Spread over the image without its padding, up to a patch too far left and up: what mmsegmentation computes.
    Stretch,
}

/// The single-scale test of the paper at 512 x 512, images in their own size.
impl Default for InferConfig {
    fn default() -> Self {
        Self {
            mode: InferMode::Slide,
            crop: [512, 512],
            stride: [341, 341],
            resize: None,
            scales: vec![1.0],
            flip: false,
            windows_per_batch: 8,
            padding: Padding::Exact,
            precision: Precision::F32,
            logits_mb: 128,
        }
    }
}

/// As it stands in TOML and in model files; early ones hold null.
#[derive(Deserialize)]
#[serde(untagged)]
enum Resize {
    To([usize; 2]),
    Word(String),
    Absent(()),
}

fn write_resize<S: Serializer>(resize: &Option<[usize; 2]>, serializer: S) -> Result<S::Ok, S::Error> {
    match resize {
        Some(size) => size.serialize(serializer),
        None => serializer.serialize_str("none"),
    }
}

fn read_resize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[usize; 2]>, D::Error> {
    match Resize::deserialize(deserializer) {
        Ok(Resize::To(size)) => Ok(Some(size)),
        Ok(Resize::Absent(())) => Ok(None),
        Ok(Resize::Word(word)) if word == "none" => Ok(None),
        _ => Err(serde::de::Error::custom("`resize` is \"none\" or [long side, short side]")),
    }
}

/// All scales of an image are in memory at once.
const MOST_SCALES: usize = 32;

impl InferConfig {
    /// Fails on values with which an image could not be covered.
    pub fn check(&self) -> Result<()> {
        let zero = |values: &[usize]| values.contains(&0);
        let fail = |message: String, hint: &str| Err(Error::new(message).with_hint(hint));
        if zero(&self.crop) || zero(&self.stride) || zero(&[self.windows_per_batch, self.logits_mb]) {
            return fail(
                "`crop`, `stride`, `windows_per_batch` and `logits_mb` must be at least 1".into(),
                "leave them out for the defaults",
            );
        }
        let sides = self.crop.iter().chain(&self.stride).chain(self.resize.iter().flatten());
        let limits = sides.map(|side| ("a side of `crop`, `stride` or `resize`", *side, 1 << 16));
        let counts =
            [("`windows_per_batch`", self.windows_per_batch, 1 << 12), ("`logits_mb`", self.logits_mb, 1 << 20)];
        if let Some((what, value, most)) = limits.chain(counts).find(|(_, value, most)| value > most) {
            return fail(
                format!("eval: {what} is {value}; at most {most} is possible"),
                "leave it out for the default",
            );
        }
        if self.scales.len() > MOST_SCALES {
            return fail(
                format!("eval: `scales` holds {} factors; at most {MOST_SCALES} are possible", self.scales.len()),
                "use fewer scales; six, 0.5 to 1.75, are usual, and each costs a whole inference",
            );
        }
        if (0..2).any(|side| self.stride[side] > self.crop[side]) {
            let message =
                format!("`stride` {:?} is larger than `crop` {:?}: pixels would be left out", self.stride, self.crop);
            return fail(message, "set the stride to two thirds of the crop, for instance 341 for a crop of 512");
        }
        if self.resize.is_some_and(|resize| zero(&resize)) {
            return fail(
                format!("`resize` {:?} holds a zero", self.resize),
                "give (long side, short side), as 2048, 512",
            );
        }
        if self.scales.is_empty() || self.scales.iter().any(|scale| !(0.01..=100.0).contains(scale)) {
            return fail(
                format!("`scales` must be factors from 0.01 to 100, not {:?}", self.scales),
                "use [1.0] for none",
            );
        }
        Ok(())
    }

    /// The sizes (height, width) at which an image of `size` is seen, one for each scale.
    pub fn sizes(&self, size: (usize, usize)) -> Vec<(usize, usize)> {
        let at = |scale: f32| match self.resize {
            Some(resize) => {
                let [long, short] = resize.map(|side| (side as f64 * f64::from(scale)) as usize);
                let (width, height) = rescaled_size((size.1, size.0), (long, short));
                (height, width)
            }
            None => {
                let scaled = |side: usize| ((side as f64 * f64::from(scale) + 0.5) as usize).max(1);
                (scaled(size.0), scaled(size.1))
            }
        };
        self.scales.iter().map(|scale| at(*scale)).collect()
    }

    pub(super) fn windows(&self, size: (usize, usize)) -> Windows {
        match self.mode {
            InferMode::Slide => Windows::slide(size, self.crop, self.stride),
            InferMode::Whole => Windows::whole(size),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_strictly_and_checked() {
        let read = |text: &str| toml::from_str::<InferConfig>(text);
        assert_eq!(read("").unwrap(), InferConfig::default());
        let config = read("mode = 'whole'\nresize = [2048, 512]\nscales = [0.5, 1.0]\nflip = true").unwrap();
        assert_eq!((config.mode, config.resize, config.flip), (InferMode::Whole, Some([2048, 512]), true));
        assert!(read("strides = [1, 1]").is_err() && read("mode = 'windows'").is_err());
        assert!(InferConfig::default().check().is_ok() && config.check().is_ok());
        for text in ["stride = [600, 1]", "crop = [0, 512]", "scales = []", "scales = [nan]", "resize = [0, 512]"] {
            assert!(read(text).unwrap().check().is_err(), "{text}");
        }
        let scales = format!("scales = {:?}", [1.0; 33]);
        let beyond = [
            "crop = [512, 65537]",
            "windows_per_batch = 4097",
            "logits_mb = 2000000",
            "resize = [99999, 512]",
            &scales,
        ];
        for text in beyond {
            assert!(read(text).unwrap().check().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/structtoken/pipeline/pipeline.json");
        let text = std::fs::read_to_string(path).unwrap();
        let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
        let rows: Vec<[usize; 6]> = serde_json::from_value(golden["rescale_size"].clone()).unwrap();
        assert!(rows.len() > 10);
        for [w, h, long, short, new_w, new_h] in rows {
            let bound = InferConfig { resize: Some([long, short]), ..InferConfig::default() };
            assert_eq!(bound.sizes((h, w)), [(new_h, new_w)], "{w} x {h} into {long}, {short}");
        }
    }

    #[test]
    fn scales_act_on_the_bound_or_on_the_image() {
        let scales = vec![0.75, 1.0, 1.25];
        let free = InferConfig { scales: scales.clone(), ..InferConfig::default() };
        assert_eq!(free.sizes((60, 90)), [(45, 68), (60, 90), (75, 113)]);
        let bound = InferConfig { scales, resize: Some([2048, 512]), ..InferConfig::default() };
        assert_eq!(bound.sizes((480, 640)), [(384, 512), (512, 683), (640, 853)]);
        let tiny = InferConfig { resize: Some([64, 64]), ..InferConfig::default() };
        assert_eq!(tiny.sizes((1, 100_000)), [(1, 64)]);
    }
}
