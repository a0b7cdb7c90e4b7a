//! Rows of pixels with k values each: what inference does to logits after the network.

use std::f32::consts::LOG2_E;

use pulp::{Simd, WithSimd};

use crate::kernels::matmul::{Product, Threads, View};
use crate::kernels::simd::{LANES, fma, largest, vectorized};
use crate::kernels::softmax::exponentials;
use crate::kernels::vector;
use crate::kernels::vector::{exp2, load, put, starts, vectors};

/// A weighted source of an output.
pub(crate) type Tap = (usize, f32);

vectorized! {
    /// `a · wa + b · wb`; where `wb` is 0, `b` is not read.
    pub(crate) fn interpolate_rows(a: &[f32], wa: f32, b: &[f32], wb: f32, out: &mut [f32]) {
        if wb == 0.0 {
            for (out, a) in out.iter_mut().zip(a) {
                *out = a * wa;
            }
            return;
        }
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = fma::<FMA>(*a, wa, b * wb);
        }
    }
}

vectorized! {
    /// Adds to each pixel of `out [n, k]` the pixels of `row` that the first two taps of its place name.
    pub(crate) fn add_resampled(row: &[f32], k: usize, taps: &[[Tap; 4]], out: &mut [f32]) {
        for (out, taps) in out.chunks_exact_mut(k).zip(taps) {
            let [(p, wp), (q, wq), ..] = *taps;
            let (p, q) = (&row[p * k..][..k], &row[q * k..][..k]);
            for ((out, p), q) in out.iter_mut().zip(p).zip(q) {
                *out += fma::<FMA>(*p, wp, q * wq);
            }
        }
    }
}

vectorized! {
    /// The index of the largest of each pixel's values, of equals the first; 0 where none is a number.
    pub(crate) fn argmax(scores: &[f32], k: usize, ids: &mut [u8]) {
        for (scores, id) in scores.chunks_exact(k).zip(ids) {
            let peak = largest(scores);
            let mut first = [u32::MAX; LANES];
            let mut find_first = |chunk: &[f32], start: usize| {
                for (i, (first, score)) in first.iter_mut().zip(chunk).enumerate() {
                    let candidate = if *score == peak { (start + i) as u32 } else { u32::MAX };
                    *first = (*first).min(candidate);
                }
            };
            for (j, chunk) in scores.as_chunks::<LANES>().0.iter().enumerate() {
                find_first(chunk, j * LANES);
            }
            match scores.last_chunk::<LANES>() {
                Some(last) => find_first(last, k - LANES),
                None => find_first(scores, 0),
            }
            let first = first.into_iter().fold(u32::MAX, u32::min);
            *id = if first == u32::MAX { 0 } else { first as u8 };
        }
    }
}

/// [`argmax`] of what [`add_resampled`] adds to zeros, without making it.
pub(crate) fn argmax_resampled(row: &[f32], k: usize, taps: &[[Tap; 4]], ids: &mut [u8]) {
    vectors(ArgmaxResampled { row, k, taps, ids });
}

struct ArgmaxResampled<'a> {
    row: &'a [f32],
    k: usize,
    taps: &'a [[Tap; 4]],
    ids: &'a mut [u8],
}

impl WithSimd for ArgmaxResampled<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { row, k, taps, ids } = self;
        let lanes = load(simd, &std::array::from_fn::<f32, 64, _>(|i| i as f32), 0);
        let nothing = simd.splat_f32s(f32::NEG_INFINITY);
        for (id, taps) in ids.iter_mut().zip(taps) {
            let [(p, wp), (q, wq), ..] = *taps;
            let (p, q) = (&row[p * k..][..k], &row[q * k..][..k]);
            let (wp, wq) = (simd.splat_f32s(wp), simd.splat_f32s(wq));
            let (mut best, mut first) = (nothing, simd.splat_f32s(0.0));
            for at in starts(simd, k) {
                // The last are moved back to end with the row: an index met twice is the same index.
                let at = if at + S::F32_LANES > k { k.saturating_sub(S::F32_LANES) } else { at };
                let value = simd.mul_add_f32s(load(simd, p, at), wp, simd.mul_f32s(load(simd, q, at), wq));
                let index = simd.add_f32s(lanes, simd.splat_f32s(at as f32));
                let larger = simd.greater_than_f32s(value, best);
                best = simd.select_f32s(larger, value, best);
                first = simd.select_f32s(larger, index, first);
            }
            if k < S::F32_LANES {
                best = simd.select_f32s(simd.less_than_f32s(lanes, simd.splat_f32s(k as f32)), best, nothing);
            }
            let peak = simd.splat_f32s(vector::most(simd, best));
            let last = simd.splat_f32s(f32::MAX);
            let first = vector::least(simd, simd.select_f32s(simd.equal_f32s(best, peak), first, last));
            // Where nothing is a number, nothing was the largest.
            *id = if first < k as f32 { first as u8 } else { 0 };
        }
    }
}

/// Adds for each pixel the votes of the masks that cover it: `masks [n, c]` are logits, which are overwritten, `votes
/// [c, k]`, and `out [n, k]` gains `sigmoid(masks) · votes`.
pub(crate) fn add_votes(masks: &mut [f32], votes: &[f32], k: usize, out: &mut [f32]) {
    let (n, c) = (out.len() / k, votes.len() / k);
    vectors(Sigmoid(masks));
    Product::new(View::new(masks, n, c, c), View::new(votes, c, k, k)).add_to(out, Threads::One);
}

