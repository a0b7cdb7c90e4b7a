//! VGG Image Annotator: regions of all images in one JSON or CSV file.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::raster::Area;
use crate::tools::check::OnProgress;
use crate::tools::init::json;
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Groups, Outlined, Outlines, label};
use crate::tools::init::pictures::{Found, Pictures, folder_of};
use crate::tools::init::plan::{DatasetPlan, Place};
use crate::tools::init::read;
use crate::tools::init::via_attributes::Attributes;

/// One image's regions: the shape and what it is.
struct Entry {
    image: String,
    regions: Vec<(Value, Value)>,
}

/// A plan for a folder with `via_region_data.json`, a project of VIA, or its CSV; one file for each folder of images.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut files: Vec<(String, PathBuf, Vec<Entry>)> = Vec::new();
    for (name, path) in place.files(place.dir) {
        let (_, ending) = name.rsplit_once('.').unwrap_or_default();
        let entries = match ending.to_lowercase().as_str() {
            "json" if is_called_so(&name) || starts_with_words(&path, JSON) => from_json(&path)?,
            "csv" if starts_with_words(&path, CSV) => from_csv(&path)?,
            _ => None,
        };
        if let Some(entries) = entries {
            files.push((name, path, entries));
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let mut notes = Notes::default();
    let regions = || files.iter().flat_map(|(_, _, entries)| entries).flat_map(|entry| &entry.regions);
    let chosen = Attributes::of(regions().map(|(_, what)| what)).choose(&mut notes);
    let class = |what: &Value| chosen.class(what);
    let mut names: Vec<String> = regions().filter_map(|(_, what)| class(what).ok()).collect();
    names.sort_unstable();
    names.dedup();
    let pictures = Pictures::below(place, &place.images()?);
    let mut absent = None;
    let mut groups = Groups::new();
    for (name, path, entries) in files {
        let near = folder_of(&name).to_string();
        for entry in entries {
            let found = pictures.find(&entry.image, &near).map_err(|error| {
                let hint = error.hint().unwrap_or_default().to_string();
                Error::new(format!("`{}` names an image that cannot be used", path.display()))
                    .with_source(error)
                    .with_hint(hint)
            });
            let which = || format!("`{}`", entry.image);
            let Some(found) = Pictures::left_out(found, &mut absent, &mut notes, which)? else { continue };
            if let Found::Called(image) = found {
                notes.add("images were found by their file names alone", format!("`{}` is `{image}`", entry.image));
            }
            let image = found.name();
            let (split, images, below) = pictures.placed(image);
            let (mut areas, mut fault) = (Vec::new(), None);
            for (number, (shape, what)) in entry.regions.iter().enumerate() {
                let which = format!("region {number} of `{image}`");
                let wrong = |error: Error, hint: &str| {
                    let place = format!("{which} in `{}`", path.display());
                    Error::new(format!("{place} cannot be used")).with_source(error).with_hint(hint)
                };
                match (area(shape), class(what)) {
                    (Ok(Some(area)), Ok(called)) => {
                        let at = names.iter().position(|name| *name == called).map_or(0, label);
                        areas.push((area, at, format!("region {number} (`{called}`) of `{image}`")));
                    }
                    (Ok(None), _) => {
                        let kind = shape["name"].as_str().unwrap_or("unknown");
                        notes.add(format!("regions of type `{kind}` have no area and were left out"), which);
                    }
                    (Err(error), _) => {
                        fault.get_or_insert(wrong(error, "export it again, or remove the region"));
                    }
                    (_, Err(error)) => {
                        fault.get_or_insert(wrong(error, "give the region its class in VIA, or remove it"));
                    }
                }
            }
            let one = Outlined { name: below.to_string(), source: path.clone(), declared: None, areas, fault };
            groups.entry((split, images)).or_default().push(one);
        }
    }
    if let Some(absent) = absent.filter(|_| groups.is_empty()) {
        return Err(absent);
    }
    place.outlines(Outlines::in_pixels("VIA regions", &names, groups, notes)).map(Some)
}

/// What stands in each file near its beginning. Exports are called by their project, in whose name there need be no
/// `via`.
const JSON: &[&str] = &["\"file_attributes\"", "\"regions\"", "\"shape_attributes\""];
const CSV: &[&str] = &["filename", "region_shape_attributes", "region_attributes"];

fn is_called_so(name: &str) -> bool {
    name.to_lowercase().contains("via")
}

/// Whether these words are in the first bytes of a file. One that cannot be read is none of VIA's.
fn starts_with_words(path: &Path, words: &[&str]) -> bool {
    read::start(path, 1 << 14).is_ok_and(|start| words.iter().all(|word| start.contains(word)))
}

fn from_json(path: &Path) -> Result<Option<Vec<Entry>>> {
    let value = serde_json::from_slice::<Value>(&json::text(path)?).map_err(|error| {
        json::broken(path, &error, "it looks like VIA: export it again, or move it out of the folder")
    })?;
    let images = value.get("_via_img_metadata").unwrap_or(&value);
    let Some(images) = images.as_object() else { return Ok(None) };
    let entries: Vec<Entry> = images
        .values()
        .filter_map(|image| {
            let regions: Vec<&Value> = match image.get("regions")? {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => return None,
            };
            let regions =
                regions.iter().map(|r| (r["shape_attributes"].clone(), r["region_attributes"].clone())).collect();
            Some(Entry { image: image.get("filename")?.as_str()?.to_string(), regions })
        })
        .collect();
    Ok((!entries.is_empty()).then_some(entries))
}

fn from_csv(path: &Path) -> Result<Option<Vec<Entry>>> {
    let text = read::annotations(path)?;
    let heading = text.split(['\n', '\r']).next().unwrap_or_default();
    // Spreadsheets write what their country does.
    let between = [',', ';', '\t'].into_iter().max_by_key(|between| heading.matches(*between).count()).unwrap_or(',');
    let mut rows = rows(&text, between).into_iter();
    let Some(heading) = rows.next() else { return Ok(None) };
    let column = |name: &str| heading.iter().position(|cell| cell.trim_start_matches('#') == name);
    let (Some(file), Some(shape), Some(what)) =
        (column("filename"), column("region_shape_attributes"), column("region_attributes"))
    else {
        return Ok(None);
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (number, row) in rows.enumerate() {
        let cell = |at: usize| row.get(at).map(String::as_str).unwrap_or_default();
        let value = |at: usize| {
            serde_json::from_str::<Value>(cell(at)).map_err(|error| {
                Error::new(format!("row {} of `{}` holds no region", number + 2, path.display()))
                    .with_source(error)
                    .with_hint("export it again")
            })
        };
        if entries.last().is_none_or(|entry| entry.image != cell(file)) {
            entries.push(Entry { image: cell(file).to_string(), regions: Vec::new() });
        }
        let (shape, what) = (value(shape)?, value(what)?);
        if let Some(entry) = entries.last_mut().filter(|_| shape.get("name").is_some()) {
            entry.regions.push((shape, what));
        }
    }
    Ok((!entries.is_empty()).then_some(entries))
}

/// Rows of cells, which may be in quotes.
pub(super) fn rows(text: &str, between: char) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => quoted = !quoted,
            c if c == between && !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' | '\r' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    if !cell.is_empty() || !row.is_empty() {
        row.push(cell);
        rows.push(row);
    }
    rows
}

