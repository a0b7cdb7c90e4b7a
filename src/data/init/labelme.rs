//! LabelMe: one JSON file of shapes beside each image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde::Deserialize;

use super::plan::{Outlined, Place, Plan, label};
use super::raster::Area;
use super::splits::split_called;
use crate::data::Split;
use crate::data::check::Progress;
use crate::data::image::{IGNORE, RawMask, decode_mask};
use crate::data::walk::walk;
use crate::error::{Error, Result};
use crate::files;

/// What LabelMe calls pixels to leave out, and background that was drawn.
const IGNORED: &str = "__ignore__";
const BACKGROUND: &str = "_background_";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    shapes: Vec<Shape>,
    image_path: String,
    image_width: Option<usize>,
    image_height: Option<usize>,
}

#[derive(Deserialize)]
struct Shape {
    label: String,
    points: Vec<[f64; 2]>,
    #[serde(default = "polygon")]
    shape_type: String,
    /// A PNG in base64, for shapes of type `mask`.
    #[serde(default)]
    mask: Option<String>,
}

fn polygon() -> String {
    "polygon".to_string()
}

/// A plan for a folder with JSON files that hold `shapes` and `imagePath`.
pub(super) fn plan(place: &Place, _: Progress) -> Result<Option<Plan>> {
    let mut files = Vec::new();
    for (name, path) in walk(place.dir).files.into_iter().filter(|(name, _)| name.ends_with(".json")) {
        if let Some(file) = read(&path)? {
            files.push((name, path, file));
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let mut names: Vec<&str> =
        files.iter().flat_map(|(_, _, file)| &file.shapes).map(|shape| shape.label.as_str()).collect();
    names.retain(|name| ![IGNORED, BACKGROUND].contains(name));
    names.sort_unstable();
    names.dedup();
    let names: Vec<String> = names.into_iter().map(str::to_string).collect();
    let mut groups: BTreeMap<(Option<Split>, PathBuf), Vec<Outlined>> = BTreeMap::new();
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for (name, path, file) in files {
        // Folders of splits are told apart; all else is one set below the folder.
        let split = name.split_once('/').and_then(|(folder, _)| split_called(folder));
        let images = match split {
            Some(_) => place.dir.join(name.split('/').next().unwrap_or_default()),
            None => place.dir.to_path_buf(),
        };
        let outlined = outline(&images, &path, file, &names, &mut skipped)?;
        groups.entry((split, images)).or_default().push(outlined);
    }
    let groups = groups.into_iter().map(|((split, images), outlined)| (split, images, outlined)).collect();
    let mut plan = place.outlines("LabelMe shapes", &names, false, groups)?;
    for (kind, count) in skipped {
        plan.notes.push(format!("{count} shapes of type `{kind}` have no area and were left out"));
    }
    Ok(Some(plan))
}

/// The file, if it is of this form.
fn read(path: &Path) -> Result<Option<File>> {
    let bytes = files::read(path, files::ANNOTATIONS).map_err(|e| Error::file("read", path, e))?;
    #[derive(Deserialize)]
    struct Keys {
        shapes: Option<serde::de::IgnoredAny>,
        #[serde(rename = "imagePath")]
        image: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Keys>(&bytes) {
        Ok(Keys { shapes: Some(_), image: Some(_) }) => {}
        _ => return Ok(None),
    }
    let hint = "it looks like LabelMe: open and save it there";
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::file("understand", path, e.to_string()).hint(hint))
}

fn outline(
    images: &Path,
    path: &Path,
    file: File,
    names: &[String],
    skipped: &mut BTreeMap<String, usize>,
) -> Result<Outlined> {
    // Paths of Windows too.
    let image = path.parent().unwrap_or(images).join(file.image_path.replace('\\', "/"));
    let beside = image.file_name().map(|name| path.with_file_name(name));
    let found = [Some(image.clone()), beside].into_iter().flatten().find(|path| path.is_file());
    let found = found.ok_or_else(|| {
        Error::new(format!("`{}` is of the image `{}`, which is not there", path.display(), image.display()))
            .hint("put the image beside its JSON file")
    })?;
    let below = found.canonicalize().ok().zip(images.canonicalize().ok());
    let name = below.and_then(|(found, images)| found.strip_prefix(images).ok()?.to_str().map(str::to_string));
    let name = name.ok_or_else(|| {
        Error::new(format!("the image `{}` is not below `{}`", found.display(), images.display()))
            .hint("name the folder that holds images and JSON files")
    })?;
    let mut areas = Vec::new();
    for shape in file.shapes {
        let class = match shape.label.as_str() {
            IGNORED => IGNORE,
            BACKGROUND => 0,
            other => names.iter().position(|name| name == other).map_or(0, label),
        };
        let area = match (shape.shape_type.as_str(), shape.points.as_slice(), &shape.mask) {
            ("polygon", points, _) if points.len() > 2 => Area::Polygons(vec![points.to_vec()]),
            ("rectangle", [[a, b], [c, d]], _) => Area::Polygons(vec![vec![[*a, *b], [*c, *b], [*c, *d], [*a, *d]]]),
            ("circle", [[a, b], [c, d]], _) => Area::Disc([*a, *b], (c - a).hypot(d - b)),
            ("mask", [[x, y], ..], Some(mask)) => {
                bitmap(mask, [*x, *y]).map_err(|e| Error::file("use a mask of", path, e))?
            }
            _ => {
                *skipped.entry(shape.shape_type).or_default() += 1;
                continue;
            }
        };
        areas.push((area, class));
    }
    let declared = file.image_width.zip(file.image_height).map(|(width, height)| [width, height]);
    Ok(Outlined { name, source: path.to_path_buf(), declared, areas })
}

/// The PNG of a mask, at its upper left corner.
fn bitmap(text: &str, at: [f64; 2]) -> Result<Area> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|e| Error::new("it is not base64").source(e).hint("open and save the file in LabelMe"))?;
    let (width, bits) = match decode_mask(&bytes)? {
        RawMask::Index { width, values, .. } => (width, values.iter().map(|value| *value > 0).collect()),
        RawMask::Rgb { width, values, .. } => (width, values.iter().map(|value| *value != [0; 3]).collect()),
    };
    Ok(Area::Bitmap { at: at.map(|corner| corner.max(0.0) as usize), width, bits })
}
