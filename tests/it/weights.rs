//! Weights as they come, and as they must not be: what the program does with them from end to end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::cli::{Lab, TINY};

/// Tensors as a safetensors file of f32.
fn write(path: &Path, tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>, metadata: &serde_json::Value) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    header.insert("__metadata__".into(), metadata.clone());
    for (name, (shape, values)) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(
            name.clone(),
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

/// A plain ViT of one block, 64 wide, patches of 8, a grid of 6 x 6 with `prefix` rows before it; names are timm's.
fn vit(prefix: usize, more: &[(&str, &[usize])]) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let d = 64;
    let table = [1, 36 + prefix, d];
    let mut shapes: Vec<(&str, Vec<usize>)> = vec![
        ("cls_token", vec![1, 1, d]),
        ("pos_embed", table.to_vec()),
        ("patch_embed.proj.weight", vec![d, 3, 8, 8]),
        ("patch_embed.proj.bias", vec![d]),
        ("blocks.0.norm1.weight", vec![d]),
        ("blocks.0.norm1.bias", vec![d]),
        ("blocks.0.attn.qkv.weight", vec![3 * d, d]),
        ("blocks.0.attn.qkv.bias", vec![3 * d]),
        ("blocks.0.attn.proj.weight", vec![d, d]),
        ("blocks.0.attn.proj.bias", vec![d]),
        ("blocks.0.norm2.weight", vec![d]),
        ("blocks.0.norm2.bias", vec![d]),
        ("blocks.0.mlp.fc1.weight", vec![4 * d, d]),
        ("blocks.0.mlp.fc1.bias", vec![4 * d]),
        ("blocks.0.mlp.fc2.weight", vec![d, 4 * d]),
        ("blocks.0.mlp.fc2.bias", vec![d]),
        ("blocks.0.ls1.gamma", vec![d]),
        ("blocks.0.ls2.gamma", vec![d]),
        ("norm.weight", vec![d]),
        ("norm.bias", vec![d]),
    ];
    shapes.extend(more.iter().map(|(name, shape)| (*name, shape.to_vec())));
    let values = |shape: &[usize]| (0..shape.iter().product()).map(|i: usize| (i % 7) as f32 * 0.01).collect();
    shapes.into_iter().map(|(name, shape)| (name.to_owned(), (shape.clone(), values(&shape)))).collect()
}

