//! Helpers of the kernels' tests: random tensors, gradients and comparison; and tests that concern all kernels.

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

/// Compares value and gradient of two functions of one tensor.
#[track_caller]
fn agree<const D: usize, const E: usize>(
    x: &Tensor<D>,
    tolerance: f32,
    ours: impl Fn(Tensor<D>) -> Tensor<E>,
    theirs: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    let of = |f: &dyn Fn(Tensor<D>) -> Tensor<E>| {
        let x = tracked(x.clone());
        let y = f(x.clone());
        let dy = Tensor::from_inner(strided(y.dims(), 99));
        (y.clone().inner(), x.grad(&(y * dy).sum().backward()).unwrap())
    };
    let ((y, dx), (ry, rdx)) = (of(&ours), of(&theirs));
    assert_close(y, ry, tolerance);
    assert_close(dx, rdx, 5.0 * tolerance);
}

/// Every kernel against its composition, in every operand, over shapes that nobody chose.
#[test]
fn kernels_match_their_compositions_on_random_shapes() {
    use crate::kernels::{attention, conv, gelu, layer_norm, linear, slice_attention, upsample_loss};
    let mut rng = Rng::new(20, &[]);
    for round in 0..24 {
        let mut draw = |most: usize| 1 + rng.below(most);
        let (b, n, c, o) = (draw(3), draw(90), draw(140), draw(140));
        let (x, w) = (strided([b, n, c], round), strided([o, c], round + 1));
        let (bias, ones) = (random([o], round + 2), random([c], round + 3));
        let residual = strided([b, n, o], round + 4);
        let some = || Some(bias.clone());
        let theirs = |x, w| linear::reference(x, w, some());
        agree(&x, 3e-6, |x| linear::linear(x, w.clone(), some()), |x| theirs(x, w.clone()));
        agree(&w, 3e-6, |w| linear::linear(x.clone(), w, some()), |w| theirs(x.clone(), w));
        agree(&x, 3e-6, |x| linear::linear_gelu(x, w.clone(), some()), |x| gelu::reference(theirs(x, w.clone())));
        let add = |w, residual| linear::linear_add(x.clone(), w, some(), None, None, residual);
        agree(&w, 3e-6, |w| add(w, residual.clone()), |w| residual.clone() + theirs(x.clone(), w));
        agree(&residual, 3e-6, |r| add(w.clone(), r), |r| r + theirs(x.clone(), w.clone()));
        agree(&x, 2e-6, gelu::gelu, gelu::reference);

        let shift = random([c], round + 5);
        let norm = |x, w, b| layer_norm::reference(x, w, b, 1e-5);
        let scaled = x.clone() * 3.0 + 2.0;
        agree(
            &scaled,
            1e-5,
            |x| super::layer_norm(x, ones.clone(), shift.clone(), 1e-5),
            |x| norm(x, ones.clone(), shift.clone()),
        );
        agree(
            &ones,
            1e-5,
            |w| super::layer_norm_gelu(scaled.clone(), w, shift.clone(), 1e-5),
            |w| gelu::reference(norm(scaled.clone(), w, shift.clone())),
        );
        let other = strided([b, n, c], round + 6);
        agree(
            &other,
            1e-5,
            |r| super::layer_norm_add(scaled.clone(), ones.clone(), shift.clone(), 1e-5, None, r, true),
            |r| gelu::reference(r + norm(scaled.clone(), ones.clone(), shift.clone())),
        );

        let (heads, d) = (draw(3), draw(40));
        let qkv = strided([b, n, 3 * heads * d], round + 7);
        agree(&qkv, 5e-6, |x| attention::attention(x, heads), |x| attention::reference(x, heads));
        let (key, value) = (strided([b, n, c], round + 8), strided([b, n, c], round + 9));
        let query = strided([b, n, o], round + 10);
        let slices = slice_attention::slice_attention;
        let reference = slice_attention::reference;
        agree(&query, 1e-5, |q| slices(q, key.clone(), value.clone()), |q| reference(q, key.clone(), value.clone()));
        agree(&key, 1e-5, |k| slices(query.clone(), k, value.clone()), |k| reference(query.clone(), k, value.clone()));
        agree(&value, 1e-5, |v| slices(query.clone(), key.clone(), v), |v| reference(query.clone(), key.clone(), v));

        let (h, width, group) = (draw(12), draw(12), 1 << rng.below(4));
        let mut draw = |most: usize| 1 + rng.below(most);
        let channels = group * draw(30);
        let map = strided([b, h, width, channels], round + 11);
        let (taps, offset) = (strided([channels, group, 3, 3], round + 12), random([channels], round + 13));
        let groups = channels / group;
        let grouped = |x, w| conv::grouped3x3::grouped3x3(x, w, offset.clone(), groups);
        let theirs = |x, w| conv::grouped3x3::reference(x, w, offset.clone(), groups);
        agree(&map, 3e-6, |x| grouped(x, taps.clone()), |x| theirs(x, taps.clone()));
        agree(&taps, 3e-6, |w| grouped(map.clone(), w), |w| theirs(map.clone(), w));
        let (k, kernel) = (draw(20), draw(9));
        let (dense, offset) = (strided([kernel, channels, 3, 3], round + 14), random([kernel], round + 15));
        let theirs = |x, w| conv::reference(x, w, Some(offset.clone()), 1, 1);
        agree(&map, 3e-6, |x| super::conv3x3(x, dense.clone(), offset.clone()), |x| theirs(x, dense.clone()));
        agree(&dense, 3e-6, |w| super::conv3x3(map.clone(), w, offset.clone()), |w| theirs(map.clone(), w));

        let logits = strided([b, h, width, k], round + 16);
        let (height, wide) = (h * draw(5), width * draw(5));
        let ids: Vec<i32> =
            (0..b * height * wide).map(|_| if draw(8) == 1 { 255 } else { draw(k) as i32 - 1 }).collect();
        let labels = Tensor::<3, Int>::from_data(TensorData::new(ids, [b, height, wide]), &Device::flex());
        let mean = [super::LossMean::All, super::LossMean::Valid][round as usize % 2];
        agree(
            &logits,
            3e-6,
            |x| super::upsample_cross_entropy(x, labels.clone(), None, mean),
            |x| upsample_loss::reference(x, labels.clone(), None, mean, 0.0),
        );
    }
}
