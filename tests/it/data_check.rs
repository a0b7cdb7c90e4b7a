//! Sets that are broken on purpose, each built here: every fault is found, named with file and place, and has a remedy that
//! works where it is a line of the TOML.

use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, Rgb, RgbImage};
use structtoken::data::check::{Fault, Level, Report, check};
use structtoken::data::init::check_folder;
use structtoken::data::spec::{DatasetSpec, Source};

use crate::cli::Lab;

/// Width and height of the pictures.
const SIZE: (u32, u32) = (40, 32);

const TOML: &str = r#"
name = "own"
classes = ["ground", "road", "car"]
[train]
images = "train/images"
masks = "train/masks"
[val]
images = "val/images"
masks = "val/masks"
"#;

/// Classes of colours, for sets of `encoding = "rgb"`.
const COLOURS: [[u8; 3]; 3] = [[0, 0, 0], [128, 64, 128], [0, 0, 142]];

/// A set in a folder of its own: four images for training, three for validation.
struct Set {
    lab: Lab,
}

impl Set {
    /// Without a fault.
    fn good() -> Self {
        let set = Self { lab: Lab::new() };
        set.lab.write("set.toml", TOML);
        for (split, count) in [("train", 4), ("val", 3)] {
            for at in 0..count {
                set.picture(&format!("{split}/images/{at}.png"), SIZE, u8::from(split == "val") * 100 + at);
                // No two are alike: the last row begins with some road.
                let id = |x, y| if y == 31 && x < u32::from(at) { 1 } else { label(x, y) };
                set.mask(&format!("{split}/masks/{at}.png"), SIZE, id);
            }
        }
        set
    }

    /// The same with masks of colours.
    fn rgb() -> Self {
        let set = Self::good();
        set.lab.write("set.toml", rgb_toml());
        set.each_mask(|set, name| set.colours(name, |x, y| COLOURS[usize::from(label(x, y))]));
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.lab.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn picture(&self, name: &str, (width, height): (u32, u32), tone: u8) {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, tone])).save(self.path(name)).unwrap();
    }

    fn mask(&self, name: &str, (width, height): (u32, u32), id: impl Fn(u32, u32) -> u8) {
        GrayImage::from_fn(width, height, |x, y| Luma([id(x, y)])).save(self.path(name)).unwrap();
    }

    fn colours(&self, name: &str, colour: impl Fn(u32, u32) -> [u8; 3]) {
        RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| Rgb(colour(x, y))).save(self.path(name)).unwrap();
    }

    fn each_mask(&self, write: impl Fn(&Self, &str)) {
        for (split, count) in [("train", 4), ("val", 3)] {
            (0..count).for_each(|at| write(self, &format!("{split}/masks/{at}.png")));
        }
    }

    fn toml(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.lab.path("set.toml")).unwrap();
        assert!(text.contains(from));
        self.lab.write("set.toml", text.replace(from, to));
    }

    fn check(&self) -> Report {
        check(&DatasetSpec::read(&self.lab.path("set.toml")).unwrap(), None, &|_, _| ()).unwrap()
    }

    /// The fault of this code, of which `file` is an example.
    fn finds(&self, level: Level, code: &str, file: &str) -> Fault {
        let report = self.check();
        let all = || report.faults.iter().map(|fault| (fault.code, fault.what.as_str())).collect::<Vec<_>>();
        let fault = report.faults.iter().find(|fault| fault.code == code);
        let fault = fault.unwrap_or_else(|| panic!("no {code} among {:?}", all()));
        assert_eq!(fault.level, level, "{code}");
        assert_eq!(report.ok, report.faults.iter().all(|fault| fault.level == Level::Warning));
        assert!(fault.remedy.len() > 5, "{code} says what to do");
        if !file.is_empty() {
            let named = fault.examples.iter().any(|example| example.file == Path::new(file));
            assert!(named, "{code} names {file}: {:?}", fault.examples);
        }
        let text = report.text();
        assert!(text.contains(&fault.what) && text.contains(&fault.remedy) && text.contains(file), "{text}");
        fault.clone()
    }

    /// Writes the lines that a fault asks for in place of those of the same name; the fault is gone then.
    fn remedied(&self, fault: &Fault) -> Report {
        let mut text: toml::Table = std::fs::read_to_string(self.lab.path("set.toml")).unwrap().parse().unwrap();
        let lines: toml::Table = fault.toml.as_ref().expect("a remedy in TOML").parse().unwrap();
        for (key, value) in lines {
            match (text.get_mut(&key), value) {
                (Some(toml::Value::Table(old)), toml::Value::Table(new)) => old.extend(new),
                (_, value) => drop(text.insert(key, value)),
            }
        }
        self.lab.write("set.toml", text.to_string());
        let report = self.check();
        assert!(report.ok, "{}", report.text());
        report
    }
}

