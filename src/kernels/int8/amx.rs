//! Tiles of bytes in AMX's tile registers.

use std::arch::x86_64::_mm512_load_si512;
use std::mem::MaybeUninit;

use super::x86::write_row;
use super::{COLUMNS, Tile};
use crate::kernels::matmul::amx::byte_tile;
pub(super) use crate::kernels::matmul::amx::{configure, multiplies_bytes, release};

/// A tile of sums, [32, COLUMNS].
#[repr(C, align(64))]
struct Sums([i32; 32 * COLUMNS]);

/// # Safety
/// Within [`configure`] and [`release`]; the operands are as [`super::Instructions::run`] asserts.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile(tile: &Tile) {
    let mut sums = MaybeUninit::<Sums>::uninit();
    // SAFETY: the caller's word; a row of sums is two vectors.
    unsafe {
        byte_tile(tile.lanes, tile.rows.as_ptr(), tile.stride, tile.panel.as_ptr(), sums.as_mut_ptr().cast(), COLUMNS);
        let sums = sums.as_ptr().cast::<i32>();
        for row in 0..tile.scales.len() {
            let half = |at: usize| _mm512_load_si512(sums.add(row * COLUMNS + at).cast());
            write_row(row, half(0), half(16), tile);
        }
    }
}
