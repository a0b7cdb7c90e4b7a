//! The manifest of a list whose outputs are put into a store, where nothing can be added to an object.
//!
//! Lines are put there in parts, each called by the number of lines before it, so that the parts say in which order
//! they belong together. At the end they become one object. A part is only ever created: of two processes that do the
//! same work, the second is refused.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::files::objects::{Object, Pending, Put, Replace, Stores};

/// The most lines of a part.
const PART: u64 = 500;
/// After so long a part is put however few lines it has.
const PATIENCE: Duration = Duration::from_secs(20);
/// Its own note.
const NOTE: &str = "manifest";

pub(super) struct StoredManifest<'a> {
    stores: &'a Stores,
    whole: Object,
    parts: Vec<Object>,
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
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path).map_err(failed)?;
        let existed = whole.read_into(&mut file)?;
        let mut found = Self {
            stores,
            whole,
            parts: Vec::new(),
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
        loop {
            let part = found.part()?;
            let end = file.seek(SeekFrom::End(0)).map_err(failed)?;
            if !part.read_into(&mut file)? {
                return Ok(found);
            }
            let lines = lines_from(&mut file, end).map_err(failed)?;
            if lines == 0 {
                return Err(Error::new(format!("`{}` is empty", part.url()))
                    .with_hint("remove it: the images after it are looked for"));
            }
            found.lines += lines;
            found.parts.push(part);
        }
    }

    /// The part that the next lines go to.
    fn part(&self) -> Result<Object> {
        self.stores.object(&format!("{}.{:012}", self.whole.url(), self.lines))
    }

    /// How many entries after the last line may have been done: those whose lines an earlier process could not put.
    pub(super) fn doubtful(&self) -> u64 {
        if self.existed { 3 * PART } else { 0 }
    }

    /// Puts the first line there, which is in the file at `path`, if nothing is there.
    pub(super) fn start(&mut self, path: &Path) -> Result<()> {
        if !self.existed {
            let bytes = std::fs::read(path).map_err(|error| Error::file("read", path, error))?;
            self.put = Some(self.whole.put(bytes, NOTE, Replace::Never));
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
    fn flush(&mut self) -> Result<()> {
        self.settle()?;
        self.since = Instant::now();
        if self.count == 0 {
            return Ok(());
        }
        let part = self.part()?;
        self.put = Some(part.put(std::mem::take(&mut self.waiting), NOTE, Replace::Never));
        self.parts.push(part);
        self.lines += std::mem::take(&mut self.count);
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        match self.put.take().map(Pending::wait).transpose()? {
            None | Some(Put::Done) => Ok(()),
            Some(Put::Kept(_)) => {
                let url = self.parts.last().unwrap_or(&self.whole).url();
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
        self.parts.drain(..).try_for_each(|part| part.remove())
    }
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
