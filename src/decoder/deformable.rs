//! The multi-scale deformable encoder of Mask2Former's pixel decoder (Zhu et al., arXiv 2010.04159): each pixel of
//! three levels reads a few learned points of all of them.

use std::f32::consts::TAU;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use crate::decoder::queries::{EPS, Ffn};
use crate::kernels;
use crate::layers::position::{reference_points, sine_positions};
use crate::layers::{ForwardContext, Init, LayerNorm, Linear};

/// Levels read: strides 32, 16, 8.
pub(super) const LEVELS: usize = 3;

/// What a [`DeformableEncoder`] is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncoderShape {
    pub(super) channels: usize,
    pub(super) heads: usize,
    pub(super) points: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
}

impl EncoderShape {
    /// Multiply-accumulates for the tokens of all levels.
    pub(super) fn macs(&self, tokens: usize) -> usize {
        let (c, reads) = (self.channels, self.heads * LEVELS * self.points);
        self.layers * tokens * (2 * c * c + 3 * reads * c + LEVELS * self.points * c + 2 * c * self.hidden)
    }
}

/// Layers of deformable attention and FFN over the tokens of all levels.
#[derive(Module, Debug)]
pub struct DeformableEncoder {
    /// `[3, c]`: added to the position of each level's tokens.
    level_embed: Param<Tensor<2>>,
    layers: Vec<Layer>,
}

impl DeformableEncoder {
    pub(super) fn new(shape: &EncoderShape, init: &mut Init) -> Self {
        Self {
            level_embed: init.normal(1.0, [LEVELS, shape.channels]),
            layers: (0..shape.layers).map(|_| Layer::new(shape, init)).collect(),
        }
    }

    /// Three maps `[b, h, w, c]` to the same.
    pub(super) fn forward(&self, maps: Vec<Tensor<4>>, context: &ForwardContext) -> Vec<Tensor<4>> {
        let device = maps[0].device();
        let shapes: Vec<(usize, usize)> = maps.iter().map(|map| (map.dims()[1], map.dims()[2])).collect();
        let [b, _, _, c] = maps[0].dims();
        let embed = self.level_embed.val();
        let positions = shapes.iter().enumerate().map(|(i, (h, w))| {
            let sine = sine_positions(*h, *w, c, &device).reshape([1, h * w, c]);
            sine + embed.clone().narrow(0, i, 1).unsqueeze::<3>()
        });
        let positions = Tensor::cat(positions.collect(), 1); // [1, n, c]
        let tokens = maps.into_iter().zip(&shapes).map(|(map, (h, w))| map.reshape([b, h * w, c]));
        let mut x = Tensor::cat(tokens.collect(), 1); // [b, n, c]
        let references = reference_points(&shapes, &device.clone().without_autodiff()); // [n, 2]
        let references = if device.is_autodiff() { Tensor::from_inner(references) } else { references };
        for (i, layer) in self.layers.iter().enumerate() {
            x = context.within(&format!("pixel.enc{i}"), || {
                layer.forward(x, positions.clone(), references.clone(), &shapes, context)
            });
            context.record(&format!("pixel.enc{i}"), &x);
        }
        let mut start = 0;
        let maps = shapes.iter().map(|(h, w)| {
            start += h * w;
            x.clone().narrow(1, start - h * w, h * w).reshape([b, *h, *w, c])
        });
        maps.collect()
    }
}

/// Deformable attention and FFN, each added and normalised.
#[derive(Module, Debug)]
pub struct Layer {
    self_attn: DeformableAttention,
    norm: LayerNorm,
    ffn: Ffn,
}

impl Layer {
    fn new(shape: &EncoderShape, init: &mut Init) -> Self {
        Self {
            self_attn: DeformableAttention::new(shape, init),
            norm: LayerNorm::new(shape.channels, EPS, init),
            ffn: Ffn::new(shape.channels, shape.hidden, 0.0, init),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        positions: Tensor<3>,
        references: Tensor<2>,
        shapes: &[(usize, usize)],
        context: &ForwardContext,
    ) -> Tensor<3> {
        let y = self.self_attn.forward(x.clone() + positions, x.clone(), references, shapes, context);
        context.record("attn", &y);
        let x = self.norm.forward(x + y);
        context.record("ln1", &x);
        self.ffn.forward(x, context)
    }
}

/// Every query reads, for each head, `points` places of each level around its own (`MSDeformAttn`).
#[derive(Module, Debug)]
pub struct DeformableAttention {
    /// Rows `[head][level][point][x, y]`, in pixels of the level.
    sampling_offsets: Linear,
    /// Rows `[head][level, point]`.
    attention_weights: Linear,
    value_proj: Linear,
    output_proj: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    points: usize,
}

impl DeformableAttention {
    /// Offsets start as a star around the place: head `i` in direction `2 pi i / heads`, point `p` at distance `p + 1`.
    fn new(shape: &EncoderShape, init: &mut Init) -> Self {
        let EncoderShape { channels, heads, points, .. } = *shape;
        let star = (0..heads).flat_map(|head| {
            let angle = TAU * head as f32 / heads as f32;
            let longest = angle.cos().abs().max(angle.sin().abs());
            let direction = [angle.cos() / longest, angle.sin() / longest];
            (0..LEVELS * points).flat_map(move |i| direction.map(|x| x * (i % points + 1) as f32))
        });
        let star: Vec<f32> = star.collect();
        let reads = heads * LEVELS * points;
        Self {
            sampling_offsets: Linear {
                weight: init.constant(0.0, [2 * reads, channels]),
                bias: init.values(&star, [2 * reads]),
            },
            attention_weights: Linear {
                weight: init.constant(0.0, [reads, channels]),
                bias: init.constant(0.0, [reads]),
            },
            value_proj: Linear::xavier(channels, channels, init),
            output_proj: Linear::xavier(channels, channels, init),
            heads,
            points,
        }
    }

    /// Queries and values `[b, n, c]`, places `[n, 2]` in [0, 1], to `[b, n, c]`.
    fn forward(
        &self,
        queries: Tensor<3>,
        values: Tensor<3>,
        references: Tensor<2>,
        shapes: &[(usize, usize)],
        context: &ForwardContext,
    ) -> Tensor<3> {
        let [b, n, c] = values.dims();
        let (heads, points) = (self.heads, self.points);
        let values = self.value_proj.forward(values).reshape([b, n, heads, c / heads]);
        let offsets = self.sampling_offsets.forward(queries.clone()).reshape([b, n, heads, LEVELS, points, 2]);
        let weights = self.attention_weights.forward(queries).reshape([b, n, heads, LEVELS * points]);
        let weights = softmax(weights, 3).reshape([b, n, heads, LEVELS, points]);
        let key = ("pixels of levels", shapes.iter().flat_map(|(h, w)| [*h, *w]).collect());
        let sizes = kernels::constant(key, [LEVELS, 2], &offsets.device(), offsets.dtype(), || {
            shapes.iter().flat_map(|(h, w)| [(*w as f32).recip(), (*h as f32).recip()]).collect()
        });
        let locations = offsets * sizes.reshape([1, 1, 1, LEVELS, 1, 2]) + references.reshape([1, n, 1, 1, 1, 2]);
        context.record("attn_weights", &weights);
        context.record("locations", &locations);
        self.output_proj.forward(kernels::deformable_attention(values, shapes, locations, weights))
    }
}
