//! Annotations that would be wrong in silence: coordinates in other units, names in two spellings, attributes that are
//! no class, images that are another's. Each is read right, refused, or named.

use serde_json::{Value, json};

use crate::cli::Lab;
use crate::data_init::{Described, SIZE, colors, half, mask, picture};
use crate::init_kinds::{SQUARE, coco, init, run_all};

const NAMES: [&str; 4] = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"];

/// A set of COCO with a square on each image, changed by `change`.
fn coco_set(change: impl FnOnce(&mut Value)) -> Lab {
    let lab = Lab::new();
    NAMES.iter().for_each(|name| picture(&lab, &format!("set/images/{name}")));
    let mut all: Value =
        serde_json::from_str(&coco(|at| (1 + at % 2, ["leaf", "stem"][at % 2]), &NAMES, &SQUARE)).unwrap();
    change(&mut all);
    lab.write("set/all.json", all.to_string());
    lab
}

/// Coordinates as shares of the sides.
fn shares(ring: &[f64]) -> Value {
    let of = |(at, n): (usize, &f64)| n / f64::from(if at % 2 == 0 { SIZE.0 } else { SIZE.1 });
    json!([ring.iter().enumerate().map(of).collect::<Vec<_>>()])
}

#[test]
fn fractions_beside_pixels_are_read_image_by_image() {
    let lab = coco_set(|all| all["annotations"][2]["segmentation"] = shares(&SQUARE));
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("read as fractions of the image size (1): `c.jpg`"), "{talk}");
    let set = Described::by_init(&lab, &["--yes"]);
    assert_eq!(
        [set.class("c", 19, 15), set.class("c", 20, 15), set.class("b", 19, 15)],
        ["leaf", "background", "stem"]
    );
    // Both on one image: which is which cannot be told.
    let lab = coco_set(|all| {
        let mut other = all["annotations"][2].clone();
        (other["id"], other["segmentation"]) = (9.into(), shares(&SQUARE));
        all["annotations"].as_array_mut().unwrap().push(other);
    });
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("left out because their labels would be wrong (1): `c.jpg`"), "{talk}");
    assert!(talk.contains("annotation 4 (id 9)") && talk.contains("between 0 and 1"), "{talk}");
    assert!(!lab.path("set/dataset-masks/c.png").exists());
}

#[test]
fn images_that_nothing_is_drawn_on_are_counted() {
    let lab = coco_set(|all| drop(all["annotations"].as_array_mut().unwrap().drain(..2)));
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("images without an outline are `background` as a whole (2): `a.jpg`; `b.jpg`"), "{talk}");
    // Two files over one folder of images: each has the images of its own.
    let lab = coco_set(|_| ());
    std::fs::remove_file(lab.path("set/all.json")).unwrap();
    for (split, names) in [("train", &NAMES[..3]), ("val", &NAMES[3..])] {
        lab.write(&format!("set/{split}.json"), coco(|_| (1, "leaf"), names, &SQUARE));
    }
    let (talk, classes) = init(&lab, &[]);
    assert!(!talk.contains("left out") && !talk.contains("not used"), "{talk}");
    assert_eq!(classes, ["0 background", "1 leaf"]);
    let report = lab.ok(&["data", "check", "set"]);
    assert!(!report.contains("not-listed"), "{report}");
}

#[test]
fn names_in_two_spellings_are_one_class() {
    let rename = |at: usize, name: &'static str| move |all: &mut Value| all["categories"][at]["name"] = name.into();
    let lab = coco_set(|all| {
        let categories = all["categories"].as_array_mut().unwrap();
        categories.push(json!({"id": 3, "name": "Leaf "}));
        all["annotations"][2]["category_id"] = 3.into();
    });
    let (talk, classes) = init(&lab, &[]);
    assert!(
        talk.contains("differ in spelling alone are one class") && talk.contains("`leaf` (1), `Leaf` (1)"),
        "{talk}"
    );
    assert_eq!(classes, ["0 background", "1 leaf", "2 stem"]);
    // What has no name costs its images.
    let (talk, classes) = init(&coco_set(rename(1, " ")), &[]);
    assert!(
        talk.contains("would be wrong (2): `b.jpg`: annotation 1 (id 1)") && talk.contains("has no class"),
        "{talk}"
    );
    assert_eq!(classes, ["0 background", "1 leaf"]);
    let (_, classes) = init(&coco_set(rename(0, "Background")), &[]);
    assert_eq!(classes, ["0 background", "1 Background (drawn)", "2 stem"]);
}

