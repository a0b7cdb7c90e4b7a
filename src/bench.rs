//! How fast a model is on the machine at hand: images to label maps, or a step of training.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;

use crate::config::Config;
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::infer::{InferConfig, InferMode, Replayed, View, memory};
use crate::kernels::{self, Precision};
use crate::layers::{ForwardContext, parameters};
use crate::loader::Loader;
use crate::loss::{Criterion, Targets};
use crate::model::{Model, ModelConfig};
use crate::rng::Rng;
use crate::stats::median;
use crate::train::optimizer::{Gradients, Optimizer, OptimizerConfig};
use crate::{available_memory, infer};

/// What is timed.
#[derive(Clone, Debug)]
pub struct Work {
    /// What the work is called, for instance `pwe vit-s 512 k150 b1 labels`.
    pub name: String,
    /// The network; its weights are random.
    pub model: ModelConfig,
    /// Classes.
    pub classes: usize,
    /// Height and width of the images.
    pub image: [usize; 2],
    /// Images at once.
    pub batch: usize,
    /// A step of training (forward, backward, AdamW), else images to label maps of their size.
    pub train: bool,
    /// In what precision the CPU multiplies matrices.
    pub precision: Precision,
    /// Sliding window, by default the whole image at once.
    pub windows: Option<([usize; 2], [usize; 2])>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// The work's name.
    pub work: String,
    /// Median of the repetitions, in milliseconds.
    pub median_ms: f64,
    /// The fastest.
    pub min_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Repetitions, after those that were not counted.
    pub n: usize,
    /// Images per second, by the median.
    pub images_per_s: f64,
    /// Twice the multiply-accumulates of the work over the median: those of the forward pass, times three in training.
    /// Layers that inference takes together count as the network has them.
    pub gflop_per_s: f64,
    /// What a large matrix product reaches on this device at this moment.
    pub matrix_peak_gflop_per_s: f64,
    /// `gflop_per_s / matrix_peak_gflop_per_s`.
    pub share_of_peak: f64,
    /// The most memory the process has held so far, where the system reports it.
    pub peak_rss_mb: Option<u64>,
}

/// How fast training images are made ready.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Supply {
    /// The work's name.
    pub work: String,
    /// Threads that read, decode and augment.
    pub workers: usize,
    /// Images per second by all of them.
    pub images_per_s: f64,
    /// Images per second by one.
    pub images_per_s_per_worker: f64,
    /// Images counted.
    pub images: usize,
}

/// Cells of the last map of an image at most: counts of multiply-accumulates stay within 64 bits.
const LARGEST_GRID: usize = 1 << 22;

/// Reads, decodes, augments and batches training images of a recipe for some `seconds`, every image from its file.
///
/// # Errors
/// A dataset that cannot be opened or read.
pub fn supply(config: &Config, workers: usize, seconds: f64) -> Result<Supply> {
    let dataset = config.data.open(Split::Train)?;
    let batch = config.train.batch_size / config.train.accumulate;
    let mut loader = Loader::new(dataset, config.data.augment.clone(), batch, config.train.seed, 0, workers)?;
    // What the threads have prepared ahead by then was not made in the time that counts.
    for _ in 0..4 {
        loader.next()?;
    }
    let (start, mut images) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < seconds {
        images += loader.next()?.size;
    }
    let images_per_s = images as f64 / start.elapsed().as_secs_f64();
    let work = format!("training images of {}", config.data.dataset);
    Ok(Supply { work, workers, images_per_s, images_per_s_per_worker: images_per_s / workers as f64, images })
}

