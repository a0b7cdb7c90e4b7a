//! Every decoder on every backbone that can carry it: random small models learn a step, are saved, and come back the
//! same.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use structtoken::backbone::{
    Backbone, BackboneConfig, ConvnextConfig, Dinov3Config, EncoderConfig, NormKind, ResnetConfig, UnetConfig,
    VitConfig,
};
use structtoken::decoder::{
    BlockKind, DecoderConfig, EomtConfig, FcnConfig, KnetConfig, Mask2FormerConfig, MaskFormerConfig, Output, Prior,
    SegmenterConfig, SetLossConfig, StructTokenConfig, Tokens,
};
use structtoken::kernels::{count_kept, count_macs};
use structtoken::layers::{ForwardContext, Init, MlpLayer, parameters};
use structtoken::loss::{Criterion, Targets};
use structtoken::model::ModelConfig;
use structtoken::rng::Rng;
use structtoken::train::optimizer::{Gradients, Optimizer, OptimizerConfig};
use structtoken::weights::{self, LoadOptions};

use crate::golden::test_device;

pub(crate) fn backbone(rng: &mut Rng) -> VitConfig {
    let heads = 1 + rng.below(3);
    let depth = 1 + rng.below(3);
    let out_indices = if depth > 1 && rng.below(2) == 0 { vec![depth - 2, depth - 1] } else { Vec::new() };
    set!(VitConfig {
        embed_dim: Some(heads * 4 * (1 + rng.below(3))),
        depth: Some(depth),
        num_heads: Some(heads),
        mlp_ratio: 1.0 + rng.below(3) as f64,
        mlp_layer: [MlpLayer::Mlp, MlpLayer::SwiGlu][rng.below(2)],
        patch_size: [4, 8, 14, 16][rng.below(4)],
        img_size: [20 + rng.below(40), 20 + rng.below(40)],
        class_token: rng.below(2) == 0,
        reg_tokens: rng.below(3),
        no_embed_class: rng.below(2) == 0,
        init_values: (rng.below(2) == 0).then_some(0.5),
        final_norm: rng.below(4) > 0,
        out_indices
    })
}

/// The same shapes with rotations instead of a table.
pub(crate) fn dinov3(vit: &VitConfig, rng: &mut Rng) -> Dinov3Config {
    set!(Dinov3Config {
        embed_dim: vit.embed_dim,
        depth: vit.depth,
        num_heads: vit.num_heads,
        mlp_ratio: vit.mlp_ratio,
        mlp_layer: Some(vit.mlp_layer),
        patch_size: vit.patch_size,
        img_size: vit.img_size,
        reg_tokens: vit.reg_tokens,
        qkv_bias: rng.below(3) > 0,
        init_values: vit.init_values.unwrap_or(1.0),
        final_norm: vit.final_norm,
        out_indices: vit.out_indices.clone()
    })
}

/// A convolutional backbone: a U-Net of its own, one over an encoder, or such a network by itself; and its maps.
pub(crate) fn convolutional(kind: usize, rng: &mut Rng) -> BackboneConfig {
    let img_size = [20 + rng.below(40), 20 + rng.below(40)];
    let norm = [NormKind::Batch, NormKind::Group][rng.below(2)];
    let mut four = |least: usize| -> Vec<usize> { (0..4).map(|_| least * (1 + rng.below(2))).collect() };
    let (channels, depths) = (four(4), four(1));
    let resnet = set!(ResnetConfig {
        bottleneck: Some(depths[0] == 1),
        stem_channels: 4,
        channels: channels.clone(),
        depths: depths.clone()
    });
    let convnext = set!(ConvnextConfig { channels, depths, init_values: 0.5 });
    let all = || vec![3, 2, 1, 0];
    let unet = set!(UnetConfig { norm, img_size, out_indices: vec![2, 1] });
    match kind {
        0 => BackboneConfig::Unet(set!(UnetConfig {
            channels: four(8)[..3].into(),
            depths: four(1)[..3].into(),
            ..unet
        })),
        1 => {
            let (encoder, channels) = (Some(EncoderConfig::Resnet(resnet)), four(8));
            BackboneConfig::Unet(set!(UnetConfig { encoder, channels, ..unet }))
        }
        2 => {
            let (encoder, channels) = (Some(EncoderConfig::Convnext(convnext)), four(8)[..3].into());
            BackboneConfig::Unet(set!(UnetConfig { encoder, channels, out_indices: Vec::new(), ..unet }))
        }
        3 => BackboneConfig::Resnet(set!(ResnetConfig { out_indices: all(), img_size, ..resnet })),
        _ => BackboneConfig::Convnext(set!(ConvnextConfig { out_indices: all(), img_size, ..convnext })),
    }
}

