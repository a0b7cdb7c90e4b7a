//! Training: the loop, and what it is made of.
//!
//! Read [`Trainer::train`] first. Every iteration is a function of the seed and its number; so a run that was interrupted and
//! resumed ends in the same bytes on the CPU as one that was not. No file is opened here: [`Record`] keeps what is to be kept.

mod bend;
mod collapse;
mod config;
mod course;
pub mod ema;
mod losses;
mod observer;
pub mod optimizer;
mod record;
pub mod schedule;
mod state;
mod step;
mod timekeeper;

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;

pub use self::bend::Bend;
use self::collapse::Collapse;
pub(crate) use self::collapse::SMALLER;
pub(crate) use self::config::MOST_ITERATIONS;
pub use self::config::{Time, TrainConfig};
use self::course::Course;
use self::ema::Ema;
use self::losses::Losses;
use self::observer::Pace;
pub use self::observer::{Observer, Progress, Stop};
use self::optimizer::Optimizer;
pub use self::record::{Evaluation, Record};
pub(crate) use self::state::LONGEST_S;
pub use self::state::{RunState, TrainState};
pub use self::step::{Step, StepOutput, Trainable};
use self::timekeeper::Timekeeper;
use crate::augment::AugmentConfig;
use crate::dataset::Dataset;
use crate::decoder::DecoderLoss;
use crate::error::{Error, Result};
use crate::eval::{self, Evaluated};
use crate::infer::{InferConfig, Inference};
use crate::loader::Loader;
use crate::loader::preprocess::Preprocess;
use crate::loss::Criterion;
use crate::metrics::Scores;

/// Fits networks to data.
#[derive(Clone, Debug)]
pub struct Trainer {
    /// How long, at which rates, by which loss. Weights to start from are loaded by whoever builds the network:
    /// [`TrainConfig::pretrained`] is not looked at.
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

/// Where a run begins.
pub struct Start<M> {
    /// Where it stands.
    pub run: RunState,
    /// The network, on a device with autodiff, and the optimizer.
    pub train: TrainState<M>,
    /// The losses of its iterations so far, as they are known.
    pub losses: Vec<(u64, f64)>,
}

/// Where a run ended.
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

    /// Trains `model`, which lies on a device with autodiff, from its present weights; by the clock of the machine. Nothing is
    /// kept but the last weights: for the best of several evaluations use [`train`](Self::train) with a [`Record`].
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

    /// Trains from `start` to the end of the recipe, by a clock that tells the time since this process began with the run: what
    /// [`TrainConfig::max_time`] is held to.
    ///
    /// # Errors
    /// An image that cannot be had, a network that does not fit the classes, a record that cannot be kept, or a loss that is
    /// not finite.
    pub fn train<M: Trainable>(
        &self,
        start: Start<M>,
        training: Arc<dyn Dataset>,
        validation: &dyn Dataset,
        (record, observer): (&mut dyn Record<M>, &mut dyn Observer),
        clock: &dyn Fn() -> Duration,
    ) -> Result<End<M>> {
        self.config.check()?;
        self.preprocess.check()?;
        self.infer.check()?;
        let Start { run, mut train, losses } = start;
        if self.config.freeze_backbone {
            train.model = train.model.freeze_backbone();
        }
        let mut run = Run::new(
            self,
            (training, validation),
            (run, &losses, train.model.decoder_loss()),
            (record, observer),
            clock,
        )?;
        let mut reason = Reason::Done;
        while !run.is_over() {
            if run.is_told_to_stop() {
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
            if run.is_stale() || run.bends_to_its_end(&train)? {
                break;
            }
            train = run.step(train)?;
        }
        run.end(&train, reason)
    }

    /// Fails if the recipe does not fit so many classes.
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

/// A run while it goes.
struct Run<'a, M> {
    trainer: &'a Trainer,
    validation: &'a dyn Dataset,
    loader: Loader,
    criterion: Criterion,
    learning: Device,
    state: RunState,
    course: Course,
    keeper: Option<Timekeeper<'a>>,
    pace: Pace,
    losses: Losses,
    /// Whether the weights are to be saved as soon as it is known that they are sound.
    unsaved: bool,
    record: &'a mut dyn Record<M>,
    observer: &'a mut dyn Observer,
    clock: &'a dyn Fn() -> Duration,
}

impl<'a, M: Trainable> Run<'a, M> {
    fn new(
        trainer: &'a Trainer,
        (training, validation): (Arc<dyn Dataset>, &'a dyn Dataset),
        (state, losses, decoder): (RunState, &[(u64, f64)], DecoderLoss),
        (record, observer): (&'a mut dyn Record<M>, &'a mut dyn Observer),
        clock: &'a dyn Fn() -> Duration,
    ) -> Result<Self> {
        let train = &trainer.config;
        let criterion = trainer.criterion(training.classes().len(), decoder)?;
        let first = state.iteration * train.accumulate as u64;
        let batch_size = train.batch_size / train.accumulate;
        let loader = Loader::new(training, trainer.augment.clone(), batch_size, train.seed, first, trainer.workers)?;
        // Evaluations read images by one more: better now than after hours.
        let one_more = std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().is_ok());
        one_more.map_err(|error| {
            Error::new("cannot start a thread for evaluations").with_source(error).with_hint(ONE_MORE)
        })?;
        Ok(Self {
            trainer,
            validation,
            loader,
            criterion,
            learning: trainer.device.clone().autodiff(),
            course: Course::new(train, &state.bends),
            keeper: Timekeeper::new(train, clock, state.elapsed_s, state.iteration),
            pace: Pace::new(state.iteration),
            losses: Losses::new(losses),
            state,
            unsaved: false,
            record,
            observer,
            clock,
        })
    }

