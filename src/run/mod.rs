//! A run: its folder, with everything that training writes and reads there, and the job that trains as a recipe says.
//!
//! | file | what it is |
//! |---|---|
//! | `config.toml` | the recipe, resolved |
//! | `model.safetensors`, `scores.json` | the best weights so far, and their scores |
//! | `checkpoints/` | all that the run needs to be resumed |
//! | `log.ndjson`, `metrics.csv`, `events.out.tfevents.…` | what the iterations reported, as lines, as a table, for TensorBoard |
//! | `data.ndjson` | the files of its data, with their checksums |
//! | `manifest.json` | which processes have worked on it, and on what data |
//! | `collapsed-1/` … | attempts that were given up |
//! | `damaged-log.ndjson`, `damaged-manifest.json` | what was found damaged, moved aside |
//! | `report.html` | the page, which [`crate::report::run`] writes last: a run that has it is finished |
//! | `.lock` | held by the process that works on the run |
//!
//! Every name is a constant below; a checkpoint's own files are in [`checkpoint`]. `structtoken compare` adds files of
//! its own, which `sweep::compare` names.

pub mod checkpoint;
mod checksummed_json;
mod file_checksums;
mod finetune;
pub mod fingerprint;
mod job;
mod least_memory;
pub mod log;
pub mod manifest;
mod prepare;
mod restart;
mod resume_check;
pub mod rows;
mod scan_data;
mod tensorboard;

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::metrics::Scores;
use crate::text::shell_word;
pub use finetune::settings_of;
pub use job::{Outcome, RunOptions, train, train_by};
pub use manifest::Attempt;
pub use prepare::{ensure_free, prepare, recipe};
pub use restart::{run_recipe, train_with_restarts};
pub use resume_check::{check_recipe, check_runs_data, check_runs_share_data};

/// The recipe of a run, in its folder and in that of each checkpoint.
pub const CONFIG: &str = "config.toml";
/// The weights of a run, or of a checkpoint.
pub const MODEL: &str = "model.safetensors";
/// The scores of a run: those of its [`MODEL`].
pub const SCORES: &str = "scores.json";
/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The log: one JSON object per line.
pub const LOG: &str = "log.ndjson";
/// Lines of the log that are damaged.
pub const DAMAGED_LOG: &str = "damaged-log.ndjson";
/// The log as a table.
pub const TABLE: &str = "metrics.csv";
/// What TensorBoard's files start with.
pub const EVENTS: &str = "events.out.tfevents";
/// The files of the data with their checksums, one image per line.
pub const DATA_FILES: &str = "data.ndjson";
/// Who worked on the run, and on what data.
pub const MANIFEST: &str = "manifest.json";
/// A manifest that is damaged.
pub const DAMAGED_MANIFEST: &str = "damaged-manifest.json";
/// The page, which is written last.
pub const PAGE: &str = "report.html";

/// The scores of the run's `model.safetensors`.
///
/// # Errors
/// A file that cannot be read, or whose scores cannot be.
pub fn scores(run: &Path) -> Result<Scores> {
    let path = run.join(SCORES);
    let failed = |error: Error| {
        let (model, scores) = (shell_word(&run.join(MODEL)), shell_word(&path));
        error.with_hint(format!("`structtoken eval {model} --out {scores}` writes them again"))
    };
    let text = files::read_text(&path, files::RECORD).map_err(|error| failed(Error::file("read", &path, error)))?;
    let scores: Scores =
        files::parse_json(text.as_bytes()).map_err(|error| failed(Error::file("read", &path, error)))?;
    scores.check().map_err(|error| failed(Error::file("use", &path, error)))?;
    Ok(scores)
}

#[cfg(test)]
mod tests;
