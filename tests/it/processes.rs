//! Several processes: parents that are told to stop or killed, and two that work in one folder.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{Lab, TINY};

/// Far more than is needed, so that a busy machine fails nothing.
const LONG: Duration = Duration::from_secs(120);

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let started = Instant::now();
    while !there() {
        assert!(started.elapsed() < LONG, "{what}: not after {LONG:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn quietly(lab: &Lab, arguments: &[&str]) -> Child {
    lab.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A folder of seven pictures, for folds.
fn pictures(lab: &Lab) {
    for folder in ["images", "masks"] {
        std::fs::create_dir_all(lab.path(folder)).unwrap();
    }
    for i in 0..7u8 {
        let name = format!("{i}.png");
        let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([i * 30, x as u8 * 8, y as u8 * 8]));
        image.save(lab.path("images").join(&name)).unwrap();
        let mask = image::GrayImage::from_fn(32, 32, |x, _| image::Luma([u8::from(x > u32::from(i) * 3)]));
        mask.save(lab.path("masks").join(&name)).unwrap();
    }
    lab.write("set.toml", "name = 's'\nclasses = ['a', 'b']\n[train]\nimages = 'images'\nmasks = 'masks'\n");
}

#[cfg(unix)]
fn signal(process: &Child, name: &str) {
    let id = process.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

/// Whether no process holds the folder of a run.
#[cfg(unix)]
fn is_free(run: &Path) -> bool {
    std::fs::File::open(run.join(".lock")).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(unix)]
#[test]
fn several_runs_stop_with_their_parent_and_end_in_the_same_bytes() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    pictures(&lab);
    let common = ["train", "tiny.toml", "--device", "cpu", "--threads", "1", "--set", "train.keep_checkpoints=100"];
    let seeds = [&common[..], &["--seeds", "2"]].concat();
    let folds = [&common[..], &["--folds", "2", "--set", "data.dataset=set.toml"]].concat();
    let [second_seed, second_fold] = ["seed-1", "fold-1"];
    for (kind, arguments) in [("seeds", &seeds), ("folds", &folds)] {
        lab.ok(&[&arguments[..], &["--out", kind]].concat());
    }
    for (kind, arguments, second, how) in [
        ("seeds", &seeds, second_seed, "-TERM"),
        ("seeds", &seeds, second_seed, "-INT"),
        ("folds", &folds, second_fold, "-HUP"),
        ("seeds", &seeds, second_seed, "-KILL"),
        ("folds", &folds, second_fold, "-KILL"),
    ] {
        let out = format!("{kind}{how}");
        let run = lab.path(&out).join(second);
        let mut parent = quietly(&lab, &[&arguments[..], &["--out", &out]].concat());
        wait_for("a checkpoint of the second run", || run.join("checkpoints/step-00000010").exists());
        // Only the process that was started by hand is told; killed, it can tell nobody.
        signal(&parent, how);
        let code = parent.wait().unwrap().code();
        if how == "-KILL" {
            wait_for("the end of the child", || is_free(&run) && is_free(&lab.path(&out)));
        } else {
            assert_eq!(code, Some(130), "{out}");
            assert!(is_free(&run), "{out}: the child lives on");
        }
        let resumed = lab.run(&["train", "--resume", "--out", &out, "--device", "cpu", "--threads", "1"]);
        let talk = String::from_utf8_lossy(&resumed.stderr);
        assert!(resumed.status.success() && talk.contains("1 of 2 runs are already finished"), "{out}: {talk}");
        for file in ["model.safetensors", "scores.json", "../summary.json"] {
            let bytes = |out: &str| std::fs::read(lab.path(out).join(second).join(file)).unwrap();
            assert!(bytes(kind) == bytes(&out), "{out}: {file} differs");
        }
    }
}

#[cfg(unix)]
#[test]
fn nohup_is_obeyed() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let mut child = Command::new("nohup")
        .arg(env!("CARGO_BIN_EXE_structtoken"))
        .args(["train", "tiny.toml", "--out", "run", "--device", "cpu", "--threads", "1"])
        .current_dir(lab.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("a checkpoint", || lab.path("run/checkpoints/step-00000010").exists());
    signal(&child, "-HUP");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lab.path("run/report.html").exists());
}