    fn is_over(&self) -> bool {
        self.state.iteration >= self.course.iterations(self.state.iteration)
    }

    fn is_told_to_stop(&mut self) -> bool {
        self.observer.stop(self.state.iteration) == Stop::Save
    }

    fn evaluation_is_due(&self) -> bool {
        self.course.evaluates(self.state.iteration, self.state.evaluated)
    }

    /// Stopping early: the last evaluations were none of them better.
    fn is_stale(&mut self) -> bool {
        let patience = self.trainer.config.patience;
        let stale = patience > 0 && self.state.stale >= patience;
        if stale {
            self.observer.note(&format!(
                "stopping early, after iteration {}: none of the last {} evaluations was better",
                self.state.iteration, self.state.stale
            ));
        }
        stale
    }

    /// What was learned so far survives whatever becomes of the evaluation.
    fn save_before_evaluation(&mut self, train: &TrainState<M>) -> Result<()> {
        self.ensure_finite(train)?;
        self.keeper.as_mut().map(Timekeeper::paused);
        self.save(train)
    }

    /// Evaluates, and tells why the run is to end, if it is.
    fn evaluate(&mut self, model: &M, goes_on: bool) -> Result<Option<Reason>> {
        let all = self.validation.len();
        let observer = &mut *self.observer;
        let see = &mut |image: &Evaluated| observer.evaluating(image, all).flow();
        let inference = inference(self.trainer, model);
        let Some(scores) = eval::evaluate_each(&inference, self.validation, see)? else {
            return Ok(Some(Reason::Interrupted));
        };
        let before = self.state.evaluated;
        self.offer(&scores, model)?;
        let it = self.state.iteration;
        let collapse = Collapse::of(&scores).filter(|_| !self.losses.learns(it));
        self.state.collapsed += u64::from(goes_on && collapse.is_some());
        self.state.elapsed_s = self.keeper.as_ref().map(Timekeeper::elapsed);
        self.record.update(&self.state)?;
        self.observer.evaluated(it, &scores);
        if let Some(collapse) = collapse {
            let config = &self.trainer.config;
            self.observer.note(&collapse.text(it, config));
            if goes_on && collapse::is_certain(&self.course, config, it, before, self.state.collapsed) {
                return Ok(Some(Reason::Collapsed));
            }
        }
        self.keeper.as_mut().map(Timekeeper::evaluated);
        self.pace.resume(it, self.loader.waited());
        Ok(None)
    }

    /// Notes an evaluation, and the weights if none before was better.
    fn offer(&mut self, scores: &Scores, model: &M) -> Result<()> {
        let iteration = self.state.iteration;
        // A bend at this very iteration comes after the evaluation.
        let iterations = self.course.iterations(iteration.saturating_sub(1)).max(iteration);
        let (repeated, best) = self.state.evaluated(scores.miou.unwrap_or(0.0));
        self.record.evaluation(&Evaluation { scores, iteration, iterations, repeated, best, model })
    }

    /// Looks at the clock now and then and gives the run another length where it would not end in time; whether that is to
    /// end here.
    fn bends_to_its_end(&mut self, train: &TrainState<M>) -> Result<bool> {
        let it = self.state.iteration;
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.is_due(it, &self.course)) else {
            return Ok(false);
        };
        keeper.paused();
        if keeper.wants_to_know_evaluations() {
            keeper.expect(estimate(self.trainer, &train.published(), self.validation, self.clock)?);
            keeper.skip();
        }
        let Some(bend) = keeper.look(it, &self.course) else { return Ok(false) };
        self.observer.note(&keeper.tell(&bend, self.course.iterations(it)));
        self.course.bend(bend);
        self.state.bends.push(bend);
        let observer = &mut *self.observer;
        self.record.bends(&self.state.bends, &mut |text| observer.note(text));
        Ok(bend.iterations == it)
    }

