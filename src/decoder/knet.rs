//! K-Net (Zhang et al., arXiv 2106.14855): one kernel per class, which is updated, stage by stage, by what its mask
//! covers. Dynamic per-pixel classification.
//!
//! ```text
//! features ─▶ FCN ─▶ x, masks M0 = kernels K0 of its classifier over x
//! stage: softmax(M) gathers x ─▶ gates update K ─▶ kernels attend to each other ─▶ FFN ─▶ K', M' = K' over x
//! ```
//!
//! As mmsegmentation's `IterativeDecodeHead` with 1x1 kernels; each stage's masks are judged by a loss of weight 1.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::{relu, sigmoid, softmax};
use serde::{Deserialize, Serialize};

use crate::backbone::{BackboneInput, FeatureInfo};
use crate::decoder::fcn::{FcnHead, HeadConfig};
use crate::decoder::{Decoder, Output, Prototypes};
use crate::error::{Error, Result};
use crate::kernels::product;
use crate::layers::{Cost, ForwardContext, Init, LayerNorm, Linear, MultiheadAttention, PointwiseConv, Unbiased};

const EPS: f64 = 1e-5;

/// Configuration of [`Knet`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct KnetConfig {
    /// Updates of the kernels.
    pub num_stages: usize,
    /// Convolutions of the FCN that the kernels come from.
    pub num_convs: usize,
    /// One more convolution over the features beside what became of them.
    pub concat_input: bool,
    /// Channels of the FCN and of the kernels.
    pub channels: usize,
    /// Channels inside of an update; 256 in the published recipes.
    pub feat_channels: usize,
    /// Attention heads between kernels; divides `channels`.
    pub num_heads: usize,
    /// Hidden channels of the kernels' FFN.
    pub feedforward_channels: usize,
    /// Share of channels dropped before the FCN's classifier in training.
    pub dropout_ratio: f64,
}

impl Default for KnetConfig {
    fn default() -> Self {
        Self {
            num_stages: 3,
            num_convs: 2,
            concat_input: true,
            channels: 512,
            feat_channels: 256,
            num_heads: 8,
            feedforward_channels: 2048,
            dropout_ratio: 0.1,
        }
    }
}

impl KnetConfig {
    pub(super) fn check(&self, features: &FeatureInfo) -> Result<()> {
        let refuse = |what: String| Err(Error::new(format!("model.decoder: {what}")));
        let widths = [self.channels, self.feat_channels, self.feedforward_channels];
        if widths.iter().any(|width| !(1..=1 << 14).contains(width)) || self.num_stages > 64 || self.num_convs > 64 {
            return refuse("num_stages, num_convs or a number of channels is out of range".into());
        }
        if self.num_heads == 0 || !self.kernel_channels(features.last()).is_multiple_of(self.num_heads) {
            return refuse(format!("channels = {} is not a multiple of num_heads = {}", self.channels, self.num_heads));
        }
        self.head().check()?;
        if !self.kernel_channels(features.last()).is_multiple_of(self.feat_channels) {
            return refuse(format!(
                "channels = {} is not a multiple of feat_channels = {}",
                self.channels, self.feat_channels
            ));
        }
        Ok(())
    }

    /// Channels of a kernel on features of `inputs` channels.
    fn kernel_channels(&self, inputs: usize) -> usize {
        if self.num_convs == 0 { inputs } else { self.channels }
    }

    fn head(&self) -> HeadConfig {
        let Self { num_convs, concat_input, channels, dropout_ratio, .. } = *self;
        HeadConfig { num_convs, concat_input, channels, dropout_ratio }
    }

    pub(super) fn macs(&self, features: &FeatureInfo, k: usize, (h, w): (usize, usize)) -> Vec<Cost> {
        let c = self.kernel_channels(features.last());
        let (n, f) = (h * w, self.feat_channels);
        let update = 4 * k * c * f + 2 * k * f * f + k * f * c;
        let kernels = MultiheadAttention::macs(k, k, c) + 2 * k * c * self.feedforward_channels + 2 * k * c * c;
        vec![
            Cost::new("decoder.convolutions", n * self.head().macs(features.last(), k)),
            Cost::new("decoder.stages", self.num_stages * (n * c * c + 2 * n * k * c + update + kernels)),
        ]
    }

