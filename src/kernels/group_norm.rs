//! Group normalisation of channels-last maps.
//!
//! Everything is per channel and bands of pixels: a channel's moments are those of its bands put together, a group's those
//! of its channels, and on the way back the sums a group needs are those of its channels' gradients of weight and bias.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge::{Kernel, Operands, on_cpu, run, tensor, values};
use super::simd::{fma, vectorised};

/// Group normalisation (Wu and He, 2018): `(x - mean) / sqrt(variance + eps) * weight + bias` for `x [b, h, w, c]`, with
/// the mean and the biased variance of each sample's pixels in each of `groups` groups of neighbouring channels;
/// `weight [c]`, `bias [c]`.
pub fn group_norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64) -> Tensor<4> {
    let [_, _, _, c] = x.dims();
    assert_eq!((weight.dims(), bias.dims()), ([c], [c]), "group_norm: x, weight, bias differ in length");
    assert!(groups > 0 && c.is_multiple_of(groups), "group_norm: {c} channels in {groups} groups");
    if x.shape().num_elements() > 0 && on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) {
        let operands = Operands::Three(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        run(GroupNorm { groups, eps }, operands)
    } else {
        reference(x, weight, bias, groups, eps)
    }
}

/// The composition of tensor operations that [`group_norm`] stands for.
pub(crate) fn reference(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let x = x.reshape([b, h * w, groups, c / groups]);
    let mean = |x: Tensor<4>| x.mean_dim(3).mean_dim(1); // [b, 1, groups, 1]
    let centred = x.clone() - mean(x);
    let variance = mean(centred.clone().powi_scalar(2));
    let unit = (centred / (variance + eps).sqrt()).reshape([b, h, w, c]);
    unit * weight.unsqueeze() + bias.unsqueeze()
}

/// Pixels a task works on; fixed, so that sums over pixels always add up in the same order.
const PIXELS: usize = 64;

/// As many bands as are worth waking a thread for.
fn bands_at_once(channels: usize) -> usize {
    (1usize << 15).div_ceil(PIXELS * channels)
}

#[derive(Debug)]
struct GroupNorm {
    groups: usize,
    eps: f64,
}

impl Kernel for GroupNorm {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, w, b) = (values(&inputs[0]), values(&inputs[1]), values(&inputs[2]));
        let shape = inputs[0].shape();
        let (samples, pixels, c) = (shape[0], shape[1] * shape[2], shape[3]);
        let moments = self.moments(x, pixels, c);
        let mut y = vec![0.0; x.len()];
        let tasks = y.par_chunks_exact_mut(pixels * c).zip(x.par_chunks_exact(pixels * c)).enumerate();
        tasks.for_each(|(sample, (y, x))| {
            let (means, scales) = per_channel(&moments, sample, self.groups, c);
            let factors: Vec<f32> = scales.iter().zip(w).map(|(scale, w)| scale * w).collect();
            let bands = y.par_chunks_mut(PIXELS * c).zip(x.par_chunks(PIXELS * c)).with_min_len(bands_at_once(c));
            bands.for_each(|(y, x)| normalise(x, &means, &factors, b, y));
        });
        let y = tensor(y, shape);
        if !keep {
            return (y, Vec::new());
        }
        let moments = tensor(moments, [samples, self.groups, 2]);
        let mut saved = inputs;
        saved[2] = moments;
        (y, saved)
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let (x, w, moments, dy) = (values(&saved[0]), values(&saved[1]), values(&saved[2]), values(&grad));
        let shape = grad.shape();
        let (samples, pixels, c) = (shape[0], shape[1] * shape[2], shape[3]);
        let size = c / self.groups;
        let mut dx = vec![0.0; if wanted[0] { x.len() } else { 0 }];
        let (mut dw, mut db) = (vec![0.0f64; c], vec![0.0f64; c]);
        for sample in 0..samples {
            let all = sample * pixels * c..(sample + 1) * pixels * c;
            let (x, dy) = (&x[all.clone()], &dy[all.clone()]);
            let (means, scales) = per_channel(moments, sample, self.groups, c);
            let (products, sums) = gradient_sums(x, dy, &means, &scales);
            dw.iter_mut().zip(&products).for_each(|(total, sum)| *total += sum);
            db.iter_mut().zip(&sums).for_each(|(total, sum)| *total += sum);
            if !wanted[0] {
                continue;
            }
            // Of the gradient times the weight, in the channel's group: its mean, and that of its product with the normalised x.
            let group_means = |sums: &[f64]| -> Vec<f32> {
                let weighted: Vec<f64> = sums.iter().zip(w).map(|(sum, w)| sum * f64::from(*w)).collect();
                let mean = |group: &[f64]| (group.iter().sum::<f64>() / (size * pixels) as f64) as f32;
                weighted.chunks_exact(size).flat_map(|group| vec![mean(group); size]).collect()
            };
            let (projections, offsets) = (group_means(&products), group_means(&sums));
            let affine = Affine { means: &means, scales: &scales, w, projections: &projections, offsets: &offsets };
            let bands = dx[all].par_chunks_mut(PIXELS * c).zip(x.par_chunks(PIXELS * c));
            let bands = bands.zip(dy.par_chunks(PIXELS * c)).with_min_len(bands_at_once(c));
            bands.for_each(|((dx, x), dy)| input_gradient(x, dy, &affine, dx));
        }
        let rounded = |sums: Vec<f64>| tensor(sums.into_iter().map(|sum| sum as f32).collect(), [c]);
        vec![wanted[0].then(|| tensor(dx, shape)), Some(rounded(dw)), Some(rounded(db))]
    }
}

