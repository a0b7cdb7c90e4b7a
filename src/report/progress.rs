//! The numbers of a run while it lasts: `log.ndjson`, one JSON object per line; the same as `metrics.csv` and for TensorBoard.
//!
//! Training appends; a resumed run first drops what it is about to repeat; [`curves`] gives the report's curves. A line
//! that a crash left unfinished at the end is dropped, and what else is no row is moved aside, so a run can always be resumed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::tensorboard::Events;
use super::{Curve, Goal, rows};
use crate::error::{Error, Result};
use crate::files;

/// The name of the log in a run's folder.
pub const LOG_FILE: &str = "log.ndjson";
/// Where lines of the log go that are damaged.
pub const DAMAGED_FILE: &str = "damaged-log.ndjson";
/// The name of the table in a run's folder.
pub const TABLE_FILE: &str = "metrics.csv";

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Row {
    /// Numbers of training.
    Step(Step),
    /// Scores on the validation set.
    Eval(Eval),
    /// Another length of the run than before.
    Bend(Bend),
    /// A line of a later version, which this one does not know.
    #[serde(other, skip_serializing)]
    Other,
}

/// Numbers of training, usually the mean since the row before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
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
    /// The norm of the gradient before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Parts of the loss by name, where it has several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, Option<f64>>,
}

/// Scores on the validation set, each 0..=1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Eval {
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
    /// Loss on the validation set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Intersection over union of every class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub iou: BTreeMap<String, Option<f64>>,
}

/// Another length of the run than before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bend {
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
    fn shown_at(&self) -> Option<u64> {
        match self {
            Self::Step(step) => step.iteration.checked_add(1),
            Self::Eval(eval) => Some(eval.iteration),
            Self::Bend(_) | Self::Other => None,
        }
    }

    /// Whether a run that goes on with iteration `next` (from 0), and was last evaluated after `evaluated`, will not write this row
    /// again.
    ///
    /// Steps before `next` are done. An evaluation after exactly `next` iterations is made again where the run was killed before
    /// it was noted.
    fn stands_before(&self, next: u64, evaluated: u64) -> bool {
        match self {
            Self::Step(step) => step.iteration < next,
            Self::Eval(eval) => eval.iteration <= evaluated,
            Self::Bend(bend) => bend.iteration < next,
            Self::Other => true,
        }
    }
}

/// Appends rows to a run's log.
#[derive(Debug)]
pub struct RunLog {
    path: PathBuf,
    file: File,
    events: Option<Events>,
    /// From where on TensorBoard is to forget what earlier sessions said, by iterations done.
    void: u64,
    /// Rows of that place that stay.
    again: Vec<Row>,
}

impl RunLog {
    /// Starts an empty log in the existing folder `run`, replacing an older one.
    pub fn create(run: &Path) -> Result<Self> {
        files::write(&run.join(LOG_FILE), b"")?;
        Self::append_to(run)
    }

    /// Goes on with the log in `run` before iteration `next` (counted from 0, as a checkpoint after `next` iterations
    /// resumes) of a run that was last evaluated after `evaluated`: drops the steps at or after `next`, later evaluations and an
    /// unfinished last line. Kept lines stay byte for byte. Lines that are damaged are moved to [`DAMAGED_FILE`], of which `note` is
    /// told. A missing log is started.
    ///
    /// # Errors
    /// Where the log cannot be read or written.
    pub fn resume(run: &Path, next: u64, evaluated: u64, note: &mut dyn FnMut(&str)) -> Result<Self> {
        let path = run.join(LOG_FILE);
        let found = rows::read(&path)?;
        if let Some((first, _)) = found.damaged.first() {
            let aside = run.join(DAMAGED_FILE);
            let lines: Vec<u8> = found.damaged.iter().flat_map(|(_, line)| [line.as_slice(), b"\n"].concat()).collect();
            append(&aside, &lines)?;
            note(&format!(
                "warning: {} of the {} lines of `{}` are damaged, the first of them line {first}: they are moved to `{}`",
                found.damaged.len(),
                found.damaged.len() + found.rows.len(),
                path.display(),
                aside.display()
            ));
        }
        let kept: Vec<(String, Row)> =
            found.rows.into_iter().filter(|(_, row)| row.stands_before(next, evaluated)).collect();
        let text: String = kept.iter().flat_map(|(line, _)| [line.as_str(), "\n"]).collect();
        files::write(&path, text.as_bytes())?;
        // Where the evaluation after `next` is made again, what is void begins one earlier, with that of the step before it.
        let again: Vec<Row> = match evaluated < next {
            true => kept.into_iter().map(|(_, row)| row).filter(|row| row.shown_at() == Some(next)).collect(),
            false => Vec::new(),
        };
        Ok(Self { void: if evaluated < next { next } else { next + 1 }, again, ..Self::append_to(run)? })
    }

    /// The same log, which writes an event file for TensorBoard too.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn with_events(self, run: &Path) -> Result<Self> {
        let mut events = Events::create(run, self.void)?;
        self.again.iter().try_for_each(|row| events.add(row))?;
        Ok(Self { events: Some(events), ..self })
    }

    /// Makes what is written last, whatever becomes of the machine: a checkpoint that is saved after it never knows of rows that
    /// the log has not.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::file("write", &self.path, source))
    }

    /// Appends one row; it is in the file when this returns.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        if let Some(events) = &mut self.events {
            events.add(row)?;
        }
        let mut line = serde_json::to_string(row).map_err(|source| Error::file("write", &self.path, source))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|source| Error::file("write", &self.path, source))
    }

    fn append_to(run: &Path) -> Result<Self> {
        let path = run.join(LOG_FILE);
        let file = OpenOptions::new().append(true).open(&path).map_err(|source| Error::file("open", &path, source))?;
        Ok(Self { path, file, events: None, void: 1, again: Vec::new() })
    }
}

fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.and_then(|mut file| file.write_all(bytes)).map_err(|source| Error::file("write", path, source))
}

/// The rows of the log in the folder `run`, in the order written, without what is damaged; none where there is no log.
///
/// # Errors
/// Where the log cannot be read.
pub fn read(run: &Path) -> Result<Vec<Row>> {
    Ok(rows::read(&run.join(LOG_FILE))?.rows.into_iter().map(|(_, row)| row).collect())
}

/// The rows of a log, without what is damaged.
pub fn parse(bytes: &[u8]) -> Vec<Row> {
    rows::parse(bytes).rows.into_iter().map(|(_, row)| row).collect()
}

/// The report's curves: loss, validation mIoU and loss, learning rate, speed, and the loss's parts. Curves without
/// points are left out; of two rows for one iteration the later counts.
pub fn curves(rows: &[Row]) -> Vec<Curve> {
    let steps = || rows.iter().filter_map(|row| if let Row::Step(step) = row { Some(step) } else { None });
    let evals = || rows.iter().filter_map(|row| if let Row::Eval(eval) = row { Some(eval) } else { None });
    let of_steps = |value: &dyn Fn(&Step) -> Option<f64>| latest(steps().map(|step| (step.iteration, value(step))));
    let of_evals = |value: &dyn Fn(&Eval) -> Option<f64>| latest(evals().map(|eval| (eval.iteration, value(eval))));
    let curve = |name: &str, unit: &str, goal, points| Curve { name: name.into(), unit: unit.into(), goal, points };

    let mut all = vec![
        curve("Training loss", "", Goal::Lower, of_steps(&|step| Some(step.loss))),
        curve("Validation mIoU", "%", Goal::Higher, of_evals(&|eval| Some(eval.miou * 100.0))),
        curve("Validation loss", "", Goal::Lower, of_evals(&|eval| eval.loss)),
        curve("Learning rate", "", Goal::Neither, of_steps(&|step| Some(step.lr))),
        curve("Speed", "images/s", Goal::Neither, of_steps(&|step| step.images_per_s)),
    ];
    let parts: std::collections::BTreeSet<&String> = steps().flat_map(|step| step.parts.keys()).collect();
    for part in parts {
        let points = of_steps(&|step| step.parts.get(part).map(|value| value.unwrap_or(f64::NAN)));
        all.push(curve(&format!("Loss part: {part}"), "", Goal::Lower, points));
    }
    all.retain(|curve| !curve.points.is_empty());
    all
}

/// Writes the log in the folder `run` as a table: a line for every iteration that has numbers, counted from 1; of two rows for
/// one iteration the later counts.
///
/// # Errors
/// As [`read`], or where it cannot be written.
pub fn write_table(run: &Path) -> Result<()> {
    let mut lines: BTreeMap<u64, BTreeMap<String, f64>> = BTreeMap::new();
    let steps = ["loss", "lr", "images_per_s", "wait_share"].map(str::to_owned);
    let evaluations = ["mIoU", "aAcc", "mAcc"].map(str::to_owned);
    let (mut columns, mut scores) = (steps.to_vec(), evaluations.to_vec());
    for row in read(run)? {
        let (iteration, values, columns) = match row {
            Row::Step(step) => {
                let known = [Some(step.loss), Some(step.lr), step.images_per_s, step.wait_share];
                let parts = step.parts.into_iter().map(|(name, value)| (format!("loss/{name}"), value));
                let known = steps.clone().into_iter().zip(known);
                (step.iteration.saturating_add(1), known.chain(parts).collect::<Vec<_>>(), &mut columns)
            }
            Row::Eval(eval) => {
                let known = [Some(eval.miou), eval.pixel_accuracy, eval.mean_accuracy];
                let classes = eval.iou.into_iter().map(|(name, value)| (format!("IoU/{name}"), value));
                let known = evaluations.clone().into_iter().zip(known);
                (eval.iteration, known.chain(classes).collect(), &mut scores)
            }
            Row::Bend(_) | Row::Other => continue,
        };
        let line = lines.entry(iteration).or_default();
        for (name, value) in values {
            if !columns.contains(&name) {
                columns.push(name.clone());
            }
            line.extend(value.map(|value| (name, value)));
        }
    }
    let columns: Vec<String> = columns.into_iter().chain(scores).collect();
    let cell = |name: &String| {
        if name.contains([',', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.clone() }
    };
    let mut text = format!("iteration,{}\n", columns.iter().map(cell).collect::<Vec<_>>().join(","));
    for (iteration, values) in lines {
        let cells = columns.iter().map(|name| values.get(name).map_or(String::new(), f64::to_string));
        text += &format!("{iteration},{}\n", cells.collect::<Vec<_>>().join(","));
    }
    files::write(&run.join(TABLE_FILE), text.as_bytes())
}

fn latest(values: impl Iterator<Item = (u64, Option<f64>)>) -> Vec<(f64, f64)> {
    let known: BTreeMap<u64, f64> = values.filter_map(|(iteration, value)| Some((iteration, value?))).collect();
    known.into_iter().map(|(iteration, value)| (iteration as f64, value)).collect()
}

#[cfg(test)]
mod tests;
