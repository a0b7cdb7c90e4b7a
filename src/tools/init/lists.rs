//! Lists that say which images are of which split, as `train.txt` and `val.txt` beside the folders.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::error::Result;
use crate::text::shell_word;
use crate::tools::init::plan::{List, Place, SplitImages};
use crate::tools::init::read;

/// Where lists lie.
const FOLDERS: [&str; 6] = ["", "ImageSets", "ImageSets/Segmentation", "splits", "lists", "annotations"];

/// What lists are called, before and after a split's name there may be nothing, or these.
const NAMES: [(Split, &[&str]); 3] = [
    (Split::Train, &["train", "trn", "training", "trainval"]),
    (Split::Val, &["val", "valid", "validation"]),
    (Split::Test, &["test", "testing"]),
];
const ENDS: [&str; 6] = ["", "_list", "list", "_id", "_ids", "_set"];

/// Cuts a set without folders of splits by the lists that lie in it, if there are any; and what was done, in words.
///
/// # Errors
/// Lists whose text cannot be read.
pub(super) fn apply(place: &Place, parts: Vec<SplitImages>) -> Result<(Vec<SplitImages>, Vec<String>)> {
    let [part] = parts.as_slice() else { return Ok((parts, Vec::new())) };
    if part.split.is_some() {
        return Ok((parts, Vec::new()));
    }
    let mut notes = Vec::new();
    let by_end = by_end(&part.stems);
    for folder in FOLDERS {
        let mut cut: BTreeMap<Split, (BTreeSet<String>, String)> = BTreeMap::new();
        for (split, name, path) in present(place, folder) {
            if cut.contains_key(&split) {
                continue;
            }
            let (mut found, mut strange, mut first) = (BTreeSet::new(), 0, None);
            let text = read::text(&path, Some(place))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            for line in lines {
                match meant(line, &by_end) {
                    Some(stem) => drop(found.insert(stem.to_string())),
                    None => {
                        strange += 1;
                        first.get_or_insert(line.chars().take(60).collect::<String>());
                    }
                }
            }
            if found.is_empty() {
                continue;
            }
            if let Some(first) = first {
                notes.push(format!(
                    "lines of `{name}` that name no image with a mask are left out ({strange}, `{first}` first)"
                ));
            }
            cut.insert(split, (found, name));
        }
        if !cut.contains_key(&Split::Train) {
            continue;
        }
        let names: Vec<String> = cut.values().map(|(_, name)| format!("`{name}`")).collect();
        let listed: BTreeSet<&String> = cut.values().flat_map(|(stems, _)| stems).collect();
        let left = part.stems.len() - listed.len();
        let more = if left > 0 { format!("; images that none names are left out ({left})") } else { String::new() };
        notes.insert(0, format!("the splits are from {}{more}", names.join(", ")));
        let of = |(split, (stems, _)): (Split, (BTreeSet<String>, String))| SplitImages {
            split: Some(split),
            stems: stems.into_iter().collect(),
            list: List::New,
            ..part.clone()
        };
        return Ok((cut.into_iter().map(of).collect(), notes));
    }
    Ok((parts, Vec::new()))
}

/// Lists in a folder of the set: of which split, what they are called, and where they are.
fn present(place: &Place, folder: &str) -> Vec<(Split, String, PathBuf)> {
    let name = |end: &str, word: &str| match folder {
        "" => format!("{word}{end}.txt"),
        folder => format!("{folder}/{word}{end}.txt"),
    };
    let all = NAMES.iter().flat_map(|(split, words)| words.iter().map(move |word| (*split, word)));
    let named = all.flat_map(|(split, word)| ENDS.iter().map(move |end| (split, name(end, word))));
    named
        .map(|(split, name)| (split, place.dir.join(&name), name))
        .filter(|(_, path, _)| path.is_file())
        .map(|(split, path, name)| (split, name, path))
        .collect()
}

/// A command for lists whose lines are an image and a mask of another name: it copies the masks under the names of the
/// images.
pub(super) fn renaming(place: &Place, images: &Path, masks: &Path) -> Option<String> {
    const NEW: &str = "masks-by-image";
    let within = |path: &str, folder: &Path| {
        let path = place.dir.join(path.replace('\\', "/"));
        path.is_file() && path.starts_with(folder)
    };
    let image_is_first = |line: &str| {
        let fields: Vec<&str> = line.split([' ', '\t', ',']).filter(|field| !field.is_empty()).collect();
        let [a, b, ..] = fields.as_slice() else { return None };
        match (within(a, images) && within(b, masks), within(b, images) && within(a, masks)) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    };
    for folder in FOLDERS {
        let (mut lists, mut orders) = (Vec::new(), BTreeSet::new());
        for (_, _, path) in present(place, folder) {
            let text = read::text(&path, Some(place)).ok()?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            orders.extend(lines.map(image_is_first).collect::<Option<Vec<bool>>>()?);
            lists.push(shell_word(&path));
        }
        let orders: Vec<bool> = orders.into_iter().collect();
        let (Some(first), [image_first]) = (lists.first(), orders.as_slice()) else { continue };
        let (dir, new) = (shell_word(place.dir), place.dir.join(NEW));
        let fields = if *image_first { "image mask _" } else { "mask image _" };
        let init = place.again(false, |options| {
            (options.images, options.masks) = (Some(images.to_path_buf()), Some(new.clone()));
        });
        return Some(format!(
            "{first} pairs images with masks of other names: copy the masks under the names of the images; run: mkdir -p {new} && \
             for f in {lists}; do tr ',\\r' '  ' < \"$f\" | while read -r {fields}; do name=\"${{image##*/}}\"; cp -n -- \
             {dir}/\"$mask\" {new}/\"${{name%.*}}.${{mask##*.}}\"; done; done && {init}",
            new = shell_word(&new),
            lists = lists.join(" "),
        ));
    }
    None
}

/// Stems by themselves, and by their ends after each `/` where that is one stem's alone.
fn by_end(stems: &[String]) -> HashMap<&str, Option<&str>> {
    let mut by_end: HashMap<&str, Option<&str>> = HashMap::new();
    for stem in stems {
        let ends = stem.match_indices('/').map(|(at, _)| &stem[at + 1..]);
        for end in ends {
            by_end.entry(end).and_modify(|other| *other = None).or_insert(Some(stem));
        }
    }
    by_end.extend(stems.iter().map(|stem| (stem.as_str(), Some(stem.as_str()))));
    by_end
}

/// The image that a line means: its whole, or its first word; with or without folders before it and an ending.
fn meant<'a>(line: &str, by_end: &HashMap<&str, Option<&'a str>>) -> Option<&'a str> {
    let first = line.split([' ', '\t', ',']).next().unwrap_or(line);
    [line, first].into_iter().find_map(|name| {
        let name = name.replace('\\', "/");
        let name = name.trim_start_matches("./");
        let bare = plain_stem(name).unwrap_or(name);
        let ends = std::iter::once(bare).chain(bare.match_indices('/').map(|(at, _)| &bare[at + 1..]));
        ends.filter_map(|end| *by_end.get(end)?).next()
    })
}
