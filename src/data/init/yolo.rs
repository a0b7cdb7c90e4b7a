//! YOLO: `data.yaml` and one text file of polygons an image.

use std::path::{Path, PathBuf};

use super::names::{DataYaml, Paths};
use super::plan::{Outlined, Place, Plan, label};
use super::raster::Area;
use crate::data::Split;
use crate::data::check::Progress;
use crate::data::pairs::plain_stem;
use crate::data::walk::walk;
use crate::error::{Error, Result};
use crate::files;

/// A plan for a folder with `data.yaml` (or another YAML that names classes and images) and polygons in `labels`.
pub(super) fn plan(place: &Place, _: Progress) -> Result<Option<Plan>> {
    let Some((file, yaml)) = description(place.dir)? else { return Ok(None) };
    if yaml.masks_dir.is_some() {
        return Ok(None);
    }
    let names = yaml.names();
    let ids: Vec<u16> = names.iter().map(|(id, _)| *id).collect();
    let names: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
    let mut groups = Vec::new();
    let mut boxes = 0;
    for (split, paths) in [(Split::Train, &yaml.train), (Split::Val, &yaml.val), (Split::Test, &yaml.test)] {
        let folder = match paths {
            None => continue,
            Some(Paths::One(path)) => path,
            Some(Paths::Many(paths)) => match paths.as_slice() {
                [path] => path,
                many => {
                    return Err(Error::new(format!("`{}` names {} folders for [{split}]", file.display(), many.len()))
                        .hint("a split is one folder here: move them below one, and name that"));
                }
            },
        };
        if folder.is_empty() {
            continue;
        }
        let images = images_folder(&file, &yaml, folder, split)?;
        let Some(labels) = labels_folder(&images) else {
            return Err(Error::new(format!("there are no labels beside `{}`", images.display()))
                .hint("YOLO keeps them in a folder `labels` that lies as `images` does"));
        };
        let mut outlined = Vec::new();
        for (name, _) in walk(&images).files {
            let Some(stem) = plain_stem(&name) else { continue };
            let source = labels.join(format!("{stem}.txt"));
            // An image without a file of labels shows nothing but background.
            let (areas, some) = if source.is_file() { read(&source, &ids, &file)? } else { (Vec::new(), 0) };
            boxes += some;
            outlined.push(Outlined { name, source, declared: None, areas });
        }
        groups.push((Some(split), images, outlined));
    }
    let outlines: usize = groups.iter().flat_map(|(_, _, some)| some).map(|one| one.areas.len()).sum();
    if groups.is_empty() {
        return Err(
            Error::new(format!("`{}` names no images", file.display())).hint("it needs `train: DIR` and `val: DIR`")
        );
    }
    if outlines == 0 {
        return Err(Error::new(format!("the labels of `{}` hold {boxes} boxes and no polygon", file.display()))
            .hint("segmentation needs outlines: export the set as YOLO segmentation"));
    }
    let mut plan = place.outlines("YOLO polygons", &names, true, groups)?;
    if boxes > 0 {
        plan.notes.push(format!("{boxes} boxes without an outline were left out"));
    }
    Ok(Some(plan))
}

/// The YAML that names classes, if there is one.
fn description(dir: &Path) -> Result<Option<(PathBuf, DataYaml)>> {
    let files = walk_top(dir).into_iter().filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    for path in files {
        let called_data = path.file_stem().is_some_and(|stem| stem == "data" || stem == "dataset");
        match DataYaml::read(&path) {
            Ok(yaml) if !yaml.names().is_empty() => return Ok(Some((path, yaml))),
            Err(error) if called_data => return Err(error.hint("it should name `train`, `val` and `names`")),
            _ => {}
        }
    }
    Ok(None)
}

fn walk_top(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// The folder of images: below `path`, or the YAML, also where an export begins it with `../`.
fn images_folder(file: &Path, yaml: &DataYaml, folder: &str, split: Split) -> Result<PathBuf> {
    let home = file.parent().unwrap_or(Path::new(""));
    let root = yaml.path.as_deref().map_or(home.to_path_buf(), |path| home.join(path));
    let bare = folder.trim_start_matches("../").trim_start_matches("./");
    let tried = [root.join(folder), home.join(folder), home.join(bare)];
    let Some(found) = tried.iter().find(|path| path.is_dir()) else {
        return Err(Error::new(format!("[{split}] of `{}` is `{folder}`, which is no folder", file.display())).hint(
            format!(
                "tried {}; write the folder of images there",
                tried.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
            ),
        ));
    };
    // Where the folder of a split holds `images` and `labels`, images alone are meant.
    Ok(if found.join("images").is_dir() && found.join("labels").is_dir() {
        found.join("images")
    } else {
        found.clone()
    })
}

/// The last `images` of the path replaced by `labels`.
fn labels_folder(images: &Path) -> Option<PathBuf> {
    let parts: Vec<_> = images.components().collect();
    let at = parts.iter().rposition(|part| part.as_os_str() == "images")?;
    let labels: PathBuf = parts
        .iter()
        .enumerate()
        .map(|(index, part)| if index == at { std::ffi::OsStr::new("labels") } else { part.as_os_str() })
        .collect();
    labels.is_dir().then_some(labels)
}

/// The polygons of a file, and how many boxes it has.
fn read(path: &Path, ids: &[u16], yaml: &Path) -> Result<(Vec<(Area, u8)>, usize)> {
    let text = files::read_text(path, files::RECORD).map_err(|e| Error::file("read", path, e))?;
    let (mut areas, mut boxes) = (Vec::new(), 0);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: String| Error::new(format!("line {} of `{}` {what}", number + 1, path.display()));
        let mut words = line.split_whitespace();
        let id = words.next().unwrap_or_default();
        // Some exporters write whole numbers as 3.0.
        let class = id.parse::<f64>().ok().filter(|id| id.fract() == 0.0 && *id >= 0.0).map(|id| id as u16);
        let Some(at) = class.and_then(|class| ids.iter().position(|id| *id == class)) else {
            return Err(wrong(format!("is of class `{id}`")).hint(format!(
                "`{}` names {} classes, from 0",
                yaml.display(),
                ids.len()
            )));
        };
        let numbers: Option<Vec<f64>> = words.map(|word| word.parse().ok().filter(|n: &f64| n.is_finite())).collect();
        match numbers {
            Some(numbers) if numbers.len() == 4 => boxes += 1,
            Some(numbers) if numbers.len() >= 6 && numbers.len().is_multiple_of(2) => {
                let ring = numbers.as_chunks::<2>().0.to_vec();
                areas.push((Area::Polygons(vec![ring]), label(at)));
            }
            _ => {
                return Err(wrong("is neither a polygon nor a box".to_string())
                    .hint("a polygon is a class and then x and y of each corner, as shares of width and height"));
            }
        }
    }
    Ok((areas, boxes))
}
