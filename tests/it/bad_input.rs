//! Bad input: each a clear error that names the file and the remedy, nothing lost, no panic.

use image::{GrayImage, Luma, Rgb, RgbImage};

use crate::cli::{Lab, TINY};

const SET: &str = r#"
name = "own"
classes = ["ground", "thing"]
[train]
images = "images"
masks = "masks"
[val]
images = "images"
masks = "masks"
"#;

/// A dataset of four images, all right, and a recipe for it.
pub(crate) fn set(lab: &Lab) -> String {
    for i in 0..4u8 {
        picture(lab, &format!("images/{i}.png"), 40, 32);
        mask(lab, &format!("masks/{i}.png"), 40, 32, |x| u8::from(x > 20));
    }
    lab.write("set.toml", SET);
    recipe(lab, "set.toml")
}

fn recipe(lab: &Lab, dataset: &str) -> String {
    let text = TINY.replace("dataset = \"shapes\"", &format!("dataset = \"{dataset}\""));
    lab.write("own.toml", text);
    "own.toml".to_owned()
}

fn picture(lab: &Lab, name: &str, width: u32, height: u32) {
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 3])).save(path).unwrap();
}

fn mask(lab: &Lab, name: &str, width: u32, height: u32, id: impl Fn(u32) -> u8) {
    let path = lab.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_fn(width, height, |x, _| Luma([id(x)])).save(path).unwrap();
}

fn train(recipe: &str) -> Vec<&str> {
    vec!["train", recipe, "--device", "cpu", "--out", "run", "--set", "train.iterations=3"]
}

#[test]
fn a_good_set_trains() {
    let lab = Lab::new();
    let recipe = set(&lab);
    lab.ok(&train(&recipe));
}

#[test]
fn a_missing_mask() {
    let lab = Lab::new();
    let recipe = set(&lab);
    std::fs::remove_file(lab.path("masks/2.png")).unwrap();
    lab.refused(&train(&recipe), &["2.png", "mask"]);
}

#[test]
fn sizes_that_differ() {
    let lab = Lab::new();
    let recipe = set(&lab);
    mask(&lab, "masks/1.png", 32, 40, |_| 0);
    lab.refused(&train(&recipe), &["1.png", "40", "32"]);
}

#[test]
fn an_unknown_id() {
    let lab = Lab::new();
    let recipe = set(&lab);
    mask(&lab, "masks/3.png", 40, 32, |x| if x == 7 { 9 } else { 0 });
    lab.refused(&train(&recipe), &["3.png", "9"]);
}

#[test]
fn a_binary_mask_of_0_and_255() {
    let lab = Lab::new();
    let recipe = set(&lab);
    for i in 0..4 {
        mask(&lab, &format!("masks/{i}.png"), 40, 32, |x| if x > 9 { 255 } else { 0 });
    }
    lab.refused(&train(&recipe), &["255", "binary", "source"]);
}

#[test]
fn an_rgb_mask_where_indices_are_declared() {
    let lab = Lab::new();
    let recipe = set(&lab);
    picture(&lab, "masks/0.png", 40, 32);
    lab.refused(&train(&recipe), &["0.png", "rgb"]);
}

#[test]
fn files_that_are_cut_short() {
    for ending in ["png", "jpg"] {
        let lab = Lab::new();
        let recipe = set(&lab);
        std::fs::remove_file(lab.path("images/1.png")).unwrap();
        let name = format!("images/1.{ending}");
        picture(&lab, &name, 40, 32);
        let bytes = std::fs::read(lab.path(&name)).unwrap();
        lab.write(&name, &bytes[..bytes.len() / 2]);
        lab.refused(&train(&recipe), &[&format!("1.{ending}")]);
    }
}

