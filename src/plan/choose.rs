//! The rules by which a recipe is chosen: crop, augmentation, class weights, learning rate, length, and the norm of a
//! U-Net.

mod architecture;
mod lines;
mod model_settings;
#[cfg(test)]
mod tests;

use crate::config::Config;
use crate::dataset::Split;
use crate::error::Result;
use crate::plan::choose::architecture::{ArchitectureChoice, batch_size, patch_size};
pub use crate::plan::choose::lines::Line;
use crate::plan::choose::lines::toml_of;
use crate::plan::facts::{Facts, Machine};
use crate::plan::{PlanOptions, StepTiming};
use crate::text;

/// Sides of training crops to choose from, in pixels, before they are rounded down to whole patches.
const CROPS: [usize; 4] = [224, 336, 448, 512];
/// A crop is only taken if it leaves time for this many iterations: with fewer a run is mostly warm-up.
const STEPS: f64 = 600.0;
/// The same for a U-Net from scratch, where everything is to be learned.
const STEPS_UNET_FROM_SCRATCH: f64 = 1500.0;
/// And for this many epochs.
const PASSES: f64 = 4.0;
/// Above this [variety](Facts::variety) images were taken in many ways.
const VARIED: f64 = 1.0;
/// No run is planned with more epochs: more of the same images teach little.
const MOST_PASSES: f64 = 200.0;
/// The share of the budget that iterations and evaluations may take: the planning itself, files and the page take the
/// rest.
const SPENT: f64 = 0.96;
/// A run that is faster than estimated may have up to this many times the planned iterations.
const LENGTHENED: f64 = 2.0;
/// The share of the budget that evaluations may take at most, and the most evaluations.
const EVALUATING: (f64, f64) = (0.15, 8.0);
/// Below this share of pixels a class is rare, and weighs more in the loss.
const RARE: f64 = 0.02;
/// Below this share of images a class is seldom seen, and crops are drawn for it: a weight does not help in images
/// without it.
const SELDOM: f64 = 0.1;
/// bf16 is used if a step is at least this many times as fast: less is not worth the rounding.
const WORTH_ROUNDING: f64 = 1.15;
/// Steps up to which a linear classifier is taken over pretrained features. It was seen to lead after 200, 500 and 1600
/// on CamVid, by less and less (docs/results.md).
const SHORT: f64 = 5000.0;

/// The share of the free memory that steps may take: a quarter is for decoded images.
const MEMORY_SHARE: f64 = 0.65;

/// The memory of a step with the smallest crop, and the memory there is, in MB.
pub(super) struct StepMemory {
    /// Weights, gradients, moments: as much for every crop.
    pub(super) fixed: f64,
    /// What grows with the pixels of a pass.
    pub(super) maps: f64,
    /// Free when the planning started; infinite if unknown.
    pub(super) free: f64,
}

impl StepMemory {
    /// Whether there is memory for `times` the pixels.
    fn fits(&self, times: f64) -> bool {
        self.fixed + times * self.maps <= MEMORY_SHARE * self.free
    }
}

/// Images whose longer side is above this are brought to it.
const LARGE: usize = 1024;

/// What is decided step by step.
pub(super) struct PlanDraft {
    lines: Vec<Line>,
    network: ArchitectureChoice,
    patch: usize,
    crop: [usize; 2],
    /// Whether the decoder is a linear classifier over pretrained features.
    linear: bool,
}

impl PlanDraft {
    /// Chooses the network and everything else that does not depend on speed; the crop is the smallest.
    pub(super) fn choose_network(facts: &Facts, machine: &Machine, options: &PlanOptions) -> Result<Self> {
        let transformer = matches!(options.name("model.backbone.type").as_deref(), Some("vit" | "dinov3"));
        let network = ArchitectureChoice::of(facts, transformer);
        let patch = match transformer && !options.given.is_empty() {
            true => Config::parse("", "plan", &options.given)?.model.backbone.features().stride(),
            false => patch_size(network, facts),
        };
        let mut draft = Self { lines: Vec::new(), network, patch, crop: [0; 2], linear: false };
        draft.take_smallest(facts);
        draft.data(facts, machine);
        draft.model(facts, options);
        draft.learning(facts, options, machine);
        Ok(draft)
    }

