//! `structtoken data init` on masks and outlines whose values and names are not plain: read by rule, or asked, never
//! guessed in silence. Every command that a refusal offers is run.

use crate::cli::Lab;
use crate::data_init::{Described, SIZE, colors, half, mask, palette_mask, picture};
use structtoken::dataset::spec::{ClassSpec, DatasetSpec};

/// A set of `count` images whose masks hold these values in stripes; the `at`-th may differ.
fn stripes(lab: &Lab, count: usize, values: impl Fn(usize) -> Vec<u8>) {
    for at in 0..count {
        picture(lab, &format!("set/images/{at}.png"));
        let values = values(at);
        mask(lab, &format!("set/masks/{at}.png"), |x, _| values[(x / 5) as usize % values.len()]);
    }
}

/// The classes that the description of the folder `set` has, each with its values, and what it ignores.
pub(crate) fn classes(lab: &Lab) -> Vec<String> {
    let spec = DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap();
    let class = |class: &ClassSpec| {
        let values: Vec<String> = class.source.iter().flatten().map(ToString::to_string).collect();
        format!("{} {}", values.join("+"), class.name)
    };
    spec.classes.iter().map(class).chain(spec.ignore.iter().map(|value| format!("{value} -"))).collect()
}

fn init(lab: &Lab, more: &[&str]) -> (Vec<String>, String) {
    let output = lab.run(&[&["init", "set"][..], more].concat());
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{talk}");
    (classes(lab), talk)
}

#[test]
fn greys_in_steps_are_classes_and_255_is_void_beside_small_ids() {
    for (values, expected) in [
        (&[0, 127, 255][..], &["0 class 0", "127 class 127", "255 class 255"][..]),
        (&[0, 85, 170, 255], &["0 class 0", "85 class 85", "170 class 170", "255 class 255"]),
        (&[0, 128, 255], &["0 class 0", "128 class 128", "255 class 255"]),
        (&[0, 255], &["0 background", "255 object"]),
        (&[0, 1, 255], &["0 class 0", "1 class 1", "255 -"]),
        (&[1, 2, 3, 255], &["1 class 1", "2 class 2", "3 class 3", "255 -"]),
    ] {
        let lab = Lab::new();
        stripes(&lab, 4, |_| values.to_vec());
        let (classes, talk) = init(&lab, &[]);
        assert_eq!(classes, expected, "{talk}");
        assert!(values == [0, 255] || talk.contains("255"), "{talk}");
    }
    // Neither: asked, and both answers work.
    let lab = Lab::new();
    stripes(&lab, 4, |_| vec![0, 15, 255]);
    lab.refused(&["init", "set"], &["0, 15, 255", "--void none", "--void 255"]);
    assert_eq!(init(&lab, &["--void", "none"]).0, ["0 class 0", "15 class 15", "255 class 255"]);
    assert_eq!(init(&lab, &["--void", "255", "--yes"]).0, ["0 class 0", "15 class 15", "255 -"]);
    assert_eq!(init(&lab, &["--void", "0,255", "--yes"]).0, ["15 class 15", "0 -", "255 -"]);
}

#[test]
fn two_ways_to_store_the_same_are_refused() {
    for (ids, grays, joined) in [
        (&[0, 1][..], &[0, 255][..], &["0 class 0", "1+255 class 1"][..]),
        (&[0, 1, 2], &[0, 127, 255], &["0 class 0", "1+127 class 1", "2+255 class 2"]),
        (&[0, 1, 2, 3], &[0, 85, 170, 255], &["0 class 0", "1+85 class 1", "2+170 class 2", "3+255 class 3"]),
    ] {
        let lab = Lab::new();
        stripes(&lab, 6, |at| if at < 4 { ids.to_vec() } else { grays.to_vec() });
        lab.refused(
            &["init", "set"],
            &["4 masks", "2 masks", "masks/0.png", "masks/4.png", "--void none", "--void 255"],
        );
        assert_eq!(init(&lab, &["--void", "none"]).0, joined);
        let (classes, _) = init(&lab, &["--void", "255", "--yes"]);
        assert!(classes.contains(&"255 -".to_string()), "{classes:?}");
    }
}

