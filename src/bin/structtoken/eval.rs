//! `structtoken eval`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use structtoken::artifact::{self, Card};
use structtoken::config::Config;
use structtoken::data::Split;
use structtoken::error::{Error, Result};
use structtoken::eval::Inference;
use structtoken::model::Model;
use structtoken::{device, eval, files, weights};

use crate::console::{bar, print};
use crate::{Computing, End};

/// Measure a model: mIoU, accuracies, Dice, per class
#[derive(Args)]
pub(crate) struct Arguments {
    /// A model file, or a recipe together with --weights
    model: PathBuf,
    /// Weights for a recipe: published StructToken checkpoints or any file that holds the whole network
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Change a value of the model's settings, for instance eval.flip=true or data.root=DIR
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// Which part of the dataset
    #[arg(long, value_enum, default_value_t = SplitName::Val)]
    split: SplitName,
    /// Also write the scores as JSON here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the scores as JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitName {
    Train,
    Val,
    Test,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let (device, name) = device::open(&arguments.computing.device)?;
    let split = match arguments.split {
        SplitName::Train => Split::Train,
        SplitName::Val => Split::Val,
        SplitName::Test => Split::Test,
    };
    let (model, config, dataset) = if arguments.model.extension().is_some_and(|ending| ending == "toml") {
        let config = Config::read(&arguments.model, &arguments.changes)?;
        let Some(path) = &arguments.weights else {
            return Err(Error::new(format!("`{}` is a recipe, which has no weights", arguments.model.display()))
                .hint("give a model file, or add `--weights FILE`"));
        };
        let dataset = config.data.open(split)?;
        let model = whole_network(&config, dataset.classes().len(), path, &device)?;
        (model, config, dataset)
    } else {
        if arguments.weights.is_some() {
            return Err(Error::new("--weights goes with a recipe; a model file has its own"));
        }
        let (model, card) = artifact::open(&arguments.model, &device)?;
        let config = settings(&card, &arguments.changes, &arguments.model)?;
        let dataset = config.data.open(split)?;
        if *dataset.classes().names != card.classes.names {
            return Err(Error::new(format!(
                "`{}` knows other classes than the dataset: {} against {}",
                arguments.model.display(),
                card.classes.names.join(", "),
                dataset.classes().names.join(", ")
            )));
        }
        (model, config, dataset)
    };
    talk!("evaluating {} images of {split} on {name}", dataset.len());
    let progress = bar("{wide_bar} {pos}/{len}  {eta} left");
    let (preprocess, settings) = (&config.data.preprocess, &config.eval);
    let inference = Inference { network: &model, preprocess, config: settings, device: &device };
    let scores = eval::evaluate(&inference, dataset.as_ref(), &mut |done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
    })?;
    progress.finish_and_clear();
    let json =
        serde_json::to_string_pretty(&scores).map_err(|error| Error::new("cannot write scores").source(error))?;
    print(&if arguments.json { json.clone() } else { scores.table() });
    if let Some(path) = &arguments.out {
        files::write(path, json.as_bytes())?;
    }
    Ok(End::Done)
}

/// A network of the recipe with all its weights from `path`.
fn whole_network(config: &Config, classes: usize, path: &Path, device: &burn::tensor::Device) -> Result<Model> {
    let state = weights::read(path)?;
    let options = weights::LoadOptions::strict(config.model.backbone.features().grid);
    let (model, report) = weights::load(config.model.blank(classes, device), &state, &options)
        .map_err(|error| Error::new(format!("cannot load `{}`", path.display())).source(error))?;
    talk!("{report}");
    Ok(model)
}

/// What a model file says, with the changes of the command line.
pub(crate) fn settings(card: &Card, changes: &[String], path: &Path) -> Result<Config> {
    let config =
        Config { model: card.model.clone(), data: card.data.clone(), eval: card.eval.clone(), ..Config::default() };
    if let Some(change) = changes.iter().find(|change| change.starts_with("model.")) {
        return Err(Error::new(format!("--set {change}: the architecture of `{}` is fixed", path.display())).hint(
            "train another model for another architecture; eval.*, data.root and data.preprocess can be changed",
        ));
    }
    Config::parse(&config.to_toml()?, &path.display().to_string(), changes)
}
