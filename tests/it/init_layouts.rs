//! `structtoken data init` on folders as published sets and their authors lay them out; what it does not use is named,
//! and what it prints as a way out works.

use std::process::Command;

use image::{ImageBuffer, Luma, RgbImage};
use structtoken::dataset::spec::DatasetSpec;
use structtoken::dataset::{Dataset as _, Split};

use crate::cli::{Lab, TINY};
use crate::data_init::{Described, SIZE, colors, half, mask, picture};

/// Runs a command line that the program printed, as a person would paste it.
pub(crate) fn paste(lab: &Lab, line: &str) {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_structtoken"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let ended = Command::new("sh").args(["-c", line]).env("PATH", path).current_dir(lab.dir.path()).output().unwrap();
    assert!(ended.status.success(), "{line}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// The part of a text between two others.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let rest = text.split_once(start).unwrap_or_else(|| panic!("no `{start}` in {text}")).1;
    rest.split_once(end).map_or(rest, |(part, _)| part).trim()
}

fn talk(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.run(arguments);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{talk}");
    talk
}

#[test]
fn folders_as_published_sets_have_them() {
    // Images, masks, what is written for a mask of an image, and how many of which split there are.
    for (image, masked, splits, counts) in [
        // mmsegmentation; nnU-Net; ISIC; human parsing; BDD100K; Oxford pets; polyps; cracks.
        ("img_dir/SPLIT/NAME.jpg", "ann_dir/SPLIT/NAME.png", &["train", "val"][..], (4, 4)),
        ("imagesSPLIT/NAME_0000.png", "labelsSPLIT/NAME.png", &["Tr"], (4, 1)),
        ("ISIC2018_SPLIT_Input/NAME.jpg", "ISIC2018_SPLIT_GroundTruth/NAME_segmentation.png", &["Training"], (4, 1)),
        ("All_images/SPLIT_images/NAME.jpg", "All_parsing/SPLIT_segmentations/NAME.png", &["train", "val"], (4, 4)),
        ("images/10k/SPLIT/NAME.jpg", "labels/sem_seg/masks/SPLIT/NAME.png", &["train", "val"], (4, 4)),
        ("images/NAME.jpg", "annotations/trimaps/NAME.png", &[""], (4, 1)),
        ("Original/NAME.png", "Ground Truth/NAME.png", &[""], (4, 1)),
        ("SPLIT_img/NAME.jpg", "SPLIT_lab/NAME.png", &["train", "val"], (4, 4)),
        ("X_SPLIT/NAME.png", "y_SPLIT/NAME.png", &["train", "val"], (4, 4)),
    ] {
        let lab = Lab::new();
        let each = if counts.1 == 1 { 5 } else { 4 };
        for (split, at) in splits.iter().flat_map(|split| (0..each).map(move |at| (split, at))) {
            let named = |text: &str| format!("set/{}", text.replace("SPLIT", split).replace("NAME", &format!("p{at}")));
            picture(&lab, &named(image));
            mask(&lab, &named(masked), half);
        }
        // macOS leaves such beside files.
        lab.write(
            &format!("set/{}/._p0.png", masked.rsplit_once('/').unwrap().0.replace("SPLIT", splits[0])),
            "\0\x05\x16\x07",
        );
        let set = Described::by_init(&lab, &["--names", "floor,cat"]);
        assert_eq!((set.names(), set.counts()), (vec!["floor", "cat"], counts), "{image}");
    }
}

/// Carvana's masks are GIFs; those of DRIVE have a mask of the field of view beside them, which is not a label.
#[test]
fn masks_that_are_gifs() {
    let gif = |lab: &Lab, name: &str, one: bool| {
        let (w, h) = (SIZE.0 as u16, SIZE.1 as u16);
        let indices: Vec<u8> = (0..h).flat_map(|_| (0..w).map(|x| u8::from(one || x >= 20))).collect();
        let mut bytes = Vec::new();
        let mut encoder = gif::Encoder::new(&mut bytes, w, h, &[0, 0, 0, 255, 255, 255]).unwrap();
        encoder.write_frame(&gif::Frame::from_indexed_pixels(w, h, indices, None)).unwrap();
        drop(encoder);
        lab.write(name, bytes);
    };
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/train/car{at}_01.jpg"));
        gif(&lab, &format!("set/train_masks/car{at}_01_mask.gif"), false);
        picture(&lab, &format!("set/test/car9{at}_01.jpg"));
    }
    let set = Described::by_init(&lab, &["--names", "ground,car"]);
    assert_eq!(
        (set.counts(), set.class("car3_01", 20, 0), set.class("car3_01", 19, 0)),
        ((4, 1), "car".into(), "ground".into())
    );
    assert!(talk(&lab, &["init", "set", "--yes"]).contains("pictures of other folders are not used (5): 5 in `test`"));

    let lab = Lab::new();
    for at in 21..26 {
        picture(&lab, &format!("set/training/images/{at}_training.png"));
        gif(&lab, &format!("set/training/1st_manual/{at}_manual1.gif"), false);
        gif(&lab, &format!("set/training/mask/{at}_training_mask.gif"), true);
    }
    let set = Described::by_init(&lab, &["--names", "ground,vessel"]);
    assert_eq!(
        (set.counts(), set.class("23", 30, 0), set.class("23", 3, 0)),
        ((4, 1), "vessel".into(), "ground".into())
    );
    assert!(talk(&lab, &["init", "set", "--yes"]).contains("5 in `training/mask`"));
    // The other folder, asked for, shows one value, and that is said.
    let said = talk(&lab, &["init", "set", "--masks", "training/mask", "--images", "training/images", "--yes"]);
    assert!(said.contains("all masks hold one value, 1") && said.contains("--masks DIR"), "{said}");
}

