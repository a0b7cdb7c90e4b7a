//! Masks whose values lie beside each other in ways that labels do not: what JPEG and dithering leave, and numbers or
//! colours of single objects.

use image::{ImageBuffer, Luma, Rgb};

use crate::cli::Lab;
use crate::data_init::{Described, SIZE, colors, mask, palette_mask, picture};
#[cfg(unix)]
use crate::init_kinds::paste;
use crate::init_kinds::{init, run_all};

fn images(lab: &Lab, count: usize) {
    (0..count).for_each(|at| picture(lab, &format!("set/images/{at}.png")));
}

/// Greys in squares, with the noise that compression leaves around edges.
fn noisy(x: u32, y: u32, levels: [u8; 3]) -> u8 {
    let level = levels[((x / 14) % 3) as usize];
    let noise = if x % 14 > 10 { ((x * 7 + y * 13) % 5) as u8 } else { 0 };
    if level > 200 { level - noise } else { level + noise }
}

#[test]
fn masks_that_were_once_jpegs_are_refused() {
    for levels in [[0, 255, 0], [0, 60, 120]] {
        let lab = Lab::new();
        images(&lab, 4);
        for at in 0..4 {
            mask(&lab, &format!("set/masks/{at}.png"), |x, y| noisy(x, y, levels));
        }
        let talk = lab.refused(&["init", "set"], &["values are close to", "once saved as JPEG", "again as PNG"]);
        run_all(&lab, "jpeg", &talk);
        // As a description would have them.
        let values: Vec<String> = (0..=255u8).map(|n| format!("\"c{n}\"")).take(255).collect();
        lab.write(
            "set/dataset.toml",
            format!(
                "name = 'x'\nignore = [255]\nclasses = [{}]\n[train]\nimages = 'images'\nmasks = 'masks'\n",
                values.join(", ")
            ),
        );
        let report = lab.run(&["data", "check", "set"]);
        assert!(String::from_utf8(report.stdout).unwrap().contains("close-values"), "{levels:?}");
    }
    // Ids in a row, however rare.
    let lab = Lab::new();
    images(&lab, 4);
    for at in 0..4 {
        mask(&lab, &format!("set/masks/{at}.png"), |x, y| if y > 4 { 0 } else { (x / 4) as u8 });
    }
    assert_eq!(init(&lab, &[]).1.len(), 10);
}

#[test]
fn dithered_masks_are_refused() {
    let web = |n: u8| [51 * (n % 6), 51 * (n / 2 % 6), 102];
    let lab = Lab::new();
    images(&lab, 4);
    for at in 0..4 {
        let dithered = |x: u32, y: u32| (x / 20) as u8 * 2 + ((x + y) % 2) as u8;
        palette_mask(&lab, &format!("set/masks/{at}.png"), &[web(1), web(8), web(16), web(27)], dithered);
    }
    let talk = lab.refused(&["init", "set"], &["differ from all their neighbours", "web palette", "without dithering"]);
    run_all(&lab, "dithered", &talk);
    // The same colours in areas.
    for at in 0..4 {
        palette_mask(&lab, &format!("set/masks/{at}.png"), &[web(1), web(8), web(16), web(27)], |x, _| (x / 10) as u8);
    }
    assert_eq!(init(&lab, &[]).1.len(), 4);
}

/// As many squares as the image has objects, numbered from 1.
fn object(x: u32, y: u32, count: u32) -> u32 {
    let n = x / 8 + 1;
    if n <= count && x % 8 < 6 && (4..20).contains(&y) { n } else { 0 }
}