    fn push(&mut self, table: &'static str, key: &'static str, value: impl ToString, reason: impl Into<String>) {
        self.lines.retain(|line| (&*line.table, &*line.key) != (table, key));
        let (table, key, value, reason) = (table.to_owned(), key.to_owned(), value.to_string(), reason.into());
        self.lines.push(Line { table, key, value, reason });
    }

    /// Height and width of a crop of about this side, in whole patches, no larger than the images.
    fn crop_of(&self, side: usize, facts: &Facts) -> [usize; 2] {
        let whole = |image: usize| (side.min(image) / self.patch).max(1) * self.patch;
        [whole(facts.size.1), whole(facts.size.0)]
    }

    /// Takes the crop that speed and memory are measured with, all images of a batch at once.
    pub(super) fn take_smallest(&mut self, facts: &Facts) {
        self.lines.retain(|line| line.key != "accumulate");
        self.take(self.crop_of(CROPS[0], facts), "");
    }

    fn take(&mut self, crop: [usize; 2], reason: &str) {
        self.crop = crop;
        self.push("data.augment", "crop", format!("[{}, {}]", crop[0], crop[1]), reason);
    }

    fn data(&mut self, facts: &Facts, machine: &Machine) {
        let (width, height) = facts.size;
        let [smallest, largest] = facts.extremes;
        self.push(
            "data",
            "dataset",
            format!("{:?}", facts.dataset),
            format!(
                "{} images to train on, {} to evaluate on, {} classes",
                facts.images(Split::Train),
                facts.images(Split::Val),
                facts.classes.len()
            ),
        );
        self.push("data", "workers", machine.threads.clamp(1, 8), "as many as the CPU has threads, 8 at most");
        let decoded = facts.images(Split::Train) * width * height * 4 / 1_000_000 + 1;
        let cache_mb = machine.free_mb.map_or(1024, |free| free as usize / 4);
        let cache = decoded.min(cache_mb);
        let reason =
            if decoded <= cache_mb { "all training images fit, decoded" } else { "a quarter of the free memory" };
        self.push("data", "cache_mb", cache, reason);
        let sizes = if smallest == largest {
            format!("all images have {width} x {height}")
        } else {
            format!("images have {} x {} to {} x {}", smallest.0, smallest.1, largest.0, largest.1)
        };
        let (long, short) = (width.max(height), width.min(height));
        let unet = matches!(self.network, ArchitectureChoice::Unet { .. } | ArchitectureChoice::PretrainedUnet);
        let (scale, reason) = match (unet, long > LARGE) {
            (true, false) => ("\"image\"".to_owned(), format!("{sizes}: each keeps its own, for small objects")),
            (true, true) => {
                let short = (short * LARGE).div_ceil(long);
                (format!("[{LARGE}, {short}]"), format!("{sizes}: larger images cost more time than they gain"))
            }
            (false, _) if smallest == largest => (format!("[{long}, {short}]"), sizes),
            (false, _) => (format!("[{long}, {short}]"), format!("{sizes}; this is the median")),
        };
        self.push("data.augment.resize", "scale", scale, reason);
        self.push(
            "data.augment.resize",
            "ratio",
            "[0.75, 1.5]",
            "sizes vary, but not so much that a small network cannot follow",
        );
        if unet {
            self.push("data.augment", "cat_max_ratio", "1.0", "crops that show a single class are kept");
        }
        if !facts.upright {
            self.push("data.augment", "vertical_flip", "0.5", "no class lies mainly at the top or at the bottom");
        }
        let sided = facts.classes.names.iter().find(|name| {
            let name = name.to_lowercase();
            name.split(|c: char| !c.is_alphanumeric()).any(|word| word == "left" || word == "right")
        });
        if let Some(name) = sided {
            self.push("data.augment", "flip", "0.0", format!("`{name}` would be mirrored into its opposite"));
        }
    }

