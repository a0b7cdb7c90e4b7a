//! Window logits blended and turned into labels, a row of pixels at a time, in loops: the default on a CPU; `bands` is
//! that of other devices.
//!
//! Bilinear interpolation reads two neighbours, so on a CPU it is far less work as loops than as matrix products, and
//! no map of full size has to exist. The values are those of the tensor path in [`super::infer`], up to rounding.

use std::ops::Range;

use burn::tensor::TensorData;
use rayon::prelude::*;

use crate::decoder::SegLogits;
use crate::error::{Error, Result};
use crate::infer::bands::{Bands, axis};
use crate::infer::not_finite;
use crate::infer::windows::Windows;
use crate::kernels::pixels;
use crate::layers::resize::Axis;

/// One view with the windows in reach, in CPU memory.
pub(super) struct CpuViewLogits {
    windows: Windows,
    /// Rows of windows: the top, and a grid for each left.
    rows: Vec<(usize, Vec<Grid>)>,
    classes: usize,
    /// Values at a place of a grid: one per class, or one per mask.
    channels: usize,
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

/// What the network says of a window.
struct Grid {
    /// `[b, gh, gw, c]`.
    maps: Vec<f32>,
    /// Where the maps are masks, their votes `[b, c, k]`.
    votes: Option<Vec<f32>>,
}

impl CpuViewLogits {
    /// Fetches what is in reach of `bands`, which must be something.
    pub(super) fn fetch(bands: &Bands, output: (usize, usize), flipped: bool) -> Result<Self> {
        let windows = bands.windows().clone();
        let mut grid = [0; 4];
        let mut rows = Vec::new();
        let mut classes = 0;
        let read = |data: TensorData| -> Result<Vec<f32>> {
            let values: Vec<f32> =
                data.try_cast_as::<f32>().map_err(read_failed)?.try_into_vec().map_err(read_failed)?;
            // Before they are spread over an image, where there are some hundred times as many.
            if values.iter().all(|value| value.is_finite()) { Ok(values) } else { Err(not_finite()) }
        };
        for row in bands.window_rows() {
            let fetch = |answer: &SegLogits| {
                grid = answer.maps.dims();
                classes = answer.votes.as_ref().map_or(grid[3], |votes| votes.dims()[2]);
                let votes = answer.votes.as_ref().map(|votes| read(votes.to_data())).transpose()?;
                Ok(Grid { maps: read(answer.maps.to_data())?, votes })
            };
            rows.push((row.top, row.grids.iter().map(fetch).collect::<Result<Vec<Grid>>>()?));
        }
        let ([_, gh, gw, channels], (height, width), size) = (grid, windows.size, bands.size());
        Ok(Self {
            windows,
            rows,
            classes,
            channels,
            grid_width: gw,
            grid_values: gh * gw * channels,
            window_axes: (bands.window_axis(gh, height), bands.window_axis(gw, width)),
            output_axes: (axis(size.0, output.0), axis(size.1, output.1)),
            size,
            output,
            flipped,
        })
    }

    /// The logits of one output row of one image, mirrored back: `scratch.output` [w, k].
    fn output_row(&self, image: usize, row: usize, scratch: &mut Scratch) {
        let k = self.classes;
        let Scratch { lines, inner, between_rows, output } = scratch;
        if self.size == self.output && !self.flipped {
            self.blend_row(image, row, inner, output);
            return;
        }
        let [above, below, ..] = *self.output_axes.0.taps(row);
        for (y, weight) in [above, below] {
            let line = &mut lines[y % 2]; // neighbours differ in parity
            if weight > 0.0 && line.0 != Some(y) {
                self.blend_row(image, y, inner, &mut line.1);
                line.0 = Some(y);
            }
        }
        between_rows.resize(self.size.1 * k, 0.0);
        pixels::interpolate_rows(&lines[above.0 % 2].1, above.1, &lines[below.0 % 2].1, below.1, between_rows);
        output.clear();
        output.resize(self.output.1 * k, 0.0);
        pixels::add_resampled(between_rows, k, self.output_axes.1.all(), output);
        if self.flipped {
            let (mut left, mut right) = (0, self.output.1 - 1);
            while left < right {
                let (head, tail) = output.split_at_mut(right * k);
                head[left * k..][..k].swap_with_slice(&mut tail[..k]);
                (left, right) = (left + 1, right - 1);
            }
        }
    }

