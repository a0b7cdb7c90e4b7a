//! Lists of images: what they hold, what failed and is tried again, what one folder may hold, and what is still there.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::Lab;
use crate::many_pieces::{CPU, PREDICT, images, manifest, model, pictures};

const MANIFEST: &str = "out/manifest-1-of-1.ndjson";

fn labelling<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&PREDICT[..], &["--out", "out"], &CPU, more].concat()
}

fn failed(lines: &[Value]) -> Vec<&str> {
    let with_error = lines.iter().filter(|line| line.get("error").is_some());
    with_error.map(|line| line["image"].as_str().unwrap()).collect()
}

#[test]
fn a_list_that_is_none_is_refused_with_its_line() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 2);
    for (bytes, say) in [
        (&b"photos/a/0.png\nphotos\0\n"[..], "line 2 of `list.txt` holds a zero byte"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 3 of `list.txt` holds a zero byte"),
        (b"\xff\xfep\0h\0", "line 1 of `list.txt` is UTF-16 text"),
        (b"", "`list.txt` has no entries"),
        (b"\n \r\n", "`list.txt` has no entries"),
    ] {
        lab.write("list.txt", bytes);
        lab.refused(&labelling(&[]), &[say]);
        assert!(!lab.path(MANIFEST).exists() || manifest(&lab, MANIFEST).is_empty(), "{say}");
        std::fs::remove_dir_all(lab.path("out")).unwrap();
    }
    lab.refused(
        &["predict", "run/model.safetensors", "--list", "s3://bucket/list.txt"],
        &["the list `s3://bucket/list.txt` is not a file", "pass it to --list - by a pipe"],
    );
    lab.write("list.txt", &*names[0]);
    let output = lab.run(&labelling(&["--shard", "2/2"]));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("`list.txt` has 1 entries, and none of them is of shard 2/2")
    );
    std::fs::remove_dir_all(lab.path("out")).unwrap();
    // A mark before the text is none of it; a name that is not text, an unknown scheme and a secret are of one line.
    let lines: [&[u8]; 6] = [
        format!("\u{feff}{}", names[0]).leak().as_bytes(),
        b"photos/caf\xe9.png",
        b"S3://bucket/a.png",
        b"https://host/a.png?signature=secret",
        b"photos/\x1b[2J.png",
        names[1].clone().leak().as_bytes(),
    ];
    lab.write("list.txt", lines.join(&b'\n'));
    let say = [
        "4 of 6 images could not be predicted",
        "line 2 of `list.txt`: `photos/caf\u{fffd}.png` is not UTF-8 text",
        "line 3 of `list.txt`: `S3://bucket/a.png` is not a URL of a known scheme",
        "line 4 of `list.txt`: a URL of a web server has",
        "line 5 of `list.txt`: cannot open `photos/\\u{1b}[2J.png`",
    ];
    let talk = lab.partly(&labelling(&[]), &say);
    assert!(!talk.contains('\x1b') && !talk.contains("secret"), "{talk}");
    let parts = talk.lines().find_map(|line| line.strip_prefix("one after the other: ")).unwrap();
    assert!(
        ["images/s", "ms to read", "ms to label", "ms to write"].iter().all(|word| parts.contains(word)),
        "{parts}"
    );
    let rows = manifest(&lab, MANIFEST);
    assert_eq!(
        (rows[0]["image"].as_str(), rows[3]["image"].as_str()),
        (Some(&*names[0]), Some("https://host/a.png?…"))
    );
    assert!(!std::fs::read_to_string(lab.path(MANIFEST)).unwrap().contains("secret"));
    // Continued, the list is still the same.
    assert!(lab.partly(&labelling(&[]), &["4 of 6"]).contains("6 entries are already done, of which 4 failed"));
    for out in ["S3://bucket/a", "gcs://bucket/a", "ftp://host/a", "file:///a"] {
        lab.refused(&[&PREDICT[..], &["--out", out], &CPU].concat(), &["is not a URL of a known scheme", "az://"]);
    }
    assert!(!lab.path("S3:").exists());
}

