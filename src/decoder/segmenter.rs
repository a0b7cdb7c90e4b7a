//! Segmenter (Strudel et al., arXiv 2105.05633): one embedding per class goes through a transformer together with the
//! patches, and a pixel's score is the cosine of its patch and the class. Dynamic per-pixel classification.
//!
//! ```text
//! patches [n, c] ─┐                       ┌─▶ patches ─▶ unit length ─┐
//!                 ├─▶ transformer layers ─┤                           ├─▶ products ─▶ norm ─▶ logits
//! classes [k, c] ─┘                       └─▶ classes ─▶ unit length ─┘
//! ```
//!
//! As mmsegmentation's `SegmenterMaskTransformerHead`: LayerNorm eps is 1e-5 here, and the last norm runs over the
//! classes.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo};
use crate::decoder::{Decoder, Output, Prototypes};
use crate::error::{Error, Result};
use crate::kernels::product;
use crate::layers::{
    Block, BlockShape, Cost, DropPath, ForwardContext, Init, LayerNorm, Linear, MlpLayer, QkvBias, Unbiased,
};

const EPS: f64 = 1e-5;

/// Configuration of [`Segmenter`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct SegmenterConfig {
    /// Transformer layers.
    pub num_layers: usize,
    /// Channels of the transformer; those of the backbone by default.
    pub embed_dim: Option<usize>,
    /// Attention heads; those of the backbone by default, or of 64 channels each where it has none.
    pub num_heads: Option<usize>,
    /// Hidden channels of a layer's MLP over its width.
    pub mlp_ratio: usize,
    /// Drop path rate of the last layer, rising linearly from 0.
    pub drop_path_rate: f64,
}

impl Default for SegmenterConfig {
    fn default() -> Self {
        Self { num_layers: 2, embed_dim: None, num_heads: None, mlp_ratio: 4, drop_path_rate: 0.1 }
    }
}

impl SegmenterConfig {
    fn dims(&self, features: &FeatureInfo) -> (usize, usize) {
        let dim = self.embed_dim.unwrap_or(features.last());
        let heads = features.transformer.as_ref().map_or((dim / 64).max(1), |blocks| blocks.heads);
        (dim, self.num_heads.unwrap_or(heads))
    }

    pub(super) fn check(&self, features: &FeatureInfo) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.decoder: {what}")));
        let (dim, heads) = self.dims(features);
        if dim == 0
            || dim > 1 << 14
            || self.num_layers > 64
            || dim * self.num_layers > 1 << 18
            || !(1..=64).contains(&self.mlp_ratio)
        {
            return refuse("num_layers, embed_dim or mlp_ratio is out of range".into());
        }
        if heads == 0 || dim % heads != 0 {
            return refuse(format!("embed_dim = {dim} is not a multiple of num_heads = {heads}"));
        }
        if !(0.0..1.0).contains(&self.drop_path_rate) {
            return refuse(format!("drop_path_rate = {} is not in [0, 1)", self.drop_path_rate));
        }
        Ok(())
    }

    pub(super) fn macs(&self, features: &FeatureInfo, k: usize, (h, w): (usize, usize)) -> Vec<Cost> {
        let ((dim, _), patches) = (self.dims(features), h * w);
        let n = patches + k;
        let layer = (4 + 2 * self.mlp_ratio) * n * dim * dim + 2 * n * n * dim;
        vec![
            Cost::new("decoder.project", patches * features.last() * dim),
            Cost::new("decoder.layers", self.num_layers * layer),
            Cost::new("decoder.masks", (patches + k) * dim * dim + patches * k * dim),
        ]
    }

    pub(super) fn activations(&self, features: &FeatureInfo, k: usize, (h, w): (usize, usize)) -> usize {
        let (dim, _) = self.dims(features);
        let layer = (h * w + k) * (5 * dim).max((2 + self.mlp_ratio) * dim);
        layer.max(h * w * (4 * dim + 2 * k))
    }

    pub(super) fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> Segmenter {
        let (dim, heads) = self.dims(features);
        let layer = |drop_path, init: &mut Init| {
            let shape = BlockShape {
                dim,
                heads,
                mlp_dim: self.mlp_ratio * dim,
                mlp: MlpLayer::Mlp,
                qkv_bias: QkvBias::All,
                init_values: None,
                eps: EPS,
            };
            Block::new(&shape, drop_path, init)
        };
        let drop_paths = DropPath::schedule(self.drop_path_rate, self.num_layers);
        Segmenter {
            cls_emb: init.trunc_normal(0.02, [1, classes, dim]),
            dec_proj: Linear::new(features.last(), dim, init),
            layers: drop_paths.into_iter().map(|drop_path| layer(drop_path, init)).collect(),
            patch_proj: Unbiased { weight: init.trunc_normal(0.02, [dim, dim]) },
            classes_proj: Unbiased { weight: init.trunc_normal(0.02, [dim, dim]) },
            decoder_norm: LayerNorm::new(dim, EPS, init),
            mask_norm: LayerNorm::new(classes, EPS, init),
        }
    }
}

/// The decoder.
#[derive(Module, Debug)]
pub struct Segmenter {
    /// One embedding per class, `[1, k, c]`.
    cls_emb: Param<Tensor<3>>,
    dec_proj: Linear,
    layers: Vec<Block>,
    patch_proj: Unbiased,
    classes_proj: Unbiased,
    decoder_norm: LayerNorm,
    mask_norm: LayerNorm,
}

impl Decoder for Segmenter {
    /// Logits `[b, h, w, k]` on the grid of the features. Records `feat`.
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
        let features = input.features(context).last();
        context.record("feat", &features);
        let [b, h, w, c] = features.dims();
        let patches = self.dec_proj.forward(features.reshape([b, h * w, c]));
        let classes = self.cls_emb.val();
        let [_, k, dim] = classes.dims();
        let mut x = Tensor::cat(vec![patches, classes.expand([b, k, dim])], 1); // [b, n + k, dim]
        for layer in &self.layers {
            x = layer.forward(x, None, None, context);
        }
        let x = self.decoder_norm.forward(x);
        let patches = unit(self.patch_proj.forward(x.clone().narrow(1, 0, h * w))); // [b, n, dim]
        let classes = unit(self.classes_proj.forward(x.narrow(1, h * w, k))); // [b, k, dim]
        self.mask_norm.forward(product(patches, classes.swap_dims(1, 2))).reshape([b, h, w, k]).into()
    }

    /// The class embeddings.
    fn prototypes(&self) -> Vec<Prototypes> {
        vec![Prototypes { id: self.cls_emb.id, count: self.cls_emb.dims()[1], grid: None, of_classes: true }]
    }
}

/// Vectors scaled to length 1.
fn unit(x: Tensor<3>) -> Tensor<3> {
    let length = (x.clone() * x.clone()).sum_dim(2).sqrt();
    x / length.clamp_min(1e-12)
}