#[test]
fn names_belong_to_values_where_positions_fit() {
    for (file, text, values, expected) in [
        (
            "labels.txt",
            "__ignore__\n_background_\nplane\nboat\n",
            &[0, 1, 2, 255][..],
            &["0 _background_", "1 plane", "2 boat", "255 -"][..],
        ),
        ("labels.txt", "__ignore__\n_background_\nplane\nboat\n", &[0, 2], &["0 _background_", "2 boat", "255 -"]),
        ("class_names.txt", "_background_\nplane\nboat\n", &[0, 2, 255], &["0 _background_", "2 boat", "255 -"]),
        ("classes.txt", "plane\nboat\n", &[0, 1, 2], &["0 background", "1 plane", "2 boat"]),
        ("classes.txt", "sky\nplane\nboat\n", &[0, 1, 2], &["0 sky", "1 plane", "2 boat"]),
        ("classes.txt", "plane\nboat\n", &[1, 2], &["1 plane", "2 boat"]),
        ("classes.txt", "plane\nboat\ncar\n", &[0, 1, 3], &[]),
        ("classes.txt", "plane\nboat\n", &[0, 5], &["0 plane", "5 boat"]),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, leaf\n", &[0, 1], &["0 background", "1 leaf"]),
        ("class_dict.csv", "\u{feff}name,r,g,b\r\nroad,0,0,0\r\ncar,9,9,9\r\n", &[0, 1], &["0 road", "1 car"]),
    ] {
        let lab = Lab::new();
        stripes(&lab, 4, |_| values.to_vec());
        lab.write(&format!("set/{file}"), text);
        if expected.is_empty() {
            lab.refused(&["init", "set"], &["two readings", "0 = plane", "1 = plane", "--names-from 1"]);
            assert_eq!(init(&lab, &["--names-from", "1"]).0, ["0 background", "1 plane", "3 car"]);
            assert_eq!(init(&lab, &["--names", "plane,boat,car", "--yes"]).0, ["0 plane", "1 boat", "3 car"]);
            continue;
        }
        let (classes, talk) = init(&lab, &[]);
        assert_eq!(classes, expected, "{file} {text}: {talk}");
    }
}

#[test]
fn names_that_do_not_fit_are_asked_for() {
    // Fewer names than values, in a file and given.
    let lab = Lab::new();
    stripes(&lab, 4, |_| vec![0, 1, 2, 3]);
    lab.refused(&["init", "set", "--names", "a,b"], &["2 names for 4 values", "0, 1, 2, 3", "--names a,b,c,d"]);
    lab.write("set/classes.txt", "a\nb\n");
    lab.refused(&["init", "set"], &["`classes.txt`", "2 names for 4 values"]);
    assert_eq!(init(&lab, &["--names", "a,b,c,d"]).0, ["0 a", "1 b", "2 c", "3 d"]);
    // More names than values: given ones are kept, and it is said.
    let (classes, talk) = init(&lab, &["--names", "a,b,c,d,e", "--yes"]);
    assert_eq!((classes.len(), talk.contains("no mask shows `e`: kept")), (5, true), "{talk}");
    // In a file, a background may be meant or not.
    lab.write("set/classes.txt", "a\nb\nc\nd\ne\nf\n");
    lab.refused(
        &["init", "set", "--yes"],
        &["two readings", "0 = a", "0 = background, 1 = a", "--names-from 0", "--names-from 1"],
    );
    assert_eq!(init(&lab, &["--names-from", "0", "--yes"]).0[..2], ["0 a", "1 b"]);
    assert_eq!(init(&lab, &["--names-from", "1", "--yes"]).0[..2], ["0 background", "1 a"]);
    // Colours have no order that a file of names could follow.
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/images/{at}.png"));
        colors(&lab, &format!("set/masks/{at}.png"), |x, y| [[9, 80, 3], [200, 7, 7]][usize::from(half(x, y))]);
    }
    lab.write("set/classes.txt", "road\ncar\n");
    lab.refused(&["init", "set"], &["[9, 80, 3], [200, 7, 7]", "class_dict.csv", "--names"]);
    lab.write("set/class_dict.csv", "name,r,g,b\ncar,200,7,7\nroad,9,80,3\n");
    assert_eq!(init(&lab, &[]).0, ["[9, 80, 3] road", "[200, 7, 7] car"]);
}

