//! The same numbers as mmsegmentation's heads: FCN, Segmenter, K-Net.

use burn::tensor::{Device, Tensor};
use structtoken::backbone::{BackboneConfig, VitConfig};
use structtoken::decoder::{DecoderConfig, FcnConfig, KnetConfig, Output, SegmenterConfig};
use structtoken::infer::{Padding, slide_logits};
use structtoken::kernels::LossMean;
use structtoken::layers::resize::{Mode, resize_channels_last};
use structtoken::layers::{ForwardContext, parameters};
use structtoken::loss::{Criterion, Targets};
use structtoken::model::ModelConfig;
use structtoken::weights::{self, LoadOptions};

use crate::golden::{Golden, allowed, channels_first, json, reference, test_device};
use crate::hashed::hashed;

fn heads() -> [(&'static str, bool, DecoderConfig); 5] {
    let linear = DecoderConfig::Fcn(FcnConfig::default());
    let full = set!(FcnConfig { num_convs: 2, concat_input: true, channels: 32 });
    let knet = set!(KnetConfig { channels: 32, feat_channels: 32, num_heads: 4, feedforward_channels: 64 });
    [
        ("fcn_linear", true, linear.clone()),
        ("fcn_linear_nofinalnorm", false, linear),
        ("fcn_full", true, DecoderConfig::Fcn(full)),
        ("segmenter", true, DecoderConfig::Segmenter(SegmenterConfig::default())),
        ("knet", true, DecoderConfig::Knet(knet)),
    ]
}

fn tiny(decoder: DecoderConfig, final_norm: bool) -> ModelConfig {
    let vit =
        set!(VitConfig { embed_dim: Some(48), depth: Some(3), num_heads: Some(3), img_size: [64, 64], final_norm });
    ModelConfig::new(BackboneConfig::Vit(vit), decoder)
}

fn logits(output: Output) -> Tensor<4> {
    match output {
        Output::Dense { logits, .. } => logits,
        Output::Queries { .. } => panic!("a dense decoder"),
    }
}

/// The reference's input `name`: a hash, see the golden files' README.
fn image<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(hashed(name, shape, |u| (2.0 * (2.0 * u - 1.0)) as f32), device)
}

#[test]
fn activations_logits_losses_and_gradients() {
    let folder = reference("structtoken/heads");
    let device = test_device();
    for (name, final_norm, decoder) in heads() {
        let state = Golden::read(&folder.join(format!("{name}.safetensors"))).state();
        let golden = Golden::read(&folder.join(format!("{name}_golden.safetensors")));
        let json: serde_json::Value = json(&folder.join(format!("{name}.json")));
        let config = tiny(decoder, final_norm);
        let options = LoadOptions::strict();
        let (model, report) = weights::load(config.blank(7, &device), &state, &options).unwrap();
        assert!(report.kept.is_empty(), "{report}");

        let mut compared = 0;
        for (tag, shape) in [("a", [2, 3, 64, 64]), ("b", [1, 3, 96, 80])] {
            let context = ForwardContext::eval().traced();
            let output = logits(model.forward(image(&format!("input.{tag}"), shape, &device), &context));
            golden.check(&format!("{tag}.logits16"), &channels_first(&output.clone().into_data()), 2e-5);
            let large = resize_channels_last(output, (shape[2], shape[3]), Mode::Bilinear, false);
            golden.check(&format!("{tag}.logits"), &channels_first(&large.into_data()), 2e-5);
            for (step, data) in context.into_trace() {
                if golden.0.contains_key(&format!("{tag}.{step}")) {
                    golden.check(&format!("{tag}.{step}"), &channels_first(&data), 2e-5);
                    compared += 1;
                }
            }
        }
        let expected = golden.0.keys().filter(|key| !key.starts_with("grad.") && !key.ends_with(".logits")).count();
        assert_eq!(compared, expected, "{name}: some activations have no counterpart");
        let slid =
            slide_logits(&model, image("input.c", [1, 3, 100, 150], &device), [64, 64], [42, 42], Padding::Stretch);
        golden.check("c.slide.logits", &slid.into_data().try_to_vec::<f32>().unwrap(), 2e-5);

        let learning = test_device().autodiff();
        let (model, _) = weights::load(config.blank(7, &learning), &state, &options).unwrap();
        let ids = hashed("label.a", [2, 1, 64, 64], |u| {
            let class = (u * 8.0).floor() as f32;
            if class == 7.0 { 255.0 } else { class }
        });
        let ids: Vec<u8> = ids.try_to_vec::<f32>().unwrap().into_iter().map(|id| id as u8).collect();
        let targets = Targets::new(ids, [2, 64, 64]);
        let losses: Vec<f64> = json["loss"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| key.contains("loss"))
            .map(|(_, loss)| loss.as_f64().unwrap())
            .collect();
        // K-Net's earlier stages are judged too; a traced pass hands them out.
        let output = model.forward(image("input.a", [2, 3, 64, 64], &learning), &ForwardContext::eval().traced());
        let criterion = Criterion { mean: LossMean::All, decoder: model.decoder_loss(), ..Criterion::default() };
        let loss = criterion.loss(output, &targets, &mut |_, _| unreachable!()).total;
        let value = f64::from(loss.clone().into_scalar::<f32>());
        assert!((value - losses.iter().sum::<f64>()).abs() < allowed(2e-6) * value, "{name}: {value} for {losses:?}");
        check_gradients(&model, loss.backward(), &golden);
    }
}