/// A file's name, rows before its table of positions, tensors beside the ViT's, and lines of the recipe.
type Case<'a> = (&'a str, usize, &'a [(&'a str, &'a [usize])], &'a [&'a str]);

/// A recipe is planned for the weights as they are, and training starts from them.
#[test]
fn registers_and_tables_without_a_class_row_are_planned() {
    let cases: [Case<'_>; 4] = [
        ("authors", 1, &[("register_tokens", &[1, 4, 64]), ("mask_token", &[1, 64])], &["reg_tokens = 4"]),
        ("timm", 0, &[("reg_token", &[1, 4, 64])], &["reg_tokens = 4", "no_embed_class = true"]),
        ("averaged", 1, &[("n_averaged", &[])], &["patch_size = 8"]),
        ("compiled", 0, &[], &["no_embed_class = true"]),
    ];
    let lab = Lab::new();
    for (name, prefix, more, expected) in cases {
        let mut tensors = vit(prefix, more);
        if name == "compiled" {
            tensors = tensors.into_iter().map(|(name, tensor)| (format!("model._orig_mod.{name}"), tensor)).collect();
        }
        let file = format!("{name}.safetensors");
        write(&lab.path(&file), &tensors, &serde_json::json!({}));
        let run = format!("run-{name}");
        let arguments = ["train", "shapes", "--pretrained", &file, "--device", "cpu", "--out", &run];
        let set = "train.iterations=1 train.batch_size=1 data.shapes.train=2 data.shapes.val=1 data.shapes.size=48";
        let set: Vec<&str> = set.split(' ').flat_map(|change| ["--set", change]).collect();
        lab.ok(&[&arguments[..], &set].concat());
        let recipe = std::fs::read_to_string(lab.path(&format!("{run}/config.toml"))).unwrap();
        for line in expected {
            assert!(recipe.contains(line), "{name}: {recipe}");
        }
    }
}

/// A file that lacks a stage is named, with what it lacks.
#[test]
fn incomplete_convolutional_networks_are_named() {
    let lab = Lab::new();
    let mut tensors = BTreeMap::from([("conv1.weight".to_owned(), (vec![8, 3, 7, 7], vec![0.1; 8 * 147]))]);
    for stage in 1..4 {
        for conv in 1..3 {
            tensors.insert(format!("layer{stage}.0.conv{conv}.weight"), (vec![8, 8, 3, 3], vec![0.1; 576]));
        }
    }
    write(&lab.path("cut.safetensors"), &tensors, &serde_json::json!({}));
    let arguments = ["train", "shapes", "--pretrained", "cut.safetensors", "--device", "cpu", "--out", "run"];
    lab.refused(&arguments, &["`cut.safetensors` lacks weights of `layer4`", "download it again"]);
}

/// timm's ResNet and ConvNeXt become the way down of a U-Net, trained from where they are; classifiers are left out,
/// and said.
#[test]
fn convolutional_networks_are_planned_as_encoders() {
    use structtoken::backbone::{AnyBackbone, BackboneConfig, ConvnextConfig, ResnetConfig};
    let resnet = BackboneConfig::Resnet(set!(ResnetConfig {
        layers: 18,
        depths: vec![1, 1, 1, 1],
        stem_channels: 8,
        channels: vec![8, 8, 16, 16]
    }));
    let convnext =
        BackboneConfig::Convnext(set!(ConvnextConfig { depths: vec![1, 1, 2, 1], channels: vec![8, 8, 16, 16] }));
    let init = |config: &BackboneConfig| -> AnyBackbone {
        config.init(&mut structtoken::layers::Init::new(1, &crate::golden::test_device()))
    };
    let lab = Lab::new();
    let cases = [
        ("resnet", resnet, "fc.weight", "ResNet of [1, 1, 1, 1] blocks"),
        ("convnext", convnext, "head.fc.weight", "ConvNeXt of [1, 1, 2, 1] blocks"),
    ];
    for (name, config, head, told) in cases {
        let mut tensors = BTreeMap::from([(head.to_owned(), (vec![2, 16], vec![0.5; 32]))]);
        structtoken::layers::parameters::visit(&init(&config), |parameter, value| {
            let values = value.into_data().iter::<f32>().collect();
            tensors.insert(parameter.name.to_owned(), (parameter.shape.to_vec(), values));
        });
        let file = format!("{name}.safetensors");
        write(&lab.path(&file), &tensors, &serde_json::json!({}));
        assert!(lab.ok(&["inspect", &file]).contains(told));
        let set = "train.iterations=1 train.batch_size=1 data.shapes.train=2 data.shapes.val=1 data.shapes.size=48";
        let set: Vec<&str> = set.split(' ').flat_map(|change| ["--set", change]).collect();
        let arguments = ["train", "shapes", "--pretrained", &file, "--device", "cpu", "--out", name];
        let run = lab.run(&[&arguments[..], &set].concat());
        let talk = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{talk}");
        for part in ["kept as initialised: backbone.ups", head, "in the file but not used"] {
            assert!(talk.contains(part), "no `{part}`: {talk}");
        }
        let recipe = std::fs::read_to_string(lab.path(name).join("config.toml")).unwrap();
        assert!(recipe.contains(&format!("type = \"{name}\"")), "{recipe}");
        // The trained model, and a recipe for another network.
        assert!(lab.ok(&["inspect", &format!("{name}/model.safetensors")]).contains(told));
        let refused =
            ["train", "demo.toml", "--set", &format!("train.pretrained={file}"), "--device", "cpu", "--out", "no"];
        lab.write("demo.toml", TINY);
        lab.refused(&refused, &["do not fit", &format!("type = \"{name}\""), "model.backbone.encoder"]);
    }
}

/// DINOv3's weights by each of its names, and DINOv2's with gates, are planned and trained from as they are; a recipe
/// for a plain ViT is told what to set.
#[test]
fn rotated_and_gated_transformers_are_planned() {
    let d = 64;
    let authors = |gated: bool| -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let mut tensors = vit(1, &[("storage_tokens", &[1, 4, 64]), ("mask_token", &[1, 64])]);
        tensors.remove("pos_embed");
        let mut mask = vec![1.0; 3 * d];
        mask[d..2 * d].fill(0.0);
        tensors.insert("blocks.0.attn.qkv.bias_mask".into(), (vec![3 * d], mask));
        let periods = (0..16).map(|j| 100f32.powf(j as f32 / 16.0)).collect();
        tensors.insert("rope_embed.periods".into(), (vec![16], periods));
        if gated {
            for (from, to) in [
                ("fc1.weight", "w1.weight"),
                ("fc1.bias", "w1.bias"),
                ("fc2.weight", "w3.weight"),
                ("fc2.bias", "w3.bias"),
            ] {
                let tensor = tensors.remove(&format!("blocks.0.mlp.{from}")).unwrap();
                tensors.insert(format!("blocks.0.mlp.{to}"), tensor.clone());
                if to.starts_with("w1") {
                    tensors.insert(format!("blocks.0.mlp.{}", to.replace("w1", "w2")), tensor);
                }
            }
        }
        tensors
    };
    let mut dinov2 = vit(1, &[]);
    dinov2.insert("blocks.0.mlp.w12.weight".into(), (vec![8 * d, d], vec![0.01; 8 * d * d]));
    dinov2.insert("blocks.0.mlp.w12.bias".into(), (vec![8 * d], vec![0.01; 8 * d]));
    for (from, to) in [("fc2.weight", "w3.weight"), ("fc2.bias", "w3.bias")] {
        let tensor = dinov2.remove(&format!("blocks.0.mlp.{from}")).unwrap();
        dinov2.insert(format!("blocks.0.mlp.{to}"), tensor);
    }
    dinov2.retain(|name, _| !name.contains(".fc1."));
    let lab = Lab::new();
    lab.write("plain.toml", TINY);
    let rotated = ["type = \"dinov3\"", "reg_tokens = 4", "qkv_bias = true"];
    let cases: [(&str, _, &[&str]); 3] = [
        ("authors", authors(false), &rotated),
        ("plus", authors(true), &[&rotated[..], &["mlp_layer = \"swiglu\""]].concat()),
        ("giant", dinov2, &["type = \"vit\"", "mlp_layer = \"swiglu\"", "final_norm = true"]),
    ];
    for (name, tensors, expected) in cases {
        let file = format!("{name}.safetensors");
        write(&lab.path(&file), &tensors, &serde_json::json!({}));
        assert!(lab.ok(&["inspect", &file]).contains("DINOv"));
        let arguments = ["train", "shapes", "--pretrained", &file, "--device", "cpu", "--out", name];
        let set = "train.iterations=1 train.batch_size=1 data.shapes.train=2 data.shapes.val=1 data.shapes.size=48";
        let set: Vec<&str> = set.split(' ').flat_map(|change| ["--set", change]).collect();
        lab.ok(&[&arguments[..], &set].concat());
        let recipe = std::fs::read_to_string(lab.path(&format!("{name}/config.toml"))).unwrap();
        for line in expected {
            assert!(recipe.contains(line), "{name}: {recipe}");
        }
        let pretrained = format!("train.pretrained={file}");
        let hint =
            if name == "giant" { "model.backbone.mlp_layer = \"swiglu\"" } else { "model.backbone.type = \"dinov3\"" };
        let refused = ["train", "plain.toml", "--set", &pretrained, "--device", "cpu", "--out", "no"];
        lab.refused(&refused, &["do not fit", hint]);
        // The model that was written, labels and learns on.
        let model = format!("{name}/model.safetensors");
        lab.ok(&["eval", &model, "--device", "cpu", "--labels-only", "--json"]);
        assert!(lab.ok(&["inspect", &model]).contains("backbone"));
    }
}

