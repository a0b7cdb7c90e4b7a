//! Common parts of COCO's files: pictures, categories, and the folder of the images that they name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::tools::init::json::{Id, Object, side};
use crate::tools::init::notes::Notes;
use crate::tools::init::pictures::{Found, Pictures, folder_of};
use crate::tools::init::places::MASKS;
use crate::tools::init::splits::split_mentioned;

#[derive(Deserialize)]
pub(super) struct Picture {
    pub(super) id: Id,
    pub(super) file_name: String,
    #[serde(default, deserialize_with = "side")]
    width: Option<usize>,
    #[serde(default, deserialize_with = "side")]
    height: Option<usize>,
}

impl Picture {
    /// Width and height, if it states both.
    pub(super) fn size(&self) -> Option<[usize; 2]> {
        Some([self.width?, self.height?])
    }
}

#[derive(Deserialize)]
pub(super) struct Category {
    pub(super) id: Id,
    pub(super) name: Id,
}

/// The names of all categories that have annotations, in the order of their ids.
///
/// `files`: the categories of each, with the ids of those that have annotations.
pub(super) fn names<'a>(
    files: impl Iterator<Item = (HashSet<&'a Id>, &'a [Object<Category>])>,
    notes: &mut Notes,
) -> Vec<String> {
    let mut used: BTreeMap<(&Id, &str), bool> = BTreeMap::new();
    for (annotated, categories) in files {
        for Object(category) in categories {
            *used.entry((&category.id, &category.name.0)).or_default() |= annotated.contains(&category.id);
        }
    }
    let mut names: Vec<String> = Vec::new();
    for ((id, name), _) in used.iter().filter(|(_, used)| **used) {
        if names.iter().any(|before| before == name) {
            notes.add("categories of one name and several ids are one class", format!("`{name}` ({id})"));
        } else {
            names.push((*name).to_string());
        }
    }
    let ids: BTreeSet<&Id> = used.keys().map(|(id, _)| *id).collect();
    for id in ids {
        let called: Vec<String> =
            used.keys().filter(|(one, _)| *one == id).map(|(_, name)| format!("`{name}`")).collect();
        if called.len() > 1 {
            let which = format!("{id} is {}", called.join(" and "));
            notes.add("categories were matched by name, because their ids differ between files", which);
        }
    }
    for ((id, name), _) in used.iter().filter(|(key, used)| !**used && !names.iter().any(|name| name == key.1)) {
        notes.add("categories without an annotation were left out", format!("`{name}` ({id})"));
    }
    names
}

/// The class of each category of the file at `path`, as its place among `names`. Names are what categories mean: ids
/// count anew in each file of some tools.
///
/// # Errors
/// Categories that share an id.
pub(super) fn classes(path: &Path, categories: &[Object<Category>], names: &[String]) -> Result<HashMap<Id, usize>> {
    let mut classes = HashMap::new();
    for Object(Category { id, name }) in categories {
        let Some(class) = names.iter().position(|one| *one == name.0) else { continue };
        if let Some(before) = classes.insert(id.clone(), class).filter(|before| *before != class) {
            return Err(shared(path, &format!("the categories `{}` and `{}`", names[before], names[class]), id));
        }
    }
    Ok(classes)
}

/// Two files of one split.
pub(super) fn one_split(split: Option<Split>, [one, other]: [&Path; 2]) -> Error {
    let split = split.map_or("one split".to_string(), |split| format!("[{split}]"));
    Error::new(format!("`{}` and `{}` both describe {split}", one.display(), other.display())).with_hint(
        "move one of them out of the folder; `train` or `val` in a file's name says which split it describes",
    )
}