#[test]
fn a_header_of_60000_by_60000() {
    let lab = Lab::new();
    let recipe = set(&lab);
    let bytes = std::fs::read(lab.path("images/0.png")).unwrap();
    let mut huge = bytes.clone();
    huge[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    huge[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let crc = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.to_be_bytes());
    lab.write("images/0.png", huge);
    lab.refused(&train(&recipe), &["0.png", "60000"]);
}

pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn an_empty_split() {
    let lab = Lab::new();
    let recipe = set(&lab);
    lab.write("set.toml", SET.replace("[val]\nimages = \"images\"", "[val]\nimages = \"none\""));
    std::fs::create_dir_all(lab.path("none")).unwrap();
    lab.refused(&train(&recipe), &["none", "val"]);
}

#[test]
fn a_typo_in_a_recipe() {
    let lab = Lab::new();
    lab.write("typo.toml", TINY.replace("num_blocks = 2", "num_bloks = 2"));
    lab.refused(&train("typo.toml"), &["num_bloks", "line 13", "num_blocks", "typo.toml"]);
    lab.write("typo.toml", TINY.replace("batch_size = 4", "batchsize = 4"));
    lab.refused(&train("typo.toml"), &["batchsize", "batch_size", "typo.toml"]);
}

#[test]
fn weights_of_another_architecture() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    lab.ok(&["train", recipe, "--device", "cpu", "--out", "small", "--set", "train.iterations=1"]);
    let larger = ["train", recipe, "--device", "cpu", "--out", "large", "--set", "model.backbone.embed_dim=32"];
    let weights = ["--set", "train.pretrained=small/model.safetensors"];
    lab.refused(&[&larger[..], &weights[..]].concat(), &["small/model.safetensors", "24", "32", "--from"]);
}

/// `cos\nsystem\n(S'touch hacked'\ntR.`: what a pickle that runs a command looks like.
#[test]
fn a_hostile_pickle_is_not_run() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    for (name, pickle) in [
        ("plain.pth", &b"cos\nsystem\n(S'touch hacked'\ntR."[..]),
        ("proto2.pth", &b"\x80\x02cposix\nsystem\nX\x0c\x00\x00\x00touch hacked\x85R."[..]),
    ] {
        lab.write(name, pickle);
        let change = format!("train.pretrained={name}");
        lab.refused(&["train", recipe.to_str().unwrap(), "--device", "cpu", "--out", "run", "--set", &change], &[name]);
        assert!(!lab.path("hacked").exists());
    }
}

#[test]
fn a_loss_that_is_not_finite() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let arguments =
        ["train", recipe.to_str().unwrap(), "--device", "cpu", "--out", "run", "--set", "train.save_every=1"];
    // The first step has a rate of 0, the second ruins the weights.
    let wild = ["train.optimizer.lr=1e30", "train.schedule.warmup_iters=4", "train.schedule.warmup_ratio=0"];
    let wild: Vec<&str> = wild.iter().flat_map(|change| ["--set", change]).collect();
    let talk = lab.refused(&[&arguments[..], &wild[..]].concat(), &["loss is", "at iteration 3", "train.optimizer.lr"]);
    assert!(talk.contains("the checkpoint of iteration 1") && talk.contains("is good"), "{talk}");
    let left: Vec<_> = lab.path("run/checkpoints").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 1, "ruined weights are not saved: {left:?}");
    let kept = structtoken::weights::read(&left[0].join("model.safetensors")).unwrap();
    assert!(kept.tensors.values().flat_map(|tensor| &tensor.data).all(|value| value.abs() < 10.0));
}

/// Weights that are ruined are neither evaluated nor published.
#[test]
fn ruined_weights_are_not_published() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let arguments = ["train", recipe.to_str().unwrap(), "--device", "cpu", "--out", "run"];
    let wild = ["train.optimizer.lr=1e39", "train.schedule.warmup_iters=0", "train.eval_every=1"];
    let wild: Vec<&str> = wild.iter().flat_map(|change| ["--set", change]).collect();
    lab.refused(&[&arguments[..], &wild[..]].concat(), &["not a number", "the weights"]);
    assert!(!lab.path("run/model.safetensors").exists());
}

/// What a user has beside the tool's files stays.
#[test]
fn files_of_others_are_left_alone() {
    let lab = Lab::new();
    lab.write("mine/config.toml", "[data]\ndataset = \"shapes\"\n");
    lab.write("mine/thesis.tex", "words");
    lab.refused(&["demo", "--out", "mine", "--device", "cpu"], &["not a demo"]);
    assert!(lab.path("mine/thesis.tex").exists());

    let recipe = lab.write("tiny.toml", TINY);
    let short = ["--set", "train.iterations=1", "--out", "run", "--device", "cpu"];
    lab.ok(&[&["train", recipe.to_str().unwrap()][..], &short[..]].concat());
    std::fs::create_dir_all(lab.path("photos")).unwrap();
    image::RgbImage::new(9, 9).save(lab.path("photos/a.png")).unwrap();
    let before = std::fs::read(lab.path("photos/a.png")).unwrap();
    let predict = ["predict", "run/model.safetensors", "--device", "cpu"];
    for inputs in [&["photos", "--out", "photos"][..], &["photos/a.png", "--out", "./photos/../photos"]] {
        lab.refused(&[&predict[..], inputs].concat(), &["would be overwritten", "a.png"]);
    }
    assert!(std::fs::read(lab.path("photos/a.png")).unwrap() == before);
    // Its own results are not input, and links in circles end.
    #[cfg(unix)]
    std::os::unix::fs::symlink(".", lab.path("photos/again")).unwrap();
    for _ in 0..2 {
        let written = lab.ok(&[&predict[..], &["photos", "--out", "photos/found"]].concat());
        assert_eq!(written.lines().count(), 1, "{written}");
    }
}