/// Evaluations of so many images that they take minutes: a signal ends them anyway.
#[cfg(unix)]
#[test]
fn evaluations_stop_when_told() {
    use std::io::{BufRead, BufReader, Read};
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let cpu = ["--device", "cpu", "--threads", "1"];
    let many = ["--set", "data.shapes.val=200000"];
    // The checkpoint of the last iteration is written before its evaluation.
    let train = ["train", "tiny.toml", "--out", "run", "--set", "train.iterations=2"];
    let mut child = quietly(&lab, &[&train[..], &many, &cpu].concat());
    wait_for("a checkpoint", || lab.path("run/checkpoints/step-00000002").exists());
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!lab.path("run/model.safetensors").exists());

    lab.ok(&[&["train", "tiny.toml", "--out", "short", "--set", "train.iterations=1"][..], &cpu].concat());
    let eval = ["eval", "short/model.safetensors", "--out", "scores.json"];
    let mut child = lab.command(&[&eval[..], &many, &cpu].concat()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert!(first.starts_with("evaluating 200000 images"), "{first}");
    signal(&child, "-TERM");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("nothing is written") && !lab.path("scores.json").exists(), "{rest}");
}

#[test]
fn a_run_that_fails_does_not_stop_those_after_it() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let quick = ["--set", "train.iterations=2", "--device", "cpu", "--threads", "1"];
    lab.ok(&[&["train", "tiny.toml", "--out", "out", "--seeds", "2"][..], &quick].concat());
    for run in ["seed-0", "seed-1"] {
        std::fs::remove_file(lab.path("out").join(run).join("report.html")).unwrap();
    }
    lab.write("out/seed-0/config.toml", "what is this");
    let resume = ["train", "--resume", "--out", "out", "--device", "cpu"];
    lab.refused(&resume, &["1 of 2 runs failed: seed-0", "continue with --resume --out out"]);
    assert!(lab.path("out/seed-1/report.html").exists());
}

/// Starts a command twice at once; what both answered.
fn twice(lab: &Lab, arguments: &[&str]) -> [std::process::Output; 2] {
    let start = || lab.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    [start(), start()].map(|process| process.wait_with_output().unwrap())
}

#[test]
fn two_processes_write_into_one_folder() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    pictures(&lab);
    lab.ok(&["train", "tiny.toml", "--set", "train.iterations=1", "--out", "run", "--device", "cpu"]);
    // More pictures, so that both are at it at once.
    for i in 7..60u8 {
        std::fs::copy(lab.path("images/0.png"), lab.path(&format!("images/{i}.png"))).unwrap();
    }
    let model = "run/model.safetensors";
    let outputs = twice(
        &lab,
        &["predict", model, "images", "--out", "masks-out", "--overlay", "--device", "cpu", "--threads", "1"],
    );
    for output in outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut names: Vec<_> =
        std::fs::read_dir(lab.path("masks-out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 120, "{names:?}");
    for name in &names {
        image::open(lab.path("masks-out").join(name)).unwrap();
    }
    for i in 7..60u8 {
        std::fs::remove_file(lab.path(&format!("images/{i}.png"))).unwrap();
    }

    std::fs::create_dir(lab.path("set")).unwrap();
    for folder in ["images", "masks"] {
        std::fs::rename(lab.path(folder), lab.path("set").join(folder)).unwrap();
    }
    let outputs = twice(&lab, &["data", "init", "set"]);
    assert!(outputs.iter().any(|output| output.status.success()));
    for output in &outputs {
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || talk.contains("there already"), "{talk}");
    }
    lab.ok(&["data", "check", "set"]);

    let plan = ["--decoders", "pwe", "--seeds", "1", "--iterations", "2", "--evaluations", "1", "--device", "cpu"];
    let outputs = twice(&lab, &[&["compare", "tiny.toml", "--out", "compared"][..], &plan].concat());
    assert!(outputs.iter().any(|output| output.status.success()));
    for output in &outputs {
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || talk.contains("in use by another process"), "{talk}");
    }
    lab.ok(&["compare", "--out", "compared", "--device", "cpu"]);
}