pub(crate) fn decoder(kind: usize, vit: &VitConfig, rng: &mut Rng) -> DecoderConfig {
    let loss = set!(SetLossConfig { num_points: 20 + rng.below(30) });
    match kind {
        0..3 => {
            let block = [BlockKind::Cse, BlockKind::Sse, BlockKind::Pwe][kind];
            let num_blocks = 1 + rng.below(2);
            let prior = if rng.below(2) == 0 { Prior::None } else { Prior::Linear };
            DecoderConfig::StructToken(set!(StructTokenConfig {
                block,
                num_blocks,
                prior,
                upscale_factor: 1 + rng.below(3)
            }))
        }
        3 => {
            let num_convs = rng.below(3);
            let auxiliary_weight = if vit.out_indices.len() > 1 { 0.4 } else { 0.0 };
            DecoderConfig::Fcn(set!(FcnConfig {
                num_convs,
                concat_input: num_convs > 0 && rng.below(2) == 0,
                channels: 4 + rng.below(8),
                dropout_ratio: 0.1,
                auxiliary_weight,
                auxiliary_channels: 5
            }))
        }
        4 => DecoderConfig::Segmenter(set!(SegmenterConfig { num_layers: rng.below(3) })),
        5 => DecoderConfig::Knet(set!(KnetConfig {
            num_stages: rng.below(3),
            num_convs: 1,
            concat_input: rng.below(2) == 0,
            channels: 8,
            feat_channels: 8,
            num_heads: 2,
            feedforward_channels: 12,
            dropout_ratio: 0.1
        })),
        6 => DecoderConfig::MaskFormer(set!(MaskFormerConfig {
            num_queries: 3 + rng.below(9),
            conv_dim: 32,
            mask_dim: 7,
            hidden_dim: 12,
            num_heads: 3,
            dim_feedforward: 17,
            dec_layers: 1 + rng.below(2)
        })),
        7 => DecoderConfig::Mask2Former(set!(Mask2FormerConfig {
            num_queries: 3 + rng.below(9),
            hidden_dim: 32,
            mask_dim: 9,
            num_heads: 4,
            enc_layers: rng.below(2),
            enc_dim_feedforward: 13,
            enc_points: 1 + rng.below(4),
            dec_layers: rng.below(5),
            dim_feedforward: 15,
            loss
        })),
        _ => DecoderConfig::Eomt(set!(EomtConfig {
            num_queries: 3 + rng.below(9),
            num_blocks: (rng.below(2) == 0).then(|| 1 + rng.below(vit.dims().1)),
            masked_attention: rng.below(4) > 0,
            loss
        })),
    }
}

fn values(output: Output) -> Vec<f32> {
    output.scores().into_data().iter::<f32>().collect()
}

#[test]
fn random_models_learn_a_step_and_come_back() {
    for case in 0..108u64 {
        let rng = &mut Rng::new(17, &[case]);
        let vit = backbone(rng);
        let decoder = decoder(case as usize % 9, &vit, rng);
        learn_a_step_and_come_back(case, &ModelConfig::new(BackboneConfig::Vit(vit), decoder), rng);
    }
}

/// What the tail adds begins at zero, and learns from the first step.
#[test]
fn structure_tokens_with_a_prior_begin_as_the_linear_classifier() {
    for block in [BlockKind::Cse, BlockKind::Sse, BlockKind::Pwe] {
        let rng = &mut Rng::new(31, &[block as u64]);
        let backbone = BackboneConfig::Vit(backbone(rng));
        let upscale_factor = 1 + block as usize;
        let decoder = set!(StructTokenConfig { block, prior: Prior::Linear, num_blocks: 2, upscale_factor });
        let config = set!(ModelConfig { backbone, decoder: DecoderConfig::StructToken(decoder) });
        let device = test_device().autodiff();
        let model = config.init(4, 3, &device);
        let pixels: Vec<f32> = (0..3 * 30 * 40).map(|_| rng.normal()).collect();
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, 30, 40]), &device);
        let context = ForwardContext::eval().traced();
        let scores = model.forward(images, &context).scores();
        let grads = Gradients::of(&model, (scores.clone() * scores.clone()).sum().backward());
        let tail = grads.get("decoder.residual_block.conv2.weight").unwrap().clone();
        assert!(tail.abs().max().into_scalar::<f32>() > 0.0);
        let scores: Vec<f32> = scores.into_data().iter().collect();
        let trace = context.into_trace();
        let prior = trace.iter().find(|(name, _)| name.ends_with("prior")).unwrap();
        assert_eq!(scores, prior.1.iter::<f32>().collect::<Vec<_>>());
        assert!(scores.iter().any(|score| *score != 0.0));
    }
}

