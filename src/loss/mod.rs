//! Losses: what a decoder said of a batch, against the truth.

pub mod assignment;
pub mod class;
mod dense;
pub mod set_criterion;

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::decoder::{DecoderLoss, Output};
use crate::kernels::LossMean;
pub use dense::DenseLossConfig;

/// The class of unlabelled pixels.
const IGNORE: u8 = 255;

/// Uniform random numbers in [0, 1) by the name of what they are for, and how many.
pub type Draw<'a> = &'a mut dyn FnMut(&str, usize) -> Vec<f32>;

/// How predictions are judged.
#[derive(Clone, Debug, Default)]
pub struct Criterion {
    /// Over which pixels the cross entropy of dense predictions is a mean.
    pub mean: LossMean,
    /// Weight of each class; empty means 1 for all.
    pub class_weights: Vec<f32>,
    /// What the loss of dense predictions is made of.
    pub config: DenseLossConfig,
    /// What the decoder asks for.
    pub decoder: DecoderLoss,
}

/// The loss of a batch.
#[derive(Debug)]
pub struct Loss {
    /// What is minimised.
    pub total: Tensor<1>,
    /// Its parts by name, weighted; empty where there is but one.
    pub parts: BTreeMap<String, Tensor<1>>,
}

/// The true class of every pixel of a batch.
#[derive(Clone, Debug)]
pub struct Targets {
    ids: Arc<[u8]>,
    shape: [usize; 3],
    /// The ids on a device, where they are not here.
    on_device: Option<Tensor<3, Int>>,
}

impl Targets {
    /// Class ids `[b, h, w]`, 255 for pixels that nobody labelled.
    pub fn new(ids: Vec<u8>, shape: [usize; 3]) -> Self {
        assert_eq!(ids.len(), shape.iter().product::<usize>(), "targets: ids and shape differ");
        Self { ids: ids.into(), shape, on_device: None }
    }

    /// Class ids `[b, h, w]` that lie on a device, for a criterion that asks for them [there](Criterion::is_on_device).
    pub(crate) fn on_device(ids: Tensor<3, Int>) -> Self {
        Self { ids: Arc::new([]), shape: ids.dims(), on_device: Some(ids) }
    }

    /// The shape, and the class ids.
    pub(crate) fn ids(&self) -> ([usize; 3], &[u8]) {
        (self.shape, &self.ids)
    }

    /// Unlabelled pixels at the bottom and the right, up to (height, width).
    #[must_use]
    pub fn padded(self, (height, width): (usize, usize)) -> Self {
        let [b, h, w] = self.shape;
        if (h, w) == (height, width) {
            return self;
        }
        assert!(h <= height && w <= width, "targets: larger than the padded images");
        let mut ids = vec![IGNORE; b * height * width];
        for (row, line) in self.ids.chunks_exact(w).enumerate() {
            let start = (row / h * height + row % h) * width;
            ids[start..start + w].copy_from_slice(line);
        }
        Self { ids: ids.into(), shape: [b, height, width], on_device: None }
    }

    /// `[b, h, w]` on a device.
    fn labels(&self, device: &Device) -> Tensor<3, Int> {
        if let Some(ids) = &self.on_device {
            return ids.clone();
        }
        let ids: Vec<i32> = self.ids.iter().map(|id| i32::from(*id)).collect();
        Tensor::from_data(TensorData::new(ids, self.shape), device)
    }

    /// The ids of one image.
    fn image(&self, index: usize) -> &[u8] {
        let pixels = self.shape[1] * self.shape[2];
        &self.ids[index * pixels..][..pixels]
    }
}

impl Criterion {
    /// The loss of `output` for images that the network padded to the size of `targets`.
    ///
    /// Dense: what [`DenseLossConfig`] says of the bilinearly upsampled logits, and the same of auxiliary predictions
    /// by their weights. Queries: class, mask and dice losses after matching, summed over predictions.
    pub fn loss(&self, output: Output, targets: &Targets, draw: Draw) -> Loss {
        match output {
            Output::Dense { logits, auxiliary } => {
                let mut parts = self.dense(logits, targets);
                for (i, logits) in auxiliary.into_iter().enumerate() {
                    let loss = sum(self.dense(logits, targets).values()) * self.decoder.auxiliary_weight;
                    parts.insert(format!("auxiliary{}", i + 1), loss);
                }
                let total = sum(parts.values());
                // One part alone says nothing that the loss does not.
                Loss { total, parts: if parts.len() > 1 { parts } else { BTreeMap::new() } }
            }
            Output::Queries { predictions } => {
                let parts = set_criterion::losses(predictions, targets, &self.decoder.set, &self.class_weights, draw);
                Loss { total: sum(parts.values()), parts }
            }
        }
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a Tensor<1>>) -> Tensor<1> {
    match parts.cloned().reduce(|a, b| a + b) {
        Some(sum) => sum,
        None => unreachable!("a loss has at least one part"),
    }
}
