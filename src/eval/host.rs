//! Labels from window logits on the host, a row of pixels at a time.
//!
//! Bilinear interpolation reads two neighbours, so on a CPU it is far less work as loops than as matrix products, and no
//! map of full size has to exist. The values are those of the tensor path in [`super::infer`], up to rounding.

use std::ops::Range;

use rayon::prelude::*;

use super::windows::{Bands, Windows, axis};
use crate::error::{Error, Result};
use crate::layers::resize::Axis;

/// One view with the windows in reach, in host memory.
pub(super) struct HostLook {
    windows: Windows,
    /// Rows of windows: the top, and a window's logits [b, gh, gw, k] for each left.
    rows: Vec<(usize, Vec<Vec<f32>>)>,
    classes: usize,
    /// Width of a window's grid, and values of one image on it.
    grid_width: usize,
    grid_values: usize,
    /// From the grid to the window, down and across.
    window_axes: (Axis, Axis),
    /// From the view to the output, down and across.
    output_axes: (Axis, Axis),
    /// Height and width of the view.
    size: (usize, usize),
    output: (usize, usize),
    flipped: bool,
}

impl HostLook {
    /// Fetches what is in reach of `bands`, which must be something.
    pub(super) fn fetch(bands: &Bands, output: (usize, usize), flipped: bool) -> Result<Self> {
        let windows = bands.windows().clone();
        let mut grid = [0; 4];
        let mut rows = Vec::new();
        for row in bands.live() {
            let fetch = |tensor: &burn::tensor::Tensor<4>| {
                grid = tensor.dims();
                tensor.to_data().try_cast_as::<f32>().map_err(read_failed)?.try_into_vec().map_err(read_failed)
            };
            rows.push((row.top, row.grids.iter().map(fetch).collect::<Result<Vec<Vec<f32>>>>()?));
        }
        let ([_, gh, gw, classes], (height, width), size) = (grid, windows.size, bands.size());
        Ok(Self {
            windows,
            rows,
            classes,
            grid_width: gw,
            grid_values: gh * gw * classes,
            window_axes: (axis(gh, height), axis(gw, width)),
            output_axes: (axis(size.0, output.0), axis(size.1, output.1)),
            size,
            output,
            flipped,
        })
    }

    /// The logits of one output row of one image, mirrored back: `scratch.output` [w, k].
    fn output_row(&self, image: usize, row: usize, scratch: &mut Scratch) {
        let k = self.classes;
        let Scratch { lines, cells, blend, output, .. } = scratch;
        let [above, below, ..] = *self.output_axes.0.taps(row);
        for (y, weight) in [above, below] {
            let line = &mut lines[y % 2]; // neighbours differ in parity
            if weight > 0.0 && line.0 != Some(y) {
                self.line(image, y, cells, &mut line.1);
                line.0 = Some(y);
            }
        }
        lerp(&lines[above.0 % 2].1, above.1, &lines[below.0 % 2].1, below.1, blend);
        output.resize(self.output.1 * k, 0.0);
        for (x, pixel) in output.chunks_exact_mut(k).enumerate() {
            let x = if self.flipped { self.output.1 - 1 - x } else { x };
            let [(p, wp), (q, wq), ..] = *self.output_axes.1.taps(x);
            let (p, q) = (&blend[p * k..][..k], &blend[q * k..][..k]);
            pixel.iter_mut().zip(p.iter().zip(q)).for_each(|(value, (p, q))| *value = p * wp + q * wq);
        }
    }

    /// The logits of one row of the view: the mean over windows of their interpolated grids, [w, k].
    fn line(&self, image: usize, y: usize, cells: &mut Vec<f32>, line: &mut Vec<f32>) {
        let (k, (height, width)) = (self.classes, self.windows.size);
        let (stride, lefts) = (self.grid_width * k, &self.windows.lefts);
        line.clear();
        line.resize(self.size.1 * k, 0.0);
        let covering: Vec<_> = self.rows.iter().filter(|(top, _)| (*top..top + height).contains(&y)).collect();
        for (top, grids) in &covering {
            let [(a, wa), (b, wb), ..] = *self.window_axes.0.taps(y - top);
            for (left, grid) in lefts.iter().zip(grids) {
                let grid = &grid[image * self.grid_values..][..self.grid_values];
                lerp(&grid[a * stride..][..stride], wa, &grid[b * stride..][..stride], wb, cells);
                for (x, pixel) in line[left * k..][..width * k].chunks_exact_mut(k).enumerate() {
                    let [(p, wp), (q, wq), ..] = *self.window_axes.1.taps(x);
                    let (p, q) = (&cells[p * k..][..k], &cells[q * k..][..k]);
                    pixel.iter_mut().zip(p.iter().zip(q)).for_each(|(sum, (p, q))| *sum += p * wp + q * wq);
                }
            }
        }
        for (x, pixel) in line.chunks_exact_mut(k).enumerate() {
            let across = lefts.partition_point(|left| *left <= x) - lefts.partition_point(|left| left + width <= x);
            let count = (across * covering.len()) as f32;
            if count > 1.0 {
                pixel.iter_mut().for_each(|value| *value /= count);
            }
        }
    }
}