/// Settings and sizes that make no sense are refused by name, before anything is taken.
#[test]
fn values_out_of_range() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    for (change, say) in [
        ("train.optimizer.betas=[1.0,0.9]", "betas"),
        ("train.optimizer.clip_norm=0", "clip_norm"),
        ("train.class_weights=[0,0,0,0,0,0]", "class_weights"),
        ("train.schedule.power=nan", "power"),
        ("train.keep_checkpoints=0", "keep_checkpoints"),
        ("model.backbone.embed_dim=1000000000", "embed_dim"),
        ("model.backbone.init_values=nan", "init_values"),
        ("model.decoder.channels=10000000000", "channels"),
    ] {
        lab.refused(&["train", recipe, "--device", "cpu", "--set", change], &[say]);
    }
    for option in [["--size", "99999999999"], ["--batch", "0"], ["--classes", "300"], ["--repeat", "0"]] {
        lab.refused(&["bench", "--device", "cpu", option[0], option[1]], &[option[1]]);
    }
    lab.misused(&["train", recipe, "--device", "cpu", "--set", "a.a.a.a.a.a.a.a.a.a=1"], &["key=value"]);
    lab.misused(&["inspect", recipe, "--classes", "99999999999"], &["--classes"]);
    lab.misused(&["train"], &["no recipe"]);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn no_gpu() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    lab.refused(&["train", recipe.to_str().unwrap(), "--device", "cuda:0"], &["cuda:0"]);
    assert!(!lab.path("runs").exists(), "nothing is made before the device is there");
}

#[test]
fn files_that_are_not_there() {
    let lab = Lab::new();
    lab.refused(&["train", "none.toml"], &["none.toml"]);
    lab.refused(&["predict", "none.safetensors", "x.png"], &["none.safetensors"]);
    lab.refused(&["inspect", "none.safetensors"], &["none.safetensors"]);
}

/// A full disk while saving: the checkpoint before survives, and the run goes on from it when there is room.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_last_checkpoint() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    let recipe = recipe.to_str().unwrap();
    let quiet = ["--set", "train.eval_every=0", "--stop-after", "10"];
    let first = lab.run(&[&["train", recipe, "--device", "cpu", "--out", "run"][..], &quiet[..]].concat());
    assert_eq!(first.status.code(), Some(130));
    let checkpoint = lab.path("run/checkpoints/step-00000010/model.safetensors");
    let before = std::fs::read(&checkpoint).unwrap();
    let size = before.len();

    // A limit on the size of files stands for the full disk: writing past it fails.
    let limit = size / 2 / 1024;
    let script =
        format!("ulimit -f {limit}; exec {} train --resume --device cpu --out run", env!("CARGO_BIN_EXE_structtoken"));
    let output = std::process::Command::new("bash").args(["-c", &script]).current_dir(lab.dir.path()).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{talk}");
    assert!(talk.contains("cannot save the checkpoint of iteration 20") && talk.contains("hint: "), "{talk}");
    assert!(!talk.contains("panicked"), "{talk}");
    assert!(std::fs::read(&checkpoint).unwrap() == before);
    let left: Vec<String> = std::fs::read_dir(lab.path("run/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["step-00000010"]);
    lab.ok(&["train", "--resume", "--device", "cpu", "--out", "run"]);
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_written() {
    let lab = Lab::new();
    let recipe = lab.write("tiny.toml", TINY);
    // A file where the folder should be cannot be written by anyone, not even by root.
    lab.write("taken", "");
    lab.refused(&["train", recipe.to_str().unwrap(), "--device", "cpu", "--out", "taken/run"], &["taken/run"]);
}
