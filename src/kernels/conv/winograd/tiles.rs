//! Tiles taken to their points and back, vectorised over the channels.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::kernels::bridge::SharedBuffer;
use crate::kernels::matmul::{Layout, Panels};
use crate::kernels::vector::{load, put};

use crate::kernels::conv::Map;
use crate::kernels::conv::winograd::points::{PLANES, POINTS, SIDE, Transform, gather, pixels, spread};

/// The tiles that cover a map.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    map: Map,
    tall: usize,
    wide: usize,
}

impl Tiles {
    pub(super) fn of(map: Map) -> Self {
        Self { map, tall: map.h.div_ceil(SIDE), wide: map.w.div_ceil(SIDE) }
    }

    pub(super) fn count(&self) -> usize {
        self.map.b * self.tall * self.wide
    }

    /// The image, and the first row and column of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (row, column) = (tile / self.wide, tile % self.wide);
        (row / self.tall, row % self.tall * SIDE, column * SIDE)
    }
}

/// Both steps of a transform of `[N, N]` values to `[M, M]`, the first one down the columns: takes each value when it
/// is needed, and hands over each row when it is there.
macro_rules! both_ways {
    ($simd:expr, $n:expr, $m:expr, $step:expr, |$r:ident, $q:ident| $value:expr, |$row:ident, $values:ident| $sink:expr) => {{
        let mut halfway = [[$simd.splat_f32s(0.0); $n]; $m];
        for $q in 0..$n {
            let mut line = [$simd.splat_f32s(0.0); $n];
            for $r in 0..$n {
                line[$r] = $value;
            }
            let line = $step($simd, line);
            for row in 0..$m {
                halfway[row][$q] = line[row];
            }
        }
        for $row in 0..$m {
            let $values = $step($simd, halfway[$row]);
            $sink;
        }
    }};
}

/// Takes some channels of some tiles to their points.
pub(super) struct ToPoints<'a, T, const N: usize> {
    transform: PhantomData<T>,
    x: &'a [f32],
    all: Tiles,
    tiles: Range<usize>,
    channels: Range<usize>,
    planes: Planes<'a>,
}

impl<'a, T, const N: usize> ToPoints<'a, T, N> {
    /// `x` has the shape of the map that `all` tiles cover.
    pub(super) fn of(
        x: &'a [f32],
        all: Tiles,
        tiles: &Range<usize>,
        channels: Range<usize>,
        planes: Planes<'a>,
    ) -> Self {
        Self { transform: PhantomData, x, all, tiles: tiles.clone(), channels, planes }
    }
}

/// Where points go: as many planes, with a row for each tile.
pub(super) enum Planes<'a> {
    /// `[36, plane]`, each plane row by row.
    Rows(&'a mut [MaybeUninit<f32>], usize),
    /// Right-hand sides of products.
    Packed(&'a mut [Panels]),
}

impl Planes<'_> {
    /// Where the planes begin, with room for rows of `width`, and how the packed ones lie.
    fn starts(self, rows: usize, width: usize) -> ([*mut f32; PLANES], Option<Layout>) {
        let mut starts = [std::ptr::null_mut(); PLANES];
        let mut packed = None;
        match self {
            Planes::Rows(values, plane) => {
                assert!(rows * width <= plane && PLANES * plane <= values.len());
                for (start, plane) in starts.iter_mut().zip(values.chunks_exact_mut(plane)) {
                    *start = plane.as_mut_ptr().cast();
                }
            }
            Planes::Packed(panels) => {
                assert_eq!(panels.len(), PLANES);
                for (start, panels) in starts.iter_mut().zip(panels) {
                    let (values, layout) = panels.reserve(rows, width);
                    (*start, packed) = (values.as_mut_ptr().cast(), Some(layout));
                }
            }
        }
        (starts, packed)
    }
}

