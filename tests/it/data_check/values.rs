//! Values that are wrong, and classes that are nowhere.

use super::*;

#[test]
fn values_that_no_class_has() {
    let set = Set::good();
    for at in 0..3 {
        set.mask(&format!("train/masks/{at}.png"), SIZE, |x, y| if x > 30 && y > 9 { 17 } else { label(x, y) });
    }
    let fault = set.finds(Severity::Fault, "unknown-values", "train/masks/0.png");
    assert_eq!((fault.count, first(&fault)), (1, ([31, 10], Source::Index(17))));
    assert!(fault.examples[0].note.as_ref().unwrap().contains("in 3 masks"), "{fault:?}");
    assert_eq!(set.remedied(&fault).splits[0].ignored, 3 * 9 * 22);
}

#[test]
fn a_binary_mask_of_0_and_255() {
    let set = Set::good();
    set.toml("[\"ground\", \"road\", \"car\"]", "[\"ground\", \"road\"]");
    set.each_mask(|set, name| set.mask(name, SIZE, |x, _| if x > 20 { 255 } else { 0 }));
    let fault = set.finds(Severity::Fault, "binary-mask", "train/masks/0.png");
    assert_eq!(first(&fault), ([21, 0], Source::Index(255)));
    assert_eq!(set.remedied(&fault).classes[1].images, [4, 3]);
    // Ignoring 255 hides the second class, which is told too.
    set.lab.write("set.toml", TOML.replace(", \"car\"]", "]\nignore = [255]"));
    let fault = set.finds(Severity::Warning, "class-absent", "");
    assert_eq!(set.remedied(&fault).classes[1].images, [4, 3]);
}

#[test]
fn a_border_of_255() {
    let set = Set::good();
    set.mask("val/masks/1.png", SIZE, |x, y| if x == 14 { 255 } else { label(x, y) });
    let fault = set.finds(Severity::Fault, "unmapped-255", "val/masks/1.png");
    assert_eq!(first(&fault).0, [14, 0]);
    set.remedied(&fault);
}

#[test]
fn labels_that_count_from_one() {
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| label(x, y) + 1));
    let fault = set.finds(Severity::Fault, "counted-from-one", "train/masks/0.png");
    assert_eq!(first(&fault), ([28, 0], Source::Index(3)));
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
    set.labels_are(label);
    // With 0 for the rest.
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| if y < 4 { 0 } else { label(x, y) + 1 }));
    let fault = set.finds(Severity::Fault, "counted-from-one", "train/masks/0.png");
    let report = set.remedied(&fault);
    assert_eq!((report.classes[2].images.as_slice(), report.splits[0].ignored), (&[4, 3][..], 4 * 40 * 4));
}

#[test]
fn labels_spread_to_be_seen_or_to_16_bits() {
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| [0, 127, 255][usize::from(label(x, y))]));
    let fault = set.finds(Severity::Fault, "stretched-values", "train/masks/0.png");
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
    set.labels_are(label);
    let set = Set::good();
    set.each_mask(|set, name| {
        let deep = image::ImageBuffer::from_fn(SIZE.0, SIZE.1, |x, y| Luma([u16::from(label(x, y)) * 257]));
        deep.save(set.path(name)).unwrap();
    });
    let fault = set.finds(Severity::Fault, "stretched-values", "train/masks/0.png");
    assert_eq!(first(&fault), ([14, 0], Source::Index(257)));
    let report = set.remedied(&fault);
    assert_eq!(report.classes[2].images, [4, 3]);
    assert!(report.splits[0].mask_formats.contains_key("16-bit grey PNG"), "{:?}", report.splits[0].mask_formats);
}

#[test]
fn slips_of_the_pen() {
    let set = Set::good();
    set.mask("train/masks/2.png", SIZE, |x, y| if (x, y) == (5, 6) { 7 } else { label(x, y) });
    let fault = set.finds(Severity::Fault, "stray-values", "train/masks/2.png");
    assert_eq!(first(&fault), ([5, 6], Source::Index(7)));
    set.remedied(&fault);
    // Of a class that is declared.
    set.lab.write("set.toml", TOML.replace("\"car\"]", "\"car\", { name = \"dot\", source = [7] }]"));
    let fault = set.finds(Severity::Warning, "stray-values", "train/masks/2.png");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("1 pixel of `dot`"), "{fault:?}");
}

