//! Tiles and packing by AVX2 with fused multiply-add, for the many processors without AVX-512.

use std::arch::x86_64::*;

use crate::kernels::matmul::pack::Form;
use crate::kernels::matmul::shape::{LOOP_COLUMNS, LOOP_ROWS, Target};
use crate::kernels::matmul::tiles::{Rows, Tiles};

/// Tiles by AVX2.
pub(super) struct Avx2 {
    /// [`Form::Single`] or [`Form::Rounded`].
    pub(super) form: Form,
}

impl Tiles for Avx2 {
    fn shape(&self) -> [usize; 2] {
        [LOOP_ROWS, LOOP_COLUMNS]
    }

    fn form(&self, _: bool) -> Form {
        self.form
    }

    fn reads_in_place(&self) -> bool {
        true
    }

    unsafe fn tile(&self, lanes: usize, a: Rows, b: *const u32, target: &Target) {
        // SAFETY: the caller's word.
        unsafe { tile(lanes, a.start, a.order.strides(), b, target) }
    }
}

/// Six rows of two vectors each, two vectors of b and one of a: all but one of the 16 registers. The rows of a lie
/// `row` lanes apart, its columns `lane`.
///
/// # Safety
/// The processor has the features, the operands have as many lanes, and the target is as for a tile.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile(lanes: usize, a: *const u32, [row, lane]: [usize; 2], b: *const u32, target: &Target) {
    let (mut a, mut b) = (a.cast::<f32>(), b.cast::<f32>());
    let mut sums: [_; LOOP_ROWS] = std::array::from_fn(|_| [_mm256_setzero_ps(); 2]);
    // SAFETY: the caller's word.
    unsafe {
        for _ in 0..lanes {
            let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
            let half = a.wrapping_add(3 * row);
            for (i, sums) in sums.iter_mut().enumerate() {
                let start = if i < 3 { a } else { half };
                let a = _mm256_broadcast_ss(&*start.add(i % 3 * row));
                sums[0] = _mm256_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm256_fmadd_ps(a, b1, sums[1]);
            }
            (a, b) = (a.wrapping_add(lane), b.add(LOOP_COLUMNS));
        }
        write(sums, target);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn write(sums: [[__m256; 2]; LOOP_ROWS], target: &Target) {
    let scale = _mm256_set1_ps(target.scale);
    let column = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let left = |first: usize| _mm256_set1_epi32(target.columns.saturating_sub(first).min(8) as i32);
    let masks = [0, 8].map(|first| _mm256_cmpgt_epi32(left(first), column));
    let whole = target.columns == LOOP_COLUMNS;
    for (row, sums) in sums.iter().enumerate() {
        // A plain condition keeps the sums in registers, where the end of a loop over them would not.
        if row < target.rows {
            for half in 0..2 {
                let value = _mm256_mul_ps(sums[half], scale);
                // SAFETY: the caller's word, and the mask.
                unsafe {
                    let place = target.corner.wrapping_add(row * target.stride + 8 * half);
                    // Stores under a mask are slow on some processors.
                    if whole {
                        let value = if target.add { _mm256_add_ps(_mm256_loadu_ps(place), value) } else { value };
                        _mm256_storeu_ps(place, value);
                        continue;
                    }
                    let value = match target.add {
                        true => _mm256_add_ps(_mm256_maskload_ps(place, masks[half]), value),
                        false => value,
                    };
                    _mm256_maskstore_ps(place, masks[half], value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AVX-512 machines run these too, which else would not.
    #[test]
    fn tiles_are_sums_of_products() {
        if !is_x86_feature_detected!("avx2") || !is_x86_feature_detected!("fma") {
            eprintln!("skipped: there is no AVX2");
            return;
        }
        let value = |i: usize| ((i * 7919) % 101) as f32 / 50.0 - 1.0;
        let lanes = 37;
        let b: Vec<f32> = (0..lanes * LOOP_COLUMNS).map(value).collect();
        for apart in [[lanes + 5, 1], [1, 16]] {
            let a: Vec<f32> = (0..1000).map(|i| value(i + 13)).collect();
            for (rows, columns, add) in [(6, 16, false), (4, 11, true), (1, 8, false), (6, 1, true)] {
                let stride = 20;
                let mut out = vec![0.5; 6 * stride];
                let corner = out.as_mut_ptr();
                let target = Target { corner, stride, rows, columns, add, scale: 0.5 };
                // SAFETY: the features are there, and so are all operands.
                unsafe { tile(lanes, a.as_ptr().cast(), apart, b.as_ptr().cast(), &target) };
                for (at, value) in out.iter().enumerate() {
                    let (i, j) = (at / stride, at % stride);
                    let inside = i < rows && j < columns;
                    let term = |q| a[i * apart[0] + q * apart[1]] * b[q * LOOP_COLUMNS + j];
                    let sum: f32 = if inside { (0..lanes).map(term).sum() } else { 0.0 };
                    let before = if inside && !add { 0.0 } else { 0.5 };
                    let expected = if inside { before + 0.5 * sum } else { before };
                    assert!((value - expected).abs() < 1e-5, "{apart:?} {rows} {columns} {at}: {value} for {expected}");
                }
            }
        }
    }
}