#[test]
fn few_numbers_of_objects_are_told() {
    let counts = [5, 2, 3, 1, 4, 2];
    let lab = Lab::new();
    images(&lab, 6);
    for (at, count) in counts.iter().enumerate() {
        mask(&lab, &format!("set/masks/{at}.png"), |x, y| object(x, y, *count) as u8);
    }
    let (talk, _) = init(&lab, &[]);
    assert!(talk.contains("numbers look like those of single objects") && talk.contains("one region"), "{talk}");
    let report = lab.ok(&["data", "check", "set"]);
    assert!(report.contains("numbered-objects"), "{report}");
    // The lines that it prints make one class of them.
    let lines = report.lines().find(|line| line.trim().starts_with("classes = [")).unwrap().trim().to_string();
    let toml = std::fs::read_to_string(lab.path("set/dataset.toml")).unwrap();
    let head = &toml[..toml.find("[[classes]]").unwrap()];
    let at = head.find("name = ").unwrap();
    lab.write("set/dataset.toml", format!("{}{lines}\n{}", &head[..at], &head[at..]));
    let report = lab.ok(&["data", "check", "set"]);
    assert!(!report.contains("numbered-objects") && report.contains("object"), "{report}");
    // With names they are classes.
    assert!(!init(&lab, &["--names", "sky,a,b,c,d,e", "--out", "set/named.toml"]).0.contains("single objects"));
    let report = lab.ok(&["data", "check", "set/named.toml"]);
    assert!(!report.contains("numbered-objects"), "{report}");
    // Classes come again in several places.
    let lab = Lab::new();
    images(&lab, 6);
    for (at, count) in counts.iter().enumerate() {
        let twice = |x: u32, y: u32| if y < 20 { object(x, y, *count) } else { object(x, y - 16, *count) };
        mask(&lab, &format!("set/masks/{at}.png"), |x, y| if y == 16 { 0 } else { twice(x, y) as u8 });
    }
    assert!(!init(&lab, &[]).0.contains("single objects"));
}

#[test]
fn colours_of_objects_are_told() {
    // Numbers in the channels, as panoptic masks have them; colours of each object's own; the same colours in turn.
    type Color = fn(u32, u32) -> [u8; 3];
    let numbered: Color = |_, n| [n as u8, (n / 256) as u8, 0];
    let own: Color = |at, n| [(40 * at + n) as u8, (91 * n + 13 * at) as u8, (at * n) as u8];
    let turns: Color = |_, n| [[0; 3], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [9, 9, 90]][n as usize];
    for (what, color) in [("numbered", numbered), ("own", own), ("turns", turns)] {
        let lab = Lab::new();
        images(&lab, 6);
        for (at, count) in [5, 2, 3, 1, 4, 2].into_iter().enumerate() {
            colors(&lab, &format!("set/masks/{at}.png"), |x, y| match object(x, y, count) {
                0 => [0; 3],
                n => color(at as u32, n),
            });
        }
        let (talk, _) = init(&lab, &[]);
        assert!(talk.contains("colours look like those of single objects"), "{what}: {talk}");
        let report = lab.ok(&["data", "check", "set"]);
        assert!(report.contains("numbered-objects") && report.contains("[0, 0, 0]"), "{what}: {report}");
    }
    // More than there may be classes: refused, with the likely cause.
    let lab = Lab::new();
    images(&lab, 8);
    for at in 0..8u32 {
        let color = |x: u32, y: u32| {
            let n = at * 40 + x / 4 + 10 * (y / 8);
            [(n % 251) as u8, (n / 251 * 90) as u8, 200]
        };
        colors(&lab, &format!("set/masks/{at}.png"), color);
    }
    lab.refused(&["init", "set"], &["too many for labels", "single objects", "export masks of classes"]);
    // Classes of a table.
    let lab = Lab::new();
    images(&lab, 6);
    for (at, count) in [5, 2, 3, 1, 4, 2].into_iter().enumerate() {
        colors(&lab, &format!("set/masks/{at}.png"), |x, y| turns(0, object(x, y, count)));
    }
    lab.write("set/class_dict.csv", "name,r,g,b\nbg,0,0,0\na,128,0,0\nb,0,128,0\nc,128,128,0\nd,0,0,128\ne,9,9,90\n");
    assert!(!init(&lab, &[]).0.contains("single objects"));
    assert!(!lab.ok(&["data", "check", "set"]).contains("numbered-objects"));
}

