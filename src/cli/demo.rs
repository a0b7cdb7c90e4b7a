//! `structtoken demo`: the main job on data it makes itself.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use crate::cli::console::{Console, clock, print};
use crate::cli::invocation::{command_line, program};
use crate::cli::{Computing, End};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::report::About;
use crate::{device, files, report, rng, run, text, train};

const RECIPE: &str = include_str!("../../configs/shapes/demo.toml");

/// Train on generated shapes, and show how tokens become masks
///
/// Training takes three minutes at most.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Run folder; an earlier demo in it is replaced
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// How long training may take, for instance 90s or 10m; iterations that do not fit are dropped
    #[arg(long, value_name = "TIME", default_value = "3m")]
    budget: String,
    /// Change a value of the demo's recipe, configs/shapes/demo.toml
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

const EXAMPLES: &str = "Examples:
  structtoken demo                              writes runs/demo, with report.html
  structtoken demo --budget 10m --out runs/long
  structtoken demo --set model.decoder.block=cse";

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let mut config = Config::parse(RECIPE, "configs/shapes/demo.toml", &arguments.changes)?;
    config.ensure_trainable("configs/shapes/demo.toml".as_ref())?;
    let budget = text::duration(&arguments.budget)?;
    let (device, device_name) = device::open(&arguments.computing.device)?;
    let run = arguments.out;
    make_room(&run)?;
    let started = Instant::now();
    let asked = config.train.iterations;
    // A run that is cut off while its learning rate is still high shows less than one that is rescheduled to end there.
    if config.train.schedule.reschedules.is_empty() {
        config.train.max_time.get_or_insert(train::Time(budget));
    }
    let _lock = run::prepare(&config, &run, false)?;
    files::write(&run.join(MARK), mark(&config.to_toml()?).as_bytes())?;
    talk!(
        "The dataset is generated: classes differ in shape alone, colours and textures are random, so no pixel gives \
         its class away.\nTraining a small StructToken on {device_name} for at most {}, in `{}`.",
        clock(budget),
        run.display()
    );
    let mut console = Console::new(false)?.keep_evaluations();
    let command = command_line();
    let mut options = run::RunOptions::new(&run, &device);
    (options.device_name, options.command) = (&device_name, &command);
    let outcome = run::train(&config, &options, &mut console)?;
    if outcome.interrupted {
        return Ok(End::Interrupted);
    }
    if outcome.iteration < asked {
        talk!(
            "warning: there was time for only {} of the demo's {asked} iterations, so the score is lower than it could \
             be; on this machine `--budget {}m` leaves time for all of them",
            outcome.iteration,
            (asked as f64 / outcome.iteration as f64 * budget.as_secs_f64() / 60.0).ceil()
        );
    }
    let scores = run::scores(&run)?;
    let (model, program) = (text::shell_word(&run.join(run::MODEL)), program());
    let next_steps = [
        (format!("{program} predict {model} photo.jpg --overlay"), "label a picture of your own"),
        (format!("{program} eval {model} --set eval.flip=true"), "average over mirrored images"),
        (format!("{program} inspect {model}"), "see what the network is made of"),
        (
            format!("{program} train DIR --budget 5m"),
            "train on images of your own: DIR is a folder with them and their masks, and docs/data.md shows how they may be \
             arranged",
        ),
    ];
    let about = About {
        title: "Shapes demo".to_owned(),
        lead: "A small network learned to label shapes it had never seen. Colours and textures are random, so it had \
               to learn structure."
            .to_owned(),
        command,
        device: device_name,
        took: started.elapsed(),
        found: console.found(&scores),
        next_steps: next_steps.iter().map(|(command, purpose)| (command.clone(), (*purpose).to_owned())).collect(),
    };
    let page = report::run::write(&run, &scores, &device, &about)?;
    print(&scores.table());
    print(&format!("mIoU    {:.4} on {} pixels of unseen images", scores.miou.unwrap_or(0.0), scores.pixels));
    print(&format!("report  {}  <- open it: tokens turning into masks", page.display()));
    print(&format!("model   {}\n\nNext:", run.join(run::MODEL).display()));
    for (command, purpose) in &next_steps {
        print(&format!("  {command}\n      {purpose}"));
    }
    Ok(End::Done)
}

/// Says that a folder is a demo's.
const MARK: &str = ".demo";
/// What a demo leaves in its folder, beside TensorBoard's files and the lock.
const LEFT: [&str; 10] = [
    MARK,
    run::CONFIG,
    run::LOG,
    run::DAMAGED_LOG,
    run::TABLE,
    run::MANIFEST,
    run::SCORES,
    run::MODEL,
    run::PAGE,
    run::CHECKPOINTS,
];

/// What the mark of a demo with this recipe says. Another recipe is of a run that somebody made there since.
fn mark(recipe: &str) -> String {
    format!(
        "`structtoken demo` made this folder, and the next demo replaces it: recipe {:016x}\n",
        rng::fnv1a(recipe.as_bytes())
    )
}

/// Removes what an earlier demo left, and nothing else.
fn make_room(run: &Path) -> Result<()> {
    // Nobody else may be at it, whatever they do there.
    let _lock = files::Lock::take(run)?;
    let read = |name: &str| files::read_text(&run.join(name), files::RECIPE).ok();
    let recipe = read(run::CONFIG);
    if recipe.is_some() && recipe.map(|recipe| mark(&recipe)) != read(MARK) {
        return Err(Error::new(format!("`{}` holds a run that is not a demo", run.display()))
            .with_hint("choose another folder with --out"));
    }
    if !run.join(MARK).exists() {
        return Ok(());
    }
    let entries = std::fs::read_dir(run).map_err(|error| Error::file("read", run, error))?;
    let left = |name: &str| LEFT.contains(&name) || (name.starts_with(run::EVENTS) && name.ends_with(".structtoken"));
    for entry in entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(left)) {
        let path = entry.path();
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(
                    Error::file("replace the demo's", &path, error).with_hint("choose another folder with --out")
                );
            }
            _ => {}
        }
    }
    Ok(())
}
