//! Rows of numbers as vectors of the machine's width, by `pulp`: for loops that the compiler does not vectorise well by
//! itself, such as sums over rows whose length is not a multiple of anything.

use std::mem::MaybeUninit;

use pulp::Simd;
#[cfg(test)]
use pulp::WithSimd;

pub(super) use super::simd::vectors;

/// Where the vectors that cover a row of `len` begin.
#[inline(always)]
pub(super) fn starts<S: Simd>(_: S, len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(S::F32_LANES)
}

/// The elements from `at` on; zeros past the end.
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, row: &[f32], at: usize) -> S::f32s {
    match row.get(at..at + S::F32_LANES) {
        // SAFETY: the slice holds a vector, which is plain numbers and needs no alignment to be read so.
        Some(all) => unsafe { all.as_ptr().cast::<S::f32s>().read_unaligned() },
        None => simd.partial_load_f32s(&row[at..]),
    }
}

/// Writes elements from `at` on, as far as the row goes.
#[inline(always)]
pub(super) fn store<S: Simd>(simd: S, row: &mut [MaybeUninit<f32>], at: usize, values: S::f32s) {
    let remaining = row.len() - at;
    let place = row[at..].as_mut_ptr();
    // SAFETY: what is written lies within the row.
    unsafe {
        if remaining >= S::F32_LANES {
            place.cast::<S::f32s>().write_unaligned(values);
        } else {
            simd.mask_store_ptr_f32s(simd.mask_between_m32s(0, remaining as u32), place.cast(), values);
        }
    }
}

/// Replaces the elements from `at` on, as far as the row goes.
#[inline(always)]
pub(super) fn put<S: Simd>(simd: S, row: &mut [f32], at: usize, values: S::f32s) {
    match row.get_mut(at..at + S::F32_LANES) {
        // SAFETY: the slice holds a vector.
        Some(all) => unsafe { all.as_mut_ptr().cast::<S::f32s>().write_unaligned(values) },
        None => simd.partial_store_f32s(&mut row[at..], values),
    }
}

/// Adds to the elements from `at` on, as far as the row goes.
#[inline(always)]
pub(super) fn accumulate<S: Simd>(simd: S, row: &mut [f32], at: usize, values: S::f32s) {
    put(simd, row, at, simd.add_f32s(load(simd, row, at), values));
}

/// The elements from `at` on of a row of `len`; zeros in place of what lies past the end.
#[inline(always)]
pub(super) fn within<S: Simd>(simd: S, len: usize, at: usize, values: S::f32s) -> S::f32s {
    if at + S::F32_LANES <= len {
        return values;
    }
    let mask = simd.mask_between_m32s(0, (len - at) as u32).mask();
    simd.select_f32s(mask, values, simd.splat_f32s(0.0))
}

/// The sum of a vector's elements.
///
/// Folded here, since pulp's own reductions of wide vectors call functions for single instructions.
#[inline(always)]
pub(super) fn sum<S: Simd>(simd: S, values: S::f32s) -> f32 {
    fold(simd, values, |a, b| a + b)
}

/// The largest of a vector's elements.
#[inline(always)]
pub(super) fn most<S: Simd>(simd: S, values: S::f32s) -> f32 {
    fold(simd, values, |a, b| if a > b { a } else { b })
}

/// The least of a vector's elements.
#[inline(always)]
pub(super) fn least<S: Simd>(simd: S, values: S::f32s) -> f32 {
    fold(simd, values, |a, b| if a < b { a } else { b })
}

#[inline(always)]
fn fold<S: Simd>(_: S, values: S::f32s, both: impl Fn(f32, f32) -> f32) -> f32 {
    const MOST: usize = 16;
    const { assert!(S::F32_LANES <= MOST && S::F32_LANES.is_power_of_two()) };
    let mut lanes = [0.0; MOST];
    // SAFETY: the array has room for the vector.
    unsafe { lanes.as_mut_ptr().cast::<S::f32s>().write_unaligned(values) };
    let mut half = S::F32_LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = both(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The largest element; -inf for none.
#[inline(always)]
pub(super) fn largest<S: Simd>(simd: S, row: &[f32]) -> f32 {
    match row.len().checked_sub(S::F32_LANES) {
        None => row.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        Some(last) => {
            // The last elements, whether or not they have been seen.
            let mut peak = load(simd, row, last);
            for at in starts(simd, last) {
                peak = simd.max_f32s(peak, load(simd, row, at));
            }
            most(simd, peak)
        }
    }
}

/// 2^x for x of at most 127, to about one unit in the last place; 0 below 2^-126.
#[inline(always)]
pub(super) fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // 1.5 * 2^23 rounds to an integer; the 127 puts the biased exponent into its low bits.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    let constant = |value| simd.splat_f32s(value);
    let least = constant(-126.0);
    let vanishes = simd.less_than_f32s(x, least);
    // Not the larger of both, which may swallow what is not a number.
    let x = simd.select_f32s(vanishes, least, x);
    let shifted = simd.add_f32s(x, constant(ROUND));
    let fraction = simd.sub_f32s(x, simd.sub_f32s(shifted, constant(ROUND)));
    let mut p = constant(EXP2[6]);
    let mut i = 6;
    while i > 0 {
        i -= 1;
        p = simd.mul_add_f32s(p, fraction, constant(EXP2[i]));
    }
    let power = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    // Numbers below the normal ones would be slow.
    simd.select_f32s(vanishes, constant(0.0), simd.mul_f32s(p, simd.transmute_f32s_u32s(power)))
}

/// 2^x on [-1/2, 1/2] with the least relative error.
#[allow(clippy::excessive_precision)]
const EXP2: [f32; 7] = [
    1.0,
    0.693_147_182_464_599_6,
    0.240_226_462_483_406_07,
    0.055_503_286_421_298_98,
    0.009_618_489_071_726_799,
    0.001_339_993_090_368_807_3,
    0.000_153_458_095_155_656_34,
];

/// The density and the distribution function of the standard normal at x.
///
/// The tail is exp(-x²/2) times a polynomial in 1 / (1 + |x|/4), fitted to erfcx by weighted least squares;
/// its error is below 1e-7 everywhere.
#[inline(always)]
pub(super) fn normal<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;
    let constant = |value| simd.splat_f32s(value);
    let e = exp2(simd, simd.mul_f32s(simd.mul_f32s(constant(-0.5 * std::f32::consts::LOG2_E), x), x));
    let one = constant(1.0);
    let t = simd.div_f32s(one, simd.mul_add_f32s(simd.abs_f32s(x), constant(TAIL_SCALE), one));
    let mut p = constant(TAIL[8]);
    let mut i = 8;
    while i > 0 {
        i -= 1;
        p = simd.mul_add_f32s(p, t, constant(TAIL[i]));
    }
    let tail = simd.mul_f32s(simd.mul_f32s(e, p), t);
    let cumulative = simd.select_f32s(simd.less_than_f32s(x, constant(0.0)), tail, simd.sub_f32s(one, tail));
    (simd.mul_f32s(e, constant(FRAC_1_SQRT_TAU)), cumulative)
}