#[test]
fn names_are_not_given_crosswise() {
    for names in ["stem,leaf", "background,Stem,LEAF", "other,leaf"] {
        let lab = coco_set(|_| ());
        let talk = lab.refused(&["init", "set", "--names", names], &["names that the dataset has for other classes"]);
        assert!(talk.contains("`background`, `leaf`, `stem`"), "{talk}");
        run_all(&lab, names, &talk);
    }
    for names in ["leaf,stem", "Blatt,Stiel", "rest,leaf,Stiel"] {
        init(&coco_set(|_| ()), &["--names", names]);
        assert_eq!(init(&coco_set(|_| ()), &["--names", names]).1.len(), 3, "{names}");
    }
    // Beside a file that has the same names for other values.
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        mask(&lab, &format!("set/masks/{at}.png"), half);
    }
    lab.write("set/classes.txt", "sky\nroad\n");
    let (talk, _) = init(&lab, &["--names", "road,sky"]);
    assert!(talk.contains("`classes.txt` has names that --names gives to other values"), "{talk}");
    assert!(!init(&lab, &["--names", "sky,road", "--yes"]).0.contains("other values"));
}

#[test]
fn json_that_is_no_json_is_placed_and_what_lacks_outlines_named() {
    let lab = coco_set(|_| ());
    let text = std::fs::read_to_string(lab.path("set/all.json")).unwrap();
    let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    lab.write("set/all.json", utf16);
    assert_eq!(init(&lab, &[]).1, ["0 background", "1 leaf", "2 stem"]);
    lab.write("set/all.json", text.replace("\"id\":3,\"image_id\"", "\"area\":NaN,\"id\":3,\"image_id\""));
    lab.refused(&["init", "set", "--yes"], &["all.json", "NaN", "line 1, column", "`null`"]);
    lab.write("set/all.json", text.replacen("}]", "},]", 1));
    lab.refused(&["init", "set", "--yes"], &["all.json", "a comma too many", "line 1, column"]);
    for (change, say) in [
        (json!({"annotations": []}), "without any annotation"),
        (
            json!({"annotations": [{"image_id": 0, "category_id": 1, "segmentation": [], "bbox": [0, 0, 9, 9]}]}),
            "boxes",
        ),
        (json!({"categories": null}), "without `categories`"),
    ] {
        let lab = coco_set(|all| {
            for (key, value) in change.as_object().unwrap() {
                match value {
                    Value::Null => drop(all.as_object_mut().unwrap().remove(key)),
                    value => all[key] = value.clone(),
                }
            }
        });
        lab.refused(&["init", "set"], &["all.json", say]);
    }
    let lab = coco_set(|all| *all = all["annotations"].clone());
    lab.refused(&["init", "set"], &["list of COCO's annotations"]);
    lab.write("set/all.json", r#"[{"image": "a.jpg", "id": 1, "label": [{"polygonlabels": ["x"], "points": []}]}]"#);
    lab.refused(&["init", "set"], &["JSON-MIN", "as JSON"]);
    // A file of annotations in the place of a description.
    let lab = coco_set(|_| ());
    let talk = lab.refused(&["data", "check", "set/all.json"], &["is not the TOML of a dataset"]);
    assert!(talk.len() < 400, "{talk}");
    run_all(&lab, "check", &talk);
}

/// A file of LabelMe with one square.
fn labelme(lab: &Lab, file: &str, image: &str, label: &str) {
    let points = SQUARE.as_chunks::<2>().0;
    let file_text = json!({"imagePath": image, "imageData": null, "imageWidth": SIZE.0, "imageHeight": SIZE.1,
        "shapes": [{"label": label, "points": points, "shape_type": "polygon"}]});
    lab.write(&format!("set/{file}.json"), file_text.to_string());
}

#[test]
fn shapes_of_another_image_are_not_taken() {
    let set = || {
        let lab = Lab::new();
        for name in ["a", "b", "c", "d"] {
            picture(&lab, &format!("set/{name}.jpg"));
            labelme(&lab, name, &format!("{name}.jpg"), "leaf");
        }
        lab
    };
    // Copied from its neighbour.
    let lab = set();
    labelme(&lab, "b", "a.jpg", "leaf");
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("would be wrong (1): `b.jpg`") && talk.contains("`imagePath` is `a.jpg`"), "{talk}");
    assert!(lab.path("set/dataset-masks/a.png").exists() && !lab.path("set/dataset-masks/b.png").exists());
    // The same where files lie apart from their images.
    let lab = Lab::new();
    for name in ["a", "b", "c", "d"] {
        picture(&lab, &format!("set/img/{name}.jpg"));
        labelme(&lab, &format!("json/{name}"), &format!("../img/{}.jpg", if name == "d" { "c" } else { name }), "leaf");
    }
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("would be wrong (1): `img/d.jpg`"), "{talk}");
    // Two files of one image.
    let lab = set();
    std::fs::remove_file(lab.path("set/b.jpg")).unwrap();
    labelme(&lab, "b", "a.jpg", "leaf");
    lab.refused(&["init", "set"], &["set/a.json", "set/b.json", "both hold the shapes of `a.jpg`"]);
    // A shape without a label.
    let lab = set();
    labelme(&lab, "c", "c.jpg", "");
    let (talk, classes) = init(&lab, &[]);
    assert!(talk.contains("would be wrong (1): `c.jpg`") && talk.contains("has no class"), "{talk}");
    assert_eq!(classes, ["0 background", "1 leaf"]);
    // Masks of the same images, which are read in the place of the shapes on request.
    let lab = set();
    for name in ["a", "b", "c", "d"] {
        mask(&lab, &format!("set/masks/{name}.png"), half);
    }
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("masks were not read") && !talk.contains("without a mask"), "{talk}");
    assert_eq!(init(&lab, &["--images", ".", "--masks", "masks", "--yes"]).1.len(), 2);
}

