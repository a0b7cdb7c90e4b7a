//! Convolution as a product, without a matrix of columns.
//!
//! A task takes some lines of the output. It lays out for each the pixels of the input that the line sees, those above
//! each other side by side: `[pixels, kh, c]`. What one output sees is then a contiguous row, and the next one's begins
//! `stride` pixels later, so rows overlap in memory and each value is copied `kh` times rather than `kh kw` times.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bridge::SharedBuffer;
use crate::kernels::conv::Map;
use crate::kernels::matmul::{Panels, Precision, View, second_level_cache};
use crate::kernels::vector::{load, put, store, vectors};

/// Where the outputs of a convolution look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Rows and columns of the kernel.
    pub(super) taps: [usize; 2],
    /// Pixels from what one output sees to what the next one does.
    pub(super) stride: usize,
    /// Rows and columns by which the first output's sight begins before the map.
    pub(super) before: [isize; 2],
    /// Rows and columns of the output.
    pub(super) size: [usize; 2],
}

/// Where outputs go: every `step`-th pixel of a map from `first` on.
#[derive(Clone, Copy)]
pub(super) struct OutputGrid {
    pub(super) map: Map,
    pub(super) first: [usize; 2],
    pub(super) step: usize,
}

thread_local! {
    /// Lines as they are seen, and of the output.
    static LINES: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

fn at_least(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if values.len() < len {
        values.resize(len, 0.0);
    }
    &mut values[..len]
}

/// Some channels of a map, seen line by line.
#[derive(Clone)]
struct Sight<'a> {
    x: &'a [f32],
    map: Map,
    channels: Range<usize>,
    window: Window,
}

impl Sight<'_> {
    /// Pixels from one output to the next, as laid out.
    fn step(&self) -> usize {
        self.window.stride.min(self.window.taps[1])
    }

    /// Outputs a line has room for; the last ones may see what belongs to two lines.
    fn outputs(&self) -> usize {
        self.window.size[1] + (self.window.taps[1] - self.step()).div_ceil(self.step())
    }

    /// Values of a line.
    fn line(&self) -> usize {
        self.outputs() * self.step() * self.pixel()
    }

    /// Values of a pixel and those below it.
    fn pixel(&self) -> usize {
        self.window.taps[0] * self.channels.len()
    }

    /// Values that an output sees.
    fn inner(&self) -> usize {
        self.window.taps[1] * self.pixel()
    }

    /// Lines of the output in all images.
    fn lines(&self) -> usize {
        self.map.b * self.window.size[0]
    }

    /// Lays out some lines, and calls the matrix of what their outputs see.
    fn lay_out<'a>(&self, lines: Range<usize>, place: &'a mut [f32]) -> View<'a> {
        let rows = (lines.len() - 1) * self.outputs() + self.window.size[1];
        vectors(LayOut { sight: self, lines, place: &mut *place });
        View::new(place, rows, self.inner(), self.step() * self.pixel())
    }

    /// Lays out a line of few channels. Four values are copied at a time: those too many are overwritten by the next
    /// ones.
    fn lay_out_few(&self, line: usize, place: &mut [f32]) {
        let Sight { x, map, channels, window } = self;
        let (n, [tall, _]) = (channels.len(), window.size);
        let (image, y) = (line / tall, line % tall);
        let rows = (0..window.taps[0]).map(|tap| {
            let row = (y * window.stride + tap).checked_add_signed(-window.before[0]).filter(|row| *row < map.h);
            row.map(|row| (image * map.h + row) * map.w)
        });
        let rows: Vec<Option<usize>> = rows.collect();
        let mut to = 0;
        for at in 0..self.outputs() * self.step() {
            let column = self.column(at);
            for row in &rows {
                let from = row.zip(column).map(|(row, column)| &x[(row + column) * map.c + channels.start..]);
                match (place[to..].first_chunk_mut::<FOUR>(), from.map(|from| (from, from.first_chunk()))) {
                    (Some(to), Some((_, Some(from)))) => *to = *from,
                    (Some(to), None) => *to = [0.0; FOUR],
                    (_, from) => {
                        let to = &mut place[to..][..n];
                        match from {
                            Some((from, _)) => to.copy_from_slice(&from[..n]),
                            None => to.fill(0.0),
                        }
                    }
                }
                to += n;
            }
        }
    }

    /// The column of the input at a pixel of a line.
    fn column(&self, at: usize) -> Option<usize> {
        let step = self.step();
        let column = (at / step * self.window.stride + at % step).checked_add_signed(-self.window.before[1])?;
        (column < self.map.w).then_some(column)
    }
}

/// Channels that are few.
const FOUR: usize = 4;

struct LayOut<'a> {
    sight: &'a Sight<'a>,
    lines: Range<usize>,
    place: &'a mut [f32],
}