#[test]
fn weights_of_another_network_are_named_before_anything_is_planned() {
    let lab = Lab::new();
    for (mark, what) in [
        ("rope_embed.periods", "DINOv3"),
        ("blocks.0.mlp.w1.weight", "SwiGLU"),
        ("blocks.0.attn.rel_pos_h", "SAM"),
        ("layers.0.blocks.0.attn.relative_position_bias_table", "Swin"),
    ] {
        write(&lab.path("w.safetensors"), &vit(1, &[(mark, &[1])]), &serde_json::json!({}));
        let refusal = ["train", "shapes", "--pretrained", "w.safetensors", "--device", "cpu", "--out", "run"];
        lab.refused(&refusal, &["w.safetensors", what, "plain vision transformers"]);
        let told = lab.ok(&["inspect", "w.safetensors"]);
        assert!(told.contains(what), "{told}");
    }
}

/// Grids whose cells, or those and a class token, are a square number: their tables were once taken for square ones.
#[test]
fn a_grid_that_is_not_square_resumes_and_evaluates_to_the_same() {
    for (height, width) in [(16, 96), (64, 16)] {
        let lab = Lab::new();
        lab.write("r.toml", TINY.replace("img_size = [32, 32]", &format!("img_size = [{height}, {width}]")));
        let settings =
            format!("data.augment.crop=[{height}, {width}];train.iterations=6;train.eval_every=0;train.ema=0.9");
        let settings: Vec<&str> = settings.split(';').flat_map(|change| ["--set", change]).collect();
        let train = |out| [&["train", "r.toml", "--device", "cpu", "--out", out], &settings[..]].concat();
        lab.ok(&train("whole"));
        let first = lab.run(&[&train("parts")[..], &["--stop-after", "3"]].concat());
        assert_eq!(first.status.code(), Some(130), "{}", String::from_utf8_lossy(&first.stderr));
        lab.ok(&["train", "--resume", "--out", "parts", "--device", "cpu"]);
        let bytes = |path: &str| std::fs::read(lab.path(path)).unwrap();
        for file in [
            "model.safetensors",
            "checkpoints/step-00000006/model.safetensors",
            "checkpoints/step-00000006/ema.safetensors",
        ] {
            assert!(bytes(&format!("whole/{file}")) == bytes(&format!("parts/{file}")), "{file} on {height} x {width}");
        }
        let scores: serde_json::Value = serde_json::from_slice(&bytes("whole/scores.json")).unwrap();
        let again = lab.ok(&["eval", "whole/model.safetensors", "--device", "cpu", "--labels-only", "--json"]);
        let again: serde_json::Value = serde_json::from_str(&again).unwrap();
        assert_eq!(again["scores"]["miou"].as_f64().or(again["miou"].as_f64()), scores["miou"].as_f64());
    }
}

