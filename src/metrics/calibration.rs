//! Whether a network's probabilities can be believed: of all pixels labelled with 80 %, are 80 % right?
//!
//! The probability of the winning class is sorted into fifteen bins of equal width. The expected calibration error (Guo
//! et al. 2017, arXiv 1706.04599) is the mean over pixels of the difference between a bin's accuracy and its mean
//! probability. A bin holds its upper end, as in that paper. Pixels without truth (255) count nowhere.
//!
//! Sums are kept in whole parts of 2⁻²⁴, the resolution of f32 above one half, so that the order of images does not
//! matter.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::{IGNORE, Labels};
use crate::infer::confidence::Confidence;
use crate::metrics::overlap::{Overlaps, increase};
use crate::stats::ratio;

/// Bins of the reliability table.
pub(crate) const BINS: usize = 15;

/// One, in the parts that probabilities are added in.
const ONE: u64 = 1 << 24;
/// One nat, in the parts that logarithms are added in.
const NAT: f64 = (1 << 20) as f64;

/// A probability in whole parts; what is not a number is 0.
pub(crate) fn parts(p: f32) -> u64 {
    (f64::from(p.clamp(0.0, 1.0)) * ONE as f64).round() as u64
}

/// A mean probability from a sum of [`parts`].
pub(crate) fn mean_probability(sum: u64, pixels: u64) -> Option<f64> {
    ratio(sum, pixels).map(|parts| parts / ONE as f64)
}

/// Counts from which calibration follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reliability {
    bins: [BinCount; BINS],
    /// Sum over pixels of -ln p(truth), in parts of a nat.
    log_loss: u64,
    /// For each class the sum of its probability over the pixels that the truth gives it.
    of_truth: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
struct BinCount {
    pixels: u64,
    right: u64,
    confidence: u64,
}

impl From<[u64; 3]> for BinCount {
    fn from([pixels, right, confidence]: [u64; 3]) -> Self {
        Self { pixels, right, confidence }
    }
}

impl From<BinCount> for [u64; 3] {
    fn from(bin: BinCount) -> Self {
        [bin.pixels, bin.right, bin.confidence]
    }
}

/// How far probabilities can be believed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error, 0..=1; `None` without pixels.
    pub ece: Option<f64>,
    /// Mean over pixels of -ln of the probability of the truth, in nats.
    pub nll: Option<f64>,
    /// Mean probability of the winning class.
    pub confidence: Option<f64>,
    /// The reliability table.
    pub bins: Vec<Bin>,
}

/// A row of the reliability table: pixels whose label has a probability in (`from`, `to`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Lower end.
    pub from: f64,
    /// Upper end.
    pub to: f64,
    /// Pixels.
    pub pixels: u64,
    /// Their mean probability.
    pub confidence: Option<f64>,
    /// The share of them that is right.
    pub accuracy: Option<f64>,
}

impl Reliability {
    /// Nothing counted.
    pub fn new(classes: usize) -> Self {
        Self { bins: [BinCount::default(); BINS], log_loss: 0, of_truth: vec![0; classes] }
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.of_truth.len()
    }

    /// Counts one image; all maps have one size.
    pub fn add(&mut self, truth: &Labels, prediction: &Labels, confidence: &Confidence) {
        for (at, truth) in truth.ids.iter().enumerate().filter(|(_, truth)| **truth != IGNORE) {
            let (p, of_truth) = (confidence.confidence[at], confidence.of_truth[at]);
            let bin = &mut self.bins[bin_of(p)];
            bin.pixels += 1;
            bin.right += u64::from(prediction.ids[at] == *truth);
            bin.confidence += parts(p);
            self.of_truth[usize::from(*truth)] += parts(of_truth);
            self.log_loss += (-f64::from(of_truth.clamp(f32::MIN_POSITIVE, 1.0)).ln() * NAT).round() as u64;
        }
    }

