//! `[train]` of a recipe.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::optimizer::OptimizerConfig;
use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::kernels::LossMean;

/// `[train]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Steps of the optimiser.
    pub iterations: u64,
    /// Images a step.
    pub batch_size: usize,
    /// Passes over which a step's batch is spread; the gradient is the mean over them. Divides the batch size.
    pub accumulate: usize,
    /// Decides initial weights, batches, augmentation and dropped paths.
    pub seed: u64,
    /// Weights to start from: `.safetensors`, `.pth` or `.npz`, a backbone's or a whole network's.
    pub pretrained: Option<PathBuf>,
    /// Takes only the backbone of a whole network, for other classes.
    pub pretrained_backbone_only: bool,
    /// The backbone keeps its weights.
    pub freeze_backbone: bool,
    /// Whether the loss is a mean over all pixels, ignored ones included (mmsegmentation's), or over the valid ones.
    pub loss_mean: LossMean,
    /// Weight of each class in the loss; empty means 1 for all.
    pub class_weights: Vec<f32>,
    /// AdamW and its groups.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// Iterations between evaluations on the validation split; 0 evaluates only at the end.
    pub eval_every: u64,
    /// Iterations between checkpoints; 0 saves only at the end.
    pub save_every: u64,
    /// Checkpoints kept.
    pub keep_checkpoints: usize,
    /// Iterations between rows of the log.
    pub log_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            iterations: 160_000,
            batch_size: 16,
            accumulate: 1,
            seed: 0,
            pretrained: None,
            pretrained_backbone_only: false,
            freeze_backbone: false,
            loss_mean: LossMean::All,
            class_weights: Vec::new(),
            optimizer: OptimizerConfig::default(),
            schedule: Schedule::default(),
            eval_every: 8_000,
            save_every: 1_000,
            keep_checkpoints: 2,
            log_every: 10,
        }
    }
}

impl TrainConfig {
    /// Refuses values that cannot work, naming the key.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("train: {what}")));
        if self.iterations == 0 || self.batch_size == 0 || self.accumulate == 0 || self.log_every == 0 {
            return refuse("iterations, batch_size, accumulate and log_every must be at least 1".into());
        }
        if !self.batch_size.is_multiple_of(self.accumulate) {
            let (batch, passes) = (self.batch_size, self.accumulate);
            return refuse(format!("batch_size = {batch} cannot be spread over accumulate = {passes} equal passes"));
        }
        let rates = [self.optimizer.lr, self.optimizer.decoder_lr_mult, self.optimizer.weight_decay];
        if rates.iter().any(|rate| !rate.is_finite() || *rate < 0.0) {
            return refuse("optimizer.lr, decoder_lr_mult and weight_decay must be finite and not negative".into());
        }
        Ok(())
    }
}
