//! The way from a burn tensor to plain slices and back, carrying a hand-written gradient.
//!
//! A [`Kernel`] is written once over [`FlexTensor`]s; [`run`] calls it for the tensors of a plain or an autodiff
//! device alike and registers its backward step in the latter case.

use std::fmt::Debug;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, Flex, backend_extension};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::measure;

/// An operation over contiguous f32 tensors, with its gradient.
pub(super) trait Kernel: Debug + Send + Sync + 'static {
    /// The output; with `keep`, also the tensors `backward` needs.
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>);

    /// The gradients of the inputs for which `wanted` is true, in the order of the inputs.
    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>>;
}

/// True where the kernels can be used: f32 on the CPU backend.
pub(super) fn on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device() == Device::flex()
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
        let inputs = match operands {
            Operands::One(a) => vec![a],
            Operands::Two(a, b) => vec![a, b],
            Operands::Three(a, b, c) => vec![a, b, c],
            Operands::Four(a, b, c, d) => vec![a, b, c, d],
            Operands::Five(a, b, c, d, e) => vec![a, b, c, d, e],
        };
        kernel.forward(inputs.into_iter().map(contiguous).collect(), false).0
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn run(kernel: Arc<dyn Kernel>, operands: Operands<Self>) -> FloatTensor<Self> {
        match operands {
            Operands::One(a) => tracked::<C, 1>(kernel, [a]),
            Operands::Two(a, b) => tracked::<C, 2>(kernel, [a, b]),
            Operands::Three(a, b, c) => tracked::<C, 3>(kernel, [a, b, c]),
            Operands::Four(a, b, c, d) => tracked::<C, 4>(kernel, [a, b, c, d]),
            Operands::Five(a, b, c, d, e) => tracked::<C, 5>(kernel, [a, b, c, d, e]),
        }
    }
}

fn tracked<C: CheckpointStrategy, const N: usize>(
    kernel: Arc<dyn Kernel>,
    inputs: [FloatTensor<Autodiff<Flex, C>>; N],
) -> FloatTensor<Autodiff<Flex, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let values = |keep| {
        let inputs = inputs.into_iter().map(|input| contiguous(input.into_primitive())).collect();
        kernel.forward(inputs, keep)
    };
    match BackwardStep(kernel.clone()).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (output, saved) = values(true);
            measure::note_kept(&saved);
            prep.finish(saved, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(values(false).0),
    }
}

#[derive(Debug)]
struct BackwardStep(Arc<dyn Kernel>);

impl<const N: usize> Backward<Flex, N> for BackwardStep {
    type State = Vec<FlexTensor>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(|parent| parent.is_some());
        for (parent, grad) in ops.parents.into_iter().zip(self.0.backward(ops.state, grad, &wanted)) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<Flex>(parent.id, grad);
            }
        }
    }
}

fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
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
