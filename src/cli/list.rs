//! `structtoken predict --list`: any number of images, one after the other, in memory that does not grow with them.
//!
//! ```text
//! list ──[shard]──▶ entries ──[predict]──▶ files, each renamed into place ──▶ a line of the manifest
//! ```
//!
//! The manifest has a line for each entry, in the order of the list. So the lines that are there say where to continue,
//! without anything to remember, and an entry that failed keeps its line until it is tried again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write, stdin};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cli::End;
use crate::cli::console::clock;
use crate::cli::manifest::{Head, Line, Manifest, checksum, json, read_line};
use crate::cli::outputs::Outputs;
use crate::cli::predict::arguments::Arguments;
use crate::cli::predict::labeller::{Found, Labeller};
use crate::error::{Error, Result};
use crate::files;
use crate::shard::Shard;

/// Where the entries come from, and which of them are this process's.
pub(crate) struct List<'a> {
    pub(crate) source: &'a Path,
    pub(crate) shard: Shard,
    pub(crate) only_failed: bool,
}

/// Pictures that may lie ready.
const AHEAD: usize = 2;
/// No path is longer.
const LONGEST: u64 = 1 << 16;

pub(crate) fn run(list: &List, arguments: &Arguments, labeller: &mut Labeller) -> Result<End> {
    let name = format!("manifest-{}.ndjson", list.shard.to_string().replace('/', "-of-"));
    let path = arguments.out.join(&name);
    let _lock = files::Lock::named(&arguments.out, &format!(".{name}.lock"))?;
    let head = Head {
        model: checksum(&arguments.model)?,
        shard: list.shard,
        settings: arguments.changes.clone(),
        outputs: Outputs::of(arguments, Path::new("")).0.iter().map(|(output, _)| output.key().to_owned()).collect(),
    };
    let mut counts = Counts::new();
    match list.only_failed {
        true => again(&path, &head, arguments, labeller, &mut counts)?,
        false => onwards(list, &path, &head, arguments, labeller, &mut counts)?,
    }
    talk!("{}", counts.text());
    talk!("manifest  {}", path.display());
    match counts.failed {
        0 => Ok(End::Done),
        failed => Err(Error::new(format!("{failed} of {} images could not be predicted", counts.all()))
            .with_hint("the manifest says why; all others are written, and --only-failed tries these again")),
    }
}

/// Continues with the first entry that has no line.
fn onwards(
    list: &List,
    path: &Path,
    head: &Head,
    arguments: &Arguments,
    labeller: &mut Labeller,
    counts: &mut Counts,
) -> Result<()> {
    let mut manifest = Manifest::open(path, head)?;
    let mut entries = Entries::open(list)?;
    // What has a line already, side by side with the list.
    while let Some(line) = manifest.next_line()? {
        let entry = entries.next()?;
        if entry.as_deref() != Some(&*line.image) {
            let now = entry.map_or("ends there".to_owned(), |entry| format!("has `{entry}` now"));
            return Err(Error::new(format!(
                "entry {} of `{}` was `{}`, and the list {now}",
                manifest.lines,
                path.display(),
                line.image
            ))
            .with_hint("continue with the list that it was started with, or choose another folder with --out"));
        }
        counts.before(&line);
    }
    if manifest.lines > 0 {
        talk!("{} entries are already done, of which {} failed", manifest.lines, counts.failed);
    }
    let mut file = manifest.appending()?;
    let failed = |error| Error::file("write", path, error);
    let read = labeller.reader();
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        // Pictures are read while others are labelled.
        let fetch = move || {
            while let Some(entry) = entries.next().transpose() {
                let found = entry.map(|entry| {
                    let picture = read(Path::new(&entry));
                    (entry, picture)
                });
                if sender.send(found).is_err() {
                    break; // the labelling has failed
                }
            }
        };
        std::thread::Builder::new().name("images".to_owned()).spawn_scoped(scope, fetch).map_err(|error| {
            Error::new("cannot start a thread that reads images")
                .with_source(error)
                .with_hint("allow this user more processes (ulimit -u), or use fewer --threads")
        })?;
        for found in receiver {
            let (entry, picture) = found?;
            let line = labelled(&entry, picture, arguments, labeller);
            // A line is written at once and whole; after a kill an unfinished one is dropped.
            file.write_all(&json(&line)?).map_err(failed)?;
            counts.after(&line);
        }
        file.sync_all().map_err(failed)
    })
}

