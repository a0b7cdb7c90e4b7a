//! How many iterations a run has, with all its reschedules, and how far it has come at each.
//!
//! What depends on how far the run has come (the learning rate's decay, annealed masks) continues from where it is, and
//! reaches its end with the new last iteration. All of it is a function of the reschedules, so a run is repeated by
//! them.

use crate::train::config::TrainConfig;
use crate::train::reschedule::Reschedule;

/// The length of a run, with all its reschedules.
#[derive(Clone, Debug)]
pub(super) struct RunProgress {
    iterations: u64,
    eval_every: u64,
    reschedules: Vec<Reschedule>,
}

impl RunProgress {
    /// As the recipe has it, and rescheduled as noted in the run's state.
    pub(super) fn new(train: &TrainConfig, noted: &[Reschedule]) -> Self {
        let reschedules = train.schedule.reschedules.iter().chain(noted).copied().collect();
        Self { iterations: train.iterations, eval_every: train.eval_every, reschedules }
    }

    /// The reschedules that are known when `iteration` starts.
    fn until(&self, iteration: u64) -> impl DoubleEndedIterator<Item = &Reschedule> {
        self.reschedules.iter().filter(move |reschedule| reschedule.iteration <= iteration)
    }

    /// Reschedules once more.
    pub(super) fn reschedule(&mut self, reschedule: Reschedule) {
        self.reschedules.push(reschedule);
    }

    /// The reschedule that `iteration` starts with.
    pub(super) fn reschedule_at(&self, iteration: u64) -> Option<Reschedule> {
        self.reschedules.iter().copied().find(|reschedule| reschedule.iteration == iteration)
    }

    /// Iterations in all, as known when `iteration` starts.
    pub(super) fn iterations(&self, iteration: u64) -> u64 {
        self.until(iteration).next_back().map_or(self.iterations, |reschedule| reschedule.iterations)
    }

    /// How far the run has come before `iteration`, from 0 to 1.
    pub(super) fn progress(&self, iteration: u64) -> f64 {
        let (mut progress, mut from, mut iterations) = (0.0, 0, self.iterations);
        // The first factor is 1 in a run without reschedules, which leaves the quotient of the two numbers, bit by bit.
        let along = |progress: f64, from: u64, iterations: u64, iteration: u64| {
            let length = iterations.saturating_sub(from).max(1) as f64;
            (progress + (1.0 - progress) * (iteration - from) as f64 / length).min(1.0)
        };
        for reschedule in self.until(iteration) {
            progress = along(progress, from, iterations, reschedule.iteration);
            (from, iterations) = (reschedule.iteration, reschedule.iterations);
        }
        along(progress, from, iterations, iteration)
    }

    /// Iterations between evaluations, as known when `iteration` starts; 0 for none before the end.
    pub(super) fn eval_every(&self, iteration: u64) -> u64 {
        let refitted = self.until(iteration).filter_map(|reschedule| reschedule.eval_every).next_back();
        if self.eval_every == 0 { 0 } else { refitted.unwrap_or(self.eval_every) }
    }

    /// Whether there is an evaluation before `iteration`, the one before it having been after `evaluated` iterations. A
    /// reschedule at this very iteration comes after it.
    pub(super) fn evaluates(&self, iteration: u64, evaluated: u64) -> bool {
        let Some(before) = iteration.checked_sub(1) else { return false };
        let every = self.eval_every(before);
        if every == 0 || !iteration.is_multiple_of(every) || evaluated >= iteration {
            return false;
        }
        // Where a reschedule has moved them, two evaluations, or one and the last, could fall side by side.
        let rescheduled = self.until(before).next().is_some();
        let last = self.iterations(before);
        !rescheduled
            || (iteration - evaluated >= every.div_ceil(2) && (last <= iteration || last - iteration >= every / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reschedule(iteration: u64, iterations: u64) -> Reschedule {
        Reschedule { iteration, iterations, eval_every: None }
    }

    fn progress(iterations: u64, eval_every: u64, reschedules: &[Reschedule]) -> RunProgress {
        RunProgress { iterations, eval_every, reschedules: reschedules.to_vec() }
    }

    #[test]
    fn progress_is_linear_between_reschedules_and_ends_at_one() {
        let straight = progress(1000, 0, &[]);
        for it in 0..=1000 {
            assert_eq!(straight.progress(it).to_bits(), (it as f64 / 1000.0).to_bits());
        }
        let rescheduled = progress(1000, 0, &[reschedule(500, 750), reschedule(600, 1200)]);
        let close = |it: u64, expected: f64| {
            let found = rescheduled.progress(it);
            assert!((found - expected).abs() < 1e-12, "{it}: {found} for {expected}");
        };
        close(499, 0.499);
        close(500, 0.5);
        close(600, 0.7);
        close(900, 0.85);
        close(1200, 1.0);
        assert_eq!([499, 500, 599, 600].map(|it| rescheduled.iterations(it)), [1000, 750, 750, 1200]);
        assert!((0..1200).all(|it| rescheduled.progress(it) < rescheduled.progress(it + 1)));
        let ended = progress(1000, 0, &[reschedule(31, 31)]);
        assert_eq!((ended.iterations(31), ended.iterations(30)), (31, 1000));
    }

    #[test]
    fn evaluations_stay_apart() {
        let at = |progress: &RunProgress| {
            let mut evaluated = 0;
            let mut found = Vec::new();
            for it in 0..progress.iterations(u64::MAX) {
                if progress.evaluates(it, evaluated) {
                    evaluated = it;
                    found.push(it);
                }
            }
            found
        };
        assert_eq!(at(&progress(105, 20, &[])), [20, 40, 60, 80, 100]);
        let every = |reschedule: Reschedule, every| Reschedule { eval_every: Some(every), ..reschedule };
        // 82 is a multiple of 41, and two after 80; 164 is one before the end.
        assert_eq!(at(&progress(400, 20, &[every(reschedule(81, 165), 41)])), [20, 40, 60, 80, 123]);
        // The evaluation at the reschedule itself is that of the plan.
        assert_eq!(at(&progress(400, 20, &[every(reschedule(40, 160), 60)])), [20, 40, 120]);
        assert_eq!(at(&progress(400, 0, &[every(reschedule(40, 160), 60)])), [0u64; 0]);
    }
}
