//! Channels-last maps cut into tasks, and the lane-friendly copies the 3×3 convolutions work on.

use std::mem::MaybeUninit;
use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::kernels::bridge::SharedBuffer;
#[cfg(target_arch = "x86_64")]
use crate::kernels::interleave::{put_together, take_apart};
use crate::kernels::simd::vectorized;
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Level, level};

/// Channels a task works on.
pub(super) const BLOCK: usize = 64;
/// Rows a task works on; fixed, so that sums over bands always add up in the same order.
const BAND: usize = 32;

/// The extent of a channels-last map.
#[derive(Clone, Copy)]
pub(super) struct Map {
    pub(super) b: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) c: usize,
}

/// The part of a map a task works on.
pub(super) struct Task {
    pub(super) batch: usize,
    pub(super) rows: Range<usize>,
    pub(super) channels: Range<usize>,
}

impl Map {
    pub(super) fn of(x: &FlexTensor) -> Self {
        let shape = x.shape();
        Self { b: shape[0], h: shape[1], w: shape[2], c: shape[3] }
    }

    pub(super) fn blocks(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.c).step_by(BLOCK).map(move |c| c..self.c.min(c + BLOCK))
    }

    pub(super) fn tasks(&self) -> usize {
        self.b * self.h.div_ceil(BAND) * self.c.div_ceil(BLOCK)
    }

    pub(super) fn task(&self, i: usize) -> Task {
        let (blocks, bands) = (self.c.div_ceil(BLOCK), self.h.div_ceil(BAND));
        let (c, y) = (i % blocks * BLOCK, i / blocks % bands * BAND);
        Task { batch: i / blocks / bands, rows: y..self.h.min(y + BAND), channels: c..self.c.min(c + BLOCK) }
    }

    /// Where the values of a task's channels start at a pixel.
    pub(super) fn offset(&self, task: &Task, y: usize, x: usize) -> usize {
        ((task.batch * self.h + y) * self.w + x) * self.c + task.channels.start
    }
}

/// A task's values with a border of one pixel, [rows + 2, w + 2, J, L].
#[derive(Default)]
pub(super) struct Planes(pub(super) Vec<f32>);

impl Planes {
    pub(super) fn pack<const J: usize>(&mut self, map: &Map, task: &Task, x: &[f32]) {
        let line = (map.w + 2) * BLOCK;
        self.0.clear();
        self.0.resize((task.rows.len() + 2) * line, 0.0);
        let first = task.rows.start.max(1) - 1;
        let last = map.h.min(task.rows.end + 1);
        for y in first..last {
            let line = &mut self.0[(y + 1 - task.rows.start) * line..][BLOCK..line - BLOCK];
            pack_line::<J>(&x[map.offset(task, y, 0)..], map.c, task.channels.len(), line);
        }
    }
}

vectorized! {
    /// Packs a line of pixels that lie `stride` apart in `x`.
    fn pack_line<const J: usize>(x: &[f32], stride: usize, channels: usize, line: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if J == 4 && channels == BLOCK && level() == Level::Avx512 {
            for (column, pixel) in line.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                if let Some(channels) = x[column * stride..].first_chunk::<BLOCK>() {
                    // SAFETY: the level was detected on this machine.
                    unsafe { take_apart(channels, pixel) };
                }
            }
            return;
        }
        for (column, pixel) in line.chunks_exact_mut(BLOCK).enumerate() {
            pack_pixel::<J>(&x[column * stride..][..channels], pixel);
        }
    }
}

/// Channel l J + j goes to place j L + l.
#[inline(always)]
fn pack_pixel<const J: usize>(channels: &[f32], pixel: &mut [f32]) {
    let lanes = BLOCK / J;
    if let Ok(channels) = <&[f32; BLOCK]>::try_from(channels) {
        for l in 0..lanes {
            for j in 0..J {
                pixel[j * lanes + l] = channels[l * J + j];
            }
        }
    } else {
        for (k, value) in channels.iter().enumerate() {
            pixel[k % J * lanes + k / J] = *value;
        }
    }
}

pub(super) fn lanes<const J: usize>(channels: &[f32]) -> [f32; BLOCK] {
    let mut pixel = [0.0; BLOCK];
    pack_pixel::<J>(channels, &mut pixel);
    pixel
}

vectorized! {
    /// Unpacks a line of pixels to places that lie `stride` apart, from `first` on.
    pub(super) fn unpack_line<const J: usize>(row: &[f32], first: usize, stride: usize, channels: usize, out: SharedBuffer) {
        for (x, pixel) in row.chunks_exact(BLOCK).enumerate() {
            // SAFETY: tasks do not overlap, and these channels of this line belong to the one calling.
            let place = unsafe { out.slice(first + x * stride, channels) };
            #[cfg(target_arch = "x86_64")]
            if J == 4
                && level() == Level::Avx512
                && let (Some(pixel), Some(place)) = (pixel.first_chunk(), place.first_chunk_mut())
            {
                // SAFETY: the level was detected on this machine.
                unsafe { put_together(pixel, place) };
                continue;
            }
            unpack_pixel::<J>(pixel, place);
        }
    }
}

#[inline(always)]
fn unpack_pixel<const J: usize>(pixel: &[f32], channels: &mut [MaybeUninit<f32>]) {
    let lanes = BLOCK / J;
    if let (Ok(channels), Ok(pixel)) =
        (<&mut [MaybeUninit<f32>; BLOCK]>::try_from(&mut *channels), <&[f32; BLOCK]>::try_from(pixel))
    {
        for l in 0..lanes {
            for j in 0..J {
                channels[l * J + j].write(pixel[j * lanes + l]);
            }
        }
    } else {
        for (k, value) in channels.iter_mut().enumerate() {
            value.write(pixel[k % J * lanes + k / J]);
        }
    }
}
