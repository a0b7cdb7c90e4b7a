//! `structtoken predict --list`: any number of images, one after the other, in memory that does not grow with them.
//!
//! ```text
//! list ──[shard]──▶ entries ──[source]──▶ pictures ──[predict]──▶ files ──[target]──▶ a line of the manifest
//! ```
//!
//! The manifest has a line for each entry, in the order of the list. So the lines that are there say where to continue,
//! without anything to remember, and an entry that failed keeps its line until it is tried again. Images and outputs
//! are files, or objects in stores.

mod counts;
mod entries;
mod source;
mod stored_manifest;
mod target;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc;

use crate::cli::End;
use crate::cli::manifest::{Head, Manifest, checksum, json};
use crate::cli::outputs::Outputs;
use crate::cli::predict::arguments::Arguments;
use crate::cli::predict::labeller::Labeller;
use crate::error::{Error, Result};
use crate::files::objects::Stores;
use crate::files::urls::{Scheme, Url, is_url};
use crate::files::{self, Scratch};
use crate::shard::Shard;

use entries::Entries;
use source::{Reader, Source, Taken};
use stored_manifest::StoredManifest;
use target::{Outcome, StoreFolder, Target, What};

/// Where the entries come from, and which of them are this process's.
pub(crate) struct List<'a> {
    pub(crate) source: &'a Path,
    pub(crate) shard: Shard,
    pub(crate) only_failed: bool,
    /// Where outputs go that are written into the folder of the arguments first.
    pub(crate) away: Option<&'a Away>,
}

/// Outputs in a store, and the folder in which each lies until it is there.
pub(crate) struct Away {
    pub(crate) url: String,
    #[expect(dead_code, reason = "the folder is there as long as it is")]
    scratch: Scratch,
}

impl Away {
    /// Where `out` says that outputs go, if that is a store. `out` becomes a folder of this machine.
    ///
    /// # Errors
    /// A URL that no object can be put below, or no place for the folder.
    pub(crate) fn of(out: &mut PathBuf) -> Result<Option<Self>> {
        let Some(url) = out.to_str().filter(|out| is_url(out)) else { return Ok(None) };
        if Url::parse(url)?.scheme == Scheme::Http {
            return Err(Error::new(format!("cannot write to `{url}`: web servers are only read from"))
                .with_hint("use the s3://, gs:// or az:// form of the URL, or a folder"));
        }
        let url = url.trim_end_matches('/').to_owned();
        let scratch = Scratch::new(&std::env::temp_dir(), "predictions")?;
        *out = scratch.path().to_owned();
        Ok(Some(Self { url, scratch }))
    }
}

/// Pictures that may lie ready.
const AHEAD: usize = 2;

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
    let stores = Stores::default();
    let (mut shown, mut kept, mut folder) = (path.display().to_string(), None, None);
    if let Some(away) = list.away {
        folder = Some(StoreFolder::new(&stores, arguments, &away.url, &head)?);
        shown = format!("{}/{name}", away.url);
        kept = Some(StoredManifest::fetch(&stores, &shown, &path)?);
    }
    let work = Work { list, head: &head, path: &path, shown: &shown, stores: &stores, arguments };
    let mut target = Target::new(folder, kept);
    match list.only_failed {
        true => again(&work, labeller, &mut target)?,
        false => onwards(&work, labeller, &mut target)?,
    }
    let counts = &target.counts;
    talk!("{}", counts.text());
    talk!("manifest  {shown}");
    match counts.failed {
        0 => Ok(End::Done),
        failed => Err(Error::new(format!("{failed} of {} images could not be predicted", counts.all()))
            .with_hint("the manifest says why; all others are written, and --only-failed tries these again")),
    }
}

/// A list with what belongs to it.
struct Work<'a> {
    list: &'a List<'a>,
    head: &'a Head,
    /// The manifest, on this machine; and what it is called.
    path: &'a Path,
    shown: &'a str,
    stores: &'a Stores,
    arguments: &'a Arguments,
}

