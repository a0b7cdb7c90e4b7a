//! The time limit of a run: how long iterations take is measured all the time, and a run that would miss its end is
//! rescheduled.

use std::collections::VecDeque;
use std::time::Duration;

use crate::stats::median;
use crate::text;
use crate::train::config::TrainConfig;
use crate::train::progress::RunProgress;
use crate::train::reschedule::Reschedule;

// All shares below are of the time limit, `train.max_time`.

/// A run aims to end at this share; the last files and the page are written in the rest.
const AIM: f64 = 0.98;
/// A run is rescheduled when it would miss its end by more than this share: the first number holds at the start, when
/// later iterations may still make up for it, the second at the end; in between the limit falls linearly.
const TOLERANCE: [f64; 2] = [0.15, 0.01];
/// A reschedule in the opposite direction of the last one (longer after shorter) needs a miss this many times as large:
/// the speed of a busy machine goes up and down.
const BACK: f64 = 1.5;
/// There is at least this share between two reschedules.
const APART: f64 = 0.05;
/// From this share on the end is near, and neither [`BACK`] nor [`APART`] holds a reschedule back.
const NEAR: f64 = 0.9;
/// How many times in a run it is checked whether it will end in time.
const LOOKS: u64 = 40;
/// The first check comes after the first share if [`FEWEST`] iterations have been timed, and after the second in any
/// case.
const SETTLED: [f64; 2] = [0.05, 0.1];
/// How far back the time of an iteration is measured, as a share: half of what is left, but at most the first number
/// and at least the second. Near the end only the latest speed counts.
const RECENT: [f64; 2] = [0.2, 0.04];
/// At least this many iterations are measured, however long they take.
const FEWEST: usize = 8;
/// The measured iterations are cut into this many parts, and the median of their means counts: a single delay is in one
/// part and does not matter, what comes regularly is in all of them and does.
const PARTS: usize = 10;
/// Evaluations may take this share, where a reschedule moves them.
const EVALUATING: f64 = 0.2;

/// Keeps the time of one run.
pub(super) struct TimeLimit<'a> {
    /// The time since this process started to work on the run.
    clock: &'a dyn Fn() -> Duration,
    /// Seconds that the run may take.
    limit: f64,
    /// Seconds that earlier processes took.
    before: f64,
    /// Iterations that there may be at most.
    most: u64,
    save_every: u64,
    /// When the current work started.
    since: f64,
    /// Seconds of the current iteration.
    current: f64,
    /// The first iteration, which is not like the others.
    first: Option<f64>,
    /// Those of late.
    recent: VecDeque<f64>,
    /// All checkpoints so far.
    saved: (f64, u64),
    /// What an evaluation takes, in iterations.
    evaluation: Option<f64>,
    /// When it was last looked at: seconds and iteration.
    last_check: (f64, u64),
    /// When it was last rescheduled, and whether that made it longer.
    rescheduled: Option<(f64, bool)>,
}

/// What things take, in seconds.
#[derive(Clone, Copy, Debug)]
struct Speed {
    /// An iteration, with its share of the checkpoints.
    step: f64,
    evaluation: f64,
}

impl<'a> TimeLimit<'a> {
    /// For a run with a limit, which has taken `before` seconds.
    pub(super) fn new(
        train: &TrainConfig,
        clock: &'a dyn Fn() -> Duration,
        before: Option<f64>,
        iteration: u64,
    ) -> Option<Self> {
        let limit = train.max_time?.0.as_secs_f64();
        let before = before.unwrap_or(0.0);
        let mut time_limit = Self {
            clock,
            limit,
            before,
            most: train.max_iterations.unwrap_or(train.iterations),
            save_every: train.save_every,
            since: 0.0,
            current: 0.0,
            first: None,
            recent: VecDeque::new(),
            saved: (0.0, 0),
            evaluation: None,
            last_check: (before, iteration),
            rescheduled: None,
        };
        time_limit.skip();
        Some(time_limit)
    }

    /// Seconds that the run has taken.
    pub(super) fn elapsed(&self) -> f64 {
        self.before + (self.clock)().as_secs_f64()
    }

    fn lap(&mut self) -> f64 {
        let now = (self.clock)().as_secs_f64();
        (now - std::mem::replace(&mut self.since, now)).max(0.0)
    }

    /// What took the time since the last word is not of this run's kind of work.
    pub(super) fn skip(&mut self) {
        self.lap();
    }

    /// A part of an iteration is done, and something else starts.
    pub(super) fn part_done(&mut self) {
        self.current += self.lap();
    }

    /// An iteration is done.
    pub(super) fn iteration_done(&mut self) {
        self.part_done();
        let step = std::mem::take(&mut self.current);
        if self.first.is_none() {
            self.first = Some(step);
            return;
        }
        self.recent.push_back(step);
        let [most, least] = RECENT;
        let recent = (0.5 * (1.0 - self.elapsed() / self.limit)).clamp(least, most) * self.limit;
        let mut taken: f64 = self.recent.iter().sum();
        while self.recent.len() > FEWEST && taken > recent {
            taken -= self.recent.pop_front().unwrap_or_default();
        }
    }

    /// A checkpoint is written.
    pub(super) fn checkpoint_done(&mut self) {
        let took = self.lap();
        self.saved = (self.saved.0 + took, self.saved.1 + 1);
    }

    /// The validation split is evaluated, and all that comes with it is written.
    pub(super) fn evaluated(&mut self) {
        let took = self.lap();
        self.expect(took);
    }

