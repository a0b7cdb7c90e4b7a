//! The manifest of a list whose outputs are put into a store, where nothing can be added to an object.
//!
//! Lines are put there in parts, each called by the number of lines before it, so that the parts say in which order
//! they belong together. At the end they become one object. A part is only ever created: of two processes that do the
//! same work, the second is refused. What is tried again is put there in parts of its own.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::list::retried;
use crate::error::{Error, Result};
use crate::files::objects::{Object, Pending, Put, Replace, Stores};

/// The most lines of a part.
const PART: u64 = 500;
/// After so long a part is put however few lines it has.
const PATIENCE: Duration = Duration::from_secs(20);
/// What its own notes start with.
const NOTE: &str = "manifest";

pub(super) struct StoredManifest<'a> {
    stores: &'a Stores,
    whole: Object,
    parts: Vec<Object>,
    /// Parts with lines that were tried again, and how many lines these are.
    retried: Vec<Object>,
    retried_lines: u64,
    /// Whether lines that are added are such.
    retries: bool,
    /// The note of this process's parts: a part whose answer was lost is known by it as its own.
    note: String,
    /// Whether it was there when this process started.
    existed: bool,
    /// Lines in the store, after the first.
    lines: u64,
    /// Lines that are to be put there.
    waiting: Vec<u8>,
    count: u64,
    since: Instant,
    put: Option<Pending<Put>>,
}

impl<'a> StoredManifest<'a> {
    /// The one called `url`, copied to `path`, where nothing is if there is none.
    pub(super) fn fetch(stores: &'a Stores, url: &str, path: &Path) -> Result<Self> {
        let failed = |error| Error::file("write", path, error);
        let whole = stores.object(url)?;
        let mut file = new_file(path)?;
        let existed = whole.read_into(&mut file)?;
        let mut found = Self {
            stores,
            whole,
            parts: Vec::new(),
            retried: Vec::new(),
            retried_lines: 0,
            retries: false,
            note: format!("{NOTE} {:016x}", RandomState::new().hash_one(std::process::id())),
            existed,
            lines: 0,
            waiting: Vec::new(),
            count: 0,
            since: Instant::now(),
            put: None,
        };
        if !existed {
            std::fs::remove_file(path).map_err(failed)?;
            return Ok(found);
        }
        found.lines = lines_from(&mut file, 0).map_err(failed)?.saturating_sub(1);
        found.read_parts(&mut file, path)?;
        let path = retried::place(path);
        let mut file = new_file(&path)?;
        found.retries = true;
        found.read_parts(&mut file, &path)?;
        found.retries = false;
        if found.retried.is_empty() {
            std::fs::remove_file(&path).map_err(|error| Error::file("remove", &path, error))?;
        }
        Ok(found)
    }

    /// Adds all parts to `file`, which is at `path`.
    fn read_parts(&mut self, file: &mut File, path: &Path) -> Result<()> {
        let failed = |error| Error::file("write", path, error);
        loop {
            let part = self.part()?;
            let end = file.seek(SeekFrom::End(0)).map_err(failed)?;
            if !part.read_into(file)? {
                return Ok(());
            }
            let lines = lines_from(file, end).map_err(failed)?;
            if lines == 0 {
                return Err(Error::new(format!("`{}` is empty", part.url()))
                    .with_hint("remove it: the images after it are looked for"));
            }
            self.keep(part, lines);
        }
    }

    /// The part that the next lines go to.
    fn part(&self) -> Result<Object> {
        let url = self.whole.url();
        self.stores.object(&match self.retries {
            true => format!("{url}.retried.{:012}", self.retried_lines),
            false => format!("{url}.{:012}", self.lines),
        })
    }

    fn keep(&mut self, part: Object, lines: u64) {
        let (parts, count) = match self.retries {
            true => (&mut self.retried, &mut self.retried_lines),
            false => (&mut self.parts, &mut self.lines),
        };
        parts.push(part);
        *count += lines;
    }

    /// Lines that are added from now on replace others.
    pub(super) fn retry(&mut self) {
        self.retries = true;
        self.since = Instant::now();
    }

    /// How many entries after the last line may have been done: those whose lines an earlier process could not put.
    pub(super) fn doubtful(&self) -> u64 {
        if self.existed { 3 * PART } else { 0 }
    }

    /// Puts the first line there, which is in the file at `path`, if nothing is there.
    pub(super) fn start(&mut self, path: &Path) -> Result<()> {
        if !self.existed {
            let bytes = std::fs::read(path).map_err(|error| Error::file("read", path, error))?;
            self.put = Some(self.whole.put(bytes, &self.note, Replace::Never));
            self.settle()?;
        }
        self.since = Instant::now();
        Ok(())
    }

    /// Adds a line.
    pub(super) fn add(&mut self, line: &[u8]) -> Result<()> {
        self.waiting.extend(line);
        self.count += 1;
        match self.count >= PART || self.since.elapsed() >= PATIENCE {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Starts to put what waits. One part after the other: none is ever missing between two.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.settle()?;
        self.since = Instant::now();
        if self.count == 0 {
            return Ok(());
        }
        let part = self.part()?;
        self.put = Some(part.put(std::mem::take(&mut self.waiting), &self.note, Replace::Never));
        let lines = std::mem::take(&mut self.count);
        self.keep(part, lines);
        Ok(())
    }

    /// Waits for what is being put.
    pub(super) fn settle(&mut self) -> Result<()> {
        match self.put.take().map(Pending::wait).transpose()? {
            None | Some(Put::Done) => Ok(()),
            // It was there, and only the answer was lost, so that it was put again.
            Some(Put::Kept(Some(note))) if note == self.note => Ok(()),
            Some(Put::Kept(_)) => {
                let parts = if self.retries { &self.retried } else { &self.parts };
                let url = parts.last().unwrap_or(&self.whole).url();
                Err(Error::new(format!("another process does the same work: it has written `{url}`"))
                    .with_hint("start each shard once; or choose another folder with --out"))
            }
        }
    }

    /// Puts the manifest at `path` there as one object.
    pub(super) fn finish(&mut self, path: &Path) -> Result<()> {
        self.flush()?;
        self.settle()?;
        if self.parts.is_empty() { Ok(()) } else { self.replace(path) }
    }

    /// Puts the manifest at `path` in place of what is there.
    pub(super) fn replace(&mut self, path: &Path) -> Result<()> {
        let mut file = File::open(path).map_err(|error| Error::file("read", path, error))?;
        self.whole.write_from(&mut file, NOTE)?;
        // One that stays would be passed over: its lines come before the end of the whole.
        self.parts.drain(..).try_for_each(|part| part.remove())?;
        // The last first: what stays is then without gaps, and is put into the whole once more.
        self.retried_lines = 0;
        self.retried.drain(..).rev().try_for_each(|part| part.remove())
    }
}

fn new_file(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    file.map_err(|error| Error::file("write", path, error))
}

/// How many lines end after `start`.
fn lines_from(file: &mut File, start: u64) -> std::io::Result<u64> {
    file.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::with_capacity(1 << 16, &mut *file);
    let mut lines = 0;
    loop {
        let length = match reader.fill_buf()? {
            [] => return Ok(lines),
            bytes => {
                lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                bytes.len()
            }
        };
        reader.consume(length);
    }
}
