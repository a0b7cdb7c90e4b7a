//! Every mask against every target, which is what predictions are matched by.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::mask_loss::CHUNK;
use crate::kernels::mask_loss::point::{ALPHA, Point, PointLoss};
use crate::kernels::matmul::{Precision, Product, Threads, View};
use crate::kernels::vector::{self, load, put, starts, vectors, within};

/// What each of q masks would lose against each of t targets: logits `[q, p]` and labels `[t, p]` to `[2, q, t]`, the
/// means over points and the dice losses. Focal loss is for labels of 0 and 1. There are no gradients.
pub fn pairwise_mask_losses(logits: Tensor<2>, labels: Tensor<2>, loss: PointLoss) -> Tensor<3> {
    let ([q, p], [t, points]) = (logits.dims(), labels.dims());
    assert_eq!(p, points, "pairwise_mask_losses: masks and targets at the same points");
    if q * t * p == 0 {
        return Tensor::zeros([2, q, t], &logits.device());
    }
    if !(on_cpu(&logits) && on_cpu(&labels)) {
        return reference(logits, labels, loss);
    }
    run(Pairs { loss }, Operands::Two(logits.into_dispatch(), labels.into_dispatch()))
}

/// The composition of tensor operations that [`pairwise_mask_losses`] stands for.
pub(crate) fn reference(logits: Tensor<2>, labels: Tensor<2>, loss: PointLoss) -> Tensor<3> {
    let p = logits.dims()[1] as f64;
    let one_minus = |x: Tensor<2>| x.neg().add_scalar(1.0);
    let softplus = |x: Tensor<2>| -log_sigmoid(-x);
    let probabilities = sigmoid(logits.clone());
    let (mut inside, mut outside) = (softplus(-logits.clone()), softplus(logits));
    if loss == PointLoss::Focal {
        inside = inside * one_minus(probabilities.clone()).powi_scalar(2) * ALPHA;
        outside = outside * probabilities.clone().powi_scalar(2) * (1.0 - ALPHA);
    }
    let targets = labels.clone().transpose(); // [p, t]
    let each = (inside.matmul(targets.clone()) + outside.matmul(one_minus(targets.clone()))) / p; // [q, t]
    let both = probabilities.clone().matmul(targets) * 2.0 + 1.0;
    let either = probabilities.sum_dim(1) + labels.sum_dim(1).transpose() + 1.0; // [q, 1] and [1, t]
    Tensor::stack(vec![each, one_minus(both / either)], 0)
}

#[derive(Debug)]
struct Pairs {
    loss: PointLoss,
}

impl Kernel for Pairs {
    fn forward(&self, inputs: Vec<FlexTensor>, _: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [logits, labels] = [&inputs[0], &inputs[1]];
        let (q, t, p) = (logits.shape()[0], labels.shape()[0], logits.shape()[1]);
        // What a point within the target costs more than one outside of it, and the probabilities: [q, p] each.
        let (mut more, mut probabilities) = (vec![0.0; q * p], vec![0.0; q * p]);
        let rows = more.par_chunks_exact_mut(p).zip(probabilities.par_chunks_exact_mut(p));
        let outside: Vec<[f64; 2]> = rows
            .zip(values(logits).par_chunks_exact(p))
            .map(|((more, probabilities), x)| {
                let chunks = x.chunks(CHUNK).zip(more.chunks_mut(CHUNK)).zip(probabilities.chunks_mut(CHUNK));
                chunks.fold([0.0; 2], |[all, sum], ((x, more), probabilities)| {
                    let [outside, p] = vectors(Ends { loss: self.loss, x, more, probabilities });
                    [all + f64::from(outside), sum + f64::from(p)]
                })
            })
            .collect();
        let sizes: Vec<f64> = values(labels).par_chunks_exact(p).map(sum).collect();
        let targets = View::new(values(labels), t, p, p).t();
        let product = |rows: &[f32]| {
            let mut out = uninitialized(q * t);
            Product::new(View::new(rows, q, p, p), targets).precision(Precision::F32).write(&mut out, Threads::All);
            // SAFETY: the product covers it.
            unsafe { written(out) }
        };
        let (within, both) = (product(&more), product(&probabilities));
        let pair = |i: usize| (outside[i / t], sizes[i % t]);
        let means =
            within.iter().enumerate().map(|(i, within)| ((pair(i).0[0] + f64::from(*within)) / p as f64) as f32);
        let dice = both.iter().enumerate().map(|(i, both)| {
            let ([_, probabilities], size) = pair(i);
            (1.0 - (2.0 * f64::from(*both) + 1.0) / (probabilities + size + 1.0)) as f32
        });
        (tensor(means.chain(dice).collect(), [2, q, t]), Vec::new())
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        unreachable!("pairwise losses have no gradient: {saved:?}, {grad:?}")
    }
}

fn sum(row: &[f32]) -> f64 {
    row.chunks(CHUNK).map(|chunk| f64::from(chunk.iter().sum::<f32>())).sum()
}

/// For a row of logits the losses within a target less those outside, and the probabilities; the sums of the losses
/// outside and of the probabilities.
struct Ends<'a> {
    loss: PointLoss,
    x: &'a [f32],
    more: &'a mut [f32],
    probabilities: &'a mut [f32],
}

impl WithSimd for Ends<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; 2] {
        let Self { loss, x, more, probabilities } = self;
        let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
        let mut sums = [zero; 2];
        for at in starts(simd, x.len()) {
            let logits = load(simd, x, at);
            let (inside, outside) = (Point::new(simd, loss, logits, one), Point::new(simd, loss, logits, zero));
            put(simd, more, at, simd.sub_f32s(inside.loss, outside.loss));
            put(simd, probabilities, at, outside.p);
            for (sum, part) in sums.iter_mut().zip([outside.loss, outside.p]) {
                *sum = simd.add_f32s(*sum, within(simd, x.len(), at, part));
            }
        }
        sums.map(|sum| vector::sum(simd, sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::mask_loss::mask_losses;
    use burn::tensor::Device;

    use crate::kernels::tests::{assert_close, strided};

    #[test]
    fn pairs_match_the_composition_and_single_masks() {
        for (q, t, p) in [(1, 1, 1), (5, 3, 17), (20, 7, 5000)] {
            for loss in [PointLoss::CrossEntropy, PointLoss::Focal] {
                let (x, y) = (strided([q, p], 1) * 4.0, strided([t, p], 2).greater_elem(0.3).float());
                let pairs = pairwise_mask_losses(x.clone(), y.clone(), loss);
                assert_close(pairs.clone(), reference(x.clone(), y.clone(), loss), 1e-6);
                for target in 0..t {
                    let labels = y.clone().narrow(0, target, 1).expand([q, p]);
                    let single = mask_losses(x.clone(), labels, loss).transpose(); // [2, q]
                    assert_close(pairs.clone().narrow(2, target, 1).reshape([2, q]), single, 1e-6);
                }
            }
        }
    }

    #[test]
    fn no_targets_have_no_pairs() {
        let none = Tensor::<2>::zeros([0, 6], &Device::flex());
        assert_eq!(pairwise_mask_losses(none.clone(), none, PointLoss::Focal).dims(), [2, 0, 0]);
    }
}
