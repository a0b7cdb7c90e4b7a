//! The same numbers as MaskFormer, Mask2Former and EoMT: activations, answers, assignments, losses, gradients.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use structtoken::backbone::{AnyBackbone, BackboneConfig, BackboneInput, VitConfig};
use structtoken::decoder::{
    AnyDecoder, Decoder as _, DecoderConfig, DecoderLoss, EomtConfig, Mask2FormerConfig, MaskFormerConfig, Output,
    SegLogits, SetLossConfig,
};
use structtoken::layers::resize::{Mode, resize_channels_last};
use structtoken::layers::{ForwardContext, Init, parameters};
use structtoken::loss::{Criterion, Targets, set_criterion};
use structtoken::weights::{self, HostTensor, StateDict};

use crate::golden::{Golden, allowed, channels_first, json, reference, test_device};
use crate::hashed::hashed;

const FORWARD: f32 = 5e-5;
const GRADIENT: f32 = 2e-4;

/// The reference's parameters, whatever their names, under ours without `prefix`; every one must be used.
fn load<M: Module>(module: M, state: &StateDict, prefix: &str) -> M {
    let mut tensors = weights::remap_keys(state).unwrap().tensors;
    let module = parameters::map(module, |parameter, value| {
        let name = format!("{prefix}{}", parameter.name);
        let tensor = tensors.remove(&name).unwrap_or_else(|| panic!("no tensor for {name}"));
        assert_eq!(tensor.shape, parameter.shape, "{name}");
        let data = tensor.data.clone();
        let count = data.len();
        Tensor::from_data(TensorData::new(data, [count]), &value.device())
    });
    let left: Vec<&String> =
        tensors.keys().filter(|name| !name.starts_with("criterion.") && *name != "attn_mask_probs").collect();
    assert!(left.is_empty(), "not used: {left:?}");
    module
}

/// What was recorded, in the reference's layout, against the golden tensors `tag.name`; the names compared.
fn compare(
    golden: &Golden,
    tag: &str,
    trace: Vec<(String, TensorData)>,
    rename: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut compared = Vec::new();
    for (name, data) in trace {
        let Some(name) = rename(&name) else { continue };
        let key = format!("{tag}.{name}");
        if !golden.0.contains_key(&key) {
            continue;
        }
        let planes = name.contains("mask") && !name.contains("mask_features");
        let mut values = match data.shape().len() {
            4 if !planes => channels_first(&data),
            _ => data.iter::<f32>().collect(),
        };
        if name.starts_with("dec.pos") {
            values = values.repeat(golden.get(&key).shape[0]);
        }
        golden.check(&key, &values, FORWARD);
        compared.push(key);
    }
    compared
}

/// The published order: masks to image size, then votes.
fn semantic(answer: SegLogits, size: (usize, usize)) -> Vec<f32> {
    let maps = resize_channels_last(answer.maps, size, Mode::Bilinear, false);
    channels_first(&SegLogits { maps, votes: answer.votes }.scores().into_data())
}

fn targets(golden: &Golden, name: &str) -> Targets {
    let (shape, ids) = golden.whole(name);
    Targets::new(ids.iter().map(|id| *id as u8).collect(), [shape[0], shape[1], shape[2]])
}

/// Uniform numbers as the reference drew them.
fn drawn(name: &str, count: usize) -> Vec<f32> {
    hashed(name, [count], |u| u as f32).try_to_vec().unwrap()
}

