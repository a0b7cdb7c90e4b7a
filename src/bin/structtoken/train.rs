//! `structtoken train`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use structtoken::config::Config;
use structtoken::error::{Error, Result};
use structtoken::report::run::About;
use structtoken::{device, report, train};

use crate::console::{Console, print};
use crate::{Computing, End};

/// Train as a recipe says
#[derive(Args)]
pub(crate) struct Arguments {
    /// The recipe, a TOML file; left out with --resume, which takes that of the run
    recipe: Option<PathBuf>,
    /// Change a value of the recipe; may be given more than once
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// The folder of the run [default: runs/NAME-OF-THE-RECIPE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the last checkpoint of the run in --out
    #[arg(long)]
    resume: bool,
    /// Save and stop before this iteration, to be resumed later
    #[arg(long, value_name = "N")]
    stop_after: Option<u64>,
    /// Tell iterations and evaluations as one JSON object a line on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    if arguments.recipe.is_none() && !arguments.resume {
        return Err(Error::new("there is no recipe to train")
            .hint("give one, for instance `structtoken train configs/shapes/demo.toml`, or try `structtoken demo`"));
    }
    let run = run_folder(&arguments)?;
    let config = match &arguments.recipe {
        Some(recipe) => Config::read(recipe, &arguments.changes)?,
        None => {
            let own = run.join("config.toml");
            if !own.exists() {
                return Err(Error::new(format!("there is no run to resume in `{}`", run.display()))
                    .hint("name the folder of a run with --out, or give a recipe and leave --resume out"));
            }
            Config::read(&own, &arguments.changes)?
        }
    };
    let (device, name) = device::open(&arguments.computing.device)?;
    let _lock = train::prepare(&config, &run, arguments.resume)?;
    let mut console = Console::new(arguments.json)?.tallying().stop_after(arguments.stop_after);
    talk!("training on {name}, in `{}`", run.display());
    let started = Instant::now();
    let outcome = train::run(&config, &run, arguments.resume, &device, &mut console)?;
    if outcome.interrupted && outcome.iteration == 0 {
        talk!("stopped before the first iteration: there is nothing to resume, start it again");
        return Ok(End::Interrupted);
    }
    if outcome.interrupted {
        talk!(
            "saved after iteration {}; go on with:\n  structtoken train --resume --out {}",
            outcome.iteration,
            run.display()
        );
        return Ok(End::Interrupted);
    }
    let scores = train::scores(&run)?;
    let (shown, program) = (run.display(), program());
    let about = About {
        title: run.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        command: command_line(),
        device: name,
        took: started.elapsed(),
        found: console.found(&scores),
        next_steps: vec![
            (
                format!("{program} predict {shown}/model.safetensors photo.jpg --overlay"),
                "label other pictures".to_owned(),
            ),
            (
                format!("{program} eval {shown}/model.safetensors --set eval.flip=true"),
                "average over mirrored images".to_owned(),
            ),
            (
                format!("{program} eval {shown}/model.safetensors --suspects 30 --report {shown}/eval.html"),
                "see whether its probabilities can be believed, and which labels may be wrong".to_owned(),
            ),
        ],
        ..About::default()
    };
    let page = report::run::write(&run, &scores, &device, &about)?;
    if !arguments.json {
        print(&scores.table());
        if let Some((iteration, miou)) = outcome.best {
            print(&format!("mIoU    {miou:.4}, reached at iteration {iteration}"));
        }
        print(&format!("model   {}", run.join("model.safetensors").display()));
        print(&format!("report  {}", page.display()));
    }
    Ok(End::Done)
}

fn run_folder(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(out) = &arguments.out {
        return Ok(out.clone());
    }
    arguments
        .recipe
        .as_deref()
        .and_then(|recipe| default_folder(recipe, Path::new("runs")))
        .ok_or_else(|| Error::new("--resume needs to know the run").hint("name its folder: --out runs/NAME"))
}

/// Recipes of one name lie in folders of `configs`: configs/camvid/dinov2-s_pwe.toml becomes runs/camvid/dinov2-s_pwe.
pub(crate) fn default_folder(recipe: &Path, runs: &Path) -> Option<PathBuf> {
    let group = recipe.parent().filter(|group| group.parent().is_some_and(|all| all.ends_with("configs")));
    let runs = group.and_then(Path::file_name).map_or(runs.into(), |group| runs.join(group));
    Some(runs.join(recipe.file_stem()?))
}

/// How this program was called, for commands to be copied.
pub(crate) fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "structtoken".to_owned())
}

/// The command as it was typed, for the record.
pub(crate) fn command_line() -> String {
    let quoted = |word: String| if word.contains([' ', '\'', '"']) { format!("{word:?}") } else { word };
    let words = std::env::args().skip(1).map(quoted);
    std::iter::once("structtoken".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