    /// What is done for classes that are seldom seen, and the loss.
    fn rare_classes(&mut self, facts: &Facts, options: &PlanOptions) {
        let images = facts.images(Split::Train);
        let seldom = facts.most_seldom().filter(|(_, holders)| (*holders as f64) < SELDOM * images as f64);
        // Decoders of queries weigh a query's class, and have nothing to adjust.
        let queries =
            matches!(options.name("model.decoder.type").as_deref(), Some("maskformer" | "mask2former" | "eomt"));
        let mut adjusts = false;
        if let Some((name, holders)) = seldom {
            let reason =
                format!("`{name}` is in {holders} of {images} images: half the crops are drawn for rare classes");
            self.push("data.augment", "rare_class", "{ share = 0.5 }", reason);
        } else if let Some((name, share)) = facts.rarest().filter(|(_, share)| *share < RARE)
            && (facts.pretrained.is_none() || !queries)
        {
            let mut sorted: Vec<f64> = facts.shares.iter().copied().filter(|share| *share > 0.0).collect();
            sorted.sort_by(f64::total_cmp);
            let middle = sorted[sorted.len() / 2];
            let weight = |share: &f64| if *share > 0.0 { (middle / share).sqrt().clamp(0.5, 3.0) } else { 1.0 };
            let weights: Vec<String> = facts.shares.iter().map(|share| format!("{:.2}", weight(share))).collect();
            let reason = format!(
                "`{name}` has {:.2} % of the pixels: square root of the median share over the class's share, between 0.5 and 3",
                100.0 * share
            );
            self.push("train", "class_weights", format!("[{}]", weights.join(", ")), reason);
            adjusts = !queries && !options.decides("train.class_weights");
        }
        let unet = matches!(self.network, ArchitectureChoice::Unet { .. } | ArchitectureChoice::PretrainedUnet);
        let overlap = "in addition to cross entropy, the overlap of each class counts";
        // Weights alone make a network say rare classes too often (docs/results.md).
        let adjusted = "rare classes are learned from more, and are not predicted more often than they are there";
        match (unet, adjusts) {
            (true, true) => {
                let reason = format!("{overlap}; {adjusted}");
                self.push("train", "loss", "{ dice = 1.0, adjust_logits = true }", reason);
            }
            (true, false) => self.push("train", "loss", "{ dice = 1.0 }", overlap),
            (false, true) => self.push("train", "loss", "{ adjust_logits = true }", adjusted),
            (false, false) => {}
        }
    }

    fn learning(&mut self, facts: &Facts, options: &PlanOptions, machine: &Machine) {
        let (batch, why) = batch_size(self.network, machine, facts);
        self.push("train", "batch_size", batch, why);
        self.push("train", "loss_mean", "\"valid\"", "padding and unlabelled pixels do not thin out the loss");
        self.rare_classes(facts, options);
        let fine_tunes = !options.given.is_empty();
        match self.network {
            ArchitectureChoice::Unet { .. } if fine_tunes => {
                self.push(
                    "train.optimizer",
                    "lr",
                    "5e-4",
                    "a quarter of that from scratch: the network has learned already",
                );
                self.push("train.optimizer", "decoder_lr_mult", 10, "new classes have everything to learn");
            }
            _ if fine_tunes => {
                self.push("train.optimizer", "lr", "1e-4", "the network has learned already");
                self.push("train.optimizer", "decoder_lr_mult", 5, "new classes have everything to learn");
            }
            ArchitectureChoice::Pretrained => {
                self.push("train.optimizer", "lr", "4e-5", "pretrained weights are to be changed with care");
                self.push("train.optimizer", "decoder_lr_mult", 15, "the decoder has everything to learn");
            }
            ArchitectureChoice::PretrainedUnet => {
                let why = "less than from scratch: half of the network is pretrained, and its way up is not";
                self.push("train.optimizer", "lr", "5e-4", why);
                self.push("train.optimizer", "decoder_lr_mult", 10, "the classifier begins near zero");
            }
            ArchitectureChoice::Unet { .. } => {
                self.push("train.optimizer", "lr", "2e-3", "from scratch, with a norm after each convolution");
                self.push("train.optimizer", "decoder_lr_mult", 10, "the classifier begins near zero");
            }
            ArchitectureChoice::Vit => {
                self.push("train.optimizer", "lr", "1e-3", "from scratch, for a small transformer");
                self.push(
                    "train.optimizer",
                    "decoder_lr_mult",
                    2,
                    "twice the rate of the backbone: it has fewer layers",
                );
            }
        }
        self.push("train.optimizer", "clip_norm", "1.0", "a bad batch cannot ruin the weights");
    }

