//! `structtoken bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use structtoken::backbone::{BackboneConfig, VitConfig, VitSize};
use structtoken::bench::{Measurement, Work, measure, supply};
use structtoken::config::Config;
use structtoken::decoder::DecoderConfig;
use structtoken::device;
use structtoken::error::{Error, Result};
use structtoken::eval::infer::InferMode;
use structtoken::kernels::Precision;
use structtoken::model::ModelConfig;

use crate::console::{emit, print};
use crate::{Computing, End};

/// Time images to label maps, or a step of training, with random weights
#[derive(Args)]
pub(crate) struct Arguments {
    /// A recipe; left out, the next options describe the model
    recipe: Option<PathBuf>,
    /// Change a value of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "recipe")]
    changes: Vec<String>,
    /// The decoder: cse, sse, pwe, fcn, segmenter, knet, maskformer, mask2former or eomt
    #[arg(long, value_name = "NAME", default_value = "pwe", conflicts_with = "recipe")]
    decoder: String,
    /// The backbone, patch 16
    #[arg(long, value_enum, default_value_t = BackboneName::VitS, conflicts_with = "recipe")]
    backbone: BackboneName,
    /// Sides of the square images, several by commas [default: 512, or the recipe's]
    #[arg(long, value_name = "PIXELS", value_delimiter = ',')]
    size: Vec<usize>,
    /// Numbers of classes, several by commas [default: 150, or the dataset's]
    #[arg(long, value_name = "K", value_delimiter = ',')]
    classes: Vec<usize>,
    /// Images at once, several by commas [default: 1; with --train 2, or the recipe's]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    batch: Vec<usize>,
    /// Time a step of training: forward, backward, AdamW
    #[arg(long)]
    train: bool,
    /// Time how training images are read, decoded, augmented and batched instead, by `data.workers` threads
    #[arg(long, requires = "recipe", conflicts_with = "train")]
    data: bool,
    /// Cut images into windows of this side, at steps of two thirds
    #[arg(long, value_name = "PIXELS", conflicts_with_all = ["train", "recipe"])]
    window: Option<usize>,
    /// In what precision the CPU multiplies matrices
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    precision: PrecisionName,
    /// Repetitions, of which the median counts
    #[arg(short, long, value_name = "N", default_value_t = 7)]
    repeat: usize,
    /// One JSON object a measurement
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

/// How long `--data` looks.
const SUPPLY_SECONDS: f64 = 8.0;

#[derive(Clone, Copy, ValueEnum)]
enum BackboneName {
    VitT,
    VitS,
    VitB,
    VitL,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrecisionName {
    F32,
    Bf16,
    Bf16x3,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    if let (true, Some(recipe)) = (arguments.data, &arguments.recipe) {
        let config = Config::read(recipe, &arguments.changes)?;
        let found = supply(&config, config.data.workers, SUPPLY_SECONDS)?;
        if arguments.json {
            emit(&serde_json::to_value(&found).map_err(|error| Error::new("cannot write JSON").source(error))?);
        } else {
            let (all, each) = (found.images_per_s, found.images_per_s_per_worker);
            print(&format!("{}: {all:.1} images/s by {} threads, {each:.1} by each", found.work, found.workers));
        }
        return Ok(End::Done);
    }
    let (device, name) = device::open(&arguments.computing.device)?;
    talk!("timing on {name}, {} threads", rayon::current_num_threads());
    if !arguments.json {
        print(&format!(
            "{:<40} {:>10} {:>22} {:>9} {:>10} {:>8} {:>8}",
            "work", "median ms", "min to max", "images/s", "GFLOP/s", "of peak", "RSS MB"
        ));
    }
    for work in works(&arguments)? {
        let found = measure(&work, arguments.repeat, &device)?;
        if arguments.json {
            emit(&serde_json::to_value(&found).map_err(|error| Error::new("cannot write JSON").source(error))?);
        } else {
            print(&row(&found));
        }
    }
    Ok(End::Done)
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
    let (precision, suffix) = match arguments.precision {
        PrecisionName::F32 => (Precision::F32, ""),
        PrecisionName::Bf16 => (Precision::Bf16, " bf16"),
        PrecisionName::Bf16x3 => (Precision::Bf16x3, " bf16x3"),
    };
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
    let (size, backbone) = match arguments.backbone {
        BackboneName::VitT => (VitSize::Tiny, "vit-t"),
        BackboneName::VitS => (VitSize::Small, "vit-s"),
        BackboneName::VitB => (VitSize::Base, "vit-b"),
        BackboneName::VitL => (VitSize::Large, "vit-l"),
    };
    let decoder = DecoderConfig::preset(&arguments.decoder)?;
    // StructToken takes the raw stream, as published; the others its norm.
    let final_norm = !matches!(decoder, DecoderConfig::StructToken(_));
    let vit = VitConfig { size, img_size: [side, side], final_norm, ..VitConfig::default() };
    let model = ModelConfig { backbone: BackboneConfig::Vit(vit), decoder };
    Ok((model, format!("{} {backbone}", arguments.decoder)))
}
