//! Forms of annotations: the bytes are one file of a small set, which is looked at and written as `init` does.

use std::path::Path;
use std::sync::LazyLock;

use structtoken::image::{Image, Labels, encode_index_png, encode_png};
use structtoken::tools::init::{InitOptions, detect_format, write};

/// Width and height of the pictures.
const SIZE: [usize; 2] = [8, 6];

static PICTURE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let [width, height] = SIZE;
    let pixels = (0..width * height * 3).map(|at| (at * 7) as u8).collect();
    encode_png(&Image { width, height, pixels }).unwrap()
});

static MASK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let [width, height] = SIZE;
    let ids = (0..width * height).map(|at| (at % 3) as u8).collect();
    encode_index_png(&Labels { width, height, ids }, &[[0; 3], [128, 0, 0], [0, 128, 0]]).unwrap()
});

/// A folder with these files.
fn set(files: &[(&str, &[u8])], options: &InitOptions) {
    let folder = tempfile::tempdir().unwrap();
    let before: Vec<_> = files.iter().map(|(name, bytes)| (folder.path().join("set").join(name), *bytes)).collect();
    for (path, bytes) in &before {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let (set, toml) = (folder.path().join("set"), folder.path().join("set/dataset.toml"));
    if let Ok(plan) = detect_format(&set, &toml, options, &|_, _| ()) {
        write(&plan, true, &|_, _| ()).ok();
    }
    // Nothing outside of the set, and nothing that was there.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    before.iter().for_each(|(path, bytes)| assert!(std::fs::read(path).unwrap() == *bytes, "{}", path.display()));
    assert!(!Path::new("/dataset-masks").exists());
}

/// COCO's JSON.
pub fn coco(bytes: &[u8]) {
    set(&[("images/0.png", &PICTURE), ("images/1.png", &PICTURE), ("a.json", bytes)], &InitOptions::default());
}

/// LabelMe's JSON.
pub fn labelme(bytes: &[u8]) {
    set(&[("0.png", &PICTURE), ("0.json", bytes)], &InitOptions::default());
}

/// A file of YOLO's polygons.
pub fn yolo_txt(bytes: &[u8]) {
    let yaml = b"train: images\nnames: [a, b]\n";
    let options = InitOptions { pixels: bytes.len() % 2 == 1, ..InitOptions::default() };
    set(&[("images/0.png", &PICTURE), ("labels/0.txt", bytes), ("data.yaml", yaml)], &options);
}

/// YOLO's `data.yaml`.
pub fn yolo_yaml(bytes: &[u8]) {
    let labels = b"0 0 0 1 0 1 1\n";
    set(&[("images/0.png", &PICTURE), ("labels/0.txt", labels), ("data.yaml", bytes)], &InitOptions::default());
}

/// Label Studio's JSON beside masks of tasks.
pub fn label_studio(bytes: &[u8]) {
    let name = "task-1-annotation-2-by-3-tag-cat-0.png";
    set(&[("images/0.png", &PICTURE), (name, &MASK), ("project.json", bytes)], &InitOptions::default());
}

/// Files of class names, of any form.
pub fn class_names(bytes: &[u8]) {
    let names = ["classes.txt", "labels.txt", "class_dict.csv", "labelmap.txt", "config.json"];
    let name = names[bytes.len() % names.len()];
    set(&[("images/0.png", &PICTURE), ("masks/0.png", &MASK), (name, bytes)], &InitOptions::default());
}

/// Supervisely's JSON.
pub fn supervisely(bytes: &[u8]) {
    set(&[("ds/img/0.png", &PICTURE), ("ds/ann/0.png.json", bytes)], &InitOptions::default());
}

/// VIA's JSON, or its CSV.
pub fn via(bytes: &[u8]) {
    let name = if bytes.starts_with(b"{") { "via.json" } else { "via.csv" };
    set(&[("0.png", &PICTURE), (name, bytes)], &InitOptions::default());
}
