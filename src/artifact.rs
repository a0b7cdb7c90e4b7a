//! The model file: one `.safetensors` that says everything about itself.
//!
//! Its metadata hold the architecture, the classes with their colours, the dataset's label map, preprocessing and inference
//! settings, and what training reached; so `predict model.safetensors photo.jpg` needs nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::data::{Classes, DataConfig};
use crate::error::{Error, Result};
use crate::eval::{InferConfig, Scores};
use crate::model::{Model, ModelConfig};
use crate::weights::{self, LoadOptions};

/// The key under which the metadata lie.
pub const KEY: &str = "structtoken";

/// What a model file says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Version of the crate that wrote it.
    pub version: String,
    /// The architecture.
    pub model: ModelConfig,
    /// Names and colours.
    pub classes: Classes,
    /// The dataset as the recipe named it, its label map, and preprocessing.
    pub data: DataConfig,
    /// Source values of the dataset's masks for each class, and those ignored, as JSON of the dataset's description.
    pub label_map: serde_json::Value,
    /// How it was evaluated, and is used.
    pub eval: InferConfig,
    /// What training reached, if it was trained.
    pub training: Option<Training>,
}

/// What training reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Iterations done when these weights were taken.
    pub iteration: u64,
    /// Iterations planned.
    pub iterations: u64,
    /// Images a step.
    pub batch_size: usize,
    /// The seed.
    pub seed: u64,
    /// Mean IoU on the validation split.
    pub miou: Option<f64>,
    /// Pixel accuracy on the validation split.
    pub aacc: Option<f64>,
}

/// The metadata of a run's weights, before it has been evaluated.
pub fn metadata(config: &Config, classes: &Classes) -> Result<BTreeMap<String, String>> {
    let card = Card {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: config.model.clone(),
        classes: classes.clone(),
        data: config.data.complete()?,
        label_map: config.data.label_map()?,
        eval: config.eval.clone(),
        training: Some(Training {
            iteration: 0,
            iterations: config.train.iterations,
            batch_size: config.train.batch_size,
            seed: config.train.seed,
            miou: None,
            aacc: None,
        }),
    };
    pack(&card)
}

/// The same metadata with the scores of `iteration`.
pub fn with_training(
    metadata: &BTreeMap<String, String>,
    iteration: u64,
    scores: &Scores,
) -> Result<BTreeMap<String, String>> {
    let mut card = unpack(metadata)?;
    if let Some(training) = &mut card.training {
        (training.iteration, training.miou, training.aacc) = (iteration, scores.miou, scores.aacc);
    }
    pack(&card)
}

/// Opens a model file on `device`.
pub fn open(path: &Path, device: &Device) -> Result<(Model, Card)> {
    let state = weights::read(path)?;
    if !state.metadata.contains_key(KEY) {
        return Err(Error::new(format!("`{}` is no model file of structtoken", path.display())).hint(
            "published or pretrained weights say nothing about classes and preprocessing: \
             use them through a recipe, as train.pretrained or with `eval RECIPE --weights FILE`",
        ));
    }
    let card = unpack(&state.metadata).map_err(|error| Error::file("open the model file", path, error))?;
    let model = card.model.blank(card.classes.names.len(), device);
    let (model, _) = weights::load(model, &state, &LoadOptions::default())
        .map_err(|error| Error::new(format!("cannot load `{}`", path.display())).source(error))?;
    Ok((model, card))
}

/// Reads only what the file says about itself.
pub fn read_card(path: &Path) -> Result<Card> {
    unpack(&weights::read_metadata(path)?)
}

fn pack(card: &Card) -> Result<BTreeMap<String, String>> {
    let text = serde_json::to_string(card).map_err(|error| Error::new("cannot describe the model").source(error))?;
    let (rows, cols) = card.model.backbone.features().grid;
    Ok(BTreeMap::from([(KEY.to_owned(), text), (weights::GRID_METADATA.to_owned(), format!("{rows}x{cols}"))]))
}

fn unpack(metadata: &BTreeMap<String, String>) -> Result<Card> {
    let text = metadata.get(KEY).ok_or_else(|| Error::new(format!("its metadata have no `{KEY}`")))?;
    let card: Card = serde_json::from_str(text).map_err(|error| {
        let own = env!("CARGO_PKG_VERSION");
        let written: Option<serde_json::Value> = serde_json::from_str(text).ok();
        match written.as_ref().and_then(|card| card["version"].as_str()).filter(|version| *version != own) {
            Some(version) => Error::new(format!("it was written by version {version}, and this is {own}"))
                .hint(format!("use version {version}, or a later one")),
            None => Error::new(format!("its metadata under `{KEY}` are damaged"))
                .hint("copy the file again, or take the run's last checkpoint"),
        }
        .source(error)
    })?;
    card.model.check()?;
    match card.classes.names.len() {
        n @ 1..=255 if card.classes.colors.len() == n => Ok(card),
        n => Err(Error::new(format!("its metadata name {n} classes and {} colours", card.classes.colors.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_version_is_named_as_such() {
        let card = |text: &str| unpack(&BTreeMap::from([(KEY.to_owned(), text.to_owned())])).unwrap_err();
        let later = card(r#"{"version": "99.1.0", "soul": true}"#);
        assert!(later.to_string().contains("written by version 99.1.0"), "{later}");
        assert!(later.remedy().unwrap().contains("99.1.0"));
        assert!(card("{").to_string().contains("damaged"));
    }
}
