//! The refusal of a folder of no known form: what it holds, and what to do, by its files or by the sets in its folders.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::dataset::walk::walk;
use crate::error::Error;
use crate::files;
use crate::image::formats::Format;
use crate::tools::init::json::with_keys;
use crate::tools::init::places::candidates;
use crate::tools::init::plan::{Place, folders_in};
use crate::tools::init::read;

use crate::text::shell_word;

/// Pictures that are not read as images.
const NOT_READ: [&str; 10] = ["heic", "heif", "avif", "jp2", "jxl", "dng", "cr2", "nef", "dcm", "nii"];

const INIT: &str = "structtoken data init";

/// The error of a folder of no known form.
pub(super) fn refusal(place: &Place) -> Error {
    let dir = place.dir;
    let folders: Vec<String> = folders_in(dir).into_iter().map(|(name, _)| format!("{name}/")).collect();
    let mut endings: Vec<String> = walk(dir)
        .files
        .iter()
        .filter_map(|(name, _)| Some(format!(".{}", name.rsplit('/').next()?.rsplit_once('.')?.1)))
        .collect();
    endings.sort();
    let counted: Vec<String> =
        endings.chunk_by(|a, b| a == b).map(|same| format!("{} ({})", same[0], same.len())).take(8).collect();
    let files =
        if counted.is_empty() { "no files".to_string() } else { format!("files that end in {}", counted.join(", ")) };
    let folders =
        if folders.is_empty() { "no folders".to_string() } else { format!("the folders {}", folders.join(" ")) };
    let archives = endings.iter().any(|ending| [".npz", ".mat", ".h5", ".hdf5"].contains(&ending.as_str()));
    let error =
        Error::new(format!("`{}` is not a dataset of a known form: it holds {folders} and {files}", dir.display()));
    if let Some(hint) = below(place).or_else(|| by_files(place)) {
        return error.with_hint(hint);
    }
    if archives {
        return error.with_hint(
            "archives of arrays (.npz, .mat, .h5) are not read: save each mask as PNG or .npy, named like its image",
        );
    }
    let command = place.again(false, |options| {
        (options.images, options.masks) = (Some("IMAGES".into()), Some("MASKS".into()));
    });
    error.with_hint(format!(
        "replace IMAGES and MASKS by the folders of images and masks in: {command}; known forms are folders of images and \
         masks, YOLO, COCO, VOC, LabelMe, Supervisely, VIA, CVAT, Label Studio, Cityscapes, ADE20K, KITTI, LoveDA and \
         Mapillary"
    ))
}

/// Folders below that hold images and masks side by side: each as its path, with the names of both.
fn sets_below(place: &Place) -> Vec<(String, [String; 2])> {
    let mut found = Vec::new();
    let mut folders: Vec<(String, PathBuf)> = folders_in(place.dir);
    for _ in 0..3 {
        let mut next = Vec::new();
        for (name, path) in folders.into_iter().take(1000) {
            let last = |inner: &Path| Some(inner.strip_prefix(&path).ok()?.to_str()?.to_string());
            let inner =
                Place::new(&path, &path, place.options).and_then(|inner| candidates(&inner)).unwrap_or_default();
            let apart = inner.iter().find(|one| one.images != one.masks);
            match apart.and_then(|one| Some([last(&one.images)?, last(&one.masks)?])) {
                Some(both) => found.push((name, both)),
                None => {
                    next.extend(folders_in(&path).into_iter().map(|(inner, path)| (format!("{name}/{inner}"), path)))
                }
            }
        }
        folders = next;
    }
    found
}

