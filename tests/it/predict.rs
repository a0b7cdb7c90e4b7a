//! Pictures as they come, labelled by the binary.

use std::path::PathBuf;
use std::sync::OnceLock;

use structtoken::image::{decode_image, read_mask};

use crate::cli::{Lab, TINY};

/// A model that was trained for a moment.
pub(crate) fn model() -> String {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(|| {
        let lab = Lab::new();
        let recipe = lab.write("tiny.toml", TINY);
        let few = ["--set", "train.iterations=2", "--set", "train.eval_every=0"];
        lab.ok(&[&["train", recipe.to_str().unwrap(), "--device", "cpu"][..], &few[..]].concat());
        lab
    });
    lab.path("runs/tiny/model.safetensors").to_str().unwrap().to_owned()
}

fn picture(seed: u32) -> image::RgbImage {
    image::RgbImage::from_fn(40, 33, |x, y| image::Rgb([(x * 5 + seed) as u8, (y * 6) as u8, seed as u8]))
}

fn save(lab: &Lab, name: &str, seed: u32) -> PathBuf {
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture(seed).save(&path).unwrap();
    path
}

/// A PNG whose palette has four bytes, which its decoder panics at.
fn broken_palette() -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let sum = crc32fast::hash(&[kind.as_slice(), data].concat());
        [&(data.len() as u32).to_be_bytes()[..], kind, data, &sum.to_be_bytes()].concat()
    };
    let header = chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 3, 0, 0, 0]);
    let data = chunk(b"IDAT", &[0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 0, 0, 2, 0, 1]);
    [&b"\x89PNG\r\n\x1a\n"[..], &header, &chunk(b"PLTE", &[9; 4]), &data, &chunk(b"IEND", &[])].concat()
}