/// A set of YOLO with a triangle on each of four images of this size.
fn yolo_set(size: [u32; 2], line: impl Fn(usize) -> String) -> Lab {
    let lab = Lab::new();
    for at in 0..4 {
        let path = lab.path(&format!("set/images/train/{at}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_fn(size[0], size[1], |x, y| image::Rgb([x as u8, y as u8, at as u8])).save(path).unwrap();
        lab.write(&format!("set/labels/train/{at}.txt"), line(at));
    }
    lab.write("set/data.yaml", "train: images/train\nnames: [red, blue]\n");
    lab
}

#[test]
fn percentages_are_told_from_pixels() {
    let percent = |_: usize| "1 0 0 90 0 90 100\n".to_string();
    let lab = yolo_set([40, 32], percent);
    let talk = lab.refused(&["init", "set"], &["these are percentages", "--percent"]);
    assert!(!talk.contains("--pixels"), "{talk}");
    run_all(&lab, "percent", &talk);
    let set = Described::by_init(&lab, &["--percent", "--yes"]);
    assert_eq!([set.class("1", 30, 3), set.class("1", 38, 3)], ["blue", "background"]);
    lab.refused(&["init", "set", "--pixels", "--yes"], &["are they percentages", "--percent"]);
    // Images that go on beyond 100.
    let lab = yolo_set([300, 240], percent);
    let talk = lab.refused(&["init", "set"], &["pixels or percentages", "--percent", "--pixels"]);
    run_all(&lab, "either", &talk);
    let lab = yolo_set([300, 240], |_| "1 0 0 290 0 290 200\n".to_string());
    lab.refused(&["init", "set"], &["these are pixels", "--pixels"]);
    let lab = yolo_set([40, 32], |at| if at == 1 { percent(at) } else { "1 0 0 0.9 0 0.9 1\n".into() });
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("would be wrong (1): `1.png`") && talk.contains("--percent"), "{talk}");
    assert_eq!(lab.run(&["init", "set", "--percent", "--pixels"]).status.code(), Some(2), "only one can be so");
}

#[test]
fn labels_of_other_names_and_endings() {
    let line = |_: usize| "0 0,25 0,25 0,75 0,25 0,75 0,75\n".to_string();
    let lab = yolo_set([40, 32], line);
    let labels = |at: usize, name: String| {
        std::fs::rename(lab.path(&format!("set/labels/train/{at}.txt")), lab.path(&format!("set/labels/train/{name}")))
            .unwrap();
    };
    labels(1, "1.TXT".into());
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("decimal comma were read (4)") && !talk.contains("without a file"), "{talk}");
    let set = Described::by_init(&lab, &["--yes"]);
    assert_eq!([set.class("1", 28, 9), set.class("1", 5, 9)], ["red", "background"]);
    for at in [0, 2, 3] {
        labels(at, format!("label_{at}.txt"));
    }
    lab.refused(&["init", "set", "--yes"], &["3 of 4 images", "label_0.txt", "the name of its image"]);
    // Several files that name the classes.
    let lab = yolo_set([40, 32], line);
    lab.write("set/dataset.yaml", "train: images/train\nnames: [blue, red]\n");
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("dataset.yaml` (0 = blue, 1 = red), next to `set/data.yaml`"), "{talk}");
    lab.write("set/dataset.yaml", "train: images/train\nnames: [red, blue]\n");
    lab.write("set/labels/classes.txt", "blue\nred\n");
    let (talk, _) = init(&lab, &["--yes"]);
    assert!(
        talk.contains("`set/data.yaml`, and not `set/dataset.yaml`") && talk.contains("labels/classes.txt"),
        "{talk}"
    );
    // A YAML that names the values of masks.
    let lab = Lab::new();
    for (split, at) in [("train", 0), ("train", 1), ("val", 2)] {
        picture(&lab, &format!("set/images/{split}/{at}.jpg"));
        mask(&lab, &format!("set/masks/{split}/{at}.png"), half);
    }
    lab.write("set/data.yaml", "train: images/train\nval: images/val\nnames: [sky, road]\n");
    assert_eq!(init(&lab, &[]).1, ["0 sky", "1 road"]);
}