#[test]
fn lists_cut_a_set() {
    for (train, val, line) in [
        // Names; PaddleSeg's pairs; paths of another machine; AeroScapes.
        ("train.txt", "val.txt", "NAME"),
        ("train.txt", "val.txt", "images/NAME.jpg masks/NAME.png"),
        ("train_list.txt", "val_list.txt", "/home/me/set/images/NAME.jpg"),
        ("ImageSets/trn.txt", "ImageSets/val.txt", "NAME.jpg"),
    ] {
        let lab = Lab::new();
        (0..7).for_each(|at| {
            picture(&lab, &format!("set/images/p{at}.jpg"));
            mask(&lab, &format!("set/masks/p{at}.png"), half);
        });
        let list = |names: &[usize]| {
            names.iter().map(|at| line.replace("NAME", &format!("p{at}")) + "\r\n").collect::<String>()
        };
        lab.write(&format!("set/{train}"), list(&[0, 2, 4, 5]) + "elsewhere/x9\n");
        lab.write(&format!("set/{val}"), list(&[1, 3]));
        let said = talk(&lab, &["init", "set"]);
        for part in [train, val, "images that none names are left out (1)", "lines of", "p6.jpg"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let set = DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap();
        assert_eq!(Described { spec: set }.counts(), (4, 2), "{line}");
    }
}

#[test]
fn pictures_are_never_masks_of_each_other() {
    // Sequences with folders of their own: refused, and the command that is printed makes one set of them.
    let lab = Lab::new();
    for (film, at) in ["seq1", "seq2"].iter().flat_map(|film| (0..3).map(move |at| (film, at))) {
        picture(&lab, &format!("set/{film}/Images/{at:06}.png"));
        colors(&lab, &format!("set/{film}/Labels/{at:06}.png"), |x, y| {
            [[0, 0, 9], [128, 64, 128]][usize::from(half(x, y))]
        });
    }
    lab.write("set/notes/read me.txt", "films");
    let said = lab.refused(&["init", "set"], &["2 folders", "`seq1`", "structtoken data init 'set/all'"]);
    paste(&lab, between(&said, "in each name: ", ", and then"));
    paste(&lab, &format!("structtoken data init {}", between(&said, "and then: structtoken data init ", "\n")));
    let set = Described { spec: DatasetSpec::read(&lab.path("set/all/dataset.toml")).unwrap() };
    assert_eq!((set.counts(), set.class("seq2/000001", 30, 0)), ((5, 1), "class 128-64-128".into()));

    // A folder around a set.
    let lab = Lab::new();
    (0..5).for_each(|at| {
        picture(&lab, &format!("set/data/v1/original_images/{at}.jpg"));
        mask(&lab, &format!("set/data/v1/label_images/{at}.png"), half);
    });
    let said = lab.refused(&["init", "set"], &["`data/v1` in it holds images and masks"]);
    paste(&lab, between(&said, "run: ", "\n"));
    assert!(lab.path("set/data/v1/dataset.toml").exists());

    // A split without masks is left out, and named.
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/train/{at}_sat.jpg"));
        mask(&lab, &format!("set/train/{at}_mask.png"), half);
        picture(&lab, &format!("set/valid/{}_sat.jpg", 90 + at));
    }
    let set = Described::by_init(&lab, &["--names", "floor,cat"]);
    assert_eq!(set.counts(), (4, 1));
    assert!(talk(&lab, &["init", "set", "--yes"]).contains("5 in `valid`"));

    // Photographs in the place of masks.
    let lab = Lab::new();
    (0..4).for_each(|at| {
        picture(&lab, &format!("set/images/{at}.png"));
        picture(&lab, &format!("set/masks/{at}.png"));
    });
    lab.refused(&["init", "set"], &["no recognisable labels"]);
}

