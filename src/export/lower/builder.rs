//! The graph under construction, with what the recorded tensors have become.

use std::collections::HashMap;

use burn::tensor::TensorData;
use burn_ir::{OperationIr, ScalarIr, TensorId, TensorIr};

use crate::error::{Error, Result};
use crate::export::graph::{Attributes, Data, Dim, Graph, Id, Kind};
use crate::export::interpret::{constant, kind};
use crate::export::record::{BATCHES, Recording};

/// The graph, and which of its values each recorded tensor is.
pub(super) struct Builder<'a> {
    pub(super) graph: Graph,
    pub(super) recording: &'a Recording,
    ids: HashMap<TensorId, Id>,
    /// Results of constants alone.
    folded: HashMap<TensorId, TensorData>,
}

/// What an operation is to give.
pub(super) struct Target {
    pub(super) shape: Vec<Dim>,
    pub(super) kind: Kind,
}

impl<'a> Builder<'a> {
    pub(super) fn new(recording: &'a Recording, mut graph: Graph, image: Id) -> Self {
        graph.values[image].recorded = Some(recording.image().value());
        let ids = HashMap::from([(recording.image(), image)]);
        Self { graph, recording, ids, folded: HashMap::new() }
    }

    /// The value that a recorded tensor is; a constant comes into the graph when it is first read.
    pub(super) fn input(&mut self, tensor: &TensorIr) -> Result<Id> {
        if let Some(id) = self.ids.get(&tensor.id) {
            return Ok(*id);
        }
        let Some(values) = self.values(tensor.id) else {
            return Err(Error::new("the recorded pass reads a tensor that nothing gives"));
        };
        let (shape, data) = (values.shape().to_vec(), constant(values)?);
        let id = self.graph.constant(&shape, data, self.layer(tensor.id));
        self.graph.values[id].recorded = Some(tensor.id.value());
        self.graph.values[id].name = self.recording.names.get(&tensor.id).cloned();
        self.ids.insert(tensor.id, id);
        Ok(id)
    }

    /// The values of a tensor that does not depend on the images.
    pub(super) fn values(&self, id: TensorId) -> Option<&TensorData> {
        let given = || self.recording.first.values.get(&id).filter(|_| id != self.recording.image());
        self.folded.get(&id).or_else(given)
    }

    /// Names what was computed of constants alone.
    pub(super) fn fold(&mut self, operation: &OperationIr, out: &TensorIr, values: TensorData) -> Result<()> {
        let layer = operation.inputs().map(|input| self.layer(input.id)).find(|layer| !layer.is_empty());
        let id = self.graph.constant(&values.shape().to_vec(), constant(&values)?, layer.unwrap_or_default());
        self.graph.values[id].recorded = Some(out.id.value());
        self.ids.insert(out.id, id);
        self.folded.insert(out.id, values);
        Ok(())
    }

    /// A recorded tensor is this value.
    pub(super) fn give(&mut self, out: &TensorIr, id: Id) {
        self.graph.values[id].recorded.get_or_insert(out.id.value());
        self.ids.insert(out.id, id);
    }

    /// The layer that a recorded constant belongs to.
    fn layer(&self, id: TensorId) -> String {
        match (self.recording.names.get(&id), self.ids.get(&id)) {
            (Some(name), _) => name.rsplit_once('.').map_or(name.as_str(), |(layer, _)| layer).to_owned(),
            (None, Some(id)) => self.graph.values[*id].layer.clone(),
            (None, None) => String::new(),
        }
    }

    /// A node that gives the target.
    pub(super) fn node(&mut self, op: &'static str, inputs: &[Id], attributes: Attributes, target: &Target) -> Id {
        self.graph.node(op, inputs, attributes, &target.shape, target.kind)
    }

    /// A number as a constant of no axes.
    pub(super) fn scalar(&mut self, value: ScalarIr, kind: Kind) -> Id {
        let data = match kind {
            Kind::Float => Data::Float(vec![value.elem::<f64>() as f32]),
            Kind::Bool => Data::Bool(vec![value.elem::<bool>()]),
            Kind::Int | Kind::Byte => Data::Int(vec![value.elem::<i64>()]),
        };
        self.graph.constant(&[], data, String::new())
    }
}

/// What the result of an operation looks like, from those for both batches.
pub(super) fn target(first: &TensorIr, second: &TensorIr) -> Result<Target> {
    Ok(Target { shape: shape(&first.shape.to_vec(), &second.shape.to_vec())?, kind: kind(first.dtype)? })
}

/// A shape with the batch left open.
pub(super) fn shape(first: &[usize], second: &[usize]) -> Result<Vec<Dim>> {
    let side = |(first, second): (&usize, &usize)| match (first / BATCHES[0], second / BATCHES[1]) {
        _ if first == second => Ok(Dim::Fixed(*first)),
        (a, b) if a == b && a * BATCHES[0] == *first && b * BATCHES[1] == *second => Ok(Dim::Batch(a)),
        _ => Err(Error::new(format!("a side of {first} for two images becomes one of {second} for three"))),
    };
    first.iter().zip(second).map(side).collect()
}

/// An operation that ONNX files are not written with.
pub(super) fn unsupported(operation: &str) -> Error {
    Error::new(format!("the model does `{operation}`, for which no form in ONNX is known"))
}
