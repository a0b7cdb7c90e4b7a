//! The plain vision transformer (Dosovitskiy et al. 2021), with timm's parameter names.
//!
//! Covers the ViT-AugReg weights of StructToken and Segmenter (class token, no LayerScale) and DINOv2 (LayerScale, final
//! norm, patch 14). LayerNorm eps is 1e-6, GELU is exact.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{FeatureInfo, Features, TransformerInfo};
use crate::error::{Error, Result};
use crate::kernels;
use crate::layers::resize::{Mode, resize_channels_last};
use crate::layers::{Cost, DropPath, Init, LayerNorm, Linear, Pass, cross_attention};

const EPS: f64 = 1e-6;
/// Patches of an image: no sum over them, and none over their pairs in all blocks, leaves 64 bits.
const LARGEST_GRID: usize = 1 << 20;
/// Channels of all blocks together.
const LARGEST_STACK: usize = 1 << 18;

/// The four published sizes: width, depth, heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
pub enum ResizePositions {
    /// When rows or columns differ.
    Shape,
    /// Only when the number of tokens differs, as mmsegmentation does: a 2x8 grid is taken for a 4x4 one.
    Count,
}

/// Configuration of [`Vit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
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

    /// Hidden channels of the MLP.
    pub fn mlp_dim(&self) -> usize {
        (self.dims().0 as f64 * self.mlp_ratio) as usize
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
                "img_size = {:?} in patches of {}, or depth = {depth} blocks of embed_dim = {dim}, is beyond any network",
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
                normed: self.final_norm,
            }),
        }
    }

    /// Tokens before the patches.
    fn prefix(&self) -> usize {
        usize::from(self.class_token) + self.reg_tokens
    }

    pub(super) fn macs(&self, (h, w): (usize, usize)) -> Vec<Cost> {
        let (dim, depth, _) = self.dims();
        let n = h * w + self.prefix();
        vec![
            Cost::new("backbone.patch_embed", h * w * dim * 3 * self.patch_size * self.patch_size),
            Cost::new("backbone.qkv", depth * n * dim * 3 * dim),
            Cost::new("backbone.attention", depth * 2 * n * n * dim),
            Cost::new("backbone.proj", depth * n * dim * dim),
            Cost::new("backbone.mlp", depth * 2 * n * dim * self.mlp_dim()),
        ]
    }

    pub(super) fn activations(&self, (h, w): (usize, usize)) -> usize {
        let (dim, ..) = self.dims();
        let n = h * w + self.prefix();
        // The image as it is and as patches; the stream with queries, keys, values, or with the MLP; earlier maps.
        let patches = h * w * (2 * 3 * self.patch_size * self.patch_size + dim);
        let block = n * (5 * dim).max(2 * dim + self.mlp_dim());
        patches.max(block) + (self.out_indices.len().max(1) - 1) * n * dim
    }

    /// Every block keeps its maps for the way back.
    pub(super) fn kept_activations(&self, grid: (usize, usize)) -> usize {
        self.dims().1 * self.activations(grid)
    }

    pub(super) fn init(&self, init: &mut Init) -> Vit {
        let (dim, depth, _) = self.dims();
        let (rows, cols) = self.grid();
        let positions = rows * cols + usize::from(self.class_token && !self.no_embed_class);
        let drop_paths = DropPath::schedule(self.drop_path_rate, depth);
        let Self { init_values, .. } = *self;
        let shape = BlockShape { dim, heads: self.dims().2, mlp_dim: self.mlp_dim(), init_values, eps: EPS };
        Vit {
            cls_token: self.class_token.then(|| init.trunc_normal(0.02, [1, 1, dim])),
            register_tokens: (self.reg_tokens > 0).then(|| init.trunc_normal(0.02, [1, self.reg_tokens, dim])),
            pos_embed: init.trunc_normal(0.02, [1, positions, dim]),
            patch_embed: PatchEmbed {
                proj: PatchProjection {
                    weight: init.kaiming_fan_in([dim, 3, self.patch_size, self.patch_size]),
                    bias: init.constant(0.0, [dim]),
                },
            },
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

impl Vit {
    /// Rows and columns of its table of positions.
    pub fn grid(&self) -> (usize, usize) {
        self.grid
    }

    /// Normalised images `[b, 3, height, width]` to one map `[b, h, w, c]` for each chosen depth, where
    /// `h = ceil(height / patch)`. Images are padded with zeros at the bottom and the right.
    pub fn forward(&self, images: Tensor<4>, pass: &Pass) -> Features {
        let (mut x, (h, w)) = self.embed(images, pass);
        let mut maps = Vec::with_capacity(self.out_indices.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = pass.within(&format!("vit.layer{i}"), || block.forward(x, None, pass));
            pass.record(&format!("vit.layer{i}"), &x);
            if self.out_indices.contains(&i) {
                maps.push(self.to_map(x.clone(), (h, w)));
            }
        }
        Features { maps }
    }

    /// Normalised images `[b, 3, height, width]` to the tokens that enter the first block, `[b, n, c]`: class token,
    /// registers, patches, as far as there are any; and the grid of the patches.
    pub fn embed(&self, images: Tensor<4>, pass: &Pass) -> (Tensor<3>, (usize, usize)) {
        let (x, (h, w)) = self.patch_embed.forward(images); // [b, h * w, c]
        pass.record("vit.patch_embed", &x);
        let x = self.with_positions(x, (h, w)); // [b, prefix + h * w, c]
        pass.record("vit.pos_added", &x);
        (x, (h, w))
    }

    /// The blocks, in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The norm after the last block.
    pub fn norm(&self) -> Option<&LayerNorm> {
        self.norm.as_ref()
    }

    /// Patches with their positions, after what the table of positions says of them and of the class token.
    fn with_positions(&self, x: Tensor<3>, (h, w): (usize, usize)) -> Tensor<3> {
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

    fn to_map(&self, x: Tensor<3>, (h, w): (usize, usize)) -> Tensor<4> {
        let x = match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let [batch, tokens, dim] = x.dims();
        x.slice([0..batch, tokens - h * w..tokens]).reshape([batch, h, w, dim]) // [b, h, w, c]
    }
}

/// Cuts the image into patches and projects each.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    proj: PatchProjection,
}

/// A convolution whose stride is its size.
#[derive(Module, Debug)]
pub struct PatchProjection {
    /// `[c, 3, patch, patch]`.
    weight: Param<Tensor<4>>,
    /// `[c]`.
    bias: Param<Tensor<1>>,
}

impl PatchEmbed {
    /// `[b, 3, height, width]` to tokens `[b, h * w, c]` and their grid.
    fn forward(&self, images: Tensor<4>) -> (Tensor<3>, (usize, usize)) {
        let [dim, colours, patch, _] = self.proj.weight.dims();
        let [batch, _, height, width] = images.dims();
        let (h, w) = (height.div_ceil(patch), width.div_ceil(patch));
        let images = pad_to(images, (h * patch, w * patch));
        let patches = images.reshape([batch, colours, h, patch, w, patch]).permute([0, 2, 4, 1, 3, 5]).reshape([
            batch,
            h * w,
            colours * patch * patch,
        ]); // [b, n, 3 p p]
        let weight = self.proj.weight.val().reshape([dim, colours * patch * patch]);
        (kernels::linear(patches, weight, Some(self.proj.bias.val())), (h, w))
    }
}

/// Zeros at the bottom and the right, up to (height, width).
fn pad_to(images: Tensor<4>, (height, width): (usize, usize)) -> Tensor<4> {
    let [batch, colours, h, w] = images.dims();
    if (h, w) == (height, width) {
        return images;
    }
    let device = images.device();
    let images = Tensor::cat(vec![images, Tensor::zeros([batch, colours, height - h, w], &device)], 2);
    Tensor::cat(vec![images, Tensor::zeros([batch, colours, height, width - w], &device)], 3)
}

/// Attention and MLP, each normalised before, scaled and dropped after, and added.
#[derive(Module, Debug)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    ls2: Option<LayerScale>,
    #[module(skip)]
    drop_path: DropPath,
}

/// What a [`Block`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct BlockShape {
    /// Channels of a token.
    pub dim: usize,
    /// Attention heads; divides the width.
    pub heads: usize,
    /// Hidden channels of the MLP.
    pub mlp_dim: usize,
    /// Initial LayerScale; none leaves LayerScale out.
    pub init_values: Option<f64>,
    /// Of the norms.
    pub eps: f64,
}

