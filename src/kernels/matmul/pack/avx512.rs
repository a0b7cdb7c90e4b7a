//! Packing by AVX-512, sixteen lanes of sixteen vectors at a time.

use std::arch::x86_64::*;

use crate::kernels::matmul::pack::{Form, Lanes, SPLIT_LANES, split};

impl Lanes<'_> {
    /// # Safety
    /// The features are there, `pack`'s assertions hold, and `columns` is a multiple of 16.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack_avx512_pairs(&self, place: &mut [u32], shape: [usize; 2], transposed: bool) {
        macro_rules! each {
            ($lanes:ident) => {
                self.blocks(
                    place,
                    shape,
                    transposed,
                    |vector, i| self.$lanes(vector, i, |vector, i| self.load(vector, i)),
                    |vector, i| self.$lanes(vector, i, |vector, i| self.load_whole(vector, i)),
                )
            };
        }
        // SAFETY: the caller's word.
        unsafe {
            match self.form {
                Form::PairsAlong => each!(pairs_along),
                Form::PairsAcross => each!(pairs_across),
                Form::SplitAlong => each!(split_along),
                _ => each!(split_across),
            }
        }
    }

    /// # Safety
    /// As above.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn pack_avx512_plain(&self, place: &mut [u32], shape: [usize; 2], transposed: bool) {
        // SAFETY: the caller's word.
        unsafe {
            match self.form {
                Form::Rounded => self.blocks(
                    place,
                    shape,
                    transposed,
                    |vector, i| rounded(self.load(vector, i)),
                    |vector, i| rounded(self.load_whole(vector, i)),
                ),
                _ => self.blocks(
                    place,
                    shape,
                    transposed,
                    |vector, i| _mm512_castps_si512(self.load(vector, i)),
                    |vector, i| _mm512_castps_si512(self.load_whole(vector, i)),
                ),
            }
        }
    }

    /// # Safety
    /// As above.
    pub(super) unsafe fn pack_avx512(&self, place: &mut [u32], shape: [usize; 2], transposed: bool) {
        // SAFETY: the caller's word.
        unsafe {
            match self.form {
                Form::Single | Form::Rounded => self.pack_avx512_plain(place, shape, transposed),
                _ => self.pack_avx512_pairs(place, shape, transposed),
            }
        }
    }

    /// Sixteen lanes of bf16 pairs along a vector, from the i-th on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pairs_along(&self, vector: usize, i: usize, load: impl Fn(usize, usize) -> __m512) -> __m512i {
        let (low, high) = (load(vector, 2 * i), load(vector, 2 * i + 16));
        // SAFETY: a bf16 vector is 512 bits.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
    }

    /// The same of bf16 pairs across two vectors.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pairs_across(&self, vector: usize, i: usize, load: impl Fn(usize, usize) -> __m512) -> __m512i {
        let one = |vector: usize| {
            // SAFETY: half a bf16 vector is 256 bits.
            let half = unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(load(vector, i))) };
            _mm512_cvtepu16_epi32(half)
        };
        _mm512_or_si512(one(2 * vector), _mm512_slli_epi32(one(2 * vector + 1), 16))
    }

    /// Sixteen split lanes along a vector, from the i-th on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn split_along(&self, vector: usize, i: usize, load: impl Fn(usize, usize) -> __m512) -> __m512i {
        let (pair, rest) = split(i);
        // SAFETY: the features are there.
        unsafe {
            self.pairs_along(vector, pair, |vector, i| if rest { lefts(load(vector, i)) } else { load(vector, i) })
        }
    }

    /// The same across vectors.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn split_across(&self, vector: usize, i: usize, load: impl Fn(usize, usize) -> __m512) -> __m512i {
        let (pair, rest) = split(vector);
        // SAFETY: the features are there.
        unsafe { self.pairs_across(pair, i, |vector, i| if rest { lefts(load(vector, i)) } else { load(vector, i) }) }
    }

    /// Sixteen values of a vector from the i-th on; zeros past the end of it or of all.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load(&self, vector: usize, i: usize) -> __m512 {
        let left = if vector < self.count { self.length.saturating_sub(i) } else { 0 };
        let mask = if left >= 16 { u16::MAX } else { (1u16 << left) - 1 };
        // SAFETY: the mask keeps the load inside of the vector.
        unsafe { _mm512_maskz_loadu_ps(mask, self.values.as_ptr().wrapping_add(vector * self.stride + i)) }
    }

    /// The same where all sixteen are there.
    ///
    /// # Safety
    /// They are.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load_whole(&self, vector: usize, i: usize) -> __m512 {
        // SAFETY: the caller's word.
        unsafe { _mm512_loadu_ps(self.values.as_ptr().add(vector * self.stride + i)) }
    }

    /// Goes over all blocks of 16 by 16 lanes.
    #[inline(always)]
    unsafe fn blocks(
        &self,
        place: &mut [u32],
        [rows, columns]: [usize; 2],
        transposed: bool,
        vector: impl Fn(usize, usize) -> __m512i,
        full: impl Fn(usize, usize) -> __m512i,
    ) {
        let (vectors, length) = self.extent();
        // Those of which no part is missing.
        let (whole_vectors, whole_length) = match self.form {
            Form::Single | Form::Rounded => (vectors, length),
            Form::PairsAlong => (vectors, self.length / 2),
            Form::PairsAcross => (self.count / 2, length),
            Form::SplitAlong => (vectors, self.length / SPLIT_LANES * SPLIT_LANES),
            Form::SplitAcross => (self.count / SPLIT_LANES * SPLIT_LANES, length),
        };
        let (high, wide) = if transposed { (length, vectors) } else { (vectors, length) };
        let store = |row: usize, column: usize, value: __m512i| {
            // SAFETY: rows and columns are inside of the place, and columns come in sixteens.
            unsafe { _mm512_storeu_si512(place.as_ptr().add(row * columns + column).cast_mut().cast(), value) }
        };
        if !transposed {
            // Rows lie far apart, and their number is what makes this slow: fetch some ahead.
            const AHEAD: usize = 48;
            for row in 0..rows {
                for column in (0..wide).step_by(16) {
                    let later = self.values.as_ptr().wrapping_add((row + AHEAD) * self.stride + column + 15);
                    // SAFETY: a prefetch of any address has no effect but on speed.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(later.cast()) };
                    let whole = row < whole_vectors && column + 16 <= whole_length;
                    store(row, column, if whole { full(row, column) } else { vector(row, column) });
                }
            }
            return;
        }
        for column in (0..wide).step_by(16) {
            for row in (0..high).step_by(16) {
                let whole = column + 16 <= whole_vectors && row + 16 <= whole_length;
                let block =
                    std::array::from_fn(|j| if whole { full(column + j, row) } else { vector(column + j, row) });
                // SAFETY: this is compiled for the features.
                let block = unsafe { transpose(block) };
                for (j, value) in block.into_iter().enumerate().take(rows - row) {
                    store(row + j, column, value);
                }
            }
            for row in high.next_multiple_of(16).min(rows)..rows {
                // SAFETY: this is compiled for the features.
                store(row, column, unsafe { _mm512_setzero_si512() });
            }
        }
    }
}