/// Tries again what failed: the manifest is written anew, beside it, and renamed.
fn again(path: &Path, head: &Head, arguments: &Arguments, labeller: &mut Labeller, counts: &mut Counts) -> Result<()> {
    if !path.exists() {
        return Err(Error::new(format!("there is no `{}`", path.display()))
            .with_hint("leave out --only-failed to label all of the list first"));
    }
    let mut manifest = Manifest::open(path, head)?;
    let beside = path.with_extension("ndjson.tmp");
    let failed = |error| Error::file("write", &beside, error);
    let mut file = BufWriter::new(File::create(&beside).map_err(failed)?);
    file.write_all(&json(head)?).map_err(failed)?;
    let read = labeller.reader();
    while let Some(line) = manifest.next_line()? {
        let line = match line.error {
            None => {
                counts.before(&line);
                line
            }
            Some(_) => {
                let picture = read(Path::new(&line.image));
                let line = labelled(&line.image, picture, arguments, labeller);
                counts.after(&line);
                line
            }
        };
        file.write_all(&json(&line)?).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

/// Labels the image of an entry; what goes wrong is reported, and noted.
fn labelled(entry: &str, picture: Result<Found>, arguments: &Arguments, labeller: &mut Labeller) -> Line {
    let written = picture.and_then(|picture| written(Path::new(entry), picture, arguments, labeller));
    let (files, error) = match written {
        Ok(files) => (files, None),
        Err(error) => {
            crate::cli::report(&error);
            (BTreeMap::new(), Some(error.to_string()))
        }
    };
    Line { image: entry.to_owned(), files, error }
}

/// The files of an image, with their checksums.
fn written(
    image: &Path,
    picture: Found,
    arguments: &Arguments,
    labeller: &mut Labeller,
) -> Result<BTreeMap<String, String>> {
    let name = output_name(image);
    labeller.label(image, &name, picture, &mut |_| ())?;
    let outputs = Outputs::of(arguments, &name);
    outputs.paths().map(|path| Ok((path.to_string_lossy().into_owned(), checksum(path)?))).collect()
}

/// Where the outputs of an image lie below the folder: as its path, with its ending, so that no two entries meet.
fn output_name(path: &Path) -> PathBuf {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("__")),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

/// The entries of a list that belong to a shard.
struct Entries {
    reader: Box<dyn BufRead + Send>,
    source: PathBuf,
    shard: Shard,
    /// Lines read, and entries among them.
    lines: u64,
    entries: u64,
}

impl Entries {
    fn open(list: &List) -> Result<Self> {
        let reader: Box<dyn BufRead + Send> = match list.source == Path::new("-") {
            true => Box::new(BufReader::with_capacity(1 << 16, stdin())),
            false => {
                let file = File::open(list.source).map_err(|error| Error::file("read", list.source, error))?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
        };
        Ok(Self { reader, source: list.source.to_owned(), shard: list.shard, lines: 0, entries: 0 })
    }

    fn next(&mut self) -> Result<Option<String>> {
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

/// What was done, and how fast.
struct Counts {
    started: Instant,
    told: Instant,
    done: u64,
    now: u64,
    failed: u64,
}

impl Counts {
    fn new() -> Self {
        Self { started: Instant::now(), told: Instant::now(), done: 0, now: 0, failed: 0 }
    }

    fn all(&self) -> u64 {
        self.done + self.failed
    }

    fn before(&mut self, line: &Line) {
        match line.error {
            None => self.done += 1,
            Some(_) => self.failed += 1,
        }
    }

    fn after(&mut self, line: &Line) {
        self.before(line);
        self.now += 1;
        if self.told.elapsed() >= Duration::from_secs(10) {
            self.told = Instant::now();
            talk!("{}", self.text());
        }
    }

    fn text(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        format!(
            "{} images labelled, {} failed; {} now in {}, {:.1} images/s",
            self.done,
            self.failed,
            self.now,
            clock(self.started.elapsed()),
            self.now as f64 / seconds
        )
    }
}
