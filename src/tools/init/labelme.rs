//! LabelMe: one JSON file of shapes beside each image.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::dataset::pairs::plain_stem;
use crate::error::{Error, Result};
use crate::image::IGNORE;
use crate::image::raster::{Area, Bitmap};
use crate::tools::check::OnProgress;
use crate::tools::init::json::{Id, Object, side, with_keys};
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Groups, Outlined, Outlines, label};
use crate::tools::init::pictures::{Found, Pictures, file_name, folder_of};
use crate::tools::init::plan::{DatasetPlan, Place};

/// What LabelMe calls pixels to leave out, and background that was drawn.
const IGNORED: &str = "__ignore__";
const BACKGROUND: &str = "_background_";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    shapes: Vec<Object<Shape>>,
    image_path: String,
    #[serde(default, deserialize_with = "side")]
    image_width: Option<usize>,
    #[serde(default, deserialize_with = "side")]
    image_height: Option<usize>,
}

#[derive(Deserialize)]
struct Shape {
    label: Id,
    points: Points,
    shape_type: Option<String>,
    /// A PNG in base64, for shapes of type `mask`.
    mask: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Points {
    Of(Vec<[f64; 2]>),
    Other(IgnoredAny),
}

/// A plan for a folder with JSON files that hold `shapes` and `imagePath`.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut files = Vec::new();
    let hint = "it looks like LabelMe: open it in LabelMe and save it again";
    for (name, path) in place.files(place.dir).into_iter().filter(|(name, _)| name.ends_with(".json")) {
        if let Some(file) = with_keys::<File>(&path, &["shapes", "imagePath"], hint)? {
            files.push((name, path, file));
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let mut names: Vec<String> =
        files.iter().flat_map(|(_, _, file)| &file.shapes).map(|shape| shape.0.label.0.clone()).collect();
    names.retain(|name| ![IGNORED, BACKGROUND].contains(&name.as_str()));
    names.sort_unstable();
    names.dedup();
    let pictures = Pictures::below(place, &place.images()?);
    let mut notes = Notes::default();
    let mut groups = Groups::new();
    let mut absent = None;
    let mut taken: HashMap<String, PathBuf> = HashMap::new();
    let by_stem: HashMap<&str, &str> =
        pictures.names().iter().filter_map(|name| Some((plain_stem(name)?, name.as_str()))).collect();
    let mut by_file: HashMap<&str, Vec<&str>> = HashMap::new();
    for name in pictures.names() {
        by_file.entry(plain_stem(file_name(name)).unwrap_or_default()).or_default().push(name);
    }
    for (name, path, file) in files {
        // Where JSON files lie below a folder of images that is elsewhere, they say nothing of places there.
        let near = if pictures.root() == place.dir { folder_of(&name) } else { "" };
        let mut found = pictures.find(&file.image_path, near);
        // The picture that is called as the file itself.
        let stem = name.trim_end_matches(".json");
        let beside = by_stem.get(stem).copied();
        if let (true, Some(beside)) = (found.is_err(), beside) {
            // Renamed together.
            found = Ok(Found::Called(beside));
        }
        let unusable = |error: Error| {
            let hint = error.hint().unwrap_or_default().to_string();
            let message = format!("`{}` belongs to an image that cannot be used", path.display());
            Error::new(message).with_source(error).with_hint(hint)
        };
        let found = found.map_err(unusable);
        let which = || format!("`{}` of `{name}`", file.image_path);
        let Some(found) = Pictures::left_out(found, &mut absent, &mut notes, which)? else { continue };
        if let Found::Called(image) = found {
            notes.add("images were found by their file names alone", format!("`{}` is `{image}`", file.image_path));
        }
        // Folders of splits are told apart; all else is one set below the folder.
        let image = found.name();
        let (split, images, below) = pictures.placed(image);
        // Copied from another image, or renamed without it: the shapes may be of either.
        let called_so = beside.or_else(|| match by_file.get(file_name(stem)).map(Vec::as_slice) {
            Some([only]) if pictures.placed(only).0 == split => Some(only),
            _ => None,
        });
        let same = |other: &str| plain_stem(file_name(other)) == plain_stem(file_name(image));
        let other = called_so.filter(|beside| *beside != image && !same(beside));
        if let Some(beside) = other {
            let (split, images, below) = pictures.placed(beside);
            let which = format!("`{}` says `imagePath` is `{image}`, which is there too", path.display());
            let fault = Error::new(which).with_hint(
                "look at both in LabelMe, and write the name of the image that the shapes belong to into `imagePath`",
            );
            let (name, source) = (below.to_owned(), path.clone());
            let outlined = Outlined { name, source, declared: None, areas: Vec::new(), fault: Some(fault) };
            groups.entry((split, images)).or_default().push(outlined);
            continue;
        }
        if let Some(before) = taken.insert(image.to_string(), path.clone()) {
            return Err(Error::new(format!(
                "`{}` and `{}` both hold the shapes of `{image}`",
                before.display(),
                path.display()
            ))
            .with_hint("move one of them out of the folder, or correct its `imagePath`"));
        }
        let outlined = outline(below, &path, file, &names, &mut notes);
        groups.entry((split, images)).or_default().push(outlined);
    }
    if let Some(absent) = absent.filter(|_| groups.is_empty()) {
        return Err(absent);
    }
    place.outlines(Outlines::in_pixels("LabelMe shapes", &names, groups, notes)).map(Some)
}

fn outline(name: &str, path: &Path, file: File, names: &[String], notes: &mut Notes) -> Outlined {
    let (mut areas, mut fault) = (Vec::new(), None);
    for (number, Object(shape)) in file.shapes.into_iter().enumerate() {
        let class = match shape.label.0.as_str() {
            IGNORED => IGNORE,
            BACKGROUND => 0,
            other => names.iter().position(|name| name == other).map_or(0, label),
        };
        let which = format!("shape {number} (`{}`)", shape.label);
        let place = format!("{which} of `{}`", path.display());
        let kind = shape.shape_type.as_deref().unwrap_or("polygon");
        let points = match &shape.points {
            Points::Of(points) => points.as_slice(),
            Points::Other(_) => {
                fault.get_or_insert(
                    Error::new(format!("the `points` of {place} are not pairs of numbers"))
                        .with_hint("draw the shape again"),
                );
                continue;
            }
        };
        let area = match (kind, points, &shape.mask) {
            ("polygon", points, _) if points.len() > 2 => Area::Polygons(vec![points.to_vec()]),
            ("rectangle", [[a, b], [c, d]], _) => Area::Polygons(vec![vec![[*a, *b], [*c, *b], [*c, *d], [*a, *d]]]),
            ("circle", [[a, b], [c, d]], _) => Area::Disc([*a, *b], (c - a).hypot(d - b)),
            // A float that is too large becomes the nearest number, which is refused with its size.
            ("mask", [[x, y], ..], Some(mask)) => match base64::engine::general_purpose::STANDARD.decode(mask) {
                Ok(bytes) => Area::Bitmap([*x as i64, *y as i64], Bitmap::Bytes(bytes)),
                Err(error) => {
                    let wrong = Error::new(format!("the `mask` of {place} is not base64")).with_source(error);
                    fault.get_or_insert(wrong.with_hint("open and save the file in LabelMe"));
                    continue;
                }
            },
            _ => {
                notes.add(format!("shapes of type `{kind}` have no area and were left out"), place);
                continue;
            }
        };
        areas.push((area, class, which));
    }
    let declared = file.image_width.zip(file.image_height).map(|(width, height)| [width, height]);
    Outlined { name: name.to_string(), source: path.to_path_buf(), declared, areas, fault }
}
