//! Folders of images of no recipe: evaluated on, planned for and trained on, without a file written into them.

use std::path::Path;

use serde_json::Value;

use crate::cli::{Lab, TINY};

const CPU: [&str; 4] = ["--device", "cpu", "--threads", "1"];

/// A folder of images and masks with these values, in vertical stripes.
fn paint(lab: &Lab, folder: &str, values: &[u8], count: u8) {
    for part in ["images", "masks"] {
        std::fs::create_dir_all(lab.path(folder).join(part)).unwrap();
    }
    for i in 0..count {
        let value = |x: u32| values[(x as usize + usize::from(i)) / 5 % values.len()];
        let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([value(x) * 60, y as u8, i]));
        image.save(lab.path(folder).join(format!("images/{i}.png"))).unwrap();
        let mask = image::GrayImage::from_fn(32, 32, |x, _| image::Luma([value(x)]));
        mask.save(lab.path(folder).join(format!("masks/{i}.png"))).unwrap();
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A model of three classes, trained on the folder `home`.
fn model(lab: &Lab) -> &'static str {
    lab.write("tiny.toml", TINY);
    paint(lab, "home", &[0, 1, 2], 6);
    lab.ok(&["data", "init", "home", "--names", "sky,road,car"]);
    let train = ["train", "tiny.toml", "--set", "data.dataset=home/dataset.toml", "--set", "train.iterations=3"];
    lab.ok(&[&train[..], &["--out", "run"], &CPU].concat());
    "run/model.safetensors"
}

fn eval(lab: &Lab, arguments: &[&str]) -> Value {
    serde_json::from_str(&lab.ok(&[&["eval", model_of(), "--json"][..], arguments, &CPU].concat())).unwrap()
}

fn model_of() -> &'static str {
    "run/model.safetensors"
}

#[test]
fn a_model_is_evaluated_on_another_folder() {
    let lab = Lab::new();
    let model = model(&lab);
    // The same images with other numbers for the classes, in another order of names.
    paint(&lab, "other", &[2, 0, 1], 6);
    let all = lab.write(
        "other.toml",
        "name = 'o'\nclasses = ['road', 'car', 'sky']\n[val]\nimages = 'other/images'\nmasks = 'other/masks'\n",
    );
    let home = "[val]\nimages = 'home/images'\nmasks = 'home/masks'\n";
    lab.write("home.toml", format!("name = 'h'\nclasses = ['sky', 'road', 'car']\n{home}"));
    // Same pictures, so that only the numbers differ.
    for i in 0..6 {
        let name = format!("images/{i}.png");
        std::fs::copy(lab.path("home").join(&name), lab.path("other").join(&name)).unwrap();
    }
    let expected = eval(&lab, &["--data", "home.toml"]);
    assert_eq!(eval(&lab, &["--data", all.to_str().unwrap()])["matrix"], expected["matrix"]);
    assert_eq!(expected["images"], 6);
    // All splits of what the model was trained on are these images too.
    assert_eq!(eval(&lab, &["--split", "all"])["matrix"], expected["matrix"]);
    assert_eq!(eval(&lab, &["--data", "home", "--split", "all"])["matrix"], expected["matrix"]);
    assert_eq!(eval(&lab, &["--data", "home"])["images"], eval(&lab, &[])["images"]);
    assert_eq!(files(&lab.path("other")), ["images", "masks"]);

    // A bare folder has no names for its values: they are not guessed, and the remedy works.
    let talk =
        lab.refused(&["eval", model, "--data", "other"], &["the model knows sky, road, car", "--names sky,road,car"]);
    let remedy = talk.split("name them so: structtoken ").nth(1).unwrap();
    let words: Vec<String> = remedy
        .split(',')
        .next()
        .map(|_| remedy.split(", and then").next().unwrap().replace('\'', ""))
        .unwrap()
        .split(' ')
        .map(str::to_owned)
        .collect();
    lab.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let named = words.iter().skip_while(|word| *word != "--out").nth(1).unwrap();
    assert!(remedy.contains(&format!("and then --data {named}")), "{remedy}");
    assert_eq!(eval(&lab, &["--data", named, "--split", "all"])["images"], 6);
    assert_eq!(files(&lab.path("other")), ["images", "masks"]);

    // Classes that the model does not know, and some that the set lacks.
    lab.write("more.toml", format!("name = 'm'\nclasses = ['sky', 'tree', 'car']\n{home}"));
    lab.refused(
        &["eval", model, "--data", "more.toml"],
        &["it has `tree`, which the model does not know, and lacks `road`", "more.toml` has sky, tree, car", "ignore"],
    );
    lab.write("fewer.toml", format!("name = 'f'\nignore = [2]\nclasses = ['sky', 'road']\n{home}"));
    let fewer = lab.run(&[&["eval", model, "--data", "fewer.toml"][..], &CPU].concat());
    let talk = String::from_utf8_lossy(&fewer.stderr);
    assert!(fewer.status.success() && talk.contains("has no class car"), "{talk}");
    lab.refused(&["eval", model, "--data", "nowhere"], &["`nowhere` is not a dataset"]);

    // Shards of it are put together as of any other.
    for shard in ["1/2", "2/2"] {
        let out = format!("{}.json", &shard[..1]);
        lab.ok(
            &[&["eval", model, "--data", "home", "--split", "all", "--shard", shard, "--out", &out][..], &CPU].concat()
        );
    }
    let merged: Value = serde_json::from_str(&lab.ok(&["eval", "merge", "1.json", "2.json", "--json"])).unwrap();
    assert_eq!(merged["matrix"], expected["matrix"]);
}

