//! Training: the loop, and what it is made of.
//!
//! Read [`run`] first. Every iteration is a function of the seed and its number; so a run that was interrupted and resumed
//! ends in the same bytes on the CPU as one that was not.

pub mod checkpoint;
mod config;
pub mod ema;
mod listing;
mod look;
pub mod manifest;
mod memory;
mod observer;
pub mod optimizer;
mod origin;
mod prepare;
pub mod schedule;
mod sealed;
pub mod step;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;

use crate::config::Config;
use crate::data::loader::Loader;
use crate::data::{Cached, Dataset, Split};
use crate::error::{Error, Result};
use crate::eval::{self, Inference, MORE_THREADS, Scores};
use crate::layers::parameters;
use crate::loss::Criterion;
use crate::model::Model;
use crate::report::progress::{self, Row, RunLog};
use crate::weights::{self, LoadOptions};
use crate::{artifact, files};
use checkpoint::{Checkpoints, State};
pub use config::TrainConfig;
use ema::Ema;
use observer::Pace;
pub use observer::{Observer, Progress, Stop};
use optimizer::Optimizer;
pub use origin::{alike, made_by, still};
pub use prepare::{prepare, recipe};
use step::Learner;

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
    /// Was it told to save and stop?
    pub interrupted: bool,
    /// The evaluation whose weights are the run's `model.safetensors`: (iteration, mIoU).
    pub best: Option<(u64, f64)>,
}

/// Trains as `config` says.
///
/// # Errors
/// A dataset that cannot be read, or with `resume` another than the run began with; weights that do not fit, a folder that
/// cannot be written, or a loss that is not finite: then the run stops, says where, and the last checkpoint stays.
pub fn run(config: &Config, session: &Session, observer: &mut dyn Observer) -> Result<Outcome> {
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
            "warning: train.schedule.warmup_iters = {} does not end within train.iterations = {}: the learning rate stays \
             below train.optimizer.lr",
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
            let model = initial_model(fresh, config, observer)?;
            let ema = train.ema.map(|decay| Ema::new(model.valid(), decay));
            (State::default(), Learner { model, ema, optimizer: Optimizer::new(&train.optimizer) })
        }
    };
    if train.freeze_backbone {
        learner.model = learner.model.freeze_backbone();
    }

    let parameters = learner.model.num_params() as u64;
    listing::write(run, &listing)?;
    manifest::record(session, config, parameters, &data, state.iteration, &mut |text| observer.note(text))?;
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
    one_more.map_err(|error| Error::new("cannot start a thread for evaluations").source(error).hint(MORE_THREADS))?;
    let mut pace = Pace::new(state.iteration, train.iterations);
    let (mut interrupted, mut unsaved) = (false, false);
    while state.iteration < train.iterations {
        let stop = observer.stop(state.iteration);
        interrupted = stop == Stop::Save;
        if stop != Stop::No {
            break;
        }
        if due(state.iteration, train.eval_every) && state.evaluated < state.iteration {
            sound(&learner.model, &state, &checkpoints)?;
            // What was learned so far survives whatever becomes of the evaluation.
            log.sync()?;
            checkpoints.save(&state, &learner, &metadata)?;
            unsaved = false;
            let model = learner.published();
            let scores = evaluate(&model, validation.as_ref(), config, device, observer)?;
            offer(&scores, &mut state, &model, run, &metadata, &mut log)?;
            checkpoints.update(&state)?;
            observer.evaluated(state.iteration, &scores);
            pace.resume(state.iteration, loader.waited());
        }
        if train.patience > 0 && state.stale >= train.patience {
            observer.note(&format!(
                "ending early, after iteration {}: none of the last {} evaluations was better",
                state.iteration, state.stale
            ));
            break;
        }
        let it = state.iteration;
        let rates = train.schedule.rates(train.optimizer.lr, it, train.iterations);
        let before = unsaved.then(|| learner.model.clone());
        let found = learner.gradients(&mut loader, config, &criterion, it, &learning)?;
        if !found.loss.is_finite() {
            return Err(not_finite(found.loss, it, &found.names, &checkpoints));
        }
        // Only now is it known that the weights of the last iteration are sound.
        if let Some(before) = before {
            let learned = std::mem::replace(&mut learner.model, before);
            log.sync()?;
            checkpoints.save(&state, &learner, &metadata)?;
            learner.model = learned;
        }
        learner = learner.step(found.gradients, rates);
        state.iteration += 1;
        state.optimizer_steps = learner.optimizer.steps();

        let progress = pace.tick(state.iteration, found.loss, rates.decoder, train.batch_size, loader.waited());
        observer.iteration(&progress);
        if state.iteration % train.log_every == 0 || state.iteration == train.iterations {
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
        unsaved = state.iteration < train.iterations && due(state.iteration, train.save_every);
    }

    if state.iteration > 0 {
        sound(&learner.model, &state, &checkpoints)?;
        log.sync()?;
        checkpoints.save(&state, &learner, &metadata)?;
    }
    let model = learner.published();
    let published = run.join("model.safetensors").exists();
    if !interrupted && (state.evaluated < state.iteration || !published) {
        let scores = evaluate(&model, validation.as_ref(), config, device, observer)?;
        offer(&scores, &mut state, &model, run, &metadata, &mut log)?;
        checkpoints.update(&state)?;
        observer.evaluated(state.iteration, &scores);
    }
    Ok(Outcome { model, iteration: state.iteration, interrupted, best: state.best })
}

