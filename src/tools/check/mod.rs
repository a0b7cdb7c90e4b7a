//! A dataset looked at as a whole: every pair is read, and all that is wrong is reported at once, with its remedy.
//!
//! ```text
//! names ──[files]──▶ pairs ──[scan, in parallel]──▶ facts of one pair ──[totals]──▶ sums ──[judge]──▶ Report
//! ```
//!
//! Pictures are in memory one a thread; what is kept of each is a few numbers.

mod colors;
mod fault;
mod files;
mod forms;
mod judge;
pub(crate) mod mask_names;
mod mixed;
mod objects;
mod parts;
mod scan;
mod survey;
mod text;
mod texture;
mod totals;

pub use fault::{Example, Fault, Severity};
pub use parts::{check_parts, check_shard};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::Split;
use crate::dataset::join::Joiner;
use crate::dataset::label_map::LabelMap;
use crate::dataset::pairs::{Pair, Pairs};
use crate::dataset::spec::{DatasetSpec, Encoding, Source, SplitSpec};
use crate::error::{Error, Result};
use fault::Faults;
use scan::Scanned;
use totals::Totals;

pub(crate) use mixed::Kinds;
pub(crate) use survey::{MaskSurvey, ValueCount, best_tolerance, survey};

/// Pairs that are read before their facts are added up.
const CHUNK: usize = 64;

/// Told how many of how many files are done.
pub type OnProgress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// Version of this form; a new one means that a key was removed or changed its meaning.
    pub version: u32,
    /// The set's name.
    pub name: String,
    /// The folder that files are named below.
    #[serde(serialize_with = "crate::text::lossy")]
    pub root: PathBuf,
    /// How masks store classes, by the description.
    pub encoding: Encoding,
    /// No fault was found; there may be warnings.
    pub ok: bool,
    /// What each split holds.
    pub splits: Vec<SplitReport>,
    /// How often each class occurs.
    pub classes: Vec<ClassReport>,
    /// All values found in masks, the most frequent first, 256 at most.
    pub values: Vec<ValueReport>,
    /// How many different values there are.
    pub distinct_values: usize,
    /// What is wrong, the worst first.
    pub faults: Vec<Fault>,
}

/// What a split holds.
#[derive(Clone, Debug, Serialize)]
pub struct SplitReport {
    /// Which split.
    pub split: Split,
    /// Images with masks.
    pub pairs: usize,
    /// How often each size of an image (width, height) occurs, the most frequent first.
    pub sizes: Vec<([usize; 2], usize)>,
    /// How many images are of each format.
    pub image_formats: BTreeMap<String, usize>,
    /// How many masks are of each format.
    pub mask_formats: BTreeMap<String, usize>,
    /// Images that EXIF asks to rotate or mirror; they are read that way.
    pub turned: usize,
    /// Images whose pixels another image of this split has too.
    pub duplicates: usize,
    /// Pixels in all masks.
    pub pixels: u64,
    /// Those that are ignored.
    pub ignored: u64,
}

/// How often a class occurs.
#[derive(Clone, Debug, Serialize)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Its pixels in each split, in the order of `splits`.
    pub pixels: Vec<u64>,
    /// The images that it is in, in each split.
    pub images: Vec<u64>,
}

/// How often a value occurs.
#[derive(Clone, Debug, Serialize)]
pub struct ValueReport {
    /// The number or colour.
    pub value: Source,
    /// Its pixels.
    pub pixels: u64,
    /// The masks that it is in.
    pub masks: u64,
    /// The class it stands for, `ignored`, or nothing.
    pub class: Option<String>,
}

impl CheckReport {
    /// How many entries of [`faults`](Self::faults) are of this level.
    pub fn count(&self, level: Severity) -> usize {
        self.faults.iter().filter(|fault| fault.level == level).count()
    }

    /// Adds that the classes are a guess, which `init` does not make.
    pub(crate) fn doubt(&mut self, doubt: &Error) {
        let remedy = doubt.hint().unwrap_or("write the classes into a dataset.toml").to_string();
        let fault =
            Fault { count: 1, ..Fault::new(Severity::Fault, "unclear-labels", doubt.to_string(), remedy).unit("set") };
        self.faults.insert(0, fault);
        self.ok = false;
    }

