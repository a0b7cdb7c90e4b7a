//! The binary from outside: helpers to run it, and what its commands print.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder of its own, and the binary to run in it.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// All files below the folder.
    #[cfg(feature = "export")]
    pub(crate) fn entries(&self) -> Vec<PathBuf> {
        let mut left = vec![self.dir.path().to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = left.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    left.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }

    /// The command, with the folder as its current one.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_structtoken"));
        command.current_dir(self.dir.path()).args(arguments).env("NO_COLOR", "1");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must work; returns what it printed as data.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {talk}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with exit code 1, without a panic, naming all of `say`, and with a hint.
    pub(crate) fn refused(&self, arguments: &[&str], say: &[&str]) -> String {
        self.ends(1, arguments, say)
    }

    /// As [`refused`](Self::refused), where options do not fit together: the exit code is 2.
    pub(crate) fn misused(&self, arguments: &[&str], say: &[&str]) -> String {
        self.ends(2, arguments, say)
    }

    /// As [`refused`](Self::refused), where some images fail and all others are done.
    pub(crate) fn partly(&self, arguments: &[&str], say: &[&str]) -> String {
        self.ends(3, arguments, say)
    }

    fn ends(&self, code: i32, arguments: &[&str], say: &[&str]) -> String {
        let output = self.run(arguments);
        let talk = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {talk}");
        assert!(!talk.contains("panicked"), "{arguments:?}: {talk}");
        assert!(talk.contains("error: ") && talk.contains("hint: "), "{arguments:?}: {talk}");
        for part in say {
            assert!(talk.contains(part), "{arguments:?} does not say `{part}`:\n{talk}");
        }
        talk
    }
}

/// A recipe small enough for a test: shapes of 32 px, a network of some thousand parameters.
pub(crate) const TINY: &str = r#"
[model.backbone]
type = "vit"
embed_dim = 24
depth = 2
num_heads = 2
patch_size = 8
img_size = [32, 32]

[model.decoder]
type = "structtoken"
block = "pwe"
num_blocks = 2

[data]
dataset = "shapes"
shapes = { size = 32, train = 64, val = 6 }

[data.augment]
resize = "none"
crop = [32, 32]

[train]
iterations = 60
batch_size = 4
eval_every = 20
save_every = 10
log_every = 1

[train.optimizer]
lr = 1e-3
decoder_lr_mult = 2

[train.schedule]
warmup_iters = 5

[eval]
mode = "whole"
"#;

#[test]
fn help_names_every_command() {
    let help = Lab::new().ok(&["--help"]);
    for command in ["demo", "train", "eval", "probe", "predict", "compare", "inspect"] {
        assert!(help.contains(command), "{help}");
    }
    if cfg!(feature = "serve") {
        insta::assert_snapshot!("help", help);
    }
}

/// Bright discs on black, as nuclei under fluorescence: whoever has the program finds them at once.
#[test]
fn a_model_that_comes_with_the_program_labels_at_once() {
    let lab = Lab::new();
    assert!(lab.ok(&["models"]).starts_with("@nuclei  "));
    let disc = |x: u32, y: u32| (x % 64).abs_diff(32).pow(2) + (y % 64).abs_diff(32).pow(2) < 196;
    let photo = image::GrayImage::from_fn(256, 192, |x, y| image::Luma([if disc(x, y) { 170 } else { 12 }]));
    photo.save(lab.path("photo.png")).unwrap();
    lab.ok(&["predict", "@nuclei", "photo.png", "--out", "masks", "--device", "cpu"]);
    let labels = structtoken::image::read_image(lab.path("masks/photo.png")).unwrap();
    let (mut both, mut either) = (0, 0);
    for (at, pixel) in labels.pixels.chunks(3).enumerate() {
        let (here, found) = (disc(at as u32 % 256, at as u32 / 256), pixel != [0; 3]);
        both += u32::from(here && found);
        either += u32::from(here || found);
    }
    assert!(f64::from(both) > 0.7 * f64::from(either), "{both} of {either} pixels");
    assert!(lab.ok(&["inspect", "@nuclei"]).contains("nucleus"));
    // As weights to start from.
    lab.write("tiny.toml", TINY);
    let start = ["--set", "train.pretrained=@nuclei", "--set", "train.pretrained_backbone_only=true", "--out", "run"];
    lab.refused(&[&["train", "tiny.toml", "--device", "cpu"][..], &start].concat(), &["nuclei.safetensors"]);

    let refuse = |name: &str, say: &[&str]| {
        for command in [&["predict", name, "photo.png"][..], &["eval", name], &["inspect", name]] {
            lab.refused(command, say);
        }
    };
    refuse("@nucleus", &["there is no model `@nucleus`", "did you mean `@nuclei`?", "`structtoken models`"]);
    // A file that is called so is itself, as the hint of builds without models says.
    lab.write("@nuclei", "not a model");
    lab.refused(&["predict", "./@nuclei", "photo.png"], &["`./@nuclei`"]);
}

