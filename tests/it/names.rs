//! File and folder names that are not UTF-8: lossy in text, exact on disk, and never a panic. Apple's file
//! systems refuse such names themselves.
#![cfg(all(unix, not(target_vendor = "apple")))]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::cli::{Lab, TINY};

const NAME: &[u8] = b"caf\xe9";

/// A name of those bytes between two others.
fn named(before: &str, after: &str) -> OsString {
    OsStr::from_bytes(&[before.as_bytes(), NAME, after.as_bytes()].concat()).to_owned()
}

struct Place {
    lab: Lab,
}

impl Place {
    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.lab.dir.path().join(name)
    }

    fn run(&self, arguments: &[&OsStr]) -> Output {
        let output = self.lab.command(&[]).args(arguments).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(
            !talk.contains("panicked") && output.status.code().is_some_and(|code| code < 3 || code == 130),
            "{arguments:?}: {talk}"
        );
        output
    }

    /// Runs a command that must work; what it printed.
    fn ok(&self, words: &str, more: &[&OsStr]) -> String {
        let arguments: Vec<&OsStr> = words.split(' ').map(OsStr::new).chain(more.iter().copied()).collect();
        let output = self.run(&arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command that must say that a path is not UTF-8, and what to do.
    fn refused(&self, words: &str, more: &[&OsStr]) {
        let arguments: Vec<&OsStr> = words.split(' ').map(OsStr::new).chain(more.iter().copied()).collect();
        let output = self.run(&arguments);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {talk}");
        assert!(talk.contains("is not UTF-8") && talk.contains("hint: rename it"), "{arguments:?}: {talk}");
    }
}

#[test]
fn runs_models_and_pages_may_have_any_name() {
    let place = Place { lab: Lab::new() };
    let (recipe, run) = (named("", ".toml"), named("run-", ""));
    std::fs::write(place.path(&recipe), TINY).unwrap();
    let short = "--device cpu --threads 1 --set train.iterations=4 --set data.shapes.val=2";
    let stopped = place.run(
        &[
            &["train", "--out"].map(OsStr::new)[..],
            &[&run, &recipe],
            &format!("{short} --stop-after 2").split(' ').map(OsStr::new).collect::<Vec<_>>(),
        ]
        .concat(),
    );
    assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
    place.ok("train --resume --device cpu --threads 1 --out", &[&run]);
    let model = Path::new(&run).join("model.safetensors");
    assert!(place.path(&model).exists() && place.path(Path::new(&run).join("report.html")).exists());
    // The folder that is taken where none is named.
    place.ok(&format!("train {short}"), &[&recipe]);
    place.ok(&format!("train {short}"), &[&recipe]);
    assert!(place.path("runs").join(named("", "")).exists() && place.path("runs").join(named("", "-2")).exists());
    place.ok(&format!("train {short} --seeds 2 --out"), &[&named("seeds-", ""), &recipe]);
    place.ok("train --resume --device cpu --out", &[&named("seeds-", "")]);
    let plan = "compare --decoders pwe --seeds 1 --iterations 2 --evaluations 1 --device cpu --threads 1 --out";
    place.ok(plan, &[&named("compared-", ""), &recipe]);
    assert!(place.path(named("compared-", "")).join("compare.html").exists());

    let model = model.as_os_str();
    place.ok("inspect", &[model]);
    place.ok("inspect", &[&recipe]);
    let (scores, page) = (named("scores-", ".json"), named("page-", ".html"));
    place.ok("eval --device cpu --json --out", &[&scores, OsStr::new("--report"), &page, model]);
    place.ok("eval --device cpu --weights", &[model, &recipe]);
    let shards = ["1/2", "2/2"].map(|shard| (shard, named(&shard[..1], ".json")));
    for (shard, file) in &shards {
        place.ok(&format!("eval --device cpu --shard {shard} --out"), &[file, model]);
    }
    let merged = place.ok("eval merge --json", &[&shards[0].1, &shards[1].1]);
    assert_eq!(merged.trim(), std::fs::read_to_string(place.path(&scores)).unwrap().trim());
    assert!(place.path(&page).exists());

    let photos = Path::new(&named("photos-", "")).join(named("", ""));
    std::fs::create_dir_all(place.path(&photos)).unwrap();
    let photo = place.path(&photos).join(named("", ".png"));
    image::RgbImage::from_fn(20, 20, |x, y| image::Rgb([x as u8, y as u8, 3]))
        .write_to(&mut std::fs::File::create(&photo).unwrap(), image::ImageFormat::Png)
        .unwrap();
    let masks = named("masks-", "");
    let told = place.ok("predict --device cpu --overlay --json --out", &[&masks, model, &named("photos-", "")]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["mask"].as_str().unwrap().contains("caf\u{fffd}"), "{told}");
    assert!(place.path(&masks).join(named("", "")).join(named("", ".png")).exists());

    let demo = named("demo-", "");
    place.ok("demo --device cpu --budget 1s --out", &[&demo]);
    assert!(place.path(&demo).join("report.html").exists());
}

#[test]
fn sets_may_have_any_name_where_no_text_has_to_hold_it() {
    let place = Place { lab: Lab::new() };
    let set = named("set-", "");
    let inside = |name: &str| place.path(&set).join(name);
    for folder in ["images", "masks"] {
        std::fs::create_dir_all(inside(folder)).unwrap();
    }
    for i in 0..6u8 {
        image::RgbImage::from_pixel(20, 20, image::Rgb([i; 3])).save(inside(&format!("images/{i}.png"))).unwrap();
        let mask = image::GrayImage::from_fn(20, 20, |x, _| image::Luma([u8::from(x > 9)]));
        mask.save(inside(&format!("masks/{i}.png"))).unwrap();
    }
    place.lab.write("tiny.toml", TINY.replace("\"shapes\"\n", "\"set.toml\"\n"));
    let out = named("described-", ".toml");
    place.ok("data check", &[&set]);
    place.refused("data init --out", &[&out, &set]);
    assert!(!place.path(&out).exists());
    place.refused("train --device cpu --out run", &[&set]);
    place.ok("data init", &[&set]);
    place.ok("data check", &[&set]);
    place.ok("data check", &[Path::new(&set).join("dataset.toml").as_os_str()]);
    let report: serde_json::Value = serde_json::from_str(&place.ok("data check --json", &[&set])).unwrap();
    assert!(report["root"].as_str().unwrap().contains("caf\u{fffd}"), "{report}");
    for words in ["train --plan", "train --device cpu --out run"] {
        place.refused(words, &[&set]);
        place.refused(words, &[Path::new(&set).join("dataset.toml").as_os_str()]);
    }
    // As the hint says: from within.
    let within = |arguments: &[&str]| {
        let output = place.lab.command(arguments).current_dir(inside("")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    within(&["data", "check", "."]);
    let tiny = TINY.replace("\"shapes\"\n", "\"dataset.toml\"\n");
    std::fs::write(inside("tiny.toml"), tiny).unwrap();
    place.refused("train --device cpu", &[Path::new(&set).join("tiny.toml").as_os_str()]);
    within(&["train", "tiny.toml", "--device", "cpu", "--set", "train.iterations=1", "--out", "run"]);
    within(&["eval", "run/model.safetensors", "--device", "cpu", "--data", "."]);
}
