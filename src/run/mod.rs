//! A run: its folder, with everything that training writes and reads there, and the job that trains as a recipe says.
//!
//! | file | what it is |
//! |---|---|
//! | `config.toml` | the recipe, resolved |
//! | `model.safetensors`, `scores.json` | the best weights so far, and their scores |
//! | `checkpoints/` | all that the run needs to go on |
//! | `log.ndjson`, `metrics.csv`, `events.out.tfevents.…` | what the iterations told, as lines, as a table, for TensorBoard |
//! | `manifest.json` | which processes have worked on it, and on what data |
//! | `collapsed-1/` … | attempts that were given up |

pub mod checkpoint;
pub mod fingerprint;
mod job;
mod listing;
pub mod log;
mod look;
pub mod manifest;
mod memory;
mod onwards;
mod origin;
mod prepare;
mod restart;
pub mod rows;
mod sealed;
mod tensorboard;

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::metrics::Scores;
use crate::text::word;
pub use job::{Outcome, Session, train, train_by};
pub use manifest::Attempt;
pub use onwards::settings_of;
pub use origin::{alike, made_by, still};
pub use prepare::{ensure_free, prepare, recipe};
pub use restart::restart;

/// The recipe of a run, in its folder and in that of each checkpoint.
pub const CONFIG: &str = "config.toml";
/// The weights of a run, or of a checkpoint.
pub const MODEL: &str = "model.safetensors";
/// The scores of a run: those of its [`MODEL`].
pub const SCORES: &str = "scores.json";

/// The scores of the run's `model.safetensors`.
///
/// # Errors
/// A file that cannot be read, or whose scores cannot be.
pub fn scores(run: &Path) -> Result<Scores> {
    let path = run.join(SCORES);
    let failed = |error: Error| {
        let (model, scores) = (word(&run.join(MODEL)), word(&path));
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
