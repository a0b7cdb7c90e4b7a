//! A recipe trained in a folder: what the trainer works on, and what is kept of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;

use super::checkpoint::Checkpoints;
use super::log::{self, RunLog};
use super::rows::{self, Row};
use super::{MODEL, SCORES, file_checksums, finetune, least_memory, manifest, scan_data};
use crate::bundled;
use crate::config::Config;
use crate::dataset::{Cached, Classes, Dataset, Split};
use crate::error::{Error, Result};
use crate::files;
use crate::group::{Alone, Group};
use crate::model::Model;
use crate::model_file::{self, ModelCard};
use crate::train::{
    End, EvalRecord, Observer, Progress, Reason, Record, Reschedule, RunState, Start, TrainState, Trainer,
};
use crate::weights::{self, LoadOptions};

/// Where a run lies, and how this process goes about it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RunOptions<'a> {
    /// The run's folder.
    pub run: &'a Path,
    /// Whether it is resumed from its last checkpoint.
    pub resume: bool,
    /// Whether it is only tried for a moment: then nobody looks at all of its data first.
    pub trial: bool,
    /// The device.
    pub device: &'a Device,
    /// What the device is called.
    pub device_name: &'a str,
    /// The command, for the record.
    pub command: &'a str,
    /// The processes that share the work. All of them see the folder, and the first writes it.
    pub group: &'a dyn Group,
}

impl<'a> RunOptions<'a> {
    /// A run in the folder `run` on `device`, from its beginning.
    pub fn new(run: &'a Path, device: &'a Device) -> Self {
        Self { run, resume: false, trial: false, device, device_name: "", command: "", group: &Alone }
    }
}

/// How a run ended.
#[derive(Debug)]
#[non_exhaustive]
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
    /// How it was rescheduled to end in time, beside what the recipe says.
    pub reschedules: Vec<Reschedule>,
    /// Was it given up since it had collapsed? [`train_with_restarts`](super::train_with_restarts) starts such a run
    /// again.
    pub collapsed: bool,
}

/// Trains as `config` says.
///
/// # Errors
/// A dataset that cannot be read, or with `resume` another than the run started with; weights that do not fit, a folder
/// that cannot be written, or a loss that is not finite: then the run stops, says where, and the last checkpoint stays.
pub fn train(config: &Config, options: &RunOptions, observer: &mut dyn Observer) -> Result<Outcome> {
    let started = Instant::now();
    train_by(config, options, &|| started.elapsed(), observer)
}

/// Trains as `config` says, by a clock that tells the time since this process started on the run: what `train.max_time`
/// is held to.
///
/// # Errors
/// As [`train`].
pub fn train_by(
    config: &Config,
    options: &RunOptions,
    clock: &dyn Fn() -> Duration,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let (run, group) = (options.run, options.group);
    config.ensure_trainable(&run.join(super::CONFIG))?;
    let training = Arc::new(Cached::new(config.data.open(Split::Train)?, config.data.cache_mb << 20));
    let validation = config.data.open(Split::Val)?;
    let classes = training.classes().clone();
    least_memory::ensure(config, classes.len(), options.device)?;
    let checkpoints = Checkpoints::new(run, config.train.keep_checkpoints);
    // One process looks at all of the data.
    let looks = RunOptions { trial: options.trial || !group.leads(), ..*options };
    let (data, listing) =
        scan_data::scan_data(config, &looks, [training.as_ref(), validation.as_ref()], &checkpoints, observer)?;
    warn_of_warmup(config, observer);
    let trainer = trainer(config, options.device);
    trainer.ensure_fits(classes.len())?;
    let json =
        serde_json::to_vec_pretty(&data).map_err(|error| Error::new("cannot describe the data").with_source(error))?;
    let checkpoints = checkpoints.of(config.to_toml()?, json);
    let start = start(config, options, &classes, &checkpoints, observer)?;
    if !group.leads() {
        let kept = (&mut () as &mut dyn Record<Model>, observer);
        let end = trainer.train_with(group, start, training, validation.as_ref(), kept, clock)?;
        return Ok(outcome(end, clock(), clock()));
    }

    let parameters = start.train.model.num_params() as u64;
    file_checksums::write(run, &listing)?;
    manifest::record(options, config, parameters, &data, &start.run, &mut |text| observer.note(text))?;
    let (mut log, rows) =
        RunLog::resume(run, start.run.iteration, start.run.evaluated, &mut |text| observer.note(text))?;
    if config.train.tensorboard {
        log = log.with_events(run)?;
    }
    let mut kept = FolderRecord { run, log, checkpoints, card: ModelCard::new(config, &classes)? };
    let start = Start { losses: losses(rows), ..start };
    let end = trainer.train_with(group, start, training, validation.as_ref(), (&mut kept, observer), clock)?;

    let took = manifest::took(run, clock(), &mut |text| observer.note(text));
    let spent = end.run.elapsed_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_else(clock);
    Ok(outcome(end, took, spent))
}

fn outcome(end: End<Model>, took: Duration, spent: Duration) -> Outcome {
    let End { model, run: state, reason } = end;
    let RunState { iteration, best, reschedules, .. } = state;
    let (interrupted, collapsed) = (reason == Reason::Interrupted, reason == Reason::Collapsed);
    Outcome { model, iteration, took, spent, interrupted, best, reschedules, collapsed }
}

fn trainer(config: &Config, device: &Device) -> Trainer {
    Trainer {
        config: config.train.clone(),
        augment: config.data.augment.clone(),
        preprocess: config.data.preprocess.clone(),
        workers: config.data.workers,
        infer: config.eval.clone(),
        device: device.clone(),
    }
}

