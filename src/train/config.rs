//! `[train]` of a recipe.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kernels::{LossMean, Precision};
use crate::loss::DenseLossConfig;
use crate::text;
use crate::train::optimizer::OptimizerConfig;
use crate::train::reschedule;
use crate::train::schedule::Schedule;

/// A time as people write it: `90s`, `20m`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub Duration);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text::duration(&text).map(Self).map_err(|error| format!("{error}; for instance \"90s\", \"20m\" or \"1h30m\""))
    }
}

impl From<Time> for String {
    fn from(Time(time): Time) -> Self {
        text::spell(time)
    }
}

/// No run has more iterations.
pub(crate) const MOST_ITERATIONS: u64 = 1 << 40;

/// `[train]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TrainConfig {
    /// Iterations: steps of the optimizer, each on `batch_size` images.
    pub iterations: u64,
    /// How long training and its evaluations may take, over all interruptions, for instance `"15m"`; none for as long
    /// as it takes. A run that would miss that end is rescheduled to it: it has fewer iterations, and its learning rate
    /// reaches its end with them.
    pub max_time: Option<Time>,
    /// Up to how many iterations a run with `max_time` may be lengthened where it is faster than thought; by none if
    /// left out.
    pub max_iterations: Option<u64>,
    /// Images a step.
    pub batch_size: usize,
    /// Passes over which a step's batch is spread; the gradient is the mean over them. Divides the batch size.
    pub accumulate: usize,
    /// Decides initial weights, batches, augmentation and dropped paths.
    pub seed: u64,
    /// Weights to start from: `.safetensors`, `.pth` or `.npz`, a backbone's or a whole network's. Loaded by
    /// [`run::train`](crate::run::train), and not by a [`Trainer`](crate::train::Trainer).
    pub pretrained: Option<PathBuf>,
    /// Takes only the backbone of a whole network, for other classes.
    pub pretrained_backbone_only: bool,
    /// The backbone keeps its weights.
    pub freeze_backbone: bool,
    /// Whether the loss is a mean over all pixels, ignored ones included (mmsegmentation's), or over the valid ones.
    pub loss_mean: LossMean,
    /// Weight of each class in the loss, for decoders of queries in that of a query's class; empty means 1 for all.
    pub class_weights: Vec<f32>,
    /// What the loss of predictions for every pixel is made of; decoders of queries have their own.
    pub loss: DenseLossConfig,
    /// Decay of the moving average of the weights (for instance 0.999), which is then what is evaluated and published.
    pub ema: Option<f64>,
    /// In what precision the CPU multiplies matrices; weights, sums and everything else stay in f32.
    pub precision: Precision,
    /// The optimizer and its groups.
    pub optimizer: OptimizerConfig,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// Iterations between evaluations on the validation split; 0 evaluates only at the end.
    pub eval_every: u64,
    /// How often a run that is seen to have collapsed, to one class everywhere, is started again with a third of the
    /// learning rate and products in f32; 0 only says so.
    pub restarts: u64,
    /// Evaluations without a better mIoU after which the run ends; 0 never ends early.
    pub patience: u64,
    /// Iterations between checkpoints; 0 saves only at the end.
    pub save_every: u64,
    /// Checkpoints kept.
    pub keep_checkpoints: usize,
    /// Iterations between rows of the log.
    pub log_every: u64,
    /// Writes event files for TensorBoard too.
    pub tensorboard: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            iterations: 160_000,
            max_time: None,
            max_iterations: None,
            batch_size: 16,
            accumulate: 1,
            seed: 0,
            pretrained: None,
            pretrained_backbone_only: false,
            freeze_backbone: false,
            loss_mean: LossMean::All,
            class_weights: Vec::new(),
            loss: DenseLossConfig::default(),
            ema: None,
            precision: Precision::F32,
            optimizer: OptimizerConfig::default(),
            schedule: Schedule::default(),
            eval_every: 8_000,
            restarts: 0,
            patience: 0,
            save_every: 1_000,
            keep_checkpoints: 2,
            log_every: 10,
            tensorboard: true,
        }
    }
}

impl TrainConfig {
    /// Iterations that a run of this recipe can have at most.
    pub(crate) fn most(&self) -> u64 {
        let rescheduled = self.schedule.reschedules.iter().map(|reschedule| reschedule.iterations);
        rescheduled.chain(self.max_iterations).fold(self.iterations, u64::max)
    }

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
        let limits = [
            ("iterations", self.iterations, MOST_ITERATIONS),
            ("batch_size", batch, 1 << 16),
            ("keep_checkpoints", self.keep_checkpoints as u64, 1 << 16),
            ("max_iterations", self.max_iterations.unwrap_or(0), MOST_ITERATIONS),
            ("schedule.warmup_iters", self.schedule.warmup_iters, MOST_ITERATIONS),
        ];
        if self.precision == Precision::Int8 {
            return refuse("precision = \"int8\" is for inference; use \"bf16\" to train faster".into());
        }
        if let Some((key, value, most)) = limits.iter().find(|(_, value, most)| value > most) {
            return refuse(format!("{key} = {value} is more than {most}"));
        }
        if let Some(most) = self.max_iterations {
            if most < self.iterations {
                return refuse(format!("max_iterations = {most} is less than iterations = {}", self.iterations));
            }
            if self.max_time.is_none() {
                return refuse("max_iterations is for runs with a max_time".into());
            }
        }
        if self.max_time.is_some() && !self.schedule.reschedules.is_empty() {
            return refuse(
                "schedule.reschedules repeats those of another run, but max_time makes new ones: leave out one of them"
                    .into(),
            );
        }
        if let Err(error) = reschedule::check(&self.schedule.reschedules, MOST_ITERATIONS) {
            return refuse(format!("schedule.{error}"));
        }
        if self.schedule.reschedules.first().is_some_and(|reschedule| reschedule.iteration >= self.iterations) {
            return refuse("schedule.reschedules[0] must come before the end of the run".into());
        }
        if !self.batch_size.is_multiple_of(self.accumulate) {
            return refuse(format!("batch_size = {batch} cannot be spread over accumulate = {passes} equal passes"));
        }
        if let Err(error) = self.optimizer.check().and_then(|()| self.loss.check()) {
            return refuse(error.to_string());
        }
        if self.ema.is_some_and(|decay| !(0.0..1.0).contains(&decay)) {
            return refuse("ema must be in [0, 1), for instance 0.999; leave it out for none".into());
        }
        if self.patience > 0 && self.eval_every == 0 {
            return refuse("patience counts evaluations: set eval_every too".into());
        }
        let weights = &self.class_weights;
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0)
            || (!weights.is_empty() && weights.iter().all(|weight| *weight == 0.0))
        {
            return refuse("class_weights must be finite and not negative, and not all 0".into());
        }
        if self.loss.adjust_logits && (weights.is_empty() || weights.contains(&0.0)) {
            return refuse("loss.adjust_logits takes the logarithms of class_weights: set them, all above 0".into());
        }
        let schedule = [self.schedule.warmup_ratio, self.schedule.power, self.schedule.min_lr];
        if schedule.iter().any(|value| !value.is_finite() || *value < 0.0) {
            return refuse("schedule.warmup_ratio, power and min_lr must be finite and not negative".into());
        }
        Ok(())
    }
}
