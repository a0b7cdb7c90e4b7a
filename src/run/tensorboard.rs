//! The numbers of a run as TensorBoard reads them: `events.out.tfevents…`.
//!
//! A file is a sequence of records, each its length, the length's checksum, an `Event` message, and that one's checksum
//! (TensorFlow's `record_writer.cc`; checksums are CRC-32C, turned and shifted). Of `event.proto` and `summary.proto`
//! only scalars are needed, so the messages are written by hand.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::run::EVENTS;
use crate::run::rows::Row;

/// Appends scalars to an event file of its own.
#[derive(Debug)]
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// A new file in the folder `run`. What older files have from `void` iterations done on, which is 1 for all, is
    /// void.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn create(run: &Path, void: u64) -> Result<Self> {
        let now = now();
        let others = std::fs::read_dir(run).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(EVENTS))
        });
        let open = |attempt: u32| {
            let name = format!("{EVENTS}.{:.0}.{}.{attempt}.structtoken", now, std::process::id());
            let path = run.join(name);
            OpenOptions::new().create_new(true).append(true).open(&path).map(|file| (path, file))
        };
        let opened = (0..100)
            .map(open)
            .find(|opened| !opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists));
        let (path, file) = match opened {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => return Err(Error::file("write events to", run, error)),
            None => return Err(Error::new(format!("`{}` is full of event files", run.display()))),
        };
        let mut events = Self { path, file };
        events.write(&Message::event(now, 0).bytes(3, b"brain.Event:2"))?;
        if others {
            // The start of a session: TensorBoard drops what it has seen from this step on.
            events.write(&Message::event(now, void).bytes(7, &Message::default().varint(1, 1).0))?;
        }
        Ok(events)
    }

    /// Appends the numbers of a row of the log.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(super) fn add(&mut self, row: &Row) -> Result<()> {
        let (iteration, scalars) = match row {
            Row::Step(step) => {
                let known = [
                    ("train/loss", Some(step.loss)),
                    ("train/lr", Some(step.lr)),
                    ("train/images_per_s", step.images_per_s),
                    ("train/wait_share", step.wait_share),
                ];
                let parts = step.parts.iter().map(|(name, value)| (format!("train/loss/{name}"), *value));
                let known = known.into_iter().map(|(name, value)| (name.to_owned(), value));
                // A step's numbers are there when it is done.
                (step.iteration + 1, known.chain(parts).collect::<Vec<_>>())
            }
            Row::Eval(eval) => {
                let known = [
                    ("val/mIoU", Some(eval.miou)),
                    ("val/aAcc", eval.pixel_accuracy),
                    ("val/mAcc", eval.mean_accuracy),
                ];
                let classes = eval.iou.iter().map(|(name, value)| (format!("val/IoU/{name}"), *value));
                let known = known.into_iter().map(|(name, value)| (name.to_owned(), value));
                (eval.iteration, known.chain(classes).collect())
            }
            Row::Reschedule(_) | Row::Other => return Ok(()),
        };
        let mut summary = Message::default();
        for (tag, value) in scalars.iter().filter_map(|(tag, value)| Some((tag, (*value)?))) {
            summary = summary.bytes(1, &Message::default().bytes(1, tag.as_bytes()).float(2, value as f32).0);
        }
        self.write(&Message::event(now(), iteration).bytes(5, &summary.0))
    }

    fn write(&mut self, event: &Message) -> Result<()> {
        let length = (event.0.len() as u64).to_le_bytes();
        let record = [&length[..], &checksum(&length), &event.0, &checksum(&event.0)].concat();
        self.file.write_all(&record).map_err(|error| Error::file("write", &self.path, error))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A protocol buffer under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn event(wall_time: f64, step: u64) -> Self {
        let mut event = Self::default();
        event.key(1, 1);
        event.0.extend(wall_time.to_le_bytes());
        event.varint(2, step)
    }

    fn key(&mut self, field: u64, wire: u64) {
        self.number(field << 3 | wire);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(mut self, field: u64, value: u64) -> Self {
        self.key(field, 0);
        self.number(value);
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, 2);
        self.number(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::rows::{EvalRow, StepRow};

    #[test]
    fn records_are_framed_and_summed() {
        // What TensorFlow writes for this event (wall time 0).
        let event = Message::event(0.0, 0).bytes(3, b"brain.Event:2");
        assert_eq!(event.0, *b"\x09\0\0\0\0\0\0\0\0\x10\0\x1a\x0dbrain.Event:2");
        assert_eq!(checksum(&24u64.to_le_bytes()), [0xa3, 0x7f, 0x4b, 0x22]);
        // RFC 3720, B.4: CRC-32C of 32 zeros is 8a9136aa.
        let turned = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(checksum(&[0; 32]), turned.to_le_bytes());
    }

    #[test]
    fn two_files_never_share_a_name() {
        let run = tempfile::tempdir().unwrap();
        let mut files = [1, 8].map(|void| Events::create(run.path(), void).unwrap());
        let step = StepRow { iteration: 6, loss: 0.5, ..StepRow::default() };
        files[0].add(&Row::Step(step)).unwrap();
        files[1].add(&Row::Eval(EvalRow { iteration: 7, miou: 0.25, ..EvalRow::default() })).unwrap();
        let written: Vec<Vec<u8>> =
            std::fs::read_dir(run.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
        let holding =
            |tag: &[u8]| written.iter().filter(|bytes| bytes.windows(tag.len()).any(|part| part == tag)).count();
        assert_eq!((written.len(), holding(b"train/loss"), holding(b"val/mIoU"), holding(b"brain")), (2, 1, 1, 2));
    }
}