#[test]
fn paths_that_look_alike_have_outputs_of_their_own() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 2);
    std::fs::create_dir_all(lab.path("file/photos")).unwrap();
    std::fs::copy(lab.path(&names[0]), lab.path("file/x.png")).unwrap();
    std::fs::copy(lab.path(&names[1]), lab.path("photos/q")).unwrap();
    std::fs::copy(lab.path(&names[0]), lab.path("photos/q_overlay")).unwrap();
    let absolute = lab.dir.path().canonicalize().unwrap().join(&names[0]);
    let absolute = absolute.to_str().unwrap();
    let entries = [&*names[0], absolute, "file/x.png", "photos/q", "photos/q_overlay", &format!("./{}", names[0])];
    lab.write("list.txt", entries.join("\n"));
    lab.ok(&labelling(&["--overlay"]));
    let rows = manifest(&lab, MANIFEST);
    let mut places: Vec<&String> = rows[..5].iter().flat_map(|row| row["files"].as_object().unwrap().keys()).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), 10, "{places:?}");
    assert!(
        lab.path(&format!("out/{}.png", names[0])).exists() && lab.path(&format!("out/file{absolute}.png")).exists()
    );
    assert_eq!(rows[5]["files"], rows[0]["files"], "one path, written in two ways");
    lab.ok(&labelling(&["--overlay", "--verify"]));
}

#[test]
fn failures_are_tried_again_with_the_list_they_are_of() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 5);
    let good = std::fs::read(lab.path(&names[1])).unwrap();
    lab.write(&names[1], "no picture");
    lab.write(&names[2], "no picture");
    lab.write("list.txt", names[..4].join("\n"));
    lab.partly(&labelling(&[]), &["2 of 4 images"]);
    // An entry that nobody has tried is no success.
    lab.write("list.txt", names.join("\n"));
    lab.write(&names[1], &good);
    lab.write(&names[2], &good);
    lab.refused(
        &labelling(&["--only-failed"]),
        &["1 entries of the list were never tried", "repeat the command without --only-failed"],
    );
    assert_eq!(failed(&manifest(&lab, MANIFEST)).len(), 0);
    lab.ok(&labelling(&[]));
    assert_eq!(images(&manifest(&lab, MANIFEST)), names);
    lab.write("list.txt", [&*names[0], "elsewhere.png"].join("\n"));
    lab.refused(&labelling(&["--only-failed"]), &["entry 2 of", "has `elsewhere.png` now"]);
    let single = ["predict", "run/model.safetensors", &names[0], "--only-failed"];
    lab.misused(
        &[&single[..], &CPU].concat(),
        &["--only-failed goes with a list", "repeat the command with the --list"],
    );
    // What a process that was killed had tried again is kept: half a line of it is not.
    lab.write("list.txt", names.join("\n"));
    let text = std::fs::read_to_string(lab.path(MANIFEST)).unwrap();
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    let whole = rows[3].clone();
    for at in [2, 3, 5] {
        let image: Value = serde_json::from_str(&rows[at]).unwrap();
        rows[at] = serde_json::json!({"image": image["image"], "error": "no"}).to_string();
    }
    lab.write(MANIFEST, rows.join("\n") + "\n");
    lab.write(&format!("{MANIFEST}.retried"), format!("{{\"entry\":3,\"line\":{whole}}}\n{{\"entry\":5,\"li"));
    lab.partly(&labelling(&[]), &["2 of 5 images"]);
    assert_eq!(failed(&manifest(&lab, MANIFEST)), [&*names[1], &*names[4]]);
    assert!(!lab.path(&format!("{MANIFEST}.retried")).exists());
    assert_eq!(lab.ok(&labelling(&["--only-failed"])).lines().count(), 2);
    assert_eq!(std::fs::read_to_string(lab.path(MANIFEST)).unwrap(), text);
}

