//! The learning rate as a pure function of the iteration and of how far the run has come: warm-up, then a decay, such
//! as the polynomial one.

use serde::{Deserialize, Serialize};

use crate::train::optimizer::LearningRates;
use crate::train::reschedule::Reschedule;

/// Linear warm-up times decay, as mmcv's `poly` and `CosineAnnealing` policies have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Schedule {
    /// How the learning rate falls.
    pub policy: Policy,
    /// Iterations of linear warm-up.
    pub warmup_iters: u64,
    /// Factor at iteration 0.
    pub warmup_ratio: f64,
    /// Exponent of `poly`; 1 is linear, 0 constant.
    pub power: f64,
    /// Rate at the end.
    pub min_lr: f64,
    /// Iterations in which only the decoder learns; the backbone's warm-up follows them. Spares pretrained weights the
    /// gradients of a decoder that knows nothing yet (EoMT's two stages: 500).
    pub backbone_delay: u64,
    /// Changes of the run's length on its way, as a run with `train.max_time` noted them: it is repeated by them,
    /// without the clock. Each is `[iteration, iterations]`, or with a third number, iterations between evaluations
    /// from there on.
    #[serde(alias = "bends")]
    pub reschedules: Vec<Reschedule>,
}

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Policy {
    /// `(1 - t)^power`.
    #[default]
    Poly,
    /// `(1 + cos(π t)) / 2`.
    Cosine,
}

impl Default for Schedule {
    fn default() -> Self {
        let policy = Policy::Poly;
        Self {
            policy,
            warmup_iters: 1500,
            warmup_ratio: 1e-6,
            power: 1.0,
            min_lr: 0.0,
            backbone_delay: 0,
            reschedules: Vec::new(),
        }
    }
}

impl Schedule {
    /// The decoder's learning rate for the step of `iteration` (from 0), before which the run has come as far as
    /// `progress` (0 to 1), starting from `base`.
    ///
    /// The warm-up multiplies the already decayed learning rate, for `poly`
    /// `((base - min) (1 - progress)^power + min) * (1 - (1 - it / warmup) (1 - ratio))`.
    pub fn lr(&self, base: f64, iteration: u64, progress: f64) -> f64 {
        self.decayed(base, progress) * self.warm(iteration)
    }

    /// The learning rates of backbone and decoder.
    pub fn learning_rates(&self, base: f64, iteration: u64, progress: f64) -> LearningRates {
        let backbone = match iteration.checked_sub(self.backbone_delay) {
            Some(since) => self.decayed(base, progress) * self.warm(since),
            None => 0.0,
        };
        LearningRates { backbone, decoder: self.lr(base, iteration, progress) }
    }

    fn decayed(&self, base: f64, t: f64) -> f64 {
        let left = match self.policy {
            Policy::Poly => (1.0 - t).powf(self.power),
            Policy::Cosine => (1.0 + (std::f64::consts::PI * t).cos()) / 2.0,
        };
        (base - self.min_lr) * left + self.min_lr
    }

    fn warm(&self, iteration: u64) -> f64 {
        if iteration >= self.warmup_iters {
            return 1.0;
        }
        1.0 - (1.0 - iteration as f64 / self.warmup_iters as f64) * (1.0 - self.warmup_ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_rates(rates: &[f64], expected: &[f64]) {
        assert_eq!(rates.len(), expected.len());
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-9 * expected.max(1e-3), "{rates:?}");
        }
    }

    #[test]
    fn warms_up_and_decays() {
        let schedule = Schedule { warmup_iters: 3, ..Schedule::default() };
        let rates: Vec<f64> = (0..6).map(|it| schedule.lr(1e-3, it, it as f64 / 10.0)).collect();
        assert_rates(&rates, &[1e-9, 3.000006e-4, 5.333336e-4, 7e-4, 6e-4, 5e-4]);
    }

    #[test]
    fn a_cosine_ends_at_the_least_rate() {
        let schedule = Schedule { policy: Policy::Cosine, warmup_iters: 0, min_lr: 0.2, ..Schedule::default() };
        let rates: Vec<f64> = [0, 5, 10].map(|it| schedule.lr(1.0, it, it as f64 / 10.0)).to_vec();
        assert_rates(&rates, &[1.0, 0.6, 0.2]);
    }

    #[test]
    fn the_backbone_follows_the_decoder() {
        let schedule =
            Schedule { warmup_iters: 2, warmup_ratio: 0.0, power: 0.0, backbone_delay: 3, ..Schedule::default() };
        let rates: Vec<LearningRates> = (0..6).map(|it| schedule.learning_rates(1.0, it, it as f64 / 10.0)).collect();
        assert_rates(&rates.iter().map(|rates| rates.decoder).collect::<Vec<_>>(), &[0.0, 0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_rates(&rates.iter().map(|rates| rates.backbone).collect::<Vec<_>>(), &[0.0, 0.0, 0.0, 0.0, 0.5, 1.0]);
    }
}