#[test]
fn a_demo_replaces_only_a_demo_that_nobody_works_on() {
    let lab = Lab::new();
    let demo = ["demo", "--out", "d", "--budget", "1s", "--device", "cpu", "--set", "train.iterations=2"];
    let names = || {
        let names = std::fs::read_dir(lab.path("d")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        // Their names hold the time.
        names.iter_mut().filter(|name| name.starts_with("events")).for_each(|name| name.truncate(6));
        names.sort();
        names
    };
    lab.ok(&demo);
    let first = names();
    lab.write("d/mine.txt", "mine");
    lab.ok(&demo);
    std::fs::remove_file(lab.path("d/mine.txt")).unwrap();
    assert_eq!(names(), first);
    // Held, as by another demo, or by `train --resume` in its folder.
    let lock = std::fs::File::open(lab.path("d/.lock")).unwrap();
    lock.lock().unwrap();
    lab.refused(&demo, &["`d` is in use by another process", "--out"]);
    assert_eq!(names(), first);
    drop(lock);
    // Another run in its place, with the mark still there.
    lab.write("tiny.toml", TINY);
    for name in ["config.toml", "model.safetensors"] {
        std::fs::remove_file(lab.path("d").join(name)).unwrap();
    }
    std::fs::remove_dir_all(lab.path("d/checkpoints")).unwrap();
    lab.ok(&["train", "tiny.toml", "--set", "train.iterations=1", "--out", "d", "--device", "cpu"]);
    let run = names();
    lab.refused(&demo, &["not a demo", "--out"]);
    assert_eq!(names(), run);
}

/// Runs the program under a limit that a shell sets.
#[cfg(unix)]
pub(crate) fn limited(lab: &Lab, limit: &str, arguments: &[&str]) -> std::process::Output {
    let script = format!("{limit} && exec {} \"$@\"", env!("CARGO_BIN_EXE_structtoken"));
    Command::new("sh").args(["-c", &script, "sh"]).args(arguments).current_dir(lab.dir.path()).output().unwrap()
}

/// With few files that may be open a command works, or says that it may open no more; with more of them it works.
#[cfg(target_os = "linux")]
#[test]
fn few_open_files_are_an_error_that_says_so() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    pictures(&lab);
    let cpu = ["--device", "cpu", "--threads", "1"];
    let short = ["--set", "train.iterations=1", "--set", "data.shapes.val=1"];
    lab.ok(&[&["train", "tiny.toml", "--out", "run"][..], &short, &cpu].concat());
    let mut refused = 0;
    for files in [4, 5, 6, 7, 9, 64] {
        let out = |name: &str| format!("{name}-{files}");
        for arguments in [
            [&["train", "tiny.toml", "--out", &out("train")][..], &short, &cpu].concat(),
            [&["train", "tiny.toml", "--seeds", "2", "--out", &out("seeds")][..], &short, &cpu].concat(),
            [&["predict", "run/model.safetensors", "images", "--out", &out("masks")][..], &cpu].concat(),
            [&["eval", "run/model.safetensors", "--out", &out("scores")][..], &cpu].concat(),
            vec!["data", "init", ".", "--out", &format!("{}.toml", out("described"))],
            vec!["data", "check", "set.toml"],
        ] {
            // What the one who runs the tests has left open does not count.
            let others: String = (3..10).map(|file| format!("exec {file}>&-; ")).collect();
            let output = limited(&lab, &format!("{others}ulimit -n {files}"), &arguments);
            let talk = String::from_utf8_lossy(&output.stderr);
            if output.status.code() != Some(0) {
                // Of images that are labelled one after the other all may fail.
                let failed = [Some(1), Some(3)].contains(&output.status.code());
                assert!(failed, "{files}: {arguments:?}: {talk}");
                assert!(files < 64 && !talk.contains("panicked"), "{files}: {arguments:?}: {talk}");
                assert!(talk.contains("Too many open files") && talk.contains("ulimit -n"), "{arguments:?}: {talk}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// Runs the program as a user who may have only this many processes, threads counted.
#[cfg(target_os = "linux")]
fn with_processes(lab: &Lab, limit: usize, arguments: &[&str]) -> std::io::Result<std::process::Output> {
    // Root may have as many as it likes.
    let root = Command::new("id").arg("-u").output()?.stdout == b"0\n";
    let mut command = Command::new(if root { "setpriv" } else { "prlimit" });
    if root {
        command.args(["--reuid=65534", "--clear-groups", "prlimit"]);
    }
    command.arg(format!("--nproc={limit}")).arg(lab.path("structtoken")).args(arguments);
    command.current_dir(lab.dir.path()).env("RAYON_NUM_THREADS", "1").output()
}

#[cfg(target_os = "linux")]
#[test]
fn few_processes_are_an_error_that_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    std::fs::copy(env!("CARGO_BIN_EXE_structtoken"), lab.path("structtoken")).unwrap();
    std::fs::set_permissions(lab.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    if !with_processes(&lab, 10_000, &["--version"]).is_ok_and(|output| output.status.success()) {
        println!("skipped: no setpriv or prlimit here");
        return;
    }
    let threads = ["--device", "cpu", "--threads", "1"];
    let mut refused = 0;
    for limit in 1..9 {
        for more in [&[][..], &["--seeds", "2"]] {
            let out = format!("run-{limit}-{}", more.len());
            let train = ["train", "tiny.toml", "--set", "train.iterations=2", "--out", &out];
            let output = with_processes(&lab, limit, &[&train[..], &threads, more].concat()).unwrap();
            let talk = String::from_utf8_lossy(&output.stderr);
            assert!(!talk.contains("panicked"), "{limit}: {talk}");
            if output.status.code() != Some(0) {
                assert_eq!(output.status.code(), Some(1), "{limit}: {talk}");
                assert!(talk.contains("error: cannot start ") && talk.contains("ulimit -u"), "{limit}: {talk}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    // Each remedy is one: without it the command fails, and with it it works.
    let train = ["train", "tiny.toml", "--set", "train.iterations=2", "--device", "cpu", "--threads", "1"];
    let bench = ["bench", "tiny.toml", "--repeat", "1", "--size", "32", "--device", "cpu", "--threads"];
    for (limit, arguments, last, remedy, mended) in [
        (2, &bench[..], "2", "start one with --threads 1", "1"),
        (
            5,
            &[&train[..], &["--out", "mended", "--set"]].concat(),
            "data.workers=2",
            "lower data.workers",
            "data.workers=1",
        ),
    ] {
        let output = with_processes(&lab, limit, &[arguments, &[last]].concat()).unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && talk.contains(remedy), "{limit}: {talk}");
        std::fs::remove_dir_all(lab.path("mended")).ok();
        let output = with_processes(&lab, limit, &[arguments, &[mended]].concat()).unwrap();
        assert!(output.status.success(), "{limit}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for arguments in [&["inspect", "tiny.toml"][..], &["data", "check", "tiny.toml"]] {
        let output = with_processes(&lab, 1, arguments).unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(talk.contains("cannot start the CPU threads") && talk.contains("RAYON_NUM_THREADS=1"), "{talk}");
    }
}

/// Kernels can be held to fewer instructions than the machine has, and compute the same; what does not exist is
/// refused.
#[test]
fn the_instruction_set_can_be_lowered() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let with = |value: &str, arguments: &[&str]| {
        let output = lab.command(arguments).env("STRUCTTOKEN_SIMD", value).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let bench = ["bench", "tiny.toml", "--repeat", "1", "--size", "32", "--device", "cpu"];
    let (code, talk) = with("baseline", &bench);
    assert!(code == Some(0) && talk.contains("timing on cpu (baseline)"), "{talk}");
    let (code, talk) = with("sse9", &bench);
    assert!(
        code == Some(1) && talk.contains("STRUCTTOKEN_SIMD=sse9") && talk.contains("baseline, avx2, avx512"),
        "{talk}"
    );
    // The best that there is, for what cannot be had.
    let (code, talk) = with("avx512", &bench);
    if code != Some(0) {
        let best = talk.split("set it to `").nth(1).and_then(|rest| rest.split('`').next()).unwrap().to_owned();
        let (code, talk) = with(&best, &bench);
        assert!(code == Some(0) && talk.contains(&format!("timing on cpu ({best})")), "{talk}");
    }
    // Other orders of addition, and no other answer.
    let mut losses = Vec::new();
    for value in ["baseline", ""] {
        let out = format!("run-{value}");
        let train = ["train", "tiny.toml", "--set", "train.iterations=3", "--device", "cpu", "--out", &out];
        let (code, talk) = with(value, &train);
        assert_eq!(code, Some(0), "{talk}");
        let log = std::fs::read_to_string(lab.path(&out).join("log.ndjson")).unwrap();
        let last = log.lines().rfind(|line| line.contains("\"loss\"")).unwrap().to_owned();
        let row: serde_json::Value = serde_json::from_str(&last).unwrap();
        losses.push(row["loss"].as_f64().unwrap());
    }
    assert!((losses[0] - losses[1]).abs() < 1e-3 * losses[0].abs(), "{losses:?}");
}
