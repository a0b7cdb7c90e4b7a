//! One image in, labels or probabilities out.

pub mod earlier_predictions;
mod tokens;

use std::io::{BufWriter, Write};
use std::path::Path;

use burn::tensor::Device;
use half::f16;

use crate::dataset::Classes;
use crate::error::{Error, Result};
use crate::image::{Image, ImageRemarks, Labels, decode_image_in, read_image_in, read_image_noting};
use crate::infer::{InferConfig, Inference, Network, Replayed};
use crate::loader::preprocess::Preprocess;
use crate::model::Model;
use crate::{files, kernels, model_file, overlay};
pub use tokens::Tokens;

/// A network with everything needed to use it.
pub struct Predictor<N = Model> {
    network: Replayed<N>,
    preprocess: Preprocess,
    config: InferConfig,
    device: Device,
    classes: Classes,
}

impl Predictor {
    /// The model file at `path`, on `device`.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let (model, card) = model_file::open(path, device)?;
        card.accept(&card.eval, path)?;
        Self::new(model, card.data.preprocess, card.eval, device.clone(), card.classes)
    }
}

impl<N: Network> Predictor<N> {
    /// Puts the parts together, the network in its form [for inference](Network::for_inference). `classes` hold one
    /// name and colour for each class of the network.
    ///
    /// Fails where the parts do not fit each other or a setting is out of its range, `STRUCTTOKEN_SIMD` in the
    /// environment included.
    pub fn new(
        network: N,
        preprocess: Preprocess,
        config: InferConfig,
        device: Device,
        classes: Classes,
    ) -> Result<Self> {
        kernels::instruction_set()?;
        preprocess.check()?;
        config.check()?;
        let n = network.classes();
        if (classes.names.len(), classes.colors.len()) != (n, n) || !(1..=255).contains(&n) {
            let (names, colors) = (classes.names.len(), classes.colors.len());
            return Err(Error::new(format!("a network of {n} classes with {names} class names and {colors} colours"))
                .with_hint("each class needs one name and one colour, and there can be at most 255 classes"));
        }
        Ok(Self { network: Replayed::new(network.for_inference()), preprocess, config, device, classes })
    }

    /// The image in the file at `path`, as this model was trained to see it.
    ///
    /// # Errors
    /// As [`read_image_in`].
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        read_image_in(path, self.preprocess.range)
    }

    /// The image that the bytes of a file hold, as this model was trained to see it.
    ///
    /// # Errors
    /// As [`decode_image_in`].
    pub fn decode(&self, bytes: &[u8]) -> Result<Image> {
        decode_image_in(bytes, self.preprocess.range)
    }

    /// As [`read`](Self::read), with what there is to say about the file.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_noting(&self, path: impl AsRef<Path>) -> Result<(Image, ImageRemarks)> {
        read_image_noting(path, self.preprocess.range)
    }

    /// Whether 16-bit values are mapped to a part of their own.
    pub fn has_range(&self) -> bool {
        self.preprocess.range.is_some()
    }

    /// The class of every pixel, in the image's size.
    pub fn predict(&self, image: &Image) -> Result<Labels> {
        self.inference().labels(image)
    }

    /// As [`predict`](Self::predict); `progress` gets the share that is done, from 0 to 1, from time to time.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn predict_with(&self, image: &Image, progress: &mut dyn FnMut(f64)) -> Result<Labels> {
        self.inference().labels_with(image, progress)
    }

    /// Class probabilities [k, h, w], in the image's size, row-major.
    pub fn probabilities(&self, image: &Image) -> Result<Vec<f32>> {
        self.inference().probabilities(image)
    }

    /// [`predict_with`](Self::predict_with) and [`probabilities`](Self::probabilities) by one pass of the network.
    ///
    /// # Errors
    /// As these two.
    pub fn predict_with_probabilities(
        &self,
        image: &Image,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(Labels, Vec<f32>)> {
        self.inference().labels_with_probabilities(image, progress)
    }

    /// The labels in colour over the image.
    pub fn overlay(&self, image: &Image, labels: &Labels) -> Image {
        overlay::blend(image, labels, &self.classes.colors, overlay::ALPHA)
    }

    /// The parts, as evaluations take them.
    pub fn inference(&self) -> Inference<'_> {
        Inference { network: &self.network, preprocess: &self.preprocess, config: &self.config, device: &self.device }
    }

    /// The network in its form [for inference](Network::for_inference), which is not what files hold.
    pub fn network(&self) -> &N {
        self.network.network()
    }

    /// Names and colours, by class index.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }
}

/// The number format of a `.npy` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NpyType {
    /// Half precision: half the size, three digits.
    F16,
    /// Single precision.
    F32,
}

impl NpyType {
    fn descr(self) -> &'static str {
        match self {
            Self::F16 => "<f2",
            Self::F32 => "<f4",
        }
    }
}

/// A label map as the bytes of a NumPy file: `[height, width]` of `uint8`, 255 where it counts nowhere.
#[must_use]
pub fn encode_npy(labels: &Labels) -> Vec<u8> {
    [npy_header(&[labels.height, labels.width], "|u1"), labels.ids.clone()].concat()
}

