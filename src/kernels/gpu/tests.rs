//! Every kernel on the device that `STRUCTTOKEN_TEST_DEVICE` names against the composition it stands for on the CPU:
//! values and gradients, at sizes that divide nothing.

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};

use crate::kernels::layer_norm::{LayerNorm, layer_norm, layer_norm_add, layer_norm_gelu};
use crate::kernels::upsample::{Source, positions, resize};
use crate::kernels::{
    Recording, adamw, constant, conv, deformable, gelu, linear, mask_loss, softmax, square_sum, tests, upsample,
    upsample_loss,
};
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

/// Compares value and gradient of a kernel on a GPU with those of its composition on the CPU, and the kernel with
/// itself, bit for bit. `x` makes the operand, on the device it is given; so do the functions the others.
#[track_caller]
fn agree<const D: usize, const E: usize>(
    gpu: &Device,
    x: impl Fn(&Device) -> Tensor<D>,
    ours: impl Fn(Tensor<D>, &Device) -> Tensor<E>,
    theirs: impl Fn(Tensor<D>, &Device) -> Tensor<E>,
) {
    let of = |f: &dyn Fn(Tensor<D>, &Device) -> Tensor<E>, device: &Device| {
        let x = tests::tracked(x(device));
        let y = f(x.clone(), device);
        let dy = Tensor::from_inner(strided(y.dims(), 99, device));
        let grads = (y.clone() * dy).sum().backward();
        (y.inner(), x.grad(&grads).unwrap())
    };
    let ((y, dx), (again, dx_again)) = (of(&ours, gpu), of(&ours, gpu));
    assert!(y.clone().into_data() == again.into_data() && dx.clone().into_data() == dx_again.into_data());
    let (their_y, their_dx) = of(&theirs, &Device::flex());
    assert_close("value", y, their_y);
    assert_close("gradient", dx, their_dx);
}

/// Fails unless the tensors differ by no more than 2e-5 of 1 and the largest value, and prints by how much they do.
#[track_caller]
fn assert_close<const D: usize>(name: &str, ours: Tensor<D>, theirs: Tensor<D>) {
    let (ours, theirs) = (ours.to_device(&Device::flex()), theirs.to_device(&Device::flex()));
    let scale = 1.0 + theirs.clone().abs().max().into_scalar::<f32>();
    let largest = (ours.clone() - theirs.clone()).abs().max().into_scalar::<f32>();
    let line = std::panic::Location::caller().line();
    eprintln!("line {line}, {name} {:?}: {:.1e}", ours.dims(), largest / scale);
    tests::assert_close(ours, theirs, 2e-5);
}

#[test]
fn layer_norms() {
    let Some(device) = device() else { return };
    for (seed, shape) in (0..).zip([[1, 1, 2], [3, 5, 7], [2, 77, 131], [1, 9, 384], [4, 600, 33]]) {
        let c = shape[2];
        let x = |d: &Device| strided(shape, seed, d) * 3.0 + 5.0;
        let w = |d: &Device| random([c], seed + 1, d);
        let b = |d: &Device| random([c], seed + 2, d);
        let residual = |d: &Device| strided(shape, seed + 3, d);
        for gelu in [false, true] {
            let ours = |x, w, b| if gelu { layer_norm_gelu(x, w, b, 1e-5) } else { layer_norm(x, w, b, 1e-5) };
            let kernel = |factors| LayerNorm { eps: 1e-5, gelu, factors };
            let theirs = |x, w, b| kernel(None).reference(x, w, b, None);
            agree(&device, x, |x, d| ours(x, w(d), b(d)), |x, d| theirs(x, w(d), b(d)));
            agree(&device, w, |w, d| ours(x(d), w, b(d)), |w, d| theirs(x(d), w, b(d)));
            agree(&device, b, |b, d| ours(x(d), w(d), b), |b, d| theirs(x(d), w(d), b));
            for factors in [None, Some((0..shape[0]).map(|i| i as f32 * 1.5).collect::<Vec<_>>())] {
                let ours = |x, w, b, residual| layer_norm_add(x, w, b, 1e-5, factors.clone(), residual, gelu);
                let theirs = |x, w, b, residual| kernel(factors.clone()).reference(x, w, b, Some(residual));
                agree(&device, x, |x, d| ours(x, w(d), b(d), residual(d)), |x, d| theirs(x, w(d), b(d), residual(d)));
                agree(&device, w, |w, d| ours(x(d), w, b(d), residual(d)), |w, d| theirs(x(d), w, b(d), residual(d)));
                agree(&device, residual, |r, d| ours(x(d), w(d), b(d), r), |r, d| theirs(x(d), w(d), b(d), r));
            }
        }
    }
}

