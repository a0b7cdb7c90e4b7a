//! Rows of pixels with k values each: what inference does to logits after the network.

use super::simd::{LANES, add_lanes, exp, fma, largest, vectorised};

/// A weighted source of an output.
pub(crate) type Tap = (usize, f32);

vectorised! {
    /// `a · wa + b · wb`; where `wb` is 0, `b` is not read.
    pub(crate) fn blend(a: &[f32], wa: f32, b: &[f32], wb: f32, out: &mut [f32]) {
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

vectorised! {
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

vectorised! {
    /// The index of the largest of each pixel's values, of equals the first; 0 where none is a number.
    pub(crate) fn argmax(scores: &[f32], k: usize, ids: &mut [u8]) {
        for (scores, id) in scores.chunks_exact(k).zip(ids) {
            let peak = largest(scores);
            let mut first = [u32::MAX; LANES];
            let mut look = |chunk: &[f32], start: usize| {
                for (i, (first, score)) in first.iter_mut().zip(chunk).enumerate() {
                    let candidate = if *score == peak { (start + i) as u32 } else { u32::MAX };
                    *first = (*first).min(candidate);
                }
            };
            for (j, chunk) in scores.as_chunks::<LANES>().0.iter().enumerate() {
                look(chunk, j * LANES);
            }
            match scores.last_chunk::<LANES>() {
                Some(last) => look(last, k - LANES),
                None => look(scores, 0),
            }
            let first = first.into_iter().fold(u32::MAX, u32::min);
            *id = if first == u32::MAX { 0 } else { first as u8 };
        }
    }
}

vectorised! {
    /// Adds the softmax of each pixel's logits, which are overwritten.
    pub(crate) fn add_softmax(logits: &mut [f32], k: usize, sum: &mut [f32]) {
        for (logits, sum) in logits.chunks_exact_mut(k).zip(sum.chunks_exact_mut(k)) {
            let peak = largest(logits);
            let mut lanes = [0.0; LANES];
            let mut chunks = logits.chunks_exact_mut(LANES);
            for chunk in &mut chunks {
                for i in 0..LANES {
                    chunk[i] = exp::<FMA>(chunk[i] - peak);
                    lanes[i] += chunk[i];
                }
            }
            for (value, lane) in chunks.into_remainder().iter_mut().zip(&mut lanes) {
                *value = exp::<FMA>(*value - peak);
                *lane += *value;
            }
            let scale = 1.0 / add_lanes(lanes);
            for (sum, value) in sum.iter_mut().zip(&*logits) {
                *sum = fma::<FMA>(*value, scale, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_softmax_sums_to_one() {
        let mut logits: Vec<f32> = (0..70).map(|i| ((i * 37) % 11) as f32).collect();
        let exact: f64 = logits[..35].iter().map(|x| f64::from(*x).exp()).sum();
        let expected = f64::from(logits[3]).exp() / exact;
        let mut sum = vec![0.0; 70];
        add_softmax(&mut logits, 35, &mut sum);
        assert!((f64::from(sum[3]) - expected).abs() < 1e-7);
        assert!((sum[35..].iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn pixels_are_blended_and_added() {
        let mut row = [0.0; 4];
        blend(&[1.0, 2.0, 3.0, 4.0], 0.5, &[f32::NAN; 4], 0.0, &mut row);
        assert_eq!(row, [0.5, 1.0, 1.5, 2.0]);
        let mut out = [10.0; 4];
        let taps = [[(0, 0.25), (1, 0.75), (0, 0.0), (0, 0.0)], [(1, 1.0), (1, 0.0), (0, 0.0), (0, 0.0)]];
        add_resampled(&row, 2, &taps, &mut out);
        assert_eq!(out, [11.25, 11.75, 11.5, 12.0]);
    }
}
