//! Fine-tuning: a trained model learns other classes.
//!
//! What belongs to a class (rows of a classifier, structure tokens, class embeddings) follows the class's name; what
//! belongs to none is kept as it is, and what belongs to a new class has its initial values. Which part of a tensor
//! belongs to a class is not listed anywhere: networks for two and for three classes tell by their shapes how many
//! elements of an axis there are for each class. Those of the classes come first, class by class, in every decoder.

use std::path::Path;

use burn::tensor::Device;

use crate::config::Config;
use crate::dataset::Classes;
use crate::error::{Error, Result};
use crate::layers::parameters;
use crate::model::{Model, ModelConfig};
use crate::model_file::{self, ModelCard};
use crate::weights::{self, HostTensor, LoadOptions, StateDict};

/// What becomes of the classes of a model that is fine-tuned to others.
#[derive(Debug, PartialEq, Eq)]
struct Moved {
    kept: Vec<String>,
    new: Vec<String>,
    dropped: Vec<String>,
    /// For each new class the old one of the same name.
    from: Vec<Option<usize>>,
}

impl Moved {
    fn new(old: &[String], new: &[String]) -> Self {
        let from: Vec<Option<usize>> = new.iter().map(|name| old.iter().position(|known| known == name)).collect();
        let with = |known: bool| {
            let all = new.iter().zip(&from).filter(move |(_, from)| from.is_some() == known);
            all.map(|(name, _)| name.clone()).collect()
        };
        let dropped = old.iter().filter(|name| !new.contains(name)).cloned().collect();
        Self { kept: with(true), new: with(false), dropped, from }
    }

    /// In words.
    fn text(&self) -> String {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let Self { kept, new, dropped, .. } = self;
        format!("classes kept: {}; new: {}; dropped: {}", list(kept), list(new), list(dropped))
    }
}

/// The elements of an axis that belong to each class, and how many there are for all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    each: usize,
    rest: usize,
}

impl Axis {
    /// From its length for two and for three classes.
    fn of(two: usize, three: usize) -> Self {
        let each = three.saturating_sub(two);
        Self { each, rest: two.saturating_sub(2 * each) }
    }

    fn len(self, classes: usize) -> usize {
        self.each * classes + self.rest
    }

    /// For each element of the axis for new classes the one of the axis for `old` classes.
    fn sources(self, moved: &Moved, old: usize) -> Vec<Option<usize>> {
        let each = self.each;
        let classes = moved.from.iter().flat_map(|from| (0..each).map(move |at| from.map(|from| from * each + at)));
        classes.chain((0..self.rest).map(|at| Some(old * each + at))).collect()
    }
}

/// The parameters of a network with what of their axes belongs to classes.
fn axes(model: &ModelConfig) -> Vec<(String, Vec<Axis>)> {
    let [two, three] = [2, 3].map(|classes| parameters::list(&model.blank(classes, &Device::flex())));
    let pairs = two.into_iter().zip(three);
    pairs
        .map(|((name, two, _), (_, three, _))| (name, two.iter().zip(&three).map(|(a, b)| Axis::of(*a, *b)).collect()))
        .collect()
}

/// `fresh` with the values of `old` where there are any: `sources` says for each axis which element comes from where.
fn moved_values(old: &HostTensor, mut fresh: HostTensor, sources: &[Vec<Option<usize>>]) -> HostTensor {
    let strides = |shape: &[usize]| {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        strides
    };
    let (of_old, of_new) = (strides(&old.shape), strides(&fresh.shape));
    for (at, value) in fresh.data.iter_mut().enumerate() {
        let mut source = Some(0);
        for (axis, sources) in sources.iter().enumerate() {
            let index = at / of_new[axis] % sources.len();
            source = source.and_then(|sum: usize| Some(sum + sources[index]? * of_old[axis]));
        }
        if let Some(known) = source.and_then(|source| old.data.get(source)) {
            *value = *known;
        }
    }
    fresh
}