#[test]
fn attributes_of_via_are_chosen_and_named() {
    let write = |lab: &Lab, attributes: &dyn Fn(usize) -> Value| {
        let mut all = serde_json::Map::new();
        for at in 0..4 {
            picture(lab, &format!("set/{at}.jpg"));
            let region = |n: usize| {
                json!({"shape_attributes": {"name": "rect", "x": 20 * n, "y": 0, "width": 15, "height": 20},
                    "region_attributes": attributes(2 * at + n)})
            };
            let entry = json!({"filename": format!("{at}.jpg"), "size": 1, "regions": [region(0), region(1)], "file_attributes": {}});
            all.insert(format!("{at}.jpg1"), entry);
        }
        lab.write("set/via.json", Value::from(all).to_string());
    };
    let (lab, color) = (Lab::new(), |at: usize| ["red", "blue"][at % 2]);
    write(&lab, &|at| json!({"id": at, "quality": "good", "colour": color(at)}));
    let (talk, classes) = init(&lab, &[]);
    assert_eq!(classes, ["0 background", "1 blue", "2 red"]);
    assert!(
        talk.contains("`colour`, by its values")
            && talk.contains("`id` (8 values")
            && talk.contains("`quality` (1 value"),
        "{talk}"
    );
    // As the note says: the attribute that is called `class` is taken.
    write(&lab, &|at| json!({"id": at, "class": "good", "colour": color(at)}));
    assert_eq!(init(&lab, &["--yes"]).1, ["0 background", "1 good"]);
    // A region without it costs its image.
    write(&lab, &|at| if at == 3 { json!({"id": at}) } else { json!({"id": at, "colour": color(at)}) });
    let (talk, classes) = init(&lab, &["--yes"]);
    assert!(talk.contains("would be wrong (1): `1.jpg`") && talk.contains("it has no `colour`"), "{talk}");
    assert_eq!(classes, ["0 background", "1 blue", "2 red"]);
    write(&lab, &|_| json!({}));
    let (talk, classes) = init(&lab, &["--yes"]);
    assert!(talk.contains("are all `object` (8)"), "{talk}");
    assert_eq!(classes, ["0 background", "1 object"]);
}

