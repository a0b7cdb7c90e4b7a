//! Group normalisation of channels-last maps.
//!
//! A group's moments are those of its channels put together, and on the way back the sums a group needs are those of
//! its channels' gradients of weight and bias.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::moments::{Affine, channel_moments};

/// Group normalisation (Wu and He, 2018): `(x - mean) / sqrt(variance + eps) * weight + bias` for `x [b, h, w, c]`,
/// with the mean and the biased variance of each sample's pixels in each of `groups` groups of neighbouring channels;
/// `weight [c]`, `bias [c]`.
pub fn group_norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64) -> Tensor<4> {
    norm(x, weight, bias, groups, eps, false)
}

/// ReLU of [`group_norm`].
pub fn group_norm_relu(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64) -> Tensor<4> {
    norm(x, weight, bias, groups, eps, true)
}

fn norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64, relu: bool) -> Tensor<4> {
    let [_, _, _, c] = x.dims();
    assert_eq!((weight.dims(), bias.dims()), ([c], [c]), "group_norm: x, weight, bias differ in length");
    assert!(groups > 0 && c.is_multiple_of(groups), "group_norm: {c} channels in {groups} groups");
    if x.shape().num_elements() > 0 && on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias) {
        let operands = Operands::Three(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        return run(GroupNorm { groups, eps, relu }, operands);
    }
    let y = reference(x, weight, bias, groups, eps);
    if relu { activation::relu(y) } else { y }
}

/// The composition of tensor operations that [`group_norm`] stands for.
pub(crate) fn reference(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>, groups: usize, eps: f64) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let x = x.reshape([b, h * w, groups, c / groups]);
    let mean = |x: Tensor<4>| x.mean_dim(3).mean_dim(1); // [b, 1, groups, 1]
    let centered = x.clone() - mean(x);
    let variance = mean(centered.clone().powi_scalar(2));
    let unit = (centered / (variance + eps).sqrt()).reshape([b, h, w, c]);
    unit * weight.unsqueeze() + bias.unsqueeze()
}

#[derive(Debug)]
struct GroupNorm {
    groups: usize,
    eps: f64,
    relu: bool,
}

impl Kernel for GroupNorm {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, weight, bias) = (values(&inputs[0]), values(&inputs[1]), values(&inputs[2]));
        let shape = inputs[0].shape();
        let (samples, c) = (shape[0], shape[3]);
        let mut y = uninitialized(x.len());
        let mut moments = Vec::with_capacity(samples * 2 * c);
        for (y, x) in y.chunks_exact_mut(x.len() / samples).zip(x.chunks_exact(x.len() / samples)) {
            let [means, scales] = self.moments(x, c);
            Affine { means: &means, scales: &scales, weight, bias, relu: self.relu }.normalize(x, y);
            moments.extend(means.into_iter().chain(scales));
        }
        // SAFETY: the samples are all of it.
        let y = tensor(unsafe { written(y) }, shape);
        let mut saved = inputs;
        saved.push(tensor(moments, [samples, 2, c]));
        (y, if keep { saved } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let [x, weight, bias, moments] = [0, 1, 2, 3].map(|i| values(&saved[i]));
        let (dy, shape) = (values(&grad), grad.shape());
        let (samples, pixels, c) = (shape[0], shape[1] * shape[2], shape[3]);
        let size = c / self.groups;
        let mut dx = uninitialized(if wanted[0] { x.len() } else { 0 });
        let (mut dw, mut db) = (vec![0.0f64; c], vec![0.0f64; c]);
        for sample in 0..samples {
            let all = sample * pixels * c..(sample + 1) * pixels * c;
            let (x, dy) = (&x[all.clone()], &dy[all.clone()]);
            let (means, scales) = moments[2 * sample * c..][..2 * c].split_at(c);
            let affine = Affine { means, scales, weight, bias, relu: self.relu };
            let [products, sums] = affine.gradient_sums(x, dy);
            dw.iter_mut().zip(&products).for_each(|(total, sum)| *total += sum);
            db.iter_mut().zip(&sums).for_each(|(total, sum)| *total += sum);
            if !wanted[0] {
                continue;
            }
            // In the channel's group, spread over its channels.
            let group_means = |sums: &[f64]| -> Vec<f32> {
                let weighted: Vec<f64> = sums.iter().zip(weight).map(|(sum, w)| sum * f64::from(*w)).collect();
                let mean = |group: &[f64]| (group.iter().sum::<f64>() / (size * pixels) as f64) as f32;
                weighted.chunks_exact(size).flat_map(|group| vec![mean(group); size]).collect()
            };
            affine.input_gradient(x, dy, [&group_means(&products), &group_means(&sums)], &mut dx[all]);
        }
        let rounded = |sums: Vec<f64>| tensor(sums.into_iter().map(|sum| sum as f32).collect(), [c]);
        // SAFETY: the samples are all of it.
        let dx = wanted[0].then(|| tensor(unsafe { written(dx) }, shape));
        vec![dx, Some(rounded(dw)), Some(rounded(db))]
    }
}

impl GroupNorm {
    /// Mean and reciprocal standard deviation of a sample's groups, spread over their channels.
    fn moments(&self, x: &[f32], c: usize) -> [Vec<f32>; 2] {
        let (size, pixels) = (c / self.groups, (x.len() / c) as f64);
        let [means, squares] = channel_moments(x, c);
        let groups = means.chunks_exact(size).zip(squares.chunks_exact(size)).map(|(means, squares)| {
            let mean = means.iter().sum::<f64>() / size as f64;
            let apart: f64 = means.iter().map(|channel| (channel - mean).powi(2)).sum();
            let variance = (squares.iter().sum::<f64>() + pixels * apart) / (pixels * size as f64);
            (mean as f32, (1.0 / (variance + self.eps).sqrt()) as f32)
        });
        let (means, scales): (Vec<f32>, Vec<f32>) = groups.flat_map(|group| vec![group; size]).unzip();
        [means, scales]
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
    fn relu_matches_the_composition() {
        let shape = [2, 9, 7, 24];
        let ours = all(shape, 3, group_norm_relu);
        let theirs = all(shape, 3, |x, w, b, groups, eps| activation::relu(reference(x, w, b, groups, eps)));
        ours.0.into_iter().zip(theirs.0).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
        ours.1.into_iter().zip(theirs.1).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
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
