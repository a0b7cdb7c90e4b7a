//! What is printed to be done is done here, as it stands there, and works.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use crate::cli::{Lab, TINY};
use crate::processes::limited;

const CPU: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// Runs a command as a person would paste it, `structtoken` being this program.
fn paste(lab: &Lab, command: &str) -> Output {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_structtoken")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let command = command.replace("structtoken", "RAYON_NUM_THREADS=1 structtoken");
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &command]).current_dir(lab.dir.path()).env("PATH", path).output().unwrap()
}

fn pasted(lab: &Lab, command: &str) {
    let output = paste(lab, command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What stands between `from` and `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split(from).nth(1).unwrap_or_else(|| panic!("no {from}: {text}")).split(to).next().unwrap()
}

/// Whatever the folder is called, printed commands mean it. Apple's file systems refuse names that are not UTF-8.
#[cfg(not(target_vendor = "apple"))]
#[test]
fn commands_about_a_run_work_wherever_it_lies() {
    for out in [&b"a run"[..], b"it's $HOME; `x`", b"caf\xe9 1"] {
        let lab = Lab::new();
        let out = OsStr::from_bytes(out);
        lab.write("tiny.toml", TINY);
        let small = ["--set", "train.iterations=4", "--set", "data.shapes.val=1"];
        let run = |arguments: &[&str]| lab.command(arguments).arg("--out").arg(out).args(CPU).output().unwrap();
        let stopped = run(&[&["train", "tiny.toml", "--stop-after", "3"][..], &small].concat());
        let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
        assert_eq!(stopped.status.code(), Some(130), "{said}");

        // A recipe that was edited, put back.
        let own = lab.dir.path().join(out).join("config.toml");
        let text = std::fs::read_to_string(&own).unwrap();
        std::fs::write(&own, text.replacen("iterations = 4", "iterations = 5", 1)).unwrap();
        let refused = run(&["train", "--resume"]);
        let hint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{hint}");
        pasted(&lab, between(&hint, "restore the recipe with `", "`; to continue"));
        assert_eq!(std::fs::read_to_string(&own).unwrap(), text);

        pasted(&lab, between(&said, "continue with:\n  ", "\n"));
        assert!(lab.dir.path().join(out).join("report.html").exists());

        // Scores that were lost.
        let scores = lab.dir.path().join(out).join("scores.json");
        std::fs::write(&scores, "{").unwrap();
        let refused = run(&["train", "--resume"]);
        let hint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{hint}");
        pasted(&lab, between(&hint, "hint: `", "` writes them again"));
        let again = run(&["train", "--resume"]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    }
}

/// The values that a hint sets: `model.backbone.depth = 3` and the like.
fn settings(hint: &str) -> Vec<(String, String)> {
    let words: Vec<&str> = hint.split_whitespace().collect();
    let key = |word: &str| word.starts_with("model.") || word.starts_with("train.");
    let found = words.windows(3).filter(|three| key(three[0]) && three[1] == "=");
    found.map(|three| (three[0].to_owned(), three[2].trim_end_matches([';', ',']).to_owned())).collect()
}

/// Weights of a network that differs in some way, and what the printed causes say to set: after at most three such
/// errors they load.
#[test]
fn what_is_said_of_weights_that_do_not_fit_makes_them_fit() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let short = ["--set", "train.iterations=1", "--set", "train.eval_every=0", "--set", "data.shapes.val=1"];
    for (at, change) in [
        "model.backbone.patch_size=4",
        "model.backbone.embed_dim=32",
        "model.backbone.depth=3",
        "model.backbone.init_values=1.0",
        "model.backbone.class_token=false",
        "model.backbone.final_norm=true",
        "model.backbone.reg_tokens=2",
        "model.backbone.mlp_layer=swiglu",
        "model.backbone.type=dinov3",
        "model.decoder.num_blocks=3",
        "model.decoder.block=cse",
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("other-{at}");
        lab.ok(&[&["train", "tiny.toml", "--out", &out, "--set", change][..], &short, &CPU].concat());
        let pretrained = format!("train.pretrained={out}/model.safetensors");
        let mut set: BTreeMap<String, String> = BTreeMap::new();
        let mut errors = 0;
        loop {
            let sets: Vec<String> = set.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
            let train = ["train", "tiny.toml", "--out", &format!("try-{at}-{errors}"), "--set", &pretrained];
            let output = lab.run(&[&train[..], &short, &CPU, &sets].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() {
                break;
            }
            errors += 1;
            let new = settings(between(&said, "hint: ", "\n"));
            let before = set.len();
            set.extend(new);
            assert!(errors <= 3 && set.len() > before, "{change}: {said}");
        }
        assert!(errors > 0, "{change}: it fits without a word");
    }
}

/// An image that does not fit into memory as a whole is named, and fits in windows as the hint says; a batch that does
/// not fit, in passes.
#[cfg(target_os = "linux")]
#[test]
fn what_is_said_of_too_little_memory_makes_it_enough() {
    let lab = Lab::new();
    let wide = TINY.replace("patch_size = 8", "patch_size = 4").replace("embed_dim = 24", "embed_dim = 64");
    lab.write("wide.toml", wide);
    let short = ["--set", "train.iterations=1", "--set", "data.shapes.val=1"];
    lab.ok(&[&["train", "wide.toml", "--out", "run"][..], &short, &CPU].concat());
    std::fs::create_dir_all(lab.path("photos")).unwrap();
    for (name, width, height) in [("large", 2400, 2000), ("small", 40, 30)] {
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]))
            .save(lab.path("photos").join(format!("{name}.png")))
            .unwrap();
    }
    let under = |megabytes: u64, arguments: &[&str]| {
        let output = limited(&lab, &format!("ulimit -v {}", megabytes << 10), &[arguments, &CPU].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let predict = ["predict", "run/model.safetensors", "photos", "--out", "masks"];
    let (code, said) = under(300, &predict);
    assert_eq!(code, Some(3), "{said}");
    for part in ["`photos/large.png`", "an image of 2400 x 2000 needs about", "eval.mode=slide", "1 of 2 images"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(lab.path("masks/small.png").exists() && !lab.path("masks/large.png").exists());
    let windows = ["--set", "eval.mode=slide", "--set", "eval.crop=[128, 128]", "--set", "eval.stride=[128, 128]"];
    let (code, said) = under(300, &[&predict[..], &windows, &["--set", "eval.windows_per_batch=1"]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(lab.path("masks/large.png").exists());

    let train = |out: &str, change: &str| {
        let large = ["--set", "data.augment.crop=[512, 512]", "--set", "train.batch_size=128", "--set", change];
        let workers = ["--set", "data.workers=1", "--set", "model.backbone.patch_size=32"];
        under(650, &[&["train", "wide.toml", "--out", out][..], &short, &large, &workers].concat())
    };
    let (code, said) = train("much", "train.seed=0");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("128 crops of 512 x 512 needs about") && said.contains("raise train.accumulate"), "{said}");
    for (out, change) in [("passes", "train.accumulate=64"), ("few", "train.batch_size=1")] {
        let (code, said) = train(out, change);
        assert_eq!(code, Some(0), "{said}");
    }
}
