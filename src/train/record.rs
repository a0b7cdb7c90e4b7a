//! The record of a run while it trains, from which it is resumed and looked at.

use std::path::PathBuf;
use std::time::Duration;

use super::observer::Progress;
use super::reschedule::Reschedule;
use super::state::{RunState, TrainState};
use crate::error::Result;
use crate::metrics::Scores;

/// Keeps a run. All methods keep nothing by default, and `()` keeps nothing at all.
pub trait Record<M> {
    /// An iteration that is logged.
    ///
    /// # Errors
    /// What cannot be kept ends the run; so with all methods.
    fn step(&mut self, _progress: &Progress) -> Result<()> {
        Ok(())
    }

    /// With this iteration the run gets another length.
    fn reschedule(&mut self, _reschedule: Reschedule) -> Result<()> {
        Ok(())
    }

    /// All reschedules that are decided by now. `note` gets what does not end the run.
    fn reschedules(&mut self, _reschedules: &[Reschedule], _note: &mut dyn FnMut(&str)) {}

    /// All that the run needs to be resumed from here, by a process that has worked on it for a time. `note` gets what
    /// does not end the run.
    fn save(
        &mut self,
        _run: &RunState,
        _train: &TrainState<M>,
        _worked: Duration,
        _note: &mut dyn FnMut(&str),
    ) -> Result<()> {
        Ok(())
    }

    /// What has become of the run since it was saved: the weights are the same.
    fn update(&mut self, _run: &RunState) -> Result<()> {
        Ok(())
    }

    /// An evaluation.
    fn evaluation(&mut self, _evaluation: &EvalRecord<M>) -> Result<()> {
        Ok(())
    }

    /// Whether the best weights so far are kept.
    fn has_best(&self) -> bool {
        true
    }

    /// The newest weights that are known to be good, and after which iteration they were saved.
    fn last_saved(&self) -> Option<(u64, PathBuf)> {
        None
    }
}

impl<M> Record<M> for () {}

/// What an evaluation found.
#[non_exhaustive]
pub struct EvalRecord<'a, M> {
    /// The scores on the validation set.
    pub scores: &'a Scores,
    /// Iterations done.
    pub iteration: u64,
    /// Iterations in all, as it looks now.
    pub iterations: u64,
    /// Whether these weights have been evaluated before, by a process that did not keep them.
    pub repeated: bool,
    /// Whether none before was better.
    pub best: bool,
    /// The weights that were evaluated.
    pub model: &'a M,
}
