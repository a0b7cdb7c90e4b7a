//! Sampling a map between its cells as PyTorch's `grid_sample` does: bilinear, zeros outside, corners not aligned.
//!
//! A point in [0, 1] covers the map from edge to edge, so the centre of cell i of n lies at (i + 0.5) / n.

use burn::tensor::{Int, Tensor};

/// The four cells around a point: above left, above right, below left, below right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Corners {
    /// Their indices, row by row; of a cell outside the map, that of the nearest one inside.
    pub(super) cells: [usize; 4],
    /// Their shares of the value; 0 of a cell outside.
    pub(super) weights: [f32; 4],
    /// The change of the weights with x and with y, in cells.
    pub(super) slopes: [[f32; 4]; 2],
}

impl Corners {
    /// Around `x`, `y` in [0, 1], on a map of `h` rows and `w` columns.
    #[inline(always)]
    pub(super) fn new(x: f32, y: f32, h: usize, w: usize) -> Self {
        let (columns, [left, right], [dleft, dright]) = axis(x, w);
        let (rows, [above, below], [dabove, dbelow]) = axis(y, h);
        Self {
            cells: [
                rows[0] * w + columns[0],
                rows[0] * w + columns[1],
                rows[1] * w + columns[0],
                rows[1] * w + columns[1],
            ],
            weights: [above * left, above * right, below * left, below * right],
            slopes: [
                [above * dleft, above * dright, below * dleft, below * dright],
                [dabove * left, dabove * right, dbelow * left, dbelow * right],
            ],
        }
    }
}

/// The two cells of `n` around `at`, their weights and the slopes of the weights.
#[inline(always)]
fn axis(at: f32, n: usize) -> ([usize; 2], [f32; 2], [f32; 2]) {
    // In the steps of the reference, so that both choose the same cells; two cells from the map all is zero.
    let at = (((at * 2.0 - 1.0 + 1.0) * n as f32 - 1.0) / 2.0).clamp(-2.0, n as f32 + 1.0);
    let low = at.floor();
    let t = at - low;
    let last = n as i32 - 1;
    let cells = [low as i32, low as i32 + 1];
    let inside = cells.map(|cell| if (0..=last).contains(&cell) { 1.0 } else { 0.0 });
    let cells = cells.map(|cell| cell.clamp(0, last) as usize);
    (cells, [(1.0 - t) * inside[0], t * inside[1]], [-inside[0], inside[1]])
}

/// [`Corners`] in tensor operations: for `points [r, p, 2]`, x first, the index and the weight `[r, p]` of each of the
/// four cells. The weights carry the gradient of the points.
pub(super) fn corners(points: Tensor<3>, (h, w): (usize, usize)) -> [(Tensor<2, Int>, Tensor<2>); 4] {
    let [r, p, _] = points.dims();
    let along = |coordinate, n: usize| {
        let at = points.clone().narrow(2, coordinate, 1).reshape([r, p]); // [r, p]
        let at = (((at * 2.0 - 1.0 + 1.0) * n as f64 - 1.0) / 2.0).clamp(-2.0, n as f64 + 1.0);
        let low = at.clone().detach().floor();
        let t = at - low.clone();
        let side = |cell: Tensor<2>, weight: Tensor<2>| {
            let nearest = cell.clone().clamp(0.0, n as f64 - 1.0);
            let outside = nearest.clone().not_equal(cell);
            (nearest.int(), weight.mask_fill(outside, 0.0))
        };
        [side(low.clone(), -t.clone() + 1.0), side(low + 1.0, t)]
    };
    let ([left, right], [above, below]) = (along(0, w), along(1, h));
    let cell = |row: &(Tensor<2, Int>, Tensor<2>), column: &(Tensor<2, Int>, Tensor<2>)| {
        (row.0.clone() * w as i64 + column.0.clone(), row.1.clone() * column.1.clone())
    };
    [cell(&above, &left), cell(&above, &right), cell(&below, &left), cell(&below, &right)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_fade_to_zero_over_the_border() {
        let total = |x, y| Corners::new(x, y, 2, 4).weights.iter().sum::<f32>();
        let expected = [(0.5, 0.5, 1.0), (0.0, 0.5, 0.5), (1.0, 1.0, 0.25), (-0.125, 0.5, 0.0), (9e30, -9e30, 0.0)];
        for (x, y, sum) in expected {
            assert_eq!(total(x, y), sum, "{x} {y}");
        }
        let corners = Corners::new(0.5, 0.25, 2, 4); // half way between columns 1 and 2 of row 0
        assert_eq!((corners.cells, corners.weights), ([1, 2, 5, 6], [0.5, 0.5, 0.0, 0.0]));
        assert_eq!(corners.slopes, [[-1.0, 1.0, 0.0, 0.0], [-0.5, -0.5, 0.5, 0.5]]);
    }
}
