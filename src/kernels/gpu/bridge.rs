//! The way from a burn tensor to the buffers of a CubeCL kernel and back.
//!
//! Burn's fusion holds operations back until their results are asked for. [`queue`] adds one of ours to them: its
//! launch is called with the buffers once its turn has come.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::fusion::custom::{CustomOpIr, HandleContainer, OperationFn, OperationIr, StreamId, TensorIr};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Cube, Dispatch, ExecutionError, backend_extension};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::fusion::CubeFusionHandle;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::prelude::*;

use crate::kernels::bridge::{Kernel, KernelBackend, Operands, differentiable, plain};

/// A tensor on a GPU, of any type of numbers, which may not have been computed yet.
pub(in crate::kernels) type GpuTensor = FloatTensor<Cube>;

/// Runs a kernel on one to five tensors; for all of them [`on_gpu`](crate::kernels::bridge::on_gpu) must hold.
pub(in crate::kernels) fn run<const D: usize>(kernel: impl Kernel<Cube>, operands: Operands<Dispatch>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as GpuKernels>::run_on_gpu(Arc::new(kernel), operands))
}

/// The backends that can run a [`Kernel`] of a GPU.
#[backend_extension(Cube, Autodiff)]
pub(in crate::kernels) trait GpuKernels: Backend {
    /// Runs `kernel` on the operands.
    fn run_on_gpu(kernel: Arc<dyn Kernel<Cube>>, #[extension_type] operands: Operands<Self>) -> FloatTensor<Self>;
}

impl KernelBackend for Cube {
    /// Buffers are made contiguous when a kernel is launched.
    fn prepared(x: GpuTensor) -> GpuTensor {
        x
    }

    fn note_kept(_: &[GpuTensor]) {}
}

impl GpuKernels for Cube {
    fn run_on_gpu(kernel: Arc<dyn Kernel<Cube>>, operands: Operands<Self>) -> FloatTensor<Self> {
        plain::<Self>(kernel, operands)
    }
}

impl<C: CheckpointStrategy> GpuKernels for Autodiff<Cube, C> {
    fn run_on_gpu(kernel: Arc<dyn Kernel<Cube>>, operands: Operands<Self>) -> FloatTensor<Self> {
        differentiable::<Cube, C>(kernel, operands)
    }
}

/// Shape and type of a tensor that a launch writes.
pub(super) type Spec = (Shape, DType);

/// An f32 tensor that a launch writes.
pub(super) fn f32s(shape: impl Into<Shape>) -> Spec {
    (shape.into(), DType::F32)
}

/// The buffers of a launch: contiguous inputs, and outputs that hold nothing yet.
pub(super) struct Buffers {
    inputs: Vec<CubeTensor>,
    outputs: Vec<CubeTensor>,
}

impl Buffers {
    /// The `i`-th input as an argument of a kernel.
    pub(super) fn input(&self, i: usize) -> BufferArg {
        self.inputs[i].clone().into_buffer_arg()
    }

    /// The `i`-th output as an argument of a kernel.
    pub(super) fn output(&self, i: usize) -> BufferArg {
        self.outputs[i].clone().into_buffer_arg()
    }

    /// A buffer for what one kernel of a launch leaves to the next.
    pub(super) fn scratch(&self, len: usize) -> CubeTensor {
        let like = &self.inputs[0];
        empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), Shape::new([len.max(1)]), DType::F32)
    }

    /// A buffer of these numbers.
    pub(super) fn constant<T: bytemuck::NoUninit>(&self, values: &[T]) -> BufferArg {
        let handle = self.client().create_from_slice(bytemuck::cast_slice(values));
        // SAFETY: the buffer holds as many numbers as were given.
        unsafe { BufferArg::from_raw_parts(handle, values.len()) }
    }

    /// Where kernels are launched.
    pub(super) fn client(&self) -> &cubecl::client::Client {
        &self.inputs[0].client
    }
}

/// Queues an operation: `launch` is called when its inputs have been computed, and fills the outputs.
pub(super) fn queue(
    name: &'static str,
    inputs: Vec<GpuTensor>,
    outputs: Vec<Spec>,
    launch: impl Fn(&Buffers) + Send + Sync + 'static,
) -> Vec<GpuTensor> {
    queue_parts(name, vec![(inputs, outputs)], move |_, buffers| launch(buffers))
}

/// Queues an operation of several parts, each of which has inputs: `launch` is called with the number of each and its
/// buffers, one after the other, so that only one part's are held at a time. Hands out the outputs of all.
pub(super) fn queue_parts(
    name: &'static str,
    parts: Vec<(Vec<GpuTensor>, Vec<Spec>)>,
    launch: impl Fn(usize, &Buffers) + Send + Sync + 'static,
) -> Vec<GpuTensor> {
    let client = parts[0].0[0].client.clone();
    let of_part = |(inputs, outputs): (Vec<GpuTensor>, Vec<Spec>)| -> (Vec<TensorIr>, Vec<TensorIr>) {
        let output = |(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype);
        (inputs.into_iter().map(|input| input.into_ir()).collect(), outputs.into_iter().map(output).collect())
    };
    let parts: Vec<(Vec<TensorIr>, Vec<TensorIr>)> = parts.into_iter().map(of_part).collect();
    let inputs: Vec<TensorIr> = parts.iter().flat_map(|(inputs, _)| inputs).cloned().collect();
    let outputs: Vec<TensorIr> = parts.iter().flat_map(|(_, outputs)| outputs).cloned().collect();
    let operation = CustomOpIr::new(name, &inputs, &outputs);
    let execute = OperationFn(move |handles: &mut HandleContainer<CubeFusionHandle>| -> Result<(), ExecutionError> {
        for (number, (inputs, outputs)) in parts.iter().enumerate() {
            // The kind of number is part of the tensor itself: the backend has one primitive for all of them.
            let inputs: Vec<CubeTensor> =
                inputs.iter().map(|input| into_contiguous(handles.get_float_tensor::<CubeBackend>(input))).collect();
            let (client, device) = (inputs[0].client.clone(), inputs[0].device.clone());
            let empty = |output: &TensorIr| {
                empty_device_contiguous_dtype(client.clone(), device.clone(), output.shape.clone(), output.dtype)
            };
            let buffers = Buffers { outputs: outputs.iter().map(empty).collect(), inputs };
            launch(number, &buffers);
            for (output, tensor) in outputs.iter().zip(buffers.outputs) {
                handles.register_float_tensor::<CubeBackend>(&output.id, tensor);
            }
        }
        Ok(())
    });
    client.register(StreamId::current(), OperationIr::Custom(operation), execute)
}

/// The tensor as kernels take it; it is on a GPU.
pub(super) fn primitive<const D: usize>(x: Tensor<D>) -> GpuTensor {
    match x.inner().try_into_primitive::<Cube>() {
        Ok(x) => x,
        Err(error) => unreachable!("the tensor is on a GPU: {error:?}"),
    }
}

/// [`queue`] for an operation with one output.
pub(super) fn queue_one(
    name: &'static str,
    inputs: Vec<GpuTensor>,
    output: Spec,
    launch: impl Fn(&Buffers) + Send + Sync + 'static,
) -> GpuTensor {
    match queue(name, inputs, vec![output], launch).pop() {
        Some(output) => output,
        None => unreachable!("an operation with one output has one"),
    }
}