#[test]
fn gelus() {
    let Some(device) = device() else { return };
    for (seed, shape) in (0..).zip([[1, 1, 1], [3, 5, 7], [2, 17, 131]]) {
        let x = |d: &Device| strided(shape, seed, d) * 2.0;
        agree(&device, x, |x, _| gelu::gelu(x), |x, _| gelu::reference(x));
        let w = |d: &Device| random([3, shape[2]], seed + 1, d);
        let theirs = |x, d: &Device| gelu::reference(linear::reference(x, w(d), None));
        agree(&device, x, |x, d| linear::linear_gelu(x, w(d), None), theirs);
    }
    let far = Tensor::<1>::from_floats([-1e30, -100.0, 100.0, 1e30, 0.0], &device);
    assert_eq!(gelu::gelu(far).into_data().as_slice::<f32>().unwrap(), [0.0, 0.0, 100.0, 1e30, 0.0]);
}

#[test]
fn softmaxes() {
    let Some(device) = device() else { return };
    for (seed, shape) in (0..).zip([[1, 1, 1], [2, 3, 5], [1, 7, 1025], [3, 41, 33]]) {
        let x = |d: &Device| strided(shape, seed, d) * 4.0;
        agree(&device, x, |x, _| softmax::softmax(x), |x, _| activation::softmax(x, 2));
    }
    let x = |d: &Device| random([3, 9], 1, d) + 1e4;
    assert_close("far from zero", softmax::softmax(x(&device)), activation::softmax(x(&Device::flex()), 1));
}

#[test]
fn grouped_convolutions() {
    let Some(device) = device() else { return };
    let cases = [([1, 1, 1, 1], 1), ([2, 5, 7, 6], 1), ([1, 3, 1, 10], 2), ([2, 9, 4, 36], 4), ([1, 13, 6, 24], 8)];
    for (seed, (shape, width)) in (0..).zip(cases) {
        let c = shape[3];
        let x = |d: &Device| strided(shape, seed, d);
        let w = |d: &Device| strided([c, width, 3, 3], seed + 1, d);
        let b = |d: &Device| random([c], seed + 2, d);
        let ours = |x, w, b| conv::grouped3x3::grouped3x3(x, w, b, c / width);
        let theirs = |x, w, b| conv::grouped3x3::reference(x, w, b, c / width);
        agree(&device, x, |x, d| ours(x, w(d), b(d)), |x, d| theirs(x, w(d), b(d)));
        agree(&device, w, |w, d| ours(x(d), w, b(d)), |w, d| theirs(x(d), w, b(d)));
        agree(&device, b, |b, d| ours(x(d), w(d), b), |b, d| theirs(x(d), w(d), b));
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
        let value = |device: &Device| strided([b, n, heads, d], 1, device);
        // A good part of them lies outside.
        let locations = |device: &Device| strided([b, q, heads, shapes.len(), points, 2], 2, device) * 0.4 + 0.5;
        let weights = |device: &Device| strided([b, q, heads, shapes.len(), points], 3, device);
        let ours = |v, l, w| deformable::deformable_attention(v, shapes, l, w);
        let theirs = |v, l, w| deformable::reference(v, shapes, l, w);
        agree(&device, value, |v, d| ours(v, locations(d), weights(d)), |v, d| theirs(v, locations(d), weights(d)));
        agree(&device, locations, |l, d| ours(value(d), l, weights(d)), |l, d| theirs(value(d), l, weights(d)));
        agree(&device, weights, |w, d| ours(value(d), locations(d), w), |w, d| theirs(value(d), locations(d), w));
    }
}

#[test]
fn mask_losses() {
    let Some(device) = device() else { return };
    for (seed, shape) in (0..).zip([[1, 1], [3, 127], [5, 1000]]) {
        let logits = |d: &Device| strided(shape, seed, d) * 4.0;
        let labels = |d: &Device| Tensor::from_inner(strided(shape, seed + 1, d).clamp(0.0, 1.0));
        for loss in [mask_loss::PointLoss::CrossEntropy, mask_loss::PointLoss::Focal] {
            let ours = |x, d: &Device| mask_loss::mask_losses(x, labels(d), loss) * 10.0;
            agree(&device, logits, ours, |x, d| mask_loss::reference(x, labels(d), loss) * 10.0);
        }
    }
}