/// Times `work` on `device`: the median of `n` repetitions.
///
/// # Errors
/// A configuration that cannot be built, or labels that cannot be read from the device.
pub fn measure(work: &Work, n: usize, device: &Device) -> Result<Measurement> {
    work.check(n)?;
    work.fits(device)?;
    let mut times = if work.train { steps(work, n, device) } else { label_maps(work, n, device)? };
    times.sort_by(f64::total_cmp);
    let median = median(&times).unwrap_or(0.0);
    let peak_rss_mb = peak_rss_mb();
    let matrix_peak = kernels::with_precision(work.precision, || matrix_peak(device));
    let gflop = 2e-9 * work.macs() * work.batch as f64 * if work.train { 3.0 } else { 1.0 };
    Ok(Measurement {
        work: work.name.clone(),
        median_ms: median,
        min_ms: times[0],
        max_ms: times[times.len() - 1],
        n,
        images_per_s: 1e3 * work.batch as f64 / median,
        gflop_per_s: 1e3 * gflop / median,
        matrix_peak_gflop_per_s: matrix_peak,
        share_of_peak: 1e3 * gflop / median / matrix_peak,
        peak_rss_mb,
    })
}

impl Work {
    /// Fails where it cannot be timed, or not `n` times. Nothing is computed for that.
    ///
    /// # Errors
    /// A number that is too small or too large, or a configuration that cannot be built.
    pub fn check(&self, n: usize) -> Result<()> {
        let limits = [
            ("classes", self.classes, 255),
            ("batch", self.batch, 1 << 10),
            ("repetitions", n, 100_000),
            ("height", self.image[0], 1 << 14),
            ("width", self.image[1], 1 << 14),
        ];
        let windows = self.windows.map_or([1; 4], |([a, b], [c, d])| [a, b, c, d]);
        let limits = limits.into_iter().chain(windows.map(|side| ("window or its step", side, 1 << 14)));
        for (name, value, most) in limits {
            if !(1..=most).contains(&value) {
                return Err(Error::new(format!("{name}: {value} is not between 1 and {most}"))
                    .with_hint("`structtoken bench --help` names the options"));
            }
        }
        self.model.check()
    }

    /// How many windows the network sees of an image, and the height and width of each.
    fn seen(&self) -> (usize, (usize, usize)) {
        let [height, width] = self.image;
        match self.windows {
            None => (1, (height, width)),
            Some(([high, wide], [down, across])) => {
                let along = |side: usize, crop: usize, stride: usize| side.saturating_sub(crop).div_ceil(stride) + 1;
                (along(height, high, down) * along(width, wide, across), (high.min(height), wide.min(width)))
            }
        }
    }

    /// Multiply-accumulates of the forward pass of one image, all its windows included.
    fn macs(&self) -> f64 {
        let (count, size) = self.seen();
        let of_one: u64 = self.model.macs(self.classes, size).iter().map(|cost| cost.macs).sum();
        count as f64 * of_one as f64
    }

    /// Fails where the work is beyond counting, or needs for certain more memory than there is.
    fn fits(&self, device: &Device) -> Result<()> {
        let (_, (height, width)) = self.seen();
        let stride = self.model.backbone.features().stride();
        let grid = (height.div_ceil(stride), width.div_ceil(stride));
        if grid.0 * grid.1 > LARGEST_GRID {
            return Err(Error::new(format!(
                "{height} x {width} pixels at a stride of {stride} give a feature map of more than {LARGEST_GRID} cells"
            ))
            .with_hint(
                "use a smaller --size, or a recipe with larger patches or with windows (eval.mode = \"slide\")",
            ));
        }
        // A GPU has memory of its own, of which nothing is known.
        if device.clone().without_autodiff() != Device::flex() {
            return Ok(());
        }
        let shapes = parameters::list(&self.model.blank(self.classes, &Device::flex()));
        let weights: f64 = shapes.iter().map(|(_, shape, _)| shape.iter().product::<usize>() as f64).sum();
        let mut maps = self.model.activations(self.classes, (height, width)) as f64;
        if self.train {
            maps = maps.max(self.model.backbone.kept_activations(grid) as f64);
        }
        // In training gradients and two moments beside the weights.
        let copies = if self.train { 4.0 } else { 1.0 };
        let images = 3.0 * self.image[0] as f64 * self.image[1] as f64;
        let values = copies * weights + self.batch as f64 * (images + maps);
        available_memory::require(
            (4.0 * values) as u64,
            &format!("`{}`", self.name),
            "use a smaller --batch or --size, or a smaller network",
        )
    }

