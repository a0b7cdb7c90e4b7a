use burn::tensor::Device;

use super::*;
use crate::backbone::{ConvnextConfig, ResnetConfig};
use crate::layers::parameters;
use crate::rng::Rng;

fn small(norm: NormKind) -> UnetConfig {
    UnetConfig {
        channels: vec![8, 16, 24],
        depths: vec![1, 2, 1],
        norm,
        out_indices: vec![2, 1],
        img_size: [48, 40],
        ..UnetConfig::default()
    }
}

/// A U-Net over each of the published networks, in small.
fn over_encoders() -> [UnetConfig; 2] {
    let resnet = ResnetConfig {
        layers: 18,
        depths: vec![1, 1, 2, 1],
        stem_channels: 8,
        channels: vec![8, 8, 16, 16],
        bottleneck: Some(true),
        ..ResnetConfig::default()
    };
    let convnext =
        ConvnextConfig { channels: vec![8, 8, 16, 16], depths: vec![1, 1, 2, 1], ..ConvnextConfig::default() };
    let over = |encoder, channels: &[usize]| UnetConfig {
        encoder: Some(encoder),
        channels: channels.to_vec(),
        ..small(NormKind::Batch)
    };
    [over(EncoderConfig::Resnet(resnet), &[8, 16, 16, 24]), over(EncoderConfig::Convnext(convnext), &[8, 16, 24])]
}

fn all() -> [UnetConfig; 4] {
    let [resnet, convnext] = over_encoders();
    [small(NormKind::Batch), small(NormKind::Group), resnet, convnext]
}

