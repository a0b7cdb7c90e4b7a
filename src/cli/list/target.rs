//! What becomes of the outputs of a list's entries: they are files already, or are put into a store; and then each
//! entry gets its line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cli::list::counts::Counts;
use crate::cli::list::entries::Entry;
use crate::cli::list::faults::{Faults, Settled, Verdict};
use crate::cli::list::names::output_name;
use crate::cli::list::retried::Retried;
use crate::cli::list::stored_manifest::StoredManifest;
use crate::cli::manifest::{Head, Line, checksum, json};
use crate::cli::outputs::Outputs;
use crate::cli::predict::arguments::Arguments;
use crate::cli::predict::labeller::WrittenFiles;
use crate::error::{Error, ErrorKind, Result};
use crate::files::objects::{Object, Pending, Put, Replace, Stores};
use crate::predict::earlier_predictions::forget;

/// Images whose outputs may be under way to a store, and how many bytes of them.
const PUTS: usize = 8;
const BYTES: u64 = 256 << 20;

/// An entry, and what was done for it.
pub(super) struct Outcome {
    pub(super) entry: Entry,
    /// The line of the manifest that it replaces, from 1; none where it gets a new one.
    pub(super) replaces: Option<u64>,
    pub(super) what: What,
}

pub(super) enum What {
    /// Its outputs were there, with these checksums.
    Done(BTreeMap<String, String>),
    Labelled(Result<WrittenFiles>),
}

/// Where outputs are put in a store.
#[derive(Clone)]
pub(super) struct StoreFolder<'a> {
    stores: &'a Stores,
    arguments: &'a Arguments,
    url: &'a str,
    /// What the notes of its outputs start with: the same for all that are made alike.
    mark: String,
    replace: Replace,
}

impl<'a> StoreFolder<'a> {
    /// The folder `url`, in place of the arguments'.
    pub(super) fn new(stores: &'a Stores, arguments: &'a Arguments, url: &'a str, head: &Head) -> Result<Self> {
        let alike = json(&(&head.model, &head.settings, &head.outputs))?;
        let mark = format!("predict:{:08x}", crc32fast::hash(&alike));
        let replace = if arguments.overwrite { Replace::Always } else { Replace::Noted };
        Ok(Self { stores, arguments, url, mark, replace })
    }

    /// The URL of what is first written to `path`.
    fn url(&self, path: &Path) -> String {
        let inner = path.strip_prefix(&self.arguments.out).unwrap_or(path);
        let parts = inner.iter().map(|part| part.to_string_lossy());
        parts.fold(self.url.to_owned(), |url, part| format!("{url}/{part}"))
    }

    /// The outputs of an entry.
    pub(super) fn outputs(&self, entry: &str) -> Result<Vec<Object>> {
        let outputs = Outputs::of(self.arguments, &output_name(entry));
        outputs.paths().map(|path| self.stores.object(&self.url(path))).collect()
    }

    /// The checksum that a note holds, if it is of an output that is made alike.
    pub(super) fn checksum(&self, note: &str) -> Option<String> {
        note.strip_prefix(&self.mark)?.strip_prefix(' ').map(str::to_owned)
    }

    /// Starts to put a file there, which is then gone here.
    fn put(&self, path: &Path) -> Result<UnderWay> {
        let object = self.stores.object(&self.url(path))?;
        let bytes = std::fs::read(path).map_err(|error| Error::file("read", path, error))?;
        std::fs::remove_file(path).map_err(|error| Error::file("remove", path, error))?;
        forget(path);
        let (size, checksum) = (bytes.len() as u64, format!("{:08x}", crc32fast::hash(&bytes)));
        let pending = object.put(bytes, &format!("{} {checksum}", self.mark), self.replace);
        Ok(UnderWay { url: object.url().to_owned(), checksum, size, pending })
    }
}

/// An output that is being put into a store.
struct UnderWay {
    url: String,
    checksum: String,
    size: u64,
    pending: Pending<Put>,
}

impl UnderWay {
    /// Its URL and checksum, once it is there.
    fn wait(self, folder: &StoreFolder) -> Result<(String, String)> {
        match self.pending.wait()? {
            Put::Done => Ok((self.url, self.checksum)),
            Put::Kept(note) => match note.and_then(|note| folder.checksum(&note)) {
                Some(checksum) => Ok((self.url, checksum)),
                None => Err(Error::new(format!(
                    "`{}` was not written by an earlier prediction, and would be replaced",
                    self.url
                ))
                .with_hint("choose another folder with --out, or replace such objects too with --overwrite")),
            },
        }
    }
}

