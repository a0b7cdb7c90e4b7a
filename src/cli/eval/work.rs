//! A model, and the images that it is looked at with: what `eval`, `probe` and `export` ask for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::bundled;
use crate::cli::dataset::{OpenedDataset, listening};
use crate::config::Config;
use crate::dataset::{Classes, Dataset, Split};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model_file::{self, ModelCard};
use crate::text::shell_word;
use crate::tools::measured::{ALL, Asked, Measured, SplitChoice};
use crate::weights;

/// A model, and the images it is looked at with.
#[derive(Args, Default)]
pub(crate) struct ModelSource {
    /// Model file, or a recipe together with --weights
    #[arg(required = true)]
    pub(crate) model: Option<PathBuf>,
    /// Weights for a recipe: a published StructToken checkpoint or any file that holds the whole network
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Change a setting of the model, for instance eval.flip=true or data.root=DIR; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
    /// Images other than the recipe's: a folder that `data init` recognises, a dataset TOML or a built-in name. Classes
    /// are matched to the model's by name
    #[arg(long, value_name = "DIR|TOML")]
    pub(crate) data: Option<PathBuf>,
    /// Split to evaluate on [default: val; with --data, all if there is no validation split]
    #[arg(long, value_enum)]
    pub(crate) split: Option<SplitName>,
}

impl ModelSource {
    /// The same as words of a command.
    pub(crate) fn words(&self) -> String {
        let mut words: Vec<String> = self.model.iter().map(|model| shell_word(model)).collect();
        let mut add = |option: &str, value: &Path| words.push(format!("{option} {}", shell_word(value)));
        self.weights.iter().for_each(|weights| add("--weights", weights));
        self.changes.iter().for_each(|change| add("--set", change.as_ref()));
        self.data.iter().for_each(|data| add("--data", data));
        let split = self.split.and_then(|split| split.to_possible_value());
        split.iter().for_each(|split| add("--split", split.get_name().as_ref()));
        words.join(" ")
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum SplitName {
    Train,
    Val,
    Test,
    All,
}

/// What is evaluated.
pub(crate) struct EvalWork {
    pub(crate) model: Model,
    pub(crate) config: Config,
    pub(crate) dataset: Arc<dyn Dataset>,
    /// What the dataset is called.
    pub(crate) title: String,
    /// The part of it: the name of a split, or [`ALL`].
    pub(crate) split: String,
    /// The file the weights are in.
    pub(crate) weights: PathBuf,
    /// Where a folder is described while it is read.
    pub(crate) opened: Option<OpenedDataset>,
}

impl EvalWork {
    /// Which images they are, in words.
    pub(crate) fn name(&self) -> String {
        let title = &self.title;
        // Splits that were chosen for a moment are none of the set.
        let divided = self.opened.as_ref().is_none_or(|opened| opened.has_val || !opened.is_temporary());
        match self.split.as_str() {
            ALL if !divided => title.clone(),
            ALL => format!("all splits of {title}"),
            split => format!("the {split} split of {title}"),
        }
    }

    pub(crate) fn open(path: &Path, arguments: &ModelSource, device: &burn::tensor::Device) -> Result<Self> {
        if path.extension().is_some_and(|ending| ending == "toml") {
            let config = Config::read(path, &arguments.changes)?;
            let Some(weights) = arguments.weights.clone() else {
                return Err(Error::usage(format!("`{}` is a recipe, which holds no weights", path.display()))
                    .with_hint("pass a model file, or add `--weights FILE`"));
            };
            let classes = config.data.classes()?;
            let model = whole_network(&config, classes.len(), &weights, device)?;
            return Self::on(model, config, &classes, weights, arguments);
        }
        if arguments.weights.is_some() {
            return Err(Error::usage("--weights goes with a recipe; a model file has its own")
                .with_hint("pass the recipe as a TOML file, or leave --weights out"));
        }
        let (model, card) = model_file::open(path, device)?;
        Self::of(model, &card, path, arguments)
    }

    /// A model that is open already, with its own dataset or that of `--data`.
    pub(crate) fn of(model: Model, card: &ModelCard, path: &Path, arguments: &ModelSource) -> Result<Self> {
        let mut config = card.with_changes(&arguments.changes, path)?;
        if arguments.data.is_none()
            && let Some(note) = config.data.find_again(path, Some(&card.label_map))
        {
            talk!("note: {note}");
        }
        Self::on(model, config, &card.classes, bundled::resolve(path)?, arguments)
    }

    /// With the dataset of the recipe, or the one of `--data`.
    fn on(
        model: Model,
        mut config: Config,
        classes: &Classes,
        weights: PathBuf,
        arguments: &ModelSource,
    ) -> Result<Self> {
        let asked = Asked {
            data: arguments.data.as_deref(),
            split: arguments.split.map(SplitChoice::from),
            has_root: arguments.changes.iter().any(|change| change.starts_with("data.root")),
        };
        let found = listening(|listener| Measured::open(asked, &mut config.data, classes, &weights, listener))?;
        let Measured { dataset, title, split, opened } = found;
        Ok(Self { model, config, dataset, title, split, weights, opened })
    }
}

impl From<SplitName> for SplitChoice {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::One(Split::Train),
            SplitName::Val => Self::One(Split::Val),
            SplitName::Test => Self::One(Split::Test),
            SplitName::All => Self::All,
        }
    }
}

/// A network of the recipe with all its weights from `path`.
fn whole_network(config: &Config, classes: usize, path: &Path, device: &burn::tensor::Device) -> Result<Model> {
    let state = weights::read(&bundled::resolve(path)?)?;
    let options = weights::LoadOptions::strict();
    let (model, report) = weights::load(config.model.blank(classes, device), &state, &options)
        .map_err(|error| Error::new(format!("cannot load `{}`", path.display())).with_source(error))?;
    talk!("{report}");
    Ok(model)
}
