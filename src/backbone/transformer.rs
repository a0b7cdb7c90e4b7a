//! The common part of plain vision transformers: tokens go through equal blocks, and the patches' become maps.

use burn::tensor::Tensor;

use crate::backbone::Features;
use crate::layers::{Block, ForwardContext, LayerNorm, Rotation};

/// A plain vision transformer of any kind, as a decoder that lives inside of it sees it.
pub trait Transformer {
    /// Normalised images `[b, 3, height, width]` to the tokens that enter the first block.
    fn embed(&self, images: Tensor<4>, context: &ForwardContext) -> Tokens;

    /// The blocks, in order.
    fn blocks(&self) -> &[Block];

    /// The norm after the last block.
    fn norm(&self) -> Option<&LayerNorm>;
}

/// What enters the first block.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[b, n, c]`: class token, registers, patches, as far as there are any. More may be put before them.
    pub x: Tensor<3>,
    /// Rows and columns of the patches.
    pub grid: (usize, usize),
    /// What turns queries and keys in each block, where that is how positions are encoded.
    pub rotation: Option<Rotation>,
}

/// Normalised images `[b, 3, height, width]` to one map `[b, h, w, c]` for each of `blocks`, where
/// `h = ceil(height / patch)`.
pub(super) fn maps(
    transformer: &impl Transformer,
    blocks: &[usize],
    images: Tensor<4>,
    context: &ForwardContext,
) -> Features {
    let Tokens { mut x, grid, rotation } = transformer.embed(images, context);
    let mut maps = Vec::with_capacity(blocks.len());
    for (i, block) in transformer.blocks().iter().enumerate() {
        x = context.within(&format!("vit.layer{i}"), || block.forward(x, None, rotation.as_ref(), context));
        context.record(&format!("vit.layer{i}"), &x);
        if blocks.contains(&i) {
            maps.push(to_map(transformer.norm(), x.clone(), grid));
        }
    }
    Features { maps }
}

fn to_map(norm: Option<&LayerNorm>, x: Tensor<3>, (h, w): (usize, usize)) -> Tensor<4> {
    let x = match norm {
        Some(norm) => norm.forward(x),
        None => x,
    };
    let [batch, tokens, dim] = x.dims();
    x.slice([0..batch, tokens - h * w..tokens]).reshape([batch, h, w, dim]) // [b, h, w, c]
}
