//! Work that is only many: lists of images, shards by the environment, and the job files of the documentation.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::{Lab, TINY};

pub(crate) const CPU: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// A model that has learned next to nothing.
pub(crate) fn model(lab: &Lab) {
    lab.write("tiny.toml", TINY);
    let quick = ["--set", "train.iterations=1", "--set", "train.tensorboard=false"];
    lab.ok(&[&["train", "tiny.toml", "--out", "run"][..], &quick, &CPU].concat());
}

/// `count` pictures in two folders, and a list of them.
pub(crate) fn pictures(lab: &Lab, count: usize) -> Vec<String> {
    let name = |i: usize| format!("photos/{}/{i}.png", ["a", "b"][i % 2]);
    for i in 0..count {
        let image = image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([(i * 31) as u8, x as u8 * 9, y as u8 * 9]));
        std::fs::create_dir_all(lab.path(&name(i)).parent().unwrap()).unwrap();
        image.save(lab.path(&name(i))).unwrap();
    }
    let names: Vec<String> = (0..count).map(name).collect();
    lab.write("list.txt", names.join("\n"));
    names
}

pub(crate) fn manifest(lab: &Lab, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(lab.path(name)).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn images(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["image"].as_str().unwrap()).collect()
}

pub(crate) const PREDICT: [&str; 4] = ["predict", "run/model.safetensors", "--list", "list.txt"];

#[test]
fn a_list_is_labelled_as_its_images_are_and_continued_where_it_ended() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 7);
    let whole = [&PREDICT[..], &["--out", "whole"], &CPU].concat();
    lab.ok(&whole);
    let lines = manifest(&lab, "whole/manifest-1-of-1.ndjson");
    assert_eq!(images(&lines), names);
    lab.ok(&[&["predict", "run/model.safetensors", "photos", "--out", "single"][..], &CPU].concat());
    for (name, line) in names.iter().zip(&lines) {
        let mask = format!("whole/{name}.png");
        let bytes = std::fs::read(lab.path(&mask)).unwrap();
        let single = name.strip_prefix("photos/").unwrap();
        assert!(bytes == std::fs::read(lab.path("single").join(single)).unwrap(), "{name}");
        assert_eq!(line["files"][&mask], format!("{:08x}", crc32fast::hash(&bytes)));
    }
    // Nothing is done twice, and the manifest keeps its bytes.
    let before = std::fs::read(lab.path("whole/manifest-1-of-1.ndjson")).unwrap();
    let again = lab.run(&whole);
    let talk = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && talk.contains("7 entries are already done") && again.stdout.is_empty(), "{talk}");
    // A process that was killed while it wrote: a line without its end, and outputs that nobody knows of.
    let text = String::from_utf8(before.clone()).unwrap();
    let cut: usize = text.split_inclusive('\n').take(4).map(str::len).sum();
    std::fs::write(lab.path("whole/manifest-1-of-1.ndjson"), &text[..cut + 20]).unwrap();
    assert_eq!(lab.ok(&whole).lines().count(), 4, "images 3 to 6 are labelled");
    assert!(std::fs::read(lab.path("whole/manifest-1-of-1.ndjson")).unwrap() == before);
    // From stdin the same.
    let mut child = lab
        .command(&[&["predict", "run/model.safetensors", "--list", "-", "--out", "piped"][..], &CPU].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all((names.join("\r\n") + "\n\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(images(&manifest(&lab, "piped/manifest-1-of-1.ndjson")), names);
}

#[test]
fn what_fails_is_noted_and_tried_again_when_asked() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 5);
    let [second, last] = [&names[1], &names[4]];
    std::fs::write(lab.path(second), "no picture").unwrap();
    std::fs::remove_file(lab.path(last)).unwrap();
    let whole = [&PREDICT[..], &["--out", "out"], &CPU].concat();
    let said = lab.partly(&whole, &["2 of 5 images could not be predicted", "--only-failed", second, last]);
    assert!(said.contains("line 2 of `list.txt`: cannot read") && said.contains("line 5 of `list.txt`"), "{said}");
    let failed = |lines: &[Value]| -> Vec<String> {
        let with_error = lines.iter().filter(|line| line.get("error").is_some());
        with_error.map(|line| line["image"].as_str().unwrap().to_owned()).collect()
    };
    let path = "out/manifest-1-of-1.ndjson";
    assert_eq!(failed(&manifest(&lab, path)), [second.as_str(), last]);
    // Without being asked they are left alone.
    assert!(lab.partly(&whole, &["2 of 5"]).contains("5 entries are already done, of which 2 failed"));
    std::fs::copy(lab.path(&names[0]), lab.path(second)).unwrap();
    let again = [&whole[..], &["--only-failed"]].concat();
    lab.partly(&again, &["1 of 5 images could not be predicted"]);
    assert_eq!(failed(&manifest(&lab, path)), [last.as_str()]);
    std::fs::copy(lab.path(&names[0]), lab.path(last)).unwrap();
    assert_eq!(lab.ok(&again).lines().count(), 1);
    let lines = manifest(&lab, path);
    assert_eq!((images(&lines), failed(&lines).len()), (names.iter().map(String::as_str).collect(), 0));
    // What is another work is refused, with what to do.
    lab.refused(&[&whole[..], &["--set", "eval.flip=true"]].concat(), &["was made with other settings", "--out"]);
    lab.refused(&[&whole[..], &["--format", "npy"]].concat(), &["other outputs"]);
    lab.write("list.txt", format!("{}\nelsewhere.png\n", names[0]));
    lab.refused(&whole, &["entry 2 of", "has `elsewhere.png` now, in line 2"]);
    lab.refused(
        &[&PREDICT[..], &["--out", "fresh", "--only-failed"], &CPU].concat(),
        &["there is no", "leave out --only-failed"],
    );
    lab.misused(&[&whole[..], &["--format", "coco"]].concat(), &["one COCO file cannot be written"]);
    // A file of somebody else is left as it is; one that was cut off at its start is started again.
    lab.write("notes/manifest-1-of-1.ndjson", "my notes");
    lab.refused(&[&PREDICT[..], &["--out", "notes"], &CPU].concat(), &["it is not a manifest", "--out"]);
    assert_eq!(std::fs::read(lab.path("notes/manifest-1-of-1.ndjson")).unwrap(), b"my notes");
    lab.write("list.txt", &names[0]);
    lab.write("cut/manifest-1-of-1.ndjson", "{\"model\":\"12");
    lab.ok(&[&PREDICT[..], &["--out", "cut"], &CPU].concat());
    assert_eq!(manifest(&lab, "cut/manifest-1-of-1.ndjson").len(), 1);
    lab.write("list.txt", "x".repeat(1 << 17));
    lab.refused(
        &[&PREDICT[..], &["--out", "long"], &CPU].concat(),
        &["line 1 of `list.txt` has more than 65536 bytes"],
    );
}

