//! Faults that a check found, equal things together.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::dataset::spec::Source;

/// How many examples of one fault are kept.
const EXAMPLES: usize = 5;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Training would stop, or its scores would be wrong.
    Fault,
    /// True, perhaps intended, worth a look.
    Warning,
}

/// One kind of fault, with the places where it is.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// How bad it is.
    pub level: Severity,
    /// A name for programs, which does not change with the wording.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
    /// In how many places.
    pub count: usize,
    /// What is counted: `file`, `folder`, `line`, `value`, `class` or `split`.
    pub unit: &'static str,
    /// The likely cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do.
    pub remedy: String,
    /// Keys of the dataset's TOML that remedy it, to be written at its top, or under the heading that they begin with,
    /// in place of those of the same names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toml: Option<String>,
    /// The first places.
    pub examples: Vec<Example>,
    /// Faults of names come before those of files, these before those of values: the order of the work.
    #[serde(skip)]
    pub(super) stage: u8,
}

/// A place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// The file; below the set's folder without that.
    #[serde(serialize_with = "crate::text::lossy")]
    pub file: PathBuf,
    /// Column and row of the first pixel, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<[usize; 2]>,
    /// The value there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Source>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Fault {
    pub(super) fn new(level: Severity, code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (what, remedy) = (what.into(), remedy.into());
        Self {
            level,
            code,
            what,
            count: 0,
            unit: "file",
            cause: None,
            remedy,
            toml: None,
            examples: Vec::new(),
            stage: 0,
        }
    }

    pub(super) fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    pub(super) fn cause(self, cause: impl Into<String>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    pub(super) fn toml(self, toml: impl Into<String>) -> Self {
        Self { toml: Some(toml.into()), ..self }
    }
}

impl Example {
    pub(super) fn file(path: &Path) -> Self {
        Self { file: path.to_path_buf(), at: None, value: None, note: None }
    }

    pub(super) fn at(self, at: [usize; 2]) -> Self {
        Self { at: Some(at), ..self }
    }

    pub(super) fn value(self, value: Source) -> Self {
        Self { value: Some(value), ..self }
    }

    pub(super) fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

/// Faults as they are found; one of the same code and words is the same.
#[derive(Default)]
pub(super) struct Faults {
    found: Vec<Fault>,
    stage: u8,
}

impl Faults {
    /// What is added from here on is less urgent than what is there.
    pub(super) fn next_stage(&mut self) {
        self.stage += 1;
    }

    /// Adds a fault at one place.
    pub(super) fn add(&mut self, fault: Fault, example: Example) {
        self.add_many(fault, 1, [example]);
    }

    /// Adds a fault at `count` places, of which some are shown.
    pub(super) fn add_many(&mut self, fault: Fault, count: usize, examples: impl IntoIterator<Item = Example>) {
        let same = |other: &Fault| other.code == fault.code && other.what == fault.what;
        let at = self.found.iter().position(same).unwrap_or_else(|| {
            self.found.push(Fault { stage: self.stage, ..fault });
            self.found.len() - 1
        });
        let entry = &mut self.found[at];
        entry.count += count;
        let slots_left = EXAMPLES.saturating_sub(entry.examples.len());
        entry.examples.extend(examples.into_iter().take(slots_left));
    }

    /// All, the worst first; files below `base` without it.
    pub(super) fn sorted(mut self, base: &Path) -> Vec<Fault> {
        self.found.sort_by_key(|fault| (fault.level, fault.stage, std::cmp::Reverse(fault.count)));
        for example in self.found.iter_mut().flat_map(|fault| &mut fault.examples) {
            if let Ok(below) = example.file.strip_prefix(base)
                && !below.as_os_str().is_empty()
            {
                example.file = below.to_path_buf();
            }
        }
        self.found
    }
}
