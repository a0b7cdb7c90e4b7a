//! DINOv3's vision transformer (Siméoni et al., arXiv 2508.10104): the plain one with positions as rotations instead of
//! a table, register tokens, LayerScale, no bias of the keys, and SwiGLU in its plus sizes.
//!
//! Parameters are named as those of [`Vit`](super::Vit) are, after timm: `weights` knows timm's own names for this
//! network, its authors' and Hugging Face's. LayerNorm eps is 1e-5, GELU is exact. The rotations are computed from the
//! grid of each image; their random shifts and scales in the authors' pretraining are left out.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::transformer::{Tokens, Transformer, maps};
use crate::backbone::{Backbone, FeatureInfo, Features, VitConfig};
use crate::error::{Error, Result};
use crate::layers::{
    Block, BlockShape, Cost, DropPath, ForwardContext, Init, LayerNorm, MlpLayer, PatchEmbed, QkvBias, Rotation,
};

const EPS: f64 = 1e-5;
/// Of the rotations.
const THETA: f64 = 100.0;

/// Published sizes: width, depth, heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Dinov3Size {
    /// 384, 12, 6.
    Small,
    /// The same with SwiGLU.
    SmallPlus,
    /// 768, 12, 12.
    Base,
    /// 1024, 24, 16.
    Large,
}

/// Configuration of [`Dinov3`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Dinov3Config {
    /// Width, depth, heads and the kind of MLP at once; each can be overridden.
    pub size: Dinov3Size,
    /// Channels of a token.
    pub embed_dim: Option<usize>,
    /// Number of blocks.
    pub depth: Option<usize>,
    /// Attention heads; divides the width into multiples of 4 channels.
    pub num_heads: Option<usize>,
    /// Hidden channels of a block's MLP over its width.
    pub mlp_ratio: f64,
    /// The MLP of the blocks, `mlp` or `swiglu`.
    pub mlp_layer: Option<MlpLayer>,
    /// Pixels along a patch.
    pub patch_size: usize,
    /// Height and width of the images that a decoder is made for; the network itself takes any.
    pub img_size: [usize; 2],
    /// Learned tokens between the class token and the patches.
    pub reg_tokens: usize,
    /// Queries and values have a bias; timm leaves it out where it is zero.
    pub qkv_bias: bool,
    /// Initial LayerScale.
    pub init_values: f64,
    /// Normalises the maps handed out.
    pub final_norm: bool,
    /// Blocks whose output is handed out, from 0; empty means the last.
    pub out_indices: Vec<usize>,
    /// Drop path rate of the last block, rising linearly from 0.
    pub drop_path_rate: f64,
}

impl Default for Dinov3Config {
    fn default() -> Self {
        Self {
            size: Dinov3Size::Small,
            embed_dim: None,
            depth: None,
            num_heads: None,
            mlp_ratio: 4.0,
            mlp_layer: None,
            patch_size: 16,
            img_size: [512, 512],
            reg_tokens: 4,
            qkv_bias: true,
            init_values: 1.0,
            final_norm: true,
            out_indices: Vec::new(),
            drop_path_rate: 0.1,
        }
    }
}

impl Dinov3Config {
    /// (width, depth, heads), overrides applied.
    pub fn dims(&self) -> (usize, usize, usize) {
        let (dim, depth, heads) = match self.size {
            Dinov3Size::Small | Dinov3Size::SmallPlus => (384, 12, 6),
            Dinov3Size::Base => (768, 12, 12),
            Dinov3Size::Large => (1024, 24, 16),
        };
        (self.embed_dim.unwrap_or(dim), self.depth.unwrap_or(depth), self.num_heads.unwrap_or(heads))
    }

    fn mlp(&self) -> MlpLayer {
        let published = if self.size == Dinov3Size::SmallPlus { MlpLayer::SwiGlu } else { MlpLayer::Mlp };
        self.mlp_layer.unwrap_or(published)
    }