    /// The logits of one row of the view: the mean over windows of their interpolated grids, [w, k].
    fn blend_row(&self, image: usize, y: usize, inner: &mut [Vec<f32>; 2], line: &mut Vec<f32>) {
        let (k, c, (height, width)) = (self.classes, self.channels, self.windows.size);
        let [cells, masks] = inner;
        let lefts = &self.windows.lefts;
        line.clear();
        line.resize(self.size.1 * k, 0.0);
        let covering: Vec<_> = self.rows.iter().filter(|(top, _)| (*top..top + height).contains(&y)).collect();
        for window_row in &covering {
            for (i, left) in lefts.iter().enumerate() {
                self.cells(image, y, i, window_row, cells);
                let line = &mut line[left * k..][..width * k];
                let Some(votes) = &window_row.1[i].votes else {
                    pixels::add_resampled(cells, k, self.window_axes.1.all(), line);
                    continue;
                };
                masks.clear();
                masks.resize(width * c, 0.0);
                pixels::add_resampled(cells, c, self.window_axes.1.all(), masks);
                pixels::add_votes(masks, &votes[image * c * k..][..c * k], k, line);
            }
        }
        if lefts.len() * covering.len() == 1 {
            return;
        }
        for (x, pixel) in line.chunks_exact_mut(k).enumerate() {
            let across = lefts.partition_point(|left| *left <= x) - lefts.partition_point(|left| left + width <= x);
            let count = (across * covering.len()) as f32;
            if count > 1.0 {
                pixel.iter_mut().for_each(|value| *value /= count);
            }
        }
    }

    /// The logits of one row of the view at the columns of the grid of one window, `[gw, k]`.
    fn cells(&self, image: usize, y: usize, window: usize, row: &(usize, Vec<Grid>), cells: &mut Vec<f32>) {
        let (top, grids) = row;
        let stride = self.grid_width * self.channels;
        let grid = &grids[window].maps[image * self.grid_values..][..self.grid_values];
        let [(a, wa), (b, wb), ..] = *self.window_axes.0.taps(y - top);
        cells.resize(stride, 0.0);
        pixels::interpolate_rows(&grid[a * stride..][..stride], wa, &grid[b * stride..][..stride], wb, cells);
    }

    /// Whether masks vote for classes.
    fn votes(&self) -> bool {
        self.rows.iter().flat_map(|(_, grids)| grids).any(|grid| grid.votes.is_some())
    }

    /// Whether there is one window of logits, and the output is the view.
    fn is_plain(&self) -> bool {
        !self.votes()
            && self.size == self.output
            && !self.flipped
            && self.windows.lefts.len() == 1
            && self.windows.tops.len() == 1
    }

