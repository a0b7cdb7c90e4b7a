//! The same numbers as the DINOv3 of transformers and timm, alone and below EoMT, and as DINOv2's ViT-g, from weights
//! under their names. The file is made by `scripts/dinov3.py`.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Tensor;
use structtoken::backbone::{AnyBackbone, Backbone as _, BackboneConfig, BackboneInput, Dinov3Config, VitConfig};
use structtoken::decoder::{AnyDecoder, DecoderConfig, EomtConfig, Output};
use structtoken::layers::{ForwardContext, Gridded, Init, MlpLayer, parameters};
use structtoken::weights::{self, HostTensor, KeyFormat, LoadOptions, StateDict};

use crate::golden::{Golden, test_device};
use crate::hashed::hashed;

const FORWARD: f32 = 2e-5;
const GRADIENT: f32 = 1e-4;
/// How many values of a map are in the file.
const SAMPLES: usize = 240;

#[derive(Module, Debug)]
struct Network {
    backbone: AnyBackbone,
    decoder: Option<AnyDecoder>,
}

impl Gridded for Network {
    fn grid(&self) -> Option<(usize, usize)> {
        self.backbone.grid()
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dinov3.safetensors")
}

fn published(case: &str) -> StateDict {
    crate::golden::published(&fixture(), case)
}

fn dinov3(width: usize, heads: usize, hidden: usize, patch_size: usize) -> Dinov3Config {
    set!(Dinov3Config {
        embed_dim: Some(width),
        depth: Some(2),
        num_heads: Some(heads),
        mlp_ratio: hidden as f64 / width as f64,
        patch_size,
        out_indices: vec![0, 1]
    })
}

/// Cases with their images.
fn cases() -> [(&'static str, BackboneConfig, [usize; 4]); 6] {
    let gated = Some(MlpLayer::SwiGlu);
    let giant = set!(VitConfig {
        embed_dim: Some(24),
        depth: Some(2),
        num_heads: Some(2),
        mlp_ratio: 8.0 / 3.0,
        mlp_layer: MlpLayer::SwiGlu,
        patch_size: 4,
        img_size: [20, 20],
        init_values: Some(1.0),
        final_norm: true,
        out_indices: vec![0, 1]
    });
    let plus = set!(Dinov3Config { mlp_layer: gated, ..dinov3(16, 1, 40, 4) });
    let timm = set!(Dinov3Config { qkv_bias: false, ..dinov3(16, 2, 64, 4) });
    let timm_plus = set!(Dinov3Config { mlp_layer: gated, ..dinov3(16, 2, 64, 4) });
    let below_eomt =
        set!(Dinov3Config { depth: Some(3), img_size: [40, 24], out_indices: Vec::new(), ..dinov3(16, 2, 24, 8) });
    [
        ("small", BackboneConfig::Dinov3(dinov3(16, 2, 48, 16)), [2, 3, 45, 70]),
        ("plus", BackboneConfig::Dinov3(plus), [2, 3, 22, 9]),
        ("timm", BackboneConfig::Dinov3(timm), [1, 3, 10, 27]),
        ("timm_plus", BackboneConfig::Dinov3(timm_plus), [1, 3, 13, 20]),
        ("giant", BackboneConfig::Vit(giant), [2, 3, 20, 20]),
        ("eomt", BackboneConfig::Dinov3(below_eomt), [2, 3, 40, 24]),
    ]
}

fn loaded(case: &str, config: &BackboneConfig, state: &StateDict, init: &mut Init) -> Network {
    config.check().unwrap();
    let decoder = (case == "eomt").then(|| {
        let eomt = set!(EomtConfig { num_queries: 5, num_blocks: Some(2) });
        DecoderConfig::Eomt(eomt).init(&config.features(), 3, init)
    });
    let whole =
        LoadOptions { ignore_unused: LoadOptions::pretrained_backbone().ignore_unused, ..LoadOptions::strict() };
    let network = Network { backbone: config.init(init), decoder };
    let (network, report) = weights::load(network, state, &whole).unwrap();
    assert!(report.kept.is_empty() && report.resized.is_empty(), "{report}");
    let ignored = report.ignored.iter().all(|name| name.ends_with("mask_token") || case == "eomt");
    assert!(ignored, "{report}");
    network
}

/// Maps, channels first; of EoMT classes and masks.
fn outputs(network: &Network, images: Tensor<4>) -> Vec<Tensor<4>> {
    let context = ForwardContext::eval();
    let Some(AnyDecoder::Eomt(decoder)) = &network.decoder else {
        let maps = network.backbone.forward(images, &context).maps;
        return maps.into_iter().map(|map| map.permute([0, 3, 1, 2])).collect();
    };
    let input = BackboneInput { backbone: &network.backbone, images };
    let Output::Queries { mut predictions, .. } = decoder.forward_masked(input, &[1.0, 1.0], &context) else {
        unreachable!()
    };
    let last = predictions.pop().unwrap();
    vec![last.classes.unsqueeze_dim(3), last.masks]
}

fn picked(values: Vec<f32>) -> Vec<f32> {
    let step = values.len().div_ceil(SAMPLES) | 1;
    values.into_iter().step_by(step).collect()
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn maps_and_gradients() {
    let golden = Golden::read(&fixture());
    let device = test_device().autodiff();
    for (case, config, shape) in cases() {
        let state = published(case);
        let network = loaded(case, &config, &state, &mut Init::new(1, &device));
        let image = hashed(&format!("input.{case}"), shape, |u| (2.0 * (2.0 * u - 1.0)) as f32);
        let image = Tensor::<4>::from_data(image, &device).require_grad();
        let maps = outputs(&network, image.clone());
        assert_eq!(maps.len(), 2);
        let mut loss = Tensor::zeros([1], &device);
        for (i, map) in maps.into_iter().enumerate() {
            golden.check(&format!("{case}.map{i}"), &picked(flat(map.clone())), FORWARD);
            let dy = hashed(&format!("dy.{case}.{i}"), map.dims(), |u| (2.0 * (2.0 * u - 1.0)) as f32);
            loss = loss + (map * Tensor::from_data(dy, &device)).sum();
        }
        let grads = loss.backward();
        golden.check(&format!("{case}.grad.input"), &picked(flat(image.grad(&grads).unwrap())), GRADIENT);
        // Gradients that the file has under the other's names become ours as weights do; those it leaves out are NaN.
        let mut theirs = StateDict::default();
        for (name, tensor) in &state.tensors {
            let data = golden.0.get(&format!("{case}.grad.{name}")).map(|tensor| tensor.values.clone());
            let data = data.unwrap_or_else(|| vec![f32::NAN; tensor.data.len()]);
            theirs.tensors.insert(name.clone(), HostTensor { shape: tensor.shape.clone(), data });
        }
        let theirs = weights::remap_keys(&theirs).unwrap().tensors;
        let mut compared = 0;
        for (name, ours) in parameters::gradients(&network, grads) {
            let theirs = &theirs[&name].data;
            if theirs.iter().any(|value| value.is_nan()) {
                continue;
            }
            let scale = theirs.iter().fold(1.0f32, |most, value| most.max(value.abs()));
            for (i, (a, b)) in flat(ours).into_iter().zip(theirs).enumerate() {
                assert!((a - b).abs() <= GRADIENT * scale, "{case}: gradient of {name}[{i}]: {a} against {b}");
            }
            compared += 1;
        }
        let all = parameters::list(&network).len();
        assert!(compared + 4 >= all && compared > 20, "{case}: {compared} of {all} gradients");
    }
}

/// The authors' files give what Hugging Face's do.
#[test]
fn the_authors_names() {
    for case in ["small", "plus"] {
        let theirs = published(case);
        let mut state = StateDict::default();
        let vector = |data: Vec<f32>| HostTensor { shape: vec![data.len()], data };
        for (name, tensor) in &theirs.tensors {
            let name = match name.strip_prefix("embeddings.") {
                Some("register_tokens") => "storage_tokens".to_owned(),
                Some(rest) => rest.replace("patch_embeddings.", "patch_embed.proj."),
                None => name.replace("model.layer.", "blocks."),
            };
            let renamed = [
                (".attention.o_proj.", ".attn.proj."),
                (".layer_scale1.lambda1", ".ls1.gamma"),
                (".layer_scale2.lambda1", ".ls2.gamma"),
                (".mlp.gate_proj.", ".mlp.w1."),
                (".mlp.up_proj.", if case == "plus" { ".mlp.w2." } else { ".mlp.fc1." }),
                (".mlp.down_proj.", if case == "plus" { ".mlp.w3." } else { ".mlp.fc2." }),
            ];
            let name = renamed.iter().fold(name, |name, (from, to)| name.replace(from, to));
            state.tensors.insert(name, tensor.clone());
        }
        for block in 0..2 {
            let take = |state: &mut StateDict, part: &str| {
                state.tensors.remove(&format!("blocks.{block}.attention.{part}")).unwrap()
            };
            let weights = ["q_proj.weight", "k_proj.weight", "v_proj.weight"].map(|part| take(&mut state, part));
            let shape = vec![48, 16];
            let data = weights.iter().flat_map(|part| part.data.iter().copied()).collect();
            state.tensors.insert(format!("blocks.{block}.attn.qkv.weight"), HostTensor { shape, data });
            let [q, v] = ["q_proj.bias", "v_proj.bias"].map(|part| take(&mut state, part).data);
            // What lies behind the mask is of no account.
            let bias = [q, vec![7.0; 16], v].concat();
            let mask = [vec![1.0; 16], vec![0.0; 16], vec![1.0; 16]].concat();
            state.tensors.insert(format!("blocks.{block}.attn.qkv.bias"), vector(bias));
            state.tensors.insert(format!("blocks.{block}.attn.qkv.bias_mask"), vector(mask));
        }
        let quarter = if case == "plus" { 4 } else { 2 };
        let periods = (0..quarter).map(|j| 100f32.powf(j as f32 / quarter as f32)).collect();
        state.tensors.insert("rope_embed.periods".into(), vector(periods));
        let (ours, expected) = (weights::remap_keys(&state).unwrap(), weights::remap_keys(&theirs).unwrap());
        assert_eq!((ours.key_format, expected.key_format), (KeyFormat::Timm, KeyFormat::HuggingFace));
        assert!(ours.tensors == expected.tensors, "{case}");
    }
    // DINOv2's: packed, by its authors' names and by timm's.
    let theirs = published("giant");
    let expected = weights::remap_keys(&theirs).unwrap().tensors;
    for packed in ["w12", "fc1"] {
        let out = if packed == "w12" { "w3" } else { "fc2" };
        let mut state = StateDict::default();
        for (name, tensor) in &expected {
            let name = name.strip_prefix("backbone.").unwrap();
            let name = name.replace(".fc1.", &format!(".{packed}.")).replace(".fc2.", &format!(".{out}."));
            state.tensors.insert(name, tensor.clone().into_owned());
        }
        assert!(weights::remap_keys(&state).unwrap().tensors == expected, "{packed}");
    }
}
