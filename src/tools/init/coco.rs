//! COCO: outlines and run lengths of all images in one JSON file per split.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::image::outlines::decompress;
use crate::image::raster::{Area, from_runs};
use crate::tools::check::OnProgress;
use crate::tools::init::coco_file::{Category, Picture, classes, images, names, one_split, shared};
use crate::tools::init::json::{Id, Object, with_keys};
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines, label};
use crate::tools::init::pictures::Pictures;
use crate::tools::init::plan::{DatasetPlan, Place};
use crate::tools::init::splits::split_mentioned;

#[derive(Deserialize)]
struct File {
    images: Vec<Object<Picture>>,
    annotations: Vec<Object<Annotation>>,
    categories: Vec<Object<Category>>,
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
            return Err(one_split(found.split, [&other.path, &found.path]));
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let categories = files.iter().map(|Described { file, .. }| {
        let annotated = file.annotations.iter().filter_map(|annotation| annotation.0.category_id.as_ref());
        (annotated.collect(), file.categories.as_slice())
    });
    let names = names(categories, &mut notes);
    let pictures = Pictures::below(place, &place.images()?);
    let mut groups = Vec::new();
    for found in files {
        let written: Vec<&str> = found.file.images.iter().map(|image| image.0.file_name.as_str()).collect();
        let (images, places) = images(&pictures, &found.path, &found.name, found.split, &written, &mut notes)?;
        let ids = classes(&found.path, &found.file.categories, &names)?;
        let outlined = outlines(&found.path, found.file, &places, &ids, &mut notes)?;
        groups.push((found.split, images, outlined));
    }
    place
        .outlines(Outlines { kind: "COCO outlines", names: &names, normalized: false, void_rest: false, groups, notes })
        .map(Some)
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