/// An entry whose line is to come.
struct Sent {
    entry: Entry,
    replaces: Option<u64>,
    files: Result<BTreeMap<String, String>>,
    under_way: Vec<UnderWay>,
    written: Option<WrittenFiles>,
}

/// Where outputs and lines go.
pub(super) struct Target<'a> {
    folder: Option<StoreFolder<'a>>,
    kept: Option<StoredManifest<'a>>,
    /// The manifest on this machine, or the file of what replaces lines of it.
    manifest: Option<(File, PathBuf)>,
    /// What the list is called.
    list: String,
    pub(super) counts: Counts,
    faults: Faults,
    sent: VecDeque<Sent>,
    /// The folders of the first outputs that were written.
    folders: BTreeSet<PathBuf>,
}

/// How many of them are kept.
const FOLDERS: usize = 4;

impl<'a> Target<'a> {
    /// In the folder of the arguments, unless another place and manifest are given. It gives up after `most` faults in
    /// a row.
    pub(super) fn new(
        folder: Option<StoreFolder<'a>>,
        kept: Option<StoredManifest<'a>>,
        most: usize,
        list: String,
    ) -> Self {
        let (counts, faults) = (Counts::new(), Faults::new(most));
        let (sent, folders) = (VecDeque::new(), BTreeSet::new());
        Self { folder, kept, manifest: None, list, counts, faults, sent, folders }
    }

    /// The folders of the first outputs that were written: a process before this one may have been killed there.
    pub(super) fn folders(&self) -> &BTreeSet<PathBuf> {
        &self.folders
    }

