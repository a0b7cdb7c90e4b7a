//! Positions as rotations: queries and keys are turned by the place of their patch.

use std::f64::consts::TAU;

use burn::tensor::{DType, Device, Tensor};

use crate::kernels;

/// The turns of the patches of a grid, as DINOv3 has them (Siméoni et al., arXiv 2508.10104).
///
/// A head's channels fall into halves, and channel j of the first is turned with channel j of the second. Of the d / 2
/// angles the first half is about the row, the second about the column: the coordinate, from -1 to 1 at the outer edges
/// of the grid, times `2π / theta^(4 j / d)`.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// `[rows * columns, d / 2]`.
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl Rotation {
    /// For a grid of (rows, columns) and heads of `d` channels, a multiple of 4.
    pub fn of_grid((rows, columns): (usize, usize), d: usize, theta: f64, device: &Device) -> Self {
        assert!(d.is_multiple_of(4), "rotations of heads of {d} channels, which is not a multiple of 4");
        let quarter = d / 4;
        let angles = |i: usize, count: usize| -> Vec<(f64, f64)> {
            let coordinate = 2.0 * (i as f64 + 0.5) / count as f64 - 1.0;
            let angle = |j: usize| TAU * coordinate / theta.powf(j as f64 / quarter as f64);
            (0..quarter).map(|j| angle(j).sin_cos()).collect()
        };
        let by_row: Vec<_> = (0..rows).map(|i| angles(i, rows)).collect();
        let by_column: Vec<_> = (0..columns).map(|i| angles(i, columns)).collect();
        let cells = || by_row.iter().flat_map(|row| by_column.iter().map(move |column| row.iter().chain(column)));
        let table = |name, part: fn(&(f64, f64)) -> f64| {
            let key = (name, vec![rows, columns, d, theta.to_bits() as usize]);
            kernels::constant(key, [rows * columns, 2 * quarter], device, DType::F32, || {
                cells().flatten().map(|angle| part(angle) as f32).collect()
            })
        };
        Self { cos: table("cosines", |angle| angle.1), sin: table("sines", |angle| angle.0) }
    }

    /// Queries and keys of the last tokens of `qkv [b, n, 3 heads d]` turned, which are those of the grid.
    pub fn forward(&self, qkv: Tensor<3>, heads: usize) -> Tensor<3> {
        kernels::rotary(qkv, self.cos.clone(), self.sin.clone(), heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products of turned queries and keys depend on the distance alone.
    #[test]
    fn only_distances_count() {
        let device = Device::flex();
        let rotation = Rotation::of_grid((5, 7), 16, 100.0, &device);
        let token = Tensor::<1>::from_floats([0.3, -1.2, 0.7, 0.1, 1.0, -0.4, 0.2, 0.9], &device).repeat_dim(0, 6);
        let turned = rotation.forward(token.reshape([1, 1, 48]).repeat_dim(1, 35), 1);
        let (q, k) = (turned.clone().narrow(2, 0, 16), turned.clone().narrow(2, 16, 16));
        let scores: Vec<f32> = q.matmul(k.transpose()).into_data().iter::<f32>().collect();
        let score = |a: (usize, usize), b: (usize, usize)| scores[(a.0 * 7 + a.1) * 35 + b.0 * 7 + b.1];
        let distances = [((0, 0), (2, 3)), ((1, 2), (3, 5)), ((2, 3), (4, 6))].map(|(a, b)| score(a, b));
        assert!(distances.iter().all(|value| (value - distances[0]).abs() < 1e-4), "{distances:?}");
        assert!((score((0, 0), (2, 3)) - score((0, 0), (3, 2))).abs() > 1e-2, "rows are told from columns");
        // Values are not turned.
        let values: Vec<f32> = turned.narrow(2, 32, 16).into_data().iter::<f32>().collect();
        assert!(values.chunks(16).all(|row| row == &values[..16]));
    }
}
