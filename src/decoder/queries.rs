//! Common parts of query decoders: a query's mask, its class, and the second half of their transformer layers.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::kernels;
use crate::layers::{Dropout, ForwardContext, Init, LayerNorm, Linear};

/// Of all norms of the DETR family.
pub(super) const EPS: f64 = 1e-5;

/// A linear layer as PyTorch makes it: all uniform within the root of one over the inputs.
pub(super) fn plain(inputs: usize, outputs: usize, init: &mut Init) -> Linear {
    let bound = (inputs as f32).sqrt().recip();
    Linear { weight: init.uniform(bound, [outputs, inputs]), bias: init.uniform(bound, [outputs]) }
}

/// Three linear layers with an activation between them: a query to the weights of its mask.
#[derive(Module, Debug)]
pub struct MaskEmbed {
    layers: Vec<Linear>,
    #[module(skip)]
    gelu: bool,
}

impl MaskEmbed {
    /// With ReLU between the layers, or GELU.
    pub(super) fn new(inputs: usize, hidden: usize, outputs: usize, gelu: bool, init: &mut Init) -> Self {
        let layers = vec![plain(inputs, hidden, init), plain(hidden, hidden, init), plain(hidden, outputs, init)];
        Self { layers, gelu }
    }

    /// `[b, q, inputs]` to `[b, q, outputs]`.
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(x, |x, (i, layer)| match (i == last, self.gelu) {
            (true, _) => layer.forward(x),
            (false, true) => layer.forward_gelu(x),
            (false, false) => relu(layer.forward(x)),
        })
    }

    /// Multiply-accumulates of a query.
    pub(super) fn macs(inputs: usize, hidden: usize, outputs: usize) -> usize {
        inputs * hidden + hidden * hidden + hidden * outputs
    }
}

/// Mask logits `[b, q, h, w]`: the products of the queries' weights `[b, q, c]` with every pixel of `map [b, h, w, c]`.
pub(super) fn masks(weights: Tensor<3>, map: Tensor<4>) -> Tensor<4> {
    let ([b, q, c], [_, h, w, _]) = (weights.dims(), map.dims());
    if map.device() != Device::flex() {
        return kernels::product(weights, map.reshape([b, h * w, c]).transpose()).reshape([b, q, h, w]);
    }
    // On the CPU the pixels are the rows that a linear layer runs over: [h w, q] for each image.
    let each = (0..b).map(|i| {
        let pixels = map.clone().narrow(0, i, 1).reshape([h * w, c]);
        let weights = weights.clone().narrow(0, i, 1).reshape([q, c]);
        // Both sides are activations: pixels would share the scale of a whole row.
        kernels::without_int8(|| kernels::linear(weights, pixels, None)).reshape([1, q, h, w])
    });
    Tensor::cat(each.collect(), 0)
}

/// `norm(x + linear(ReLU(linear(x))))`, with dropout in training.
#[derive(Module, Debug)]
pub struct Ffn {
    fc1: Linear,
    fc2: Linear,
    norm: LayerNorm,
    #[module(skip)]
    dropout: Dropout,
}

impl Ffn {
    pub(super) fn new(channels: usize, hidden: usize, dropout: f64, init: &mut Init) -> Self {
        Self {
            fc1: Linear::xavier(channels, hidden, init),
            fc2: Linear::xavier(hidden, channels, init),
            norm: LayerNorm::new(channels, EPS, init),
            dropout: Dropout::new(dropout),
        }
    }

    /// `[b, n, c]` to the same.
    pub(super) fn forward(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        let y = self.dropout.forward(relu(self.fc1.forward(x.clone())), context);
        self.norm.forward(x + self.dropout.forward(self.fc2.forward(y), context))
    }
}