/// Thirds: ground, road, car.
fn label(x: u32, _: u32) -> u8 {
    (x / 14) as u8
}

fn rgb_toml() -> String {
    let classes = ["ground", "road", "car"].iter().zip(COLOURS);
    let classes: Vec<String> =
        classes.map(|(name, color)| format!("{{ name = '{name}', color = {color:?} }}")).collect();
    TOML.replace("[\"ground\", \"road\", \"car\"]", &format!("[{}]\nencoding = 'rgb'", classes.join(", ")))
}

fn first(fault: &Fault) -> ([usize; 2], Source) {
    (fault.examples[0].at.unwrap(), fault.examples[0].value.unwrap())
}

#[test]
fn good_sets_have_no_fault() {
    assert!(Set::rgb().check().ok);
    {
        let report = Set::good().check();
        assert!(report.ok && report.faults.is_empty(), "{}", report.text());
        assert_eq!(report.splits.iter().map(|split| split.pairs).collect::<Vec<_>>(), [4, 3]);
        assert_eq!((report.classes[1].images.as_slice(), report.classes[1].pixels[0]), (&[4, 3][..], 4 * 14 * 32 + 6));
        assert_eq!((report.splits[0].sizes.as_slice(), report.distinct_values), (&[([40, 32], 4)][..], 3));
    }
}

#[test]
fn values_that_no_class_has() {
    let set = Set::good();
    for at in 0..3 {
        set.mask(&format!("train/masks/{at}.png"), SIZE, |x, y| if x > 30 && y > 9 { 17 } else { label(x, y) });
    }
    let fault = set.finds(Level::Fault, "unknown-values", "train/masks/0.png");
    assert_eq!((fault.count, first(&fault)), (1, ([31, 10], Source::Index(17))));
    assert!(fault.examples[0].note.as_ref().unwrap().contains("in 3 masks"), "{fault:?}");
    assert_eq!(set.remedied(&fault).splits[0].ignored, 3 * 9 * 22);
}

#[test]
fn a_binary_mask_of_0_and_255() {
    let set = Set::good();
    set.toml("[\"ground\", \"road\", \"car\"]", "[\"ground\", \"road\"]");
    set.each_mask(|set, name| set.mask(name, SIZE, |x, _| if x > 20 { 255 } else { 0 }));
    let fault = set.finds(Level::Fault, "binary-mask", "train/masks/0.png");
    assert_eq!(first(&fault), ([21, 0], Source::Index(255)));
    assert_eq!(set.remedied(&fault).classes[1].images, [4, 3]);
    // Ignoring 255 hides the second class, which is told too.
    set.lab.write("set.toml", TOML.replace(", \"car\"]", "]\nignore = [255]"));
    let fault = set.finds(Level::Warning, "class-absent", "");
    assert_eq!(set.remedied(&fault).classes[1].images, [4, 3]);
}

#[test]
fn a_border_of_255() {
    let set = Set::good();
    set.mask("val/masks/1.png", SIZE, |x, y| if x == 14 { 255 } else { label(x, y) });
    let fault = set.finds(Level::Fault, "unmapped-255", "val/masks/1.png");
    assert_eq!(first(&fault).0, [14, 0]);
    set.remedied(&fault);
}

