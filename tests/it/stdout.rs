//! What becomes of output that cannot be written: a full disk is an error, a reader that has gone away is none.

use std::fs::File;
use std::process::Stdio;

use crate::cli::{Lab, TINY};

#[cfg(target_os = "linux")]
#[test]
fn every_command_that_prints_fails_where_it_cannot() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    lab.ok(&["train", "tiny.toml", "--set", "train.iterations=1", "--out", "run", "--device", "cpu"]);
    let photo = image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([x as u8, y as u8, 9]));
    let mask = image::GrayImage::from_fn(40, 40, |x, _| image::Luma([u8::from(x > 20)]));
    for folder in ["set/images", "set/masks"] {
        std::fs::create_dir_all(lab.path(folder)).unwrap();
    }
    for name in ["a.png", "b.png"] {
        photo.save(lab.path("set/images").join(name)).unwrap();
        mask.save(lab.path("set/masks").join(name)).unwrap();
    }
    let model = "run/model.safetensors";
    let quick = ["--set", "train.iterations=1", "--device", "cpu"];
    let commands: [&[&str]; 21] = [
        &["--help"],
        &["--version"],
        &["eval", "--help"],
        &["inspect", "tiny.toml"],
        &["inspect", "tiny.toml", "--json"],
        &["inspect", model],
        &["inspect", model, "--json"],
        &["eval", model, "--device", "cpu"],
        &["eval", model, "--json", "--device", "cpu"],
        &["probe", model, "--images", "1", "--cues", "grey", "--device", "cpu"],
        &["predict", model, "set/images", "--out", "masks", "--device", "cpu"],
        &["predict", model, "set/images", "--out", "masks", "--json", "--device", "cpu"],
        &["data", "check", "set"],
        &["data", "check", "set", "--json"],
        &["data", "init", "set"],
        &["bench", "tiny.toml", "--repeat", "1", "--device", "cpu"],
        &["bench", "tiny.toml", "--repeat", "1", "--json", "--device", "cpu"],
        &["completions", "zsh"],
        &["man"],
        &["compare", "tiny.toml", "--decoders", "pwe", "--seeds", "1", "--iterations", "1", "--device", "cpu"],
        &["train", "shapes", "--plan", "--budget", "1s", "--set", "data.shapes.size=32", "--device", "cpu"],
    ];
    let train = |out| [&["train", "tiny.toml", "--out", out, "--json"][..], &quick].concat();
    let (one, several) = (train("one"), [train("several"), vec!["--seeds", "2"]].concat());
    for arguments in commands.into_iter().chain([&one[..], &several[..]]) {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = lab.command(arguments).stdout(full).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {talk}");
        let told = talk.contains("cannot write to the standard output") && talk.contains("hint: ");
        assert!(told && !talk.contains("panicked"), "{arguments:?}: {talk}");

        // `| head -0`
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let again: Vec<&str> = match arguments {
            ["train", "tiny.toml", "--out", out, ..] => {
                // The work was done all the same.
                let last = if *out == "one" { "report.html" } else { "summary.json" };
                assert!(lab.path(out).join(last).exists(), "{arguments:?}");
                let other = if *out == "one" { "piped" } else { "piped-several" };
                arguments.iter().map(|word| if word == out { other } else { *word }).collect()
            }
            ["data", "init", ..] => [arguments, &["--yes"]].concat(),
            _ => arguments.to_vec(),
        };
        let output = lab.command(&again).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{again:?}: {talk}");
        assert!(!talk.contains("error: "), "{again:?}: {talk}");
    }
    for done in ["piped/report.html", "piped-several/summary.json", "masks/a.png", "masks/b.png", "set/dataset.toml"] {
        assert!(lab.path(done).exists(), "{done}");
    }
}

#[test]
fn completions_and_manual_pages() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let text = lab.ok(&["completions", shell]);
        for word in ["structtoken", "predict", "overlay", "data"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    let page = lab.ok(&["man"]);
    assert!(
        page.starts_with(".ie") && page.contains(".TH structtoken 1") && page.contains("structtoken\\-train"),
        "{page}"
    );
    assert!(!page.contains("place"), "hidden options stay hidden: {page}");
    lab.ok(&["man", "--out", "man1"]);
    for page in ["structtoken.1", "structtoken-train.1", "structtoken-data-init.1", "structtoken-eval.1"] {
        let text = std::fs::read_to_string(lab.path("man1").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    lab.write("file", "");
    lab.refused(&["man", "--out", "file/man"], &["file/man"]);
}
