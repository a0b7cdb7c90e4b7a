//! `--verify`: what lies in the place of outputs, compared with the list and the manifests of all shards. Nothing is
//! labelled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use crate::cli::End;
use crate::cli::console::{emit, print};
use crate::cli::list::entries::{Entries, Entry};
use crate::cli::list::names::output_name;
use crate::cli::list::stored_manifest::StoredManifest;
use crate::cli::list::target::StoreFolder;
use crate::cli::list::{Away, head};
use crate::cli::manifest::{Head, Line, Manifest, checksum, manifest_name, manifest_shard};
use crate::cli::outputs::Outputs;
use crate::cli::predict::arguments::Arguments;
use crate::error::{Error, Result};
use crate::files::objects::{Pending, Stores};
use crate::shard::Shard;

/// Entries whose outputs are asked for at once in a store.
const ASKED: usize = 32;
/// The most shards that are named.
const NAMED: usize = 20;

/// Compares the outputs of `shard`, or of all shards, with the list and the manifests. What is not as it should be is
/// printed.
///
/// # Errors
/// Manifests of another list, model or settings, or a place that cannot be read.
pub(crate) fn verify(arguments: &Arguments, shard: Option<Shard>, away: Option<&Away>) -> Result<End> {
    let Some(list) = &arguments.list else { unreachable!("it goes with a list") };
    let count = match (shard, arguments.count.shards) {
        (Some(shard), _) => shard.count(),
        (None, Some(count)) => count,
        (None, None) => division(&arguments.out, away)?,
    };
    let first = shard.map_or(Shard::new(0, count), Ok)?;
    let own = head(arguments, first)?;
    let stores = Stores::default();
    let folder = away.map(|away| StoreFolder::new(&stores, arguments, &away.url, &own)).transpose()?;
    let mut shards = BTreeMap::new();
    for one in Shard::all(count).filter(|one| shard.is_none_or(|shard| shard == *one)) {
        let name = manifest_name(one);
        let path = arguments.out.join(&name);
        let shown = away.map_or(path.display().to_string(), |away| format!("{}/{name}", away.url));
        if away.is_some() {
            StoredManifest::fetch(&stores, &shown, &path)?;
        }
        shards.insert(one.index(), (path, shown));
    }
    let mut manifests = BTreeMap::new();
    for (index, (path, shown)) in &shards {
        let head = Head { shard: Shard::new(*index, count)?, ..own.clone() };
        manifests.insert(*index, Manifest::read(path, shown, &head)?);
    }
    if let (Some(away), None, None, 1) = (away, shard, arguments.count.shards, count)
        && manifests.values().all(Option::is_none)
    {
        return Err(Error::new(format!("there is no `{}/{}`", away.url, manifest_name(Shard::ALL)))
            .with_hint("say into how many shards the list was divided with --shards N"));
    }
    let mut entries = Entries::open(list, Shard::ALL)?;
    let mut found = Found { arguments, folder: folder.as_ref(), counts: Counts::default(), asked: VecDeque::new() };
    let mut untried: BTreeMap<u64, u64> = BTreeMap::new();
    while let Some(entry) = entries.next()? {
        let index = (entries.entries - 1) % count;
        let Some(manifest) = manifests.get_mut(&index) else { continue };
        found.counts.all += 1;
        let line = manifest.as_mut().map_or(Ok(None), Manifest::next_line)?;
        let Some(line) = line else {
            *manifest = None;
            *untried.entry(index).or_default() += 1;
            continue;
        };
        if line.image != entry.shown() {
            let shown = &shards[&index].1;
            return Err(Error::new(format!(
                "`{shown}` is of another list: it has `{}`, where line {} of {} has `{}`",
                line.image.escape_debug(),
                entry.line,
                entries.called(),
                entry.shown().escape_debug()
            ))
            .with_hint("pass the list that was labelled"));
        }
        found.look(entry, line)?;
    }
    found.settle(0)?;
    for (index, manifest) in &mut manifests {
        if let Some(manifest) = manifest
            && manifest.next_line()?.is_some()
        {
            return Err(Error::new(format!("`{}` has more lines than the list has entries for it", shards[index].1))
                .with_hint("pass the list that was labelled"));
        }
    }
    found.counts.end(count, &untried)
}

/// Into how many shards the list was divided, whose manifests lie in `folder`.
fn division(folder: &Path, away: Option<&Away>) -> Result<u64> {
    if away.is_some() {
        return Ok(1);
    }
    const HINT: &str = "pass the folder that a list was labelled into with --out";
    let entries = std::fs::read_dir(folder).map_err(|error| Error::file("read", folder, error).with_hint(HINT))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let counts: BTreeSet<u64> = names.filter_map(|name| manifest_shard(&name)).map(Shard::count).collect();
    let counts: Vec<u64> = counts.into_iter().collect();
    match counts[..] {
        [count] => Ok(count),
        [] => Err(Error::new(format!("there is no manifest in `{}`", folder.display())).with_hint(HINT)),
        _ => {
            let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
            Err(Error::new(format!("`{}` holds manifests of {} shards", folder.display(), counts.join(" and of ")))
                .with_hint("say which are meant with --shards N"))
        }
    }
}

