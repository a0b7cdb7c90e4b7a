//! Training: the loop, and what it is made of.
//!
//! Read [`run`] first. Every iteration is a function of the seed and its number; so a run that was interrupted and resumed
//! ends in the same bytes on the CPU as one that was not.

mod bend;
pub mod checkpoint;
mod collapse;
mod config;
pub mod ema;
mod listing;
mod look;
mod losses;
pub mod manifest;
mod memory;
mod observer;
mod onwards;
pub mod optimizer;
mod origin;
mod prepare;
mod publish;
pub mod schedule;
mod sealed;
pub mod step;
mod timekeeper;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;

use crate::config::Config;
use crate::data::loader::Loader;
use crate::data::{Cached, Classes, Dataset, Split};
use crate::error::{Error, Result};
use crate::eval::Scores;
use crate::loss::Criterion;
use crate::model::Model;
use crate::report::progress::{self, Row, RunLog};
use crate::text::word;
use crate::weights::{self, LoadOptions};
use crate::{artifact, files};
pub use bend::Bend;
use bend::Course;
use checkpoint::{Checkpoints, State};
use collapse::Collapse;
pub use collapse::{Attempt, restart};
pub use config::{Time, TrainConfig};
use ema::Ema;
use losses::Losses;
use observer::Pace;
pub use observer::{Observer, Progress, Stop};
pub use onwards::settings_of;
use optimizer::Optimizer;
pub use origin::{alike, made_by, still};
pub use prepare::{ensure_free, prepare, recipe};
use publish::{Judge, not_finite, offer, sound};
use step::Learner;
use timekeeper::Timekeeper;

/// The name of the scores in a run's folder: those of its `model.safetensors`.
pub const SCORES: &str = "scores.json";

/// Where a run lies, and how this process goes about it.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// The run's folder.
    pub run: &'a Path,
    /// Whether it goes on from its last checkpoint.
    pub resume: bool,
    /// Whether it is only tried for a moment: then nobody looks at all of its data first.
    pub trial: bool,
    /// The device.
    pub device: &'a Device,
    /// What the device is called.
    pub device_name: &'a str,
    /// The command, for the record.
    pub command: &'a str,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The weights after the last iteration, or their average if one is kept; without autodiff.
    pub model: Model,
    /// Iterations done.
    pub iteration: u64,
    /// How long all processes have worked on it, its collapsed attempts included.
    pub took: Duration,
    /// The same without those attempts, as far as is known.
    pub spent: Duration,
    /// Was it told to save and stop?
    pub interrupted: bool,
    /// The evaluation whose weights are the run's `model.safetensors`: (iteration, mIoU).
    pub best: Option<(u64, f64)>,
    /// How it was bent to end in time, beside what the recipe says.
    pub bends: Vec<Bend>,
    /// Was it given up since it had collapsed? Then [`restart`] begins it again.
    pub collapsed: bool,
}

/// Trains as `config` says.
///
/// # Errors
/// A dataset that cannot be read, or with `resume` another than the run began with; weights that do not fit, a folder that
/// cannot be written, or a loss that is not finite: then the run stops, says where, and the last checkpoint stays.
pub fn run(config: &Config, session: &Session, observer: &mut dyn Observer) -> Result<Outcome> {
    let started = Instant::now();
    run_by(config, session, &|| started.elapsed(), observer)
}