/// Three steps of parameters of several lengths, one of which somebody else holds too.
#[test]
fn adamw_steps() {
    let Some(device) = device() else { return };
    let lengths = [1, 77, 4096, 100_003];
    let hypers: Vec<adamw::AdamW> = (1..=lengths.len())
        .map(|i| adamw::AdamW {
            lr: 1e-2 * i as f64,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.1 * i as f64,
        })
        .collect();
    let of = |device: &Device| {
        let mut state: Vec<[Tensor<1>; 3]> = (0..)
            .zip(lengths)
            .map(|(seed, len)| {
                [random([len], seed, device), Tensor::zeros([len], device), Tensor::zeros([len], device)]
            })
            .collect();
        let held = state[1][0].clone();
        for step in 1..=3 {
            let with_gradient = |(i, [param, mean, square]): (usize, [Tensor<1>; 3])| {
                [param, strided([lengths[i]], 10 * step + i as u64, device), mean, square]
            };
            let tensors = state.into_iter().enumerate().map(with_gradient).collect();
            state = adamw::adamw_steps(tensors, step, &hypers);
        }
        state.into_iter().flatten().chain([held]).collect::<Vec<_>>()
    };
    assert!(adamw::adamw_together(&random([3], 1, &device)) && !adamw::adamw_together(&tests::random([3], 1)));
    let (ours, again, theirs) = (of(&device), of(&device), of(&Device::flex()));
    for ((ours, again), theirs) in ours.into_iter().zip(again).zip(theirs) {
        assert!(ours.to_data() == again.into_data());
        assert_close("values", ours, theirs);
    }
    assert_close("held", of(&device).remove(12), tests::random([77], 1));
}

#[test]
fn square_sums() {
    let Some(device) = device() else { return };
    let tensors = |d: &Device| [1, 127, 8192, 8193, 100_003].map(|len| strided([len], len as u64, d));
    let of = || square_sum::square_sum(&tensors(&device)).unwrap().into_scalar::<f32>();
    let values = tensors(&Device::flex()).into_iter().flat_map(|x| x.into_data().try_to_vec::<f32>().unwrap());
    let truth: f64 = values.map(|x| f64::from(x).powi(2)).sum();
    let (sum, again) = (of(), of());
    assert_eq!(sum.to_bits(), again.to_bits());
    assert!((f64::from(sum) - truth).abs() < 1e-6 * truth, "{sum} for {truth}");
}

#[test]
fn constants_are_uploaded_once() {
    let Some(device) = device() else { return };
    let mut made = 0;
    for device in [device.clone(), device.clone(), device.clone().autodiff()] {
        let values = || {
            made += 1;
            vec![1.0, 2.0]
        };
        let kept = constant::constant(("test", vec![7; 6]), [1, 2], &device, DType::F32, values);
        assert_eq!(kept.device(), device);
        assert_eq!(kept.into_data(), TensorData::new(vec![1.0f32, 2.0], [1, 2]));
    }
    assert_eq!(made, 1);
}

