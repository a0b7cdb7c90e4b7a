//! The same numbers as the published StructToken: activations, logits, gradients, optimizer steps.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Int, Tensor, TensorData};
use structtoken::backbone::{BackboneConfig, VitConfig, VitSize};
use structtoken::decoder::{BlockKind, DecoderConfig, StructTokenConfig};
use structtoken::image::Labels;
use structtoken::infer;
use structtoken::infer::InferConfig;
use structtoken::infer::View;
use structtoken::infer::{Padding, slide_logits, whole_logits};
use structtoken::kernels::{LossMean, Precision, with_precision};
use structtoken::layers::resize::{Mode, resize, resize_channels_last};
use structtoken::layers::{ForwardContext, parameters};
use structtoken::model::{Model, ModelConfig};
use structtoken::train::optimizer::{Gradients, Optimizer, OptimizerConfig};
use structtoken::train::schedule::Schedule;
use structtoken::weights;

use crate::golden::{Golden, allowed, channels_first, json, published_file, reference, test_device};
use crate::hashed::hashed;

const KINDS: [(&str, BlockKind); 3] = [("cse", BlockKind::Cse), ("sse", BlockKind::Sse), ("pwe", BlockKind::Pwe)];

fn tiny(kind: BlockKind, vit_drop: f64, head_drop: f64) -> ModelConfig {
    let vit = set!(VitConfig {
        embed_dim: Some(48),
        depth: Some(3),
        num_heads: Some(3),
        img_size: [64, 64],
        drop_path_rate: vit_drop,
        resize_positions: structtoken::backbone::vit::ResizePositions::Count
    });
    let decoder = set!(StructTokenConfig { block: kind, num_blocks: 2, drop_path_rate: head_drop });
    ModelConfig::new(BackboneConfig::Vit(vit), DecoderConfig::StructToken(decoder))
}

/// The published name of one of our parameters.
fn published(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("decoder.") {
        return format!("decode_head.{rest}");
    }
    name.replace("patch_embed.proj.", "patch_embed.projection.")
        .replace(".blocks.", ".layers.")
        .replace(".norm1.", ".ln1.")
        .replace(".norm2.", ".ln2.")
        .replace(".attn.qkv.", ".attn.attn.in_proj_")
        .replace(".attn.proj.", ".attn.attn.out_proj.")
        .replace(".mlp.fc1.", ".ffn.layers.0.0.")
        .replace(".mlp.fc2.", ".ffn.layers.1.")
}

fn load(model: Model, weights: &Golden) -> Model {
    parameters::map(model, |parameter, value| {
        let (shape, values) = weights.whole(&published(parameter.name));
        assert_eq!(shape, parameter.shape, "{}", parameter.name);
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &value.device())
    })
}

/// How many activations the reference left for these inputs.
fn activations(golden: &Golden, tags: &[&str]) -> usize {
    let names = golden.0.keys().filter_map(|name| name.split_once('.'));
    names.filter(|(tag, step)| tags.contains(tag) && !["input", "logits"].contains(step)).count()
}

fn upsampled(logits: Tensor<4>, size: (usize, usize)) -> TensorData {
    resize_channels_last(logits, size, Mode::Bilinear, false).into_data()
}