#[test]
fn names_that_only_look_alike_are_refused() {
    let lab = Lab::new();
    (0..5).for_each(|at| {
        picture(&lab, &format!("set/images/000{at}.png"));
        mask(&lab, &format!("set/masks/{at}.png"), half);
    });
    lab.refused(&["init", "set"], &["cannot be matched by name"]);
    // Another beginning: the command that is printed renames the masks.
    let lab = Lab::new();
    (0..5).for_each(|at| {
        picture(&lab, &format!("set/images/img_{at}.png"));
        mask(&lab, &format!("set/masks/mask_{at}.png"), half);
    });
    let said = lab.refused(&["init", "set"], &["mv "]);
    paste(&lab, between(&said, "run: ", "\n"));
    assert_eq!(Described::by_init(&lab, &["--names", "a,b"]).counts(), (4, 1));
}

/// What a plain set does not use is named by `init`, by the check and before training.
#[test]
fn images_without_masks_are_named_everywhere() {
    let lab = Lab::new();
    for split in ["train", "val"] {
        (0..4).for_each(|at| {
            picture(&lab, &format!("set/{split}/images/{split}{at}.png"));
            mask(&lab, &format!("set/{split}/masks/{split}{at}.png"), half);
        });
    }
    picture(&lab, "set/train/images/new.png");
    picture(&lab, "set/val/images/more.jpg");
    lab.write("set/train/images/phone.heic", "x");
    mask(&lab, "set/train/masks/orphan.png", half);
    let set = Described::by_init(&lab, &["--names", "a,b"]);
    assert_eq!(set.counts(), (4, 4));
    lab.write(
        "r.toml",
        TINY.replace(
            "dataset = \"shapes\"\nshapes = { size = 32, train = 64, val = 6 }",
            "dataset = \"set/dataset.toml\"",
        ),
    );
    let train = ["train", "r.toml", "--device", "cpu", "--out", "run", "--set", "train.iterations=1"];
    let said = [
        talk(&lab, &["init", "set", "--names", "a,b", "--yes"]),
        lab.ok(&["data", "check", "set/dataset.toml"]),
        talk(&lab, &train),
    ];
    for (said, part) in
        said.iter().flat_map(|said| ["new.png", "more.jpg", "phone.heic", "orphan.png"].map(|part| (said, part)))
    {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[test]
fn masks_that_are_jpegs_are_read_on_request() {
    let jpeg = |lab: &Lab, name: &str, color: &dyn Fn(u32, u32) -> [u8; 3]| {
        let path = lab.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mask = RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Rgb(color(x, y)));
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&mask).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        // The edge lies within a block, so that compression blurs it.
        jpeg(&lab, &format!("set/masks/{at}.jpg"), &|x, _| if x >= 20 { [255; 3] } else { [0; 3] });
    }
    let said = lab.refused(&["init", "set"], &["JPEG", "--jpeg-tolerance ", "the nearest of 2 common ones"]);
    paste(&lab, &format!("structtoken {}", between(&said, "`structtoken ", "`")));
    let set = Described { spec: DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap() };
    assert_eq!((set.names(), set.counts()), (vec!["background", "object"], (4, 1)));
    assert!(set.spec.jpeg_tolerance > Some(16), "{:?}", set.spec.jpeg_tolerance);
    assert_eq!([2, 19, 20, 38].map(|x| set.class("2", x, 9)), ["background", "background", "object", "object"]);
    lab.ok(&["data", "check", "set"]);
    // Colours, as far as they are from each other.
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        jpeg(&lab, &format!("set/masks/{at}.jpg"), &|x, y| [[0, 0, 0], [200, 0, 0]][usize::from(half(x, y))]);
    }
    paste(&lab, "structtoken data init set --jpeg-tolerance 90 --names ground,cell");
    let set = Described { spec: DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap() };
    assert_eq!((set.class("4", 30, 3), set.class("4", 5, 3)), ("cell".to_string(), "ground".to_string()));
    // Four colours whose mixtures lie half-way between them: what is printed tells them apart at the first try, also
    // where a tolerance was given that does not.
    let lab = Lab::new();
    for at in 0..6 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        let colors = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]];
        jpeg(&lab, &format!("set/masks/{at}.jpg"), &|x, y| {
            colors[usize::from(x >= 11 + at) + 2 * usize::from(y >= 13)]
        });
    }
    for first in [&["init", "set"][..], &["init", "set", "--jpeg-tolerance", "4"]] {
        let said = match first.len() {
            2 => lab.refused(first, &["--jpeg-tolerance ", "nearest of 4 common ones"]),
            _ => talk(&lab, first),
        };
        let command =
            said.lines().find(|line| line.contains("common ones") || line.contains("keep apart best")).unwrap();
        let command = command.split("structtoken ").nth(1).unwrap().split('`').next().unwrap().trim();
        paste(&lab, &format!("structtoken {command}"));
        let set = Described { spec: DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap() };
        assert_eq!((set.names().len(), set.counts()), (4, (5, 1)), "{command}: {:?}", set.names());
        lab.ok(&["data", "check", "set"]);
        for name in ["dataset.toml", "dataset-train.txt", "dataset-val.txt"] {
            std::fs::remove_file(lab.path("set").join(name)).unwrap();
        }
    }
    // Photographs are none, whatever the tolerance.
    let lab = Lab::new();
    for at in 0..4u32 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        jpeg(&lab, &format!("set/masks/{at}.jpg"), &|x, y| {
            [0, 1, 2].map(|c| (((x * 37 + y * 91 + c * 53 + at * 11) * 2_654_435) >> 7) as u8)
        });
    }
    let said = lab.refused(&["init", "set"], &["JPEG"]);
    assert!(said.contains("look like photographs") || said.contains("common ones"), "{said}");
    // The flag does nothing to masks that need it not.
    let lab = Lab::new();
    (0..4).for_each(|at| {
        picture(&lab, &format!("set/images/{at}.jpg"));
        mask(&lab, &format!("set/masks/{at}.png"), half);
    });
    paste(&lab, "structtoken data init set --jpeg-tolerance 16");
    assert_eq!(DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap().jpeg_tolerance, None);
}

