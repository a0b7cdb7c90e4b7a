//! COCO: outlines and run lengths of all images in one JSON file a split.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::plan::{Outlined, Place, Plan, folders_in, label};
use super::raster::{Area, decompress, from_runs};
use super::splits::split_mentioned;
use crate::data::Split;
use crate::data::check::Progress;
use crate::data::walk::walk;
use crate::error::{Error, Result};
use crate::files;

#[derive(Deserialize)]
struct File {
    images: Vec<Picture>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Picture {
    id: i64,
    file_name: String,
    width: Option<usize>,
    height: Option<usize>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: i64,
    category_id: i64,
    #[serde(default)]
    segmentation: Option<Segmentation>,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Runs { size: [usize; 2], counts: Runs },
    None([(); 0]),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Runs {
    Plain(Vec<u64>),
    Compressed(String),
}

/// A plan for a folder with JSON files that hold `images`, `annotations` and `categories`.
pub(super) fn plan(place: &Place, _: Progress) -> Result<Option<Plan>> {
    let mut files: Vec<(Option<Split>, PathBuf, File)> = Vec::new();
    for (name, path) in walk(place.dir).files.into_iter().filter(|(name, _)| name.ends_with(".json")) {
        let Some(file) = read(&path)? else { continue };
        if !file.annotations.iter().any(|annotation| annotation.segmentation.is_some()) {
            continue; // captions, boxes
        }
        let split = split_mentioned(name.trim_end_matches(".json"));
        if let Some((_, other, _)) = files.iter().find(|(before, _, _)| *before == split) {
            let split = split.map_or("one split".to_string(), |split| format!("[{split}]"));
            return Err(Error::new(format!("`{}` and `{}` both describe {split}", other.display(), path.display()))
                .hint(
                    "move one of them out of the folder; `train` or `val` in its name says which split a file is of",
                ));
        }
        files.push((split, path, file));
    }
    if files.is_empty() {
        return Ok(None);
    }
    let mut used: BTreeMap<i64, String> = BTreeMap::new();
    let mut unused = 0;
    for (_, _, file) in &files {
        let annotated: std::collections::HashSet<i64> = file.annotations.iter().map(|a| a.category_id).collect();
        unused = unused.max(file.categories.iter().filter(|category| !annotated.contains(&category.id)).count());
        used.extend(file.categories.iter().filter(|c| annotated.contains(&c.id)).map(|c| (c.id, c.name.clone())));
    }
    let ids: Vec<i64> = used.keys().copied().collect();
    let names: Vec<String> = used.into_values().collect();
    let mut groups = Vec::new();
    let mut without = 0;
    for (split, path, file) in files {
        let images = images_folder(place, &path, &file, split)?;
        let (outlined, lacking) = outlines(&path, file, &ids)?;
        without += lacking;
        groups.push((split, images, outlined));
    }
    let mut plan = place.outlines("COCO outlines", &names, false, groups)?;
    for (count, what) in [(without, "annotations without an outline"), (unused, "categories without an annotation")] {
        if count > 0 {
            plan.notes.push(format!("{count} {what} were left out"));
        }
    }
    Ok(Some(plan))
}

/// The file, if it is of this form.
fn read(path: &Path) -> Result<Option<File>> {
    let bytes = files::read(path, files::ANNOTATIONS).map_err(|e| Error::file("read", path, e))?;
    #[derive(Deserialize)]
    struct Keys {
        images: Option<serde::de::IgnoredAny>,
        annotations: Option<serde::de::IgnoredAny>,
        categories: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Keys>(&bytes) {
        Ok(Keys { images: Some(_), annotations: Some(_), categories: Some(_) }) => {}
        _ => return Ok(None),
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::file("understand", path, e.to_string()).hint("it looks like COCO: export it again as COCO instances")
    })
}

/// The folder below which the file's names are found.
fn images_folder(place: &Place, path: &Path, file: &File, split: Option<Split>) -> Result<PathBuf> {
    let Some(first) = file.images.first().map(|image| image.file_name.as_str()) else {
        return Err(Error::new(format!("`{}` names no images", path.display())).hint("export it again with images"));
    };
    let home = path.parent().unwrap_or(place.dir);
    let mut tried: Vec<PathBuf> = place
        .options
        .images
        .iter()
        .map(|images| {
            let below = place.dir.join(images);
            if below.is_dir() { below } else { images.clone() }
        })
        .collect();
    let mut bases = vec![home.to_path_buf()];
    bases.extend(home.parent().filter(|parent| parent.starts_with(place.dir)).map(Path::to_path_buf));
    bases.push(place.dir.to_path_buf());
    for base in bases {
        let below = folders_in(&base).into_iter().flat_map(|(_, folder)| {
            let inner: Vec<PathBuf> = folders_in(&folder).into_iter().map(|(_, path)| path).collect();
            std::iter::once(folder).chain(inner)
        });
        // A folder of the split's name comes before others that hold a file of the same name.
        let mut below: Vec<PathBuf> = below.collect();
        below
            .sort_by_key(|folder| folder.file_name().and_then(|name| name.to_str()).and_then(split_mentioned) != split);
        tried.push(base);
        tried.extend(below);
    }
    match tried.into_iter().find(|folder| folder.join(first).is_file()) {
        Some(folder) => Ok(folder),
        None => Err(Error::new(format!(
            "`{}` names the image `{first}`, which is not below `{}`",
            path.display(),
            place.dir.display()
        ))
        .hint("put the images there, or pass their folder: --images DIR")),
    }
}

/// The images of a file with their outlines, and how many annotations have none.
fn outlines(path: &Path, file: File, ids: &[i64]) -> Result<(Vec<Outlined>, usize)> {
    let mut outlined = Vec::new();
    let mut places: HashMap<i64, usize> = HashMap::new();
    for image in file.images {
        let declared = image.width.zip(image.height).map(|(width, height)| [width, height]);
        places.insert(image.id, outlined.len());
        outlined.push(Outlined { name: image.file_name, source: path.to_path_buf(), declared, areas: Vec::new() });
    }
    let mut without = 0;
    for (number, annotation) in file.annotations.into_iter().enumerate() {
        let wrong = |error: Error| {
            Error::new(format!("annotation {number} of `{}` cannot be used", path.display()))
                .source(error)
                .hint("export it again, or remove the annotation")
        };
        let Some(image) = places.get(&annotation.image_id).map(|at| &mut outlined[*at]) else {
            return Err(wrong(Error::new(format!("it is of image {}, which is not listed", annotation.image_id))));
        };
        let Some(class) = ids.iter().position(|id| *id == annotation.category_id) else {
            return Err(wrong(Error::new(format!(
                "it is of category {}, which is not listed",
                annotation.category_id
            ))));
        };
        let area = match annotation.segmentation {
            Some(Segmentation::Polygons(rings)) if !rings.is_empty() => {
                if let Some(odd) = rings.iter().find(|ring| ring.len() < 6 || !ring.len().is_multiple_of(2)) {
                    return Err(wrong(Error::new(format!("a polygon has {} numbers", odd.len()))));
                }
                Area::Polygons(rings.iter().map(|ring| ring.as_chunks::<2>().0.to_vec()).collect())
            }
            Some(Segmentation::Runs { size: [height, width], counts }) => {
                if image.declared.is_some_and(|declared| declared != [width, height]) {
                    return Err(wrong(Error::new(format!("its run lengths are for {width}x{height} pixels"))));
                }
                let runs = match counts {
                    Runs::Plain(runs) => runs,
                    Runs::Compressed(text) => decompress(&text).map_err(wrong)?,
                };
                from_runs(&runs, width, height).map_err(wrong)?
            }
            _ => {
                without += 1;
                continue;
            }
        };
        image.areas.push((area, label(class)));
    }
    Ok((outlined, without))
}