    /// The plain transformer of the same shapes.
    fn plain(&self) -> VitConfig {
        let (dim, depth, heads) = self.dims();
        VitConfig {
            embed_dim: Some(dim),
            depth: Some(depth),
            num_heads: Some(heads),
            mlp_ratio: self.mlp_ratio,
            mlp_layer: self.mlp(),
            patch_size: self.patch_size,
            img_size: self.img_size,
            class_token: true,
            reg_tokens: self.reg_tokens,
            init_values: Some(self.init_values),
            final_norm: self.final_norm,
            out_indices: self.out_indices.clone(),
            drop_path_rate: self.drop_path_rate,
            ..VitConfig::default()
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.plain().check()?;
        let (dim, _, heads) = self.dims();
        match (dim / heads).is_multiple_of(4) {
            true => Ok(()),
            false => Err(Error::new(format!(
                "model.backbone: embed_dim = {dim} gives each of num_heads = {heads} {} channels, which is not a multiple of 4",
                dim / heads
            ))
            .with_hint("a rotation takes two channels for the row and two for the column: change num_heads or embed_dim")),
        }
    }

    pub(super) fn features(&self) -> FeatureInfo {
        self.plain().features()
    }

    pub(super) fn macs(&self, image: (usize, usize)) -> Vec<Cost> {
        self.plain().macs(image)
    }

    pub(super) fn activations(&self, grid: (usize, usize)) -> usize {
        self.plain().activations(grid)
    }

    /// As of a plain one, and the rotations of a head.
    pub(super) fn kept_activations(&self, grid: (usize, usize)) -> usize {
        let (dim, _, heads) = self.dims();
        self.plain().kept_activations(grid) + grid.0 * grid.1 * dim / heads
    }

    /// It has no 3x3 convolution.
    pub(super) fn convolved(&self) -> Option<usize> {
        None
    }

    pub(super) fn init(&self, init: &mut Init) -> Dinov3 {
        let (dim, depth, heads) = self.dims();
        let shape = BlockShape {
            dim,
            heads,
            mlp_dim: self.plain().mlp_dim(),
            mlp: self.mlp(),
            qkv_bias: if self.qkv_bias { QkvBias::NoKeys } else { QkvBias::None },
            init_values: Some(self.init_values),
            eps: EPS,
        };
        let drop_paths = DropPath::schedule(self.drop_path_rate, depth);
        Dinov3 {
            cls_token: init.trunc_normal(0.02, [1, 1, dim]),
            register_tokens: (self.reg_tokens > 0).then(|| init.trunc_normal(0.02, [1, self.reg_tokens, dim])),
            patch_embed: PatchEmbed::new(dim, self.patch_size, init),
            blocks: drop_paths.into_iter().map(|drop_path| Block::new(&shape, drop_path, init)).collect(),
            norm: self.final_norm.then(|| LayerNorm::new(dim, EPS, init)),
            out_indices: if self.out_indices.is_empty() { vec![depth - 1] } else { self.out_indices.clone() },
            grid: self.plain().grid(),
            head_dim: dim / heads,
        }
    }
}

/// Images to patch tokens to maps.
#[derive(Module, Debug)]
pub struct Dinov3 {
    cls_token: Param<Tensor<3>>,
    register_tokens: Option<Param<Tensor<3>>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    grid: (usize, usize),
    #[module(skip)]
    head_dim: usize,
}

impl Backbone for Dinov3 {
    /// Normalised images `[b, 3, height, width]` to one map `[b, h, w, c]` for each chosen depth, where
    /// `h = ceil(height / patch)`. Images are padded with zeros at the bottom and the right.
    fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Features {
        maps(self, &self.out_indices, images, context)
    }

    /// Rows and columns at the size that its decoder is made for.
    fn grid(&self) -> Option<(usize, usize)> {
        Some(self.grid)
    }

    fn transformer(&self) -> Option<&dyn Transformer> {
        Some(self)
    }
}

impl Transformer for Dinov3 {
    fn embed(&self, images: Tensor<4>, context: &ForwardContext) -> Tokens {
        let device = images.device();
        let (patches, grid) = self.patch_embed.forward(images); // [b, h * w, c]
        context.record("vit.patch_embed", &patches);
        let [batch, _, dim] = patches.dims();
        let mut parts = vec![self.cls_token.val().expand([batch, 1, dim])];
        if let Some(tokens) = &self.register_tokens {
            let tokens = tokens.val();
            let [_, count, _] = tokens.dims();
            parts.push(tokens.expand([batch, count, dim]));
        }
        parts.push(patches);
        let rotation = Rotation::of_grid(grid, self.head_dim, THETA, &device);
        Tokens { x: Tensor::cat(parts, 1), grid, rotation: Some(rotation) }
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn norm(&self) -> Option<&LayerNorm> {
        self.norm.as_ref()
    }
}
