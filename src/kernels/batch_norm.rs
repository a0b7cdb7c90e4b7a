//! Batch normalisation of channels-last maps.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, TensorData, activation};

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::moments::{Affine, channel_moments};

/// Normalises each channel of `x [b, h, w, c]` over all pixels of the batch:
/// `(x - mean) / sqrt(variance + eps) * weight + bias`, with the biased variance; `weight [c]`, `bias [c]`. With
/// `relu`, what is negative becomes zero. Also gives the mean and the biased variance, `[c]`, without a gradient.
pub fn batch_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
    relu: bool,
) -> (Tensor<4>, [Tensor<1>; 2]) {
    let [_, _, _, c] = x.dims();
    assert_eq!((weight.dims(), bias.dims()), ([c], [c]), "batch_norm: x, weight, bias differ in length");
    let device = x.device();
    let plain = if device.is_autodiff() { x.clone().inner() } else { x.clone() };
    if x.shape().num_elements() == 0 || !(on_cpu(&x) && on_cpu(&weight) && on_cpu(&bias)) {
        let moments = reference_moments(plain).map(|moment| match device.is_autodiff() {
            true => Tensor::from_inner(moment),
            false => moment,
        });
        let y = reference(x.clone(), weight, bias, reference_moments(x), eps, relu);
        return (y, moments);
    }
    let moments: Tensor<1> = run(Moments, Operands::One(plain.into_dispatch()));
    let moments = moments.into_data().try_to_vec::<f32>().unwrap_or_else(|error| panic!("moments are f32: {error}"));
    let (means, variances) = moments.split_at(c);
    let given = [means, variances].map(|moment| Tensor::from_data(TensorData::new(moment.to_vec(), [c]), &device));
    let kernel = BatchNorm { moments: Some(moments.clone()), eps, relu };
    (run(kernel, Operands::Three(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch())), given)
}

/// The same with a mean and a variance that are given, `[c]` each.
pub fn batch_norm_with(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    moments: [Tensor<1>; 2],
    eps: f64,
    relu: bool,
) -> Tensor<4> {
    let [_, _, _, c] = x.dims();
    let vectors = [&weight, &bias, &moments[0], &moments[1]];
    assert!(vectors.iter().all(|vector| vector.dims() == [c]), "batch_norm: x, weight, bias, moments differ in length");
    if x.shape().num_elements() == 0 || !on_cpu(&x) || !vectors.into_iter().all(on_cpu) {
        return reference(x, weight, bias, moments, eps, relu);
    }
    let [mean, variance] = moments.map(Tensor::into_dispatch);
    let operands = Operands::Five(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), mean, variance);
    run(BatchNorm { moments: None, eps, relu }, operands)
}

/// The composition of tensor operations that [`batch_norm_with`] stands for.
pub(crate) fn reference(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    moments: [Tensor<1>; 2],
    eps: f64,
    relu: bool,
) -> Tensor<4> {
    let [mean, variance] = moments;
    let scale = weight / (variance + eps).sqrt();
    let y = (x - mean.unsqueeze()) * scale.unsqueeze() + bias.unsqueeze();
    if relu { activation::relu(y) } else { y }
}

/// The mean and the biased variance of each channel.
pub(crate) fn reference_moments(x: Tensor<4>) -> [Tensor<1>; 2] {
    let [b, h, w, c] = x.dims();
    let rows = x.reshape([b * h * w, c]);
    let mean = rows.clone().mean_dim(0); // [1, c]
    let variance = (rows - mean.clone()).powi_scalar(2).mean_dim(0);
    [mean, variance].map(|moment| moment.squeeze_dim(0))
}

/// The means of all channels, and after them their variances.
#[derive(Debug)]
struct Moments;

impl Kernel for Moments {
    fn forward(&self, inputs: Vec<FlexTensor>, _: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (x, c) = (values(&inputs[0]), inputs[0].shape()[3]);
        let [means, squares] = channel_moments(x, c);
        let pixels = (x.len() / c) as f64;
        let moments = means.into_iter().chain(squares.into_iter().map(|squares| squares / pixels));
        (tensor(moments.map(|moment| moment as f32).collect(), [2 * c]), Vec::new())
    }

    fn backward(&self, _: Vec<FlexTensor>, _: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        // They are taken of a tensor without a graph.
        vec![None]
    }
}

/// Operands: x, weight, bias, and the moments where these are not the batch's own.
#[derive(Debug)]
struct BatchNorm {
    /// Means and variances of the batch, whose gradient is part of that of x.
    moments: Option<Vec<f32>>,
    eps: f64,
    relu: bool,
}

impl BatchNorm {
    /// Means and reciprocal standard deviations.
    fn moments(&self, inputs: &[FlexTensor]) -> [Vec<f32>; 2] {
        let (means, variances) = match &self.moments {
            Some(moments) => moments.split_at(moments.len() / 2),
            None => (values(&inputs[3]), values(&inputs[4])),
        };
        let scale = |variance: &f32| (1.0 / (f64::from(*variance) + self.eps).sqrt()) as f32;
        [means.to_vec(), variances.iter().map(scale).collect()]
    }
}

