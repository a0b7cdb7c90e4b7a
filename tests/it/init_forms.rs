//! `structtoken data init` on further forms: several masks per image, Supervisely, VIA, KITTI, LoveDA, Mapillary,
//! Cityscapes' polygons.

use base64::Engine;
use image::{GrayImage, Luma};

use crate::cli::Lab;
use crate::data_init::{Described, SIZE, half, mask, picture};

fn left(x: u32, _: u32) -> u8 {
    u8::from(x < 5) * 255
}

fn black(_: u32, _: u32) -> u8 {
    0
}

#[test]
fn several_masks_an_image_are_joined() {
    // BUSI: one folder a diagnosis.
    let lab = Lab::new();
    for at in 1..=6 {
        let stem = format!("set/benign/benign ({at})");
        picture(&lab, &format!("{stem}.png"));
        mask(&lab, &format!("{stem}_mask.png"), |x, y| half(x, y) * 255);
    }
    mask(&lab, "set/benign/benign (2)_mask_1.png", left);
    picture(&lab, "set/normal/normal (1).png");
    mask(&lab, "set/normal/normal (1)_mask.png", black);
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "object"], (6, 1)));
    let at = |name: &str, x| set.class(name, x, 3);
    assert_eq!(
        [at("benign/benign (2)", 2), at("benign/benign (2)", 10), at("benign/benign (2)", 30)],
        ["object", "background", "object"]
    );
    assert_eq!([at("benign/benign (1)", 2), at("normal/normal (1)", 30)], ["background", "background"]);

    // A folder for each image, and a file for each nucleus.
    let lab = Lab::new();
    for id in ["aa", "bb", "cc", "dd", "ee"] {
        picture(&lab, &format!("set/{id}/images/{id}.png"));
        mask(&lab, &format!("set/{id}/masks/0f.png"), left);
        mask(&lab, &format!("set/{id}/masks/1e.png"), |x, y| half(x, y) * 255);
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "object"], (4, 1)));
    assert_eq!([2, 10, 30].map(|x| set.class("cc/images/cc", x, 3)), ["object", "background", "object"]);

    // A file for each class.
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        mask(&lab, &format!("set/masks/{at}_class_chair.png"), left);
        mask(&lab, &format!("set/masks/{at}_class_sofa.png"), |x, y| half(x, y) * 255);
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "chair", "sofa"], (4, 1)));
    assert_eq!([2, 10, 30].map(|x| set.class("3", x, 3)), ["chair", "background", "sofa"]);
    // One that is damaged, or of another size, costs its image.
    lab.write("set/masks/1_class_sofa.png", "nothing");
    let output = lab.run(&["init", "set", "--yes"]);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() || talk.contains("1_class_sofa.png"), "{talk}");
}

fn png(bits: impl Fn(u32) -> u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    GrayImage::from_fn(4, 3, |x, _| Luma([bits(x)])).write_with_encoder(encoder).unwrap();
    bytes
}

/// As zlib stores bytes without compressing them.
fn zlib(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    [&[0x78, 1, 1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), bytes, &(b << 16 | a).to_be_bytes()].concat()
}

#[test]
fn supervisely_objects() {
    let lab = Lab::new();
    let bitmap = base64::engine::general_purpose::STANDARD.encode(zlib(&png(|x| u8::from(x > 0))));
    for (set, at) in [("train", 0), ("train", 1), ("val", 2)] {
        picture(&lab, &format!("set/{set}/img/{at}.jpg"));
        let objects = serde_json::json!([
            {"classTitle": "ring", "geometryType": "polygon", "points": {"exterior": [[0, 0], [20, 0], [20, 20], [0, 20]], "interior": [[[5, 5], [15, 5], [15, 15], [5, 15]]]}},
            {"classTitle": "blob", "geometryType": "bitmap", "bitmap": {"data": bitmap, "origin": [30, 20]}},
            {"classTitle": "box", "geometryType": "rectangle", "points": {"exterior": [[35, 0], [40, 5]], "interior": []}},
            {"classTitle": "dot", "geometryType": "point", "points": {"exterior": [[1, 1]]}},
        ]);
        let file = serde_json::json!({"size": {"width": SIZE.0, "height": SIZE.1}, "objects": objects, "tags": []});
        lab.write(&format!("set/{set}/ann/{at}.jpg.json"), file.to_string());
    }
    lab.write("set/meta.json", "{\"classes\": [], \"tags\": []}");
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "blob", "box", "dot", "ring"], (2, 1)));
    let at = |x, y| set.class("2", x, y);
    assert_eq!(
        [at(2, 2), at(10, 10), at(30, 20), at(31, 20), at(36, 2)],
        ["ring", "background", "background", "blob", "box"]
    );
    let talk = String::from_utf8(lab.run(&["init", "set", "--yes"]).stderr).unwrap();
    assert!(talk.contains("objects of type `point`"), "{talk}");
}

