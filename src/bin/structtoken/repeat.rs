//! `structtoken train --seeds` and `--folds`: several runs one after the other, each in a process and a folder of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use structtoken::config::Config;
use structtoken::error::{Error, Result};
use structtoken::repeat::{Repeat, Summary};
use structtoken::{files, train};

use crate::End;
use crate::console::{clock, emit, print};
use crate::train::Arguments;

/// What a finished run leaves last.
const LAST: &str = "report.html";

/// Trains what is not trained of the runs in `dir`, and says how far apart they end.
pub(crate) fn run(arguments: &Arguments, repeat: Repeat, recipe: &Config, dir: &Path) -> Result<End> {
    let runs = repeat.runs(recipe)?;
    let begun = runs.iter().any(|(name, _)| dir.join(name).exists());
    if begun && !arguments.resume {
        return Err(Error::new(format!("`{}` already holds such runs", dir.display()))
            .hint("go on with them by --resume, or take another folder with --out"));
    }
    belong_together(&runs, dir)?;
    let _lock = train::prepare(recipe, dir, arguments.resume)?;
    repeat.write(dir)?;
    // Ctrl-C reaches the child too, which saves; this process waits for it and then says how to go on.
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))
        .map_err(|error| Error::new("cannot listen for Ctrl-C").source(error))?;
    if let Repeat::Folds(count) = repeat {
        talk!(
            "each run learns all training images but one part of {count}, on which it is evaluated; the split [val] is not used"
        );
    }
    let todo: Vec<_> = runs.iter().filter(|(name, _)| !dir.join(name).join(LAST).exists()).collect();
    if todo.len() < runs.len() {
        talk!("{} of {} runs are finished already", runs.len() - todo.len(), runs.len());
    }
    let mut took: Vec<Duration> = Vec::new();
    for (at, (name, config)) in todo.iter().enumerate() {
        let each = took.iter().sum::<Duration>().checked_div(took.len() as u32);
        let left =
            each.map_or(String::new(), |each| format!(", about {} in all", clock(each * (todo.len() - at) as u32)));
        talk!("\n{name} ({}/{}){left}", at + 1, todo.len());
        let started = Instant::now();
        let code =
            if interrupted.load(Ordering::SeqCst) { Some(130) } else { start(arguments, config, &dir.join(name))? };
        match code {
            Some(0) => took.push(started.elapsed()),
            Some(130) => {
                talk!("go on with:\n  structtoken train --resume --out {}", dir.display());
                return Ok(End::Interrupted);
            }
            _ => {
                return Err(Error::new(format!("{name} failed"))
                    .hint(format!("what it said stands above; go on with --resume --out {}", dir.display())));
            }
        }
    }
    let scores = runs.iter().map(|(name, _)| Ok((name.clone(), train::scores(&dir.join(name))?)));
    let summary = Summary::new(repeat, &scores.collect::<Result<Vec<_>>>()?)?;
    let folders: Vec<_> = runs.iter().map(|(name, _)| dir.join(name)).collect();
    train::alike(&folders, matches!(repeat, Repeat::Folds(_)))?;
    summary.write(dir)?;
    if arguments.json {
        emit(&serde_json::to_value(&summary).map_err(|error| Error::new("cannot write JSON").source(error))?);
    } else {
        print(summary.table().trim_end());
    }
    talk!("written to `{}`", dir.join("summary.md").display());
    Ok(End::Done)
}

/// One run, resumed if it was begun; its exit code.
fn start(arguments: &Arguments, config: &Config, run: &Path) -> Result<Option<i32>> {
    let failed = |error| Error::new(format!("cannot start a process for `{}`", run.display())).source(error);
    let recipe = run.with_extension("toml");
    files::write(&recipe, config.to_toml()?.as_bytes())?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("train").arg(&recipe).arg("--out").arg(run);
    command.args(["--device", &arguments.computing.device]);
    if let Some(threads) = arguments.computing.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if run.join("config.toml").exists() {
        command.arg("--resume");
    }
    // What it prints is of one run; the summary is what was asked for.
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(failed)?.code())
}

/// Fails if a run that is there was made by another recipe, or, where some are still to be made, on other data than there are now.
fn belong_together(runs: &[(String, Config)], dir: &Path) -> Result<()> {
    let mut finished = Vec::new();
    for (name, config) in runs {
        let run = dir.join(name);
        train::made_by(&run, config)?;
        if run.join(LAST).exists() {
            finished.push((run, config.clone()));
        }
    }
    if finished.len() < runs.len() { train::still(&finished) } else { Ok(()) }
}
