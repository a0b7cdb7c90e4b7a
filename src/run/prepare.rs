//! The folder of a run, locked, started or resumed.

use std::path::Path;

use super::{CONFIG, MODEL};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files;
use crate::run::checkpoint::Checkpoints;
use crate::run::resume_check;

/// Makes the folder of a run, with its resolved recipe in `config.toml`. It is this process's until the lock is
/// dropped.
///
/// # Errors
/// The folder holds another run, or with `resume` one of other settings or one whose recipe was changed, or it is in
/// use, or it cannot be written.
pub fn prepare(config: &Config, run: &Path, resume: bool) -> Result<files::Lock> {
    let lock = files::Lock::take(run)?;
    prepare_locked(config, run, resume)?;
    Ok(lock)
}

/// Fails where no run can start in the folder `run`, so that this is reported before anything that takes long. Writes
/// nothing.
///
/// # Errors
/// It holds a run, or cannot be looked into.
pub fn ensure_free(run: &Path) -> Result<()> {
    let path = run.join(CONFIG);
    match path.symlink_metadata() {
        Ok(_) if has_started(run)? => Err(holds_one(run)),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unusable("use", &path, error)),
        _ => Ok(()),
    }
}

fn has_started(run: &Path) -> Result<bool> {
    Ok(run.join(MODEL).exists() || !Checkpoints::new(run, 1).list()?.is_empty())
}

fn holds_one(run: &Path) -> Error {
    Error::new(format!("`{}` already holds a run", run.display()))
        .with_hint("resume it with --resume, or choose another folder with --out")
}

fn unusable(verb: &str, path: &Path, error: std::io::Error) -> Error {
    Error::file(verb, path, error).with_hint("choose a folder that you may read and write with --out")
}

fn prepare_locked(config: &Config, run: &Path, resume: bool) -> Result<()> {
    let path = run.join(CONFIG);
    let text = config.to_toml()?;
    let has_run = has_started(run)?;
    match files::read_text(&path, files::RECIPE) {
        // What failed before its first checkpoint is not a run.
        Ok(_) if !resume && !has_run => {}
        Ok(_) if !resume => return Err(holds_one(run)),
        Ok(before) => {
            let before = Config::parse(&before, &path.display().to_string(), &[]);
            let before = before.map_err(|error| restorable(run, error))?;
            resume_check::same_recipe(run, &before)?;
            // Where its data lie now is no other setting, once they are not where they were; that they are the same is
            // seen from their files.
            let mut now = before.clone();
            if before.data.dataset == config.data.dataset || !Path::new(&before.data.dataset).exists() {
                now.data.dataset.clone_from(&config.data.dataset);
                now.data.root.clone_from(&config.data.root);
            }
            if now == *config {
                return Ok(());
            }
            return Err(Error::new(format!(
                "`{}` was started with other settings than now: {}",
                run.display(),
                before.differences(config)?.join(", ")
            ))
            .with_hint(
                "a resumed run must be the same run: leave out the recipe and --set to use what it was started with; \
                   to continue from its weights with other settings start a new run with train.pretrained",
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable("read", &path, error)),
    }
    if resume {
        return Err(Error::new(format!("there is no run to resume in `{}`", run.display()))
            .with_missing(&path)
            .with_hint("start it without --resume, or pass the right folder with --out"));
    }
    files::write(&path, text.as_bytes())
}

/// The recipe of the run in the folder `run`, to resume it.
///
/// # Errors
/// There is none, or it cannot be read any more: then where it is kept.
pub fn recipe(run: &Path, changes: &[String]) -> Result<Config> {
    let own = run.join(CONFIG);
    if own.exists() {
        return Config::read(&own, changes)
            .map_err(|error| if changes.is_empty() { restorable(run, error) } else { error });
    }
    let error = Error::new(format!("there is no run to resume in `{}`", run.display())).with_missing(&own);
    Err(match resume_check::restore_recipe(run) {
        Some(advice) => error.with_source(Error::new("its config.toml is gone")).with_hint(advice),
        None => error.with_hint("pass the folder of a run with --out, or pass a recipe and leave out --resume"),
    })
}

/// The error of a run's own recipe, with the way to get it back.
fn restorable(run: &Path, error: Error) -> Error {
    match resume_check::restore_recipe(run) {
        Some(advice) => Error::new("the run's own recipe is damaged").with_source(error).with_hint(advice),
        None => error,
    }
}
