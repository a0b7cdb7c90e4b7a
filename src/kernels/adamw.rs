//! One step of AdamW in one pass over the memory.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::kernels::bridge::{on_cpu, on_gpu, values};
#[cfg(feature = "gpu")]
use crate::kernels::gpu;
use crate::kernels::simd::vectorized;

/// The numbers of an AdamW step (Loshchilov & Hutter, 2019), as in `torch.optim.AdamW`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the root of that mean.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// One AdamW step; `step` counts from 1. Takes and returns the parameter and the running means of its gradient and of
/// the gradient's square. On the CPU, tensors that nobody else holds are changed in place.
pub fn adamw_step<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    mean: Tensor<D>,
    square: Tensor<D>,
    step: u64,
    hyper: &AdamW,
) -> [Tensor<D>; 3] {
    let dims = param.dims();
    assert!([&grad, &mean, &square].iter().all(|x| x.dims() == dims), "adamw_step: tensors differ in shape");
    let [param, grad, mean, square] = [param, grad, mean, square].map(Tensor::inner);
    if ![&param, &grad, &mean, &square].iter().all(|x| on_cpu(x)) {
        return reference(param, grad, mean, square, step, hyper);
    }
    let primitive = |x: Tensor<D>| match x.try_into_primitive::<Flex>() {
        Ok(x) => x,
        Err(error) => unreachable!("the tensor is on the CPU: {error:?}"),
    };
    let [mut param, mut mean, mut square] = [param, mean, square].map(|x| whole(primitive(x)));
    let grad = whole(primitive(grad));
    let factors = Factors::new(step, hyper);
    let tasks = param.storage_mut::<f32>().par_chunks_mut(CHUNK).zip(values(&grad).par_chunks(CHUNK));
    let tasks = tasks.zip(mean.storage_mut::<f32>().par_chunks_mut(CHUNK));
    let tasks = tasks.zip(square.storage_mut::<f32>().par_chunks_mut(CHUNK));
    tasks.for_each(|(((param, grad), mean), square)| update(param, grad, mean, square, factors));
    [param, mean, square].map(Tensor::from_primitive::<Flex>)
}

/// [`adamw_step`] of many parameters, each `[parameter, gradient, mean, mean square]` with numbers of its own. Where
/// [`adamw_together`] holds for all, it is one operation.
pub(crate) fn adamw_steps(tensors: Vec<[Tensor<1>; 4]>, step: u64, hypers: &[AdamW]) -> Vec<[Tensor<1>; 3]> {
    assert_eq!(tensors.len(), hypers.len(), "adamw_steps: numbers for each parameter");
    #[cfg(feature = "gpu")]
    if tensors.iter().flatten().all(adamw_together) {
        let factors: Vec<Factors> = hypers.iter().map(|hyper| Factors::new(step, hyper)).collect();
        return gpu::adamw(tensors, &factors);
    }
    let each = tensors.into_iter().zip(hypers);
    each.map(|([param, grad, mean, square], hyper)| adamw_step(param, grad, mean, square, step, hyper)).collect()
}

/// Whether steps of many parameters are faster together than each for itself, so that their tensors should be collected
/// first. On the CPU they are not: there each is changed in place.
pub(crate) fn adamw_together(x: &Tensor<1>) -> bool {
    on_gpu(x) && x.dims()[0] > 0
}

/// The composition of tensor operations that [`adamw_step`] stands for.
pub(crate) fn reference<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    mean: Tensor<D>,
    square: Tensor<D>,
    step: u64,
    hyper: &AdamW,
) -> [Tensor<D>; 3] {
    let f = Factors::new(step, hyper);
    let mean = mean.clone() + (grad.clone() - mean) * f.take;
    let square = square * f.keep_square + grad.clone() * grad * f.take_square;
    let scale = square.clone().sqrt() * f.root + f.eps;
    [param * f.decay - mean.clone() / scale * f.size, mean, square]
}

/// Elements a task works on.
const CHUNK: usize = 1 << 14;

#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub(super) decay: f32,
    pub(super) take: f32,
    pub(super) keep_square: f32,
    pub(super) take_square: f32,
    /// The reciprocal root of the second bias correction.
    pub(super) root: f32,
    pub(super) eps: f32,
    pub(super) size: f32,
}

