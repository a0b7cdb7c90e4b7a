//! A run's data, scanned before anything is learned from it.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::run::checkpoint::Checkpoints;
use crate::run::file_checksums::{ChecksumReader, SplitChecksums};
use crate::run::fingerprint::{Data, Fingerprint};
use crate::run::{RunOptions, file_checksums, resume_check};
use crate::train::Observer;

/// The data as they are now. Of a run that has learned something they have to be those it started with; otherwise all
/// masks are looked at.
pub(super) fn scan_data(
    config: &Config,
    options: &RunOptions,
    [training, validation]: [&dyn Dataset; 2],
    checkpoints: &Checkpoints,
    observer: &mut dyn Observer,
) -> Result<(Data, SplitChecksums)> {
    let splits = [(Split::Train, training), (Split::Val, validation)];
    let mut now = Data { description: config.data.label_map()?, splits: Vec::new() };
    let (mut sums, mut listing) = (ChecksumReader::default(), BTreeMap::new());
    if options.trial {
        return Ok((now, listing));
    }
    let has_checkpoint = options.resume && !checkpoints.list()?.is_empty();
    let before = if has_checkpoint { resume_check::data(options.run)? } else { None };
    for (split, dataset) in splits {
        let known = before.as_ref().is_some_and(|before| before.knows(split));
        let found = match known {
            true => Fingerprint::of(split, dataset, None),
            false => survey(dataset, split, observer)?,
        };
        let files = sums.read_split(split, dataset, &mut |text| observer.note(text))?;
        now.splits.push(found.with_content(file_checksums::content(&files)));
        listing.insert(split, files);
    }
    if let Some(before) = before {
        resume_check::check_run_data(options.run, &before, &now, &listing)?;
        // Pixels were counted at the start.
        now.splits = before.completed(now.splits);
    }
    Ok((now, listing))
}

/// Looks at all masks before anything is learned from them: a fault found by the first evaluation comes hours late.
fn survey(dataset: &dyn Dataset, split: Split, observer: &mut dyn Observer) -> Result<Fingerprint> {
    let pixels = dataset.survey()?.map(|survey| survey.pixels);
    let found = Fingerprint::of(split, dataset, pixels.as_deref());
    let Some(pixels) = pixels else { return Ok(found) };
    let names = &dataset.classes().names;
    let absent: Vec<_> =
        names.iter().zip(&pixels).filter(|(_, pixels)| **pixels == 0).map(|(name, _)| &**name).collect();
    if absent.len() == names.len() {
        return Err(Error::new(format!("every pixel of the split [{split}] is ignored"))
            .with_hint("check `ignore` and the classes' `source` in the dataset's TOML"));
    }
    if !absent.is_empty() {
        observer.note(&format!("warning: no pixel in the split [{split}] belongs to {}", absent.join(", ")));
    }
    Ok(found)
}
