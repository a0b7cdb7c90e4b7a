//! A forward pass as a list of tensor operations.
//!
//! Burn's recording device notes operations instead of computing them. The pass is noted for two batches of different
//! size, so that what follows the batch is told from what does not.

use std::collections::HashMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_capture::{CaptureBackend, CapturedGraph};
use burn_ir::{BaseOperationIr, IrVisitorMut, OperationIr, TensorId, TensorIr, TensorStatus};

use crate::error::{Error, Result};
use crate::infer::Network;
use crate::layers::parameters::{See, show};
use crate::model::Model;

/// Images of the two batches.
pub(super) const BATCHES: [usize; 2] = [2, 3];

/// What a forward pass does.
pub(super) struct Recording {
    /// The operations on two images, in their order, and the values of all constants.
    pub(super) first: CapturedGraph,
    /// The same operations on three.
    pub(super) second: Vec<OperationIr>,
    /// Parameters by name.
    pub(super) names: HashMap<TensorId, String>,
}

impl Recording {
    /// The images `[b, 3, height, width]`.
    pub(super) fn image(&self) -> TensorId {
        self.first.graph.inputs[0]
    }

    /// Maps `[b, h, w, c]`, and where masks vote, the votes `[b, c, k]`.
    pub(super) fn outputs(&self) -> &[TensorId] {
        &self.first.graph.outputs
    }
}

/// Records what the model does to images of this height and width.
///
/// # Errors
/// A pass that cannot be recorded, or does other things to a larger batch.
pub(super) fn record(model: &Model, size: [usize; 2]) -> Result<Recording> {
    let (first, names) = pass(model, BATCHES[0], size)?;
    let (second, _) = pass(model, BATCHES[1], size)?;
    let image = first.graph.inputs[0];
    let (a, b) = (&first.graph.operations, &second.graph.operations);
    let differs = |what: &str| {
        Error::new(format!("the model does not do the same to {} and to {} images: {what}", BATCHES[0], BATCHES[1]))
    };
    if a.len() != b.len() {
        return Err(differs(&format!("{} and {} operations", a.len(), b.len())));
    }
    for (a, b) in a.iter().zip(b) {
        if !alike(a, b) {
            return Err(differs("an operation has other settings"));
        }
        if let (OperationIr::Init(a), OperationIr::Init(b)) = (a, b) {
            let values = (first.values.get(&a.out.id), second.values.get(&b.out.id));
            if a.out.id != image && values.0 != values.1 {
                return Err(differs("a constant has other values"));
            }
        }
    }
    Ok(Recording { first, second: second.graph.operations, names })
}

/// Whether two operations differ in nothing but their tensors, and in ranges, which may follow the batch.
fn alike(a: &OperationIr, b: &OperationIr) -> bool {
    let bare = |operation: &OperationIr| {
        let mut operation = operation.clone();
        operation.visit_mut(&mut Bare);
        if let OperationIr::BaseFloat(base) | OperationIr::BaseInt(base) | OperationIr::BaseBool(base) = &mut operation
        {
            match base {
                BaseOperationIr::Slice(slice) => slice.ranges.clear(),
                BaseOperationIr::SliceAssign(slice) => slice.ranges.clear(),
                BaseOperationIr::RepeatDim(repeat) => repeat.times = 0,
                _ => {}
            }
        }
        operation
    };
    bare(a) == bare(b)
}

/// Takes all tensors for the same one.
struct Bare;

impl IrVisitorMut for Bare {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        tensor.id = TensorId::new(0);
        tensor.status = TensorStatus::ReadOnly;
        tensor.shape = [0; 0].into();
    }
}

fn pass(model: &Model, images: usize, size: [usize; 2]) -> Result<(CapturedGraph, HashMap<TensorId, String>)> {
    let device = Device::capture();
    let zeros = TensorData::zeros::<f32, _>([images, 3, size[0], size[1]]);
    let input = Tensor::<4>::from_data(zeros, &Device::flex());
    let mut names = Names::default();
    let mut failed = false;
    let captured = device.capture_scope(|scope| {
        let model = model.clone().no_grad().to_device(&device);
        show(&model, &mut names);
        let input = input.to_device(&device);
        let inputs = id(&input);
        let answer = model.predict_logits(input);
        let maps = id(&answer.maps);
        let votes = answer.votes.as_ref().map(id);
        failed = inputs.is_none() || maps.is_none() || votes == Some(None);
        scope.complete(inputs, maps.into_iter().chain(votes.flatten()))
    });
    let captured = captured.map_err(|error| Error::new(format!("cannot record the model: {error}")))?;
    if failed || names.failed {
        return Err(Error::new("cannot record the model: it leaves the device"));
    }
    Ok((captured, names.found))
}

/// Which recorded tensor holds which parameter.
#[derive(Default)]
struct Names {
    found: HashMap<TensorId, String>,
    failed: bool,
}

impl See for Names {
    fn see<const D: usize>(&mut self, name: &str, param: &Param<Tensor<D>>) {
        match id(&param.val()) {
            Some(id) => drop(self.found.insert(id, name.to_owned())),
            None => self.failed = true,
        }
    }
}

fn id<const D: usize>(tensor: &Tensor<D>) -> Option<TensorId> {
    tensor.clone().try_into_primitive::<CaptureBackend>().ok().map(|tensor| tensor.id())
}