fn area(shape: &Value) -> Result<Option<Area>> {
    let number = |key: &str| shape[key].as_f64().ok_or_else(|| Error::new(format!("its `{key}` is not a number")));
    let numbers = |key: &str| -> Result<Vec<f64>> {
        serde_json::from_value(shape[key].clone()).map_err(|_| Error::new(format!("its `{key}` are not numbers")))
    };
    Ok(match shape["name"].as_str() {
        Some("polygon") => {
            let (x, y) = (numbers("all_points_x")?, numbers("all_points_y")?);
            if x.len() != y.len() {
                return Err(Error::new(format!("it has {} `all_points_x` and {} `all_points_y`", x.len(), y.len())));
            }
            let ring: Vec<[f64; 2]> = x.into_iter().zip(y).map(|(x, y)| [x, y]).collect();
            (ring.len() > 2).then_some(Area::Polygons(vec![ring]))
        }
        Some("rect") => {
            let (x, y, w, h) = (number("x")?, number("y")?, number("width")?, number("height")?);
            Some(Area::Polygons(vec![vec![[x, y], [x + w, y], [x + w, y + h], [x, y + h]]]))
        }
        Some("circle") => Some(Area::Disc([number("cx")?, number("cy")?], number("r")?)),
        Some("ellipse") => {
            // In radians, clockwise.
            let turn = if shape["theta"].is_null() { 0.0 } else { number("theta")? };
            Some(Area::ellipse([number("cx")?, number("cy")?], [number("rx")?, number("ry")?], turn))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ellipses_are_turned() {
        let of = |theta: &str| {
            let json = format!(r#"{{"name": "ellipse", "cx": 9, "cy": 9, "rx": 6, "ry": 2{theta}}}"#);
            area(&serde_json::from_str(&json).unwrap())
        };
        assert_eq!(of("").unwrap(), Some(Area::Ellipse([9.0; 2], [6.0, 2.0])));
        let Some(Area::Polygons(rings)) = of(", \"theta\": 0.5").unwrap() else { panic!("it is no polygon") };
        // The end of the long axis, clockwise below the right.
        let [x, y] = rings[0][0];
        assert!((x - 9.0 - 6.0 * 0.5f64.cos()).abs() < 1e-9 && (y - 9.0 - 6.0 * 0.5f64.sin()).abs() < 1e-9);
        assert!(of(", \"theta\": \"0.5\"").is_err());
    }
}
