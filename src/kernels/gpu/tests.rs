//! Every kernel against the composition it stands for, on the device that `STRUCTTOKEN_TEST_DEVICE` names: values and
//! gradients, at sizes that divide nothing.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use crate::kernels::upsample::{Source, positions, resize};
use crate::kernels::{conv, deformable, gelu, layer_norm, mask_loss, softmax, tests, upsample, upsample_loss};
use crate::rng::Rng;

/// The GPU, or none (with a word) where the tests run on the CPU.
fn device() -> Option<Device> {
    let name = std::env::var("STRUCTTOKEN_TEST_DEVICE").unwrap_or_default();
    if name.is_empty() || name == "cpu" {
        eprintln!("skipped: STRUCTTOKEN_TEST_DEVICE names no GPU");
        return None;
    }
    Some(crate::device::open(&name).unwrap_or_else(|error| panic!("{error}")).0)
}

/// Standard normal values, in a permuted slice of a larger tensor where there are two axes to swap.
fn strided<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let mut stored = shape;
    stored.reverse();
    stored[0] += 2;
    let mut axes: [isize; D] = std::array::from_fn(|i| i as isize);
    axes.reverse();
    let mut ranges = shape.map(|n| 0..n);
    ranges[D - 1] = 1..shape[D - 1] + 1;
    random(stored, seed, device).permute(axes).slice(ranges)
}

fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    Tensor::from_data(tests::random(shape, seed).into_data(), device)
}

/// Compares value and gradient of two functions of one tensor, and the kernel with itself, bit for bit.
#[track_caller]
fn agree<const D: usize, const E: usize>(
    x: &Tensor<D>,
    ours: impl Fn(Tensor<D>) -> Tensor<E>,
    theirs: impl Fn(Tensor<D>) -> Tensor<E>,
) {
    let of = |f: &dyn Fn(Tensor<D>) -> Tensor<E>| {
        let x = tests::tracked(x.clone());
        let y = f(x.clone());
        let dy = Tensor::from_inner(strided(y.dims(), 99, &x.device().without_autodiff()));
        let grads = (y.clone() * dy).sum().backward();
        (y.inner(), x.grad(&grads).unwrap())
    };
    let ((y, dx), (again, dx_again), (ry, rdx)) = (of(&ours), of(&ours), of(&theirs));
    assert!(y.clone().into_data() == again.into_data() && dx.clone().into_data() == dx_again.into_data());
    tests::assert_close(y, ry, TOLERANCE);
    tests::assert_close(dx, rdx, TOLERANCE);
}

/// Of the largest value.
const TOLERANCE: f32 = 2e-5;

#[test]
fn layer_norms() {
    let Some(device) = device() else { return };
    for (seed, shape) in (0..).zip([[1, 1, 2], [3, 5, 7], [2, 77, 131], [1, 9, 384], [4, 600, 33]]) {
        let c = shape[2];
        let x = strided(shape, seed, &device) * 3.0 + 5.0;
        let (w, b, residual) =
            (random([c], seed + 1, &device), random([c], seed + 2, &device), strided(shape, seed + 3, &device));
        let theirs = |x, w, b| layer_norm::reference(x, w, b, 1e-5);
        let ours = |x, w, b| layer_norm::layer_norm(x, w, b, 1e-5);
        agree(&x, |x| ours(x, w.clone(), b.clone()), |x| theirs(x, w.clone(), b.clone()));
        agree(&w, |w| ours(x.clone(), w, b.clone()), |w| theirs(x.clone(), w, b.clone()));
        agree(&b, |b| ours(x.clone(), w.clone(), b), |b| theirs(x.clone(), w.clone(), b));
        let fused = |x, w, b| layer_norm::layer_norm_gelu(x, w, b, 1e-5);
        let theirs = |x, w, b| gelu::reference(layer_norm::reference(x, w, b, 1e-5));
        agree(&x, |x| fused(x, w.clone(), b.clone()), |x| theirs(x, w.clone(), b.clone()));
        agree(&w, |w| fused(x.clone(), w, b.clone()), |w| theirs(x.clone(), w, b.clone()));
        agree(&b, |b| fused(x.clone(), w.clone(), b), |b| theirs(x.clone(), w.clone(), b));
        for gelu in [false, true] {
            for factors in [None, Some((0..shape[0]).map(|i| i as f32 * 1.5).collect::<Vec<_>>())] {
                let ours =
                    |x, w, residual| layer_norm::layer_norm_add(x, w, b.clone(), 1e-5, factors.clone(), residual, gelu);
                let theirs = |x, w, residual| {
                    let kernel = layer_norm::LayerNorm { eps: 1e-5, gelu, factors: factors.clone() };
                    kernel.reference(x, w, b.clone(), Some(residual))
                };
                agree(&x, |x| ours(x, w.clone(), residual.clone()), |x| theirs(x, w.clone(), residual.clone()));
                agree(&w, |w| ours(x.clone(), w, residual.clone()), |w| theirs(x.clone(), w, residual.clone()));
                agree(&residual, |r| ours(x.clone(), w.clone(), r), |r| theirs(x.clone(), w.clone(), r));
            }
        }
    }
}