/// Continues with the first entry that has no line.
fn onwards<'a>(work: &Work<'a>, labeller: &mut Labeller, target: &mut Target<'a>) -> Result<()> {
    let Work { list, path, shown, .. } = *work;
    let mut manifest = Manifest::open(path, shown, work.head)?;
    let mut entries = Entries::open(list.source, list.shard)?;
    // What has a line already, side by side with the list.
    while let Some(line) = manifest.next_line()? {
        let entry = entries.next()?;
        if entry.as_deref() != Some(&*line.image) {
            let now = entry.map_or("ends there".to_owned(), |entry| format!("has `{entry}` now"));
            return Err(Error::new(format!(
                "entry {} of `{shown}` was `{}`, and the list {now}",
                manifest.lines, line.image
            ))
            .with_hint("continue with the list that it was started with, or choose another folder with --out"));
        }
        target.counts.before(&line);
    }
    if manifest.lines > 0 {
        talk!("{} entries are already done, of which {} failed", manifest.lines, target.counts.failed);
    }
    target.append_to(manifest.appending()?, path)?;
    // What an earlier start put into the store may have no line yet.
    let doubtful = target.doubtful();
    let folder = target.folder().cloned();
    let reader = Reader { file: labeller.reader(), bytes: labeller.decoder() };
    let mut source = Source::new(work.stores, reader, folder, doubtful);
    std::thread::scope(|scope| {
        let (lines, waiting) = mpsc::sync_channel(source::LINES);
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        // Lines are read by a thread of its own: one that is still to come keeps no image from being labelled.
        let list = move || while entries.next().transpose().is_some_and(|entry| lines.send(entry).is_ok()) {};
        // Pictures are read while others are labelled.
        let fetch = move || while source.next(&waiting).is_some_and(|found| sender.send(found).is_ok()) {};
        for (name, work) in [("list", Box::new(list) as Box<dyn FnOnce() + Send + '_>), ("images", Box::new(fetch))] {
            std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).map_err(|error| {
                Error::new("cannot start a thread that reads images")
                    .with_source(error)
                    .with_hint("allow this user more processes (ulimit -u), or use fewer --threads")
            })?;
        }
        for found in receiver {
            let (entry, taken) = found?;
            target.add(labelled(entry, taken, work, labeller))?;
        }
        target.finish()
    })
}

/// Tries again what failed: the manifest is written anew, beside it, and renamed.
fn again(work: &Work, labeller: &mut Labeller, target: &mut Target) -> Result<()> {
    let Work { path, shown, .. } = *work;
    if !path.exists() {
        return Err(Error::new(format!("there is no `{shown}`"))
            .with_hint("leave out --only-failed to label all of the list first"));
    }
    let mut manifest = Manifest::open(path, shown, work.head)?;
    let beside = path.with_extension("ndjson.tmp");
    let failed = |error| Error::file("write", &beside, error);
    let mut file = BufWriter::new(File::create(&beside).map_err(failed)?);
    file.write_all(&json(work.head)?).map_err(failed)?;
    let reader = Reader { file: labeller.reader(), bytes: labeller.decoder() };
    let mut source = Source::new(work.stores, reader, None, 0);
    while let Some(line) = manifest.next_line()? {
        let line = match line.error {
            None => {
                target.counts.before(&line);
                line
            }
            Some(_) => {
                let taken = source.one(&line.image)?;
                let line = target.line(labelled(line.image, taken, work, labeller))?;
                target.counts.after(&line);
                line
            }
        };
        file.write_all(&json(&line)?).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    target.rewritten(path)
}

/// Labels the image of an entry, unless that has been done.
fn labelled(entry: String, taken: Taken, work: &Work, labeller: &mut Labeller) -> Outcome {
    let picture = match taken {
        Taken::Done(files) => return Outcome { entry, what: What::Done(files) },
        Taken::Picture(picture) => picture,
    };
    let name = output_name(&entry);
    let image = Path::new(&entry);
    let result = picture.and_then(|picture| labeller.label(image, &name, picture, &mut |_| ()));
    if result.is_err() && work.list.away.is_some() {
        // What was written of it goes nowhere.
        Outputs::of(work.arguments, &name).paths().for_each(|path| drop(std::fs::remove_file(path)));
    }
    Outcome { what: What::Labelled(result.map(|(_, written)| written)), entry }
}

/// Where the outputs of an image lie below the folder: as its path, with its ending, so that no two entries meet.
fn output_name(entry: &str) -> PathBuf {
    if is_url(entry) {
        let part = |part: &str| match part {
            "" | "." => None,
            ".." => Some(PathBuf::from("__")),
            part => Some(PathBuf::from(part.trim_end_matches(':'))),
        };
        return entry.split('/').filter_map(part).collect();
    }
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("__")),
        _ => None,
    };
    Path::new(entry).components().filter_map(part).collect()
}
