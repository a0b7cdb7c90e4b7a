//! `structtoken predict --list`: any number of images, one after the other, in memory that does not grow with them.
//!
//! ```text
//! list ──[shard]──▶ entries ──[source]──▶ pictures ──[predict]──▶ files ──[target]──▶ a line of the manifest
//! ```
//!
//! The manifest has a line for each entry, in the order of the list. So the lines that are there say where to continue,
//! without anything to remember, and an entry that failed keeps its line until it is tried again. Images and outputs
//! are files, or objects in stores.

mod again;
mod counts;
mod entries;
mod faults;
mod names;
mod others;
mod retried;
mod source;
mod stored_manifest;
mod target;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use crate::bundled;
use crate::cli::End;
use crate::cli::console::on_interrupt;
use crate::cli::manifest::{Head, Manifest, checksum, manifest_name};
use crate::cli::outputs::{Outputs, settings};
use crate::cli::predict::arguments::Arguments;
use crate::cli::predict::labeller::{Labelled, Labeller, Names, Writer};
use crate::cli::predict::pipeline::{self, no_thread};
use crate::error::{Error, Result};
use crate::files::objects::Stores;
use crate::files::urls::{Scheme, Url, url_or_path};
use crate::files::{self, Scratch};
use crate::shard::Shard;

use entries::{Entries, Entry};
use names::{image_name, output_name};
use source::{Reader, Source, Taken};
use stored_manifest::StoredManifest;
use target::{Outcome, StoreFolder, Target, What};

pub(crate) use verify::verify;

/// Where the entries come from, and which of them are this process's.
pub(crate) struct List<'a> {
    pub(crate) source: &'a Path,
    pub(crate) shard: Shard,
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
        let Some(url) = out.to_str() else { return Ok(None) };
        if !url_or_path(url)? {
            return Ok(None);
        }
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

/// What the manifest of a shard says first.
fn head(arguments: &Arguments, shard: Shard) -> Result<Head> {
    let outputs = Outputs::of(arguments, Path::new("")).0;
    Ok(Head {
        model: checksum(&bundled::resolve(&arguments.model)?)?,
        shard,
        settings: settings(arguments),
        outputs: outputs.iter().map(|(output, _)| output.key().to_owned()).collect(),
    })
}

