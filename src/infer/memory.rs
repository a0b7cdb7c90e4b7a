//! How much memory an evaluation takes: estimated from sizes that are known before it starts, and measured.
//!
//! Images, windows and the network's maps have known sizes, and nothing else grows: the counts of a
//! [`EvalAccumulator`](crate::eval::EvalAccumulator) are small, whatever the number of images. What cannot be known is
//! what the allocator keeps of what was freed: this program's gives nothing back. So weights count twice, as the file
//! was read and as the network holds them; and of what an image takes a part finds room where the file was. Both
//! constants were measured; `docs/evaluation.md` says how well they do. A convolutional network's maps are of many
//! sizes, and what one leaves another seldom fits into: for those the estimate is what they take at most.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::available_memory;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::infer::config::{InferConfig, InferMode};
use crate::infer::{Inference, is_cpu};
use crate::model::ModelConfig;

/// What an evaluation is made of, as far as memory goes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryModel<'a> {
    /// The network.
    pub model: &'a ModelConfig,
    /// Its classes.
    pub classes: usize,
    /// Values of all its tensors.
    pub parameters: usize,
    /// Windows, scales, flips.
    pub settings: &'a InferConfig,
    /// Height and width of the largest image.
    pub image: (usize, usize),
    /// Threads of the CPU's kernels.
    pub threads: usize,
}

/// Bytes that an evaluation will take in the end, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// The program itself.
    pub program: usize,
    /// Weights, as a file and as a network.
    pub weights: usize,
    /// Maps inside the network.
    pub network: usize,
    /// What convolutions arrange their weights and maps in, and what lies unused between maps of many sizes.
    pub convolutions: usize,
    /// What goes into the network and what comes out of it.
    pub windows: usize,
    /// Images, labels and what is counted of them.
    pub images: usize,
}

/// Code, threads and the first pages of the allocator, in bytes.
const PROGRAM: usize = 50_000_000;
/// The part of what an image takes that needs memory of its own.
const FRESH: f64 = 0.75;
/// The same of a convolutional network, at most.
const FRESH_CONVOLVED: f64 = 1.25;
/// What the allocator hands out large maps from: one that is larger than what is left of a piece begins another.
const PIECE: usize = 32 << 20;
/// What a thread that convolves holds, in bytes: maps and products at their points, and pages of its own.
const THREAD: usize = 15_000_000;
/// How often the arranged weights are counted: they grow from layer to layer, and what they outgrow stays.
const GROWN: usize = 2;
/// Images that are decoded at once: the one that is evaluated, those that wait, and the one being read.
const IMAGES: usize = 2 + AHEAD;
/// Samples that wait for the network in an evaluation, besides the one being fetched.
pub(crate) const AHEAD: usize = 2;
/// The part of an estimate that is needed for certain.
pub(crate) const ENSURED_SHARE: f64 = 0.5;
/// Bytes of a pixel of image and truth.
const DECODED: usize = 4;
/// Bytes of a pixel while it is judged: label, probabilities twice, distances, contours.
const JUDGED: usize = 33;
/// Bytes of a pixel of an evaluation: of all images that are there at once, and while one is judged.
const EVALUATED: usize = IMAGES * DECODED + JUDGED;
/// The same of an image that is there already and is only labelled: its labels, and the file they become.
const LABELED: usize = 2;
/// The same of one that is read, labelled with the probability of each label, and answered.
const ANSWERED: usize = DECODED + LABELED + 4;

