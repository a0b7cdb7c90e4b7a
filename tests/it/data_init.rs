//! `structtoken data init` on a small set of each form that it knows: the TOML it writes passes the check, and a known
//! pixel has its class.

use image::{GrayImage, Luma, Rgb, RgbImage};
use structtoken::dataset::spec::DatasetSpec;
use structtoken::dataset::{Dataset, Split};
use structtoken::image::{Labels, write_index_png};
use structtoken::tools::check::check;

use crate::cli::Lab;

/// Width and height of the pictures.
pub(crate) const SIZE: (u32, u32) = (40, 32);

/// A picture unlike the others, and its folders.
pub(crate) fn picture(lab: &Lab, name: &str) {
    let tone = name.bytes().fold(7u32, |tone, byte| tone.wrapping_mul(31).wrapping_add(byte.into())).to_be_bytes();
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| Rgb([x as u8 ^ tone[1], y as u8 ^ tone[2], tone[3]])).save(path).unwrap();
}

pub(crate) fn mask(lab: &Lab, name: &str, id: impl Fn(u32, u32) -> u8) {
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_fn(SIZE.0, SIZE.1, |x, y| Luma([id(x, y)])).save(path).unwrap();
}

pub(crate) fn colors(lab: &Lab, name: &str, color: impl Fn(u32, u32) -> [u8; 3]) {
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| Rgb(color(x, y))).save(path).unwrap();
}

pub(crate) fn palette_mask(lab: &Lab, name: &str, palette: &[[u8; 3]], id: impl Fn(u32, u32) -> u8) {
    let ids = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y))).map(|(x, y)| id(x, y)).collect();
    write_index_png(lab.path(name), &Labels { width: SIZE.0 as usize, height: SIZE.1 as usize, ids }, palette).unwrap();
}

/// Two halves.
pub(crate) fn half(x: u32, _: u32) -> u8 {
    u8::from(x >= 20)
}

/// A described set, and what its images hold.
pub(crate) struct Described {
    pub(crate) spec: DatasetSpec,
}

impl Described {
    /// Runs the command on the folder `set`, checks what it wrote, and reads that.
    pub(crate) fn by_init(lab: &Lab, more: &[&str]) -> Self {
        let written = lab.ok(&[&["init", "set"][..], more].concat());
        assert_eq!(written.lines().last(), Some("set/dataset.toml"), "{written}");
        let spec = DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap();
        let report = check(&spec, None, &|_, _| ()).unwrap();
        assert!(report.ok, "{}", report.text());
        Self { spec }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.spec.classes.iter().map(|class| class.name.as_str()).collect()
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        let count = |split| self.spec.open(split, None).map_or(0, |set| set.len());
        (count(Split::Train), count(Split::Val))
    }

    /// The class of a pixel of the image of this name, in whichever split it is.
    pub(crate) fn class(&self, name: &str, x: usize, y: usize) -> String {
        for split in [Split::Train, Split::Val, Split::Test] {
            let Ok(set) = self.spec.open(split, None) else { continue };
            let Some(at) = (0..set.len()).find(|at| set.name(*at) == name) else { continue };
            let labels = set.get(at).unwrap().labels;
            return match labels.ids[y * labels.width + x] {
                255 => "ignored".to_string(),
                id => self.spec.classes[usize::from(id)].name.clone(),
            };
        }
        panic!("no image `{name}`");
    }

    /// Whether a split has an image of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let sets = [Split::Train, Split::Val, Split::Test].map(|split| self.spec.open(split, None));
        sets.iter().flatten().any(|set| (0..set.len()).any(|at| set.name(at) == name))
    }
}

#[test]
fn folders_under_their_common_names() {
    for (image, masked, splits) in [
        ("SPLIT/images/NAME.jpg", "SPLIT/masks/NAME.png", ["train", "val"]),
        ("images/SPLIT/NAME.jpg", "annotations/SPLIT/NAME.png", ["training", "validation"]),
        ("SPLIT/NAME.png", "SPLITannot/NAME.png", ["train", "val"]),
        ("SPLIT/NAME.jpg", "SPLIT_labels/NAME_L.png", ["Train", "Valid"]),
        ("SPLIT/NAME.jpg", "SPLIT/NAME_mask.png", ["train", "valid"]),
        ("SPLIT/NAME.png", "SPLIT/NAME_mask.png", ["train", "valid"]),
    ] {
        let lab = Lab::new();
        for (split, name) in splits.iter().flat_map(|split| ["a", "b", "c"].map(|name| (split, name))) {
            let named = |text: &str| format!("set/{}", text.replace("SPLIT", split).replace("NAME", name));
            picture(&lab, &named(image));
            mask(&lab, &named(masked), |x, y| half(x, y) * 3);
        }
        let set = Described::by_init(&lab, &["--names", "floor,cat"]);
        assert_eq!((set.names(), set.counts()), (vec!["floor", "cat"], (3, 3)), "{image}");
        assert_eq!((set.class("b", 19, 5), set.class("b", 20, 5)), ("floor".to_string(), "cat".to_string()));
    }
}

