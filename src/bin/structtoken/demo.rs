//! `structtoken demo`: the main job on data it makes itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use structtoken::config::Config;
use structtoken::error::{Error, Result};
use structtoken::report::run::About;
use structtoken::{device, files, report, train};

use crate::console::{Console, print};
use crate::train::{command_line, program};
use crate::{Computing, End};

const RECIPE: &str = include_str!("../../../configs/shapes/demo.toml");
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// Make a set of shapes, train on it for at most three minutes, and show what the tokens do
#[derive(Args)]
pub(crate) struct Arguments {
    /// The folder of the run; an earlier demo there is replaced
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// Change a value of the demo's recipe, configs/shapes/demo.toml
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let config = Config::parse(RECIPE, "configs/shapes/demo.toml", &arguments.changes)?;
    let (device, device_name) = device::open(&arguments.computing.device)?;
    let run = arguments.out;
    make_room(&run)?;
    let _lock = train::prepare(&config, &run, false)?;
    files::write(&run.join(MARK), b"This folder was made by `structtoken demo`, and the next demo replaces it.\n")?;
    talk!(
        "The set is generated: a class is a shape, while colours and textures are random, so no pixel tells its class.\n\
         Training a small StructToken on {device_name} for at most three minutes, in `{}`.",
        run.display()
    );
    let started = Instant::now();
    let mut console = Console::new(false)?.tallying().time_limit(TIME_LIMIT);
    let command = command_line();
    let session =
        train::Session { run: &run, resume: false, device: &device, device_name: &device_name, command: &command };
    let outcome = train::run(&config, &session, &mut console)?;
    if outcome.interrupted {
        return Ok(End::Interrupted);
    }
    if outcome.iteration < config.train.iterations {
        talk!("three minutes were over after {} of {} iterations", outcome.iteration, config.train.iterations);
    }
    let scores = train::scores(&run)?;
    let (shown, program) = (run.display(), program());
    let next_steps = [
        (format!("{program} predict {shown}/model.safetensors photo.jpg --overlay"), "label a picture of your own"),
        (format!("{program} eval {shown}/model.safetensors --set eval.flip=true"), "average over mirrored images"),
        (format!("{program} inspect {shown}/model.safetensors"), "see what the network is made of"),
        (
            format!("{program} train my-recipe.toml"),
            "train on pictures of your own: docs/data.md shows the two files it takes",
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
    print(&format!("model   {}\n\nNext:", run.join("model.safetensors").display()));
    for (command, purpose) in &next_steps {
        print(&format!("  {command}\n      {purpose}"));
    }
    Ok(End::Done)
}

/// Says that a folder is a demo's.
const MARK: &str = ".demo";
/// What a demo leaves in its folder.
const LEFT: [&str; 8] =
    [MARK, ".lock", "config.toml", "log.ndjson", "scores.json", "model.safetensors", "report.html", "checkpoints"];

/// Removes what an earlier demo left, and nothing else.
fn make_room(run: &Path) -> Result<()> {
    if !run.join(MARK).exists() {
        if run.join("config.toml").exists() {
            return Err(Error::new(format!("`{}` holds a run that is no demo", run.display()))
                .hint("take another folder with --out"));
        }
        return Ok(());
    }
    for path in LEFT.map(|name| run.join(name)) {
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("replace the demo's", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}
