//! One recipe with several decoders and seeds, within one budget: which is better, and by how much is that sure?
//!
//! ```text
//! Plan ──[plan.toml]──▶ runs, shared out by Shard ──[run: probe, train, evaluate]──▶ DIR/pwe-s0/{result,counts}.json
//!      ──[collect]──▶ Comparison ──[table, page, picture]──▶ compare.md, compare.json, compare.html, compare.png
//! ```
//!
//! Held equal in all runs: data and their order, backbone and its initial weights, optimizer, batch, augmentation, and
//! the budget. A seed decides data order, initial weights, augmentation and dropped paths, so runs of one seed are
//! paired. `docs/compare.md` says how to read the result.

pub mod collect;
mod curves;
mod judge;
mod kept_predictions;
mod page;
mod picture;
mod plot;
pub mod run;
mod table;
mod times;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{self, Config};
use crate::dataset::Split;
use crate::decoder::DecoderConfig;
use crate::error::{Error, Result};
pub use crate::shard::Shard;
use crate::train::MOST_ITERATIONS;
use crate::{files, text};

/// The plan, in a comparison's folder.
pub const PLAN: &str = "plan.toml";
/// The result as JSON.
const JSON: &str = "compare.json";
/// The result as a table.
const TABLE: &str = "compare.md";
/// Predictions side by side.
const PICTURE: &str = "compare.png";
/// The page.
const PAGE: &str = "compare.html";
/// What was measured of a finished run, in that run's folder, which is finished when this is in it.
const RESULT: &str = "result.json";
/// The counts of every image of the validation split, in a run's folder.
const COUNTS: &str = "counts.json";
/// How long each step took, in a run's folder: `iteration,ms`, the iterations counted from 1.
const TIMES: &str = "times.csv";
/// The predictions of a run's first seed, made smaller, one below the other, in its folder.
const PREDICTIONS: &str = "predictions.png";

/// What is compared. Written to the folder's `plan.toml` once; every later call has to agree with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparePlan {
    /// Decoders in the order of the table's first draft.
    pub decoders: Vec<String>,
    /// Seeds of each decoder.
    pub seeds: Vec<u64>,
    /// Evaluations of each run while it is trained, the one at the end included; 0 for that one alone.
    pub evaluations: u64,
    /// How long each run is trained.
    pub budget: Budget,
    /// The settings of each decoder.
    pub decoder: BTreeMap<String, DecoderConfig>,
    /// All else.
    pub recipe: Config,
}

/// The most seconds of a run.
const LONGEST: u64 = 1 << 40;

/// Puts `NAME.KEY=VALUE` into the settings of the decoder `NAME`.
fn changed(decoders: &mut BTreeMap<String, DecoderConfig>, change: &str) -> Result<()> {
    let fault = |text: &str| Error::usage(format!("--with `{change}`: {text}"));
    let (name, change) = change.split_once('.').filter(|(_, rest)| rest.contains('=')).ok_or_else(|| {
        fault("is not of the form NAME.KEY=VALUE").with_hint("for instance `--with eomt.num_queries=20`")
    })?;
    let decoder = decoders.get_mut(name).ok_or_else(|| fault("there is no such decoder among those compared"))?;
    let mut table =
        toml::Table::try_from(&*decoder).map_err(|error| fault("cannot be written as TOML").with_source(error))?;
    config::set(&mut table, change)?;
    *decoder = table.try_into().map_err(|error: toml::de::Error| fault(error.message()))?;
    Ok(())
}

/// How long a run is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Budget {
    /// Steps of the optimizer.
    Iterations(u64),
    /// Seconds of training, evaluations apart.
    Seconds(u64),
}

/// One training run of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareRun {
    /// The decoder's name.
    pub decoder: String,
    /// The seed.
    pub seed: u64,
}

impl fmt::Display for CompareRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-s{}", self.decoder, self.seed)
    }
}