/// Without a split, one in five is chosen by its name, the same each time; what is there is not overwritten.
#[test]
fn a_validation_split_is_made() {
    let lab = Lab::new();
    for at in 0..10 {
        picture(&lab, &format!("set/JPEGImages/{at}.jpg"));
        mask(&lab, &format!("set/gt/{at}.png"), |x, y| half(x, y) * 255);
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "object"], (8, 2)));
    assert_eq!(set.class("7", 20, 0), "object");
    let lists = || {
        ["train", "val"].map(|split| std::fs::read_to_string(lab.path(&format!("set/dataset-{split}.txt"))).unwrap())
    };
    let before = lists();
    lab.refused(&["init", "set"], &["dataset.toml", "--yes", "--out"]);
    lab.ok(&["init", "set", "--yes"]);
    assert_eq!(lists(), before);
    // Elsewhere, and called from elsewhere.
    lab.ok(&["init", "set", "--out", "made/other.toml"]);
    let spec = DatasetSpec::read(&lab.path("made/other.toml")).unwrap();
    assert_eq!(spec.open(Split::Train, None).unwrap().len(), 8);
    assert!(lab.path("made/other-val.txt").exists());
    // The folder as such.
    let report = lab.ok(&["data", "check", "set"]);
    assert!(report.contains("10 pairs") && report.contains("no faults"), "{report}");
}

#[test]
fn masks_of_colours_with_names_in_a_file() {
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/images/{at}.png"));
        colors(
            &lab,
            &format!("set/labels/{at}.png"),
            |x, y| if half(x, y) == 1 { [0, 0, 142] } else { [128, 64, 128] },
        );
    }
    lab.write("set/class_dict.csv", "name,r,g,b\nroad,128,64,128\ncar,0,0,142\n");
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["car", "road"], (3, 1)));
    assert_eq!(set.class("2", 20, 0), "car");
    // Smoothed edges are not classes.
    for at in [1, 2] {
        let edge = |x: u32| f64::from(x.clamp(17, 23) - 17) / 6.0;
        let mix = |a: u8, b: u8, x| (f64::from(a) + (f64::from(b) - f64::from(a)) * edge(x)).round() as u8;
        colors(&lab, &format!("set/labels/{at}.png"), |x, y| {
            if y == 7 {
                [mix(128, 0, x), mix(64, 0, x), mix(128, 142, x)]
            } else {
                [[128, 64, 128], [0, 0, 142]][usize::from(half(x, y))]
            }
        });
    }
    lab.refused(&["init", "set", "--yes"], &["smoothed", "nearest", "data check"]);
}

#[test]
fn what_cannot_be_known_is_said() {
    let lab = Lab::new();
    lab.write("set/notes/a.txt", "words");
    lab.refused(&["init", "set"], &["notes/", ".txt (1)", "--images", "--masks"]);
    lab.refused(&["init", "nowhere"], &["nowhere"]);
    for at in 0..3 {
        picture(&lab, &format!("set/images/photo_{at}.png"));
        mask(&lab, &format!("set/masks/label_{at}.png"), half);
    }
    lab.refused(&["init", "set"], &["photo_0.png", "label_0.png", "mv "]);
    for at in 0..3 {
        std::fs::rename(lab.path(&format!("set/masks/label_{at}.png")), lab.path(&format!("set/masks/photo_{at}.png")))
            .unwrap();
    }
    lab.refused(&["init", "set", "--masks", "none"], &["none", "--masks"]);
    // Names that are not known are asked for, and the set can be used without.
    let output = lab.run(&["init", "set"]);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && talk.contains("--names"), "{talk}");
    lab.write("set/masks/photo_0.png", "");
    assert!(lab.run(&["init", "set", "--yes"]).status.success(), "the check is for that");
}