/// `.npy` as `numpy.save` writes it.
fn npy(kind: &str, shape: &str, data: Vec<u8>) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let header = format!("{header:<117}\n");
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

#[test]
fn masks_that_are_arrays() {
    let (w, h) = SIZE;
    let ids = || (0..h).flat_map(|y| (0..w).map(move |x| half(x, y)));
    let set = |array: &dyn Fn() -> Vec<u8>, ending: &str| {
        let lab = Lab::new();
        for at in 0..4 {
            picture(&lab, &format!("set/JPEGImages/{at}.jpg"));
            lab.write(&format!("set/SegmentationClass/{at}.{ending}"), array());
        }
        // As labelme2voc leaves it.
        lab.write("set/class_names.txt", "_background_\ncat\n");
        lab
    };
    let lab =
        set(&|| npy("<i4", &format!("{h}, {w}"), ids().flat_map(|id| i32::from(id).to_le_bytes()).collect()), "npy");
    picture(&lab, "set/SegmentationClassVisualization/0.jpg");
    let described = Described::by_init(&lab, &[]);
    assert_eq!((described.names(), described.class("3", 20, 0)), (vec!["_background_", "cat"], "cat".into()));
    assert!(talk(&lab, &["init", "set", "--yes"]).contains("1 in `SegmentationClassVisualization`"));
    let floats = || npy("<f4", &format!("{h}, {w}"), ids().flat_map(|id| f32::from(id).to_le_bytes()).collect());
    set(&floats, "npy").refused(&["init", "set"], &["arrays of something other", "astype(numpy.uint8)"]);
    let one_hot = || npy("|u1", &format!("{h}, {w}, 2"), ids().flat_map(|id| [1 - id, id]).collect());
    set(&one_hot, "npy").refused(&["init", "set"], &["arrays of something other than class numbers", "two dimensions"]);
    set(&|| b"PK\x03\x04".to_vec(), "npz").refused(&["init", "set"], &[".npz (4)", ".npz", ".npy"]);
}

