//! Training: the loop, and what it is made of.
//!
//! Read [`Trainer::train`] first. Every iteration is a function of the seed and its number; so a run that was
//! interrupted and resumed ends in the same bytes on the CPU as one that was not. No file is opened here: [`Record`]
//! keeps what is to be kept.

mod buckets;
mod collapse;
mod config;
pub mod ema;
mod forward_pass;
mod gradients;
mod last_pass;
mod losses;
mod observer;
pub mod optimizer;
mod passes;
mod progress;
mod record;
mod recorded_pass;
mod reschedule;
mod running;
pub mod schedule;
mod state;
mod step;
mod time_limit;
mod together;

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;

pub(crate) use self::collapse::LR_DIVISOR;
pub(crate) use self::config::MOST_ITERATIONS;
pub use self::config::{Time, TrainConfig};
use self::ema::Ema;
pub use self::forward_pass::{StepContext, Trainable};
pub use self::observer::{Observer, Progress, Stop};
use self::optimizer::Optimizer;
pub use self::passes::StepOutput;
pub use self::record::{EvalRecord, Record};
pub use self::reschedule::Reschedule;
use self::running::Running;
pub(crate) use self::state::LONGEST_S;
pub use self::state::{RunState, TrainState};
use crate::augment::AugmentConfig;
use crate::dataset::Dataset;
use crate::decoder::DecoderLoss;
use crate::error::{Error, Result};
use crate::group::{Alone, Group};
use crate::infer::InferConfig;
use crate::kernels;
use crate::loader::preprocess::Preprocess;
use crate::loss::Criterion;

/// Fits networks to data.
#[derive(Clone, Debug)]
pub struct Trainer {
    /// How long, at which learning rates, by which loss. Weights to start from are loaded by whoever builds the
    /// network: [`TrainConfig::pretrained`] is not looked at.
    pub config: TrainConfig,
    /// What is done to images and masks at random.
    pub augment: AugmentConfig,
    /// How images become tensors.
    pub preprocess: Preprocess,
    /// Threads that read images.
    pub workers: usize,
    /// How evaluations infer.
    pub infer: InferConfig,
    /// Where it is computed.
    pub device: Device,
}

/// Where a run starts.
pub struct Start<M> {
    /// Where it stands.
    pub run: RunState,
    /// The network, on a device with autodiff, and the optimizer.
    pub train: TrainState<M>,
    /// The losses of its iterations so far, as they are known.
    pub losses: Vec<(u64, f64)>,
}

/// Where a run ended.
#[non_exhaustive]
pub struct End<M> {
    /// The weights after the last iteration, or their average if one is kept; without autodiff.
    pub model: M,
    /// Where it stands.
    pub run: RunState,
    /// Why it ended.
    pub reason: Reason,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// All is done that there was to do.
    Done,
    /// It was told to save and stop.
    Interrupted,
    /// Its network says one class everywhere, and the recipe allows another attempt.
    Collapsed,
}

impl<M: Trainable> Start<M> {
    /// The beginning of a run, with these weights.
    pub fn fresh(model: M, config: &TrainConfig) -> Self {
        let ema = config.ema.map(|decay| Ema::new(model.valid(), decay));
        let train = TrainState { model, ema, optimizer: Optimizer::new(&config.optimizer) };
        Self { run: RunState::default(), train, losses: Vec::new() }
    }
}

impl Trainer {
    /// With the defaults of a recipe for all that is not in its `[train]`.
    pub fn new(config: TrainConfig, device: &Device) -> Self {
        Self {
            config,
            augment: AugmentConfig::default(),
            preprocess: Preprocess::default(),
            workers: 2,
            infer: InferConfig::default(),
            device: device.clone(),
        }
    }

    /// Trains `model`, which lies on a device with autodiff, from its present weights; by the clock of the machine.
    /// Nothing is kept but the last weights: for the best of several evaluations use [`train`](Self::train) with a
    /// [`Record`].
    ///
    /// # Errors
    /// As [`Trainer::train`].
    pub fn fit<M: Trainable>(
        &self,
        model: M,
        training: Arc<dyn Dataset>,
        validation: &dyn Dataset,
        observer: &mut dyn Observer,
    ) -> Result<End<M>> {
        let started = Instant::now();
        let start = Start::fresh(model, &self.config);
        self.train(start, training, validation, (&mut (), observer), &|| started.elapsed())
    }

    /// Trains from `start` to the end of the recipe, by a clock that tells the time since this process started on the
    /// run: what [`TrainConfig::max_time`] is held to.
    ///
    /// # Errors
    /// An image that cannot be had, a network that does not fit the classes, a record that cannot be kept, or a loss
    /// that is not finite.
    pub fn train<M: Trainable>(
        &self,
        start: Start<M>,
        training: Arc<dyn Dataset>,
        validation: &dyn Dataset,
        (record, observer): (&mut dyn Record<M>, &mut dyn Observer),
        clock: &dyn Fn() -> Duration,
    ) -> Result<End<M>> {
        self.train_with(&Alone, start, training, validation, (record, observer), clock)
    }

    /// The same by several processes, which share the passes of every iteration ([`TrainConfig::accumulate`]): they end
    /// in the bytes of one process. Each is given the same `start`; where the run stands is what the first of them
    /// says, whose record and clock count.
    ///
    /// # Errors
    /// As [`train`](Self::train), by any of the processes; fewer passes than processes, a process that ends before the
    /// others, or one whose weights are not those of the first.
    pub fn train_with<M: Trainable>(
        &self,
        group: &dyn Group,
        start: Start<M>,
        training: Arc<dyn Dataset>,
        validation: &dyn Dataset,
        (record, observer): (&mut dyn Record<M>, &mut dyn Observer),
        clock: &dyn Fn() -> Duration,
    ) -> Result<End<M>> {
        kernels::instruction_set()?;
        self.config.check()?;
        self.preprocess.check()?;
        self.infer.check()?;
        let Start { run, mut train, losses } = start;
        if self.config.freeze_backbone {
            train.model = train.model.freeze_backbone();
        }
        let mut run = Running::new(
            (self, group),
            (training, validation),
            (run, losses, train.model.decoder_loss()),
            (record, observer),
            clock,
        )?;
        run.ensure_same(&train)?;
        let mut reason = Reason::Done;
        while !run.is_over() {
            if run.must_stop()? {
                reason = Reason::Interrupted;
                break;
            }
            if run.evaluation_is_due() {
                run.save_before_evaluation(&train)?;
                match run.evaluate(&train.published(), true)? {
                    None => {}
                    Some(early) => {
                        reason = early;
                        break;
                    }
                }
            }
            if run.is_stale() || run.reschedules_to_its_end(&train)? {
                break;
            }
            train = run.step(train)?;
        }
        run.end(&train, reason)
    }

    /// Fails if the recipe does not fit this many classes.
    pub(crate) fn ensure_fits(&self, classes: usize) -> Result<()> {
        self.criterion(classes, DecoderLoss::default()).map(drop)
    }

    fn criterion(&self, classes: usize, decoder: DecoderLoss) -> Result<Criterion> {
        let TrainConfig { class_weights, loss_mean, loss, .. } = &self.config;
        if !class_weights.is_empty() && class_weights.len() != classes {
            let given = class_weights.len();
            return Err(Error::new(format!("train.class_weights has {given} values for {classes} classes")));
        }
        Ok(Criterion { mean: *loss_mean, class_weights: class_weights.clone(), config: loss.clone(), decoder })
    }
}

#[cfg(test)]
mod tests;
