//! `[train]` of a recipe.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::optimizer::OptimizerConfig;
use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::kernels::{LossMean, Precision};

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
    /// Weight of each class in the loss, for decoders of queries in that of a query's class; empty means 1 for all.
    pub class_weights: Vec<f32>,
    /// In what precision the CPU multiplies matrices; weights, sums and everything else stay in f32.
    pub precision: Precision,
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
            precision: Precision::F32,
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
        let (batch, passes) = (self.batch_size as u64, self.accumulate as u64);
        let counts = [
            ("iterations", self.iterations),
            ("batch_size", batch),
            ("accumulate", passes),
            ("log_every", self.log_every),
            ("keep_checkpoints", self.keep_checkpoints as u64),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return refuse(format!("{key} must be at least 1"));
        }
        if !self.batch_size.is_multiple_of(self.accumulate) {
            return refuse(format!("batch_size = {batch} cannot be spread over accumulate = {passes} equal passes"));
        }
        let optimizer = &self.optimizer;
        if optimizer.betas.iter().any(|beta| !(0.0..1.0).contains(beta))
            || optimizer.eps.is_nan()
            || optimizer.eps <= 0.0
        {
            return refuse("optimizer.betas must lie in [0, 1), and optimizer.eps above 0".into());
        }
        if optimizer.clip_norm.is_some_and(|limit| !limit.is_finite() || limit <= 0.0) {
            return refuse("optimizer.clip_norm must be above 0; leave it out not to clip".into());
        }
        let weights = &self.class_weights;
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
            || (!weights.is_empty() && weights.iter().all(|weight| *weight == 0.0))
        {
            return refuse("class_weights must be finite and not negative, and not all 0".into());
        }
        let schedule = [self.schedule.warmup_ratio, self.schedule.power, self.schedule.min_lr];
        if schedule.iter().any(|value| !value.is_finite() || *value < 0.0) {
            return refuse("schedule.warmup_ratio, power and min_lr must be finite and not negative".into());
        }
        let rates = [self.optimizer.lr, self.optimizer.decoder_lr_mult, self.optimizer.weight_decay];
        if rates.iter().any(|rate| !rate.is_finite() || *rate < 0.0) {
            return refuse("optimizer.lr, decoder_lr_mult and weight_decay must be finite and not negative".into());
        }
        Ok(())
    }
}