#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn one_bad_file_keeps_no_other_from_being_labelled() {
    use std::os::unix::ffi::OsStrExt;
    let lab = Lab::new();
    save(&lab, "photos/a.png", 1);
    save(&lab, "photos/z.bmp", 2);
    lab.write("photos/b.png", broken_palette());
    lab.write("photos/c.jpg", b"");
    lab.write("photos/d.gif", b"GIF89a");
    assert!(std::process::Command::new("mkfifo").arg(lab.path("photos/e.png")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", lab.path("photos/f.png")).unwrap();
    let strange = std::ffi::OsStr::from_bytes(b"photos/caf\xe9.png");
    std::fs::copy(lab.path("photos/a.png"), lab.dir.path().join(strange)).unwrap();
    let long = "l".repeat(251);
    save(&lab, &format!("photos/{long}.png"), 3);

    let said =
        ["b.png", "c.jpg", "d.gif", "e.png", "f.png", "a pipe", "a device", "5 of 9 images could not be predicted"];
    let talk =
        lab.partly(&["predict", &model(), "photos", "--out", "masks", "--device", "cpu", "--overlay", "--json"], &said);
    assert!(!talk.contains("chunks") && !talk.contains("RUST_BACKTRACE"), "{talk}");
    let strange = std::ffi::OsStr::from_bytes(b"masks/caf\xe9.png");
    for path in [lab.path("masks/a.png"), lab.path("masks/z.png"), lab.dir.path().join(strange)] {
        assert_eq!(read_mask(&path).unwrap().size(), (40, 33), "{}", path.display());
    }
    assert!(lab.path(&format!("masks/{long}.png")).exists());
    let cut =
        std::fs::read_dir(lab.path("masks")).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    assert_eq!(cut.filter(|name| name.starts_with("lll") && name.ends_with("_overlay.png")).count(), 1);
    assert_eq!(std::fs::read_dir(lab.path("masks")).unwrap().count(), 8, "four masks and their overlays");
}

#[test]
fn files_that_no_prediction_wrote_are_replaced_only_when_asked() {
    let lab = Lab::new();
    for (seed, name) in ["a", "b", "c"].iter().enumerate() {
        save(&lab, &format!("set/images/{name}.jpg"), seed as u32);
        save(&lab, &format!("set/masks/{name}.png"), 9);
    }
    // A relative name lives as long as it is needed.
    const MODEL: &str = "model.safetensors";
    std::fs::copy(model(), lab.path(MODEL)).unwrap();
    fn predict<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["predict", MODEL, "--device", "cpu"][..], more].concat()
    }
    let truth = std::fs::read(lab.path("set/masks/a.png")).unwrap();
    // The truth of all images; of one, beside the image; and what only an overlay would replace.
    let into = predict(&["set/images", "--out", "set/masks"]);
    lab.refused(&into, &["set/masks/a.png", "would be replaced", "2 more", "--out", "--overwrite"]);
    std::fs::copy(lab.path("set/masks/a.png"), lab.path("set/images/a.png")).unwrap();
    lab.refused(&predict(&["set/images/a.jpg", "--overlay", "--out", "set/images"]), &["set/images/a.png"]);
    lab.write("own/b_overlay.png", "mine");
    lab.write("own/b_probabilities.npy", "mine");
    let one = ["set/images/b.jpg", "--out", "own"];
    lab.refused(&predict(&[&one[..], &["--overlay"]].concat()), &["own/b_overlay.png"]);
    lab.refused(&predict(&[&one[..], &["--probabilities"]].concat()), &["own/b_probabilities.npy"]);
    assert!(!lab.path("own/b.png").exists(), "nothing is written");
    for path in ["set/masks/a.png", "set/images/a.png"] {
        assert!(std::fs::read(lab.path(path)).unwrap() == truth);
    }
    // Both remedies; and its own are replaced, until somebody edits them.
    let all = ["--overlay", "--probabilities"];
    for out in ["elsewhere", "elsewhere", "own"] {
        let asked: &[&str] = if out == "own" { &["--overwrite"] } else { &[] };
        lab.ok(&predict(&[&["set/images/b.jpg", "--out", out][..], &all, asked].concat()));
        lab.ok(&predict(&[&["set/images/b.jpg", "--out", out][..], &all].concat()));
    }
    image::open(lab.path("elsewhere/b.png")).unwrap().to_rgb8().save(lab.path("elsewhere/b.png")).unwrap();
    lab.refused(&predict(&["set/images/b.jpg", "--out", "elsewhere"]), &["elsewhere/b.png"]);
}