/// 12 bits in 16: the range of the set is written, and goes into the model file.
#[test]
fn images_of_few_bits_in_sixteen() {
    let deep = |lab: &Lab, name: &str, most: u16| {
        let path = lab.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(SIZE.0, SIZE.1, |x, y| {
            Luma([(x * 7 + y) as u16 * 7 + (most - 2000) * 31 + u16::from(x == 3) * 2000])
        })
        .save(path)
        .unwrap();
    };
    let lab = Lab::new();
    for at in 0..6 {
        deep(&lab, &format!("set/images/{at}.png"), 2001 + at);
        mask(&lab, &format!("set/masks/{at}.png"), |x, _| u8::from(x > 3 + u32::from(at)));
    }
    let said = talk(&lab, &["init", "set", "--names", "a,b"]);
    assert!(said.contains("16 bits per channel") && said.contains("0 to 4095"), "{said}");
    assert_eq!(DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap().range, Some([0, 4095]));
    assert!(lab.ok(&["data", "check", "set"]).contains("no faults, no warnings"));
    let set = DatasetSpec::read(&lab.path("set/dataset.toml"))
        .unwrap()
        .open(structtoken::dataset::Split::Train, None)
        .unwrap();
    assert!(set.get(0).unwrap().image.pixels.iter().any(|value| *value > 100), "bright enough to be seen");
    lab.write(
        "r.toml",
        TINY.replace(
            "dataset = \"shapes\"\nshapes = { size = 32, train = 64, val = 6 }",
            "dataset = \"set/dataset.toml\"",
        ),
    );
    lab.ok(&["train", "r.toml", "--device", "cpu", "--out", "run", "--set", "train.iterations=1"]);
    let card = structtoken::weights::read_metadata(&lab.path("run/model.safetensors")).unwrap();
    assert!(card["structtoken"].replace(' ', "").contains("\"range\":[0,4095]"), "{}", card["structtoken"]);
    // A planned run too.
    let planned = [
        "train",
        "set",
        "--device",
        "cpu",
        "--out",
        "planned",
        "--set",
        "train.iterations=1",
        "--set",
        "train.batch_size=1",
    ];
    lab.ok(&planned);
    let card = structtoken::weights::read_metadata(&lab.path("planned/model.safetensors")).unwrap();
    assert!(card["structtoken"].replace(' ', "").contains("\"range\":[0,4095]"));
}