impl Kernel for BatchNorm {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, weight, bias] = [0, 1, 2].map(|i| values(&inputs[i]));
        let [means, scales] = self.moments(&inputs);
        let mut y = uninitialized(x.len());
        Affine { means: &means, scales: &scales, weight, bias, relu: self.relu }.normalize(x, &mut y);
        // SAFETY: all of it has been normalised.
        let y = tensor(unsafe { written(y) }, inputs[0].shape());
        (y, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let [x, weight, bias] = [0, 1, 2].map(|i| values(&saved[i]));
        let [means, scales] = self.moments(&saved);
        let (dy, c) = (values(&grad), means.len());
        let affine = Affine { means: &means, scales: &scales, weight, bias, relu: self.relu };
        let needs_sums = self.moments.is_some() || wanted[1..].contains(&true);
        let [products, sums] = if needs_sums { affine.gradient_sums(x, dy) } else { [vec![0.0; c], vec![0.0; c]] };
        let dx = wanted[0].then(|| {
            let share = if self.moments.is_some() { c as f64 / x.len() as f64 } else { 0.0 };
            let mean = |sums: &[f64]| -> Vec<f32> {
                sums.iter().zip(weight).map(|(sum, w)| (sum * f64::from(*w) * share) as f32).collect()
            };
            let mut dx = uninitialized(x.len());
            affine.input_gradient(x, dy, [&mean(&products), &mean(&sums)], &mut dx);
            // SAFETY: all of it has been written.
            tensor(unsafe { written(dx) }, saved[0].shape())
        });
        let vector = |of: &dyn Fn(usize) -> f64| Some(tensor((0..c).map(|i| of(i) as f32).collect(), [c]));
        let mut grads = vec![dx, vector(&|i| products[i]), vector(&|i| sums[i])];
        if self.moments.is_none() {
            let factor = |i: usize| f64::from(weight[i]) * f64::from(scales[i]);
            grads.push(vector(&|i| -factor(i) * sums[i]));
            grads.push(vector(&|i| -0.5 * factor(i) * f64::from(scales[i]) * products[i]));
        }
        grads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    const EPS: f64 = 1e-5;

    fn of_batch(x: Tensor<4>, w: Tensor<1>, b: Tensor<1>, relu: bool, ours: bool) -> Tensor<4> {
        if ours {
            batch_norm(x, w, b, EPS, relu).0
        } else {
            reference(x.clone(), w, b, reference_moments(x), EPS, relu)
        }
    }

    fn all(shape: [usize; 4], relu: bool, ours: bool) -> ([Tensor<4>; 2], [Tensor<1>; 2]) {
        let c = shape[3];
        let x = tracked(strided(shape, 1) * 3.0 + 5.0);
        let (w, b) = (tracked(random([c], 2)), tracked(random([c], 3)));
        let y = of_batch(x.clone(), w.clone(), b.clone(), relu, ours);
        let grads = (y.clone() * Tensor::from_inner(random(shape, 4))).sum().backward();
        ([y.inner(), x.grad(&grads).unwrap()], [w, b].map(|p| p.grad(&grads).unwrap()))
    }

    #[test]
    fn matches_the_composition() {
        for (shape, relu) in [
            ([2, 1, 1, 3], false),
            ([2, 5, 7, 12], true),
            ([1, 23, 19, 66], false),
            ([3, 40, 30, 35], true),
            ([2, 64, 41, 16], true),
        ] {
            let (ours, theirs) = (all(shape, relu, true), all(shape, relu, false));
            ours.0.into_iter().zip(theirs.0).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
            ours.1.into_iter().zip(theirs.1).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
        }
    }

    #[test]
    fn gives_the_moments_of_the_batch() {
        let x = tracked(strided([3, 21, 17, 19], 1) * 2.0 + 50.0);
        let (_, moments) = batch_norm(x.clone(), random([19], 2), random([19], 3), EPS, false);
        for (ours, theirs) in moments.into_iter().zip(reference_moments(x.inner())) {
            let ours = if ours.device().is_autodiff() { ours.inner() } else { ours };
            assert_close(ours, theirs, 1e-5);
        }
    }

    #[test]
    fn given_moments_match_the_composition_also_in_their_gradient() {
        for relu in [false, true] {
            let run = |ours: bool| {
                let x = tracked(strided([2, 9, 11, 21], 1));
                let vectors = [2, 3, 4, 5].map(|seed| random([21], seed));
                let [w, b, mean, variance] = vectors.map(tracked);
                let variance = variance.inner().powi_scalar(2);
                let variance = tracked(variance + 0.5);
                let f = if ours { batch_norm_with } else { reference };
                let y = f(x.clone(), w.clone(), b.clone(), [mean.clone(), variance.clone()], EPS, relu);
                let grads = (y.clone() * Tensor::from_inner(random([2, 9, 11, 21], 6))).sum().backward();
                let vectors = [w, b, mean, variance].map(|vector| vector.grad(&grads).unwrap());
                ([y.inner(), x.grad(&grads).unwrap()], vectors)
            };
            let (ours, theirs) = (run(true), run(false));
            ours.0.into_iter().zip(theirs.0).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
            ours.1.into_iter().zip(theirs.1).for_each(|(ours, theirs)| assert_close(ours, theirs, 1e-5));
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let run = || {
            let (maps, affine) = all([2, 80, 70, 24], true, true);
            (maps.map(Tensor::into_data), affine.map(Tensor::into_data))
        };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
        assert!(on(1) == on(3));
    }
}