/// Trains as `config` says, by a clock that tells the time since this process began with the run: what `train.max_time` is
/// held to.
///
/// # Errors
/// As [`run`].
pub fn run_by(
    config: &Config,
    session: &Session,
    clock: &dyn Fn() -> Duration,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let Session { run, resume, device, .. } = *session;
    let train = &config.train;
    let training = Arc::new(Cached::new(config.data.open(Split::Train)?, config.data.cache_mb << 20));
    let validation = config.data.open(Split::Val)?;
    let classes = training.classes().clone();
    memory::ensure(config, classes.len(), device)?;
    let checkpoints = Checkpoints::new(run, train.keep_checkpoints);
    let (data, listing) =
        look::look(config, session, [training.as_ref(), validation.as_ref()], &checkpoints, observer)?;
    if train.schedule.warmup_iters >= train.iterations {
        observer.note(&format!(
            "warning: train.schedule.warmup_iters = {} does not end within train.iterations = {}: the learning rate \
             never reaches train.optimizer.lr",
            train.schedule.warmup_iters, train.iterations
        ));
    }
    if !train.class_weights.is_empty() && train.class_weights.len() != classes.names.len() {
        let (given, needed) = (train.class_weights.len(), classes.names.len());
        return Err(Error::new(format!("train.class_weights has {given} values for {needed} classes")));
    }
    let criterion =
        Criterion { mean: train.loss_mean, class_weights: train.class_weights.clone(), config: train.loss.clone() };
    let metadata = artifact::metadata(config, &classes)?;
    let json =
        serde_json::to_vec_pretty(&data).map_err(|error| Error::new("cannot describe the data").source(error))?;
    let checkpoints = checkpoints.of(config.to_toml()?, json);
    let learning = device.clone().autodiff();

    let fresh = config.model.init(classes.names.len(), train.seed, &learning);
    let saved = match resume {
        true => checkpoints.load_last(&fresh, train, device, &mut |text| observer.note(text))?,
        false => None,
    };
    let (mut state, mut learner) = match saved {
        Some(saved) => {
            observer.note(&format!("resuming after iteration {}", saved.0.iteration));
            saved
        }
        None => {
            if resume {
                observer.note("there is no checkpoint yet: starting from the beginning");
            }
            let model = initial_model(fresh, config, &classes, observer)?;
            let ema = train.ema.map(|decay| Ema::new(model.valid(), decay));
            (State::default(), Learner { model, ema, optimizer: Optimizer::new(&train.optimizer) })
        }
    };
    if train.freeze_backbone {
        learner.model = learner.model.freeze_backbone();
    }

    let parameters = learner.model.num_params() as u64;
    listing::write(run, &listing)?;
    manifest::record(session, config, parameters, &data, &state, &mut |text| observer.note(text))?;
    let mut log = RunLog::resume(run, state.iteration, state.evaluated, &mut |text| observer.note(text))?;
    if train.tensorboard {
        log = log.with_events(run)?;
    }
    let first = state.iteration * train.accumulate as u64;
    let batch_size = train.batch_size / train.accumulate;
    let mut loader =
        Loader::new(training, config.data.augment.clone(), batch_size, train.seed, first, config.data.workers)?;
    // Evaluations read images by one more: better now than after hours.
    let one_more = std::thread::Builder::new().spawn(|| ()).map(|thread| thread.join().is_ok());
    one_more.map_err(|error| Error::new("cannot start a thread for evaluations").source(error).hint(ONE_MORE))?;
    let judge = Judge { validation: validation.as_ref(), config, device };
    let mut course = Course::new(train, &state.bends);
    let mut keeper = Timekeeper::new(train, clock, state.elapsed_s, state.iteration);
    let mut pace = Pace::new(state.iteration);
    let mut losses = Losses::logged(run)?;
    let (mut interrupted, mut unsaved, mut collapsed) = (false, false, false);
    while state.iteration < course.iterations(state.iteration) {
        interrupted = observer.stop(state.iteration) == Stop::Save;
        if interrupted {
            break;
        }
        if course.evaluates(state.iteration, state.evaluated) {
            sound(&learner.model, &state, &checkpoints)?;
            keeper.as_mut().map(Timekeeper::paused);
            // What was learned so far survives whatever becomes of the evaluation.
            log.sync()?;
            state.elapsed_s = keeper.as_ref().map(Timekeeper::elapsed);
            checkpoints.save(&state, &learner, &metadata)?;
            manifest::took(run, clock(), &mut |text| observer.note(text));
            unsaved = false;
            let model = learner.published();
            let Some(scores) = judge.evaluate(&model, observer)? else {
                interrupted = true;
                break;
            };
            let before = state.evaluated;
            offer(&scores, &mut state, &course, &model, run, &metadata, &mut log)?;
            let collapse = Collapse::of(&scores).filter(|_| !losses.learns(state.iteration));
            state.collapsed += u64::from(collapse.is_some());
            state.elapsed_s = keeper.as_ref().map(Timekeeper::elapsed);
            checkpoints.update(&state)?;
            observer.evaluated(state.iteration, &scores);
            if let Some(collapse) = collapse {
                observer.note(&collapse.text(state.iteration, train));
                collapsed = collapse::is_certain(&course, train, state.iteration, before, state.collapsed);
                if collapsed {
                    break;
                }
            }
            keeper.as_mut().map(Timekeeper::evaluated);
            pace.resume(state.iteration, loader.waited());
        }
        if train.patience > 0 && state.stale >= train.patience {
            observer.note(&format!(
                "stopping early, after iteration {}: none of the last {} evaluations was better",
                state.iteration, state.stale
            ));
            break;
        }
        let it = state.iteration;
        if let Some(keeper) = keeper.as_mut().filter(|keeper| keeper.is_due(it, &course)) {
            keeper.paused();
            if keeper.wants_to_know_evaluations() {
                keeper.foresee(judge.foretell(&learner.published(), clock)?);
                keeper.skip();
            }
            if let Some(bend) = keeper.look(it, &course) {
                observer.note(&keeper.tell(&bend, course.iterations(it)));
                course.bend(bend);
                state.bends.push(bend);
                manifest::bent(run, &state.bends, &mut |text| observer.note(text));
                if bend.iterations == it {
                    break;
                }
            }
        }
        let progress = course.progress(it);
        let rates = train.schedule.rates(train.optimizer.lr, it, progress);
        let before = unsaved.then(|| learner.model.clone());
        let found = learner.gradients(&mut loader, config, &criterion, (it, progress), &learning)?;
        if !found.loss.is_finite() {
            return Err(not_finite(found.loss, it, &found.names, &checkpoints));
        }
        losses.push(train, it, &found);
        // Only now is it known that the weights of the last iteration are sound.
        if let Some(before) = before {
            keeper.as_mut().map(Timekeeper::paused);
            let learned = std::mem::replace(&mut learner.model, before);
            log.sync()?;
            state.elapsed_s = keeper.as_ref().map(Timekeeper::elapsed);
            checkpoints.save(&state, &learner, &metadata)?;
            manifest::took(run, clock(), &mut |text| observer.note(text));
            learner.model = learned;
            keeper.as_mut().map(Timekeeper::saved);
        }
        learner = learner.step(found.gradients, rates);
        state.iteration += 1;
        state.optimizer_steps = learner.optimizer.steps();

        let iterations = course.iterations(it);
        let progress =
            pace.tick([state.iteration, iterations], found.loss, rates.decoder, train.batch_size, loader.waited());
        observer.iteration(&progress);
        if let Some(bend) = course.bend_at(it) {
            log.write(&bent(bend))?;
        }
        if state.iteration % train.log_every == 0 || state.iteration == iterations {
            log.write(&Row::Step(progress::Step {
                iteration: it,
                loss: found.loss,
                lr: rates.decoder,
                images_per_s: Some(progress.images_per_s),
                wait_share: Some(progress.wait_share),
                grad_norm: None,
                parts: found.parts.into_iter().map(|(name, value)| (name, Some(value))).collect(),
            }))?;
        }
        unsaved = state.iteration < iterations && due(state.iteration, train.save_every);
        keeper.as_mut().map(Timekeeper::stepped);
    }
    // A run that ends where it bends.
    if let Some(bend) = course.bend_at(state.iteration).filter(|bend| bend.iterations == state.iteration) {
        log.write(&bent(bend))?;
    }
    state.elapsed_s = keeper.as_ref().map(Timekeeper::elapsed);
    if state.iteration > 0 {
        sound(&learner.model, &state, &checkpoints)?;
        log.sync()?;
        checkpoints.save(&state, &learner, &metadata)?;
    }
    let model = learner.published();
    let published = run.join("model.safetensors").exists();
    if !interrupted && (state.evaluated < state.iteration || !published) {
        match judge.evaluate(&model, observer)? {
            Some(scores) => {
                offer(&scores, &mut state, &course, &model, run, &metadata, &mut log)?;
                state.elapsed_s = keeper.as_ref().map(Timekeeper::elapsed);
                checkpoints.update(&state)?;
                observer.evaluated(state.iteration, &scores);
                if let Some(collapse) = Collapse::of(&scores).filter(|_| !losses.learns(state.iteration)) {
                    observer.note(&collapse.text(state.iteration, train));
                }
            }
            None => interrupted = true,
        }
    }
    let took = manifest::took(run, clock(), &mut |text| observer.note(text));
    let spent = state.elapsed_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_else(clock);
    let State { iteration, best, bends, .. } = state;
    Ok(Outcome { model, iteration, took, spent, interrupted, best, bends, collapsed })
}

