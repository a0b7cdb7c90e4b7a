//! The learning rate as a pure function of the iteration.

use serde::{Deserialize, Serialize};

/// Linear warm-up times polynomial decay, as mmcv's `poly` policy has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Iterations of linear warm-up.
    pub warmup_iters: u64,
    /// Factor at iteration 0.
    pub warmup_ratio: f64,
    /// Exponent of the decay; 1 is linear, 0 constant.
    pub power: f64,
    /// Rate at the end.
    pub min_lr: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { warmup_iters: 1500, warmup_ratio: 1e-6, power: 1.0, min_lr: 0.0 }
    }
}

impl Schedule {
    /// The rate for the step of `iteration` (from 0) out of `iterations`, starting from `base`.
    ///
    /// The warm-up multiplies the already decayed rate:
    /// `((base - min) (1 - it / all)^power + min) * (1 - (1 - it / warmup) (1 - ratio))`.
    pub fn lr(&self, base: f64, iteration: u64, iterations: u64) -> f64 {
        let left = 1.0 - iteration as f64 / iterations.max(1) as f64;
        let decayed = (base - self.min_lr) * left.max(0.0).powf(self.power) + self.min_lr;
        if iteration >= self.warmup_iters {
            return decayed;
        }
        let cold = (1.0 - iteration as f64 / self.warmup_iters as f64) * (1.0 - self.warmup_ratio);
        decayed * (1.0 - cold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_and_decays() {
        let schedule = Schedule { warmup_iters: 3, ..Schedule::default() };
        let rates: Vec<f64> = (0..6).map(|it| schedule.lr(1e-3, it, 10)).collect();
        for (rate, expected) in rates.iter().zip([1e-9, 3.000006e-4, 5.333336e-4, 7e-4, 6e-4, 5e-4]) {
            assert!((rate - expected).abs() < 1e-9 * expected.max(1e-3), "{rates:?}");
        }
    }
}
