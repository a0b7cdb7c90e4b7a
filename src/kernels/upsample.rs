//! Bilinear upsampling of channels-last maps a pixel at a time, so that the large map is never held.

use crate::kernels::constant::constant;
use crate::kernels::simd::{LANES, fma, vectorized};
#[cfg(feature = "gpu")]
use crate::kernels::{bridge::on_gpu, gpu};
use burn::tensor::{DType, Device, Int, Tensor};

/// Bilinear resizing (align_corners = false) as two products with constant matrices: [b, h, w, k] to
/// [b, out_h, out_w, k].
pub(super) fn resize(x: Tensor<4>, out_h: usize, out_w: usize) -> Tensor<4> {
    let [b, h, w, k] = x.dims();
    let (rows, columns) = (matrix(h, out_h, &x.device()), matrix(w, out_w, &x.device()));
    let x = rows.unsqueeze::<3>().matmul(x.reshape([b, h, w * k])); // [b, out_h, w k]
    let x = x.reshape([b, out_h, w, k]);
    columns.unsqueeze::<4>().matmul(x) // [b, out_h, out_w, k]
}

/// The [out, in] matrix of a bilinear resampling.
fn matrix(size: usize, out: usize, device: &Device) -> Tensor<2> {
    constant(("upsample", vec![size, out]), [out, size], device, DType::F32, || {
        let mut values = vec![0.0f32; out * size];
        for (row, at) in values.chunks_exact_mut(size).zip(positions(size, out)) {
            row[at.low] += 1.0 - at.t;
            row[at.high] += at.t;
        }
        values
    })
}

/// Where an output row or column lies between its two source rows or columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Position {
    pub(super) low: usize,
    pub(super) high: usize,
    /// The weight of `high`.
    pub(super) t: f32,
}

/// The positions of `out` samples over `size` source samples, pixel centres at half-integers.
pub(super) fn positions(size: usize, out: usize) -> Vec<Position> {
    let position = |i| {
        let at = ((i as f64 + 0.5) * size as f64 / out as f64 - 0.5).max(0.0);
        let low = (at as usize).min(size - 1);
        Position { low, high: (low + 1).min(size - 1), t: (at - low as f64) as f32 }
    };
    (0..out).map(position).collect()
}

/// Where a row, or a column, of the output reads one of several grids.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Source {
    /// The window whose grid it is: its row, or column, of windows.
    pub(crate) window: usize,
    /// Two rows, or columns, of the grid, and their weights.
    pub(crate) taps: [(usize, f32); 2],
}

/// The class of the highest score of every pixel, of equals the first: `[b, rows, columns]`, as bytes in rows that are
/// padded to multiples of four; none where there is no kernel for it.
///
/// The score is the sum over the windows that cover a pixel, of which `grids [n, b, h, w, k]` are the class scores,
/// row by row of windows. `rows` and `columns` say which these are, and between which cells of their grids the pixel
/// lies. The large map of scores is never made.
pub(crate) fn upsample_argmax(
    grids: &[Tensor<4>],
    rows: &[Vec<Source>],
    columns: &[Vec<Source>],
) -> Option<Tensor<3, Int>> {
    #[cfg(feature = "gpu")]
    if grids.iter().all(|grid| on_gpu(grid) && grid.dims() == grids[0].dims()) {
        return Some(gpu::argmax(Tensor::stack::<5>(grids.to_vec(), 0), rows, columns));
    }
    let _ = (grids, rows, columns);
    None
}

/// What the classes between k and the next multiple of [`LANES`] are filled with: their exponential is 0.
const NOTHING: f32 = -1e30;

/// A batch of maps, [b, h, w, k].
#[derive(Clone, Copy)]
pub(super) struct Map<'a> {
    values: &'a [f32],
    h: usize,
    pub(super) w: usize,
    pub(super) k: usize,
    /// k, rounded up to whole vectors.
    pub(super) padded: usize,
}

impl<'a> Map<'a> {
    pub(super) fn new(values: &'a [f32], h: usize, w: usize, k: usize) -> Self {
        Self { values, h, w, k, padded: k.next_multiple_of(LANES) }
    }

    /// Room for one line, [w, padded].
    pub(super) fn line(&self) -> Vec<f32> {
        vec![NOTHING; self.w * self.padded]
    }

    /// The line between two source rows.
    pub(super) fn interpolate(&self, batch: usize, at: &Position, line: &mut [f32]) {
        let length = self.w * self.k;
        let row = |y| &self.values[(batch * self.h + y) * length..][..length];
        blend(row(at.low), row(at.high), at.t, self.k, line);
    }
}

vectorized! {
    fn blend(low: &[f32], high: &[f32], t: f32, k: usize, line: &mut [f32]) {
        let padded = k.next_multiple_of(LANES);
        for ((low, high), line) in low.chunks_exact(k).zip(high.chunks_exact(k)).zip(line.chunks_exact_mut(padded)) {
            for ((low, high), value) in low.iter().zip(high).zip(line) {
                *value = fma::<FMA>(t, high - low, *low);
            }
        }
    }
}

/// The logits of one output pixel, into `pixel`.
#[inline(always)]
pub(super) fn blend_pixel<const FMA: bool>(line: &[f32], at: &Position, pixel: &mut [f32]) {
    let padded = pixel.len();
    let (low, high) = (&line[at.low * padded..][..padded], &line[at.high * padded..][..padded]);
    for ((low, high), value) in low.iter().zip(high).zip(pixel) {
        *value = fma::<FMA>(at.t, high - low, *low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{assert_close, random};

    #[test]
    fn positions_are_those_of_torch() {
        let expected = [(0, 1, 0.0), (0, 1, 0.25), (0, 1, 0.75), (1, 1, 0.25)];
        let expected = expected.map(|(low, high, t)| Position { low, high, t });
        assert_eq!(positions(2, 4), expected);
        assert_eq!(positions(5, 5).iter().map(|p| (p.low, p.t)).collect::<Vec<_>>(), [0, 1, 2, 3, 4].map(|i| (i, 0.0)));
    }

    #[test]
    fn resize_keeps_constants_and_averages_in_between() {
        let x = random([2, 3, 4, 5], 1);
        assert_close(resize(x.clone(), 3, 4), x.clone(), 1e-6);
        let constant = Tensor::full([1, 3, 4, 2], 2.5, &Device::flex());
        assert_close(resize(constant, 7, 9), Tensor::full([1, 7, 9, 2], 2.5, &Device::flex()), 1e-6);
    }
}
