//! The recipes: the published ones say what the published code does, and all of them read.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use structtoken::config::Config;

use crate::golden::reference;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn recipes(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "datasets" {
            recipes(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "toml") {
            found.push(path);
        }
    }
}

#[test]
fn every_recipe_reads_and_resolves() {
    let mut found = Vec::new();
    recipes(&root().join("configs"), &mut found);
    assert!(found.len() >= 14, "{found:?}");
    for path in found {
        let config = Config::read(&path, &[]).unwrap();
        let again = Config::parse(&config.to_toml().unwrap(), "resolved.toml", &[]).unwrap();
        assert_eq!(config, again, "{}", path.display());
        config.data.classes().unwrap();
    }
}

/// The values of our eleven recipes for ADE20K against the resolved configurations of the published code.
#[test]
fn the_published_rows() {
    let path = reference("structtoken/pipeline/official_configs_resolved.json");
    let official: serde_json::Map<String, Value> = crate::golden::json(&path);
    assert_eq!(official.len(), 11);
    for (name, theirs) in official {
        // vit-b_struct-token-cse_ade20k_512x512
        let parts: Vec<&str> = name.split(['_', 'x']).collect();
        let (backbone, block, crop) = (parts[0], parts[1].trim_start_matches("struct-token-"), parts[3]);
        let path = root().join(format!("configs/ade20k/structtoken-{block}_{backbone}_{crop}.toml"));
        let ours = serde_json::to_value(Config::read(&path, &[]).unwrap()).unwrap();
        let config = Config::read(&path, &[]).unwrap();

        let (vit, head) = (&theirs["model"]["backbone"], &theirs["model"]["decode_head"]);
        let structtoken::backbone::BackboneConfig::Vit(our_vit) = &config.model.backbone else { unreachable!() };
        let (dim, depth, heads) = our_vit.dims();
        assert_eq!(
            json!([dim, depth, heads]),
            json!([vit["embed_dims"], vit["num_layers"], vit["num_heads"]]),
            "{name}"
        );
        assert_eq!(json!(our_vit.img_size), vit["img_size"], "{name}");
        assert_eq!(vit["final_norm"].as_bool().unwrap_or(false), our_vit.final_norm, "{name}");
        same(&name, &ours["model"]["decoder"]["num_blocks"], &head["num_layers"]);
        assert_eq!(config.data.classes().unwrap().len() as u64, head["num_classes"].as_u64().unwrap());

        let norm = &theirs["img_norm_cfg"];
        same(&name, &ours["data"]["preprocess"]["mean"], &norm["mean"]);
        same(&name, &ours["data"]["preprocess"]["std"], &norm["std"]);
        let step =
            |kind: &str| theirs["train_pipeline"].as_array().unwrap().iter().find(|step| step["type"] == kind).unwrap();
        let augment = &ours["data"]["augment"];
        same(&name, &augment["resize"]["scale"], &step("Resize")["img_scale"]);
        same(&name, &augment["resize"]["ratio"], &step("Resize")["ratio_range"]);
        same(&name, &augment["crop"], &step("RandomCrop")["crop_size"]);
        same(&name, &augment["cat_max_ratio"], &step("RandomCrop")["cat_max_ratio"]);
        same(&name, &augment["flip"], &step("RandomFlip")["prob"]);
        assert_eq!(augment["photometric"], true);

        let (optimizer, adamw) = (&ours["train"]["optimizer"], &theirs["optimizer"]);
        for key in ["lr", "betas", "weight_decay"] {
            same(&name, &optimizer[key], &adamw[key]);
        }
        same(&name, &optimizer["decoder_lr_mult"], &adamw["paramwise_cfg"]["custom_keys"]["decode_head"]["lr_mult"]);
        assert_eq!(optimizer["clip_norm"], Value::Null);
        let schedule = &ours["train"]["schedule"];
        for key in ["warmup_iters", "warmup_ratio", "power", "min_lr"] {
            same(&name, &schedule[key], &theirs["lr_config"][key]);
        }
        same(&name, &ours["train"]["iterations"], &theirs["runner"]["max_iters"]);
        same(&name, &ours["train"]["eval_every"], &theirs["evaluation"]["interval"]);
        assert_eq!(
            ours["train"]["batch_size"].as_u64(),
            theirs["data"]["samples_per_gpu"].as_u64().map(|images| images * 8)
        );
        assert_eq!(ours["train"]["loss_mean"], "all");

        let test = &theirs["model"]["test_cfg"];
        for (key, their_key) in [("mode", "mode"), ("crop", "crop_size"), ("stride", "stride")] {
            same(&name, &ours["eval"][key], &test[their_key]);
        }
        let views = theirs["test_pipeline"]
            .as_array()
            .unwrap()
            .iter()
            .find(|step| step["type"] == "MultiScaleFlipAug")
            .unwrap();
        same(&name, &ours["eval"]["resize"], &views["img_scale"]);
        same(&name, &ours["eval"]["flip"], &views["flip"]);
    }
}

/// Equal, where 8 and 8.0 are the same and single precision is enough.
fn same(name: &str, ours: &Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{name}: {ours} for {theirs}");
            a.iter().zip(b).for_each(|(a, b)| same(name, a, b));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-7 * b.abs(), "{name}: {ours} for {theirs}");
        }
        _ => assert_eq!(ours, theirs, "{name}"),
    }
}