#[test]
fn regions_of_label_studio_that_cannot_be_right() {
    let lab = Lab::new();
    (0..4).for_each(|at| picture(&lab, &format!("set/images/{at}.jpg")));
    let region = |id: &str, kind: &str, labels: Value, points: Value| {
        let mut value = json!({"points": points});
        if !labels.is_null() {
            value[if kind == "labels" { "labels" } else { "polygonlabels" }] = labels;
        }
        json!({"id": id, "type": kind, "original_width": SIZE.0, "original_height": SIZE.1, "image_rotation": 0, "value": value})
    };
    let square = || json!([[0, 0], [50, 0], [50, 50], [0, 50]]);
    let write = |last: Vec<Value>| {
        let usual = vec![region("x", "polygonlabels", json!(["cat"]), square())];
        let task = |at: usize| {
            let regions = if at == 3 { &last } else { &usual };
            json!({"id": at, "data": {"image": format!("/data/upload/1/{at}.jpg")}, "annotations": [{"result": regions}]})
        };
        lab.write("set/project.json", Value::from((0..4).map(task).collect::<Vec<_>>()).to_string());
    };
    for (last, say) in [
        (vec![region("x", "polygonlabels", json!(["cat", "dog"]), square())], "several labels, `cat` and `dog`"),
        (vec![region("x", "polygon", Value::Null, square())], "it has no label"),
        (vec![region("x", "polygonlabels", json!(["cat"]), json!([[0, 0], [0.5, 0], [0.5, 0.5]]))], "all at most 1"),
        (vec![region("x", "polygonlabels", json!(["cat"]), json!([[0, 0], [300, 0], [300, 200]]))], "coordinate 300"),
    ] {
        write(last);
        let (talk, _) = init(&lab, &["--yes"]);
        assert!(
            talk.contains("images were left out") && talk.contains("`images/3.jpg`") && talk.contains(say),
            "{say}: {talk}"
        );
    }
    // An outline and its label as two results.
    write(vec![region("x", "polygon", Value::Null, square()), region("x", "labels", json!(["dog"]), square())]);
    let (talk, classes) = init(&lab, &["--yes"]);
    assert!(!talk.contains("left out"), "{talk}");
    assert_eq!(classes, ["0 background", "1 cat", "2 dog"]);
}

/// A set of COCO's panoptic form: the left half of each image is segment 7, the right one 70 000 and the first row
/// none.
fn panoptic(change: impl FnOnce(&mut Value)) -> Lab {
    let lab = Lab::new();
    let mut all = json!({"images": [], "annotations": [], "categories": [
        {"id": 3, "name": "road"}, {"id": 12, "name": "sky"}, {"id": 40, "name": "boat"}
    ]});
    for (at, name) in NAMES.iter().enumerate() {
        picture(&lab, &format!("set/images/{name}"));
        let file = format!("{at}.png");
        let [low, middle, high, _] = 70_000u32.to_le_bytes();
        colors(&lab, &format!("set/panoptic_all/{file}"), |x, y| match (x, y) {
            (_, 0) => [0; 3],
            (x, _) if x < 20 => [7, 0, 0],
            _ => [low, middle, high],
        });
        let segments = json!([{"id": 7, "category_id": 12}, {"id": 70_000, "category_id": 3}]);
        all["images"]
            .as_array_mut()
            .unwrap()
            .push(json!({"id": at, "file_name": name, "width": SIZE.0, "height": SIZE.1}));
        let one = json!({"image_id": at, "file_name": file, "segments_info": segments});
        all["annotations"].as_array_mut().unwrap().push(one);
    }
    change(&mut all);
    lab.write("set/panoptic_all.json", all.to_string());
    lab
}

#[test]
fn panoptic_masks_are_read_by_their_segments() {
    let lab = panoptic(|_| ());
    let set = Described::by_init(&lab, &["--yes"]);
    assert_eq!(set.names(), ["road", "sky"], "no segment is a boat");
    assert_eq!([set.class("a", 5, 5), set.class("a", 30, 5), set.class("d", 30, 31)], ["sky", "road", "road"]);
    assert_eq!(set.class("a", 5, 0), "ignored");
    // Two spellings of a category are one class.
    let lab = panoptic(|all| {
        all["categories"][2]["name"] = "Road".into();
        all["annotations"][1]["segments_info"][1]["category_id"] = 40.into();
    });
    let set = Described::by_init(&lab, &["--yes"]);
    assert_eq!(
        (set.names(), set.class("b", 30, 5), set.class("b", 5, 5)),
        (vec!["road", "sky"], "road".into(), "sky".into())
    );
    // What is wrong with one image leaves it out, and is named.
    type Change = fn(&mut Value);
    let wrong: [(Change, &str); 5] = [
        (
            |all| {
                let again = all["annotations"][1].clone();
                all["annotations"].as_array_mut().unwrap().push(again);
            },
            "gives the image 2 panoptic masks",
        ),
        (|all| all["annotations"][1]["segments_info"][1]["id"] = 71_000.into(), "holds the segment 70000"),
        (|all| all["annotations"][1]["segments_info"][1]["category_id"] = 99.into(), "category of segment 70000 is 99"),
        (|all| all["annotations"][1]["segments_info"][1]["id"] = 7.into(), "segment 7 of `1.png` has two categories"),
        (|all| all["annotations"][1]["file_name"] = "x.png".into(), "mask is not there were left out (1): `x.png`"),
    ];
    for (change, say) in wrong {
        let lab = panoptic(change);
        let (talk, classes) = init(&lab, &[]);
        assert!(talk.contains(say), "{say}: {talk}");
        assert_eq!(classes, ["0 road", "1 sky", "255 -"]);
        assert!(!Described::by_init(&lab, &["--yes"]).has("b"), "{say}");
    }
    assert!(init(&panoptic(|_| ()), &[]).0.contains("categories without an annotation were left out (1): `boat` (40)"));
    // Ids that are shared leave open what is meant.
    panoptic(|all| all["categories"][1]["id"] = 3.into())
        .refused(&["init", "set"], &["`road` and `sky` have the same id, 3"]);
    panoptic(|all| all["images"][1]["id"] = 0.into())
        .refused(&["init", "set"], &["`a.jpg` and `b.jpg` have the same id, 0"]);
    let lab = panoptic(|_| ());
    std::fs::remove_dir_all(lab.path("set/panoptic_all")).unwrap();
    let talk = lab.refused(&["init", "set"], &["none of its masks is there", "called `panoptic_all`"]);
    assert!(!talk.contains("panopticapi"), "{talk}");
}

