//! `structtoken bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::backbone::{BackboneConfig, Dinov3Config, Dinov3Size, VitConfig, VitSize};
use crate::bench::{Measurement, Work, measure, supply};
use crate::cli::console::{emit, print};
use crate::cli::{Computing, End, NO_EIGHT_BITS};
use crate::config::Config;
use crate::decoder::DecoderConfig;
use crate::device;
use crate::error::{Error, Result};
use crate::infer::InferMode;
use crate::kernels::{self, Precision};
use crate::model::ModelConfig;

/// Time inference or a training step, with random weights
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Recipe; without one, the options below describe the model
    recipe: Option<PathBuf>,
    /// Change a value of the recipe; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    changes: Vec<String>,
    /// Decoder: cse, sse, pwe, fcn, segmenter, knet, maskformer, mask2former or eomt
    #[arg(long, value_name = "NAME", default_value = "pwe", conflicts_with = "recipe")]
    decoder: String,
    /// Backbone, with patches of 16 pixels
    #[arg(long, value_enum, default_value_t = BackboneName::VitS, conflicts_with = "recipe")]
    backbone: BackboneName,
    /// Side of the square images; several separated by commas [default: 512, or the recipe's]
    #[arg(long, value_name = "PIXELS", value_delimiter = ',')]
    size: Vec<usize>,
    /// Number of classes; several separated by commas [default: 150, or the dataset's]
    #[arg(long, value_name = "K", value_delimiter = ',')]
    classes: Vec<usize>,
    /// Images per batch; several separated by commas [default: 1; with --train 2, or the recipe's]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    batch: Vec<usize>,
    /// Time a training step: forward, backward, AdamW
    #[arg(long)]
    train: bool,
    /// Time the loading of training images instead (read, decode, augment, batch), with `data.workers` threads
    #[arg(long, requires = "recipe", conflicts_with_all = ["train", "size", "classes", "batch", "precision", "repeat", "scaling"])]
    data: bool,
    /// Side of a sliding window; the stride is two thirds of it
    #[arg(long, value_name = "PIXELS", conflicts_with_all = ["train", "recipe"])]
    window: Option<usize>,
    /// Precision of matrix products on the CPU [default: f32, or the recipe's]
    #[arg(long, value_enum)]
    precision: Option<PrecisionName>,
    /// Number of repetitions; the median is reported
    #[arg(short, long, value_name = "N", default_value_t = 7)]
    repeat: usize,
    /// Also time a single thread, and report how many times as fast all are
    #[arg(long)]
    scaling: bool,
    /// Print one JSON object per measurement
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

const EXAMPLES: &str = "Examples:
  structtoken bench --backbone vit-s --decoder pwe --size 256,512       images to label maps
  structtoken bench --decoder fcn --train --batch 2,4                   training steps
  structtoken bench configs/shapes/demo.toml --data                     loading of training images";

/// How long `--data` looks.
const SUPPLY_SECONDS: f64 = 8.0;

#[derive(Clone, Copy, ValueEnum)]
enum BackboneName {
    VitT,
    VitS,
    VitB,
    VitL,
    #[value(name = "dinov3-s")]
    Dinov3S,
    #[value(name = "dinov3-s-plus")]
    Dinov3SPlus,
    #[value(name = "dinov3-b")]
    Dinov3B,
    #[value(name = "dinov3-l")]
    Dinov3L,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrecisionName {
    F32,
    Bf16,
    Bf16x3,
    Int8,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
            PrecisionName::Bf16x3 => Self::Bf16x3,
            PrecisionName::Int8 => Self::Int8,
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    if let (true, Some(recipe)) = (arguments.data, &arguments.recipe) {
        let config = Config::read(recipe, &arguments.changes)?;
        let found = supply(&config, config.data.workers, SUPPLY_SECONDS)?;
        if arguments.json {
            emit(&serde_json::to_value(&found).map_err(|error| Error::new("cannot write JSON").with_source(error))?);
        } else {
            let (all, each) = (found.images_per_s, found.images_per_s_per_worker);
            print(&format!("{}: {all:.1} images/s with {} threads, {each:.1} per thread", found.work, found.workers));
        }
        return Ok(End::Done);
    }
    let works = works(&arguments)?;
    works.iter().try_for_each(|work| work.check(arguments.repeat))?;
    let (device, name) = device::open(&arguments.computing.device)?;
    let instructions = if name == "cpu" { format!(" ({})", kernels::instruction_set()?) } else { String::new() };
    talk!("timing on {name}{instructions}, {} threads", rayon::current_num_threads());
    if !arguments.json {
        let scaling = if arguments.scaling { format!(" {:>10} {:>8}", "one thread", "scaling") } else { String::new() };
        print(&format!(
            "{:<40} {:>10} {:>22} {:>9} {:>10} {:>8} {:>8}{scaling}",
            "work", "median ms", "min to max", "images/s", "GFLOP/s", "of peak", "RSS MB"
        ));
    }
    for work in works {
        let found = measure(&work, arguments.repeat, &device)?;
        let one = match arguments.scaling {
            true => Some(on_one_thread(|| measure(&work, arguments.repeat, &device))?.median_ms),
            false => None,
        };
        if arguments.json {
            let mut line =
                serde_json::to_value(&found).map_err(|error| Error::new("cannot write JSON").with_source(error))?;
            if let Some(one) = one {
                line["one_thread_ms"] = one.into();
            }
            emit(&line);
        } else {
            let scaling = one
                .map_or(String::new(), |one| format!(" {one:>10.1} {:>8}", format!("{:.2}x", one / found.median_ms)));
            print(&format!("{}{scaling}", row(&found)));
        }
    }
    Ok(End::Done)
}

/// Runs `body` in a pool of a single thread.
fn on_one_thread<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.map_err(|error| Error::new("cannot start a thread to compute on").with_source(error))?.install(body)
}

