//! The same numbers as timm's ResNet and ConvNeXt, from weights under timm's names. The file is made by
//! `scripts/convolutional.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use structtoken::backbone::{
    AnyBackbone, Backbone as _, BackboneConfig, ConvnextConfig, ConvnextSize, EncoderConfig, ResnetConfig, UnetConfig,
};
use structtoken::layers::{ForwardContext, Gridded, Init, parameters};
use structtoken::rng::Rng;
use structtoken::weights::{self, LoadOptions, LoadReport, StateDict};

use crate::golden::{Golden, channels_first, test_device};
use crate::hashed::hashed;

const FORWARD: f32 = 2e-5;
const GRADIENT: f32 = 1e-4;
/// How many values of a map and of a gradient are in the file.
const SAMPLES: (usize, usize) = (240, 16);

#[derive(Module, Debug)]
struct Network {
    backbone: AnyBackbone,
}

impl Gridded for Network {
    fn grid(&self) -> Option<(usize, usize)> {
        None
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/convolutional.safetensors")
}

fn published(case: &str) -> StateDict {
    crate::golden::published(&fixture(), case)
}

/// Cases with their images.
fn cases() -> [(&'static str, BackboneConfig, [usize; 4]); 5] {
    let out_indices = || vec![0, 1, 2, 3];
    let resnet = |layers, depths: &[usize], channels: [usize; 4]| {
        BackboneConfig::Resnet(set!(ResnetConfig {
            layers,
            depths: depths.into(),
            channels: channels.into(),
            out_indices: out_indices()
        }))
    };
    let convnext = |channels: [usize; 4], depths: [usize; 4]| {
        BackboneConfig::Convnext(set!(ConvnextConfig {
            size: ConvnextSize::Atto,
            channels: channels.into(),
            depths: depths.into(),
            out_indices: out_indices()
        }))
    };
    [
        ("resnet18", resnet(18, &[], [8, 16, 24, 32]), [2, 3, 61, 75]),
        ("resnet50", resnet(50, &[], [4, 8, 12, 16]), [2, 3, 75, 61]),
        ("resnet26", resnet(50, &[2, 2, 2, 2], [4, 8, 12, 16]), [4, 3, 75, 91]),
        ("convnext_atto", convnext([8, 16, 24, 32], [2, 2, 6, 2]), [2, 3, 61, 75]),
        ("convnext_tiny", convnext([8, 12, 16, 24], [1, 1, 2, 1]), [1, 3, 64, 96]),
    ]
}

fn loaded(config: &BackboneConfig, state: &StateDict, init: &mut Init) -> (Network, LoadReport) {
    let network = Network { backbone: config.init(init) };
    weights::load(network, state, &LoadOptions::pretrained_backbone()).unwrap()
}

fn picked(values: Vec<f32>, samples: usize) -> Vec<f32> {
    let step = values.len().div_ceil(samples) | 1;
    values.into_iter().step_by(step).collect()
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

#[test]
fn maps_gradients_and_statistics() {
    let golden = Golden::read(&fixture());
    let device = test_device().autodiff();
    let mut compared = 0;
    for (case, config, shape) in cases() {
        let state = published(case);
        for mode in ["eval", "train"] {
            let trains = mode == "train";
            // As the script has it.
            if trains && !["resnet18", "resnet26"].contains(&case) {
                continue;
            }
            let (network, report) = loaded(&config, &state, &mut Init::new(1, &device));
            assert!(
                report.kept.is_empty() && report.ignored.iter().any(|name| name.ends_with("fc.weight")),
                "{report}"
            );
            let image = hashed(&format!("input.{case}"), shape, |u| (2.0 * (2.0 * u - 1.0)) as f32);
            let image = Tensor::<4>::from_data(image, &device).require_grad();
            let context = if trains { ForwardContext::train(Rng::new(1, &[])) } else { ForwardContext::eval() };
            let context = context.traced();
            let maps = network.backbone.forward(image.clone(), &context).maps;
            let mut loss = Tensor::zeros([1], &device);
            for (i, map) in maps.into_iter().enumerate() {
                let map = map.permute([0, 3, 1, 2]);
                let dy = hashed(&format!("dy.{case}.{i}"), map.dims(), |u| (2.0 * (2.0 * u - 1.0)) as f32);
                loss = loss + (map * Tensor::from_data(dy, &device)).sum();
            }
            let grads = loss.backward();
            let mut check = |name: &str, values: Vec<f32>, samples, tolerance| {
                let name = format!("{case}.{name}");
                let off = golden.check(&name, &picked(values, samples), tolerance);
                if off > tolerance / 3.0 {
                    eprintln!("{name}: off by {off:.1e}");
                }
                compared += 1;
            };
            let gradient = flat(image.grad(&grads).unwrap());
            check(&format!("{mode}.grad.input"), gradient, SAMPLES.0, GRADIENT);
            for (name, grad) in parameters::gradients(&network, grads) {
                let name = name.strip_prefix("backbone.").unwrap();
                check(&format!("{mode}.grad.{name}"), flat(grad), SAMPLES.1, GRADIENT);
            }
            if trains {
                let left: BTreeMap<_, _> = context.take_statistics().into_iter().map(|left| (left.id, left)).collect();
                parameters::visit(&network, |parameter, value| {
                    let Some(statistic) = left.get(&parameter.id) else { return };
                    let name = parameter.name.strip_prefix("backbone.").unwrap();
                    check(&format!("after.{name}"), flat(statistic.after(value)), SAMPLES.1, FORWARD);
                });
            }
            for (i, (_, map)) in context.into_trace().into_iter().enumerate() {
                check(&format!("{mode}.map{i}"), channels_first(&map), SAMPLES.0, FORWARD);
            }
        }
    }
    assert_eq!(compared, golden.0.len());
}

/// What is trained on is the encoder; the way up keeps its beginning, and is named.
#[test]
fn a_unet_takes_published_weights_for_its_encoder() {
    for (case, config, shape) in cases() {
        let encoder = match config.clone() {
            BackboneConfig::Resnet(config) => {
                EncoderConfig::Resnet(set!(ResnetConfig { out_indices: Vec::new(), ..config }))
            }
            BackboneConfig::Convnext(config) => {
                EncoderConfig::Convnext(set!(ConvnextConfig { out_indices: Vec::new(), ..config }))
            }
            _ => unreachable!(),
        };
        let (ups, stride) = if case.starts_with("resnet") { (4, 2) } else { (3, 4) };
        let channels: Vec<usize> = (0..ups).map(|i| 8 << i).collect();
        let unet = set!(UnetConfig { encoder: Some(encoder), channels, out_indices: vec![1] });
        let unet = BackboneConfig::Unet(unet);
        unet.check().unwrap();
        let state = published(case);
        let device = test_device();
        let (network, report) = loaded(&unet, &state, &mut Init::new(1, &device));
        assert!(
            report.kept.iter().all(|name| name.starts_with("backbone.ups.")) && !report.kept.is_empty(),
            "{report}"
        );
        let (bare, _) = loaded(&config, &state, &mut Init::new(1, &device));
        let image = hashed(&format!("input.{case}"), shape, |u| (2.0 * (2.0 * u - 1.0)) as f32);
        let run = |network: &Network| {
            let context = ForwardContext::eval().traced();
            let maps = network.backbone.forward(Tensor::from_data(image.clone(), &device), &context).maps;
            (maps, context.into_trace())
        };
        let ((maps, with), (_, without)) = (run(&network), run(&bare));
        let values = |trace: &[(String, TensorData)]| -> Vec<(String, Vec<f32>)> {
            let own = trace.iter().filter(|(name, _)| !name.starts_with("unet."));
            own.map(|(name, data)| (name.clone(), data.try_to_vec().unwrap())).collect()
        };
        assert!(values(&with) == values(&without) && !without.is_empty(), "{case}");
        let [batch, _, height, width] = shape;
        let size = |stride: usize, channels| [batch, height.div_ceil(stride), width.div_ceil(stride), channels];
        assert_eq!([maps[0].dims(), maps[1].dims()], [size(2 * stride, 16), size(stride, 8)], "{case}");
    }
}
