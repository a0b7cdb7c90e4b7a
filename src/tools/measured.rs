//! What a model is measured on: a split of its own dataset, or of another whose classes are matched by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::{Classes, Dataset, JoinedSplits, Matched, Split};
use crate::error::{Error, Result};
use crate::loader::DataConfig;
use crate::text::shell_word;
use crate::tools::named::{Listener, OpenedDataset};

/// All splits at once.
pub const ALL: &str = "all";

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// A dataset as people name it, in place of the model's own.
    pub data: Option<&'a Path>,
    /// The split; that of validation unless stated, and of `data` without one all there is.
    pub split: Option<SplitChoice>,
    /// Whether the settings name the folder of the files, also of `data`.
    pub has_root: bool,
}

/// Images of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitChoice {
    /// Those of a split.
    One(Split),
    /// Those of every split that the dataset has.
    All,
}

/// The images to measure a model on, for as long as this lasts.
pub struct Measured {
    /// The images, with the model's classes.
    pub dataset: Arc<dyn Dataset>,
    /// What the dataset is called.
    pub title: String,
    /// The part of it: the name of a split, or [`ALL`].
    pub split: String,
    /// What was asked for as `data`; a folder is described while this lasts.
    pub opened: Option<OpenedDataset>,
}

impl Measured {
    /// Opens what is asked for. `data` are the settings of the model, whose weights are in `weights`, and become those
    /// of the dataset.
    ///
    /// # Errors
    /// A dataset that is not there or cannot be described; a class that the model does not know; a split that is not
    /// there.
    pub fn open(
        asked: Asked,
        data: &mut DataConfig,
        classes: &Classes,
        weights: &Path,
        listener: Listener,
    ) -> Result<Self> {
        let title = asked.data.map_or(data.dataset.clone(), |path| path.display().to_string());
        let opened = {
            let splits = matches!(asked.split, Some(SplitChoice::One(_)));
            asked.data.map(|path| OpenedDataset::open(path, splits, listener)).transpose()?
        };
        if let Some(opened) = &opened {
            data.dataset.clone_from(&opened.name);
            data.fold = None;
            // The folder of the recipe's dataset is not that of another.
            if !asked.has_root {
                data.root = None;
            }
        }
        let split = asked.split.unwrap_or(match &opened {
            Some(opened) if !opened.has_val => SplitChoice::All,
            _ => SplitChoice::One(Split::Val),
        });
        let (dataset, split) = match split {
            SplitChoice::One(split) => (data.open(split)?, split.to_string()),
            SplitChoice::All => (all(data)?, ALL.to_owned()),
        };
        if opened.is_some() {
            data.leftovers()?.iter().for_each(|left| (listener.say)(&format!("note: not used: {}", left.text())));
        }
        let dataset: Arc<dyn Dataset> = match &opened {
            Some(opened) => {
                let folder = asked.data.unwrap_or(Path::new(&title));
                let (matched, absent) = Matched::new(dataset, classes, &title)
                    .map_err(|error| error.with_hint(renaming(folder, classes, opened, listener)))?;
                if !absent.is_empty() {
                    (listener.say)(&format!(
                        "note: `{title}` has no class {}: each has an IoU of 0 in the mean if it is predicted anyway",
                        absent.join(", ")
                    ));
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
        Ok(Self { dataset, title, split, opened })
    }
}

/// Every split that the dataset has, as one.
fn all(data: &DataConfig) -> Result<Arc<dyn Dataset>> {
    let parts = data.splits()?.into_iter().map(|split| Ok((split, data.open(split)?))).collect::<Result<_>>()?;
    Ok(Arc::new(JoinedSplits::new(parts)?))
}

/// How the classes of a dataset become those of a model.
fn renaming(dataset: &Path, classes: &Classes, opened: &OpenedDataset, listener: Listener) -> String {
    const IGNORE: &str = "move the values of classes that the model does not know into `ignore`";
    if !opened.is_temporary() {
        return format!("rename classes in a copy of `{}` next to it, or {IGNORE} there", opened.name);
    }
    let free = |toml: &PathBuf| ["", "-masks", "-train.txt", "-val.txt"].iter().all(|end| !beside(toml, end).exists());
    let mut names =
        (1..).map(|n| PathBuf::from(if n == 1 { "other.toml".to_owned() } else { format!("other-{n}.toml") }));
    let toml = names.find(free).unwrap_or_default();
    let other = shell_word(&toml);
    match opened.renaming(dataset, &toml, &classes.names, listener.progress) {
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
