//! A training in progress: what the loop asks of it, one iteration or evaluation at a time.

use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Device;

use super::buckets::Buckets;
use super::collapse::{self, Collapse};
use super::forward_pass::{StepContext, Trainable};
use super::losses::Losses;
use super::observer::{Observer, Pace, Stop};
use super::passes::StepOutput;
use super::progress::RunProgress;
use super::record::{EvalRecord, Record};
use super::recorded_pass::RecordedPass;
use super::reschedule::Reschedule;
use super::state::{RunState, TrainState};
use super::time_limit::TimeLimit;
use super::together;
use super::{End, Reason, Trainer};
use crate::dataset::Dataset;
use crate::decoder::DecoderLoss;
use crate::error::{Error, Result};
use crate::eval::{self, Evaluated};
use crate::group::{Group, ordered_sum};
use crate::infer::{Inference, Network, Replayed};
use crate::loader::{Loader, Portion};
use crate::loss::Criterion;
use crate::metrics::Scores;

/// A run while it goes.
pub(super) struct Running<'a, M> {
    trainer: &'a Trainer,
    group: &'a dyn Group,
    validation: &'a dyn Dataset,
    loader: Loader,
    buckets: Buckets,
    recorded: RecordedPass<M>,
    criterion: Criterion,
    learning: Device,
    state: RunState,
    progress: RunProgress,
    time_limit: Option<TimeLimit<'a>>,
    pace: Pace,
    losses: Losses,
    /// Whether the weights are to be saved as soon as it is known that they are sound.
    unsaved: bool,
    record: &'a mut dyn Record<M>,
    observer: &'a mut dyn Observer,
    clock: &'a dyn Fn() -> Duration,
}

