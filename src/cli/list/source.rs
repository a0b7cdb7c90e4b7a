//! The pictures of a list's entries, read from files, or from stores some entries ahead.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use crate::cli::list::entries::Entry;
use crate::cli::list::target::StoreFolder;
use crate::cli::predict::labeller::Found;
use crate::cli::predict::pipeline::PATIENCE;
use crate::error::{Error, Result};
use crate::files::PICTURE;
use crate::files::objects::{Fetched, Object, Pending, Stores};

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
    entry: Entry,
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

    /// The next entry; none after the last, or where it is `over`. Errors are those that concern all that follow.
    pub(super) fn next(
        &mut self,
        lines: &Receiver<Result<Entry>>,
        over: &AtomicBool,
    ) -> Option<Result<(Entry, Taken)>> {
        while self.ahead.len() < FETCHES {
            // More than one only if they are there: nobody waits for a line while there is work.
            let line = match self.ahead.is_empty() {
                true => wait(lines, over),
                false => lines.try_recv().ok(),
            };
            let Some(line) = line else { break };
            let ahead = line.map(|entry| self.begin(entry));
            self.ahead.push_back(ahead);
        }
        let first = self.ahead.pop_front()?;
        Some(first.and_then(|ahead| {
            let entry = ahead.entry.clone();
            self.take(ahead).map(|taken| (entry, taken))
        }))
    }

    /// One entry by itself.
    pub(super) fn one(&mut self, entry: &Entry) -> Result<Taken> {
        let ahead = self.begin(entry.clone());
        self.take(ahead)
    }

    fn begin(&mut self, entry: Entry) -> Ahead {
        if let Some(folder) = self.folder.as_ref().filter(|_| self.doubtful > 0 && entry.is_url().is_ok()) {
            self.doubtful -= 1;
            let ask = |object: Object| (object.url().to_owned(), object.note());
            // A name that no object can have fails later, for this entry alone.
            let notes =
                folder.outputs(&entry.text).map_or(Vec::new(), |objects| objects.into_iter().map(ask).collect());
            if !notes.is_empty() {
                return Ahead { entry, notes, fetch: None };
            }
        }
        let fetch = self.ask(&entry, AT_ONCE);
        Ahead { entry, notes: Vec::new(), fetch }
    }

    /// None for a file.
    fn ask(&self, entry: &Entry, at_once: u64) -> Option<Result<(Object, Pending<Fetched>)>> {
        let ask = |object: Object| {
            let pending = object.fetch(PICTURE, at_once);
            (object, pending)
        };
        match entry.is_url() {
            Ok(false) => None,
            Ok(true) => Some(self.stores.object(&entry.text).map(ask)),
            Err(error) => Some(Err(error)),
        }
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
        Ok(Taken::Picture(match fetch {
            None => (self.reader.file)(Path::new(&entry.text)),
            Some(asked) => asked.and_then(|(object, pending)| self.decode(&object, pending)),
        }))
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

/// The next line, once it is there; none where it is `over` before.
fn wait(lines: &Receiver<Result<Entry>>, over: &AtomicBool) -> Option<Result<Entry>> {
    while !over.load(Ordering::SeqCst) {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => return Some(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    None
}