/// The folder of the images that a file names as `written`, and their names below it; none for one that is not there.
/// `path`, `name`, `split`: of the file.
pub(super) fn images(
    pictures: &Pictures,
    path: &Path,
    name: &str,
    split: Option<Split>,
    written: &[&str],
    notes: &mut Notes,
) -> Result<(PathBuf, Vec<Option<String>>)> {
    let Some(first) = written.first() else {
        return Err(
            Error::new(format!("`{}` names no images", path.display())).with_hint("export it again with its images")
        );
    };
    let upwards = |name: &&&str| name.split(['/', '\\']).any(|part| part == "..");
    if let Some(name) = written.iter().find(upwards) {
        return Err(Error::new(format!("`{}` names the image `{name}`, and `..` could lead anywhere", path.display()))
            .with_hint("write names relative to the folder of images"));
    }
    // Folders on the way to the file and below come first, then those of the split's name.
    let near = folder_of(name);
    let mut folders: Vec<&str> = vec![""];
    for name in pictures.names() {
        folders.extend(name.match_indices('/').map(|(at, _)| &name[..at]));
    }
    folders.sort_unstable();
    folders.dedup();
    let sample: Vec<String> =
        written.iter().step_by(written.len().div_ceil(50)).map(|name| name.replace('\\', "/")).collect();
    let below =
        |folder: &str, name: &str| if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") };
    let hits = |folder: &str| sample.iter().filter(|name| pictures.has(&below(folder, name))).count();
    let common = |folder: &str| folder.split('/').zip(near.split('/')).take_while(|(a, b)| a == b).count();
    let split_fits = |folder: &str| split.is_some() && split_mentioned(folder) == split;
    // Masks may be called as their images.
    let of_masks = |folder: &str| folder.split('/').any(|part| MASKS.contains(&part.to_lowercase().as_str()));
    let rank = |folder: &&&str| (hits(folder), !of_masks(folder), split_fits(folder), common(folder));
    let best = folders.iter().max_by_key(|folder| (rank(folder), std::cmp::Reverse((folder.len(), **folder))));
    let folder = best.filter(|folder| hits(folder) > 0).map_or("", |folder| *folder);
    if let Some(other) =
        folders.iter().find(|other| **other != folder && hits(other) > 0 && rank(other) == rank(&&folder))
    {
        let choose = |folder: &str| pictures.again(folder);
        return Err(Error::new(format!(
            "`{}` names the image `{first}`, which is in `{folder}` and in `{other}`",
            path.display()
        ))
        .with_hint(format!("say which folder is meant: {} or {}", choose(folder), choose(other))));
    }
    let mut places = Vec::new();
    let (mut unusable, mut reason, mut absent) = (0, None, None);
    for name in written {
        let direct = below(folder, name);
        let place = if pictures.has(&direct) { Ok(Found::There(direct.as_str())) } else { pictures.find(name, folder) };
        match Pictures::left_out(place, &mut absent, notes, || format!("`{name}`")) {
            Ok(None) => places.push(None),
            Ok(Some(place)) => {
                if let Found::Called(found) = place {
                    notes.add("images were found by their file names alone", format!("`{name}` is `{found}`"));
                }
                places.push(Some(place.name().to_string()));
            }
            Err(error) => {
                unusable += 1;
                reason.get_or_insert(error);
            }
        }
    }
    let none = places.iter().all(Option::is_none);
    if let Some(reason) = reason.or(absent.filter(|_| none)) {
        let hint = reason.hint().unwrap_or_default().to_string();
        let lost = unusable + places.iter().filter(|place| place.is_none()).count();
        let more =
            if lost > 1 { format!("{lost} images that cannot be used") } else { "an image that cannot be used".into() };
        return Err(Error::new(format!("`{}`, whose first image is `{first}`, names {more}", path.display()))
            .with_source(reason)
            .with_hint(hint));
    }
    // The folder that all lie in.
    let inside =
        |folder: &str| folder.is_empty() || places.iter().flatten().all(|name| name.starts_with(&format!("{folder}/")));
    let folder = if inside(folder) { folder } else { "" };
    let below = |name: &String| name[folder.len()..].trim_start_matches('/').to_string();
    let places = places.iter().map(|name| name.as_ref().map(below)).collect();
    let root = if folder.is_empty() { pictures.root().to_path_buf() } else { pictures.root().join(folder) };
    Ok((root, places))
}

/// Of two things with one id it cannot be told which annotations belong to which.
pub(super) fn shared(path: &Path, both: &str, id: &Id) -> Error {
    Error::new(format!("in `{}` {both} have the same id, {id}", path.display())).with_hint(
        "export again: files that were put together by hand need new ids, for images, categories and annotations",
    )
}