    pub(super) fn folder(&self) -> Option<&StoreFolder<'a>> {
        self.folder.as_ref()
    }

    /// How many entries may have been done without a line.
    pub(super) fn doubtful(&self) -> u64 {
        self.kept.as_ref().map_or(0, StoredManifest::doubtful)
    }

    /// Lines are added to `file`, which is at `path`.
    pub(super) fn append_to(&mut self, file: File, path: &Path) -> Result<()> {
        if let Some(kept) = &mut self.kept {
            kept.start(path)?;
        }
        self.manifest = Some((file, path.to_owned()));
        Ok(())
    }

    /// Lines that replace others are added to `file`, which is at `path`.
    pub(super) fn retry_in(&mut self, file: File, path: &Path) {
        if let Some(kept) = &mut self.kept {
            kept.retry();
        }
        self.manifest = Some((file, path.to_owned()));
    }

    /// Takes in what was done for the next entry.
    ///
    /// # Errors
    /// A manifest that cannot be written, or a disk or store that cannot be used. Others are noted.
    pub(super) fn add(&mut self, outcome: Outcome) -> Result<()> {
        let sent = self.send(outcome);
        self.sent.push_back(sent);
        let bytes = |sent: &Sent| sent.under_way.iter().map(|one| one.size).sum::<u64>();
        while let Some(first) = self.sent.front() {
            let full = self.sent.len() > PUTS || self.sent.iter().map(bytes).sum::<u64>() > BYTES;
            if !full && !first.under_way.iter().all(|one| one.pending.is_there()) {
                break;
            }
            self.write_first()?;
        }
        Ok(())
    }

    /// Waits for all that is under way, and writes its lines. Where more is to come later, those of faults that may not
    /// be of their images are left to then.
    pub(super) fn finish(&mut self, more: bool) -> Result<()> {
        while !self.sent.is_empty() {
            self.write_first()?;
        }
        match more {
            true => drop(self.faults.held()),
            false => self.write_held()?,
        }
        if let Some((file, path)) = &self.manifest {
            file.sync_all().map_err(|error| Error::file("write", path, error))?;
        }
        Ok(())
    }

    /// After the last line: the manifest at `path` becomes one object in its store.
    pub(super) fn close(&mut self, path: &Path) -> Result<()> {
        self.kept.as_mut().map_or(Ok(()), |kept| kept.finish(path))
    }

    /// Lines that are written so far are put where they belong, before the end.
    pub(super) fn flush(&mut self) -> Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        kept.flush()?;
        kept.settle()
    }

    /// The manifest at `path` was written anew.
    pub(super) fn rewritten(&mut self, path: &Path) -> Result<()> {
        self.manifest = None;
        self.kept.as_mut().map_or(Ok(()), |kept| kept.replace(path))
    }

    fn write_first(&mut self) -> Result<()> {
        let Some(first) = self.sent.pop_front() else { return Ok(()) };
        let (entry, replaces) = (first.entry.clone(), first.replaces);
        let image = entry.shown().into_owned();
        let error = match self.settle(first) {
            Ok(files) => {
                if self.folder.is_none() && self.folders.len() < FOLDERS {
                    self.folders.extend(files.keys().filter_map(|path| Path::new(path).parent()).map(Path::to_owned));
                }
                self.write_held()?;
                return self.write(Settled { line: Line { image, files, error: None }, replaces });
            }
            Err(error) => error,
        };
        let error_text = error.to_string();
        let verdict = self.faults.judge(&error, self.counts.done() > 0);
        if matches!(verdict, Verdict::Ends) {
            return Err(error);
        }
        crate::cli::report(&Error::new(format!("line {} of {}", entry.line, self.list)).with_source(error));
        let settled = Settled { line: Line { image, files: BTreeMap::new(), error: Some(error_text) }, replaces };
        match verdict {
            Verdict::Noted | Verdict::Ends => {
                self.write_held()?;
                self.write(settled)
            }
            Verdict::Held => self.faults.hold(settled),
        }
    }

    /// Writes the lines that were held back.
    fn write_held(&mut self) -> Result<()> {
        self.faults.held().into_iter().try_for_each(|settled| self.write(settled))
    }

    fn write(&mut self, Settled { line, replaces }: Settled) -> Result<()> {
        self.counts.after(&line);
        let bytes = match replaces {
            Some(entry) => json(&Retried { entry, line })?,
            None => json(&line)?,
        };
        if let Some((file, path)) = &mut self.manifest {
            // A line is written at once and whole; after a kill an unfinished one is dropped.
            file.write_all(&bytes).map_err(|error| Error::file("write", path, error))?;
        }
        self.kept.as_mut().map_or(Ok(()), |kept| kept.add(&bytes))
    }

    fn send(&self, Outcome { entry, replaces, what }: Outcome) -> Sent {
        let without = |files| Sent { entry: entry.clone(), replaces, files, under_way: Vec::new(), written: None };
        let written = match what {
            What::Done(files) => return without(Ok(files)),
            What::Labelled(Ok(written)) => written,
            What::Labelled(Err(error)) => return without(Err(error)),
        };
        let paths = || written.files.iter().map(|(_, path)| path);
        let (files, under_way) = match &self.folder {
            None => (checksums(paths()), Ok(Vec::new())),
            Some(folder) => (Ok(BTreeMap::new()), paths().map(|path| folder.put(path)).collect()),
        };
        let (under_way, fault) = match under_way {
            Ok(under_way) => (under_way, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        Sent { entry, replaces, files: fault.map_or(files, Err), under_way, written: Some(written) }
    }

    /// Waits for the outputs of an entry, and prints them.
    fn settle(&mut self, sent: Sent) -> Result<BTreeMap<String, String>> {
        let Sent { mut files, under_way, written, .. } = sent;
        if let (Ok(files), Some(folder)) = (&mut files, &self.folder) {
            let mut fault = None;
            for one in under_way {
                match one.wait(folder) {
                    Ok((url, checksum)) => drop(files.insert(url, checksum)),
                    Err(error) => fault = fault.or(Some(error)),
                }
            }
            if let Some(error) = fault {
                // Where outputs go is needed by every image.
                if error.kind() == ErrorKind::Unreachable {
                    self.faults.is_over();
                }
                return Err(error);
            }
        }
        let files = files?;
        if let Some(written) = written {
            written.print(|path| match &self.folder {
                Some(folder) => folder.url(path),
                None => path.to_string_lossy().into_owned(),
            });
        }
        Ok(files)
    }
}

fn checksums<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> Result<BTreeMap<String, String>> {
    paths.map(|path| Ok((path.to_string_lossy().into_owned(), checksum(path)?))).collect()
}
