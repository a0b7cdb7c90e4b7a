//! The numbers of a run while it lasts: `log.ndjson`, one JSON object a line; the same as `metrics.csv` and for TensorBoard.
//!
//! Training appends; a resumed run first drops what it is about to repeat; [`curves`] gives the report's curves. A line
//! that a crash left unfinished at the end is dropped, so a run can always be resumed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use super::tensorboard::Events;
use super::{Curve, Goal};
use crate::error::{Error, Result};
use crate::files;

/// The name of the log in a run's folder.
pub const LOG_FILE: &str = "log.ndjson";
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

/// JSON has no NaN: `serde_json` writes `null`.
fn nan_for_null<'de, D: Deserializer<'de>>(source: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or(f64::NAN))
}

impl Row {
    /// Whether a run that goes on with iteration `next` (from 0) will not write this row again.
    ///
    /// Steps before `next` are done; so is an evaluation after exactly `next` iterations, which precedes the checkpoint.
    fn stands_before(&self, next: u64) -> bool {
        match self {
            Self::Step(step) => step.iteration < next,
            Self::Eval(eval) => eval.iteration <= next,
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
}

impl RunLog {
    /// Starts an empty log in the existing folder `run`, replacing an older one.
    pub fn create(run: &Path) -> Result<Self> {
        files::write(&run.join(LOG_FILE), b"")?;
        Self::append_to(run)
    }

    /// Goes on with the log in `run` before iteration `next` (counted from 0, as a checkpoint after `next` iterations
    /// resumes): drops the steps at or after `next`, the evaluations after more than `next` iterations and an unfinished
    /// last line. Kept lines stay byte for byte. A missing log is started.
    ///
    /// # Errors
    /// Where the log cannot be read or written, or a line before the last is not a row.
    pub fn resume(run: &Path, next: u64) -> Result<Self> {
        let path = run.join(LOG_FILE);
        let lines = read_lines(&path)?;
        let kept = lines.into_iter().filter(|(_, row)| row.stands_before(next)).map(|(line, _)| line + "\n");
        files::write(&path, kept.collect::<String>().as_bytes())?;
        Self::append_to(run)
    }

    /// The same log, which writes an event file for TensorBoard too, from iteration `next` on.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn with_events(self, run: &Path, next: u64) -> Result<Self> {
        Ok(Self { events: Some(Events::create(run, next)?), ..self })
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
        Ok(Self { path, file, events: None })
    }
}

/// The rows of the log in the folder `run`, in the order written; none where there is no log.
///
/// # Errors
/// Where the log cannot be read, or a line before the last is not a row.
pub fn read(run: &Path) -> Result<Vec<Row>> {
    Ok(read_lines(&run.join(LOG_FILE))?.into_iter().map(|(_, row)| row).collect())
}

fn read_lines(path: &Path) -> Result<Vec<(String, Row)>> {
    let bytes = match files::read(path, files::RECORD) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::file("read", path, source)),
    };
    // Every row was written with its line feed: what follows the last one is torn.
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let lines: Vec<&[u8]> = bytes[..whole].split(|&byte| byte == b'\n').collect();
    let lines = &lines[..lines.len() - 1];
    let mut rows = Vec::with_capacity(lines.len());
    for (number, line) in lines.iter().enumerate() {
        match serde_json::from_slice(line) {
            Ok(row) => rows.push((String::from_utf8_lossy(line).into_owned(), row)),
            // A power cut can leave the last line's blocks unwritten.
            Err(_) if number + 1 == lines.len() => {}
            Err(source) => {
                let message = format!("line {} of `{}` is not a row of a run's log", number + 1, path.display());
                return Err(Error::new(message).source(source).hint("remove that line, or start the run afresh"));
            }
        }
    }
    Ok(rows)
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
                (step.iteration + 1, known.chain(parts).collect::<Vec<_>>(), &mut columns)
            }
            Row::Eval(eval) => {
                let known = [Some(eval.miou), eval.pixel_accuracy, eval.mean_accuracy];
                let classes = eval.iou.into_iter().map(|(name, value)| (format!("IoU/{name}"), value));
                let known = evaluations.clone().into_iter().zip(known);
                (eval.iteration, known.chain(classes).collect(), &mut scores)
            }
            Row::Other => continue,
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
mod tests {
    use super::*;

    fn step(iteration: u64, loss: f64) -> Row {
        Row::Step(Step {
            iteration,
            loss,
            lr: 1e-4,
            images_per_s: Some(12.5),
            wait_share: Some(0.02),
            ..Step::default()
        })
    }