#[test]
fn softmaxes() {
    let Some(device) = device() else { return };
    for (seed, shape) in (0..).zip([[1, 1, 1], [2, 3, 5], [1, 7, 1025], [3, 41, 33]]) {
        let x = strided(shape, seed, &device) * 4.0;
        agree(&x, softmax::softmax, |x| activation::softmax(x, 2));
    }
    let x = random([3, 9], 1, &device) + 1e4;
    tests::assert_close(softmax::softmax(x.clone()), activation::softmax(x, 1), TOLERANCE);
}

#[test]
fn grouped_convolutions() {
    let Some(device) = device() else { return };
    let cases = [([1, 1, 1, 1], 1), ([2, 5, 7, 6], 1), ([1, 3, 1, 10], 2), ([2, 9, 4, 36], 4), ([1, 13, 6, 24], 8)];
    for (seed, (shape, width)) in (0..).zip(cases) {
        let c = shape[3];
        let x = strided(shape, seed, &device);
        let (w, b) = (strided([c, width, 3, 3], seed + 1, &device), random([c], seed + 2, &device));
        let ours = |x, w, b| conv::grouped3x3::grouped3x3(x, w, b, c / width);
        let theirs = |x, w, b| conv::grouped3x3::reference(x, w, b, c / width);
        agree(&x, |x| ours(x, w.clone(), b.clone()), |x| theirs(x, w.clone(), b.clone()));
        agree(&w, |w| ours(x.clone(), w, b.clone()), |w| theirs(x.clone(), w, b.clone()));
        agree(&b, |b| ours(x.clone(), w.clone(), b), |b| theirs(x.clone(), w.clone(), b));
    }
}

#[test]
fn deformable_attention() {
    let Some(device) = device() else { return };
    let cases: [([usize; 5], &[(usize, usize)]); 4] = [
        ([1, 1, 1, 1, 1], &[(1, 1)]),
        ([2, 137, 3, 7, 4], &[(2, 3), (5, 4), (9, 7)]),
        ([1, 19, 2, 33, 2], &[(1, 6), (3, 1)]),
        ([3, 65, 1, 16, 3], &[(4, 4)]),
    ];
    for ([b, q, heads, d, points], shapes) in cases {
        let n = shapes.iter().map(|(h, w)| h * w).sum();
        let value = strided([b, n, heads, d], 1, &device);
        // A good part of them lies outside.
        let locations = strided([b, q, heads, shapes.len(), points, 2], 2, &device) * 0.4 + 0.5;
        let weights = strided([b, q, heads, shapes.len(), points], 3, &device);
        let ours = |v, l, w| deformable::deformable_attention(v, shapes, l, w);
        let theirs = |v, l, w| deformable::reference(v, shapes, l, w);
        let fixed = || (value.clone(), locations.clone(), weights.clone());
        agree(&value, |v| ours(v, fixed().1, fixed().2), |v| theirs(v, fixed().1, fixed().2));
        agree(&locations, |l| ours(fixed().0, l, fixed().2), |l| theirs(fixed().0, l, fixed().2));
        agree(&weights, |w| ours(fixed().0, fixed().1, w), |w| theirs(fixed().0, fixed().1, w));
    }
}

#[test]
fn mask_losses() {
    let Some(device) = device() else { return };
    for (seed, shape) in (0..).zip([[1, 1], [3, 127], [5, 1000]]) {
        let logits = strided(shape, seed, &device) * 4.0;
        let labels = strided(shape, seed + 1, &device).clamp(0.0, 1.0);
        for loss in [mask_loss::PointLoss::CrossEntropy, mask_loss::PointLoss::Focal] {
            let (ours, theirs) = (labels.clone(), labels.clone());
            agree(
                &logits,
                |x| mask_loss::mask_losses(x, Tensor::from_inner(ours.clone()), loss) * 10.0,
                |x| mask_loss::reference(x, Tensor::from_inner(theirs.clone()), loss) * 10.0,
            );
        }
    }
}

