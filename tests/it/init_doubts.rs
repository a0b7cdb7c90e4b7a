//! Labels that could be read in two ways, or are none: `init` asks, and so does the check of a bare folder.

use image::{GrayImage, Luma};

use crate::cli::Lab;
use crate::data_init::{Described, SIZE, colors, half, mask, palette_mask, picture};
use crate::init_kinds::init;

fn images(lab: &Lab, count: usize) {
    (0..count).for_each(|at| picture(lab, &format!("set/images/{at}.png")));
}

/// 0, 1 and 2 from left to right.
fn third(x: u32) -> u32 {
    x * 3 / SIZE.0
}

#[test]
fn what_init_asks_is_a_fault_of_the_check_too() {
    let lab = Lab::new();
    images(&lab, 4);
    for at in 0..4 {
        mask(&lab, &format!("set/masks/{at}.png"), |x, _| [0, 1, 254, 255][(x / 10) as usize]);
    }
    lab.refused(&["init", "set"], &["255 may be a class or mark pixels to ignore"]);
    let output = lab.run(&["data", "check", "set"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("unclear-labels") && report.contains("--void none if 255 is a class"), "{report}");
    // Answered, there is no fault.
    Described::by_init(&lab, &["--void", "none"]);
    assert!(lab.ok(&["data", "check", "set"]).contains("no faults"));
    // Names that can be read in two ways.
    let lab = Lab::new();
    images(&lab, 4);
    (0..4).for_each(|at| mask(&lab, &format!("set/masks/{at}.png"), |x, _| [0, 1, 3][third(x) as usize]));
    lab.write("set/classes.txt", "cat\ndog\nbird\n");
    lab.refused(&["init", "set"], &["two readings are possible"]);
    let output = lab.run(&["data", "check", "set"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("two readings are possible"));
}

#[test]
fn yolo_that_counts_from_1_is_asked_about() {
    let lab = Lab::new();
    for (split, count) in [("train", 6), ("val", 2)] {
        for at in 0..count {
            picture(&lab, &format!("set/images/{split}/{at}.jpg"));
            let class = 1 + at % 2;
            let line = format!("{class} 0 0 0.5 0 0.5 0.5 0 0.5\n");
            lab.write(&format!("set/labels/{split}/{at}.txt"), line);
        }
    }
    let yaml = |names: &str| format!("train: images/train\nval: images/val\nnc: 2\nnames: {names}\n");
    lab.write("set/data.yaml", yaml("[crack, hole]"));
    let talk = lab.refused(&["init", "set"], &["hold the numbers 1 to 2, and no 0", "count from 1"]);
    let names = talk.split("`names: ").nth(1).unwrap().split('`').next().unwrap();
    lab.write("set/data.yaml", yaml(names));
    let set = Described::by_init(&lab, &[]);
    assert_eq!([set.class("0", 2, 2), set.class("1", 2, 2)], ["crack", "hole"]);
    // What YAML takes for something else than text.
    lab.write("set/data.yaml", yaml("[yes, null]"));
    lab.refused(&["init", "set", "--yes"], &["data.yaml", "in quotes"]);
    lab.write("set/data.yaml", yaml("{1: 'yes', 2: 'null'}"));
    assert_eq!(Described::by_init(&lab, &["--yes"]).names(), ["background", "yes", "null"]);
    // Or a name is missing.
    lab.write("set/data.yaml", yaml("[background, crack, hole]"));
    let set = Described::by_init(&lab, &["--yes"]);
    assert_eq!(set.class("0", 2, 2), "crack");
}

#[test]
fn a_grey_rounded_in_two_ways_is_one_class() {
    let lab = Lab::new();
    images(&lab, 6);
    for at in 0..6 {
        mask(&lab, &format!("set/masks/{at}.png"), |x, _| [0, 127 + at % 2, 255][third(x) as usize]);
    }
    let talk = lab.refused(&["init", "set"], &["3 masks", "0, 127, 255", "0, 128, 255", "two ways"]);
    assert!(talk.contains("--void none takes them for the same classes"), "{talk}");
    let report = String::from_utf8(lab.run(&["data", "check", "set"]).stdout).unwrap();
    assert!(report.contains("mixed-encodings") && report.contains("rounded down in some masks"), "{report}");
    let set = Described::by_init(&lab, &["--void", "none"]);
    assert_eq!(
        (set.names().len(), set.class("0", 20, 3), set.class("1", 20, 3)),
        (3, "class 127".into(), "class 127".into())
    );
    // Together in one mask they are two classes.
    mask(&lab, "set/masks/0.png", |x, _| [0, 127, 128, 255][(x / 10) as usize]);
    assert!(!init(&lab, &["--yes"]).0.contains("two ways"));
}

#[test]
fn swapped_red_and_blue_are_told_from_colours() {
    let palette = [[0, 0, 0], [200, 30, 60], [20, 160, 90]];
    let swapped = |colour: [u8; 3], swap: bool| if swap { [colour[2], colour[1], colour[0]] } else { colour };
    let set = |swap: fn(u32, u32) -> bool| {
        let lab = Lab::new();
        images(&lab, 6);
        for at in 0..6 {
            let colour = |x: u32, _| swapped(palette[third(x) as usize], swap(at, x));
            colors(&lab, &format!("set/masks/{at}.png"), colour);
        }
        lab
    };
    let lab = set(|at, _| at % 2 == 0);
    lab.refused(&["init", "set"], &["red and blue are swapped in some masks", "3 masks hold"]);
    let output = lab.run(&["data", "check", "set"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && report.contains("mixed-encodings"), "{report}");
    // All alike, or both in one mask.
    for swap in [(|_, _| true) as fn(u32, u32) -> bool, |_, x| x > 20] {
        assert!(!init(&set(swap), &[]).0.contains("swapped"));
    }
}

/// The mask of a disc, scaled by two bilinearly.
fn scaled(at: u32, id: u8) -> GrayImage {
    let small = GrayImage::from_fn(SIZE.0 / 2, SIZE.1 / 2, |x, y| {
        let (dx, dy) = (x as i32 - 8 - at as i32 % 3, y as i32 - 8);
        Luma([if dx * dx + dy * dy < 30 { id } else { 0 }])
    });
    image::imageops::resize(&small, SIZE.0, SIZE.1, image::imageops::FilterType::Triangle)
}

#[test]
fn numbers_between_their_neighbours_are_smoothed_edges() {
    let lab = Lab::new();
    images(&lab, 6);
    std::fs::create_dir_all(lab.path("set/masks")).unwrap();
    (0..6).for_each(|at| scaled(at, 15).save(lab.path(&format!("set/masks/{at}.png"))).unwrap());
    let names: Vec<String> = (0..16).map(|id| format!("name{id}")).collect();
    lab.write("set/classes.txt", names.join("\n"));
    lab.refused(&["init", "set"], &["smoothed edges", "nearest"]);
    // Described all the same, the check warns.
    let classes = (0..16).map(|id| format!("[[classes]]\nname = \"name{id}\"\nsource = [{id}]\n")).collect::<String>();
    let toml = format!(
        "name = \"set\"\nencoding = \"index\"\n{classes}[train]\nimages = \"images\"\nmasks = \"masks\"\nmask_suffix = \".png\"\n"
    );
    lab.write("set/dataset.toml", toml);
    let report = lab.ok(&["data", "check", "set"]);
    assert!(report.contains("smoothed-values"), "{report}");
    // A border between two classes is a class.
    let lab = Lab::new();
    images(&lab, 4);
    (0..4).for_each(|at| mask(&lab, &format!("set/masks/{at}.png"), |x, _| u8::from(x > 18) + u8::from(x > 20)));
    assert!(!init(&lab, &[]).0.contains("smoothed"));
}

#[test]
fn masks_once_saved_with_much_compression_are_no_labels() {
    let lab = Lab::new();
    let (width, height) = (160, 128);
    ["set/images", "set/masks"].iter().for_each(|folder| std::fs::create_dir_all(lab.path(folder)).unwrap());
    for at in 0..6u32 {
        let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, at as u8]));
        image.save(lab.path(&format!("set/images/{at}.png"))).unwrap();
        let disc = |x: u32, y: u32| (x as i32 - 70 - at as i32).pow(2) + (y as i32 - 64).pow(2) < 1600;
        let clean = GrayImage::from_fn(width, height, |x, y| Luma([if disc(x, y) { 255 } else { 0 }]));
        let mut jpeg = Vec::new();
        clean.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 80)).unwrap();
        image::load_from_memory(&jpeg).unwrap().to_luma8().save(lab.path(&format!("set/masks/{at}.png"))).unwrap();
    }
    for more in [&[][..], &["--void", "none"]] {
        lab.refused(&[&["init", "set"][..], more].concat(), &["hold no recognisable labels"]);
    }
    assert_eq!(lab.run(&["data", "check", "set"]).status.code(), Some(1));
}