impl ComparePlan {
    /// The plan for `recipe` with the presets named `decoders` and `seeds` seeds from the recipe's on. Where the
    /// recipe's own decoder is of a preset's type, its settings are taken. `changes` are `NAME.KEY=VALUE` for single
    /// decoders.
    ///
    /// # Errors
    /// An unknown or repeated name, settings that do not fit the backbone, no decoder or no seed.
    pub fn new(
        recipe: Config,
        decoders: &[String],
        changes: &[String],
        seeds: u64,
        budget: Budget,
        evaluations: u64,
    ) -> Result<Self> {
        if decoders.is_empty() || !(1..=100).contains(&seeds) {
            return Err(Error::new(format!("a comparison of {} decoders with {seeds} seeds", decoders.len()))
                .with_hint("name at least one decoder, and 1 to 100 seeds: `--decoders cse,pwe --seeds 3`"));
        }
        let mut decoder = BTreeMap::new();
        for name in decoders {
            let preset = DecoderConfig::preset(name)?;
            let own = &recipe.model.decoder;
            let chosen = preset.settings_of(own);
            if decoder.insert(name.clone(), chosen).is_some() {
                return Err(Error::usage(format!("--decoders names `{name}` twice"))
                    .with_hint("name each once; --seeds repeats it"));
            }
        }
        for change in changes {
            changed(&mut decoder, change)?;
        }
        let first = recipe.train.seed;
        let seeds = (0..seeds).map(|i| first.saturating_add(i)).collect();
        let plan = Self { decoders: decoders.to_vec(), seeds, evaluations, budget, decoder, recipe };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        if matches!(self.budget, Budget::Iterations(0) | Budget::Seconds(0)) {
            return Err(
                Error::new("the budget is zero").with_hint("for instance `--budget 20m` or `--iterations 1000`")
            );
        }
        if self.decoders.is_empty() || !(1..=100).contains(&self.seeds.len()) {
            return Err(Error::new(format!(
                "decoders and seeds: there are {} and {}; at least one decoder and 1 to 100 seeds are possible",
                self.decoders.len(),
                self.seeds.len()
            )));
        }
        if let Some(twice) = (1..self.seeds.len()).find(|at| self.seeds[..*at].contains(&self.seeds[*at])) {
            return Err(Error::new(format!("seeds: {} is there twice", self.seeds[twice])));
        }
        for (at, name) in self.decoders.iter().enumerate() {
            // The name is also that of a folder.
            DecoderConfig::preset(name)?;
            if self.decoders[..at].contains(name) {
                return Err(Error::new(format!("decoders: `{name}` is there twice")));
            }
        }
        match self.budget {
            Budget::Iterations(n) if n > MOST_ITERATIONS => {
                return Err(Error::new(format!("budget.iterations = {n} is more than {MOST_ITERATIONS}")));
            }
            Budget::Seconds(s) if s > LONGEST => {
                return Err(Error::new(format!("budget.seconds = {s} is more than {LONGEST}")));
            }
            _ => {}
        }
        for run in self.runs() {
            let config = self.config(&run, 1)?;
            config.check().map_err(|error| Error::new(format!("decoder `{}`", run.decoder)).with_source(error))?;
        }
        Ok(())
    }

    /// All runs, seed by seed, so that a comparison that is cut short has all decoders.
    pub fn runs(&self) -> Vec<CompareRun> {
        let of_seed =
            |&seed: &u64| self.decoders.iter().map(move |decoder| CompareRun { decoder: decoder.clone(), seed });
        self.seeds.iter().flat_map(of_seed).collect()
    }

    /// Fails where the runs could not read their data, which is better said once than by each of them.
    ///
    /// # Errors
    /// A dataset that cannot be opened.
    pub fn ensure_data(&self) -> Result<()> {
        [Split::Train, Split::Val].into_iter().try_for_each(|split| self.recipe.data.open(split).map(drop))
    }

    /// The run called `name`.
    pub fn run(&self, name: &str) -> Result<CompareRun> {
        let found = self.runs().into_iter().find(|run| run.to_string() == name);
        found.ok_or_else(|| Error::new(format!("the plan has no run `{name}`")))
    }

    /// The recipe of a run of this many iterations. Evaluations are spread evenly over it, its warm-up takes a tenth of
    /// it at most, and pretrained weights are only the backbone's.
    pub fn config(&self, run: &CompareRun, iterations: u64) -> Result<Config> {
        let missing = || Error::new(format!("`{PLAN}` has no settings for the decoder `{}`", run.decoder));
        let mut config = self.recipe.clone();
        config.model.decoder = self.decoder.get(&run.decoder).ok_or_else(missing)?.clone();
        let train = &mut config.train;
        (train.seed, train.iterations) = (run.seed, iterations);
        // Runs that are compared have one length each, which the comparison's budget decides.
        (train.max_time, train.max_iterations, train.restarts) = (None, None, 0);
        train.schedule.reschedules.clear();
        train.eval_every = if self.evaluations == 0 { 0 } else { iterations.div_ceil(self.evaluations) };
        train.schedule.warmup_iters = train.schedule.warmup_iters.min(iterations / 10);
        train.pretrained_backbone_only |= train.pretrained.is_some();
        Ok(config)
    }

