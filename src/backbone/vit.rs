//! The plain vision transformer (Dosovitskiy et al. 2021), with timm's parameter names.
//!
//! Covers the ViT-AugReg weights of StructToken and Segmenter (class token, no LayerScale) and DINOv2 (LayerScale,
//! final norm, patch 14; SwiGLU in its ViT-g). LayerNorm eps is 1e-6, GELU is exact.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::transformer::{Tokens, Transformer, maps};
use crate::backbone::{Backbone, FeatureInfo, Features, TransformerInfo};
use crate::error::{Error, Result};
use crate::layers::resize::{Mode, resize_channels_last};
use crate::layers::{
    Block, BlockShape, Cost, DropPath, ForwardContext, Init, LayerNorm, MlpLayer, PatchEmbed, QkvBias,
};

const EPS: f64 = 1e-6;
/// Patches of an image: no sum over them, and none over their pairs in all blocks, leaves 64 bits.
const LARGEST_GRID: usize = 1 << 20;
/// Channels of all blocks together.
const LARGEST_STACK: usize = 1 << 18;

/// The four published sizes: width, depth, heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum VitSize {
    /// 192, 12, 3.
    Tiny,
    /// 384, 12, 6.
    Small,
    /// 768, 12, 12.
    Base,
    /// 1024, 24, 16.
    Large,
}

/// When the table of position embeddings is resized to an input's grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ResizePositions {
    /// When rows or columns differ.
    Shape,
    /// Only when the number of tokens differs, as mmsegmentation does: a 2x8 grid is taken for a 4x4 one.
    Count,
}

/// Configuration of [`Vit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct VitConfig {
    /// Width, depth and heads at once; each can be overridden.
    pub size: VitSize,
    /// Channels of a token.
    pub embed_dim: Option<usize>,
    /// Number of blocks.
    pub depth: Option<usize>,
    /// Attention heads; divides the width.
    pub num_heads: Option<usize>,
    /// Hidden channels of a block's MLP over its width.
    pub mlp_ratio: f64,
    /// The MLP of the blocks: `mlp`, or `swiglu` (DINOv2's ViT-g, whose `mlp_ratio` is 8 / 3).
    pub mlp_layer: MlpLayer,
    /// Pixels along a patch.
    pub patch_size: usize,
    /// Height and width of the images the position table is made for; other sizes resize it.
    pub img_size: [usize; 2],
    /// Prepends a learned class token, which no dense decoder sees.
    pub class_token: bool,
    /// Learned tokens between the class token and the patches (registers, Darcet et al. 2024).
    pub reg_tokens: usize,
    /// The position table has rows for patches alone, none for the class token (EoMT; timm's name).
    pub no_embed_class: bool,
    /// Initial LayerScale; none leaves LayerScale out.
    pub init_values: Option<f64>,
    /// Normalises the maps handed out (DINOv2, Segmenter); StructToken takes the raw residual stream.
    pub final_norm: bool,
    /// Blocks whose output is handed out, from 0; empty means the last.
    pub out_indices: Vec<usize>,
    /// Drop path rate of the last block, rising linearly from 0.
    pub drop_path_rate: f64,
    /// When the position table is resized.
    pub resize_positions: ResizePositions,
}

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            size: VitSize::Small,
            embed_dim: None,
            depth: None,
            num_heads: None,
            mlp_ratio: 4.0,
            mlp_layer: MlpLayer::Mlp,
            patch_size: 16,
            img_size: [512, 512],
            class_token: true,
            reg_tokens: 0,
            no_embed_class: false,
            init_values: None,
            final_norm: false,
            out_indices: Vec::new(),
            drop_path_rate: 0.1,
            resize_positions: ResizePositions::Shape,
        }
    }
}

impl VitConfig {
    /// (width, depth, heads), overrides applied.
    pub fn dims(&self) -> (usize, usize, usize) {
        let (dim, depth, heads) = match self.size {
            VitSize::Tiny => (192, 12, 3),
            VitSize::Small => (384, 12, 6),
            VitSize::Base => (768, 12, 12),
            VitSize::Large => (1024, 24, 16),
        };
        (self.embed_dim.unwrap_or(dim), self.depth.unwrap_or(depth), self.num_heads.unwrap_or(heads))
    }

    /// Rows and columns of the position table: the whole patches of an image, as mmsegmentation counts them.
    pub fn grid(&self) -> (usize, usize) {
        let [rows, columns] = self.img_size.map(|side| (side / self.patch_size).max(1));
        (rows, columns)
    }

    /// Hidden channels of the MLP: whole ones, where a ratio such as 8 / 3 leaves almost all of another.
    pub fn mlp_dim(&self) -> usize {
        (self.dims().0 as f64 * self.mlp_ratio + 1e-6) as usize
    }