impl<'a, M: Trainable> Running<'a, M> {
    pub(super) fn new(
        (trainer, group): (&'a Trainer, &'a dyn Group),
        (training, validation): (Arc<dyn Dataset>, &'a dyn Dataset),
        (state, losses, decoder): (RunState, Vec<(u64, f64)>, DecoderLoss),
        (record, observer): (&'a mut dyn Record<M>, &'a mut dyn Observer),
        clock: &'a dyn Fn() -> Duration,
    ) -> Result<Self> {
        let train = &trainer.config;
        let criterion = trainer.criterion(training.classes().len(), decoder)?;
        together::ensure_enough(group, train.accumulate, train.batch_size)?;
        let (state, losses) = together::same_start(group, (state, losses))?;
        let own = ordered_sum::share(train.accumulate, group.rank(), group.size());
        let portion = Portion { first: own.start as u64, count: own.len() as u64, of: train.accumulate as u64 };
        let batch_size = train.batch_size / train.accumulate;
        let place = (portion, state.iteration);
        let loader = Loader::portion(training, trainer.augment.clone(), batch_size, train.seed, place, trainer.workers);
        let loader = group.all_or_none(loader)?;
        // Evaluations read images by one more: better now than after hours.
        let one_more = std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().is_ok());
        one_more.map_err(|error| {
            Error::new("cannot start a thread for evaluations").with_source(error).with_hint(ONE_MORE)
        })?;
        Ok(Self {
            trainer,
            group,
            validation,
            loader,
            buckets: Buckets::default(),
            recorded: RecordedPass::default(),
            criterion,
            learning: trainer.device.clone().autodiff(),
            progress: RunProgress::new(train, &state.reschedules),
            time_limit: TimeLimit::new(train, clock, state.elapsed_s, state.iteration).filter(|_| group.leads()),
            pace: Pace::new(state.iteration),
            losses: Losses::new(&losses),
            state,
            unsaved: false,
            record,
            observer,
            clock,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.iteration >= self.progress.iterations(self.state.iteration)
    }

    /// Whether anybody was told to save and stop.
    pub(super) fn must_stop(&mut self) -> Result<bool> {
        self.group.any(self.observer.stop(self.state.iteration) == Stop::Save)
    }

    pub(super) fn evaluation_is_due(&self) -> bool {
        self.progress.evaluates(self.state.iteration, self.state.evaluated)
    }

    /// Stopping early: the last evaluations were none of them better.
    pub(super) fn is_stale(&mut self) -> bool {
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
    pub(super) fn save_before_evaluation(&mut self, train: &TrainState<M>) -> Result<()> {
        self.ensure_finite(train)?;
        self.time_limit.as_mut().map(TimeLimit::part_done);
        self.save(train)
    }

    /// Evaluates, and tells why the run is to end, if it is.
    pub(super) fn evaluate(&mut self, model: &M, goes_on: bool) -> Result<Option<Reason>> {
        let Some(scores) = self.scores(model)? else { return Ok(Some(Reason::Interrupted)) };
        let before = self.state.evaluated;
        self.offer(&scores, model)?;
        let it = self.state.iteration;
        let collapse = Collapse::of(&scores).filter(|_| !self.losses.learns(it));
        self.state.collapsed += u64::from(goes_on && collapse.is_some());
        self.state.elapsed_s = self.time_limit.as_ref().map(TimeLimit::elapsed);
        self.record.update(&self.state)?;
        self.observer.evaluated(it, &scores);
        if let Some(collapse) = collapse {
            let config = &self.trainer.config;
            self.observer.note(&collapse.text(it, config));
            if goes_on && collapse::should_restart(&self.progress, config, it, before, self.state.collapsed) {
                return Ok(Some(Reason::Collapsed));
            }
        }
        self.time_limit.as_mut().map(TimeLimit::evaluated);
        self.pace.resume(it, self.loader.waited());
        Ok(None)
    }

    /// The scores of a network on all images; none if it was broken off.
    fn scores(&mut self, model: &M) -> Result<Option<Scores>> {
        let (group, dataset) = (self.group, self.validation);
        let indices: Vec<usize> = (group.rank()..dataset.len()).step_by(group.size()).collect();
        let observer = &mut *self.observer;
        let see = &mut |image: &Evaluated| observer.evaluating(image, indices.len()).flow();
        let network = Replayed::new(model.clone().for_inference());
        let inference = inference(self.trainer, &network);
        if group.is_alone() {
            return eval::evaluate_each(&inference, dataset, see);
        }
        let counts = group.all_or_none(eval::count_each(&inference, dataset, &indices, see))?;
        let Some(all) = group.gather_values(&counts)?.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let sum = all.into_iter().reduce(|mut sum, more| {
            sum.merge(&more);
            sum
        });
        Ok(sum.map(|counts| counts.scores(&dataset.classes().names)))
    }

    /// Notes an evaluation, and the weights if none before was better.
    pub(super) fn offer(&mut self, scores: &Scores, model: &M) -> Result<()> {
        let iteration = self.state.iteration;
        // A reschedule at this very iteration comes after the evaluation.
        let iterations = self.progress.iterations(iteration.saturating_sub(1)).max(iteration);
        let (repeated, best) = self.state.evaluated(scores.miou.unwrap_or(0.0));
        self.record.evaluation(&EvalRecord { scores, iteration, iterations, repeated, best, model })
    }

    /// Looks at the clock now and then and gives the run another length where it would not end in time; whether that is
    /// to end here.
    pub(super) fn reschedules_to_its_end(&mut self, train: &TrainState<M>) -> Result<bool> {
        if self.trainer.config.max_time.is_none() {
            return Ok(false);
        }
        let decided = self.reschedule_by_the_clock(train)?;
        let Some(reschedule) = self.group.agree(decided)? else { return Ok(false) };
        self.progress.reschedule(reschedule);
        self.state.reschedules.push(reschedule);
        let observer = &mut *self.observer;
        self.record.reschedules(&self.state.reschedules, &mut |text| observer.note(text));
        Ok(reschedule.iterations == self.state.iteration)
    }

    /// What the process with the clock decides.
    fn reschedule_by_the_clock(&mut self, train: &TrainState<M>) -> Result<Option<Reschedule>> {
        let it = self.state.iteration;
        let Some(time_limit) = self.time_limit.as_mut().filter(|time_limit| time_limit.is_due(it, &self.progress))
        else {
            return Ok(None);
        };
        time_limit.part_done();
        if time_limit.needs_evaluation_time() {
            time_limit.expect(estimate(self.trainer, &train.published(), self.validation, self.clock)?);
            time_limit.skip();
        }
        let Some(reschedule) = time_limit.check(it, &self.progress) else { return Ok(None) };
        self.observer.note(&time_limit.describe(&reschedule, self.progress.iterations(it)));
        Ok(Some(reschedule))
    }

    /// One iteration: a batch, its gradients, a step of the optimizer.
    pub(super) fn step(&mut self, mut train: TrainState<M>) -> Result<TrainState<M>> {
        let (it, config) = (self.state.iteration, &self.trainer.config);
        let progress = self.progress.progress(it);
        let rates = config.schedule.learning_rates(config.optimizer.lr, it, progress);
        let before = self.unsaved.then(|| train.model.clone());
        let (criterion, device) = (&self.criterion, &self.learning);
        let step = StepContext { config, preprocess: &self.trainer.preprocess, criterion, device, group: self.group };
        let output =
            train.gradients((&mut self.loader, &mut self.buckets, &mut self.recorded), &step, (it, progress))?;
        if !output.loss.is_finite() {
            return Err(not_finite(output.loss, it, &output.names, self.record.last_saved()));
        }
        self.losses.push(config, it, &output);
        // Only now is it known that the weights of the last iteration are sound.
        if let Some(before) = before {
            self.time_limit.as_mut().map(TimeLimit::part_done);
            let learned = std::mem::replace(&mut train.model, before);
            self.save(&train)?;
            train.model = learned;
            self.time_limit.as_mut().map(TimeLimit::checkpoint_done);
        }
        let StepOutput { gradients, loss, parts, .. } = output;
        let train = train.step(gradients, rates);
        self.state.iteration += 1;
        self.state.optimizer_steps = train.optimizer.steps();

        let (done, iterations) = (self.state.iteration, self.progress.iterations(it));
        let waited = self.loader.waited();
        let progress = self.pace.tick([done, iterations], (loss, parts), rates.decoder, config.batch_size, waited);
        self.observer.iteration(&progress);
        if let Some(reschedule) = self.progress.reschedule_at(it) {
            self.record.reschedule(reschedule)?;
        }
        if done % config.log_every == 0 || done == iterations {
            self.record.step(&progress)?;
        }
        if done.is_multiple_of(together::EVERY) {
            self.ensure_same(&train)?;
        }
        self.unsaved = done < iterations && config.save_every > 0 && done.is_multiple_of(config.save_every);
        self.time_limit.as_mut().map(TimeLimit::iteration_done);
        Ok(train)
    }

    /// Saves, and evaluates the last weights if they have not been.
    pub(super) fn end(mut self, train: &TrainState<M>, mut reason: Reason) -> Result<End<M>> {
        let it = self.state.iteration;
        // A run that ends where it is rescheduled.
        if let Some(reschedule) = self.progress.reschedule_at(it).filter(|reschedule| reschedule.iterations == it) {
            self.record.reschedule(reschedule)?;
        }
        self.state.elapsed_s = self.time_limit.as_ref().map(TimeLimit::elapsed);
        if it > 0 {
            self.ensure_finite(train)?;
            self.save(train)?;
        }
        let model = train.published();
        let unscored = self.group.agree(self.state.evaluated < it || !self.record.has_best())?;
        if reason != Reason::Interrupted && unscored {
            reason = self.evaluate(&model, false)?.unwrap_or(reason);
        }
        Ok(End { model, run: self.state, reason })
    }

    /// Fails where a process has other weights than the first.
    pub(super) fn ensure_same(&self, train: &TrainState<M>) -> Result<()> {
        together::ensure_same(self.group, &train.model, self.state.iteration)
    }

    pub(super) fn save(&mut self, train: &TrainState<M>) -> Result<()> {
        self.ensure_same(train)?;
        self.state.elapsed_s = self.time_limit.as_ref().map(TimeLimit::elapsed);
        let observer = &mut *self.observer;
        self.record.save(&self.state, train, (self.clock)(), &mut |text| observer.note(text))
    }

    pub(super) fn ensure_finite(&self, train: &TrainState<M>) -> Result<()> {
        if train.is_finite() {
            return Ok(());
        }
        let it = self.state.iteration.saturating_sub(1);
        Err(not_finite(f64::NAN, it, &["the weights".to_owned()], self.record.last_saved()))
    }
}

fn inference<'a>(trainer: &'a Trainer, network: &'a dyn Network) -> Inference<'a> {
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
    let network = model.clone().for_inference();
    let mut took = 0.0;
    // The first warms up.
    for index in [0, all / 2].into_iter().filter(|index| *index < all) {
        let began = clock();
        inference(trainer, &network).labels(&validation.get(index)?.image)?;
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