    fn eval(iteration: u64, miou: f64) -> Row {
        Row::Eval(Eval { iteration, miou, ..Eval::default() })
    }

    fn log(run: &Path, rows: &[Row]) -> RunLog {
        let mut log = RunLog::create(run).unwrap();
        rows.iter().for_each(|row| log.write(row).unwrap());
        log
    }

    #[test]
    fn rows_come_back_and_become_curves() {
        let run = tempfile::tempdir().unwrap();
        let rows = [step(0, 2.0), step(1, 1.5), eval(2, 0.25), step(2, 1.25)];
        log(run.path(), &rows);
        assert_eq!(read(run.path()).unwrap(), rows);
        let curves = curves(&rows);
        let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["Training loss", "Validation mIoU", "Learning rate", "Speed"]);
        assert_eq!(curves[0].points, [(0.0, 2.0), (1.0, 1.5), (2.0, 1.25)]);
        assert_eq!(curves[1].points, [(2.0, 25.0)]);
    }

    #[test]
    fn a_resumed_log_equals_one_never_interrupted() {
        let (straight, resumed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let rows = [step(0, 2.0), step(1, 1.5), eval(2, 0.25), step(2, 1.25), step(3, 1.0), eval(4, 0.5)];
        log(straight.path(), &rows);
        log(resumed.path(), &rows[..5]);
        let mut log = RunLog::resume(resumed.path(), 2).unwrap();
        rows[3..].iter().for_each(|row| log.write(row).unwrap());
        let bytes = |run: &tempfile::TempDir| std::fs::read(run.path().join(LOG_FILE)).unwrap();
        assert_eq!(bytes(&straight), bytes(&resumed));
    }

    #[test]
    fn the_table_has_a_line_an_iteration() {
        let run = tempfile::tempdir().unwrap();
        let iou = BTreeMap::from([("a, b".to_owned(), Some(0.5)), ("c".to_owned(), None)]);
        let evaluated = Row::Eval(Eval { iteration: 2, miou: 0.25, iou, ..Eval::default() });
        log(run.path(), &[step(0, 2.0), step(1, 9.0), step(1, 1.5), evaluated]);
        write_table(run.path()).unwrap();
        let text = std::fs::read_to_string(run.path().join(TABLE_FILE)).unwrap();
        let expected = "iteration,loss,lr,images_per_s,wait_share,mIoU,aAcc,mAcc,\"IoU/a, b\",IoU/c\n\
                        1,2,0.0001,12.5,0.02,,,,,\n2,1.5,0.0001,12.5,0.02,0.25,,,0.5,\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_a_broken_one_before_it_named() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(LOG_FILE);
        let good = "{\"kind\":\"step\",\"iteration\":0,\"loss\":1,\"lr\":0.1}\n";
        for torn in ["{\"kind\":\"st", "{\"kind\":\"st\n", "\0\0\0", "\n"] {
            std::fs::write(&path, format!("{good}{torn}")).unwrap();
            assert_eq!(read(run.path()).unwrap().len(), 1, "{torn:?}");
            RunLog::resume(run.path(), 5).unwrap().write(&step(5, 1.0)).unwrap();
            assert_eq!(read(run.path()).unwrap().len(), 2, "{torn:?}");
        }
        std::fs::write(&path, format!("{good}oops\n{good}")).unwrap();
        let error = read(run.path()).unwrap_err().to_string();
        assert!(error.starts_with("line 2 of"), "{error}");
    }

    #[test]
    fn a_diverged_loss_and_unknown_rows_are_read() {
        let run = tempfile::tempdir().unwrap();
        log(run.path(), &[step(0, f64::NAN), step(1, f64::INFINITY)]);
        assert_eq!(curves(&read(run.path()).unwrap())[0].points.len(), 2);
        let line = "{\"kind\":\"gpu\",\"iteration\":3,\"watts\":300}\n";
        std::fs::write(run.path().join(LOG_FILE), line).unwrap();
        assert_eq!(read(run.path()).unwrap(), [Row::Other]);
        RunLog::resume(run.path(), 0).unwrap();
        assert_eq!(std::fs::read_to_string(run.path().join(LOG_FILE)).unwrap(), line);
    }

    #[test]
    fn no_log_is_no_rows_and_repeated_rows_count_once() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(read(run.path()).unwrap(), []);
        assert_eq!(curves(&[eval(5, 0.1), eval(5, 0.2)])[0].points, [(5.0, 20.0)]);
        std::fs::write(run.path().join("file"), "").unwrap();
        assert!(RunLog::create(&run.path().join("file")).is_err());
    }
}
