//! The result of loading, or the reasons why it failed, in lines a person can act on.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;
use crate::text::distance;
use crate::weights::key_format::KeyFormat;
use crate::weights::state::{StateDict, WeightFormat};

/// What [`load`](super::load) did.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// The file's name in backticks, or that there is none.
    pub source: String,
    /// The kind of file.
    pub format: WeightFormat,
    /// The key format its names follow.
    pub key_format: KeyFormat,
    /// The dictionary inside the file that was taken, for instance `state_dict`.
    pub wrapper: Option<String>,
    /// The parameters that took their values from the file.
    pub loaded: Vec<String>,
    /// Their elements, in all.
    pub elements: usize,
    /// The tables that were resized to the model's grid.
    pub resized: Vec<Resized>,
    /// What else was done to values, or taken for granted.
    pub notes: Vec<String>,
    /// The parameters that keep their initialisation.
    pub kept: Vec<String>,
    /// The tensors of the file that were not used, which the options allow.
    pub ignored: Vec<String>,
}

/// A table that was resized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// The parameter.
    pub name: String,
    /// Rows and columns in the file.
    pub from: (usize, usize),
    /// Rows and columns in the model.
    pub to: (usize, usize),
    /// The file does not say its grid, and it was taken to be square.
    pub assumed: bool,
}

impl LoadReport {
    pub(super) fn new(state: &StateDict, key_format: KeyFormat) -> Self {
        Self {
            source: state.title(),
            format: state.format,
            key_format,
            wrapper: state.wrapper.clone(),
            loaded: Vec::new(),
            elements: 0,
            resized: Vec::new(),
            notes: Vec::new(),
            kept: Vec::new(),
            ignored: Vec::new(),
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millions = self.elements as f64 / 1e6;
        write!(f, "loaded {} tensors, {millions:.2} M values, ", self.loaded.len())?;
        write!(f, "from {} ({}, {}", self.source, self.format, self.key_format)?;
        match &self.wrapper {
            Some(wrapper) => write!(f, ", its `{wrapper}`)")?,
            None => write!(f, ")")?,
        }
        for Resized { name, from, to, assumed } in &self.resized {
            let guess = if *assumed { " (the file does not say its grid, which was taken to be square)" } else { "" };
            write!(f, "\nresized {name} from {}x{} to {}x{}{guess}", from.0, from.1, to.0, to.1)?;
        }
        for note in &self.notes {
            write!(f, "\n{note}")?;
        }
        for (title, names) in [("kept as initialised", &self.kept), ("in the file but not used", &self.ignored)] {
            let names = names.iter().map(|name| (name.as_str(), String::new()));
            for line in collapsed(names) {
                write!(f, "\n{title}: {line}")?;
            }
        }
        Ok(())
    }
}

/// What keeps a file from fitting a model.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// Parameters of the model that the file lacks, with their shapes.
    pub(super) missing: Vec<(String, Vec<usize>)>,
    /// Tensors of the file that the model lacks, with their shapes.
    pub(super) unused: Vec<(String, Vec<usize>)>,
    /// Parameters of another shape: in the file, in the model.
    pub(super) misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors with infinities or NaN, and how many.
    pub(super) not_finite: Vec<(String, usize)>,
}

/// The shapes of a model's or a file's tensors by name.
pub(super) type ShapesByName<'a> = BTreeMap<&'a str, &'a [usize]>;

impl Problems {
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.misshapen.is_empty() && self.not_finite.is_empty()
    }

    /// The error: every problem, grouped.
    pub(super) fn error(&self, state: &StateDict, key_format: KeyFormat) -> Error {
        let mut text = format!("the weights in {} ({key_format}) do not fit the model", state.title());
        let mut section = |title: &str, count: usize, lines: Vec<String>| {
            if count > 0 {
                text.push_str(&format!("\n  {title} ({count}):"));
            }
            for line in &lines {
                text.push_str(&format!("\n    {line}"));
            }
        };
        let shaped = |list: &[(String, Vec<usize>)]| -> Vec<String> {
            collapsed(list.iter().map(|(name, shape)| (name.as_str(), format!(" {shape:?}"))))
        };
        section("missing from the file", self.missing.len(), shaped(&self.missing));
        section("in the file, unknown to the model", self.unused.len(), shaped(&self.unused));
        let misshapen = self.misshapen.iter();
        let misshapen =
            misshapen.map(|(name, file, model)| (name.as_str(), format!(" is {file:?}, the model needs {model:?}")));
        section("of another shape", self.misshapen.len(), collapsed(misshapen));
        let not_finite = self.not_finite.iter().map(|(name, count)| (name.as_str(), format!(" ({count} values)")));
        section("infinite or NaN", self.not_finite.len(), collapsed(not_finite));
        let near = self.near_names();
        section("perhaps the same under another name", near.len(), near);
        Error::new(text)
    }

    /// For missing names, an unused one that differs by a few letters.
    fn near_names(&self) -> Vec<String> {
        if self.missing.len() * self.unused.len() > 10_000 {
            return Vec::new();
        }
        let near = |name: &str, shape: &[usize]| {
            let candidates = self.unused.iter().filter(|(_, other)| other == shape);
            let best = candidates.map(|(other, _)| (distance(name, other), other)).min()?;
            (best.0 <= 3.max(name.len() / 8)).then(|| best.1.clone())
        };
        let pairs = self.missing.iter().filter_map(|(name, shape)| Some((name, near(name, shape)?)));
        let pairs: Vec<(String, String)> =
            pairs.map(|(name, other)| (name.clone(), format!(" — the file has `{other}`"))).take(5).collect();
        pairs.into_iter().map(|(name, other)| format!("`{name}`{other}")).collect()
    }
}

