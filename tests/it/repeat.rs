//! `structtoken train --seeds` and `--folds`.

use serde_json::Value;

use crate::cli::{Lab, TINY};

const SHORT: [&str; 6] = ["--set", "train.iterations=2", "--device", "cpu", "--threads", "1"];

fn json(lab: &Lab, path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(lab.path(path)).unwrap()).unwrap()
}

#[test]
fn seeds_are_ordinary_runs_and_go_on_where_they_stopped() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let several = [&["train", "tiny.toml", "--out", "several", "--seeds", "2"][..], &SHORT].concat();
    let table = lab.ok(&several);
    assert!(table.starts_with("| run | mIoU |") && table.contains("| seed-1 |"), "{table}");
    assert_eq!(table.trim_end(), std::fs::read_to_string(lab.path("several/summary.md")).unwrap().trim_end());

    let alone = ["train", "tiny.toml", "--out", "alone", "--set", "train.seed=1"];
    lab.ok(&[&alone[..], &SHORT].concat());
    let model = |run: &str| std::fs::read(lab.path(run).join("model.safetensors")).unwrap();
    assert!(model("several/seed-1") == model("alone") && model("several/seed-0") != model("alone"));
    let miou = |run: &str| json(&lab, &format!("{run}/scores.json"))["miou"].as_f64().unwrap();
    let [a, b] = ["several/seed-0", "several/seed-1"].map(miou);
    let summary = json(&lab, "several/summary.json");
    assert!((summary["miou"]["mean"].as_f64().unwrap() - (a + b) / 2.0).abs() < 1e-12);
    assert!((summary["miou"]["sd"].as_f64().unwrap() - (a - b).abs() / 2f64.sqrt()).abs() < 1e-12);
    assert!(summary.get("pooled").is_none());

    lab.refused(&several, &["already holds several runs"]);
    lab.refused(
        &[&several[..], &["--resume"]]
            .concat()
            .join(" ")
            .replace("--seeds 2", "--folds 2")
            .split(' ')
            .collect::<Vec<_>>(),
        &["holds runs of several seeds, and folds were asked for"],
    );
    // As if the second run had been killed at its end.
    std::fs::remove_file(lab.path("several/seed-1/report.html")).unwrap();
    let output = lab.run(&["train", "--resume", "--out", "several", "--device", "cpu", "--json"]);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && talk.contains("1 of 2 runs are already finished"), "{talk}");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), summary);
}

#[test]
fn folds_judge_every_training_image_once() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    for (folder, channels) in [("images", 3), ("masks", 1)] {
        std::fs::create_dir_all(lab.path(folder)).unwrap();
        for i in 0..7u8 {
            let path = lab.path(folder).join(format!("{i}.png"));
            match channels {
                3 => image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([i * 30, x as u8 * 8, y as u8 * 8])).save(path),
                _ => image::GrayImage::from_fn(32, 32, |x, _| image::Luma([u8::from(x > u32::from(i) * 3)])).save(path),
            }
            .unwrap();
        }
    }
    // No split to validate on: none is needed.
    lab.write("set.toml", "name = 's'\nclasses = ['a', 'b']\n[train]\nimages = 'images'\nmasks = 'masks'\n");
    let folds = ["train", "tiny.toml", "--out", "folds", "--folds", "3", "--set", "data.dataset=set.toml"];
    let table = lab.ok(&[&folds[..], &SHORT].concat());
    assert!(table.contains("| fold-2 |") && table.contains("| all images at once |"), "{table}");
    let summary = json(&lab, "folds/summary.json");
    assert_eq!(summary["pooled"]["pixels"].as_u64(), Some(7 * 32 * 32));
    let each: u64 =
        (0..3).map(|i| json(&lab, &format!("folds/fold-{i}/scores.json"))["pixels"].as_u64().unwrap()).sum();
    assert_eq!(each, 7 * 32 * 32);
    // A fold's model is judged on what it has not learned; or on the dataset's own split.
    let model = "folds/fold-1/model.safetensors";
    let scores: Value = serde_json::from_str(&lab.ok(&["eval", model, "--json", "--device", "cpu"])).unwrap();
    assert_eq!(scores["matrix"], json(&lab, "folds/fold-1/scores.json")["matrix"]);
    lab.refused(&["eval", model, "--set", "data.fold.of=1", "--device", "cpu"], &["describes no split [val]"]);

    lab.refused(
        &["train", "tiny.toml", "--out", "few", "--folds", "8", "--set", "data.dataset=set.toml"],
        &["7 training images"],
    );
    lab.refused(&["train", "tiny.toml", "--out", "none", "--folds", "3"], &["no folds"]);
    lab.refused(&["train", "tiny.toml", "--out", "one", "--seeds", "1"], &["between 2 and 100"]);
}