#[test]
fn shards_of_the_environment_share_the_images() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 5);
    let mut seen = BTreeSet::new();
    for (index, variables) in [("1", "JOB_COMPLETION_INDEX=0"), ("2", "HQ_TASK_ID=1"), ("3", "OMPI_COMM_WORLD_RANK=2")]
    {
        let (name, value) = variables.split_once('=').unwrap();
        let arguments = [&PREDICT[..], &["--out", "out", "--shard", "auto", "--shards", "3"], &CPU].concat();
        let output = lab.command(&arguments).env(name, value).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && talk.contains(&format!("shard {index}/3, from {name}")), "{talk}");
        let lines = manifest(&lab, &format!("out/manifest-{index}-of-3.ndjson"));
        seen.extend(images(&lines).into_iter().map(str::to_owned));
        // Folders are shared in the same way.
        let folder =
            ["predict", "run/model.safetensors", "photos", "--out", "folder", "--shard", &format!("{index}/3")];
        lab.ok(&[&folder[..], &CPU].concat());
    }
    assert_eq!(seen, names.iter().cloned().collect());
    let all = ["a", "b"].map(|part| std::fs::read_dir(lab.path("folder").join(part)).unwrap().count());
    assert_eq!(all.iter().sum::<usize>(), 5);
    let auto = [&PREDICT[..], &["--out", "out", "--shard", "auto"], &CPU].concat();
    lab.misused(&auto, &["not a task of an array job", "SLURM_ARRAY_TASK_ID", "--shard 1/4"]);
    lab.misused(&[&PREDICT[..], &["--shards", "3"], &CPU].concat(), &["--shards is for --shard auto"]);
    lab.misused(
        &[&PREDICT[..], &["--shard", "1/3", "--shards", "3"], &CPU].concat(),
        &["so does --shards", "leave out --shards"],
    );

    let eval = ["eval", "run/model.safetensors", "--labels-only", "--shard", "auto", "--out"];
    for index in ["0", "1"] {
        let task = [("SLURM_ARRAY_TASK_ID", index), ("SLURM_ARRAY_TASK_MIN", "0"), ("SLURM_ARRAY_TASK_COUNT", "2")];
        let output = lab.command(&[&eval[..], &["eval-{shard}.json"], &CPU].concat()).envs(task).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let same = lab.command(&[&eval[..], &["eval.json"], &CPU].concat()).envs(task).output().unwrap();
        assert!(String::from_utf8_lossy(&same.stderr).contains("`--out eval-{shard}.json`"));
    }
    let alone = ["eval", "run/model.safetensors", "--out", "eval-{shard}.json"];
    lab.misused(&[&alone[..], &CPU].concat(), &["there is no --shard", "add `--shard auto` or `--shard 1/4`"]);
    let count = ["eval", "run/model.safetensors", "--shards", "2"];
    lab.misused(&[&count[..], &CPU].concat(), &["--shards is for --shard auto", "leave out --shards"]);
    let merged = lab.ok(&["eval", "merge", "eval-1-of-2.json", "eval-2-of-2.json", "--json"]);
    let single = lab.ok(&[&["eval", "run/model.safetensors", "--labels-only", "--json"][..], &CPU].concat());
    assert_eq!(merged, single);
}