#[test]
fn names_that_are_shifted_or_rare() {
    let lab = Lab::new();
    images(&lab, 4);
    for at in 0..4 {
        mask(&lab, &format!("set/masks/{at}.png"), |x, _| (x / 10) as u8);
    }
    // Numbered from 1, over values from 0: both readings are printed, and work.
    lab.write("set/classes.txt", "1 sky\n2 road\n3 car\n4 tree\n");
    let talk =
        lab.refused(&["init", "set"], &["numbers 4 names from 1", "--names sky,road,car,tree", "no mask shows `tree`"]);
    #[cfg(unix)]
    for (start, end, names) in [
        ("say which: ", " if the names count", ["0 sky", "1 road", "2 car", "3 tree"]),
        ("from 0, ", " if the numbers are right", ["0 class 0", "1 sky", "2 road", "3 car"]),
    ] {
        let command = talk.split(start).last().unwrap().split(end).next().unwrap();
        let (done, said) = paste(&lab, &format!("{command} --yes"));
        assert!(done, "{command}: {said}");
        assert_eq!(crate::init_labels::classes(&lab), names);
    }
    // A file that only lacks the background is as it says.
    let _ = std::fs::remove_file(lab.path("set/dataset.toml"));
    for list in ["train", "val"] {
        let _ = std::fs::remove_file(lab.path(&format!("set/dataset-{list}.txt")));
    }
    lab.write("set/classes.txt", "1 road\n2 car\n3 tree\n");
    lab.write("set/masks/classes.txt", "1 car\n2 road\n3 tree\n");
    let (talk, classes) = init(&lab, &["--yes"]);
    assert_eq!(classes[1..], ["1 road", "2 car", "3 tree"]);
    assert!(talk.contains("`masks/classes.txt` names the classes differently from `classes.txt`"), "{talk}");
    std::fs::remove_file(lab.path("set/masks/classes.txt")).unwrap();
    // A rare class that has a name is not a slip of the pen.
    ImageBuffer::from_fn(SIZE.0, SIZE.1, |x, y| Luma([if x < 3 && y < 3 { 4 } else { (x / 10) as u8 }]))
        .save(lab.path("set/masks/2.png"))
        .unwrap();
    lab.write("set/classes.txt", "bg\nroad\ncar\ntree\nrare\n");
    assert_eq!(init(&lab, &["--yes"]).1[4], "4 rare");
    // Values from 1, and names said to begin at 0.
    for at in 0..4 {
        mask(&lab, &format!("set/masks/{at}.png"), |x, _| 1 + (x / 10) as u8);
    }
    lab.write("set/classes.txt", "sky\nroad\ncar\ntree\n");
    let talk =
        lab.refused(&["init", "set", "--names-from", "0", "--yes"], &["--names-from 0 counts 4 names from 0, up to 3"]);
    run_all(&lab, "from", &talk);
    // Two names of one colour in a table for palettes.
    let lab = Lab::new();
    images(&lab, 4);
    for at in 0..4 {
        palette_mask(&lab, &format!("set/masks/{at}.png"), &[[0; 3], [128, 0, 0], [0, 128, 0]], |x, _| (x / 14) as u8);
    }
    lab.write(
        "set/labelmap.txt",
        "# label:color_rgb:parts:actions\nbg:0,0,0::\nroad:128,0,0::\nstreet:128,0,0::\ncar:0,128,0::\n",
    );
    let (talk, classes) = init(&lab, &[]);
    assert!(talk.contains("gives `road` and `street` one colour"), "{talk}");
    assert_eq!(classes, ["0 bg", "1 road", "2 car"]);
    lab.write("set/labelmap.txt", "bg:0,0,0::\nroad:128,0,0::\nRoad:0,128,0::\n");
    assert!(init(&lab, &["--yes"]).0.contains("`road` and `Road` differ in spelling alone"));
}

