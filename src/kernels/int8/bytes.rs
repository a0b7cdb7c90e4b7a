//! Both sides of a product as bytes, with what takes them back to numbers.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::int8::{BYTES, COLUMNS, Instructions, Tile};
use crate::kernels::simd::{fma, vectorized};

/// A line of cache, in lanes.
const LINE: usize = 16;

/// Weights as signed bytes: panels of [`COLUMNS`] outputs, `[panels, lanes, COLUMNS]`.
pub(super) struct Weight {
    panels: Vec<u32>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    lanes: usize,
}

impl Weight {
    pub(super) fn new(weight: &[f32], width: usize, instructions: Instructions) -> Self {
        let lanes = instructions.lanes(width);
        let panels = weight.len().div_ceil(width).div_ceil(COLUMNS);
        let largest = instructions.largest_weight();
        let mut all = Self {
            panels: vec![0; panels * lanes * COLUMNS],
            scales: vec![0.0; panels * COLUMNS],
            sums: vec![0; panels * COLUMNS],
            lanes,
        };
        let places = all.panels.par_chunks_mut((lanes * COLUMNS).max(1)).zip(all.scales.par_chunks_mut(COLUMNS));
        let places = places.zip(all.sums.par_chunks_mut(COLUMNS)).zip(weight.par_chunks(COLUMNS * width));
        places.for_each(|(((panel, scales), sums), weight)| {
            let mut bytes = vec![0; weight.len().div_ceil(width) * lanes];
            let rows = bytes.chunks_exact_mut(lanes).zip(weight.chunks_exact(width)).zip(scales).zip(sums);
            for (((bytes, weight), scale), sum) in rows {
                let [least, most] = range(weight);
                // A NaN, which the scale then is too, hides behind no byte.
                let limit = if least <= most { most.max(-least) } else { f32::NAN };
                *scale = limit / largest;
                let factor = if limit > 0.0 { largest / limit } else { 0.0 };
                *sum = to_bytes(weight, factor, 0.0, [-largest, largest], bytes);
            }
            for (lane, place) in panel.chunks_exact_mut(COLUMNS).enumerate() {
                for (column, place) in place.iter_mut().enumerate().take(bytes.len() / lanes) {
                    *place = bytes[column * lanes + lane];
                }
            }
        });
        all
    }

    pub(super) fn panel(&self, panel: usize) -> (&[u32], &[f32], &[i32]) {
        let size = self.lanes * COLUMNS;
        let columns = panel * COLUMNS..(panel + 1) * COLUMNS;
        (&self.panels[panel * size..(panel + 1) * size], &self.scales[columns.clone()], &self.sums[columns])
    }
}

/// Rows as bytes, in lanes of four.
pub(super) struct Rows {
    values: Vec<u32>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    pub(super) lanes: usize,
    stride: usize,
}

impl Rows {
    pub(super) fn new(x: &[f32], width: usize, instructions: Instructions) -> Self {
        let lanes = instructions.lanes(width);
        // An odd number of lines apart, so that the rows of a tile fall into different sets of the cache.
        let stride = (lanes.div_ceil(LINE) | 1) * LINE;
        let rows = x.len() / width;
        // Tiles read whole: below the last row there are more.
        let padded = rows.next_multiple_of(instructions.rows());
        let mut all =
            Self { values: vec![0; padded * stride], scales: vec![0.0; padded], zeros: vec![0; padded], lanes, stride };
        const TASK: usize = 32;
        let places = all.values.par_chunks_mut(TASK * stride).zip(x.par_chunks(TASK * width));
        let places = places.zip(all.scales.par_chunks_mut(TASK)).zip(all.zeros.par_chunks_mut(TASK));
        places.for_each(|(((values, x), scales), zeros)| {
            let rows = values.chunks_exact_mut(stride).zip(x.chunks_exact(width)).zip(scales).zip(zeros);
            for (((values, x), scale), zero) in rows {
                let [least, most] = range(x).map(f64::from);
                if least.is_nan() {
                    *scale = f32::NAN;
                    continue;
                }
                // Zero is a byte, so that what is padded or cut off by a ReLU is exact.
                let (least, most) = (least.min(0.0), most.max(0.0));
                let factor = if most > least { 255.0 / (most - least) } else { 0.0 };
                let whole = (-least * factor).round();
                (*zero, *scale) = (whole as i32, ((most - least) / 255.0) as f32);
                to_bytes(x, factor as f32, whole as f32, [0.0, 255.0], &mut values[..lanes]);
            }
        });
        all
    }

    pub(super) fn tile<'a>(
        &'a self,
        rows: Range<usize>,
        (panel, weight_scales, weight_sums): (&'a [u32], &'a [f32], &'a [i32]),
        out: &mut [MaybeUninit<f32>],
        out_stride: usize,
        columns: usize,
    ) -> Tile<'a> {
        let values = &self.values[rows.start * self.stride..];
        let (scales, zeros) = (&self.scales[rows.clone()], &self.zeros[rows]);
        let out = out.as_mut_ptr().cast();
        let (lanes, stride) = (self.lanes, self.stride);
        Tile { lanes, rows: values, stride, panel, scales, zeros, weight_scales, weight_sums, out, out_stride, columns }
    }
}

vectorized! {
    /// The least and the largest of some values; NaN if one of them is infinite or not a number.
    fn range(values: &[f32]) -> [f32; 2] {
        const LANES: usize = 32;
        let (mut least, mut most, mut not_finite) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0.0; LANES]);
        let mut take = |values: &[f32]| {
            for (((least, most), not_finite), value) in least.iter_mut().zip(&mut most).zip(&mut not_finite).zip(values) {
                *least = if *value < *least { *value } else { *least };
                *most = if *value > *most { *value } else { *most };
                *not_finite += value * 0.0;
            }
        };
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            take(chunk);
        }
        take(rest);
        // Zero, or NaN.
        let not_finite: f32 = not_finite.iter().sum();
        let least = least.iter().fold(f32::INFINITY, |a, b| a.min(*b));
        let most = most.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        [least + not_finite, most + not_finite]
    }
}

vectorized! {
    /// Writes factor · value + zero, rounded and within the limits, as bytes, four to a lane; returns the sum of them
    /// as signed bytes.
    fn to_bytes(values: &[f32], factor: f32, zero: f32, limits: [f32; 2], lanes: &mut [u32]) -> i32 {
        let [least, most] = limits;
        // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let byte = |value: f32| {
            let value = fma::<FMA>(value, factor, zero);
            let value = if value < most { value } else { most };
            ((if value > least { value } else { least }) + ROUND).to_bits() as u8
        };
        let mut sum = 0;
        let (chunks, rest) = values.as_chunks::<64>();
        let (places, last) = lanes.split_at_mut(chunks.len() * 16);
        for (chunk, places) in chunks.iter().zip(places.as_chunks_mut::<16>().0) {
            let bytes = chunk.map(byte);
            sum += bytes.iter().map(|byte| i32::from(byte.cast_signed())).sum::<i32>();
            for (place, bytes) in places.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
                *place = u32::from_le_bytes(*bytes);
            }
        }
        for (place, values) in last.iter_mut().zip(rest.chunks(BYTES)) {
            let mut bytes = [0; BYTES];
            for (place, value) in bytes.iter_mut().zip(values) {
                *place = byte(*value);
                sum += i32::from(place.cast_signed());
            }
            *place = u32::from_le_bytes(bytes);
        }
        sum
    }
}
