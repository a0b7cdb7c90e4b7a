//! Multi-head attention between two sets of tokens, as in `torch.nn.MultiheadAttention`.
//!
//! Self-attention without a mask has a kernel of its own, [`kernels::attention`].

use burn::module::Module;
use burn::tensor::Tensor;

use crate::kernels;
use crate::layers::{Dropout, ForwardContext, Init, Linear};

/// What a blocked score is lowered by: nothing is left of its exponential.
const BLOCKED: f64 = -1e9;

/// Scaled dot products of `q [b, n, c]` with `k [b, m, c]`, head by head, weigh `v [b, m, c]`: `[b, n, c]`.
///
/// `blocked [b, n, m]` holds 1 where a query must not look at a key, for all heads alike; no query may be blocked from
/// all.
pub fn cross_attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    blocked: Option<Tensor<3>>,
) -> Tensor<3> {
    attend(q, k, v, heads, blocked, |weights| weights)
}

fn attend(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    blocked: Option<Tensor<3>>,
    drop: impl FnOnce(Tensor<4>) -> Tensor<4>,
) -> Tensor<3> {
    let [b, n, c] = q.dims();
    let d = c / heads;
    let split = |x: Tensor<3>| {
        let [b, n, _] = x.dims();
        x.reshape([b, n, heads, d]).swap_dims(1, 2) // [b, heads, n, d]
    };
    let scores = kernels::product(split(q * (d as f64).powf(-0.5)), split(k).transpose()); // [b, heads, n, m]
    let scores = match blocked {
        Some(blocked) => scores + (blocked * BLOCKED).unsqueeze_dim::<4>(1),
        None => scores,
    };
    kernels::product(drop(kernels::softmax(scores)), split(v)).swap_dims(1, 2).reshape([b, n, c])
}

/// Projections to queries, keys and values, attention, and a projection back. All of one width.
#[derive(Module, Debug)]
pub struct MultiheadAttention {
    /// Queries, keys, values one after the other: PyTorch's `in_proj`, timm's `qkv`.
    qkv: Linear,
    proj: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    dropout: Dropout,
}

impl MultiheadAttention {
    /// Xavier uniform over the packed projection and the projection back, zero biases; `dropout` is the share of
    /// attention weights dropped in training.
    pub fn new(channels: usize, heads: usize, dropout: f64, init: &mut Init) -> Self {
        let (qkv, proj) = (Linear::xavier(channels, 3 * channels, init), Linear::xavier(channels, channels, init));
        Self { qkv, proj, heads, dropout: Dropout::new(dropout) }
    }

    /// Queries `[b, n, c]`, keys and values `[b, m, c]`, before their projections, to `[b, n, c]`; `blocked [b, n, m]`
    /// as in [`cross_attention`].
    pub fn forward(
        &self,
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        blocked: Option<Tensor<3>>,
        context: &ForwardContext,
    ) -> Tensor<3> {
        let [q, k, v] = [(0, q), (1, k), (2, v)].map(|(i, x)| self.project(i, x));
        self.proj.forward(attend(q, k, v, self.heads, blocked, |weights| self.dropout.forward(weights, context)))
    }

    /// Attention of `x [b, n, c]` to itself.
    pub fn forward_self(&self, x: Tensor<3>, context: &ForwardContext) -> Tensor<3> {
        if self.dropout.is_off(context) {
            return self.proj.forward(kernels::attention(self.qkv.forward(x), self.heads));
        }
        self.forward(x.clone(), x.clone(), x, None, context)
    }

    fn project(&self, part: usize, x: Tensor<3>) -> Tensor<3> {
        let channels = self.proj.bias.dims()[0];
        let rows = part * channels..(part + 1) * channels;
        let weight = self.qkv.weight.val().slice([rows.clone(), 0..channels]);
        kernels::linear(x, weight, Some(self.qkv.bias.val().slice([rows])))
    }

    /// Multiply-accumulates for `queries` and `keys` tokens.
    pub fn macs(queries: usize, keys: usize, channels: usize) -> usize {
        (2 * queries + 2 * keys) * channels * channels + 2 * queries * keys * channels
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, TensorData};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn distance(a: Tensor<3>, b: Tensor<3>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn without_a_mask_it_is_the_kernels() {
        let qkv = random([2, 7, 36]);
        let [q, k, v] = [0, 1, 2].map(|i| qkv.clone().narrow(2, i * 12, 12));
        assert!(distance(cross_attention(q, k, v, 3, None), kernels::attention(qkv, 3)) < 1e-5);
    }

    #[test]
    fn a_blocked_key_might_as_well_not_be_there() {
        let (q, k, v) = (random([1, 3, 8]), random([1, 5, 8]), random([1, 5, 8]));
        let blocked =
            Tensor::<3>::from_data(TensorData::new([0.0f32, 0.0, 1.0, 0.0, 1.0].repeat(3), [1, 3, 5]), &Device::flex());
        let keep = |x: &Tensor<3>| Tensor::cat(vec![x.clone().narrow(1, 0, 2), x.clone().narrow(1, 3, 1)], 1);
        let without = cross_attention(q.clone(), keep(&k), keep(&v), 2, None);
        assert!(distance(cross_attention(q, k, v, 2, Some(blocked)), without) < 1e-5);
    }

    #[test]
    fn both_ways_to_attend_to_oneself_agree() {
        let attention = MultiheadAttention::new(12, 3, 0.0, &mut Init::new(1, &Device::flex()));
        let x = random([2, 5, 12]);
        let by_parts = attention.forward(x.clone(), x.clone(), x.clone(), None, &ForwardContext::eval());
        assert!(distance(attention.forward_self(x, &ForwardContext::eval()), by_parts) < 1e-5);
    }
}
