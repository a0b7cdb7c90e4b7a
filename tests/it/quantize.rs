//! Models that compute in eight bits.

use structtoken::model_file::read_card;

use crate::cli::{Lab, TINY};

/// A model whose affine maps are wide enough for eight bits, trained for a moment.
fn model(lab: &Lab) -> String {
    let recipe = lab.write("wide.toml", TINY);
    let wide =
        ["model.backbone.embed_dim=64", "model.backbone.num_heads=2", "train.iterations=20", "train.eval_every=0"];
    let changes: Vec<&str> = wide.iter().flat_map(|change| ["--set", change]).collect();
    lab.ok(&[&["train", recipe.to_str().unwrap(), "--device", "cpu"][..], &changes].concat());
    lab.path("runs/wide/model.safetensors").to_str().unwrap().to_owned()
}

#[test]
fn eight_bits_are_used_once_their_cost_is_known() {
    let lab = Lab::new();
    let model = model(&lab);
    let photo = lab.path("photo.png");
    image::RgbImage::from_fn(48, 48, |x, y| image::Rgb([(x * 5) as u8, (y * 5) as u8, (x * y) as u8]))
        .save(&photo)
        .unwrap();
    let photo = photo.to_str().unwrap();
    let by_hand = ["predict", &model, photo, "--set", "eval.precision=int8", "--device", "cpu"];
    let talk = lab.refused(&by_hand, &["what eight bits cost", "structtoken quantize"]);
    // The command that the hint names.
    let (_, rest) = talk.split_once("hint: structtoken ").unwrap();
    let (command, _) = rest.split_once(" writes").unwrap();
    let remedy: Vec<&str> = command.split(' ').chain(["--json", "--device", "cpu"]).collect();
    let said: serde_json::Value = serde_json::from_str(&lab.ok(&remedy)).unwrap();
    let card = read_card(lab.path("int8.safetensors")).unwrap();
    let found = card.int8.unwrap();
    assert_eq!(said["miou_int8"].as_f64(), Some(found.miou_int8));
    assert_eq!(found.miou_f32, read_card(&model).unwrap().training.unwrap().miou.unwrap());
    assert!(found.check().is_ok() && found.images > 0);

    lab.ok(&["predict", "int8.safetensors", photo, "--out", "masks", "--device", "cpu"]);
    let eval: serde_json::Value =
        serde_json::from_str(&lab.ok(&["eval", "int8.safetensors", "--json", "--device", "cpu"])).unwrap();
    assert_eq!(eval["miou"].as_f64(), Some(found.miou_int8));
    let whole: serde_json::Value = serde_json::from_str(&lab.ok(&[
        "eval",
        "int8.safetensors",
        "--set",
        "eval.precision=f32",
        "--json",
        "--device",
        "cpu",
    ]))
    .unwrap();
    assert_eq!(whole["miou"].as_f64(), Some(found.miou_f32));
    lab.refused(&["quantize", &model, "-o", "int8.safetensors", "--device", "cpu"], &["exists", "hint: "]);
    lab.refused(&["quantize", "wide.toml", "-o", "x.safetensors"], &["is a recipe"]);
    let train = ["train", "wide.toml", "--set", "train.precision=int8", "--device", "cpu"];
    lab.refused(&train, &["is for inference", "bf16"]);
    let bench = |rest: &[&'static str]| [&["bench", "wide.toml", "--repeat", "1", "--device", "cpu"], rest].concat();
    lab.refused(&bench(&["--train", "--precision", "int8"]), &["eight bits"]);
    lab.ok(&bench(&["--train", "--precision", "bf16"]));
    lab.ok(&bench(&["--precision", "int8"]));
}