    /// The labels of some rows of a plain view, without logits in its size.
    fn plain_labels(&self, image: usize, rows: Range<usize>, ids: &mut [u8]) {
        let width = self.output.1;
        ids.par_chunks_mut(ROWS_PER_TASK * width).enumerate().for_each(|(task, ids)| {
            let mut cells = Vec::new();
            for (i, ids) in ids.chunks_exact_mut(width).enumerate() {
                let row = rows.start + task * ROWS_PER_TASK + i;
                self.cells(image, row, 0, &self.rows[0], &mut cells);
                pixels::argmax_resampled(&cells, self.classes, self.window_axes.1.all(), ids);
            }
        });
    }
}

/// The most probable class of the pixels of some output rows of one image, the lowest index on ties.
pub(super) fn labels(views_logits: &[CpuViewLogits], image: usize, rows: Range<usize>) -> Vec<u8> {
    let (k, sum) = (views_logits[0].classes, Sum::ordering(views_logits));
    let mut ids = vec![0; rows.len() * views_logits[0].output.1];
    if let [view_logits] = views_logits
        && view_logits.is_plain()
    {
        view_logits.plain_labels(image, rows, &mut ids);
        return ids;
    }
    each_row(views_logits, image, rows, sum, &mut ids, |_, scores, ids: &mut [u8]| {
        pixels::argmax(scores, k, ids);
    });
    ids
}

/// What is known of a pixel: its most probable class, the probability of that, and the probability of its true class.
pub(super) type Certain = (u8, f32, f32);

/// [`labels`], and with each the probabilities of the label and of what `truth` [h, w] says; 0 where that is not a
/// class.
pub(super) fn labels_with_confidence(
    views_logits: &[CpuViewLogits],
    image: usize,
    rows: Range<usize>,
    truth: &[u8],
) -> Vec<Certain> {
    let (k, width, n, sum) =
        (views_logits[0].classes, views_logits[0].output.1, views_logits.len() as f32, Sum::ordering(views_logits));
    let votes = views_logits[0].votes();
    let mut found = vec![Certain::default(); rows.len() * width];
    each_row(views_logits, image, rows, sum, &mut found, |row, scores, found: &mut [Certain]| {
        let (mut ids, mut factors) = (vec![0; width], vec![1.0 / n; width]);
        pixels::argmax(scores, k, &mut ids);
        if votes {
            let all = |votes: &[f32]| votes.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            factors.iter_mut().zip(scores.chunks_exact(k)).for_each(|(factor, votes)| *factor = 1.0 / all(votes));
        } else if sum == Sum::Alone {
            pixels::exponentiate(scores, k, &mut factors);
        }
        let truth = &truth[row * width..][..width];
        for (x, (found, scores)) in found.iter_mut().zip(scores.chunks_exact(k)).enumerate() {
            let of_truth = scores.get(usize::from(truth[x])).map_or(0.0, |score| score * factors[x]);
            *found = (ids[x], scores[usize::from(ids[x])] * factors[x], of_truth);
        }
    });
    found
}

/// The mean over views of the softmax, or the votes over their sum, at some output rows of one image: [rows, w, k].
pub(super) fn probabilities(views_logits: &[CpuViewLogits], image: usize, rows: Range<usize>) -> Vec<f32> {
    let (k, n, sum) = (views_logits[0].classes, views_logits.len() as f32, Sum::of(views_logits));
    let mut values = vec![0.0; rows.len() * views_logits[0].output.1 * k];
    each_row(views_logits, image, rows, sum, &mut values, |_, scores, values: &mut [f32]| {
        for (values, scores) in values.chunks_exact_mut(k).zip(scores.chunks_exact(k)) {
            let all = match sum {
                Sum::Votes => scores.iter().sum::<f32>().max(f32::MIN_POSITIVE),
                _ => n,
            };
            values.iter_mut().zip(scores).for_each(|(value, score)| *value = score / all);
        }
    });
    values
}

/// What becomes of the views' values of a pixel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sum {
    /// There is one view.
    Alone,
    /// The softmaxes of their logits are added.
    Softmax,
    /// Their votes are added.
    Votes,
}

impl Sum {
    /// What orders the classes: one view needs no softmax for that.
    fn ordering(views_logits: &[CpuViewLogits]) -> Self {
        if views_logits.len() == 1 { Self::Alone } else { Self::of(views_logits) }
    }

    fn of(views_logits: &[CpuViewLogits]) -> Self {
        if views_logits[0].votes() { Self::Votes } else { Self::Softmax }
    }
}

/// Calls `f` with the number of each output row, what the views say of it, [w, k], and the row's part of `out`.
fn each_row<T: Send>(
    views_logits: &[CpuViewLogits],
    image: usize,
    rows: Range<usize>,
    sum: Sum,
    out: &mut [T],
    f: impl Fn(usize, &mut [f32], &mut [T]) + Sync,
) {
    let (k, length) = (views_logits[0].classes, out.len() / rows.len());
    out.par_chunks_mut(ROWS_PER_TASK * length).enumerate().for_each(|(task, out)| {
        let mut scratch: Vec<Scratch> = views_logits.iter().map(|_| Scratch::default()).collect();
        let mut total = Vec::new();
        for (i, out) in out.chunks_exact_mut(length).enumerate() {
            let row = rows.start + task * ROWS_PER_TASK + i;
            views_logits
                .iter()
                .zip(&mut scratch)
                .for_each(|(view_logits, scratch)| view_logits.output_row(image, row, scratch));
            if sum != Sum::Alone {
                total.clear();
                total.resize(scratch[0].output.len(), 0.0);
            }
            for scratch in &mut scratch {
                match sum {
                    Sum::Alone => {}
                    Sum::Softmax => pixels::add_softmax(&mut scratch.output, k, &mut total),
                    Sum::Votes => total.iter_mut().zip(&scratch.output).for_each(|(total, votes)| *total += votes),
                }
            }
            f(row, if sum == Sum::Alone { &mut scratch[0].output } else { &mut total }, out);
        }
    });
}

/// Enough for neighbouring rows to share what they read, few enough to keep all cores busy.
const ROWS_PER_TASK: usize = 16;

/// Buffers of one view, and the last rows of the view that were made.
#[derive(Default)]
struct Scratch {
    lines: [(Option<usize>, Vec<f32>); 2],
    /// Of a window: a row of its grid, and of its masks.
    inner: [Vec<f32>; 2],
    between_rows: Vec<f32>,
    output: Vec<f32>,
}

fn read_failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new("cannot read logits from the device").with_source(error)
}
