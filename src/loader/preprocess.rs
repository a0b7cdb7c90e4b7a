//! From 8-bit pixels to the network's input: the one place where images are normalised.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::Image;

/// The normalisation of an RGB image: `(value - mean) / std` for each channel, values in 0..=255.
///
/// It belongs to the weights, so it is stored with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Preprocess {
    /// Subtracted from red, green, blue.
    pub mean: [f32; 3],
    /// Divides red, green, blue.
    pub std: [f32; 3],
    /// The 16-bit values that become 0 and 255, as `[0, 4095]` for images of 12 bits in 16; without it 0 and 65535.
    /// Images of 8 bits per channel stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[u16; 2]>,
}

/// The statistics of ImageNet.
impl Default for Preprocess {
    fn default() -> Self {
        Self { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375], range: None }
    }
}

impl Preprocess {
    /// Fails on a deviation that is not positive, or a mean that is not finite.
    pub fn check(&self) -> Result<()> {
        crate::dataset::spec::check_range(self.range)?;
        let fault = match (self.std.iter().all(|s| s.is_normal() && *s > 0.0), self.mean.iter().all(|m| m.is_finite()))
        {
            (true, true) => return Ok(()),
            (false, _) => format!("`std` must hold positive numbers, not {:?}", self.std),
            (_, false) => format!("`mean` must hold finite numbers, not {:?}", self.mean),
        };
        Err(Error::new(fault).with_hint("both are in units of 0..=255: ImageNet's mean is 123.675, 116.28, 103.53"))
    }

    /// One image as [1, 3, h, w], normalised f32 on `device`.
    pub fn to_tensor(&self, image: Image, device: &Device) -> Tensor<4> {
        self.batch_to_tensor(image.pixels, [1, image.height, image.width], device)
    }

    /// A batch of equally large images, `pixels` laid out as [b, h, w, 3], as [b, 3, h, w], normalised f32.
    ///
    /// The bytes travel to the device as they are and become floats there.
    pub fn batch_to_tensor(&self, pixels: Vec<u8>, [b, h, w]: [usize; 3], device: &Device) -> Tensor<4> {
        assert_eq!(pixels.len(), b * h * w * 3, "{b} images of {h} x {w} RGB pixels");
        let bytes = Tensor::<4, Int>::from_data(TensorData::new(pixels, [b, h, w, 3]), (device, DType::U8));
        let channels = |values: [f32; 3]| Tensor::<1>::from_data(values, (device, DType::F32)).reshape([1, 3, 1, 1]);
        let values = bytes.cast(FloatDType::F32).permute([0, 3, 1, 2]); // [b, 3, h, w]
        (values - channels(self.mean)) * channels(self.std.map(|s| 1.0 / s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_has_its_own_statistics() {
        let image = Image { width: 2, height: 1, pixels: vec![0, 10, 20, 255, 110, 220] };
        let preprocess = Preprocess { mean: [0.0, 10.0, 20.0], std: [255.0, 50.0, 100.0], range: None };
        let tensor = preprocess.to_tensor(image, &Device::flex());
        assert_eq!(tensor.dims(), [1, 3, 1, 2]);
        let values = tensor.into_data().try_to_vec::<f32>().unwrap();
        for (value, expected) in values.iter().zip([0.0, 1.0, 0.0, 2.0, 0.0, 2.0]) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
    }

    #[test]
    fn matches_the_reference() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/structtoken/pipeline/pipeline.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        // The reference holds the image as BGR and turns it to RGB while normalising.
        let bgr = file.tensor("img").unwrap().data();
        let pixels = bgr.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
        let image = Image { width: 53, height: 37, pixels };
        let half = Preprocess { mean: [127.5; 3], std: [127.5; 3], range: None };
        for (name, preprocess) in [("norm_imagenet", Preprocess::default()), ("norm_half", half)] {
            let ours = preprocess.to_tensor(image.clone(), &Device::flex()).permute([0, 2, 3, 1]);
            let ours = ours.into_data().try_to_vec::<f32>().unwrap();
            let theirs: Vec<f32> = bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data());
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!((ours - theirs).abs() < 1e-6, "{name}: {ours} {theirs}");
            }
        }
    }

    #[test]
    fn a_deviation_of_zero_is_refused() {
        assert!(Preprocess { std: [1.0, 0.0, 1.0], ..Preprocess::default() }.check().is_err());
        assert!(Preprocess { mean: [f32::NAN, 0.0, 1.0], ..Preprocess::default() }.check().is_err());
        assert!(Preprocess { range: Some([7, 7]), ..Preprocess::default() }.check().is_err());
        assert!(Preprocess::default().check().is_ok());
    }
}