/// A launch has at most 65535 cubes along an axis.
#[test]
fn more_cubes_than_an_axis_has() {
    let Some(device) = device() else { return };
    let values = |d: &Device| random([65535 * 128 + 77], 1, d);
    assert_close("values", gelu::gelu(values(&device)), gelu::gelu(values(&Device::flex())));
    let rows = |d: &Device| random([65535 * 4 + 3, 3], 2, d);
    assert_close("rows", softmax::softmax(rows(&device)), softmax::softmax(rows(&Device::flex())));
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
        let labels = |d: &Device| labels([shape[0], h, w], shape[3], 0.3, d);
        let logits = |d: &Device| strided(shape, seed, d) * 5.0;
        let cases = [
            (upsample_loss::LossMean::All, false, 0.0),
            (upsample_loss::LossMean::Valid, false, 2.0),
            (upsample_loss::LossMean::Valid, true, 0.0),
            (upsample_loss::LossMean::All, true, 1.5),
        ];
        for (mean, weighted, gamma) in cases {
            let weights = |d: &Device| weighted.then(|| Tensor::from_inner(random([shape[3]], 5, d).abs() + 0.1));
            // The mean over pixels is small; a hundred times that has slopes of the size of the loss.
            let ours =
                |x, d: &Device| upsample_loss::upsample_focal_loss(x, labels(d), weights(d), mean, gamma) * 100.0;
            let theirs = |x, d: &Device| upsample_loss::reference(x, labels(d), weights(d), mean, gamma) * 100.0;
            agree(&device, logits, ours, theirs);
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

/// A small network by kernels of ours, Burn's products between them, and a constant.
#[test]
fn recordings_replay_with_other_inputs() {
    let Some(device) = device() else { return };
    let (w, b) = (random([24, 24], 1, &device), random([24], 2, &device));
    let filters = random([24, 1, 3, 3], 3, &device);
    let network = |mut inputs: Vec<Tensor<1>>| -> Vec<Tensor<1>> {
        let [n, h, width, c] = [2, 5, 7, 24];
        let x = inputs.remove(0).reshape([n, h, width, c]);
        let rows = layer_norm_gelu(x.clone().reshape([n, h * width, c]), b.clone(), b.clone(), 1e-5);
        let rows = linear::linear_add(rows.clone(), w.clone(), Some(b.clone()), None, None, rows);
        let map = conv::grouped3x3::grouped3x3(rows.clone().reshape([n, h, width, c]), filters.clone(), b.clone(), c);
        let key = ("a recorded constant", vec![c, c]);
        let constant = constant::constant(key, [c, c], &device, DType::F32, || vec![0.1; c * c]);
        let scores = softmax::softmax(rows.clone().matmul(rows.transpose()));
        vec![(map + x).matmul(constant.unsqueeze()).flatten(0, 3), scores.flatten(0, 2)]
    };
    let of = |seed| vec![strided([2, 5, 7, 24], seed, &device).flatten(0, 3)];
    let bits = |parts: Vec<Tensor<1>>| -> Vec<u32> {
        parts.into_iter().flat_map(|part| part.into_data().try_to_vec::<f32>().unwrap()).map(f32::to_bits).collect()
    };
    let recording = Recording::new(of(1), &network).expect("the launches can be recorded");
    // SAFETY: weights and filters are there until the end, and do not change.
    let replayed: Vec<_> = (1..4).map(|seed| unsafe { recording.replay(of(seed)) }.unwrap()).collect();
    for (seed, replayed) in (1..4).zip(replayed) {
        assert!(bits(replayed) == bits(network(of(seed))), "input {seed}");
    }
    // What else the device does in between is not in the way.
    assert_close("product", w.clone().matmul(w.clone()), {
        let w = w.clone().to_device(&Device::flex());
        w.clone().matmul(w)
    });
    let again = unsafe { recording.replay(of(9)) }.unwrap();
    assert!(bits(again) == bits(network(of(9))));
    let other =
        std::thread::scope(|scope| scope.spawn(|| unsafe { recording.replay(of(1)) }.is_none()).join().unwrap());
    assert!(other, "replayed on another thread");
}

#[test]
fn what_cannot_be_recorded_leaves_the_device_usable() {
    let Some(device) = device() else { return };
    let of = |seed| random([360], seed, &device);
    let on_cpu = |seed| random([360], seed, &Device::flex());
    let reads = |inputs: Vec<Tensor<1>>| -> Vec<Tensor<1>> {
        let sum = inputs[0].clone().sum().into_scalar::<f32>();
        vec![inputs[0].clone() * sum]
    };
    let uploads = |inputs: Vec<Tensor<1>>| -> Vec<Tensor<1>> { vec![inputs[0].clone() + random([360], 1, &device)] };
    for _ in 0..2 {
        assert!(Recording::new(vec![of(2)], &uploads).is_none());
        assert!(Recording::new(vec![of(1)], &reads).is_none());
        assert_close("sum", of(3) + of(4), on_cpu(3) + on_cpu(4));
        let twice = |inputs: Vec<Tensor<1>>| vec![inputs[0].clone() * 2.0];
        let recording = Recording::new(vec![of(1)], &twice).expect("the device can record again");
        // SAFETY: it reads nothing else.
        let replayed = unsafe { recording.replay(vec![of(5)]) }.unwrap().remove(0);
        assert_close("twice", replayed, on_cpu(5) * 2.0);
    }
}

/// Grids of two rows and three columns of windows of 8 x 6 pixels, which overlap, over an image of 12 x 14.
#[test]
fn labels_of_windows() {
    let Some(device) = device() else { return };
    for k in [1, 3, 150] {
        let (tops, lefts, (height, width)) = ([0, 4], [0, 5, 8], (12, 14));
        let (window, grid) = ((8, 6), (3, 2));
        let of = |d: &Device| -> Vec<Tensor<4>> {
            (0..6).map(|i| strided([2, grid.0, grid.1, k], i + k as u64, d)).collect()
        };
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
        let found = upsample::upsample_argmax(&of(&device), &rows, &columns).unwrap();
        assert_eq!(found.dims(), [2, 12, 4]);
        let bytes = found.into_data().bytes().to_vec();
        let mut sum = Tensor::<4>::zeros([2, height, width, k], &Device::flex());
        for (i, grid) in of(&Device::flex()).into_iter().enumerate() {
            let (top, left) = (tops[i / 3], lefts[i % 3]);
            let place = [0..2, top..top + window.0, left..left + window.1, 0..k];
            let there = sum.clone().slice(place.clone());
            sum = sum.slice_assign(place, there + resize(grid, window.0, window.1));
        }
        let expected: Vec<i64> = sum.argmax(3).into_data().iter::<i64>().collect();
        for (i, expected) in expected.iter().enumerate() {
            assert_eq!(i64::from(bytes[i / width * 16 + i % width]), *expected, "pixel {i} of {k} classes");
        }
    }
}