#[test]
fn activations_of_every_block_and_logits() {
    let device = test_device();
    for (name, kind) in KINDS {
        let folder = reference("structtoken/tiny");
        let weights = Golden::read(&folder.join(format!("st_tiny_{name}.safetensors")));
        let golden = Golden::read(&folder.join(format!("st_tiny_{name}_golden.safetensors")));
        let model = load(tiny(kind, 0.1, 0.1).blank(7, &device), &weights);
        let folded = model.clone().for_inference();
        let layers = |model: &Model| parameters::list(model).len();
        assert_eq!(layers(&model) - layers(&folded), if kind == BlockKind::Pwe { 4 } else { 0 }, "{name}");
        let mut compared = 0;
        for tag in ["a", "b", "q"] {
            let input = golden.tensor::<4>(&format!("{tag}.input"), &device);
            let [_, _, h, w] = input.dims();
            let context = ForwardContext::eval().traced();
            let logits = model.forward(input.clone(), &context).scores();
            if tag != "q" {
                let check = |logits, tolerance| {
                    golden.check(&format!("{tag}.logits"), &channels_first(&upsampled(logits, (h, w))), tolerance);
                };
                check(logits, 2e-5);
                check(folded.forward(input.clone(), &ForwardContext::eval()).scores(), 2e-5);
                // Which is f32 where there is no AMX.
                for model in [&model, &folded] {
                    let input = input.clone();
                    check(
                        with_precision(Precision::Bf16x3, || model.forward(input, &ForwardContext::eval()).scores()),
                        2e-4,
                    );
                }
            }
            for (step, data) in context.into_trace() {
                let step = format!("{tag}.{step}");
                if !golden.0.contains_key(&step) {
                    continue;
                }
                let values =
                    if data.shape().len() == 4 { channels_first(&data) } else { data.try_to_vec::<f32>().unwrap() };
                golden.check(&step, &values, 2e-5);
                compared += 1;
            }
        }
        assert_eq!(compared, activations(&golden, &["a", "b", "q"]), "{name}: some activations have no counterpart");
    }
}