fn trained(lab: &Lab) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    lab.write("r.toml", TINY);
    lab.ok(&["train", "r.toml", "--device", "cpu", "--out", "run", "--set", "train.iterations=2"]);
    let state = structtoken::weights::read(&lab.path("run/model.safetensors")).unwrap();
    state.tensors.into_iter().map(|(name, tensor)| (name, (tensor.shape, tensor.data))).collect()
}

fn metadata(lab: &Lab) -> serde_json::Value {
    serde_json::json!(structtoken::weights::read_metadata(&lab.path("run/model.safetensors")).unwrap())
}

#[test]
fn logits_that_are_no_numbers_are_errors_everywhere() {
    let lab = Lab::new();
    let mut tensors = trained(&lab);
    let name = tensors.keys().find(|name| name.ends_with("mlp.fc2.weight")).unwrap().clone();
    tensors.get_mut(&name).unwrap().1.fill(3e38);
    write(&lab.path("huge.safetensors"), &tensors, &metadata(&lab));
    image::RgbImage::from_fn(70, 50, |x, y| image::Rgb([x as u8, y as u8, 9])).save(lab.path("photo.png")).unwrap();
    for change in ["eval.mode=slide", "eval.mode=whole", "eval.precision=bf16"] {
        let predict = ["predict", "huge.safetensors", "photo.png", "--device", "cpu", "--set", change];
        lab.refused(&predict, &["photo.png", "not a number", "inspect"]);
        assert!(!lab.path("predictions/photo.png").exists());
        for more in [&["--labels-only"][..], &["--report", "page.html"], &[]] {
            let eval = ["eval", "huge.safetensors", "--device", "cpu", "--set", change];
            lab.refused(&[&eval[..], more].concat(), &["cannot evaluate on", "not a number"]);
        }
    }
    // What the hint says to do shows the culprit.
    let told = lab.ok(&["inspect", "huge.safetensors"]);
    let line = told.lines().find(|line| line.contains(&name)).unwrap();
    assert!(line.split_whitespace().last().unwrap().parse::<f64>().unwrap() > 2.9e38, "{line}");
}

