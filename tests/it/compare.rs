//! `structtoken compare`: the same table whether in one go, cut short, or shared out.

use serde_json::Value;

use crate::cli::{Lab, TINY};

const CPU: [&str; 4] = ["--device", "cpu", "--threads", "2"];
const PLAN: [&str; 8] = ["--decoders", "pwe,cse", "--seeds", "2", "--iterations", "2", "--evaluations", "1"];
const FILES: [&str; 4] = ["compare.md", "compare.json", "compare.html", "compare.png"];

fn begin<'a>(recipe: &'a str, out: &'a str) -> Vec<&'a str> {
    [&["compare", recipe, "--out", out][..], &PLAN, &CPU].concat()
}

fn read(lab: &Lab, out: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(lab.path(out).join("compare.json")).unwrap()).unwrap()
}

/// A comparison without its times and memory, which no two have alike.
fn scores(mut comparison: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for key in ["step_ms", "image_ms", "peak_mb", "training_s", "seconds"] {
                    map.remove(key);
                }
                map.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut comparison);
    comparison
}

#[test]
fn one_go_shards_and_resuming_agree() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();

    let table = lab.ok(&begin(recipe, "whole"));
    let whole = read(&lab, "whole");
    for file in FILES {
        assert!(lab.path("whole").join(file).exists(), "{file}");
    }
    for file in ["config.toml", "report.html", "model.safetensors", "result.json", "counts.json", "times.csv"] {
        assert!(lab.path("whole/cse-s1").join(file).exists(), "{file}");
    }
    assert!(lab.path("whole/pwe-s0/predictions.png").exists() && !lab.path("whole/pwe-s1/predictions.png").exists());
    assert!(
        table.starts_with("| decoder | mIoU |") && table.contains("| pwe |") && table.contains("| cse |"),
        "{table}"
    );
    let rows = whole["decoders"].as_array().unwrap();
    assert_eq!((rows.len(), whole["images"].as_u64(), whole["missing"].as_array().unwrap().len()), (2, Some(6), 0));
    for row in rows {
        assert_eq!(row["runs"].as_array().unwrap().len(), 2);
        assert!(row["miou_over_seeds"][0].as_f64() <= row["miou"].as_f64(), "{row}");
        for number in ["step_ms", "image_ms", "gmac", "boundary_iou"] {
            assert!(row[number].as_f64().unwrap() > 0.0, "{number}: {row}");
        }
    }
    assert!(rows[0]["to_best"].is_null() && rows[1]["to_best"]["p"].as_f64().unwrap() > 0.0);
    let page = std::fs::read_to_string(lab.path("whole/compare.html")).unwrap();
    assert!(page.contains("pwe-s1/report.html") && page.contains("disagreement") && !page.contains("NaN"));
    // The scores are those that training itself found at the end.
    let trained: Value = serde_json::from_slice(&std::fs::read(lab.path("whole/pwe-s0/scores.json")).unwrap()).unwrap();
    let pwe = rows.iter().find(|row| row["decoder"] == "pwe").unwrap();
    assert_eq!(pwe["runs"][0]["miou"], trained["miou"]);

    // Shared out over two folders, as machines without a common disk would.
    lab.ok(&[&begin(recipe, "a")[..], &["--shard", "1/2"]].concat());
    let second = lab
        .command(&begin(recipe, "b"))
        .envs([("SLURM_ARRAY_TASK_ID", "1"), ("SLURM_ARRAY_TASK_MIN", "0"), ("SLURM_ARRAY_TASK_COUNT", "2")])
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.success() && talk.contains("shard 2/2, from SLURM_ARRAY_TASK_ID"), "{talk}");
    assert_eq!(read(&lab, "b")["missing"].as_array().unwrap().len(), 2);
    assert!(std::fs::read_to_string(lab.path("b/compare.md")).unwrap().contains("Not finished: pwe-s0, pwe-s1."));
    let json = lab.ok(&["compare", "--collect", "a", "b", "--out", "both", "--json"]);
    let both = read(&lab, "both");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), both);
    assert_eq!(scores(both), scores(whole.clone()));

    // Again: nothing is trained, and the tables are the same.
    let again = lab.run(&["compare", "--out", "whole", "--device", "cpu"]);
    assert!(
        again.status.success() && String::from_utf8_lossy(&again.stderr).contains("4 of 4 runs are already finished")
    );
    assert_eq!(read(&lab, "whole"), whole);

    // A run that was trained but not evaluated, and one that lost everything.
    std::fs::remove_file(lab.path("whole/pwe-s0/result.json")).unwrap();
    std::fs::remove_dir_all(lab.path("whole/cse-s0")).unwrap();
    lab.ok(&["compare", "--out", "whole", "--device", "cpu", "--threads", "2"]);
    assert_eq!(scores(read(&lab, "whole")), scores(whole));

    let other = [&begin(recipe, "whole")[..], &["--set", "train.batch_size=2"]].concat();
    lab.refused(&other, &["another plan", "recipe.train.batch_size: 4 -> 2"]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_and_the_rest_follows() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let plan = ["--decoders", "pwe", "--seeds", "1", "--iterations", "400"];
    let arguments = [&["compare", recipe.to_str().unwrap(), "--out", "cut"][..], &plan, &CPU].concat();
    let quiet = std::process::Stdio::null;
    let mut child = lab.command(&arguments).stdout(quiet()).stderr(quiet()).spawn().unwrap();
    let started = std::time::Instant::now();
    while !lab.path("cut/pwe-s0/checkpoints/step-00000020").exists() {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "no checkpoint after a minute");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Only the process that was started by hand is told: it has to tell the one that trains.
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!lab.path("cut/pwe-s0/result.json").exists());
    assert_eq!(read(&lab, "cut")["missing"][0], "pwe-s0");
    lab.ok(&["compare", "--out", "cut", "--device", "cpu", "--threads", "2"]);
    assert_eq!(read(&lab, "cut")["decoders"][0]["runs"][0]["iterations"], 400);
}