    /// Adds other counts of the same classes.
    ///
    /// # Errors
    /// Sums that are too large.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        assert_eq!(self.classes(), other.classes(), "counts of different classes");
        for (bin, more) in self.bins.iter_mut().zip(&other.bins) {
            increase(&mut bin.pixels, more.pixels)?;
            increase(&mut bin.right, more.right)?;
            increase(&mut bin.confidence, more.confidence)?;
        }
        increase(&mut self.log_loss, other.log_loss)?;
        self.of_truth.iter_mut().zip(&other.of_truth).try_for_each(|(sum, more)| increase(sum, *more))
    }

    /// Fails where the counts called `field` cannot be those of the pixels of `whole`: a file may hold anything.
    pub(crate) fn check(&self, field: &str, whole: &Overlaps) -> Result<()> {
        let fault = |what: String| Err(Error::new(format!("`{field}.{what}")));
        let (k, one) = (whole.classes(), u128::from(ONE));
        if self.classes() != k {
            return fault(format!("of_truth` counts {} classes, and the confusion matrix {k}", self.classes()));
        }
        for (at, bin) in self.bins.iter().enumerate() {
            let [pixels, right, confidence] = (*bin).into();
            if right > pixels {
                return fault(format!("bins[{at}]`: of {pixels} pixels {right} are right"));
            }
            // Each probability was rounded to parts.
            let end = |at: usize, up: u128| (at as u128 * one + up) / BINS as u128;
            let (least, most) = (end(at, 0), end(at + 1, BINS as u128 - 1));
            let (pixels, confidence) = (u128::from(pixels), u128::from(confidence));
            if !(pixels * least..=pixels * most).contains(&confidence) {
                return fault(format!(
                    "bins[{at}]`: {confidence} is not a sum of {pixels} probabilities from {at}/{BINS} to {}/{BINS}",
                    at + 1
                ));
            }
        }
        let sum = |of: fn(&BinCount) -> u64| self.bins.iter().map(|bin| u128::from(of(bin))).sum::<u128>();
        let all = |of: usize| (0..k).map(|class| u128::from(whole.of_class(class)[of])).sum::<u128>();
        for (found, of, what) in [(sum(|bin| bin.right), 0, "right ones"), (sum(|bin| bin.pixels), 1, "pixels")] {
            if found != all(of) {
                return fault(format!("bins` hold {found} {what}, and the confusion matrix {}", all(of)));
            }
        }
        for (class, sum) in self.of_truth.iter().enumerate() {
            let pixels = whole.of_class(class)[1];
            if u128::from(*sum) > u128::from(pixels) * one {
                return fault(format!("of_truth[{class}]`: {sum} is not a sum of {pixels} probabilities from 0 to 1"));
            }
        }
        self.check_loss(field, all(1) as f64)
    }

    /// The logarithm is concave: probabilities of a known mean bound the sum of their logarithms from both sides.
    fn check_loss(&self, field: &str, pixels: f64) -> Result<()> {
        let (nats, truth) = (self.log_loss as f64 / NAT, self.of_truth.iter().map(|sum| *sum as f64).sum::<f64>());
        let mean = if pixels > 0.0 { truth / ONE as f64 / pixels } else { 1.0 };
        // For what was rounded: half a part of each probability and of each logarithm.
        let (part, slack) = (1.0 / ONE as f64, pixels * (1.0 / NAT + 1e-9));
        let least = -pixels * (mean + part).min(1.0).ln() - slack;
        let most = -pixels * f64::from(f32::MIN_POSITIVE).ln() * (1.0 - mean + part).min(1.0) + slack;
        if (least..=most).contains(&nats) {
            return Ok(());
        }
        Err(Error::new(format!(
            "`{field}.log_loss`: {nats:.1} nats over {pixels} pixels do not fit their mean probability, {mean:.6}"
        )))
    }

    /// What the counts say.
    pub fn calibration(&self) -> Calibration {
        let sum = |of: fn(&BinCount) -> u64| self.bins.iter().map(of).fold(0, u64::saturating_add);
        let (pixels, confidence) = (sum(|bin| bin.pixels), sum(|bin| bin.confidence));
        let bins: Vec<Bin> = self.bins.iter().enumerate().map(|(i, bin)| bin.row(i)).collect();
        let gap = |bin: &Bin| Some(bin.pixels as f64 * (bin.accuracy? - bin.confidence?).abs());
        Calibration {
            ece: (pixels > 0).then(|| bins.iter().filter_map(gap).sum::<f64>() / pixels as f64),
            nll: ratio(self.log_loss, pixels).map(|parts| parts / NAT),
            confidence: mean_probability(confidence, pixels),
            bins,
        }
    }

    /// The mean probability that a class gets where the truth holds it, of which there are `pixels`: its threshold in
    /// confident learning.
    pub(crate) fn self_confidence(&self, class: usize, pixels: u64) -> Option<f64> {
        mean_probability(self.of_truth[class], pixels)
    }
}

impl BinCount {
    fn row(&self, at: usize) -> Bin {
        Bin {
            from: at as f64 / BINS as f64,
            to: (at + 1) as f64 / BINS as f64,
            pixels: self.pixels,
            confidence: mean_probability(self.confidence, self.pixels),
            accuracy: ratio(self.right, self.pixels),
        }
    }
}