impl Factors {
    fn new(step: u64, hyper: &AdamW) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        Self {
            decay: (1.0 - hyper.lr * hyper.weight_decay) as f32,
            take: (1.0 - hyper.beta1) as f32,
            keep_square: hyper.beta2 as f32,
            take_square: (1.0 - hyper.beta2) as f32,
            root: (1.0 / correction(hyper.beta2).sqrt()) as f32,
            eps: hyper.eps as f32,
            size: (hyper.lr / correction(hyper.beta1)) as f32,
        }
    }
}

/// The tensor over a buffer that holds its values and nothing else, in order.
fn whole(x: FlexTensor) -> FlexTensor {
    let elements = x.shape().num_elements();
    let is_whole = x.layout().contiguous_offsets() == Some((0, elements)) && x.storage::<f32>().len() == elements;
    if is_whole { x } else { x.to_contiguous() }
}

vectorized! {
    fn update(param: &mut [f32], grad: &[f32], mean: &mut [f32], square: &mut [f32], f: Factors) {
        for (((param, grad), mean), square) in param.iter_mut().zip(grad).zip(mean).zip(square) {
            *mean += f.take * (grad - *mean);
            *square = f.keep_square * *square + f.take_square * grad * grad;
            *param = f.decay * *param - f.size * *mean / (square.sqrt() * f.root + f.eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided};

    const HYPER: AdamW = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };

    #[test]
    fn matches_f64() {
        let start = random([1037], 1);
        let mut state = [start.clone(), start.zeros_like(), start.zeros_like()];
        let mut truth: Vec<[f64; 3]> =
            start.into_data().iter::<f32>().map(|value| [f64::from(value), 0.0, 0.0]).collect();
        for step in 1..=5 {
            let grad = random([1037], 10 + step);
            let [p, m, v] = state;
            state = adamw_step(p, grad.clone(), m, v, step, &HYPER);
            let power = step as i32;
            for ([p, m, v], g) in truth.iter_mut().zip(grad.into_data().iter::<f32>()) {
                let g = f64::from(g);
                *p *= 1.0 - HYPER.lr * HYPER.weight_decay;
                *m = HYPER.beta1 * *m + (1.0 - HYPER.beta1) * g;
                *v = HYPER.beta2 * *v + (1.0 - HYPER.beta2) * g * g;
                let (c1, c2) = (1.0 - HYPER.beta1.powi(power), 1.0 - HYPER.beta2.powi(power));
                *p -= HYPER.lr / c1 * *m / (v.sqrt() / c2.sqrt() + HYPER.eps);
            }
        }
        for (i, x) in state.into_iter().enumerate() {
            for (x, truth) in x.into_data().iter::<f32>().zip(&truth) {
                assert!((f64::from(x) - truth[i]).abs() < 1e-6, "{i}: {x} against {}", truth[i]);
            }
        }
    }

    #[test]
    fn many_steps_are_each_its_own() {
        let tensors = |i: u64| [1, 2, 3, 4].map(|seed| random([7 + i as usize], seed + 4 * i).abs());
        let hypers = [HYPER, AdamW { lr: 3e-3, weight_decay: 0.0, ..HYPER }];
        let together = adamw_steps(vec![tensors(0), tensors(1)], 2, &hypers);
        for (i, together) in (0..).zip(together) {
            let [p, g, m, v] = tensors(i);
            let alone = adamw_step(p, g, m, v, 2, &hypers[i as usize]);
            assert!(together.into_iter().zip(alone).all(|(a, b)| a.into_data() == b.into_data()), "{i}");
        }
    }

    #[test]
    fn strided_and_shared_tensors_are_left_alone() {
        let inputs = [1, 2, 3].map(|seed| strided([5, 7, 9], seed).abs());
        let grad = strided([5, 7, 9], 4);
        let [p, m, v] = inputs.clone();
        let before = p.clone().into_data();
        let expected = reference(p.clone(), grad.clone(), m.clone(), v.clone(), 3, &HYPER);
        let ours = adamw_step(p.clone(), grad, m, v, 3, &HYPER);
        for (ours, expected) in ours.into_iter().zip(expected) {
            assert_close(ours, expected, 1e-6);
        }
        assert!(p.into_data() == before);
    }
}
