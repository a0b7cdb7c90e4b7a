//! EoMT (Kerssies et al., arXiv 2503.19108): queries inside of the last blocks of the vision transformer. No pyramid,
//! no pixel decoder, no transformer decoder.
//!
//! ```text
//! patches ─▶ blocks ─┬─▶ [queries | patches] ─▶ last blocks ─▶ norm ─┬─▶ class = linear(query)
//!                    │         ▲ predict before each ──────┘         └─▶ mask = MLP(query) · upscaled patches
//! ```
//!
//! In training a query sees, in each of the last blocks, only the patches where its mask was before, with a probability
//! that falls from 1 to 0, block by block, so that nothing has to be masked in the end. As the official code: the ViT's
//! own final norm serves every prediction (where it has none, one of the decoder's).

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo, Tokens, Transformer, TransformerInfo};
use crate::decoder::queries::{MaskEmbed, masks, plain};
use crate::decoder::{Decoder, DecoderLoss, Output, Prototypes, Queries, SetLossConfig};
use crate::error::{Error, Result};
use crate::kernels;
use crate::layers::resize::{Mode, resize};
use crate::layers::{Cost, DepthwiseConv3x3, ForwardContext, Init, LayerNorm, Linear, TransposedConv2x2};

/// Of the norms, as the ViT's.
const EPS: f64 = 1e-6;
/// Of the falling probability of masks.
const POWER: f64 = 0.9;

/// Configuration of [`Eomt`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EomtConfig {
    /// Masks that can be found in an image.
    pub num_queries: usize,
    /// Last blocks of the backbone that the queries go through; by default 4, or all if there are fewer.
    pub num_blocks: Option<usize>,
    /// Masks attention in training, annealed to none: with n blocks, block i from `(i + 1) / (n + 2)` of the training
    /// on, to `(i + 2) / (n + 2)`.
    pub masked_attention: bool,
    /// How predictions are judged.
    pub loss: SetLossConfig,
}

impl Default for EomtConfig {
    fn default() -> Self {
        Self { num_queries: 100, num_blocks: None, masked_attention: true, loss: SetLossConfig::default() }
    }
}

impl EomtConfig {
    pub(super) fn check(&self, features: &FeatureInfo) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.decoder: {what}")));
        if !(1..=1 << 14).contains(&self.num_queries) {
            return refuse(format!("num_queries = {} is out of range", self.num_queries));
        }
        let Some(TransformerInfo { depth, .. }) = features.transformer else {
            return Err(Error::new(
                "model.decoder: eomt lives inside a plain vision transformer, which this backbone is not",
            )
            .with_hint("use model.backbone.type = \"vit\" or \"dinov3\", or another model.decoder.type"));
        };
        let blocks = self.blocks(features);
        if !(1..=depth).contains(&blocks) {
            return refuse(format!(
                "num_blocks = {blocks}, but the backbone has {depth} blocks, so 1 to {depth} are \
                                   possible"
            ));
        }
        self.loss.check()
    }

    fn blocks(&self, features: &FeatureInfo) -> usize {
        self.num_blocks.unwrap_or(vit(features).depth.min(4))
    }

    pub(super) fn macs(&self, features: &FeatureInfo, classes: usize, (h, w): (usize, usize)) -> Vec<Cost> {
        let (d, q) = (features.last(), self.num_queries);
        let patches = h * w + vit(features).prefix;
        // What the queries add to the last blocks.
        let attention = 2 * d * ((patches + q) * (patches + q) - patches * patches);
        let TransformerInfo { mlp, mlp_dim, .. } = vit(features);
        let block = q * (4 * d * d + d * (mlp.products(mlp_dim) + mlp_dim)) + attention;
        let upscale = (0..upscales(features.stride())).map(|i| ((h * w) << (2 * i)) * 4 * (d * d + 9 * d)).sum();
        let finest = (h * w) << (2 * upscales(features.stride()));
        vec![
            Cost::new("decoder.queries", self.blocks(features) * block),
            Cost::new("decoder.upscale", upscale),
            Cost::new("decoder.predictions", q * (d * (classes + 1) + MaskEmbed::macs(d, d, d) + finest * d)),
        ]
    }

    pub(super) fn activations(&self, features: &FeatureInfo, _: usize, (h, w): (usize, usize)) -> usize {
        let (d, q) = (features.last(), self.num_queries);
        let TransformerInfo { prefix, mlp, mlp_dim, .. } = vit(features);
        let blocks = (h * w + prefix + q) * (5 * d).max(2 * d + mlp.alive(mlp_dim));
        // The finest map three times over, between convolution and norm, and the masks.
        let finest = (h * w) << (2 * upscales(features.stride()));
        blocks.max(finest * (3 * d).max(d + 2 * q))
    }

    pub(super) fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> Eomt {
        let d = features.last();
        Eomt {
            query: init.normal(1.0, [self.num_queries, d]),
            upscale: (0..upscales(features.stride())).map(|_| ScaleBlock::new(d, init)).collect(),
            class_head: plain(d, classes + 1, init),
            mask_head: MaskEmbed::new(d, d, d, true, init),
            norm: (!vit(features).normed).then(|| LayerNorm::new(d, EPS, init)),
            num_blocks: self.blocks(features),
            masked: self.masked_attention,
            loss: self.loss,
        }
    }
}

