//! A recipe chosen from the data and the machine, with a reason for every line.
//!
//! ```text
//! dataset ──look──▶ Facts ──┐
//! machine ─────────────────┼──choose──▶ lines with reasons ──▶ a recipe (TOML) ──time_steps──▶ estimated time and memory
//! options ──────────────────┘
//! ```
//!
//! The plan is an ordinary recipe: `structtoken train DATASET --plan > recipe.toml` is a file to read, change and keep.

mod choose;
mod facts;
pub mod processes;
mod trial;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::tensor::Device;

use crate::bench::{self, Work};
use crate::config::{self, Config};
use crate::dataset::Split;
use crate::error::Result;
use crate::inspect;
use crate::kernels::Precision;
pub use choose::Line;
use choose::StepMemory;
pub use facts::{Facts, Machine};

/// What the user asks for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanOptions {
    /// How long training and its evaluations may take.
    pub budget: Duration,
    /// Weights to start from.
    pub pretrained: Option<PathBuf>,
    /// `key=value` that come with a model to fine-tune: its network, its normalisation, its weights.
    pub given: Vec<String>,
    /// `key=value` that the user has decided.
    pub changes: Vec<String>,
}

/// An hour, and nothing decided.
impl Default for PlanOptions {
    fn default() -> Self {
        Self { budget: Duration::from_secs(3600), pretrained: None, given: Vec::new(), changes: Vec::new() }
    }
}

impl PlanOptions {
    /// What is set already, as tables. A change that cannot be read is none here: the recipe refuses it.
    fn settings(&self) -> toml::Table {
        let mut settings = toml::Table::new();
        for change in self.given.iter().chain(&self.changes) {
            config::set(&mut settings, change).ok();
        }
        settings
    }

    /// The value of a key or table of the recipe, where it is set.
    fn value(&self, path: &str) -> Option<toml::Value> {
        let settings = toml::Value::Table(self.settings());
        path.split('.').try_fold(&settings, |table, key| table.get(key)).cloned()
    }

    /// A name that is set.
    fn name(&self, path: &str) -> Option<String> {
        self.value(path)?.as_str().map(str::to_owned)
    }

    /// A number that is set.
    fn number(&self, path: &str) -> Option<u64> {
        self.value(path)?.as_integer()?.try_into().ok()
    }

    /// Whether a key, or any key of a table, is set.
    fn sets(&self, path: &str) -> bool {
        self.value(path).is_some()
    }

    /// Whether a key is set, or a whole table that it belongs to: then it has the value that the table gives it, or its
    /// default.
    fn decides(&self, path: &str) -> bool {
        self.set().any(|(key, _)| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }

    /// All that is not to be chosen, what the user has decided last.
    fn all(&self) -> Vec<String> {
        self.given.iter().chain(&self.changes).cloned().collect()
    }

    /// Keys and values, without the space around them.
    fn set(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given
            .iter()
            .chain(&self.changes)
            .filter_map(|change| change.split_once('='))
            .map(|(key, value)| (config::current(key.trim()), value.trim()))
    }
}

/// A recipe with its reasons, and what it will take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The recipe as a commented TOML.
    pub text: String,
    /// The same, read, with the user's changes.
    pub config: Config,
    /// What was estimated from a few real steps.
    pub estimated: Estimate,
    /// How many classes the dataset has.
    pub classes: usize,
}

impl Plan {
    /// How much of the planning time counts towards the run: all of it, up to a tenth of the limit, so that a short run
    /// has time to learn.
    pub fn charged_time(&self, planning: Duration) -> Duration {
        self.config.train.max_time.map_or(Duration::ZERO, |limit| planning.min(limit.0 / 10))
    }
}

/// What a run will take.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// A step of training, in seconds.
    pub step_s: f64,
    /// All steps and evaluations, in seconds.
    pub total_s: f64,
    /// The most memory, in MB; none where the system does not tell how much a process holds.
    pub peak_mb: Option<u64>,
}

