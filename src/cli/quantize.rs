//! `structtoken quantize`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use serde_json::json;

use crate::cli::console::{bar, on_interrupt_until, print};
use crate::cli::eval::{EvalWork, ModelSource, estimate};
use crate::cli::{Computing, End};
use crate::error::{Error, Result};
use crate::eval::{self, EvalOptions};
use crate::infer::{InferConfig, Inference};
use crate::kernels::{Precision, int8_products, int8_weight_bits};
use crate::model_file::{self, Quantization};
use crate::text::shell_word;
use crate::{device, files, weights};

/// Write a model that computes in eight bits, if that costs no more than half a point of mIoU
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: ModelSource,
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
  structtoken quantize runs/camvid/model.safetensors --data other/ -o camvid-int8.safetensors     judged on other images";

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let Some(path) = &arguments.source.model else { unreachable!("the model is required") };
    check(&arguments, path)?;
    let (device, name) = device::open(&arguments.computing.device)?;
    if name != "cpu" {
        return Err(Error::new(format!("eight bits are for the CPU, not for {name}")).with_hint("pass --device cpu"));
    }
    let Some(weight_bits) = int8_weight_bits() else {
        return Err(Error::new("this processor has no instructions for eight bits, or STRUCTTOKEN_SIMD forbids them")
            .with_hint("use the model as it is"));
    };
    let (model, mut card) = model_file::open(path, &device)?;
    let work = EvalWork::of(model, &card, path, &arguments.source)?;
    let dataset = work.dataset.as_ref();
    let indices: Vec<usize> = (0..dataset.len()).collect();
    let ended = Arc::new(AtomicBool::new(false));
    let interrupted = on_interrupt_until("image", &ended)?;
    talk!("evaluating {} images of {} in f32 and in eight bits", indices.len(), work.name());
    estimate(&work.model, &work.config, dataset)?;
    let progress = bar("{wide_bar} {pos}/{len}  {eta} left");
    progress.set_length(2 * indices.len() as u64);
    let mut scores = Vec::new();
    for (round, precision) in [Precision::F32, Precision::Int8].into_iter().enumerate() {
        let settings = InferConfig { precision, ..work.config.eval.clone() };
        let inference = Inference {
            network: &work.model,
            preprocess: &work.config.data.preprocess,
            config: &settings,
            device: &device,
        };
        let ask = EvalOptions { confidence: false, label_issues: 0 };
        let before = int8_products();
        let accumulate = eval::accumulate(&inference, dataset, &indices, ask, &mut |done, all| {
            progress.set_position((round * all + done) as u64);
            if interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let Some(accumulate) = accumulate else {
            talk!("stopped: nothing is written");
            return Ok(End::Interrupted);
        };
        if precision == Precision::Int8 && int8_products() == before {
            return Err(Error::new(format!("nothing of `{}` would be computed in eight bits", path.display()))
                .with_hint("use the model as it is: none of its linear layers has 64 inputs and outputs"));
        }
        let evaluation = accumulate.evaluation(&dataset.classes().names);
        evaluation.scores.warnings.iter().for_each(|warning| talk!("warning: {warning}"));
        scores.push(evaluation.scores.miou.ok_or_else(|| {
            Error::new(format!("there is no score on {}, so that nothing is known", work.name()))
                .with_hint("name images with masks by --data or --split")
        })?);
    }
    ended.store(true, Ordering::SeqCst);
    progress.finish_and_clear();
    let [miou_f32, miou_int8] = scores[..] else { unreachable!("two precisions") };
    let found = Quantization { images: indices.len(), of: work.name(), weight_bits, miou_f32, miou_int8 };
    print(&match arguments.json {
        true => {
            json!({"images": found.images, "weight_bits": weight_bits, "miou_f32": miou_f32, "miou_int8": miou_int8})
                .to_string()
        }
        false => format!(
            "mIoU {:.2} in f32, {:.2} in eight bits ({:+.2}), over {} images",
            100.0 * miou_f32,
            100.0 * miou_int8,
            100.0 * (miou_int8 - miou_f32),
            found.images
        ),
    });
    found.check().map_err(|error| {
        error.with_hint(format!(
            "use the model as it is; structtoken eval {} --set eval.precision=bf16 says what less coarse numbers cost",
            shell_word(path)
        ))
    })?;
    // What was measured is what the file does.
    card.data.preprocess = work.config.data.preprocess;
    card.eval = InferConfig { precision: Precision::Int8, ..work.config.eval };
    card.int8 = Some(found);
    weights::save(&arguments.out, &work.model, &card.metadata()?)?;
    talk!("wrote `{}`", arguments.out.display());
    Ok(End::Done)
}

/// Refuses what cannot come to anything before any work is done.
fn check(arguments: &Arguments, path: &Path) -> Result<()> {
    let out = &arguments.out;
    let refuse = |what: String, hint: &str| Err(Error::new(what).with_hint(hint));
    if path.extension().is_some_and(|ending| ending == "toml") {
        let what = format!("`{}` is a recipe, and only a model file can be quantized", path.display());
        return refuse(what, "pass the model file that training wrote");
    }
    if arguments.source.weights.is_some() {
        return refuse("--weights goes with a recipe; a model file has its own".into(), "leave --weights out");
    }
    if let Some(change) = arguments.source.changes.iter().find(|change| change.starts_with("eval.precision")) {
        return refuse(format!("--set {change}: f32 and eight bits are compared, whatever it says"), "leave it out");
    }
    if out.extension().is_none_or(|ending| ending != "safetensors") {
        return refuse(format!("`{}` is no name of a model file", out.display()), "pass -o NAME.safetensors");
    }
    if out.symlink_metadata().is_ok() {
        return refuse(format!("`{}` exists, and is kept", out.display()), "pass another name after -o");
    }
    files::ensure_writable(out)
}