/// Writes values of the given shape (row-major) as a NumPy file, version 1.0, little-endian.
///
/// The file is written beside `path` and renamed when it is whole.
pub fn write_npy(path: &Path, values: &[f32], shape: &[usize], kind: NpyType) -> Result<()> {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "values of shape {shape:?}");
    files::write_with(path, |file| {
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&npy_header(shape, kind.descr()))?;
        for value in values {
            match kind {
                NpyType::F16 => file.write_all(&f16::from_f32(*value).to_le_bytes())?,
                NpyType::F32 => file.write_all(&value.to_le_bytes())?,
            }
        }
        file.flush()
    })
}

/// Writes probabilities in half precision, and records that a prediction wrote them: see [`earlier_predictions`].
///
/// # Errors
/// A folder that cannot be written.
pub fn write_probabilities(path: &Path, values: &[f32], shape: &[usize]) -> Result<()> {
    let header = npy_header(shape, NpyType::F16.descr());
    let length = header.len() as u64 + 2 * values.len() as u64;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&header);
    for part in values.chunks(1 << 14) {
        let bytes: Vec<u8> = part.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        checksum.update(&bytes);
    }
    // Before, so that no process finds a file that is not recorded.
    earlier_predictions::record(path, length, checksum.finalize())?;
    write_npy(path, values, shape, NpyType::F16)
}

/// Magic, version, length, and a Python dictionary padded so that the data begins at a multiple of 64 bytes.
fn npy_header(shape: &[usize], descr: &str) -> Vec<u8> {
    let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
    let shape = if shape.len() == 1 { sides.trim_end() } else { sides.trim_end_matches(", ") };
    let mut dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    let padding = 63 - (10 + dictionary.len()) % 64;
    dictionary.extend(std::iter::repeat_n(' ', padding));
    dictionary.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((dictionary.len() as u16).to_le_bytes());
    header.extend(dictionary.bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::toy::Toy;

    fn predictor(classes: usize) -> Result<Predictor<Toy>> {
        let config = InferConfig { crop: [16, 16], stride: [10, 10], ..InferConfig::default() };
        let names = (0..classes).map(|i| format!("class {i}")).collect();
        let colors = (0..classes).map(|i| [i as u8 * 50, 0, 0]).collect();
        Predictor::new(Toy::new(3), Preprocess::default(), config, Device::flex(), Classes { names, colors })
    }

    fn picture() -> Image {
        let pixels =
            (0..20 * 30).flat_map(|at| [(at % 20 * 12) as u8, (at / 20 * 8) as u8, (at * 7 % 256) as u8]).collect();
        Image { width: 20, height: 30, pixels }
    }

    #[test]
    fn labels_are_the_most_probable_classes() {
        let predictor = predictor(3).unwrap();
        let image = picture();
        let labels = predictor.predict(&image).unwrap();
        let probabilities = predictor.probabilities(&image).unwrap();
        assert_eq!((labels.width, labels.height, probabilities.len()), (20, 30, 3 * 600));
        for (at, id) in labels.ids.iter().enumerate() {
            let best = (0..3).map(|class| probabilities[class * 600 + at]).fold(0.0, f32::max);
            assert_eq!(probabilities[usize::from(*id) * 600 + at], best);
        }
        assert!(labels.ids.iter().any(|id| *id != labels.ids[0]));
        assert_ne!(predictor.overlay(&image, &labels), image);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let error = predictor(4).err().unwrap();
        assert!(error.to_string().contains("3 classes with 4 class names") && error.hint().is_some());
    }

    #[test]
    fn a_header_is_what_numpy_writes() {
        let header = npy_header(&[2, 3, 4], "<f4");
        assert_eq!(header.len() % 64, 0);
        assert_eq!(&header[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert!(header[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }  "));
        assert!(
            npy_header(&[7], "<f2")[10..].starts_with(b"{'descr': '<f2', 'fortran_order': False, 'shape': (7,), }")
        );
        assert!((0..80).all(|n| npy_header(&vec![1; n], "<f2").len().is_multiple_of(64)));
    }

    #[test]
    fn a_label_map_is_an_array_of_bytes() {
        let labels = Labels { width: 3, height: 2, ids: vec![0, 1, 2, 255, 4, 5] };
        let bytes = encode_npy(&labels);
        assert!(bytes[10..].starts_with(b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }"));
        let crate::image::RawMask::Index { width, height, values, .. } = crate::image::decode_mask(&bytes).unwrap()
        else {
            panic!("not an array")
        };
        assert_eq!((width, height, values), (3, 2, vec![0, 1, 2, 255, 4, 5]));
    }

    #[test]
    fn values_are_stored_in_either_precision() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.npy");
        let values = [0.0, 0.25, 1.0, 0.333_333_34, 1e-3, 0.5];
        write_npy(&path, &values, &[1, 2, 3], NpyType::F32).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes[128..]), values);
        write_npy(&path, &values, &[1, 2, 3], NpyType::F16).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 128 + 12);
        for (stored, value) in bytemuck::pod_collect_to_vec::<u8, f16>(&bytes[128..]).iter().zip(values) {
            assert!((stored.to_f32() - value).abs() < 5e-4);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = path.join("p.npy"); // below a file
        assert!(write_npy(&nowhere, &values, &[6], NpyType::F32).unwrap_err().to_string().contains("p.npy"));
    }
}