/// What to do about a folder of no known form, where sets lie below it.
fn below(place: &Place) -> Option<String> {
    let dir = place.dir;
    let sets = sets_below(place);
    let plain = |name: &str| !name.contains(['\'', '*', '?', '[', '$', '"', '`', '\\', '\n']);
    match sets.as_slice() {
        [] => None,
        [(name, _)] => Some(format!(
            "`{name}` in it holds images and masks; run: structtoken data init {}",
            shell_word(&dir.join(name))
        )),
        [(first, [images, masks]), ..] => {
            let depth = first.matches('/').count();
            let alike = |(name, [a, b]): &(String, [String; 2])| {
                a == images && b == masks && name.matches('/').count() == depth && plain(name)
            };
            let both = !images.contains('/') && !masks.contains('/') && plain(images) && plain(masks);
            let all = both && sets.iter().all(alike) && plain(&dir.to_string_lossy());
            let command = format!(
                "; put them into one, with the folder in each name: cd '{}' && for d in {}; do [ -d \"$d/{images}\" ] || continue; mkdir -p \"all/images/$d\" \
                 \"all/masks/$d\" && cp -r \"$d/{images}/.\" \"all/images/$d\" && cp -r \"$d/{masks}/.\" \"all/masks/$d\"; done, \
                 and then: structtoken data init '{}'",
                dir.display(),
                vec!["*"; depth + 1].join("/"),
                dir.join("all").display()
            );
            Some(format!(
                "{} folders in it hold images and masks, `{first}` first{}",
                sets.len(),
                if all {
                    command
                } else {
                    ": describe each, or put them into one `images` and one `masks`".to_string()
                }
            ))
        }
    }
}

/// What its files are, if they are something that others export too.
fn by_files(place: &Place) -> Option<String> {
    let files = walk(place.dir).files;
    let ends = |ending: &str| files.iter().find(|(name, _)| name.to_lowercase().ends_with(&format!(".{ending}")));
    let start = |path: &Path| {
        let mut start = Vec::new();
        files::open(path).ok()?.take(1 << 14).read_to_end(&mut start).ok()?;
        Some(String::from_utf8_lossy(&start).into_owned())
    };
    if let Some(hint) = without_endings(place, &files).or_else(|| yolo(place, &files)) {
        return Some(hint);
    }
    if let Some(hint) = files.iter().find_map(|(_, path)| coco(path)) {
        return Some(hint);
    }
    if let Some((name, text)) = ends("xml").and_then(|(name, path)| Some((name, start(path)?))) {
        if text.contains("<annotations") && text.contains("<image") {
            return Some(format!(
                "`{name}` is CVAT's XML, which is not read: export the task as `Segmentation mask 1.1` or `COCO 1.0`"
            ));
        }
        if text.contains("<bndbox") || text.contains("<object") {
            return Some(format!(
                "`{name}` holds boxes, as Pascal VOC has them for detection; masks are in its `SegmentationClass`"
            ));
        }
    }
    if let Some((name, _)) = ends("ndjson").or_else(|| ends("jsonl")) {
        return Some(format!(
            "`{name}` is a form that is not read: export the project as COCO, or as a mask for each image"
        ));
    }
    let unread = NOT_READ.iter().find_map(|ending| Some((ending, ends(ending)?)));
    if let Some((ending, (name, _))) = unread {
        return Some(format!("pictures that end in .{ending} are not read (`{name}`): convert them to PNG or JPEG"));
    }
    ends("npy")
        .filter(|_| files.iter().any(|(name, _)| name.ends_with(".png")))
        .map(|(name, _)| format!("arrays are read as masks, and not as images (`{name}`): save images as PNG or JPEG"))
}