    pub(super) fn check(&self) -> Result<()> {
        let (dim, depth, heads) = self.dims();
        let refuse = |what: String| Err(Error::new(format!("model.backbone: {what}")));
        if dim == 0 || depth == 0 || heads == 0 || self.patch_size == 0 || self.img_size.contains(&0) {
            return refuse("embed_dim, depth, num_heads, patch_size and img_size must be at least 1".into());
        }
        if dim > 1 << 14
            || depth > 1 << 10
            || self.patch_size > 1 << 10
            || self.img_size.iter().any(|side| *side > 1 << 16)
        {
            return refuse(format!(
                "embed_dim = {dim}, depth = {depth}, patch_size = {} or img_size = {:?} is out of range",
                self.patch_size, self.img_size
            ));
        }
        let cells = self.grid().0 * self.grid().1;
        if cells > LARGEST_GRID || dim * depth > LARGEST_STACK {
            return refuse(format!(
                "img_size = {:?} in patches of {}, or depth = {depth} blocks of embed_dim = {dim}, is too large",
                self.img_size, self.patch_size
            ));
        }
        if self.out_indices.len() > depth {
            return refuse(format!("out_indices names {} blocks of {depth}", self.out_indices.len()));
        }
        if self.reg_tokens > 1 << 10 {
            return refuse(format!("reg_tokens = {} is out of range", self.reg_tokens));
        }
        if self.init_values.is_some_and(|value| !value.is_finite()) {
            return refuse("init_values must be finite".into());
        }
        if !self.mlp_ratio.is_finite() || self.mlp_ratio > 64.0 || self.mlp_dim() == 0 {
            return refuse(format!("mlp_ratio = {} is out of range", self.mlp_ratio));
        }
        if dim % heads != 0 {
            return refuse(format!("embed_dim = {dim} is not a multiple of num_heads = {heads}"));
        }
        if let Some(index) = self.out_indices.iter().find(|index| **index >= depth) {
            return refuse(format!("out_indices names block {index}, but the blocks are 0 to {}", depth - 1));
        }
        if !(0.0..1.0).contains(&self.drop_path_rate) {
            return refuse(format!("drop_path_rate = {} is not in [0, 1)", self.drop_path_rate));
        }
        Ok(())
    }

    pub(super) fn features(&self) -> FeatureInfo {
        FeatureInfo {
            channels: vec![self.dims().0; self.out_indices.len().max(1)],
            strides: vec![self.patch_size; self.out_indices.len().max(1)],
            grid: self.grid(),
            transformer: Some(TransformerInfo {
                prefix: self.prefix(),
                depth: self.dims().1,
                heads: self.dims().2,
                mlp_dim: self.mlp_dim(),
                mlp: self.mlp_layer,
                normed: self.final_norm,
            }),
        }
    }

    /// Tokens before the patches.
    fn prefix(&self) -> usize {
        usize::from(self.class_token) + self.reg_tokens
    }

    pub(super) fn macs(&self, (height, width): (usize, usize)) -> Vec<Cost> {
        let (dim, depth, _) = self.dims();
        let (h, w) = (height.div_ceil(self.patch_size), width.div_ceil(self.patch_size));
        let n = h * w + self.prefix();
        vec![
            Cost::new("backbone.patch_embed", h * w * dim * 3 * self.patch_size * self.patch_size),
            Cost::new("backbone.qkv", depth * n * dim * 3 * dim),
            Cost::new("backbone.attention", depth * 2 * n * n * dim),
            Cost::new("backbone.proj", depth * n * dim * dim),
            Cost::new("backbone.mlp", depth * n * dim * (self.mlp_layer.products(self.mlp_dim()) + self.mlp_dim())),
        ]
    }

    pub(super) fn activations(&self, (h, w): (usize, usize)) -> usize {
        let (dim, ..) = self.dims();
        let n = h * w + self.prefix();
        // The image as it is and as patches; the stream with queries, keys, values, or with the MLP; earlier maps.
        let patches = h * w * (2 * 3 * self.patch_size * self.patch_size + dim);
        let block = n * (5 * dim).max(2 * dim + self.mlp_layer.alive(self.mlp_dim()));
        patches.max(block) + (self.out_indices.len().max(1) - 1) * n * dim
    }

    /// What the kernels keep for the gradients: patches; in each block the inputs of norms, linear layers and
    /// attention, hidden channels on both sides of their function, branches before LayerScale, and a few numbers a
    /// token.
    pub(super) fn kept_activations(&self, (h, w): (usize, usize)) -> usize {
        let (dim, depth, heads) = self.dims();
        let n = h * w + self.prefix();
        let scaled = if self.init_values.is_some() { 2 * dim } else { 0 };
        let block = 8 * dim + scaled + self.mlp_layer.kept(self.mlp_dim()) + heads + 4;
        // Of a map that the next block takes too, the norm keeps nothing more.
        let is_last = self.out_indices.is_empty() || self.out_indices.contains(&(depth - 1));
        let last = if is_last { dim } else { 0 };
        let norms = if self.final_norm { 2 * self.out_indices.len().max(1) + last } else { 0 };
        h * w * 3 * self.patch_size * self.patch_size + n * (depth * block + norms)
    }