#[test]
fn labels_that_count_from_one() {
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| label(x, y) + 1));
    let fault = set.finds(Level::Fault, "counted-from-one", "train/masks/0.png");
    assert_eq!(first(&fault), ([28, 0], Source::Index(3)));
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
    // With 0 for the rest.
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| if y < 4 { 0 } else { label(x, y) + 1 }));
    let fault = set.finds(Level::Fault, "counted-from-one", "train/masks/0.png");
    let report = set.remedied(&fault);
    assert_eq!((report.classes[2].images.as_slice(), report.splits[0].ignored), (&[4, 3][..], 4 * 40 * 4));
}

#[test]
fn labels_spread_to_be_seen_or_to_16_bits() {
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| [0, 127, 255][usize::from(label(x, y))]));
    let fault = set.finds(Level::Fault, "stretched-values", "train/masks/0.png");
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
    let set = Set::good();
    set.each_mask(|set, name| {
        let deep = image::ImageBuffer::from_fn(SIZE.0, SIZE.1, |x, y| Luma([u16::from(label(x, y)) * 257]));
        deep.save(set.path(name)).unwrap();
    });
    let fault = set.finds(Level::Fault, "stretched-values", "train/masks/0.png");
    assert_eq!(first(&fault), ([14, 0], Source::Index(257)));
    let report = set.remedied(&fault);
    assert_eq!(report.classes[2].images, [4, 3]);
    assert!(report.splits[0].mask_formats.contains_key("16-bit grey PNG"), "{:?}", report.splits[0].mask_formats);
}

#[test]
fn slips_of_the_pen() {
    let set = Set::good();
    set.mask("train/masks/2.png", SIZE, |x, y| if (x, y) == (5, 6) { 7 } else { label(x, y) });
    let fault = set.finds(Level::Fault, "stray-values", "train/masks/2.png");
    assert_eq!(first(&fault), ([5, 6], Source::Index(7)));
    set.remedied(&fault);
    // Of a class that is declared.
    set.lab.write("set.toml", TOML.replace("\"car\"]", "\"car\", { name = \"dot\", source = [7] }]"));
    let fault = set.finds(Level::Warning, "stray-values", "train/masks/2.png");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("1 pixel of `dot`"), "{fault:?}");
}

#[test]
fn colours_where_numbers_are_declared() {
    let set = Set::good();
    // Grey numbers saved as RGB.
    set.each_mask(|set, name| set.colours(name, |x, y| [label(x, y); 3]));
    let fault = set.finds(Level::Fault, "rgb-mask", "train/masks/0.png");
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
    // The classes' own colours.
    let set = Set::rgb();
    set.toml("encoding = 'rgb'", "");
    let fault = set.finds(Level::Fault, "rgb-mask", "train/masks/0.png");
    assert_eq!((fault.count, set.remedied(&fault).classes[2].images.as_slice()), (7, &[4, 3][..]));
    // Colours of which nothing is known are listed.
    let set = Set::good();
    set.each_mask(|set, name| set.colours(name, |x, y| COLOURS[usize::from(label(x, y))]));
    let fault = set.finds(Level::Fault, "rgb-mask", "train/masks/0.png");
    assert!(fault.cause.unwrap().contains("[128, 64, 128]") && fault.toml.is_none());
    // One among many is no reason to change the description.
    let set = Set::good();
    set.colours("train/masks/3.png", |_, _| [9, 9, 9]);
    let fault = set.finds(Level::Fault, "rgb-mask", "train/masks/3.png");
    assert!(fault.count == 1 && fault.remedy.contains("6 of 7"), "{fault:?}");
}

#[test]
fn a_palette_where_colours_are_declared() {
    let set = Set::rgb();
    set.each_mask(|set, name| {
        let ids = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| label(x, y))).collect();
        let labels = structtoken::data::image::Labels { width: SIZE.0 as usize, height: SIZE.1 as usize, ids };
        structtoken::data::image::write_index_png(&set.path(name), &labels, &COLOURS).unwrap();
    });
    let fault = set.finds(Level::Fault, "index-mask", "train/masks/0.png");
    assert!(fault.cause.as_ref().unwrap().contains("palette"), "{fault:?}");
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
}