impl MemoryModel<'_> {
    /// What it will take, on a CPU. On another device the network's part lies there.
    pub fn estimate(&self) -> MemoryEstimate {
        self.estimate_of(EVALUATED, 1)
    }

    /// What it takes to label so many images of this size [`together`](Inference::labels_together) and to give the
    /// probability of each label, with nothing to compare them with.
    pub fn estimate_labeling(&self, together: usize) -> MemoryEstimate {
        self.estimate_of(ANSWERED, together)
    }

    /// `pixel` are the bytes for each pixel of the image.
    fn estimate_of(&self, pixel: usize, together: usize) -> MemoryEstimate {
        let image = ImageBytes { size: self.image, classes: self.classes, threads: self.threads };
        let activations = |size| self.model.activations(self.classes, size);
        let parts = image.parts(self.settings, self.stride(), pixel, &activations);
        let parts = parts.map(|bytes| bytes.saturating_mul(together));
        let [network, windows, images] = match self.is_upper_bound() {
            true => parts.map(|bytes| (bytes as f64 / FRESH * FRESH_CONVOLVED) as usize),
            false => parts,
        };
        let convolutions = match self.model.backbone.arranged_weights() {
            None => 0,
            Some(arranged) => {
                let maps = (network as f64 / FRESH_CONVOLVED) as usize;
                GROWN * 4 * arranged + self.threads * THREAD + (1 + maps / PIECE).min(3) * PIECE
            }
        };
        MemoryEstimate { program: PROGRAM, weights: 2 * 4 * self.parameters, network, convolutions, windows, images }
    }

    /// Whether the estimate is what is taken at most, and not about what is taken.
    pub fn is_upper_bound(&self) -> bool {
        self.model.backbone.arranged_weights().is_some()
    }

    /// Fails where what it will take is far more than the memory that is left. `held` is how much of it this process
    /// has already, the weights for instance. The estimate is not exact: what may just fit is tried.
    pub fn ensure(&self, held: usize) -> Result<()> {
        let found = self.estimate();
        let hint = remedy([found.network + found.convolutions, found.windows, found.images], self.settings);
        need(found.total(), held, self.image, hint)
    }

    fn stride(&self) -> usize {
        self.model.backbone.features().stride()
    }
}

/// Fails where an image needs for certain more than is left.
fn need(estimated: usize, held: usize, (height, width): (usize, usize), hint: &str) -> Result<()> {
    let certain = (estimated as f64 * ENSURED_SHARE) as usize;
    let [estimated, certain] = [estimated, certain].map(|bytes| bytes.saturating_sub(held) as u64);
    available_memory::require_estimated(estimated, certain, &format!("an image of {width} x {height}"), hint)
}

/// What helps where no setting does.
const SMALLER: &str = "cut the image into tiles, or scale it down";

/// What makes the largest of the `parts` smaller: of the network, of windows, of images.
fn remedy([network, windows, images]: [usize; 3], settings: &InferConfig) -> &'static str {
    match settings.mode {
        _ if images > network && images > windows => SMALLER,
        InferMode::Whole => {
            "process it in smaller pieces: use eval.mode=slide instead of eval.mode=whole, with a small eval.crop and \
             eval.stride; or lower eval.scales or eval.resize"
        }
        InferMode::Slide => {
            "process it in smaller pieces: lower eval.windows_per_batch, eval.crop with eval.stride, eval.scales or \
             eval.resize"
        }
    }
}

/// The most bytes that an image of this process was estimated to take, and was let pass.
static PASSED: AtomicUsize = AtomicUsize::new(0);

/// Fails where an image of `size` (height, width) needs far more memory than is left, beside itself and the weights,
/// which are there. What one image has taken, the next can have.
pub(super) fn ensure_labeled(inference: &Inference, size: (usize, usize)) -> Result<()> {
    ensure_image(inference, size, LABELED, |parts| remedy(parts, inference.config))
}

/// The same of an image that is judged too, among others that wait.
pub(crate) fn ensure_judged(inference: &Inference, size: (usize, usize)) -> Result<()> {
    // An empty one is refused later.
    if size.0 == 0 || size.1 == 0 {
        return Ok(());
    }
    ensure_image(inference, size, EVALUATED, |parts| remedy(parts, inference.config))
}

/// The same of a view of `size` that passes the network as a whole, whatever the windows are.
pub(super) fn ensure_whole(inference: &Inference, size: (usize, usize)) -> Result<()> {
    let whole = InferConfig {
        mode: InferMode::Whole,
        scales: vec![1.0],
        resize: None,
        flip: false,
        ..inference.config.clone()
    };
    ensure_image(&Inference { config: &whole, ..*inference }, size, LABELED, |_| SMALLER)
}

fn ensure_image(
    inference: &Inference,
    size: (usize, usize),
    pixel: usize,
    remedy: impl Fn([usize; 3]) -> &'static str,
) -> Result<()> {
    let Inference { network, config, device, .. } = *inference;
    let image = ImageBytes { size, classes: network.classes(), threads: rayon::current_num_threads() };
    // A GPU has memory of its own, of which nothing is known.
    let on_cpu = is_cpu(device);
    let activations = |size| if on_cpu { network.activations(size) } else { 0 };
    let parts = image.parts(config, network.padded(1), pixel, &activations);
    let estimated = parts.into_iter().fold(0, usize::saturating_add);
    if estimated > PASSED.load(Ordering::Relaxed) {
        need(estimated, 0, size, remedy(parts))?;
        PASSED.fetch_max(estimated, Ordering::Relaxed);
    }
    Ok(())
}

