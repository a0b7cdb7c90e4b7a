//! Manifests of other shards in the same place, looked at before anything is written there: one folder holds what one
//! model labelled with one set of options.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::cli::manifest::{Head, manifest_name, manifest_shard};
use crate::error::{Error, Result};
use crate::files::objects::Stores;
use crate::shard::Shard;

/// How many are looked at, of the same division and of others.
const LOOKS: usize = 8;
/// No first line is longer.
const LONGEST: u64 = 1 << 16;

/// Compares the heads of manifests in `folder` with this one, and reports other divisions.
///
/// # Errors
/// One of another model, or with other settings or outputs.
pub(super) fn compare_in_folder(folder: &Path, head: &Head) -> Result<()> {
    // What cannot be listed can hardly be written to, which is reported with more.
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let (mut same, mut other, mut divisions) = (Vec::new(), Vec::new(), BTreeSet::new());
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(shard) = manifest_shard(&name).filter(|shard| *shard != head.shard) else { continue };
        let found = if shard.count() == head.shard.count() { &mut same } else { &mut other };
        if shard.count() != head.shard.count() {
            divisions.insert(shard.count());
        }
        if found.len() < LOOKS {
            found.push(name);
        }
    }
    for name in same.iter().chain(&other) {
        let path = folder.join(name);
        let mut start = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(LONGEST).read_to_end(&mut start));
        if read.is_ok() {
            compare(head, &start, &path.display().to_string())?;
        }
    }
    if !divisions.is_empty() {
        let counts: Vec<String> = divisions.iter().take(LOOKS).map(ToString::to_string).collect();
        talk!(
            "note: `{}` also holds manifests of a division into {} shards, and this is one of {}: what those have labelled \
             is labelled again, with the same result",
            folder.display(),
            counts.join(", "),
            head.shard.count()
        );
    }
    Ok(())
}

/// As [`compare_in_folder`], in the folder `url` of a store, where only the neighbours of the shard are asked for.
pub(super) fn compare_in_store(stores: &Stores, url: &str, head: &Head) -> Result<()> {
    let (index, count) = (head.shard.index(), head.shard.count());
    let near = (1..=4).flat_map(|step| [index.checked_add(step), index.checked_sub(step)]).flatten();
    let near = near.filter(|index| *index < count).map(|index| (index, count));
    // The most usual other one.
    for (index, count) in near.chain((count > 1).then_some((0, 1))) {
        let url = format!("{url}/{}", manifest_name(Shard::new(index, count)?));
        if let Ok(Some(start)) = stores.object(&url)?.start_of(LONGEST) {
            compare(head, &start, &url)?;
        }
    }
    Ok(())
}

fn compare(head: &Head, start: &[u8], shown: &str) -> Result<()> {
    match Head::of(start).and_then(|other| head.difference(&other)) {
        None => Ok(()),
        Some(what) => Err(Error::new(format!("`{shown}`, which lies in the same place, was made with {what}"))
            .with_hint("choose another folder with --out, or label all shards with the same model and options")),
    }
}