/// The most probable class of the pixels of some output rows of one image, the lowest index on ties.
pub(super) fn labels(looks: &[HostLook], image: usize, rows: Range<usize>) -> Vec<u8> {
    // One view needs no softmax: it keeps the order.
    let (k, softmax) = (looks[0].classes, looks.len() > 1);
    let mut ids = vec![0; rows.len() * looks[0].output.1];
    each_row(looks, image, rows, softmax, &mut ids, |scores, ids: &mut [u8]| {
        ids.iter_mut().zip(scores.chunks_exact(k)).for_each(|(id, scores)| *id = argmax(scores));
    });
    ids
}

/// The mean over views of the softmax, at some output rows of one image: [rows, w, k].
pub(super) fn probabilities(looks: &[HostLook], image: usize, rows: Range<usize>) -> Vec<f32> {
    let mut values = vec![0.0; rows.len() * looks[0].output.1 * looks[0].classes];
    let n = looks.len() as f32;
    each_row(looks, image, rows, true, &mut values, |scores, values: &mut [f32]| {
        values.iter_mut().zip(scores).for_each(|(value, score)| *value = score / n);
    });
    values
}

/// Calls `f` with what the views say of each output row, [w, k], and the row's part of `out`: the sum of softmaxes, or
/// the logits of the only view.
fn each_row<T: Send>(
    looks: &[HostLook],
    image: usize,
    rows: Range<usize>,
    softmax: bool,
    out: &mut [T],
    f: impl Fn(&[f32], &mut [T]) + Sync,
) {
    let (k, length) = (looks[0].classes, out.len() / rows.len());
    out.par_chunks_mut(ROWS_PER_TASK * length).enumerate().for_each(|(task, out)| {
        let mut scratch: Vec<Scratch> = looks.iter().map(|_| Scratch::default()).collect();
        let mut sum = Vec::new();
        for (i, out) in out.chunks_exact_mut(length).enumerate() {
            let row = rows.start + task * ROWS_PER_TASK + i;
            looks.iter().zip(&mut scratch).for_each(|(look, scratch)| look.output_row(image, row, scratch));
            if softmax {
                sum.clear();
                sum.resize(scratch[0].output.len(), 0.0);
                scratch.iter_mut().for_each(|scratch| add_softmax(&mut scratch.output, k, &mut sum));
            }
            f(if softmax { &sum } else { &scratch[0].output }, out);
        }
    });
}

/// Enough for neighbouring rows to share what they read, few enough to keep all cores busy.
const ROWS_PER_TASK: usize = 16;

/// Buffers of one view, and the last rows of the view that were made.
#[derive(Default)]
struct Scratch {
    lines: [(Option<usize>, Vec<f32>); 2],
    cells: Vec<f32>,
    blend: Vec<f32>,
    output: Vec<f32>,
}

/// `a * wa + b * wb` into `out`; a weight of 0 is not read.
fn lerp(a: &[f32], wa: f32, b: &[f32], wb: f32, out: &mut Vec<f32>) {
    out.clear();
    match wb > 0.0 {
        true => out.extend(a.iter().zip(b).map(|(a, b)| a * wa + b * wb)),
        false => out.extend_from_slice(a),
    }
}

/// Adds the softmax of each pixel's `k` logits, which are overwritten.
fn add_softmax(logits: &mut [f32], k: usize, sum: &mut [f32]) {
    for (logits, sum) in logits.chunks_exact_mut(k).zip(sum.chunks_exact_mut(k)) {
        let largest = reduce(logits, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        logits.iter_mut().for_each(|value| *value = exp(*value - largest));
        let scale = 1.0 / reduce(logits, 0.0, |a, b| a + b);
        sum.iter_mut().zip(logits).for_each(|(sum, value)| *sum += *value * scale);
    }
}

/// A reduction in eight lanes, which the compiler can turn into vector instructions.
fn reduce(values: &[f32], start: f32, op: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [start; 8];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane = op(*lane, *value));
    }
    lanes.iter().chain(rest).fold(start, |sum, value| op(sum, *value))
}

/// `exp(x)` for x <= 0 to 2e-7 of its value, without branches; what is below -87 gives `exp(-87)`.
///
/// `x = n ln 2 + f` with |f| <= ln 2 / 2: a Taylor polynomial for `f`, and `n` straight into the exponent.
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    let x = x.max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let f = (x - n * 0.693_359_4) - n * -2.121_944_4e-4; // ln 2 in two parts, the first exact
    let terms = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let mantissa = terms.iter().fold(0.0, |sum, term| sum * f + term);
    mantissa * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

fn argmax(scores: &[f32]) -> u8 {
    let (mut best, mut at) = (f32::NEG_INFINITY, 0);
    for (i, score) in scores.iter().enumerate() {
        if *score > best {
            (best, at) = (*score, i);
        }
    }
    at as u8
}

fn read_failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new("cannot read logits from the device").source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_to_rounding() {
        for i in 0..=87_000 {
            let x = -(i as f32) / 1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2e-7, "{x}: {} {exact}", exp(x));
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(0.0) == 1.0);
    }

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!((argmax(&[1.0, 3.0, 3.0, 2.0]), argmax(&[-5.0; 4]), argmax(&[f32::NAN; 2])), (1, 0, 0));
        let values: Vec<f32> = (0..19).map(|i| ((i * 7) % 19) as f32).collect();
        assert_eq!(reduce(&values, 0.0, |a, b| a + b), 171.0);
        assert_eq!(reduce(&values, f32::NEG_INFINITY, f32::max), 18.0);
    }
}
