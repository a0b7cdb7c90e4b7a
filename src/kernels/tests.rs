//! What the kernels' tests share: random tensors, gradients, comparison and timing.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::rng::Rng;

/// Standard normal values.
pub(super) fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut rng = Rng::new(seed, &[shape.iter().product::<usize>() as u64]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Standard normal values in a tensor that is a permuted slice of a larger one.
pub(super) fn strided<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut stored = shape;
    stored.reverse();
    stored[0] += 2;
    let mut axes: [isize; D] = std::array::from_fn(|i| i as isize);
    axes.reverse();
    let mut ranges = shape.map(|n| 0..n);
    ranges[D - 1] = 1..shape[D - 1] + 1;
    let x = random(stored, seed).permute(axes).slice(ranges);
    assert_eq!(x.dims(), shape);
    x
}

/// The gradients of sum(f(inputs) * dy).
pub(super) fn gradients<const D: usize, const N: usize>(
    inputs: [Tensor<D>; N],
    dy: &Tensor<D>,
    f: impl FnOnce([Tensor<D>; N]) -> Tensor<D>,
) -> [Tensor<D>; N] {
    let inputs = inputs.map(tracked);
    let y = f(inputs.clone());
    let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
    inputs.map(|x| x.grad(&grads).unwrap())
}

/// The tensor as a leaf of an autodiff graph.
pub(super) fn tracked<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(x).require_grad()
}

/// Fails unless |a - b| <= tolerance * (1 + the largest |b|) everywhere.
#[track_caller]
pub(super) fn assert_close<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f32) {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (a.into_data(), b.into_data());
    let (a, b) = (a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap());
    let scale = 1.0 + b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "element {i}: {a} against {b}, scale {scale}");
    }
}

/// Every kernel gives the same bits with one thread as with several.
#[test]
fn threads_do_not_change_a_bit() {
    let run = || {
        let x = tracked(random([2, 40, 9, 132], 1));
        let (weight, bias) = (tracked(random([132], 2)), tracked(random([132], 3)));
        let taps = tracked(random([132, 4, 3, 3], 4));
        let y = super::grouped3x3(x.clone(), taps.clone(), bias.clone(), 33);
        let y = super::layer_norm_gelu(y, weight.clone(), bias.clone(), 1e-6);
        let y = super::attention(y.reshape([2, 360, 132]), 2);
        let y = super::linear(y, tracked(random([21, 44], 5)), None);
        let y = super::gelu(y).reshape([2, 40, 9, 21]);
        let labels = Tensor::<3, Int>::zeros([2, 80, 30], &Device::flex());
        let loss = super::upsample_cross_entropy(y, labels, None, super::LossMean::All);
        let grads = loss.backward();
        let grad = |x: &Tensor<1>| x.grad(&grads).unwrap().into_data();
        let taps = taps.grad(&grads).unwrap().into_data();
        [loss.into_data(), grad(&weight), grad(&bias), taps, x.grad(&grads).unwrap().into_data()]
    };
    let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
    assert!(on(1) == on(3));
}

/// Constants and tracked tensors may be mixed; only the tracked ones get a gradient.
#[test]
fn frozen_operands_are_constants() {
    let (x, weight, bias) = (random([3, 7], 1), random([5, 7], 2), random([5], 3));
    let full = {
        let (x, weight, bias) = (tracked(x.clone()), tracked(weight.clone()), tracked(bias.clone()));
        let grads = super::linear(x.clone(), weight.clone(), Some(bias)).powi_scalar(2).sum().backward();
        (x.grad(&grads).unwrap().into_data(), weight.grad(&grads).unwrap().into_data())
    };
    let input = tracked(x.clone());
    let grads = super::linear(input.clone(), weight.clone(), Some(bias.clone())).powi_scalar(2).sum().backward();
    assert!(input.grad(&grads).unwrap().into_data() == full.0);
    let learnt = tracked(weight);
    let grads = super::linear(x, learnt.clone(), Some(bias)).powi_scalar(2).sum().backward();
    assert!(learnt.grad(&grads).unwrap().into_data() == full.1);
}
