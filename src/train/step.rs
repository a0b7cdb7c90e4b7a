//! One iteration: batches, loss, gradients.

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor, TensorData};

use super::buckets::Buckets;
use super::config::TrainConfig;
use super::gradients::Gradients;
use super::last_pass::{LastPass, Watched};
use super::passes::{self, PassReport, Passes, StepOutput};
use super::recorded_pass::{Place, RecordedPass, Uploaded, context_of, forward};
use super::state::TrainState;
use crate::backbone::Backbone;
use crate::decoder::{Decoder, DecoderLoss, Output};
use crate::error::Result;
use crate::group::Group;
use crate::group::ordered_sum::{self, PairwiseSum};
use crate::infer::Network;
use crate::layers::ForwardContext;
use crate::loader::preprocess::Preprocess;
use crate::loader::{Batch, Loader};
use crate::loss::{Criterion, Targets};
use crate::model::Model;

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

impl<M: Trainable> TrainState<M> {
    /// The loss and the gradients of the batch of iteration `it`, before which the run has come as far as `progress`.
    /// `loader` gives the batches of this process's passes. Of the network only running statistics change.
    ///
    /// # Errors
    /// An image that cannot be had, by any process of the group, or one that has left it.
    pub(super) fn gradients(
        &mut self,
        (loader, buckets, recorded): (&mut Loader, &mut Buckets, &mut RecordedPass<M>),
        step: &StepContext,
        (it, progress): (u64, f64),
    ) -> Result<StepOutput> {
        let own = self.passes((loader, buckets, recorded), step, (it, progress));
        let all = match step.group.is_alone() {
            true => passes::alone(own?),
            false => passes::of_all(step.group, buckets, (step.config.accumulate, &self.model), own)?,
        };
        for statistics in all.statistics {
            let context = ForwardContext::eval().at(progress);
            statistics.into_iter().for_each(|statistic| context.follow(statistic));
            let model = self.model.clone();
            self.model = model.with_statistics(&context);
        }
        Ok(all.output)
    }

    /// This process's passes, added by the tree as far as they can be. Among several processes the last has no backward
    /// pass yet.
    fn passes(
        &self,
        (loader, buckets, recorded): (&mut Loader, &Buckets, &mut RecordedPass<M>),
        step: &StepContext,
        at: (u64, f64),
    ) -> Result<Passes> {
        let (passes, group) = (step.config.accumulate, step.group);
        let own = ordered_sum::share(passes, group.rank(), group.size());
        let mut found = Passes::default();
        for tree in ordered_sum::subtrees(passes, &own) {
            let mut sum = PairwiseSum::default();
            for pass in tree {
                let last = pass + 1 == own.end && !group.is_alone();
                let watched = (last && buckets.watch()).then(|| Watched::new(&self.model)).flatten();
                let batch = upload(loader.next()?, step, &self.model);
                let place = Place { iteration: at.0, progress: at.1, pass: pass as u64 };
                let (forward, backward) = match watched {
                    Some(watched) => {
                        let forward = forward(&self.model, batch, step, (place, &context_of(step, place))).0;
                        let loss = forward.loss.clone();
                        (forward, LastPass::ToCome(Box::new((loss, watched))))
                    }
                    // Before anything is read: a device computes what it was asked for while the next is being asked.
                    None => {
                        let (forward, gradients) = recorded.run(&self.model, batch, step, place);
                        (forward, LastPass::Made(gradients))
                    }
                };
                if !found.push(forward, 1.0 / passes as f64) {
                    return Ok(found);
                }
                let gradients = match backward {
                    LastPass::Made(gradients) if !last => gradients,
                    backward => {
                        (found.last, found.gradients.last) = (Some(backward), sum);
                        return Ok(found);
                    }
                };
                sum.push(gradients, Gradients::plus);
            }
            found.gradients.sums.extend(sum.finish(Gradients::plus));
        }
        Ok(found)
    }
}

/// Images `[b, 3, h, w]` on the device, normalised, padding exactly 0; and their targets, as large as the network pads
/// the images.
fn upload(batch: Batch, step: &StepContext, network: &impl Network) -> Uploaded {
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