impl<T: Transform<N>, const N: usize> WithSimd for ToPoints<'_, T, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, all, tiles, channels, planes, .. } = self;
        let Map { b, h, w, c } = all.map;
        let width = channels.len();
        assert!(x.len() == b * h * w * c && channels.end <= c && tiles.end <= all.count());
        let (starts, packed) = planes.starts(tiles.len(), width);
        for (row, tile) in tiles.enumerate() {
            let (image, y, column) = all.place(tile);
            // What of the patch lies inside of the map.
            let within = |start: usize, size: usize| T::BORDER.saturating_sub(start)..N.min(size + T::BORDER - start);
            let (rows, columns) = (within(y, h), within(column, w));
            let whole = rows.len() == N && columns.len() == N;
            let corner = (image * h + y) * w + column;
            // May lie before the slice; only what is inside of the map is read.
            let corner = x.as_ptr().wrapping_add(corner * c + channels.start).wrapping_sub(T::BORDER * (w + 1) * c);
            for at in (0..width).step_by(S::F32_LANES) {
                let left = (width - at).min(S::F32_LANES);
                let place = packed.map_or(row * width + at, |layout| layout.place(row, at));
                let corner = corner.wrapping_add(at);
                if whole && left == S::F32_LANES {
                    // SAFETY: all of the patch lies inside of the map.
                    let read = |r: usize, q: usize| unsafe { read(corner.wrapping_add((r * w + q) * c)) };
                    both_ways!(simd, N, POINTS, T::apply, |r, q| read(r, q), |p, values| {
                        for (q, value) in values.into_iter().enumerate() {
                            // SAFETY: there is room in every plane.
                            unsafe { write_all(starts[p * POINTS + q].wrapping_add(place), value) };
                        }
                    });
                    continue;
                }
                let read = |r: usize, q: usize| {
                    if !rows.contains(&r) || !columns.contains(&q) {
                        return simd.splat_f32s(0.0);
                    }
                    let start = corner.wrapping_add((r * w + q) * c);
                    // SAFETY: this pixel lies inside of the map, and `left` of its channels are wanted.
                    load(simd, unsafe { std::slice::from_raw_parts(start, left) }, 0)
                };
                both_ways!(simd, N, POINTS, T::apply, |r, q| read(r, q), |p, values| {
                    for (q, value) in values.into_iter().enumerate() {
                        // SAFETY: there is room in every plane.
                        unsafe { write(simd, starts[p * POINTS + q].wrapping_add(place), left, value) };
                    }
                });
            }
        }
    }
}

/// Takes the points of some tiles, planes of `[tiles, o]`, to their pixels, and adds the bias. The points have been
/// written, and nobody else holds those pixels.
pub(super) struct ToPixels<'a> {
    pub(super) points: &'a [MaybeUninit<f32>],
    pub(super) plane: usize,
    /// Those of the output.
    pub(super) all: Tiles,
    pub(super) tiles: Range<usize>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) out: SharedBuffer,
}

impl WithSimd for ToPixels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { points, plane, all, bias, out, .. } = self;
        let Map { b: _, h, w, c } = all.map;
        assert!(self.tiles.len() * c <= plane && PLANES * plane <= points.len());
        assert!(bias.is_none_or(|bias| bias.len() == c));
        for (row, tile) in self.tiles.enumerate() {
            let (image, y, column) = all.place(tile);
            let (rows, columns) = (SIDE.min(h - y), SIDE.min(w - column));
            let start = ((image * h + y) * w + column) * c;
            let mut places = [std::ptr::null_mut::<f32>(); SIDE];
            for (r, place) in places.iter_mut().enumerate().take(rows) {
                // SAFETY: nobody else holds these pixels.
                *place = unsafe { out.slice(start + r * w * c, columns * c) }.as_mut_ptr().cast();
            }
            for at in (0..c).step_by(S::F32_LANES) {
                let left = (c - at).min(S::F32_LANES);
                let from = points[row * c + at..].as_ptr().cast::<f32>();
                let bias = match bias {
                    Some(bias) => load(simd, bias, at),
                    None => simd.splat_f32s(0.0),
                };
                if left == S::F32_LANES && rows == SIDE && columns == SIDE {
                    // SAFETY: inside of the planes by the assertions, and written.
                    let read = |r: usize, q: usize| unsafe { read(from.wrapping_add((r * POINTS + q) * plane)) };
                    both_ways!(simd, POINTS, SIDE, pixels, |r, q| read(r, q), |r, values| {
                        for (q, value) in values.into_iter().enumerate() {
                            // SAFETY: the pixel lies in its row's slice.
                            unsafe { write_all(places[r].wrapping_add(q * c + at), simd.add_f32s(value, bias)) };
                        }
                    });
                    continue;
                }
                let read = |r: usize, q: usize| {
                    let from = from.wrapping_add((r * POINTS + q) * plane);
                    // SAFETY: inside of the planes by the assertions, and written.
                    load(simd, unsafe { std::slice::from_raw_parts(from, left) }, 0)
                };
                both_ways!(simd, POINTS, SIDE, pixels, |r, q| read(r, q), |r, values| {
                    for (q, value) in values.into_iter().enumerate().take(if r < rows { columns } else { 0 }) {
                        let place = places[r].wrapping_add(q * c + at);
                        // SAFETY: the pixel lies in its row's slice.
                        unsafe { write(simd, place, left, simd.add_f32s(value, bias)) };
                    }
                });
            }
        }
    }
}

