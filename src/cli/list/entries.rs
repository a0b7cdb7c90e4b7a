//! The entries of a list: one line after the other, those of a shard.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};

use crate::cli::manifest::read_line;
use crate::error::{Error, Result};
use crate::files::urls::{shown, url_or_path};
use crate::shard::Shard;

/// No path is longer.
const LONGEST: u64 = 1 << 16;
/// The mark that some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An entry of a list.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) text: String,
    /// The number of its line, from 1.
    pub(super) line: u64,
    /// Whether the text is all that the line holds, and not only what of it is a text.
    whole: bool,
}

impl Entry {
    /// As the manifest holds it: without what may be secret.
    pub(super) fn shown(&self) -> Cow<'_, str> {
        shown(&self.text)
    }

    /// Whether it is a URL rather than a path.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn is_url(&self) -> Result<bool> {
        if !self.whole {
            return Err(Error::new(format!("`{}` is not UTF-8 text", self.text.escape_debug()))
                .with_hint("rename the file: manifests hold names as text"));
        }
        url_or_path(&self.text)
    }
}

/// The entries of a list that belong to a shard.
pub(super) struct Entries {
    reader: Box<dyn BufRead + Send>,
    source: PathBuf,
    shard: Shard,
    /// Lines read, and entries among them, also those of other shards.
    lines: u64,
    pub(super) entries: u64,
    /// Whether its beginning was looked at.
    begun: bool,
}

impl Entries {
    pub(super) fn open(source: &Path, shard: Shard) -> Result<Self> {
        let reader: Box<dyn BufRead + Send> = match source == Path::new("-") {
            true => Box::new(BufReader::with_capacity(1 << 16, stdin())),
            false => {
                if let Some(url) = source.to_str().filter(|source| url_or_path(source).unwrap_or(true)) {
                    return Err(Error::new(format!("the list `{}` is not a file", shown(url).escape_debug()))
                        .with_hint("copy it to this machine, or pass it to --list - by a pipe"));
                }
                let file = File::open(source).map_err(|error| Error::file("read", source, error))?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
        };
        let mut found = Self { reader, source: source.to_owned(), shard, lines: 0, entries: 0, begun: false };
        // A pipe may not hold anything yet.
        if source != Path::new("-") {
            found.begin()?;
        }
        Ok(found)
    }

    /// Refuses something else than a list before any of it is taken for names.
    fn begin(&mut self) -> Result<()> {
        self.begun = true;
        let start = self.reader.fill_buf().map_err(|error| Error::file("read", &self.source, error))?;
        if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
            return Err(
                Error::new(format!("line 1 of {} is UTF-16 text", self.called())).with_hint("save the list as UTF-8")
            );
        }
        if let Some(at) = start.iter().position(|byte| *byte == 0) {
            let line = start[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            return Err(self.no_text(line));
        }
        if start.starts_with(BYTE_ORDER_MARK) {
            self.reader.consume(BYTE_ORDER_MARK.len());
        }
        Ok(())
    }

    /// What the list is called in messages.
    pub(super) fn called(&self) -> String {
        match self.source == Path::new("-") {
            true => "the list on stdin".to_owned(),
            false => format!("`{}`", self.source.display()),
        }
    }

    fn no_text(&self, line: u64) -> Error {
        Error::new(format!("line {line} of {} holds a zero byte, which no text does", self.called()))
            .with_hint("pass a text file with one path or URL per line")
    }

    /// The next entry of the shard.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        if !self.begun {
            self.begin()?;
        }
        loop {
            let found =
                read_line(&mut self.reader, LONGEST).map_err(|error| Error::file("read", &self.source, error))?;
            let Some((line, whole)) = found else { return Ok(None) };
            self.lines += 1;
            if !whole && line.len() as u64 == LONGEST {
                let (lines, called) = (self.lines, self.called());
                return Err(Error::new(format!("line {lines} of {called} has more than {LONGEST} bytes"))
                    .with_hint("pass a text file with one path per line"));
            }
            if line.contains(&0) {
                return Err(self.no_text(self.lines));
            }
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            let text = String::from_utf8_lossy(line);
            if text.trim().is_empty() {
                continue;
            }
            let ours = self.shard.has(self.entries);
            self.entries += 1;
            if ours {
                let whole = matches!(text, Cow::Borrowed(_));
                return Ok(Some(Entry { text: text.into_owned(), line: self.lines, whole }));
            }
        }
    }

    /// The entry of the line `number` of the manifest `shown`, which is of `image`.
    ///
    /// # Errors
    /// Another one, or none.
    pub(super) fn same(&mut self, image: &str, number: u64, manifest: &str) -> Result<Entry> {
        match self.next()? {
            Some(entry) if entry.shown() == image => Ok(entry),
            entry => {
                let now = match entry {
                    Some(entry) => format!("has `{}` now, in line {}", entry.shown().escape_debug(), entry.line),
                    None => "ends there".to_owned(),
                };
                Err(Error::new(format!(
                    "entry {number} of `{manifest}` was `{}`, and the list {now}",
                    image.escape_debug()
                ))
                .with_hint("continue with the list that it was started with, or choose another folder with --out"))
            }
        }
    }
}
