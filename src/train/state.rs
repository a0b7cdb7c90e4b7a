//! The state of a run between two iterations.

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::ema::Ema;
use super::optimizer::{Gradients, LearningRates, Optimizer};
use super::reschedule::{self, Reschedule};
use crate::error::{Error, Result};
use crate::layers::parameters;

/// The network, the average of its weights and the optimizer with its state.
pub struct TrainState<M> {
    /// The network.
    pub model: M,
    /// The average of its weights, if one is kept.
    pub ema: Option<Ema<M>>,
    /// The optimizer, with its state.
    pub optimizer: Optimizer,
}

impl<M: Module + Clone> TrainState<M> {
    /// Changes the weights. By value: what nobody else holds is changed in place.
    #[must_use]
    pub fn step(self, gradients: Gradients, rates: LearningRates) -> Self {
        let Self { model, ema, mut optimizer } = self;
        let model = optimizer.step(model, gradients, rates);
        let ema = ema.map(|ema| ema.update(&model, optimizer.steps()));
        Self { model, ema, optimizer }
    }

    /// The weights that are evaluated and published: their average if one is kept. Without autodiff.
    pub fn published(&self) -> M {
        match &self.ema {
            Some(ema) => ema.model().clone(),
            None => self.model.valid(),
        }
    }

    /// Whether all weights are finite.
    pub(super) fn is_finite(&self) -> bool {
        let mut finite = true;
        parameters::visit(&self.model, |_, value| finite &= value.abs().max().into_scalar::<f32>().is_finite());
        finite
    }
}

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Iterations done.
    pub iteration: u64,
    /// Steps of the optimizer.
    pub optimizer_steps: u64,
    /// The best evaluation so far: (iteration, mIoU).
    pub best: Option<(u64, f64)>,
    /// The iteration of the last evaluation; 0 for none.
    #[serde(default)]
    pub evaluated: u64,
    /// Evaluations since the best.
    #[serde(default)]
    pub stale: u64,
    /// Evaluations at which it was seen to have collapsed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub collapsed: u64,
    /// How the run was rescheduled to end in time, beside what its recipe says.
    #[serde(default, alias = "bends", skip_serializing_if = "Vec::is_empty")]
    pub reschedules: Vec<Reschedule>,
    /// Seconds that the run has taken, over all its processes; counted only where there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_s: Option<f64>,
}

/// No run takes longer than a hundred years.
pub(crate) const LONGEST_S: f64 = 100.0 * 365.0 * 86_400.0;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl RunState {
    /// Refuses what no run of `iterations` can have reached, naming the field.
    pub(crate) fn check(&self, iterations: u64) -> Result<()> {
        let refuse = |field: &str, value: &dyn std::fmt::Display, what: &str| {
            Err(Error::new(format!("{field} = {value}: {what}")))
        };
        let Self { iteration, optimizer_steps, best, evaluated, stale, collapsed, reschedules, elapsed_s } = self;
        if *iteration > iterations {
            return refuse("iteration", iteration, &format!("the recipe has {iterations}"));
        }
        let counts = [
            ("optimizer_steps", optimizer_steps),
            ("evaluated", evaluated),
            ("stale", stale),
            ("collapsed", collapsed),
        ];
        if let Some((field, count)) = counts.into_iter().find(|(_, count)| *count > iteration) {
            return refuse(field, count, &format!("more than the {iteration} iterations done"));
        }
        reschedule::check(reschedules, iterations)?;
        if let Some(reschedule) = reschedules
            .last()
            .filter(|reschedule| reschedule.iteration > *iteration || reschedule.iterations < *iteration)
        {
            return refuse(
                "reschedules",
                &format!("{:?}", Vec::from(*reschedule)),
                &format!("{iteration} iterations are done"),
            );
        }
        if let Some(seconds) = elapsed_s.filter(|seconds| !(0.0..=LONGEST_S).contains(seconds)) {
            return refuse("elapsed_s", &seconds, "not a duration that a run can take");
        }
        match best {
            Some((at, _)) if at > iteration => {
                refuse("best[0]", at, &format!("more than the {iteration} iterations done"))
            }
            Some((_, miou)) if !(0.0..=1.0).contains(miou) => refuse("best[1]", miou, "not an mIoU, which is 0 to 1"),
            _ => Ok(()),
        }
    }

    /// Takes in an evaluation of the weights as they are: whether they had been evaluated before, and whether none
    /// before was better.
    pub(super) fn evaluated(&mut self, miou: f64) -> (bool, bool) {
        let repeated = self.evaluated == self.iteration && self.iteration > 0;
        self.evaluated = self.iteration;
        self.stale += 1;
        let best = self.best.is_none_or(|(_, best)| miou >= best);
        if best {
            if self.best.is_none_or(|(_, best)| miou > best) {
                self.stale = 0;
            }
            self.best = Some((self.iteration, miou));
        }
        (repeated, best)
    }
}
