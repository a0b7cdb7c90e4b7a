//! Two ways of which nobody can say beforehand which one is better: each is trained for a moment, and the better one
//! taken.

use std::time::Duration;

use burn::tensor::Device;

use crate::config::Config;
use crate::error::Result;
use crate::files::Scratch;
use crate::run::{self, RunOptions};
use crate::train::Time;

/// The share of the budget that each way is trained for.
pub(super) const SHARE: f64 = 0.04;
/// More seconds tell no more.
const MOST: f64 = 180.0;
/// Fewer iterations tell nothing.
const FEWEST: f64 = 30.0;
/// Its evaluation takes at most this share of a trial.
const EVALUATING: f64 = 0.5;

/// How long to train each way, in seconds, for a run of `run_s` seconds; none where there is no time to learn anything
/// by it. `step_s` and `evaluation_s` are what an iteration and an evaluation take.
pub(super) fn length(run_s: f64, step_s: f64, evaluation_s: f64) -> Option<f64> {
    let each = (SHARE * run_s).min(MOST);
    (each >= FEWEST * step_s + evaluation_s && evaluation_s <= EVALUATING * each).then_some(each)
}

/// The mIoU after training as `config` says for so long, of which `iterations` is an estimate; none if no class was
/// found.
///
/// # Errors
/// As of any run: data that cannot be read, a loss that is not finite.
pub(super) fn score(config: &Config, device: &Device, seconds: f64, iterations: u64) -> Result<Option<f64>> {
    let mut config = config.clone();
    let train = &mut config.train;
    train.iterations = iterations.max(1);
    (train.max_time, train.max_iterations) = (Some(Time(Duration::from_secs_f64(seconds))), None);
    (train.eval_every, train.save_every, train.restarts) = (0, train.iterations + 1, 0);
    (train.tensorboard, train.schedule.warmup_iters) = (false, train.iterations / 10);
    let scratch = Scratch::new(&std::env::temp_dir(), "trial")?;
    let options = RunOptions { trial: true, ..RunOptions::new(scratch.path(), device) };
    let outcome = run::train(&config, &options, &mut ())?;
    Ok(outcome.best.map(|(_, miou)| miou))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_long_enough_or_none() {
        assert_eq!(length(300.0, 0.1, 2.0), Some(12.0));
        assert_eq!(length(300.0, 0.4, 2.0), None, "30 iterations take as long as all of it");
        assert_eq!(length(300.0, 0.1, 7.0), None, "the evaluation takes more than half");
        assert_eq!(length(1e5, 0.1, 7.0), Some(MOST));
    }
}