#[test]
fn a_folder_holds_what_one_model_labelled_with_one_set_of_options() {
    let lab = Lab::new();
    model(&lab);
    pictures(&lab, 4);
    let of = |shard: &'static str, more: &[&'static str]| {
        labelling(&[&["--shard", shard, "--format", "geojson"], more].concat())
    };
    lab.ok(&of("1/2", &[]));
    let refused = |command: Vec<&str>, what: &str| {
        lab.refused(&command, &["manifest-1-of-2.ndjson`, which lies in the same place, was made with", what, "--out"]);
        assert!(!lab.path("out/manifest-2-of-2.ndjson").exists());
    };
    refused(of("2/2", &["--tolerance", "2"]), "other settings");
    refused(of("2/2", &["--min-area", "5"]), "other settings");
    refused(of("2/2", &["--set", "eval.flip=true"]), "other settings");
    refused(of("2/2", &["--format", "png"]), "other outputs");
    lab.write("other.safetensors", std::fs::read(lab.path("run/model.safetensors")).unwrap());
    lab.ok(&["train", "tiny.toml", "--out", "second", "--set", "train.iterations=2", "--device", "cpu"]);
    let second: Vec<&str> = of("2/2", &[])
        .into_iter()
        .map(|word| word.strip_prefix("run/model").map_or(word, |_| "second/model.safetensors"))
        .collect();
    refused(second, "another model");
    // The same bytes under another name are the same model.
    let copy: Vec<&str> = of("2/2", &[])
        .into_iter()
        .map(|word| word.strip_prefix("run/model").map_or(word, |_| "other.safetensors"))
        .collect();
    lab.ok(&copy);
    lab.misused(
        &[&PREDICT[..], &["--out", "out-{shard}", "--shard", "2/2"], &CPU].concat(),
        &["would be a folder for each shard", "each shard has a manifest"],
    );
    // Another division is another matter.
    let output = lab.run(&of("1/4", &[]));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && talk.contains("a division into 2 shards, and this is one of 4"), "{talk}");
}

#[test]
fn what_is_missing_or_changed_is_found_and_labelled_again() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 6);
    let of = |shard: &'static str, more: &[&'static str]| labelling(&[&["--shard", shard], more].concat());
    lab.refused(&labelling(&["--verify"]), &["cannot read `out`"]);
    lab.ok(&of("1/2", &[]));
    let verify = labelling(&["--verify"]);
    // The other shard was never started.
    let talk = lab.partly(&verify, &["6 entries: 3 whole, 0 failed, 0 missing or changed, 3 never tried"]);
    assert!(talk.contains("shard 2/2: 3 entries were never tried"), "{talk}");
    lab.ok(&of("1/2", &["--verify"]));
    lab.ok(&of("2/2", &[]));
    assert!(lab.ok(&verify).is_empty());
    let place = |i: usize| format!("out/{}.png", names[i]);
    let good = std::fs::read(lab.path(&place(3))).unwrap();
    std::fs::remove_file(lab.path(&place(1))).unwrap();
    lab.write(&place(3), "changed");
    let output = lab.run(&verify);
    let data = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3));
    assert!(data.lines().count() == 2 && data.contains(&format!("{}\t", names[1])), "{data}");
    assert!(data.contains("has been changed"), "{data}");
    // What somebody has changed stays.
    lab.partly(&of("2/2", &["--only-failed", "--verify"]), &["1 of 3 images could not be predicted", "--overwrite"]);
    assert!(lab.path(&place(1)).exists() && std::fs::read(lab.path(&place(3))).unwrap() == b"changed");
    assert_eq!(lab.ok(&of("2/2", &["--only-failed", "--overwrite"])).lines().count(), 1);
    assert_eq!(std::fs::read(lab.path(&place(3))).unwrap(), good);
    assert!(lab.ok(&verify).is_empty());
    lab.write("list.txt", names[..4].join("\n"));
    lab.refused(&verify, &["has more lines than the list", "pass the list that was labelled"]);
    lab.write("list.txt", names.iter().rev().map(String::as_str).collect::<Vec<_>>().join("\n"));
    lab.refused(&verify, &["is of another list"]);
    lab.ok(&of("1/3", &[]));
    lab.refused(&verify, &["holds manifests of 2 and of 3 shards", "--shards N"]);
    std::fs::create_dir(lab.path("empty")).unwrap();
    lab.refused(
        &[&PREDICT[..], &["--out", "empty", "--verify"]].concat(),
        &["there is no manifest in `empty`", "pass the folder that a list was labelled into"],
    );
}

