//! Winograd's transforms along one side of a tile.
//!
//! A tile of 4x4 outputs is a polynomial that is known at six points in each direction: 0, ±√½, ±√2 and infinity
//! (Winograd, 1980; Lavin and Gray, 2016). With these points the coefficients are about as small as can be, and the
//! error is less than twice that of the plain sum, where the usual 0, ±1, ±2 make it eight times as large.

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use pulp::Simd;

/// Pixels along a side of a tile.
pub(super) const SIDE: usize = 4;
/// Points along a side.
pub(super) const POINTS: usize = 6;
/// Points of a tile: as many products as there are.
pub(super) const PLANES: usize = POINTS * POINTS;

/// A step of a transform along one side: a patch of `N` values to the six points.
pub(super) trait Transform<const N: usize> {
    /// Pixels that the patch begins before its tile.
    const BORDER: usize;

    fn apply<S: Simd>(simd: S, x: [S::f32s; N]) -> [S::f32s; POINTS];
}

/// What a tile sees, its border included.
pub(super) struct Seen;

impl Transform<6> for Seen {
    const BORDER: usize = 1;

    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: [S::f32s; 6]) -> [S::f32s; POINTS] {
        let fma = |factor: f32, a, b| simd.mul_add_f32s(simd.splat_f32s(factor), a, b);
        let (even, odd) = (fma(-2.0, x[2], x[4]), fma(-2.0, x[1], x[3]));
        let (more_even, more_odd) = (fma(-0.5, x[2], x[4]), fma(-0.5, x[1], x[3]));
        [
            fma(-2.5, x[2], simd.add_f32s(x[0], x[4])),
            fma(FRAC_1_SQRT_2, odd, even),
            fma(-FRAC_1_SQRT_2, odd, even),
            fma(SQRT_2, more_odd, more_even),
            fma(-SQRT_2, more_odd, more_even),
            fma(-2.5, x[3], simd.add_f32s(x[1], x[5])),
        ]
    }
}

/// The gradient of a tile.
pub(super) struct Felt;

impl Transform<4> for Felt {
    const BORDER: usize = 0;

    #[inline(always)]
    fn apply<S: Simd>(simd: S, y: [S::f32s; 4]) -> [S::f32s; POINTS] {
        let fma = |factor: f32, a, b| simd.mul_add_f32s(simd.splat_f32s(factor), a, b);
        let (even, odd) = (fma(0.5, y[2], y[0]), fma(0.5, y[3], y[1]));
        let (more_even, more_odd) = (fma(2.0, y[2], y[0]), fma(2.0, y[3], y[1]));
        [
            y[0],
            fma(FRAC_1_SQRT_2, odd, even),
            fma(-FRAC_1_SQRT_2, odd, even),
            fma(SQRT_2, more_odd, more_even),
            fma(-SQRT_2, more_odd, more_even),
            y[3],
        ]
    }
}

/// The six points back to four pixels.
#[inline(always)]
pub(super) fn pixels<S: Simd>(simd: S, m: [S::f32s; POINTS]) -> [S::f32s; SIDE] {
    let fma = |factor: f32, a, b| simd.mul_add_f32s(simd.splat_f32s(factor), a, b);
    let times = |factor: f32, a| simd.mul_f32s(simd.splat_f32s(factor), a);
    let (even, odd) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    let (more_even, more_odd) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    [
        simd.add_f32s(m[0], simd.add_f32s(even, more_even)),
        times(FRAC_1_SQRT_2, fma(2.0, more_odd, odd)),
        times(0.5, fma(4.0, more_even, even)),
        fma(0.5 * FRAC_1_SQRT_2, fma(8.0, more_odd, odd), m[5]),
    ]
}

/// The three weights of a side to its points.
#[inline(always)]
pub(super) fn spread<S: Simd>(simd: S, g: [S::f32s; 3]) -> [S::f32s; POINTS] {
    let fma = |factor: f32, a, b| simd.mul_add_f32s(simd.splat_f32s(factor), a, b);
    let times = |factor: f32, a| simd.mul_f32s(simd.splat_f32s(factor), a);
    let even = times(-2.0 / 3.0, fma(0.5, g[2], g[0]));
    let more_even = times(1.0 / 6.0, fma(2.0, g[2], g[0]));
    [
        g[0],
        fma(-SQRT_2 / 3.0, g[1], even),
        fma(SQRT_2 / 3.0, g[1], even),
        fma(SQRT_2 / 6.0, g[1], more_even),
        fma(-SQRT_2 / 6.0, g[1], more_even),
        g[2],
    ]
}

/// The transpose of [`spread`].
#[inline(always)]
pub(super) fn gather<S: Simd>(simd: S, u: [S::f32s; POINTS]) -> [S::f32s; 3] {
    let fma = |factor: f32, a, b| simd.mul_add_f32s(simd.splat_f32s(factor), a, b);
    let times = |factor: f32, a| simd.mul_f32s(simd.splat_f32s(factor), a);
    let (even, odd) = (simd.add_f32s(u[1], u[2]), simd.sub_f32s(u[1], u[2]));
    let (more_even, more_odd) = (simd.add_f32s(u[3], u[4]), simd.sub_f32s(u[3], u[4]));
    [
        fma(1.0 / 6.0, fma(-4.0, even, more_even), u[0]),
        times(SQRT_2 / 6.0, fma(-2.0, odd, more_odd)),
        fma(1.0 / 3.0, simd.sub_f32s(more_even, even), u[5]),
    ]
}
