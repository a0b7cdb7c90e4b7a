//! Recorded tensor operations to ONNX operations. What depends on constants alone is computed here.

mod base;
mod builder;
mod module;
mod numeric;

use burn_ir::{ModuleOperationIr, OperationIr};

use crate::error::{Error, Result};
use crate::export::graph::{Dim, Graph, Id, Kind};
use crate::export::interpret::once;
use crate::export::lower::builder::{Builder, target};
use crate::export::record::Recording;

/// A network: normalised images to what it says of them.
pub(super) struct Lowered {
    pub(super) graph: Graph,
    /// `[b, 3, height, width]`.
    pub(super) image: Id,
    /// `[b, h, w, c]`.
    pub(super) maps: Id,
    /// `[b, c, k]`, where masks vote.
    pub(super) votes: Option<Id>,
}

/// The operations of a recording as a graph.
///
/// # Errors
/// An operation without a counterpart.
pub(super) fn lower(recording: &Recording, size: [usize; 2]) -> Result<Lowered> {
    let mut graph = Graph::default();
    let shape = [Dim::Batch(1), Dim::Fixed(3), Dim::Fixed(size[0]), Dim::Fixed(size[1])];
    let image = graph.input("images", shape.to_vec(), Kind::Float);
    let mut builder = Builder::new(recording, graph, image);
    for (first, second) in recording.first.graph.operations.iter().zip(&recording.second) {
        if !matches!(first, OperationIr::Init(_)) {
            operation(&mut builder, first, second)?;
        }
    }
    let mut given = Vec::new();
    for id in recording.outputs() {
        let of = |operation: &OperationIr| operation.outputs().find(|out| out.id == *id).cloned();
        let tensor = recording.first.graph.operations.iter().find_map(of);
        given.push(builder.input(&tensor.ok_or_else(|| Error::new("the recorded pass has no result"))?)?);
    }
    let mut graph = builder.graph;
    graph.outputs.clone_from(&given);
    Ok(Lowered { graph, image, maps: given[0], votes: given.get(1).copied() })
}

fn operation(builder: &mut Builder, first: &OperationIr, second: &OperationIr) -> Result<()> {
    let outs: Vec<_> = first.outputs().zip(second.outputs()).collect();
    let [(out, other)] = outs[..] else { return Err(builder::unsupported(&name(first))) };
    let target = target(out, other)?;
    let constants: Option<Vec<_>> =
        first.inputs().map(|input| builder.values(input.id).map(|values| (input.id, values.clone()))).collect();
    if let Some(constants) = constants.filter(|_| target.shape.iter().all(|side| matches!(side, Dim::Fixed(_)))) {
        let values = once(first, constants, out)?;
        return builder.fold(first, out, values);
    }
    let id = match (first, second) {
        (OperationIr::BaseFloat(a), OperationIr::BaseFloat(b))
        | (OperationIr::BaseInt(a), OperationIr::BaseInt(b))
        | (OperationIr::BaseBool(a), OperationIr::BaseBool(b)) => base::lower(builder, a, b, &target),
        (OperationIr::NumericFloat(_, a), _) | (OperationIr::NumericInt(_, a), _) => {
            numeric::lower(builder, a, &target)
        }
        (OperationIr::Float(_, a), _) => numeric::float(builder, a, &target),
        (OperationIr::Int(a), _) => numeric::int(builder, a, &target),
        (OperationIr::Bool(a), _) => numeric::bool(builder, a, &target),
        (OperationIr::Activation(a), _) => module::activation(builder, a, &target),
        (OperationIr::Module(a), _) => module::lower(builder, a, &target),
        _ => Ok(None),
    }?;
    let id = id.ok_or_else(|| builder::unsupported(&name(first)))?;
    builder.give(out, id);
    Ok(())
}

/// What Burn calls an operation.
fn name(operation: &OperationIr) -> String {
    let text = match operation {
        OperationIr::Module(ModuleOperationIr::DeformableConv2d(_)) => "DeformableConv2d".to_owned(),
        operation => format!("{operation:?}"),
    };
    let words: Vec<&str> = text.split('(').take(2).map(|word| word.split([' ', ',']).next().unwrap_or(word)).collect();
    words.join(" ")
}
