//! The model file: one `.safetensors` that says everything about itself.
//!
//! Its metadata hold the architecture, the classes with their colours, the dataset's label map, preprocessing and
//! inference settings, and what training reached; so `predict model.safetensors photo.jpg` needs nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::available_memory;
use crate::backbone::BackboneConfig;
use crate::bundled;
use crate::config::Config;
use crate::dataset::Classes;
use crate::error::{Error, Result};
use crate::infer::InferConfig;
use crate::kernels::{Precision, int8_weight_bits};
use crate::loader::DataConfig;
use crate::metrics::Scores;
use crate::model::{Model, ModelConfig};
use crate::text;
use crate::weights::{self, LoadOptions, StateDict};

/// The key under which the metadata lie.
pub const KEY: &str = "structtoken";

/// What a model file says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
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
    /// What eight bits cost it, if it has been quantized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<Quantization>,
}

/// What it costs a model to compute in eight bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantization {
    /// How many images it was found on.
    pub images: usize,
    /// Which ones these were, in words.
    pub of: String,
    /// Bits of a weight on the machine that found it: 8, or 7 with AVX2 alone.
    pub weight_bits: u32,
    /// Mean IoU on them in f32, from 0 to 1.
    pub miou_f32: f64,
    /// The same in eight bits.
    pub miou_int8: f64,
}

impl Quantization {
    /// The largest loss of mean IoU.
    pub const MOST_LOST: f64 = 0.005;

    /// Fails if too much is lost.
    ///
    /// # Errors
    /// A loss of more than [`MOST_LOST`](Self::MOST_LOST), and what no evaluation gives.
    pub fn check(&self) -> Result<()> {
        if self.images == 0 || ![self.miou_f32, self.miou_int8].iter().all(|miou| (0.0..=1.0).contains(miou)) {
            return Err(Error::new("its metadata states scores in eight bits that no evaluation gives"));
        }
        Self::check_loss("eight bits", self.miou_f32, self.miou_int8)
    }

    /// Fails if what makes a model smaller, in the plural, takes too much of a mean IoU from 0 to 1.
    pub(crate) fn check_loss(smaller: &str, before: f64, after: f64) -> Result<()> {
        match before - after <= Self::MOST_LOST {
            true => Ok(()),
            false => Err(Error::new(format!(
                "{smaller} cost {:.2} points of mIoU, {:.2} to {:.2}, and at most {:.1} are accepted",
                100.0 * (before - after),
                100.0 * before,
                100.0 * after,
                100.0 * Self::MOST_LOST
            ))),
        }
    }
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

impl ModelCard {
    /// That of the models of a recipe, before anything is learned.
    ///
    /// # Errors
    /// A dataset that cannot be described.
    pub fn new(config: &Config, classes: &Classes) -> Result<Self> {
        Ok(Self {
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
            int8: None,
        })
    }

    /// The same after some iterations of a number in total, with what the weights reach.
    #[must_use]
    pub fn trained(&self, [iteration, iterations]: [u64; 2], scores: &Scores) -> Self {
        let reached = |training| Training { iteration, iterations, miou: scores.miou, aacc: scores.aacc, ..training };
        Self { training: self.training.clone().map(reached), ..self.clone() }
    }

    /// What the file at `path` says, with changes such as `eval.mode=slide`.
    ///
    /// # Errors
    /// Changes of what does not exist, of the architecture, or to values that are not possible.
    pub fn with_changes(&self, changes: &[String], path: &Path) -> Result<Config> {
        let config =
            Config { model: self.model.clone(), data: self.data.clone(), eval: self.eval.clone(), ..Config::default() };
        if let Some(change) = changes.iter().find(|change| change.starts_with("model.")) {
            return Err(Error::new(format!("--set {change}: the architecture of `{}` is fixed", path.display()))
                .with_hint(
                    "train another model for another architecture; eval.*, data.root and data.preprocess can be changed",
                ));
        }
        Config::parse(&config.to_toml()?, &path.display().to_string(), changes)
    }

