//! Channels in groups of four, taken apart into planes and put together again, by AVX-512 shuffles.
//!
//! Compilers turn the loops that do the same into gathers, which cost more than the convolution around them.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Channel 4 l + j goes to place 16 j + l.
#[target_feature(enable = "avx512f")]
pub(super) fn take_apart(channels: &[f32; 64], pixel: &mut [f32; 64]) {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    let from = channels.as_chunks::<16>().0;
    // SAFETY: each chunk has the sixteen values a load takes.
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| unsafe { _mm512_loadu_ps(from[i].as_ptr()) });
    let (ab0, ab1) = (_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b));
    let (cd0, cd1) = (_mm512_permutex2var_ps(c, even, d), _mm512_permutex2var_ps(c, odd, d));
    let planes = [
        _mm512_permutex2var_ps(ab0, even, cd0),
        _mm512_permutex2var_ps(ab1, even, cd1),
        _mm512_permutex2var_ps(ab0, odd, cd0),
        _mm512_permutex2var_ps(ab1, odd, cd1),
    ];
    for (to, plane) in pixel.as_chunks_mut::<16>().0.iter_mut().zip(planes) {
        // SAFETY: each chunk has room for the sixteen values a store writes.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), plane) };
    }
}

/// The inverse of [`take_apart`].
#[target_feature(enable = "avx512f")]
pub(super) fn put_together(pixel: &[f32; 64], channels: &mut [MaybeUninit<f32>; 64]) {
    let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    let from = pixel.as_chunks::<16>().0;
    // SAFETY: each chunk has the sixteen values a load takes.
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| unsafe { _mm512_loadu_ps(from[i].as_ptr()) });
    let (ac0, ac1) = (_mm512_permutex2var_ps(a, low, c), _mm512_permutex2var_ps(a, high, c));
    let (bd0, bd1) = (_mm512_permutex2var_ps(b, low, d), _mm512_permutex2var_ps(b, high, d));
    let quarters = [
        _mm512_permutex2var_ps(ac0, low, bd0),
        _mm512_permutex2var_ps(ac0, high, bd0),
        _mm512_permutex2var_ps(ac1, low, bd1),
        _mm512_permutex2var_ps(ac1, high, bd1),
    ];
    for (to, quarter) in channels.as_chunks_mut::<16>().0.iter_mut().zip(quarters) {
        // SAFETY: each chunk has room for the sixteen values a store writes.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr().cast(), quarter) };
    }
}
