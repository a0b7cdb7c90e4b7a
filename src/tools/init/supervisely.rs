//! Supervisely: `meta.json`, and in each dataset's folder `img/NAME` with `ann/NAME.json`.

use std::collections::BTreeSet;

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::raster::{Area, Bitmap};
use crate::tools::check::OnProgress;
use crate::tools::init::json::{Id, Object, side, with_keys};
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Groups, Outlined, Outlines, label};
use crate::tools::init::pictures::{Pictures, folder_of};
use crate::tools::init::plan::{DatasetPlan, Place};
use crate::tools::init::splits::split_mentioned;

#[derive(Deserialize)]
struct File {
    size: Object<Size>,
    objects: Vec<Object<Shape>>,
}

#[derive(Deserialize)]
struct Size {
    #[serde(default, deserialize_with = "side")]
    width: Option<usize>,
    #[serde(default, deserialize_with = "side")]
    height: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    class_title: Id,
    geometry_type: Option<String>,
    #[serde(default)]
    points: Value,
    #[serde(default)]
    bitmap: Value,
}

/// A plan for a folder with `ann` and `img` below the datasets of a project.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut files = Vec::new();
    let hint = "it looks like Supervisely: export it again";
    for (name, path) in place.files(place.dir) {
        let within = name.ends_with(".json") && folder_of(&name).rsplit('/').next() == Some("ann");
        if !within {
            continue;
        }
        if let Some(file) = with_keys::<File>(&path, &["size", "objects"], hint)? {
            files.push((name, path, file));
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let names: BTreeSet<String> =
        files.iter().flat_map(|(_, _, file)| &file.objects).map(|shape| shape.0.class_title.0.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let pictures = Pictures::below(place, place.dir);
    let mut notes = Notes::default();
    let mut absent = None;
    let mut groups = Groups::new();
    let datasets: BTreeSet<String> = files.iter().map(|(name, ..)| folder_of(folder_of(name)).to_string()).collect();
    let split_of = |folder: &str| split_mentioned(folder.rsplit('/').next().unwrap_or(folder));
    let by_split = datasets.iter().all(|folder| split_of(folder).is_some())
        && datasets.iter().filter_map(|folder| split_of(folder)).collect::<BTreeSet<_>>().len() == datasets.len();
    for (name, path, file) in files {
        let dataset = folder_of(folder_of(&name)).to_string();
        let written = name[folder_of(&name).len()..].trim_start_matches('/').trim_end_matches(".json");
        let near = if dataset.is_empty() { "img".to_string() } else { format!("{dataset}/img") };
        let found = pictures.find(written, &near).map_err(|error| {
            let hint = error.hint().unwrap_or_default().to_string();
            Error::new(format!("`{}` belongs to an image that cannot be used", path.display()))
                .with_source(error)
                .with_hint(hint)
        });
        let which = || format!("`{written}`");
        let Some(found) = Pictures::left_out(found, &mut absent, &mut notes, which)? else { continue };
        let image = found.name();
        let (split, images, below) =
            match image.strip_prefix(&format!("{near}/")).filter(|_| by_split || dataset.is_empty()) {
                Some(below) => (split_of(&dataset).filter(|_| by_split), place.dir.join(&near), below),
                None => (None, place.dir.to_path_buf(), image),
            };
        let (mut areas, mut fault) = (Vec::new(), None);
        for (number, Object(shape)) in file.objects.into_iter().enumerate() {
            let which = format!("object {number} (`{}`)", shape.class_title);
            let place = format!("{which} of `{}`", path.display());
            let class = names.iter().position(|name| *name == shape.class_title.0).map_or(0, label);
            match area(&shape) {
                Ok(Some(area)) => areas.push((area, class, which)),
                Ok(None) => {
                    let kind = shape.geometry_type.as_deref().unwrap_or("unknown");
                    notes.add(format!("objects of type `{kind}` have no area and were left out"), place);
                }
                Err(error) => {
                    let wrong = Error::new(format!("{place} cannot be used")).with_source(error);
                    fault = Some(wrong.with_hint("export it again, or remove the object"));
                    break;
                }
            }
        }
        let declared = file.size.0.width.zip(file.size.0.height).map(|(width, height)| [width, height]);
        let one = Outlined { name: below.to_string(), source: path, declared, areas, fault };
        groups.entry((split, images)).or_default().push(one);
    }
    if let Some(absent) = absent.filter(|_| groups.is_empty()) {
        return Err(absent);
    }
    place.outlines(Outlines::in_pixels("Supervisely objects", &names, groups, notes)).map(Some)
}

/// What an object covers; none of what has no area.
fn area(shape: &Shape) -> Result<Option<Area>> {
    let ring = |points: &Value| -> Result<Vec<[f64; 2]>> {
        serde_json::from_value(points.clone()).map_err(|_| Error::new("its points are not pairs of numbers"))
    };
    match shape.geometry_type.as_deref() {
        Some("polygon") => {
            let mut outline = ring(&shape.points["exterior"])?;
            if outline.len() < 3 {
                return Ok(None);
            }
            // Holes: there and back over the same edge, which counts twice and so not at all.
            let first = outline[0];
            for hole in shape.points["interior"].as_array().into_iter().flatten() {
                let hole = ring(hole)?;
                let Some(start) = hole.first().copied() else { continue };
                outline.push(first);
                outline.extend(hole);
                outline.extend([start, first]);
            }
            Ok(Some(Area::Polygons(vec![outline])))
        }
        Some("rectangle") => match ring(&shape.points["exterior"])?.as_slice() {
            [[a, b], [c, d]] => Ok(Some(Area::Polygons(vec![vec![[*a, *b], [*c, *b], [*c, *d], [*a, *d]]]))),
            _ => Ok(None),
        },
        Some("bitmap") => {
            let wrong = |what: &str| Error::new(format!("its bitmap's `{what}` cannot be read"));
            let data = shape.bitmap["data"].as_str().ok_or_else(|| wrong("data"))?;
            let packed = base64::engine::general_purpose::STANDARD.decode(data).map_err(|_| wrong("data"))?;
            let origin: [f64; 2] =
                serde_json::from_value(shape.bitmap["origin"].clone()).map_err(|_| wrong("origin"))?;
            Ok(Some(Area::Bitmap(origin.map(|n| n as i64), Bitmap::Deflated(packed))))
        }
        _ => Ok(None),
    }
}
