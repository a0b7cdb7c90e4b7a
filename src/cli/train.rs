//! `structtoken train`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use clap::Args;

use crate::cli::console::{Console, clock, print};
use crate::cli::dataset::{self, DatasetArgument};
use crate::cli::group;
use crate::cli::invocation::{command_line, program};
use crate::cli::repeat;
use crate::cli::runner::Child;
use crate::cli::{Computing, End};
use crate::config::Config;
use crate::dataset::description::BUILT_IN;
use crate::dataset::shapes;
use crate::error::{Error, Result};
use crate::group::{Alone, Group};
use crate::plan::{self, Plan, PlanOptions};
use crate::report::About;
use crate::sweep::repeat::Repeat;
use crate::tools::init;
use crate::{bench, bundled, device, files, model_file, report, run, text};

/// Train on a folder of images and masks, or as a recipe says
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Recipe (a TOML file), or a dataset to plan a recipe for: its folder, its TOML, or a built-in name. With --resume
    /// the run's own recipe is used
    recipe: Option<PathBuf>,
    /// Print the planned recipe, with a reason for every line, and exit
    #[arg(long)]
    plan: bool,
    /// How long a planned run may take, for instance 20m or 1h30m [default: 1h]
    #[arg(long, value_name = "TIME")]
    budget: Option<String>,
    /// Pretrained weights for a planned run: a ViT, ResNet or ConvNeXt of timm, AugReg or DINOv2
    #[arg(long, value_name = "FILE")]
    pretrained: Option<PathBuf>,
    /// Trained model to fine-tune; its network, its normalisation and the parameters of classes with the same names are
    /// kept
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["pretrained", "resume"])]
    from: Option<PathBuf>,
    /// Change a value of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// Run folder [default: runs/NAME-OF-THE-RECIPE, with -2, -3 … if it exists]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Resume the run in --out from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Number of seeds to train with, counted up from the recipe's; reports how far their results spread
    #[arg(long, value_name = "N", conflicts_with_all = ["folds", "stop_after"])]
    seeds: Option<u64>,
    /// Number of folds for cross-validation: splits the training images into K parts, and trains K runs, each evaluated
    /// on one part and trained on the others
    #[arg(long, value_name = "K", conflicts_with = "stop_after")]
    folds: Option<usize>,
    /// Save and stop when N iterations are done; --resume continues
    #[arg(long, value_name = "N")]
    stop_after: Option<u64>,
    /// Print iterations and evaluations to stdout, one JSON object per line; for several runs, the summary
    #[arg(long)]
    json: bool,
    /// Share the run among the processes that mpirun or srun started; train.accumulate is at least their number. With
    /// --plan, report how long they and more of them would take
    #[cfg(feature = "mpi")]
    #[arg(long, conflicts_with_all = ["seeds", "folds"])]
    mpi: bool,
    /// In a build without MPI
    #[cfg(not(feature = "mpi"))]
    #[arg(long, hide = true)]
    mpi: bool,
    #[command(flatten)]
    among: Child,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

const EXAMPLES: &str = "Examples:
  structtoken train images/ --budget 20m                      plan a recipe for a folder, and train
  structtoken train images/ --plan > recipe.toml              print the recipe that would be taken
  structtoken train recipe.toml --out runs/a                  train as a recipe says
  structtoken train --resume --out runs/a                     resume an interrupted run";

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    #[cfg(feature = "mpi")]
    if arguments.mpi {
        return group::by_mpi(|group| run_in(group, arguments));
    }
    #[cfg(not(feature = "mpi"))]
    if arguments.mpi {
        return Err(Error::new("--mpi: this build brings no MPI").with_hint(
            "build one that does: cargo build --release --features full,mpi, with an MPI library, its headers and libclang",
        ));
    }
    group::ensure_alone()?;
    run_in(&Alone, arguments)
}

