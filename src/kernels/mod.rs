//! The network's hot operations: our own kernels with hand-written gradients.
//!
//! Each function takes and returns ordinary tensors. On the CPU in f32 it runs a kernel of ours, and on a GPU where
//! `gpu` has one; elsewhere it is the plain composition of tensor operations it is tested against, so every device
//! gives the same numbers up to rounding. Results do not depend on the number of threads.

mod adamw;
mod attention;
mod batch_norm;
mod bilinear;
mod bridge;
mod constant;
mod conv;
mod deformable;
mod drawn;
mod drop_path_scale;
mod gelu;
#[cfg(feature = "gpu")]
mod gpu;
mod gradient_hook;
mod group_norm;
mod int8;
#[cfg(target_arch = "x86_64")]
mod interleave;
mod layer_norm;
mod linear;
mod mask_loss;
mod matmul;
mod max_pool;
mod measure;
mod moments;
pub(crate) mod pixels;
mod planes;
mod point_sample;
mod rearrange;
mod recording;
mod rotary;
mod simd;
mod slice_attention;
mod softmax;
mod square_sum;
mod swiglu;
mod upsample;
mod upsample_loss;
mod vector;

#[cfg(test)]
mod tests;

pub use adamw::{AdamW, adamw_step};
pub(crate) use adamw::{adamw_steps, adamw_together};
pub use attention::attention;
pub use batch_norm::{batch_norm, batch_norm_with};
pub(crate) use constant::constant;
pub(crate) use conv::CONV_POINTS;
pub use conv::grouped3x3::{depthwise3x3, grouped3x3};
pub use conv::{conv2d, conv3x3, depthwise, with_batch_of};
pub use deformable::deformable_attention;
pub(crate) use drawn::{drawing_from, drawn};
pub use gelu::gelu;
pub(crate) use gradient_hook::{GradientHook, Values, node};
pub use group_norm::{group_norm, group_norm_relu};
pub use int8::{int8_products, int8_weight_bits};
pub use layer_norm::{layer_norm, layer_norm_add, layer_norm_gelu};
pub use linear::{linear, linear_add, linear_gelu};
pub use mask_loss::{ClassMasks, PointLoss, class_mask_losses, mask_losses, pairwise_mask_losses};
pub use matmul::{Precision, with_precision, without_int8};
pub use max_pool::{max_pool2x2, max_pool3x3};
pub use measure::{count_kept, count_macs, product};
pub use point_sample::point_sample;
pub use rearrange::{space_to_depth2, upsample2x_concat};
pub(crate) use recording::{Recording, can_record};
pub use rotary::rotary;
pub use simd::instruction_set;
pub use slice_attention::slice_attention;
pub use softmax::softmax;
pub use square_sum::square_sum;
pub use swiglu::swiglu;
pub(crate) use upsample::{Source, upsample_argmax};
pub use upsample_loss::{LossMean, upsample_cross_entropy, upsample_focal_loss, upsample_probabilities};