/// The transformer it lives in.
fn vit(features: &FeatureInfo) -> TransformerInfo {
    features.transformer.unwrap_or_default()
}

/// Doublings from the patches to masks, to about a quarter of the image's size.
fn upscales(patch: usize) -> usize {
    (patch.max(1).ilog2() as usize).saturating_sub(2).max(1)
}

/// The decoder.
#[derive(Module, Debug)]
pub struct Eomt {
    /// `[q, c]`.
    query: Param<Tensor<2>>,
    upscale: Vec<ScaleBlock>,
    class_head: Linear,
    mask_head: MaskEmbed,
    /// Where the backbone has none.
    norm: Option<LayerNorm>,
    #[module(skip)]
    num_blocks: usize,
    #[module(skip)]
    masked: bool,
    #[module(skip)]
    loss: SetLossConfig,
}

impl Decoder for Eomt {
    /// The answer, in training after a prediction before each of the last blocks.
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
        let probabilities: Vec<f64> = match self.masked && context.trains() {
            true => (0..self.num_blocks).map(|i| annealed(i, self.num_blocks, context.progress())).collect(),
            false => vec![0.0; self.num_blocks],
        };
        self.forward_masked(input, &probabilities, context)
    }

    fn loss(&self) -> DecoderLoss {
        self.loss.into()
    }

    /// The queries.
    fn prototypes(&self) -> Vec<Prototypes> {
        vec![Prototypes { id: self.query.id, count: self.query.dims()[0], grid: None, of_classes: false }]
    }
}

impl Eomt {
    /// [`Decoder::forward`] with the probability that attention is masked in each of the last blocks.
    ///
    /// Records `with_queries`, `layer{i}`, `layer{i}.attn_mask` (1 where a query sees a patch) and `pred{j}.*`.
    pub fn forward_masked(&self, input: BackboneInput, probabilities: &[f64], context: &ForwardContext) -> Output {
        let Some(vit) = input.backbone.transformer() else {
            unreachable!("only built inside a plain vision transformer")
        };
        let Tokens { mut x, grid, rotation } = vit.embed(input.images, context);
        let first = vit.blocks().len() - self.num_blocks;
        let mut predictions = Vec::with_capacity(self.num_blocks + 1);
        for (i, block) in vit.blocks().iter().enumerate() {
            let mut blocked = None;
            if i >= first {
                let number = i - first;
                if number == 0 {
                    let ([b, ..], [q, c]) = (x.dims(), self.query.dims());
                    x = Tensor::cat(vec![self.query.val().unsqueeze::<3>().expand([b, q, c]), x], 1);
                    context.record("with_queries", &x);
                }
                if context.wants_all() || probabilities[number] > 0.0 {
                    let prediction = self.predict(number, vit, x.clone(), grid, context);
                    blocked = self.blocked(&prediction.masks, probabilities[number], x.dims()[1], grid, context);
                    if let Some(blocked) = &blocked {
                        self.record_mask(i, blocked, grid, context);
                    }
                    predictions.push(prediction);
                }
            }
            x = context.within(&format!("layer{i}"), || block.forward(x, blocked, rotation.as_ref(), context));
            context.record(&format!("layer{i}"), &x);
        }
        predictions.push(self.predict(self.num_blocks, vit, x, grid, context));
        Output::Queries { predictions }
    }