fn run_in(group: &dyn Group, mut arguments: Arguments) -> Result<End> {
    if !group.leads() && arguments.plan {
        return group::follow_plan(&arguments.computing, group);
    }
    if !group.leads() {
        return group::follow(arguments.resume, &arguments.computing, group);
    }
    let from = arguments.from.as_deref().map_or(Ok(Vec::new()), run::settings_of)?;
    if arguments.recipe.is_none() && !arguments.resume {
        return Err(Error::usage("there is no recipe to train").with_hint(
            "pass one, for instance `structtoken train configs/shapes/demo.toml`, or try `structtoken demo`",
        ));
    }
    if !arguments.resume && !arguments.plan {
        run::ensure_free(&run_folder(&arguments)?)?;
    }
    let (device, name) = device::open(&arguments.computing.device)?;
    let planning = Instant::now();
    let plan = planned(&arguments, &from, &device)?;
    // What comes with a model stands in the recipe's place, and what the user sets in that of both.
    arguments.changes.splice(0..0, from);
    let planning = plan.as_ref().map_or(Duration::ZERO, |plan| plan.charged_time(planning.elapsed()));
    if let Some(plan) = plan.as_ref().filter(|_| arguments.plan) {
        print(plan.text.trim_end());
        if let Some(shared) = plan::processes::measure(Some(plan), &device, group)? {
            talk!("{}", shared.text(plan));
        }
        return Ok(End::Done);
    }
    let run = run_folder(&arguments)?;
    if let (Some(from), Some(recipe), None) = (&arguments.from, &arguments.recipe, &plan) {
        other_network(recipe, from)?;
    }
    let config = match (&plan, &arguments.recipe) {
        (Some(plan), _) => {
            talk!("{}", plan.text);
            plan.config.clone()
        }
        // A resumed run was planned when it started.
        (None, Some(recipe)) if !arguments.resume || dataset::named(recipe)?.is_none() => {
            Config::read(recipe, &arguments.changes)?
        }
        (None, _) => {
            let mut config = run::recipe(&run, &arguments.changes)?;
            if let Some(note) = config.data.find_again(&run.join(run::CONFIG), None) {
                talk!("note: {note}");
            }
            config
        }
    };
    config.ensure_trainable(arguments.recipe.as_deref().unwrap_or(&run.join(run::CONFIG)))?;
    if let Some(repeat) = repeated(&arguments, &run)? {
        if !group.is_alone() {
            return Err(Error::new(format!("`{}` holds several runs, and --mpi is for one", run.display()))
                .with_hint("leave out --mpi, or name one of its runs with --out"));
        }
        let asked = repeat::Asked { resume: arguments.resume, json: arguments.json, computing: &arguments.computing };
        return repeat::run(&asked, repeat, &config, &run);
    }
    let _lock = run::prepare(&config, &run, arguments.resume)?;
    group::lead(group, &run, &config)?;
    let console = Console::new(arguments.json)?.keep_evaluations().stop_after(arguments.stop_after);
    let mut console = arguments.among.console(console)?;
    let by = if group.is_alone() { String::new() } else { format!(" by {} processes", group.size()) };
    talk!("training on {name}{by}, in `{}`", run.display());
    config.data.leftovers()?.iter().for_each(|left| talk!("note: not used: {}", left.text()));
    let command = command_line();
    let mut options = run::RunOptions::new(&run, &device);
    (options.resume, options.device_name, options.command) = (arguments.resume, &name, &command);
    options.group = group;
    let outcome = run::train_with_restarts(&config, &options, planning, &mut console)?;
    if outcome.interrupted && outcome.iteration == 0 {
        talk!("stopped before the first iteration: there is nothing to resume, start it again");
        return Ok(End::Interrupted);
    }
    if outcome.interrupted {
        talk!(
            "saved after iteration {}; continue with:\n  structtoken train --resume --out {}",
            outcome.iteration,
            text::shell_word(&run)
        );
        return Ok(End::Interrupted);
    }
    let scores = run::scores(&run)?;
    let about = About {
        title: run.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        command,
        device: name,
        took: outcome.took,
        found: console.found(&scores),
        next_steps: next_steps(&run),
        ..About::default()
    };
    let page = report::run::write_with(&run, &scores, &device, &about, Some(&config.data))?;
    if !arguments.json {
        print(&scores.table());
        if let Some((iteration, miou)) = outcome.best {
            print(&format!("mIoU    {miou:.4}, reached at iteration {iteration}"));
        }
        print(&format!("model   {}", run.join(run::MODEL).display()));
        print(&format!("report  {}", page.display()));
    }
    talk_of_cost(outcome.took, plan.as_ref());
    Ok(End::Done)
}

