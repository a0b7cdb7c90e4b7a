//! The pictures of a list's entries, read from files, or from stores some entries ahead.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::Receiver;

use crate::cli::list::target::StoreFolder;
use crate::cli::predict::labeller::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::files::PICTURE;
use crate::files::objects::{Fetched, Object, Pending, Stores};
use crate::files::urls::is_url;

/// Lines that may wait.
pub(super) const LINES: usize = 64;
/// Objects that are fetched at once.
const FETCHES: usize = 8;
/// Larger ones are fetched when it is their turn, so that a few large ones do not fill the memory.
const AT_ONCE: u64 = 16 << 20;

/// What there is of an entry.
pub(super) enum Taken {
    /// Its outputs, with their checksums: an earlier start has put them there.
    Done(BTreeMap<String, String>),
    Picture(Result<Found>),
}

/// What makes a picture of a file, and of bytes.
pub(super) struct Reader<F, B> {
    pub(super) file: F,
    pub(super) bytes: B,
}

pub(super) struct Source<'a, F, B> {
    stores: &'a Stores,
    reader: Reader<F, B>,
    /// Where outputs are put, and how many of the next entries may have been done.
    folder: Option<StoreFolder<'a>>,
    doubtful: u64,
    ahead: VecDeque<Result<Ahead>>,
}

/// An entry, with what was asked of stores.
struct Ahead {
    entry: String,
    /// The notes of its outputs.
    notes: Vec<(String, Pending<Option<Option<String>>>)>,
    fetch: Option<Result<(Object, Pending<Fetched>)>>,
}

impl<'a, F: Fn(&Path) -> Result<Found>, B: Fn(&[u8]) -> Result<Found>> Source<'a, F, B> {
    /// `doubtful`: of so many entries the outputs are looked for in `folder`.
    pub(super) fn new(
        stores: &'a Stores,
        reader: Reader<F, B>,
        folder: Option<StoreFolder<'a>>,
        doubtful: u64,
    ) -> Self {
        Self { stores, reader, folder, doubtful, ahead: VecDeque::new() }
    }

    /// The next entry; none after the last. Errors are those that concern all that follow.
    pub(super) fn next(&mut self, lines: &Receiver<Result<String>>) -> Option<Result<(String, Taken)>> {
        while self.ahead.len() < FETCHES {
            // More than one only if they are there: nobody waits for a line while there is work.
            let line = if self.ahead.is_empty() { lines.recv().ok() } else { lines.try_recv().ok() };
            let Some(line) = line else { break };
            let ahead = line.and_then(|entry| self.begin(entry));
            self.ahead.push_back(ahead);
        }
        let first = self.ahead.pop_front()?;
        Some(first.and_then(|ahead| {
            let entry = ahead.entry.clone();
            self.take(ahead).map(|taken| (entry, taken))
        }))
    }

    /// One entry by itself.
    pub(super) fn one(&mut self, entry: &str) -> Result<Taken> {
        let ahead = self.begin(entry.to_owned())?;
        self.take(ahead)
    }

    fn begin(&mut self, entry: String) -> Result<Ahead> {
        if let Some(folder) = self.folder.as_ref().filter(|_| self.doubtful > 0) {
            self.doubtful -= 1;
            let ask = |object: Object| (object.url().to_owned(), object.note());
            // A name that no object can have fails later, for this entry alone.
            let notes = folder.outputs(&entry).map_or(Vec::new(), |objects| objects.into_iter().map(ask).collect());
            if !notes.is_empty() {
                return Ok(Ahead { entry, notes, fetch: None });
            }
        }
        let fetch = self.ask(&entry, AT_ONCE);
        Ok(Ahead { entry, notes: Vec::new(), fetch })
    }

    /// None for a file.
    fn ask(&self, entry: &str, at_once: u64) -> Option<Result<(Object, Pending<Fetched>)>> {
        let ask = |object: Object| {
            let pending = object.fetch(PICTURE, at_once);
            (object, pending)
        };
        is_url(entry).then(|| self.stores.object(entry).map(ask))
    }

    fn take(&self, ahead: Ahead) -> Result<Taken> {
        let Ahead { entry, notes, mut fetch } = ahead;
        if let Some(folder) = self.folder.as_ref().filter(|_| !notes.is_empty()) {
            let (all, mut files) = (notes.len(), BTreeMap::new());
            for (url, note) in notes {
                if let Some(checksum) = note.wait()?.flatten().and_then(|note| folder.checksum(&note)) {
                    files.insert(url, checksum);
                }
            }
            if files.len() == all {
                return Ok(Taken::Done(files));
            }
            fetch = self.ask(&entry, AT_ONCE);
        }
        let picture = match fetch {
            None => (self.reader.file)(Path::new(&entry)),
            Some(asked) => asked.and_then(|(object, pending)| self.decode(&object, pending)),
        };
        match picture {
            Err(error) if error.kind() == ErrorKind::Unreachable => Err(error),
            picture => Ok(Taken::Picture(picture)),
        }
    }

    fn decode(&self, object: &Object, pending: Pending<Fetched>) -> Result<Found> {
        let mut fetched = pending.wait()?;
        if matches!(fetched, Fetched::Large) {
            fetched = object.fetch(PICTURE, PICTURE).wait()?;
        }
        match fetched {
            Fetched::Whole(bytes) => {
                (self.reader.bytes)(&bytes).map_err(|error| Error::file("read", Path::new(object.url()), error))
            }
            Fetched::Large => Err(Error::new(format!("`{}` has become larger", object.url()))),
        }
    }
}