#[test]
fn smoothed_edges() {
    let set = Set::rgb();
    let mix = |x: u32| -> [u8; 3] {
        let share = (x.saturating_sub(10) as f32 / 8.0).min(1.0);
        std::array::from_fn(|c| (share * f32::from(COLOURS[1][c])).round() as u8)
    };
    set.colours("train/masks/1.png", |x, _| mix(x));
    let fault = set.finds(Level::Fault, "smoothed-mask", "train/masks/1.png");
    assert!(fault.cause.unwrap().contains("anti-aliasing") && fault.toml.is_none());
    let set = Set::good();
    set.toml("[\"ground\", \"road\", \"car\"]", "[\"ground\", \"road\"]");
    set.each_mask(|set, name| {
        set.mask(name, SIZE, |x, _| [0, 0, 60, 190, 255, 255][(x as usize).saturating_sub(18).min(5)])
    });
    assert!(set.finds(Level::Fault, "smoothed-mask", "train/masks/0.png").cause.unwrap().contains("smoothing"));
}

#[test]
fn colours_of_a_lossy_file_or_with_channels_swapped() {
    let set = Set::rgb();
    set.colours("train/masks/0.png", |x, y| {
        COLOURS[usize::from(label(x, y))].map(|c| c.saturating_add((x + y) as u8 % 5))
    });
    assert!(set.finds(Level::Fault, "lossy-mask", "train/masks/0.png").cause.unwrap().contains("JPEG"));
    let set = Set::rgb();
    set.toml("[0, 0, 142]", "[142, 0, 0]");
    let fault = set.finds(Level::Fault, "swapped-channels", "train/masks/0.png");
    assert_eq!(first(&fault).0, [28, 0]);
    assert_eq!(set.remedied(&fault).classes[2].images, [4, 3]);
}

#[test]
fn a_photograph_for_a_mask() {
    let set = Set::good();
    set.mask("train/masks/0.png", SIZE, |x, y| (x * 5 + y) as u8);
    assert!(set.finds(Level::Fault, "no-labels", "train/masks/0.png").cause.unwrap().contains("photograph"));
}

#[test]
fn masks_under_other_names() {
    for (from, to) in [(".png", "_mask.png"), (".png", ".PNG"), (".png", "_gtFine_labelIds.png")] {
        let set = Set::good();
        set.each_mask(|set, name| std::fs::rename(set.path(name), set.path(&name.replace(from, to))).unwrap());
        let fault = set.finds(Level::Fault, "mask-name", "train/images/0.png");
        assert!(fault.toml.as_ref().unwrap().contains(to), "{fault:?}");
        // One split at a time: each has its own lines.
        let other = fault.toml.as_ref().unwrap().replace("[train]", "[val]");
        let mut both = fault.clone();
        both.toml = Some(format!("{}\n{}", fault.toml.as_ref().unwrap(), other));
        set.remedied(&both);
    }
}