    /// Reads the plan of the comparison in `folder`; none where there is none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(PLAN);
        match files::read_text(&path, files::RECIPE) {
            Ok(text) => Self::parse(&text, &path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path, error)),
        }
    }

    /// The plan in `text`, which lies or could lie at `path`.
    ///
    /// # Errors
    /// A text that is not a plan, or a plan that cannot be followed; naming the field.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let plan: Self = toml::from_str(text).map_err(|error| {
            Error::file("read the plan", path, error).with_hint("`structtoken compare` writes it: choose another --out")
        })?;
        plan.check().map_err(|error| match error.hint() {
            Some(_) => Error::file("use the plan", path, error),
            None => Error::file("use the plan", path, error)
                .with_hint("`structtoken compare` writes it: restore it, or choose another --out"),
        })?;
        Ok(plan)
    }

    /// Writes the plan to `folder`, or sees that the one there is the same.
    ///
    /// # Errors
    /// Another plan is there: the message says in what it differs.
    pub fn settle(&self, folder: &Path) -> Result<()> {
        let _lock = patient_lock(folder)?;
        if let Some(before) = Self::read(folder)? {
            return before.agree(self, folder);
        }
        let text =
            toml::to_string(self).map_err(|error| Error::new("cannot write the plan as TOML").with_source(error))?;
        files::write(&folder.join(PLAN), text.as_bytes())
    }

    /// Refuses another plan than this one, which is that of `folder`.
    pub fn agree(&self, other: &Self, folder: &Path) -> Result<()> {
        if self == other {
            return Ok(());
        }
        let differences = config::differences(self, other)?.join(", ");
        Err(Error::new(format!("`{}` was started with another plan: {differences}", folder.display())).with_hint(
            "leave out the recipe and its options to continue the plan there, or choose another folder with --out",
        ))
    }
}

/// The lock of a comparison's folder, which processes hold only for moments: waited for.
fn patient_lock(folder: &Path) -> Result<files::Lock> {
    const PATIENCE: u32 = 150;
    for _ in 0..PATIENCE {
        if let Ok(lock) = files::Lock::take(folder) {
            return Ok(lock);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    files::Lock::take(folder)
}

/// `90s`, `20m`, `2h` or `1h30m` as seconds.
impl FromStr for Budget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text::duration(text).map(|time| Self::Seconds(time.as_secs()))
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Iterations(n) => write!(f, "{n} iterations"),
            Self::Seconds(s) if s % 3600 == 0 => write!(f, "{} h of training", s / 3600),
            Self::Seconds(s) if s % 60 == 0 => write!(f, "{} min of training", s / 60),
            Self::Seconds(s) => write!(f, "{s} s of training"),
        }
    }
}

/// Gathers the finished runs in `folders` and writes `compare.md`, `.json`, `.html` and `.png` to `out`.
///
/// # Errors
/// Files that cannot be read or written, or runs that were not evaluated on the same images.
pub fn publish(plan: &ComparePlan, folders: &[PathBuf], out: &Path) -> Result<collect::Comparison> {
    let gathered = collect::gather(plan, folders)?;
    let comparison = collect::compare(plan, &gathered)?;
    let pictures = picture::choose(plan, &gathered);
    let json =
        serde_json::to_vec_pretty(&comparison).map_err(|e| Error::new("cannot write the result").with_source(e))?;
    let page = page::render(plan, &comparison, &pictures)?;
    let _lock = patient_lock(out)?;
    files::write(&out.join(JSON), &json)?;
    files::write(&out.join(TABLE), comparison.markdown().as_bytes())?;
    if let Some(sheet) = pictures.sheet() {
        crate::image::write_png(out.join(PICTURE), &sheet)?;
    }
    files::write(&out.join(PAGE), page.as_bytes())?;
    Ok(comparison)
}

#[cfg(test)]
mod tests;
