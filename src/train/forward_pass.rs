//! A forward pass of training: a batch on its device, what the network says of it, and the loss.

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor, TensorData};

use super::config::TrainConfig;
use super::passes::{Forward, PassReport};
use crate::backbone::Backbone;
use crate::decoder::{Decoder, DecoderLoss, Output};
use crate::group::Group;
use crate::infer::Network;
use crate::kernels;
use crate::layers::ForwardContext;
use crate::loader::Batch;
use crate::loader::preprocess::Preprocess;
use crate::loss::{Criterion, Loss, Targets};
use crate::model::Model;
use crate::rng::{Rng, fnv1a};

/// What training needs of a network, beside what inference does.
pub trait Trainable: Module + Network + Clone {
    /// Normalised images `[b, 3, height, width]` to what the network says of them, on a grid that spans the images
    /// padded to [`Network::padded`].
    fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Output;

    /// How what it says is to be judged, beside what the recipe says.
    fn decoder_loss(&self) -> DecoderLoss {
        DecoderLoss::default()
    }

    /// The same network with a backbone that does not learn, for [`TrainConfig::freeze_backbone`].
    #[must_use]
    fn freeze_backbone(self) -> Self {
        self
    }

    /// The same network with the running statistics that a pass of training left. It is called once the gradients of
    /// all passes of the iteration have been taken, for one pass after the other.
    #[must_use]
    fn with_statistics(self, _context: &ForwardContext) -> Self {
        self
    }
}

impl<B: Module + ModuleDisplay + Backbone, D: Module + ModuleDisplay + Decoder> Trainable for Model<B, D> {
    fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Output {
        Model::forward(self, images, context)
    }

    fn decoder_loss(&self) -> DecoderLoss {
        Model::decoder_loss(self)
    }

    fn freeze_backbone(self) -> Self {
        Model::freeze_backbone(self)
    }

    fn with_statistics(self, context: &ForwardContext) -> Self {
        Model::with_statistics(self, context)
    }
}

/// What a training step needs beside the network.
pub struct StepContext<'a> {
    /// The recipe.
    pub config: &'a TrainConfig,
    /// How images become tensors.
    pub preprocess: &'a Preprocess,
    /// The loss.
    pub criterion: &'a Criterion,
    /// Where it is computed, with autodiff.
    pub device: &'a Device,
    /// Who shares the passes.
    pub group: &'a dyn Group,
}

/// A batch on its device, and which images it has.
pub(super) struct Uploaded {
    pub(super) report: PassReport,
    pub(super) images: Tensor<4>,
    pub(super) targets: Targets,
}

/// Where a pass is: its iteration, how far the run has come, and its number in the iteration.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) iteration: u64,
    pub(super) progress: f64,
    pub(super) pass: u64,
}

/// Images `[b, 3, h, w]` on the device, normalised, padding exactly 0; and their targets, as large as the network pads
/// the images.
pub(super) fn upload(batch: Batch, step: &StepContext, network: &impl Network) -> Uploaded {
    let Batch { images, labels, content, height, width, size, names } = batch;
    let mut report = PassReport { names, ..PassReport::default() };
    report.count(&labels);
    let images = step.preprocess.batch_to_tensor(images, [size, height, width], step.device);
    let targets = Targets::new(labels, [size, height, width]);
    let targets = targets.padded((network.padded(height), network.padded(width)));
    if content.iter().all(|filled| *filled == [height, width]) {
        return Uploaded { report, images, targets };
    }
    let mut mask = vec![0f32; size * height * width];
    for (plane, [rows, cols]) in mask.chunks_mut(height * width).zip(&content) {
        plane.chunks_mut(width).take(*rows).for_each(|row| row[..*cols].fill(1.0));
    }
    let mask = Tensor::<4>::from_data(TensorData::new(mask, [size, 1, height, width]), step.device);
    Uploaded { report, images: images * mask, targets }
}

/// What a pass drops.
pub(super) fn context_of(step: &StepContext, at: Place) -> ForwardContext<'static> {
    ForwardContext::train(Rng::new(step.config.seed, &[at.iteration, at.pass])).at(at.progress)
}

/// A forward pass with its loss, and whether it predicts each pixel by itself.
pub(super) fn forward<M: Trainable>(
    model: &M,
    batch: Uploaded,
    step: &StepContext,
    (at, context): (Place, &ForwardContext),
) -> (Forward, bool) {
    let Uploaded { report, images, targets } = batch;
    let train = step.config;
    let output = kernels::with_precision(train.precision, || model.forward(images, context));
    let dense = matches!(output, Output::Dense { .. });
    let mut draw = |name: &str, count| {
        let mut rng = Rng::new(train.seed, &[at.iteration, at.pass, fnv1a(name.as_bytes())]);
        (0..count).map(|_| rng.uniform()).collect()
    };
    let Loss { total, parts } = step.criterion.loss(output, &targets, &mut draw);
    let loss = total * (1.0 / train.accumulate as f64);
    let parts = parts.into_iter().map(|(name, part)| (name, part.inner())).collect();
    (Forward { report, loss, parts, statistics: context.take_statistics() }, dense)
}