#[test]
fn a_mask_or_an_image_that_is_missing() {
    let set = Set::good();
    std::fs::remove_file(set.path("train/masks/2.png")).unwrap();
    let fault = set.finds(Level::Fault, "mask-missing", "train/images/2.png");
    assert!(fault.count == 1 && fault.examples[0].note.as_ref().unwrap().contains("masks/2.png"));
    let set = Set::good();
    std::fs::remove_file(set.path("val/images/1.png")).unwrap();
    assert_eq!(set.finds(Level::Warning, "image-missing", "val/masks/1.png").count, 1);
    // Names that differ in their letters, or at their beginning.
    let set = Set::good();
    std::fs::rename(set.path("train/images/3.png"), set.path("train/images/IMG_3.png")).unwrap();
    std::fs::rename(set.path("train/masks/3.png"), set.path("train/masks/img_3.png")).unwrap();
    assert!(set.finds(Level::Fault, "mask-name", "train/images/IMG_3.png").cause.unwrap().contains("capital"));
    let set = Set::good();
    for at in 0..4 {
        std::fs::rename(set.path(&format!("train/images/{at}.png")), set.path(&format!("train/images/img_{at}.png")))
            .unwrap();
        std::fs::rename(set.path(&format!("train/masks/{at}.png")), set.path(&format!("train/masks/label_{at}.png")))
            .unwrap();
    }
    let fault = set.finds(Level::Fault, "mask-name", "train/images/img_0.png");
    let command = fault.remedy.strip_prefix("run: ").unwrap();
    assert!(std::process::Command::new("bash").args(["-c", command]).status().unwrap().success(), "{command}");
    assert!(set.check().ok, "{}", set.check().text());
}

#[test]
fn sizes_that_differ() {
    let (w, h) = SIZE;
    for (size, code, say) in [
        ((h, w), "swapped-size", "90 degrees"),
        ((w / 2, h / 2), "scaled-mask", "smoothing"),
        ((w, h - 1), "size-mismatch", "another image"),
    ] {
        let set = Set::good();
        set.mask("train/masks/1.png", size, |_, _| 0);
        let fault = set.finds(Level::Fault, code, "train/masks/1.png");
        let note = fault.examples[0].note.clone().unwrap();
        assert!(note.contains("image 40x32") && note.contains(&format!("{}x{}", size.0, size.1)), "{note}");
        assert!(fault.remedy.contains(say), "{fault:?}");
    }
}

/// A JPEG that EXIF asks to turn by this code.
fn turned(code: u8) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let picture = RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| Rgb([x as u8, y as u8, code]));
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&picture).unwrap();
    let tiff = [b"II*\0".as_slice(), &[8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, code, 0, 0, 0, 0, 0, 0, 0]];
    let exif = [b"Exif\0\0".as_slice(), &tiff.concat()].concat();
    [&[0xff, 0xd8, 0xff, 0xe1, 0, exif.len() as u8 + 2], &exif[..], &jpeg[2..]].concat()
}

#[test]
fn images_that_exif_turns() {
    let set = Set::good();
    std::fs::remove_file(set.path("train/images/0.png")).unwrap();
    set.lab.write("train/images/0.jpg", turned(6));
    let fault = set.finds(Level::Fault, "exif-mismatch", "train/masks/0.png");
    assert!(fault.remedy.contains("exiftool") && fault.examples[0].note.as_ref().unwrap().contains("image 32x40"));
    // A half turn does not show in the size.
    set.lab.write("train/images/0.jpg", turned(3));
    set.finds(Level::Warning, "exif", "train/images/0.jpg");
    assert_eq!(set.check().splits[0].turned, 1);
}

#[test]
fn masks_saved_as_jpeg() {
    let set = Set::good();
    for at in 0..4 {
        std::fs::remove_file(set.path(&format!("train/masks/{at}.png"))).unwrap();
        set.mask(&format!("train/masks/{at}.jpg"), SIZE, label);
    }
    set.toml("masks = \"train/masks\"", "masks = \"train/masks\"\nmask_suffix = \".jpg\"");
    let fault = set.finds(Level::Fault, "jpeg-mask", "train/masks/0.jpg");
    assert!(fault.count == 4 && fault.remedy.contains("PNG"), "{fault:?}");
}