    /// Takes bf16 if steps are `times` as fast with it; gives whether it does.
    pub(super) fn try_bf16(&mut self, times: f64) -> bool {
        let worth = times >= WORTH_ROUNDING;
        if worth {
            let reason = format!("a step is {times:.1} times as fast here as in f32; weights and sums stay f32");
            self.push("train", "precision", "\"bf16\"", reason);
        }
        worth
    }

    /// Takes the largest crop for which there is time and room, given what a step with the smallest takes; gives about
    /// how many steps there will be.
    pub(super) fn choose_crop(
        &mut self,
        facts: &Facts,
        options: &PlanOptions,
        step_s: f64,
        memory: &StepMemory,
    ) -> Result<f64> {
        let macs = |config: &Config| {
            let [height, width] = config.data.augment.crop;
            let all = config.model.macs(facts.classes.len(), (height, width));
            all.iter().map(|cost| cost.macs).sum::<u64>() as f64
        };
        let smallest = self.config(options)?;
        let (least, batch) = (macs(&smallest), smallest.train.batch_size as f64);
        let steps = match self.network {
            ArchitectureChoice::Unet { .. } => STEPS_UNET_FROM_SCRATCH,
            _ => STEPS,
        };
        let wanted = steps.max(PASSES * facts.images(Split::Train) as f64 / batch);
        let mut reason = "the smallest: there is no time for larger ones".to_owned();
        let mut taken = 0.0;
        let [rows, columns] = self.crop;
        let times = |crop: [usize; 2]| (crop[0] * crop[1]) as f64 / (rows * columns) as f64;
        for side in CROPS {
            let before = self.crop;
            self.take(self.crop_of(side, facts), "");
            let step = step_s * macs(&self.config(options)?) / least;
            let steps = options.budget.as_secs_f64() * (1.0 - EVALUATING.0) / step;
            if side > CROPS[0] && (steps < wanted || self.crop == before) {
                self.take(before, "");
                break;
            }
            if side > CROPS[0] && !memory.fits(times(self.crop) / batch) {
                self.take(before, "");
                reason = "the largest for which there is memory, even an image at a time".to_owned();
                break;
            }
            taken = steps;
            if steps >= wanted {
                reason = format!("the largest for which there is time for {wanted:.0} steps");
            }
        }
        if self.crop == self.crop_of(usize::MAX, facts) {
            reason = "whole images, in whole patches".to_owned();
        }
        let [height, width] = self.crop;
        self.take(self.crop, &reason);
        if batch > 1.0 && !memory.fits(times(self.crop)) {
            let needed = memory.fixed + times(self.crop) * memory.maps;
            let why = format!("an image at a time: all at once would take {needed:.0} MB");
            self.push("train", "accumulate", batch, why);
        }
        let why = match &facts.pretrained {
            Some(pretrained) if pretrained.is_rotated() => "that of the crops, for which the decoder is made",
            _ => "that of the crops, for which the table of positions is made",
        };
        self.push("model.backbone", "img_size", format!("[{height}, {width}]"), why);
        Ok(taken.min(MOST_PASSES * facts.images(Split::Train) as f64 / batch))
    }

