//! Building blocks: tensor to tensor.