/// Losses and assignments of an output; `last` is what the reference calls the last prediction.
fn check_losses(
    (output, decoder): (Output, DecoderLoss),
    targets: &Targets,
    theirs: &serde_json::Value,
    prefix: &str,
    last: &str,
) -> Tensor<1> {
    let mut draw = |name: &str, count: usize| {
        let name = name.strip_prefix("final.").map_or(name.to_owned(), |rest| format!("{last}.{rest}"));
        drawn(&format!("points.{prefix}.{name}"), count)
    };
    let Output::Queries { predictions } = &output else { panic!("a query decoder") };
    let mut seen = BTreeMap::new();
    for (i, prediction) in predictions.iter().enumerate() {
        let ours = if i + 1 == predictions.len() { "final".to_owned() } else { i.to_string() };
        let name = if ours == "final" { last.to_owned() } else { ours.clone() };
        for pair in set_criterion::hungarian_match(prediction, targets, &decoder.set, &ours, &mut draw) {
            let (queries, classes): &mut (Vec<usize>, Vec<usize>) =
                seen.entry(format!("{name}.{}", pair.image)).or_default();
            queries.push(pair.query);
            classes.push(usize::from(pair.class));
        }
    }
    let list = |value: &serde_json::Value| -> Vec<usize> {
        value.as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as usize).collect()
    };
    for (name, expected) in theirs["assignment"].as_object().unwrap() {
        let (queries, classes) = seen.remove(name).unwrap_or_default();
        assert_eq!(queries, list(&expected["query"]), "{prefix} {name}");
        assert_eq!(classes, list(&expected["target_class"]), "{prefix} {name}");
    }
    assert!(seen.is_empty(), "{prefix}: {seen:?}");

    let loss = Criterion { decoder, ..Criterion::default() }.loss(output, targets, &mut draw);
    for (part, key) in [("class", "cross_entropy"), ("mask", "mask"), ("dice", "dice")] {
        let weighted = theirs["weighted"].as_object().unwrap().iter();
        let expected: f64 = weighted.filter(|(name, _)| name.contains(key)).map(|(_, v)| v.as_f64().unwrap()).sum();
        let value = loss.parts.get(part).map_or(0.0, |value| f64::from(value.clone().into_scalar::<f32>()));
        assert!(
            (value - expected).abs() <= allowed(1e-5) * expected.max(1e-3),
            "{prefix} {part}: {value} for {expected}"
        );
    }
    loss.total
}

/// The gradients of a module against the file's; those named in `noise` are truly 0.
fn check_gradients<M: Module>(
    module: &M,
    grads: burn::tensor::Gradients,
    golden: &Golden,
    prefix: &str,
    noise: &[&str],
) {
    let mut theirs = golden.gradients(|key| !key.starts_with("feat.") && key != "input");
    for (name, grad) in parameters::gradients(module, grads) {
        let name = format!("{prefix}{name}");
        let expected = theirs.remove(&name).unwrap_or_else(|| panic!("no gradient for {name}"));
        if noise.contains(&&*name) {
            continue;
        }
        let difference = expected.difference(&grad.into_data().try_to_vec::<f32>().unwrap());
        assert!(f64::from(difference) < allowed(GRADIENT.into()), "{name}: off by {difference:e}");
    }
    assert!(theirs.is_empty(), "no counterpart for the gradients of {:?}", theirs.keys());
}

const STRIDES: [usize; 4] = [4, 8, 16, 32];

/// The reference's features at strides 4 to 32, channels-last.
fn features(golden: &Golden, tag: &str, device: &Device) -> Vec<Tensor<4>> {
    STRIDES.iter().map(|s| golden.tensor::<4>(&format!("{tag}.feat.s{s}"), device).permute([0, 2, 3, 1])).collect()
}