#[test]
fn colours_where_numbers_are_declared() {
    let set = Set::good();
    // Grey numbers saved as RGB.
    set.each_mask(|set, name| set.colors(name, |x, y| [label(x, y); 3]));
    let fault = set.finds(Severity::Fault, "rgb-mask", "train/masks/0.png");
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
    set.labels_are(label);
    // The classes' own colours.
    let set = Set::rgb();
    set.toml("encoding = 'rgb'", "");
    let fault = set.finds(Severity::Fault, "rgb-mask", "train/masks/0.png");
    assert_eq!((fault.count, set.remedied(&fault).classes[2].images.as_slice()), (7, &[4, 3][..]));
    set.labels_are(label);
    // Colours of which nothing is known are listed.
    let set = Set::good();
    set.each_mask(|set, name| set.colors(name, |x, y| COLORS[usize::from(label(x, y))]));
    let fault = set.finds(Severity::Fault, "rgb-mask", "train/masks/0.png");
    assert!(fault.cause.unwrap().contains("[128, 64, 128]") && fault.toml.is_none());
    // One among many is no reason to change the description.
    let set = Set::good();
    set.colors("train/masks/3.png", |_, _| [9, 9, 9]);
    let fault = set.finds(Severity::Fault, "rgb-mask", "train/masks/3.png");
    assert!(fault.count == 1 && fault.remedy.contains("6 of 7"), "{fault:?}");
    assert!(fault.cause.unwrap().contains("train/masks/0.png"), "the other kind is named too");
}

#[test]
fn smoothed_edges() {
    let set = Set::rgb();
    let mix = |x: u32| -> [u8; 3] {
        let share = (x.saturating_sub(10) as f32 / 8.0).min(1.0);
        std::array::from_fn(|c| (share * f32::from(COLORS[1][c])).round() as u8)
    };
    set.colors("train/masks/1.png", |x, _| mix(x));
    let fault = set.finds(Severity::Fault, "smoothed-mask", "train/masks/1.png");
    assert!(fault.cause.unwrap().contains("anti-aliasing") && fault.toml.is_none());
    let set = Set::good();
    set.toml("[\"ground\", \"road\", \"car\"]", "[\"ground\", \"road\"]");
    set.each_mask(|set, name| {
        set.mask(name, SIZE, |x, _| [0, 0, 60, 190, 255, 255][(x as usize).saturating_sub(18).min(5)])
    });
    assert!(set.finds(Severity::Fault, "smoothed-mask", "train/masks/0.png").cause.unwrap().contains("smoothing"));
}

#[test]
fn colours_of_a_lossy_file_or_with_channels_swapped() {
    let set = Set::rgb();
    set.colors("train/masks/0.png", |x, y| {
        COLORS[usize::from(label(x, y))].map(|c| c.saturating_add((x + y) as u8 % 5))
    });
    assert!(set.finds(Severity::Fault, "lossy-mask", "train/masks/0.png").cause.unwrap().contains("JPEG"));
    let set = Set::rgb();
    set.toml("[0, 0, 142]", "[142, 0, 0]");
    let fault = set.finds(Severity::Fault, "swapped-channels", "train/masks/0.png");
    assert_eq!(first(&fault).0, [28, 0]);
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
    set.labels_are(label);
}

#[test]
fn a_photograph_for_a_mask() {
    let set = Set::good();
    set.mask("train/masks/0.png", SIZE, |x, y| (x * 5 + y) as u8);
    assert!(set.finds(Severity::Fault, "no-labels", "train/masks/0.png").cause.unwrap().contains("photograph"));
}

#[test]
fn masks_without_a_label() {
    let set = Set::good();
    set.toml("classes", "ignore = [255]\nclasses");
    set.mask("train/masks/1.png", SIZE, |_, _| 255);
    assert_eq!(set.finds(Severity::Warning, "all-ignored", "train/masks/1.png").count, 1);
    for at in 0..3 {
        set.mask(&format!("val/masks/{at}.png"), SIZE, |_, _| 255);
    }
    let report = set.check();
    let all = report.faults.iter().find(|fault| fault.code == "all-ignored" && fault.level == Severity::Fault).unwrap();
    assert!(all.count == 3 && all.what.contains("[val]") && all.remedy.contains("ignore"), "{all:?}");
}

#[test]
fn masks_that_are_all_alike() {
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, label));
    assert_eq!(set.finds(Severity::Warning, "identical-masks", "").count, 4);
}

#[test]
fn masks_of_one_value() {
    let set = Set::good();
    for at in 0..3 {
        set.mask(&format!("train/masks/{at}.png"), SIZE, |x, y| u8::from((x, y) == (0, 0)));
    }
    assert_eq!(set.finds(Severity::Warning, "constant-masks", "train/masks/2.png").count, 3);
}

#[test]
fn classes_that_a_split_lacks() {
    let set = Set::good();
    set.toml("\"car\"]", "\"car\", \"ghost\"]");
    assert!(set.finds(Severity::Warning, "class-absent", "").what.contains("ghost"));
    for at in 0..4 {
        set.mask(&format!("train/masks/{at}.png"), SIZE, |x, y| label(x, y).min(1));
    }
    assert!(set.finds(Severity::Warning, "class-not-in-train", "").what.contains("car"));
    let set = Set::good();
    for at in 0..3 {
        set.mask(&format!("val/masks/{at}.png"), SIZE, |x, y| label(x, y).min(1));
    }
    let fault = set.finds(Severity::Warning, "class-not-judged", "");
    assert!(fault.what.contains("[val]") && fault.what.contains("car"), "{fault:?}");
}