#[test]
fn colours_and_palettes_name_classes() {
    // Greys saved as colours: the numbers are the greys.
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/images/{at}.png"));
        colors(&lab, &format!("set/masks/{at}.png"), |x, _| [[0; 3], [1; 3], [2; 3], [255; 3]][(x / 10) as usize]);
    }
    lab.write("set/classes.txt", "sky\ncar\nman\n");
    let (classes, talk) = init(&lab, &[]);
    assert_eq!(classes, ["[0, 0, 0] sky", "[1, 1, 1] car", "[2, 2, 2] man", "[255, 255, 255] -"]);
    assert!(talk.contains("grey values saved as colours"), "{talk}");

    // `class_dict.csv` names the colours of a palette; the order of lines does not matter.
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/images/{at}.png"));
        palette_mask(&lab, &format!("set/masks/{at}.png"), &[[10, 10, 10], [200, 0, 0], [0, 0, 200]], |x, _| {
            (x / 20) as u8 * 2
        });
    }
    lab.write("set/class_dict.csv", "name,r,g,b\nblue,0,0,200\nred,200,0,0\ndark,10,10,10\n");
    let (classes, talk) = init(&lab, &[]);
    assert_eq!(classes, ["0 dark", "2 blue"]);
    assert!(talk.contains("palette") && talk.contains("`red`"), "{talk}");

    // Published colours, in palettes and as they are.
    for (set, names) in [("voc", ["person", "car"]), ("cityscapes", ["person", "car"]), ("ade20k", ["person", "car"])] {
        let spec = DatasetSpec::find(set).unwrap();
        let of = |name: &str| spec.classes.iter().position(|class| class.name == name).unwrap();
        let color = |at: usize| spec.classes[at].color.unwrap();
        let lab = Lab::new();
        for at in 0..4 {
            picture(&lab, &format!("set/images/{at}.png"));
            colors(&lab, &format!("set/masks/{at}.png"), |x, y| color(of(names[usize::from(half(x, y))])));
        }
        let (classes, talk) = init(&lab, &[]);
        assert!(
            names.iter().all(|name| classes.iter().any(|class| class.ends_with(name))),
            "{set}: {classes:?} {talk}"
        );
        assert!(talk.contains("--names"), "{talk}");
    }
}

/// Roboflow writes the table into each split; they must agree.
#[test]
fn tables_of_splits_must_agree() {
    let lab = Lab::new();
    for (split, at) in ["train", "valid"].iter().flat_map(|split| (0..3).map(move |at| (split, at))) {
        picture(&lab, &format!("set/{split}/{at}.jpg"));
        mask(&lab, &format!("set/{split}/{at}_mask.png"), half);
        lab.write(&format!("set/{split}/_classes.csv"), "Pixel Value, Class\n0, background\n1, leaf\n");
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "leaf"], (3, 3)));
    lab.write("set/valid/_classes.csv", "Pixel Value, Class\n0, background\n1, stem\n");
    lab.refused(&["init", "set", "--yes"], &["train/_classes.csv", "valid/_classes.csv", "--names"]);
    lab.ok(&["init", "set", "--yes", "--names", "ground,leaf"]);
}

#[test]
fn text_of_other_encodings_is_read_or_asked() {
    let utf16: Vec<u8> = "\u{feff}天空\r\n道路\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, names) in [
        (b"\xef\xbb\xbfsky\r\nroad\r\n".to_vec(), ["0 sky", "1 road"]),
        (utf16, ["0 天空", "1 道路"]),
        (b"\xcc\xec\xbf\xd5\n\xb5\xc0\xc2\xb7\n".to_vec(), ["0 天空", "1 道路"]),
        (b"Stra\xdfe\nT\xfcr\n".to_vec(), ["0 Straße", "1 Tür"]),
    ] {
        let lab = Lab::new();
        stripes(&lab, 4, |_| vec![0, 1]);
        lab.write("set/classes.txt", bytes);
        assert_eq!(init(&lab, &[]).0, names);
    }
    let lab = Lab::new();
    stripes(&lab, 4, |_| vec![0, 1]);
    lab.write("set/classes.txt", b"caf\xe9\xe8\nroad\n");
    lab.refused(&["init", "set"], &["classes.txt", "GBK", "Latin-1", "caféè", "--text gbk", "--text latin1"]);
    assert_eq!(init(&lab, &["--text", "latin1"]).0, ["0 caféè", "1 road"]);
    lab.ok(&["init", "set", "--text", "gbk", "--yes"]);
}