/// A list pairs images with masks of other names: the printed command copies them under the right ones.
#[cfg(unix)]
#[test]
fn lists_of_pairs_rename_masks() {
    for image_first in [true, false] {
        let lab = Lab::new();
        let mut lines = String::new();
        for at in 0..5 {
            picture(&lab, &format!("set/images/img{at}.jpg"));
            mask(&lab, &format!("set/masks/gt{}.png", 4 - at), |x, _| if at == 2 { 7 } else { (x / 20) as u8 });
            let pair = [format!("images/img{at}.jpg"), format!("masks/gt{}.png", 4 - at)];
            lines += &format!("{} {}\r\n", pair[usize::from(!image_first)], pair[usize::from(image_first)]);
        }
        lab.write("set/train.txt", lines);
        let talk = lab.refused(&["init", "set"], &["cannot be matched by name", "masks of other names"]);
        let command = talk.split("run: ").nth(1).unwrap();
        let (done, said) = paste(&lab, command.trim());
        assert!(done, "{said}");
        let copied = image::open(lab.path("set/masks-by-image/img2.png")).unwrap().into_luma8();
        assert_eq!(copied.get_pixel(3, 3).0, [7]);
        assert_eq!(crate::init_labels::classes(&lab), ["0 class 0", "1 class 1", "7 class 7"]);
    }
}

#[test]
fn run_lengths_in_a_table() {
    // Numbered down the columns, and along the rows; by names without ending.
    let (w, h) = SIZE;
    let columns = (4..12).map(|x| format!("{} 10", x * h + 3)).collect::<Vec<_>>().join(" ");
    let rows = (2..12).map(|y| format!("{} 8", y * w + 5)).collect::<Vec<_>>().join(" ");
    for (runs, order, ending) in [(&columns, "along columns", ".jpg"), (&rows, "along rows", "")] {
        let lab = Lab::new();
        (0..5).for_each(|at| picture(&lab, &format!("set/train_images/p{at}.jpg")));
        let line = |at: usize| format!("p{at}{ending},{},{runs}\n", 1 + at % 2);
        let lines: String = (0..3).map(line).collect();
        let end = format!("p3{ending},1,\np4{ending},2,99999 3\n");
        lab.write("set/train.csv", format!("ImageId,ClassId,EncodedPixels\n{lines}{end}"));
        lab.write("set/sample_submission.csv", "ImageId,ClassId,EncodedPixels\nq.jpg,1,1 1\n");
        let (talk, classes) = init(&lab, &[]);
        assert_eq!(classes, ["0 background", "1 class 1", "2 class 2"]);
        for say in [order, "submission", "without an outline", "line 6 (`2`)", "outside the image"] {
            assert!(talk.contains(say), "{say}: {talk}");
        }
        let set = Described::by_init(&lab, &["--yes"]);
        let at = |x, y| set.class("train_images/p1", x, y);
        let found = [at(4, 2), at(11, 11), at(3, 2), at(12, 11), at(4, 12)];
        assert_eq!(found, ["class 2", "class 2", "background", "background", "background"]);
    }
}

/// Pictures of a series are not masks of each other, and files that come with images are none of them.
#[test]
fn few_pictures_are_no_masks() {
    let lab = Lab::new();
    (0..3).for_each(|at| picture(&lab, &format!("set/p{at}.jpg")));
    let talk = lab.refused(&["init", "set"], &["is not a dataset of a known form"]);
    assert!(!talk.contains("jpeg-tolerance"), "{talk}");
    let lab = Lab::new();
    for at in 0..4 {
        picture(&lab, &format!("set/ISIC-2017_Training_Data/ISIC_{at:07}.jpg"));
        let superpixels = ImageBuffer::from_fn(SIZE.0, SIZE.1, |x, y| Rgb([x as u8, y as u8, at]));
        superpixels.save(lab.path(&format!("set/ISIC-2017_Training_Data/ISIC_{at:07}_superpixels.png"))).unwrap();
        let name = format!("set/ISIC-2017_Training_Part1_GroundTruth/ISIC_{at:07}_segmentation.png");
        mask(&lab, &name, |x, _| u8::from(x > 20) * 255);
    }
    let (talk, classes) = init(&lab, &[]);
    assert_eq!(classes.len(), 2);
    let list = std::fs::read_to_string(lab.path("set/dataset-train.txt")).unwrap();
    assert!(list.starts_with("ISIC_000000") && !list.contains("superpixels"), "{list}\n{talk}");
    assert!(!talk.contains("do not end in"), "{talk}");
}
