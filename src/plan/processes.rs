//! How long a planned run takes when several processes share it: the passes that each of them does, and what they send
//! each other.

use std::fmt::Write;
use std::time::Duration;

use burn::tensor::Device;

use crate::bench::{self, Work};
use crate::error::Result;
use crate::group::Group;
use crate::group::link::{Link, time_sum};
use crate::plan::Plan;
use crate::text::spell;
use crate::{inspect, run};

/// What was measured by all processes together.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Shared {
    /// How many they are.
    pub processes: usize,
    /// A pass of one process while the others wait, in seconds.
    pub pass_alone_s: f64,
    /// A pass while all of them do theirs, in seconds.
    pub pass_together_s: f64,
    /// What they are connected by.
    pub link: Link,
    /// How many values the sum of an iteration's gradients has.
    pub parameters: usize,
    /// How long that sum took, in seconds.
    pub sum_s: f64,
}

/// Measures, with all others, what a plan takes on several processes. The first has the plan; the others pass none, and
/// get none back where there is nothing to measure.
///
/// # Errors
/// As those of [`Group`], and of a step of training.
pub fn measure(plan: Option<&Plan>, device: &Device, group: &dyn Group) -> Result<Option<Shared>> {
    if group.is_alone() {
        return Ok(None);
    }
    let config = run::run_recipe(group, plan.map(|plan| plan.config.clone()))?;
    let parameters = |plan: &Plan| inspect::model_size(&plan.config.model, plan.classes).total_parameters as usize;
    let (classes, parameters) = group.agree(plan.map_or((0, 0), |plan| (plan.classes, parameters(plan))))?;
    let train = &config.train;
    let work = Work {
        name: "plan".to_owned(),
        model: config.model.clone(),
        classes,
        image: config.data.augment.crop,
        batch: train.batch_size / train.accumulate,
        train: true,
        precision: train.precision,
        windows: None,
    };
    group.barrier()?;
    let together = group.all_or_none(bench::measure(&work, 2, device))?.median_ms / 1e3;
    let together = group.gather_values(&together)?.into_iter().fold(together, f64::max);
    let link = Link::measure(group)?;
    let sum_s = time_sum(group, parameters)?;
    Ok(plan.map(|plan| Shared {
        processes: group.size(),
        pass_alone_s: plan.estimated.step_s / train.accumulate as f64,
        pass_together_s: together,
        link,
        parameters,
        sum_s,
    }))
}

impl Shared {
    /// The seconds of an iteration of `passes` on so many processes; none where some would have nothing to do.
    pub fn iteration_s(&self, passes: usize, processes: usize) -> Option<f64> {
        let pass = if processes == 1 { self.pass_alone_s } else { self.pass_together_s };
        let sum = if processes == self.processes { self.sum_s } else { self.link.sum_s(self.parameters, processes) };
        (processes <= passes).then(|| passes.div_ceil(processes) as f64 * pass + if processes == 1 { 0.0 } else { sum })
    }

    /// What `plan` takes on one process, on these, and on more, as a person reads it.
    pub fn text(&self, plan: &Plan) -> String {
        let train = &plan.config.train;
        let (passes, iterations) = (train.accumulate, train.iterations as f64);
        let evaluating = (plan.estimated.total_s - iterations * plan.estimated.step_s).max(0.0);
        let mut counts: Vec<usize> = (0..7).map(|power| 1 << power).filter(|count| *count <= passes).collect();
        counts.extend((self.processes <= passes).then_some(self.processes));
        counts.sort_unstable();
        counts.dedup();
        let mut text = String::new();
        // Writing to a string cannot fail.
        for count in counts {
            let Some(iteration) = self.iteration_s(passes, count) else { continue };
            let total = iterations * iteration + evaluating / count as f64;
            let how = match count {
                1 => "measured alone",
                count if count == self.processes => "passes and sum measured by these",
                _ => "estimated, each on a machine like this one",
            };
            let each = passes.div_ceil(count);
            let _ = writeln!(
                text,
                "{count} process{}: {iteration:.3} s per iteration of {each} pass{} each, {} in all ({how})",
                if count == 1 { "" } else { "es" },
                if each == 1 { "" } else { "es" },
                spell(Duration::from_secs_f64(total)),
            );
        }
        if self.processes > passes {
            let _ = writeln!(
                text,
                "{} processes cannot share {passes} pass{}: set train.accumulate to at least {}",
                self.processes,
                if passes == 1 { "" } else { "es" },
                self.processes
            );
        }
        let _ = write!(
            text,
            "a pass takes {:.3} s alone and {:.3} s while all work; between processes {:.2} GB/s and {:.0} µs; the sum of \
             {:.1} million values takes {:.3} s (estimated {:.3} s)",
            self.pass_alone_s,
            self.pass_together_s,
            self.link.bandwidth / 1e9,
            self.link.latency * 1e6,
            self.parameters as f64 / 1e6,
            self.sum_s,
            self.link.sum_s(self.parameters, self.processes),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_processes_do_fewer_passes_each_and_send_more() {
        let link = Link { bandwidth: 1e9, latency: 1e-5 };
        let shared =
            Shared { processes: 2, pass_alone_s: 0.5, pass_together_s: 0.6, link, parameters: 10_000_000, sum_s: 0.05 };
        let close = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-9;
        assert!(close(shared.iteration_s(8, 1), 4.0));
        assert!(close(shared.iteration_s(8, 2), 4.0 * 0.6 + 0.05));
        assert!(close(shared.iteration_s(8, 4), 2.0 * 0.6 + link.sum_s(10_000_000, 4)));
        assert_eq!(shared.iteration_s(8, 16), None);
    }
}