/// Plans a run on `dataset`: a built-in name, or the path of a dataset's TOML.
///
/// # Errors
/// A dataset that cannot be read, weights of a network that cannot be built, or changes that cannot work.
pub fn make(dataset: &str, options: &PlanOptions, device: &Device, note: &mut dyn FnMut(&str)) -> Result<Plan> {
    let facts = Facts::read(dataset, options, note)?;
    let machine = Machine::here(device);
    note("timing steps of training to see what this machine can do");
    let mut draft = choose::PlanDraft::choose_network(&facts, &machine, options)?;
    // The smallest crop tells the machine's speed; the largest that the budget has room for is taken.
    let mut smallest = draft.config(options)?;
    smallest.ensure_trainable(dataset.as_ref())?;
    let held_mb = bench::peak_rss_mb();
    let mut speed = time_steps(&smallest, &facts, device)?;
    if machine.cpu && !options.sets("train.precision") {
        let mut rounded = smallest.clone();
        rounded.train.precision = Precision::Bf16;
        let rounded_speed = time_steps(&rounded, &facts, device)?;
        if draft.try_bf16(speed.step_s / rounded_speed.step_s) {
            (smallest, speed) = (rounded, rounded_speed);
        }
    }
    let step_memory = memory(&smallest, &facts, &machine, held_mb, &speed);
    let possible = draft.choose_crop(&facts, options, speed.step_s, &step_memory)?;
    let steps = options.number("train.iterations").map_or(possible, |steps| steps as f64);
    if draft.lengthen(steps) {
        draft.take_smallest(&facts);
        smallest = draft.config(options)?;
        speed = time_steps(&smallest, &facts, device)?;
        let step_memory = memory(&smallest, &facts, &machine, held_mb, &speed);
        draft.choose_crop(&facts, options, speed.step_s, &step_memory)?;
    }
    let config = draft.config(options)?;
    let of = |config: &Config| (config.data.augment.crop, config.train.accumulate);
    let measured = if of(&config) == of(&smallest) { speed } else { time_steps(&config, &facts, device)? };
    let tried = try_norms(&mut draft, &facts, options, device, &measured, note)?;
    draft.set_length(&facts, options, &measured, config.train.batch_size, options.budget.as_secs_f64() - tried);
    let config = draft.config(options)?;
    let estimated = estimate(&config, &facts, &measured);
    let text = draft.render(&facts, &machine, options, &estimated);
    Ok(Plan { text, config, estimated, classes: facts.classes.names.len() })
}

/// Trains with either norm for a moment, and takes the one that learned more; gives the seconds it took.
fn try_norms(
    draft: &mut choose::PlanDraft,
    facts: &Facts,
    options: &PlanOptions,
    device: &Device,
    timing: &StepTiming,
    note: &mut dyn FnMut(&str),
) -> Result<f64> {
    const KINDS: [&str; 2] = ["batch", "group"];
    if !draft.tries_norms(options) {
        return Ok(0.0);
    }
    if draft.knows_norm(facts) {
        return Ok(0.0);
    }
    let evaluation = facts.images(Split::Val) as f64 * timing.image_s;
    // Iterations that the user sets may be over long before the budget is.
    let set = options.number("train.iterations");
    let run_s =
        set.map_or(f64::INFINITY, |iterations| iterations as f64 * timing.step_s).min(options.budget.as_secs_f64());
    let Some(each) = trial::length(run_s, timing.step_s, evaluation) else {
        draft.norm("group", "the safe choice: the budget is too short to try `batch`");
        return Ok(0.0);
    };
    note(&format!(
        "training for {each:.0} s with each of two norms, to use the better one; --set model.backbone.norm=batch or group \
         decides it"
    ));
    let started = Instant::now();
    let mut scores = [0.0; 2];
    for (kind, score) in KINDS.iter().zip(&mut scores) {
        draft.norm(kind, "");
        let iterations = (each - evaluation) / timing.step_s;
        *score = trial::score(&draft.config(options)?, device, each, iterations as u64)?.unwrap_or(0.0);
    }
    let better = usize::from(scores[1] > scores[0]);
    let reason = format!(
        "mIoU {:.1} after {each:.0} s, and {:.1} with `{}`",
        100.0 * scores[better],
        100.0 * scores[1 - better],
        KINDS[1 - better]
    );
    draft.norm(KINDS[better], reason);
    Ok(started.elapsed().as_secs_f64())
}

