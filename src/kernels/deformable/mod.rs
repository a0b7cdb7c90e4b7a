//! Multi-scale deformable attention (Zhu et al., 2021, Deformable DETR): every query reads a few points of several
//! maps.
//!
//! The output and the gradients of locations and weights belong to a query each, and tasks are bands of queries. The
//! gradient of the values is scattered, and a task is all that one head scatters over one map: no two tasks meet, and
//! each sums in the order of the queries.

mod loops;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use self::loops::{Backward, Extent, Forward, Level, levels, value_gradient};
use crate::kernels::bilinear::corners;
use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, uninitialized, values, written};
use crate::kernels::measure;
use crate::kernels::vector::vectors;
#[cfg(feature = "gpu")]
use crate::kernels::{bridge::on_gpu, gpu};

/// The weighted sum of values at the points of each query: `value [b, n, heads, d]`, `locations [b, q, heads, levels,
/// points, 2]`, `weights [b, q, heads, levels, points]` to `[b, q, heads d]`.
///
/// `shapes` holds the rows and columns of each level; the n tokens are the levels' cells one level after the other, row
/// by row. Locations are x first, in units of the level's width and height: 0 and 1 are its edges, and between cells it
/// is `grid_sample(2 p - 1)`, bilinear with zeros outside. The weights are used as they are: their softmax, over levels
/// and points jointly, is the caller's. All three operands get a gradient.
pub fn deformable_attention(
    value: Tensor<4>,
    shapes: &[(usize, usize)],
    locations: Tensor<6>,
    weights: Tensor<5>,
) -> Tensor<3> {
    let [b, n, heads, d] = value.dims();
    let [_, q, _, _, points, _] = locations.dims();
    let cells: usize = shapes.iter().map(|(h, w)| h * w).sum();
    assert_eq!(n, cells, "deformable_attention: value and shapes do not fit");
    let expected = [b, q, heads, shapes.len(), points];
    assert_eq!(weights.dims(), expected, "deformable_attention: weights do not fit");
    assert_eq!(locations.dims()[..5], expected, "deformable_attention: locations and weights do not fit");
    assert_eq!(locations.dims()[5], 2, "deformable_attention: locations have an x and a y");
    measure::note(&[b, q, heads, d, shapes.len(), points]);
    if value.shape().num_elements() * weights.shape().num_elements() == 0 {
        return Tensor::zeros([b, q, heads * d], (&value.device(), value.dtype()));
    }
    #[cfg(feature = "gpu")]
    if on_gpu(&value) && on_gpu(&locations) && on_gpu(&weights) {
        let operands = Operands::Three(value.into_dispatch(), locations.into_dispatch(), weights.into_dispatch());
        return gpu::run(Deformable { levels: levels(shapes) }, operands);
    }
    if on_cpu(&value) && on_cpu(&locations) && on_cpu(&weights) {
        let operands = Operands::Three(value.into_dispatch(), locations.into_dispatch(), weights.into_dispatch());
        run(Deformable { levels: levels(shapes) }, operands)
    } else {
        reference(value, shapes, locations, weights)
    }
}

/// The composition of tensor operations that [`deformable_attention`] stands for.
pub(crate) fn reference(
    value: Tensor<4>,
    shapes: &[(usize, usize)],
    locations: Tensor<6>,
    weights: Tensor<5>,
) -> Tensor<3> {
    let [b, _, heads, d] = value.dims();
    let [_, q, _, _, points, _] = locations.dims();
    let (rows, samples) = (b * heads, q * points);
    let parts = levels(shapes).into_iter().enumerate().map(|(i, Level { start, h, w })| {
        let value = value.clone().narrow(1, start, h * w).swap_dims(1, 2).reshape([rows, h * w, d]);
        let at = locations.clone().narrow(3, i, 1).swap_dims(1, 2).reshape([rows, samples, 2]);
        let weights = weights.clone().narrow(3, i, 1).swap_dims(1, 2).reshape([rows, samples, 1]);
        let [a, b, c, e] = corners(at, (h, w)).map(|(cells, share)| {
            let cells = cells.unsqueeze_dim::<3>(2).expand([rows, samples, d]);
            value.clone().gather(1, cells) * (share.unsqueeze_dim::<3>(2) * weights.clone()) // [rows, samples, d]
        });
        (a + b + c + e).reshape([rows, q, points, d]).sum_dim(2) // [rows, q, 1, d]
    });
    let sum = parts.reduce(|sum, part| sum + part).unwrap_or_else(|| unreachable!("there are levels"));
    sum.reshape([b, heads, q, d]).swap_dims(1, 2).reshape([b, q, heads * d])
}