#[test]
fn links_that_lead_nowhere_are_named() {
    #[cfg(unix)]
    for name in ["classes.txt", "labels.json", "train.txt"] {
        let lab = Lab::new();
        images(&lab, 4);
        (0..4).for_each(|at| mask(&lab, &format!("set/masks/{at}.png"), half));
        std::os::unix::fs::symlink("/gone", lab.path(&format!("set/{name}"))).unwrap();
        let report = lab.ok(&["data", "check", "set"]);
        assert!(report.contains("not-read") && report.contains(name), "{report}");
        let (talk, classes) = init(&lab, &[]);
        assert!(talk.contains("links that lead nowhere") && talk.contains(name) && classes.len() == 2, "{talk}");
    }
}

#[test]
fn greys_of_sixteen_bits_beside_the_same_of_eight_are_asked_about() {
    let lab = Lab::new();
    images(&lab, 6);
    for at in 0..6 {
        let grey = |x: u32| [0u16, 100, 200][third(x) as usize];
        if at % 2 == 0 {
            mask(&lab, &format!("set/masks/{at}.png"), |x, _| grey(x) as u8);
        } else {
            let wide = image::ImageBuffer::from_fn(SIZE.0, SIZE.1, |x, _| Luma([grey(x) * 257]));
            wide.save(lab.path(&format!("set/masks/{at}.png"))).unwrap();
        }
    }
    lab.refused(&["init", "set"], &["0, 100, 200", "0, 25700, 51400", "two ways"]);
}

