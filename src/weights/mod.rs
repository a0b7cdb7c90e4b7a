//! Weights in and out: foreign checkpoints are read, ours are written.
//!
//! ```text
//! file ──read──▶ StateDict ──remap_keys──▶ our parameter names ──load──▶ module, Report
//! module ──save──▶ one .safetensors that describes itself
//! ```
//!
//! [`read`] looks at a file's content, never at its extension, and knows safetensors, PyTorch's `.pth` (zip and legacy,
//! without ever running what the pickle asks for) and NumPy's `.npz`. [`remap_keys`] recognises who wrote the file by
//! the names of its tensors: the published StructToken and mmseg, timm (ViT, ResNet, ConvNeXt), DINOv2 and DINOv3,
//! AugReg's flax arrays, MaskFormer, Mask2Former and EoMT (their own code or Hugging Face), or this crate. [`load`] is
//! strict: what is missing, left over or of another shape is an error that lists it and names the likely cause. Tables
//! that belong to a grid of patches (`backbone.pos_embed`, `decoder.kernels`) are resized to the model's.
//!
//! Every file is hostile until checked: lengths are compared with what the file holds before memory is taken for them,
//! and a compressed file may not expand beyond [`MAX_EXPANSION`] times its size.

mod architecture;
mod augreg;
mod bicubic;
mod causes;
mod describe;
mod dinov3;
mod dtype;
mod earlier;
mod file;
mod hugging_face;
mod key_format;
mod load;
#[cfg(test)]
mod mirror;
mod npz;
mod numbers;
mod parameters;
mod pickle;
mod pickle_guard;
mod position_table;
mod read;
mod recognize_convolutional;
mod remap_keys;
mod report;
mod rules;
mod safetensor;
mod save;
mod shards;
mod state;
mod wrappers;

pub use bicubic::bicubic;
pub use describe::{CheckpointSummary, TensorSummary, describe};
pub use key_format::{KeyFormat, RemappedKeys};
pub use load::{LoadOptions, load};
pub(crate) use numbers::check as check_numbers;
pub use parameters::{named_parameters, round_to_f16, state_of};
pub use position_table::GRID_METADATA;
pub use read::read;
pub use recognize_convolutional::Convolutional;
pub use remap_keys::remap_keys;
pub use report::{LoadReport, Resized};
pub use save::{read_metadata, save, save_f16};
pub use state::{HostTensor, MAX_EXPANSION, StateDict, WeightFormat};
