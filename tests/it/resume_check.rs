//! A run goes on with the data and the recipe that it began with, or not at all.

use std::path::Path;

use serde_json::Value;

use crate::cli::{Lab, TINY};

const CPU: [&str; 4] = ["--device", "cpu", "--threads", "1"];
const SET: &str = "name = 's'\nclasses = ['a', 'b']\n[train]\nimages = 'i/train'\nmasks = 'm/train'\n[val]\nimages = 'i/val'\n\
                   masks = 'm/val'\n";
/// The seed of training in a recipe with every value.
const SEED: &str = "seed = 0\npretrained_backbone_only";
/// What a cut run does by then.
const CUT: [&str; 2] = ["--stop-after", "6"];

/// An image and its mask, which is 1 right of `edge`.
fn pair(lab: &Lab, split: &str, name: &str, edge: u32) {
    let path = |folder: &str| {
        let path = lab.path(folder).join(split).join(format!("{name}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([edge as u8 * 8, x as u8 * 8, y as u8 * 8]));
    image.save(path("i")).unwrap();
    image::GrayImage::from_fn(32, 32, |x, _| image::Luma([u8::from(x > edge)])).save(path("m")).unwrap();
}

/// Eight images to learn, three to judge by, and a recipe of twelve iterations.
fn lab() -> Lab {
    let lab = Lab::new();
    (0..8).for_each(|i| pair(&lab, "train", &format!("t{i}"), 4 + 3 * i));
    (0..3).for_each(|i| pair(&lab, "val", &format!("v{i}"), 6 + 5 * i));
    lab.write("set.toml", SET);
    let short = [
        ("\"shapes\"\n", "\"set.toml\"\n"),
        ("iterations = 60", "iterations = 12"),
        ("eval_every = 20", "eval_every = 4"),
    ];
    let recipe = short.iter().fold(TINY.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
    lab.write("tiny.toml", recipe.replacen("save_every = 10", "save_every = 2", 1));
    lab
}

fn begin(lab: &Lab, out: &str) {
    let stopped = lab.run(&[&["train", "tiny.toml", "--out", out][..], &CPU, &CUT].concat());
    assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
}

fn resume(out: &str) -> Vec<&str> {
    [&["train", "--resume", "--out", out][..], &CPU].concat()
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The command between the first backticks of `text` that begins with `structtoken`, without that word.
fn command(text: &str) -> Vec<String> {
    let found = text.split('`').find_map(|part| part.strip_prefix("structtoken ")).unwrap_or_else(|| panic!("{text}"));
    found.split_whitespace().map(str::to_owned).collect()
}

fn follow(lab: &Lab, text: &str) {
    let command = command(text);
    lab.ok(&command.iter().map(String::as_str).chain(CPU).collect::<Vec<_>>());
}

/// A change to the data, and what has to be said of it.
type Change = (&'static str, fn(&Lab), &'static [&'static str]);

const CHANGES: [Change; 9] = [
    ("added", |lab| pair(lab, "train", "t9", 9), &["[train]: 1 image new (t9)", "8 images before, 9 now"]),
    (
        "removed",
        |lab| {
            std::fs::remove_file(lab.path("i/train/t3.png")).unwrap();
            std::fs::remove_file(lab.path("m/train/t3.png")).unwrap();
        },
        &["[train]: 1 image gone (t3)", "8 images before, 7 now"],
    ),
    (
        "another image",
        |lab| _ = std::fs::copy(lab.path("i/train/t0.png"), lab.path("i/train/t5.png")).unwrap(),
        &["[train]: 1 image changed (t5), of 8 images"],
    ),
    (
        "another mask of as many pixels of each class",
        |lab| {
            let mask = image::open(lab.path("m/train/t2.png")).unwrap().fliph();
            mask.save(lab.path("m/train/t2.png")).unwrap();
        },
        &["[train]: 1 image changed only in their masks (t2)"],
    ),
    (
        "another mask of the validation",
        |lab| _ = std::fs::copy(lab.path("m/val/v0.png"), lab.path("m/val/v1.png")).unwrap(),
        &["[val]: 1 image changed only in their masks (v1)"],
    ),
    (
        "two exchanged",
        |lab| {
            for (from, to) in [("t0", "x"), ("t1", "t0"), ("x", "t1")] {
                let path = |name: &str| lab.path("i/train").join(format!("{name}.png"));
                std::fs::rename(path(from), path(to)).unwrap();
            }
        },
        &["[train]: 2 images changed (t0, t1)"],
    ),
    (
        "a value is ignored now",
        |lab| _ = lab.write("set.toml", SET.replacen("classes = ['a', 'b']", "ignore = [7]\nclasses = ['a', 'b']", 1)),
        &["another label map: ignore: null -> [7]"],
    ),
    (
        "classes are exchanged",
        |lab| {
            let classes = "classes = [{ name = 'a', source = [1] }, { name = 'b', source = [0] }]";
            lab.write("set.toml", SET.replacen("classes = ['a', 'b']", classes, 1));
        },
        &["another label map: classes[0]"],
    ),
    (
        "another order",
        |lab| {
            lab.write("set.toml", SET.replacen("[val]", "list = 'list'\n[val]", 1));
            lab.write("list", (0..8).rev().map(|i| format!("t{i}\n")).collect::<String>());
        },
        &["the images are in another order"],
    ),
];

#[test]
fn other_data_are_refused_and_the_same_go_on_to_the_same_bytes() {
    let lab = lab();
    lab.ok(&[&["train", "tiny.toml", "--out", "whole"][..], &CPU].concat());
    begin(&lab, "cut");
    let saved = |folder: &str| lab.path("saved").join(folder);
    let copy = |from: &Path, to: &Path| assert!(copy_folder(from, to));
    for folder in ["i", "m"] {
        copy(&lab.path(folder), &saved(folder));
    }
    for (what, change, say) in CHANGES {
        change(&lab);
        let said = lab.refused(&resume("cut"), &[&["the data is not what `cut` was trained on"][..], say].concat());
        assert!(said.contains("step-00000006/model.safetensors"), "{what}: {said}");
        // Back as it was.
        for folder in ["i", "m"] {
            std::fs::remove_dir_all(lab.path(folder)).unwrap();
            copy(&saved(folder), &lab.path(folder));
        }
        lab.write("set.toml", SET);
    }
    // Files that were only copied or moved are the same data.
    std::fs::rename(lab.path("i"), lab.path("j")).unwrap();
    lab.write("set.toml", SET.replace("'i/", "'j/"));
    lab.ok(&resume("cut"));
    for file in ["model.safetensors", "scores.json", "checkpoints/step-00000012/optimizer.safetensors", "data.ndjson"] {
        let path = |run: &str| lab.path(run).join(file);
        if file != "model.safetensors" {
            assert!(bytes(&path("whole")) == bytes(&path("cut")), "{file} differs");
        }
        // The description in the card says where files lie.
        let tensors = |run: &str| structtoken::weights::read(&path(run)).unwrap().tensors;
        assert!(file != "model.safetensors" || tensors("whole") == tensors("cut"));
    }
}

fn copy_folder(from: &Path, to: &Path) -> bool {
    std::process::Command::new("cp").arg("-r").arg(from).arg(make_parent(to)).status().unwrap().success()
}

fn make_parent(path: &Path) -> &Path {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

#[test]
fn the_way_out_of_other_data_works() {
    let lab = lab();
    begin(&lab, "cut");
    pair(&lab, "train", "t9", 9);
    let said = lab.refused(&resume("cut"), &["1 image new (t9)"]);
    follow(&lab, &said);
    let said = lab.path("OTHER/manifest.json");
    let manifest: Value = serde_json::from_slice(&bytes(&said)).unwrap();
    assert_eq!(manifest["data"][0]["images"], 9);
    // A list of files that is damaged names none, and blocks nothing.
    std::fs::write(lab.path("cut/data.ndjson"), b"{").unwrap();
    lab.refused(&resume("cut"), &["other names or masks, of 8 images before, 9 now"]);
    std::fs::remove_file(lab.path("i/train/t9.png")).unwrap();
    lab.ok(&resume("cut"));
}

/// Takes away what versions before these checks did not write.
fn as_before(lab: &Lab, run: &str) {
    std::fs::remove_file(lab.path(run).join("data.ndjson")).unwrap();
    for folder in std::fs::read_dir(lab.path(run).join("checkpoints")).unwrap() {
        let folder = folder.unwrap().path();
        let sums = folder.join("checksums.json");
        let mut noted: Value = serde_json::from_slice(&bytes(&sums)).unwrap();
        for name in ["config.toml", "data.json"] {
            std::fs::remove_file(folder.join(name)).unwrap();
            noted.as_object_mut().unwrap().remove(name).unwrap();
        }
        std::fs::write(sums, noted.to_string()).unwrap();
    }
    let path = lab.path(run).join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&bytes(&path)).unwrap();
    for name in ["crc32", "recipe", "description"] {
        manifest.as_object_mut().unwrap().remove(name).unwrap();
    }
    for split in manifest["data"].as_array_mut().unwrap() {
        split.as_object_mut().unwrap().remove("content").unwrap();
    }
    std::fs::write(path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
}

#[test]
fn runs_of_earlier_versions_are_held_to_what_they_have() {
    let lab = lab();
    begin(&lab, "cut");
    as_before(&lab, "cut");
    std::fs::rename(lab.path("i/train/t3.png"), lab.path("t3.png")).unwrap();
    lab.refused(&resume("cut"), &["[train]: other names or masks, of 8 images before, 7 now"]);
    std::fs::rename(lab.path("t3.png"), lab.path("i/train/t3.png")).unwrap();
    let mask = bytes(&lab.path("m/train/t3.png"));
    std::fs::copy(lab.path("m/train/t0.png"), lab.path("m/train/t3.png")).unwrap();
    lab.refused(&resume("cut"), &["[train]: other names or masks, of 8 images"]);
    std::fs::write(lab.path("m/train/t3.png"), mask).unwrap();
    // Its manifest has no checksum of its own: where that is what was damaged, there is a way on.
    let manifest = lab.path("cut/manifest.json");
    let noted = String::from_utf8(bytes(&manifest)).unwrap();
    std::fs::write(&manifest, noted.replacen("\"images\": 8", "\"images\": 9", 1)).unwrap();
    lab.refused(&resume("cut"), &["9 images before, 8 now", "or remove `cut/manifest.json`"]);
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(lab.run(&[&resume("cut")[..], &["--stop-after", "7"]].concat()).status.code(), Some(130));
    std::fs::remove_dir_all(lab.path("cut")).unwrap();
    begin(&lab, "cut");
    as_before(&lab, "cut");
    lab.write("set.toml", SET.replacen("['a', 'b']", "['a', 'c']", 1));
    lab.refused(&resume("cut"), &["classes[1].name: \"b\" -> \"c\""]);
    lab.write("set.toml", SET);
    let own = lab.path("cut/config.toml");
    let text = String::from_utf8(bytes(&own)).unwrap();
    let cut = &text[..text.find("[train]").unwrap()];
    for (text, say) in [
        (text.replacen(SEED, &SEED.replace('0', "1"), 1), "train.seed: 0 -> 1"),
        (cut.to_owned(), "train.iterations: 12 -> 160000"),
        (text.replacen("drop_path_rate = 0.1", "drop_path_rate = 0.5", 1), "drop_path_rate: 0.1 -> 0.5"),
    ] {
        std::fs::write(&own, text).unwrap();
        lab.refused(&resume("cut"), &["is no longer the recipe", say, "restore the values on the left of each arrow"]);
    }
    std::fs::write(&own, text).unwrap();
    lab.ok(&resume("cut"));
    // From then on it has all that a run of now has.
    pair(&lab, "train", "t9", 9);
    lab.refused(&resume("cut"), &["1 image new (t9)"]);
}

#[test]
fn an_edited_recipe_is_refused_and_can_be_put_back() {
    let lab = lab();
    begin(&lab, "cut");
    let own = lab.path("cut/config.toml");
    let text = String::from_utf8(bytes(&own)).unwrap();
    let at = |what: &str| text[..text.find(what).unwrap()].to_owned();
    for (edited, say) in [
        (text.replacen("lr = 0.001", "lr = 0.002", 1), "train.optimizer.lr: 0.001 -> 0.002"),
        (text.replacen(SEED, &SEED.replace('0', "7"), 1), "train.seed: 0 -> 7"),
        (text.replacen("log_every = 1\n", "", 1), "train.log_every: 1 -> 10"),
        (at("[train]"), "train.iterations: 12 -> 160000"),
        (at("optimizer]"), "is damaged"),
        (String::new(), "is no longer the recipe"),
        ("\0".repeat(text.len()), "is damaged"),
    ] {
        assert_ne!(edited, text, "{say}");
        std::fs::write(&own, edited).unwrap();
        lab.refused(&resume("cut"), &[say, "cp cut/checkpoints/step-00000006/config.toml cut/config.toml"]);
    }
    std::fs::remove_file(&own).unwrap();
    lab.refused(&resume("cut"), &["config.toml is gone", "cp cut/checkpoints/step-00000006/config.toml"]);
    // One that only looks otherwise is the same.
    std::fs::write(&own, format!("# a note\n{text}")).unwrap();
    // The other settings in another run.
    std::fs::write(&own, text.replacen("lr = 0.001", "lr = 0.002", 1)).unwrap();
    let said = lab.refused(&resume("cut"), &["lr: 0.001 -> 0.002"]);
    follow(&lab, &said);
    let recipe = String::from_utf8(bytes(&lab.path("OTHER/config.toml"))).unwrap();
    assert!(recipe.contains("lr = 0.002") && recipe.contains("pretrained = "), "{recipe}");
    std::fs::copy(lab.path("cut/checkpoints/step-00000006/config.toml"), &own).unwrap();
    lab.ok(&resume("cut"));
    lab.ok(&[&["train", "tiny.toml", "--out", "whole"][..], &CPU].concat());
    assert!(bytes(&lab.path("cut/model.safetensors")) == bytes(&lab.path("whole/model.safetensors")));
}

#[test]
fn a_run_without_a_checkpoint_is_begun_again() {
    let lab = lab();
    let none = [&["train", "tiny.toml", "--out", "cut", "--stop-after", "0"][..], &CPU].concat();
    assert_eq!(lab.run(&none).status.code(), Some(130));
    // It has learned nothing of the data of then.
    pair(&lab, "train", "t9", 9);
    let own = lab.path("cut/config.toml");
    let text = String::from_utf8(bytes(&own)).unwrap();
    std::fs::write(&own, text.replacen(SEED, &SEED.replace('0', "7"), 1)).unwrap();
    let said = lab.refused(&resume("cut"), &["train.seed: 0 -> 7", "no checkpoint yet"]);
    std::fs::write(&own, &text).unwrap();
    assert_eq!(lab.run(&[&resume("cut")[..], &CUT].concat()).status.code(), Some(130));
    lab.ok(&resume("cut"));
    assert_eq!(lab.run(&[&none[..3], &["fresh"], &none[4..]].concat()).status.code(), Some(130));
    let own = lab.path("fresh/config.toml");
    std::fs::write(&own, text.replacen(SEED, &SEED.replace('0', "7"), 1)).unwrap();
    follow(&lab, &said.replace("cut", "fresh"));
}

/// What only describes a run is no reason not to go on with it.
#[test]
fn damage_beside_the_checkpoints_does_not_block() {
    let lab = lab();
    begin(&lab, "cut");
    let manifest = lab.path("cut/manifest.json");
    let mut flipped = bytes(&manifest);
    let at = flipped.windows(7).position(|part| part == b"content").unwrap() + 12;
    flipped[at] ^= 1;
    std::fs::write(&manifest, flipped).unwrap();
    let log = lab.path("cut/log.ndjson");
    let mut lines: Vec<String> = String::from_utf8(bytes(&log)).unwrap().lines().map(str::to_owned).collect();
    assert!(lines.len() > 4);
    lines[2] = lines[2].replacen('{', "z", 1);
    let torn = lines[2].clone();
    std::fs::write(&log, lines.join("\n") + "\n").unwrap();
    let resumed = lab.run(&resume("cut"));
    let talk = String::from_utf8_lossy(&resumed.stderr);
    assert!(resumed.status.success(), "{talk}");
    assert!(talk.contains("its checksum differs") && talk.contains("damaged-manifest.json"), "{talk}");
    assert!(talk.contains("damaged, the first of them line 3") && talk.contains("damaged-log.ndjson"), "{talk}");
    assert_eq!(String::from_utf8(bytes(&lab.path("cut/damaged-log.ndjson"))).unwrap(), torn + "\n");
    let rows = String::from_utf8(bytes(&log)).unwrap();
    assert_eq!(rows.lines().filter(|row| row.contains("\"step\"")).count(), 11, "{rows}");
    assert_eq!(rows.lines().filter(|row| row.contains("\"eval\"")).count(), 3, "{rows}");
    let again: Value = serde_json::from_slice(&bytes(&manifest)).unwrap();
    assert_eq!(again["data"][0]["images"], 8);
}

#[test]
fn runs_of_several_seeds_are_of_one_recipe_and_the_same_data() {
    let lab = lab();
    let several = [&["train", "tiny.toml", "--out", "seeds", "--seeds", "2"][..], &CPU].concat();
    lab.ok(&several);
    let again = resume("seeds");
    // As if the second had been killed at its end, and the data then changed.
    std::fs::remove_dir_all(lab.path("seeds/seed-1")).unwrap();
    pair(&lab, "train", "t9", 9);
    lab.refused(&again, &["`seeds/seed-0`", "1 image new (t9)", "start all runs again in another folder"]);
    std::fs::remove_file(lab.path("i/train/t9.png")).unwrap();
    let own = lab.path("seeds/config.toml");
    let text = String::from_utf8(bytes(&own)).unwrap();
    std::fs::write(&own, text.replacen("lr = 0.001", "lr = 0.002", 1)).unwrap();
    lab.refused(&again, &["`seeds/seed-0` was made by another recipe", "lr: 0.001 -> 0.002"]);
    std::fs::write(&own, text).unwrap();
    lab.ok(&again);
    // One that was made elsewhere, on other data.
    pair(&lab, "train", "t9", 9);
    std::fs::remove_dir_all(lab.path("seeds/seed-1")).unwrap();
    lab.ok(&[&["train", "tiny.toml", "--out", "seeds/seed-1", "--set", "train.seed=1"][..], &CPU].concat());
    lab.refused(
        &again,
        &["were not trained on the same data", "`seeds/seed-1`", "1 image new (t9)", "remove the folders"],
    );
    std::fs::remove_dir_all(lab.path("seeds/seed-1")).unwrap();
    std::fs::remove_file(lab.path("i/train/t9.png")).unwrap();
    lab.ok(&again);

    let folds = [&["train", "tiny.toml", "--out", "folds", "--folds", "2"][..], &CPU].concat();
    lab.ok(&folds);
    let again = resume("folds");
    std::fs::remove_dir_all(lab.path("folds/fold-1")).unwrap();
    let image = bytes(&lab.path("i/train/t5.png"));
    std::fs::copy(lab.path("i/train/t0.png"), lab.path("i/train/t5.png")).unwrap();
    lab.refused(&again, &["`folds/fold-0`", "1 image changed (t5)"]);
    std::fs::write(lab.path("i/train/t5.png"), image).unwrap();
    lab.ok(&again);
}

#[test]
fn runs_of_a_comparison_are_of_one_plan_and_the_same_data() {
    let lab = lab();
    let plan = ["--decoders", "pwe", "--seeds", "2", "--iterations", "2", "--evaluations", "1"];
    lab.ok(&[&["compare", "tiny.toml", "--out", "both"][..], &plan, &CPU].concat());
    let again = [&["compare", "--out", "both"][..], &CPU].concat();
    std::fs::remove_dir_all(lab.path("both/pwe-s1")).unwrap();
    let mask = bytes(&lab.path("m/val/v1.png"));
    std::fs::copy(lab.path("m/val/v0.png"), lab.path("m/val/v1.png")).unwrap();
    lab.refused(&again, &["`both/pwe-s0`", "1 image changed only in their masks (v1)"]);
    std::fs::write(lab.path("m/val/v1.png"), mask).unwrap();
    let own = lab.path("both/plan.toml");
    let text = String::from_utf8(bytes(&own)).unwrap();
    std::fs::write(&own, text.replacen("lr = 0.001", "lr = 0.002", 1)).unwrap();
    lab.refused(&again, &["`both/pwe-s0` was made by another recipe", "lr: 0.001 -> 0.002"]);
    std::fs::write(&own, text).unwrap();
    lab.ok(&again);
    // A half that was made elsewhere, on other data.
    pair(&lab, "train", "t9", 9);
    lab.ok(&[&["compare", "tiny.toml", "--out", "other", "--shard", "2/2"][..], &plan, &CPU].concat());
    std::fs::remove_dir_all(lab.path("both/pwe-s1")).unwrap();
    lab.refused(
        &["compare", "--collect", "both", "other", "--out", "all"],
        &["not trained on the same data", "1 image new (t9)"],
    );
}

/// Numbers that no run leaves are refused with file and field, and what the hints say makes them again.
#[test]
fn results_that_cannot_be_are_refused_and_made_again() {
    let lab = lab();
    let several = [&["train", "tiny.toml", "--out", "seeds", "--seeds", "2"][..], &CPU].concat();
    lab.ok(&several);
    let (again, scores) = (resume("seeds"), lab.path("seeds/seed-0/scores.json"));
    let good = String::from_utf8(bytes(&scores)).unwrap();
    let miou = good.lines().find(|line| line.contains("miou")).unwrap();
    for (bad, say) in [
        (good.replacen(miou, "  \"miou\": 1e300,", 1), "miou"),
        (good.replacen("\"pixels\": ", "\"pixels\": 9", 1), "pixels"),
        (good[..good.len() / 2].to_owned(), "seeds/seed-0/scores.json"),
    ] {
        std::fs::write(&scores, bad).unwrap();
        let said = lab.refused(&again, &["`seeds/seed-0/scores.json`", say]);
        follow(&lab, &said);
        lab.ok(&again);
    }
    let repeat = lab.path("seeds/repeat.json");
    let good = bytes(&repeat);
    for bad in ["{\"seeds\": 9223372036854775808}", "{\"folds\": 1}", "{}", "[2]", "{\"seeds\": 1e300}"] {
        std::fs::write(&repeat, bad).unwrap();
        lab.refused(&again, &["`seeds/repeat.json`", "{\"seeds\": 3}"]);
    }
    std::fs::write(&repeat, good).unwrap();
    lab.ok(&again);

    let plan = ["--decoders", "pwe", "--seeds", "1", "--budget", "1s", "--evaluations", "1"];
    lab.ok(&[&["compare", "tiny.toml", "--out", "both"][..], &plan, &CPU].concat());
    let again = [&["compare", "--out", "both"][..], &CPU].concat();
    let run = lab.path("both/pwe-s0");
    let text = |name: &str| String::from_utf8(bytes(&run.join(name))).unwrap();
    let (result, counts) = (text("result.json"), text("counts.json"));
    let iterations = result.lines().find(|line| line.contains("\"iterations\"")).unwrap();
    for (file, bad, say) in [
        (
            "result.json",
            result.replacen(iterations, "  \"iterations\": 9223372036854775808,", 1),
            "iterations = 9223372036854775808",
        ),
        ("result.json", result.replacen("\"step_ms\": ", "\"step_ms\": -", 1), "step_ms"),
        ("counts.json", counts.replacen("[[0,", "[[0,4", 1), "area"),
        ("counts.json", counts.replacen("[[0,", "[[200,", 1), "classes are not in order, or not below"),
    ] {
        std::fs::write(run.join(file), bad).unwrap();
        lab.refused(&again, &[&format!("`both/pwe-s0/{file}`"), say, "remove `result.json`"]);
        std::fs::remove_file(run.join("result.json")).unwrap();
        lab.ok(&again);
    }
    let step = lab.path("both/pwe.step.json");
    std::fs::remove_dir_all(&run).unwrap();
    for seconds in ["1e-300", "-1.0", "1e300"] {
        std::fs::write(&step, format!("{{\"decoder\": \"pwe\", \"seconds\": {seconds}, \"device\": \"cpu\"}}"))
            .unwrap();
        let failed = lab.run(&again);
        let talk = String::from_utf8_lossy(&failed.stderr);
        assert!(
            !failed.status.success() && talk.contains("pwe.step.json") && talk.contains("remove the file"),
            "{talk}"
        );
    }
    std::fs::remove_file(&step).unwrap();
    lab.ok(&again);
}
