//! Kinds of sets as people have them: read by rule, or refused with a command that makes them readable. Each case is a
//! set written here, what `init` says of it, and the classes it finds.

use image::{ImageBuffer, Luma, Rgba};
use structtoken::dataset::spec::DatasetSpec;

use crate::cli::Lab;
use crate::data_init::{Described, SIZE, colors, half, mask, palette_mask, picture};
use crate::init_labels::classes;

/// What writes the mask of an image.
type Mask = fn(&Lab, &str, usize);

/// Stripes of values, by column.
fn stripes(x: u32, values: &[u8]) -> u8 {
    values[(x / 5) as usize % values.len()]
}

fn deep(lab: &Lab, name: &str, value: impl Fn(u32, u32) -> u16) {
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    ImageBuffer::from_fn(SIZE.0, SIZE.1, |x, y| Luma([value(x, y)])).save(path).unwrap();
}

/// A PNG of greys of a few bits.
fn packed(lab: &Lab, name: &str, depth: png::BitDepth, id: impl Fn(u32, u32) -> u8) {
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(depth);
    let bits = depth as u32;
    let byte =
        |y: u32, at: u32| (0..8 / bits).fold(0, |byte, k| byte << bits | id((at * 8 / bits + k).min(SIZE.0 - 1), y));
    let rows: Vec<u8> = (0..SIZE.1)
        .flat_map(|y| (0..(SIZE.0 * bits).div_ceil(8)).map(move |at| (y, at)))
        .map(|(y, at)| byte(y, at))
        .collect();
    encoder.write_header().unwrap().write_image_data(&rows).unwrap();
}

fn set(lab: &Lab, count: usize, of: Mask) {
    for at in 0..count {
        picture(lab, &format!("set/images/{at}.png"));
        of(lab, &format!("set/masks/{at}.png"), at);
    }
}

/// Runs a printed command as it stands; `structtoken` is this program.
#[cfg(unix)]
pub(crate) fn paste(lab: &Lab, command: &str) -> (bool, String) {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_structtoken")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", command]).current_dir(lab.dir.path()).env("PATH", path).env("RAYON_NUM_THREADS", "1");
    let output = bash.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What `init` says of the folder `set`, and the classes that it finds.
pub(crate) fn init(lab: &Lab, more: &[&str]) -> (String, Vec<String>) {
    let output = lab.run(&[&["data", "init", "set"][..], more].concat());
    let talk = String::from_utf8(output.stderr).unwrap();
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(1), "{talk}");
        return (talk, Vec::new());
    }
    (talk, classes(lab))
}

/// The commands of this program in a text: their words, without the program's name.
pub(crate) fn commands(talk: &str) -> Vec<Vec<String>> {
    let command = |text: &str| {
        let mut words: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            let value = words.last().is_some_and(|last| {
                last.starts_with("--") && !["--yes", "--pixels", "--percent"].contains(&last.as_str())
            });
            let plain = word.trim_end_matches([',', ';', '`', ':', ')', '.']);
            if words.len() >= 3 && !value && !plain.starts_with("--") {
                break;
            }
            words.push(plain.to_string());
            if plain.len() < word.len() && !word.ends_with('`') && !word.starts_with("--") {
                break;
            }
        }
        words
    };
    talk.split("structtoken ").skip(1).filter(|text| text.starts_with("data ")).map(command).collect()
}