/// What is wrong with the outputs of an entry that were written once; none if nothing is.
pub(super) fn fault_of(
    entry: &Entry,
    line: &Line,
    arguments: &Arguments,
    folder: Option<&StoreFolder>,
) -> Result<Option<String>> {
    match folder {
        None => Ok(fault_of_files(entry, line, arguments)),
        Some(folder) => fault_of_objects(line, ask(entry, folder)?, folder),
    }
}

/// The checksum that a manifest has of an output, which may have been called by another path of the same folder.
fn noted<'l>(line: &'l Line, inner: &str) -> Option<&'l str> {
    let of =
        |path: &String| path.strip_suffix(inner).is_some_and(|rest| rest.is_empty() || rest.ends_with(['/', '\\']));
    line.files.iter().find(|(path, _)| of(path)).map(|(_, checksum)| checksum.as_str())
}

fn fault_of_files(entry: &Entry, line: &Line, arguments: &Arguments) -> Option<String> {
    let outputs = Outputs::of(arguments, &output_name(&entry.text));
    let mut faults = outputs.paths().map(|path| {
        let inner = path.strip_prefix(&arguments.out).unwrap_or(path).to_string_lossy();
        match (noted(line, &inner), checksum(path)) {
            (None, _) => Some(format!("`{}` is not in the manifest", path.display())),
            (Some(noted), Ok(found)) if noted == found => None,
            (Some(_), Ok(_)) => Some(format!("`{}` has been changed", path.display())),
            (Some(_), Err(error)) => Some(error.to_string()),
        }
    });
    faults.find_map(|fault| fault)
}

/// What was asked of the outputs of an entry: their URLs, and notes.
type Asked = Vec<(String, Pending<Option<Option<String>>>)>;

fn ask(entry: &Entry, folder: &StoreFolder) -> Result<Asked> {
    let objects = folder.outputs(&entry.text)?;
    Ok(objects.into_iter().map(|object| (object.url().to_owned(), object.note())).collect())
}

fn fault_of_objects(line: &Line, asked: Asked, folder: &StoreFolder) -> Result<Option<String>> {
    let mut fault = None;
    for (url, note) in asked {
        let found = note.wait()?;
        let checksum = found.as_ref().and_then(|note| folder.checksum(note.as_deref()?));
        let wrong = match (&found, line.files.get(&url)) {
            (_, None) => format!("`{url}` is not in the manifest"),
            (None, _) => format!("`{url}` is not there"),
            (Some(_), Some(noted)) if checksum.as_ref() == Some(noted) => continue,
            (Some(_), Some(_)) => format!("`{url}` has been changed"),
        };
        fault = fault.or(Some(wrong));
    }
    Ok(fault)
}

#[derive(Default)]
struct Counts {
    all: u64,
    failed: u64,
    faulty: u64,
}

/// What was found so far.
struct Found<'a> {
    arguments: &'a Arguments,
    folder: Option<&'a StoreFolder<'a>>,
    counts: Counts,
    asked: VecDeque<(Entry, Line, Asked)>,
}

impl Found<'_> {
    fn look(&mut self, entry: Entry, line: Line) -> Result<()> {
        if let Some(error) = &line.error {
            self.counts.failed += 1;
            self.tell(&entry, "failed", error);
            return Ok(());
        }
        match self.folder {
            None => {
                if let Some(fault) = fault_of_files(&entry, &line, self.arguments) {
                    self.counts.faulty += 1;
                    self.tell(&entry, "damaged", &fault);
                }
                Ok(())
            }
            Some(folder) => {
                let asked = ask(&entry, folder)?;
                self.asked.push_back((entry, line, asked));
                self.settle(ASKED)
            }
        }
    }

    /// Waits until no more than `most` answers are outstanding.
    fn settle(&mut self, most: usize) -> Result<()> {
        while self.asked.len() > most
            && let (Some((entry, line, asked)), Some(folder)) = (self.asked.pop_front(), self.folder)
        {
            if let Some(fault) = fault_of_objects(&line, asked, folder)? {
                self.counts.faulty += 1;
                self.tell(&entry, "damaged", &fault);
            }
        }
        Ok(())
    }

    fn tell(&self, entry: &Entry, what: &str, fault: &str) {
        match self.arguments.json {
            true => emit(&serde_json::json!({"image": entry.shown(), "line": entry.line, what: fault})),
            false => print(&format!("{}\t{}", entry.shown(), fault.escape_debug())),
        }
    }
}

impl Counts {
    /// Says what there is, by shards.
    fn end(&self, count: u64, untried: &BTreeMap<u64, u64>) -> Result<End> {
        let left: u64 = untried.values().sum();
        for (index, left) in untried.iter().take(NAMED) {
            talk!("shard {}: {left} entries were never tried", Shard::new(*index, count)?);
        }
        if untried.len() > NAMED {
            talk!("and so {} more shards", untried.len() - NAMED);
        }
        let Self { all, failed, faulty } = self;
        let whole = all - failed - faulty - left;
        talk!("{all} entries: {whole} whole, {failed} failed, {faulty} missing or changed, {left} never tried");
        if whole == *all {
            return Ok(End::Done);
        }
        crate::cli::report(&Error::new(format!("{} of {all} images have no whole outputs", all - whole)).with_hint(
            "start shards that are not through again, which continue; `--only-failed --verify` labels again what failed, \
             is missing or, with --overwrite, was changed",
        ));
        Ok(End::Partly)
    }
}
