//! Pictures, links and other files in a folder that its description does not use.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::dataset::walk::walk;
use crate::text::{Rest, shortened};
use crate::tools::init::paths::real;
use crate::tools::init::places::is_picture;
use crate::tools::init::plan::{DatasetPlan, Place};

/// How many folders are named.
const SHOWN: usize = 6;

/// Pictures in folders of the set that the plan does not use, in words.
pub(super) fn note(place: &Place, plan: &DatasetPlan) -> Option<String> {
    let splits = [&plan.spec.train, &plan.spec.val, &plan.spec.test];
    let folders = splits.into_iter().flatten().flat_map(|split| [&split.images, &split.masks]);
    let used: Vec<PathBuf> = folders.map(|folder| real(&plan.real(folder))).collect();
    let read: HashSet<&Path> = plan.jobs.iter().flat_map(|job| job.files()).collect();
    let root = place.dir.canonicalize().ok()?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (name, path) in place.files(place.dir) {
        if is_picture(&name) && !read.contains(path.as_path()) {
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            *counts.entry(folder.to_string()).or_default() += 1;
        }
    }
    // Whatever links lead to them.
    counts.retain(|folder, _| {
        let folder = real(&root.join(folder));
        !used.iter().any(|used| folder.starts_with(used))
    });
    if counts.is_empty() {
        return None;
    }
    let in_words =
        |(folder, count): (&String, &usize)| format!("{count} in `{}`", if folder.is_empty() { "." } else { folder });
    let shown = shortened(counts.iter().map(in_words), SHOWN, Rest::Others);
    let all: usize = counts.values().sum();
    Some(format!("pictures of other folders are not used ({all}): {shown}"))
}

/// Endings of files that say something of a set beside its pictures.
const SAYING: [&str; 9] = ["txt", "csv", "tsv", "json", "yaml", "yml", "xml", "names", "toml"];

/// Files that could say something of the set and cannot be read, for they are links that lead nowhere, pipes or
/// devices.
pub(super) fn not_files(place: &Place) -> Option<String> {
    let walked = walk(place.dir);
    let says = |path: &&PathBuf| {
        path.extension().is_some_and(|ending| SAYING.iter().any(|one| ending.eq_ignore_ascii_case(one)))
    };
    let all: Vec<&PathBuf> = walked.dangling.iter().chain(&walked.special).filter(says).collect();
    if all.is_empty() {
        return None;
    }
    let shown = shortened(all.iter().map(|path| format!("`{}`", path.display())), SHOWN, Rest::Others);
    Some(format!(
        "links that lead nowhere, pipes and devices are not read, whatever they are called ({}): {shown}",
        all.len()
    ))
}