/// What is read, and files that no evaluation wrote, are never replaced; its own are.
#[test]
fn scores_replace_nothing_but_scores() {
    let lab = Lab::new();
    let model = model(&lab);
    let kept = |name: &str| (lab.path(name), std::fs::read(lab.path(name)).unwrap());
    let (model_kept, image) = (kept(model), kept("home/images/0.png"));
    let run = |arguments: &[&str]| lab.run(&[&["eval"][..], arguments, &CPU].concat());
    for (option, name) in [("--out", model), ("--report", model), ("--out", "home/images/0.png")] {
        let output = run(&[model, option, name]);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{talk}");
        assert!(talk.contains(&format!("{option} would replace `{name}`")), "{talk}");
        assert!(talk.contains(&format!("hint: name another file after {option}")), "{talk}");
    }
    for shard in ["1/2", "2/2"] {
        assert!(run(&[model, "--shard", shard, "--out", &format!("{}.json", &shard[..1])]).status.success());
    }
    let shard = kept("1.json");
    let merge = ["eval", "merge", "1.json", "2.json", "--out"];
    assert_eq!(lab.run(&[&merge[..], &["1.json"]].concat()).status.code(), Some(1));
    for (path, bytes) in [model_kept, image, shard] {
        assert!(std::fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
    for _ in 0..2 {
        lab.ok(&[&merge[..], &["all.json"]].concat());
        assert!(run(&[model, "--out", "scores.json", "--report", "page.html"]).status.success());
    }
}

#[test]
fn outlines_are_drawn_elsewhere_for_an_evaluation() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    std::fs::create_dir_all(lab.path("yolo/images/val")).unwrap();
    for i in 0..3u8 {
        let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([x as u8, y as u8, i]));
        image.save(lab.path(&format!("yolo/images/val/{i}.png"))).unwrap();
        lab.write(&format!("yolo/labels/val/{i}.txt"), "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n");
    }
    lab.write("yolo/data.yaml", "val: images/val\ntrain: images/val\nnames: ['nut']\n");
    lab.ok(&["data", "init", "yolo", "--out", "drawn/yolo.toml"]);
    let train = ["train", "tiny.toml", "--set", "data.dataset=drawn/yolo.toml", "--set", "train.iterations=1"];
    lab.ok(&[&train[..], &["--out", "run"], &CPU].concat());
    let before = files(&lab.path("yolo"));
    let scores = eval(&lab, &["--data", "yolo"]);
    assert_eq!(scores["matrix"], eval(&lab, &[])["matrix"]);
    assert_eq!(files(&lab.path("yolo")), before);
}

#[test]
fn a_folder_is_described_beside_its_run() {
    let lab = Lab::new();
    paint(&lab, "data/stripes", &[0, 1], 8);
    let quick = ["--budget", "2s", "--set", "train.iterations=4", "--set", "train.save_every=1"];
    let plan = lab.run(&[&["train", "data/stripes", "--plan"][..], &quick, &CPU].concat());
    let (text, talk) = (String::from_utf8(plan.stdout).unwrap(), String::from_utf8_lossy(&plan.stderr).into_owned());
    assert!(plan.status.success(), "{talk}");
    assert!(text.contains("dataset = \"data/stripes/dataset.toml\"") && !text.contains(".structtoken-"), "{text}");
    assert_eq!(
        (files(&lab.path("data/stripes")), lab.path("runs").exists()),
        (vec!["images".into(), "masks".into()], false)
    );

    let begun = lab.run(&[&["train", "data/stripes", "--stop-after", "2"][..], &quick, &CPU].concat());
    let said = String::from_utf8_lossy(&begun.stderr);
    assert!(begun.status.code() == Some(130) && said.contains("wrote `runs/stripes/dataset.toml`"), "{said}");
    assert_eq!(files(&lab.path("data/stripes")), ["images", "masks"]);
    let resume = said.lines().find(|line| line.contains("train --resume")).unwrap().trim();
    let words: Vec<&str> = resume.split(' ').skip(1).chain(CPU).collect();
    lab.ok(&words);
    let model = "runs/stripes/model.safetensors";
    lab.ok(&[&["eval", model][..], &CPU].concat());
    // By the folder's name too.
    lab.ok(&[&["train", "data/stripes", "--resume"][..], &CPU].concat());

    // What the plan said to do first makes its recipe work.
    let recipe = lab.write("planned.toml", &text);
    let remedy = talk.lines().find_map(|line| line.split("structtoken ").nth(1)).unwrap().replace('\'', "");
    lab.ok(&remedy.split(' ').collect::<Vec<_>>());
    lab.ok(
        &[&["train", recipe.to_str().unwrap(), "--out", "planned", "--set", "train.iterations=1"][..], &CPU].concat()
    );

    // Seeds find it as well, and a folder that describes itself is taken as it is.
    paint(&lab, "bare", &[0, 1], 8);
    lab.ok(&[&["train", "bare", "--seeds", "2", "--out", "several"][..], &quick, &CPU].concat());
    assert_eq!(files(&lab.path("bare")), ["images", "masks"]);
    lab.ok(&[&["train", "data/stripes", "--out", "own"][..], &quick, &CPU].concat());
    assert!(!lab.path("own/dataset.toml").exists());
}