    /// An evaluation is known to take this many seconds. On a machine that slows down it slows down too, so it is kept
    /// in iterations.
    pub(super) fn expect(&mut self, seconds: f64) {
        self.evaluation = self.step().filter(|step| *step > 0.0).map(|step| seconds / step).or(self.evaluation);
    }

    /// Whether nothing is known of evaluations.
    pub(super) fn needs_evaluation_time(&self) -> bool {
        self.evaluation.is_none() && self.step().is_some()
    }

    /// Seconds of an iteration, of late.
    fn step(&self) -> Option<f64> {
        if self.recent.len() < 3 {
            let known: Vec<f64> = self.first.iter().chain(&self.recent).copied().collect();
            return median(&known);
        }
        let parts = PARTS.min(self.recent.len());
        let of = |at: usize| at * self.recent.len() / parts;
        let means =
            (0..parts).map(|at| self.recent.range(of(at)..of(at + 1)).sum::<f64>() / (of(at + 1) - of(at)) as f64);
        median(&means.collect::<Vec<_>>())
    }

    fn speed(&self) -> Option<Speed> {
        let step = self.step()?;
        let (seconds, count) = self.saved;
        let saving = if self.save_every == 0 { 0.0 } else { seconds / (count.max(1) * self.save_every) as f64 };
        Some(Speed { step: (step + saving).max(1e-9), evaluation: self.evaluation.unwrap_or(0.0) * step })
    }

    /// Whether it is time to look how the run stands before `iteration`.
    pub(super) fn is_due(&self, iteration: u64, progress: &RunProgress) -> bool {
        let (seconds, last) = self.last_check;
        let elapsed = self.elapsed();
        let here = (elapsed - self.before) / self.limit;
        // The first iterations tell little, unless they take so long that there will not be many.
        let settled = (self.recent.len() >= FEWEST && here >= SETTLED[0]) || here >= SETTLED[1];
        let waited = iteration - last >= (progress.iterations(iteration) / LOOKS).max(1)
            || elapsed - seconds >= self.limit / LOOKS as f64;
        iteration > 0 && ((settled && waited) || elapsed >= AIM * self.limit)
    }

    /// The reschedule that the run needs before `iteration` to end in time, if it does.
    pub(super) fn check(&mut self, iteration: u64, progress: &RunProgress) -> Option<Reschedule> {
        let elapsed = self.elapsed();
        self.last_check = (elapsed, iteration);
        let aim = AIM * self.limit;
        // A run that has come to its end cannot be rescheduled any more.
        if iteration >= progress.iterations(iteration) {
            return None;
        }
        let end = Reschedule { iteration, iterations: iteration, eval_every: None };
        let Some(Speed { step, evaluation }) = self.speed() else { return (elapsed >= aim).then_some(end) };
        let (last, every) = (progress.iterations(iteration), progress.eval_every(iteration));
        let count = |every: u64| if every == 0 { 0.0 } else { 1.0 / every as f64 };
        let left = aim - elapsed - evaluation;
        let needed = (last - iteration) as f64 * (step + count(every) * evaluation);
        let [early, late] = TOLERANCE;
        let tolerance = self.limit * (late + (early - late) * (1.0 - elapsed / self.limit).clamp(0.0, 1.0));
        let miss = needed - left;
        let band = match self.rescheduled {
            _ if elapsed >= NEAR * self.limit => tolerance,
            Some((at, _)) if elapsed - at < APART * self.limit => return None,
            Some((_, longer)) if longer == (miss > 0.0) => BACK * tolerance,
            _ => tolerance,
        };
        if miss.abs() <= band || (miss < 0.0 && last >= self.most) {
            return None;
        }
        let fitting = |every: u64| {
            let more = (left / (step + count(every) * evaluation)).clamp(0.0, (1u64 << 40) as f64) as u64;
            iteration.saturating_add(more).min(self.most.max(iteration))
        };
        let refitted = self.refitted(fitting(every), every, progress, Speed { step, evaluation });
        let iterations = fitting(refitted.unwrap_or(every));
        if iterations == last {
            return None;
        }
        self.rescheduled = Some((elapsed, iterations > last));
        Some(Reschedule { iteration, iterations, eval_every: refitted })
    }

    /// Iterations between the evaluations of a run of `iterations`, where that has to change: as many evaluations as
    /// the recipe has, and fewer if they would take too large a share.
    fn refitted(&self, iterations: u64, every: u64, progress: &RunProgress, speed: Speed) -> Option<u64> {
        if every == 0 {
            return None;
        }
        let planned = progress.eval_every(0) as f64 * iterations as f64 / progress.iterations(0).max(1) as f64;
        let bounded = speed.evaluation * (1.0 - EVALUATING) / EVALUATING / speed.step;
        let wanted = planned.max(bounded).clamp(1.0, (1u64 << 40) as f64).ceil();
        (!(0.75..=1.33).contains(&(wanted / every as f64))).then_some(wanted as u64)
    }

    /// What a reschedule is about, for people.
    pub(super) fn describe(&self, reschedule: &Reschedule, before: u64) -> String {
        let time = text::spell(Duration::from_secs_f64(self.limit));
        let Reschedule { iteration, iterations, eval_every } = reschedule;
        if iterations == iteration {
            return format!("the time of {time} has run out after {iteration} of {before} iterations: stopping here");
        }
        let speed = if *iterations < before { "slower" } else { "faster" };
        let evaluations = eval_every.map_or(String::new(), |every| format!(", with an evaluation every {every}"));
        format!("{speed} than planned: {iterations} iterations instead of {before} fit into {time}{evaluations}")
    }
}

#[cfg(test)]
mod tests;