/// What can be done with the model of a run: commands, and what they are for.
fn next_steps(run: &Path) -> Vec<(String, String)> {
    let [model, page] = [run::MODEL, "eval.html"].map(|name| text::shell_word(&run.join(name)));
    let program = program();
    vec![
        (format!("{program} predict {model} photo.jpg --overlay"), "label other pictures".to_owned()),
        (format!("{program} eval {model} --set eval.flip=true"), "average over mirrored images".to_owned()),
        (
            format!("{program} eval {model} --label-issues 30 --report {page}"),
            "see whether its probabilities can be trusted, and which labels may be wrong".to_owned(),
        ),
    ]
}

/// Time and memory, of a planned run beside the estimates. A resumed run has no estimate any more.
fn talk_of_cost(took: Duration, plan: Option<&Plan>) {
    let peak = |mb: Option<u64>| mb.map_or("unknown".to_owned(), |mb| format!("{mb} MB"));
    let estimated = plan.map(|plan| (Duration::from_secs_f64(plan.estimated.total_s), plan.estimated.peak_mb));
    let beside = |what: Option<String>| what.map_or(String::new(), |what| format!(" (estimated {what})"));
    talk!(
        "took {}{}, memory at most {}{}",
        clock(took),
        beside(estimated.map(|(time, _)| clock(time))),
        peak(bench::peak_rss_mb()),
        beside(estimated.map(|(_, mb)| peak(mb)))
    );
}

/// Whether, and how, several runs are wanted; those of a folder that are resumed are known.
fn repeated(arguments: &Arguments, run: &Path) -> Result<Option<Repeat>> {
    let asked = arguments.seeds.map(Repeat::Seeds).or(arguments.folds.map(Repeat::Folds));
    let known = if arguments.resume { Repeat::read(run)? } else { None };
    match (known, asked) {
        (Some(Repeat::Seeds(_)), Some(Repeat::Folds(_))) | (Some(Repeat::Folds(_)), Some(Repeat::Seeds(_))) => {
            let (there, wanted) =
                if arguments.folds.is_some() { ("several seeds", "folds") } else { ("several folds", "seeds") };
            Err(Error::new(format!("`{}` holds runs of {there}, and {wanted} were asked for", run.display()))
                .with_hint("resume it without --seeds and --folds, or choose another folder with --out"))
        }
        (None, Some(_)) if arguments.resume => {
            Err(Error::new(format!("`{}` does not hold several runs", run.display()))
                .with_hint("start them without --resume, or pass their folder with --out"))
        }
        _ => Ok(asked.or(known)),
    }
}

/// The plan for a dataset that stands in place of a recipe.
fn planned(arguments: &Arguments, from: &[String], device: &Device) -> Result<Option<Plan>> {
    let Some(dataset) = the_dataset(arguments)? else {
        if arguments.plan || arguments.budget.is_some() || arguments.pretrained.is_some() {
            if let Some(name) = arguments.recipe.as_ref().filter(|path| path.extension().is_none() && !path.exists()) {
                let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).chain([shapes::NAME]).collect();
                return Err(Error::new(format!("`{}` is neither a folder nor a built-in dataset", name.display()))
                    .with_hint(format!(
                        "pass a folder of images and masks, its TOML, or one of {}",
                        known.join(", ")
                    )));
            }
            return Err(Error::usage("--plan, --budget and --pretrained are for a dataset, not for a recipe")
                .with_hint("pass a dataset; in a recipe set train.max_time, train.iterations and train.pretrained"));
        }
        return Ok(None);
    };
    let options = PlanOptions {
        budget: text::duration(arguments.budget.as_deref().unwrap_or("1h"))?,
        pretrained: arguments.pretrained.as_deref().map(bundled::resolve).transpose()?,
        given: from.to_vec(),
        changes: arguments.changes.clone(),
        ..PlanOptions::default()
    };
    let make = |name: &str| plan::make(name, &options, device, &mut |line| talk!("{line}"));
    match dataset {
        DatasetArgument::Described(name) => make(&name).map(Some),
        DatasetArgument::Folder(folder) if arguments.plan => {
            // A plan writes nothing: the description lasts as long as it is needed, and the recipe names where one
            // belongs.
            let opened = dataset::open(&folder, true)?;
            let toml = folder.join(init::FILE);
            let mut plan = make(&opened.name)?;
            let quoted = |name: &str| toml::Value::from(name).to_string();
            let lasting = text::utf8(&toml)?;
            plan.text = plan.text.replace(&quoted(&opened.name), &quoted(lasting)).replace(&opened.name, lasting);
            talk!(
                "`{}` has no dataset TOML yet; before you train with this recipe, run: structtoken data init {}",
                folder.display(),
                text::shell_word(&folder)
            );
            Ok(Some(plan))
        }
        DatasetArgument::Folder(folder) => make(&described(&folder, &run_folder(arguments)?)?).map(Some),
    }
}

