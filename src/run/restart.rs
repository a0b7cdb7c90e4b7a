//! A run that has collapsed, put aside and started again.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use super::manifest::{self, Attempt};
use super::{CHECKPOINTS, CONFIG, EVENTS, LOG, MODEL, Outcome, RunOptions, SCORES, TABLE, train_by};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::kernels::Precision;
use crate::train::{LR_DIVISOR, Observer, Time, TrainConfig};
use crate::{files, text};

/// Trains as `config` says. A run that has collapsed is put aside and started again, as often as `train.restarts`
/// allows; `spent` is the time that counts towards the first attempt before it starts.
///
/// # Errors
/// As [`train`](super::train), or files of a collapsed attempt that cannot be moved.
pub fn train_with_restarts(
    config: &Config,
    options: &RunOptions,
    spent: Duration,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let (mut config, mut options, mut spent) = (config.clone(), *options, spent);
    loop {
        let started = Instant::now();
        let outcome = train_by(&config, &options, &|| spent + started.elapsed(), observer)?;
        if !outcome.collapsed {
            return Ok(outcome);
        }
        let next = match options.group.leads() {
            true => {
                let (next, message) = restart(&config, options.run, &outcome)?;
                observer.note(&message);
                Some(next)
            }
            false => None,
        };
        observer.restarted();
        let next = run_recipe(options.group, next)?;
        (config, options.resume, spent) = (next, true, Duration::ZERO);
    }
}

/// The recipe of the first process, for all.
///
/// # Errors
/// Processes that do not work in step, or a recipe that cannot be sent.
pub fn run_recipe(group: &dyn Group, own: Option<Config>) -> Result<Config> {
    if let (Some(config), true) = (&own, group.is_alone()) {
        return Ok(config.clone());
    }
    let text = group.agree(own.as_ref().map(Config::to_toml).transpose()?)?.unwrap_or_default();
    own.map_or_else(|| Config::parse(&text, "the recipe of the first process", &[]), Ok)
}

/// Puts a run that has collapsed aside, within its folder, and gives the recipe of the next attempt, which is in
/// the folder then: a third of the learning rate, products in f32, and what is left of the time. Also what was done, in
/// words.
///
/// # Errors
/// Files that cannot be moved or written.
pub(super) fn restart(config: &Config, run: &Path, outcome: &Outcome) -> Result<(Config, String)> {
    let next = next(&config.train, outcome);
    let next = Config { train: next, ..config.clone() };
    let changed = config.differences(&next)?;
    let folder = (1..).map(|n| format!("collapsed-{n}")).find(|name| !run.join(name).exists()).unwrap_or_default();
    let aside = run.join(&folder);
    fs::create_dir_all(&aside).map_err(|error| Error::file("create", &aside, error))?;
    for name in names(run)? {
        let from = run.join(&name);
        match fs::rename(&from, aside.join(&name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::file("move", &from, error)),
            _ => {}
        }
    }
    files::write(&run.join(CONFIG), next.to_toml()?.as_bytes())?;
    let attempt = Attempt { folder, iteration: outcome.iteration, changed };
    let message = restart_message(&next, &attempt);
    manifest::collapsed(run, attempt, &next)?;
    Ok((next, message))
}

/// The files of an attempt, of those in the folder of a run. The recipe comes last: until it is moved the run is
/// resumed with it, from its beginning where the checkpoints are gone.
fn names(run: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::file("read", run, error);
    let mut found = [CHECKPOINTS, MODEL, SCORES, LOG, TABLE].map(str::to_owned).to_vec();
    for entry in fs::read_dir(run).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(EVENTS) {
            found.push(name);
        }
    }
    found.push(CONFIG.to_owned());
    Ok(found)
}

/// What the next attempt does otherwise.
fn next(train: &TrainConfig, outcome: &Outcome) -> TrainConfig {
    let mut next = train.clone();
    next.restarts = train.restarts.saturating_sub(1);
    next.optimizer.lr /= LR_DIVISOR;
    next.precision = Precision::F32;
    if let Some(Time(limit)) = train.max_time {
        let left = Duration::from_secs(limit.saturating_sub(outcome.spent).as_secs().max(1));
        next.max_time = Some(Time(left));
        // What the attempt had come to think of the machine's speed, for the time that is left.
        let planned = outcome.reschedules.last().map_or(train.iterations, |reschedule| reschedule.iterations);
        let share = left.as_secs_f64() / limit.as_secs_f64();
        let scaled = |count: u64, share: f64| ((count as f64 * share) as u64).max(count.min(1));
        let of_all = share * planned as f64 / train.iterations as f64;
        next.iterations = scaled(train.iterations, of_all);
        next.max_iterations = train.max_iterations.map(|most| scaled(most, share).max(next.iterations));
        next.eval_every = scaled(train.eval_every, of_all);
        next.save_every = scaled(train.save_every, of_all);
        next.schedule.warmup_iters = scaled(train.schedule.warmup_iters, of_all);
    }
    next
}

/// What is reported when a run starts again.
fn restart_message(config: &Config, attempt: &Attempt) -> String {
    let time = config
        .train
        .max_time
        .map_or(String::new(), |time| format!(", within the {} that are left", text::spell(time.0)));
    format!(
        "the collapsed attempt is kept as `{}`; starting again{time}: {}",
        attempt.folder,
        attempt.changed.join(", ")
    )
}
