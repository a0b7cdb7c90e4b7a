//! Words on a page beside the numbers of a run or an evaluation.

use std::time::Duration;

use crate::eval::summary::Evaluation;
use crate::report::NextStep;
use crate::text::minutes;

/// What the files of a run do not tell.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The title of the page.
    pub title: String,
    /// A sentence or two below it.
    pub lead: String,
    /// The command that made the run.
    pub command: String,
    /// The device it ran on.
    pub device: String,
    /// How long it took.
    pub took: Duration,
    /// What to try next.
    pub next_steps: Vec<(String, String)>,
    /// What the evaluation of the weights found beside their scores, if that is known.
    pub found: Option<Evaluation>,
}

impl About {
    /// How long it took, in words.
    pub(super) fn time(&self) -> String {
        minutes(self.took.as_secs())
    }

    /// What to try next.
    pub(super) fn steps(&self) -> Vec<NextStep> {
        let steps = self.next_steps.iter();
        steps.map(|(command, purpose)| NextStep { command: command.clone(), purpose: purpose.clone() }).collect()
    }
}