/// The sigmoid of values, in place.
struct Sigmoid<'a>(&'a mut [f32]);

impl WithSimd for Sigmoid<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (one, least) = (simd.splat_f32s(1.0), simd.splat_f32s(-126.0));
        for at in starts(simd, self.0.len()) {
            let power = simd.mul_f32s(load(simd, self.0, at), simd.splat_f32s(LOG2_E));
            // A logit so low that its sigmoid is not a normal number counts for 0 in the end.
            let power = exp2(simd, simd.neg_f32s(simd.max_f32s(power, least)));
            put(simd, self.0, at, simd.div_f32s(one, simd.add_f32s(one, power)));
        }
    }
}

/// Adds the softmax of each pixel's logits, which are overwritten.
pub(crate) fn add_softmax(logits: &mut [f32], k: usize, sum: &mut [f32]) {
    vectors(AddSoftmax { logits, k, sum });
}

struct AddSoftmax<'a> {
    logits: &'a mut [f32],
    k: usize,
    sum: &'a mut [f32],
}

impl WithSimd for AddSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { logits, k, sum } = self;
        for (logits, sum) in logits.chunks_exact_mut(k).zip(sum.chunks_exact_mut(k)) {
            let scale = simd.splat_f32s(exponentials(simd, logits));
            for at in starts(simd, k) {
                let value = simd.mul_add_f32s(load(simd, logits, at), scale, load(simd, sum, at));
                put(simd, sum, at, value);
            }
        }
    }
}

/// Makes each pixel's logits `[n, k]` proportional to their softmax, and gives the factors that are still missing: the
/// probability of a class is its value times its pixel's factor. Whoever wants a class or two saves the other products.
pub(crate) fn exponentiate(logits: &mut [f32], k: usize, factors: &mut [f32]) {
    vectors(Exponentiate { logits, k, factors });
}

struct Exponentiate<'a> {
    logits: &'a mut [f32],
    k: usize,
    factors: &'a mut [f32],
}

impl WithSimd for Exponentiate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (logits, factor) in self.logits.chunks_exact_mut(self.k).zip(self.factors) {
            *factor = exponentials(simd, logits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::kernels::vector::{WIDTHS, vectors_of};

    #[test]
    fn the_first_of_equals_wins() {
        for k in [1, 3, 31, 32, 40, 150] {
            let mut scores = vec![0.0; 3 * k];
            (scores[k - 1], scores[k + k / 2], scores[2 * k - 1]) = (1.0, 2.0, 2.0);
            scores[2 * k..].fill(f32::NAN);
            let mut ids = [9; 3];
            argmax(&scores, k, &mut ids);
            assert_eq!(ids, [k as u8 - 1, (k / 2) as u8, 0], "{k}");
        }
    }

    #[test]
    fn resampling_on_the_way_changes_no_label() {
        let mut rng = crate::rng::Rng::new(7, &[]);
        for k in [1, 2, 5, 15, 16, 17, 33, 150, 254] {
            // Few values, so that there are ties.
            let mut row: Vec<f32> = (0..4 * k).map(|_| rng.below(5) as f32 - 7.0).collect();
            row[3 * k..].fill(f32::NAN);
            let taps: Vec<[Tap; 4]> = (0..50)
                .map(|i| {
                    let (p, part) = (i / 16, (i % 16) as f32 / 16.0);
                    [(p, 1.0 - part), ((p + 1).min(3), part), (0, 0.0), (0, 0.0)]
                })
                .collect();
            let (mut made, mut expected, mut found) = (vec![0.0; 50 * k], [9; 50], [9; 50]);
            add_resampled(&row, k, &taps, &mut made);
            argmax(&made, k, &mut expected);
            for width in 0..WIDTHS {
                vectors_of(width, ArgmaxResampled { row: &row, k, taps: &taps, ids: &mut found });
                assert_eq!(found, expected, "{k}");
            }
        }
    }

    #[test]
    fn a_softmax_sums_to_one() {
        let mut logits: Vec<f32> = (0..70).map(|i| ((i * 37) % 11) as f32).collect();
        let exact: f64 = logits[..35].iter().map(|x| f64::from(*x).exp()).sum();
        let expected = f64::from(logits[3]).exp() / exact;
        let mut sum = vec![0.0; 70];
        add_softmax(&mut logits, 35, &mut sum);
        assert!((f64::from(sum[3]) - expected).abs() < 1e-7);
        assert!((sum[35..].iter().sum::<f32>() - 1.0).abs() < 1e-6);

        let mut logits: Vec<f32> = (0..70).map(|i| ((i * 37) % 11) as f32).collect();
        let mut factors = [0.0; 2];
        exponentiate(&mut logits, 35, &mut factors);
        let same = |at: usize| (logits[at] * factors[at / 35] - sum[at]).abs() < 1e-7;
        assert!((0..70).all(same));
    }

    #[test]
    fn pixels_are_blended_and_added() {
        let mut row = [0.0; 4];
        interpolate_rows(&[1.0, 2.0, 3.0, 4.0], 0.5, &[f32::NAN; 4], 0.0, &mut row);
        assert_eq!(row, [0.5, 1.0, 1.5, 2.0]);
        let mut out = [10.0; 4];
        let taps = [[(0, 0.25), (1, 0.75), (0, 0.0), (0, 0.0)], [(1, 1.0), (1, 0.0), (0, 0.0), (0, 0.0)]];
        add_resampled(&row, 2, &taps, &mut out);
        assert_eq!(out, [11.25, 11.75, 11.5, 12.0]);
    }
}
