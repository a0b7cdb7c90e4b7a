//! The way from a burn tensor to plain slices and back, carrying a hand-written gradient.
//!
//! A [`Kernel`] is written once over the tensors of a backend; [`run`] calls it for the tensors of a plain or an
//! autodiff device alike and registers its backward step in the latter case. Those of a GPU have a `run` of their own.

use std::fmt::Debug;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::Arc;

#[cfg(feature = "gpu")]
use burn::backend::DispatchDevice;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, Flex, backend_extension};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{gradient_hook, measure};

/// An operation over contiguous f32 tensors, with its gradient.
pub(super) trait Kernel<B: Backend = Flex>: Debug + Send + Sync + 'static {
    /// The output; with `keep`, also the tensors `backward` needs.
    fn forward(&self, inputs: Vec<FloatTensor<B>>, keep: bool) -> (FloatTensor<B>, Vec<FloatTensor<B>>);

    /// The gradients of the inputs for which `wanted` is true, in the order of the inputs.
    fn backward(
        &self,
        saved: Vec<FloatTensor<B>>,
        grad: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>>;
}

/// A backend that has kernels of ours.
pub(super) trait KernelBackend: Backend {
    /// A tensor as kernels take it.
    fn prepared(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Notes what is kept for gradients.
    fn note_kept(saved: &[FloatTensor<Self>]);

    /// Notes the nodes of what a kernel takes whose gradient is asked for.
    fn note_used(_nodes: &[u64]) {}

    /// Notes a gradient that a kernel gives to a node.
    fn note_registered(_node: u64, _grad: &FloatTensor<Self>) {}
}

impl KernelBackend for Flex {
    fn prepared(x: FlexTensor) -> FlexTensor {
        if x.is_contiguous() { x } else { x.to_contiguous() }
    }

    fn note_kept(saved: &[FlexTensor]) {
        measure::note_kept(saved);
    }

    fn note_used(nodes: &[u64]) {
        gradient_hook::used(nodes);
    }

    fn note_registered(node: u64, grad: &FlexTensor) {
        gradient_hook::registered(node, grad);
    }
}

/// True where the kernels can be used: f32 on the CPU backend.
pub(super) fn on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device() == Device::flex()
}

/// True where those for GPUs can be used: f32 on a GPU, in as many elements as they can count.
pub(super) fn on_gpu<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_gpu(&x.device()) && u32::try_from(x.shape().num_elements()).is_ok()
}

/// Whether it is a GPU, or a driver that stands for one.
pub(super) fn is_gpu(device: &Device) -> bool {
    #[cfg(feature = "gpu")]
    {
        matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Cube(_))
    }
    #[cfg(not(feature = "gpu"))]
    {
        let _ = device;
        false
    }
}

/// Runs a kernel on one to five tensors; for all of them [`on_cpu`] must hold.
pub(super) fn run<const D: usize>(kernel: impl Kernel, operands: Operands<Dispatch>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Kernels>::run(Arc::new(kernel), operands))
}

