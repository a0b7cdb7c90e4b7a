//! The lines of a run's log, of which some may be torn by a crash or damaged on the disk: those are told apart, and all
//! others are rows.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::files;

/// How every row begins.
const BEGIN: &[u8] = b"{\"kind\":";

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Row {
    /// Numbers of training.
    Step(StepRow),
    /// Scores on the validation set.
    Eval(EvalRow),
    /// Another length of the run than before.
    #[serde(alias = "bend")]
    Reschedule(RescheduleRow),
    /// A line of a later version, which this one does not know.
    #[serde(other, skip_serializing)]
    Other,
}

/// Numbers of training, usually the mean since the row before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// The iteration's index, from 0.
    pub iteration: u64,
    /// The loss. Written as `null` where it is not finite, and read as NaN.
    #[serde(deserialize_with = "nan_for_null")]
    pub loss: f64,
    /// The learning rate of the first parameter group.
    #[serde(deserialize_with = "nan_for_null")]
    pub lr: f64,
    /// Images trained on in a second.
    #[serde(default)]
    pub images_per_s: Option<f64>,
    /// The share of the time spent waiting for data, 0..=1.
    #[serde(default)]
    pub wait_share: Option<f64>,
    /// Parts of the loss by name, where it has several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, Option<f64>>,
}

/// Scores on the validation set, each 0..=1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Iterations done before the evaluation.
    pub iteration: u64,
    /// Mean intersection over union.
    #[serde(deserialize_with = "nan_for_null")]
    pub miou: f64,
    /// Share of right pixels.
    #[serde(default)]
    pub pixel_accuracy: Option<f64>,
    /// Mean over classes of the share of right pixels.
    #[serde(default)]
    pub mean_accuracy: Option<f64>,
    /// Intersection over union of every class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub iou: BTreeMap<String, Option<f64>>,
}

/// Another length of the run than before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RescheduleRow {
    /// The index, from 0, of the first iteration that belongs to it.
    pub iteration: u64,
    /// Iterations in all from there on.
    pub iterations: u64,
    /// Iterations between evaluations from there on, where that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_every: Option<u64>,
}

/// JSON has no NaN: `serde_json` writes `null`.
fn nan_for_null<'de, D: Deserializer<'de>>(source: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or(f64::NAN))
}

impl Row {
    /// After how many iterations the row's numbers are there.
    pub(super) fn shown_at(&self) -> Option<u64> {
        match self {
            Self::Step(step) => step.iteration.checked_add(1),
            Self::Eval(eval) => Some(eval.iteration),
            Self::Reschedule(_) | Self::Other => None,
        }
    }

    /// Whether a run that continues with iteration `next` (from 0), and was last evaluated after `evaluated`, will not
    /// write this row again.
    ///
    /// Steps before `next` are done. An evaluation after exactly `next` iterations is made again where the run was
    /// killed before it was noted.
    pub(super) fn stands_before(&self, next: u64, evaluated: u64) -> bool {
        match self {
            Self::Step(step) => step.iteration < next,
            Self::Eval(eval) => eval.iteration <= evaluated,
            Self::Reschedule(reschedule) => reschedule.iteration < next,
            Self::Other => true,
        }
    }
}

/// What a log holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rows {
    /// The rows, each with its line, in the order written.
    pub(super) rows: Vec<(String, Row)>,
    /// What is not a row, by the number of its line from 1: damage, and not what a crash left of the last line.
    pub(super) damaged: Vec<(usize, Vec<u8>)>,
}

/// The rows of the log at `path`; none where there is no log.
///
/// # Errors
/// A log that cannot be read.
pub(super) fn read(path: &Path) -> Result<Rows> {
    match files::read(path, files::RECORD) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(Rows::default()),
        Err(source) => Err(Error::file("read", path, source)),
    }
}

