//! COCO: outlines and run lengths of all images in one JSON file a split.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::image::outlines::decompress;
use crate::image::raster::{Area, from_runs};
use crate::tools::check::OnProgress;
use crate::tools::init::json::{Id, Object, side, with_keys};
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines, label};
use crate::tools::init::pictures::{Found, Pictures, folder_of};
use crate::tools::init::places::MASKS;
use crate::tools::init::plan::{DatasetPlan, Place};
use crate::tools::init::splits::split_mentioned;

#[derive(Deserialize)]
struct File {
    images: Vec<Object<Picture>>,
    annotations: Vec<Object<Annotation>>,
    categories: Vec<Object<Category>>,
}

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
struct Annotation {
    id: Option<Id>,
    image_id: Option<Id>,
    category_id: Option<Id>,
    #[serde(default)]
    segmentation: Option<Segmentation>,
    keypoints: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct Category {
    pub(super) id: Id,
    pub(super) name: Id,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    /// One polygon, not in a list.
    Polygon(Vec<f64>),
    Runs(Object<Packed>),
    /// Anything else.
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Packed {
    size: [usize; 2],
    counts: Counts,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Plain(Vec<u64>),
    Compressed(String),
}

impl Segmentation {
    fn is_empty(&self) -> bool {
        match self {
            Self::Polygons(rings) => rings.is_empty(),
            Self::Polygon(ring) => ring.is_empty(),
            _ => false,
        }
    }
}

/// A file of a split.
struct Described {
    split: Option<Split>,
    name: String,
    path: PathBuf,
    file: File,
}

/// A plan for a folder with JSON files that hold `images`, `annotations` and `categories`.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut notes = Notes::default();
    let mut files: Vec<Described> = Vec::new();
    let hint = "it looks like COCO: export it again as COCO instances";
    for (name, path) in place.files(place.dir).into_iter().filter(|(name, _)| name.ends_with(".json")) {
        let Some(file) = with_keys::<File>(&path, &["images", "annotations", "categories"], hint)? else { continue };
        let outlined =
            |annotation: &Object<Annotation>| annotation.0.segmentation.as_ref().is_some_and(|one| !one.is_empty());
        if !file.annotations.iter().any(outlined) {
            notes.add("files without outlines were not read", format!("`{name}`"));
            continue;
        }
        files.push(Described { split: split_mentioned(name.trim_end_matches(".json")), name, path, file });
    }
    // Keypoints come with the outlines of the people that they belong to: instances have all.
    if files.len() > 1 {
        let points =
            |found: &Described| found.file.annotations.iter().any(|annotation| annotation.0.keypoints.is_some());
        let other = |at: usize| {
            files
                .iter()
                .enumerate()
                .any(|(other, found)| other != at && found.split == files[at].split && !points(found))
        };
        let keep: Vec<bool> = (0..files.len()).map(|at| !points(&files[at]) || !other(at)).collect();
        let mut keep = keep.into_iter();
        files.retain(|found| {
            let kept = keep.next().unwrap_or(true);
            if !kept {
                notes.add("keypoint files were not read", format!("`{}`", found.name));
            }
            kept
        });
    }
    for (at, found) in files.iter().enumerate() {
        if let Some(other) = files[..at].iter().find(|before| before.split == found.split) {
            let split = found.split.map_or("one split".to_string(), |split| format!("[{split}]"));
            return Err(Error::new(format!(
                "`{}` and `{}` both describe {split}",
                other.path.display(),
                found.path.display()
            ))
            .with_hint(
                "move one of them out of the folder; `train` or `val` in a file's name says which split it describes",
            ));
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let names = categories(&files, &mut notes);
    let pictures = Pictures::below(place, &place.images()?);
    let mut groups = Vec::new();
    for found in files {
        let written: Vec<&str> = found.file.images.iter().map(|image| image.0.file_name.as_str()).collect();
        let (images, places) = images(&pictures, &found.path, &found.name, found.split, &written, &mut notes)?;
        // Names are what categories mean: ids count anew in each file of some tools.
        let at = |category: &Object<Category>| names.iter().position(|name| *name == category.0.name.0);
        let mut ids = HashMap::new();
        for category in &found.file.categories {
            let id = &category.0.id;
            let Some(class) = at(category) else { continue };
            if let Some(before) = ids.insert(id.clone(), class).filter(|before| *before != class) {
                return Err(shared(
                    &found.path,
                    &format!("the categories `{}` and `{}`", names[before], names[class]),
                    id,
                ));
            }
        }
        let outlined = outlines(&found.path, found.file, &places, &ids, &mut notes)?;
        groups.push((found.split, images, outlined));
    }
    place
        .outlines(Outlines { kind: "COCO outlines", names: &names, normalized: false, void_rest: false, groups, notes })
        .map(Some)
}

/// The names of all categories that have annotations, in the order of their ids.
fn categories(files: &[Described], notes: &mut Notes) -> Vec<String> {
    let mut used: BTreeMap<(&Id, &str), bool> = BTreeMap::new();
    for Described { file, .. } in files {
        let annotated: HashSet<&Id> = file.annotations.iter().filter_map(|a| a.0.category_id.as_ref()).collect();
        for Object(category) in &file.categories {
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
    let ids: std::collections::BTreeSet<&Id> = used.keys().map(|(id, _)| *id).collect();
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

/// The folder of the images that a file names as `written`, and their names below it; none for one that is not there. `path`,
/// `name`, `split`: of the file.
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

/// The images of a file with their outlines.
fn outlines(
    path: &Path,
    file: File,
    places: &[Option<String>],
    ids: &HashMap<Id, usize>,
    notes: &mut Notes,
) -> Result<Vec<Outlined>> {
    let mut outlined: Vec<Outlined> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut by_id: HashMap<Id, usize> = HashMap::new();
    let mut absent: HashSet<Id> = HashSet::new();
    for (Object(image), name) in file.images.into_iter().zip(places) {
        let Some(name) = name else {
            absent.insert(image.id);
            continue;
        };
        let at = *by_name.entry(name.clone()).or_insert(outlined.len());
        if let Some(before) = by_id.insert(image.id.clone(), at).filter(|before| *before != at) {
            return Err(shared(path, &format!("the images `{}` and `{name}`", outlined[before].name), &image.id));
        }
        // One that is listed twice has the annotations of both.
        if at < outlined.len() {
            continue;
        }
        let declared = image.size();
        let (name, source) = (name.clone(), path.to_path_buf());
        outlined.push(Outlined { name, source, declared, areas: Vec::new(), fault: None });
    }
    for (number, Object(annotation)) in file.annotations.into_iter().enumerate() {
        let which = match &annotation.id {
            Some(id) => format!("annotation {number} (id {id})"),
            None => format!("annotation {number}"),
        };
        let place = format!("{which} of `{}`", path.display());
        let Some(image) = annotation.image_id.as_ref().and_then(|id| by_id.get(id)).map(|at| &mut outlined[*at]) else {
            // Of images that are not there, that is said of the images.
            if !annotation.image_id.is_some_and(|id| absent.contains(&id)) {
                notes.add("annotations of images that are not listed were left out", place);
            }
            continue;
        };
        let class = annotation.category_id.as_ref().and_then(|id| ids.get(id));
        let area = match annotation.segmentation {
            None => Ok(None),
            Some(segmentation) if segmentation.is_empty() => Ok(None),
            Some(Segmentation::Polygons(rings)) => Ok(polygons(rings, &place, notes)),
            Some(Segmentation::Polygon(ring)) => Ok(polygons(vec![ring], &place, notes)),
            Some(Segmentation::Runs(Object(Packed { size: [height, width], counts }))) => match counts {
                Counts::Plain(runs) => from_runs(&runs, width, height).map(Some),
                Counts::Compressed(text) => {
                    decompress(&text).and_then(|runs| from_runs(&runs, width, height)).map(Some)
                }
            },
            Some(Segmentation::Other(_)) => {
                Err(Error::new("its `segmentation` is neither polygons nor run lengths with `size` and `counts`"))
            }
        };
        let fault = |error: Error| {
            Error::new(format!("{place} cannot be used"))
                .with_source(error)
                .with_hint("export it again, or remove the annotation")
        };
        match (area, class) {
            (Ok(None), _) => notes.add("annotations without an area were left out", place),
            (Ok(Some(area)), Some(class)) => image.areas.push((area, label(*class), which)),
            (Ok(Some(_)), None) => {
                let id = annotation.category_id.map_or("none".to_string(), |id| id.to_string());
                image.fault.get_or_insert(fault(Error::new(format!("its category is {id}, which is not listed"))));
            }
            (Err(error), _) => drop(image.fault.get_or_insert(fault(error))),
        }
    }
    Ok(outlined)
}

/// Of two things with one id it cannot be told which annotations belong to which.
fn shared(path: &Path, both: &str, id: &Id) -> Error {
    Error::new(format!("in `{}` {both} have the same id, {id}", path.display())).with_hint(
        "export again: files that were put together by hand need new ids, for images, categories and annotations",
    )
}

/// Polygons that have an area. A last number that has no partner is left out, as pycocotools does.
fn polygons(rings: Vec<Vec<f64>>, place: &str, notes: &mut Notes) -> Option<Area> {
    let mut kept = Vec::new();
    for ring in rings {
        if ring.len() < 6 {
            notes.add("polygons of fewer than 3 corners were left out", place);
            continue;
        }
        if !ring.len().is_multiple_of(2) {
            notes.add("polygons have an odd number of coordinates; the last one was left out", place);
        }
        kept.push(ring.as_chunks::<2>().0.to_vec());
    }
    (!kept.is_empty()).then_some(Area::Polygons(kept))
}
