//! One iteration: batches, loss, gradients, step.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use super::ema::Ema;
use super::optimizer::{Gradients, Optimizer, Rates};
use crate::config::Config;
use crate::data::loader::{Batch, Loader};
use crate::data::preprocess::Preprocess;
use crate::error::Result;
use crate::kernels;
use crate::layers::Pass;
use crate::loss::{Criterion, Loss, Truth};
use crate::model::Model;
use crate::rng::{Rng, fnv1a};

/// The training state: the model, the average of its weights and the optimizer.
pub struct Learner {
    /// The network.
    pub model: Model,
    /// The average of its weights, if one is kept.
    pub ema: Option<Ema>,
    /// The optimizer, with its state.
    pub optimizer: Optimizer,
}

/// The output of an iteration: its gradients and its loss.
pub struct Found {
    /// Gradients, the mean over its passes.
    pub gradients: Gradients,
    /// The loss; the iteration ends at once where it is not finite.
    pub loss: f64,
    /// Its parts by name.
    pub parts: BTreeMap<String, f64>,
    /// The images of the pass that was last.
    pub names: Vec<String>,
    /// Pixels of each label, 255 for those ignored.
    pub pixels: Box<[u64; 256]>,
}

impl Learner {
    /// The loss and the gradients of the batch of iteration `it`, before which the run has come as far as `progress`. Of the network only running statistics change.
    ///
    /// # Errors
    /// An image that cannot be had.
    pub fn gradients(
        &mut self,
        loader: &mut Loader,
        config: &Config,
        criterion: &Criterion,
        (it, progress): (u64, f64),
        device: &Device,
    ) -> Result<Found> {
        let train = &config.train;
        let share = 1.0 / train.accumulate as f64;
        let mut found = Found {
            gradients: Gradients::default(),
            loss: 0.0,
            parts: BTreeMap::new(),
            names: Vec::new(),
            pixels: Box::new([0; 256]),
        };
        for pass in 0..train.accumulate as u64 {
            let batch = loader.next()?;
            found.names = batch.names.clone();
            batch.labels.iter().for_each(|label| found.pixels[usize::from(*label)] += 1);
            let (images, truth) = upload(batch, &config.data.preprocess, device);
            let truth = truth.padded((self.model.padded(images.dims()[2]), self.model.padded(images.dims()[3])));
            let dropped = Pass::train(Rng::new(train.seed, &[it, pass])).at(progress);
            let output = kernels::with_precision(train.precision, || self.model.forward(images, &dropped));
            let mut draw = |name: &str, count| {
                let mut rng = Rng::new(train.seed, &[it, pass, fnv1a(name.as_bytes())]);
                (0..count).map(|_| rng.uniform()).collect()
            };
            let Loss { total, parts } = criterion.loss(output, &truth, &mut draw);
            for (name, part) in parts {
                *found.parts.entry(name).or_insert(0.0) += f64::from(part.into_scalar::<f32>()) * share;
            }
            let total = total * share;
            found.loss += f64::from(total.clone().into_scalar::<f32>());
            if !found.loss.is_finite() {
                break;
            }
            found.gradients.add(&self.model, total.backward());
            let model = self.model.clone();
            self.model = model.with_statistics(&dropped);
        }
        Ok(found)
    }

    /// Changes the weights. By value: what nobody else holds is changed in place.
    #[must_use]
    pub fn step(self, gradients: Gradients, rates: Rates) -> Self {
        let Self { model, ema, mut optimizer } = self;
        let model = optimizer.step(model, gradients, rates);
        let ema = ema.map(|ema| ema.follow(&model, optimizer.steps()));
        Self { model, ema, optimizer }
    }

    /// The weights that are evaluated and published: their average if one is kept. Without autodiff.
    pub fn published(&self) -> Model {
        match &self.ema {
            Some(ema) => ema.model().clone(),
            None => self.model.valid(),
        }
    }
}

/// Images `[b, 3, h, w]` on the device, normalised, padding exactly 0; and their truth.
fn upload(batch: Batch, preprocess: &Preprocess, device: &Device) -> (Tensor<4>, Truth) {
    let Batch { images, labels, content, height, width, size, .. } = batch;
    let images = preprocess.batch_to_tensor(images, [size, height, width], device);
    let truth = Truth::new(labels, [size, height, width]);
    if content.iter().all(|filled| *filled == [height, width]) {
        return (images, truth);
    }
    let mut mask = vec![0f32; size * height * width];
    for (plane, [rows, cols]) in mask.chunks_mut(height * width).zip(&content) {
        plane.chunks_mut(width).take(*rows).for_each(|row| row[..*cols].fill(1.0));
    }
    (images * Tensor::<4>::from_data(TensorData::new(mask, [size, 1, height, width]), device), truth)
}