    pub(super) fn activations(&self, features: &FeatureInfo, k: usize, (h, w): (usize, usize)) -> usize {
        let c = self.kernel_channels(features.last());
        // In a stage: features as they came and transformed, masks before, as weights, and after.
        h * w * self.head().activations(features.last(), k).max(2 * c + 3 * k)
    }

    pub(super) fn init(&self, features: &FeatureInfo, classes: usize, init: &mut Init) -> Knet {
        let channels = self.kernel_channels(features.last());
        Knet {
            kernel_generate_head: self.head().init(features.last(), classes, init),
            kernel_update_head: (0..self.num_stages).map(|_| Stage::new(self, channels, init)).collect(),
        }
    }
}

/// The decoder.
#[derive(Module, Debug)]
pub struct Knet {
    kernel_generate_head: FcnHead,
    kernel_update_head: Vec<Stage>,
}

impl Decoder for Knet {
    /// Logits of the last stage on the grid of the features, in training those of the others too. Records `feat` and
    /// `stage{i}`.
    fn forward(&self, input: BackboneInput, context: &ForwardContext) -> Output {
        let features = input.features(context).last();
        context.record("feat", &features);
        let x = self.kernel_generate_head.features(features, context); // [b, h, w, c]
        let [b, h, w, c] = x.dims();
        let mut masks = self.kernel_generate_head.classify(x.clone(), context); // [b, h, w, k]
        context.record("stage0", &masks);
        let k = masks.dims()[3];
        let kernels = self.kernel_generate_head.conv_seg.weight.val().reshape([1, k, c]);
        let mut kernels = kernels.expand([b, k, c]);
        let mut earlier = Vec::with_capacity(self.kernel_update_head.len());
        for (i, stage) in self.kernel_update_head.iter().enumerate() {
            let (updated, seen) = stage.forward(x.clone(), kernels, masks.clone(), context);
            earlier.push(std::mem::replace(&mut masks, seen.reshape([b, h, w, k])));
            kernels = updated;
            context.record(&format!("stage{}", i + 1), &masks);
        }
        Output::Dense { logits: masks, auxiliary: if context.wants_all() { earlier } else { Vec::new() } }
    }

    /// The kernels before they have met an image.
    fn prototypes(&self) -> Vec<Prototypes> {
        let kernels = &self.kernel_generate_head.conv_seg.weight;
        vec![Prototypes { id: kernels.id, count: kernels.dims()[0], grid: None, of_classes: true }]
    }
}

/// One update of the kernels and their masks (`KernelUpdateHead`).
#[derive(Module, Debug)]
pub struct Stage {
    feat_transform: PointwiseConv,
    kernel_update_conv: KernelUpdator,
    attention: MultiheadAttention,
    attention_norm: LayerNorm,
    ffn: Ffn,
    ffn_norm: LayerNorm,
    mask_fc: Unbiased,
    mask_norm: LayerNorm,
    fc_mask: Linear,
}

impl Stage {
    fn new(config: &KnetConfig, channels: usize, init: &mut Init) -> Self {
        Self {
            feat_transform: PointwiseConv::new(channels, channels, init),
            kernel_update_conv: KernelUpdator::new(channels, config.feat_channels, init),
            attention: MultiheadAttention::new(channels, config.num_heads, 0.0, init),
            attention_norm: LayerNorm::new(channels, EPS, init),
            ffn: Ffn {
                fc1: Linear::xavier(channels, config.feedforward_channels, init),
                fc2: Linear::xavier(config.feedforward_channels, channels, init),
            },
            ffn_norm: LayerNorm::new(channels, EPS, init),
            mask_fc: Unbiased { weight: init.xavier_uniform([channels, channels]) },
            mask_norm: LayerNorm::new(channels, EPS, init),
            fc_mask: Linear::xavier(channels, channels, init),
        }
    }

