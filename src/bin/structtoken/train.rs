//! `structtoken train`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use clap::Args;
use structtoken::config::Config;
use structtoken::data::{init, shapes, spec};
use structtoken::error::{Error, Result};
use structtoken::plan::{self, Plan, Wishes};
use structtoken::repeat::Repeat;
use structtoken::report::run::About;
use structtoken::{bench, device, files, report, text, train};

use crate::console::{Console, Steps, clock, print};
use crate::{Computing, End, repeat};

/// Train as a recipe says
#[derive(Args)]
pub(crate) struct Arguments {
    /// The recipe, a TOML file; or a dataset, its folder, TOML or built-in name, for which a recipe is planned; left out
    /// with --resume, which takes that of the run
    recipe: Option<PathBuf>,
    /// Print the planned recipe of a dataset, with a reason for every line, and end
    #[arg(long)]
    plan: bool,
    /// How long a planned run may take, as 20m or 1h30m [default: 1h]
    #[arg(long, value_name = "TIME")]
    budget: Option<String>,
    /// Weights that a planned run starts from: a ViT of timm, AugReg or DINOv2
    #[arg(long, value_name = "FILE")]
    pretrained: Option<PathBuf>,
    /// Change a value of the recipe; may be given more than once
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// The folder of the run [default: runs/NAME-OF-THE-RECIPE, with -2, -3 … where there are runs already]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on from the last checkpoint of the run in --out
    #[arg(long)]
    pub(crate) resume: bool,
    /// Train with so many seeds, from the recipe's on, each in a folder of its own, and tell how far apart they end
    #[arg(long, value_name = "N", conflicts_with_all = ["folds", "stop_after"])]
    seeds: Option<u64>,
    /// Cross-validation: so many runs, each of which is evaluated on another part of the training images and learns the rest
    #[arg(long, value_name = "K", conflicts_with = "stop_after")]
    folds: Option<usize>,
    /// Save and stop before this iteration, to be resumed later
    #[arg(long, value_name = "N")]
    stop_after: Option<u64>,
    /// Tell iterations and evaluations as one JSON object a line on stdout; of several runs, the summary
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    if arguments.recipe.is_none() && !arguments.resume {
        return Err(Error::new("there is no recipe to train")
            .hint("give one, for instance `structtoken train configs/shapes/demo.toml`, or try `structtoken demo`"));
    }
    let (device, name) = device::open(&arguments.computing.device)?;
    let plan = planned(&arguments, &device)?;
    if let Some(plan) = plan.as_ref().filter(|_| arguments.plan) {
        print(plan.text.trim_end());
        return Ok(End::Done);
    }
    let run = run_folder(&arguments)?;
    let config = match (&plan, &arguments.recipe) {
        (Some(plan), _) => {
            talk!("{}", plan.text);
            plan.config.clone()
        }
        (None, Some(recipe)) => Config::read(recipe, &arguments.changes)?,
        (None, None) => train::recipe(&run, &arguments.changes)?,
    };
    if let Some(repeat) = repeated(&arguments, &run)? {
        return repeat::run(&arguments, repeat, &config, &run);
    }
    let _lock = train::prepare(&config, &run, arguments.resume)?;
    let mut console = Console::new(arguments.json)?.tallying().stop_after(arguments.stop_after);
    talk!("training on {name}, in `{}`", run.display());
    let started = Instant::now();
    let command = command_line();
    let session = train::Session {
        run: &run,
        resume: arguments.resume,
        trial: false,
        device: &device,
        device_name: &name,
        command: &command,
    };
    let outcome = train::run(&config, &session, &mut console)?;
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
        command,
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
    if let Some(plan) = plan {
        let peak = |mb: Option<u64>| mb.map_or("unknown".to_owned(), |mb| format!("{mb} MB"));
        talk!(
            "took {} (predicted {}), memory at most {} (predicted {})",
            clock(started.elapsed()),
            clock(Duration::from_secs_f64(plan.predicted.total_s)),
            peak(bench::peak_rss_mb()),
            peak(plan.predicted.peak_mb)
        );
    }
    Ok(End::Done)
}