/// As of a binary that was copied away from what came with it.
#[test]
fn a_program_whose_models_are_gone_says_so() {
    let lab = Lab::new();
    let alone = |arguments: &[&str]| lab.command(arguments).env("STRUCTTOKEN_MODELS", "nowhere").output().unwrap();
    let models = alone(&["models"]);
    assert!(models.status.success() && models.stdout.is_empty());
    let output = alone(&["predict", "@nuclei", "photo.png"]);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && talk.contains("does not carry the model `@nuclei`"), "{talk}");
    assert!(talk.contains("hint: pass the path of a model file"), "{talk}");
}

#[test]
fn from_recipe_to_pictures() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    let out = lab.ok(&["train", recipe, "--set", "train.iterations=3", "--out", "runs/tiny", "--device", "cpu"]);
    assert!(out.contains("mIoU") && out.contains("runs/tiny/model.safetensors"), "{out}");
    for file in ["model.safetensors", "scores.json", "report.html", "log.ndjson", "config.toml"] {
        assert!(lab.path("runs/tiny").join(file).exists(), "{file}");
    }

    let json = lab.ok(&["eval", "runs/tiny/model.safetensors", "--json", "--device", "cpu", "--out", "scores.json"]);
    let scores: serde_json::Value = serde_json::from_str(&json).unwrap();
    let trained = std::fs::read_to_string(lab.path("runs/tiny/scores.json")).unwrap();
    let trained: serde_json::Value = serde_json::from_str(&trained).unwrap();
    for (key, value) in trained.as_object().unwrap() {
        assert_eq!(&scores[key], value, "eval repeats what training measured: {key}");
    }
    assert!(lab.path("scores.json").exists());

    let photo = image::RgbImage::from_fn(50, 37, |x, y| image::Rgb([(x * 5) as u8, (y * 6) as u8, 90]));
    std::fs::create_dir_all(lab.path("photos/inner")).unwrap();
    photo.save(lab.path("photos/a.png")).unwrap();
    photo.save(lab.path("photos/inner/b.jpg")).unwrap();
    let model = "runs/tiny/model.safetensors";
    lab.ok(&["predict", model, "photos", "--out", "masks", "--overlay", "--probabilities", "--device", "cpu"]);
    for file in ["a.png", "a_overlay.png", "a_probabilities.npy", "inner/b.png"] {
        assert!(lab.path("masks").join(file).exists(), "{file}");
    }
    let mask = structtoken::image::read_mask(lab.path("masks/a.png")).unwrap();
    let structtoken::image::RawMask::Index { width, height, values, .. } = mask else { panic!("not an index mask") };
    assert_eq!((width, height), (50, 37));
    assert!(values.iter().all(|id| *id < 6));
    let npy = std::fs::read(lab.path("masks/a_probabilities.npy")).unwrap();
    assert!(String::from_utf8_lossy(&npy[..100]).contains("(6, 37, 50)"));

    // Windows as large as the image are the image.
    let slide = ["--set", "eval.mode=slide", "--set", "eval.crop=[37,50]", "--set", "eval.stride=[37,50]"];
    lab.ok(&[&["predict", model, "photos/a.png", "--out", "slid", "--device", "cpu"][..], &slide[..]].concat());
    assert!(std::fs::read(lab.path("slid/a.png")).unwrap() == std::fs::read(lab.path("masks/a.png")).unwrap());
    lab.refused(&["predict", model, "photos/a.png", "--set", "model.backbone.depth=1"], &["fixed"]);

    let shown = lab.ok(&["inspect", model]);
    assert!(
        shown.contains("backbone.blocks.0.attn.qkv.weight") && shown.contains("6 classes: background, disc"),
        "{shown}"
    );
    let shown: serde_json::Value = serde_json::from_str(&lab.ok(&["inspect", recipe, "--json"])).unwrap();
    assert_eq!(shown["config"]["train"]["iterations"], 60);
}

