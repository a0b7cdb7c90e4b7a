//! A network for tests: mean colour of 4 x 4 patches, less the mean of what it sees, times a fixed matrix.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor, TensorData};

use crate::decoder::SegLogits;
use crate::image::Image;
use crate::infer::{InferConfig, Inference, Network};
use crate::loader::preprocess::Preprocess;
use crate::rng::Rng;

/// Pads to whole patches and depends on its whole input, so that windows matter; mirrors with its input.
pub(crate) struct Toy {
    classes: usize,
    weight: Vec<f32>,
    largest: AtomicUsize,
    seen: AtomicUsize,
}

const PATCH: usize = 4;

impl Toy {
    pub(crate) fn new(classes: usize) -> Self {
        let mut rng = Rng::new(42, &[]);
        let weight = (0..3 * classes).map(|_| 4.0 * rng.normal()).collect();
        Self { classes, weight, largest: AtomicUsize::new(0), seen: AtomicUsize::new(0) }
    }

    pub(crate) fn largest_batch(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    pub(crate) fn images_seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Network for Toy {
    fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
        let ([b, _, h, w], device) = (images.dims(), images.device());
        self.largest.fetch_max(b, Ordering::Relaxed);
        self.seen.fetch_add(b, Ordering::Relaxed);
        let center = images.clone().mean_dim(2).mean_dim(3); // [b, 3, 1, 1]
        let (gh, gw) = (h.div_ceil(PATCH), w.div_ceil(PATCH));
        let padded = Tensor::zeros([b, 3, gh * PATCH, gw * PATCH], &device);
        let padded = padded.slice_assign([0..b, 0..3, 0..h, 0..w], images - center);
        let patches = padded.reshape([b, 3, gh, PATCH, gw, PATCH]).mean_dim(5).mean_dim(3); // [b, 3, gh, 1, gw, 1]
        let pooled = patches.reshape([b, 3, gh, gw]).permute([0, 2, 3, 1]); // [b, gh, gw, 3]
        let weight = TensorData::new(self.weight.clone(), [1, 1, 3, self.classes]);
        pooled.matmul(Tensor::from_data(weight, &device)).into() // [b, gh, gw, k]
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn padded(&self, side: usize) -> usize {
        side.next_multiple_of(PATCH)
    }
}

/// Uniform values in -1..1.
pub(crate) fn noise(seed: u64, shape: [usize; 4]) -> Tensor<4> {
    let mut rng = Rng::new(seed, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.range(-1.0, 1.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// The values of a tensor on the CPU.
pub(crate) fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// Blocks of colour, so that the labels have structure.
pub(crate) fn picture(seed: u64, width: usize, height: usize) -> Image {
    let mut rng = Rng::new(seed, &[]);
    let blocks: Vec<[u8; 3]> = (0..64).map(|_| [0; 3].map(|_| rng.below(256) as u8)).collect();
    let pixels = (0..width * height).flat_map(|at| blocks[(at / width / 6 * 7 + at % width / 6) % 64]).collect();
    Image { width, height, pixels }
}

/// Runs with the toy of four classes.
pub(crate) fn with<T>(config: InferConfig, run: impl FnOnce(&Inference) -> T) -> T {
    let (network, preprocess, device) = (Toy::new(4), Preprocess::default(), Device::flex());
    let (network, preprocess, device) = (&network, &preprocess, &device);
    run(&Inference { network, preprocess, config: &config, device })
}

/// Small windows that overlap.
pub(crate) fn config() -> InferConfig {
    InferConfig { crop: [16, 16], stride: [10, 10], ..InferConfig::default() }
}