fn image(shape: [usize; 4], device: &Device) -> Tensor<4> {
    let mut rng = Rng::new(3, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_data(burn::tensor::TensorData::new(values, shape), device)
}

#[test]
fn maps_are_as_features_say_at_any_size() {
    for config in all() {
        config.check().unwrap();
        let features = config.features();
        let unet = config.init(&mut Init::new(1, &Device::flex()));
        assert_eq!((unet.grid(), features.channels.len()), (Some(features.grid), 3));
        for [h, w] in [[48, 40], [33, 47], [1, 1], [7, 2], [64, 5]] {
            let maps = unet.forward(image([2, 3, h, w], &Device::flex()), &ForwardContext::eval()).maps;
            let expected: Vec<_> = features.channels.iter().zip(&features.strides).collect();
            assert_eq!(maps.len(), expected.len());
            for (map, (channels, stride)) in maps.iter().zip(expected) {
                assert_eq!(map.dims(), [2, h.div_ceil(*stride), w.div_ceil(*stride), *channels], "{h} x {w}");
            }
        }
    }
}

/// A convolution takes one multiply-accumulate for each weight and each pixel that it writes; of a bottleneck's first,
/// which is before the stride, that it reads.
#[test]
fn multiply_accumulates_are_one_per_weight_and_pixel() {
    for config in all() {
        let unet = config.init(&mut Init::blank(&Device::flex()));
        let (stride, (h, w)) = (config.stride(), (48, 32));
        let at = |level: usize| {
            let level = stride << level;
            (h * stride).div_ceil(level) * (w * stride).div_ceil(level)
        };
        let mut expected = 0;
        for (name, shape, _) in parameters::list(&unet) {
            if shape.len() < 2 {
                continue; // norms and biases are not counted
            }
            let parts: Vec<&str> = name.split('.').collect();
            let number = |at: usize| parts[at].parse::<usize>().unwrap();
            let level = match (parts[0], parts.get(1).copied().unwrap_or_default()) {
                ("encoder", "conv1" | "stem") => 0,
                ("encoder", "stages") => number(2),
                // layer1 is the second map; its first block's 1x1 reads what is before the stride.
                ("encoder", layer) => {
                    let own: usize = layer.trim_start_matches("layer").parse().unwrap();
                    own - usize::from(own > 1 && name.ends_with(".0.conv1.weight"))
                }
                ("stages" | "ups", _) => number(1),
                ("downsamples", _) => number(1) + 1,
                _ => 0,
            };
            expected += shape.iter().product::<usize>() * at(level);
        }
        let counted: u64 = config.macs((h * config.stride(), w * config.stride())).iter().map(|cost| cost.macs).sum();
        assert_eq!(counted, expected as u64, "{config:?}");
    }
}

#[test]
fn every_parameter_learns() {
    for mut config in all() {
        if let Some(EncoderConfig::Convnext(convnext)) = &mut config.encoder {
            convnext.init_values = 0.5;
        }
        let device = Device::flex().autodiff();
        let unet = config.init(&mut Init::new(1, &device));
        // Norms that begin at zero keep what is before them from learning in the very first step.
        let unet = parameters::map(unet, |_, value| value + 0.125);
        let context = ForwardContext::train(Rng::new(1, &[]));
        let maps = unet.forward(image([2, 3, 40, 33], &device), &context).maps;
        let loss = maps.into_iter().map(|map| map.powi_scalar(2).sum()).reduce(|a, b| a + b).unwrap();
        let learnt = parameters::gradients(&unet, loss.backward());
        for (name, grad) in &learnt {
            let largest: f32 = grad.clone().abs().max().into_scalar();
            assert!(largest > 0.0 && largest.is_finite(), "{name}: {largest}");
        }
        let all = parameters::list(&unet);
        let follow = all.iter().filter(|(name, ..)| name.contains("running_")).count();
        assert_eq!(learnt.len() + follow, all.len());
        assert_eq!(context.take_statistics().len(), follow);
    }
}

#[test]
fn only_batch_norm_follows_the_batches() {
    let running = |config: &UnetConfig| {
        let names = parameters::list(&config.init(&mut Init::blank(&Device::flex())));
        names.iter().filter(|(name, ..)| name.contains("running_")).count()
    };
    // Stem 2, downsamples 2, blocks 2 each, ups 2 each.
    assert_eq!((running(&small(NormKind::Batch)), running(&small(NormKind::Group))), (2 * (2 + 2 + 8 + 4), 0));
}

#[test]
fn a_block_begins_as_its_shortcut() {
    let unet = small(NormKind::Group).init(&mut Init::new(1, &Device::flex()));
    let x = image([1, 4, 5, 8], &Device::flex()).abs();
    let off: f32 = (unet.stages[0].blocks[0].forward(x.clone(), &ForwardContext::eval()) - x).abs().max().into_scalar();
    assert_eq!(off, 0.0);
}

#[test]
fn what_cannot_be_built_is_refused() {
    let refused = |change: &dyn Fn(&mut UnetConfig), part: &str| {
        let mut config = small(NormKind::Group);
        config.check().unwrap();
        change(&mut config);
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("model.backbone") && error.contains(part), "{part}: {error}");
    };
    refused(&|c| c.channels.clear(), "channels");
    refused(&|c| c.depths = vec![1, 1], "there are as many of both");
    refused(&|c| c.channels[1] = 12, "multiple of the 8");
    refused(&|c| c.channels[1] = 0, "out of range");
    refused(&|c| c.depths[0] = 65, "out of range");
    refused(&|c| c.stem_stride = 0, "stem_stride");
    refused(&|c| c.img_size = [0, 8], "img_size");
    refused(&|c| c.drop_path_rate = 1.0, "drop_path_rate");
    refused(&|c| c.drop_path_rate = f64::NAN, "drop_path_rate");
    refused(&|c| c.out_indices = vec![1, 2], "must be in descending order");
    refused(&|c| c.out_indices = vec![3], "1 to 2");
    refused(&|c| c.out_indices = vec![0], "1 to 2");
}

/// What the hints say to do works.
#[test]
fn encoders_with_settings_of_the_unet_are_refused() {
    for config in over_encoders() {
        let refused = |change: &dyn Fn(&mut UnetConfig)| {
            let mut changed = config.clone();
            change(&mut changed);
            changed.check().unwrap_err()
        };
        let error = refused(&|c| c.channels = vec![32]);
        let hint = error.hint().unwrap().to_owned();
        let list = hint.split_once("model.backbone.channels = ").unwrap().1;
        let list = serde_json::from_str(list).unwrap();
        UnetConfig { channels: list, ..config.clone() }.check().unwrap();
        assert!(refused(&|c| c.drop_path_rate = 0.1).hint().unwrap().contains("encoder.drop_path_rate"));
        let error = refused(&|c| match c.encoder.as_mut().unwrap() {
            EncoderConfig::Resnet(resnet) => resnet.out_indices = vec![1],
            EncoderConfig::Convnext(convnext) => convnext.img_size = [8, 8],
        });
        assert!(error.hint().unwrap().contains("model.backbone.encoder"), "{error}");
        let error = refused(&|c| match c.encoder.as_mut().unwrap() {
            EncoderConfig::Resnet(resnet) => resnet.layers = 19,
            EncoderConfig::Convnext(convnext) => convnext.depths = vec![1],
        });
        assert!(error.to_string().contains("19") || error.to_string().contains("depths"), "{error}");
    }
}