const TAIL_SCALE: f32 = 0.25;
#[allow(clippy::excessive_precision)]
const TAIL: [f32; 9] = [
    0.099_866_331_631_747_96,
    0.097_213_538_546_170_82,
    0.113_397_545_112_141_16,
    -0.004_815_014_634_585_708,
    0.288_695_296_197_650_05,
    -0.328_047_220_676_273_4,
    0.399_494_002_025_372_94,
    -0.201_132_281_568_011_77,
    0.035_327_803_396_335_25,
];

/// The widths of vectors that tests go through.
#[cfg(test)]
pub(super) const WIDTHS: usize = 3;

/// Runs a loop with vectors of one width: single numbers, AVX2, or the best there is.
#[cfg(test)]
pub(super) fn vectors_of<Op: WithSimd>(width: usize, op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    if let (1, Some(simd)) = (width, pulp::x86::V3::try_new()) {
        return Simd::vectorize(simd, op);
    }
    if width == 0 { pulp::Scalar::new().vectorize(op) } else { vectors(op) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Powers<'a>(&'a mut [f32]);

    impl WithSimd for Powers<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for at in starts(simd, self.0.len()) {
                let values = exp2(simd, load(simd, self.0, at));
                put(simd, self.0, at, values);
            }
        }
    }

    #[test]
    fn powers_are_right_to_the_last_places() {
        let x: Vec<f32> = (-1_260_000..1_270_001).map(|i| i as f32 * 1e-4).collect();
        for width in 0..WIDTHS {
            let mut y = x.clone();
            vectors_of(width, Powers(&mut y));
            let off = |(x, y): (&f32, &f32)| (f64::from(*y) / f64::from(*x).exp2() - 1.0).abs();
            let worst = x.iter().zip(&y).map(off).fold(0.0, f64::max);
            assert!(worst < 1.5e-7, "{worst:e}");
            let mut ends = [f32::NEG_INFINITY, -1e30, 0.0];
            vectors_of(width, Powers(&mut ends));
            assert_eq!(ends, [0.0, 0.0, 1.0]);
            let mut lost = [f32::NAN; 20];
            vectors_of(width, Powers(&mut lost));
            assert!(lost.iter().all(|value| value.is_nan()));
        }
    }

    struct Tripled<'a>(&'a [f32], &'a mut [MaybeUninit<f32>], &'a mut [f32]);

    impl WithSimd for Tripled<'_> {
        type Output = f32;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            let Self(row, doubled, added) = self;
            let mut sum = simd.splat_f32s(0.0);
            for at in starts(simd, row.len()) {
                let x = load(simd, row, at);
                store(simd, doubled, at, simd.add_f32s(x, x));
                accumulate(simd, added, at, x);
                // What lies past the end must not count.
                let more = within(simd, row.len(), at, simd.add_f32s(x, simd.splat_f32s(1.0)));
                sum = simd.add_f32s(sum, more);
            }
            super::sum(simd, sum)
        }
    }

    #[test]
    fn rows_of_any_length_are_covered_and_nothing_else() {
        for (width, n) in (0..WIDTHS).flat_map(|width| [0, 1, 7, 8, 9, 15, 16, 17, 33, 100].map(|n| (width, n))) {
            let row: Vec<f32> = (0..n + 40).map(|i| (i * 37 % 101) as f32).collect();
            let mut doubled = vec![MaybeUninit::new(-1.0); n + 40];
            let mut added = vec![1.0; n + 40];
            let sum = vectors_of(width, Tripled(&row[..n], &mut doubled[..n], &mut added[..n]));
            assert_eq!(sum, row[..n].iter().map(|x| x + 1.0).sum::<f32>());
            for i in 0..n + 40 {
                // SAFETY: all of it was initialised.
                let doubled = unsafe { doubled[i].assume_init() };
                let expected = if i < n { (2.0 * row[i], 1.0 + row[i]) } else { (-1.0, 1.0) };
                assert_eq!((doubled, added[i]), expected, "{i} of {n}");
            }
        }
    }
}