/// Writes a YOLO set of `count` training images with a square each, in shares or pixels.
fn yolo(lab: &Lab, count: usize, in_pixels: impl Fn(usize) -> bool) {
    for at in 0..count {
        picture(lab, &format!("set/images/train/{at}.jpg"));
        let scale = if in_pixels(at) { [f64::from(SIZE.0), f64::from(SIZE.1)] } else { [1.0; 2] };
        let ring =
            [[0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [0.5, 1.0]].map(|[x, y]| format!("{} {}", x * scale[0], y * scale[1]));
        lab.write(&format!("set/labels/train/{at}.txt"), format!("0 {}\n", ring.join(" ")));
    }
    lab.write("set/data.yaml", "train: images/train\nnames: {0: 7}\n");
}

#[test]
fn yolo_coordinates_are_checked() {
    let lab = Lab::new();
    yolo(&lab, 6, |_| true);
    lab.refused(&["init", "set"], &["line 1", "pixels", "6 of 6", "--pixels"]);
    let set = Described::by_init(&lab, &["--pixels"]);
    assert_eq!(
        (set.names(), set.class("3", 20, 16), set.class("3", 19, 16)),
        (vec!["background", "7"], "7".into(), "background".into())
    );
    // A few files: these images are left out, or read.
    let lab = Lab::new();
    yolo(&lab, 6, |at| at == 2);
    let (_, talk) = init(&lab, &[]);
    assert!(talk.contains("images were left out") && talk.contains("2.txt") && talk.contains("--pixels"), "{talk}");
    assert!(!lab.path("set/dataset-masks/train/2.png").exists());
    let (_, talk) = init(&lab, &["--yes", "--pixels"]);
    assert!(talk.contains("files hold pixels"), "{talk}");
    assert!(lab.path("set/dataset-masks/train/2.png").exists());
    // A confidence, lines, boxes; a border that is passed by rounding.
    let lab = Lab::new();
    yolo(&lab, 6, |_| false);
    lab.write(
        "set/labels/train/0.txt",
        "0 0 0 1.004 0 1 1 0.93\n0 0.1 0.1 0.2 0.2\n0 0.1 0.1 0.2 0.2 0.5\n0 0.1 0.1\n",
    );
    let (_, talk) = init(&lab, &[]);
    for part in
        ["polygons have an odd number of values", "boxes", "polygons of fewer than 3 corners", "line 3", "0.txt"]
    {
        assert!(talk.contains(part), "{part}: {talk}");
    }
    // Beyond the image even as pixels.
    lab.write("set/labels/train/1.txt", "0 0 0 400 0 400 300\n");
    let (_, talk) = init(&lab, &["--yes", "--pixels"]);
    assert!(talk.contains("images were left out") && talk.contains("40x32"), "{talk}");
}

#[test]
fn yolo_lists_and_several_folders() {
    let lab = Lab::new();
    yolo(&lab, 6, |_| false);
    lab.write("set/train.txt", "./images/train/0.jpg\r\n/home/me/set/images/train/1.jpg\nimages\\train\\2.jpg\n");
    lab.write("set/val.txt", "images/train/4.jpg\n");
    lab.write("set/data.yaml", "path: /home/me/set\ntrain: train.txt\nval: val.txt\nnames: [1, yes, 2.5]\n");
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.counts(), set.names()[1]), ((3, 1), "1"));
    lab.write("set/val.txt", "images/train/9.jpg\n");
    lab.refused(&["init", "set", "--yes"], &["line 1", "val.txt", "9.jpg"]);
    // Two folders for one split.
    let lab = Lab::new();
    for folder in ["a", "b"] {
        picture(&lab, &format!("set/{folder}/images/1.jpg"));
        lab.write(&format!("set/{folder}/labels/1.txt"), "0 0 0 1 0 1 1\n");
    }
    picture(&lab, "set/c/images/1.jpg");
    lab.write("set/c/labels/1.txt", "0 0 0 1 0 1 1\n");
    lab.write("set/data.yaml", "train: [a/images, b/images]\nval: c/images\nnames: ['x']\n");
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.counts(), set.class("b/images/1", 30, 5)), ((2, 1), "x".to_string()));
}

