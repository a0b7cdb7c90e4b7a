//! `structtoken quantize`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::json;

use crate::cli::console::{bar, on_interrupt_until, print};
use crate::cli::eval::{EvalWork, ModelSource, estimate};
use crate::cli::{Computing, End, NO_EIGHT_BITS};
use crate::error::{Error, Result};
use crate::eval::{self, EvalOptions};
use crate::image::Image;
use crate::infer::{InferConfig, Inference};
use crate::kernels::{Precision, int8_products, int8_weight_bits};
use crate::model_file::{self, ModelCard, Quantization};
use crate::{device, files, weights};

/// Write a model that computes in eight bits, or is stored in sixteen, if that costs at most half a point of mIoU
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: ModelSource,
    /// int8: linear layers are computed in eight bits. f16: weights are stored in sixteen, in a file of half the size
    #[arg(long, value_enum, default_value_t = Smaller::Int8)]
    precision: Smaller,
    /// Model file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

const EXAMPLES: &str = "Examples:
  structtoken quantize runs/camvid/model.safetensors -o camvid-int8.safetensors
  structtoken predict camvid-int8.safetensors photo.jpg
  structtoken quantize runs/camvid/model.safetensors --data other/ -o camvid-int8.safetensors     judged on other images
  structtoken quantize runs/camvid/model.safetensors --precision f16 -o camvid-f16.safetensors";

/// What is made smaller.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Smaller {
    Int8,
    F16,
}

impl Smaller {
    /// As it is called in a sentence.
    fn words(self) -> &'static str {
        match self {
            Self::Int8 => "eight bits",
            Self::F16 => "weights of sixteen bits",
        }
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let Some(path) = &arguments.source.model else { unreachable!("the model is required") };
    check(&arguments, path)?;
    let (device, name) = device::open(&arguments.computing.device)?;
    let smaller = arguments.precision;
    let weight_bits = match smaller {
        Smaller::F16 => None,
        Smaller::Int8 => Some(weight_bits_of(&name)?),
    };
    let (model, card) = model_file::open(path, &device)?;
    let mut work = EvalWork::of(model, &card, path, &arguments.source)?;
    check_precision(&work, &card, path, (smaller, &arguments.source.changes))?;
    if smaller == Smaller::Int8 && !has_int8_products(&work, &device)? {
        return Err(Error::new(format!("nothing of `{}` would be computed in eight bits", path.display()))
            .with_hint("use the model as it is: none of its linear layers has 64 inputs and outputs"));
    }
    let ended = Arc::new(AtomicBool::new(false));
    let judge = Judge { device: &device, interrupted: on_interrupt_until("image", &ended)?, progress: progress(&work) };
    talk!("evaluating {} images of {} as they are and with {}", work.dataset.len(), work.name(), smaller.words());
    estimate(&work.model, &work.config, work.dataset.as_ref())?;
    let whole = match smaller {
        Smaller::Int8 => Precision::F32,
        Smaller::F16 => work.config.eval.precision,
    };
    let Some(whole_miou) = judge.miou(&work, 0, whole)? else { return Ok(stopped()) };
    let reached = match smaller {
        Smaller::Int8 => judge.miou(&work, 1, Precision::Int8)?,
        Smaller::F16 => {
            work.model = weights::round_to_f16(work.model);
            judge.miou(&work, 1, whole)?
        }
    };
    let Some(reached) = reached else { return Ok(stopped()) };
    ended.store(true, Ordering::SeqCst);
    judge.progress.finish_and_clear();
    let images = work.dataset.len();
    print(&said(smaller, [whole_miou, reached], images, arguments.json));
    Quantization::check_loss(smaller.words(), whole_miou, reached).map_err(|error| match smaller {
        Smaller::Int8 => error.with_hint(format!(
            "use the model as it is; structtoken eval {} --set eval.precision=bf16 says what less coarse numbers cost",
            arguments.source.words()
        )),
        Smaller::F16 => error.with_hint("use the model as it is"),
    })?;
    let int8 = weight_bits.map(|weight_bits| Quantization {
        images,
        of: work.name(),
        weight_bits,
        miou_f32: whole_miou,
        miou_int8: reached,
    });
    write(&arguments.out, work, card, int8)?;
    talk!("wrote `{}`", arguments.out.display());
    Ok(End::Done)
}

/// Fails where the settings ask for another precision than those that are compared.
fn check_precision(
    work: &EvalWork,
    card: &ModelCard,
    path: &Path,
    (smaller, changes): (Smaller, &[String]),
) -> Result<()> {
    let asked = work.config.eval.precision;
    match smaller {
        Smaller::Int8 if asked != card.eval.precision => Err(whatever_it_says(changes)),
        Smaller::F16 if asked == Precision::Int8 => Err(Error::new(format!(
            "`{}` computes in eight bits, and would not with weights of sixteen",
            path.display()
        ))
        .with_hint("add --set eval.precision=f32: the new file is then compared with f32, and computes in f32")),
        _ => Ok(()),
    }
}

/// Of changes one is to what this command decides.
fn whatever_it_says(changes: &[String]) -> Error {
    let change = changes.iter().find(|change| change.contains("precision")).map_or("", |change| change.trim());
    Error::usage(format!("--set {change}: f32 and eight bits are compared, whatever it says")).with_hint("leave it out")
}