/// Runs all commands that a text names, each from where the text left things; those with a place to be filled in are
/// left out.
pub(crate) fn run_all(lab: &Lab, kind: &str, talk: &str) {
    for words in commands(talk) {
        if words.iter().any(|word| word.contains("DIR")) {
            continue;
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if !words.contains(&"--yes") && words[1] == "init" {
            for name in ["dataset.toml", "dataset-train.txt", "dataset-val.txt"] {
                let _ = std::fs::remove_file(lab.path(&format!("set/{name}")));
            }
            let _ = std::fs::remove_dir_all(lab.path("set/dataset-masks"));
        }
        let output = lab.run(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        // A check may find what is wrong.
        let done = output.status.success()
            || words[1] == "check" && output.status.code() == Some(1) && !output.stdout.is_empty();
        assert!(done, "{kind}: {words:?}: {said}");
    }
}

/// How values are stored, and what is made of them.
#[test]
fn values_of_many_kinds() {
    let cases: &[(&str, Mask, &[&str], &[&str])] = &[
        (
            "five greys",
            |lab, name, _| mask(lab, name, |x, _| stripes(x, &[0, 64, 128, 192, 255])),
            &["255 too"],
            &["0 class 0", "64 class 64", "128 class 128", "192 class 192", "255 class 255"],
        ),
        (
            "the largest of 16 bits is void beside ids",
            |lab, name, _| deep(lab, name, |x, _| [0, 1, 2, 65535][(x / 10) as usize]),
            &["65535 is ignored"],
            &["0 class 0", "1 class 1", "2 class 2", "65535 -"],
        ),
        (
            "black and white of 16 bits",
            |lab, name, _| deep(lab, name, |x, y| u16::from(half(x, y)) * 65535),
            &[],
            &["0 background", "65535 object"],
        ),
        (
            "ids of 16 bits",
            |lab, name, _| deep(lab, name, |x, y| u16::from(half(x, y)) * 3),
            &[],
            &["0 class 0", "3 class 3"],
        ),
        (
            "1 bit and 8 bits alike",
            |lab, name, at| match at % 2 {
                0 => packed(lab, name, png::BitDepth::One, half),
                _ => mask(lab, name, |x, y| half(x, y) * 255),
            },
            &["1, 2 or 4 bits"],
            &["0 background", "255 object"],
        ),
        (
            "2 bits",
            |lab, name, _| packed(lab, name, png::BitDepth::Two, |x, _| stripes(x, &[0, 1, 2])),
            &["1, 2 or 4 bits"],
            &["0 class 0", "85 class 85", "170 class 170"],
        ),
        (
            "grey and equal channels",
            |lab, name, at| match at % 2 {
                0 => mask(lab, name, |x, _| stripes(x, &[0, 1, 2])),
                _ => colors(lab, name, |x, _| [stripes(x, &[0, 1, 2]); 3]),
            },
            &["some masks are grey and others RGB"],
            &["[0, 0, 0] class 0", "[1, 1, 1] class 1", "[2, 2, 2] class 2"],
        ),
        (
            "palettes sorted anew",
            |lab, name, at| {
                let order: [[u8; 3]; 3] = [[0, 0, 0], [255, 0, 0], [0, 0, 255]];
                let (mut palette, turn) = (order, at % 3);
                palette.rotate_left(turn);
                palette_mask(lab, name, &palette, |x, _| ((x / 14) as u8 + 3 - turn as u8) % 3);
            },
            &["palettes differ from file to file"],
            &["[0, 0, 0] class 0-0-0", "[255, 0, 0] class 255-0-0", "[0, 0, 255] class 0-0-255"],
        ),
        (
            "transparency",
            |lab, name, _| {
                let path = lab.path(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let pixel = |x: u32, y: u32| Rgba([half(x, y) * 200, 0, 0, half(x, y) * 255]);
                ImageBuffer::from_fn(SIZE.0, SIZE.1, pixel).save(path).unwrap();
            },
            &["8 of the masks have transparent pixels"],
            &["[0, 0, 0] class 0-0-0", "[200, 0, 0] class 200-0-0"],
        ),
        (
            "one value",
            |lab, name, _| mask(lab, name, |_, _| 0),
            &["all masks hold one value", "--masks DIR"],
            &["0 class 0"],
        ),
        (
            "numbers of objects",
            |lab, name, at| mask(lab, name, |x, _| ((x / 4) as usize % (at + 3)) as u8),
            &["single objects", "structtoken data check set"],
            &[
                "0 class 0",
                "1 class 1",
                "2 class 2",
                "3 class 3",
                "4 class 4",
                "5 class 5",
                "6 class 6",
                "7 class 7",
                "8 class 8",
                "9 class 9",
            ],
        ),
        // Refused, and what is to be passed.
        (
            "ids and another grey",
            |lab, name, at| mask(lab, name, |x, y| half(x, y) * [1, 128][at % 2]),
            &["4 masks", "0, 1", "0, 128", "--void none", "--names a,b,c"],
            &[],
        ),
        (
            "8 and 16 bits",
            |lab, name, at| match at % 2 {
                0 => mask(lab, name, |x, y| half(x, y) * 255),
                _ => deep(lab, name, |x, y| u16::from(half(x, y)) * 65535),
            },
            &["0, 255", "0, 65535", "--void none"],
            &[],
        ),
        (
            "ids and equal channels of 255",
            |lab, name, at| match at % 2 {
                0 => mask(lab, name, half),
                _ => colors(lab, name, |x, y| [half(x, y) * 255; 3]),
            },
            &["0, 1", "0, 255", "--void none"],
            &[],
        ),
        (
            "numbers and colours",
            |lab, name, at| match at % 2 {
                0 => mask(lab, name, half),
                _ => colors(lab, name, |x, y| [half(x, y) * 255, 0, 0]),
            },
            &["4 masks hold numbers, and 4 hold colours", "structtoken data check set"],
            &[],
        ),
        (
            "smoothed",
            |lab, name, _| {
                mask(lab, name, |x, y| {
                    if x < 16 {
                        0
                    } else if x > 24 {
                        255
                    } else {
                        20 * (x - 14) as u8 + y as u8 / 2
                    }
                })
            },
            &["structtoken data check set"],
            &[],
        ),
    ];
    for (kind, of, say, classes) in cases {
        let lab = Lab::new();
        set(&lab, 8, *of);
        let (talk, found) = init(&lab, &[]);
        assert_eq!(found, *classes, "{kind}: {talk}");
        for part in *say {
            assert!(talk.contains(part), "{kind}: {part}: {talk}");
        }
        run_all(&lab, kind, &talk);
        if found.is_empty() && kind.starts_with("ids") || *kind == "8 and 16 bits" {
            assert_eq!(init(&lab, &["--void", "none", "--yes"]).1.len(), 2, "{kind}");
            // What was joined on request is not a fault, and is said; of colours, each is declared for itself.
            let report = lab.ok(&["data", "check", "set"]);
            let said = report.contains("mixed-encodings") || kind.contains("channels");
            assert!(said && report.contains("no faults"), "{kind}: {report}");
            assert_eq!(init(&lab, &["--names", "a,b,c", "--yes"]).1.len(), 3, "{kind}");
        }
    }
}

/// Files of names, and which value each name is of.
#[test]
fn names_in_files_of_many_kinds() {
    let ids: Mask = |lab, name, _| mask(lab, name, |x, _| stripes(x, &[0, 1, 2]));
    let rgb: Mask =
        |lab, name, _| colors(lab, name, |x, _| [[0, 0, 0], [128, 64, 7], [0, 0, 142]][(x / 5 % 3) as usize]);
    let plain = ["sky", "road", "car"];
    for (of, file, text) in [
        (ids, "classes.txt", "sky=0\nroad=1\ncar=2\n"),
        (ids, "classes.txt", "# ours\nsky\n\nroad\ncar\n"),
        (ids, "labels.txt", "0 sky\r\n1 road\r\n2 car\r\n"),
        (ids, "labels.tsv", "index\tlabel\n0\tsky\n1\troad\n2\tcar\n"),
        (ids, "codes.txt", "sky\nroad\ncar\n"),
        (ids, "obj.names", "sky\nroad\ncar\n"),
        (ids, "classes.json", "[\"sky\", \"road\", \"car\"]"),
        (ids, "id2label.json", "{\"0\": \"sky\", \"1\": \"road\", \"2\": \"car\"}"),
        (ids, "classes.json", "{\"car\": 2, \"road\": 1, \"sky\": 0}"),
        (
            ids,
            "labels.json",
            "[{\"id\": 1, \"name\": \"road\"}, {\"id\": 0, \"name\": \"sky\"}, {\"id\": 2, \"name\": \"car\"}]",
        ),
        (ids, "class_dict.csv", "id,name,r,g,b\n0,sky,0,0,0\n1,road,128,64,7\n2,car,0,0,142\n"),
        (ids, "labels.txt", "__ignore__\nroad\ncar\n"),
        (rgb, "class_dict.csv", "id,name,r,g,b\n5,sky,0,0,0\n6,road,128,64,7\n7,car,0,0,142\n"),
        (rgb, "class_dict.csv", "r, g, b, name\n0, 0, 142, car\n0, 0, 0, sky\n128, 64, 7, road\n"),
        (
            rgb,
            "class_dict.csv",
            "\"name\",\"r\",\"g\",\"b\"\n\"sky\",\"0\",\"0\",\"0\"\n\"road\",\"128\",\"64\",\"7\"\n\"car\",\"0\",\"0\",\"142\"\n",
        ),
        (rgb, "class_dict.csv", "name;r;g;b\nsky;0.0;0.0;0.0\nroad;128.0;64.0;7.0\ncar;0.0;0.0;142.0\n"),
        (rgb, "classes.csv", "name,color\nsky,#000000\nroad,#804007\ncar,#00008e\n"),
        (
            rgb,
            "classes.json",
            "[{\"name\": \"sky\", \"color\": \"#000000\"}, {\"name\": \"road\", \"color\": [128, 64, 7]}, {\"name\": \"car\", \"color\": [0, 0, 142]}]",
        ),
        (rgb, "labelmap.txt", "# label:color_rgb:parts:actions\nsky:0,0,0::\nroad:128,64,7::\ncar:0,0,142::\n"),
    ] {
        let lab = Lab::new();
        set(&lab, 4, of);
        lab.write(&format!("set/{file}"), text);
        let (talk, classes) = init(&lab, &[]);
        let mut names: Vec<&str> =
            classes.iter().filter_map(|class| class.rsplit(' ').next()).filter(|name| *name != "-").collect();
        if text.contains("__ignore__") {
            assert_eq!(names, ["background", "road", "car"], "{talk}");
            continue;
        }
        // Colours are in their own order.
        names.sort_unstable_by_key(|name| plain.iter().position(|one| one == name));
        assert_eq!(names, plain, "{file} {text}: {talk}");
        assert!(classes.iter().all(|class| !class.starts_with("0 ") || class == "0 sky"), "{classes:?}");
    }
    // What is said: other files of names, names that come twice, two names of one colour, channels swapped.
    for (of, files, say) in [
        (
            ids,
            &[("classes.txt", "sky\nroad\ncar\n"), ("labels.txt", "a\nb\nc\n")][..],
            "`labels.txt` names the classes differently",
        ),
        (ids, &[("classes.txt", "sky\nroad\nroad\n")], "several values are called `road`"),
        (
            rgb,
            &[("class_dict.csv", "name,r,g,b\nsky,0,0,0\nroad,128,64,7\ncar,0,0,142\nbus,0,0,142\n")],
            "`car` and `bus` one colour",
        ),
        (
            rgb,
            &[("class_dict.csv", "name,r,g,b\nsky,0,0,0\nroad,7,64,128\ncar,142,0,0\n")],
            "red and blue may be swapped",
        ),
    ] {
        let lab = Lab::new();
        set(&lab, 4, of);
        files.iter().for_each(|(file, text)| drop(lab.write(&format!("set/{file}"), text)));
        let (talk, classes) = init(&lab, &[]);
        assert!(talk.contains(say) && classes.len() == 3, "{say}: {talk}");
    }
}

/// A split may lack classes that another has.
#[test]
fn tables_of_splits_complete_each_other() {
    let lab = Lab::new();
    for (split, at) in ["train", "valid"].iter().flat_map(|split| (0..3).map(move |at| (split, at))) {
        picture(&lab, &format!("set/{split}/{at}.jpg"));
        mask(&lab, &format!("set/{split}/{at}_mask.png"), half);
    }
    lab.write("set/train/_classes.csv", "Pixel Value, Class\n0, background\n1, leaf\n");
    lab.write("set/valid/_classes.csv", "Pixel Value, Class\n0, background\n");
    assert_eq!(Described::by_init(&lab, &[]).names(), ["background", "leaf"]);
    lab.write("set/valid/_classes.csv", "Pixel Value, Class\n0, leaf\n1, background\n");
    lab.refused(&["init", "set", "--yes"], &["structtoken data init set --names background,leaf --yes"]);
    lab.ok(&["data", "init", "set", "--names", "background,leaf", "--yes"]);
}

/// A polygon of each image, in the form of COCO.
pub(crate) fn coco(category: impl Fn(usize) -> (usize, &'static str), names: &[&str], ring: &[f64]) -> String {
    let images: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(id, name)| serde_json::json!({"id": id, "file_name": name, "width": SIZE.0, "height": SIZE.1}))
        .collect();
    let annotations: Vec<_> = (0..names.len())
        .map(|id| serde_json::json!({"id": id, "image_id": id, "category_id": category(id).0, "segmentation": [ring]}))
        .collect();
    let mut categories: Vec<(usize, &str)> = (0..names.len()).map(category).collect();
    categories.sort();
    categories.dedup();
    let categories: Vec<_> = categories.iter().map(|(id, name)| serde_json::json!({"id": id, "name": name})).collect();
    serde_json::json!({"images": images, "annotations": annotations, "categories": categories}).to_string()
}

pub(crate) const SQUARE: [f64; 8] = [0.0, 0.0, 20.0, 0.0, 20.0, 16.0, 0.0, 16.0];

#[test]
fn coco_as_tools_write_it() {
    // Ids that count anew in each file: names are what is meant.
    let lab = Lab::new();
    for (split, names) in [("train", ["a.jpg", "b.jpg"]), ("val", ["c.jpg", "d.jpg"])] {
        names.iter().for_each(|name| picture(&lab, &format!("set/{split}/{name}")));
        let (leaf, stem) = if split == "train" { (1, 2) } else { (2, 1) };
        let text = coco(|at| [(leaf, "leaf"), (stem, "stem")][at % 2], &names, &SQUARE);
        lab.write(&format!("set/annotations/instances_{split}.json"), text);
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!(set.names(), ["background", "leaf", "stem"]);
    for (image, class) in [("a", "leaf"), ("b", "stem"), ("c", "leaf"), ("d", "stem")] {
        assert_eq!(set.class(image, 3, 3), class, "{image}");
    }
    // An image that is not there costs its own annotations; shares of the sides; outlines outside of the image.
    let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "gone.jpg"];
    let beyond: Vec<f64> = SQUARE.iter().map(|at| at + 50.0).collect();
    let shares: Vec<f64> =
        SQUARE.iter().enumerate().map(|(at, v)| v / f64::from(if at % 2 == 0 { SIZE.0 } else { SIZE.1 })).collect();
    for (ring, say, class) in [
        (&SQUARE[..], "image is not there were left out (1): `gone.jpg`", "leaf"),
        (&shares, "read as fractions of width and height", "leaf"),
        (&beyond, "outside of their image were left out (4)", "background"),
    ] {
        let lab = Lab::new();
        names[..4].iter().for_each(|name| picture(&lab, &format!("set/images/{name}")));
        lab.write("set/all.json", coco(|_| (7, "leaf"), &names, ring));
        let (talk, _) = init(&lab, &[]);
        assert!(talk.contains(say) && talk.contains("gone.jpg"), "{say}: {talk}");
        let spec = DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap();
        assert_eq!(Described { spec }.class("b", 3, 3), class);
    }
    let lab = Lab::new();
    picture(&lab, "set/images/other.jpg");
    lab.write("set/all.json", coco(|_| (7, "leaf"), &names, &SQUARE));
    lab.refused(&["data", "init", "set"], &["5 images that cannot be used", "structtoken data init set --images DIR"]);
}

/// Files that were put together by hand: ids that two things share, and one image that is listed twice.
#[test]
fn coco_whose_ids_are_shared() {
    let names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"];
    let whole = || -> serde_json::Value {
        serde_json::from_str(&coco(|at| (1 + at % 2, ["leaf", "stem"][at % 2]), &names, &SQUARE)).unwrap()
    };
    let lab = Lab::new();
    names.iter().for_each(|name| picture(&lab, &format!("set/images/{name}")));
    for (table, both) in [("images", "the images `a.jpg` and `b.jpg`"), ("categories", "`leaf` and `stem`")] {
        let mut all = whole();
        all[table][1]["id"] = all[table][0]["id"].clone();
        lab.write("set/all.json", all.to_string());
        lab.refused(&["data", "init", "set"], &[both, "have the same id", "new ids"]);
    }
    let mut all = whole();
    all["images"].as_array_mut().unwrap().push(serde_json::json!({"id": 9, "file_name": "b.jpg"}));
    all["annotations"][3]["image_id"] = 9.into();
    lab.write("set/all.json", all.to_string());
    let set = Described::by_init(&lab, &[]);
    assert_eq!([set.class("b", 3, 3), set.class("d", 3, 3)], ["stem", "background"]);
}

#[test]
fn yolo_as_tools_write_it() {
    let lab = Lab::new();
    for (split, names) in [("train", &["a", "b", "c"][..]), ("valid", &["d"])] {
        for name in names {
            picture(&lab, &format!("set/{split}/images/{name}.jpg"));
            lab.write(&format!("set/{split}/labels/{name}.txt"), "0 0 0 0.5 0 0.5 0.5\n");
        }
    }
    // As exports have it: three splits, of which one is not there; a count that is not that of the names.
    lab.write(
        "set/data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 3\nnames: ['leaf']\n",
    );
    std::fs::remove_file(lab.path("set/train/labels/b.txt")).unwrap();
    lab.write("set/train/labels/gone.txt", "0 0 0 0.5 0 0.5 0.5\n");
    let (talk, classes) = init(&lab, &[]);
    for part in [
        "[test]",
        "says `nc: 3` and names 1",
        "are all background (1)",
        "without an image were left out (1)",
        "gone.txt",
    ] {
        assert!(talk.contains(part), "{part}: {talk}");
    }
    assert_eq!(classes, ["0 background", "1 leaf"]);
    std::fs::remove_dir_all(lab.path("set/valid")).unwrap();
    lab.refused(&["data", "init", "set", "--yes"], &["[val]", "not a folder"]);
}

/// Shapes whose image is gone cost themselves alone; a set without any image is refused.
#[test]
fn annotations_without_their_image_are_left_out() {
    let lab = Lab::new();
    for name in ["a", "b", "c", "gone"] {
        if name != "gone" {
            picture(&lab, &format!("set/{name}.jpg"));
        }
        let file = serde_json::json!({"imagePath": format!("{name}.jpg"), "imageData": null, "imageWidth": SIZE.0, "imageHeight": SIZE.1,
            "shapes": [{"label": "x", "points": [[0, 0], [9, 9]], "shape_type": "rectangle"}]});
        lab.write(&format!("set/{name}.json"), file.to_string());
    }
    let (talk, classes) = init(&lab, &[]);
    assert!(talk.contains("image is not there were left out (1)") && talk.contains("gone.jpg"), "{talk}");
    assert_eq!(classes, ["0 background", "1 x"]);
    ["a", "b", "c"].iter().for_each(|name| std::fs::remove_file(lab.path(&format!("set/{name}.jpg"))).unwrap());
    lab.refused(&["data", "init", "set", "--yes"], &["is not below", "--images DIR"]);
}

/// Published layouts.
#[test]
fn published_layouts() {
    // Mapillary Vistas, with two versions of its labels.
    let lab = Lab::new();
    for (folder, name) in [("training", "a"), ("training", "b"), ("validation", "c")] {
        picture(&lab, &format!("set/{folder}/images/{name}.jpg"));
        palette_mask(&lab, &format!("set/{folder}/v1.2/labels/{name}.png"), &[[1, 2, 3], [4, 5, 6], [0, 0, 0]], half);
    }
    lab.write("set/config_v1.2.json", r#"{"labels": [{"readable": "Bird", "color": [1, 2, 3]}, {"readable": "Curb", "color": [4, 5, 6]}, {"readable": "Unlabeled", "color": [0, 0, 0]}]}"#);
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts(), set.class("c", 30, 3)), (vec!["Bird", "Curb"], (2, 1), "Curb".into()));
    // Data Science Bowl 2018 as a whole: images to be tested have no masks.
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/stage1_train/id{at}/images/id{at}.png"));
        mask(&lab, &format!("set/stage1_train/id{at}/masks/m1.png"), |x, y| half(x, y) * 255);
        mask(&lab, &format!("set/stage1_train/id{at}/masks/m2.png"), |x, _| u8::from(x < 5) * 255);
    }
    picture(&lab, "set/stage1_test/id9/images/id9.png");
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "object"], (3, 1)));
    // A mask for each class, in a folder of its own.
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        mask(&lab, &format!("set/masks/chair/{at}.png"), |x, y| half(x, y) * 255);
        mask(&lab, &format!("set/masks/sofa/{at}.png"), |x, _| u8::from(x < 5) * 255);
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!(set.names(), ["background", "chair", "sofa"]);
    assert_eq!([set.class("1", 30, 3), set.class("1", 2, 3), set.class("1", 12, 3)], ["chair", "sofa", "background"]);
    // LoveDA: masks lie among what is read as images, and are not images without a mask.
    let lab = Lab::new();
    for (split, domain) in [("Train", "Urban"), ("Train", "Rural"), ("Val", "Urban")] {
        let name = format!("{split}{domain}");
        picture(&lab, &format!("set/{split}/{domain}/images_png/{name}.png"));
        mask(&lab, &format!("set/{split}/{domain}/masks_png/{name}.png"), |x, y| 1 + half(x, y));
    }
    let (talk, _) = init(&lab, &[]);
    assert!(!talk.contains("left out (") && !talk.contains("not used"), "{talk}");
    let report = lab.ok(&["data", "check", "set"]);
    assert!(!report.contains("not-listed"), "{report}");
}