    /// `x [b, h, w, c]`, kernels `[b, k, c]` and their masks `[b, h, w, k]` to the next kernels and masks
    /// `[b, h * w, k]`.
    fn forward(
        &self,
        x: Tensor<4>,
        kernels: Tensor<3>,
        masks: Tensor<4>,
        context: &ForwardContext,
    ) -> (Tensor<3>, Tensor<3>) {
        let [b, h, w, k] = masks.dims();
        let x = self.feat_transform.forward(x);
        let c = x.dims()[3];
        let x = x.reshape([b, h * w, c]);
        let shares = softmax(masks, 3).reshape([b, h * w, k]);
        let gathered = product(shares.swap_dims(1, 2), x.clone()); // [b, k, c]
        let y = self.kernel_update_conv.forward(gathered, kernels);
        let y = self.attention_norm.forward(y.clone() + self.attention.forward_self(y, context));
        let ffn = self.ffn.fc2.forward(relu(self.ffn.fc1.forward(y.clone())));
        let kernels = self.ffn_norm.forward(y + ffn);
        let y = self.mask_fc.forward(kernels.clone());
        let y = self.fc_mask.forward(relu(self.mask_norm.forward(y))); // [b, k, c]
        (kernels, product(x, y.swap_dims(1, 2)))
    }
}

/// What a mask covers, gated with the kernel it belongs to (`KernelUpdator`; equations 4 to 6).
#[derive(Module, Debug)]
pub struct KernelUpdator {
    dynamic_layer: Linear,
    input_layer: Linear,
    input_gate: Linear,
    update_gate: Linear,
    norm_in: LayerNorm,
    norm_out: LayerNorm,
    input_norm_in: LayerNorm,
    input_norm_out: LayerNorm,
    fc_layer: Linear,
    fc_norm: LayerNorm,
}

impl KernelUpdator {
    fn new(channels: usize, inner: usize, init: &mut Init) -> Self {
        let mut norm = |channels| LayerNorm::new(channels, EPS, init);
        let [norm_in, norm_out, input_norm_in, input_norm_out] = [(); 4].map(|()| norm(inner));
        let fc_norm = norm(channels);
        Self {
            dynamic_layer: Linear::xavier(channels, 2 * inner, init),
            input_layer: Linear::xavier(channels, 2 * inner, init),
            input_gate: Linear::xavier(inner, inner, init),
            update_gate: Linear::xavier(inner, inner, init),
            norm_in,
            norm_out,
            input_norm_in,
            input_norm_out,
            fc_layer: Linear::xavier(inner, channels, init),
            fc_norm,
        }
    }

    /// What the masks gathered and the kernels, both `[b, k, c]`, to the next kernels before they attend to each other.
    fn forward(&self, gathered: Tensor<3>, kernels: Tensor<3>) -> Tensor<3> {
        let halves = |x: Tensor<3>| {
            let inner = x.dims()[2] / 2;
            (x.clone().narrow(2, 0, inner), x.narrow(2, inner, inner))
        };
        let (param_in, param_out) = halves(self.dynamic_layer.forward(gathered));
        let (input_in, input_out) = halves(self.input_layer.forward(kernels));
        let gates = input_in * param_in;
        let input_gate = sigmoid(self.input_norm_in.forward(self.input_gate.forward(gates.clone())));
        let update_gate = sigmoid(self.norm_in.forward(self.update_gate.forward(gates)));
        let (param_out, input_out) = (self.norm_out.forward(param_out), self.input_norm_out.forward(input_out));
        let features = update_gate * param_out + input_gate * input_out;
        relu(self.fc_norm.forward(self.fc_layer.forward(features)))
    }
}

/// Linear, ReLU, linear.
#[derive(Module, Debug)]
pub struct Ffn {
    fc1: Linear,
    fc2: Linear,
}
