//! Logits at image size, a band of rows at a time, as tensor operations: the default on devices other than a CPU.
//!
//! What the network says lies on a coarse grid, so that of a window is small; only the upsampled sum is large. A
//! [`Bands`] keeps the grids of the windows in reach and upsamples just the rows asked for. One band as high as the
//! image is the plain computation; many low ones give the same values in little memory.

use std::collections::VecDeque;
use std::ops::Range;

use burn::tensor::Tensor;

use crate::decoder::SegLogits;
use crate::infer::Network;
use crate::infer::config::{InferConfig, Padding};
use crate::infer::view::View;
use crate::infer::windows::Windows;
use crate::kernels::{Precision, with_precision};
use crate::layers::resize::{Axis, Mode, along_height, along_width};

/// The logits of a batch of equally large images, read from top to bottom.
pub(super) struct Bands<'a> {
    network: &'a dyn Network,
    view: View<'a>,
    windows: Windows,
    per_batch: usize,
    padding: Padding,
    precision: Precision,
    /// The rows of windows in reach.
    window_rows: VecDeque<WindowRow>,
    /// The next row of windows to run.
    next: usize,
    /// What the network has said already of the windows from there on.
    known: VecDeque<SegLogits>,
}

/// The windows that begin at one image row, with what the network says of each, from left to right.
pub(super) struct WindowRow {
    pub(super) top: usize,
    pub(super) grids: Vec<SegLogits>,
}

impl<'a> Bands<'a> {
    /// Nothing runs yet.
    pub(super) fn new(network: &'a dyn Network, view: View<'a>, windows: Windows, config: &InferConfig) -> Self {
        let InferConfig { windows_per_batch, padding, precision, .. } = *config;
        let (window_rows, next) = (VecDeque::new(), 0);
        let known = VecDeque::new();
        Self {
            network,
            view,
            windows,
            per_batch: windows_per_batch.max(1),
            padding,
            precision,
            window_rows,
            next,
            known,
        }
    }

    /// The same, where the network has seen the first windows before.
    pub(super) fn give(&mut self, known: Vec<SegLogits>) {
        self.known = known.into();
    }

    /// The axis from a side of a window's grid to that of the window.
    pub(super) fn window_axis(&self, grid: usize, side: usize) -> Axis {
        match self.padding {
            Padding::Stretch => axis(grid, side),
            Padding::Exact => axis(grid, self.network.padded(side)).first(side),
        }
    }

    /// Height and width of the images.
    pub(super) fn size(&self) -> (usize, usize) {
        self.view.size()
    }

    /// The logits of some image rows, [b, rows, w, k]: the sum over windows divided by how many there are.
    ///
    /// The starts of successive calls must not fall.
    pub(super) fn rows(&mut self, rows: Range<usize>) -> Tensor<4> {
        self.advance_to(rows.clone());
        let tops: Vec<usize> = self.window_rows.iter().map(|row| row.top).collect();
        let strips = segments(rows, &tops, self.windows.size.0).into_iter();
        Tensor::cat(strips.map(|(rows, covering)| self.blend_rows(rows, covering)).collect(), 1) // [b, rows, w, k]
    }

    /// Forgets the windows above some image rows and runs those over them. The starts must not fall.
    pub(super) fn advance_to(&mut self, rows: Range<usize>) {
        while self.window_rows.front().is_some_and(|row| row.top + self.windows.size.0 <= rows.start) {
            self.window_rows.pop_front();
        }
        while self.windows.tops.get(self.next).is_some_and(|top| *top < rows.end) {
            self.run();
        }
    }

    /// The rows of windows in reach, from the top.
    pub(super) fn window_rows(&self) -> impl Iterator<Item = &WindowRow> {
        self.window_rows.iter()
    }

    /// Whether the rows are sums of votes, not logits; known once there are windows in reach.
    pub(super) fn votes(&self) -> bool {
        self.window_rows.iter().flat_map(|row| &row.grids).any(|grid| grid.votes.is_some())
    }

