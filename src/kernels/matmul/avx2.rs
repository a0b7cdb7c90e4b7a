//! Tiles and packing by AVX2 with fused multiply-add, for the many processors without AVX-512.

use std::arch::asm;
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

    fn columns_apart(&self) -> usize {
        LOOP_ROWS
    }

    unsafe fn tile(&self, lanes: usize, a: Rows, b: *const u32, target: &Target) {
        // SAFETY: the caller's word.
        unsafe { tile(lanes, a.start, a.order.strides(), b, target) }
    }
}

/// A lane of a tile by assembly: two vectors of b, and each row of a broadcast while the one before is multiplied.
#[rustfmt::skip]
macro_rules! lane {
    ($b:literal, $a0:expr, $a1:expr, $a2:expr, $a3:expr, $a4:expr, $a5:expr) => {
        concat!(
            "vmovups {b0}, [{b} + ", $b, "]\n",
            "vmovups {b1}, [{b} + ", $b, " + 32]\n",
            "vbroadcastss {x}, dword ptr [", $a0, "]\n",
            "vbroadcastss {y}, dword ptr [", $a1, "]\n",
            "vfmadd231ps {s0}, {x}, {b0}\n",
            "vfmadd231ps {s1}, {x}, {b1}\n",
            "vbroadcastss {x}, dword ptr [", $a2, "]\n",
            "vfmadd231ps {s2}, {y}, {b0}\n",
            "vfmadd231ps {s3}, {y}, {b1}\n",
            "vbroadcastss {y}, dword ptr [", $a3, "]\n",
            "vfmadd231ps {s4}, {x}, {b0}\n",
            "vfmadd231ps {s5}, {x}, {b1}\n",
            "vbroadcastss {x}, dword ptr [", $a4, "]\n",
            "vfmadd231ps {s6}, {y}, {b0}\n",
            "vfmadd231ps {s7}, {y}, {b1}\n",
            "vbroadcastss {y}, dword ptr [", $a5, "]\n",
            "vfmadd231ps {s8}, {x}, {b0}\n",
            "vfmadd231ps {s9}, {x}, {b1}\n",
            "vfmadd231ps {s10}, {y}, {b0}\n",
            "vfmadd231ps {s11}, {y}, {b1}\n",
        )
    };
}

/// A lane whose rows lie `{apart}` bytes apart; the lanes of a row are neighbours.
macro_rules! lane_of_rows {
    ($b:literal, $at:literal) => {
        lane!(
            $b,
            concat!("{a} + ", $at),
            concat!("{a} + {apart} + ", $at),
            concat!("{a} + 2 * {apart} + ", $at),
            concat!("{half} + ", $at),
            concat!("{half} + {apart} + ", $at),
            concat!("{half} + 2 * {apart} + ", $at)
        )
    };
}

/// A lane whose rows are neighbours; the next one lies `{apart}` bytes further.
macro_rules! lane_of_columns {
    ($b:literal, $at:literal) => {
        concat!(lane!($b, "{a}", "{a} + 4", "{a} + 8", "{a} + 12", "{a} + 16", "{a} + 20"), "add {a}, {apart}\n")
    };
}

/// Four lanes at a time, then one at a time. From Rust the compiler would take the address of each row from that of the
/// one before: additions in a chain that takes as long as the multiplications, and 29 instructions a lane in place of
/// 21, where many processors begin four a cycle and a lane's multiplications take six.
macro_rules! multiply {
    ($lane:ident, $lanes:expr, $a:expr, $half:expr, $apart:expr, $step:expr, $b:expr, $sums:expr) => {
        asm!(
            "test {n}, {n}",
            "jz 3f",
            "2:",
            $lane!("0", "0"),
            $lane!("64", "4"),
            $lane!("128", "8"),
            $lane!("192", "12"),
            "lea {a}, [{a} + 4 * {step}]",
            "lea {half}, [{half} + 4 * {step}]",
            "add {b}, 256",
            "dec {n}",
            "jnz 2b",
            "3:",
            "test {left}, {left}",
            "jz 5f",
            "4:",
            $lane!("0", "0"),
            "add {a}, {step}",
            "add {half}, {step}",
            "add {b}, 64",
            "dec {left}",
            "jnz 4b",
            "5:",
            n = inout(reg) $lanes / 4 => _,
            left = inout(reg) $lanes % 4 => _,
            a = inout(reg) $a => _,
            half = inout(reg) $half => _,
            apart = in(reg) $apart,
            step = in(reg) $step,
            b = inout(reg) $b => _,
            s0 = inout(ymm_reg) $sums[0][0],
            s1 = inout(ymm_reg) $sums[0][1],
            s2 = inout(ymm_reg) $sums[1][0],
            s3 = inout(ymm_reg) $sums[1][1],
            s4 = inout(ymm_reg) $sums[2][0],
            s5 = inout(ymm_reg) $sums[2][1],
            s6 = inout(ymm_reg) $sums[3][0],
            s7 = inout(ymm_reg) $sums[3][1],
            s8 = inout(ymm_reg) $sums[4][0],
            s9 = inout(ymm_reg) $sums[4][1],
            s10 = inout(ymm_reg) $sums[5][0],
            s11 = inout(ymm_reg) $sums[5][1],
            b0 = out(ymm_reg) _,
            b1 = out(ymm_reg) _,
            x = out(ymm_reg) _,
            y = out(ymm_reg) _,
            options(readonly, nostack),
        )
    };
}

/// Six rows of two vectors each, two vectors of b and two of a: all of the 16 registers. The rows of a lie `row` lanes
/// apart, its columns `lane`; one of the two is 1.
///
/// # Safety
/// The processor has the features, the operands have as many lanes, and the target is as for a tile.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile(lanes: usize, a: *const u32, [row, lane]: [usize; 2], b: *const u32, target: &Target) {
    let half = a.wrapping_add(3 * row);
    let mut sums: [_; LOOP_ROWS] = std::array::from_fn(|_| [_mm256_setzero_ps(); 2]);
    // SAFETY: the caller's word; a prefetch of any address has no effect but on speed.
    unsafe {
        for row in 0..LOOP_ROWS {
            _mm_prefetch::<_MM_HINT_T0>(target.corner.wrapping_add(row * target.stride).cast());
        }
        if lane == 1 {
            multiply!(lane_of_rows, lanes, a, half, row * 4, 4_usize, b, sums);
        } else {
            assert_eq!(row, 1, "one stride of a tile's rows must be 1");
            multiply!(lane_of_columns, lanes, a, half, lane * 4, 0_usize, b, sums);
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