/// The controls of the same network: tokens that do not vary in space, do not learn, or say nothing.
#[test]
fn structure_tokens_can_be_taken_less_of() {
    let kinds = [
        (Tokens::Learned, true, false),
        (Tokens::Uniform, true, true),
        (Tokens::Frozen, false, false),
        (Tokens::Zero, false, true),
    ];
    for (case, (tokens, trained, uniform)) in (0u64..).zip(kinds) {
        let rng = &mut Rng::new(37, &[case]);
        let backbone = BackboneConfig::Vit(backbone(rng));
        let decoder = set!(StructTokenConfig { tokens, num_blocks: 2 });
        let config = set!(ModelConfig { backbone, decoder: DecoderConfig::StructToken(decoder) });
        let model = config.init(4, 3, &test_device().autodiff());
        let pixels: Vec<f32> = (0..3 * 30 * 40).map(|_| rng.normal()).collect();
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, 30, 40]), &test_device().autodiff());
        let context = ForwardContext::eval().traced();
        let scores = model.forward(images, &context).scores();
        let grads = Gradients::of(&model, (scores.clone() * scores.clone()).sum().backward());
        assert!(scores.into_data().iter::<f32>().all(f32::is_finite));
        assert_eq!(grads.get("decoder.kernels").is_some(), trained, "{tokens:?}");
        let trace = context.into_trace();
        let before = &trace.iter().find(|(name, _)| name.ends_with("kernels_in")).unwrap().1;
        let classes = before.shape()[3];
        let values: Vec<f32> = before.iter().collect();
        assert_eq!(values.chunks(classes).all(|at| at == &values[..classes]), uniform, "{tokens:?}");
        assert_eq!(values.iter().all(|value| *value == 0.0), tokens == Tokens::Zero);
        learn_a_step_and_come_back(case, &config, rng);
    }
}

/// Every decoder, EoMT too.
#[test]
fn models_of_rotated_tokens_learn_a_step_and_come_back() {
    for case in 0..54u64 {
        let rng = &mut Rng::new(29, &[case]);
        let vit = backbone(rng);
        let decoder = decoder(case as usize % 9, &vit, rng);
        let backbone = BackboneConfig::Dinov3(dinov3(&vit, rng));
        learn_a_step_and_come_back(case, &ModelConfig::new(backbone, decoder), rng);
    }
}

#[test]
fn heads_that_cannot_be_turned_say_what_to_do() {
    let odd = set!(Dinov3Config { embed_dim: Some(20), num_heads: Some(2) });
    let error = set!(ModelConfig { backbone: BackboneConfig::Dinov3(odd) }).check().unwrap_err();
    assert!(error.to_string().contains("10 channels") && error.hint().is_some(), "{error}");
}

/// All but EoMT, which lives inside of a plain vision transformer.
#[test]
fn convolutional_models_learn_a_step_and_come_back() {
    for case in 0..40u64 {
        let rng = &mut Rng::new(19, &[case]);
        let backbone = convolutional(case as usize / 8, rng);
        let several = set!(VitConfig { out_indices: vec![0; backbone.features().strides.len()] });
        let decoder = decoder(case as usize % 8, &several, rng);
        learn_a_step_and_come_back(case, &ModelConfig::new(backbone, decoder), rng);
    }
}

#[test]
fn decoders_that_a_backbone_cannot_carry_say_what_to_do() {
    let refused = |backbone: BackboneConfig, decoder: DecoderConfig| {
        let error = ModelConfig::new(backbone, decoder).check().unwrap_err();
        error.hint().unwrap_or_else(|| panic!("{error} has no hint")).to_owned()
    };
    for kind in 0..5 {
        let backbone = convolutional(kind, &mut Rng::new(23, &[]));
        let hint = refused(backbone, DecoderConfig::Eomt(EomtConfig::default()));
        assert!(hint.contains("vit"), "{hint}");
    }
    // One map alone, of stride 32.
    let auxiliary = set!(FcnConfig { auxiliary_weight: 0.4 });
    let cases = [
        (DecoderConfig::MaskFormer(MaskFormerConfig::default()), "[3, 2, 1, 0]", vec![3, 2, 1, 0]),
        (DecoderConfig::Mask2Former(Mask2FormerConfig::default()), "[3, 2, 1, 0]", vec![3, 2, 1, 0]),
        (DecoderConfig::Fcn(auxiliary), "[2, 3] of a ResNet", vec![2, 3]),
    ];
    for (decoder, said, out_indices) in cases {
        let hint = refused(BackboneConfig::Resnet(ResnetConfig::default()), decoder.clone());
        assert!(hint.contains(said), "{hint}");
        let backbone = BackboneConfig::Resnet(set!(ResnetConfig { out_indices }));
        ModelConfig::new(backbone, decoder).check().unwrap();
    }
}

