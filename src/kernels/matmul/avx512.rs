//! Tiles by AVX-512.

use std::arch::x86_64::*;

use crate::kernels::matmul::pack::Form;
use crate::kernels::matmul::shape::{A_COLUMNS, A_STRIDE, AVX512_ROWS, Target};
use crate::kernels::matmul::tiles::{Order, Rows, Tiles};
use crate::kernels::simd::has_bf16;

/// Tiles by AVX-512 with fused multiply-add.
pub(super) struct Avx512 {
    /// [`Form::Single`] or [`Form::Rounded`].
    pub(super) form: Form,
}

impl Tiles for Avx512 {
    fn shape(&self) -> [usize; 2] {
        [AVX512_ROWS, 32]
    }

    fn form(&self, _: bool) -> Form {
        self.form
    }

    fn columns_apart(&self) -> usize {
        if self.form == Form::Single { AVX512_ROWS } else { A_COLUMNS }
    }

    fn reads_in_place(&self) -> bool {
        true
    }

    unsafe fn tile(&self, lanes: usize, a: Rows, b: *const u32, target: &Target) {
        // SAFETY: the caller's word.
        unsafe {
            match a.order {
                Order::Rows => tile::<A_STRIDE, 1>(lanes, a.start, b, target),
                Order::Columns(AVX512_ROWS) => tile::<1, AVX512_ROWS>(lanes, a.start, b, target),
                Order::Columns(_) => tile::<1, A_COLUMNS>(lanes, a.start, b, target),
                Order::Strided(stride) => strided(lanes, a.start, stride, b, target),
                Order::StridedColumns(stride) => columns(lanes, a.start, stride, b, target),
            }
        }
    }
}

/// Tiles by `vdpbf16ps` of AVX-512-BF16.
pub(super) struct Avx512Bf16;

impl Tiles for Avx512Bf16 {
    fn shape(&self) -> [usize; 2] {
        [AVX512_ROWS, 32]
    }

    fn values_per_lane(&self) -> usize {
        2
    }

    fn rate(&self) -> f64 {
        2.0
    }

    fn form(&self, along: bool) -> Form {
        if along { Form::PairsAlong } else { Form::PairsAcross }
    }

    unsafe fn tile(&self, lanes: usize, a: Rows, b: *const u32, target: &Target) {
        // SAFETY: the caller's word; pairs are always packed.
        unsafe {
            match a.order {
                Order::Rows => bf16::<A_STRIDE, 1>(lanes, a.start, b, target),
                _ => bf16::<1, A_COLUMNS>(lanes, a.start, b, target),
            }
        }
    }
}

/// Whether `vdpbf16ps` is there and fast. Intel's processors run it at half the rate of f32; they have AMX for that,
/// and where it is switched off f32 operands that are rounded to bf16 are faster. AMD's run it at the full rate.
pub(super) fn has_fast_bf16() -> bool {
    let vendor = __cpuid(0);
    has_bf16() && [vendor.ebx, vendor.edx, vendor.ecx] != [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes)
}

/// The rows of a lie `ROW` lanes apart, its columns `LANE`.
///
/// # Safety
/// The processor has the features, the operands have as many lanes, and the target is as for a tile.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile<const ROW: usize, const LANE: usize>(
    lanes: usize,
    a: *const u32,
    b: *const u32,
    target: &Target,
) {
    let (a, mut b) = (a.cast::<f32>(), b.cast::<f32>());
    let mut sums: [_; AVX512_ROWS] = std::array::from_fn(|_| [_mm512_setzero_ps(); 2]);
    // SAFETY: `Kernel::tile` has checked the lengths.
    unsafe {
        for lane in 0..lanes {
            let (b0, b1) = (_mm512_load_ps(b), _mm512_load_ps(b.add(16)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(row * ROW + lane * LANE));
                sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
            }
            b = b.add(32);
        }
        write(sums, target);
    }
}

/// The columns lie `stride` apart.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn columns(lanes: usize, a: *const u32, stride: usize, b: *const u32, target: &Target) {
    let (mut a, mut b) = (a.cast::<f32>(), b.cast::<f32>());
    let mut sums: [_; AVX512_ROWS] = std::array::from_fn(|_| [_mm512_setzero_ps(); 2]);
    // SAFETY: `Kernel::tile` has checked the lengths.
    unsafe {
        for _ in 0..lanes {
            let (b0, b1) = (_mm512_load_ps(b), _mm512_load_ps(b.add(16)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(row));
                sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
            }
            (a, b) = (a.wrapping_add(stride), b.add(32));
        }
        write(sums, target);
    }
}

