//! `structtoken train --seeds` and `--folds`: several runs one after the other, each in a process and a folder of its
//! own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::cli::console::{emit, print};
use crate::cli::invocation::restart;
use crate::cli::runner::Runner;
use crate::cli::{Computing, End};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::sweep::repeat::{Repeat, Summary};
use crate::text::shell_word;
use crate::{files, run};

/// What a finished run leaves last.
const LAST: &str = run::PAGE;

/// How several runs were asked for.
pub(crate) struct Asked<'a> {
    /// Those that are there are continued.
    pub(crate) resume: bool,
    /// The summary is printed as JSON.
    pub(crate) json: bool,
    pub(crate) computing: &'a Computing,
}

/// Trains what is not trained of the runs in `dir`, and says how far apart they end.
pub(crate) fn run(arguments: &Asked, repeat: Repeat, recipe: &Config, dir: &Path) -> Result<End> {
    let runs = repeat.runs(recipe)?;
    let has_runs = runs.iter().any(|(name, _)| dir.join(name).exists());
    if has_runs && !arguments.resume {
        return Err(Error::new(format!("`{}` already holds several runs", dir.display()))
            .with_hint("resume them with --resume, or choose another folder with --out"));
    }
    belong_together(&runs, dir)?;
    let _lock = run::prepare(recipe, dir, arguments.resume)?;
    repeat.write(dir)?;
    if let Repeat::Folds(count) = repeat {
        talk!(
            "each run trains on all training images but one part of {count}, on which it is evaluated; the split [val] \
             is not used"
        );
    }
    let mut runner = Runner::new(arguments.computing, None)?;
    let names: Vec<String> = runs.iter().map(|(name, _)| name.clone()).collect();
    let recipes: BTreeMap<&str, &Config> = runs.iter().map(|(name, config)| (name.as_str(), config)).collect();
    let interrupted = runner.work(
        &names,
        |name| dir.join(name).join(LAST).exists(),
        |name| train_command(recipes[name], &dir.join(name)),
    )?;
    if interrupted {
        talk!("saved; continue with:\n  structtoken train --resume --out {}", shell_word(dir));
        return Ok(End::Interrupted);
    }
    if !runner.failed.is_empty() {
        let (failed, all) = (runner.failed.len(), runs.len());
        return Err(Error::new(format!("{failed} of {all} runs failed: {}", runner.failed.join(", ")))
            .with_hint(format!("their errors are above; continue with --resume --out {}", shell_word(dir))));
    }
    let scores = runs.iter().map(|(name, _)| Ok((name.clone(), run::scores(&dir.join(name))?)));
    let summary = Summary::new(repeat, &scores.collect::<Result<Vec<_>>>()?)?;
    let folders: Vec<_> = runs.iter().map(|(name, _)| dir.join(name)).collect();
    run::check_runs_share_data(&folders, matches!(repeat, Repeat::Folds(_)))?;
    summary.write(dir)?;
    if arguments.json {
        emit(&serde_json::to_value(&summary).map_err(|error| Error::new("cannot write JSON").with_source(error))?);
    } else {
        print(summary.table().trim_end());
    }
    talk!("written to `{}`", dir.join("summary.md").display());
    Ok(End::Done)
}

/// How one run is started, or resumed if it has started before.
fn train_command(config: &Config, run: &Path) -> Result<Command> {
    // Not `with_extension`: a name may have a dot.
    let recipe = run.with_file_name(format!("{}.toml", run.file_name().unwrap_or_default().display()));
    files::write(&recipe, config.to_toml()?.as_bytes())?;
    let mut command = restart()?;
    command.arg("train").arg(&recipe).arg("--out").arg(run);
    if run.join(run::CONFIG).exists() {
        command.arg("--resume");
    }
    Ok(command)
}

/// Fails if a run that is there was made by another recipe, or, where some are still to be made, on other data than
/// there are now.
fn belong_together(runs: &[(String, Config)], dir: &Path) -> Result<()> {
    let mut finished = Vec::new();
    for (name, config) in runs {
        let run = dir.join(name);
        run::check_recipe(&run, config)?;
        if run.join(LAST).exists() {
            finished.push((run, config.clone()));
        }
    }
    if finished.len() < runs.len() { run::check_runs_data(&finished) } else { Ok(()) }
}
