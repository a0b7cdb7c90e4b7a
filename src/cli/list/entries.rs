//! The entries of a list: one line after the other, those of a shard.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};

use crate::cli::manifest::read_line;
use crate::error::{Error, Result};
use crate::shard::Shard;

/// No path is longer.
const LONGEST: u64 = 1 << 16;

/// The entries of a list that belong to a shard.
pub(super) struct Entries {
    reader: Box<dyn BufRead + Send>,
    source: PathBuf,
    shard: Shard,
    /// Lines read, and entries among them.
    lines: u64,
    entries: u64,
}

impl Entries {
    pub(super) fn open(source: &Path, shard: Shard) -> Result<Self> {
        let reader: Box<dyn BufRead + Send> = match source == Path::new("-") {
            true => Box::new(BufReader::with_capacity(1 << 16, stdin())),
            false => {
                let file = File::open(source).map_err(|error| Error::file("read", source, error))?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
        };
        Ok(Self { reader, source: source.to_owned(), shard, lines: 0, entries: 0 })
    }

    pub(super) fn next(&mut self) -> Result<Option<String>> {
        loop {
            let found =
                read_line(&mut self.reader, LONGEST).map_err(|error| Error::file("read", &self.source, error))?;
            let Some((line, whole)) = found else { return Ok(None) };
            self.lines += 1;
            if !whole && line.len() as u64 == LONGEST {
                return Err(Error::new(format!(
                    "line {} of `{}` has more than {LONGEST} bytes",
                    self.lines,
                    self.source.display()
                ))
                .with_hint("pass a text file with one path per line"));
            }
            let text = String::from_utf8_lossy(&line);
            let entry = text.strip_suffix('\r').unwrap_or(&text);
            if entry.trim().is_empty() {
                continue;
            }
            let ours = self.shard.has(self.entries);
            self.entries += 1;
            if ours {
                return Ok(Some(entry.to_owned()));
            }
        }
    }
}