/// Each f32 rounded to bf16, as [`bf16`] does.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn rounded(float: __m512) -> __m512i {
    let values = _mm512_castps_si512(float);
    let odd = _mm512_and_si512(_mm512_srli_epi32(values, 16), _mm512_set1_epi32(1));
    let nearest = _mm512_add_epi32(_mm512_add_epi32(values, _mm512_set1_epi32(0x7fff)), odd);
    let nan = _mm512_cmp_ps_mask(float, float, _CMP_UNORD_Q);
    let quiet = _mm512_mask_or_epi32(nearest, nan, values, _mm512_set1_epi32(0x40_0000));
    _mm512_and_si512(quiet, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()))
}

/// Of each f32 what [`left`] says.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn lefts(float: __m512) -> __m512 {
    // SAFETY: the features are there.
    let nearest = _mm512_castsi512_ps(unsafe { rounded(float) });
    let finite = _mm512_cmp_ps_mask(_mm512_abs_ps(nearest), _mm512_set1_ps(f32::INFINITY), _CMP_LT_OQ);
    _mm512_maskz_sub_ps(finite, float, nearest)
}

/// The transpose of sixteen vectors of sixteen lanes.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    // Pairs of rows interleaved, then pairs of pairs; after that only quarters of vectors have to move.
    let mut a = rows;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut b = a;
    for i in 0..4 {
        for j in 0..2 {
            b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + j + 2]);
            b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + j + 2]);
        }
    }
    // Row 4 i + j of b holds columns j, j + 4, j + 8, j + 12 of rows 4 i to 4 i + 3, a quarter each.
    let mut out = b;
    for j in 0..4 {
        let low = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x44);
        let high = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xee);
        let low2 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x44);
        let high2 = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xee);
        out[j] = _mm512_shuffle_i32x4(low, low2, 0x88);
        out[4 + j] = _mm512_shuffle_i32x4(low, low2, 0xdd);
        out[8 + j] = _mm512_shuffle_i32x4(high, high2, 0x88);
        out[12 + j] = _mm512_shuffle_i32x4(high, high2, 0xdd);
    }
    out
}