    /// Adds that files of the folder were not read.
    pub(crate) fn not_read(&mut self, what: String) {
        let remedy = "put files in their places, or remove them";
        self.faults.push(Fault { count: 1, ..Fault::new(Severity::Warning, "not-read", what, remedy).unit("set") });
    }

    /// As a person reads it.
    pub fn text(&self) -> String {
        text::text(self)
    }
}

/// Reads all files of the set that `spec` describes, below `root` if one is given.
///
/// # Errors
/// A description without any split. What is wrong with files is in the report.
pub fn check(spec: &DatasetSpec, root: Option<&Path>, progress: OnProgress) -> Result<CheckReport> {
    with_pairs(spec, root, |set| set.report(progress, |chunk| Ok(set.scan(chunk))))
}

/// A set whose names are known.
struct Set<'a> {
    spec: &'a DatasetSpec,
    base: &'a Path,
    splits: &'a [(Split, &'a SplitSpec)],
    map: &'a LabelMap,
    joiner: Option<&'a Joiner>,
    found: &'a [Pairs],
}

/// A pair, and the number of its split.
type InSplit<'a> = (usize, &'a Pair);

/// Finds the pairs of the set that `spec` describes, for `work`.
fn with_pairs<T>(spec: &DatasetSpec, root: Option<&Path>, work: impl FnOnce(&Set) -> Result<T>) -> Result<T> {
    let (spec, base) = spec.below(root);
    let spec = spec.as_ref();
    let splits: Vec<(Split, &SplitSpec)> =
        [Split::Train, Split::Val, Split::Test].into_iter().filter_map(|s| Some((s, spec.split(s)?))).collect();
    if splits.is_empty() {
        return Err(Error::new(format!("`{}` describes no split", spec.file.display())).with_hint(
            "add [train] and [val] with `images` and `masks`; `structtoken data init DIR` writes such a file",
        ));
    }
    let map = LabelMap::new(spec)?;
    let joiner = spec.joiner()?;
    let found: Vec<Pairs> = splits.iter().map(|(_, files)| Pairs::find_joined(&base, files, joiner.as_ref())).collect();
    work(&Set { spec, base: &base, splits: &splits, map: &map, joiner: joiner.as_ref(), found: &found })
}

impl Set<'_> {
    fn pairs(&self) -> Vec<InSplit<'_>> {
        self.found.iter().enumerate().flat_map(|(at, found)| found.pairs.iter().map(move |pair| (at, pair))).collect()
    }

    /// The facts of these pairs, from their files.
    fn scan(&self, chunk: &[InSplit]) -> Vec<Scanned> {
        chunk.par_iter().map(|(_, pair)| scan::scan(pair, self.map, self.joiner)).collect()
    }

    /// Judges the set by the facts of all its pairs, which `facts` gives for some at a time.
    fn report(
        &self,
        progress: OnProgress,
        mut facts: impl FnMut(&[InSplit]) -> Result<Vec<Scanned>>,
    ) -> Result<CheckReport> {
        let Set { spec, base, splits, map, joiner, found } = *self;
        let mut faults = Faults::default();
        files::judge(spec, base, splits, found, joiner, &mut faults);

        faults.next_stage();
        let mut totals = Totals::new(spec, map, splits.iter().map(|(split, _)| *split));
        let all = self.pairs();
        progress(0, all.len());
        let mut done = 0;
        for chunk in all.chunks(CHUNK) {
            // In order, so that the first of equal faults is always the same.
            for ((split, pair), scanned) in chunk.iter().zip(facts(chunk)?) {
                if let Some(error) = scanned.scarce(pair) {
                    return Err(error);
                }
                totals.add(*split, pair, scanned, &mut faults);
            }
            done += chunk.len();
            progress(done, all.len());
        }
        faults.next_stage();
        judge::judge(&totals, &mut faults);
        let faults = faults.sorted(base);
        let ok = faults.iter().all(|fault| fault.level != Severity::Fault);
        let root: PathBuf = base.components().collect();
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
        Ok(totals.report(spec, root, ok, faults))
    }
}
