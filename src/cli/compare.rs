//! `structtoken compare`: the plan, and one process per run, so that each has its own memory to be measured and one
//! that fails takes none along.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::cli::console::{Console, print};
use crate::cli::invocation::{command_line, restart};
use crate::cli::runner::{Child, Runner};
use crate::cli::shard::{self, Chosen};
use crate::cli::train::default_folder;
use crate::cli::{Computing, End};
use crate::config::Config;
use crate::decoder::DecoderConfig;
use crate::error::{Error, Result};
use crate::sweep::compare;
use crate::sweep::compare::run;
use crate::sweep::compare::run::{Ended, RunContext};
use crate::sweep::compare::{Budget, ComparePlan, PLAN};
use crate::text::shell_word;
use crate::{device, files};

/// Train several decoders with the same budget for each, and report the better one
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Recipe, a TOML file; leave it out to continue the comparison in --out
    recipe: Option<PathBuf>,
    /// Decoders, separated by commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "recipe")]
    decoders: Vec<String>,
    /// Number of seeds per decoder, counted up from the recipe's [default: 3]
    #[arg(long, value_name = "N", requires = "recipe")]
    seeds: Option<u64>,
    /// Training time per run, for instance 90s, 20m or 1h30m; evaluations are not included
    #[arg(long, value_name = "TIME", requires = "recipe", conflicts_with = "iterations")]
    budget: Option<String>,
    /// Iterations per run [default: the recipe's]
    #[arg(long, value_name = "N", requires = "recipe")]
    iterations: Option<u64>,
    /// Evaluations per run during training [default: 5]
    #[arg(long, value_name = "N", requires = "recipe")]
    evaluations: Option<u64>,
    /// Change a value of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    changes: Vec<String>,
    /// Change a setting of one decoder, for instance eomt.num_queries=20; may be repeated
    #[arg(long = "with", value_name = "NAME.KEY=VALUE", requires = "recipe")]
    with: Vec<String>,
    /// Folder of the comparison [default: runs/compare/NAME-OF-THE-RECIPE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Train only every N-th run, starting at the I-th, so that N machines share the work [default: what an array job
    /// says; auto asks MPI too]
    #[arg(long, value_name = "I/N|auto", value_parser = crate::cli::value::<Chosen>)]
    shard: Option<Chosen>,
    #[command(flatten)]
    count: shard::Count,
    /// Train nothing, but gather the finished runs of these folders into --out [default: the first of them]
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with_all = ["recipe", "shard", "shards"])]
    collect: Vec<PathBuf>,
    /// Print compare.json instead of the table
    #[arg(long)]
    json: bool,
    /// Do this one run, as a process of its own
    #[arg(long, hide = true)]
    child: Option<String>,
    #[command(flatten)]
    among: Child,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

const EXAMPLES: &str = "Examples:
  structtoken compare configs/shapes/demo.toml --decoders cse,sse,pwe --budget 2m
  structtoken compare --out runs/compare/shapes/demo             continue, or write the tables again
  structtoken compare --collect node1/demo node2/demo --out demo";

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    if let Some(name) = &arguments.child {
        return child(&arguments, name);
    }
    if let Some(first) = arguments.collect.first() {
        let out = arguments.out.as_ref().unwrap_or(first);
        let plan = collected_plan(&arguments.collect)?;
        if out != first {
            plan.settle(out)?;
        }
        return publish(&arguments, &plan, &arguments.collect, out).map(|()| End::Done);
    }
    let (dir, plan) = plan(&arguments)?;
    let shard = shard::find(arguments.shard, arguments.count)?;
    if shard.of(plan.runs()).iter().any(|run| !run::finished(&dir, &run.to_string())) {
        plan.ensure_data()?;
    }
    plan.settle(&dir)?;
    // Others may work in the same folder, but not on the same runs.
    let _lock = files::Lock::named(&dir, &format!(".shard-{}.lock", shard.to_string().replace('/', "-of-")))?;
    let ours: Vec<String> = shard.of(plan.runs()).iter().map(ToString::to_string).collect();
    talk!("comparing in `{}`: {} runs, {} each", dir.display(), plan.runs().len(), plan.budget);
    let usual = match plan.budget {
        Budget::Seconds(seconds) => Some(Duration::from_secs(seconds)),
        Budget::Iterations(_) => None,
    };
    let mut runner = Runner::new(&arguments.computing, usual)?;
    let interrupted = runner.work(
        &ours,
        |name| run::finished(&dir, name),
        |name| {
            let mut command = restart()?;
            command.arg("compare").arg("--out").arg(&dir).args(["--child", name]);
            Ok(command)
        },
    )?;
    publish(&arguments, &plan, std::slice::from_ref(&dir), &dir)?;
    if interrupted {
        talk!("saved; continue with:\n  structtoken compare --out {}", shell_word(&dir));
        return Ok(End::Interrupted);
    }
    match runner.failed.as_slice() {
        [] => Ok(End::Done),
        failed => Err(Error::new(format!("{} of {} runs failed: {}", failed.len(), ours.len(), failed.join(", ")))
            .with_hint("their errors are above; the same command runs what is missing")),
    }
}