#[test]
fn files_that_are_no_pictures() {
    let png = {
        let set = Set::good();
        std::fs::read(set.path("train/images/0.png")).unwrap()
    };
    let huge = {
        // A header of 60000x60000 with a right checksum and nothing behind it.
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
        bytes.extend(crc32(&bytes[12..]).to_be_bytes());
        [bytes.as_slice(), b"\0\0\0\0IDAT\x35\xaf\x06\x1e"].concat()
    };
    let cases: [(&[u8], &str, &str); 6] = [
        (b"", "empty-file", "again"),
        (&png[..png.len() / 2], "damaged-file", "again"),
        (b"<html>404 not found</html>", "not-an-image", "again"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "other-format", "convert"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "lfs-pointer", "git lfs pull"),
        (&huge, "too-large", "tiles"),
    ];
    for (bytes, code, say) in cases {
        for file in ["train/images/2.png", "val/masks/1.png"] {
            let set = Set::good();
            set.lab.write(file, bytes);
            let fault = set.finds(Level::Fault, code, file);
            assert!(fault.remedy.contains(say), "{fault:?}");
        }
    }
    let set = Set::good();
    std::fs::remove_file(set.path("train/images/2.png")).unwrap();
    set.picture("train/images/2.jpg", SIZE, 9);
    let jpeg = std::fs::read(set.path("train/images/2.jpg")).unwrap();
    set.lab.write("train/images/2.jpg", &jpeg[..jpeg.len() - 40]);
    set.finds(Level::Fault, "damaged-file", "train/images/2.jpg");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn names_that_say_another_format() {
    let set = Set::good();
    std::fs::rename(set.path("train/images/1.png"), set.path("train/images/1.jpg")).unwrap();
    assert!(set.finds(Level::Warning, "wrong-ending", "train/images/1.jpg").what.contains("PNG"));
    let set = Set::good();
    std::fs::write(set.path("train/images/5.bmp"), b"BM").unwrap();
    assert!(set.finds(Level::Warning, "not-read", "train/images/5.bmp").remedy.contains("convert"));
    // An ending that is asked for is asked for exactly.
    let set = Set::good();
    set.toml("masks = \"train/masks\"", "masks = \"train/masks\"\nimage_suffix = \".png\"");
    set.picture("train/images/6.PNG", SIZE, 77);
    set.finds(Level::Warning, "not-read", "train/images/6.PNG");
}

#[test]
fn transparent_masks_and_deep_colours() {
    let set = Set::good();
    let alpha = |x, y| image::LumaA([label(x, y), if x == 3 && y == 2 { 0 } else { 255 }]);
    image::GrayAlphaImage::from_fn(SIZE.0, SIZE.1, alpha).save(set.path("val/masks/2.png")).unwrap();
    let fault = set.finds(Level::Warning, "transparent-mask", "val/masks/2.png");
    assert_eq!(fault.examples[0].at, Some([3, 2]));
    let deep = image::ImageBuffer::from_fn(SIZE.0, SIZE.1, |_, _| Rgb([1u16, 2, 3]));
    deep.save(set.path("val/masks/2.png")).unwrap();
    assert!(set.finds(Level::Fault, "deep-colours", "val/masks/2.png").remedy.contains("8-bit"));
}

#[test]
fn masks_without_a_label() {
    let set = Set::good();
    set.toml("classes", "ignore = [255]\nclasses");
    set.mask("train/masks/1.png", SIZE, |_, _| 255);
    assert_eq!(set.finds(Level::Warning, "all-ignored", "train/masks/1.png").count, 1);
    for at in 0..3 {
        set.mask(&format!("val/masks/{at}.png"), SIZE, |_, _| 255);
    }
    let report = set.check();
    let all = report.faults.iter().find(|fault| fault.code == "all-ignored" && fault.level == Level::Fault).unwrap();
    assert!(all.count == 3 && all.what.contains("[val]") && all.remedy.contains("ignore"), "{all:?}");
}

#[test]
fn masks_that_are_all_alike() {
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, label));
    assert_eq!(set.finds(Level::Warning, "identical-masks", "").count, 4);
}

#[test]
fn masks_of_one_value() {
    let set = Set::good();
    for at in 0..3 {
        set.mask(&format!("train/masks/{at}.png"), SIZE, |x, y| u8::from((x, y) == (0, 0)));
    }
    assert_eq!(set.finds(Level::Warning, "constant-masks", "train/masks/2.png").count, 3);
}

