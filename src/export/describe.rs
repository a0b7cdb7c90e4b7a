//! Metadata of an exported file, in the words of those who read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::export::agreement::Agreement;
use crate::export::options::{ExportOptions, Precision, Profile};
use crate::infer::InferConfig;
use crate::loader::preprocess::Preprocess;
use crate::model_file::{KEY, ModelCard};

/// What an exported file says of itself under the key `structtoken`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExportCard {
    /// The version that wrote it.
    pub version: String,
    /// Height and width of the images.
    pub size: [usize; 2],
    /// What it takes and gives.
    pub profile: Profile,
    /// How weights are stored and what is computed with.
    pub precision: Precision,
    /// The normalisation; of profiles that take bytes it is in the graph.
    pub preprocess: Preprocess,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Their colours.
    pub colors: Vec<[u8; 3]>,
    /// How the model looks at images larger than a window; the graph is one window.
    pub eval: InferConfig,
    /// How far it agrees with the model.
    pub agreement: Agreement,
}

/// What a file says under the key of this project.
pub(super) fn card(card: &ModelCard, options: &ExportOptions, agreement: &Agreement) -> ExportCard {
    ExportCard {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        size: options.size,
        profile: options.profile,
        precision: options.precision,
        preprocess: card.data.preprocess.clone(),
        classes: card.classes.names.clone(),
        colors: card.classes.colors.clone(),
        eval: card.eval.clone(),
        agreement: agreement.clone(),
    }
}

/// All that a file says.
///
/// # Errors
/// None is known.
pub(super) fn metadata(
    card: &ModelCard,
    options: &ExportOptions,
    stride: usize,
    agreement: &Agreement,
) -> Result<BTreeMap<String, String>> {
    let names = &card.classes.names;
    let own = self::card(card, options, agreement);
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| Error::new("cannot describe the file").with_source(error))
    };
    let pairs = names.iter().enumerate().map(|(id, name)| Ok(format!("{id}: {}", json(serde_json::to_string(name))?)));
    let pairs: Vec<String> = pairs.collect::<Result<_>>()?;
    let mut entries = BTreeMap::from([
        (KEY.to_owned(), json(serde_json::to_string(&own))?),
        // As Ultralytics' files have it: numbers and dictionaries are Python's.
        ("description".to_owned(), "Semantic segmentation by structtoken".to_owned()),
        ("author".to_owned(), "structtoken".to_owned()),
        ("version".to_owned(), own.version.clone()),
        ("task".to_owned(), "semantic".to_owned()),
        ("stride".to_owned(), stride.to_string()),
        ("batch".to_owned(), "1".to_owned()),
        ("channels".to_owned(), "3".to_owned()),
        ("imgsz".to_owned(), format!("[{}, {}]", options.size[0], options.size[1])),
        ("names".to_owned(), format!("{{{}}}", pairs.join(", "))),
    ]);
    if options.profile == Profile::Qgis {
        entries.extend(deepness(card, options)?);
    }
    Ok(entries)
}

/// As Deepness reads it: every value is JSON.
fn deepness(card: &ModelCard, options: &ExportOptions) -> Result<BTreeMap<String, String>> {
    let names: BTreeMap<String, &String> =
        card.classes.names.iter().enumerate().map(|(id, name)| (id.to_string(), name)).collect();
    let shares = |values: [f32; 3]| values.map(|value| value / 255.0);
    let crop = card.eval.crop[1].max(1) as f64;
    let overlap = ((1.0 - card.eval.stride[1] as f64 / crop) * 100.0).clamp(0.0, 90.0).round();
    let values = [
        ("model_type", serde_json::json!("Segmentor")),
        ("class_names", serde_json::json!(names)),
        // The first is the key that it reads, the second the one that it documents.
        ("tile_size", serde_json::json!(options.size[1])),
        ("tiles_size", serde_json::json!(options.size[1])),
        ("tiles_overlap", serde_json::json!(overlap)),
        ("seg_thresh", serde_json::json!(0.0)),
        ("seg_small_segment", serde_json::json!(0)),
        ("standardization_mean", serde_json::json!(shares(card.data.preprocess.mean))),
        ("standardization_std", serde_json::json!(shares(card.data.preprocess.std))),
    ];
    Ok(values.into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect())
}

/// What a file of ours says of itself.
///
/// # Errors
/// A file of others.
pub(super) fn read(entries: &BTreeMap<String, String>) -> Result<ExportCard> {
    let text = entries.get(KEY).ok_or_else(|| {
        Error::new(format!("its metadata has no `{KEY}`"))
            .with_hint("only files that `structtoken export` wrote can be compared with their model")
    })?;
    serde_json::from_str(text).map_err(|error| {
        Error::new(format!("its metadata under `{KEY}` is damaged, or of another version"))
            .with_source(error)
            .with_hint("export the model again")
    })
}