/// Lanes of a panel that are fetched ahead: it lies in the second-level cache.
const AHEAD: usize = 8;

/// The rows lie `stride` apart.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn strided(lanes: usize, a: *const u32, stride: usize, b: *const u32, target: &Target) {
    let mut b = b.cast::<f32>();
    let mut sums: [_; AVX512_ROWS] = std::array::from_fn(|_| [_mm512_setzero_ps(); 2]);
    // Every fifth row has a pointer of its own; addresses of those between need only multiples of the stride.
    const APART: usize = 5;
    let mut starts = [0, 1, 2].map(|i| a.cast::<f32>().wrapping_add(APART * i * stride));
    let triple = 3 * stride;
    // SAFETY: `Kernel::tile` has checked the lengths.
    unsafe {
        for _ in 0..lanes {
            let (b0, b1) = (_mm512_load_ps(b), _mm512_load_ps(b.add(16)));
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(32 * AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(32 * AHEAD + 16).cast());
            for (row, sums) in sums.iter_mut().enumerate() {
                let offset = match row % APART {
                    3 => triple,
                    within => within * stride,
                };
                let a = _mm512_set1_ps(*starts[row / APART].add(offset));
                sums[0] = _mm512_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm512_fmadd_ps(a, b1, sums[1]);
            }
            b = b.add(32);
            starts = starts.map(|start| start.add(1));
        }
        write(sums, target);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn bf16<const ROW: usize, const LANE: usize>(
    lanes: usize,
    a: *const u32,
    mut b: *const u32,
    target: &Target,
) {
    let mut sums: [_; AVX512_ROWS] = std::array::from_fn(|_| [_mm512_setzero_ps(); 2]);
    // SAFETY: `Kernel::tile` has checked the lengths; 512 bits are 512 bits.
    unsafe {
        let pairs = |lanes: __m512i| std::mem::transmute::<__m512i, __m512bh>(lanes);
        for lane in 0..lanes {
            let b0 = pairs(_mm512_load_si512(b.cast()));
            let b1 = pairs(_mm512_load_si512(b.add(16).cast()));
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = pairs(_mm512_set1_epi32((*a.add(row * ROW + lane * LANE)).cast_signed()));
                sums[0] = _mm512_dpbf16_ps(sums[0], a, b0);
                sums[1] = _mm512_dpbf16_ps(sums[1], a, b1);
            }
            b = b.add(32);
        }
        write(sums, target);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn write(sums: [[__m512; 2]; AVX512_ROWS], target: &Target) {
    let masks = masks(target);
    for (row, sums) in sums.iter().enumerate() {
        // A plain condition keeps the sums in registers, where the end of a loop over them would not.
        if row < target.rows {
            // SAFETY: the caller's word.
            unsafe { write_row(row, *sums, masks, target) };
        }
    }
}

/// Which columns of the two halves of a tile the target has.
#[inline]
pub(super) fn masks(target: &Target) -> [u16; 2] {
    [0, 16].map(|first| match target.columns.saturating_sub(first) {
        left @ 0..16 => (1u16 << left) - 1,
        _ => u16::MAX,
    })
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn write_row(row: usize, sums: [__m512; 2], masks: [u16; 2], target: &Target) {
    let scale = _mm512_set1_ps(target.scale);
    for half in 0..2 {
        let value = _mm512_mul_ps(sums[half], scale);
        // SAFETY: the caller's word, and the mask.
        unsafe {
            let place = target.corner.wrapping_add(row * target.stride + 16 * half);
            // Stores under a mask are slow on some processors.
            if masks[half] == u16::MAX {
                let value = if target.add { _mm512_add_ps(_mm512_loadu_ps(place), value) } else { value };
                _mm512_storeu_ps(place, value);
                continue;
            }
            let value = match target.add {
                true => _mm512_add_ps(_mm512_maskz_loadu_ps(masks[half], place), value),
                false => value,
            };
            _mm512_mask_storeu_ps(place, masks[half], value);
        }
    }
}