#[test]
fn layer_norm_epsilons() {
    let device = test_device();
    for (name, kind) in KINDS {
        let folder = reference("structtoken/eps");
        let weights = Golden::read(&folder.join(format!("st_eps_{name}.safetensors")));
        let golden = Golden::read(&folder.join(format!("st_eps_{name}_golden.safetensors")));
        let model = load(tiny(kind, 0.1, 0.1).blank(7, &device), &weights);
        let mut compared = 0;
        for tag in ["a", "b"] {
            let context = ForwardContext::eval().traced();
            model.forward(golden.tensor::<4>(&format!("{tag}.input"), &device), &context);
            for (step, data) in context.into_trace() {
                let step = format!("{tag}.{step}");
                if golden.0.contains_key(&step) {
                    golden.check(&step, &channels_first(&data), 1e-5);
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, activations(&golden, &["a", "b"]), "{name}: some activations have no counterpart");
    }
}

#[test]
fn loss_and_every_gradient() {
    let device = test_device().autodiff();
    for (name, kind) in KINDS {
        let folder = reference("structtoken/tiny");
        let weights = Golden::read(&folder.join(format!("st_tiny_{name}.safetensors")));
        let golden = Golden::read(&folder.join(format!("st_tiny_{name}_grads.safetensors")));
        let model = load(tiny(kind, 0.1, 0.1).blank(7, &device), &weights);
        let input = golden.tensor::<4>("input", &device).require_grad();
        let loss = loss(&model, input.clone(), labels(&golden, "label", &device), &ForwardContext::eval());
        golden.check("loss_ce", &loss.clone().into_data().try_to_vec::<f32>().unwrap(), 2e-6);
        let grads = loss.backward();
        golden.check("grad.input", &input.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap(), 2e-4);
        check_gradients(&model, grads, &golden, 2e-4, 0);
    }
}

#[test]
fn dropped_paths() {
    let device = test_device().autodiff();
    for (name, kind) in KINDS {
        let folder = reference("structtoken/tiny");
        let weights = Golden::read(&folder.join(format!("st_tiny_{name}.safetensors")));
        let golden = Golden::read(&folder.join(format!("st_tiny_{name}_droppath.safetensors")));
        let model = load(tiny(kind, 0.4, 0.5).blank(7, &device), &weights);
        // Layers whose rate is 0 are not asked for; the others are, in the order of the network.
        let mut masks: Vec<(&String, &[f32])> = golden
            .0
            .keys()
            .filter(|name| name.starts_with("mask.") && !name.contains(".layers.0."))
            .map(|name| (name, golden.whole(name).1))
            .collect();
        masks.sort_by_key(|(name, _)| {
            (
                name.contains("decode_head"),
                name.contains("ffn") as usize * usize::from(name.contains("decode_head")),
                (*name).clone(),
            )
        });
        let mut queue = masks.into_iter();
        let context = ForwardContext::train_with(|batch, _| {
            let (_, mask) = queue.next().expect("more paths than masks");
            assert_eq!(mask.len(), batch);
            mask.iter().map(|kept| *kept == 1.0).collect()
        });
        let loss = loss(&model, golden.tensor::<4>("input", &device), labels(&golden, "label", &device), &context);
        drop(context);
        assert!(queue.next().is_none(), "{name}: fewer paths than masks");
        golden.check("loss_ce", &loss.clone().into_data().try_to_vec::<f32>().unwrap(), 2e-6);
        let grads = loss.backward();
        check_gradients(&model, grads, &golden, 2e-4, 3);
    }
}

#[test]
fn six_steps_of_adamw() {
    let device = test_device().autodiff();
    let schedule = set!(Schedule { warmup_iters: 3 });
    let config = set!(OptimizerConfig { lr: 1e-3, decoder_lr_mult: 8.0 });
    for (name, kind) in KINDS {
        let folder = reference("structtoken/tiny");
        let weights = Golden::read(&folder.join(format!("st_tiny_{name}.safetensors")));
        let golden = Golden::read(&folder.join(format!("st_tiny_{name}_train.safetensors")));
        let json: serde_json::Value = json(&folder.join(format!("st_tiny_{name}.json")));
        let steps = json["train_steps"].as_array().unwrap();
        assert_eq!(steps.len(), 6);
        let mut model = load(tiny(kind, 0.0, 0.0).blank(7, &device), &weights);
        let mut optimizer = Optimizer::new(&config);
        for (it, step) in steps.iter().enumerate() {
            let input = hashed(&format!("input.train{it}"), [2, 3, 64, 64], |u| (2.0 * (2.0 * u - 1.0)) as f32);
            let label = hashed(&format!("label.train{it}"), [2, 1, 64, 64], |u| {
                let class = (u * 8.0).floor() as f32;
                if class == 7.0 { 255.0 } else { class }
            });
            let label = Tensor::<4>::from_data(label, &device).int().reshape([2, 64, 64]);
            let loss = loss(&model, Tensor::from_data(input, &device), label, &ForwardContext::eval());
            let value = f64::from(loss.clone().into_scalar::<f32>());
            let expected = step["loss"].as_f64().unwrap();
            assert!((value - expected).abs() < allowed(5e-5) * expected, "{name} step {it}: {value} for {expected}");
            let lr = schedule.lr(config.lr, it as u64, it as f64 / 10.0);
            assert!((lr - step["lr_backbone"].as_f64().unwrap()).abs() < 1e-15);
            let grads = Gradients::of(&model, loss.backward());
            model = optimizer.step(model, grads, lr);
        }
        parameters::visit(&model, |parameter, value| {
            let values = value.into_data().try_to_vec::<f32>().unwrap();
            let expected = &golden.get(&format!("final.{}", published(parameter.name))).values;
            assert_eq!(values.len(), expected.len());
            // The key's bias has no true gradient: AdamW makes steps of rounding noise.
            let third = values.len() / 3;
            let noise =
                if parameter.name.ends_with("attn.qkv.bias") { third..2 * third } else { values.len()..values.len() };
            // Against f64; the steps move a weight by up to 2e-2, and the reference's own f32 run is 2.7e-5 away. Where
            // a gradient is next to nothing AdamW makes whole steps of its rounding, so single weights may be further
            // off.
            let kept = values.iter().zip(expected).enumerate();
            let kept = kept.filter(|(i, (_, expected))| !expected.is_nan() && !noise.contains(i));
            let off: Vec<f32> = kept.map(|(_, (value, expected))| (value - expected).abs()).collect();
            assert!(!off.is_empty() && values.iter().all(|value| value.is_finite()), "{name} {}", parameter.name);
            let worst = off.iter().fold(0f32, |max, off| max.max(*off));
            let rms = (off.iter().map(|off| off * off).sum::<f32>() / off.len() as f32).sqrt();
            assert!(
                f64::from(worst) < allowed(2e-4) && f64::from(rms) < allowed(2e-5),
                "{name} {}: {worst:e}, in the mean {rms:e}",
                parameter.name
            );
        });
    }
}

fn labels(golden: &Golden, name: &str, device: &Device) -> Tensor<3, Int> {
    let [b, _, h, w] = golden.get(name).shape[..] else { panic!("label shape") };
    golden.tensor::<4>(name, device).int().reshape([b, h, w])
}

fn loss(model: &Model, input: Tensor<4>, labels: Tensor<3, Int>, context: &ForwardContext) -> Tensor<1> {
    structtoken::kernels::upsample_cross_entropy(model.forward(input, context).scores(), labels, None, LossMean::All)
}

/// Compares the gradient of every parameter (`only` 0) or of the `only` ones in the file.
fn check_gradients(model: &Model, grads: burn::tensor::Gradients, golden: &Golden, tolerance: f32, only: usize) {
    let mut compared = 0;
    // A key's bias has no true gradient: compare it on the scale of the whole bias.
    for (name, grad) in parameters::gradients(model, grads) {
        let name = format!("grad.{}", published(&name));
        if only == 0 || golden.0.contains_key(&name) {
            golden.check(&name, &grad.into_data().try_to_vec::<f32>().unwrap(), tolerance);
            compared += 1;
        }
    }
    let expected = if only > 0 { only } else { golden.0.keys().filter(|name| name.starts_with("grad.")).count() - 1 };
    assert_eq!(compared, expected);
}

#[test]
fn parameters_and_multiply_accumulates() {
    let rows: Vec<serde_json::Value> = json(&reference("structtoken/params_flops.json"));
    assert_eq!(rows.len(), 12);
    for row in rows {
        let (_, kind) = KINDS.into_iter().find(|(name, _)| *name == row["variant"]).unwrap();
        let sizes =
            [("ViT-T", VitSize::Tiny), ("ViT-S", VitSize::Small), ("ViT-B", VitSize::Base), ("ViT-L", VitSize::Large)];
        let (_, size) = sizes.into_iter().find(|(name, _)| *name == row["backbone"]).unwrap();
        let image = row["input"].as_u64().unwrap() as usize;
        let vit = set!(VitConfig { size, img_size: [image, image] });
        let decoder = set!(StructTokenConfig { block: kind });
        let config = ModelConfig::new(BackboneConfig::Vit(vit), DecoderConfig::StructToken(decoder));

        let (mut backbone, mut head) = (0, 0);
        parameters::visit(&config.blank(150, &test_device()), |parameter, _| {
            let count = parameter.shape.iter().product::<usize>() as u64;
            *(if parameter.name.starts_with("backbone.") { &mut backbone } else { &mut head }) += count;
        });
        assert_eq!((Some(backbone), Some(head)), (row["params"]["backbone"].as_u64(), row["params"]["head"].as_u64()));

        let macs = |part: &str| -> u64 {
            let costs = config.macs(150, (image, image));
            costs.iter().filter(|cost| cost.part.starts_with(part)).map(|cost| cost.macs).sum()
        };
        let detail = |name: &str| row["detail"].get(name).map_or(0, |macs| macs.as_u64().unwrap());
        assert_eq!(macs("backbone.attention"), detail("backbone.attn_matmul"));
        assert_eq!(macs("backbone.mlp"), detail("backbone.linear"));
        assert_eq!(macs("decoder.convolutions"), detail("head.conv"));
        assert_eq!(macs("decoder.slice_attention"), detail("head.slice_attn_matmul"));
        assert_eq!(macs("") as f64 / 1e9, row["gmacs"]["total"].as_f64().unwrap());
    }
}

/// Any weight file of the published layout gives the same network.
#[test]
fn published_weight_files() {
    let device = test_device();
    let made = tempfile::tempdir().unwrap();
    let folder = reference("structtoken/tiny");
    for (name, kind) in KINDS {
        let golden = Golden::read(&folder.join(format!("st_tiny_{name}_golden.safetensors")));
        let expected = load(
            tiny(kind, 0.1, 0.1).blank(7, &device),
            &Golden::read(&folder.join(format!("st_tiny_{name}.safetensors"))),
        );
        let expected = weights::state_of(&expected).tensors;
        let endings: &[&str] = match kind {
            BlockKind::Cse => &[".safetensors", ".pth", "_legacy.pth"],
            BlockKind::Pwe => &[".safetensors", ".pth"],
            _ => &[".safetensors"],
        };
        for ending in endings {
            let path = published_file(&format!("{name}{ending}"), made.path());
            let state = weights::read(&path).unwrap();
            let options = weights::LoadOptions::strict();
            let (model, report) = weights::load(tiny(kind, 0.1, 0.1).blank(7, &device), &state, &options).unwrap();
            assert!(report.ignored.is_empty() && report.kept.is_empty(), "{report}");
            assert_eq!(weights::state_of(&model).tensors, expected, "{}", path.display());
            let logits = model.forward(golden.tensor::<4>("a.input", &device), &ForwardContext::eval()).scores();
            golden.check("a.logits16", &channels_first(&logits.into_data()), 2e-5);
        }
    }
}

/// Whole image, windows, rescaled, flipped, several scales: logits, probabilities and labels.
#[test]
fn inference_modes() {
    let device = test_device();
    let config = set!(InferConfig { crop: [64, 64], stride: [42, 42], padding: Padding::Stretch });
    for (name, kind) in KINDS {
        let folder = reference("structtoken/tiny");
        let golden = Golden::read(&folder.join(format!("st_tiny_{name}_golden.safetensors")));
        let file = Golden::read(&folder.join(format!("st_tiny_{name}.safetensors")));
        let model = load(tiny(kind, 0.1, 0.1).blank(7, &device), &file);
        let values = |tensor: Tensor<4>| tensor.into_data().try_to_vec::<f32>().unwrap();
        let input = |name: &str| golden.tensor::<4>(name, &device);
        let same_labels = |name: &str, labels: Vec<Labels>| {
            let (_, expected) = golden.whole(name);
            assert_eq!(labels[0].ids.len(), expected.len(), "{name}");
            let wrong =
                labels[0].ids.iter().zip(expected).filter(|(ours, theirs)| f32::from(**ours) != **theirs).count();
            assert!(
                wrong as f64 <= allowed(5e-4) * expected.len() as f64,
                "{name}: {wrong} of {} pixels differ",
                expected.len()
            );
        };

        golden.check("c.whole.logits", &values(whole_logits(&model, input("c.input"), Padding::Stretch)), 5e-5);
        let slide = slide_logits(&model, input("c.input"), [64, 64], [42, 42], Padding::Stretch);
        golden.check("c.slide.logits", &values(slide.clone()), 5e-5);
        golden.check("c.slide.rescaled_75x113", &values(resize(slide, (75, 113), Mode::Bilinear, false)), 5e-5);
        let view = |images, flipped| View::of_tensor(images, flipped);
        same_labels(
            "c.slide.pred",
            infer::labels(&model, &[view(input("c.input"), false)], (100, 150), &config).unwrap(),
        );

        let small = slide_logits(&model, input("d.input"), [64, 64], [42, 42], Padding::Stretch);
        golden.check("d.slide.logits", &values(small), 5e-5);
        let flipped = infer::probabilities(&model, &[view(input("d.input"), true)], (50, 90), &config).unwrap();
        golden.check("d.slide.prob_flip", &values(flipped), 5e-5);

        let mut views = Vec::new();
        for size in ["45x68", "60x90", "75x113"] {
            let images = input(&format!("e.input_{size}"));
            views.push(view(images.clone().flip([3]), true));
            views.push(view(images, false));
        }
        let mean = infer::probabilities(&model, &views, (60, 90), &config).unwrap();
        golden.check("e.aug.prob", &values(mean), 5e-5);
        same_labels("e.aug.pred", infer::labels(&model, &views, (60, 90), &config).unwrap());
    }
}

/// The learning rates and the groups of the published runs.
#[test]
fn learning_rates_and_groups() {
    let read = |name: &str| -> serde_json::Value { json(&reference("structtoken/pipeline").join(name)) };
    let rates = read("lr.json");
    let mut rows = 0;
    for (name, run) in rates.as_object().unwrap().iter().filter(|(name, _)| *name != "rule") {
        let (base, mult) = (run["lr"].as_f64().unwrap(), run["head_mult"].as_f64().unwrap());
        for row in run["rows_iter_lrbackbone_lrhead"].as_array().unwrap() {
            let (it, backbone, head) = (row[0].as_u64().unwrap(), row[1].as_f64().unwrap(), row[2].as_f64().unwrap());
            let lr = Schedule::default().lr(base, it, it as f64 / run["max_iters"].as_f64().unwrap());
            assert!((lr - backbone).abs() <= 1e-12 * base && (lr * mult - head).abs() <= 1e-11 * base, "{name} {it}");
            rows += 1;
        }
    }
    assert!(rows > 50, "{rows}");

    let groups = read("param_groups.json");
    let config = set!(OptimizerConfig { decoder_lr_mult: 9.0 });
    for (name, kind) in KINDS {
        let mut ours: BTreeMap<String, Vec<String>> = BTreeMap::new();
        parameters::visit(&tiny(kind, 0.1, 0.1).blank(7, &test_device()), |parameter, _| {
            let (factor, decay) = config.group(parameter.name, 2);
            let group = format!("lr={} wd={decay}", if factor == 1.0 { "2e-05" } else { "0.00018" });
            ours.entry(group).or_default().push(published(parameter.name));
        });
        let theirs: BTreeMap<String, Vec<String>> = serde_json::from_value(groups[name]["groups"].clone()).unwrap();
        let sorted = |groups: BTreeMap<String, Vec<String>>| -> BTreeMap<String, BTreeSet<String>> {
            groups.into_iter().map(|(group, names)| (group, names.into_iter().collect())).collect()
        };
        assert_eq!(sorted(ours), sorted(theirs), "{name}");
    }
}

/// Fresh weights are distributed as the reference's: mean, deviation and bounds of every parameter of ViT-T.
#[test]
fn initial_weights() {
    let stats: serde_json::Value = json(&reference("structtoken/pipeline/init_stats_vit_t.json"));
    for (name, kind) in KINDS {
        let vit = set!(VitConfig { size: VitSize::Tiny });
        let decoder = set!(StructTokenConfig { block: kind });
        let config = ModelConfig::new(BackboneConfig::Vit(vit), DecoderConfig::StructToken(decoder));
        let mut compared = 0;
        parameters::visit(&config.init(150, 1, &test_device()), |parameter, value| {
            let expected = &stats[name][published(parameter.name)];
            let values = value.into_data().try_to_vec::<f32>().unwrap();
            let n = values.len() as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            let std = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
            let (their_mean, their_std) = (expected["mean"].as_f64().unwrap(), expected["std"].as_f64().unwrap());
            // Both are samples: their deviations differ by a few of std / sqrt(2 n), their means by a few of std /
            // sqrt(n).
            let slack = 1e-5 + 6.0 * their_std / n.sqrt();
            assert!((mean - their_mean).abs() <= slack, "{name} {}: mean {mean} for {their_mean}", parameter.name);
            assert!((std - their_std).abs() <= slack, "{name} {}: deviation {std} for {their_std}", parameter.name);
            compared += 1;
        });
        assert_eq!(compared, stats[name].as_object().unwrap().len());
    }
}
