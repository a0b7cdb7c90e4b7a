//! Times of the hot operations, forward and forward with backward, beside the plain tensor operations they stand for.
//!
//! `cargo bench -p structtoken-benches`; a name after `--` chooses, for instance `-- attention`. Shapes are those of
//! ViT-S/16 on an image of 512 x 512 and a point-wise decoder of 150 classes.

#![allow(missing_docs, reason = "criterion's macros define functions")]

use std::hint::black_box;
use std::time::Duration;

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation};
use criterion::{Criterion, criterion_group, criterion_main};
use structtoken::kernels;

/// Tokens of an image, with the class token.
const TOKENS: usize = 1025;
/// Channels of ViT-S.
const CHANNELS: usize = 384;
/// Side of the feature grid.
const GRID: usize = 32;
/// Classes and channels side by side.
const JOINED: usize = 150 + CHANNELS;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

fn zeros(n: usize) -> Tensor<1> {
    Tensor::zeros([n], &Device::flex())
}

fn ones(n: usize) -> Tensor<1> {
    Tensor::ones([n], &Device::flex())
}

/// Times `f` on `x`, without and with the gradient of `x`.
fn both<const D: usize, const E: usize>(
    criterion: &mut Criterion,
    name: &str,
    x: &Tensor<D>,
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    criterion.bench_function(&format!("{name}/forward"), |b| b.iter(|| black_box(f(x.clone()))));
    let device = Device::flex().autodiff();
    let tracked = || Tensor::<D>::from_data(x.to_data(), &device).require_grad();
    criterion.bench_function(&format!("{name}/backward"), |b| {
        b.iter_batched(tracked, |x| black_box(f(x).sum().backward()), criterion::BatchSize::LargeInput)
    });
}

fn pointwise(criterion: &mut Criterion) {
    let hidden = random([1, TOKENS, 4 * CHANNELS]);
    both(criterion, "gelu", &hidden, kernels::gelu);
    both(criterion, "gelu_composed", &hidden, activation::gelu);
    for channels in [CHANNELS, JOINED] {
        let x = random([1, GRID, GRID, channels]);
        let (w, b) = (ones(channels), zeros(channels));
        both(criterion, &format!("layer_norm {channels}"), &x, |x| kernels::layer_norm(x, w.clone(), b.clone(), 1e-6));
        both(criterion, &format!("layer_norm_gelu {channels}"), &x, |x| {
            kernels::layer_norm_gelu(x, w.clone(), b.clone(), 1e-6)
        });
        both(criterion, &format!("layer_norm_composed {channels}"), &x, |x| {
            let centered = x.clone() - x.mean_dim(3);
            let variance = centered.clone().powi_scalar(2).mean_dim(3);
            centered / (variance + 1e-6).sqrt() * w.clone().unsqueeze() + b.clone().unsqueeze()
        });
    }
}

fn products(criterion: &mut Criterion) {
    for (inputs, outputs) in [(CHANNELS, 4 * CHANNELS), (4 * CHANNELS, CHANNELS), (JOINED, JOINED)] {
        let (x, weight) = (random([1, TOKENS, inputs]), random([outputs, inputs]));
        let name = format!("linear {inputs} to {outputs}");
        both(criterion, &name, &x, |x| kernels::linear(x, weight.clone(), Some(zeros(outputs))));
        criterion.bench_function(&format!("{name} bf16/forward"), |b| {
            b.iter(|| {
                kernels::with_precision(kernels::Precision::Bf16, || {
                    black_box(kernels::linear(x.clone(), weight.clone(), Some(zeros(outputs))))
                })
            })
        });
        both(criterion, &format!("linear_composed {inputs} to {outputs}"), &x, |x| {
            x.matmul(weight.clone().transpose().unsqueeze())
        });
    }
}

