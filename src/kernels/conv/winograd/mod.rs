//! 3x3 convolution, stride 1, zero padding 1, by Winograd's F(4x4, 3x3): a quarter of the multiplications.
//!
//! A tile of 4x4 outputs depends on 6x6 inputs. Both, and the weights, are taken to 36 points, where the convolution is
//! a product at each point by itself: 36 products `[tiles, c] x [c, o]`, for as many tiles at a time as stay in the
//! second-level cache. The input gradient is the same with the weights mirrored; that of the weights goes the other way
//! through the same points.

mod gradient;
mod points;
mod tiles;

use std::cell::RefCell;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::kernels::bridge::{SharedBuffer, uninitialized, written};
use crate::kernels::conv::Map;
use crate::kernels::matmul::{Panels, Precision, View, second_level_cache, tile_rows};
use crate::kernels::vector::vectors;
pub(super) use gradient::weight_gradient;
use points::{PLANES, Seen};
use tiles::{Planes, SpreadWeights, Tiles, ToPixels, ToPoints};

/// Values that a 3x3 convolution keeps for each pair of channels.
pub(crate) const CONV_POINTS: usize = PLANES;

thread_local! {
    /// The points of some tiles: what goes into the products, and what comes out.
    static POINTS: RefCell<[Vec<MaybeUninit<f32>>; 2]> = RefCell::default();
    /// The weights at every point, kept to be written over.
    static FILTERS: RefCell<Vec<Panels>> = const { RefCell::new(Vec::new()) };
}

/// At least as many values.
fn at_least(values: &mut Vec<MaybeUninit<f32>>, len: usize) -> &mut [MaybeUninit<f32>] {
    if values.len() < len {
        *values = uninitialized(len);
    }
    &mut values[..len]
}

/// Values of a plane, and a line of cache more where planes would otherwise fall into the same few sets.
fn plane(values: usize) -> usize {
    values.next_multiple_of(16) + 16
}

/// The written values as such.
///
/// # Safety
/// They have been written.
unsafe fn known(values: &[MaybeUninit<f32>]) -> &[f32] {
    // SAFETY: same layout; the caller vouches for the contents.
    unsafe { &*(std::ptr::from_ref(values) as *const [f32]) }
}

/// Convolves `x [b, h, w, c]` by `weight [o, c, 9]` to `[b, h, w, o]`; `mirrored`, `x` has `o` channels, the result
/// `c`, and each tap is the opposite one.
pub(super) fn convolve(map: Map, x: &[f32], weight: &[f32], mirrored: bool, bias: Option<&[f32]>) -> Vec<f32> {
    let outputs = weight.len() / 9 / map.c;
    // Taken, since who waits for other tasks may come by here again.
    let mut packed = FILTERS.take();
    filters(weight, [map.c, outputs], mirrored, &mut packed);
    let tiles = Tiles::of(map);
    let out_tiles = Tiles::of(Map { c: outputs, ..map });
    let mut y = uninitialized(map.pixels() * outputs);
    let out = SharedBuffer::new(&mut y);
    let most = at_once(map.c, outputs, tiles.count());
    (0..tiles.count().div_ceil(most)).into_par_iter().for_each(|chunk| {
        let range = chunk * most..tiles.count().min((chunk + 1) * most);
        POINTS.with_borrow_mut(|[before, after]| {
            let (plane_in, plane_out) = (plane(range.len() * map.c), plane(range.len() * outputs));
            let before = at_least(before, PLANES * plane_in);
            let after = at_least(after, PLANES * plane_out);
            let planes = Planes::Rows(before, plane_in);
            vectors(ToPoints::<Seen, 6>::of(x, tiles, &range, 0..map.c, planes));
            for (p, filter) in packed.iter().enumerate() {
                // SAFETY: all tiles have been taken to their points.
                let before = unsafe { known(&before[p * plane_in..][..range.len() * map.c]) };
                let view = View::new(before, range.len(), map.c, map.c);
                filter.write(view, 1.0, &mut after[p * plane_out..][..range.len() * outputs], outputs);
            }
            // The products have been written, and every tile belongs to one task.
            vectors(ToPixels { points: after, plane: plane_out, all: out_tiles, tiles: range, bias, out });
        });
    });
    FILTERS.set(packed);
    // SAFETY: the tiles cover the map.
    unsafe { written(y) }
}

/// Tiles that a task takes at once: as many as stay in the second-level cache, and the same for all threads.
fn at_once(inputs: usize, outputs: usize, tiles: usize) -> usize {
    let rows = tile_rows(Precision::F32);
    let cache_floats = second_level_cache() / size_of::<f32>() / 2;
    let most = (cache_floats / PLANES / (inputs + outputs) / rows).max(2) * rows;
    let threads = rayon::current_num_threads();
    if tiles >= 2 * threads * most { most } else { tiles.div_ceil(tiles.div_ceil(most).next_multiple_of(threads)) }
}

/// Rows of the weights that a task takes to their points.
const ROWS: usize = 8;

/// The weights at every point as right-hand sides `[inputs, outputs]`, in place of earlier ones.
fn filters(weight: &[f32], [inputs, outputs]: [usize; 2], mirrored: bool, filters: &mut Vec<Panels>) {
    filters.resize_with(PLANES, Panels::default);
    let mut layout = None;
    let rooms = filters.iter_mut().map(|filter| {
        let (values, places) = filter.reserve(inputs, outputs);
        layout = Some(places);
        SharedBuffer::new(values)
    });
    let rooms: Vec<SharedBuffer> = rooms.collect();
    let Some(layout) = layout else { return };
    // A line more, so that what is written at once does not fall into the same few sets of the cache.
    let stride = outputs.next_multiple_of(16) + 16;
    let tasks = (0..inputs.div_ceil(ROWS)).into_par_iter().with_min_len(4096usize.div_ceil(ROWS * outputs));
    tasks.for_each_init(Vec::new, |weights, task| {
        let rows = task * ROWS..inputs.min((task + 1) * ROWS);
        weights.resize(rows.len() * 9 * stride, 0.0);
        if mirrored {
            for (weights, row) in weights.chunks_exact_mut(9 * stride).zip(rows.clone()) {
                for (c, from) in weight[row * outputs * 9..][..outputs * 9].as_chunks::<9>().0.iter().enumerate() {
                    (0..9).for_each(|tap| weights[tap * stride + c] = from[8 - tap]);
                }
            }
        } else {
            for o in 0..outputs {
                let from = &weight[(o * inputs + rows.start) * 9..][..rows.len() * 9];
                from.iter().enumerate().for_each(|(i, value)| weights[i * stride + o] = *value);
            }
        }
        vectors(SpreadWeights { weights, first: rows.start, outputs, stride, layout, rooms: &rooms });
    });
}