#[test]
fn several_processes_of_one_run_are_refused_without_mpi() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let output =
        lab.command(&["train", "tiny.toml", "--out", "run"]).env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && talk.contains("2 processes were started for one run, without --mpi"), "{talk}");
    assert!(!lab.path("run").exists());
    lab.ok(&["train", "tiny.toml", "--out", "run", "--set", "train.iterations=1", "--device", "cpu"]);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The words of a command of this program in a line of a shell; what starts it is left out.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.split(" # ").next().unwrap();
    let after = line.split_once("structtoken ")?.1;
    let values = [
        ("\"$SLURM_CPUS_PER_TASK\"", "8"),
        ("\"$SLURM_SUBMIT_DIR/compare\"", "compare"),
        ("\"$SHARDS\"", "64"),
        (" $ONLY_FAILED", ""),
    ];
    let text = values.iter().fold(after.to_owned(), |text, (from, to)| text.replace(from, to));
    Some(text.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect())
}

/// Fails where this program would not take the words. MPI is a feature.
fn takes(lab: &Lab, source: &str, words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--mpi").collect();
    let output =
        lab.command(&words).env("SLURM_ARRAY_TASK_ID", "0").env("SLURM_ARRAY_TASK_COUNT", "1").output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    // Nothing that they name is there; but they are understood.
    assert!(output.status.code() == Some(1) && !talk.contains("Usage:"), "{source}: {words:?}: {talk}");
}

#[test]
fn the_job_files_parse_and_their_commands_are_ours() {
    let lab = Lab::new();
    let (mut scripts, mut commands) = (0, 0);
    let folder = root().join("deploy/scale");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(root().join("docs/scale.md"));
    files.sort();
    for file in files {
        let (text, source) = (std::fs::read_to_string(&file).unwrap(), file.display().to_string());
        let joined = text.replace("\\\n", " ");
        if source.ends_with(".yaml") {
            let value: Value = serde_saphyr::from_str(&text).unwrap();
            let found = arguments(&value);
            assert!(!found.is_empty(), "{source}");
            found.iter().for_each(|words| takes(&lab, &source, words));
            commands += found.len();
            continue;
        }
        if source.ends_with(".sh") {
            scripts += 1;
            assert!(Command::new("bash").arg("-n").arg(&file).status().unwrap().success(), "{source}");
            assert!(text.starts_with("#!/bin/bash\n"), "{source}");
            for line in text.lines().filter(|line| line.starts_with("#SBATCH")) {
                assert!(line.starts_with("#SBATCH --") && (line.contains('=') || line.ends_with("requeue")), "{line}");
            }
        }
        let is_code = |line: &&str| !line.starts_with('#') && !line.starts_with("cargo ") && !line.contains('`');
        for words in joined.lines().filter(is_code).filter_map(words) {
            takes(&lab, &source, &words);
            commands += 1;
        }
    }
    assert!(scripts == 3 && commands >= 15, "{scripts} scripts, {commands} commands");
}

/// The commands of all containers of a manifest.
fn arguments(value: &Value) -> Vec<Vec<String>> {
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|word| word.as_str().expect("a string").to_owned()).collect()
    };
    match value {
        Value::Object(map) => {
            let own = map.get("args").map(strings).or_else(|| {
                let words = strings(map.get("command")?);
                let at = words.iter().position(|word| word == "structtoken")?;
                Some(words[at + 1..].to_vec())
            });
            own.into_iter().chain(map.values().flat_map(arguments)).collect()
        }
        Value::Array(list) => list.iter().flat_map(arguments).collect(),
        _ => Vec::new(),
    }
}