/// A head on golden features: everything that both MaskFormers are compared by.
fn head<M: Module>(
    name: &str,
    goldens: [&str; 2],
    make: impl Fn(&mut Init) -> M,
    forward: impl Fn(&M, Vec<Tensor<4>>, &ForwardContext) -> Output,
    judged: SetLossConfig,
    noise: &[&str],
) {
    let folder = reference(name);
    let device = test_device();
    let state = Golden::read(&folder.join(format!("{name}.safetensors"))).state();
    let json: serde_json::Value = json(&folder.join(format!("{name}.json")));
    let model = load(make(&mut Init::blank(&device)), &state, "decoder.head.");
    for (tag, file) in [("a", goldens[0]), ("b", goldens[1])] {
        let golden = Golden::read(&folder.join(format!("{file}.safetensors")));
        let context = ForwardContext::eval().traced();
        let output = forward(&model, features(&golden, tag, &device), &context);
        let compared = compare(&golden, tag, context.into_trace(), |name| Some(name.to_owned()));
        // The mask for a layer that there is none of.
        let extra = |key: &str| name == "mask2former" && key.ends_with("attn_mask4");
        let expected = golden
            .0
            .keys()
            .filter(|key| key.starts_with(&format!("{tag}.dec.")) || key.starts_with(&format!("{tag}.pixel.")));
        let missing: Vec<&String> = expected.filter(|key| !compared.contains(key) && !extra(key)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let shape = &golden.get(&format!("{tag}.label")).shape;
        let size = (shape[1], shape[2]);
        golden.check(&format!("{tag}.sem"), &semantic(output.clone().seg_logits(), size), FORWARD);
        let targets = targets(&golden, &format!("{tag}.label"));
        check_losses((output.clone(), judged.into()), &targets, &json["loss"][tag], tag, "final");
        if tag == "a" {
            let (_, ids) = golden.whole("a.label");
            let half = ids.len() / 2;
            let ids = ids.iter().enumerate().map(|(i, id)| if i < half { *id as u8 } else { 255 }).collect();
            let empty = Targets::new(ids, [2, size.0, size.1]);
            check_losses((output, judged.into()), &empty, &json["loss"]["a_image1_empty"], "a_image1_empty", "final");

            let learning = test_device().autodiff();
            let model = load(make(&mut Init::blank(&learning)), &state, "decoder.head.");
            let maps: Vec<Tensor<4>> =
                features(&golden, tag, &learning).into_iter().map(|map| map.require_grad()).collect();
            let output = forward(&model, maps.clone(), &ForwardContext::eval().traced());
            let grads = check_losses((output, judged.into()), &targets, &json["loss"]["a"], "a", "final").backward();
            let golden = Golden::read(&folder.join(format!("{name}_grads.safetensors")));
            for (map, stride) in maps.iter().zip(STRIDES) {
                let grad = channels_first(&map.grad(&grads).unwrap().into_data());
                golden.check(&format!("grad.feat.s{stride}"), &grad, GRADIENT);
            }
            check_gradients(&model, grads, &golden, "decoder.head.", noise);
        }
    }
}

fn maskformer() -> MaskFormerConfig {
    set!(MaskFormerConfig {
        num_queries: 10,
        conv_dim: 64,
        mask_dim: 32,
        hidden_dim: 40,
        num_heads: 4,
        dim_feedforward: 80,
        dec_layers: 3
    })
}

fn mask2former() -> Mask2FormerConfig {
    set!(Mask2FormerConfig {
        num_queries: 10,
        hidden_dim: 64,
        mask_dim: 40,
        num_heads: 4,
        enc_layers: 2,
        enc_dim_feedforward: 96,
        dec_layers: 4,
        dim_feedforward: 128,
        loss: set!(SetLossConfig { num_points: 112 })
    })
}

#[test]
fn the_numbers_of_maskformer() {
    head(
        "maskformer",
        ["maskformer_golden", "maskformer_golden"],
        |init| maskformer().head(48, 7, init),
        |head, maps, context| head.forward(maps, context),
        maskformer().loss,
        // The first layer's queries are zero, so that its self-attention is a constant.
        &["decoder.head.layers.0.self_attn.qkv.weight"],
    );
}

#[test]
fn the_numbers_of_mask2former() {
    head(
        "mask2former",
        ["mask2former_golden_a", "mask2former_golden_b"],
        |init| mask2former().head(48, 7, init),
        |head, maps, context| head.forward(maps, context),
        mask2former().loss,
        &[],
    );
}

/// Features so small that a wrong epsilon of any norm shows.
#[test]
fn epsilons_of_the_query_decoders() {
    let device = test_device();
    let small = |golden: &Golden| features(golden, "b", &device).into_iter().map(|map| map / 256.0).collect::<Vec<_>>();
    let traced =
        |context: ForwardContext| -> BTreeMap<String, TensorData> { context.into_trace().into_iter().collect() };
    let folder = reference("maskformer");
    let golden = Golden::read(&folder.join("maskformer_golden.safetensors"));
    let state = Golden::read(&folder.join("maskformer.safetensors")).state();
    let head = load(maskformer().head(48, 7, &mut Init::blank(&device)), &state, "decoder.head.");
    let eps = Golden::read(&folder.join("maskformer_eps_golden.safetensors"));
    let context = ForwardContext::eval().traced();
    head.forward(small(&golden), &context);
    let trace = traced(context);
    eps.check("mask_features", &channels_first(&trace["pixel.mask_features"]), FORWARD);
    eps.check("class", &trace["dec.class2"].try_to_vec::<f32>().unwrap(), FORWARD);
    eps.check("mask", &trace["dec.mask2"].try_to_vec::<f32>().unwrap(), FORWARD);

    let folder = reference("mask2former");
    let golden = Golden::read(&folder.join("mask2former_golden_b.safetensors"));
    let mut state = Golden::read(&folder.join("mask2former.safetensors")).state();
    let start = state.tensors.get_mut("model.transformer_module.queries_features.weight").unwrap();
    start.data.iter_mut().for_each(|value| *value /= 16.0);
    let head = load(mask2former().head(48, 7, &mut Init::blank(&device)), &state, "decoder.head.");
    let eps = Golden::read(&folder.join("mask2former_eps_golden.safetensors"));
    let context = ForwardContext::eval().traced();
    head.forward(small(&golden), &context);
    let trace = traced(context);
    for (name, expected) in &eps.0 {
        let data = trace.get(name).or(trace.get(&format!("dec.{name}"))).or(trace.get(&format!("pixel.{name}")));
        let data = match data {
            Some(data) => data,
            None => &trace[&format!("dec.{name}4")],
        };
        let planes = name.contains("mask") && name != "mask_features";
        let is_map = expected.shape.len() == 4 && !planes;
        let values = if is_map { channels_first(data) } else { data.try_to_vec().unwrap() };
        eps.check(name, &values, FORWARD);
    }
}

/// AnyBackbone and decoder as in a model.
#[derive(Module, Debug)]
struct Pair {
    backbone: AnyBackbone,
    decoder: AnyDecoder,
}

fn eomt(img_size: [usize; 2], init: &mut Init) -> Pair {
    let vit = set!(VitConfig {
        embed_dim: Some(48),
        depth: Some(4),
        num_heads: Some(3),
        img_size,
        reg_tokens: 4,
        no_embed_class: true,
        init_values: Some(1.0),
        final_norm: true,
        drop_path_rate: 0.0
    });
    let loss = set!(SetLossConfig { num_points: 112 });
    let decoder = DecoderConfig::Eomt(set!(EomtConfig { num_queries: 10, num_blocks: Some(2), loss }));
    let backbone = BackboneConfig::Vit(vit);
    decoder.check(&backbone.features()).unwrap();
    Pair { backbone: backbone.init(init), decoder: decoder.init(&backbone.features(), 7, init) }
}

fn answer(pair: &Pair, images: Tensor<4>, probabilities: &[f64], context: &ForwardContext) -> Output {
    let AnyDecoder::Eomt(decoder) = &pair.decoder else { unreachable!() };
    decoder.forward_masked(BackboneInput { backbone: &pair.backbone, images }, probabilities, context)
}

#[test]
fn the_numbers_of_eomt() {
    let folder = reference("eomt");
    let device = test_device();
    let mut state = Golden::read(&folder.join("eomt.safetensors")).state();
    let json: serde_json::Value = json(&folder.join("eomt.json"));
    for (tag, size) in [("a", [64, 64]), ("b", [96, 80])] {
        if tag == "b" {
            let name = "embeddings.position_embeddings.weight";
            let table = hashed(name, [30, 48], |u| (0.25 * (2.0 * u - 1.0)) as f32);
            let table = HostTensor { shape: vec![30, 48], data: table.try_to_vec().unwrap() };
            state.tensors.insert(name.to_owned(), table);
        }
        let golden = Golden::read(&folder.join(format!("eomt_golden_{tag}.safetensors")));
        let targets = targets(&golden, &format!("{tag}.label"));
        for (variant, probabilities) in
            [("p1", [1.0, 1.0]), ("p0", [0.0, 0.0]), ("t0", [0.0, 0.0]), ("th", [0.5, 0.25])]
        {
            let tag_variant = format!("{tag}.{variant}");
            let model = load(eomt(size, &mut Init::blank(&device)), &state, "");
            let mut block = 0;
            let context = match variant {
                "p1" | "p0" => ForwardContext::eval(),
                _ => ForwardContext::train_with(|count, probability| {
                    let u = drawn(&format!("rand.{tag_variant}.block{block}"), count);
                    block += 1;
                    u.into_iter().map(|u| f64::from(u) > probability).collect()
                }),
            };
            let context = context.traced();
            let images = golden.tensor::<4>(&format!("{tag}.input"), &device);
            let output = answer(&model, images, &probabilities, &context);
            let compared = compare(&golden, &tag_variant, context.into_trace(), |name| match variant {
                // Without masks the reference only made the last prediction, and left the others apart.
                "p0" if name.starts_with("pred2.") => Some(name.replace("pred2", "pred0")),
                "p0" if !name.ends_with(".attn") => Some(name.replace("pred", "inner")),
                _ => Some(match name {
                    "vit.pos_added" => "embeddings".to_owned(),
                    "vit.patch_embed" => "patch_embed".to_owned(),
                    // The branch there, the stream here.
                    name if name.ends_with(".attn") => return None,
                    name => name.to_owned(),
                }),
            });
            // Inside of a block other steps are recorded, and where nothing is masked no mask.
            let skipped = |key: &str| {
                key.ends_with(".attn") || key.ends_with(".mlp") || variant == "t0" && key.ends_with(".attn_mask")
            };
            let expected = golden.0.keys().filter(|key| {
                [".layer", ".pred", ".inner", ".with_queries", ".embeddings", ".patch_embed"]
                    .iter()
                    .any(|part| key.starts_with(&format!("{tag_variant}{part}")))
            });
            let missing: Vec<&String> = expected.filter(|key| !compared.contains(key) && !skipped(key)).collect();
            assert!(missing.is_empty(), "{missing:?}");
            if golden.0.contains_key(&format!("{tag_variant}.sem")) {
                let sem = semantic(output.clone().seg_logits(), (size[0], size[1]));
                golden.check(&format!("{tag_variant}.sem"), &sem, FORWARD);
            }
            let theirs = &json["loss"][&tag_variant];
            if theirs.is_null() {
                continue;
            }
            check_losses((output, model.decoder.loss()), &targets, theirs, &tag_variant, "2");
            if tag == "a" && (variant == "p1" || variant == "t0") {
                let learning = test_device().autodiff();
                let model = load(eomt(size, &mut Init::blank(&learning)), &state, "");
                let images = golden.tensor::<4>("a.input", &learning).require_grad();
                let output = answer(&model, images.clone(), &probabilities, &ForwardContext::eval().traced());
                let grads =
                    check_losses((output, model.decoder.loss()), &targets, theirs, &tag_variant, "2").backward();
                let golden = Golden::read(&folder.join(format!("eomt_grads_{variant}.safetensors")));
                let grad = images.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap();
                golden.check("grad.input", &grad, GRADIENT);
                check_gradients(&model, grads, &golden, "", &[]);
            }
        }
    }
}
