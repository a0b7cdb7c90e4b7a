//! Label Studio's JSON export: polygons, rectangles, ellipses and brush strokes of each task, in percent of the
//! picture.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::Path;

use image::{GrayImage, ImageFormat};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::image::outlines::decode_label_studio;
use crate::image::raster::{Area, Bitmap};
use crate::tools::check::OnProgress;
use crate::tools::init::json::{self, Id, Object, side};
use crate::tools::init::label_studio_png::{by_file_name, found, image_of};
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines, label};
use crate::tools::init::pictures::Pictures;
use crate::tools::init::plan::{DatasetPlan, Place};

#[derive(Deserialize)]
struct Task {
    #[serde(default)]
    id: Option<Id>,
    data: serde_json::Map<String, serde_json::Value>,
    annotations: Vec<Object<Annotation>>,
}

#[derive(Deserialize)]
struct Annotation {
    #[serde(default)]
    was_cancelled: Option<bool>,
    #[serde(default)]
    result: Vec<ResultEntry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ResultEntry {
    Is(Box<Object<Shape>>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Shape {
    /// Two results of one region have the same.
    #[serde(default)]
    id: Option<Id>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "side")]
    original_width: Option<usize>,
    #[serde(default, deserialize_with = "side")]
    original_height: Option<usize>,
    #[serde(default)]
    image_rotation: Option<f64>,
    #[serde(default)]
    value: Option<Object<Value>>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Value {
    points: Option<Vec<[f64; 2]>>,
    x: Option<f64>,
    y: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
    rotation: Option<f64>,
    #[serde(rename = "radiusX")]
    radius_x: Option<f64>,
    #[serde(rename = "radiusY")]
    radius_y: Option<f64>,
    rle: Option<Vec<u8>>,
    polygonlabels: Option<Vec<Id>>,
    brushlabels: Option<Vec<Id>>,
    rectanglelabels: Option<Vec<Id>>,
    ellipselabels: Option<Vec<Id>>,
    labels: Option<Vec<Id>>,
}

impl Shape {
    fn class(&self) -> Option<&str> {
        self.value.as_ref()?.0.classes().next()
    }
}

impl Value {
    fn classes(&self) -> impl Iterator<Item = &str> {
        let all = [&self.polygonlabels, &self.brushlabels, &self.rectanglelabels, &self.ellipselabels, &self.labels];
        all.into_iter().flatten().flatten().map(|id| id.0.as_str())
    }

    /// All numbers that say places, in percent.
    fn percents(&self) -> impl Iterator<Item = f64> {
        let sides = [self.x, self.y, self.width, self.height, self.radius_x, self.radius_y];
        sides.into_iter().flatten().chain(self.points.iter().flatten().flatten().copied())
    }

    fn has_area(&self) -> bool {
        self.rle.is_some() || self.percents().next().is_some()
    }
}

/// Percentages may be beyond the border by so much: the outline is cut there.
const SLACK: f64 = 10.0;

/// A plan for a folder with a JSON file that lists tasks with `data` and `annotations`.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let mut tasks: Vec<(std::path::PathBuf, Task)> = Vec::new();
    for (name, path) in place.files(place.dir) {
        if !name.ends_with(".json") {
            continue;
        }
        for task in read_tasks(&path)? {
            tasks.push((path.clone(), task));
        }
    }
    let shapes = |task: &Task| {
        let regions = task.annotations.iter().flat_map(|one| &one.0.result);
        regions.filter(|region| matches!(region, ResultEntry::Is(shape) if shape.0.class().is_some())).count()
    };
    if tasks.iter().all(|(_, task)| shapes(task) == 0) {
        return Ok(None);
    }
    let below = Pictures::below(place, &place.images()?);
    let pictures = by_file_name(below.names())?;
    let mut names: Vec<String> = Vec::new();
    for (_, task) in &tasks {
        for region in task.annotations.iter().flat_map(|one| &one.0.result) {
            if let ResultEntry::Is(shape) = region
                && let Some(class) = shape.0.class()
                && !names.iter().any(|name| name == class)
            {
                names.push(class.to_string());
            }
        }
    }
    names.sort();
    let (mut outlined, mut notes) = (Vec::new(), Notes::default());
    for (at, (path, task)) in tasks.into_iter().enumerate() {
        let which = task.id.map_or_else(|| format!("the task at {at}"), |id| format!("task {id}"));
        let link = image_of(&task.data).unwrap_or_default().to_string();
        let name = found(&link, &pictures).ok_or_else(|| {
            Error::new(format!("the image of {which}, `{link}`, is not below `{}`", below.root().display()))
                .with_hint(super::label_studio_png::pictures_elsewhere(place))
        })?;
        let mut kept: Vec<Annotation> =
            task.annotations.into_iter().map(|one| one.0).filter(|one| one.was_cancelled != Some(true)).collect();
        if kept.len() > 1 {
            notes.add("tasks have several annotations; the first is used", &which);
        }
        kept.truncate(1);
        if kept.is_empty() {
            notes.add("tasks without an annotation were left out", &which);
            continue;
        }
        let mut one = Outlined { name, source: path, declared: None, areas: Vec::new(), fault: None };
        // Some projects write an outline and its label as two results of one region.
        let labeled: HashSet<Id> = kept
            .iter()
            .flat_map(|one| &one.result)
            .filter_map(|region| match region {
                ResultEntry::Is(shape) => shape.0.id.clone().filter(|_| shape.0.class().is_some()),
                ResultEntry::Other(_) => None,
            })
            .collect();
        for (number, region) in kept.into_iter().flat_map(|one| one.result).enumerate() {
            let again = matches!(&region, ResultEntry::Is(shape)
                if shape.0.class().is_none() && shape.0.id.as_ref().is_some_and(|id| labeled.contains(id)));
            if !again {
                draw(region, &format!("region {number} of {which}"), &names, &mut one, &mut notes);
            }
        }
        outlined.push(one);
    }
    outlined.sort_by(|a, b| a.name.cmp(&b.name));
    let groups = vec![(None, below.root().to_path_buf(), outlined)];
    let found =
        Outlines { kind: "Label Studio's regions", names: &names, normalized: false, void_rest: false, groups, notes };
    place.outlines(found).map(Some)
}

/// The tasks of a file; none of a file of another form.
fn read_tasks(path: &Path) -> Result<Vec<Task>> {
    let text = &json::text(path)?;
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
        return Ok(Vec::new());
    }
    let has = |key: &[u8]| text.windows(key.len()).any(|part| part == key);
    match serde_json::from_slice::<Vec<Object<Task>>>(text) {
        Ok(tasks) => Ok(tasks.into_iter().map(|task| task.0).collect()),
        Err(error) if has(b"\"annotations\"") && has(b"\"result\"") && has(b"\"data\"") => {
            Err(Error::file("understand", path, error.to_string())
                .with_hint("it looks like a Label Studio JSON: export it again, or move it out of the folder"))
        }
        Err(_) => Ok(Vec::new()),
    }
}

