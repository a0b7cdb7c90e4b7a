//! The gradient of the weights, through the points.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::conv::winograd::points::{Felt, PLANES, Seen};
use crate::kernels::conv::winograd::tiles::{Gather, Planes, Tiles, ToPoints};
use crate::kernels::conv::winograd::{Map, POINTS, at_least, known, plane};
use crate::kernels::matmul::{Panels, View};
use crate::kernels::vector::vectors;

/// Input or output channels that a task takes; fixed, as all here is, so that sums always add up in the same order.
const CHANNELS: usize = 64;
/// Tiles that a task takes at once.
const AT_ONCE: usize = 42;
/// Tiles that are worth a task.
const PART: usize = 12 * AT_ONCE;
/// Most tasks, if these do not concern different channels: each has sums of its own.
const TASKS: usize = 64;

thread_local! {
    /// The gradient at every point.
    static SUMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// The output's gradient at every point.
    static PACKED: RefCell<Vec<Panels>> = const { RefCell::new(Vec::new()) };
}

/// The gradient `[o, c, 9]` for `x [b, h, w, c]` and `dy [b, h, w, o]`.
pub(in super::super) fn weight_gradient(map: Map, x: &[f32], dy: &[f32], outputs: usize) -> Vec<f32> {
    let cut = |n: usize| (0..n).step_by(CHANNELS).map(move |start| start..n.min(start + CHANNELS));
    let blocks: Vec<[Range<usize>; 2]> = cut(map.c).flat_map(|c| cut(outputs).map(move |o| [c.clone(), o])).collect();
    let tiles = Tiles::of(map);
    let parts = (tiles.count() / PART).clamp(1, TASKS.div_ceil(blocks.len()));
    let length = tiles.count().div_ceil(parts).next_multiple_of(AT_ONCE);
    let tasks: Vec<Vec<f32>> = (0..blocks.len() * parts)
        .into_par_iter()
        .map(|task| {
            let start = task % parts * length;
            let range = start.min(tiles.count())..tiles.count().min(start + length);
            gradient(map, [x, dy], outputs, blocks[task / parts].clone(), range)
        })
        .collect();
    let mut dw = vec![0.0; outputs * map.c * 9];
    for (task, weights) in tasks.iter().enumerate() {
        let [inputs, outputs] = &blocks[task / parts];
        let plane = inputs.len() * outputs.len();
        for (i, c) in inputs.clone().enumerate() {
            for (j, o) in outputs.clone().enumerate() {
                for (tap, place) in dw[(o * map.c + c) * 9..][..9].iter_mut().enumerate() {
                    *place += weights[tap * plane + i * outputs.len() + j];
                }
            }
        }
    }
    dw
}

/// The gradient `[9, inputs, outputs]` of what some tiles add to it.
fn gradient(map: Map, [x, dy]: [&[f32]; 2], outputs: usize, block: [Range<usize>; 2], tiles: Range<usize>) -> Vec<f32> {
    let [inputs, wanted] = block;
    let (wide, high) = (wanted.len(), inputs.len());
    let mut sums = SUMS.take();
    sums.clear();
    sums.resize(PLANES * high * wide, 0.0);
    let (seen, felt) = (Tiles::of(map), Tiles::of(Map { c: outputs, ..map }));
    let mut packed = PACKED.take();
    packed.resize_with(PLANES, Panels::default);
    for start in tiles.clone().step_by(AT_ONCE) {
        let tiles = start..tiles.end.min(start + AT_ONCE);
        let n = tiles.len();
        POINTS.with_borrow_mut(|[before, _]| {
            let plane = plane(n * high);
            let before = at_least(before, PLANES * plane);
            vectors(ToPoints::<Seen, 6>::of(x, seen, &tiles, inputs.clone(), Planes::Rows(before, plane)));
            vectors(ToPoints::<Felt, 4>::of(dy, felt, &tiles, wanted.clone(), Planes::Packed(&mut packed)));
            for (p, (sums, packed)) in sums.chunks_exact_mut(high * wide).zip(&packed).enumerate() {
                // SAFETY: all tiles have been taken to their points.
                let x = unsafe { known(&before[p * plane..][..n * high]) };
                packed.add_to(View::new(x, n, high, high).t(), 1.0, sums);
            }
        });
    }
    PACKED.set(packed);
    let mut weights = vec![0.0; 9 * high * wide];
    vectors(Gather { points: &sums, weights: &mut weights });
    SUMS.set(sums);
    weights
}