/// A file of Cityscapes' polygons; what the labels cover, in order.
fn city(objects: &[(&str, [f64; 4], bool)]) -> String {
    let object = |(label, [a, b, c, d], deleted): &(&str, [f64; 4], bool)| {
        let mut object = serde_json::json!({"label": label, "polygon": [[a, b], [c, b], [c, d], [a, d]]});
        if *deleted {
            object["deleted"] = 1.into();
        }
        object
    };
    let objects: Vec<_> = objects.iter().map(object).collect();
    serde_json::json!({"imgHeight": SIZE.1, "imgWidth": SIZE.0, "objects": objects}).to_string()
}

#[test]
fn polygons_of_cityscapes() {
    let all = [0.0, 0.0, 40.0, 32.0];
    let street = city(&[
        ("road", all, false),
        ("cargroup", [0.0, 0.0, 10.0, 10.0], false),
        ("license plate", [2.0, 2.0, 5.0, 5.0], false),
        ("sky", [20.0, 0.0, 40.0, 10.0], false),
        ("pole", [25.0, 0.0, 28.0, 20.0], false),
        ("bus", [30.0, 20.0, 40.0, 32.0], true),
        ("parking", [10.0, 20.0, 20.0, 32.0], false),
    ]);
    let lab = Lab::new();
    for (split, at) in ["train", "val"].iter().flat_map(|split| (0..3).map(move |at| (split, at))) {
        picture(&lab, &format!("set/leftImg8bit/{split}/ulm/ulm_{at}_leftImg8bit.png"));
        lab.write(&format!("set/gtFine/{split}/ulm/ulm_{at}_gtFine_polygons.json"), &street);
    }
    picture(&lab, "set/leftImg8bit/test/bonn/bonn_0_leftImg8bit.png");
    lab.write("set/gtFine/test/bonn/bonn_0_gtFine_polygons.json", city(&[("out of roi", all, false)]));
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names().len(), set.counts()), (19, (3, 3)));
    assert_eq!(set.spec.classes[0].color, Some([128, 64, 128]));
    let at = |x, y| set.class("ulm/ulm_1_leftImg8bit", x, y);
    assert_eq!(
        [at(15, 15), at(9, 9), at(3, 3), at(35, 5), at(26, 15), at(35, 25), at(15, 25)],
        ["road", "car", "car", "sky", "pole", "road", "ignored"]
    );
    // Pixels that nothing covers count nowhere; a set with labels of its own has them as classes.
    let lab = Lab::new();
    for at in 0..5 {
        picture(&lab, &format!("set/leftImg8bit/train/{at}_leftImg8bit.jpg"));
        let own = city(&[("autorickshaw", [0.0, 0.0, 10.0, 10.0], false), ("road", [10.0, 0.0, 20.0, 10.0], false)]);
        lab.write(&format!("set/gtFine/train/{at}_gtFine_polygons.json"), own);
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["autorickshaw", "road"], (4, 1)));
    assert_eq!([5, 15, 25].map(|x| set.class("2_leftImg8bit", x, 5)), ["autorickshaw", "road", "ignored"]);
    // Label images come first, where there are any.
    for at in 0..5 {
        mask(&lab, &format!("set/gtFine/train/{at}_gtFine_labelIds.png"), |x, y| [7, 26][usize::from(half(x, y))]);
        std::fs::rename(
            lab.path(&format!("set/leftImg8bit/train/{at}_leftImg8bit.jpg")),
            lab.path(&format!("set/leftImg8bit/train/{at}_leftImg8bit.png")),
        )
        .unwrap();
    }
    lab.ok(&["init", "set", "--out", "by-ids.toml"]);
    assert_eq!(DatasetSpec::read(&lab.path("by-ids.toml")).unwrap().classes.len(), 19);
    // Cut short: named.
    let lab = Lab::new();
    picture(&lab, "set/leftImg8bit/train/0_leftImg8bit.png");
    lab.write("set/gtFine/train/0_gtFine_polygons.json", &street[..street.len() - 9]);
    lab.refused(&["init", "set"], &["0_gtFine_polygons.json", "cut short"]);
}