/// Adds what a region covers to its image.
fn draw(region: ResultEntry, which: &str, names: &[String], one: &mut Outlined, notes: &mut Notes) {
    let place = format!("{which} of `{}`", one.source.display());
    let mut wrong = |error: Error| {
        one.fault.get_or_insert(
            Error::new(format!("{place} cannot be used"))
                .with_source(error)
                .with_hint("export it again, or remove the region"),
        );
    };
    let ResultEntry::Is(shape) = region else {
        return wrong(Error::new("its fields are not in Label Studio's form"));
    };
    let Shape { kind, original_width, original_height, image_rotation, value, .. } = shape.0;
    let kind = kind.unwrap_or_default();
    let Some(Object(value)) = value else {
        notes.add(format!("regions of type `{kind}` have no area and were left out"), place);
        return;
    };
    let classes: Vec<String> = value.classes().map(str::to_string).collect();
    let class = match classes.as_slice() {
        [only] => only.clone(),
        // What is said of the whole picture.
        [] if !value.has_area() => return,
        [] => return wrong(Error::new("it has no label")),
        several => return wrong(Error::new(format!("it has several labels, `{}`", several.join("` and `")))),
    };
    let Some(size) = original_width.zip(original_height).map(|(width, height)| [width, height]) else {
        return wrong(Error::new("it lacks `original_width` and `original_height`, which its percentages refer to"));
    };
    if image_rotation.is_some_and(|turn| turn % 360.0 != 0.0) {
        return wrong(Error::new("it was drawn on a rotated picture (`image_rotation`)"));
    }
    if let Some(far) = value.percents().find(|n| !(-SLACK..=100.0 + SLACK).contains(n)) {
        return wrong(Error::new(format!(
            "it has the coordinate {far}, and Label Studio's are percentages from 0 to 100"
        )));
    }
    let share = |n: f64| (0.0..=1.0).contains(&n);
    if value.percents().all(share) && value.percents().any(|n| n.fract() != 0.0) {
        return wrong(Error::new(
            "its coordinates are all at most 1, and Label Studio's are percentages from 0 to 100",
        ));
    }
    match area(&value, size) {
        Ok(Some(area)) => {
            let at = names.iter().position(|name| *name == class).map_or(0, label);
            one.declared = Some(size);
            one.areas.push((area, at, format!("{which} (`{class}`)")));
        }
        Ok(None) => notes.add(format!("regions of type `{kind}` have no area and were left out"), place),
        Err(error) => wrong(error),
    }
}