    fn predict(
        &self,
        number: usize,
        vit: &dyn Transformer,
        x: Tensor<3>,
        (h, w): (usize, usize),
        context: &ForwardContext,
    ) -> Queries {
        let Some(norm) = vit.norm().or(self.norm.as_ref()) else { unreachable!("one of both has a norm") };
        let (x, q) = (norm.forward(x), self.query.dims()[0]);
        let [b, n, c] = x.dims();
        let record = |name: &str, x: &Tensor<3>| context.record(&format!("pred{number}.{name}"), x);
        record("norm", &x);
        let queries = x.clone().narrow(1, 0, q);
        let map = x.narrow(1, n - h * w, h * w).reshape([b, h, w, c]);
        let map = self.upscale.iter().fold(map, |map, block| block.forward(map));
        context.record(&format!("pred{number}.upscaled"), &map);
        let weights = self.mask_head.forward(queries.clone());
        record("mask_embed", &weights);
        let found = Queries { classes: self.class_head.forward(queries), masks: masks(weights, map) };
        record("class", &found.classes);
        context.record(&format!("pred{number}.mask"), &found.masks);
        found
    }

    /// Who must not look at whom among `n` tokens, `[b, n, n]`; none where nobody is kept from anything.
    fn blocked(
        &self,
        masks: &Tensor<4>,
        probability: f64,
        n: usize,
        (h, w): (usize, usize),
        context: &ForwardContext,
    ) -> Option<Tensor<3>> {
        if probability == 0.0 {
            return None;
        }
        let ([b, q, ..], device) = (masks.dims(), masks.device());
        let masks = resize(masks.clone().detach(), (h, w), Mode::Bilinear, false);
        let mut blocked = masks.lower_equal_elem(0.0).float().reshape([b, q, h * w]);
        if probability < 1.0
            && let Some(released) = context.kept(b * q, probability)
        {
            let held: Vec<f32> = released.into_iter().map(|released| f32::from(u8::from(!released))).collect();
            blocked = blocked * Tensor::<3>::from_data(TensorData::new(held, [b, q, 1]), &device);
        }
        let others = Tensor::zeros([b, q, n - h * w], &device);
        let rows = Tensor::cat(vec![others, blocked], 2); // [b, q, n]
        Some(Tensor::cat(vec![rows, Tensor::zeros([b, n - q, n], &device)], 1))
    }

    fn record_mask(&self, layer: usize, blocked: &Tensor<3>, (h, w): (usize, usize), context: &ForwardContext) {
        let (q, n) = (self.query.dims()[0], blocked.dims()[2]);
        let attends = blocked.clone().narrow(1, 0, q).narrow(2, n - h * w, h * w).neg() + 1.0;
        context.record(&format!("layer{layer}.attn_mask"), &attends);
    }
}

/// The probability that attention is masked in one of the last blocks.
fn annealed(block: usize, blocks: usize, progress: f64) -> f64 {
    let parts = (blocks + 2) as f64;
    let (start, end) = ((block + 1) as f64 / parts, (block + 2) as f64 / parts);
    (1.0 - ((progress - start) / (end - start)).clamp(0.0, 1.0)).powf(POWER)
}

/// Twice the size: transposed convolution, GELU, depthwise convolution, norm.
#[derive(Module, Debug)]
pub struct ScaleBlock {
    conv1: TransposedConv2x2,
    conv2: DepthwiseConv3x3,
    norm: LayerNorm,
}

impl ScaleBlock {
    fn new(channels: usize, init: &mut Init) -> Self {
        Self {
            conv1: TransposedConv2x2::new(channels, channels, init),
            conv2: DepthwiseConv3x3::without_bias(channels, init),
            norm: LayerNorm::new(channels, EPS, init),
        }
    }

    /// `[b, h, w, c]` to `[b, 2 h, 2 w, c]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv2.forward(kernels::gelu(self.conv1.forward(x))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_go_block_by_block() {
        // ADE20K, four blocks: 6520, 13040, 19560, 26080 of 39120 iterations.
        for block in 0..4 {
            let at = |sixth: f64| annealed(block, 4, sixth / 6.0);
            assert_eq!((at(block as f64 + 1.0), at(block as f64 + 2.0)), (1.0, 0.0));
            assert!((at(block as f64 + 1.5) - 0.5f64.powf(0.9)).abs() < 1e-9);
        }
    }

    #[test]
    fn masks_are_a_quarter_of_the_image() {
        assert_eq!([16, 14, 8, 32, 4].map(upscales), [2, 1, 1, 3, 1]);
    }
}