/// Whether anything of the network is computed in eight bits, by a small picture.
fn has_int8_products(work: &EvalWork, device: &Device) -> Result<bool> {
    const SIDE: usize = 64;
    let settings = InferConfig { precision: Precision::Int8, ..InferConfig::default() };
    let network = work.model.clone().for_inference();
    let inference =
        Inference { network: &network, preprocess: &work.config.data.preprocess, config: &settings, device };
    let before = int8_products();
    inference.labels(&Image { width: SIDE, height: SIDE, pixels: vec![0; 3 * SIDE * SIDE] })?;
    Ok(int8_products() > before)
}

/// Bits of a weight of this processor's products in eight bits.
fn weight_bits_of(device: &str) -> Result<u32> {
    if device != "cpu" {
        return Err(Error::new(format!("eight bits are for the CPU, not for {device}")).with_hint("pass --device cpu"));
    }
    int8_weight_bits().ok_or_else(|| Error::new(NO_EIGHT_BITS).with_hint("use the model as it is"))
}

/// A bar over both evaluations.
fn progress(work: &EvalWork) -> ProgressBar {
    let progress = bar("{wide_bar} {pos}/{len}  {eta} left");
    progress.set_length(2 * work.dataset.len() as u64);
    progress
}

fn stopped() -> End {
    talk!("stopped: nothing is written");
    End::Interrupted
}

/// What evaluates a model twice.
struct Judge<'a> {
    device: &'a Device,
    interrupted: Arc<AtomicBool>,
    progress: ProgressBar,
}

impl Judge<'_> {
    /// The mIoU in `precision`, from 0 to 1; none when interrupted. `round` counts what was evaluated before.
    fn miou(&self, work: &EvalWork, round: usize, precision: Precision) -> Result<Option<f64>> {
        let settings = InferConfig { precision, ..work.config.eval.clone() };
        let network = work.model.clone().for_inference();
        let inference = Inference {
            network: &network,
            preprocess: &work.config.data.preprocess,
            config: &settings,
            device: self.device,
        };
        let dataset = work.dataset.as_ref();
        let indices: Vec<usize> = (0..dataset.len()).collect();
        let ask = EvalOptions { confidence: false, label_issues: 0 };
        let accumulate = eval::accumulate(&inference, dataset, &indices, ask, &mut |done, all| {
            self.progress.set_position((round * all + done) as u64);
            match self.interrupted.load(Ordering::SeqCst) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        let Some(accumulate) = accumulate else { return Ok(None) };
        let evaluation = accumulate.evaluation(&dataset.classes().names);
        evaluation.scores.warnings.iter().for_each(|warning| talk!("warning: {warning}"));
        let miou = evaluation.scores.miou.ok_or_else(|| {
            Error::new(format!("there is no score on {}, so that nothing is known", work.name()))
                .with_hint("name images with masks by --data or --split")
        })?;
        Ok(Some(miou))
    }
}

/// The scores before and after, as a line or as JSON.
fn said(smaller: Smaller, [before, after]: [f64; 2], images: usize, as_json: bool) -> String {
    if as_json {
        return match smaller {
            Smaller::Int8 => {
                json!({"images": images, "weight_bits": int8_weight_bits(), "miou_f32": before, "miou_int8": after})
            }
            Smaller::F16 => json!({"images": images, "miou": before, "miou_f16": after}),
        }
        .to_string();
    }
    let (before, after) = (100.0 * before, 100.0 * after);
    let lost = after - before;
    match smaller {
        Smaller::Int8 => {
            format!("mIoU {before:.2} in f32, {after:.2} in eight bits ({lost:+.2}), over {images} images")
        }
        Smaller::F16 => {
            format!("mIoU {before:.2}, and {after:.2} with weights of sixteen bits ({lost:+.2}), over {images} images")
        }
    }
}

/// Writes the model: as one in eight bits with what these cost, else with weights of sixteen. What was measured is what
/// the file does.
fn write(out: &Path, work: EvalWork, mut card: ModelCard, int8: Option<Quantization>) -> Result<()> {
    card.data.preprocess = work.config.data.preprocess;
    card.eval = work.config.eval;
    card.int8 = int8;
    if card.int8.is_none() {
        return weights::save_f16(out, &work.model, &card.metadata()?);
    }
    card.eval.precision = Precision::Int8;
    weights::save(out, &work.model, &card.metadata()?)
}

/// Refuses what cannot come to anything before any work is done.
fn check(arguments: &Arguments, path: &Path) -> Result<()> {
    let out = &arguments.out;
    let refuse = |what: String, hint: &str| Err(Error::usage(what).with_hint(hint));
    if path.extension().is_some_and(|ending| ending == "toml") {
        let what = format!("`{}` is a recipe, and only a model file can be quantized", path.display());
        return refuse(what, "pass the model file that training wrote");
    }
    if arguments.source.weights.is_some() {
        return refuse("--weights goes with a recipe; a model file has its own".into(), "leave --weights out");
    }
    if out.extension().is_none_or(|ending| ending != "safetensors") {
        return refuse(format!("`{}` is no name of a model file", out.display()), "pass -o NAME.safetensors");
    }
    if out.symlink_metadata().is_ok() {
        return Err(
            Error::new(format!("`{}` exists, and is kept", out.display())).with_hint("pass another name after -o")
        );
    }
    files::ensure_writable(out)
}