    fn images(&self, device: &Device) -> Tensor<4> {
        let [height, width] = self.image;
        let mut rng = Rng::named(0, "bench images");
        let values: Vec<f32> = (0..self.batch * 3 * height * width).map(|_| rng.normal()).collect();
        Tensor::from_data(TensorData::new(values, [self.batch, 3, height, width]), device)
    }
}

fn label_maps(work: &Work, n: usize, device: &Device) -> Result<Vec<f64>> {
    let model = work.model.init(work.classes, 0, device).for_inference();
    let config = InferConfig { precision: work.precision, ..InferConfig::default() };
    let config = match work.windows {
        None => InferConfig { mode: InferMode::Whole, ..config },
        Some((crop, stride)) => InferConfig { mode: InferMode::Slide, crop, stride, ..config },
    };
    let views = [View::of_tensor(work.images(device), false)];
    let size = (work.image[0], work.image[1]);
    let network = Replayed::new(model);
    timed(n, device, || infer::labels(&network, &views, size, &config).map(drop))
}

fn steps(work: &Work, n: usize, device: &Device) -> Vec<f64> {
    let learning = device.clone().autodiff();
    let images = work.images(&learning);
    let [height, width] = work.image;
    let mut rng = Rng::named(0, "bench labels");
    // A few classes an image, in squares, as people label.
    let columns = width.div_ceil(SQUARE);
    let squares: Vec<u8> = (0..work.batch * height.div_ceil(SQUARE) * columns)
        .map(|_| rng.below(work.classes.min(CLASSES_AN_IMAGE)) as u8)
        .collect();
    let rows = (0..work.batch).flat_map(|i| (0..height).map(move |y| i * height.div_ceil(SQUARE) + y / SQUARE));
    let ids =
        rows.flat_map(|row| (0..width).map(move |x| (row, x))).map(|(row, x)| squares[row * columns + x / SQUARE]);
    let targets = Targets::new(ids.collect(), [work.batch, height, width]);
    let mut optimizer = Optimizer::new(&OptimizerConfig::default());
    let mut model: Option<Model> = Some(work.model.init(work.classes, 0, &learning));
    let mut iteration = 0;
    let step = || {
        let Some(before) = model.take() else { unreachable!("each step leaves a model") };
        let context = ForwardContext::train(Rng::new(0, &[iteration]));
        let output = kernels::with_precision(work.precision, || before.forward(images.clone(), &context));
        let targets = targets.clone().padded((before.padded(height), before.padded(width)));
        let mut rng = Rng::new(1, &[iteration]);
        let mut draw = |_: &str, count| (0..count).map(|_| rng.uniform()).collect();
        let criterion = Criterion { decoder: before.decoder_loss(), ..Criterion::default() };
        let loss = criterion.loss(output, &targets, &mut draw).total;
        let grads = Gradients::of(&before, loss.backward());
        let after = optimizer.step(before, grads, 1e-4).with_statistics(&context);
        let _ = first_value(&after);
        model = Some(after);
        iteration += 1;
        Ok(())
    };
    timed(n, device, step).unwrap_or_else(|_: Error| unreachable!("a step does not fail"))
}

/// Side of a square of one class.
const SQUARE: usize = 64;
/// Classes in an image at most.
const CLASSES_AN_IMAGE: usize = 12;

/// Reads a weight, so that a device has to have finished.
fn first_value(model: &Model) -> f32 {
    let mut value = 0.0;
    let mut first = true;
    parameters::visit(model, |_, values| {
        if std::mem::take(&mut first) {
            value = values.narrow(0, 0, 1).into_scalar();
        }
    });
    value
}