/// Every format holds the labels of the PNG; all of them are replaced by the same command, until somebody edits them.
#[test]
fn answers_of_every_format_are_the_same_labels() {
    let lab = Lab::new();
    // One that a link has to quote.
    let images = ["a b.png", "below/c.bmp"];
    for (seed, name) in images.iter().enumerate() {
        save(&lab, &format!("photos/{name}"), seed as u32);
    }
    let all = "png,overlay,geojson,coco,coco-rle,label-studio,stats,npy";
    let model = model();
    let predict = |more: &[&str]| {
        lab.ok(
            &[&["predict", &model, "photos", "--out", "out", "--device", "cpu", "--tolerance", "0"][..], more].concat()
        )
    };
    let said = predict(&["--format", all]);
    assert_eq!(said, predict(&["--format", "png,overlay", "--format", "geojson,coco,coco-rle,label-studio,stats,npy"]));
    assert_eq!(said.lines().count(), 2 * 6 + 2, "{said}");
    assert!(said.lines().all(|path| lab.path(path).is_file()), "{said}");

    let json =
        |path: &str| -> serde_json::Value { serde_json::from_slice(&std::fs::read(lab.path(path)).unwrap()).unwrap() };
    let [coco, runs] = ["out/coco.json", "out/coco_rle.json"].map(json);
    let listed: Vec<_> = coco["images"].as_array().unwrap().iter().map(|image| image["file_name"].clone()).collect();
    assert_eq!(listed, images);
    assert!(coco["images"] == runs["images"] && coco["categories"] == runs["categories"]);
    for (number, name) in ["a b", "below/c"].iter().enumerate() {
        let mask = read_mask(lab.path(&format!("out/{name}.png"))).unwrap();
        let structtoken::image::RawMask::Index { values, .. } = &mask else { panic!("{mask:?}") };
        let array = std::fs::read(lab.path(&format!("out/{name}.npy"))).unwrap();
        assert!(array[128..].iter().map(|id| u16::from(*id)).eq(values.iter().copied()));
        let stats = json(&format!("out/{name}_stats.json"));
        assert_eq!(stats["image"], images[number]);
        let classes = stats["classes"].as_array().unwrap();
        let polygons = json(&format!("out/{name}.geojson"));
        assert_eq!(polygons["image"]["file_name"], images[number]);
        let task = &json(&format!("out/{name}_label_studio.json"))[0];
        assert!(
            ["a%20b.png", "below/c.bmp"]
                .contains(&task["data"]["image"].as_str().unwrap().split("?d=").nth(1).unwrap())
        );
        assert_eq!(task["predictions"][0]["result"].as_array().unwrap().len(), classes.len());
        for class in classes {
            let id = class["id"].as_u64().unwrap();
            let pixels = values.iter().filter(|value| u64::from(**value) == id).count() as u64;
            let area = |list: &serde_json::Value, is_its: &dyn Fn(&serde_json::Value) -> bool| {
                let its: Vec<u64> = list
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|one| is_its(one))
                    .map(|one| one.get("area").or_else(|| one["properties"].get("area")).unwrap().as_u64().unwrap())
                    .collect();
                (its.len() as u64, its.iter().sum::<u64>())
            };
            let of_image =
                |one: &serde_json::Value| one["image_id"] == number as u64 + 1 && one["category_id"] == id + 1;
            let regions = class["regions"].as_u64().unwrap();
            assert_eq!(class["pixels"], pixels);
            assert_eq!(area(&polygons["features"], &|one| one["properties"]["class_id"] == id), (regions, pixels));
            assert_eq!(area(&coco["annotations"], &of_image), (regions, pixels));
            assert_eq!(area(&runs["annotations"], &of_image), (1, pixels));
        }
    }
    // Somebody's work is not replaced; what no format writes is not asked for.
    for path in ["out/coco.json", "out/below/c.geojson", "out/a b_stats.json", "out/below/c.npy"] {
        let before = std::fs::read(lab.path(path)).unwrap();
        std::fs::write(lab.path(path), "mine").unwrap();
        lab.refused(
            &["predict", &model, "photos", "--out", "out", "--format", all],
            &[path, "not written by an earlier prediction"],
        );
        std::fs::write(lab.path(path), before).unwrap();
    }
    predict(&["--format", all]);
    let hidden = std::fs::read_dir(lab.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
    let hidden: Vec<_> = hidden.filter(|name| name.to_str().unwrap().starts_with('.')).collect();
    assert_eq!(hidden, [".structtoken-arrays"], "nothing unfinished is left");
    let alone = lab.ok(&["predict", &model, "photos", "--out", "alone", "--format", "coco", "--json"]);
    assert_eq!((alone.lines().count(), std::fs::read_dir(lab.path("alone")).unwrap().count()), (3, 2), "{alone}");
}