/// The most lines of a list; the rest is counted.
const MAX_LINES: usize = 20;

/// Joins entries that differ only in the first number of the name (`blocks.0..11.norm1.weight`), then those that differ
/// only in the last part (`norm1.{weight,bias}`). A list that is still long is shortened to its first two parts.
pub(super) fn collapsed<'a>(entries: impl Iterator<Item = (&'a str, String)>) -> Vec<String> {
    let entries: Vec<(&str, String)> = entries.collect();
    let mut lines = joined(&entries, true);
    if lines.len() > MAX_LINES {
        lines = joined(&entries.iter().map(|(name, _)| (*name, String::new())).collect::<Vec<_>>(), true);
    }
    if lines.len() > MAX_LINES {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (name, _) in &entries {
            let two: Vec<&str> = name.split('.').take(2).collect();
            *counts.entry(two.join(".")).or_default() += 1;
        }
        lines = counts
            .into_iter()
            .map(|(start, count)| if count == 1 { start } else { format!("{start}.* ({count} tensors)") })
            .collect();
    }
    if lines.len() > MAX_LINES {
        let rest = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("… and {rest} more"));
    }
    lines
}

fn joined(entries: &[(&str, String)], leaves: bool) -> Vec<String> {
    // Of every template with `#` for the first number: the numbers, in the order in which templates are met.
    let mut numbers: Vec<((String, &str), Vec<usize>)> = Vec::new();
    for (name, tail) in entries {
        let (template, number) = template(name);
        let key = (template, tail.as_str());
        match numbers.iter_mut().find(|(other, _)| *other == key) {
            Some((_, list)) => list.extend(number),
            None => numbers.push((key, number.into_iter().collect())),
        }
    }
    let mut lines: Vec<(String, Vec<String>, &str)> = Vec::new();
    for ((template, tail), mut list) in numbers {
        list.sort_unstable();
        let name = template.replacen('#', &range(&list), 1);
        let (parent, leaf) = name.rsplit_once('.').map_or(("", name.as_str()), |(parent, leaf)| (parent, leaf));
        let same = |line: &&mut (String, Vec<String>, &str)| {
            leaves && !parent.is_empty() && line.0 == parent && line.2 == tail
        };
        match lines.iter_mut().find(same) {
            Some(line) => line.1.push(leaf.to_owned()),
            None => lines.push((parent.to_owned(), vec![leaf.to_owned()], tail)),
        }
    }
    let line = |(parent, leaves, tail): (String, Vec<String>, &str)| {
        let leaf = if leaves.len() == 1 { leaves.concat() } else { format!("{{{}}}", leaves.join(",")) };
        format!("{parent}{}{leaf}{tail}", if parent.is_empty() { "" } else { "." })
    };
    lines.into_iter().map(line).collect()
}

fn template(name: &str) -> (String, Option<usize>) {
    let mut number = None;
    let parts = name.split('.').map(|part| match part.parse() {
        Ok(n) if number.is_none() => {
            number = Some(n);
            "#"
        }
        _ => part,
    });
    let parts: Vec<&str> = parts.collect();
    (parts.join("."), number)
}

fn range(numbers: &[usize]) -> String {
    let contiguous = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    match numbers {
        [one] => one.to_string(),
        [first, .., last] if contiguous => format!("{first}..{last}"),
        _ => numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_collapse() {
        let gammas: Vec<String> =
            (0..12).flat_map(|i| [format!("blocks.{i}.ls1.gamma"), format!("blocks.{i}.ls1.beta")]).collect();
        let lines = |names: &[String]| collapsed(names.iter().map(|name| (name.as_str(), " [4]".to_owned())));
        assert_eq!(lines(&gammas), ["blocks.0..11.ls1.{gamma,beta} [4]"]);
        assert_eq!(lines(&["a.0.b".into(), "a.2.b".into(), "norm".into()]), ["a.0,2.b [4]", "norm [4]"]);
        assert_eq!(lines(&["a.3.m.1.b".into(), "a.4.m.1.b".into()]), ["a.3..4.m.1.b [4]"]);
        let many: Vec<String> = (0..60).flat_map(|i| (0..2).map(move |k| format!("p{}.q{i}.r{k}x", i % 30))).collect();
        assert_eq!(lines(&many).len(), MAX_LINES + 1);
        assert!(lines(&many)[MAX_LINES].contains("40 more"));
    }
}