/// A triangle and a square, in shares of the picture.
const TRIANGLE: [[f64; 2]; 3] = [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]];
const SQUARE: [[f64; 2]; 4] = [[0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [0.5, 1.0]];

#[test]
fn yolo_polygons() {
    let lab = Lab::new();
    let line = |class: usize, ring: &[[f64; 2]]| {
        let numbers: Vec<String> = ring.as_flattened().iter().map(f64::to_string).collect();
        format!("{class} {}\n", numbers.join(" "))
    };
    for split in ["train", "valid"] {
        for at in 0..3 {
            picture(&lab, &format!("set/{split}/images/{at}.jpg"));
            // The second covers the first.
            let text = line(1, &SQUARE) + &line(0, &TRIANGLE) + &line(0, &[[0.75, 0.75], [1.0, 0.75], [1.0, 1.0]]);
            lab.write(&format!("set/{split}/labels/{at}.txt"), text + "0 0.5 0.5 0.1 0.1\n");
        }
        // No object at all.
        picture(&lab, &format!("set/{split}/images/empty.jpg"));
    }
    lab.write(
        "set/data.yaml",
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['dog', 'cat']\nroboflow:\n  version: 1\n",
    );
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "dog", "cat"], (4, 4)));
    let at = |x, y| set.class("1", x, y);
    assert_eq!([at(0, 0), at(20, 16), at(39, 24), at(19, 15), at(39, 31)], ["dog", "cat", "dog", "background", "dog"]);
    assert_eq!(set.class("empty", 0, 0), "background");

    lab.refused(&["init", "set"], &["there already", "--yes"]);
    lab.write("set/valid/labels/1.txt", "0 0.1 0.2 0.3\n");
    let said = |parts: &[&str]| {
        let output = lab.run(&["init", "set", "--yes"]);
        let talk = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && parts.iter().all(|part| talk.contains(part)), "{talk}");
    };
    said(&["images were left out", "line 1", "valid/labels/1.txt", "neither a polygon nor a box"]);
    lab.write("set/valid/labels/1.txt", "7 0.1 0.2 0.3 0.4 0.5 0.6\n");
    said(&["images were left out", "class `7`"]);
    lab.write("set/data.yaml", "train: nowhere\nval: valid/images\nnames: {0: dog, 1: cat}\n");
    lab.refused(&["init", "set", "--yes"], &["[train]", "`nowhere`"]);
    lab.write("set/data.yaml", "names: [a\n");
    lab.refused(&["init", "set", "--yes"], &["data.yaml"]);
}

/// A COCO file of these images, each with a polygon, plain and compressed run lengths.
fn coco(images: &[&str]) -> String {
    let (w, h) = (SIZE.0 as usize, SIZE.1 as usize);
    let pictures: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(id, name)| serde_json::json!({"id": id + 10, "file_name": name, "width": w, "height": h}))
        .collect();
    let annotation = |image: usize, category: i64, segmentation: serde_json::Value| serde_json::json!({"id": 1, "image_id": image + 10, "category_id": category, "segmentation": segmentation, "iscrowd": 0});
    let annotations: Vec<_> = (0..images.len())
        .flat_map(|at| {
            // Two pieces of one object; rows 10 to 14 of the first column; the same of the second, as 42, 5, 1233.
            let pieces = serde_json::json!([[20, 16, 30, 16, 30, 26, 20, 26], [32, 0, 40, 0, 40, 8, 32, 8]]);
            let plain = serde_json::json!({"size": [h, w], "counts": [10, 5, w * h - 15]});
            let packed = serde_json::json!({"size": [h, w], "counts": "Z15aV1"});
            [annotation(at, 7, pieces), annotation(at, 3, plain), annotation(at, 3, packed)]
        })
        .collect();
    let categories =
        serde_json::json!([{"id": 0, "name": "animals"}, {"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]);
    serde_json::json!({"images": pictures, "annotations": annotations, "categories": categories}).to_string()
}

#[test]
fn coco_outlines_and_run_lengths() {
    let lab = Lab::new();
    for split in ["train2017", "val2017"] {
        ["a.jpg", "b.jpg"].iter().for_each(|name| picture(&lab, &format!("set/{split}/{name}")));
        lab.write(&format!("set/annotations/instances_{split}.json"), coco(&["a.jpg", "b.jpg"]));
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "dog", "cat"], (2, 2)));
    let at = |x, y| set.class("b", x, y);
    assert_eq!(
        [at(20, 16), at(39, 7), at(31, 16), at(0, 9), at(0, 10), at(0, 14), at(1, 10)]
            .map(|s| s.chars().next().unwrap()),
        ['c', 'c', 'b', 'b', 'd', 'd', 'd']
    );
    lab.write("set/annotations/instances_val2017.json", coco(&["a.jpg", "c.jpg"]));
    lab.ok(&["init", "set", "--yes"]);
    lab.write("set/annotations/instances_val2017.json", coco(&["c.jpg"]));
    lab.refused(&["init", "set", "--yes"], &["c.jpg", "--images"]);
    lab.write(
        "set/annotations/instances_val2017.json",
        coco(&["a.jpg"]).replace("\"counts\":[10,5", "\"counts\":[11,5"),
    );
    lab.refused(&["init", "set", "--yes"], &["annotation 1", "val2017.json", "add up"]);
    lab.write("set/annotations/instances_val2017.json", coco(&["a.jpg"]).replace("\"width\":40", "\"width\":41"));
    lab.refused(&["init", "set", "--yes"], &["val2017.json", "40x32"]);
    // One file and no splits, the images beside it: an export of one task.
    let lab = Lab::new();
    let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"];
    names.iter().for_each(|name| picture(&lab, &format!("set/images/{name}")));
    lab.write("set/annotations/instances_default.json", coco(&names));
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.counts(), set.class("e", 20, 16)), ((4, 1), "cat".to_string()));
}