/// What a few steps took.
struct StepTiming {
    step_s: f64,
    image_s: f64,
    peak_mb: Option<u64>,
}

/// Times a step of training and an image of the evaluation.
fn time_steps(config: &Config, facts: &Facts, device: &Device) -> Result<StepTiming> {
    let train = &config.train;
    let mut work = Work {
        name: "plan".to_owned(),
        model: config.model.clone(),
        classes: facts.classes.names.len(),
        image: config.data.augment.crop,
        batch: train.batch_size / train.accumulate,
        train: true,
        precision: train.precision,
        windows: None,
    };
    let step = bench::measure(&work, 2, device)?;
    let (width, height) = facts.size;
    work.image = [height, width];
    (work.batch, work.train, work.precision) = (1, false, config.eval.precision);
    let image = bench::measure(&work, 1, device)?;
    Ok(StepTiming {
        step_s: step.median_ms / 1e3 * train.accumulate as f64,
        image_s: image.median_ms / 1e3,
        peak_mb: bench::peak_rss_mb(),
    })
}

/// What steps with the smallest crop took of the memory. That of a GPU cannot be asked for.
fn memory(
    smallest: &Config,
    facts: &Facts,
    machine: &Machine,
    held_mb: Option<u64>,
    timing: &StepTiming,
) -> StepMemory {
    let known = machine.free_mb.zip(held_mb).zip(timing.peak_mb).filter(|_| machine.cpu);
    let Some(((free, held), peak)) = known else { return StepMemory { fixed: 0.0, maps: 0.0, free: f64::INFINITY } };
    let taken = peak.saturating_sub(held) as f64;
    let parameters = inspect::model_size(&smallest.model, facts.classes.names.len()).total_parameters;
    // A value, its gradient, and what the optimizer keeps, in f32.
    let fixed = (parameters * 4) as f64 * (2 + smallest.train.optimizer.rule.state_names().len()) as f64 / 1e6;
    let fixed = fixed.min(taken);
    StepMemory { fixed, maps: taken - fixed, free: free as f64 }
}

fn estimate(config: &Config, facts: &Facts, timing: &StepTiming) -> Estimate {
    let train = &config.train;
    let evaluations = match train.eval_every {
        0 => 1,
        every => train.iterations.div_ceil(every),
    };
    let evaluating = evaluations as f64 * facts.images(Split::Val) as f64 * timing.image_s;
    let decoded = facts.images(Split::Train) as f64 * (facts.size.0 * facts.size.1 * 4) as f64 / 1e6;
    let cache = decoded.min(config.data.cache_mb as f64) as u64;
    let parameters = inspect::model_size(&config.model, facts.classes.len()).total_parameters;
    let state_tensors = train.optimizer.rule.state_names().len() as u64;
    Estimate {
        step_s: timing.step_s,
        total_s: train.iterations as f64 * timing.step_s + evaluating,
        peak_mb: timing.peak_mb.map(|peak| peak_memory_mb(peak, cache, parameters * 4, state_tensors)),
    }
}

/// How much more steps, evaluations and pages of all sizes, by turns, hold than some steps alone: what one leaves does
/// not always fit the next.
const BY_TURNS: f64 = 1.15;

/// The most MB that a run holds whose first steps held `steps`, with `cache` for decoded images and weights of
/// `weights` bytes. A checkpoint is written from a copy of the optimizer state, `state_tensors` per weight; the weights
/// that are published are another, and its file a third.
fn peak_memory_mb(steps: u64, cache: u64, weights: u64, state_tensors: u64) -> u64 {
    (BY_TURNS * steps as f64) as u64 + cache + weights * (state_tensors + 2) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of a U-Net of 2.5 million values, AdamW, on sets of 2 to 5 MB: what the first steps held, and the whole
    /// run.
    #[test]
    fn runs_hold_no_more_than_is_estimated() {
        for (steps, cache, held) in [(335, 2, 416), (152, 2, 199), (128, 2, 202), (171, 2, 235), (347, 10, 424)] {
            let estimated = peak_memory_mb(steps, cache, 10_000_000, 2);
            let apart = estimated as f64 / f64::from(held);
            assert!((0.92..1.15).contains(&apart), "{estimated} for {held}");
        }
    }
}
