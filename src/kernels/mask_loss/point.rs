//! The loss of a vector of points and its slope.

use std::f32::consts::LOG2_E;

use pulp::{Simd, WithSimd};

use crate::kernels::vector::{self, exp2, load, put, starts, within};

/// What a single point loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointLoss {
    /// Binary cross entropy.
    CrossEntropy,
    /// Focal loss with alpha 0.25 and gamma 2.
    Focal,
}

/// Weight of the points within a mask in the focal loss; those outside weigh `1 - ALPHA`.
pub(in crate::kernels) const ALPHA: f64 = 0.25;

/// What the slopes of a mask are made of: the gradient of a point's loss is `points`, that of its probability
/// `constant + label · y`.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub(super) points: f32,
    pub(super) constant: f32,
    pub(super) label: f32,
}

/// The sums of losses, of p y, and of p + y.
pub(super) struct Sum<'a> {
    pub(super) loss: PointLoss,
    pub(super) x: &'a [f32],
    pub(super) y: &'a [f32],
}

impl WithSimd for Sum<'_> {
    type Output = [f32; 3];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; 3] {
        let Self { loss, x, y } = self;
        let mut sums = [simd.splat_f32s(0.0); 3];
        for at in starts(simd, x.len()) {
            let y_at = load(simd, y, at);
            let point = Point::new(simd, loss, load(simd, x, at), y_at);
            let inside = simd.mul_f32s(point.p, y_at);
            let either = simd.add_f32s(point.p, y_at);
            let parts = [point.loss, inside, either].map(|part| within(simd, x.len(), at, part));
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum = simd.add_f32s(*sum, part);
            }
        }
        sums.map(|sum| vector::sum(simd, sum))
    }
}

/// The gradient of the logits of a row, into `dx`.
pub(super) struct Slopes<'a> {
    pub(super) loss: PointLoss,
    pub(super) x: &'a [f32],
    pub(super) y: &'a [f32],
    pub(super) factors: Factors,
    pub(super) dx: &'a mut [f32],
}

impl WithSimd for Slopes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { loss, x, y, factors, dx } = self;
        let [points, constant, label] =
            [factors.points, factors.constant, factors.label].map(|value| simd.splat_f32s(value));
        for at in starts(simd, x.len()) {
            let y = load(simd, y, at);
            let point = Point::new(simd, loss, load(simd, x, at), y);
            let of_p = simd.mul_add_f32s(label, y, constant);
            let slope = simd.mul_f32s(of_p, simd.mul_f32s(point.p, point.q));
            put(simd, dx, at, simd.mul_add_f32s(points, point.slope, slope));
        }
    }
}

/// A vector of points: their probabilities p and q = 1 - p, their losses and the slopes of these.
pub(super) struct Point<S: Simd> {
    pub(super) p: S::f32s,
    pub(super) q: S::f32s,
    pub(super) loss: S::f32s,
    pub(super) slope: S::f32s,
}

impl<S: Simd> Point<S> {
    #[inline(always)]
    pub(super) fn new(simd: S, loss: PointLoss, x: S::f32s, y: S::f32s) -> Self {
        let constant = |value| simd.splat_f32s(value);
        let (mul, fma) = (|a, b| simd.mul_f32s(a, b), |a, b, c| simd.mul_add_f32s(a, b, c));
        let (zero, one) = (constant(0.0), constant(1.0));
        // e = exp(-|x|), from which all follows without a difference of near numbers.
        let e = exp2(simd, mul(simd.abs_f32s(x), constant(-LOG2_E)));
        let likely = simd.div_f32s(one, simd.add_f32s(one, e));
        let unlikely = mul(e, likely);
        let negative = simd.less_than_f32s(x, zero);
        let (p, q) = (simd.select_f32s(negative, unlikely, likely), simd.select_f32s(negative, likely, unlikely));
        let log = ln_1p(simd, e);
        let inside = simd.add_f32s(simd.max_f32s(simd.neg_f32s(x), zero), log); // -ln p
        let outside = simd.add_f32s(simd.max_f32s(x, zero), log); // -ln q
        let z = simd.sub_f32s(one, y);
        let entropy = fma(inside, y, mul(outside, z));
        let slope = simd.sub_f32s(mul(p, z), mul(q, y));
        if loss == PointLoss::CrossEntropy {
            return Self { p, q, loss: entropy, slope };
        }
        let missed = fma(q, y, mul(p, z));
        let weight = fma(y, constant((2.0 * ALPHA - 1.0) as f32), constant((1.0 - ALPHA) as f32));
        let weight = mul(weight, missed);
        // d missed / d x = p q (1 - 2 y)
        let turn = mul(mul(p, q), simd.sub_f32s(z, y));
        let slope = mul(weight, fma(missed, slope, mul(simd.add_f32s(entropy, entropy), turn)));
        Self { p, q, loss: mul(mul(entropy, missed), weight), slope }
    }
}

/// ln(1 + e) for e in [0, 1], to two units in the last place: 2 artanh(e / (2 + e)).
#[inline(always)]
fn ln_1p<S: Simd>(simd: S, e: S::f32s) -> S::f32s {
    let s = simd.div_f32s(e, simd.add_f32s(simd.splat_f32s(2.0), e)); // at most 1/3
    let z = simd.mul_f32s(s, s);
    let mut sum = simd.splat_f32s(2.0 / 15.0);
    for odd in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = simd.mul_add_f32s(sum, z, simd.splat_f32s(2.0 / odd));
    }
    simd.mul_f32s(sum, s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::vector::vectors;

    #[test]
    fn logarithms_are_right_to_the_last_places() {
        struct Logs<'a>(&'a mut [f32]);
        impl WithSimd for Logs<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                for at in starts(simd, self.0.len()) {
                    let y = ln_1p(simd, load(simd, self.0, at));
                    put(simd, self.0, at, y);
                }
            }
        }
        let x: Vec<f32> = (1..=100_000).map(|i| i as f32 * 1e-5).chain([1e-30, 1e-8]).collect();
        let mut y = x.clone();
        vectors(Logs(&mut y));
        let off = |(x, y): (&f32, &f32)| (f64::from(*y) / f64::from(*x).ln_1p() - 1.0).abs();
        let worst = x.iter().zip(&y).map(off).fold(0.0, f64::max);
        assert!(worst < 2.5e-7, "{worst:e}");
    }
}