#[test]
fn classes_that_a_split_lacks() {
    let set = Set::good();
    set.toml("\"car\"]", "\"car\", \"ghost\"]");
    assert!(set.finds(Level::Warning, "class-absent", "").what.contains("ghost"));
    for at in 0..4 {
        set.mask(&format!("train/masks/{at}.png"), SIZE, |x, y| label(x, y).min(1));
    }
    assert!(set.finds(Level::Warning, "class-not-in-train", "").what.contains("car"));
    let set = Set::good();
    for at in 0..3 {
        set.mask(&format!("val/masks/{at}.png"), SIZE, |x, y| label(x, y).min(1));
    }
    let fault = set.finds(Level::Warning, "class-not-judged", "");
    assert!(fault.what.contains("[val]") && fault.what.contains("car"), "{fault:?}");
}

#[test]
fn the_same_picture_twice() {
    let set = Set::good();
    std::fs::copy(set.path("train/images/1.png"), set.path("val/images/2.png")).unwrap();
    let fault = set.finds(Level::Fault, "leak", "val/images/2.png");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("train/images/1.png"), "{fault:?}");
    let set = Set::good();
    for folder in ["images", "masks"] {
        std::fs::copy(set.path(&format!("train/{folder}/1.png")), set.path(&format!("train/{folder}/0.png"))).unwrap();
    }
    set.finds(Level::Warning, "duplicate", "train/images/1.png");
    assert_eq!(set.check().splits[0].duplicates, 1);
    set.mask("train/masks/0.png", SIZE, |x, y| 2 - label(x, y));
    set.finds(Level::Warning, "contradiction", "train/images/1.png");
}

#[test]
fn two_images_for_one_mask() {
    let set = Set::good();
    set.picture("train/images/0.jpg", SIZE, 50);
    let fault = set.finds(Level::Fault, "same-stem", "train/images/0.jpg");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("0.png") && fault.remedy.contains("image_suffix"));
}

#[test]
fn lists_that_do_not_fit() {
    let set = Set::good();
    set.toml("masks = \"train/masks\"", "masks = \"train/masks\"\nlist = \"train.txt\"");
    let fault = set.finds(Level::Fault, "unreadable-list", "train.txt");
    assert!(fault.remedy.contains("one image a line"));
    set.lab.write("train.txt", "0\n1\n9\n1\n");
    let fault = set.finds(Level::Fault, "not-there", "train.txt");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("line 3"), "{fault:?}");
    let fault = set.finds(Level::Fault, "listed-twice", "train.txt");
    assert!(fault.examples[0].note.as_ref().unwrap().contains("line 4"), "{fault:?}");
    set.lab.write("train.txt", "\n\n");
    set.finds(Level::Fault, "empty-split", "train.txt");
}

#[test]
fn folders_that_are_empty_or_not_there() {
    let set = Set::good();
    set.toml("images = \"val/images\"", "images = \"none\"");
    let fault = set.finds(Level::Fault, "unreadable-folder", "none");
    assert!(fault.remedy.contains("root"), "{fault:?}");
    std::fs::create_dir(set.path("none")).unwrap();
    assert!(set.finds(Level::Fault, "empty-split", "none").what.contains("[val]"));
}

#[cfg(unix)]
#[test]
fn links_and_names_that_cannot_be_followed() {
    use std::os::unix::ffi::OsStrExt;
    let set = Set::good();
    std::os::unix::fs::symlink(".", set.path("train/images/again")).unwrap();
    set.finds(Level::Warning, "link-loop", "train/images/again");
    std::fs::write(set.path("train/images").join(std::ffi::OsStr::from_bytes(b"\xff.png")), b"").unwrap();
    assert_eq!(set.finds(Level::Warning, "name-not-utf8", "").count, 1);
    for folder in ["images", "masks"] {
        std::fs::rename(set.path(&format!("train/{folder}/0.png")), set.path(&format!("train/{folder}/0 .png")))
            .unwrap();
    }
    set.finds(Level::Warning, "name-with-space", "train/images/0 .png");
    std::os::unix::fs::symlink("nowhere", set.path("train/images/8.png")).unwrap();
    set.mask("train/masks/8.png", SIZE, label);
    assert_eq!(set.finds(Level::Fault, "unreadable-file", "train/images/8.png").count, 1);
}