impl WithSimd for LayOut<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sight, lines, place } = self;
        let Sight { x, map, channels, window } = sight;
        let n = channels.len();
        let [tall, _] = window.size;
        if n <= FOUR {
            lines.zip(place.chunks_exact_mut(sight.line())).for_each(|(line, place)| sight.lay_out_few(line, place));
            return;
        }
        for (line, place) in lines.zip(place.chunks_exact_mut(sight.line())) {
            let (image, y) = (line / tall, line % tall);
            for tap in 0..window.taps[0] {
                let row = (y * window.stride + tap).checked_add_signed(-window.before[0]).filter(|row| *row < map.h);
                let start = row.map(|row| (image * map.h + row) * map.w);
                for (at, pixel) in place.chunks_exact_mut(sight.pixel()).enumerate() {
                    let to = &mut pixel[tap * n..][..n];
                    let Some((start, column)) = start.zip(sight.column(at)) else {
                        to.fill(0.0);
                        continue;
                    };
                    let from = &x[(start + column) * map.c + channels.start..][..n];
                    for at in (0..n).step_by(S::F32_LANES) {
                        put(simd, to, at, load(simd, from, at));
                    }
                }
            }
        }
    }
}

/// The weights of a convolution as right-hand sides, some columns each, so that each stays in the second-level cache.
pub(super) struct Weights {
    sets: Vec<Panels>,
    columns: usize,
    /// Columns of a set.
    width: usize,
}

impl Weights {
    /// Packs a matrix `[what an output sees, outputs]`.
    pub(super) fn new(matrix: View, [inner, columns]: [usize; 2], precision: Precision) -> Self {
        const PANEL: usize = 32;
        let most = second_level_cache() / size_of::<f32>() / 2 / inner.max(1) / PANEL;
        let panels = columns.div_ceil(PANEL);
        let width = panels.div_ceil(panels.div_ceil(most.clamp(1, 24))) * PANEL;
        let pack = |start: usize| {
            let mut set = Panels::default();
            set.pack(matrix.columns(start..columns.min(start + width)), precision);
            set
        };
        let sets = (0..columns.div_ceil(width)).into_par_iter().map(|set| pack(set * width)).collect();
        Self { sets, columns, width }
    }
}

/// Convolves a map, and writes the outputs to their places, where nobody else writes.
pub(super) fn convolve(
    (map, window): (Map, Window),
    x: &[f32],
    weights: &Weights,
    bias: Option<&[f32]>,
    places: OutputGrid,
    out: SharedBuffer,
) {
    let sight = Sight { x, map, channels: 0..map.c, window };
    let [tall, wide] = window.size;
    let outputs = weights.columns;
    let line = sight.line() + sight.outputs() * outputs;
    let cache_floats = second_level_cache() / size_of::<f32>() / 2;
    let share = sight.lines().div_ceil(rayon::current_num_threads());
    let lines = (cache_floats / line).min(share).max(1);
    (0..sight.lines().div_ceil(lines)).into_par_iter().for_each(|task| {
        let range = task * lines..sight.lines().min((task + 1) * lines);
        LINES.with_borrow_mut(|[seen, products]| {
            let seen = at_least(seen, range.len() * sight.line());
            let matrix = sight.lay_out(range.clone(), seen);
            let products = at_least(products, range.len() * sight.outputs() * outputs + outputs);
            for (set, panels) in weights.sets.iter().enumerate() {
                panels.write(
                    matrix,
                    1.0,
                    crate::kernels::matmul::rewrite(&mut products[set * weights.width..]),
                    outputs,
                );
            }
            let OutputGrid { map, first, step } = places;
            for (line, products) in range.zip(products.chunks_exact(sight.outputs() * outputs)) {
                let (image, y) = (line / tall, line % tall);
                let start = (image * map.h + y * step + first[0]) * map.w + first[1];
                let products = &products[..wide * outputs];
                if step == 1 {
                    // SAFETY: every line is written once.
                    finish(products, bias, unsafe { out.slice(start * outputs, wide * outputs) });
                } else {
                    for (column, product) in products.chunks_exact(outputs).enumerate() {
                        // SAFETY: every pixel is written once.
                        finish(product, bias, unsafe { out.slice((start + column * step) * outputs, outputs) });
                    }
                }
            }
        });
    });
}

/// Writes zeros to places that see nothing.
pub(super) fn clear([tall, wide]: [usize; 2], places: OutputGrid, out: SharedBuffer) {
    let OutputGrid { map, first, step } = places;
    (0..map.b * tall).into_par_iter().for_each(|line| {
        let (image, y) = (line / tall, line % tall);
        let start = (image * map.h + y * step + first[0]) * map.w + first[1];
        for column in 0..wide {
            // SAFETY: every pixel is written once.
            unsafe { out.slice((start + column * step) * map.c, map.c) }.fill(MaybeUninit::new(0.0));
        }
    });
}