/// Whether, and how, several runs are wanted; those of a folder that are resumed are known.
fn repeated(arguments: &Arguments, run: &Path) -> Result<Option<Repeat>> {
    let asked = arguments.seeds.map(Repeat::Seeds).or(arguments.folds.map(Repeat::Folds));
    let known = if arguments.resume { Repeat::read(run)? } else { None };
    match (known, asked) {
        (Some(Repeat::Seeds(_)), Some(Repeat::Folds(_))) | (Some(Repeat::Folds(_)), Some(Repeat::Seeds(_))) => {
            Err(Error::new(format!("`{}` holds runs of the other kind: seeds are not folds", run.display()))
                .hint("resume it without --seeds and --folds, or take another folder with --out"))
        }
        (None, Some(_)) if arguments.resume => {
            Err(Error::new(format!("`{}` does not hold several runs", run.display()))
                .hint("start them without --resume, or name their folder with --out"))
        }
        _ => Ok(asked.or(known)),
    }
}

/// The plan for a dataset that stands in place of a recipe.
fn planned(arguments: &Arguments, device: &Device) -> Result<Option<Plan>> {
    let dataset = arguments.recipe.as_deref().filter(|_| !arguments.resume).map(dataset).transpose()?.flatten();
    let Some(dataset) = dataset else {
        if arguments.plan || arguments.budget.is_some() || arguments.pretrained.is_some() {
            return Err(Error::new("--plan, --budget and --pretrained are for a dataset, not for a recipe")
                .hint("name a dataset's TOML; in a recipe set train.iterations and train.pretrained"));
        }
        return Ok(None);
    };
    let wishes = Wishes {
        budget: text::duration(arguments.budget.as_deref().unwrap_or("1h"))?,
        pretrained: arguments.pretrained.clone(),
        changes: arguments.changes.clone(),
    };
    plan::make(&dataset, &wishes, device, &mut |line| talk!("{line}")).map(Some)
}

/// The TOML that describes a folder, written now if there is none.
fn described(folder: &Path) -> Result<PathBuf> {
    let toml = folder.join(init::FILE);
    if !toml.exists() {
        let steps = Steps::new("looking at files");
        let found = init::look(folder, &toml, &init::Options::default(), &|done, all| steps.show(done, all))?;
        init::write(&found, false, &|done, all| steps.show(done, all))?;
        steps.clear();
        talk!("found {}, and wrote `{}`, which describes it", found.kind, toml.display());
    }
    Ok(toml)
}

/// The dataset that `path` names; none if it is a recipe.
fn dataset(path: &Path) -> Result<Option<String>> {
    let name = path.to_string_lossy().into_owned();
    // As everywhere: a name that is built in means that; `./camvid` is a folder.
    if spec::BUILT_IN.iter().any(|(known, _)| *known == name) || name == shapes::NAME {
        return Ok(Some(name));
    }
    if path.is_dir() {
        return described(path).map(|toml| Some(toml.to_string_lossy().into_owned()));
    }
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(path, files::TEXT).map_err(|error| Error::file("read", path, error))?;
    let describes = toml::from_str(&text).is_ok_and(|table: toml::Table| table.contains_key("classes"));
    Ok(describes.then_some(name))
}

fn run_folder(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(out) = &arguments.out {
        return Ok(out.clone());
    }
    let named = arguments.recipe.as_deref().and_then(|recipe| default_folder(recipe, Path::new("runs")));
    let Some(first) = named else {
        return Err(Error::new("--resume needs to know the run").hint("name its folder: --out runs/NAME"));
    };
    // runs/NAME, runs/NAME-2, runs/NAME-3: a new run takes the next, one that goes on the last.
    let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let place = |n: usize| if n == 1 { first.clone() } else { first.with_file_name(format!("{name}-{n}")) };
    let taken = (1..).take_while(|n| place(*n).join("config.toml").exists()).count();
    Ok(place(if arguments.resume { taken.max(1) } else { taken + 1 }))
}

/// Recipes of one name lie in folders of `configs`: configs/camvid/dinov2-s_pwe.toml becomes runs/camvid/dinov2-s_pwe.
pub(crate) fn default_folder(recipe: &Path, runs: &Path) -> Option<PathBuf> {
    let group = recipe.parent().filter(|group| group.parent().is_some_and(|all| all.ends_with("configs")));
    let runs = group.and_then(Path::file_name).map_or(runs.into(), |group| runs.join(group));
    let own = match recipe.file_name()? == init::FILE {
        // Every dataset's description may be called so; its folder tells which it is.
        true => recipe.parent().and_then(Path::file_name).unwrap_or(recipe.file_stem()?),
        false => recipe.file_stem()?,
    };
    Some(runs.join(own))
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
