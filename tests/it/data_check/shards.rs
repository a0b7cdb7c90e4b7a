//! A check shared out over processes: the report of one.

use super::Set;

/// Broken in ways that each ask for something else of the facts of a pair.
fn broken() -> Set {
    let set = Set::good();
    set.lab.write("train/masks/1.png", "no picture");
    set.lab.write("train/images/2.png", "");
    set.mask("train/masks/3.png", (30, 32), |x, _| (x % 4) as u8);
    set.mask("val/masks/0.png", super::SIZE, |x, y| if x == 3 && y == 5 { 77 } else { 0 });
    std::fs::copy(set.path("train/images/0.png"), set.path("val/images/1.png")).unwrap();
    set.colors("val/masks/2.png", |x, _| [x as u8, 0, 0]);
    set
}

#[test]
fn shards_report_what_one_process_does() {
    for set in [Set::good(), Set::rgb(), broken()] {
        for count in [1, 2, 3, 9] {
            let mut parts = Vec::new();
            for index in 1..=count {
                let (shard, out) = (format!("{index}/{count}"), format!("{index}-of-{count}.ndjson"));
                set.lab.ok(&["data", "check", "set.toml", "--shard", &shard, "--out", &out]);
                parts.push(out);
            }
            parts.reverse();
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            for form in [&["--json"][..], &[]] {
                let single = set.lab.run(&[&["data", "check", "set.toml"][..], form].concat());
                let merged = set.lab.run(&[&["data", "check", "set.toml"][..], form, &["--parts"], &parts].concat());
                assert_eq!(merged.status.code(), single.status.code());
                assert_eq!(String::from_utf8_lossy(&merged.stdout), String::from_utf8_lossy(&single.stdout));
            }
        }
    }
}

#[test]
fn shards_of_other_work_are_refused_with_what_to_do() {
    let set = Set::good();
    let lab = &set.lab;
    let part = |shard: &str, out: &str| {
        lab.ok(&["data", "check", "set.toml", "--shard", shard, "--out", out]);
    };
    part("1/2", "1.ndjson");
    part("2/2", "2.ndjson");
    part("2/3", "third.ndjson");
    let refused = |parts: &[&str], say: &[&str]| {
        lab.refused(&[&["data", "check", "set.toml", "--parts"][..], parts].concat(), say);
    };
    refused(&["1.ndjson"], &["shard 2/2 is missing", "--shard I/N --out FILE"]);
    refused(&["1.ndjson", "1.ndjson"], &["are both shard 1/2", "pass each shard once"]);
    refused(&["1.ndjson", "third.ndjson"], &["is shard 2/3, and others are of 2"]);
    refused(&["1.ndjson", "set.toml"], &["`set.toml` is not a shard of a check", "--shard I/N --out FILE"]);
    refused(&["1.ndjson", "absent"], &["`absent`"]);
    // Cut short, with a line too many, with a place outside of its mask, with a code that nobody knows.
    let text = std::fs::read_to_string(lab.path("2.ndjson")).unwrap();
    let damaged = |text: String| {
        lab.write("damaged.ndjson", text);
        refused(&["1.ndjson", "damaged.ndjson"], &["`damaged.ndjson` is not a whole shard", "--shard"]);
    };
    damaged(text.lines().take(2).collect::<Vec<_>>().join("\n"));
    damaged(format!("{text}{}\n", text.lines().last().unwrap()));
    damaged(text.replacen("\"first\":", "\"first\":99999", 1));
    damaged(text.replacen("\"size\":[40,32]", "\"size\":[0,0]", 2));
    damaged(text.replacen("{\"Ok\":", "{\"Err\":", 2));
    // The set has changed.
    set.picture("val/images/9.png", super::SIZE, 9);
    set.mask("val/masks/9.png", super::SIZE, |_, _| 1);
    refused(&["1.ndjson", "2.ndjson"], &["is of other files", "again for all shards"]);
    std::fs::remove_file(set.path("val/masks/9.png")).unwrap();
    std::fs::remove_file(set.path("val/images/9.png")).unwrap();
    set.toml("\"car\"", "\"bus\"");
    refused(&["1.ndjson", "2.ndjson"], &["another description"]);
    // In array jobs the file has the shard in its name.
    let auto = ["data", "check", "set.toml", "--shard", "auto", "--out"];
    let task = [("SLURM_ARRAY_TASK_ID", "1"), ("SLURM_ARRAY_TASK_MIN", "0"), ("SLURM_ARRAY_TASK_COUNT", "2")];
    let run = |out: &str| lab.command(&[&auto[..], &[out]].concat()).envs(task).output().unwrap();
    assert!(run("check-{shard}.ndjson").status.success() && lab.path("check-2-of-2.ndjson").exists());
    assert!(String::from_utf8_lossy(&run("check.ndjson").stderr).contains("`--out check-{shard}.ndjson`"));
    lab.misused(&["data", "check", "set.toml", "--shards", "2"], &["--shards is for --shard auto"]);
    // A folder is described first.
    lab.refused(
        &["data", "check", "train", "--shard", "1/2", "--out", "x.ndjson"],
        &["nothing describes `train` yet", "structtoken data init train"],
    );
}