/// Writes products of several pixels, and adds the bias.
fn finish(products: &[f32], bias: Option<&[f32]>, out: &mut [MaybeUninit<f32>]) {
    match bias {
        None => _ = out.write_copy_of_slice(products),
        Some(bias) => vectors(Finish { products, bias, out }),
    }
}

struct Finish<'a> {
    products: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.bias.len();
        for (product, out) in self.products.chunks_exact(n).zip(self.out.chunks_exact_mut(n)) {
            for at in (0..n).step_by(S::F32_LANES) {
                store(simd, out, at, simd.add_f32s(load(simd, product, at), load(simd, self.bias, at)));
            }
        }
    }
}

/// Input channels that a task of the weights' gradient takes; fixed, as all of it is, so that sums always add up in the
/// same order.
const CHANNELS: usize = 64;
/// Output channels that it takes.
const OUTPUTS: usize = 256;
/// Outputs whose products are summed at once, about.
const AT_ONCE: usize = 256;
/// Outputs that are worth a task.
const PART: usize = 16 * AT_ONCE;
/// Most tasks, if these do not concern different channels: each has sums of its own.
const TASKS: usize = 64;

/// The gradient of the weights, `[o, c, kh, kw]`, for `x [b, h, w, c]` and `dy [b, ho, wo, o]`.
pub(super) fn weight_gradient(
    (map, window): (Map, Window),
    x: &[f32],
    dy: &[f32],
    outputs: usize,
    precision: Precision,
) -> Vec<f32> {
    let cut = |n: usize, most: usize| (0..n).step_by(most).map(move |start| start..n.min(start + most));
    let blocks: Vec<[Range<usize>; 2]> =
        cut(map.c, CHANNELS).flat_map(|c| cut(outputs, OUTPUTS).map(move |o| [c.clone(), o])).collect();
    let lines = map.b * window.size[0];
    let at_once = AT_ONCE.div_ceil(window.size[1]);
    let parts = (lines * window.size[1] / PART).clamp(1, TASKS.div_ceil(blocks.len()));
    let length = lines.div_ceil(parts).next_multiple_of(at_once);
    let sums: Vec<Vec<f32>> = (0..blocks.len() * parts)
        .into_par_iter()
        .map(|task| {
            let [channels, wanted] = blocks[task / parts].clone();
            let sight = Sight { x, map, channels, window };
            let start = (task % parts * length).min(lines);
            let mut sums = vec![0.0; sight.inner() * wanted.len()];
            for first in (start..lines.min(start + length)).step_by(at_once) {
                let range = first..lines.min(start + length).min(first + at_once);
                add_products(&sight, range, dy, outputs, wanted.clone(), precision, &mut sums);
            }
            sums
        })
        .collect();
    let [tall, wide] = window.taps;
    let mut dw = vec![0.0; outputs * map.c * tall * wide];
    for (task, sums) in sums.iter().enumerate() {
        let [channels, wanted] = &blocks[task / parts];
        for (row, sums) in sums.chunks_exact(wanted.len()).enumerate() {
            let (tap, c) = (row / channels.len(), channels.start + row % channels.len());
            let (column, row) = (tap / tall, tap % tall);
            for (o, sum) in wanted.clone().zip(sums) {
                dw[((o * map.c + c) * tall + row) * wide + column] += sum;
            }
        }
    }
    dw
}

/// Adds the products of what some lines' outputs see and their gradients: `sums [inner, wanted]`.
fn add_products(
    sight: &Sight,
    lines: Range<usize>,
    dy: &[f32],
    outputs: usize,
    wanted: Range<usize>,
    precision: Precision,
    sums: &mut [f32],
) {
    let n = wanted.len();
    let wide = sight.window.size[1];
    LINES.with_borrow_mut(|[seen, felt]| {
        let seen = at_least(seen, lines.len() * sight.line());
        let matrix = sight.lay_out(lines.clone(), seen);
        // Outputs that see two lines are none: their gradient is zero.
        let felt = at_least(felt, lines.len() * sight.outputs() * n);
        for (line, felt) in lines.clone().zip(felt.chunks_exact_mut(sight.outputs() * n)) {
            let (inside, rest) = felt.split_at_mut(wide * n);
            let dy = dy[line * wide * outputs..][..wide * outputs].chunks_exact(outputs);
            inside.chunks_exact_mut(n).zip(dy).for_each(|(to, dy)| to.copy_from_slice(&dy[wanted.clone()]));
            rest.fill(0.0);
        }
        let rows = (lines.len() - 1) * sight.outputs() + wide;
        let mut panels = Panels::default();
        panels.pack(View::new(felt, rows, n, n), precision);
        panels.add_to(matrix.t(), 1.0, sums);
    });
}