/// The scores of the run's `model.safetensors`.
///
/// # Errors
/// A file that cannot be read, or whose scores cannot be.
pub fn scores(run: &Path) -> Result<Scores> {
    let path = run.join(SCORES);
    let failed = |error: Error| {
        let run = run.display();
        error.hint(format!("`structtoken eval {run}/model.safetensors --out {run}/{SCORES}` writes them again"))
    };
    let text = files::read_text(&path, files::RECORD).map_err(|error| failed(Error::file("read", &path, error)))?;
    let scores: Scores =
        files::parse_json(text.as_bytes()).map_err(|error| failed(Error::file("read", &path, error)))?;
    scores.check().map_err(|error| failed(Error::file("use", &path, error)))?;
    Ok(scores)
}

/// The model with the weights that a run starts from.
fn initial_model(model: Model, config: &Config, observer: &mut dyn Observer) -> Result<Model> {
    let Some(path) = config.train.pretrained.as_deref() else { return Ok(model) };
    let state = weights::read(path)?;
    let whole = !config.train.pretrained_backbone_only
        && weights::our_names(&state)?.tensors.keys().any(|name| name.starts_with("decoder."));
    let options = if whole { LoadOptions::strict() } else { LoadOptions::pretrained_backbone() };
    let (model, report) = weights::load(model, &state, &options)
        .map_err(|error| Error::new(format!("cannot start from `{}`", path.display())).source(error))?;
    observer.note(&report.to_string());
    Ok(model)
}

fn not_finite(loss: f64, iteration: u64, names: &[String], checkpoints: &Checkpoints) -> Error {
    let (kept, from) = match checkpoints.list().ok().and_then(|mut all| all.pop()) {
        Some((iteration, folder)) => (
            format!("the checkpoint of iteration {iteration} in `{}` is good", folder.display()),
            format!(
                "; to start from the good weights set train.pretrained = \"{}/model.safetensors\"",
                folder.display()
            ),
        ),
        None => ("no checkpoint had been written yet".to_owned(), String::new()),
    };
    let what = if loss.is_nan() { "not a number".to_owned() } else { loss.to_string() };
    Error::new(format!("the loss is {what} at iteration {}, on {}; {kept}", iteration + 1, names.join(", "))).hint(
        format!(
            "start another run, in another --out folder, with a lower train.optimizer.lr, \
             train.optimizer.clip_norm = 1.0 or more train.schedule.warmup_iters{from}"
        ),
    )
}

/// Fails if a weight is not finite.
fn sound(model: &Model, state: &State, checkpoints: &Checkpoints) -> Result<()> {
    let mut finite = true;
    parameters::visit(model, |_, value| finite &= value.abs().max().into_scalar::<f32>().is_finite());
    match finite {
        true => Ok(()),
        false => Err(not_finite(f64::NAN, state.iteration.saturating_sub(1), &["the weights".to_owned()], checkpoints)),
    }
}

fn due(iteration: u64, every: u64) -> bool {
    every > 0 && iteration.is_multiple_of(every)
}

fn evaluate(
    model: &Model,
    validation: &dyn Dataset,
    config: &Config,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Scores> {
    let inference = Inference { network: model, preprocess: &config.data.preprocess, config: &config.eval, device };
    let all = validation.len();
    eval::evaluate_each(&inference, validation, &mut |image| observer.evaluating(image, all))
}

/// Logs an evaluation and, if none before was better, publishes the weights as the run's `model.safetensors`.
fn offer(
    scores: &Scores,
    state: &mut State,
    model: &Model,
    run: &Path,
    metadata: &BTreeMap<String, String>,
    log: &mut RunLog,
) -> Result<()> {
    let miou = scores.miou.unwrap_or(0.0);
    // One that is made again because its weights are gone is in the log already.
    let logged = state.evaluated == state.iteration && state.iteration > 0;
    state.evaluated = state.iteration;
    state.stale += 1;
    if !logged {
        log.write(&Row::Eval(progress::Eval {
            iteration: state.iteration,
            miou,
            pixel_accuracy: scores.aacc,
            mean_accuracy: scores.macc,
            loss: None,
            iou: scores.classes.iter().map(|class| (class.name.clone(), class.iou)).collect(),
        }))?;
    }
    log.sync()?;
    progress::write_table(run)?;
    if state.best.is_none_or(|(_, best)| miou >= best) {
        if state.best.is_none_or(|(_, best)| miou > best) {
            state.stale = 0;
        }
        state.best = Some((state.iteration, miou));
        let metadata = artifact::with_training(metadata, state.iteration, scores)?;
        weights::save(&run.join("model.safetensors"), model, &metadata)?;
        let json =
            serde_json::to_vec_pretty(scores).map_err(|error| Error::new("cannot write scores").source(error))?;
        files::write(&run.join(SCORES), &json)?;
    }
    Ok(())
}
