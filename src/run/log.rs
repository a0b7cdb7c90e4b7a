//! The numbers of a run while it lasts: `log.ndjson`, one JSON object per line; the same as `metrics.csv` and for
//! TensorBoard.
//!
//! Training appends; a resumed run first drops what it is about to repeat. A line that a crash left unfinished at the
//! end is dropped, and what else is not a row is moved aside, so a run can always be resumed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::run::rows::{self, Row};
use crate::run::tensorboard::Events;
use crate::run::{DAMAGED_LOG, LOG, TABLE};

/// Appends rows to a run's log.
#[derive(Debug)]
pub(crate) struct RunLog {
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
    #[cfg(test)]
    fn create(run: &Path) -> Result<Self> {
        files::write(&run.join(LOG), b"")?;
        Self::append_to(run)
    }

    /// Goes on with the log in `run` before iteration `next` (counted from 0, as a checkpoint after `next` iterations
    /// resumes) of a run that was last evaluated after `evaluated`: drops the steps at or after `next`, later
    /// evaluations and an unfinished last line. Kept lines stay byte for byte. Lines that are damaged are moved to
    /// [`DAMAGED_LOG`], of which `note` is told. A missing log is started. Gives the rows that stay, too.
    ///
    /// # Errors
    /// Where the log cannot be read or written.
    pub(super) fn resume(
        run: &Path,
        next: u64,
        evaluated: u64,
        note: &mut dyn FnMut(&str),
    ) -> Result<(Self, Vec<Row>)> {
        let path = run.join(LOG);
        let found = rows::read(&path)?;
        if let Some((first, _)) = found.damaged.first() {
            let aside = run.join(DAMAGED_LOG);
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
        // Where the evaluation after `next` is made again, what is void begins one earlier, with that of the step
        // before it.
        let kept: Vec<Row> = kept.into_iter().map(|(_, row)| row).collect();
        let again = kept.iter().filter(|row| evaluated < next && row.shown_at() == Some(next)).cloned().collect();
        let void = if evaluated < next { next } else { next + 1 };
        Ok((Self { void, again, ..Self::append_to(run)? }, kept))
    }

    /// The same log, which writes an event file for TensorBoard too.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub(crate) fn with_events(self, run: &Path) -> Result<Self> {
        let mut events = Events::create(run, self.void)?;
        self.again.iter().try_for_each(|row| events.add(row))?;
        Ok(Self { events: Some(events), ..self })
    }

    /// Makes what is written last, whatever becomes of the machine: a checkpoint that is saved after it never knows of
    /// rows that the log has not.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::file("write", &self.path, source))
    }

    /// Appends one row; it is in the file when this returns.
    pub(crate) fn write(&mut self, row: &Row) -> Result<()> {
        if let Some(events) = &mut self.events {
            events.add(row)?;
        }
        let mut line = serde_json::to_string(row).map_err(|source| Error::file("write", &self.path, source))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|source| Error::file("write", &self.path, source))
    }

    fn append_to(run: &Path) -> Result<Self> {
        let path = run.join(LOG);
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
    Ok(rows::read(&run.join(LOG))?.rows.into_iter().map(|(_, row)| row).collect())
}

/// The rows of a log, without what is damaged.
pub fn parse(bytes: &[u8]) -> Vec<Row> {
    rows::parse(bytes).rows.into_iter().map(|(_, row)| row).collect()
}

/// Writes the log in the folder `run` as a table: a line for every iteration that has numbers, counted from 1; of two
/// rows for one iteration the later counts.
///
/// # Errors
/// As [`read`], or where it cannot be written.
pub(crate) fn write_table(run: &Path) -> Result<()> {
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
            Row::Reschedule(_) | Row::Other => continue,
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
    files::write(&run.join(TABLE), text.as_bytes())
}

#[cfg(test)]
mod tests;