#[test]
fn a_card_of_impossible_sizes_is_refused_before_memory_is_taken() {
    let lab = Lab::new();
    let tensors = trained(&lab);
    image::RgbImage::new(20, 20).save(lab.path("photo.png")).unwrap();
    for (key, value) in [
        ("embed_dim", serde_json::json!(16_384)),
        ("embed_dim", serde_json::json!(1u64 << 62)),
        ("img_size", serde_json::json!([65_536, 65_536])),
        ("depth", serde_json::json!(1024)),
        ("patch_size", serde_json::json!(1024)),
        ("reg_tokens", serde_json::json!(1024)),
    ] {
        let mut metadata = metadata(&lab);
        let mut card: serde_json::Value = serde_json::from_str(metadata["structtoken"].as_str().unwrap()).unwrap();
        card["model"]["backbone"][key] = value;
        metadata["structtoken"] = card.to_string().into();
        write(&lab.path("hostile.safetensors"), &tensors, &metadata);
        lab.refused(&["predict", "hostile.safetensors", "photo.png", "--device", "cpu"], &["hostile.safetensors"]);
        lab.refused(&["eval", "hostile.safetensors", "--device", "cpu"], &["hostile.safetensors"]);
    }
}

/// With little address space the program works, or says what it needed; it never aborts.
#[cfg(target_os = "linux")]
#[test]
fn little_memory_is_an_error() {
    let lab = Lab::new();
    trained(&lab);
    image::RgbImage::new(20, 20).save(lab.path("photo.png")).unwrap();
    let under = |kilobytes: u64, arguments: &str| {
        let binary = env!("CARGO_BIN_EXE_structtoken");
        let script = format!("ulimit -v {kilobytes} && exec {binary} {arguments} --device cpu --threads 2");
        let ended = Command::new("sh").args(["-c", &script]).current_dir(lab.path("")).output().unwrap();
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    for (number, kilobytes) in [6_000_000, 160_000, 130_000, 100_000, 70_000].into_iter().enumerate() {
        for command in [
            "predict run/model.safetensors photo.png".to_owned(),
            "eval run/model.safetensors".to_owned(),
            format!("train r.toml --out low-{number} --set train.iterations=2"),
        ] {
            match under(kilobytes, &command) {
                (Some(0), _) => {}
                (Some(1), talk) => {
                    assert!(kilobytes < 1_000_000, "{command}: {talk}");
                    assert!(talk.contains("error: ") && talk.contains("hint: "), "{command} under {kilobytes}: {talk}");
                }
                // Not even the first bytes of a thread are left: the C library's own words.
                (None, talk) if talk.contains("glibc") && talk.contains("out of memory") => {
                    assert!(kilobytes < 1_000_000, "{command}: {talk}");
                }
                (code, talk) => panic!("{command} under {kilobytes} ended with {code:?}: {talk}"),
            }
        }
    }
    // Beyond any machine.
    let much = ["train", "r.toml", "--device", "cpu", "--out", "much", "--set", "train.batch_size=65536"];
    lab.refused(&[&much[..], &["--set", "data.augment.crop=[4096, 4096]"]].concat(), &["needs about", "batch_size"]);
}
