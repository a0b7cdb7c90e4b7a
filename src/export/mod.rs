//! Models as ONNX files that are proven to be the same model.
//!
//! ```text
//! Model ──[record]──▶ operations of a pass ──[lower]──▶ Graph ──[simplify]──▶ Graph ──[ends]──▶ Graph ──[onnx]──▶ bytes
//! bytes ──[engine]──▶ labels of images ──[agreement]──▶ Agreement with the model's own, or [locate] the layer that parts first
//! ```

mod agreement;
mod declared;
mod describe;
mod ends;
mod engine;
pub mod folder;
mod graph;
mod interpret;
mod locate;
mod lower;
mod message;
mod onnx;
mod options;
mod peak;
mod products;
mod protobuf;
mod quantize;
mod record;
mod simplify;
pub mod web;

pub use agreement::{Agreement, Bounds, Pictures};
pub use describe::ExportCard;
pub use options::{ExportOptions, Precision, Profile};

use crate::available_memory;
use crate::error::{Error, Result};
use crate::export::declared::Declared;
use crate::export::engine::Engine;
use crate::export::graph::Graph;
use crate::export::locate::Parting;
use crate::export::record::Recording;
use crate::infer::InferMode;
use crate::model::Model;
use crate::model_file::{self, ModelCard};

/// A file that is the model, not written yet.
pub struct Exported {
    /// The file.
    pub bytes: Vec<u8>,
    /// How far it agrees with the model.
    pub agreement: Agreement,
    /// Operations in its graph.
    pub nodes: usize,
}

/// The size of a window of the model, rounded up to what the network takes without padding; of a model that sees whole
/// images, the size that its backbone is made for.
#[must_use]
pub fn default_size(model: &Model, card: &ModelCard) -> [usize; 2] {
    let features = card.model.backbone.features();
    match card.eval.mode {
        InferMode::Whole => [features.grid.0, features.grid.1].map(|cells| model.padded(cells * features.stride())),
        _ => card.eval.crop.map(|side| model.padded(side)),
    }
}

/// Makes the file and compares it with the model on the pictures.
///
/// # Errors
/// A size that the network would have to pad, an operation without a form in ONNX, and a file that does not agree with
/// the model: it says which layer parts first.
pub fn export(model: &Model, card: &ModelCard, options: &ExportOptions, pictures: &Pictures) -> Result<Exported> {
    check_size(model, options.size, pictures.len())?;
    let model = &model.clone().for_inference();
    let (recording, graph) = build(model, card, options)?;
    let mut bytes = onnx::encode(&graph, options.precision)?;
    let engine = Engine::load(bytes.clone())?;
    let agreement = agree(&engine, model, card, options, pictures, &recording, &graph)?;
    let entries = describe::metadata(card, options, model.padded(1), &agreement)?;
    bytes.extend(onnx::encode_metadata(&entries));
    if onnx::read_metadata(&bytes)? != entries {
        return Err(Error::new("the file does not say what was put into it"));
    }
    Ok(Exported { bytes, agreement, nodes: graph.nodes.len() })
}

/// What a file that [`export`] made says of itself.
///
/// # Errors
/// Bytes that are no ONNX file, or one of others.
pub fn read_card(file: &[u8]) -> Result<ExportCard> {
    describe::read(&onnx::read_metadata(file)?)
}

/// Compares a file with the model once more: what it computes, and what it declares to those who run it.
///
/// # Errors
/// As [`export`], a file of another model, and one that declares other inputs, outputs or metadata than [`export`]
/// writes.
pub fn verify(file: Vec<u8>, model: &Model, card: &ModelCard, pictures: &Pictures) -> Result<Agreement> {
    let written = read_card(&file)?;
    let options = ExportOptions { size: written.size, profile: written.profile, precision: written.precision };
    if written.classes != card.classes.names {
        return Err(Error::new(format!(
            "the file has other classes than the model: {} instead of {}",
            written.classes.join(", "),
            card.classes.names.join(", ")
        ))
        .with_hint("pass the model that the file was made from"));
    }
    check_size(model, options.size, pictures.len())?;
    let model = &model.clone().for_inference();
    let (recording, graph) = build(model, card, &options)?;
    Declared::read(&file)?.ensure(&Declared::read(&onnx::encode(&graph, options.precision)?)?)?;
    let own = ExportCard { version: written.version.clone(), ..describe::card(card, &options, &written.agreement) };
    let mut wanted = describe::metadata(card, &options, model.padded(1), &written.agreement)?;
    if own == written {
        // It may say the same in other words, as another version did.
        wanted.remove(model_file::KEY);
    }
    declared::ensure_metadata(&onnx::read_metadata(&file)?, &wanted)?;
    let engine = Engine::load(file)?;
    agree(&engine, model, card, &options, pictures, &recording, &graph)
}