fn row(found: &Measurement) -> String {
    format!(
        "{:<40} {:>10.1} {:>22} {:>9.2} {:>10.0} {:>7.0}% {:>8}",
        found.work,
        found.median_ms,
        format!("{:.1} to {:.1}", found.min_ms, found.max_ms),
        found.images_per_s,
        found.gflop_per_s,
        100.0 * found.share_of_peak,
        found.peak_rss_mb.map_or("?".to_owned(), |mb| mb.to_string())
    )
}

/// Every combination of the sizes, classes and batches asked for.
fn works(arguments: &Arguments) -> Result<Vec<Work>> {
    let mut works = Vec::new();
    let recipe = arguments.recipe.as_deref().map(|path| Config::read(path, &arguments.changes)).transpose()?;
    let or = |given: &[usize], default: usize| if given.is_empty() { vec![default] } else { given.to_vec() };
    let own =
        recipe.as_ref().map(|config| if arguments.train { config.train.precision } else { config.eval.precision });
    let (precision, suffix) = match arguments.precision.map_or(own.unwrap_or_default(), Precision::from) {
        Precision::F32 => (Precision::F32, ""),
        Precision::Bf16 => (Precision::Bf16, " bf16"),
        Precision::Bf16x3 => (Precision::Bf16x3, " bf16x3"),
        Precision::Int8 => (Precision::Int8, " int8"),
    };
    if precision == Precision::Int8 && kernels::int8_weight_bits().is_none() {
        return Err(Error::new(NO_EIGHT_BITS).with_hint("pass another --precision"));
    }
    if arguments.train && precision == Precision::Int8 {
        return Err(Error::usage("a training step is not computed in eight bits")
            .with_hint("leave out --train, or pass --precision bf16"));
    }
    let kind = format!("{}{suffix}", if arguments.train { "train step" } else { "labels" });
    if let (Some(config), Some(path)) = (&recipe, &arguments.recipe) {
        let features = config.model.backbone.features();
        let own = match arguments.train {
            true => config.data.augment.crop,
            false => [features.grid.0 * features.stride(), features.grid.1 * features.stride()],
        };
        let images =
            if arguments.size.is_empty() { vec![own] } else { arguments.size.iter().map(|s| [*s; 2]).collect() };
        let windows = (config.eval.mode == InferMode::Slide && !arguments.train)
            .then_some((config.eval.crop, config.eval.stride));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        for image in images {
            for classes in or(&arguments.classes, config.data.classes()?.len()) {
                for batch in or(&arguments.batch, if arguments.train { config.train.batch_size } else { 1 }) {
                    let [h, w] = image;
                    let name = format!("{stem} {h}x{w} k{classes} b{batch} {kind}");
                    let model = config.model.clone();
                    let train = arguments.train;
                    works.push(Work { name, model, classes, image, batch, train, precision, windows });
                }
            }
        }
        return Ok(works);
    }
    for size in or(&arguments.size, 512) {
        for classes in or(&arguments.classes, 150) {
            for batch in or(&arguments.batch, if arguments.train { 2 } else { 1 }) {
                let side = arguments.window.unwrap_or(size).min(size);
                let (model, what) = model(arguments, side)?;
                let name = format!("{what} {size} k{classes} b{batch} {kind}");
                let windows = arguments.window.map(|side| ([side; 2], [(side * 2 / 3).max(1); 2]));
                let (train, image) = (arguments.train, [size; 2]);
                works.push(Work { name, model, classes, image, batch, train, precision, windows });
            }
        }
    }
    Ok(works)
}

fn model(arguments: &Arguments, side: usize) -> Result<(ModelConfig, String)> {
    let decoder = DecoderConfig::preset(&arguments.decoder)?;
    // StructToken takes the raw stream, as published; the others its norm.
    let final_norm = !matches!(decoder, DecoderConfig::StructToken(_));
    let img_size = [side, side];
    let vit = |size| {
        let mut vit = VitConfig::default();
        (vit.size, vit.img_size, vit.final_norm) = (size, img_size, final_norm);
        BackboneConfig::Vit(vit)
    };
    let dinov3 = |size| {
        let mut dinov3 = Dinov3Config::default();
        (dinov3.size, dinov3.img_size) = (size, img_size);
        BackboneConfig::Dinov3(dinov3)
    };
    let (backbone, name) = match arguments.backbone {
        BackboneName::VitT => (vit(VitSize::Tiny), "vit-t"),
        BackboneName::VitS => (vit(VitSize::Small), "vit-s"),
        BackboneName::VitB => (vit(VitSize::Base), "vit-b"),
        BackboneName::VitL => (vit(VitSize::Large), "vit-l"),
        BackboneName::Dinov3S => (dinov3(Dinov3Size::Small), "dinov3-s"),
        BackboneName::Dinov3SPlus => (dinov3(Dinov3Size::SmallPlus), "dinov3-s-plus"),
        BackboneName::Dinov3B => (dinov3(Dinov3Size::Base), "dinov3-b"),
        BackboneName::Dinov3L => (dinov3(Dinov3Size::Large), "dinov3-l"),
    };
    let model = ModelConfig::new(backbone, decoder);
    Ok((model, format!("{} {name}", arguments.decoder)))
}