    /// As [`with_changes`](Self::with_changes), of a model that is to be used and not only measured.
    ///
    /// # Errors
    /// Also eight bits, where nobody has found what they cost the model.
    pub fn to_use(&self, changes: &[String], path: &Path) -> Result<Config> {
        let config = self.with_changes(changes, path)?;
        self.accept(&config.eval, path)?;
        Ok(config)
    }

    /// Fails if the settings ask for eight bits, and what they cost the model at `path` is not known or too much.
    pub(crate) fn accept(&self, settings: &InferConfig, path: &Path) -> Result<()> {
        if settings.precision != Precision::Int8 {
            return Ok(());
        }
        let refuse = |why: String| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let out = text::shell_word(Path::new(&format!("{stem}-int8.safetensors")));
            Err(Error::new(why).with_hint(format!(
                "structtoken quantize {} -o {out} finds it out, and writes a model that may use them; or take \
                 --set eval.precision=f32",
                text::shell_word(path)
            )))
        };
        let Some(found) = &self.int8 else {
            return refuse(format!("how much accuracy `{}` loses in eight bits is not known", path.display()));
        };
        if let Err(error) = found.check() {
            return refuse(format!("`{}`: {error}", path.display()));
        }
        match int8_weight_bits() {
            Some(bits) if bits < found.weight_bits => refuse(format!(
                "how much accuracy `{}` loses was found with weights of {} bits, and this processor takes {bits}",
                path.display(),
                found.weight_bits
            )),
            _ => Ok(()),
        }
    }

    /// As the metadata of a model file.
    ///
    /// # Errors
    /// None is known.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let text =
            serde_json::to_string(self).map_err(|error| Error::new("cannot describe the model").with_source(error))?;
        Ok(BTreeMap::from([(KEY.to_owned(), text)]))
    }
}

/// Opens a model file on `device`; `@NAME` is a [bundled] one.
pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<(Model, ModelCard)> {
    let path = &*bundled::resolve(path.as_ref())?;
    let state = weights::read(path)?;
    if !state.metadata.contains_key(KEY) {
        return Err(Error::new(format!("`{}` is not a structtoken model file", path.display())).with_hint(
            "published and pretrained weights do not state classes or preprocessing: use them through a recipe, as \
             train.pretrained or with `eval RECIPE --weights FILE`",
        ));
    }
    let card = unpack(&state.metadata).map_err(|error| Error::file("open the model file", path, error))?;
    let model = of_state(&card, &state, device)
        .map_err(|error| Error::new(format!("cannot load `{}`", path.display())).with_source(error))?;
    Ok((model, card))
}

/// The model of `card` with the weights of `state`. The shapes are compared before the model takes memory: a card may
/// claim any size.
fn of_state(card: &ModelCard, state: &StateDict, device: &Device) -> Result<Model> {
    let blank = card.model.blank(card.classes.names.len(), device);
    let parameters: u64 = state.tensors.values().map(|tensor| tensor.data.len() as u64).sum();
    available_memory::require(4 * parameters, "the network", "give the process more memory, or use a smaller network")?;
    Ok(weights::load(blank, state, &LoadOptions::exact())?.0)
}

/// Reads only what the file says about itself; `@NAME` is a [bundled] one.
pub fn read_card(path: impl AsRef<Path>) -> Result<ModelCard> {
    let path = bundled::resolve(path.as_ref())?;
    unpack(&weights::read_metadata(&path)?)
}

/// As [`read_card`]; nothing where the file is of another form, or no model of this program.
///
/// # Errors
/// A model file that says things about itself that cannot be.
pub fn read_card_if_any(path: &Path) -> Result<Option<ModelCard>> {
    let metadata = weights::read_metadata(path).unwrap_or_default();
    let card = metadata.contains_key(KEY).then(|| unpack(&metadata)).transpose();
    card.map_err(|error| Error::file("open the model file", path, error))
}

