//! Our own CPU kernels.
use burn::tensor::{Tensor, module, Int};

/// Exact GELU.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> { burn::tensor::activation::gelu(x) }
/// LayerNorm over the last axis.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let mean = x.clone().mean_dim(D - 1);
    let centred = x - mean;
    let variance = (centred.clone() * centred.clone()).mean_dim(D - 1);
    let normed = centred / (variance + eps).sqrt();
    normed * weight.unsqueeze() + bias.unsqueeze()
}
/// LayerNorm then GELU.
pub fn layer_norm_gelu<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> { gelu(layer_norm(x, weight, bias, eps)) }
/// x
pub fn depthwise3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> { let c = x.dims()[3]; grouped3x3(x, weight, bias, c) }
/// x
pub fn grouped3x3(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, groups: usize) -> Tensor<4> {
    let options = burn::tensor::ops::ConvOptions::new([1, 1], [1, 1], [1, 1], groups);
    module::conv2d(x.permute([0, 3, 1, 2]), weight, Some(bias), options).permute([0, 2, 3, 1])
}
/// x
pub fn attention(qkv: Tensor<3>, heads: usize) -> Tensor<3> {
    let [b, n, three] = qkv.dims();
    let d = three / 3 / heads;
    let qkv = qkv.reshape([b, n, 3, heads, d]).permute([2, 0, 3, 1, 4]);
    let part = |i: usize| qkv.clone().slice([i..i + 1]).squeeze_dim::<4>(0);
    let scores = part(0).matmul(part(1).swap_dims(2, 3)) * (d as f64).powf(-0.5);
    softmax(scores).matmul(part(2)).swap_dims(1, 2).reshape([b, n, heads * d])
}
/// x
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> { burn::tensor::activation::softmax(x, D - 1) }
/// x W^T + b
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let y = x.matmul(weight.transpose().unsqueeze());
    match bias { Some(b) => y + b.unsqueeze(), None => y }
}
/// Which pixels the mean is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossMean { /// all
 All, /// valid
 Valid }
/// x
pub fn upsample_cross_entropy(logits: Tensor<4>, labels: Tensor<3, Int>, mean: LossMean, _class_weights: Option<Tensor<1>>) -> Tensor<1> {
    let [_, h, w, k] = logits.dims();
    let [b, oh, ow] = labels.dims();
    let device = logits.device();
    let m = |o: usize, i: usize| {
        let mut data = vec![0f32; o * i];
        for r in 0..o {
            let s = ((r as f32 + 0.5) * (i as f32 / o as f32) - 0.5).max(0.0);
            let lo = (s as usize).min(i - 1);
            let hi = (lo + 1).min(i - 1);
            data[r * i + lo] += 1.0 - (s - lo as f32);
            data[r * i + hi] += s - lo as f32;
        }
        Tensor::<2>::from_data(burn::tensor::TensorData::new(data, [o, i]), &device)
    };
    let x = logits.permute([0, 3, 1, 2]);
    let x = m(oh, h).unsqueeze::<4>().matmul(x).matmul(m(ow, w).transpose().unsqueeze::<4>());
    let logp = burn::tensor::activation::log_softmax(x, 1);
    let valid = labels.clone().lower_elem(k as i64);
    let picked = logp.gather(1, labels.mask_fill(valid.clone().bool_not(), 0).unsqueeze_dim::<4>(1));
    let valid = valid.float().unsqueeze_dim::<4>(1);
    let n = match mean { LossMean::All => Tensor::from_floats([(b * oh * ow) as f32], &device), LossMean::Valid => valid.clone().sum().clamp_min(1.0) };
    (picked * valid).sum().neg() / n
}
/// The numbers of one AdamW step.
#[derive(Clone, Debug)]
pub struct AdamWStep {
    /// Learning rate of this parameter.
    pub lr: f64,
    /// First decay.
    pub beta1: f64,
    /// Second decay.
    pub beta2: f64,
    /// Epsilon.
    pub eps: f64,
    /// Decoupled decay.
    pub weight_decay: f64,
    /// 1 - beta1^step
    pub bias1: f64,
    /// 1 - beta2^step
    pub bias2: f64,
}
/// One step.
pub fn adamw_step(p: Tensor<1>, g: Tensor<1>, m: Tensor<1>, v: Tensor<1>, h: &AdamWStep) -> (Tensor<1>, Tensor<1>, Tensor<1>) {
    let m = m * h.beta1 + g.clone() * (1.0 - h.beta1);
    let v = v * h.beta2 + g.clone() * g * (1.0 - h.beta2);
    let denominator = v.clone().sqrt() / h.bias2.sqrt() + h.eps;
    let p = p * (1.0 - h.lr * h.weight_decay) - m.clone() / denominator * (h.lr / h.bias1);
    (p, m, v)
}
