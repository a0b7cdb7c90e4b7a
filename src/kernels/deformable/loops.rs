//! The loops of deformable attention over a query, and over the queries of a map.

use std::mem::MaybeUninit;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::bilinear::Corners;
use crate::kernels::bridge::{SharedBuffer, uninitialized, written};
use crate::kernels::vector::{self, load, put, starts, store, vectors};

/// A map among the tokens.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Level {
    pub(in crate::kernels) start: usize,
    pub(in crate::kernels) h: usize,
    pub(in crate::kernels) w: usize,
}

pub(super) fn levels(shapes: &[(usize, usize)]) -> Vec<Level> {
    let mut start = 0;
    let level = |&(h, w): &(usize, usize)| {
        let level = Level { start, h, w };
        start += h * w;
        level
    };
    shapes.iter().map(level).collect()
}

/// The sizes of the operands.
#[derive(Clone, Copy)]
pub(super) struct Extent<'a> {
    pub(super) b: usize,
    pub(super) n: usize,
    pub(super) q: usize,
    pub(super) heads: usize,
    pub(super) d: usize,
    pub(super) points: usize,
    pub(super) levels: &'a [Level],
}

impl<'a> Extent<'a> {
    pub(super) fn of(levels: &'a [Level], operands: &[FlexTensor]) -> Self {
        let (value, weights) = (operands[0].shape(), operands[2].shape());
        let (b, n, heads, d) = (value[0], value[1], value[2], value[3]);
        Self { b, n, q: weights[1], heads, d, points: weights[4], levels }
    }

    /// What a query reads: points of all heads and levels.
    pub(super) fn samples(&self) -> usize {
        self.heads * self.levels.len() * self.points
    }

    /// The values that the queries of `row` [b q] read.
    pub(super) fn sample<'b>(&self, value: &'b [f32], row: usize) -> &'b [f32] {
        let len = self.n * self.heads * self.d;
        &value[row / self.q * len..][..len]
    }

    /// The samples of a query's head with their levels, in their order.
    #[inline(always)]
    fn of_head(self, head: usize) -> impl Iterator<Item = (usize, &'a Level)> {
        let first = head * self.levels.len() * self.points;
        let each = move |(i, level)| (0..self.points).map(move |p| (first + i * self.points + p, level));
        self.levels.iter().enumerate().flat_map(each)
    }

    /// Where the values of the four cells lie.
    #[inline(always)]
    fn offsets(&self, level: &Level, head: usize, corners: &Corners) -> [usize; 4] {
        corners.cells.map(|cell| ((level.start + cell) * self.heads + head) * self.d)
    }
}

/// The output of one query.
pub(super) struct Forward<'a> {
    pub(super) extent: Extent<'a>,
    pub(super) value: &'a [f32],
    pub(super) locations: &'a [f32],
    pub(super) weights: &'a [f32],
    /// Offsets and weights of what a head adds up; scratch.
    pub(super) taps: &'a mut Vec<(usize, f32)>,
    pub(super) y: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { extent, value, locations, weights, taps, y } = self;
        let d = extent.d;
        for (head, y) in y.chunks_exact_mut(d).enumerate() {
            taps.clear();
            for (i, level) in extent.of_head(head) {
                let corners = Corners::new(locations[2 * i], locations[2 * i + 1], level.h, level.w);
                let offsets = extent.offsets(level, head, &corners);
                taps.extend([0, 1, 2, 3].map(|k| (offsets[k], corners.weights[k] * weights[i])));
            }
            for at in starts(simd, d) {
                let mut sum = simd.splat_f32s(0.0);
                for (offset, weight) in taps.iter() {
                    sum = simd.mul_add_f32s(simd.splat_f32s(*weight), load(simd, &value[*offset..][..d], at), sum);
                }
                store(simd, y, at, sum);
            }
        }
    }
}

/// The gradients of one query's locations and weights.
pub(super) struct Backward<'a> {
    pub(super) extent: Extent<'a>,
    pub(super) value: &'a [f32],
    pub(super) locations: &'a [f32],
    pub(super) weights: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) dlocations: &'a mut [f32],
    pub(super) dweights: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { extent, value, locations, weights, dy, dlocations, dweights } = self;
        let d = extent.d;
        for (head, dy) in dy.chunks_exact(d).take(extent.heads).enumerate() {
            for (i, level) in extent.of_head(head) {
                let corners = Corners::new(locations[2 * i], locations[2 * i + 1], level.h, level.w);
                let rows = extent.offsets(level, head, &corners).map(|offset| &value[offset..][..d]);
                let mut sums = [simd.splat_f32s(0.0); 4];
                for at in starts(simd, d) {
                    let dy = load(simd, dy, at);
                    for k in 0..4 {
                        sums[k] = simd.mul_add_f32s(dy, load(simd, rows[k], at), sums[k]);
                    }
                }
                // How the loss changes with the shares of the four cells.
                let slopes = sums.map(|sum| vector::sum(simd, sum));
                let dot = |a: [f32; 4]| (0..4).map(|k| a[k] * slopes[k]).sum::<f32>();
                dweights[i] = dot(corners.weights);
                dlocations[2 * i] = dot(corners.slopes[0]) * weights[i] * level.w as f32;
                dlocations[2 * i + 1] = dot(corners.slopes[1]) * weights[i] * level.h as f32;
            }
        }
    }
}

pub(super) fn value_gradient(extent: Extent, locations: &[f32], weights: &[f32], dy: &[f32]) -> Vec<f32> {
    let Extent { b, n, heads, d, levels, .. } = extent;
    let mut dvalue = uninitialized(b * n * heads * d);
    let out = SharedBuffer::new(&mut dvalue);
    (0..b * heads * levels.len()).into_par_iter().for_each_init(Vec::new, |map, task| {
        let (sample, head, level) = (task / levels.len() / heads, task / levels.len() % heads, task % levels.len());
        map.clear();
        map.resize(levels[level].h * levels[level].w * d, 0.0);
        vectors(Scatter { extent, sample, head, level, locations, weights, dy, map });
        for (cell, values) in map.chunks_exact(d).enumerate() {
            let token = sample * n + levels[level].start + cell;
            // SAFETY: a task has a head, sample and level of its own.
            unsafe { out.slice((token * heads + head) * d, d) }.write_copy_of_slice(values);
        }
    });
    // SAFETY: the levels cover the tokens.
    unsafe { written(dvalue) }
}

/// The gradient of one head's values on one level, added to `map` [h w, d].
struct Scatter<'a> {
    extent: Extent<'a>,
    sample: usize,
    head: usize,
    level: usize,
    locations: &'a [f32],
    weights: &'a [f32],
    dy: &'a [f32],
    map: &'a mut [f32],
}

impl WithSimd for Scatter<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { extent, sample, head, level, locations, weights, dy, map } = self;
        let Extent { q, heads, d, points, levels, .. } = extent;
        let Level { h, w, .. } = levels[level];
        for query in sample * q..(sample + 1) * q {
            let dy = &dy[(query * heads + head) * d..][..d];
            let first = ((query * heads + head) * levels.len() + level) * points;
            for i in first..first + points {
                let corners = Corners::new(locations[2 * i], locations[2 * i + 1], h, w);
                for k in 0..4 {
                    let row = &mut map[corners.cells[k] * d..][..d];
                    let weight = simd.splat_f32s(corners.weights[k] * weights[i]);
                    for at in starts(simd, d) {
                        let sum = simd.mul_add_f32s(weight, load(simd, dy, at), load(simd, row, at));
                        put(simd, row, at, sum);
                    }
                }
            }
        }
    }
}