fn attention(criterion: &mut Criterion) {
    let heads = 6;
    let qkv = random([1, TOKENS, 3 * CHANNELS]);
    both(criterion, "attention", &qkv, |x| kernels::attention(x, heads));
    both(criterion, "attention_composed", &qkv, |x| {
        let d = CHANNELS / heads;
        let parts = x.reshape([1, TOKENS, 3, heads, d]).permute([2, 0, 3, 1, 4]);
        let part = |i| parts.clone().narrow(0, i, 1).squeeze_dim::<4>(0);
        let scores = part(0).matmul(part(1).transpose()) / (d as f64).sqrt();
        activation::softmax(scores, 3).matmul(part(2)).swap_dims(1, 2).reshape([1, TOKENS, CHANNELS])
    });
    let (keys, values) = (random([1, GRID * GRID, JOINED]), random([1, GRID * GRID, JOINED]));
    both(criterion, "slice_attention", &random([1, GRID * GRID, JOINED]), |x| {
        kernels::slice_attention(x, keys.clone(), values.clone())
    });
}

fn convolutions(criterion: &mut Criterion) {
    let x = random([1, GRID, GRID, JOINED]);
    for groups in [1, 89, JOINED] {
        let weight = random([JOINED, JOINED / groups, 3, 3]);
        both(criterion, &format!("conv3x3 groups {groups}"), &x, |x| match groups {
            1 => kernels::conv3x3(x, weight.clone(), zeros(JOINED)),
            JOINED => kernels::depthwise3x3(x, weight.clone(), zeros(JOINED)),
            _ => kernels::grouped3x3(x, weight.clone(), zeros(JOINED), groups),
        });
    }
}

/// The shapes of a U-Net on a batch of images of 256 x 256, from 32 channels to 512.
fn unet(criterion: &mut Criterion) {
    for (batch, side, inputs, outputs) in [
        (4, 256, 32, 32),
        (4, 128, 64, 64),
        (4, 64, 128, 128),
        (4, 32, 256, 256),
        (4, 16, 512, 512),
        (4, 64, 256, 128),
        (4, 256, 64, 32),
        (1, 256, 32, 32),
        (1, 32, 256, 256),
    ] {
        let (x, weight) = (random([batch, side, side, inputs]), random([outputs, inputs, 3, 3]));
        let name = format!("conv3x3 {batch}x{side}x{side} {inputs} to {outputs}");
        criterion.bench_function(&format!("{name}/forward"), |b| {
            b.iter(|| black_box(kernels::conv3x3(x.clone(), weight.clone(), zeros(outputs))))
        });
        let device = Device::flex().autodiff();
        let tracked = |x: &Tensor<4>| Tensor::<4>::from_data(x.to_data(), &device).require_grad();
        let (x, weight) = (tracked(&x), tracked(&weight));
        let bias = Tensor::<1>::zeros([outputs], &device).require_grad();
        criterion.bench_function(&format!("{name}/backward"), |b| {
            b.iter(|| black_box(kernels::conv3x3(x.clone(), weight.clone(), bias.clone()).sum().backward()))
        });
    }
    let x = random([4, 128, 128, 64]);
    both(criterion, "batch_norm_relu", &x, |x| kernels::batch_norm(x, ones(64), zeros(64), 1e-5, true).0);
    both(criterion, "max_pool2x2", &x, kernels::max_pool2x2);
    let skip = random([4, 256, 256, 32]);
    both(criterion, "upsample2x_concat", &x, |x| kernels::upsample2x_concat(x, skip.clone()));
    let x = random([1, 56, 56, 96]);
    let weight = random([96, 1, 7, 7]);
    both(criterion, "depthwise 7x7", &x, |x| kernels::depthwise(x, weight.clone(), zeros(96)));
    let (x, weight) = (random([1, 512, 512, 3]), random([64, 3, 7, 7]));
    both(criterion, "conv 7x7 stride 2", &x, |x| kernels::conv2d(x, weight.clone(), None, 2, 3));
}

fn loss(criterion: &mut Criterion) {
    let logits = random([1, GRID, GRID, 150]);
    let ids: Vec<i32> = (0..512 * 512).map(|i| i % 150).collect();
    let labels = Tensor::<3, Int>::from_data(TensorData::new(ids, [1, 512, 512]), &Device::flex());
    both(criterion, "upsample_cross_entropy", &logits, |x| {
        kernels::upsample_cross_entropy(x, labels.clone(), None, kernels::LossMean::All)
    });
}

fn configured() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group!(name = benches; config = configured(); targets = pointwise, products, attention, convolutions, unet, loss);
criterion_main!(benches);