#[test]
fn a_budget_becomes_iterations() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let plan = ["--decoders", "pwe", "--seeds", "2", "--budget", "1s", "--evaluations", "2"];
    lab.ok(&[&["compare", recipe.to_str().unwrap(), "--out", "timed"][..], &plan, &CPU].concat());
    let runs = &read(&lab, "timed")["decoders"][0]["runs"];
    let iterations = runs[0]["iterations"].as_u64().unwrap();
    assert!(iterations > 5, "{runs}");
    assert_eq!(runs[1]["iterations"].as_u64(), Some(iterations), "seeds share the measurement");
    let recipe = std::fs::read_to_string(lab.path("timed/pwe-s1/config.toml")).unwrap();
    assert!(recipe.contains(&format!("iterations = {iterations}\n")), "{recipe}");
    let left: Vec<_> = std::fs::read_dir(lab.path("timed")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("probe")), "{left:?}");
}

#[test]
fn faulty_calls_are_answered() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    lab.misused(&["compare"], &["nothing to compare"]);
    lab.refused(&["compare", "--out", "nowhere"], &["`nowhere` holds no comparison"]);
    lab.refused(&["compare", "--collect", "nowhere"], &["`nowhere` holds no comparison"]);
    lab.refused(&["compare", recipe, "--decoders", "pwee"], &["there is no decoder `pwee`", "did you mean `pwe`?"]);
    lab.refused(&["compare", recipe, "--budget", "20"], &["`20` is not a duration"]);
    // Data that are not there are told once, before anything is written.
    let gone = lab.write("gone.toml", TINY.replace("dataset = \"shapes\"", "dataset = \"camvid\""));
    lab.refused(&["compare", gone.to_str().unwrap(), "--out", "gone"], &["data.root=DIR"]);
    assert!(!lab.path("gone").exists());
    lab.misused(&["compare", recipe, "--shards", "3"], &["nothing gives the index of this one"]);
    let lost =
        lab.command(&["compare", recipe, "--decoders", "pwe"]).env("JOB_COMPLETION_INDEX", "1").output().unwrap();
    let talk = String::from_utf8_lossy(&lost.stderr);
    assert!(lost.status.code() == Some(1) && talk.contains("but not how many there are"), "{talk}");
}
