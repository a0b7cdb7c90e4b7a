//! Runs that end in time, that begin again, and that go on from another model: from outside.

use crate::bad_input::set;
use crate::cli::{Lab, TINY};

fn manifest(lab: &Lab, run: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(lab.path(run).join("manifest.json")).unwrap()).unwrap()
}

/// However fast the machine is: a million iterations do not fit into a second, and what did is repeated by its
/// reschedules.
#[test]
fn a_run_with_a_limit_ends_and_is_repeated() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let train = ["train", "tiny.toml", "--device", "cpu", "--set", "train.iterations=1000000"];
    let sparse = ["--set", "train.log_every=1000", "--set", "train.eval_every=100000"];
    let run = lab.run(&[&train[..], &sparse, &["--out", "limited", "--set", "train.max_time=1s"]].concat());
    let talk = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && talk.contains("slower than planned: "), "{talk}");
    let reschedules = manifest(&lab, "limited")["reschedules"].to_string();
    assert!(reschedules.len() > 4, "{reschedules}");
    let page = std::fs::read_to_string(lab.path("limited/report.html")).unwrap();
    assert!(page.contains("Length, adjusted to the time"));
    let change = format!("train.schedule.reschedules={reschedules}");
    lab.ok(&[&train[..], &sparse, &["--out", "repeated", "--set", &change]].concat());
    for file in ["model.safetensors", "scores.json"] {
        let [a, b] = ["limited", "repeated"].map(|run| std::fs::read(lab.path(run).join(file)).unwrap());
        assert!(a == b, "{file}");
    }
    let both = ["--out", "both", "--set", &change, "--set", "train.max_time=1s"];
    lab.refused(&[&train[..], &both].concat(), &["leave out one of them"]);
    lab.refused(
        &[&train[..], &["--out", "x", "--set", "train.max_time=soon"]].concat(),
        &["`soon` is not a duration", "1h30m"],
    );
}

#[test]
fn plans_say_their_time_and_the_demo_keeps_its_iterations() {
    let lab = Lab::new();
    let small = ["--set", "data.shapes.size=32", "--set", "data.shapes.train=200", "--set", "data.shapes.val=4"];
    let plan = ["train", "shapes", "--device", "cpu", "--budget", "2s", "--plan"];
    let text = lab.ok(&[&plan[..], &small].concat());
    assert!(text.contains("max_time = \"2s\"") && text.contains("restarts = 2"), "{text}");
    let mine = lab.ok(&[&plan[..], &small, &["--set", "train.iterations=7"]].concat());
    assert!(!mine.contains("max_time") && !mine.contains("max_iterations"), "{mine}");

    let talk = lab.run(&["demo", "--device", "cpu", "--budget", "2h", "--set", "train.iterations=4"]);
    assert!(talk.status.success(), "{}", String::from_utf8_lossy(&talk.stderr));
    let recipe = std::fs::read_to_string(lab.path("runs/demo/config.toml")).unwrap();
    assert!(recipe.contains("max_time = \"2h\"") && !recipe.contains("max_iterations"), "{recipe}");
    assert!(lab.path("runs/demo/checkpoints/step-00000004").exists());
}

#[test]
fn a_collapsed_run_is_begun_again_where_its_recipe_lets_it() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let wild = ["--set", "train.optimizer.lr=10", "--set", "train.schedule.warmup_iters=0", "--device", "cpu"];
    let train = [&["train", "tiny.toml"][..], &wild].concat();
    let warned = lab.run(&[&train[..], &["--out", "warned"]].concat());
    let talk = String::from_utf8_lossy(&warned.stderr);
    assert!(
        warned.status.success() && talk.contains("the run has collapsed") && !talk.contains("starting again"),
        "{talk}"
    );
    let again = [&train[..], &["--out", "again", "--set", "train.restarts=1"]].concat();
    let run = lab.run(&again);
    let talk = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && talk.contains("starting again: train.optimizer.lr: 10.0 -> 3.3"), "{talk}");
    assert!(lab.path("again/collapsed-1/config.toml").exists() && lab.path("again/report.html").exists());
    assert_eq!(manifest(&lab, "again")["collapsed"][0]["folder"], "collapsed-1");
    // Interrupted, it goes on as what it has become.
    let cut = [&train[..], &["--out", "cut", "--set", "train.restarts=1", "--stop-after", "40"]].concat();
    assert_eq!(lab.run(&cut).status.code(), Some(130));
    lab.ok(&["train", "--resume", "--out", "cut", "--device", "cpu"]);
    let [a, b] = ["again", "cut"].map(|run| std::fs::read(lab.path(run).join("model.safetensors")).unwrap());
    assert!(a == b);
}