fn check_gradients(model: &structtoken::model::Model, grads: burn::tensor::Gradients, golden: &Golden) {
    let ours = golden.gradients(|_| true);
    let mut found = 0;
    for (name, grad) in parameters::gradients(model, grads) {
        let Some(expected) = ours.get(&name) else { continue };
        let grad = grad.into_data().try_to_vec::<f32>().unwrap();
        // The same for every class, so that no softmax changes: the true gradient is 0.
        if name.ends_with("fc_mask.bias") {
            assert!(grad.iter().all(|value| value.abs() < 1e-6), "{name}");
            found += 1;
            continue;
        }
        let difference = expected.difference(&grad);
        assert!(f64::from(difference) < allowed(2e-4), "{name}: off by {difference:e}");
        found += 1;
    }
    assert_eq!(found, ours.len(), "some gradients have no counterpart");
}

#[test]
fn parameters_and_multiply_accumulates_of_the_other_heads() {
    let rows: Vec<serde_json::Value> = json(&reference("structtoken/params_flops_other_heads.json"));
    assert_eq!(rows.len(), 8);
    for row in rows {
        let size = row["backbone"].as_str().unwrap();
        let side = row["input"].as_u64().unwrap() as usize;
        let head = if row["head"] == "fcn_linear" { "fcn" } else { "segmenter" };
        let size = match size {
            "ViT-T" => "tiny",
            "ViT-S" => "small",
            "ViT-B" => "base",
            _ => "large",
        };
        let text = format!(
            "[model.backbone]\ntype = \"vit\"\nsize = \"{size}\"\nimg_size = [{side}, {side}]\nfinal_norm = true\n\
             [model.decoder]\ntype = \"{head}\""
        );
        let config = structtoken::config::Config::parse(&text, "r.toml", &[]).unwrap().model;
        let mut params = 0;
        parameters::visit(&config.blank(150, &test_device()), |parameter, _| {
            params += parameter.shape.iter().product::<usize>() as u64;
        });
        assert_eq!(params, row["params"].as_u64().unwrap(), "{row}");
        let macs: u64 = config.macs(150, (side, side)).iter().map(|cost| cost.macs).sum();
        assert_eq!(macs, (row["gmacs"].as_f64().unwrap() * 1e9).round() as u64, "{row}");
    }
}
