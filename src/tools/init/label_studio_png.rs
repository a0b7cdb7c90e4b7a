//! Label Studio's "brush labels to PNG": one black and white PNG for each task, annotation and label.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::dataset::pairs::plain_stem;
use crate::error::{Error, Result};
use crate::image::image_size;
use crate::image::raster::{Area, Bitmap};
use crate::tools::check::OnProgress;
use crate::tools::init::json;
use crate::tools::init::notes::Notes;
use crate::tools::init::outlines::{Outlined, Outlines, label};
use crate::tools::init::pictures::{Pictures, file_name};
use crate::tools::init::plan::{DatasetPlan, Place};

/// What a file's name says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BrushLayer {
    task: u64,
    annotation: u64,
    label: String,
    number: u64,
}

/// A plan for a folder with `task-1-annotation-2-by-3-tag-Car-0.png`.
pub(super) fn plan(place: &Place, _: OnProgress) -> Result<Option<DatasetPlan>> {
    let files = place.files(place.dir);
    let mut layers: Vec<(BrushLayer, PathBuf)> =
        files.iter().filter_map(|(name, path)| Some((layer(file_name(name))?, path.clone()))).collect();
    if layers.is_empty() {
        return Ok(None);
    }
    layers.sort();
    let tasks = tasks(&files)?;
    if tasks.is_empty() {
        return Err(Error::new(format!(
            "`{}` holds Label Studio masks of {} tasks, whose names do not say which image each task belongs to",
            place.dir.display(),
            layers.chunk_by(|a, b| a.0.task == b.0.task).count()
        ))
        .with_hint(
            "also export the project as JSON (which has `id` and `data.image` of each task), and put it and the \
               images there",
        ));
    }
    let below = Pictures::below(place, &place.images()?);
    let without: Vec<String> = below.names().iter().filter(|name| layer(file_name(name)).is_none()).cloned().collect();
    let pictures = by_file_name(&without)?;
    let mut names: Vec<String> = layers.iter().map(|(layer, _)| layer.label.clone()).collect();
    names.sort();
    names.dedup();

    let (mut outlined, notes) = (Vec::new(), Notes::default());
    for of_task in layers.chunk_by(|a, b| a.0.task == b.0.task) {
        let task = of_task[0].0.task;
        let name = tasks.get(&task).and_then(|image| found(image, &pictures)).ok_or_else(|| {
            let image =
                tasks.get(&task).map_or("which the JSON does not contain".to_string(), |image| format!("of `{image}`"));
            Error::new(format!("the image of task {task}, {image}, is not below `{}`", below.root().display()))
                .with_hint(pictures_elsewhere(place))
        })?;
        let area = |(layer, path): &(BrushLayer, PathBuf)| {
            let class = names.iter().position(|name| *name == layer.label).map_or(0, label);
            let bitmap = Area::Bitmap([0, 0], Bitmap::File(path.clone()));
            (bitmap, class, format!("`{}`, a mask", file_name(&path.to_string_lossy())))
        };
        let source = of_task[0].1.clone();
        let declared = image_size(&source).ok().map(|(width, height)| [width, height]);
        outlined.push(Outlined { name, source, declared, areas: of_task.iter().map(area).collect(), fault: None });
    }
    let groups = vec![(None, below.root().to_path_buf(), outlined)];
    let found =
        Outlines { kind: "Label Studio masks", names: &names, normalized: false, void_rest: false, groups, notes };
    let mut plan = place.outlines(found)?;
    plan.notes.push("where labels or annotations of a task overlap, the later one wins".to_string());
    Ok(Some(plan))
}

/// `task-TASK-annotation-ID-by-USER-TAG-LABEL-NUMBER.png`; the user and the tag have no dash.
fn layer(name: &str) -> Option<BrushLayer> {
    let rest = name.strip_suffix(".png")?.strip_prefix("task-")?;
    let (task, rest) = rest.split_once("-annotation-")?;
    let (annotation, rest) = rest.split_once("-by-")?;
    let (rest, number) = rest.rsplit_once('-')?;
    let (_user, rest) = rest.split_once('-')?;
    let (_tag, label) = rest.split_once('-')?;
    let (task, annotation, number) = (task.parse().ok()?, annotation.parse().ok()?, number.parse().ok()?);
    (!label.is_empty()).then(|| BrushLayer { task, annotation, label: label.to_string(), number })
}

/// Tasks of the JSON exports among the files: their images by their ids.
fn tasks(files: &[(String, PathBuf)]) -> Result<BTreeMap<u64, String>> {
    let mut tasks = BTreeMap::new();
    for (_, path) in files.iter().filter(|(name, _)| name.ends_with(".json")) {
        let text = &json::text(path)?;
        if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
            continue;
        }
        let Ok(serde_json::Value::Array(list)) = serde_json::from_slice(text) else { continue };
        for task in list {
            let image = task["data"].as_object().and_then(image_of);
            if let (Some(id), Some(image)) = (task["id"].as_u64(), image) {
                tasks.insert(id, image.to_string());
            }
        }
    }
    Ok(tasks)
}

/// The link to a task's picture. It may carry a query, as local files do: ?d=folder/a.jpg
pub(super) fn image_of(data: &serde_json::Map<String, serde_json::Value>) -> Option<&str> {
    data.values().find_map(|value| value.as_str().filter(|text| plain_stem(text).is_some()))
}

/// What to do where the image of a task is not there.
pub(super) fn pictures_elsewhere(place: &Place) -> String {
    let command = place.again(false, |options| options.images = Some("DIR".into()));
    format!("put the images there; or, if they are in another folder, replace DIR by that folder in: {command}")
}

/// Pictures by their file names.
///
/// # Errors
/// Two of one name.
pub(super) fn by_file_name(names: &[String]) -> Result<HashMap<String, String>> {
    let mut pictures: HashMap<String, String> = HashMap::new();
    for name in names {
        if let Some(other) = pictures.insert(file_name(name).to_string(), name.clone()) {
            return Err(Error::new(format!(
                "`{other}` and `{name}` have the same file name, by which tasks refer to \
                                           their images"
            ))
            .with_hint("remove one of them, or rename it together with its tasks"));
        }
    }
    Ok(pictures)
}

/// The picture that a task's link means: uploads carry 8 hexadecimal digits before the name.
pub(super) fn found(link: &str, pictures: &HashMap<String, String>) -> Option<String> {
    let name = decoded(link.rsplit(['/', '=']).next()?);
    let original =
        name.split_once('-').filter(|(digits, _)| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
    pictures.get(&name).or_else(|| pictures.get(original?.1)).cloned()
}

/// `%20` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2).and_then(|two| std::str::from_utf8(two).ok())).flatten();
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_links_are_read() {
        let expected = BrushLayer { task: 7, annotation: 12, label: "traffic-light".into(), number: 0 };
        assert_eq!(layer("task-7-annotation-12-by-a@b.c-tag-traffic-light-0.png"), Some(expected));
        assert_eq!(layer("task-7.png"), None);
        let pictures = HashMap::from([("my photo.jpg".to_string(), "images/my photo.jpg".to_string())]);
        for link in
            ["/data/upload/1/0a1b2c3d-my%20photo.jpg", "/data/local-files/?d=set/my%20photo.jpg", "my photo.jpg"]
        {
            assert_eq!(found(link, &pictures).as_deref(), Some("images/my photo.jpg"), "{link}");
        }
        assert_eq!(found("%zz%", &pictures), None);
    }
}
