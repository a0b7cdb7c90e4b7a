//! The layer from which on a file computes something else than its model.
//!
//! The recorded pass is carried out once more, operation by operation, on two images; each tensor that the file has too
//! is compared, in the order in which they are made.

use std::collections::HashMap;

use burn::tensor::TensorData;
use burn_ir::OperationIr;

use crate::error::Result;
use crate::export::agreement::farther;
use crate::export::engine::{Engine, Input};
use crate::export::graph::{Dim, Graph, Kind};
use crate::export::interpret::Interpreter;
use crate::export::onnx::names;
use crate::export::record::{BATCHES, Recording};

/// Values that are held at once: of the file's tensors, before they are compared.
const HELD: usize = 1 << 27;

/// Where a file and its model part.
pub(super) enum Parting {
    /// At a layer, by so much of its largest value.
    At { layer: String, difference: f32 },
    /// At none of the tensors that were compared.
    Nowhere { compared: usize },
}

/// The layer that parts first: the first tensor that differs by more than `tolerance`.
///
/// `images` are two, normalised `[2, 3, h, w]`, and `input` the same as the file takes them.
///
/// # Errors
/// A file that cannot be run.
pub(super) fn first_difference(
    engine: &Engine,
    graph: &Graph,
    recording: &Recording,
    images: &TensorData,
    input: &Input,
    size: [usize; 2],
    tolerance: f32,
) -> Result<Parting> {
    let names = names(graph);
    let makes = |recorded: u64| {
        let of = |operation: &&OperationIr| operation.outputs().any(|out| out.id.value() == recorded);
        recording.first.graph.operations.iter().any(|operation| of(&operation))
    };
    let image = recording.image().value();
    let mut compared = Vec::new();
    for node in &graph.nodes {
        let value = &graph.values[node.output];
        let Some(recorded) = value.recorded else { continue };
        if value.kind == Kind::Float && engine.has(&names[node.output]) && (recorded == image || makes(recorded)) {
            compared.push((node.output, recorded));
        }
    }
    let mut rest = &compared[..];
    while !rest.is_empty() {
        let mut sum = 0;
        let fits = rest.iter().take_while(|(id, _)| {
            sum += length(&graph.values[*id].shape);
            sum <= HELD
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let wanted: Vec<&str> = now.iter().map(|(id, _)| names[*id].as_str()).collect();
        let given = engine.run(input, size, &wanted)?;
        let given: HashMap<u64, Vec<f32>> = now.iter().map(|(_, recorded)| *recorded).zip(given).collect();
        let differences = replay(recording, images, &given)?;
        for (id, recorded) in now {
            let difference = differences.get(recorded).copied().unwrap_or(0.0);
            if difference.is_nan() || difference > tolerance {
                return Ok(Parting::At { layer: layer(graph, *id), difference });
            }
        }
    }
    // The image itself is no layer.
    let layers = compared.iter().filter(|(_, recorded)| *recorded != image).count();
    Ok(Parting::Nowhere { compared: layers })
}

/// What a person calls the place of a value.
fn layer(graph: &Graph, id: usize) -> String {
    match graph.values[id].layer.as_str() {
        "" => "the input".to_owned(),
        layer => layer.to_owned(),
    }
}

fn length(shape: &[Dim]) -> usize {
    shape.iter().map(|side| if let Dim::Batch(n) = side { n * BATCHES[0] } else { length_of(side) }).product()
}

fn length_of(side: &Dim) -> usize {
    match side {
        Dim::Fixed(n) | Dim::Batch(n) => *n,
    }
}

/// For each of the given tensors, its largest difference from the recorded pass as a share of the largest value there.
fn replay(recording: &Recording, images: &TensorData, given: &HashMap<u64, Vec<f32>>) -> Result<HashMap<u64, f32>> {
    let mut interpreter = Interpreter::new();
    for (id, values) in &recording.first.values {
        interpreter.set(*id, if *id == recording.image() { images.clone() } else { values.clone() });
    }
    let mut found = HashMap::new();
    if let Some(values) = given.get(&recording.image().value()) {
        found.insert(recording.image().value(), difference(&images.iter::<f32>().collect::<Vec<_>>(), values));
    }
    for operation in &recording.first.graph.operations {
        interpreter.run(operation);
        for out in operation.outputs() {
            if let Some(values) = given.get(&out.id.value()) {
                let own: Vec<f32> = interpreter.read(out)?.iter::<f32>().collect();
                found.insert(out.id.value(), difference(&own, values));
            }
        }
    }
    Ok(found)
}

fn difference(own: &[f32], given: &[f32]) -> f32 {
    if own.len() != given.len() {
        return f32::INFINITY;
    }
    let largest = own.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    own.iter().zip(given).fold(0.0, |worst, (a, b)| farther(worst, (a - b).abs())) / largest
}