    /// It has no 3x3 convolution.
    pub(super) fn convolved(&self) -> Option<usize> {
        None
    }

    pub(super) fn init(&self, init: &mut Init) -> Vit {
        let (dim, depth, _) = self.dims();
        let (rows, cols) = self.grid();
        let positions = rows * cols + usize::from(self.class_token && !self.no_embed_class);
        let drop_paths = DropPath::schedule(self.drop_path_rate, depth);
        let Self { init_values, mlp_layer: mlp, .. } = *self;
        let (heads, mlp_dim) = (self.dims().2, self.mlp_dim());
        let shape = BlockShape { dim, heads, mlp_dim, mlp, qkv_bias: QkvBias::All, init_values, eps: EPS };
        Vit {
            cls_token: self.class_token.then(|| init.trunc_normal(0.02, [1, 1, dim])),
            register_tokens: (self.reg_tokens > 0).then(|| init.trunc_normal(0.02, [1, self.reg_tokens, dim])),
            pos_embed: init.trunc_normal(0.02, [1, positions, dim]),
            patch_embed: PatchEmbed::new(dim, self.patch_size, init),
            blocks: drop_paths.into_iter().map(|drop_path| Block::new(&shape, drop_path, init)).collect(),
            norm: self.final_norm.then(|| LayerNorm::new(dim, EPS, init)),
            out_indices: if self.out_indices.is_empty() { vec![depth - 1] } else { self.out_indices.clone() },
            grid: (rows, cols),
            resize_positions: self.resize_positions,
        }
    }
}

/// Images to patch tokens to maps.
#[derive(Module, Debug)]
pub struct Vit {
    cls_token: Option<Param<Tensor<3>>>,
    register_tokens: Option<Param<Tensor<3>>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    grid: (usize, usize),
    #[module(skip)]
    resize_positions: ResizePositions,
}

impl Backbone for Vit {
    /// Normalised images `[b, 3, height, width]` to one map `[b, h, w, c]` for each chosen depth, where
    /// `h = ceil(height / patch)`. Images are padded with zeros at the bottom and the right.
    fn forward(&self, images: Tensor<4>, context: &ForwardContext) -> Features {
        maps(self, &self.out_indices, images, context)
    }

    /// Rows and columns of its table of positions.
    fn grid(&self) -> Option<(usize, usize)> {
        Some(self.grid)
    }

    fn transformer(&self) -> Option<&dyn Transformer> {
        Some(self)
    }
}

impl Vit {
    /// Patches with their positions, after what the table of positions says of them and of the class token.
    fn add_positions(&self, x: Tensor<3>, (h, w): (usize, usize)) -> Tensor<3> {
        let [batch, _, dim] = x.dims();
        let table = self.pos_embed.val();
        let (rows, cols) = self.grid;
        let first = table.dims()[1] - rows * cols;
        let fits = match self.resize_positions {
            ResizePositions::Shape => (h, w) == self.grid,
            ResizePositions::Count => h * w == rows * cols,
        };
        let map = table.clone().slice([0..1, first..first + rows * cols]);
        let map =
            match fits {
                true => map,
                false => resize_channels_last(map.reshape([1, rows, cols, dim]), (h, w), Mode::Bicubic, false)
                    .reshape([1, h * w, dim]),
            };
        let mut parts = Vec::with_capacity(3);
        if let Some(token) = &self.cls_token {
            let token = if first == 0 { token.val() } else { token.val() + table.slice([0..1, 0..1]) };
            parts.push(token.expand([batch, 1, dim]));
        }
        if let Some(tokens) = &self.register_tokens {
            let tokens = tokens.val();
            let [_, count, _] = tokens.dims();
            parts.push(tokens.expand([batch, count, dim]));
        }
        parts.push(x + map);
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 1) }
    }
}

impl Transformer for Vit {
    fn embed(&self, images: Tensor<4>, context: &ForwardContext) -> Tokens {
        let (x, grid) = self.patch_embed.forward(images); // [b, h * w, c]
        context.record("vit.patch_embed", &x);
        let x = self.add_positions(x, grid); // [b, prefix + h * w, c]
        context.record("vit.pos_added", &x);
        Tokens { x, grid, rotation: None }
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn norm(&self) -> Option<&LayerNorm> {
        self.norm.as_ref()
    }
}