/// Spreads the nine weights between some inputs and all outputs, `[rows, 9, stride]`, to the points: rows from `first`
/// on of the right-hand side of every product, which nobody else holds.
pub(super) struct SpreadWeights<'a> {
    pub(super) weights: &'a [f32],
    pub(super) first: usize,
    pub(super) outputs: usize,
    /// Values from the weights of one tap to the next.
    pub(super) stride: usize,
    pub(super) layout: Layout,
    pub(super) rooms: &'a [SharedBuffer],
}

impl WithSimd for SpreadWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (n, stride) = (self.outputs, self.stride);
        for at in (0..n).step_by(S::F32_LANES) {
            for (row, weights) in self.weights.chunks_exact(9 * stride).enumerate() {
                let read = |r: usize, q: usize| load(simd, &weights[(3 * r + q) * stride..][..n], at);
                let place = self.layout.place(self.first + row, at);
                both_ways!(simd, 3, POINTS, spread, |r, q| read(r, q), |p, values| {
                    for (room, value) in self.rooms[p * POINTS..][..POINTS].iter().zip(values) {
                        // SAFETY: nobody else holds this row, which has room for whole vectors.
                        let place = unsafe { room.slice(place, S::F32_LANES) };
                        // SAFETY: as above.
                        unsafe { write_all(place.as_mut_ptr().cast(), value) };
                    }
                });
            }
        }
    }
}

/// Gathers the gradients of the points, `[36, n]`, to those of the nine weights, `[9, n]`.
pub(super) struct Gather<'a> {
    pub(super) points: &'a [f32],
    pub(super) weights: &'a mut [f32],
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.weights.len() / 9;
        assert_eq!(self.points.len(), PLANES * n);
        for at in (0..n).step_by(S::F32_LANES) {
            let read = |r: usize, q: usize| load(simd, &self.points[(POINTS * r + q) * n..][..n], at);
            both_ways!(simd, POINTS, 3, gather, |r, q| read(r, q), |r, values| {
                for (q, value) in values.into_iter().enumerate() {
                    put(simd, &mut self.weights[(3 * r + q) * n..][..n], at, value);
                }
            });
        }
    }
}

/// # Safety
/// There is a vector.
#[inline(always)]
unsafe fn read<V: Copy>(from: *const f32) -> V {
    // SAFETY: the caller's word; a vector of numbers needs no alignment to be read so.
    unsafe { from.cast::<V>().read_unaligned() }
}

/// # Safety
/// There is room for a vector.
#[inline(always)]
unsafe fn write_all<V: Copy>(place: *mut f32, value: V) {
    // SAFETY: the caller's word.
    unsafe { place.cast::<V>().write_unaligned(value) };
}

/// # Safety
/// There is room for `left` values.
#[inline(always)]
unsafe fn write<S: Simd>(simd: S, place: *mut f32, left: usize, value: S::f32s) {
    // SAFETY: the caller's word.
    unsafe {
        if left == S::F32_LANES {
            write_all(place, value);
        } else {
            simd.mask_store_ptr_f32s(simd.mask_between_m32s(0, left as u32), place.cast(), value);
        }
    }
}
