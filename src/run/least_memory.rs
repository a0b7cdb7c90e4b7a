//! The memory that a run needs for certain, compared with what there is before anything starts.

use burn::tensor::Device;

use crate::available_memory;
use crate::config::Config;
use crate::error::Result;
use crate::layers::parameters;

/// Bytes of a pixel in the loader's batches: image and labels.
const LOADED: usize = 4;
/// Batches that the loader holds, and the one in use.
const BATCHES: usize = 4;
/// What threads, logs and the allocator take, in bytes.
const PROGRAM: f64 = 20e6;
/// Bytes of a pixel in the network's input.
const INPUT: usize = 12;

/// Fails if training as `config` says cannot fit. What cannot be avoided is counted: weights, gradients, the optimizer
/// state, batches, and the maps of the backbone; a run that passes may still take more.
pub(super) fn ensure(config: &Config, classes: usize, device: &Device) -> Result<()> {
    let train = &config.train;
    let values: f64 = parameters::list(&config.model.blank(classes, &Device::flex()))
        .iter()
        .map(|(_, shape, _)| shape.iter().product::<usize>() as f64)
        .sum();
    // Passes are added pairwise: of the sums so far there is one for each power of two.
    let sums = 1 + train.accumulate.max(1).ilog2() as usize;
    let copies = 1 + sums + train.optimizer.rule.state_names().len() + usize::from(train.ema.is_some());
    let [height, width] = config.data.augment.crop;
    // In floats, which no size a user may give overflows.
    let product = |factors: &[usize]| factors.iter().map(|factor| *factor as f64).product::<f64>();
    let at_once = train.batch_size / train.accumulate;
    let mut needed = PROGRAM + product(&[BATCHES, at_once, height, width, LOADED]);
    // A GPU has memory of its own, of which nothing is known.
    if *device == Device::flex() {
        let maps = product(&[4, at_once, config.model.activations(classes, (height, width))]);
        let kept = if train.freeze_backbone { 0 } else { kept_maps(config, (height, width)) };
        let maps = maps.max(product(&[4, at_once, kept]));
        needed += product(&[4, copies]) * values + product(&[at_once, height, width, INPUT]) + maps;
    }
    available_memory::require(
        needed as u64,
        &format!("training with batches of {at_once} crops of {width} x {height}"),
        "lower train.batch_size, raise train.accumulate, which divides it, or use a smaller data.augment.crop or network",
    )
}

/// Values of the maps that the backbone keeps for the way back.
fn kept_maps(config: &Config, (height, width): (usize, usize)) -> usize {
    let stride = config.model.backbone.features().stride();
    config.model.backbone.kept_activations((height.div_ceil(stride), width.div_ceil(stride)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_what_it_needs() {
        let check = |changes: &[&str]| {
            let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
            ensure(&Config::parse("", "r", &changes).unwrap(), 150, &Device::flex())
        };
        check(&["model.backbone.type=vit", "train.batch_size=1", "data.augment.crop=[64, 64]"]).unwrap();
        for changes in [
            &["train.batch_size=65536"][..],
            &["train.batch_size=4096", "data.augment.crop=[4096, 4096]"],
            &[
                "model.backbone.type=vit",
                "model.backbone.embed_dim=16384",
                "model.backbone.num_heads=8",
                "model.backbone.depth=16",
            ],
            // 2^66 bytes.
            &[
                "model.backbone.type=vit",
                "model.backbone.patch_size=1",
                "model.backbone.img_size=[16, 16]",
                "model.backbone.embed_dim=16384",
                "model.backbone.num_heads=8",
                "model.backbone.depth=16",
                "train.batch_size=65536",
                "data.augment.crop=[16384, 16384]",
            ],
        ] {
            let error = check(changes).unwrap_err();
            assert!(
                error.to_string().contains("needs about") && error.hint().unwrap().contains("batch_size"),
                "{error}"
            );
        }
        check(&["train.batch_size=65536", "train.accumulate=65536", "data.augment.crop=[64, 64]"]).unwrap();
    }
}