/// The rows of a log.
pub(super) fn parse(bytes: &[u8]) -> Rows {
    let mut found = Rows::default();
    let last = bytes.split_inclusive(|byte| *byte == b'\n').count();
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(row) = serde_json::from_slice(line).ok().filter(|row| possible(line, row)) {
            found.rows.push((String::from_utf8_lossy(line).into_owned(), row));
            continue;
        }
        // A damaged line feed makes one line of two rows, so each part that may be a row is looked at.
        let mut rest = Vec::new();
        for part in parts(line) {
            let mut values = serde_json::Deserializer::from_slice(part).into_iter::<Row>();
            match values.next() {
                Some(Ok(row)) if possible(part, &row) => {
                    let (text, after) = part.split_at(values.byte_offset());
                    found.rows.push((String::from_utf8_lossy(text).into_owned(), row));
                    rest.extend(after);
                }
                _ => rest.extend(part),
            }
        }
        // A kill can tear the last line, and a power cut leave its blocks unwritten.
        if !rest.is_empty() && number + 1 < last {
            found.damaged.push((number + 1, rest));
        }
    }
    found
}

/// Whether a run may have written `row` as `text`: as fields and not as a list of values, which would be read too, with
/// a number of iterations and a score that there can be.
fn possible(text: &[u8], row: &Row) -> bool {
    let (iteration, miou) = match row {
        Row::Step(step) => (step.iteration, 0.0),
        Row::Eval(eval) => (eval.iteration, eval.miou),
        Row::Reschedule(reschedule) => (reschedule.iteration, 0.0),
        Row::Other => (0, 0.0),
    };
    text.starts_with(b"{") && iteration < 1 << 53 && (0.0..=1.0).contains(&miou)
}

/// The line, cut before everything that looks like the beginning of a row.
fn parts(line: &[u8]) -> Vec<&[u8]> {
    let mut cuts: Vec<usize> =
        line.windows(BEGIN.len()).enumerate().filter(|(_, at)| *at == BEGIN).map(|at| at.0).collect();
    cuts.insert(0, 0);
    cuts.push(line.len());
    cuts.dedup();
    cuts.windows(2).map(|ends| &line[ends[0]..ends[1]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let step =
            |iteration| Row::Step(StepRow { iteration, loss: 0.1 + iteration as f64, lr: 1e-3, ..StepRow::default() });
        let eval = |iteration| Row::Eval(EvalRow { iteration, miou: 0.25, ..EvalRow::default() });
        vec![step(0), step(1), eval(2), step(2), step(3), eval(4)]
    }

    fn lines() -> Vec<String> {
        rows().iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect()
    }

    #[test]
    fn a_log_is_its_rows() {
        let found = parse(lines().concat().as_bytes());
        assert_eq!(found.rows.iter().map(|(line, _)| line.clone() + "\n").collect::<Vec<_>>(), lines());
        assert_eq!(found.rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>(), rows());
        assert!(found.damaged.is_empty());
        assert_eq!(parse(b""), Rows::default());
    }

    #[test]
    fn rows_that_no_run_wrote_are_damage() {
        let good = &lines()[0];
        for bad in [
            r#"["step",0,1.0,0.1]"#.to_owned(),
            good.replace("\"iteration\":0", "\"iteration\":18446744073709551615"),
            lines()[2].replace("0.25", "7.0"),
        ] {
            let found = parse(format!("{good}{}\n{good}", bad.trim_end()).as_bytes());
            assert_eq!((found.rows.len(), found.damaged.len()), (2, 1), "{bad}");
        }
    }

    /// Whatever bit is turned, all rows but the one it is in stay, each once.
    #[test]
    fn a_flipped_bit_costs_its_row_at_most() {
        let text = lines().concat().into_bytes();
        let ends: Vec<usize> = lines()
            .iter()
            .scan(0, |end, line| {
                *end += line.len();
                Some(*end)
            })
            .collect();
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().position(|end| bit / 8 < *end).unwrap();
            let found = parse(&flipped);
            let kept: Vec<&Row> = found.rows.iter().map(|(_, row)| row).collect();
            for (at, row) in rows().iter().enumerate().filter(|(at, _)| *at != hit) {
                assert_eq!(kept.iter().filter(|one| **one == row).count(), 1, "bit {bit}, row {at}");
            }
            assert!(kept.len() >= rows().len() - 1 && kept.len() <= rows().len(), "bit {bit}");
            // What is lost is reported, unless it was the last line.
            assert!(kept.len() == rows().len() || hit + 1 == rows().len() || !found.damaged.is_empty(), "bit {bit}");
        }
    }
}