    /// Where all windows lie.
    pub(super) fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Runs the next row of windows, and those after it as long as they fit in one batch together.
    fn run(&mut self) {
        let (b, columns) = (self.view.batch(), self.windows.lefts.len());
        let last = (self.next + (self.per_batch / columns).max(1)).min(self.windows.tops.len());
        let tops = &self.windows.tops[self.next..last];
        let places: Vec<_> =
            tops.iter().flat_map(|top| self.windows.lefts.iter().map(move |left| (*top, *left))).collect();
        let mut grids = Vec::with_capacity(places.len());
        for places in places.chunks(self.per_batch) {
            if self.known.len() >= places.len() {
                grids.extend(self.known.drain(..places.len()));
                continue;
            }
            let mut windows =
                places.iter().map(|place| self.view.window(*place, self.windows.size)).collect::<Vec<_>>();
            let windows = match windows.len() {
                1 => windows.remove(0),
                _ => Tensor::cat(windows, 0),
            }; // [n * b, 3, height, width]
            let logits = with_precision(self.precision, || self.network.predict_logits(windows)); // of n * b images
            grids.extend((0..places.len()).map(|i| logits.images(i * b..(i + 1) * b)));
        }
        let rows = grids.chunks(columns).zip(tops).map(|(grids, top)| WindowRow { top: *top, grids: grids.to_vec() });
        self.window_rows.extend(rows);
        self.next = last;
    }

    /// Rows that all lie in the same rows of windows: [b, rows, w, k].
    fn blend_rows(&self, rows: Range<usize>, covering: Range<usize>) -> Tensor<4> {
        let (height, width) = self.windows.size;
        let [_, gh, gw, _] = self.window_rows[covering.start].grids[0].maps.dims();
        let (vertical, horizontal) = (self.window_axis(gh, height), self.window_axis(gw, width));
        let window_rows = covering.clone().map(|i| &self.window_rows[i]);
        let grids: Vec<Vec<SegLogits>> = window_rows
            .map(|row| {
                let inside = rows.start - row.top..rows.end - row.top;
                let rows = |grid: &SegLogits| SegLogits {
                    maps: rows_of(&grid.maps, &vertical, inside.clone()),
                    votes: grid.votes.clone(),
                };
                row.grids.iter().map(rows).collect()
            })
            .collect(); // each [b, rows, gw, c]
        let pieces = segments(0..self.size().1, &self.windows.lefts, width).into_iter().map(|(columns, windows)| {
            let count = (grids.len() * windows.len()) as f32;
            let sum = grids.iter().flat_map(|row| windows.clone().map(move |j| (j, &row[j]))).map(|(j, grid)| {
                let left = self.windows.lefts[j];
                let maps = columns_of(&grid.maps, &horizontal, columns.start - left..columns.end - left);
                SegLogits { maps, votes: grid.votes.clone() }.scores() // [b, rows, columns, k]
            });
            let sum = sum.reduce(|sum, window| sum + window);
            sum.map(|sum| if count > 1.0 { sum / count } else { sum }) // [b, rows, columns, k]
        });
        Tensor::cat(pieces.flatten().collect(), 2) // [b, rows, w, k]
    }
}

/// The bilinear axis that every logit map is resized with.
pub(super) fn axis(from: usize, to: usize) -> Axis {
    Axis::new(from, to, Mode::Bilinear, false)
}

/// Some rows of `x` [b, h, w, c] resized along `axis`.
fn rows_of(x: &Tensor<4>, axis: &Axis, outputs: Range<usize>) -> Tensor<4> {
    along_height(x.clone(), axis.matrix(outputs, 0..x.dims()[1], &x.device(), x.dtype())) // [b, outputs, w, c]
}

/// Some columns of `x` [b, h, w, c] resized along `axis`.
fn columns_of(x: &Tensor<4>, axis: &Axis, outputs: Range<usize>) -> Tensor<4> {
    along_width(x.clone(), axis.matrix(outputs, 0..x.dims()[2], &x.device(), x.dtype())) // [b, h, outputs, c]
}

/// Cuts `range` where the set of intervals `[start, start + length)` that hold a place changes; the starts ascend.
/// Gives each piece with the indices of the intervals that cover it.
fn segments(range: Range<usize>, starts: &[usize], length: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let mut cuts: Vec<usize> = starts.iter().flat_map(|start| [*start, start + length]).collect();
    cuts.extend([range.start, range.end]);
    cuts.retain(|cut| (range.start..=range.end).contains(cut));
    cuts.sort_unstable();
    cuts.dedup();
    let covering = |from: usize| {
        let first = starts.partition_point(|start| start + length <= from);
        let end = starts.partition_point(|start| *start <= from);
        assert!(first < end, "no window covers row or column {from}");
        first..end
    };
    cuts.windows(2).map(|cut| (cut[0]..cut[1], covering(cut[0]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_know_their_windows() {
        let pieces = segments(0..10, &[0, 3, 5], 5);
        assert_eq!(pieces, [(0..3, 0..1), (3..5, 0..2), (5..8, 1..3), (8..10, 2..3)]);
        assert_eq!(segments(4..6, &[0, 3, 5], 5), [(4..5, 0..2), (5..6, 1..3)]);
    }
}
