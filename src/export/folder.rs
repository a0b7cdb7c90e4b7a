//! Folders that servers and hubs expect around a file, written whole.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::export::options::{ExportOptions, Profile};
use crate::files::{self, Scratch};
use crate::model_file::ModelCard;

/// Beside the ONNX file, the other files of a folder: their paths below it, and what is in them.
pub type Files = Vec<(String, Vec<u8>)>;

/// Where the ONNX file of a profile lies within its folder.
#[must_use]
pub fn place(profile: Profile) -> &'static str {
    match profile {
        Profile::Triton => "1/model.onnx",
        Profile::Web => "model.onnx",
        _ => "onnx/model.onnx",
    }
}

/// A model of Triton's repository: the folder is to bear its `name`.
#[must_use]
pub fn triton(name: &str, options: &ExportOptions) -> Files {
    let [height, width] = options.size;
    // A quoted text of protocol buffers is one of JSON.
    let name = Value::from(name);
    let text = format!(
        "name: {name}\nplatform: \"onnxruntime_onnx\"\nmax_batch_size: 8\n\
         input [{{ name: \"{}\", data_type: TYPE_UINT8, dims: [{height}, {width}, 3] }}]\n\
         output [{{ name: \"{}\", data_type: TYPE_UINT8, dims: [{height}, {width}] }}]\n\
         dynamic_batching {{ }}\n",
        options.profile.input(),
        options.profile.output(),
    );
    vec![("config.pbtxt".to_owned(), text.into_bytes())]
}

/// A folder as Hugging Face has them; `weights` is the model file.
///
/// # Errors
/// None is known.
pub fn hugging_face(card: &ModelCard, options: &ExportOptions, weights: Vec<u8>) -> Result<Files> {
    let names = &card.classes.names;
    let of: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
    let to: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
    let [height, width] = options.size;
    let config = json!({
        "model_type": "structtoken",
        "architectures": ["StructTokenForSemanticSegmentation"],
        "id2label": of,
        "label2id": to,
        "image_size": [height, width],
        "num_channels": 3,
        "structtoken": card,
    });
    let shares = |values: [f32; 3]| values.map(|value| f64::from(value) / 255.0);
    let preprocess = &card.data.preprocess;
    // The keys that SegformerImageProcessor reads.
    let preprocessor = json!({
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": true,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": shares(preprocess.mean),
        "image_std": shares(preprocess.std),
        "do_reduce_labels": false,
    });
    let text = |value: &Value| {
        let text = serde_json::to_string_pretty(value);
        text.map(String::into_bytes).map_err(|error| Error::new("cannot describe the model").with_source(error))
    };
    Ok(vec![
        ("config.json".to_owned(), text(&config)?),
        ("preprocessor_config.json".to_owned(), text(&preprocessor)?),
        ("model.safetensors".to_owned(), weights),
        ("README.md".to_owned(), readme(card, options).into_bytes()),
    ])
}

/// How a folder is used with Hugging Face's libraries.
const PIPELINE: &str = r#"```python
# pip install transformers "optimum[onnxruntime]"
from optimum.onnxruntime import ORTModelForSemanticSegmentation
from transformers import AutoImageProcessor, PretrainedConfig, pipeline

folder = "."
config = PretrainedConfig.from_pretrained(folder)
model = ORTModelForSemanticSegmentation.from_pretrained(folder, config=config, subfolder="onnx", file_name="model.onnx")
segment = pipeline("image-segmentation", model=model, image_processor=AutoImageProcessor.from_pretrained(folder))
print(segment("photo.jpg"))
```
"#;

fn readme(card: &ModelCard, options: &ExportOptions) -> String {
    let [height, width] = options.size;
    let classes: String = card
        .classes
        .names
        .iter()
        .enumerate()
        .map(|(id, name)| format!("| {id} | {} |\n", name.replace(['\r', '\n'], " ").replace('|', "\\|")))
        .collect();
    let reached = card.training.as_ref().and_then(|training| training.miou);
    let reached =
        reached.map_or(String::new(), |miou| format!("\nmIoU on its validation split: {:.1} %.\n", miou * 100.0));
    format!(
        "---\nlibrary_name: structtoken\npipeline_tag: image-segmentation\ntags: [onnx, semantic-segmentation]\n---\n\n\
         # A model for semantic segmentation\n\n\
         Made by structtoken {}. `onnx/model.onnx` takes `pixel_values` float `[N, 3, {height}, {width}]`, normalised as \
         `preprocessor_config.json` says, and gives `logits` `[N, {}, {height}, {width}]`. `model.safetensors` is the model \
         file that structtoken reads. No class of `transformers` has this architecture; `optimum` runs the ONNX file, and \
         pipelines take it:\n\n{PIPELINE}{reached}\n\
         | id | class |\n|---|---|\n{classes}",
        env!("CARGO_PKG_VERSION"),
        card.classes.names.len(),
    )
}

/// Refuses a place where a new folder cannot be.
///
/// # Errors
/// A folder that is not empty or cannot be replaced, and a place that may not be written.
pub fn check(out: &Path) -> Result<()> {
    let refused = |what: &str, hint: &str| Err(Error::new(format!("`{}` {what}", out.display())).with_hint(hint));
    if out.file_name().is_none() {
        return refused("has no name of its own, and a new folder takes its place", "name a folder that is new");
    }
    if let Ok(found) = out.symlink_metadata() {
        if found.is_symlink() {
            return refused("is a link, and a new folder would take its place", "name a folder that is new");
        }
        if !std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none()) {
            return refused("is there already", "name a folder that is new or empty");
        }
        if is_mounted(out) {
            return refused("is where a disk is mounted", "name a new folder inside of it");
        }
    }
    files::ensure_writable(&parent(out).join("folder")).map_err(|error| at(out, error))
}

fn parent(out: &Path) -> &Path {
    out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a folder is on another device than the one above it: it cannot be renamed over.
#[cfg(unix)]
fn is_mounted(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    device(folder) != device(parent(folder))
}

#[cfg(not(unix))]
fn is_mounted(_: &Path) -> bool {
    false
}

/// Writes a new folder: whole, or not at all.
///
/// # Errors
/// As [`check`], and a full disk.
pub fn write(out: &Path, contents: &Files) -> Result<()> {
    check(out)?;
    let failed = |error: std::io::Error| Error::file("write", out, error);
    let scratch = Scratch::new(parent(out), &out.file_name().unwrap_or_default().to_string_lossy())?;
    let whole = scratch.path().join("folder");
    for (name, bytes) in contents {
        files::write(&whole.join(name), bytes).map_err(|error| at(&out.join(name), error))?;
    }
    if out.is_dir() {
        std::fs::remove_dir(out).map_err(failed)?;
    }
    std::fs::rename(&whole, out).map_err(failed)
}

/// An error of writing by the place that was asked for, which is another while the folder is made.
fn at(place: &Path, error: Error) -> Error {
    let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
    let hint = error.hint().map(str::to_owned);
    let told = Error::file("write", place, cause);
    match hint {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}