pub(crate) fn run(list: &List, arguments: &Arguments, labeller: &mut Labeller) -> Result<End> {
    let name = manifest_name(list.shard);
    let path = arguments.out.join(&name);
    let _lock = files::Lock::passing(&arguments.out, &format!(".{name}.lock"))?;
    let head = head(arguments, list.shard)?;
    let stores = Stores::default();
    let (mut shown, mut kept, mut folder) = (path.display().to_string(), None, None);
    match list.away {
        Some(away) => {
            others::compare_in_store(&stores, &away.url, &head)?;
            folder = Some(StoreFolder::new(&stores, arguments, &away.url, &head)?);
            shown = format!("{}/{name}", away.url);
            kept = Some(StoredManifest::fetch(&stores, &shown, &path)?);
        }
        None => others::compare_in_folder(&arguments.out, &head)?,
    }
    let interrupted = on_interrupt(|| talk!("\nstopping after this image; press Ctrl-C again to stop at once"))?;
    let work = Work { list, head: &head, path: &path, shown: &shown, stores: &stores, arguments, interrupted };
    let entries = Entries::open(list.source, list.shard)?;
    let mut target = Target::new(folder, kept, arguments.give_up_after, entries.called());
    // What was tried again, by a process that did not come to its end.
    if retried::settle(&path, &shown, &head)? {
        target.rewritten(&path)?;
    }
    let untried = match arguments.only_failed {
        true => again::again(&work, entries, labeller, &mut target),
        false => onwards(&work, entries, labeller, &mut target).map(|()| 0),
    };
    // Lines that are not in a store yet would have to be found out again.
    let untried = untried.inspect_err(|_| drop(target.flush()))?;
    let counts = &target.counts;
    talk!("{}", counts.text());
    if let Some(text) = labeller.spent().text().filter(|_| !arguments.only_failed) {
        talk!("{text}");
    }
    talk!("manifest  {shown}");
    if work.is_interrupted() {
        talk!("stopped: the same command continues");
        return Ok(End::Interrupted);
    }
    if list.away.is_none() {
        // What a killed process was writing, when this one began where that one ended.
        target.folders().iter().chain([&arguments.out]).for_each(|folder| files::sweep(folder));
    }
    if untried > 0 {
        return Err(Error::new(format!("{untried} entries of the list were never tried"))
            .with_hint("repeat the command without --only-failed, which continues with them"));
    }
    match counts.failed {
        0 => Ok(End::Done),
        failed => {
            crate::cli::report(
                &Error::new(format!("{failed} of {} images could not be predicted", counts.all()))
                    .with_hint("the manifest says why; all others are written, and --only-failed tries these again"),
            );
            Ok(End::Partly)
        }
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
    interrupted: Arc<AtomicBool>,
}

impl Work<'_> {
    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// Continues with the first entry that has no line.
fn onwards<'a>(work: &Work<'a>, mut entries: Entries, labeller: &mut Labeller, target: &mut Target<'a>) -> Result<()> {
    let Work { path, shown, .. } = *work;
    let mut manifest = Manifest::open(path, shown, work.head)?;
    // What has a line already, side by side with the list.
    while let Some(line) = manifest.next_line()? {
        entries.same(&line.image, manifest.lines, shown)?;
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
    let (lines, waiting) = mpsc::sync_channel(source::LINES);
    let all = Arc::new(AtomicU64::new(0));
    let called = entries.called();
    // Lines are read by a thread of its own: one that is still to come keeps no image from being labelled, and none
    // from being the last.
    let count = Arc::clone(&all);
    start("list", move || {
        while entries.next().transpose().is_some_and(|entry| lines.send(entry).is_ok()) {}
        count.store(entries.entries, Ordering::SeqCst);
    })?;
    let (writer, bytes, spent) = (labeller.writer(), labeller.bytes(), labeller.spent());
    pipeline::run(
        move |over| source.next(&waiting, over),
        |found| match found {
            Ok((_, Taken::Picture(Ok((image, _))))) => bytes(image),
            _ => 0,
        },
        |found| {
            let (entry, taken) = found?;
            Ok((labelled(&entry, taken, labeller), entry))
        },
        |(made, entry)| spent.add(2, || target.add(written(made, entry, work, &writer, None))),
        &|| work.is_interrupted(),
    )?;
    target.finish(work.is_interrupted())?;
    if work.is_interrupted() {
        return target.flush();
    }
    target.close(path)?;
    match all.load(Ordering::SeqCst) {
        0 => Err(Error::new(format!("{called} has no entries")).with_hint("write one path or URL per line")),
        all => {
            if target.counts.all() == 0 {
                talk!("note: {called} has {all} entries, and none of them is of shard {}", work.list.shard);
            }
            Ok(())
        }
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(no_thread)
}

/// What was made of an entry.
enum Made {
    /// Its outputs, with their checksums, by an earlier start.
    Done(BTreeMap<String, String>),
    Labelled(Result<Labelled>),
}

/// Labels the image of an entry, unless that has been done.
fn labelled(entry: &Entry, taken: Taken, labeller: &mut Labeller) -> Made {
    let picture = match taken {
        Taken::Done(files) => return Made::Done(files),
        Taken::Picture(picture) => picture,
    };
    let (path, output) = (PathBuf::from(&entry.text), output_name(&entry.text));
    let names = Names { path, output, image: image_name(&entry.text) };
    Made::Labelled(picture.and_then(|picture| labeller.label(names, picture, &mut |_| ())))
}

/// Writes what was made of an entry. `replaces`: the line that it has already.
fn written(made: Made, entry: Entry, work: &Work, writer: &Writer, replaces: Option<u64>) -> Outcome {
    let labelled = match made {
        Made::Done(files) => return Outcome { entry, replaces, what: What::Done(files) },
        Made::Labelled(labelled) => labelled,
    };
    let result = labelled.and_then(|labelled| writer.write(labelled));
    if result.is_err() && work.list.away.is_some() {
        // What was written of it goes nowhere.
        let outputs = Outputs::of(work.arguments, &output_name(&entry.text));
        outputs.paths().for_each(|path| drop(std::fs::remove_file(path)));
    }
    Outcome { what: What::Labelled(result.map(|(_, written)| written)), entry, replaces }
}
