//! The trainer without a run.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::*;
use crate::backbone::{BackboneConfig, UnetConfig};
use crate::dataset::Split;
use crate::dataset::shapes::Shapes;
use crate::layers::{ForwardContext, fetch, parameters};
use crate::loss::{Criterion, Targets};
use crate::model::{Model, ModelConfig};
use crate::rng::Rng;
use crate::train::optimizer::{Gradients, OptimizerConfig};

fn trained(change: impl FnOnce(&mut TrainConfig)) -> Result<[BTreeMap<String, Vec<f32>>; 2]> {
    let unet = UnetConfig { channels: vec![8, 16], depths: vec![1; 2], img_size: [16, 16], ..UnetConfig::default() };
    let config = ModelConfig { backbone: BackboneConfig::Unet(unet), ..ModelConfig::default() };
    let [training, validation] = [Split::Train, Split::Val].map(|split| Shapes::new(0, split, 8, 16));
    let mut train = TrainConfig { iterations: 2, batch_size: 2, eval_every: 0, ..TrainConfig::default() };
    change(&mut train);
    let mut trainer = Trainer::new(train, &Device::flex());
    (trainer.augment.resize, trainer.augment.crop) = (None, [16, 16]);
    let model = config.init(training.classes().len(), 0, &Device::flex().autodiff());
    let values = |model: &Model| {
        let mut all = BTreeMap::new();
        parameters::visit(model, |parameter, value| {
            all.insert(parameter.name.to_owned(), value.into_data().iter::<f32>().collect());
        });
        all
    };
    let before = values(&model);
    let end = trainer.fit(model, Arc::new(training), &validation, &mut ())?;
    Ok([before, values(&end.model)])
}

#[test]
fn the_whole_of_a_recipe_is_honoured() {
    let changed = |part: &str, [before, after]: &[BTreeMap<String, Vec<f32>>; 2]| {
        before.iter().any(|(name, values)| name.starts_with(part) && after[name] != *values)
    };
    let all = trained(|train| train.optimizer.lr = 1e-2).unwrap();
    assert!(changed("backbone.", &all) && changed("decoder.", &all));
    let frozen = trained(|train| (train.optimizer.lr, train.freeze_backbone) = (1e-2, true)).unwrap();
    assert!(!changed("backbone.", &frozen) && changed("decoder.", &frozen));
    let error = |change: fn(&mut TrainConfig)| trained(change).unwrap_err().to_string();
    assert!(error(|train| train.accumulate = 0).contains("accumulate"));
    assert!(error(|train| train.class_weights = vec![1.0; 2]).contains("2 values for 6 classes"));
    assert!(error(|train| train.loss.adjust_logits = true).contains("set them, all above 0"));
    let zero = |train: &mut TrainConfig| {
        (train.loss.adjust_logits, train.class_weights) = (true, vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    };
    assert!(error(zero).contains("set them, all above 0"));
}

/// One iteration of networks of several kinds: the loss, the gradient of every parameter, and its value after a step.
#[test]
fn a_gpu_learns_what_the_cpu_does() {
    let name = std::env::var("STRUCTTOKEN_TEST_DEVICE").unwrap_or_default();
    if name.is_empty() || name == "cpu" {
        eprintln!("skipped: STRUCTTOKEN_TEST_DEVICE names no GPU");
        return;
    }
    let (gpu, _) = crate::device::open(&name).unwrap();
    let vit = "type = \"vit\"\nembed_dim = 24\ndepth = 2\nnum_heads = 2\npatch_size = 8\nimg_size = [32, 40]";
    let unet = "type = \"unet\"\ndepths = [1, 1, 1, 1]";
    let (tokens, fcn) = ("type = \"structtoken\"\nnum_blocks = 1", "type = \"fcn\"\nchannels = 32");
    let (queries, masked) = ("type = \"maskformer\"\nnum_queries = 7", "type = \"mask2former\"\nnum_queries = 7");
    for (backbone, decoder) in [(unet, masked), (unet, fcn), (unet, tokens), (vit, queries), (vit, tokens)] {
        let text = format!("[model.backbone]\n{backbone}\n[model.decoder]\n{decoder}");
        let recipe = crate::config::Config::parse(&text, "gpu", &[]).unwrap();
        let of = |device: &Device| {
            let device = device.clone().autodiff();
            let model = recipe.model.init(3, 7, &device);
            let images = Tensor::from_data(crate::infer::toy::noise(9, [2, 3, 32, 40]).into_data(), &device);
            let ids = (0..2 * 32 * 40).map(|i| if i % 40 < 4 { 255 } else { (i / 100 % 3) as u8 });
            let targets = Targets::new(ids.collect(), [2, 32, 40]).padded((model.padded(32), model.padded(40)));
            let mut rng = Rng::new(1, &[]);
            let mut draw = |_: &str, count| (0..count).map(|_| rng.uniform()).collect();
            let criterion = Criterion { decoder: model.decoder_loss(), ..Criterion::default() };
            let output = model.forward(images, &ForwardContext::train(Rng::new(1, &[])));
            let loss = criterion.loss(output, &targets, &mut draw).total;
            let gradients = Gradients::of(&model, loss.clone().backward());
            let slopes: BTreeMap<_, _> =
                gradients.0.iter().map(|(name, gradient)| (name.clone(), fetch(gradient.clone()))).collect();
            // With a large eps a step is as smooth as the gradient.
            let config = OptimizerConfig { eps: 1.0, clip_norm: Some(1.0), ..OptimizerConfig::default() };
            let model = Optimizer::new(&config).step(model, gradients, 0.1);
            let mut values = BTreeMap::new();
            parameters::visit(&model, |parameter, value| {
                values.insert(parameter.name.to_owned(), fetch(value));
            });
            (loss.into_scalar::<f32>(), slopes, values)
        };
        let ((loss, ours, stepped), (their_loss, theirs, their_stepped)) = (of(&gpu), of(&Device::flex()));
        assert!((loss - their_loss).abs() <= 1e-4 * their_loss, "{loss} against {their_loss}: {text}");
        assert!(ours.keys().eq(theirs.keys()));
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
        let of_all = |size: &dyn Fn(&[f32]) -> f32| {
            theirs.values().map(|values| size(values.as_slice().unwrap())).fold(0.0, f32::max)
        };
        let (largest_of_all, norm_of_all) = (of_all(&largest), of_all(&norm));
        let mut worst = 0.0f32;
        // At the start these point to the centres of cells, where slopes jump and rounding decides on which side.
        for (name, theirs) in theirs.iter().filter(|(name, _)| !name.contains("sampling_offsets")) {
            let (ours, theirs) = (ours[name].as_slice::<f32>().unwrap(), theirs.as_slice::<f32>().unwrap());
            let differences: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
            let difference = (largest(&differences) / (largest(theirs) + 1e-3 * largest_of_all))
                .max(norm(&differences) / (norm(theirs) + 1e-3 * norm_of_all));
            // Batch norm over a dozen pixels multiplies what rounding leaves.
            assert!(difference <= 1e-2, "{name}: {difference}: {text}");
            worst = worst.max(difference);
        }
        let mut off = 0.0f32;
        for (name, theirs) in &their_stepped {
            let (ours, theirs) = (stepped[name].as_slice::<f32>().unwrap(), theirs.as_slice::<f32>().unwrap());
            let differences: Vec<f32> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
            off = off.max(largest(&differences));
        }
        eprintln!("values {off:.1e}");
        eprintln!("{worst:.1e} and {:.1e}: {text}", (loss - their_loss).abs() / their_loss);
    }
}