#[test]
fn outlines_that_are_not_where_they_were_drawn_are_named() {
    // Images were scaled after they were outlined.
    let lab = coco_set(|all| {
        for annotation in all["annotations"].as_array_mut().unwrap() {
            annotation["segmentation"] = json!([[10, 8, 70, 8, 70, 60, 10, 60]]);
        }
    });
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("beyond its border and were cut there") && talk.contains("(4)"), "{talk}");
    // Between the centres of pixels.
    let lab = coco_set(|all| all["annotations"][0]["segmentation"] = json!([[3.6, 3.6, 4.4, 3.6, 4.4, 4.4, 3.6, 4.4]]));
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("too small to cover the centre of a pixel") && talk.contains("annotation 0"), "{talk}");
    assert!(talk.contains("images without an outline are `background` as a whole (1): `a.jpg`"), "{talk}");
    // A bitmap outside of its image.
    let (mut bitmap, grey) = (Vec::new(), image::GrayImage::from_pixel(4, 4, image::Luma([255])));
    grey.write_with_encoder(image::codecs::png::PngEncoder::new(&mut bitmap)).unwrap();
    for (origin, said) in [([-9, -9], true), ([-2, 3], false), ([40, 3], true)] {
        let lab = Lab::new();
        for name in ["a", "b"] {
            picture(&lab, &format!("set/ds/img/{name}.png"));
            let object = json!({"classTitle": "leaf", "geometryType": "bitmap", "bitmap": {
                "data": deflated(&bitmap), "origin": origin}});
            let of = json!({"size": {"width": SIZE.0, "height": SIZE.1}, "objects": [object]});
            lab.write(&format!("set/ds/ann/{name}.png.json"), of.to_string());
        }
        let (talk, _) = init(&lab, &[]);
        assert_eq!(talk.contains("outside of their image were left out"), said, "{talk}");
    }
}

#[test]
fn names_that_two_folders_hold_are_asked_about() {
    let lab = coco_set(|_| ());
    // Masks that are called as their images are no images.
    NAMES.iter().for_each(|name| picture(&lab, &format!("set/masks/{name}")));
    assert_eq!(init(&lab, &[]).1.len(), 3);
    for choice in 0..2 {
        let lab = coco_set(|_| ());
        NAMES.iter().for_each(|name| picture(&lab, &format!("set/others/{name}")));
        let talk = lab.refused(&["init", "set"], &["`a.jpg`", "in `images` and in `others`"]);
        let command = talk.split("is meant: ").nth(1).unwrap().trim().split(" or ").nth(choice).unwrap();
        let (done, said) = crate::init_kinds::paste(&lab, command);
        assert!(done, "{command}: {said}");
    }
}

/// As Supervisely has bitmaps: deflated, in base 64.
fn deflated(bytes: &[u8]) -> String {
    use base64::Engine as _;
    use std::io::Write as _;
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(bytes).unwrap();
    base64::engine::general_purpose::STANDARD.encode(packed.finish().unwrap())
}