/// The tensors an operation takes.
#[derive(ExtensionType)]
pub(super) enum Operands<B: Backend> {
    /// One tensor.
    One(FloatTensor<B>),
    /// Two tensors.
    Two(FloatTensor<B>, FloatTensor<B>),
    /// Three tensors.
    Three(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    /// Four tensors.
    Four(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
    /// Five tensors.
    Five(FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>),
}

impl<B: Backend> Operands<B> {
    /// One to five tensors.
    pub(super) fn of(tensors: Vec<FloatTensor<B>>) -> Self {
        let count = tensors.len();
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().unwrap_or_else(|| panic!("an operation on {count} tensors"));
        match count {
            1 => Self::One(next()),
            2 => Self::Two(next(), next()),
            3 => Self::Three(next(), next(), next()),
            4 => Self::Four(next(), next(), next(), next()),
            _ => Self::Five(next(), next(), next(), next(), next()),
        }
    }
}

/// The backends that can run a [`Kernel`].
#[backend_extension(Flex, Autodiff)]
pub(super) trait Kernels: Backend {
    /// Runs `kernel` on the operands.
    fn run(kernel: Arc<dyn Kernel>, #[extension_type] operands: Operands<Self>) -> FloatTensor<Self>;
}

impl Kernels for Flex {
    fn run(kernel: Arc<dyn Kernel>, operands: Operands<Self>) -> FloatTensor<Self> {
        plain::<Self>(kernel, operands)
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn run(kernel: Arc<dyn Kernel>, operands: Operands<Self>) -> FloatTensor<Self> {
        differentiable::<Flex, C>(kernel, operands)
    }
}

/// Runs a kernel whose gradient nobody asks for.
pub(super) fn plain<B: KernelBackend>(kernel: Arc<dyn Kernel<B>>, operands: Operands<B>) -> FloatTensor<B> {
    let inputs = match operands {
        Operands::One(a) => vec![a],
        Operands::Two(a, b) => vec![a, b],
        Operands::Three(a, b, c) => vec![a, b, c],
        Operands::Four(a, b, c, d) => vec![a, b, c, d],
        Operands::Five(a, b, c, d, e) => vec![a, b, c, d, e],
    };
    kernel.forward(inputs.into_iter().map(B::prepared).collect(), false).0
}

/// Runs a kernel and registers its backward step.
pub(super) fn differentiable<B: KernelBackend, C: CheckpointStrategy>(
    kernel: Arc<dyn Kernel<B>>,
    operands: Operands<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    match operands {
        Operands::One(a) => tracked::<B, C, 1>(kernel, [a]),
        Operands::Two(a, b) => tracked::<B, C, 2>(kernel, [a, b]),
        Operands::Three(a, b, c) => tracked::<B, C, 3>(kernel, [a, b, c]),
        Operands::Four(a, b, c, d) => tracked::<B, C, 4>(kernel, [a, b, c, d]),
        Operands::Five(a, b, c, d, e) => tracked::<B, C, 5>(kernel, [a, b, c, d, e]),
    }
}

fn tracked<B: KernelBackend, C: CheckpointStrategy, const N: usize>(
    kernel: Arc<dyn Kernel<B>>,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let numbers = nodes.each_ref().map(|node| node.id().value);
    let values = |keep| {
        let inputs = inputs.into_iter().map(|input| B::prepared(input.into_primitive())).collect();
        kernel.forward(inputs, keep)
    };
    match BackwardStep(kernel.clone()).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (output, saved) = values(true);
            B::note_kept(&saved);
            B::note_used(&numbers);
            prep.finish(saved, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(values(false).0),
    }
}

#[derive(Debug)]
struct BackwardStep<B: Backend>(Arc<dyn Kernel<B>>);

impl<B: KernelBackend, const N: usize> Backward<B, N> for BackwardStep<B> {
    type State = Vec<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = B::prepared(grads.consume::<B>(&ops.node));
        let wanted = ops.parents.each_ref().map(|parent| parent.is_some());
        for (parent, grad) in ops.parents.into_iter().zip(self.0.backward(ops.state, grad, &wanted)) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                B::note_registered(parent.id.value, &grad);
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

/// The elements of a contiguous f32 tensor.
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    match x.as_slice() {
        Some(values) => values,
        None => panic!("a kernel was given a strided or non-f32 tensor: {x:?}"),
    }
}

/// A tensor of the given shape that owns `values`.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<burn::tensor::Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// A buffer for `len` values that are all going to be written; saves filling it with zeros first.
pub(super) fn uninitialized(len: usize) -> Vec<MaybeUninit<f32>> {
    let mut buffer = Vec::with_capacity(len);
    // SAFETY: the capacity is `len`, and uninitialised is a valid state of `MaybeUninit`.
    unsafe { buffer.set_len(len) };
    buffer
}

/// The values written into an [`uninitialized`] buffer.
///
/// # Safety
/// Every element has been written.
pub(super) unsafe fn written(buffer: Vec<MaybeUninit<f32>>) -> Vec<f32> {
    let mut buffer = ManuallyDrop::new(buffer);
    // SAFETY: same allocation, size and alignment; the caller vouches for the contents.
    unsafe { Vec::from_raw_parts(buffer.as_mut_ptr().cast(), buffer.len(), buffer.capacity()) }
}

/// An [`uninitialized`] buffer that several tasks write into, each in places of its own.
#[derive(Clone, Copy)]
pub(super) struct SharedBuffer {
    start: *mut MaybeUninit<f32>,
    len: usize,
}

// SAFETY: access goes through `slice`, whose caller vouches that no two slices overlap.
unsafe impl Send for SharedBuffer {}
// SAFETY: as above.
unsafe impl Sync for SharedBuffer {}

impl SharedBuffer {
    /// The buffer must outlive every use.
    pub(super) fn new(buffer: &mut [MaybeUninit<f32>]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len() }
    }

    /// The `len` places from `start` on.
    ///
    /// # Safety
    /// The buffer is still there, and nobody else holds any of these places.
    pub(super) unsafe fn slice<'a>(self, start: usize, len: usize) -> &'a mut [MaybeUninit<f32>] {
        assert!(start + len <= self.len);
        // SAFETY: inside the buffer by the assertion, unshared by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
