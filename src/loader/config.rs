//! `[data]` of a recipe: which dataset, and what is done to its images.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::augment::AugmentConfig;
use crate::dataset::leftover::Leftover;
use crate::dataset::shapes::{Shapes, ShapesConfig};
use crate::dataset::spec::DatasetSpec;
use crate::dataset::{Classes, Dataset, Fold, Split, shapes};
use crate::dataset::{leftover, moved_dataset};
use crate::error::{Error, Result};
use crate::loader::preprocess::Preprocess;

/// The dataset and its treatment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DataConfig {
    /// `shapes`, a built-in name such as `ade20k`, or the path of a dataset TOML.
    pub dataset: String,
    /// Replaces the folder the dataset's description names.
    pub root: Option<PathBuf>,
    /// Cross-validation: what to train and to evaluate on of the training images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    /// How large the generated set is, if `dataset` is `shapes`.
    pub shapes: ShapesConfig,
    /// Threads that read and augment.
    pub workers: usize,
    /// Megabytes of decoded training images kept in memory.
    pub cache_mb: usize,
    /// Normalisation; part of the model from then on.
    pub preprocess: Preprocess,
    /// What training does to images.
    pub augment: AugmentConfig,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset: shapes::NAME.to_owned(),
            root: None,
            fold: None,
            shapes: ShapesConfig::default(),
            workers: 2,
            cache_mb: 1024,
            preprocess: Preprocess::default(),
            augment: AugmentConfig::default(),
        }
    }
}

impl DataConfig {
    /// Refuses values that cannot work, naming the key.
    pub fn check(&self) -> Result<()> {
        if self.workers == 0 || self.workers > 256 {
            return Err(Error::new(format!("data: workers = {} is not between 1 and 256", self.workers)));
        }
        if self.cache_mb > 1 << 24 {
            return Err(Error::new(format!("data: cache_mb = {} is more than {}", self.cache_mb, 1 << 24)));
        }
        self.fold.map_or(Ok(()), Fold::check)?;
        self.shapes.check()?;
        self.preprocess.check()?;
        self.augment.check()
    }

    /// Opens one split.
    ///
    /// # Errors
    /// An unknown name, a faulty TOML, a split that is not there, is empty or lacks masks.
    pub fn open(&self, split: Split) -> Result<Arc<dyn Dataset>> {
        let fold = self.fold.filter(|fold| fold.of > 1 && split != Split::Test);
        if self.dataset == shapes::NAME {
            return match fold {
                None => Ok(Arc::new(Shapes::of(&self.shapes, split))),
                Some(_) => Err(Error::new("the generated dataset `shapes` has no folds: its pictures are unlimited")
                    .with_hint("several seeds serve the same purpose: --seeds 5")),
            };
        }
        let (spec, root) = (DatasetSpec::find(&self.dataset)?, self.root.as_deref());
        Ok(Arc::new(match fold {
            None => spec.open(split, root)?.with_range(self.preprocess.range),
            Some(fold) => {
                let folder = spec.open(Split::Train, root)?.with_range(self.preprocess.range);
                folder.part(fold, split == Split::Val)?
            }
        }))
    }

    /// What lies in the dataset's folders and is not used. Only names are looked at.
    ///
    /// # Errors
    /// An unknown name, a faulty TOML.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        if self.dataset == shapes::NAME {
            return Ok(Vec::new());
        }
        leftover::leftovers(&DatasetSpec::find(&self.dataset)?, self.root.as_deref())
    }

    /// The splits that the dataset has. Of two that are the same, the first.
    ///
    /// # Errors
    /// As [`open`](Self::open), but files are not looked at.
    pub fn splits(&self) -> Result<Vec<Split>> {
        let all = [Split::Train, Split::Val, Split::Test];
        if self.dataset == shapes::NAME {
            return Ok(all.to_vec());
        }
        let spec = DatasetSpec::find(&self.dataset)?;
        let folds = self.fold.is_some_and(|fold| fold.of > 1);
        let mut seen = Vec::new();
        Ok(all
            .into_iter()
            .filter(|split| {
                // The held-out part of a fold is of the training images.
                let files = if folds && *split == Split::Val { None } else { spec.split(*split) };
                let held_out = folds && *split == Split::Val && spec.train.is_some();
                let new = files.is_some_and(|files| !seen.contains(&files));
                seen.extend(files);
                new || held_out
            })
            .collect())
    }

    /// The dataset's classes, without looking at its files.
    pub fn classes(&self) -> Result<Classes> {
        if self.dataset == shapes::NAME {
            return Ok(Shapes::of(&self.shapes, Split::Val).classes().clone());
        }
        Ok(DatasetSpec::find(&self.dataset)?.classes())
    }

    /// Takes the dataset that a model file was trained on for the one that lies now as it lay then, seen from the
    /// model, if it is no longer where the file says. `label_map` is what the file records of its description; without
    /// it only that of a run, which lies beside the file, is taken. Gives what to say about it.
    pub fn find_again(&mut self, model: &Path, label_map: Option<&serde_json::Value>) -> Option<String> {
        let old = PathBuf::from(&self.dataset);
        if old.extension().is_none_or(|ending| ending != "toml") || old.exists() {
            return None;
        }
        let beside = std::path::absolute(model).ok()?.with_file_name(old.file_name()?);
        let found = moved_dataset::find(&old, model, |spec| match label_map {
            Some(label_map) => serde_json::to_value(spec).is_ok_and(|value| value == *label_map),
            None => spec.file == beside,
        })?;
        self.dataset = found.toml.to_str()?.to_owned();
        let mut note =
            format!("`{}` is missing: using `{}`, which describes the same dataset", old.display(), self.dataset);
        if let Some(root) = found.root.filter(|_| self.root.is_none()) {
            note.push_str(&format!(", with the files below `{}`", root.display()));
            self.root = Some(root);
        }
        Some(note)
    }

    /// This, with the dataset's own range of 16-bit values where the recipe has none: the model needs it without its
    /// set.
    ///
    /// # Errors
    /// An unknown name, a faulty TOML.
    pub(crate) fn complete(&self) -> Result<Self> {
        let mut complete = self.clone();
        if self.preprocess.range.is_none() && self.dataset != shapes::NAME {
            complete.preprocess.range = DatasetSpec::find(&self.dataset)?.range;
        }
        Ok(complete)
    }

    /// The dataset's description as a model file records it: which source values became which class.
    pub fn label_map(&self) -> Result<serde_json::Value> {
        if self.dataset == shapes::NAME {
            return Ok(serde_json::Value::Null);
        }
        let spec = DatasetSpec::find(&self.dataset)?;
        serde_json::to_value(&spec).map_err(|error| Error::new("cannot record the label map").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_answered_with_the_known() {
        let open = |name: &str| DataConfig { dataset: name.to_owned(), ..DataConfig::default() }.open(Split::Val);
        let error = open("ade20").err().unwrap();
        assert!(error.to_string().contains("`ade20`") && error.hint().unwrap().contains("ade20k"), "{error}");
        assert_eq!(open("shapes").unwrap().classes().names[0], "background");
    }
}