/// COCO's files are what `data init` reads, which draws the same masks.
#[test]
fn coco_files_come_back_as_masks() {
    let lab = Lab::new();
    let model = model();
    for form in ["coco", "coco-rle"] {
        let (images, out) = (format!("{form}/images"), format!("{form}/out"));
        for seed in 0..3 {
            save(&lab, &format!("{images}/{seed}.png"), seed);
        }
        let formats = format!("png,{form}");
        let exact = ["--tolerance", "0"];
        let more: &[&str] = if form == "coco" { &exact } else { &[] };
        let predict = ["predict", &model, &images, "--out", &out, "--format", &formats, "--device", "cpu"];
        lab.ok(&[&predict[..], more].concat());
        let name = format!("{}.json", form.replace('-', "_"));
        std::fs::rename(lab.path(&format!("{out}/{name}")), lab.path(&format!("{form}/{name}"))).unwrap();
        let values = |path: String| match read_mask(lab.path(&path)).unwrap() {
            structtoken::image::RawMask::Index { values, .. } => values,
            mask => panic!("{mask:?}"),
        };
        let predicted: Vec<_> = (0..3).map(|seed| values(format!("{out}/{seed}.png"))).collect();
        std::fs::remove_dir_all(lab.path(&out)).unwrap();
        lab.ok(&["data", "init", form]);
        // Of the classes that are there; 0 is what no outline covers.
        let used: std::collections::BTreeSet<u16> = predicted.concat().into_iter().collect();
        for (seed, mask) in predicted.iter().enumerate() {
            let rank = |class: &u16| 1 + used.iter().position(|one| one == class).unwrap() as u16;
            let expected: Vec<u16> = mask.iter().map(rank).collect();
            assert_eq!(values(format!("{form}/dataset-masks/{seed}.png")), expected, "{form}");
        }
    }
}

