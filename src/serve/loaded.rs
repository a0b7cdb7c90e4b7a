//! A model file, loaded and ready to be asked.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;

use crate::bundled;
use crate::error::{Error, Result};
use crate::files;
use crate::files::checksum::crc32;
use crate::image::Image;
use crate::infer::InferConfig;
use crate::loader::preprocess::Preprocess;
use crate::model_file;
use crate::predict::Predictor;
use crate::report::run::has_tokens;
use crate::serve::cost::CostModel;

/// A model that answers.
pub(super) struct Loaded {
    pub(super) name: String,
    pub(super) predictor: Predictor,
    pub(super) settings: InferConfig,
    pub(super) cost: CostModel,
    /// Which 16-bit values are black and white.
    pub(super) range: Option<[u16; 2]>,
    /// The checksum of its file, in hexadecimal digits.
    pub(super) version: String,
    /// For instance `vit + structtoken`.
    pub(super) architecture: String,
    pub(super) parameters: usize,
    pub(super) miou: Option<f64>,
    pub(super) has_tokens: bool,
}

impl Loaded {
    /// Reads the file at `path`, and labels a small image with it.
    ///
    /// # Errors
    /// A file that cannot be read or is not a model, settings that cannot be, and a model whose logits are not numbers.
    pub(super) fn open(name: &str, path: &Path, changes: &[String], device: &Device) -> Result<Self> {
        let path = &*bundled::resolve(path)?;
        let version = version(path)?;
        let (model, card) = model_file::open(path, device)?;
        let config = card.to_use(changes, path)?;
        let preprocess: Preprocess = config.data.preprocess;
        let range = preprocess.range;
        let (parameters, has_tokens) = (model.num_params(), has_tokens(&model));
        let classes = card.classes.names.len();
        let cost = CostModel::new(card.model.clone(), config.eval.clone(), classes);
        let kind = |value: &serde_json::Value| value["type"].as_str().unwrap_or("own").to_owned();
        let described = serde_json::to_value(&card.model)
            .map_err(|error| Error::new("cannot describe the model").with_source(error))?;
        let (backbone, decoder) = (kind(&described["backbone"]), kind(&described["decoder"]));
        let predictor = Predictor::new(model, preprocess, config.eval.clone(), device.clone(), card.classes)?;
        let loaded = Self {
            name: name.to_owned(),
            predictor,
            settings: config.eval,
            cost,
            range,
            version,
            has_tokens,
            architecture: format!("{backbone} + {decoder}"),
            parameters,
            miou: card.training.and_then(|training| training.miou),
        };
        loaded.check().map_err(|error| Error::file("use", path, error))?;
        Ok(loaded)
    }

    /// Labels an image, so that a model which cannot is not served.
    fn check(&self) -> Result<()> {
        const SIDE: usize = 64;
        let pixels = (0..SIDE * SIDE * 3).map(|at| (at * 7919 % 256) as u8).collect();
        self.predictor.predict(&Image { width: SIDE, height: SIDE, pixels }).map(drop)
    }
}

fn version(path: &Path) -> Result<String> {
    let sum = files::open(path)
        .and_then(crc32)
        .map_err(|error| Error::file("read", path, error).with_hint("check the path"))?;
    Ok(format!("{sum:08x}"))
}
