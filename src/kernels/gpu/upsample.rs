//! Bilinear upsampling a pixel at a time, and the class of each pixel found on the way.

use burn::backend::Cube;
use burn::tensor::{DType, Int, Shape, Tensor};
use cubecl::prelude::*;

use crate::kernels::gpu::bridge::{primitive, queue_one};
use crate::kernels::gpu::rows::{cubes_for, flat_cube, index};
use crate::kernels::upsample::Source;

/// Labels of a word that the device stores.
const LABELS: usize = 4;

/// The class of the highest score of every pixel, of equals the first, four labels in a word: `grids [n, b, h, w, k]`
/// to `[b, rows, columns / 4]`. See [`upsample_argmax`](crate::kernels::upsample_argmax).
pub(in crate::kernels) fn argmax(grids: Tensor<5>, rows: &[Vec<Source>], columns: &[Vec<Source>]) -> Tensor<3, Int> {
    let [_, b, h, w, k] = grids.dims();
    let (vertical, horizontal) = (Table::new(rows), Table::new(columns));
    let windows_across = columns.iter().flatten().map(|source| source.window + 1).max().unwrap_or(1);
    let (height, width) = (rows.len(), columns.len());
    let words = width.div_ceil(LABELS);
    let grids = primitive(grids);
    let output = (Shape::new([b, height, words]), DType::U32);
    let labels = queue_one("upsample_argmax", vec![grids], output, move |buffers| {
        let upload = |table: &Table| (buffers.constant(&table.places), buffers.constant(&table.weights));
        let ((row_places, row_weights), (column_places, column_weights)) = (upload(&vertical), upload(&horizontal));
        // SAFETY: the tables name cells of the grids, and a unit writes its own word.
        unsafe {
            argmax_pixels::launch_unchecked(
                buffers.client(),
                cubes_for(b * height * words),
                flat_cube(),
                buffers.input(0),
                row_places,
                row_weights,
                column_places,
                column_weights,
                buffers.output(0),
                b,
                h,
                w,
                k,
                windows_across,
                height,
                width,
                vertical.each,
                horizontal.each,
            );
        }
    });
    Tensor::from_primitive::<Cube>(labels)
}

/// The sources of every row, or column, `each` of them; one that is not there has weights of 0.
struct Table {
    each: usize,
    /// Window, low and high cell.
    places: Vec<u32>,
    /// Those of the two cells, and 1, or 0 for a source that is not there.
    weights: Vec<f32>,
}

impl Table {
    fn new(outputs: &[Vec<Source>]) -> Self {
        let each = outputs.iter().map(Vec::len).max().unwrap_or(0);
        let (mut places, mut weights) = (Vec::new(), Vec::new());
        for sources in outputs {
            for i in 0..each {
                let (place, weight) = match sources.get(i) {
                    Some(source) => {
                        let [(low, low_weight), (high, high_weight)] = source.taps;
                        ([source.window, low, high], [low_weight, high_weight])
                    }
                    None => ([0; 3], [0.0; 2]),
                };
                places.extend(place.map(|place| place as u32));
                weights.extend(weight);
            }
        }
        Self { each, places, weights }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn argmax_pixels(
    grids: &[f32],
    row_places: &[u32],
    row_weights: &[f32],
    column_places: &[u32],
    column_weights: &[f32],
    labels: &mut [u32],
    batch: usize,
    h: usize,
    w: usize,
    k: usize,
    windows_across: usize,
    height: usize,
    width: usize,
    rows_each: usize,
    columns_each: usize,
) {
    let at = index();
    let words = (width + LABELS - 1) / LABELS;
    if at < batch * height * words {
        let image = at / (height * words);
        let row = (at / words) % height;
        let mut word = 0u32;
        for i in 0..LABELS {
            // Past the end of a row, its last pixel is found again.
            let column = min((at % words) * LABELS + i, width - 1);
            let mut best = f32::new(-3.0e38f32);
            let mut label = 0u32;
            for class in 0..k {
                let mut score = 0.0f32;
                for r in 0..rows_each {
                    let down = row * rows_each + r;
                    for c in 0..columns_each {
                        let across = column * columns_each + c;
                        let window =
                            row_places[down * 3] as usize * windows_across + column_places[across * 3] as usize;
                        let map = (window * batch + image) * h;
                        let low = (map + row_places[down * 3 + 1] as usize) * w;
                        let high = (map + row_places[down * 3 + 2] as usize) * w;
                        let left = column_places[across * 3 + 1] as usize;
                        let right = column_places[across * 3 + 2] as usize;
                        let wl = row_weights[down * 2];
                        let wh = row_weights[down * 2 + 1];
                        let at_left = grids[(low + left) * k + class] * wl + grids[(high + left) * k + class] * wh;
                        let at_right = grids[(low + right) * k + class] * wl + grids[(high + right) * k + class] * wh;
                        score += at_left * column_weights[across * 2] + at_right * column_weights[across * 2 + 1];
                    }
                }
                if score > best {
                    best = score;
                    label = class as u32;
                }
            }
            word |= label << (i as u32 * 8u32);
        }
        labels[at] = word;
    }
}

/// The source cells of the `i`-th of `out` outputs over `size` cells, and the weight of the second; align_corners is
/// false. Exact up to the last division.
#[cube]
pub(super) fn position(i: usize, size: usize, out: usize) -> (usize, usize, f32) {
    let twice = (2 * i + 1) * size;
    let mut numerator = 0usize;
    if twice > out {
        numerator = twice - out;
    }
    let low = min(numerator / (2 * out), size - 1);
    let high = min(low + 1, size - 1);
    let t = f32::cast_from(numerator - low * 2 * out) / f32::cast_from(2 * out);
    (low, high, t)
}