/// Pictures whose names have no ending: by folder.
fn without_endings(place: &Place, files: &[(String, PathBuf)]) -> Option<String> {
    let bare = |name: &str| !name.rsplit('/').next().unwrap_or(name).contains('.');
    let picture = |path: &Path| {
        let mut start = [0; 16];
        files::open(path)
            .and_then(|mut file| file.read(&mut start))
            .is_ok_and(|read| Format::of(&start[..read]).is_some())
    };
    let mut folders: Vec<&Path> = Vec::new();
    for (_, path) in files.iter().filter(|(name, path)| bare(name) && picture(path)).take(4096) {
        let folder = path.parent()?;
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    if folders.is_empty() || folders.len() > 8 {
        return None;
    }
    let all = folders.iter().map(|folder| format!("{}/*", shell_word(folder))).collect::<Vec<_>>().join(" ");
    Some(format!(
        "pictures have no ending, by which they are found; what it says does not matter; run: for f in {all}; do mv -n -- \
         \"$f\" \"$f.png\"; done && {INIT} {}",
        shell_word(place.dir)
    ))
}

/// Labels of YOLO without the file that names classes.
fn yolo(place: &Place, files: &[(String, PathBuf)]) -> Option<String> {
    let labels: Vec<&(String, PathBuf)> = files
        .iter()
        .filter(|(name, _)| name.ends_with(".txt") && (name.starts_with("labels/") || name.contains("/labels/")))
        .collect();
    let mut most = None;
    for (_, path) in labels.iter().take(1000) {
        let mut text = String::new();
        files::open(path).ok()?.take(1 << 20).read_to_string(&mut text).ok()?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let numbers: Option<Vec<f64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
            let class = *numbers.filter(|numbers| numbers.len() >= 5)?.first()?;
            (class.fract() == 0.0 && (0.0..255.0).contains(&class)).then_some(())?;
            most = most.max(Some(class as usize));
        }
    }
    let names = (0..=most?).map(|class| format!("class {class}")).collect::<Vec<_>>().join(", ");
    let folder = |words: &[&str]| {
        let of = |(name, _): &&&(String, PathBuf)| name.rsplit_once('/').map(|(folder, _)| folder.to_string());
        let mut folders: Vec<String> = labels.iter().filter_map(|one| of(&one)).collect();
        folders.sort();
        folders.dedup();
        let fits = |folder: &&String| folder.split('/').any(|part| words.contains(&part));
        folders.iter().find(fits).map(|folder| folder.replacen("labels", "images", 1))
    };
    let train = folder(&["train", "training"]).or_else(|| folder(&["labels"]))?;
    let val = folder(&["val", "valid", "validation"]).map_or(String::new(), |val| format!("val: {val}\\n"));
    Some(format!(
        "the labels look like YOLO, which names its classes in `data.yaml`; to write one, replace these names by yours in: \
         printf 'train: {train}\\n{val}names: [{names}]\\n' > {} && {INIT} {}",
        shell_word(&place.dir.join("data.yaml")),
        shell_word(place.dir)
    ))
}

/// What is said of COCO's files that hold no outlines.
fn coco(path: &Path) -> Option<String> {
    if path.extension().is_none_or(|ending| ending != "json") {
        return None;
    }
    let shown = path.display();
    let read = |keys: &[&str]| with_keys::<Coco>(path, keys, "").ok().flatten();
    let Some(Coco { annotations }) = read(&["images", "annotations", "categories"]) else {
        if read(&["images", "annotations"]).is_some() {
            return Some(format!(
                "`{shown}` looks like COCO without `categories`, which name the classes: export them too"
            ));
        }
        // A list of annotations alone, as programs write their predictions.
        let start = read::start(path, 1 << 14).ok()?;
        if start.trim_start().starts_with('[') && start.contains("\"annotations\"") && start.contains("\"predictions\"")
        {
            return Some(format!(
                "`{shown}` is a project of Label Studio with predictions and no annotations: submit the tasks there, which makes \
                 annotations of their predictions, and export again"
            ));
        }
        let labels = ["\"polygonlabels\"", "\"brushlabels\"", "\"rectanglelabels\"", "\"ellipselabels\""];
        if start.trim_start().starts_with('[') && labels.iter().any(|key| start.contains(key)) {
            return Some(format!(
                "`{shown}` looks like Label Studio's short form (JSON-MIN), which is not read: export the project as JSON"
            ));
        }
        let is_list = start.trim_start().starts_with('[') && start.contains("\"category_id\"");
        return is_list.then(|| {
            format!(
                "`{shown}` is a list of COCO's annotations without the images and categories that they belong to: export a \
                 COCO file that has all three"
            )
        });
    };
    Some(if annotations.is_empty() {
        format!("`{shown}` is COCO with images and categories, and without any annotation: export the annotations too")
    } else {
        format!("`{shown}` is COCO with boxes and without outlines (`segmentation`): export outlines")
    })
}

/// A file of COCO, of whose annotations only the form matters.
#[derive(serde::Deserialize)]
struct Coco {
    annotations: Vec<serde::de::IgnoredAny>,
}
