//! A run that has collapsed: its network says one class everywhere. Seen at an evaluation, said at once, and begun again where
//! the recipe lets it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bend::Course;
use super::config::{Time, TrainConfig};
use super::{Outcome, SCORES, manifest};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::eval::Scores;
use crate::kernels::Precision;
use crate::report::progress::{LOG_FILE, TABLE_FILE};
use crate::{files, text};

/// The share of the pixels that are predicted as one class.
const ONE_CLASS: f64 = 0.995;
/// The share that other classes have of the truth at least.
const OTHERS: f64 = 0.02;
/// The share of a run after whose first evaluation it is certain, and that within which two make it so.
const CERTAIN: f64 = 0.1;
const EARLY: f64 = 1.0 / 3.0;
/// The share of a run after which it is too late to begin again.
const LATE: f64 = 0.5;
/// Iterations after which nothing is certain yet.
const FEW: u64 = 20;
/// How many times smaller the next attempt's learning rate is.
const SMALLER: f64 = 3.0;

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
        (predicted > ONE_CLASS && others >= OTHERS).then(|| Self { class: class.name.clone(), predicted, others })
    }

    /// What is to be said of it, and what to do.
    pub(super) fn text(&self, iteration: u64, train: &TrainConfig) -> String {
        let Self { class, predicted, others } = self;
        let mut remedies = vec![format!("--set train.optimizer.lr={:.1e}", train.optimizer.lr / SMALLER)];
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

/// Whether a run that was seen collapsed before `iteration`, for the `seen`-th time, and was evaluated last after `evaluated`
/// iterations, is to be begun again.
pub(super) fn is_certain(course: &Course, train: &TrainConfig, iteration: u64, evaluated: u64, seen: u64) -> bool {
    // While the rate rises little is learned.
    let settled = |iteration: u64| iteration >= FEW.max(2 * train.schedule.warmup_iters);
    let counts = |iteration: u64| settled(iteration) && course.progress(iteration) >= CERTAIN;
    let now = course.progress(iteration);
    let first = counts(iteration) && !counts(evaluated) && now <= LATE;
    train.restarts > 0 && (first || (settled(iteration) && seen >= 2 && now <= EARLY))
}

/// An attempt that collapsed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The folder in that of the run where its recipe, log, weights and checkpoints are.
    pub folder: String,
    /// After how many iterations it was given up.
    pub iteration: u64,
    /// The keys in which the next attempt's recipe differs, each as `a.b: old -> new`.
    pub changed: Vec<String>,
}

/// Puts a run that has collapsed aside, within its folder, and gives the recipe of the next attempt, which is in
/// the folder then: a third of the learning rate, products in f32, and what is left of the time. Also what was done, in words.
///
/// # Errors
/// Files that cannot be moved or written.
pub fn restart(config: &Config, run: &Path, outcome: &Outcome) -> Result<(Config, String)> {
    let next = next(&config.train, outcome);
    let next = Config { train: next, ..config.clone() };
    let changed = config.differences(&next)?;
    let folder = (1..).map(|n| format!("collapsed-{n}")).find(|name| !run.join(name).exists()).unwrap_or_default();
    let aside = run.join(&folder);
    fs::create_dir_all(&aside).map_err(|error| Error::file("create", &aside, error))?;
    for name in names(run)? {
        let from = run.join(&name);
        match fs::rename(&from, aside.join(&name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::file("move", &from, error)),
            _ => {}
        }
    }
    files::write(&run.join("config.toml"), next.to_toml()?.as_bytes())?;
    let attempt = Attempt { folder, iteration: outcome.iteration, changed };
    let told = begins_again(&next, &attempt);
    manifest::collapsed(run, attempt, &next)?;
    Ok((next, told))
}

/// The files of an attempt, of those in the folder of a run. The recipe comes last: until it is moved the run goes on by it,
/// from its beginning where the checkpoints are gone.
fn names(run: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::file("read", run, error);
    let mut found = ["checkpoints", "model.safetensors", SCORES, LOG_FILE, TABLE_FILE].map(str::to_owned).to_vec();
    for entry in fs::read_dir(run).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with("events.out.tfevents") {
            found.push(name);
        }
    }
    found.push("config.toml".to_owned());
    Ok(found)
}

/// What the next attempt does otherwise.
fn next(train: &TrainConfig, outcome: &Outcome) -> TrainConfig {
    let mut next = train.clone();
    next.restarts = train.restarts.saturating_sub(1);
    next.optimizer.lr /= SMALLER;
    next.precision = Precision::F32;
    if let Some(Time(limit)) = train.max_time {
        let left = Duration::from_secs(limit.saturating_sub(outcome.spent).as_secs().max(1));
        next.max_time = Some(Time(left));
        // What the attempt had come to think of the machine's speed, for the time that is left.
        let planned = outcome.bends.last().map_or(train.iterations, |bend| bend.iterations);
        let share = left.as_secs_f64() / limit.as_secs_f64();
        let scaled = |count: u64, share: f64| ((count as f64 * share) as u64).max(count.min(1));
        let of_all = share * planned as f64 / train.iterations as f64;
        next.iterations = scaled(train.iterations, of_all);
        next.max_iterations = train.max_iterations.map(|most| scaled(most, share).max(next.iterations));
        next.eval_every = scaled(train.eval_every, of_all);
        next.save_every = scaled(train.save_every, of_all);
        next.schedule.warmup_iters = scaled(train.schedule.warmup_iters, of_all);
    }
    next
}

/// What is said when a run begins again.
fn begins_again(config: &Config, attempt: &Attempt) -> String {
    let time = config
        .train
        .max_time
        .map_or(String::new(), |time| format!(", within the {} that are left", text::spell(time.0)));
    format!(
        "the collapsed attempt is kept as `{}`; starting again{time}: {}",
        attempt.folder,
        attempt.changed.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Confusion;

    fn scores(matrix: &[[u64; 2]; 2]) -> Scores {
        use crate::data::image::Labels;
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
        let course = Course::new(&train, &[]);
        let certain = |iteration, evaluated, seen| is_certain(&course, &train, iteration, evaluated, seen);
        assert!(certain(100, 0, 1) && certain(400, 0, 1) && certain(160, 80, 1));
        assert!(!certain(80, 0, 1) && certain(90, 80, 2) && !certain(40, 20, 2));
        assert!(!certain(200, 100, 1) && certain(300, 200, 2) && !certain(400, 300, 2) && !certain(600, 0, 1));
        let never = TrainConfig { restarts: 0, ..train.clone() };
        assert!(!is_certain(&course, &never, 100, 0, 1));
    }
}