impl Block {
    /// A block with initial weights.
    pub fn new(shape: &BlockShape, drop_path: DropPath, init: &mut Init) -> Self {
        let BlockShape { dim, heads, mlp_dim, init_values, eps } = *shape;
        let mut scale = || init_values.map(|value| LayerScale { gamma: init.constant(value as f32, [dim]) });
        let (ls1, ls2) = (scale(), scale());
        Self {
            norm1: LayerNorm::new(dim, eps, init),
            attn: Attention { qkv: Linear::xavier(dim, 3 * dim, init), proj: Linear::new(dim, dim, init), heads },
            ls1,
            norm2: LayerNorm::new(dim, eps, init),
            mlp: Mlp { fc1: Linear::new(dim, mlp_dim, init), fc2: Linear::new(mlp_dim, dim, init) },
            ls2,
            drop_path,
        }
    }

    /// Tokens `[b, n, c]` to the same. `blocked [b, n, n]` holds 1 where a token (second axis) must not look at another
    /// (third axis), for all heads alike; no row may be blocked throughout.
    ///
    /// Records `attn`, the stream between both halves.
    pub fn forward(&self, x: Tensor<3>, blocked: Option<Tensor<3>>, pass: &Pass) -> Tensor<3> {
        let [batch, _, _] = x.dims();
        let scale = |scale: &Option<LayerScale>| scale.as_ref().map(|scale| scale.gamma.val());
        let y = self.attn.forward(self.norm1.forward(x.clone()), blocked);
        let x = self.attn.proj.forward_add(y, scale(&self.ls1), self.drop_path.factors(batch, pass), x);
        pass.record("attn", &x);
        let y = self.mlp.fc1.forward_gelu(self.norm2.forward(x.clone()));
        self.mlp.fc2.forward_add(y, scale(&self.ls2), self.drop_path.factors(batch, pass), x)
    }
}

/// Multi-head self-attention with the packed projection of timm: queries, keys, values along the output axis.
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    /// `[b, n, c]` to the same, before the last projection.
    fn forward(&self, x: Tensor<3>, blocked: Option<Tensor<3>>) -> Tensor<3> {
        let qkv = self.qkv.forward(x);
        match blocked {
            None => kernels::attention(qkv, self.heads),
            Some(blocked) => {
                let part = qkv.dims()[2] / 3;
                let [q, k, v] = [0, 1, 2].map(|i| qkv.clone().narrow(2, i * part, part));
                cross_attention(q, k, v, self.heads, Some(blocked))
            }
        }
    }
}

/// Linear, GELU, linear.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

/// A learned factor a channel on a residual branch (Touvron et al. 2021).
#[derive(Module, Debug)]
pub struct LayerScale {
    gamma: Param<Tensor<1>>,
}