fn unpack(metadata: &BTreeMap<String, String>) -> Result<ModelCard> {
    let text = metadata.get(KEY).ok_or_else(|| Error::new(format!("its metadata has no `{KEY}`")))?;
    let card: ModelCard = serde_json::from_str(text).map_err(|error| {
        let own = env!("CARGO_PKG_VERSION");
        let written: Option<serde_json::Value> = serde_json::from_str(text).ok();
        match written.as_ref().and_then(|card| card["version"].as_str()).filter(|version| *version != own) {
            Some(version) => Error::new(format!("it was written by version {version}, and this is version {own}"))
                .with_hint(format!("use version {version} or later")),
            None => Error::new(format!("its metadata under `{KEY}` is damaged"))
                .with_hint("copy the file again, or use the run's last checkpoint"),
        }
        .with_source(error)
    })?;
    let card = as_written(card, metadata);
    card.model.check().map_err(|error| match error.hint() {
        Some(_) => error,
        None => error.with_hint("no file of this program says so: copy it again, or get it from its author"),
    })?;
    match card.classes.names.len() {
        n @ 1..=255 if card.classes.colors.len() == n => Ok(card),
        n => Err(Error::new(format!("its metadata names {n} classes and {} colours", card.classes.colors.len()))
            .with_hint("copy the file again, or use the run's last checkpoint")),
    }
}