/// The bin of a probability; that of what is not a number is the first.
fn bin_of(p: f32) -> usize {
    let above = (f64::from(p) * BINS as f64).ceil() as usize;
    above.clamp(1, BINS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities of `k` classes at `n` pixels, and a truth: the formulas that made the reference numbers below.
    fn example(n: usize, k: usize) -> (Vec<Vec<f64>>, Vec<u8>) {
        let probabilities = (0..n)
            .map(|i| {
                let logits = (0..k).map(|c| 3.0 * ((i * (c + 2)) as f64 * 0.7).sin());
                let powers: Vec<f64> = logits.map(f64::exp).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect()
            })
            .collect();
        (probabilities, (0..n).map(|i| if i % 11 == 3 { IGNORE } else { (i * i % 7 % k) as u8 }).collect())
    }

    fn count(probabilities: &[Vec<f64>], truth: &[u8], k: usize) -> Reliability {
        let labels = |ids: Vec<u8>| Labels { width: ids.len(), height: 1, ids };
        let best = |p: &Vec<f64>| (0..p.len()).fold(0, |best, c| if p[c] > p[best] { c } else { best });
        let ids: Vec<usize> = probabilities.iter().map(best).collect();
        let confidence = Confidence {
            confidence: probabilities.iter().zip(&ids).map(|(p, id)| p[*id] as f32).collect(),
            of_truth: probabilities
                .iter()
                .zip(truth)
                .map(|(p, id)| *p.get(usize::from(*id)).unwrap_or(&0.0) as f32)
                .collect(),
        };
        let mut counts = Reliability::new(k);
        counts.add(&labels(truth.to_vec()), &labels(ids.iter().map(|id| *id as u8).collect()), &confidence);
        counts
    }

    #[test]
    fn equals_the_definition_on_full_probabilities() {
        let (probabilities, truth) = example(5000, 6);
        let found = count(&probabilities, &truth, 6).calibration();
        let pixels: Vec<(f64, bool, f64)> = probabilities
            .iter()
            .zip(&truth)
            .filter(|(_, truth)| **truth != IGNORE)
            .map(|(p, truth)| {
                let most = p.iter().copied().fold(0.0, f64::max);
                (most, p[usize::from(*truth)] == most, p[usize::from(*truth)])
            })
            .collect();
        let n = pixels.len() as f64;
        let mut ece = 0.0;
        for bin in 0..BINS {
            let (low, high) = (bin as f64 / 15.0, (bin + 1) as f64 / 15.0);
            let inside: Vec<_> = pixels.iter().filter(|(p, ..)| *p > low && *p <= high).collect();
            let gap = inside.iter().map(|(p, right, _)| f64::from(*right) - p).sum::<f64>();
            ece += gap.abs() / n;
            assert_eq!(found.bins[bin].pixels as usize, inside.len());
        }
        let nll = pixels.iter().map(|(.., of_truth)| -of_truth.ln()).sum::<f64>() / n;
        assert!((found.ece.unwrap() - ece).abs() < 1e-6, "{found:?} {ece}");
        assert!((found.nll.unwrap() - nll).abs() < 1e-5);
    }

    /// `torchmetrics` 1.x: `MulticlassCalibrationError(6, n_bins=15, norm="l1", ignore_index=255)` on the same
    /// formulas.
    #[test]
    fn equals_torchmetrics() {
        let (probabilities, truth) = example(500, 6);
        let ece = count(&probabilities, &truth, 6).calibration().ece.unwrap();
        assert!((ece - TORCHMETRICS).abs() < 1e-6, "{ece}");
    }
    const TORCHMETRICS: f64 = 0.386_616_77;

    #[test]
    fn perfect_and_overconfident_networks() {
        let sure = |right: usize, all: usize| -> Calibration {
            let truth: Vec<u8> = (0..all).map(|i| u8::from(i >= right)).collect();
            count(&vec![vec![1.0, 0.0]; all], &truth, 2).calibration()
        };
        assert_eq!((sure(4, 4).ece, sure(4, 4).nll, sure(4, 4).confidence), (Some(0.0), Some(0.0), Some(1.0)));
        assert_eq!(sure(1, 4).ece, Some(0.75));
        assert!(sure(3, 4).nll.unwrap().is_finite(), "a probability of 0 is no infinite loss");
        let eighty = count(&vec![vec![0.2, 0.8]; 5], &[1, 1, 1, 1, 0], 2).calibration();
        assert!(eighty.ece.unwrap() < 1e-6);
        let none = count(&[], &[], 2).calibration();
        assert_eq!((none.ece, none.nll, none.confidence), (None, None, None));
    }

    #[test]
    fn every_probability_has_a_bin() {
        assert_eq!([0.0, 0.01, 0.07, 0.5, 1.0, 1.1, f32::NAN].map(bin_of), [0, 0, 1, 7, 14, 14, 0]);
        assert_eq!([0.0, 1.0, f32::NAN].map(parts), [0, ONE, 0]);
    }

    #[test]
    fn parts_add_up_in_any_order() {
        let (probabilities, truth) = example(300, 4);
        let whole = count(&probabilities, &truth, 4);
        let mut parts = Reliability::new(4);
        for range in [200..300, 0..120, 120..200] {
            parts.merge(&count(&probabilities[range.clone()], &truth[range], 4)).unwrap();
        }
        assert_eq!(parts, whole);
        assert!(whole.self_confidence(0, 1) > Some(0.0));
    }
}