/// The milliseconds of `n` calls, after two that warm up; on a GPU the third is recorded, and the fourth compared.
fn timed(n: usize, device: &Device, mut f: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    for _ in 0..if infer::is_cpu(device) { 2 } else { 4 } {
        f()?;
    }
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// GFLOP/s of the best of some large matrix products on `device`, in the precision that holds.
pub(crate) fn matrix_peak(device: &Device) -> f64 {
    let side: usize = if *device == Device::flex() { 1024 } else { 4096 };
    let matrix = || Tensor::<2>::ones([side, side], device);
    let (a, b) = (matrix(), matrix());
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        let product = kernels::linear(a.clone(), b.clone(), None);
        let _: f32 = product.narrow(0, 0, 1).narrow(1, 0, 1).into_scalar();
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (side as f64).powi(3) / best / 1e9
}

/// The most memory this process has held, where the system reports it.
pub fn peak_rss_mb() -> Option<u64> {
    memory::peak().map(|bytes| bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::{BackboneConfig, UnetConfig, VitConfig};

    #[test]
    fn both_kinds_of_work_are_measured() {
        let vit = VitConfig { embed_dim: Some(12), depth: Some(1), num_heads: Some(1), ..VitConfig::default() };
        let model = ModelConfig { backbone: BackboneConfig::Vit(vit), ..ModelConfig::default() };
        let (name, precision) = ("tiny".to_owned(), Precision::F32);
        let work = Work { name, model, classes: 3, image: [32, 48], batch: 2, train: false, precision, windows: None };
        for (train, precision) in [(false, Precision::F32), (true, Precision::F32), (true, Precision::Bf16)] {
            let found = measure(&Work { train, precision, ..work.clone() }, 3, &Device::flex()).unwrap();
            assert!(found.min_ms > 0.0 && found.min_ms <= found.median_ms && found.median_ms <= found.max_ms);
            assert!((found.gflop_per_s / found.matrix_peak_gflop_per_s / found.share_of_peak - 1.0).abs() < 1e-9);
        }
        assert!(measure(&Work { batch: 0, ..work }, 3, &Device::flex()).is_err());
    }

    /// Sizes that are all allowed, and together beyond 64 bits or any memory.
    #[test]
    fn what_cannot_be_timed_is_refused() {
        let vit = VitConfig { patch_size: 1, img_size: [16, 16], ..VitConfig::default() };
        let wide = VitConfig { embed_dim: Some(1 << 14), depth: Some(16), num_heads: Some(8), ..vit.clone() };
        let (name, precision) = ("much".to_owned(), Precision::F32);
        let model = |vit| ModelConfig { backbone: BackboneConfig::Vit(vit), ..ModelConfig::default() };
        let (model, wide) = (model(vit), model(wide));
        let image = [1 << 14; 2];
        let work = Work { name, model, classes: 3, image, batch: 1, train: false, precision, windows: None };
        let refused = |work: Work| measure(&work, 1, &Device::flex()).unwrap_err().to_string();
        assert!(refused(work.clone()).contains("more than 4194304 cells"));
        let windows = Some(([1 << 10; 2], [1; 2]));
        let wide = Work { model: wide, windows, batch: 1 << 10, ..work.clone() };
        assert!(wide.macs() > 2f64.powi(64) && refused(wide.clone()).contains("needs about"), "{}", wide.macs());
        for train in [true, false] {
            let image = [1 << 9; 2];
            assert!(refused(Work { train, image, ..wide.clone() }).contains("needs about"));
        }
        let unet = UnetConfig { stem_stride: 1, img_size: [1 << 16; 2], ..UnetConfig::default() };
        let unet = ModelConfig { backbone: BackboneConfig::Unet(unet), ..ModelConfig::default() };
        assert!(refused(Work { model: unet, ..work.clone() }).contains("is too large"));
        let default = Work { model: ModelConfig::default(), batch: 1 << 10, ..work };
        assert!(refused(default).contains("needs about"));
    }

    #[test]
    fn windows_are_counted_as_inference_places_them() {
        let whole = Work {
            name: String::new(),
            model: ModelConfig::default(),
            classes: 150,
            image: [512, 512],
            batch: 1,
            train: false,
            precision: Precision::F32,
            windows: None,
        };
        let slide = Work { image: [1024, 1024], windows: Some(([512, 512], [341, 341])), ..whole.clone() };
        assert_eq!(slide.macs(), 9.0 * whole.macs());
    }
}
