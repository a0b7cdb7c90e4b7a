//! Kernels of ours for GPUs, in CubeCL: CUDA, ROCm, Vulkan and Metal run the same source.
//!
//! A file here holds what the file of the same name one folder up is on the CPU. All sums are taken in an order that
//! depends on shapes alone, without atomics, so that equal inputs give equal bits on one device. A kernel takes at most
//! eight buffers and asks for no operations across a plane, so that a driver in software can run it.
// CubeCL knows fewer words than Rust.
#![allow(clippy::collapsible_if, clippy::implicit_saturating_sub, clippy::manual_div_ceil)]

mod adamw;
mod bridge;
mod deformable;
mod gelu;
mod grouped3x3;
mod layer_norm;
mod mask_loss;
mod recording;
mod rows;
mod softmax;
mod square_sum;
mod upsample;
mod upsample_loss;

#[cfg(test)]
mod tests;

pub(super) use adamw::adamw;
pub(super) use bridge::run;
pub(super) use recording::Recording;
pub(super) use softmax::Softmax;
pub(super) use square_sum::square_sum;
pub(super) use upsample::argmax;
pub(super) use upsample_loss::loss;