#[test]
fn pascal_voc_and_cvat() {
    let voc: Vec<[u8; 3]> = DatasetSpec::find("voc").unwrap().classes().colors;
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/JPEGImages/{at}.jpg"));
        palette_mask(&lab, &format!("set/SegmentationClass/{at}.png"), &voc, |x, y| {
            if x == 20 { 255 } else { half(x, y) * 15 }
        });
    }
    lab.write("set/ImageSets/Segmentation/train.txt", "0\n1\n2\n");
    lab.write("set/ImageSets/Segmentation/val.txt", "3\n");
    lab.write("set/ImageSets/Segmentation/trainval.txt", "0\n1\n2\n3\n");
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names().len(), set.counts()), (21, (3, 1)));
    assert_eq!([set.class("3", 21, 0), set.class("3", 20, 0)], ["person", "ignored"]);

    // CVAT: its own classes, in colours or in a palette, and one list for all.
    for palette in [false, true] {
        let lab = Lab::new();
        let shown = [[0, 0, 0], [250, 50, 83], [61, 61, 245]];
        for at in 0..5 {
            picture(&lab, &format!("set/JPEGImages/f/{at}.jpg"));
            let name = format!("set/SegmentationClass/f/{at}.png");
            match palette {
                true => palette_mask(&lab, &name, &shown, |x, y| half(x, y) * 2),
                false => colors(&lab, &name, |x, y| shown[usize::from(half(x, y) * 2)]),
            }
        }
        lab.write(
            "set/labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:250,50,83::\nstem:61,61,245::\n",
        );
        lab.write("set/ImageSets/Segmentation/default.txt", "f/0\nf/1\nf/2\nf/3\nf/4\n");
        let set = Described::by_init(&lab, &[]);
        assert_eq!((set.names(), set.counts()), (vec!["background", "stem"], (4, 1)), "palette: {palette}");
        assert_eq!(set.class("f/2", 20, 0), "stem");
        std::fs::remove_dir_all(lab.path("set/JPEGImages")).unwrap();
        lab.refused(&["init", "set", "--yes"], &["JPEGImages", "--images"]);
    }
}

#[test]
fn cityscapes_and_ade20k_as_they_are_shipped() {
    let lab = Lab::new();
    for (split, city) in [("train", "aachen"), ("val", "munster")] {
        for at in 0..2 {
            let stem = format!("{split}/{city}/{city}_{at}");
            picture(&lab, &format!("set/leftImg8bit/{stem}_leftImg8bit.png"));
            mask(&lab, &format!("set/gtFine/{stem}_gtFine_labelIds.png"), |x, y| [4, 26][usize::from(half(x, y))]);
            colors(&lab, &format!("set/gtFine/{stem}_gtFine_color.png"), |_, _| [0, 0, 142]);
        }
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names().len(), set.counts()), (19, (2, 2)));
    assert_eq!([set.class("munster/munster_1", 20, 0), set.class("munster/munster_1", 0, 0)], ["car", "ignored"]);

    let lab = Lab::new();
    for split in ["training", "validation"] {
        picture(&lab, &format!("set/images/{split}/ADE_1.jpg"));
        picture(&lab, &format!("set/images/{split}/ADE_2.jpg"));
        mask(&lab, &format!("set/annotations/{split}/ADE_1.png"), |x, y| half(x, y) * 13);
        mask(&lab, &format!("set/annotations/{split}/ADE_2.png"), |x, y| half(x, y) * 150);
    }
    lab.write("set/objectInfo150.txt", "");
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names().len(), set.counts()), (150, (2, 2)));
    assert_eq!(
        [set.class("ADE_1", 20, 0), set.class("ADE_2", 20, 0), set.class("ADE_1", 0, 0)],
        ["person", "flag", "ignored"]
    );
}