/// Labels of all classes, a third of them 255.
fn labels(shape: [usize; 3], k: usize, ignored: f32, device: &Device) -> Tensor<3, Int> {
    let mut rng = Rng::new(3, &[k as u64]);
    let mut label = || if rng.chance(ignored) { 255 } else { rng.below(k) as i32 };
    let values: Vec<i32> = (0..shape.iter().product()).map(|_| label()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[test]
fn upsampled_losses() {
    let Some(device) = device() else { return };
    let cases = [
        ([1, 1, 1, 1], 2, 3),
        ([2, 3, 5, 7], 13, 10),
        ([1, 4, 3, 150], 64, 48),
        ([2, 6, 9, 33], 4, 5),
        ([1, 2, 2, 3], 2, 2),
    ];
    for (seed, (shape, h, w)) in (0..).zip(cases) {
        let labels = labels([shape[0], h, w], shape[3], 0.3, &device);
        let logits = strided(shape, seed, &device) * 5.0;
        let weights = random([shape[3]], 5, &device).abs() + 0.1;
        let cases = [
            (upsample_loss::LossMean::All, None, 0.0),
            (upsample_loss::LossMean::Valid, None, 2.0),
            (upsample_loss::LossMean::Valid, Some(weights.clone()), 0.0),
            (upsample_loss::LossMean::All, Some(weights), 1.5),
        ];
        for (mean, weights, gamma) in cases {
            let weights = || weights.clone().map(Tensor::from_inner);
            // The mean over pixels is small; a hundred times that has slopes of the size of the loss.
            let ours =
                |x| upsample_loss::upsample_focal_loss(x, labels.clone(), weights(), mean, gamma).mul_scalar(100.0);
            let theirs = |x| upsample_loss::reference(x, labels.clone(), weights(), mean, gamma).mul_scalar(100.0);
            agree(&logits, ours, theirs);
        }
    }
}

#[test]
fn a_loss_without_valid_pixels_is_zero() {
    let Some(device) = device() else { return };
    for mean in [upsample_loss::LossMean::All, upsample_loss::LossMean::Valid] {
        let logits = tests::tracked(random([1, 2, 3, 4], 1, &device));
        let labels = labels([1, 4, 6], 4, 1.1, &device);
        let loss = upsample_loss::upsample_focal_loss(logits.clone(), labels, None, mean, 2.0);
        let grad = logits.grad(&loss.backward()).unwrap();
        assert_eq!((loss.into_scalar::<f32>(), grad.abs().max().into_scalar::<f32>()), (0.0, 0.0));
    }
}

/// Grids of two rows and three columns of windows of 8 x 6 pixels, which overlap, over an image of 12 x 14.
#[test]
fn labels_of_windows() {
    let Some(device) = device() else { return };
    for k in [1, 3, 150] {
        let (tops, lefts, (height, width)) = ([0, 4], [0, 5, 8], (12, 14));
        let (window, grid) = ((8, 6), (3, 2));
        let grids: Vec<Tensor<4>> = (0..6).map(|i| strided([2, grid.0, grid.1, k], i + k as u64, &device)).collect();
        let sources = |starts: &[usize], out: usize, window: usize, grid: usize| -> Vec<Vec<Source>> {
            let at = positions(grid, window);
            let of = |i: usize| {
                let covering = starts.iter().enumerate().filter(|(_, start)| (**start..**start + window).contains(&i));
                let source = |(j, start): (usize, &usize)| {
                    let at = at[i - start];
                    Source { window: j, taps: [(at.low, 1.0 - at.t), (at.high, at.t)] }
                };
                covering.map(source).collect()
            };
            (0..out).map(of).collect()
        };
        let rows = sources(&tops, height, window.0, grid.0);
        let columns = sources(&lefts, width, window.1, grid.1);
        let found = upsample::upsample_argmax(&grids, &rows, &columns).unwrap();
        assert_eq!(found.dims(), [2, 12, 4]);
        let bytes = found.into_data().bytes().to_vec();
        let mut sum = Tensor::<4>::zeros([2, height, width, k], &device);
        for (i, grid) in grids.iter().enumerate() {
            let (top, left) = (tops[i / 3], lefts[i % 3]);
            let place = [0..2, top..top + window.0, left..left + window.1, 0..k];
            let there = sum.clone().slice(place.clone());
            sum = sum.slice_assign(place, there + resize(grid.clone(), window.0, window.1));
        }
        let expected: Vec<i64> = sum.argmax(3).into_data().iter::<i64>().collect();
        for (i, expected) in expected.iter().enumerate() {
            assert_eq!(i64::from(bytes[i / width * 16 + i % width]), *expected, "pixel {i} of {k} classes");
        }
    }
}
