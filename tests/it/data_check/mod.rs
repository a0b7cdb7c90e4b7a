//! Sets that are broken on purpose, each built here: every fault is found, named with file and place, and has a remedy
//! that works where it is a line of the TOML.

mod joined;
mod meaning;
mod names;
mod pictures;
mod shards;
mod values;

use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, Rgb, RgbImage};
use structtoken::dataset::spec::{DatasetSpec, Source};
use structtoken::dataset::{Dataset, Split};
use structtoken::tools::check::{CheckReport, Fault, Severity, check};
use structtoken::tools::init::check_folder;

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
const COLORS: [[u8; 3]; 3] = [[0, 0, 0], [128, 64, 128], [0, 0, 142]];

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
        set.each_mask(|set, name| set.colors(name, |x, y| COLORS[usize::from(label(x, y))]));
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

    fn colors(&self, name: &str, color: impl Fn(u32, u32) -> [u8; 3]) {
        RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| Rgb(color(x, y))).save(self.path(name)).unwrap();
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

    fn check(&self) -> CheckReport {
        check(&DatasetSpec::read(&self.lab.path("set.toml")).unwrap(), None, &|_, _| ()).unwrap()
    }

    /// The fault of this code, of which `file` is an example.
    fn finds(&self, level: Severity, code: &str, file: &str) -> Fault {
        let report = self.check();
        let all = || report.faults.iter().map(|fault| (fault.code, fault.what.as_str())).collect::<Vec<_>>();
        let fault = report.faults.iter().find(|fault| fault.code == code);
        let fault = fault.unwrap_or_else(|| panic!("no {code} among {:?}", all()));
        assert_eq!(fault.level, level, "{code}");
        assert_eq!(report.ok, report.faults.iter().all(|fault| fault.level == Severity::Warning));
        assert!(fault.remedy.len() > 5, "{code} says what to do");
        if !file.is_empty() {
            let named = fault.examples.iter().any(|example| example.file == Path::new(file));
            assert!(named, "{code} names {file}: {:?}", fault.examples);
        }
        let text = report.text();
        assert!(text.contains(&fault.what) && text.contains(&fault.remedy) && text.contains(file), "{text}");
        fault.clone()
    }

    /// The labels that training would get are these, or count nowhere.
    fn labels_are(&self, truth: impl Fn(u32, u32) -> u8) {
        let spec = DatasetSpec::read(&self.lab.path("set.toml")).unwrap();
        for split in [Split::Train, Split::Val] {
            let set = spec.open(split, None).unwrap();
            for at in 0..set.len() {
                let labels = set.get(at).unwrap().labels;
                let expected = |at: usize| truth(at as u32 % SIZE.0, at as u32 / SIZE.0);
                // The last row is another in each mask.
                let shown = labels.ids.len() - SIZE.0 as usize;
                let wrong = (0..shown).find(|at| labels.ids[*at] != 255 && labels.ids[*at] != expected(*at));
                assert_eq!(wrong, None, "{} {}", set.name(at), std::fs::read_to_string(&spec.file).unwrap());
                assert!(labels.ids.iter().any(|id| *id != 255));
            }
        }
    }

    /// Writes the lines that a fault asks for in place of those of the same name; the fault is gone then.
    fn remedied(&self, fault: &Fault) -> CheckReport {
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
    let classes = ["ground", "road", "car"].iter().zip(COLORS);
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

/// Equal faults are one, with a count and the first places; the worst comes first.
#[test]
fn all_faults_at_once() {
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| if x == 3 { 9 } else { label(x, y) }));
    set.lab.write("train/images/1.png", "");
    std::fs::remove_file(set.path("val/masks/1.png")).unwrap();
    set.picture("train/images/x.tif.png", SIZE, 9);
    let report = set.check();
    let codes: Vec<&str> =
        report.faults.iter().filter(|f| f.level == Severity::Fault).map(|fault| fault.code).collect();
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
    set.colors("train/masks/2.png", |_, _| [7, 0, 9]);
    let report = check_folder(set.lab.dir.path(), &|_, _| ()).unwrap();
    let codes: Vec<&str> =
        report.faults.iter().filter(|f| f.level == Severity::Fault).map(|fault| fault.code).collect();
    assert_eq!(codes, ["empty-file", "rgb-mask"], "{}", report.text());
    // Without folders of splits.
    let lab = Lab::new();
    std::fs::create_dir_all(lab.path("in")).unwrap();
    std::fs::rename(set.path("val/images"), lab.path("in/images")).unwrap();
    std::fs::rename(set.path("val/masks"), lab.path("in/masks")).unwrap();
    let report = check_folder(&lab.path("in"), &|_, _| ()).unwrap();
    assert!(report.ok && report.splits.len() == 1 && report.splits[0].pairs == 3, "{}", report.text());
}

/// What cannot be described is checked all the same.
#[test]
fn bare_folders_whose_masks_hold_no_labels() {
    let set = Set::good();
    set.each_mask(|set, name| {
        std::fs::remove_file(set.path(name)).unwrap();
        set.mask(&name.replace("png", "jpg"), SIZE, label);
    });
    let report = check_folder(set.lab.dir.path(), &|_, _| ()).unwrap();
    assert_eq!((report.faults[0].code, report.faults[0].count), ("jpeg-mask", 7), "{}", report.text());
    set.lab.refused(&["init", "."], &["JPEG", "7 of 7"]);
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