fn learn_a_step_and_come_back(case: u64, config: &ModelConfig, rng: &mut Rng) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    {
        config.check().unwrap_or_else(|error| panic!("case {case}: {error}\n{config:?}"));
        let (classes, batch) = (2 + rng.below(6), 1 + rng.below(2));
        let (height, width) = (17 + rng.below(40), 17 + rng.below(40));
        let learning = test_device().autodiff();
        let model = config.init(classes, case, &learning);

        let pixels: Vec<f32> = (0..batch * 3 * height * width).map(|_| rng.normal()).collect();
        let pixels = TensorData::new(pixels, [batch, 3, height, width]);
        let images = Tensor::<4>::from_data(pixels.clone(), &learning);
        // Blocks of classes; some images have no label at all.
        let blocks: Vec<u8> = (0..64).map(|_| rng.below(classes + 1) as u8).collect();
        let unlabeled = rng.below(4) == 0;
        let ids = (0..batch * height * width).map(|at| match blocks[(at / 9 + at / width / 7) % 64] {
            id if usize::from(id) == classes || unlabeled => 255,
            id => id,
        });
        let targets = Targets::new(ids.collect(), [batch, height, width]);
        let targets = targets.padded((model.padded(height), model.padded(width)));
        let context = ForwardContext::train(Rng::new(case, &[1])).at(0.3);
        let mut draws = Rng::new(case, &[2]);
        let mut draw = |_: &str, count| (0..count).map(|_| draws.uniform()).collect();
        let criterion = Criterion { decoder: model.decoder_loss(), ..Criterion::default() };
        let loss = criterion.loss(model.forward(images, &context), &targets, &mut draw).total;
        let value: f32 = loss.clone().into_scalar();
        assert!(value.is_finite(), "case {case}: loss {value}\n{config:?}");
        let grads = Gradients::of(&model, loss.backward());
        assert!(grads.norm().is_some_and(|norm| norm.into_scalar::<f32>().is_finite()), "case {case}\n{config:?}");
        parameters::visit(&model, |parameter, _| {
            let Some(grad) = grads.get(parameter.name) else { return };
            let largest: f32 = grad.clone().abs().max().into_scalar();
            assert!(largest.is_finite(), "case {case}: gradient of {}\n{config:?}", parameter.name);
        });
        let model =
            Optimizer::new(&OptimizerConfig::default()).step(model, grads, 1e-3).with_statistics(&context).valid();
        parameters::visit(&model, |parameter, value| {
            assert!(value.abs().max().into_scalar::<f32>().is_finite(), "case {case}: {}", parameter.name);
        });

        weights::save(&path, &model, &BTreeMap::new()).unwrap();
        let blank = config.blank(classes, &test_device());
        let (again, _) = weights::load(blank, &weights::read(&path).unwrap(), &LoadOptions::strict()).unwrap();
        let images = Tensor::<4>::from_data(pixels, &test_device());
        let (output, counted) = count_macs(|| model.forward(images.clone(), &ForwardContext::eval()));
        let told: u64 = config.macs(classes, (height, width)).iter().map(|cost| cost.macs).sum();
        assert_eq!(counted, batch as u64 * told, "case {case}: products made and counted\n{config:?}");
        let before = values(output);
        assert!(before.iter().all(|score| score.is_finite()), "case {case}\n{config:?}");
        assert_eq!(before, values(again.forward(images, &ForwardContext::eval())), "case {case}\n{config:?}");
    }
}

/// What the kernels keep for a backbone's gradients grows with the image as it is estimated to, and never less: a run
/// is refused for what it needs for certain. A U-Net's steps up keep more than is counted.
#[test]
fn what_training_keeps_is_estimated() {
    let mut faults = Vec::new();
    for case in 0..70 {
        let mut rng = Rng::new(case, &[31]);
        let vit = backbone(&mut rng);
        let config = match case % 7 {
            0 => BackboneConfig::Vit(vit),
            1 => BackboneConfig::Dinov3(dinov3(&vit, &mut rng)),
            kind => convolutional(kind as usize - 2, &mut rng),
        };
        let learning = Device::flex().autodiff();
        let network = config.init(&mut Init::new(case, &learning));
        let stride = config.features().stride();
        let kept = |grid: (usize, usize)| {
            let images = Tensor::<4>::ones([1, 3, grid.0 * stride, grid.1 * stride], &learning);
            let context = ForwardContext::train(Rng::new(case, &[1]));
            count_kept(|| network.forward(images, &context)).1
        };
        // Without what does not grow with the image: weights.
        let (small, large) = ((2, 3), (4, 5));
        let grown = kept(large) - kept(small);
        let estimated = 4 * (config.kept_activations(large) - config.kept_activations(small));
        let ratio = estimated as f64 / grown as f64;
        let least = if matches!(config, BackboneConfig::Unet(_)) { 0.6 } else { 0.97 };
        if !(least..=1.0).contains(&ratio) {
            faults.push(format!("case {case}: {ratio:.4} of what is kept\n{config:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