#[test]
fn every_line_of_json_is_json() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let arguments = ["train", recipe.to_str().unwrap(), "--set", "train.iterations=2", "--json", "--device", "cpu"];
    let lines = lab.ok(&arguments);
    let events: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().filter(|event| event["event"] == "iteration").count(), 2);
    assert!(events.last().unwrap()["scores"]["miou"].is_number());
    assert!(Path::new(&lab.path("runs/tiny/model.safetensors")).exists());
}

#[test]
fn a_plan_is_a_recipe_with_reasons() {
    let lab = Lab::new();
    let small = ["--set", "data.shapes.size=32", "--set", "data.shapes.train=200", "--set", "data.shapes.val=4"];
    let plan = ["train", "shapes", "--device", "cpu", "--budget", "3s"];
    let text = lab.ok(&[&plan[..], &["--plan"], &small].concat());
    assert!(text.contains("# Estimated: ") && text.contains("dataset = \"shapes\""), "{text}");
    let recipe = lab.write("planned.toml", &text);
    lab.ok(&[&["inspect", recipe.to_str().unwrap()][..], &small].concat());
    let trained = lab.run(&[&plan[..], &["--out", "run"], &small].concat());
    let talk = String::from_utf8_lossy(&trained.stderr);
    assert!(trained.status.success() && talk.contains("(estimated "), "{talk}");
    // A folder that cannot be had is told before anything is timed.
    let long = "x".repeat(300);
    for (out, say) in [("run", "already holds a run"), (&long, "with --out")] {
        let talk = lab.refused(&[&plan[..], &["--out", out], &small].concat(), &[say]);
        assert!(!talk.contains("timing steps"), "{talk}");
    }
    lab.misused(&["train", recipe.to_str().unwrap(), "--plan"], &["for a dataset"]);
    lab.refused(&["train", "nuclei", "--plan"], &["`nuclei` is neither a folder nor a built-in dataset", "camvid"]);
    lab.refused(&["train", "shapes", "--budget", "soon"], &["`soon` is not a duration", "20m"]);
    lab.refused(&["train", "nope"], &["cannot read the recipe `nope`", "structtoken train DIR"]);
    std::fs::create_dir(lab.path("images")).unwrap();
    lab.refused(&["compare", "images"], &["structtoken train images --plan > recipe.toml"]);
    let folder = lab.path("run");
    lab.refused(&["train", folder.to_str().unwrap()], &["run"]);
}

/// In the default build; `cargo test --release --test it cli::`.
#[cfg(not(any(feature = "serve", feature = "export")))]
#[test]
fn a_build_without_a_command_says_how_to_get_it() {
    let lab = Lab::new();
    let manifest: toml::Table =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap().parse().unwrap();
    for (command, rest) in [("export", &["model.safetensors", "-o", "model.onnx"][..]), ("serve", &["--help"])] {
        let said = format!("this build of structtoken has no {command}");
        lab.refused(&[&[command], rest].concat(), &[&said, "cargo build --release --features full"]);
        assert!(manifest["features"]["full"].as_array().unwrap().contains(&command.into()));
    }
}
