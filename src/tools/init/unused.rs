//! What lies in a folder and is not described; what a folder of no known form may be instead.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::dataset::walk::walk;
use crate::error::Error;
use crate::text::{Rest, shortened, word};
use crate::tools::init::paths::real;
use crate::tools::init::places::{candidates, is_picture};
use crate::tools::init::plan::{DatasetPlan, Place, folders_in};
use crate::tools::init::unknown;

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

/// Files that could say something of the set and cannot be read, for they are links that lead nowhere, pipes or devices.
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

/// Folders below that hold images and masks side by side: each as its path, with the names of both.
fn sets_below(place: &Place) -> Vec<(String, [String; 2])> {
    let mut found = Vec::new();
    let mut folders: Vec<(String, PathBuf)> = folders_in(place.dir);
    for _ in 0..3 {
        let mut next = Vec::new();
        for (name, path) in folders.into_iter().take(1000) {
            let last = |inner: &Path| Some(inner.strip_prefix(&path).ok()?.to_str()?.to_string());
            let inner =
                Place::new(&path, &path, place.options).and_then(|inner| candidates(&inner)).unwrap_or_default();
            let apart = inner.iter().find(|one| one.images != one.masks);
            match apart.and_then(|one| Some([last(&one.images)?, last(&one.masks)?])) {
                Some(both) => found.push((name, both)),
                None => {
                    next.extend(folders_in(&path).into_iter().map(|(inner, path)| (format!("{name}/{inner}"), path)))
                }
            }
        }
        folders = next;
    }
    found
}

/// What to do about a folder of no known form, where sets lie below it.
fn below(place: &Place) -> Option<String> {
    let dir = place.dir;
    let sets = sets_below(place);
    let plain = |name: &str| !name.contains(['\'', '*', '?', '[', '$', '"', '`', '\\', '\n']);
    match sets.as_slice() {
        [] => None,
        [(name, _)] => {
            Some(format!("`{name}` in it holds images and masks; run: structtoken init {}", word(&dir.join(name))))
        }
        [(first, [images, masks]), ..] => {
            let depth = first.matches('/').count();
            let alike = |(name, [a, b]): &(String, [String; 2])| {
                a == images && b == masks && name.matches('/').count() == depth && plain(name)
            };
            let both = !images.contains('/') && !masks.contains('/') && plain(images) && plain(masks);
            let all = both && sets.iter().all(alike) && plain(&dir.to_string_lossy());
            let command = format!(
                "; put them into one, with the folder in each name: cd '{}' && for d in {}; do [ -d \"$d/{images}\" ] || continue; mkdir -p \"all/images/$d\" \
                 \"all/masks/$d\" && cp -r \"$d/{images}/.\" \"all/images/$d\" && cp -r \"$d/{masks}/.\" \"all/masks/$d\"; done, \
                 and then: structtoken init '{}'",
                dir.display(),
                vec!["*"; depth + 1].join("/"),
                dir.join("all").display()
            );
            Some(format!(
                "{} folders in it hold images and masks, `{first}` first{}",
                sets.len(),
                if all {
                    command
                } else {
                    ": describe each, or put them into one `images` and one `masks`".to_string()
                }
            ))
        }
    }
}

/// What is in a folder of no known form.
pub(super) fn unknown(place: &Place) -> Error {
    let dir = place.dir;
    let folders: Vec<String> = folders_in(dir).into_iter().map(|(name, _)| format!("{name}/")).collect();
    let mut endings: Vec<String> = walk(dir)
        .files
        .iter()
        .filter_map(|(name, _)| Some(format!(".{}", name.rsplit('/').next()?.rsplit_once('.')?.1)))
        .collect();
    endings.sort();
    let counted: Vec<String> =
        endings.chunk_by(|a, b| a == b).map(|same| format!("{} ({})", same[0], same.len())).take(8).collect();
    let files =
        if counted.is_empty() { "no files".to_string() } else { format!("files that end in {}", counted.join(", ")) };
    let folders =
        if folders.is_empty() { "no folders".to_string() } else { format!("the folders {}", folders.join(" ")) };
    let archives = endings.iter().any(|ending| [".npz", ".mat", ".h5", ".hdf5"].contains(&ending.as_str()));
    let error =
        Error::new(format!("`{}` is not a dataset of a known form: it holds {folders} and {files}", dir.display()));
    if let Some(hint) = below(place).or_else(|| unknown::by_files(place)) {
        return error.with_hint(hint);
    }
    if archives {
        return error.with_hint(
            "archives of arrays (.npz, .mat, .h5) are not read: save each mask as PNG or .npy, named like its image",
        );
    }
    let command = place.again(false, |options| {
        (options.images, options.masks) = (Some("IMAGES".into()), Some("MASKS".into()));
    });
    error.with_hint(format!(
        "replace IMAGES and MASKS by the folders of images and masks in: {command}; known forms are folders of images and \
         masks, YOLO, COCO, VOC, LabelMe, Supervisely, VIA, CVAT, Label Studio, Cityscapes, ADE20K, KITTI, LoveDA and \
         Mapillary"
    ))
}
