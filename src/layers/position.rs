//! Positions: sine embeddings of the cells of a grid, and their centres; the grid that a network is made for.

use std::f64::consts::TAU;

use burn::tensor::{DType, Device, Tensor};

use crate::kernels;

/// A network that may have learned a position for each cell of a grid of patches.
pub trait Gridded {
    /// Rows and columns of that grid; none where it has no positions.
    fn grid(&self) -> Option<(usize, usize)>;
}

/// The sine embedding of a grid, `[rows, cols, channels]`: DETR's (Carion et al. 2020), normalised.
///
/// A coordinate is `2π (i + 1) / (rows + 1e-6)`. The first half of the channels is about the row, the second about the
/// column; within a half, channels 2j and 2j + 1 are sine and cosine of the coordinate over `10000^(2j / half)`.
/// `channels` is a multiple of 4.
pub fn sine_positions(rows: usize, cols: usize, channels: usize, device: &Device) -> Tensor<3> {
    assert!(channels.is_multiple_of(4), "sine_positions: {channels} channels are not a multiple of 4");
    let half = channels / 2;
    let key = ("sine positions", vec![rows, cols, channels]);
    let table = kernels::constant(key, [rows * cols, channels], device, DType::F32, || waves_of((rows, cols), half));
    table.reshape([rows, cols, channels])
}

/// The values of [`sine_positions`], `half` of them about the row of a cell.
fn waves_of((rows, cols): (usize, usize), half: usize) -> Vec<f32> {
    let waves = |i: usize, count: usize| -> Vec<f32> {
        let position = TAU * (i + 1) as f64 / (count as f64 + 1e-6);
        let wave = |j: usize| {
            let angle = position / 10000f64.powf((j / 2 * 2) as f64 / half as f64);
            (if j.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
        };
        (0..half).map(wave).collect()
    };
    let by_row: Vec<_> = (0..rows).map(|i| waves(i, rows)).collect();
    let by_col: Vec<_> = (0..cols).map(|i| waves(i, cols)).collect();
    let cells = by_row.iter().flat_map(|row| by_col.iter().map(move |col| [row.as_slice(), col].concat()));
    cells.flatten().collect()
}

/// The centres of the cells of grids of (rows, columns), one grid after the other, row by row: `[n, 2]`, x first, in
/// units of the grid's sides. Deformable attention samples around them (Zhu et al., arXiv 2010.04159).
pub fn reference_points(shapes: &[(usize, usize)], device: &Device) -> Tensor<2> {
    let center = |i: usize, count: usize| ((i as f64 + 0.5) / count as f64) as f32;
    let cells = |&(rows, cols): &(usize, usize)| {
        (0..rows).flat_map(move |i| (0..cols).flat_map(move |j| [center(j, cols), center(i, rows)]))
    };
    let count = shapes.iter().map(|(rows, cols)| rows * cols).sum();
    let key = ("reference points", shapes.iter().flat_map(|(rows, cols)| [*rows, *cols]).collect());
    kernels::constant(key, [count, 2], device, DType::F32, || shapes.iter().flat_map(cells).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn rows_come_first_and_sines_alternate_with_cosines() {
        let x = sine_positions(2, 3, 8, &Device::flex());
        assert_eq!(x.dims(), [2, 3, 8]);
        let cell = values(x.slice([1..2, 0..1])); // the last row, the first column
        let (y, x) = (TAU, TAU / 3.0);
        let expected = [y, y / 100.0, x, x / 100.0].map(|angle| [angle.sin(), angle.cos()]);
        for (value, expected) in cell.iter().zip(expected.as_flattened()) {
            assert!((f64::from(*value) - expected).abs() < 1e-5, "{cell:?}");
        }
    }

    #[test]
    fn centres_are_x_first() {
        let points = values(reference_points(&[(1, 2), (2, 1)], &Device::flex()));
        assert_eq!(points, [0.25, 0.5, 0.75, 0.5, 0.5, 0.25, 0.5, 0.75]);
        assert_eq!(reference_points(&[], &Device::flex()).dims(), [0, 2]);
    }
}