#[test]
fn via_regions() {
    let regions = [
        serde_json::json!({"shape_attributes": {"name": "polygon", "all_points_x": [0, 20, 20], "all_points_y": [0, 0, 20]}, "region_attributes": {"class": "cat"}}),
        serde_json::json!({"shape_attributes": {"name": "rect", "x": 30, "y": 20, "width": 5, "height": 5}, "region_attributes": {"class": {"dog": true, "cat": false}}}),
        serde_json::json!({"shape_attributes": {"name": "circle", "cx": 5, "cy": 25, "r": 3}, "region_attributes": {"class": "object"}}),
        serde_json::json!({"shape_attributes": {"name": "point", "cx": 5, "cy": 25}, "region_attributes": {"class": "cat"}}),
    ];
    // As VIA names its exports, and as projects do; and as spreadsheets of other countries and systems save them.
    for (file, between, end) in [
        ("via_region_data.json", "", ""),
        ("pets_json.json", "", ""),
        ("via_region_data.csv", ",", "\n"),
        ("pets_csv.csv", ",", "\r\n"),
        ("pets.CSV", ";", "\r\n"),
        ("pets.csv", "\t", "\r"),
    ] {
        let lab = Lab::new();
        // Neither these.
        lab.write("set/notes.json", "{\"regions\": 3}");
        lab.write("set/notes.csv", "filename,note\n1.jpg,dark\n");
        let mut json = serde_json::Map::new();
        let heading =
            "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes";
        let mut rows = heading.replace(',', between) + end;
        for at in 0..4 {
            let name = format!("{at}.jpg");
            picture(&lab, &format!("set/{name}"));
            json.insert(
                format!("{name}123"),
                serde_json::json!({"filename": name, "size": 123, "regions": regions, "file_attributes": {}}),
            );
            for (id, region) in regions.iter().enumerate() {
                let cell = |key: &str| format!("\"{}\"", region[key].to_string().replace('"', "\"\""));
                let id = id.to_string();
                let cells = [&name, "123", "\"{}\"", "4", &id, &cell("shape_attributes"), &cell("region_attributes")];
                rows += &(cells.join(between) + end);
            }
        }
        let text = if between.is_empty() { serde_json::Value::from(json).to_string() } else { rows };
        lab.write(&format!("set/{file}"), text);
        let set = Described::by_init(&lab, &[]);
        assert_eq!((set.names(), set.counts()), (vec!["background", "cat", "dog", "object"], (3, 1)), "{file}");
        let at = |x, y| set.class("1", x, y);
        assert_eq!([at(15, 5), at(32, 22), at(5, 25), at(0, 10)], ["cat", "dog", "object", "background"]);
    }
}

#[test]
fn kitti_loveda_and_mapillary() {
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/training/image_2/{at}.png"));
        picture(&lab, &format!("set/testing/image_2/{at}.png"));
        mask(&lab, &format!("set/training/semantic/{at}.png"), |x, y| [4, 26][usize::from(half(x, y))]);
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names().len(), set.counts()), (19, (4, 1)));
    assert_eq!([set.class("2", 0, 0), set.class("2", 30, 0)], ["ignored", "car"]);

    let lab = Lab::new();
    for (split, domain) in [("Train", "Urban"), ("Train", "Rural"), ("Val", "Urban"), ("Val", "Rural")] {
        picture(&lab, &format!("set/{split}/{domain}/images_png/1.png"));
        mask(&lab, &format!("set/{split}/{domain}/masks_png/1.png"), |x, _| [0, 1, 2, 7][(x / 10) as usize]);
    }
    picture(&lab, "set/Train/Rural/images_png/2.png");
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names().len(), set.counts()), (7, (2, 2)));
    let at = |x| set.class("Rural/images_png/1", x, 0);
    assert_eq!([at(5), at(15), at(25), at(35)], ["ignored", "background", "building", "agriculture"]);
    let talk = String::from_utf8(lab.run(&["init", "set", "--yes"]).stderr).unwrap();
    assert!(talk.contains("Rural/images_png/2.png"), "{talk}");

    let lab = Lab::new();
    for (split, at) in ["training", "validation"].iter().flat_map(|split| (0..2).map(move |at| (split, at))) {
        picture(&lab, &format!("set/{split}/images/{at}.jpg"));
        mask(&lab, &format!("set/{split}/labels/{at}.png"), |x, _| (x / 14) as u8);
    }
    lab.write(
        "set/config.json",
        r#"{"labels": [{"readable": "Bird"}, {"readable": "Curb"}, {"readable": "Unlabeled"}]}"#,
    );
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.class("1", 30, 0)), (vec!["Bird", "Curb"], "ignored".to_string()));
}

/// Label Studio's YOLO export has `classes.txt` in place of `data.yaml`.
#[test]
fn label_studios_yolo() {
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        lab.write(&format!("set/labels/{at}.txt"), "1 0 0 0.5 0 0.5 1 0 1\n");
    }
    lab.write("set/classes.txt", "leaf\nstem\n");
    lab.write("set/notes.json", r#"{"categories": [{"id": 0, "name": "leaf"}], "info": {}}"#);
    let set = Described::by_init(&lab, &[]);
    assert_eq!(
        (set.names(), set.counts(), set.class("2", 5, 5)),
        (vec!["background", "leaf", "stem"], (4, 1), "stem".into())
    );
}