/// Queries a task works on.
const QUERIES: usize = 16;

#[derive(Debug)]
pub(super) struct Deformable {
    pub(super) levels: Vec<Level>,
}

impl Kernel for Deformable {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [value, locations, weights] = [0, 1, 2].map(|i| values(&inputs[i]));
        let extent = Extent::of(&self.levels, &inputs);
        let (width, samples) = (extent.heads * extent.d, extent.samples());
        let mut y = uninitialized(extent.b * extent.q * width);
        y.par_chunks_exact_mut(width).with_min_len(QUERIES).enumerate().for_each_init(Vec::new, |taps, (row, y)| {
            let (locations, weights) = (&locations[row * samples * 2..], &weights[row * samples..]);
            vectors(Forward { extent, value: extent.sample(value, row), locations, weights, taps, y });
        });
        // SAFETY: the chunks cover the output, and `Forward` writes all of its own.
        let y = tensor(unsafe { written(y) }, [extent.b, extent.q, width]);
        (y, if keep { inputs } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let extent = Extent::of(&self.levels, &saved);
        let [value, locations, weights] = [0, 1, 2].map(|i| values(&saved[i]));
        let dy = values(&grad);
        let dvalue = wanted[0].then(|| tensor(value_gradient(extent, locations, weights, dy), saved[0].shape()));
        if !wanted[1] && !wanted[2] {
            return vec![dvalue, None, None];
        }
        let samples = extent.samples();
        let (mut dlocations, mut dweights) = (vec![0.0; locations.len()], vec![0.0; weights.len()]);
        let tasks = dlocations.par_chunks_exact_mut(samples * 2).zip(dweights.par_chunks_exact_mut(samples));
        tasks.with_min_len(QUERIES).enumerate().for_each(|(row, (dlocations, dweights))| {
            let (locations, weights) = (&locations[row * samples * 2..], &weights[row * samples..]);
            let (value, dy) = (extent.sample(value, row), &dy[row * extent.heads * extent.d..]);
            vectors(Backward { extent, value, locations, weights, dy, dlocations, dweights });
        });
        vec![dvalue, Some(tensor(dlocations, saved[1].shape())), Some(tensor(dweights, saved[2].shape()))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    /// Output and gradients, as data.
    fn all(
        [b, q, heads, d, points]: [usize; 5],
        shapes: &[(usize, usize)],
        f: impl Fn(Tensor<4>, &[(usize, usize)], Tensor<6>, Tensor<5>) -> Tensor<3>,
    ) -> [Tensor<1>; 4] {
        let n = shapes.iter().map(|(h, w)| h * w).sum();
        let levels = shapes.len();
        let value = tracked(strided([b, n, heads, d], 1));
        // A good part of them lies outside.
        let locations = tracked(strided([b, q, heads, levels, points, 2], 2) * 0.4 + 0.5);
        let weights = tracked(strided([b, q, heads, levels, points], 3));
        let y = f(value.clone(), shapes, locations.clone(), weights.clone());
        let grads = (y.clone() * Tensor::from_inner(random([b, q, heads * d], 4))).sum().backward();
        let dlocations = locations.grad(&grads).unwrap().flatten(0, 5);
        let dweights = weights.grad(&grads).unwrap().flatten(0, 4);
        [y.inner().flatten(0, 2), value.grad(&grads).unwrap().flatten(0, 3), dlocations, dweights]
    }

    fn check(sizes: [usize; 5], shapes: &[(usize, usize)]) {
        let (ours, theirs) = (all(sizes, shapes, deformable_attention), all(sizes, shapes, reference));
        ours.into_iter().zip(theirs).for_each(|(ours, theirs)| assert_close(ours, theirs, 3e-6));
    }

    #[test]
    fn matches_the_composition() {
        check([1, 1, 1, 1, 1], &[(1, 1)]);
        check([2, 37, 3, 7, 4], &[(2, 3), (5, 4), (9, 7)]);
        check([1, 19, 2, 33, 2], &[(1, 6), (3, 1)]);
        check([3, 5, 1, 16, 3], &[(4, 4)]);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let run = || all([2, 70, 3, 9, 4], &[(3, 2), (6, 5)], deformable_attention).map(Tensor::into_data);
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
        assert!(on(1) == on(3));
    }

    #[test]
    fn constants_get_no_gradient() {
        let value = tracked(random([1, 4, 1, 2], 1));
        let (locations, weights) = (random([1, 3, 1, 1, 2, 2], 2), random([1, 3, 1, 1, 2], 3));
        let y = deformable_attention(value.clone(), &[(2, 2)], locations, weights);
        assert!(value.grad(&y.sum().backward()).is_some());
    }
}