#[test]
fn labelme_shapes() {
    let lab = Lab::new();
    let mut bits = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bits);
    GrayImage::from_fn(4, 3, |x, _| Luma([u8::from(x > 0)])).write_with_encoder(encoder).unwrap();
    let bits = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bits);
    for at in 0..5 {
        picture(&lab, &format!("set/{at}.jpg"));
        let shapes = serde_json::json!([
            {"label": "cat", "points": [[0, 0], [20, 0], [0, 16]], "shape_type": "polygon"},
            {"label": "dog", "points": [[30, 20], [20, 10]], "shape_type": "rectangle"},
            {"label": "cat", "points": [[25, 15], [25, 17]], "shape_type": "circle"},
            {"label": "dog", "points": [[5, 25], [8, 27]], "shape_type": "mask", "mask": bits},
            {"label": "__ignore__", "points": [[36, 0], [40, 0], [40, 4], [36, 4]]},
            {"label": "cat", "points": [[1, 1]], "shape_type": "point"},
        ]);
        let file = serde_json::json!({"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": format!("{at}.jpg"),
            "imageData": null, "imageHeight": SIZE.1, "imageWidth": SIZE.0});
        lab.write(&format!("set/{at}.json"), file.to_string());
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "cat", "dog"], (4, 1)));
    let at = |x, y| set.class("3", x, y);
    assert_eq!(
        [at(0, 0), at(20, 10), at(29, 19), at(25, 15), at(6, 25), at(5, 25), at(39, 0), at(39, 31)],
        ["cat", "dog", "dog", "cat", "dog", "background", "ignored", "background"]
    );
    lab.refused(&["init", "set"], &["there already"]);
    std::fs::remove_file(lab.path("set/3.jpg")).unwrap();
    let without = lab.run(&["init", "set", "--yes"]);
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(without.status.success() && said.contains("`3.jpg` of `3.json`"), "{said}");
}

#[test]
fn label_studio_masks() {
    let lab = Lab::new();
    let mut tasks = Vec::new();
    for task in 1..=5 {
        picture(&lab, &format!("set/images/{task}.jpg"));
        mask(&lab, &format!("set/task-{task}-annotation-{}-by-1-tag-cat-0.png", task + 3), |x, y| half(x, y) * 255);
        mask(&lab, &format!("set/task-{task}-annotation-{}-by-1-tag-guide-dog-0.png", task + 3), |x, _| {
            u8::from(x < 5) * 255
        });
        tasks.push(serde_json::json!({"id": task, "data": {"image": format!("/data/upload/2/0a1b2c3d-{task}.jpg")}}));
    }
    lab.refused(&["init", "set"], &["tasks", "JSON"]);
    lab.write("set/project.json", serde_json::Value::from(tasks).to_string());
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "cat", "guide-dog"], (4, 1)));
    assert_eq!([(20, 0), (4, 0), (5, 0)].map(|(x, y)| set.class("images/4", x, y)), ["cat", "guide-dog", "background"]);
    std::fs::remove_file(lab.path("set/images/2.jpg")).unwrap();
    lab.refused(&["init", "set", "--yes"], &["task 2", "2.jpg"]);
}

#[test]
fn what_init_prints() {
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        mask(&lab, &format!("set/masks/{at}.png"), |x, y| if (x, y) == (0, 0) { 255 } else { half(x, y) });
    }
    let output = lab.run(&["init", "set", "--names", "ground,thing"]);
    insta::assert_snapshot!("init_talk", String::from_utf8(output.stderr).unwrap());
    insta::assert_snapshot!("init_toml", std::fs::read_to_string(lab.path("set/dataset.toml")).unwrap());
}
