//! Values of masks at given points between their cells, as the losses of Mask2Former read them.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::kernels::bilinear::{Corners, corners};
use crate::kernels::bridge::{Kernel, Operands, on_cpu, run, tensor, values};
use crate::kernels::simd::vectorized;

/// The values `[r, p]` of `planes [r, h, w]` at `points [r, p, 2]`, or `[1, p, 2]` for the same points in all planes.
///
/// Points are x first, in units of the plane's width and height: 0 and 1 are its edges. It is PointRend's
/// `point_sample` (Kirillov et al., 2020), `grid_sample(2 p - 1)`: bilinear, zero padding, corners not aligned, so a
/// value fades to 0 over the half cell before the edge. Points are constants: only `planes` gets a gradient.
pub fn point_sample(planes: Tensor<3>, points: Tensor<3>) -> Tensor<2> {
    let [r, h, w] = planes.dims();
    let [sets, p, coordinates] = points.dims();
    assert_eq!(coordinates, 2, "point_sample: points have an x and a y");
    assert!(sets == r || sets == 1, "point_sample: {sets} sets of points for {r} planes");
    let points = points.detach();
    if r * h * w * p == 0 {
        return Tensor::zeros([r, p], (&planes.device(), planes.dtype()));
    }
    if on_cpu(&planes) && on_cpu(&points) {
        run(PointSample { h, w }, Operands::Two(planes.into_dispatch(), points.into_dispatch()))
    } else {
        reference(planes, points)
    }
}

/// The composition of tensor operations that [`point_sample`] stands for.
pub(crate) fn reference(planes: Tensor<3>, points: Tensor<3>) -> Tensor<2> {
    let [r, h, w] = planes.dims();
    let p = points.dims()[1];
    let planes = planes.reshape([r, h * w]);
    let parts = corners(points.detach(), (h, w)).map(|(cells, weights)| {
        planes.clone().gather(1, cells.expand([r, p])) * weights // [r, p]
    });
    let [a, b, c, d] = parts;
    a + b + c + d
}

#[derive(Debug)]
struct PointSample {
    h: usize,
    w: usize,
}

impl PointSample {
    /// The points of a plane.
    fn points<'a>(&self, points: &'a FlexTensor, plane: usize) -> &'a [f32] {
        let (sets, len) = (points.shape()[0], points.shape()[1] * 2);
        &values(points)[plane % sets * len..][..len]
    }
}

impl Kernel for PointSample {
    fn forward(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [planes, points] = [&inputs[0], &inputs[1]];
        let (r, p) = (planes.shape()[0], points.shape()[1]);
        let mut y = vec![0.0; r * p];
        let tasks = y.par_chunks_exact_mut(p).zip(values(planes).par_chunks_exact(self.h * self.w));
        tasks.enumerate().for_each(|(i, (y, plane))| gather(plane, self.points(points, i), self.h, self.w, y));
        let saved = if keep { vec![points.clone()] } else { Vec::new() };
        (tensor(y, [r, p]), saved)
    }

    fn backward(&self, saved: Vec<FlexTensor>, grad: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let (r, p) = (grad.shape()[0], grad.shape()[1]);
        let mut dx = vec![0.0; r * self.h * self.w];
        let tasks = dx.par_chunks_exact_mut(self.h * self.w).zip(values(&grad).par_chunks_exact(p));
        tasks.enumerate().for_each(|(i, (dx, dy))| scatter(dy, self.points(&saved[0], i), self.h, self.w, dx));
        vec![Some(tensor(dx, [r, self.h, self.w])), None]
    }
}

vectorized! {
    /// The values of a plane at its points.
    fn gather(plane: &[f32], points: &[f32], h: usize, w: usize, y: &mut [f32]) {
        for (y, [px, py]) in y.iter_mut().zip(points.as_chunks::<2>().0) {
            let Corners { cells, weights, .. } = Corners::new(*px, *py, h, w);
            *y = (0..4).map(|i| weights[i] * plane[cells[i]]).sum();
        }
    }
}

vectorized! {
    /// Adds the points' gradients to the plane's.
    fn scatter(dy: &[f32], points: &[f32], h: usize, w: usize, dx: &mut [f32]) {
        for (dy, [px, py]) in dy.iter().zip(points.as_chunks::<2>().0) {
            let Corners { cells, weights, .. } = Corners::new(*px, *py, h, w);
            for i in 0..4 {
                dx[cells[i]] += weights[i] * dy;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random, strided, tracked};

    #[test]
    fn matches_the_composition() {
        for (r, h, w, p) in [(1, 1, 1, 1), (3, 5, 7, 41), (2, 1, 9, 30), (5, 13, 4, 117)] {
            for sets in [1, r] {
                let (planes, dy) = (strided([r, h, w], 1), random([r, p], 2));
                // A good part of them lies outside.
                let points = strided([sets, p, 2], 3) * 0.4 + 0.5;
                let results = [point_sample, reference].map(|f| {
                    let (planes, points) = (tracked(planes.clone()), tracked(points.clone()));
                    let y = f(planes.clone(), points.clone());
                    let grads = (y.clone() * Tensor::from_inner(dy.clone())).sum().backward();
                    assert!(points.grad(&grads).is_none());
                    (y.inner(), planes.grad(&grads).unwrap())
                });
                let [(y, dx), (ry, rdx)] = results;
                assert_close(y, ry, 1e-6);
                assert_close(dx, rdx, 1e-6);
            }
        }
    }

    #[test]
    fn centres_of_cells_are_the_cells_and_no_points_are_no_values() {
        let planes = random([2, 3, 4], 1);
        let points: Vec<f32> =
            (0..12).flat_map(|i| [(i % 4) as f32 / 4.0 + 0.125, (i / 4) as f32 / 3.0 + 0.5 / 3.0]).collect();
        let points = Tensor::<1>::from_floats(points.as_slice(), &planes.device()).reshape([1, 12, 2]);
        assert_close(point_sample(planes.clone(), points), planes.clone().reshape([2, 12]), 1e-6);
        let none = Tensor::zeros([1, 0, 2], &planes.device());
        assert_eq!(point_sample(planes, none).dims(), [2, 0]);
    }
}