/// The weights of the model that `card` describes, for other classes.
fn for_classes(mut state: StateDict, card: &ModelCard, moved: &Moved, seed: u64) -> Result<StateDict> {
    let (old, new) = (card.classes.len(), moved.from.len());
    let axes = axes(&card.model);
    // Before anything takes memory: a card may claim any size.
    for (name, axes) in &axes {
        let expected: Vec<usize> = axes.iter().map(|axis| axis.len(old)).collect();
        if state.tensors.get(name).is_none_or(|tensor| tensor.shape != expected) {
            let found = state.tensors.get(name).map_or("not there".to_owned(), |tensor| format!("{:?}", tensor.shape));
            return Err(Error::new(format!(
                "`{name}` is {found}, and the network that the file describes has {expected:?}"
            ))
            .with_hint("the file is damaged, or was assembled by hand: copy it again"));
        }
    }
    let mut fresh = weights::state_of(&card.model.init(new, seed, &Device::flex())).tensors;
    for (name, axes) in axes {
        if axes.iter().all(|axis| axis.each == 0) {
            continue;
        }
        let (Some(tensor), Some(values)) = (state.tensors.get_mut(&name), fresh.remove(&name)) else { continue };
        let sources: Vec<Vec<Option<usize>>> = axes.iter().map(|axis| axis.sources(moved, old)).collect();
        *tensor = moved_values(tensor, values, &sources);
    }
    Ok(state)
}

/// What a part of a network is called in a recipe.
fn kind(part: &impl serde::Serialize) -> String {
    let table = toml::Value::try_from(part).ok();
    table.and_then(|table| Some(table.get("type")?.as_str()?.to_owned())).unwrap_or_default()
}

/// `model` with the weights of a file of ours whose card is `card`, whatever its classes; and what was done, in words.
///
/// # Errors
/// The file holds another network than the recipe.
pub(super) fn load(
    model: Model,
    state: StateDict,
    card: &ModelCard,
    classes: &Classes,
    (config, path): (&Config, &Path),
) -> Result<(Model, String)> {
    let shown = path.display();
    let remedy = format!(
        "also use the network of the file, as `structtoken train … --from {shown}` does; or only its backbone, with \
         train.pretrained_backbone_only = true"
    );
    for (part, of_file, of_recipe) in [
        ("backbone", kind(&card.model.backbone), kind(&config.model.backbone)),
        ("decoder", kind(&card.model.decoder), kind(&config.model.decoder)),
    ] {
        if of_file != of_recipe {
            let what = format!("`{shown}` is a model with the {part} `{of_file}`, and the recipe's is `{of_recipe}`");
            return Err(Error::new(what).with_hint(remedy));
        }
    }
    let moved = Moved::new(&card.classes.names, &classes.names);
    let state = match card.classes.names == classes.names {
        true => state,
        false => {
            for_classes(state, card, &moved, config.train.seed).map_err(|error| Error::file("use", path, error))?
        }
    };
    let loaded = weights::load(model, &state, &LoadOptions::strict());
    let (model, report) = loaded.map_err(|error| {
        let remedy = match error.hint() {
            Some(likely) => format!("{likely}; or {remedy}"),
            None => remedy,
        };
        Error::new(format!("the network of `{shown}` is not the recipe's")).with_source(error).with_hint(remedy)
    })?;
    let mut text = format!("continuing from `{shown}`: backbone and decoder kept; {}\n{report}", moved.text());
    if card.data.preprocess != config.data.preprocess {
        text += "\nwarning: that model was trained on images that were normalised differently from data.preprocess of \
                 this recipe";
    }
    Ok((model, text))
}

/// What a recipe takes from the model file at `path` to fine-tune it, as `key=value`: the network, the normalisation,
/// and where the weights lie.
///
/// # Errors
/// A file that is not a model of this program.
pub fn settings_of(path: &Path) -> Result<Vec<String>> {
    let card = model_file::read_card(path).map_err(|error| {
        Error::new(format!("cannot continue from `{}`", path.display())).with_source(error).with_hint(
            "--from takes a model.safetensors of this program; for other weights use --pretrained or train.pretrained",
        )
    })?;
    let inline = |key: &str, value: toml::Value| format!("{key}={value}");
    let failed = |error| Error::new("cannot write the settings as TOML").with_source(error);
    Ok(vec![
        inline("model.backbone", toml::Value::try_from(&card.model.backbone).map_err(failed)?),
        inline("model.decoder", toml::Value::try_from(&card.model.decoder).map_err(failed)?),
        inline("data.preprocess", toml::Value::try_from(&card.data.preprocess).map_err(failed)?),
        inline("train.pretrained", toml::Value::from(path.display().to_string())),
    ])
}

#[cfg(test)]
mod tests;
