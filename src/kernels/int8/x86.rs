//! Tiles of bytes by the instructions of x86.

use std::arch::x86_64::*;

use super::{COLUMNS, Tile};

/// Lanes of a panel that are fetched ahead: it lies in the second-level cache.
const AHEAD: usize = 8;

/// Calls of `write_row` for every row that the tile has. Written out: sums that a loop reads would lie in memory, and
/// be written there at every lane.
macro_rules! write_rows {
    ($sums:ident, $tile:ident, $($row:literal)+) => {
        $(
            if $row < $tile.scales.len() {
                write_row($row, $sums[$row][0], $sums[$row][1], $tile);
            }
        )+
    };
}

/// Fourteen rows of two vectors each, two vectors of the panel and one of a row: all but one of the 32 registers.
///
/// # Safety
/// The processor has the features; the operands are as [`super::Instructions::run`] asserts.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn avx512_vnni(tile: &Tile) {
    const ROWS: usize = 14;
    // Every fifth row has a pointer of its own; addresses of those between need only multiples of the stride.
    const APART: usize = 5;
    let mut sums: [_; ROWS] = std::array::from_fn(|_| [_mm512_setzero_si512(); 2]);
    let stride = tile.stride;
    let mut starts = [0, 1, 2].map(|i| tile.rows.as_ptr().wrapping_add(APART * i * stride));
    let triple = 3 * stride;
    let mut b = tile.panel.as_ptr();
    // SAFETY: the caller's word.
    unsafe {
        for _ in 0..tile.lanes {
            let (b0, b1) = (_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(16).cast()));
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(COLUMNS * AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(COLUMNS * AHEAD + 16).cast());
            for (row, sums) in sums.iter_mut().enumerate() {
                let offset = match row % APART {
                    3 => triple,
                    within => within * stride,
                };
                let a = _mm512_set1_epi32((*starts[row / APART].wrapping_add(offset)).cast_signed());
                sums[0] = _mm512_dpbusd_epi32(sums[0], a, b0);
                sums[1] = _mm512_dpbusd_epi32(sums[1], a, b1);
            }
            b = b.add(COLUMNS);
            starts = starts.map(|start| start.wrapping_add(1));
        }
        write_rows!(sums, tile, 0 1 2 3 4 5 6 7 8 9 10 11 12 13);
    }
}

/// # Safety
/// As above; there is such a row.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn write_row(row: usize, left: __m512i, right: __m512i, tile: &Tile) {
    let (scale, zero) = (_mm512_set1_ps(tile.scales[row]), _mm512_set1_epi32(tile.zeros[row]));
    for (half, sum) in [left, right].into_iter().enumerate() {
        let first = 16 * half;
        // SAFETY: a panel has as many columns, and the target as many as the mask.
        unsafe {
            let weights = _mm512_loadu_si512(tile.weight_sums.as_ptr().add(first).cast());
            let scale = _mm512_mul_ps(scale, _mm512_loadu_ps(tile.weight_scales.as_ptr().add(first)));
            let sum = _mm512_sub_epi32(sum, _mm512_mullo_epi32(zero, weights));
            let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            let place = tile.out.wrapping_add(row * tile.out_stride + first);
            match tile.columns.saturating_sub(first) {
                // Stores under a mask are slow on some processors.
                left @ 0..16 => _mm512_mask_storeu_ps(place, (1 << left) - 1, value),
                _ => _mm512_storeu_ps(place, value),
            }
        }
    }
}

/// Six rows of two vectors each, for one half of the panel after the other.
macro_rules! half_tiles {
    ($name:ident, $features:literal, $dot:expr) => {
        /// # Safety
        /// The processor has the features; the operands are as [`super::Instructions::run`] asserts.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(tile: &Tile) {
            const ROWS: usize = 6;
            for first in [0, 16] {
                if first >= tile.columns {
                    break;
                }
                let mut sums: [_; ROWS] = std::array::from_fn(|_| [_mm256_setzero_si256(); 2]);
                let (mut a, mut b) = (tile.rows.as_ptr(), tile.panel.as_ptr().wrapping_add(first));
                // SAFETY: the caller's word.
                unsafe {
                    for _ in 0..tile.lanes {
                        let (b0, b1) = (_mm256_loadu_si256(b.cast()), _mm256_loadu_si256(b.add(8).cast()));
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let a = _mm256_set1_epi32((*a.wrapping_add(row * tile.stride)).cast_signed());
                            sums[0] = $dot(sums[0], a, b0);
                            sums[1] = $dot(sums[1], a, b1);
                        }
                        (a, b) = (a.wrapping_add(1), b.wrapping_add(COLUMNS));
                    }
                    write(sums, first, tile);
                }
            }
        }
    };
}

half_tiles!(avx_vnni, "avx2,fma,avxvnni", |sum, a, b| _mm256_dpbusd_avx_epi32(sum, a, b));
half_tiles!(avx2, "avx2,fma", |sum, a, b| {
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
});

/// # Safety
/// As above.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn write(sums: [[__m256i; 2]; 6], first: usize, tile: &Tile) {
    let rows = tile.scales.len();
    for (row, sums) in sums.iter().enumerate() {
        if row < rows {
            // SAFETY: `rows` scales, and as many zeros, as `Instructions::run` asserts.
            let (scale, zero) = unsafe {
                let zero = _mm256_set1_epi32(*tile.zeros.as_ptr().add(row));
                (_mm256_set1_ps(*tile.scales.as_ptr().add(row)), zero)
            };
            for half in 0..2 {
                let column = first + 8 * half;
                // SAFETY: the caller's word.
                unsafe {
                    let weights = _mm256_loadu_si256(tile.weight_sums.as_ptr().add(column).cast());
                    let scales = _mm256_loadu_ps(tile.weight_scales.as_ptr().add(column));
                    let sum = _mm256_sub_epi32(sums[half], _mm256_mullo_epi32(zero, weights));
                    let value = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, scales));
                    let place = tile.out.wrapping_add(row * tile.out_stride + column);
                    match tile.columns.saturating_sub(column) {
                        0 => {}
                        left @ 1..8 => {
                            let mut values = [0.0; 8];
                            _mm256_storeu_ps(values.as_mut_ptr(), value);
                            std::ptr::copy_nonoverlapping(values.as_ptr(), place, left);
                        }
                        _ => _mm256_storeu_ps(place, value),
                    }
                }
            }
        }
    }
}