#[test]
fn regions_of_label_studio() {
    let (w, h) = SIZE;
    let region = |kind: &str, value: serde_json::Value| {
        let mut value = value;
        value[kind] = serde_json::json!([if kind == "polygonlabels" { "cat" } else { "dog" }]);
        serde_json::json!({"id": "x", "type": kind, "original_width": w, "original_height": h, "image_rotation": 0, "value": value})
    };
    let regions = vec![
        region("polygonlabels", serde_json::json!({"points": [[0, 0], [50, 0], [50, 50], [0, 50]], "closed": true})),
        region("rectanglelabels", serde_json::json!({"x": 75, "y": 50, "width": 25, "height": 50, "rotation": 0})),
        serde_json::json!({"type": "choices", "value": {"choices": ["sunny"]}}),
    ];
    let task = |at: usize, regions: &[serde_json::Value]| {
        serde_json::json!({"id": at, "data": {"image": format!("/data/upload/1/0a1b2c3d-p{at}.jpg")},
            "annotations": [{"id": 1, "was_cancelled": true, "result": []}, {"id": 2, "was_cancelled": false, "result": regions}]})
    };
    let lab = Lab::new();
    (0..5).for_each(|at| picture(&lab, &format!("set/images/p{at}.jpg")));
    let write = |last: &[serde_json::Value]| {
        let mut tasks: Vec<_> = (0..4).map(|at| task(at, &regions)).collect();
        tasks.push(task(4, last));
        lab.write("set/project-1.json", serde_json::Value::from(tasks).to_string());
    };
    write(&regions);
    let set = Described::by_init(&lab, &[]);
    assert_eq!((set.names(), set.counts()), (vec!["background", "cat", "dog"], (4, 1)));
    assert_eq!(
        [(19, 15), (20, 15), (30, 16), (30, 15)].map(|(x, y)| set.class("images/p2", x, y)),
        ["cat", "background", "dog", "background"]
    );
    // What cannot be right costs its image, and is named.
    let mut turned = regions.clone();
    turned[0]["image_rotation"] = 90.into();
    let mut brush = regions.clone();
    brush[0] = region("brushlabels", serde_json::json!({"format": "rle", "rle": [0, 0, 0, 8, 1]}));
    let mut strange = regions.clone();
    strange[0]["value"]["points"] = "none".into();
    for (last, say) in [(turned, "image_rotation"), (brush, "rle"), (strange, "not in Label Studio's form")] {
        write(&last);
        let said = talk(&lab, &["init", "set", "--yes"]);
        assert!(
            said.contains("images were left out") && said.contains(say) && said.contains("task 4"),
            "{say}: {said}"
        );
    }
    std::fs::remove_file(lab.path("set/images/p3.jpg")).unwrap();
    write(&regions);
    lab.refused(&["init", "set", "--yes"], &["task 3", "p3.jpg", "--images DIR"]);
}