/// An image, as far as memory goes.
struct ImageBytes {
    size: (usize, usize),
    classes: usize,
    threads: usize,
}

impl ImageBytes {
    /// Bytes for maps inside of the network, what goes into it and comes out, and the image and what is counted of it.
    /// `pixel` are the bytes for each pixel of the last, and `activations` the values that the network holds at once
    /// for a window of some size.
    fn parts(
        &self,
        settings: &InferConfig,
        stride: usize,
        pixel: usize,
        activations: &dyn Fn((usize, usize)) -> usize,
    ) -> [usize; 3] {
        // In floats, which no size a user may give overflows.
        let product = |factors: &[usize]| factors.iter().map(|factor| *factor as f64).product::<f64>();
        let flips = if settings.flip { 2.0 } else { 1.0 };
        let (mut network, mut windows) = (0f64, 0.0);
        for (height, width) in settings.sizes(self.size) {
            let places = settings.windows((height, width));
            let (rows, columns) = (places.tops.len(), places.lefts.len());
            let size = places.size;
            // As many rows of windows as fit into a batch, at least one, cut into batches.
            let rows_at_once = (settings.windows_per_batch / columns).clamp(1, rows);
            let batch = (rows_at_once * columns).min(settings.windows_per_batch);
            network = network.max(product(&[batch, activations(size)]));
            let pixels = product(&[batch, 3, size.0, size.1]);
            let grid = [size.0.div_ceil(stride), size.1.div_ceil(stride)];
            // Rows of windows that reach over a row of the image, as the network gives them and as they are read.
            let reach = product(&[(rows_at_once + 1).min(rows), columns, grid[0], grid[1], self.classes, 2]);
            let scratch = product(&[self.threads, 4, width.max(self.size.1), self.classes]);
            windows += flips * (reach + scratch) + pixels;
        }
        let pixels = product(&[self.size.0, self.size.1, pixel]);
        [4.0 * network, 4.0 * windows, pixels].map(|bytes| (FRESH * bytes) as usize)
    }
}

impl MemoryEstimate {
    /// Below this much, what the allocator and the system add is as large as what is estimated.
    const SMALL: usize = 100_000_000;

    /// Whether it is too little for its parts to be estimated.
    pub fn is_small(&self) -> bool {
        self.total() < Self::SMALL
    }

    /// All of it.
    pub fn total(&self) -> usize {
        let parts = [self.program, self.weights, self.network, self.convolutions, self.windows, self.images];
        parts.into_iter().fold(0, usize::saturating_add)
    }
}

/// Number, height and width of the largest of some images spread over a dataset.
///
/// # Errors
/// An image that cannot be read.
pub fn largest(dataset: &dyn Dataset, looks: usize) -> Result<(usize, (usize, usize))> {
    let n = dataset.len();
    let mut largest = (0, (0, 0));
    for look in 0..looks.min(n) {
        let index = look * n / looks.min(n);
        let image = dataset.get(index)?.image;
        if image.height * image.width > largest.1.0 * largest.1.1 {
            largest = (index, (image.height, image.width));
        }
    }
    Ok(largest)
}