fn warn_of_warmup(config: &Config, observer: &mut dyn Observer) {
    let (warmup, iterations) = (config.train.schedule.warmup_iters, config.train.iterations);
    if warmup >= iterations {
        observer.note(&format!(
            "warning: train.schedule.warmup_iters = {warmup} does not end within train.iterations = {iterations}: the \
             learning rate never reaches train.optimizer.lr"
        ));
    }
}

/// From the last checkpoint of a run that is resumed, or from the weights that the recipe names.
fn start(
    config: &Config,
    options: &RunOptions,
    classes: &Classes,
    checkpoints: &Checkpoints,
    observer: &mut dyn Observer,
) -> Result<Start<Model>> {
    let train = &config.train;
    let fresh = config.model.init(classes.names.len(), train.seed, &options.device.clone().autodiff());
    let saved = match options.resume {
        true => checkpoints.load_last(&fresh, train, options.device, &mut |text| observer.note(text))?,
        false => None,
    };
    match saved {
        Some((run, train)) => {
            observer.note(&format!("resuming after iteration {}", run.iteration));
            Ok(Start { run, train, losses: Vec::new() })
        }
        None => {
            if options.resume {
                observer.note("there is no checkpoint yet: starting from the beginning");
            }
            Ok(Start::fresh(pretrained(fresh, config, classes, observer)?, train))
        }
    }
}

/// The model for `classes` with the weights that the recipe names, if it names any.
fn pretrained(model: Model, config: &Config, classes: &Classes, observer: &mut dyn Observer) -> Result<Model> {
    let Some(path) = config.train.pretrained.as_deref() else { return Ok(model) };
    let path = &*bundled::resolve(path)?;
    let state = weights::read(path)?;
    let whole = !config.train.pretrained_backbone_only
        && weights::remap_keys(&state)?.tensors.keys().any(|name| name.starts_with("decoder."));
    // A model of ours says what its classes are.
    if whole && state.metadata.contains_key(model_file::KEY) {
        let card = model_file::read_card(path).map_err(|error| Error::file("start from", path, error))?;
        let (model, message) = finetune::load(model, state, &card, classes, (config, path))?;
        observer.note(&message);
        return Ok(model);
    }
    let options = if whole { LoadOptions::strict() } else { LoadOptions::pretrained_backbone() };
    let (model, report) = weights::load(model, &state, &options)
        .map_err(|error| Error::new(format!("cannot start from `{}`", path.display())).with_source(error))?;
    observer.note(&report.to_string());
    Ok(model)
}

/// The losses of iterations that are not made again.
fn losses(rows: Vec<Row>) -> Vec<(u64, f64)> {
    let step = |row| if let Row::Step(step) = row { Some((step.iteration, step.loss)) } else { None };
    rows.into_iter().filter_map(step).collect()
}

/// What is kept of a run, in its folder.
struct FolderRecord<'a> {
    run: &'a Path,
    log: RunLog,
    checkpoints: Checkpoints,
    card: ModelCard,
}

impl Record<Model> for FolderRecord<'_> {
    fn step(&mut self, progress: &Progress) -> Result<()> {
        self.log.write(&Row::Step(rows::StepRow {
            iteration: progress.iteration.saturating_sub(1),
            loss: progress.loss,
            lr: progress.lr,
            images_per_s: Some(progress.images_per_s),
            wait_share: Some(progress.wait_share),
            parts: progress.parts.iter().map(|(name, value)| (name.clone(), Some(*value))).collect(),
        }))
    }

    fn reschedule(&mut self, Reschedule { iteration, iterations, eval_every }: Reschedule) -> Result<()> {
        self.log.write(&Row::Reschedule(rows::RescheduleRow { iteration, iterations, eval_every }))
    }

    fn reschedules(&mut self, reschedules: &[Reschedule], note: &mut dyn FnMut(&str)) {
        manifest::rescheduled(self.run, reschedules, note);
    }

    fn save(
        &mut self,
        state: &RunState,
        train: &TrainState<Model>,
        worked: Duration,
        note: &mut dyn FnMut(&str),
    ) -> Result<()> {
        self.log.sync()?;
        self.checkpoints.save(state, train, &self.card.metadata()?)?;
        manifest::took(self.run, worked, note);
        Ok(())
    }

    fn update(&mut self, state: &RunState) -> Result<()> {
        self.checkpoints.update(state)
    }

    fn evaluation(&mut self, found: &EvalRecord<Model>) -> Result<()> {
        let EvalRecord { scores, iteration, iterations, repeated, best, model } = *found;
        // One that is made again because its weights are gone is in the log already.
        if !repeated {
            self.log.write(&Row::Eval(rows::EvalRow {
                iteration,
                miou: scores.miou.unwrap_or(0.0),
                pixel_accuracy: scores.aacc,
                mean_accuracy: scores.macc,
                iou: scores.classes.iter().map(|class| (class.name.clone(), class.iou)).collect(),
            }))?;
        }
        self.log.sync()?;
        log::write_table(self.run)?;
        if best {
            let card = self.card.trained([iteration, iterations], scores);
            weights::save(&self.run.join(MODEL), model, &card.metadata()?)?;
            let json = serde_json::to_vec_pretty(scores)
                .map_err(|error| Error::new("cannot write scores").with_source(error))?;
            files::write(&self.run.join(SCORES), &json)?;
        }
        Ok(())
    }

    fn has_best(&self) -> bool {
        self.run.join(MODEL).exists()
    }

    fn last_saved(&self) -> Option<(u64, PathBuf)> {
        let (iteration, folder) = self.checkpoints.list().ok()?.pop()?;
        Some((iteration, folder.join(MODEL)))
    }
}