fn build(model: &Model, card: &ModelCard, options: &ExportOptions) -> Result<(Recording, Graph)> {
    let recording = record::record(model, options.size)?;
    let lowered = lower::lower(&recording, options.size)?;
    let mut graph = ends::attach(lowered, &card.data.preprocess, options.size, options.profile)?;
    simplify::simplify(&mut graph)?;
    let [height, width] = options.size;
    let images = format!("the comparison on images of {height} x {width}");
    available_memory::require(graph.peak_bytes(agreement::BATCH) as u64, &images, FITTING)?;
    Ok((recording, graph))
}

/// Compares, and where the file is not the same model, finds where it parts.
fn agree(
    engine: &Engine,
    model: &Model,
    card: &ModelCard,
    options: &ExportOptions,
    pictures: &Pictures,
    recording: &Recording,
    graph: &Graph,
) -> Result<Agreement> {
    if pictures.is_empty() {
        return Err(Error::new("there is no image to compare the file and the model with"));
    }
    let preprocess = &card.data.preprocess;
    let (agreement, consistent) = agreement::compare(engine, model, preprocess, options, pictures)?;
    let bounds = Bounds::of(options.precision);
    if agreement.holds(bounds) {
        return Ok(agreement);
    }
    let images = pictures.pair(preprocess, options.profile)?;
    // Scores may change by more than a layer before one of them is worth naming.
    let tolerance = bounds.largest_difference.min(0.1) as f32;
    let found = locate::first_difference(engine, graph, recording, &images.0, &images.1, options.size, tolerance)?;
    let place = match found {
        Parting::Nowhere { compared: 0 } => {
            "no layer could be compared, as the file's tensors have other names".to_owned()
        }
        Parting::At { layer, difference } => {
            format!("`{layer}` parts first, by {} of its largest value", share(difference.into()))
        }
        Parting::Nowhere { .. } if !consistent => {
            "every layer agrees: they part in the labels that are made of the class scores".to_owned()
        }
        Parting::Nowhere { .. } if agreement.largest_difference <= bounds.largest_difference => {
            "every layer agrees: labels change where two classes are almost equal".to_owned()
        }
        Parting::Nowhere { .. } => {
            "every layer of the network agrees: they part in the resize to the images' size".to_owned()
        }
    };
    let miou = match agreement.miou {
        Some([own, file]) if !agreement.keeps_miou(bounds) => {
            format!(", mIoU is {} instead of {}", share(file), share(own))
        }
        _ => String::new(),
    };
    let error = Error::new(format!(
        "the ONNX file is not the same model: class scores differ by {} of the largest (at most {}), and {} of the labels \
         are the same (at least {}){miou}; {place}",
        share(agreement.largest_difference),
        share(bounds.largest_difference),
        share(agreement.same_labels),
        share(bounds.same_labels),
    ));
    Err(match options.precision {
        Precision::F16 => error.with_hint("keep the weights as they are: --precision f32"),
        Precision::Int8 => error.with_hint("store the weights less coarsely: --precision f16"),
        Precision::Int8Dynamic => error.with_hint("compute in f32: --precision int8"),
        Precision::F32 => error,
    })
}

/// A share in percent.
fn share(value: f64) -> String {
    match value {
        value if !value.is_finite() => "more than any number".to_owned(),
        value if value > 10.0 => format!("{value:.1e} times"),
        value => format!("{:.4} %", value * 100.0),
    }
}

/// What helps where an export needs more memory than there is.
const FITTING: &str = "export for a smaller size with --size HxW, such as a window of the model; larger images are labelled \
                       window by window";
/// Sides of images are at most this.
const LARGEST: usize = 1 << 14;

/// Refuses a size that the model cannot be exported for, before `count` images of it are made.
///
/// # Errors
/// One that is no multiple of the network's stride, too large, or beyond the memory.
pub fn check_size(model: &Model, size: [usize; 2], count: usize) -> Result<()> {
    let stride = model.padded(1);
    let [height, width] = size;
    if size.contains(&0) || size.iter().any(|side| *side > LARGEST) {
        return Err(Error::new(format!("images of {height} x {width} pixels cannot be exported"))
            .with_hint(format!("give height and width as multiples of {stride}, from {stride} to {LARGEST}")));
    }
    let padded = size.map(|side| model.padded(side));
    if padded != size {
        return Err(Error::new(format!("the model takes sides of multiples of {stride}, not {height} x {width}"))
            .with_hint(format!("--size {}x{}", padded[0], padded[1])));
    }
    // Images as they are compared, and the batches of zeros that a pass is recorded for.
    let pixels = 3 * height * width;
    let bytes = count * pixels + record::BATCHES.iter().sum::<usize>() * size_of::<f32>() * pixels;
    available_memory::require(bytes as u64, &format!("{count} images of {height} x {width}"), FITTING)
}
