//! `[data]` of a recipe: which dataset, and what is done to its images.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::augment::AugmentConfig;
use super::preprocess::Preprocess;
use super::shapes::{Shapes, ShapesConfig};
use super::spec::DatasetSpec;
use super::{Classes, Dataset, Split, shapes};
use crate::error::{Error, Result};

/// The dataset and its treatment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// `shapes`, a built-in name such as `ade20k`, or the path of a dataset TOML.
    pub dataset: String,
    /// Replaces the folder the dataset's description names.
    pub root: Option<PathBuf>,
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
        self.shapes.check()?;
        self.preprocess.check()?;
        self.augment.check()
    }

    /// Opens one split.
    ///
    /// # Errors
    /// An unknown name, a faulty TOML, a split that is not there, is empty or lacks masks.
    pub fn open(&self, split: Split) -> Result<Arc<dyn Dataset>> {
        if self.dataset == shapes::NAME {
            return Ok(Arc::new(Shapes::of(&self.shapes, split)));
        }
        Ok(Arc::new(DatasetSpec::find(&self.dataset)?.open(split, self.root.as_deref())?))
    }

    /// The dataset's classes, without looking at its files.
    pub fn classes(&self) -> Result<Classes> {
        if self.dataset == shapes::NAME {
            return Ok(self.open(Split::Val)?.classes().clone());
        }
        Ok(DatasetSpec::find(&self.dataset)?.classes())
    }

    /// The dataset's description as a model file records it: which source values became which class.
    pub fn label_map(&self) -> Result<serde_json::Value> {
        if self.dataset == shapes::NAME {
            return Ok(serde_json::Value::Null);
        }
        let spec = DatasetSpec::find(&self.dataset)?;
        serde_json::to_value(&spec).map_err(|error| Error::new("cannot record the label map").source(error))
    }
}
