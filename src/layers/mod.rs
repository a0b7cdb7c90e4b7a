//! Building blocks: tensor to tensor, nothing about segmentation.
//!
//! Everything runs channels-last: tokens are `[b, n, c]`, maps `[b, h, w, c]`. Parameters keep PyTorch's names and
//! layouts, so a weight file reads the same in both worlds.

pub mod attention;
pub mod batch_norm;
pub mod context;
pub mod conv;
pub mod cost;
pub mod drop_path;
pub mod dropout;
pub mod group_norm;
pub mod init;
pub mod linear;
pub mod norm;
pub mod parameters;
pub mod patch_embed;
pub mod pixel_shuffle;
pub mod pointwise_conv;
pub mod position;
pub mod resize;
pub mod rotary;
pub mod transformer;

use burn::tensor::{Tensor, TensorData};

pub use attention::{MultiheadAttention, cross_attention};
pub use batch_norm::BatchNorm;
pub use context::{ForwardContext, Statistic};
pub use conv::{
    Conv2d, Conv3x3, DepthwiseConv3x3, DepthwiseConv7x7, GroupedConv3x3, PatchConv, TransposedConv2x2, max_pool2x2,
    max_pool3x3, upsample2x_concat,
};
pub use cost::Cost;
pub use drop_path::DropPath;
pub use dropout::Dropout;
pub use group_norm::GroupNorm;
pub use init::Init;
pub use linear::{Linear, Unbiased};
pub use norm::LayerNorm;
pub use patch_embed::PatchEmbed;
pub use pixel_shuffle::pixel_shuffle;
pub use pointwise_conv::PointwiseConv;
pub use position::Gridded;
pub use rotary::Rotation;
pub use transformer::{Block, BlockShape, MlpLayer, QkvBias};

/// A tensor without its graph, whether or not its device keeps one.
pub fn without_graph<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.device().is_autodiff() { x.inner() } else { x }
}

/// The values of a tensor as they are now. What a GPU's `into_data` gives copies them only when they are looked at, by
/// when an operation in place may have changed them: use this where they are kept.
pub fn fetch<const D: usize>(x: Tensor<D>) -> TensorData {
    let data = x.into_data();
    TensorData::from_bytes_vec(data.as_bytes().to_vec(), data.shape().clone(), data.dtype())
}
