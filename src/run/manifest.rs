//! `manifest.json`: with what a run was made, for those who want to make it again.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::files;
use crate::run::checksummed_json::{seal, unseal};
use crate::run::fingerprint::{Data, Fingerprint};
use crate::run::{DAMAGED_MANIFEST, MANIFEST, RunOptions};
use crate::train::{LONGEST_S, Reschedule, RunState};

/// With what a run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// The seed that all randomness follows from.
    pub seed: u64,
    /// The dataset as the recipe names it.
    pub dataset: String,
    /// What was found in its splits.
    pub data: Vec<Fingerprint>,
    /// What its TOML says; of early versions unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<serde_json::Value>,
    /// The recipe with every value, as TOML; of early versions unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Parameters of the network.
    pub parameters: u64,
    /// The processes that worked on it, one after the other.
    pub sessions: Vec<Session>,
    /// How it was rescheduled to end in time: put into the recipe as `train.schedule.reschedules`, without
    /// `train.max_time`, they repeat it.
    #[serde(default, alias = "bends", skip_serializing_if = "Vec::is_empty")]
    pub reschedules: Vec<Reschedule>,
    /// Attempts that collapsed, before the one that the rest is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collapsed: Vec<Attempt>,
}

/// One process's part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// The version of this program.
    pub version: String,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// After this many iterations.
    pub iteration: u64,
    /// The command.
    pub command: String,
    /// The device.
    pub device: String,
    /// Threads of the CPU's kernels.
    pub threads: usize,
    /// Seconds that it has worked on the run, as of the last checkpoint; of early versions unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_s: Option<f64>,
}

/// An attempt that collapsed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Attempt {
    /// The folder in that of the run where its recipe, log, weights and checkpoints are.
    pub folder: String,
    /// After how many iterations it was given up.
    pub iteration: u64,
    /// The keys in which the next attempt's recipe differs, each as `a.b: old -> new`.
    pub changed: Vec<String>,
}

impl Manifest {
    /// The time that all processes have worked on the run, its collapsed attempts included.
    pub fn took(&self) -> Duration {
        // A time that cannot be is that of a file that somebody has changed.
        let seconds = self.sessions.iter().filter_map(|session| session.took_s);
        let seconds: f64 = seconds.filter(|seconds| (0.0..=LONGEST_S).contains(seconds)).sum();
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

/// The manifest of the run in the folder `run`; none where there is none.
///
/// # Errors
/// One that cannot be read, or is not what was written.
pub fn read(run: &Path) -> Result<Option<Manifest>> {
    let path = run.join(MANIFEST);
    let bytes = match files::read(&path, files::RECORD) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| Error::file("read", &path, error))?,
    };
    parse(&bytes).map(Some).map_err(|error| Error::file("read", &path, error))
}

/// The manifest that `text` holds, with or without a checksum.
///
/// # Errors
/// A text that was altered, or is not a manifest.
pub fn parse(text: &[u8]) -> Result<Manifest> {
    unseal(text)
}

/// Notes that a session of the run starts in `state`, on `data`. `note` reports a manifest that is damaged,
/// which is no reason not to train.
pub(super) fn record(
    options: &RunOptions,
    config: &Config,
    parameters: u64,
    data: &Data,
    state: &RunState,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    let path = options.run.join(MANIFEST);
    let existing = match read(options.run) {
        Ok(found) => found.filter(|_| options.resume),
        Err(error) => {
            let aside = options.run.join(DAMAGED_MANIFEST);
            std::fs::rename(&path, &aside).ok();
            note(&format!("warning: {error}; it is moved to `{}`, and a new one is started", aside.display()));
            None
        }
    };
    let mut manifest = existing.unwrap_or_else(|| Manifest {
        seed: config.train.seed,
        dataset: config.data.dataset.clone(),
        data: Vec::new(),
        description: None,
        recipe: None,
        parameters,
        sessions: Vec::new(),
        reschedules: Vec::new(),
        collapsed: Vec::new(),
    });
    manifest.reschedules.clone_from(&state.reschedules);
    manifest.data.clone_from(&data.splits);
    manifest.description = Some(data.description.clone());
    manifest.recipe = Some(config.to_toml()?);
    manifest.sessions.push(Session {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        iteration: state.iteration,
        command: options.command.to_owned(),
        device: options.device_name.to_owned(),
        threads: rayon::current_num_threads(),
        took_s: None,
    });
    write(&path, &manifest)
}

fn write(path: &Path, manifest: &Manifest) -> Result<()> {
    let json = seal(manifest).map_err(|error| Error::file("write", path, error))?;
    files::write(path, &json)
}

/// Notes how long the last of the processes has worked on the run; what all have. `note` reports if that cannot be
/// written, which is no reason not to train.
pub(super) fn took(run: &Path, time: Duration, note: &mut dyn FnMut(&str)) -> Duration {
    let written = read(run).and_then(|manifest| {
        let Some(mut manifest) = manifest else { return Ok(time) };
        if let Some(session) = manifest.sessions.last_mut() {
            session.took_s = Some(time.as_secs_f64());
        }
        write(&run.join(MANIFEST), &manifest).map(|()| manifest.took())
    });
    written.unwrap_or_else(|error| {
        note(&format!("warning: cannot record in the manifest how long the run took: {error}"));
        time
    })
}

/// Notes how the run was rescheduled by now. `note` reports if that cannot be written, which is no reason not to train.
pub(super) fn rescheduled(run: &Path, reschedules: &[Reschedule], note: &mut dyn FnMut(&str)) {
    let written = read(run).and_then(|manifest| match manifest {
        Some(manifest) => write(&run.join(MANIFEST), &Manifest { reschedules: reschedules.to_vec(), ..manifest }),
        None => Ok(()),
    });
    if let Err(error) = written {
        note(&format!("warning: the manifest does not say how the run was rescheduled: {error}"));
    }
}

/// Notes that an attempt is put aside, and with what recipe the run starts again.
pub(super) fn collapsed(run: &Path, attempt: Attempt, next: &Config) -> Result<()> {
    // One that is damaged is no reason not to train.
    let Some(mut manifest) = read(run).ok().flatten() else { return Ok(()) };
    manifest.collapsed.push(attempt);
    manifest.reschedules.clear();
    manifest.recipe = Some(next.to_toml()?);
    write(&run.join(MANIFEST), &manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reschedules_of_earlier_versions_are_read() {
        let text =
            br#"{"seed": 1, "dataset": "shapes", "data": [], "parameters": 3, "sessions": [], "bends": [[10, 80]]}"#;
        let found = parse(text).unwrap();
        assert_eq!(found.reschedules, [Reschedule { iteration: 10, iterations: 80, eval_every: None }]);
        let now = String::from_utf8(seal(&found).unwrap()).unwrap();
        assert!(now.contains("\"reschedules\"") && parse(now.as_bytes()).unwrap() == found, "{now}");
    }
}
