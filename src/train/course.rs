//! How long a run is, with all its bends.
//!
//! What depends on how far the run has come (the rate's decay, annealed masks) goes on from where it is, and reaches its end with
//! the new last iteration. All of it is a function of the bends, so a run is repeated by them.

use crate::train::bend::Bend;
use crate::train::config::TrainConfig;

/// The length of a run, with all its bends.
#[derive(Clone, Debug)]
pub(super) struct Course {
    iterations: u64,
    eval_every: u64,
    bends: Vec<Bend>,
}

impl Course {
    /// As the recipe has it, and bent as noted in the run's state.
    pub(super) fn new(train: &TrainConfig, noted: &[Bend]) -> Self {
        let bends = train.schedule.bends.iter().chain(noted).copied().collect();
        Self { iterations: train.iterations, eval_every: train.eval_every, bends }
    }

    /// The bends that are known when `iteration` begins.
    fn until(&self, iteration: u64) -> impl DoubleEndedIterator<Item = &Bend> {
        self.bends.iter().filter(move |bend| bend.iteration <= iteration)
    }

    /// Bends once more.
    pub(super) fn bend(&mut self, bend: Bend) {
        self.bends.push(bend);
    }

    /// The bend that `iteration` begins with.
    pub(super) fn bend_at(&self, iteration: u64) -> Option<Bend> {
        self.bends.iter().copied().find(|bend| bend.iteration == iteration)
    }

    /// Iterations in all, as known when `iteration` begins.
    pub(super) fn iterations(&self, iteration: u64) -> u64 {
        self.until(iteration).next_back().map_or(self.iterations, |bend| bend.iterations)
    }

    /// How far the run has come before `iteration`, from 0 to 1.
    pub(super) fn progress(&self, iteration: u64) -> f64 {
        let (mut progress, mut from, mut iterations) = (0.0, 0, self.iterations);
        // The first factor is 1 in a run without bends, which leaves the quotient of the two numbers, bit by bit.
        let along = |progress: f64, from: u64, iterations: u64, iteration: u64| {
            let length = iterations.saturating_sub(from).max(1) as f64;
            (progress + (1.0 - progress) * (iteration - from) as f64 / length).min(1.0)
        };
        for bend in self.until(iteration) {
            progress = along(progress, from, iterations, bend.iteration);
            (from, iterations) = (bend.iteration, bend.iterations);
        }
        along(progress, from, iterations, iteration)
    }

    /// Iterations between evaluations, as known when `iteration` begins; 0 for none before the end.
    pub(super) fn eval_every(&self, iteration: u64) -> u64 {
        let refitted = self.until(iteration).filter_map(|bend| bend.eval_every).next_back();
        if self.eval_every == 0 { 0 } else { refitted.unwrap_or(self.eval_every) }
    }

    /// Whether there is an evaluation before `iteration`, the one before it having been after `evaluated` iterations. A bend
    /// at this very iteration comes after it.
    pub(super) fn evaluates(&self, iteration: u64, evaluated: u64) -> bool {
        let Some(before) = iteration.checked_sub(1) else { return false };
        let every = self.eval_every(before);
        if every == 0 || !iteration.is_multiple_of(every) || evaluated >= iteration {
            return false;
        }
        // Where a bend has moved them, two evaluations, or one and the last, could fall side by side.
        let bent = self.until(before).next().is_some();
        let last = self.iterations(before);
        !bent || (iteration - evaluated >= every.div_ceil(2) && (last <= iteration || last - iteration >= every / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bend(iteration: u64, iterations: u64) -> Bend {
        Bend { iteration, iterations, eval_every: None }
    }

    fn course(iterations: u64, eval_every: u64, bends: &[Bend]) -> Course {
        Course { iterations, eval_every, bends: bends.to_vec() }
    }

    #[test]
    fn progress_is_linear_between_bends_and_ends_at_one() {
        let straight = course(1000, 0, &[]);
        for it in 0..=1000 {
            assert_eq!(straight.progress(it).to_bits(), (it as f64 / 1000.0).to_bits());
        }
        let bent = course(1000, 0, &[bend(500, 750), bend(600, 1200)]);
        let close = |it: u64, expected: f64| {
            let found = bent.progress(it);
            assert!((found - expected).abs() < 1e-12, "{it}: {found} for {expected}");
        };
        close(499, 0.499);
        close(500, 0.5);
        close(600, 0.7);
        close(900, 0.85);
        close(1200, 1.0);
        assert_eq!([499, 500, 599, 600].map(|it| bent.iterations(it)), [1000, 750, 750, 1200]);
        assert!((0..1200).all(|it| bent.progress(it) < bent.progress(it + 1)));
        let ended = course(1000, 0, &[bend(31, 31)]);
        assert_eq!((ended.iterations(31), ended.iterations(30)), (31, 1000));
    }

    #[test]
    fn evaluations_stay_apart() {
        let at = |course: &Course| {
            let mut evaluated = 0;
            let mut found = Vec::new();
            for it in 0..course.iterations(u64::MAX) {
                if course.evaluates(it, evaluated) {
                    evaluated = it;
                    found.push(it);
                }
            }
            found
        };
        assert_eq!(at(&course(105, 20, &[])), [20, 40, 60, 80, 100]);
        let every = |bend: Bend, every| Bend { eval_every: Some(every), ..bend };
        // 82 is a multiple of 41, and two after 80; 164 is one before the end.
        assert_eq!(at(&course(400, 20, &[every(bend(81, 165), 41)])), [20, 40, 60, 80, 123]);
        // The evaluation at the bend itself is that of the plan.
        assert_eq!(at(&course(400, 20, &[every(bend(40, 160), 60)])), [20, 40, 120]);
        assert_eq!(at(&course(400, 0, &[every(bend(40, 160), 60)])), [0u64; 0]);
    }
}