#[test]
fn palettes_that_show_the_same_numbers_otherwise_are_asked_about() {
    let near = [[0, 0, 0], [129, 0, 0], [0, 128, 0]];
    let ramp = [[0, 0, 0], [100, 100, 100], [200, 200, 200]];
    for other in [near, ramp] {
        let lab = Lab::new();
        images(&lab, 6);
        for at in 0..6 {
            let palette = if at % 2 == 0 { [[0, 0, 0], [128, 0, 0], [0, 128, 0]] } else { other };
            palette_mask(&lab, &format!("set/masks/{at}.png"), &palette, |x, _| third(x) as u8);
        }
        lab.refused(&["init", "set"], &["numbers or colours may be the labels", "3 masks"]);
    }
}

#[test]
fn names_of_classes_can_be_shown() {
    let lab = Lab::new();
    images(&lab, 4);
    (0..4).for_each(|at| mask(&lab, &format!("set/masks/{at}.png"), half));
    lab.write("set/classes.txt", "sky\nro\u{1b}[31mad\n");
    let talk = lab.refused(&["init", "set"], &["control characters"]);
    assert!(!talk.contains('\u{1b}'), "{talk:?}");
    std::fs::remove_file(lab.path("set/classes.txt")).unwrap();
    Described::by_init(&lab, &[]);
    let toml = std::fs::read_to_string(lab.path("set/dataset.toml")).unwrap();
    lab.write("set/dataset.toml", toml.replace("\"class 1\"", "\" \""));
    lab.refused(&["data", "check", "set/dataset.toml"], &["which cannot be shown"]);
}

#[cfg(unix)]
#[test]
fn linked_folders_are_used() {
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("a/{at}.png"));
        mask(&lab, &format!("b/{at}.png"), half);
    }
    std::fs::create_dir(lab.path("set")).unwrap();
    for (to, link) in [("a", "images"), ("b", "masks")] {
        std::os::unix::fs::symlink(lab.path(to), lab.path(&format!("set/{link}"))).unwrap();
    }
    let (talk, _) = init(&lab, &[]);
    assert!(!talk.contains("not used"), "{talk}");
}