#[test]
fn tasks_of_an_array_are_started_again_by_their_numbers() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 6);
    let task = |id: &str, bounds: [&str; 3], more: &[&'static str]| {
        let mut command = lab.command(&labelling(&[&["--shard", "auto"], more].concat()));
        let [first, last, count] = bounds;
        command.env("SLURM_ARRAY_TASK_ID", id).env("SLURM_ARRAY_TASK_MIN", first).env("SLURM_ARRAY_TASK_MAX", last);
        let output = command.env("SLURM_ARRAY_TASK_COUNT", count).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, talk) = task("2", ["1", "2", "2"], &[]);
    assert!(code == Some(1) && talk.contains("SLURM_ARRAY_TASK_MIN is 1") && talk.contains("--shards 64"), "{talk}");
    assert!(!lab.path("out").exists());
    let (code, talk) = task("2", ["1", "2", "2"], &["--shards", "3"]);
    assert!(code == Some(0) && talk.contains("shard 3/3, from SLURM_ARRAY_TASK_ID"), "{talk}");
    assert!(talk.contains("this array has 2 tasks (SLURM_ARRAY_TASK_COUNT), which do 2 of the 3 shards"), "{talk}");
    assert_eq!(images(&manifest(&lab, "out/manifest-3-of-3.ndjson")), [&*names[2], &*names[5]]);
    let (code, talk) = task("1", ["1", "3", "3"], &["--shards", "3"]);
    assert!(
        code == Some(1) && talk.contains("SLURM_ARRAY_TASK_MAX is 3") && talk.contains("start the tasks 0-2"),
        "{talk}"
    );
    let mut command = lab.command(&labelling(&["--shard", "auto", "--shards", "3"]));
    let output = command.env("AWS_BATCH_JOB_ARRAY_INDEX", "0").env("AWS_BATCH_JOB_ARRAY_SIZE", "2").output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains("AWS_BATCH_JOB_ARRAY_SIZE is 2, and --shards is 3") && talk.contains("leave out --shards"));
}

#[test]
fn a_model_that_comes_with_the_program_labels_lists() {
    let lab = Lab::new();
    let names = pictures(&lab, 1);
    lab.ok(&[&["predict", "@nuclei", "--list", "list.txt", "--out", "out"][..], &CPU].concat());
    assert_eq!(images(&manifest(&lab, MANIFEST)), names);
}

/// Ends a process as schedulers do, and answers with what it said.
#[cfg(unix)]
pub(crate) fn terminated(child: std::process::Child) -> Output {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
#[test]
fn a_process_that_is_to_end_stops_between_two_images() {
    let lab = Lab::new();
    model(&lab);
    let names = pictures(&lab, 3);
    let mut command =
        lab.command(&[&["predict", "run/model.safetensors", "--list", "-", "--out", "out"][..], &CPU].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all((names.join("\n") + "\n").as_bytes()).unwrap();
    let started = Instant::now();
    let lines = || std::fs::read_to_string(lab.path(MANIFEST)).map_or(0, |text| text.lines().count());
    while lines() < 4 && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // More lines may still come by the pipe, which stays open.
    let output = terminated(child);
    drop(pipe);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(130) && talk.contains("stopped: the same command continues"), "{talk}");
    lab.ok(&labelling(&[]));
    assert_eq!(images(&manifest(&lab, MANIFEST)), names);
    // Nothing is left beside what was asked for.
    let left = std::fs::read_dir(lab.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
}

#[cfg(not(feature = "mpi"))]
#[test]
fn mpi_without_mpi_says_how_to_get_it() {
    Lab::new().refused(&["train", "shapes", "--mpi"], &["this build brings no MPI", "--features full,mpi"]);
}