/// The most memory that this process has held so far, in bytes, from `/proc`; none elsewhere than on Linux.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate<'a>(model: &'a ModelConfig, settings: &'a InferConfig, image: (usize, usize)) -> MemoryEstimate {
        MemoryModel { model, classes: 150, parameters: 38_000_000, settings, image, threads: 2 }.estimate()
    }

    #[test]
    fn an_answer_takes_less_than_an_evaluation() {
        let (model, settings) = (ModelConfig::default(), InferConfig::default());
        let (classes, parameters, image) = (150, 38_000_000, (4096, 4096));
        let memory = MemoryModel { model: &model, classes, parameters, settings: &settings, image, threads: 2 };
        let (evaluated, answered) = (memory.estimate(), memory.estimate_labeling(1));
        let two = memory.estimate_labeling(2);
        assert_eq!(
            [two.network, two.windows, two.images],
            [answered.network, answered.windows, answered.images].map(|one| 2 * one)
        );
        assert!(answered.images > 4096 * 4096 * 5 && answered.images < evaluated.images / 3);
        assert_eq!(MemoryEstimate { images: evaluated.images, ..answered }, evaluated);
    }

    #[test]
    fn windows_bound_the_network_and_images_only_themselves() {
        let model = ModelConfig::default();
        let slide = InferConfig { windows_per_batch: 4, ..InferConfig::default() };
        let one = estimate(&model, &slide, (512, 512));
        let (large, larger) = (estimate(&model, &slide, (2048, 2048)), estimate(&model, &slide, (4096, 2048)));
        assert_eq!(
            (large.network, larger.network),
            (4 * one.network, 4 * one.network),
            "four windows at once, at most"
        );
        assert_eq!(larger.images, 2 * large.images);
        assert_eq!((one.weights, one.program), (large.weights, large.program));
        let whole = InferConfig { mode: InferMode::Whole, ..slide.clone() };
        assert!(estimate(&model, &whole, (2048, 2048)).network > 15 * one.network);
        let twice = InferConfig { flip: true, scales: vec![1.0, 2.0], ..slide };
        let more = estimate(&model, &twice, (512, 512));
        assert!(more.windows > 2 * one.windows);
        assert_eq!(more.network, 3 * one.network, "a row of three windows, and a second would make six");
        assert_eq!(one.total(), one.program + one.weights + one.network + one.windows + one.images);
        assert_eq!(one.convolutions, 0);
    }

    /// The most that evaluations held on Linux with two threads, in MB; a U-Net of 3 million values, 2 classes, images
    /// whole.
    #[test]
    fn a_unet_takes_no_more_than_is_estimated() {
        let estimate = |decoder: &str, image, threads, settings: &InferConfig| {
            let text =
                format!("[model.backbone]\ntype = \"unet\"\ndepths = [1, 1, 1, 1]\n[model.decoder]\ntype = {decoder}");
            let recipe: toml::Table = toml::from_str(&text).unwrap();
            let model: ModelConfig = recipe["model"].clone().try_into().unwrap();
            let memory = MemoryModel { model: &model, classes: 2, parameters: 2_500_000, settings, image, threads };
            assert!(memory.is_upper_bound());
            memory.estimate().total() as f64 / 1e6
        };
        let whole = InferConfig { mode: InferMode::Whole, ..InferConfig::default() };
        let (fcn, tokens) = ("\"fcn\"\nnum_convs = 0", "\"structtoken\"");
        for (decoder, image, held) in [
            (fcn, (256, 256), 143.0),
            (fcn, (512, 512), 218.0),
            (fcn, (520, 640), 296.0),
            (fcn, (1024, 1024), 515.0),
            (tokens, (256, 256), 189.0),
            (tokens, (512, 512), 335.0),
            (tokens, (520, 640), 345.0),
            (tokens, (1024, 1024), 625.0),
        ] {
            let estimated = estimate(decoder, image, 2, &whole);
            // Nothing of use would be said by a bound that is far away.
            assert!((0.95..1.35).contains(&(estimated / held)), "{decoder} {image:?}: {estimated} for {held}");
        }
        assert!(estimate(fcn, (512, 512), 8, &whole) > estimate(fcn, (512, 512), 2, &whole));
        let slide = InferConfig { crop: [256, 256], stride: [192, 192], ..InferConfig::default() };
        assert!(estimate(fcn, (1024, 1024), 2, &slide) < 0.7 * estimate(fcn, (1024, 1024), 2, &whole));
    }

    /// 268 million pixels in small windows: what counts is not that they could be judged too, and no smaller windows
    /// help.
    #[test]
    fn a_large_image_is_labelled_in_little_more_than_it_takes_itself() {
        let image = ImageBytes { size: (1 << 14, 1 << 14), classes: 6, threads: 16 };
        let slide = InferConfig { crop: [512, 512], stride: [512, 512], ..InferConfig::default() };
        let model = ModelConfig::default();
        let parts = |pixel| image.parts(&slide, 16, pixel, &|size| model.activations(6, size));
        let (labeled, judged) = (parts(LABELED), parts(EVALUATED));
        assert!(labeled[2] < 600_000_000 && judged[2] > 8_000_000_000 && labeled[..2] == judged[..2]);
        assert!(remedy(judged, &slide).contains("tiles"));
        assert!(remedy([2, 1, 1], &slide).contains("eval.crop") && !remedy([2, 1, 1], &slide).contains("whole"));
        let whole = InferConfig { mode: InferMode::Whole, ..slide };
        assert!(remedy([2, 1, 1], &whole).contains("eval.mode=slide"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_reported() {
        let buffer = vec![1u8; 64 << 20];
        assert!(peak().unwrap() > buffer.iter().map(|byte| u64::from(*byte)).sum());
    }
}