    /// One iteration: a batch, its gradients, a step of the optimizer.
    fn step(&mut self, mut train: TrainState<M>) -> Result<TrainState<M>> {
        let (it, config) = (self.state.iteration, &self.trainer.config);
        let progress = self.course.progress(it);
        let rates = config.schedule.rates(config.optimizer.lr, it, progress);
        let before = self.unsaved.then(|| train.model.clone());
        let (criterion, device) = (&self.criterion, &self.learning);
        let step = Step { config, preprocess: &self.trainer.preprocess, criterion, device };
        let output = train.gradients(&mut self.loader, &step, (it, progress))?;
        if !output.loss.is_finite() {
            return Err(not_finite(output.loss, it, &output.names, self.record.last_saved()));
        }
        self.losses.push(config, it, &output);
        // Only now is it known that the weights of the last iteration are sound.
        if let Some(before) = before {
            self.keeper.as_mut().map(Timekeeper::paused);
            let learned = std::mem::replace(&mut train.model, before);
            self.save(&train)?;
            train.model = learned;
            self.keeper.as_mut().map(Timekeeper::saved);
        }
        let StepOutput { gradients, loss, parts, .. } = output;
        let train = train.step(gradients, rates);
        self.state.iteration += 1;
        self.state.optimizer_steps = train.optimizer.steps();

        let (done, iterations) = (self.state.iteration, self.course.iterations(it));
        let waited = self.loader.waited();
        let progress = self.pace.tick([done, iterations], (loss, parts), rates.decoder, config.batch_size, waited);
        self.observer.iteration(&progress);
        if let Some(bend) = self.course.bend_at(it) {
            self.record.bend(bend)?;
        }
        if done % config.log_every == 0 || done == iterations {
            self.record.step(&progress)?;
        }
        self.unsaved = done < iterations && config.save_every > 0 && done.is_multiple_of(config.save_every);
        self.keeper.as_mut().map(Timekeeper::stepped);
        Ok(train)
    }

    /// Saves, and evaluates the last weights if they have not been.
    fn end(mut self, train: &TrainState<M>, mut reason: Reason) -> Result<End<M>> {
        let it = self.state.iteration;
        // A run that ends where it bends.
        if let Some(bend) = self.course.bend_at(it).filter(|bend| bend.iterations == it) {
            self.record.bend(bend)?;
        }
        self.state.elapsed_s = self.keeper.as_ref().map(Timekeeper::elapsed);
        if it > 0 {
            self.ensure_finite(train)?;
            self.save(train)?;
        }
        let model = train.published();
        if reason != Reason::Interrupted && (self.state.evaluated < it || !self.record.has_best()) {
            reason = self.evaluate(&model, false)?.unwrap_or(reason);
        }
        Ok(End { model, run: self.state, reason })
    }

    fn save(&mut self, train: &TrainState<M>) -> Result<()> {
        self.state.elapsed_s = self.keeper.as_ref().map(Timekeeper::elapsed);
        let observer = &mut *self.observer;
        self.record.save(&self.state, train, (self.clock)(), &mut |text| observer.note(text))
    }

    fn ensure_finite(&self, train: &TrainState<M>) -> Result<()> {
        if train.is_finite() {
            return Ok(());
        }
        let it = self.state.iteration.saturating_sub(1);
        Err(not_finite(f64::NAN, it, &["the weights".to_owned()], self.record.last_saved()))
    }
}

fn inference<'a, M: Trainable>(trainer: &'a Trainer, network: &'a M) -> Inference<'a> {
    Inference { network, preprocess: &trainer.preprocess, config: &trainer.infer, device: &trainer.device }
}

/// About how many seconds an evaluation takes, from two images of it.
fn estimate<M: Trainable>(
    trainer: &Trainer,
    model: &M,
    validation: &dyn Dataset,
    clock: &dyn Fn() -> Duration,
) -> Result<f64> {
    let all = validation.len();
    let mut took = 0.0;
    // The first warms up.
    for index in [0, all / 2].into_iter().filter(|index| *index < all) {
        let began = clock();
        inference(trainer, model).labels(&validation.get(index)?.image)?;
        took = clock().saturating_sub(began).as_secs_f64();
    }
    Ok(took * all as f64)
}

fn not_finite(loss: f64, iteration: u64, names: &[String], saved: Option<(u64, std::path::PathBuf)>) -> Error {
    let (kept, from) = match saved {
        Some((iteration, weights)) => (
            format!(
                "the checkpoint of iteration {iteration} in `{}` is good",
                weights.parent().unwrap_or(&weights).display()
            ),
            format!("; to start from the good weights set train.pretrained = \"{}\"", weights.display()),
        ),
        None => ("no checkpoint had been written yet".to_owned(), String::new()),
    };
    let what = if loss.is_nan() { "not a number".to_owned() } else { loss.to_string() };
    Error::new(format!("the loss is {what} at iteration {}, on {}; {kept}", iteration + 1, names.join(", "))).with_hint(
        format!(
            "start another run, in another --out folder, with a lower train.optimizer.lr, \
             train.optimizer.clip_norm = 1.0 or more train.schedule.warmup_iters{from}"
        ),
    )
}

/// What to do where the thread cannot be started that reads images for evaluations.
const ONE_MORE: &str = "allow this user more processes (ulimit -u), or use fewer --threads or lower data.workers";

#[cfg(test)]
mod tests;
