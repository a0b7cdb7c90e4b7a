//! `--only-failed`: the entries of a manifest that failed are tried again, and each keeps its place.

use std::fs::File;

use crate::cli::list::entries::Entries;
use crate::cli::list::source::{Reader, Source};
use crate::cli::list::target::Target;
use crate::cli::list::verify::fault_of;
use crate::cli::list::{Work, labelled, retried, written};
use crate::cli::manifest::Manifest;
use crate::cli::predict::labeller::Labeller;
use crate::error::{Error, Result};

/// Tries again what failed; with `--verify` also what is no longer as it was written. Returns how many entries of the
/// list have no line yet.
///
/// # Errors
/// No manifest, or another list.
pub(super) fn again(work: &Work, mut entries: Entries, labeller: &mut Labeller, target: &mut Target) -> Result<u64> {
    let Work { path, shown, arguments, .. } = *work;
    if !path.exists() {
        return Err(Error::new(format!("there is no `{shown}`"))
            .with_hint("leave out --only-failed to label all of the list first"));
    }
    let mut manifest = Manifest::open(path, shown, work.head)?;
    let place = retried::place(path);
    let file = File::options().create(true).append(true).open(&place);
    target.retry_in(file.map_err(|error| Error::file("write", &place, error))?, &place);
    let folder = target.folder().cloned();
    let reader = Reader { file: labeller.reader(), bytes: labeller.decoder() };
    let writer = labeller.writer();
    let mut source = Source::new(work.stores, reader, None, 0);
    while !work.is_interrupted()
        && let Some(line) = manifest.next_line()?
    {
        let entry = entries.same(&line.image, manifest.lines, shown)?;
        let fault = match arguments.verify && line.error.is_none() {
            true => fault_of(&entry, &line, arguments, folder.as_ref())?,
            false => None,
        };
        if line.error.is_none() && fault.is_none() {
            target.counts.before(&line);
            continue;
        }
        let taken = source.one(&entry)?;
        let made = labelled(&entry, taken, labeller);
        target.add(written(made, entry, work, &writer, Some(manifest.lines)))?;
    }
    target.finish(work.is_interrupted())?;
    let mut untried = 0;
    while !work.is_interrupted() && entries.next()?.is_some() {
        untried += 1;
    }
    if retried::settle(path, shown, work.head)? {
        target.rewritten(path)?;
    }
    Ok(untried)
}