/// Earlier versions made a table of positions with a row or column for a last patch that was not whole. The file says
/// its grid; a card that says the same otherwise is reported so.
fn as_written(mut card: ModelCard, metadata: &BTreeMap<String, String>) -> ModelCard {
    let BackboneConfig::Vit(vit) = &mut card.model.backbone else { return card };
    let grid = metadata.get(weights::GRID_METADATA).and_then(|text| {
        let (rows, columns) = text.split_once('x')?;
        Some([rows.parse::<usize>().ok()?, columns.parse::<usize>().ok()?])
    });
    if let Some(grid) = grid.filter(|_| vit.patch_size > 0)
        && grid == vit.img_size.map(|side| side.div_ceil(vit.patch_size))
    {
        vit.img_size = grid.map(|cells| cells.saturating_mul(vit.patch_size));
    }
    card
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::VitConfig;

    #[test]
    fn half_a_point_may_be_lost() {
        let found =
            |miou_f32, miou_int8| Quantization { images: 1, of: "a set".into(), weight_bits: 8, miou_f32, miou_int8 };
        assert!(found(0.705, 0.7001).check().is_ok() && found(0.6, 0.7).check().is_ok());
        let error = found(0.705, 0.69).check().unwrap_err().to_string();
        assert!(error.contains("1.50 points of mIoU, 70.50 to 69.00"), "{error}");
        assert!(found(-9.9, 0.5).check().is_err() && found(0.5, f64::NAN).check().is_err());
    }

    /// A small card for a grid of patches of a pixel.
    fn card((rows, columns): (usize, usize), decoder: &str) -> ModelCard {
        let text = format!(
            "[model.backbone]\ntype = \"vit\"\nembed_dim = 1\ndepth = 1\nnum_heads = 1\nmlp_ratio = 1.0\npatch_size = 1\n\
             img_size = [{rows}, {columns}]\n[model.decoder]\n{decoder}"
        );
        let config = Config::parse(&text, "card", &[]).unwrap();
        let classes = Classes { names: vec!["a".into()], colors: vec![[0; 3]] };
        unpack(&ModelCard::new(&config, &classes).unwrap().metadata().unwrap()).unwrap()
    }

    /// Whatever the grid, a model file gives the very weights that were written: no table is taken for one of another
    /// grid.
    #[test]
    fn every_grid_reloads_to_the_same_values() {
        let device = Device::flex();
        let decoders = [
            "type = \"structtoken\"\nnum_blocks = 1\nmlp_ratio = 1",
            "type = \"fcn\"\nnum_convs = 0\nauxiliary_weight = 0.0",
        ];
        for (at, grid) in (1..=40).flat_map(|rows| (1..=40).map(move |columns| (rows, columns))).enumerate() {
            let card = card(grid, decoders[at % 2]);
            let mut state = weights::state_of(&card.model.init(1, at as u64, &device));
            // A guess would have been taken from the number of cells, metadata or not.
            let (rows, columns) = grid;
            if at % 3 > 0 {
                state.metadata.insert(weights::GRID_METADATA.into(), format!("{rows}x{columns}"));
            }
            let model = of_state(&card, &state, &device).unwrap();
            assert!(weights::state_of(&model).tensors == state.tensors, "{rows}x{columns}");
        }
    }

    #[test]
    fn a_card_that_claims_another_size_than_the_file_is_refused() {
        let device = Device::flex();
        let honest = card((2, 3), "type = \"fcn\"\nnum_convs = 0\nauxiliary_weight = 0.0");
        let state = weights::state_of(&honest.model.init(1, 0, &device));
        let claims: [fn(&mut VitConfig); 4] = [
            |vit| vit.embed_dim = Some(16_384),
            |vit| vit.img_size = [1024, 1024],
            |vit| vit.depth = Some(64),
            |vit| vit.patch_size = 1024,
        ];
        for claim in claims {
            let mut card = honest.clone();
            let BackboneConfig::Vit(vit) = &mut card.model.backbone else { unreachable!() };
            claim(vit);
            card.model.check().unwrap();
            let error = of_state(&card, &state, &device).unwrap_err();
            assert!(error.to_string().contains("do not fit the model") && error.hint().is_some(), "{error}");
        }
        let beyond: [fn(&mut VitConfig); 6] = [
            |vit| vit.embed_dim = Some(1 << 62),
            |vit| vit.depth = Some(usize::MAX),
            |vit| vit.img_size = [65_536, 65_536],
            |vit| vit.img_size = [usize::MAX, 1],
            |vit| vit.reg_tokens = usize::MAX,
            |vit| vit.mlp_ratio = 1e300,
        ];
        for claim in beyond {
            let mut card = honest.clone();
            let BackboneConfig::Vit(vit) = &mut card.model.backbone else { unreachable!() };
            claim(vit);
            let text = serde_json::to_string(&card).unwrap();
            let error = unpack(&BTreeMap::from([(KEY.to_owned(), text)])).unwrap_err();
            assert!(error.to_string().contains("model.backbone"), "{error}");
        }
    }

    /// Rows and columns for a last patch that was not whole, as earlier versions counted them.
    #[test]
    fn a_file_of_an_earlier_version_keeps_its_grid() {
        let mut card = card((1, 1), "type = \"fcn\"\nnum_convs = 0\nauxiliary_weight = 0.0");
        let BackboneConfig::Vit(vit) = &mut card.model.backbone else { unreachable!() };
        (vit.patch_size, vit.img_size) = (4, [10, 12]);
        let mut metadata = card.metadata().unwrap();
        let grid = |metadata: &BTreeMap<String, String>| unpack(metadata).unwrap().model.backbone.features().grid;
        assert_eq!(grid(&metadata), (2, 3));
        metadata.insert(weights::GRID_METADATA.into(), "3x3".into());
        assert_eq!(grid(&metadata), (3, 3));
    }

    #[test]
    fn a_file_of_another_version_is_named_as_such() {
        let card = |text: &str| unpack(&BTreeMap::from([(KEY.to_owned(), text.to_owned())])).unwrap_err();
        let later = card(r#"{"version": "99.1.0", "soul": true}"#);
        assert!(later.to_string().contains("written by version 99.1.0"), "{later}");
        assert!(later.hint().unwrap().contains("99.1.0"));
        assert!(card("{").to_string().contains("damaged"));
    }
}