/// What a region covers, in pixels; nothing of what has no area.
fn area(value: &Value, [width, height]: [usize; 2]) -> Result<Option<Area>> {
    let pixels = |[x, y]: [f64; 2]| [x / 100.0 * width as f64, y / 100.0 * height as f64];
    if let Some(rle) = &value.rle {
        return brush(rle, width, height).map(Some);
    }
    if let Some(points) = &value.points {
        return Ok((points.len() > 2).then(|| Area::Polygons(vec![points.iter().copied().map(pixels).collect()])));
    }
    let (Some(x), Some(y)) = (value.x, value.y) else { return Ok(None) };
    let turn = value.rotation.unwrap_or(0.0).to_radians();
    let corner = pixels([x, y]);
    if let (Some(across), Some(down)) = (value.width, value.height) {
        // Turned about the first corner, clockwise.
        let [across, down] = pixels([across, down]);
        let at = |dx: f64, dy: f64| {
            [corner[0] + dx * turn.cos() - dy * turn.sin(), corner[1] + dx * turn.sin() + dy * turn.cos()]
        };
        return Ok(Some(Area::Polygons(vec![vec![at(0.0, 0.0), at(across, 0.0), at(across, down), at(0.0, down)]])));
    }
    if let (Some(across), Some(down)) = (value.radius_x, value.radius_y) {
        return Ok(Some(Area::ellipse(corner, pixels([across, down]), turn)));
    }
    Ok(None)
}

/// Brush strokes, as a picture of what they cover.
fn brush(rle: &[u8], width: usize, height: usize) -> Result<Area> {
    let wrong = || Error::new("its `rle` is damaged");
    let covered = decode_label_studio(rle, width, height)?;
    let picture = GrayImage::from_raw(width as u32, height as u32, covered).ok_or_else(wrong)?;
    let mut bytes = Vec::new();
    picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(|error| wrong().with_source(error))?;
    Ok(Area::Bitmap([0, 0], Bitmap::Bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::decode_mask;

    /// Packs as the tool does, with runs of one length of bits.
    fn packed(values: &[u8], runs: &[(bool, usize)]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        let mut put = |value: u32, count: u32| bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        put(values.len() as u32, 32);
        put(7, 5);
        (0..4).for_each(|_| put(7, 4));
        let mut at = 0;
        for (same, length) in runs {
            put(u32::from(*same), 1);
            put(2, 2);
            put(*length as u32 - 1, 8);
            let words = if *same { 1 } else { *length };
            values[at..at + words].iter().for_each(|value| put(u32::from(*value), 8));
            at += length;
        }
        bits.chunks(8)
            .map(|bits| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at)))
            .collect()
    }

    #[test]
    fn brush_strokes_are_unpacked() {
        // Three pixels across and two down; the third and fourth are painted.
        let mut values = vec![0u8; 24];
        (8..16).for_each(|at| values[at] = 200);
        let bytes = packed(&values, &[(true, 8), (false, 8), (true, 8)]);
        let Area::Bitmap([0, 0], Bitmap::Bytes(png)) = brush(&bytes, 3, 2).unwrap() else { panic!() };
        let crate::image::RawMask::Index { values, .. } = decode_mask(&png).unwrap() else { panic!() };
        assert_eq!(values, [0, 0, 255, 255, 0, 0]);
        assert!(brush(&bytes, 3, 3).unwrap_err().to_string().contains("3x3"));
        for cut in 0..bytes.len() - 1 {
            assert!(brush(&bytes[..cut], 3, 2).is_err(), "{cut}");
        }
        // A run beyond the end.
        assert!(brush(&packed(&[0; 24], &[(true, 30)]), 3, 2).is_err());
    }

    #[test]
    fn percents_become_pixels() {
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let drawn = |text: &str| {
            let area = area(&value(text), [8, 4]).unwrap().unwrap();
            let mut canvas = crate::image::draw::Canvas::new([8, 4], 0);
            canvas.draw(&area, 1).unwrap();
            canvas.labels().ids.iter().filter(|id| **id == 1).count()
        };
        assert_eq!(drawn(r#"{"points": [[0, 0], [50, 0], [50, 100], [0, 100]]}"#), 16);
        assert_eq!(drawn(r#"{"x": 25, "y": 0, "width": 50, "height": 50}"#), 8);
        // A quarter turn about the corner.
        assert_eq!(drawn(r#"{"x": 50, "y": 0, "width": 25, "height": 50, "rotation": 90}"#), 4);
        assert!(drawn(r#"{"x": 50, "y": 50, "radiusX": 25, "radiusY": 50}"#) > 8);
        assert!(area(&value(r#"{"points": [[0, 0]]}"#), [8, 4]).unwrap().is_none());
    }
}