    /// Whether trials are to decide the norm of a U-Net: over groups of channels it is ahead where images were taken in
    /// many ways, over the batch where they are all of one kind (docs/results.md).
    pub(super) fn tries_norms(&self, options: &PlanOptions) -> bool {
        matches!(self.network, ArchitectureChoice::Unet { .. }) && !options.decides("model.backbone.norm")
    }

    /// Takes groups of channels for images that were taken in many ways. Trials would not tell: a network with
    /// statistics over batches fits the batches that it sees, and fails on single images, sooner or later
    /// (docs/results.md).
    pub(super) fn knows_norm(&mut self, facts: &Facts) -> bool {
        let varied = facts.variety > VARIED;
        if varied {
            self.norm(
                "group",
                "images differ more from one another than within: statistics over a batch would not hold",
            );
        }
        varied
    }

    /// Takes a norm for the U-Net.
    pub(super) fn norm(&mut self, kind: &str, reason: impl Into<String>) {
        self.push("model.backbone", "norm", format!("{kind:?}"), reason);
    }

    /// Spends `budget` seconds on iterations of `batch` images and on evaluations.
    pub(super) fn set_length(
        &mut self,
        facts: &Facts,
        options: &PlanOptions,
        timing: &StepTiming,
        batch: usize,
        budget: f64,
    ) {
        let evaluation = facts.images(Split::Val) as f64 * timing.image_s;
        let evaluations = (EVALUATING.0 * budget / evaluation).clamp(1.0, EVALUATING.1).floor();
        let time = (SPENT * budget - evaluations * evaluation).max(0.1 * budget);
        let most = MOST_PASSES * facts.images(Split::Train) as f64 / batch as f64;
        let steps = (time / timing.step_s).min(most).max(1.0) as u64;
        let passes = steps as f64 * batch as f64 / facts.images(Split::Train) as f64;
        let why = if steps as f64 >= most.floor() { "the most that help" } else { "as many as fit into the budget" };
        self.push("train", "iterations", steps, format!("{why}: {passes:.1} epochs"));
        // Iterations that the user sets are the user's, and what follows from them follows these.
        let steps = options.number("train.iterations").unwrap_or(steps);
        let evaluations = evaluations.min(steps.max(1) as f64);
        if !options.sets("train.iterations") && !options.sets("train.schedule.reschedules") {
            let limit = format!("{:?}", text::spell(options.budget));
            self.push("train", "max_time", limit, "the budget; a faster or slower run is rescheduled to end in time");
            let longest = ((LENGTHENED * steps as f64) as u64).min(most as u64);
            if longest > steps && !options.sets("train.max_time") {
                let why =
                    "limit if the run is faster than estimated: twice the iterations, at most the epochs that help";
                self.push("train", "max_iterations", longest, why);
            }
        }
        let every = steps.div_ceil(evaluations as u64);
        self.push(
            "train",
            "eval_every",
            every,
            format!("{evaluations} evaluation{} of {evaluation:.0} s", if evaluations > 1.0 { "s" } else { "" }),
        );
        self.push("train", "save_every", (steps / 10).max(1), "ten checkpoints; the last two are kept");
        self.push("train.schedule", "warmup_iters", (steps / 20).min(1500), "a twentieth of the run");
        self.push(
            "train",
            "restarts",
            2,
            "a run that collapses to one class is started again with a third of the learning rate",
        );
        self.push("eval", "mode", "\"whole\"", "the network sees an image at once, at the scale of training");
    }

    /// The recipe as it stands, with the user's changes.
    pub(super) fn config(&self, options: &PlanOptions) -> Result<Config> {
        Config::parse(&toml_of(&self.lines), "plan", &options.all())
    }
}
