//! What a model relies on, from the command line.

use crate::cli::{Lab, TINY};

const MODEL: &str = "run/model.safetensors";

/// A folder with a model that was trained for a moment, and one of another seed.
fn trained() -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    for (out, seed) in [("run", "train.seed=0"), ("other", "train.seed=1")] {
        let few = ["--set", "train.iterations=2", "--set", "train.eval_every=0", "--set", seed];
        lab.ok(&[&["train", "tiny.toml", "--device", "cpu", "--out", out][..], &few[..]].concat());
    }
    lab
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_threads() {
    let lab = trained();
    let other = "other/model.safetensors";
    let probe = |arguments: &[&str]| {
        let base = ["probe", MODEL, "--device", "cpu", "--images", "2", "--cues", "rolled,grey,texture-other"];
        lab.ok(&[&base[..], arguments].concat())
    };
    let json =
        probe(&["--json", "--other-seed", other, "--threads", "1", "--report", "page.html", "--out", "found.json"]);
    assert_eq!(json, probe(&["--json", "--other-seed", other, "--threads", "2"]));
    assert_ne!(json, probe(&["--json", "--other-seed", other, "--seed", "1"]));
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(std::fs::read_to_string(lab.path("found.json")).unwrap().trim(), json.trim());
    let names = |list: &serde_json::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (found["images"].as_u64(), names(&found["cues"])),
        (Some(2), vec!["texture-other".into(), "grey".into(), "rolled".into()])
    );
    assert_eq!(names(&found["tokens"]["edits"]).last().map(String::as_str), Some("other-seed"));
    assert_eq!(found["verdicts"].as_array().unwrap().len(), 6);
    let page = std::fs::read_to_string(lab.path("page.html")).unwrap();
    assert!(page.contains("What run relies on") && page.contains("texture-other"));
    let text = probe(&[]);
    assert!(text.contains("texture-other") && text.contains("learned tokens"), "{text}");
}

/// All commands run one form of the network, which shows where its products are rounded.
#[test]
fn a_probe_sees_what_an_evaluation_sees() {
    let lab = Lab::new();
    lab.write("wide.toml", TINY.replace("embed_dim = 24", "embed_dim = 64"));
    let few = ["--set", "train.iterations=20", "--set", "train.eval_every=20", "--set", "eval.precision=\"bf16\""];
    lab.ok(&[&["train", "wide.toml", "--device", "cpu", "--out", "run"][..], &few[..]].concat());
    let json = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&lab.ok(&[words, &["--device", "cpu", "--json"]].concat())).unwrap()
    };
    let eval = json(&["eval", MODEL]);
    let probe = json(&["probe", MODEL, "--images", "6", "--cues", "grey"]);
    let classes = probe["cues"][0]["classes"].as_array().unwrap();
    assert!(classes.len() > 1);
    for class in classes {
        let evaluated = eval["classes"].as_array().unwrap().iter().find(|one| one["name"] == class["class"]).unwrap();
        assert_eq!(class["iou"]["before"], evaluated["iou"], "{}", class["class"]);
    }
    let trained = std::fs::read_to_string(lab.path("run/log.ndjson")).unwrap();
    let last = trained.lines().rfind(|line| line.contains("miou")).unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["miou"], eval["miou"], "{last}");
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let lab = trained();
    let probe = ["probe", MODEL, "--device", "cpu", "--images", "1", "--cues", "grey"];
    lab.write("notes.html", "mine");
    lab.refused(&[&probe[..], &["--report", "notes.html"]].concat(), &["--report would replace `notes.html`"]);
    lab.refused(&[&probe[..], &["--out", MODEL]].concat(), &["which is read"]);
    lab.write("small.toml", TINY.replace("img_size = [32, 32]", "img_size = [16, 16]"));
    let few = ["--set", "train.iterations=1", "--set", "train.eval_every=0"];
    lab.ok(&[&["train", "small.toml", "--device", "cpu", "--out", "small"][..], &few[..]].concat());
    let hint = "trained from another seed";
    lab.refused(&[&probe[..], &["--other-seed", "small/model.safetensors"]].concat(), &["other tokens", hint]);
    let output = lab.run(&["probe", MODEL, "--cues", "smell"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("texture-other"));
}

/// A set of the family trains, and a key that has no use is an error.
#[test]
fn generated_sets_are_asked_for_by_their_cue() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let base = ["train", "tiny.toml", "--device", "cpu", "--set", "train.iterations=1"];
    lab.ok(&[&base[..], &["--out", "run", "--set", "data.shapes.cue=\"parts\""]].concat());
    let card = lab.ok(&["inspect", MODEL]);
    assert!(card.contains("triangle inside"), "{card}");
    let useless = ["--out", "other", "--set", "data.shapes.conflict=0.5"];
    lab.refused(&[&base[..], &useless].concat(), &["conflict has no use", "set data.shapes.cue to both"]);
}