/// Fails if a recipe asks for another network than the model file that it is to fine-tune.
fn other_network(recipe: &Path, from: &Path) -> Result<()> {
    // What is wrong with a recipe is said when it is read.
    let text = files::read_text(recipe, files::RECIPE).unwrap_or_default();
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let stated = table.get("model").and_then(|model| model.get("decoder")?.get("type"));
    let card = model_file::read_card(from)?;
    let own = toml::Value::try_from(&card.model.decoder).ok();
    let own = own.as_ref().and_then(|decoder| decoder.get("type"));
    if stated.is_none() || stated == own {
        return Ok(());
    }
    Err(Error::new(format!("`{}` has another decoder than the model `{}`", recipe.display(), from.display()))
        .with_hint(format!(
            "leave [model] out of the recipe, because the model brings its own; or use only its backbone: instead of --from \
             pass --set train.pretrained={} --set train.pretrained_backbone_only=true",
            from.display()
        )))
}

/// The dataset that stands in place of a recipe; none for a recipe, and for a resumed run, which has its own.
fn the_dataset(arguments: &Arguments) -> Result<Option<DatasetArgument>> {
    if arguments.resume { Ok(None) } else { arguments.recipe.as_deref().map_or(Ok(None), dataset::named) }
}

/// The TOML in the folder of the run that describes `folder`, into which nothing is written.
fn described(folder: &Path, run: &Path) -> Result<String> {
    let toml = run.join(init::FILE);
    text::utf8(&toml)?;
    match toml.exists() {
        // Of a run that did not come to be; lines may have been edited since.
        true => {
            talk!(
                "`{}` is described by `{}`; remove that to describe the folder again",
                folder.display(),
                toml.display()
            )
        }
        false => {
            dataset::describe(folder, &toml, init::Purpose::Run, true)?;
            talk!("wrote `{}`, which describes `{}`", toml.display(), folder.display());
        }
    }
    Ok(text::utf8(&toml)?.to_owned())
}

fn run_folder(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(out) = &arguments.out {
        return Ok(out.clone());
    }
    let named = arguments.recipe.as_deref().and_then(|recipe| default_folder(recipe, Path::new("runs")));
    let Some(first) = named else {
        return Err(Error::usage("--resume needs the folder of the run").with_hint("pass it: --out runs/NAME"));
    };
    // runs/NAME, runs/NAME-2, runs/NAME-3: a new run takes the next, a resumed one the last.
    let place = |n: usize| {
        let mut name = first.file_name().unwrap_or_default().to_owned();
        name.push(format!("-{n}"));
        if n == 1 { first.clone() } else { first.with_file_name(name) }
    };
    let taken = (1..).take_while(|n| place(*n).join(run::CONFIG).exists()).count();
    Ok(place(if arguments.resume { taken.max(1) } else { taken + 1 }))
}

/// Recipes of one name lie in folders of `configs`: configs/camvid/dinov2-s_pwe.toml becomes runs/camvid/dinov2-s_pwe.
pub(crate) fn default_folder(recipe: &Path, runs: &Path) -> Option<PathBuf> {
    let group = recipe.parent().filter(|group| group.parent().is_some_and(|all| all.ends_with("configs")));
    let runs = group.and_then(Path::file_name).map_or(runs.into(), |group| runs.join(group));
    // `.` and `..` have names too.
    let real = if recipe.file_name().is_none() { recipe.canonicalize().ok()? } else { recipe.to_owned() };
    let own = match real.file_name()? {
        // Every dataset's description may be called so; its folder tells which it is.
        name if name == init::FILE => real.parent().and_then(Path::file_name).unwrap_or(real.file_stem()?),
        name if real.is_dir() => name,
        _ => real.file_stem()?,
    };
    Some(runs.join(own))
}