/// A JPEG that EXIF turns by 90 degrees: outlines are of the stored or of the shown picture, as their size says.
#[test]
fn outlines_are_turned_with_their_image() {
    let exif = |lab: &Lab, name: &str| {
        picture(lab, name);
        let bytes = std::fs::read(lab.path(name)).unwrap();
        let tiff =
            [b"II*\0".as_slice(), &[8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]].concat();
        let length = (tiff.len() + 8) as u16;
        let note = [&[0xff, 0xe1][..], &length.to_be_bytes(), b"Exif\0\0", &tiff].concat();
        std::fs::write(lab.path(name), [&bytes[..2], &note, &bytes[2..]].concat()).unwrap();
    };
    let (w, h) = SIZE;
    for (size, x, y, say) in [([w, h], 31, 0, "rotated with them"), ([h, w], 0, 0, "of the rotated size")] {
        let lab = Lab::new();
        ["a", "b", "c"].iter().for_each(|name| exif(&lab, &format!("set/{name}.jpg")));
        for name in ["a", "b", "c"] {
            let file = serde_json::json!({"imagePath": format!("{name}.jpg"), "imageWidth": size[0], "imageHeight": size[1],
                "shapes": [{"label": "x", "points": [[0, 0], [4, 4]], "shape_type": "rectangle"}]});
            lab.write(&format!("set/{name}.json"), file.to_string());
        }
        let (_, talk) = init(&lab, &[]);
        assert!(talk.contains(say), "{talk}");
        // Turned clockwise, the first corner is the upper right.
        std::fs::remove_file(lab.path("set/dataset.toml")).unwrap();
        std::fs::remove_dir_all(lab.path("set/dataset-masks")).unwrap();
        ["train", "val"]
            .iter()
            .for_each(|split| std::fs::remove_file(lab.path(&format!("set/dataset-{split}.txt"))).unwrap());
        let set = Described::by_init(&lab, &[]);
        assert_eq!(
            (set.class("a", x, y), set.class("a", 15, 20)),
            ("x".to_string(), "background".to_string()),
            "{size:?}"
        );
    }
}

#[test]
fn coco_of_many_tools() {
    let (w, h) = SIZE;
    let lab = Lab::new();
    ["a", "b", "c"].iter().for_each(|name| picture(&lab, &format!("set/images/{name}.jpg")));
    // Ids as text, sizes as text, polygons of one and two points, a number too many, no list of lists.
    let rings = [
        serde_json::json!([[0, 0, 20, 0, 20, 16], [5, 5]]),
        serde_json::json!([[0, 0, 20, 0, 20, 16, 3]]),
        serde_json::json!([0, 0, 20, 0, 20, 16]),
    ];
    let images: Vec<_> = ["a", "b", "c"]
        .iter()
        .enumerate()
        .map(|(id, name)| serde_json::json!({"id": id.to_string(), "file_name": format!("{name}.jpg"), "width": w.to_string(), "height": h}))
        .collect();
    let mut annotations: Vec<_> = rings
        .iter()
        .enumerate()
        .map(|(id, ring)| serde_json::json!({"id": id, "image_id": id, "category_id": "leaf", "segmentation": ring}))
        .collect();
    annotations
        .push(serde_json::json!({"id": "line", "image_id": 1, "category_id": "leaf", "segmentation": [[1, 1, 9, 9]]}));
    annotations.push(
        serde_json::json!({"id": 9, "image_id": 77, "category_id": "leaf", "segmentation": [[1, 1, 9, 9, 5, 5]]}),
    );
    let categories = serde_json::json!([{"id": "leaf", "name": "leaf"}, {"id": 3, "name": 3}]);
    let file = serde_json::json!({"images": images, "annotations": annotations, "categories": categories});
    lab.write("set/annotations/instances_train.json", format!("\u{feff}{file}"));
    // Beside it, as COCO is shipped.
    let mut points = file.clone();
    points["annotations"][0]["keypoints"] = serde_json::json!([1, 2, 3]);
    lab.write("set/annotations/person_keypoints_train.json", points.to_string());
    let captions = serde_json::json!({"images": [], "categories": [], "annotations": [{"id": 1, "image_id": 1, "caption": "a leaf"}]});
    lab.write("set/annotations/captions_train.json", captions.to_string());
    let (_, talk) = init(&lab, &[]);
    for part in [
        "polygons of fewer than 3 corners were left out",
        "id line",
        "polygons have an odd number of coordinates",
        "annotations without an area",
        "annotations of images that are not listed",
        "keypoint files were not read",
        "captions_train.json",
        "`3` (3)",
    ] {
        assert!(talk.contains(part), "{part}: {talk}");
    }
    let spec = DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap();
    assert_eq!(spec.classes.len(), 2);
    // Cut short: named, not passed over.
    let text = file.to_string();
    lab.write("set/annotations/instances_train.json", &text[..text.len() - 9]);
    lab.refused(&["init", "set", "--yes"], &["instances_train.json", "cut short"]);
}
