//! Building blocks: tensor to tensor.
pub mod resize;