impl GroupNorm {
    /// Mean and reciprocal standard deviation of each sample's groups, `[samples, groups, 2]`.
    fn moments(&self, x: &[f32], pixels: usize, c: usize) -> Vec<f32> {
        let size = c / self.groups;
        let bands = |x: &[f32]| -> Vec<(usize, Vec<f32>)> {
            let bands = x.par_chunks(PIXELS * c).with_min_len(bands_at_once(c));
            bands.map(|x| (x.len() / c, band_moments(x, c))).collect()
        };
        let sample = |x: &[f32]| -> Vec<f32> {
            let bands = bands(x);
            let group = |group: usize| {
                let mut total = Moments::default();
                for (pixels, moments) in &bands {
                    for channel in group * size..(group + 1) * size {
                        total.add(*pixels as f64, moments[channel].into(), moments[c + channel].into());
                    }
                }
                [total.mean as f32, (1.0 / (total.squares / total.count + self.eps).sqrt()) as f32]
            };
            (0..self.groups).flat_map(group).collect()
        };
        x.par_chunks_exact(pixels * c).flat_map_iter(sample).collect()
    }
}

/// Count, mean and the sum of squared distances from the mean, of parts put together (Chan et al., 1979).
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, count: f64, mean: f64, squares: f64) {
        let (total, apart) = (self.count + count, mean - self.mean);
        self.mean += apart * count / total;
        self.squares += squares + apart * apart * self.count * count / total;
        self.count = total;
    }
}

/// A sample's means and reciprocal standard deviations, spread over the channels.
fn per_channel(moments: &[f32], sample: usize, groups: usize, c: usize) -> (Vec<f32>, Vec<f32>) {
    let moments = &moments[sample * groups * 2..][..groups * 2];
    let of = |which: usize| (0..c).map(|channel| moments[channel / (c / groups) * 2 + which]).collect();
    (of(0), of(1))
}

/// A sample's sums over the pixels, channel by channel: of the gradient times the normalised x, and of the gradient.
fn gradient_sums(x: &[f32], dy: &[f32], means: &[f32], scales: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let c = means.len();
    let bands = x.par_chunks(PIXELS * c).zip(dy.par_chunks(PIXELS * c)).with_min_len(bands_at_once(c));
    let bands: Vec<Vec<f32>> = bands
        .map(|(x, dy)| {
            let mut sums = vec![0.0; 2 * c];
            add_gradients(x, dy, means, &mut sums);
            sums
        })
        .collect();
    let total = |channel: usize| bands.iter().map(|sums| f64::from(sums[channel])).sum::<f64>();
    ((0..c).map(|i| total(i) * f64::from(scales[i])).collect(), (c..2 * c).map(total).collect())
}