/// Masks of classes and objects are read where they are, by `[join]`; nothing is drawn.
#[test]
fn several_masks_are_joined_in_place() {
    let black_white = |x: u32, y: u32| half(x, y) * 255;
    let lab = Lab::new();
    for at in 1..=5 {
        picture(&lab, &format!("busi/benign/benign ({at}).png"));
        mask(&lab, &format!("busi/benign/benign ({at})_mask.png"), black_white);
        picture(&lab, &format!("rect/images/{at}.jpg"));
        mask(&lab, &format!("rect/masks/{at}_class_chair.png"), |x, _| u8::from(x < 5) * 255);
        mask(&lab, &format!("rect/masks/{at}_class_sofa.png"), black_white);
        picture(&lab, &format!("nuclei/id{at}/images/id{at}.png"));
        mask(&lab, &format!("nuclei/id{at}/masks/a.png"), |x, _| u8::from(x < 5) * 255);
        mask(&lab, &format!("nuclei/id{at}/masks/b.png"), black_white);
    }
    mask(&lab, "busi/benign/benign (2)_mask_1.png", |x, _| u8::from(x < 5) * 255);
    for (set, patterns) in [
        ("busi", &["{stem}_mask*.png"][..]),
        ("rect", &["{stem}_class_chair.png", "{stem}_class_sofa.png"]),
        ("nuclei", &["{folder}/../masks/*.png"]),
    ] {
        lab.ok(&["init", set]);
        let spec = DatasetSpec::read(&lab.path(&format!("{set}/dataset.toml"))).unwrap();
        let files: Vec<&str> = spec.join.as_ref().unwrap().masks.iter().map(|mask| mask.file.as_str()).collect();
        assert_eq!(files, patterns, "{set}");
        assert!(!lab.path(&format!("{set}/dataset-masks")).exists());
        let report = lab.ok(&["data", "check", &format!("{set}/dataset.toml")]);
        assert!(report.contains("no faults"), "{report}");
        assert_eq!(Described { spec }.counts(), (4, 1), "{set}");
    }
    // Names that patterns cannot tell apart are drawn.
    let lab = Lab::new();
    for at in 1..=5 {
        picture(&lab, &format!("set/images/{at}.jpg"));
        for (end, from) in [("car_1", 0), ("car_2", 10), ("carpet_1", 30)] {
            mask(&lab, &format!("set/masks/{at}_class_{end}.png"), |x, _| {
                u8::from((from..from + 5).contains(&x)) * 255
            });
        }
    }
    let set = Described::by_init(&lab, &[]);
    assert_eq!([2, 12, 32, 20].map(|x| set.class("3", x, 0)), ["car", "car", "carpet", "background"]);
}

#[test]
fn accents_may_be_written_in_two_ways() {
    // As one character, and as a letter with an accent after it, as macOS writes them.
    let ways = ["fen\u{ea}tre", "fene\u{302}tre"];
    for (of_images, of_masks) in [(ways[0], ways[1]), (ways[1], ways[0])] {
        let lab = Lab::new();
        for at in 0..4 {
            picture(&lab, &format!("set/images/{of_images}_{at}.jpg"));
            mask(&lab, &format!("set/masks/{of_masks}_{at}.png"), half);
        }
        let set = Described::by_init(&lab, &["--yes"]);
        assert_eq!(set.counts(), (3, 1));
        assert_eq!(set.class(&format!("{of_images}_2"), 30, 5), set.names()[1]);
        let report = lab.ok(&["data", "check", "set/dataset.toml"]);
        assert!(!report.contains("without"), "{report}");
        // A list in the spelling of the masks finds images all the same.
        let list = lab.path("set/dataset-train.txt");
        let names = std::fs::read_to_string(&list).unwrap().replace(of_images, of_masks);
        std::fs::write(&list, names).unwrap();
        let set = DatasetSpec::read(&lab.path("set/dataset.toml")).unwrap();
        assert_eq!(set.open(Split::Train, None).unwrap().len(), 3);
    }
}