/// The folder and what is to be done in it.
fn plan(arguments: &Arguments) -> Result<(PathBuf, ComparePlan)> {
    let own = || default_folder(arguments.recipe.as_deref()?, Path::new("runs/compare"));
    let dir = arguments.out.clone().or_else(own);
    let dir = dir.ok_or_else(|| {
        Error::usage("there is nothing to compare").with_hint(
            "pass a recipe, `structtoken compare configs/shapes/demo.toml`, or the folder of a comparison with --out",
        )
    })?;
    let Some(recipe) = &arguments.recipe else {
        let found = ComparePlan::read(&dir)?;
        let missing = || {
            Error::new(format!("`{}` holds no comparison: there is no `{PLAN}`", dir.display()))
                .with_hint("pass a recipe to start one, or the right folder with --out")
        };
        return Ok((dir.clone(), found.ok_or_else(missing)?));
    };
    let config = Config::read(recipe, &arguments.changes)?;
    config.ensure_trainable(recipe)?;
    let budget = match (&arguments.budget, arguments.iterations) {
        (Some(time), _) => time.parse()?,
        (None, Some(iterations)) => Budget::Iterations(iterations),
        (None, None) => Budget::Iterations(config.train.iterations),
    };
    let decoders = match arguments.decoders.as_slice() {
        [] => DecoderConfig::presets().map(str::to_owned).collect(),
        named => named.to_vec(),
    };
    let (seeds, evaluations) = (arguments.seeds.unwrap_or(3), arguments.evaluations.unwrap_or(5));
    Ok((dir, ComparePlan::new(config, &decoders, &arguments.with, seeds, budget, evaluations)?))
}

/// The one plan of all folders.
fn collected_plan(folders: &[PathBuf]) -> Result<ComparePlan> {
    let mut plan: Option<(ComparePlan, &PathBuf)> = None;
    for folder in folders {
        let found = ComparePlan::read(folder)?.ok_or_else(|| {
            Error::new(format!("`{}` holds no comparison: there is no `{PLAN}`", folder.display()))
                .with_hint("pass the folders that `structtoken compare` wrote, not those of single runs")
        })?;
        match &plan {
            Some((first, of)) => first.agree(&found, of).map_err(|error| {
                Error::new(format!("`{}` does not belong to the others", folder.display())).with_source(error)
            })?,
            None => plan = Some((found, folder)),
        }
    }
    plan.map(|(plan, _)| plan).ok_or_else(|| Error::usage("there is no folder to collect from"))
}

/// Writes the tables from what is there, and prints the result.
fn publish(arguments: &Arguments, plan: &ComparePlan, folders: &[PathBuf], out: &Path) -> Result<()> {
    let comparison = compare::publish(plan, folders, out)?;
    for note in &comparison.notes {
        talk!("{note}");
    }
    let json = || serde_json::to_string_pretty(&comparison).map_err(|e| Error::new("cannot write JSON").with_source(e));
    print(&if arguments.json { json()? } else { comparison.markdown() });
    talk!("tables in `{}`: compare.html, compare.md, compare.json", out.display());
    Ok(())
}

/// One run, in the process that was started for it.
fn child(arguments: &Arguments, name: &str) -> Result<End> {
    let dir = arguments.out.as_deref().ok_or_else(|| Error::usage("--child needs --out"))?;
    let plan =
        ComparePlan::read(dir)?.ok_or_else(|| Error::new(format!("there is no `{PLAN}` in `{}`", dir.display())))?;
    let run = plan.run(name)?;
    let (device, device_name) = device::open(&arguments.computing.device)?;
    let machine = format!("{device_name}, {} threads{}", rayon::current_num_threads(), processor());
    let mut console = arguments.among.console(Console::new(false)?)?;
    let place = RunContext { dir, device: &device, device_name: &machine, command: &command_line() };
    match run::train_and_evaluate(&plan, &run, &place, &mut console)? {
        Ended::Finished => Ok(End::Done),
        Ended::Interrupted => Ok(End::Interrupted),
    }
}

/// The processor's name, where the system reports it: times of different ones do not compare.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()));
    name.map_or(String::new(), |name| format!(", {name}"))
}
