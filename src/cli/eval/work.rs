//! A model, and the images that it is looked at with: what `eval`, `probe` and `export` ask for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::cli::dataset::Opened;
use crate::config::Config;
use crate::dataset::{Classes, Dataset, JoinedSplits, Matched, Split};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model_file::{self, ModelCard};
use crate::text::shell_word;
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
    pub(crate) opened: Option<Opened>,
}

/// All splits at once.
const ALL: &str = "all";

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
                return Err(Error::new(format!("`{}` is a recipe, which holds no weights", path.display()))
                    .with_hint("pass a model file, or add `--weights FILE`"));
            };
            let classes = config.data.classes()?;
            let model = whole_network(&config, classes.len(), &weights, device)?;
            return Self::on(model, config, &classes, weights, arguments);
        }
        if arguments.weights.is_some() {
            return Err(Error::new("--weights goes with a recipe; a model file has its own"));
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
        Self::on(model, config, &card.classes, path.to_owned(), arguments)
    }

    /// With the dataset of the recipe, or the one of `--data`.
    fn on(
        model: Model,
        mut config: Config,
        classes: &Classes,
        weights: PathBuf,
        arguments: &ModelSource,
    ) -> Result<Self> {
        let title = arguments.data.as_ref().map_or(config.data.dataset.clone(), |path| path.display().to_string());
        let opened = {
            let splits = arguments.split.is_some_and(|split| !matches!(split, SplitName::All));
            arguments.data.as_deref().map(|path| Opened::new(path, splits)).transpose()?
        };
        if let Some(opened) = &opened {
            config.data.dataset.clone_from(&opened.name);
            config.data.fold = None;
            // The folder of the recipe's dataset is not that of another.
            if !arguments.changes.iter().any(|change| change.starts_with("data.root")) {
                config.data.root = None;
            }
        }
        let split = arguments.split.unwrap_or(match &opened {
            Some(opened) if !opened.has_val => SplitName::All,
            _ => SplitName::Val,
        });
        let (dataset, split) = match split {
            SplitName::Train => (config.data.open(Split::Train)?, Split::Train.to_string()),
            SplitName::Val => (config.data.open(Split::Val)?, Split::Val.to_string()),
            SplitName::Test => (config.data.open(Split::Test)?, Split::Test.to_string()),
            SplitName::All => (all(&config)?, ALL.to_owned()),
        };
        if opened.is_some() {
            config.data.leftovers()?.iter().for_each(|left| talk!("note: not used: {}", left.text()));
        }
        let dataset: Arc<dyn Dataset> = match &opened {
            Some(opened) => {
                let folder = arguments.data.as_deref().unwrap_or(Path::new(&title));
                let (matched, absent) = Matched::new(dataset, classes, &title)
                    .map_err(|error| error.with_hint(renaming(folder, classes, opened)))?;
                if !absent.is_empty() {
                    talk!(
                        "note: `{title}` has no class {}: each has an IoU of 0 in the mean if it is predicted anyway",
                        absent.join(", ")
                    );
                }
                Arc::new(matched)
            }
            None if dataset.classes().names != classes.names => {
                return Err(Error::new(format!(
                    "`{}` has other classes than the dataset: {} instead of {}",
                    weights.display(),
                    classes.names.join(", "),
                    dataset.classes().names.join(", ")
                ))
                .with_hint("pass the dataset with --data, which matches classes by name"));
            }
            None => dataset,
        };
        Ok(Self { model, config, dataset, title, split, weights, opened })
    }
}

/// Every split that the dataset has, as one.
fn all(config: &Config) -> Result<Arc<dyn Dataset>> {
    let has = config.data.splits()?;
    let parts = has.into_iter().map(|split| Ok((split, config.data.open(split)?))).collect::<Result<_>>()?;
    Ok(Arc::new(JoinedSplits::new(parts)?))
}

/// How the classes of a dataset become those of a model.
fn renaming(dataset: &Path, classes: &Classes, opened: &Opened) -> String {
    const IGNORE: &str = "move the values of classes that the model does not know into `ignore`";
    if !opened.is_temporary() {
        return format!("rename classes in a copy of `{}` next to it, or {IGNORE} there", opened.name);
    }
    let free = |toml: &PathBuf| ["", "-masks", "-train.txt", "-val.txt"].iter().all(|end| !beside(toml, end).exists());
    let mut names =
        (1..).map(|n| PathBuf::from(if n == 1 { "other.toml".to_owned() } else { format!("other-{n}.toml") }));
    let toml = names.find(free).unwrap_or_default();
    let other = shell_word(&toml);
    match opened.renaming(dataset, &toml, &classes.names) {
        Some(command) => {
            format!("if these are the model's classes in its order, name them so: {command}, and then --data {other}")
        }
        None => format!(
            "describe it: structtoken data init {} --out {other}; in that file call classes as the model does and {IGNORE}; \
             then --data {other}",
            shell_word(dataset)
        ),
    }
}

/// What `init` writes beside a description.
fn beside(toml: &Path, end: &str) -> PathBuf {
    match end {
        "" => toml.to_owned(),
        end => toml.with_file_name(format!("{}{end}", toml.file_stem().unwrap_or_default().to_string_lossy())),
    }
}

/// A network of the recipe with all its weights from `path`.
fn whole_network(config: &Config, classes: usize, path: &Path, device: &burn::tensor::Device) -> Result<Model> {
    let state = weights::read(path)?;
    let options = weights::LoadOptions::strict();
    let (model, report) = weights::load(config.model.blank(classes, device), &state, &options)
        .map_err(|error| Error::new(format!("cannot load `{}`", path.display())).with_source(error))?;
    talk!("{report}");
    Ok(model)
}