fn due(iteration: u64, every: u64) -> bool {
    every > 0 && iteration.is_multiple_of(every)
}

/// A bend as a row of the log.
fn bent(Bend { iteration, iterations, eval_every }: Bend) -> Row {
    Row::Bend(progress::Bend { iteration, iterations, eval_every })
}

/// The scores of the run's `model.safetensors`.
///
/// # Errors
/// A file that cannot be read, or whose scores cannot be.
pub fn scores(run: &Path) -> Result<Scores> {
    let path = run.join(SCORES);
    let failed = |error: Error| {
        let (model, scores) = (word(&run.join("model.safetensors")), word(&path));
        error.hint(format!("`structtoken eval {model} --out {scores}` writes them again"))
    };
    let text = files::read_text(&path, files::RECORD).map_err(|error| failed(Error::file("read", &path, error)))?;
    let scores: Scores =
        files::parse_json(text.as_bytes()).map_err(|error| failed(Error::file("read", &path, error)))?;
    scores.check().map_err(|error| failed(Error::file("use", &path, error)))?;
    Ok(scores)
}

/// The model for `classes` with the weights that a run starts from.
fn initial_model(model: Model, config: &Config, classes: &Classes, observer: &mut dyn Observer) -> Result<Model> {
    let Some(path) = config.train.pretrained.as_deref() else { return Ok(model) };
    let state = weights::read(path)?;
    let whole = !config.train.pretrained_backbone_only
        && weights::our_names(&state)?.tensors.keys().any(|name| name.starts_with("decoder."));
    // A model of ours says what its classes are.
    if whole && state.metadata.contains_key(artifact::KEY) {
        let card = artifact::read_card(path).map_err(|error| Error::file("start from", path, error))?;
        let (model, told) = onwards::load(model, state, &card, classes, (config, path))?;
        observer.note(&told);
        return Ok(model);
    }
    let options = if whole { LoadOptions::strict() } else { LoadOptions::pretrained_backbone() };
    let (model, report) = weights::load(model, &state, &options)
        .map_err(|error| Error::new(format!("cannot start from `{}`", path.display())).source(error))?;
    observer.note(&report.to_string());
    Ok(model)
}

/// What to do where the thread cannot be started that reads images for evaluations.
const ONE_MORE: &str = "allow this user more processes (ulimit -u), or use fewer --threads or lower data.workers";

#[cfg(test)]
mod tests;