vectorised! {
    /// The means of a band's channels, and after them their sums of squared distances.
    fn band_moments(x: &[f32], c: usize) -> Vec<f32> {
        let mut moments = vec![0.0; 2 * c];
        let (means, squares) = moments.split_at_mut(c);
        for x in x.chunks_exact(c) {
            for (mean, x) in means.iter_mut().zip(x) {
                *mean += x;
            }
        }
        let share = c as f32 / x.len() as f32;
        means.iter_mut().for_each(|mean| *mean *= share);
        for x in x.chunks_exact(c) {
            for ((square, mean), x) in squares.iter_mut().zip(means.iter()).zip(x) {
                *square = fma::<FMA>(x - mean, x - mean, *square);
            }
        }
        moments
    }
}

vectorised! {
    fn normalise(x: &[f32], means: &[f32], factors: &[f32], bias: &[f32], y: &mut [f32]) {
        let c = means.len();
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            for i in 0..c {
                y[i] = fma::<FMA>(x[i] - means[i], factors[i], bias[i]);
            }
        }
    }
}

vectorised! {
    /// Adds a band's sums of the gradient times the centred x, and of the gradient, to the two halves of `sums`.
    fn add_gradients(x: &[f32], dy: &[f32], means: &[f32], sums: &mut [f32]) {
        let c = means.len();
        let (products, sums) = sums.split_at_mut(c);
        for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
            for i in 0..c {
                products[i] = fma::<FMA>(dy[i], x[i] - means[i], products[i]);
                sums[i] += dy[i];
            }
        }
    }
}

/// What the gradient of x needs, for every channel of a sample.
struct Affine<'a> {
    means: &'a [f32],
    scales: &'a [f32],
    w: &'a [f32],
    projections: &'a [f32],
    offsets: &'a [f32],
}

vectorised! {
    fn input_gradient(x: &[f32], dy: &[f32], affine: &Affine, dx: &mut [f32]) {
        let Affine { means, scales, w, projections, offsets } = affine;
        let c = means.len();
        for ((x, dy), dx) in x.chunks_exact(c).zip(dy.chunks_exact(c)).zip(dx.chunks_exact_mut(c)) {
            for i in 0..c {
                let unit = (x[i] - means[i]) * scales[i];
                dx[i] = scales[i] * (fma::<FMA>(dy[i], w[i], -offsets[i]) - unit * projections[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    type Norm = fn(Tensor<4>, Tensor<1>, Tensor<1>, usize, f64) -> Tensor<4>;

    fn all(shape: [usize; 4], groups: usize, f: Norm) -> ([Tensor<4>; 2], [Tensor<1>; 2]) {
        let c = shape[3];
        let x = tracked(strided(shape, 1) * 3.0 + 5.0);
        let (w, b) = (tracked(random([c], 2)), tracked(random([c], 3)));
        let y = f(x.clone(), w.clone(), b.clone(), groups, 1e-5);
        let grads = (y.clone() * Tensor::from_inner(random(shape, 4))).sum().backward();
        ([y.inner(), x.grad(&grads).unwrap()], [w, b].map(|p| p.grad(&grads).unwrap()))
    }

    #[test]
    fn matches_the_composition() {
        for (shape, groups) in
            [([1, 1, 2, 2], 1), ([2, 5, 7, 12], 4), ([1, 23, 19, 66], 33), ([3, 2, 3, 35], 35), ([1, 9, 15, 131], 1)]
        {
            let (ours, theirs) = (all(shape, groups, group_norm), all(shape, groups, reference));
            ours.0.into_iter().zip(theirs.0).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
            ours.1.into_iter().zip(theirs.1).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let run = || {
            let (maps, affine) = all([2, 40, 30, 24], 3, group_norm);
            (maps.map(Tensor::into_data), affine.map(Tensor::into_data))
        };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
        assert!(on(1) == on(3));
    }

    #[test]
    fn a_large_mean_does_not_hurt() {
        let (x, w, b) = (random([1, 9, 9, 16], 1), random([16], 2), random([16], 3));
        let plain = group_norm(x.clone(), w.clone(), b.clone(), 4, 1e-5);
        assert_close(group_norm(x + 100.0, w, b, 4, 1e-5), plain, 3e-5);
    }
}
