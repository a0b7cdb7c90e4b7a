//! A run that has collapsed: its network predicts one class everywhere. It is seen at an evaluation, reported at once,
//! and started again if the recipe allows it.

use super::config::TrainConfig;
use super::progress::RunProgress;
use crate::kernels::Precision;
use crate::metrics::Scores;

/// The share of the pixels that are predicted as one class.
const ONE_CLASS_SHARE: f64 = 0.995;
/// The share that other classes have of the truth at least.
const OTHERS_SHARE: f64 = 0.02;
/// From this share of the run on, one collapsed evaluation restarts it; within [`EARLY_SHARE`], two do.
const DECIDED_SHARE: f64 = 0.1;
const EARLY_SHARE: f64 = 1.0 / 3.0;
/// The share of a run after which it is too late to start again.
const LATEST_SHARE: f64 = 0.5;
/// Before this many iterations no run is judged.
const FEWEST_ITERATIONS: u64 = 20;
/// How many times smaller the next attempt's learning rate is.
pub(crate) const LR_DIVISOR: f64 = 3.0;

/// What a collapsed network says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Collapse {
    class: String,
    predicted: f64,
    others: f64,
}

impl Collapse {
    /// Whether it is what these scores tell.
    pub(super) fn of(scores: &Scores) -> Option<Self> {
        let all = scores.pixels.max(1) as f64;
        let class = scores.classes.iter().max_by_key(|class| class.predicted_pixels)?;
        let (predicted, others) = (class.predicted_pixels as f64 / all, 1.0 - class.pixels as f64 / all);
        (predicted > ONE_CLASS_SHARE && others >= OTHERS_SHARE).then(|| Self {
            class: class.name.clone(),
            predicted,
            others,
        })
    }

    /// What is to be said of it, and what to do.
    pub(super) fn text(&self, iteration: u64, train: &TrainConfig) -> String {
        let Self { class, predicted, others } = self;
        let mut remedies = vec![format!("--set train.optimizer.lr={:.1e}", train.optimizer.lr / LR_DIVISOR)];
        if train.optimizer.clip_norm.is_none() {
            remedies.push("--set train.optimizer.clip_norm=1.0".to_owned());
        }
        if train.precision != Precision::F32 {
            remedies.push("--set train.precision=f32".to_owned());
        }
        format!(
            "warning: after iteration {iteration} {:.1} % of the pixels are predicted as `{class}`, but {:.1} % belong \
             to other classes: the run has collapsed; if it does not recover, start again in another folder with {}",
            100.0 * predicted,
            100.0 * others,
            remedies.join(" ")
        )
    }
}

/// Whether a run that was seen collapsed before `iteration`, for the `seen`-th time, and was evaluated last after
/// `evaluated` iterations, is to be started again.
pub(super) fn should_restart(
    progress: &RunProgress,
    train: &TrainConfig,
    iteration: u64,
    evaluated: u64,
    seen: u64,
) -> bool {
    // While the learning rate rises, little is learned.
    let settled = |iteration: u64| iteration >= FEWEST_ITERATIONS.max(2 * train.schedule.warmup_iters);
    let counts = |iteration: u64| settled(iteration) && progress.progress(iteration) >= DECIDED_SHARE;
    let now = progress.progress(iteration);
    let first = counts(iteration) && !counts(evaluated) && now <= LATEST_SHARE;
    train.restarts > 0 && (first || (settled(iteration) && seen >= 2 && now <= EARLY_SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Confusion;

    fn scores(matrix: &[[u64; 2]; 2]) -> Scores {
        use crate::image::Labels;
        let mut confusion = Confusion::new(2);
        for (truth, row) in matrix.iter().enumerate() {
            for (predicted, count) in row.iter().enumerate() {
                let labels =
                    |id: usize| Labels { width: *count as usize, height: 1, ids: vec![id as u8; *count as usize] };
                confusion.add(&labels(truth), &labels(predicted)).unwrap();
            }
        }
        confusion.scores(&["ground".to_owned(), "thing".to_owned()])
    }

    #[test]
    fn one_class_everywhere_is_a_collapse_where_there_are_others() {
        let found = Collapse::of(&scores(&[[900, 1], [99, 0]])).unwrap();
        assert_eq!(found.class, "ground");
        assert_eq!(Collapse::of(&scores(&[[900, 10], [90, 0]])), None, "it says the other class too");
        assert_eq!(Collapse::of(&scores(&[[995, 0], [5, 0]])), None, "there is hardly another");
        assert_eq!(Collapse::of(&scores(&[[0, 800], [0, 200]])).unwrap().class, "thing");
        let train = TrainConfig { precision: Precision::Bf16, ..TrainConfig::default() };
        let text = found.text(40, &train);
        assert!(text.contains("after iteration 40 99.9 % of the pixels are predicted as `ground`"), "{text}");
        assert!(
            text.contains("lr=6.7e-6") && text.contains("clip_norm=1.0") && text.contains("precision=f32"),
            "{text}"
        );
    }

    #[test]
    fn it_is_certain_early_or_at_the_second_time_and_never_late() {
        let mut train = TrainConfig { iterations: 1000, restarts: 1, ..TrainConfig::default() };
        train.schedule.warmup_iters = 25;
        let progress = RunProgress::new(&train, &[]);
        let restarts = |iteration, evaluated, seen| should_restart(&progress, &train, iteration, evaluated, seen);
        assert!(restarts(100, 0, 1) && restarts(400, 0, 1) && restarts(160, 80, 1));
        assert!(!restarts(80, 0, 1) && restarts(90, 80, 2) && !restarts(40, 20, 2));
        assert!(!restarts(200, 100, 1) && restarts(300, 200, 2) && !restarts(400, 300, 2) && !restarts(600, 0, 1));
        let never = TrainConfig { restarts: 0, ..train.clone() };
        assert!(!should_restart(&progress, &never, 100, 0, 1));
    }
}