/// What of the options can have no effect, or no file, is refused before anything is computed.
#[test]
fn options_that_do_not_fit_a_format_are_refused() {
    let lab = Lab::new();
    for name in ["a/x.png", "b/x.png"] {
        save(&lab, name, 1);
    }
    let model = model();
    let predict = |more: &[&'static str]| [&["predict", &model, "a/x.png", "--device", "cpu"][..], more].concat();
    lab.misused(&predict(&["--tolerance", "2"]), &["--tolerance", "--format geojson"]);
    lab.misused(&predict(&["--min-area", "2", "--format", "stats"]), &["--min-area", "coco-rle"]);
    for tolerance in ["--tolerance=-1", "--tolerance=nan", "--tolerance=inf"] {
        lab.misused(&predict(&[tolerance, "--format", "coco"]), &["tolerance of", "choose 0"]);
    }
    // The remedies.
    lab.ok(&predict(&["--tolerance", "2", "--format", "geojson"]));
    lab.ok(&predict(&["--min-area", "2", "--format", "coco-rle,label-studio"]));
    lab.ok(&predict(&["--tolerance", "0", "--format", "coco"]));
    // Two images of one name, and the remedy.
    lab.refused(&predict(&["b/x.png", "--format", "coco"]), &["both be called `x.png`", "a folder that holds both"]);
    lab.ok(&["predict", &model, ".", "--device", "cpu", "--format", "coco"]);
    let coco = std::fs::read_to_string(lab.path("predictions/coco.json")).unwrap();
    assert!(coco.contains("\"a/x.png\"") && coco.contains("\"b/x.png\""));
}

/// What was predicted before is not an image, wherever it lies: the same command works again, and with another place.
#[test]
fn earlier_predictions_among_the_inputs_are_left_out() {
    let lab = Lab::new();
    for (seed, name) in ["a.jpg", "b.png", "below/c.bmp"].iter().enumerate() {
        save(&lab, &format!("photos/{name}"), seed as u32);
    }
    let model = model();
    let into = |out: &'static str| ["predict", &model, "photos", "--out", out, "--overlay", "--device", "cpu"];
    let files = |out: &str| {
        let names = ["a.png", "b.png", "below/c.png", "a_overlay.png", "b_overlay.png", "below/c_overlay.png"];
        names.map(|name| std::fs::read(lab.path(out).join(name)).unwrap())
    };
    lab.ok(&into("photos/first"));
    lab.ok(&into("photos/first"));
    let talk = String::from_utf8(lab.run(&into("photos/second")).stderr).unwrap();
    assert!(talk.contains("earlier predictions (6, `photos/first/a.png` first), left out"), "{talk}");
    assert!(!lab.path("photos/second/first").exists() && files("photos/first") == files("photos/second"));
    // Beside the images, where `b` would be replaced.
    std::fs::remove_file(lab.path("photos/b.png")).unwrap();
    for _ in 0..2 {
        lab.ok(&into("photos"));
    }
    assert!(std::fs::read(lab.path("photos/a.png")).unwrap() == files("photos/first")[0]);
    let only = ["predict", &model, "photos/first", "--out", "third", "--device", "cpu"];
    lab.refused(&only, &["`photos/first` holds no images but earlier predictions (6,", "pass the files"]);
    lab.ok(&["predict", &model, "photos/first/a.png", "--out", "third", "--device", "cpu"]);
    // As are edited ones.
    image::open(lab.path("photos/first/a.png")).unwrap().to_rgb8().save(lab.path("photos/first/a.png")).unwrap();
    lab.ok(&["predict", &model, "photos/first", "--out", "fourth", "--device", "cpu"]);
    assert_eq!(std::fs::read_dir(lab.path("fourth")).unwrap().count(), 1);
}

/// Before anything is computed, and once for all images.
#[test]
fn places_that_cannot_be_written_are_told_before() {
    let lab = Lab::new();
    let model = model();
    for i in 0..3 {
        save(&lab, &format!("photos/{i}.png"), i);
    }
    lab.write("file", "");
    let predict = |out: &'static str| ["predict", &model, "photos", "--out", out, "--device", "cpu"];
    for out in ["file", "file/below", "file/below/it"] {
        let talk = lab.refused(&predict(out), &["cannot write", out, "a file where a folder should be"]);
        assert_eq!(talk.matches("error:").count(), 1, "{talk}");
    }
    std::fs::create_dir_all(lab.path("masks/1.png")).unwrap();
    lab.refused(&predict("masks"), &["masks/1.png", "a folder has this name"]);
    assert_eq!(std::fs::read_dir(lab.path("masks")).unwrap().count(), 1, "nothing is written");
    #[cfg(unix)]
    {
        // A link that leads nowhere is somebody's, and one to a prediction too.
        std::fs::create_dir(lab.path("links")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", lab.path("links/2.png")).unwrap();
        lab.refused(&predict("links"), &["links/2.png", "not written by an earlier prediction", "--overwrite"]);
        lab.ok(&[&predict("links")[..], &["--overwrite"]].concat());
        std::fs::remove_file(lab.path("links/2.png")).unwrap();
        std::os::unix::fs::symlink("1.png", lab.path("links/2.png")).unwrap();
        lab.refused(&predict("links"), &["links/2.png", "not written by an earlier prediction"]);
    }
    // As for evaluations.
    let shapes = ["--set", "data.dataset=shapes", "--device", "cpu"];
    for (option, path) in [("--out", "file/scores.json"), ("--report", "file/page.html"), ("--out", "masks")] {
        let talk = lab.refused(&[&["eval", &model, option, path][..], &shapes].concat(), &["cannot write", path]);
        assert!(!talk.contains("evaluating"), "{talk}");
    }
}

#[test]
fn two_processes_write_whole_files_into_one_folder() {
    let lab = Lab::new();
    let names: Vec<String> = (0..228).map(|i| format!("{i}.png")).collect();
    for (seed, name) in names.iter().enumerate() {
        save(&lab, &format!("photos/{name}"), seed as u32);
    }
    let model = model();
    lab.ok(&["predict", &model, "photos", "--out", "alone", "--device", "cpu"]);
    let both = || lab.command(&["predict", &model, "photos", "--out", "both", "--device", "cpu"]).spawn().unwrap();
    for mut process in [both(), both(), both()] {
        assert!(process.wait().unwrap().success());
    }
    let read = |folder: &str, name: &String| std::fs::read(lab.path(folder).join(name)).unwrap();
    assert!(names.iter().all(|name| read("alone", name) == read("both", name)));
    assert_eq!(std::fs::read_dir(lab.path("both")).unwrap().count(), names.len());
}

#[test]
fn twelve_bits_in_sixteen_are_seen_as_the_set_says() {
    let lab = Lab::new();
    for split in ["train", "val"] {
        for i in 0..2u16 {
            let deep = image::ImageBuffer::<image::Rgb<u16>, Vec<u16>>::from_fn(32, 32, |x, y| {
                image::Rgb([(x * 127) as u16, (y * 127) as u16, i * 4000])
            });
            std::fs::create_dir_all(lab.path(&format!("{split}/images"))).unwrap();
            std::fs::create_dir_all(lab.path(&format!("{split}/masks"))).unwrap();
            deep.save(lab.path(&format!("{split}/images/{i}.png"))).unwrap();
            let mask = image::GrayImage::from_fn(32, 32, |x, _| image::Luma([u8::from(x > 15 + u32::from(i))]));
            mask.save(lab.path(&format!("{split}/masks/{i}.png"))).unwrap();
        }
    }
    let text = "name = 's'\nclasses = ['a', 'b']\n[train]\nimages = 'train/images'\nmasks = 'train/masks'\n\
                [val]\nimages = 'val/images'\nmasks = 'val/masks'\n";
    lab.write("set.toml", text);
    // What the check prints is what remedies it.
    let report = String::from_utf8(lab.run(&["data", "check", "set.toml"]).stdout).unwrap();
    assert!(report.contains("range = [0, 4095]"), "{report}");
    lab.write("set.toml", format!("range = [0, 4095]\n{text}"));
    let report = String::from_utf8(lab.run(&["data", "check", "set.toml"]).stdout).unwrap();
    assert!(!report.contains("range"), "{report}");
    lab.write("set.toml", format!("range = [0, 1000]\n{text}"));
    assert!(String::from_utf8(lab.run(&["data", "check", "set.toml"]).stdout).unwrap().contains("range = [0, 4000]"));
    lab.write("set.toml", format!("range = [5, 5]\n{text}"));
    lab.refused(&["data", "check", "set.toml"], &["range = [5, 5]"]);

    lab.write("set.toml", format!("range = [0, 4095]\n{text}"));
    let recipe = lab.write("tiny.toml", TINY);
    let set = ["--set", "data.dataset=set.toml", "--set", "train.iterations=2", "--set", "train.eval_every=0"];
    lab.ok(&[&["train", recipe.to_str().unwrap(), "--device", "cpu", "--out", "run"][..], &set[..]].concat());
    let predictor = structtoken::predict::Predictor::open(
        lab.path("run/model.safetensors"),
        &structtoken::device::open("cpu").unwrap().0,
    );
    let seen = predictor.unwrap().read(lab.path("train/images/1.png")).unwrap();
    assert_eq!(seen.pixels[31 * 3..][..3], [245, 0, 249], "31 * 127 and 4000 of 4095");
    let plain = decode_image(&std::fs::read(lab.path("train/images/1.png")).unwrap()).unwrap();
    assert_eq!(plain.pixels[31 * 3..][..3], [15, 0, 16]);
}

#[test]
fn jpeg_masks_are_taken_where_the_set_allows_them() {
    let lab = Lab::new();
    for i in 0..3 {
        save(&lab, &format!("images/{i}.png"), i);
        let mask =
            image::GrayImage::from_fn(40, 33, |x, y| image::Luma([if (x + i) / 16 + y / 16 > 2 { 255 } else { 0 }]));
        std::fs::create_dir_all(lab.path("masks")).unwrap();
        mask.save(lab.path(&format!("masks/{i}.jpg"))).unwrap();
    }
    let text = "name = 's'\nclasses = ['a', { name = 'b', source = [255] }]\n\
                [train]\nimages = 'images'\nmasks = 'masks'\nmask_suffix = '.jpg'\n";
    lab.write("set.toml", text);
    let output = lab.run(&["data", "check", "set.toml"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() && report.contains("`jpeg_tolerance = 255` takes"), "{report}");
    lab.write("set.toml", format!("jpeg_tolerance = 255\n{text}"));
    let output = lab.run(&["data", "check", "set.toml"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
}