/// Every refusal says what to run; what it says, pasted as it stands, ends in a set that is read.
#[cfg(unix)]
#[test]
fn printed_commands_make_sets_readable() {
    type Case = (&'static str, fn(&Lab));
    let cases: &[Case] = &[
        ("names without endings", |lab| {
            for at in 0..4 {
                picture(lab, &format!("set/x{at}.png"));
                mask(lab, &format!("set/y{at}.png"), half);
                for (from, to) in [("x", "images"), ("y", "masks")] {
                    std::fs::create_dir_all(lab.path(&format!("set/{to}"))).unwrap();
                    std::fs::rename(lab.path(&format!("set/{from}{at}.png")), lab.path(&format!("set/{to}/0{at}")))
                        .unwrap();
                }
            }
        }),
        ("capital letters", |lab| {
            for at in 0..4 {
                picture(lab, &format!("set/images/A b'{at}.png"));
                mask(lab, &format!("set/masks/a b'{at}.png"), half);
            }
        }),
        ("YOLO without names", |lab| {
            for (split, name) in [("train", "a"), ("train", "b"), ("val", "c")] {
                picture(lab, &format!("set/images/{split}/{name}.jpg"));
                lab.write(&format!("set/labels/{split}/{name}.txt"), "1 0 0 0.5 0 0.5 0.5\n");
            }
        }),
    ];
    for (kind, write) in cases {
        let lab = Lab::new();
        write(&lab);
        let (talk, _) = init(&lab, &[]);
        let hint = talk.split("hint: ").nth(1).unwrap_or_else(|| panic!("{kind}: {talk}"));
        let at = ["run: ", "yours in: "].iter().filter_map(|mark| Some(hint.find(mark)? + mark.len())).next();
        let command = hint[at.unwrap_or_else(|| panic!("{kind}: {talk}"))..].trim();
        let (done, said) = paste(&lab, command);
        assert!(done, "{kind}: {command}: {said}");
        if !command.contains("data init") {
            let (talk, classes) = init(&lab, &[]);
            assert_eq!(classes.len(), 2, "{kind}: {talk}");
        }
        assert!(lab.ok(&["data", "check", "set"]).contains("no faults"), "{kind}");
    }
    // Forms that are not read are called by their names.
    for (files, say) in [
        (
            &[("annotations.xml", "<?xml version=\"1.0\"?><annotations><image id=\"0\"></image></annotations>")][..],
            "CVAT's XML",
        ),
        (&[("a.xml", "<annotation><object><bndbox/></object></annotation>")], "boxes"),
        (&[("export.ndjson", "{}")], "not read"),
        (
            &[("a.json", "{\"images\": [], \"categories\": [], \"annotations\": [{\"bbox\": [1, 2, 3, 4]}]}")],
            "boxes and without outlines",
        ),
        (&[("images/b.heic", "x"), ("masks/b.png", "x")], ".heic are not read"),
    ] {
        let lab = Lab::new();
        picture(&lab, "set/pictures/one.jpg");
        files.iter().for_each(|(file, text)| drop(lab.write(&format!("set/{file}"), text)));
        let (talk, _) = init(&lab, &[]);
        assert!(talk.contains(say), "{files:?}: {talk}");
    }
}

/// Formats of files: read, or named with their own reason.
#[test]
fn files_of_many_kinds() {
    use tiff::encoder::{TiffEncoder, colortype::Gray8};
    // Masks of several pages hold more than is seen at first.
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/images/{at}.png"));
        std::fs::create_dir_all(lab.path("set/masks")).unwrap();
        let mut encoder =
            TiffEncoder::new(std::fs::File::create(lab.path(&format!("set/masks/{at}.tif"))).unwrap()).unwrap();
        for page in 0..2 {
            let ids: Vec<u8> = (0..SIZE.0 * SIZE.1).map(|at| u8::from(at % SIZE.0 > 9 + page * 9)).collect();
            encoder.write_image::<Gray8>(SIZE.0, SIZE.1, &ids).unwrap();
        }
    }
    lab.refused(&["data", "init", "set"], &["several pictures", "[join]"]);
    // The same as images: the first page is used, which is said.
    let lab = Lab::new();
    for at in 0..4 {
        mask(&lab, &format!("set/masks/{at}.png"), half);
        std::fs::create_dir_all(lab.path("set/images")).unwrap();
        let mut encoder =
            TiffEncoder::new(std::fs::File::create(lab.path(&format!("set/images/{at}.tif"))).unwrap()).unwrap();
        for _ in 0..2 {
            encoder.write_image::<Gray8>(SIZE.0, SIZE.1, &vec![at * 20; (SIZE.0 * SIZE.1) as usize]).unwrap();
        }
    }
    assert_eq!(init(&lab, &[]).1.len(), 2);
    assert!(lab.ok(&["data", "check", "set"]).contains("several-pages"));
    // Arrays with a dimension of one, in any order of bytes; layers of classes are refused with what to do.
    let array = |descr: &str, shape: &str, data: &[u8]| {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
        header.extend(std::iter::repeat_n(' ', 64 - (header.len() + 11) % 64));
        header.push('\n');
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    let (w, h) = SIZE;
    let bytes: Vec<u8> = (0..h).flat_map(|y| (0..w).map(move |x| half(x, y))).collect();
    let wide: Vec<u8> = bytes.iter().flat_map(|byte| [0, *byte]).collect();
    for (descr, shape, data, fits) in [
        ("|u1", format!("{h}, {w}"), &bytes, true),
        ("|u1", format!("{h}, {w}, 1"), &bytes, true),
        ("|u1", format!("1, {h}, {w}"), &bytes, true),
        (">u2", format!("1, {h}, {w}, 1"), &wide, true),
        ("|u1", format!("{}, {w}, 2", h / 2), &bytes, false),
    ] {
        let lab = Lab::new();
        for at in 0..3 {
            picture(&lab, &format!("set/images/{at}.png"));
            lab.write(&format!("set/masks/{at}.npy"), array(descr, &shape, data));
        }
        let (talk, classes) = init(&lab, &[]);
        assert_eq!(classes.len(), if fits { 2 } else { 0 }, "{shape}: {talk}");
        assert!(fits || talk.contains("argmax"), "{talk}");
    }
}
