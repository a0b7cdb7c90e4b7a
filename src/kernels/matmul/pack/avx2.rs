//! Packing by AVX2, eight lanes of eight vectors at a time.

use std::arch::x86_64::*;

/// Writes eight rows of eight lanes, which lie `stride` apart, as columns to rows that lie `columns` apart.
///
/// # Safety
/// The processor has the features, and both matrices are there.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose(rows: *const f32, stride: usize, place: *mut u32, columns: usize) {
    // SAFETY: the caller's word.
    let r: [__m256; 8] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(rows.add(i * stride)) });
    let mut a = r;
    for i in 0..4 {
        a[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    let mut b = a;
    for i in 0..2 {
        for j in 0..2 {
            b[4 * i + 2 * j] = _mm256_shuffle_ps::<0x44>(a[4 * i + j], a[4 * i + j + 2]);
            b[4 * i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(a[4 * i + j], a[4 * i + j + 2]);
        }
    }
    for j in 0..4 {
        let low = _mm256_permute2f128_ps::<0x20>(b[j], b[4 + j]);
        let high = _mm256_permute2f128_ps::<0x31>(b[j], b[4 + j]);
        // SAFETY: the caller's word.
        unsafe {
            _mm256_storeu_ps(place.add(j * columns).cast(), low);
            _mm256_storeu_ps(place.add((4 + j) * columns).cast(), high);
        }
    }
}