#[test]
fn a_model_goes_on_with_other_classes() {
    let lab = Lab::new();
    let recipe = set(&lab);
    let short = ["--device", "cpu", "--set", "train.iterations=3"];
    let own_mean = ["--set", "data.preprocess.mean=[100.0, 100.0, 100.0]"];
    lab.ok(&[&["train", &recipe, "--out", "first"][..], &short, &own_mean].concat());
    let model = "first/model.safetensors";
    lab.write(
        "more.toml",
        std::fs::read_to_string(lab.path("set.toml"))
            .unwrap()
            .replace("[\"ground\", \"thing\"]", "[\"thing\", \"ground\", \"other\"]"),
    );
    // A recipe without a network of its own.
    let text = TINY.replace("dataset = \"shapes\"", "dataset = \"more.toml\"");
    let (head, tail) = text.split_once("[model.backbone]").unwrap();
    let bare = format!("{head}{}", &tail[tail.find("[data]").unwrap()..]);
    lab.write("bare.toml", &bare);
    let run = lab.run(&[&["train", "bare.toml", "--from", model, "--out", "second"][..], &short].concat());
    let talk = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{talk}");
    assert!(talk.contains("classes kept: thing, ground; new: other; dropped: none"), "{talk}");
    let config = std::fs::read_to_string(lab.path("second/config.toml")).unwrap();
    assert!(config.contains("embed_dim = 24") && config.contains("mean = [100.0, 100.0, 100.0]"), "{config}");
    // It is resumed without the option.
    lab.run(&[&["train", "bare.toml", "--from", model, "--out", "cut", "--stop-after", "2"][..], &short].concat());
    lab.ok(&["train", "--resume", "--out", "cut", "--device", "cpu"]);
    let [a, b] = ["second", "cut"].map(|run| std::fs::read(lab.path(run).join("model.safetensors")).unwrap());
    assert!(a == b);
    // A dataset for which a recipe is planned.
    let planned = ["train", "more.toml", "--from", model, "--plan", "--budget", "2s", "--device", "cpu"];
    let text = lab.ok(&planned);
    assert!(
        text.contains("as the model has it") && text.contains("train.pretrained") || text.contains("pretrained = "),
        "{text}"
    );
    lab.write("planned.toml", &text);
    lab.ok(&["inspect", "planned.toml"]);
    let mut really = planned.to_vec();
    really[4] = "--out";
    really.insert(5, "third");
    let run = lab.run(&really);
    let talk = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && talk.contains("new: other"), "{talk}");

    // What does not fit is refused, and the remedies that are told work.
    lab.write(
        "fcn.toml",
        TINY.replace("type = \"structtoken\"\nblock = \"pwe\"\nnum_blocks = 2", "type = \"fcn\"")
            .replace("dataset = \"shapes\"", "dataset = \"more.toml\""),
    );
    let other = [&["train", "fcn.toml", "--out", "fourth"][..], &short].concat();
    let from = [&other[..], &["--from", model]].concat();
    lab.refused(&from, &["another decoder", "leave [model] out", "pretrained_backbone_only=true"]);
    let backbone =
        ["--set", "train.pretrained=first/model.safetensors", "--set", "train.pretrained_backbone_only=true"];
    lab.refused(&[&other[..], &backbone[..2]].concat(), &["`structtoken`, and the recipe's is `fcn`", "--from"]);
    std::fs::remove_dir_all(lab.path("fourth")).ok();
    lab.ok(&[&other[..], &backbone].concat());
    lab.write("no.safetensors", "");
    lab.refused(&["train", "bare.toml", "--from", "no.safetensors"], &["cannot continue from", "--pretrained"]);
}