/// Equal faults are one, with a count and the first places; the worst comes first.
#[test]
fn all_faults_at_once() {
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| if x == 3 { 9 } else { label(x, y) }));
    set.lab.write("train/images/1.png", "");
    std::fs::remove_file(set.path("val/masks/1.png")).unwrap();
    set.picture("train/images/x.tif.png", SIZE, 9);
    let report = set.check();
    let codes: Vec<&str> = report.faults.iter().filter(|f| f.level == Level::Fault).map(|fault| fault.code).collect();
    assert_eq!(codes, ["mask-missing", "mask-missing", "empty-file", "unknown-values"], "{}", report.text());
    assert_eq!((report.faults[3].count, report.values.len()), (1, 4));
    assert!(report.faults[3].examples[0].note.as_ref().unwrap().contains("in 6 masks"), "{}", report.text());
}

#[test]
fn bare_folders_are_checked() {
    let set = Set::good();
    let report = check_folder(set.lab.dir.path(), &|_, _| ()).unwrap();
    assert!(report.ok, "{}", report.text());
    assert_eq!(report.splits.iter().map(|split| split.pairs).collect::<Vec<_>>(), [4, 3]);
    set.lab.write("train/masks/1.png", "");
    set.colours("train/masks/2.png", |_, _| [7, 7, 7]);
    let report = check_folder(set.lab.dir.path(), &|_, _| ()).unwrap();
    let codes: Vec<&str> = report.faults.iter().filter(|f| f.level == Level::Fault).map(|fault| fault.code).collect();
    assert_eq!(codes, ["empty-file", "rgb-mask"], "{}", report.text());
    // Without folders of splits.
    let lab = Lab::new();
    std::fs::create_dir_all(lab.path("in")).unwrap();
    std::fs::rename(set.path("val/images"), lab.path("in/images")).unwrap();
    std::fs::rename(set.path("val/masks"), lab.path("in/masks")).unwrap();
    let report = check_folder(&lab.path("in"), &|_, _| ()).unwrap();
    assert!(report.ok && report.splits.len() == 1 && report.splits[0].pairs == 3, "{}", report.text());
}

#[test]
fn real_sets_have_no_fault() {
    for (name, folder, pairs) in [("camvid", "camvid", [367, 101]), ("ccp14", "ccp", [402, 100])] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(folder);
        if !root.exists() {
            eprintln!("skipped: {} is not there", root.display());
            return;
        }
        let report = check(&DatasetSpec::find(name).unwrap(), Some(&root), &|_, _| ()).unwrap();
        assert!(report.ok, "{}", report.text());
        assert_eq!(report.splits.iter().map(|split| split.pairs).collect::<Vec<_>>(), pairs);
    }
}

#[test]
fn the_command_prints_and_exits() {
    let set = Set::good();
    let report = set.lab.ok(&["data", "check", "set.toml"]);
    insta::assert_snapshot!("data_check_good", report);
    set.mask("val/masks/1.png", SIZE, |x, y| if x == 14 { 255 } else { label(x, y) });
    set.lab.write("train/images/1.png", "");
    let output = set.lab.run(&["data", "check", "set.toml"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("data_check_faults", String::from_utf8(output.stdout).unwrap());
    let output = set.lab.run(&["data", "check", ".", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["version"].as_u64(), report["ok"].as_bool()), (Some(1), Some(false)));
    assert_eq!(report["faults"][0]["code"], "empty-file");
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    let expected =
        ["version", "name", "root", "encoding", "ok", "splits", "classes", "values", "distinct_values", "faults"];
    assert_eq!(keys, expected);
    set.lab.refused(&["data", "check", "shapes"], &["generated"]);
    set.lab.refused(&["data", "check", "nothing"], &["nothing"]);
}
