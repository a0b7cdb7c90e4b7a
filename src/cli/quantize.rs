//! `structtoken quantize`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use crate::cli::console::{bar, on_interrupt_until, print};
use crate::cli::eval::{EvalWork, ModelSource};
use crate::cli::{Computing, End};
use crate::error::{Error, Result};
use crate::eval::{self, EvalOptions};
use crate::infer::{InferConfig, Inference};
use crate::kernels::Precision;
use crate::model_file::{self, Quantization};
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
    if path.extension().is_some_and(|ending| ending == "toml") {
        return Err(Error::new(format!("`{}` is a recipe, and only a model file can be quantized", path.display()))
            .with_hint("pass the model file that training wrote"));
    }
    files::ensure_writable(&arguments.out)?;
    if arguments.out.exists() {
        return Err(Error::new(format!("`{}` exists", arguments.out.display()))
            .with_hint("name a file that does not, or remove it"));
    }
    let (device, name) = device::open(&arguments.computing.device)?;
    if name != "cpu" {
        return Err(Error::new(format!("eight bits are for the CPU, not for {name}")).with_hint("pass --device cpu"));
    }
    let (model, mut card) = model_file::open(path, &device)?;
    let work = EvalWork::of(model, &card, path, &arguments.source)?;
    let dataset = work.dataset.as_ref();
    let indices: Vec<usize> = (0..dataset.len()).collect();
    let ended = Arc::new(AtomicBool::new(false));
    let interrupted = on_interrupt_until("image", &ended)?;
    talk!("evaluating {} images of {} in f32 and in eight bits", indices.len(), work.name());
    let (progress, started) = (bar("{wide_bar} {pos}/{len}  {eta} left"), Instant::now());
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
        let begun = Instant::now();
        let accumulate = eval::accumulate(&inference, dataset, &indices, ask, &mut |done, all| {
            progress.set_position((round * all + done) as u64);
            if interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let Some(accumulate) = accumulate else {
            talk!("stopped: nothing is written");
            return Ok(End::Interrupted);
        };
        let miou = accumulate.evaluation(&dataset.classes().names).scores.miou.unwrap_or(0.0);
        scores.push((miou, begun.elapsed()));
    }
    ended.store(true, Ordering::SeqCst);
    progress.finish_and_clear();
    let [(f32, f32_took), (int8, int8_took)] = scores[..] else { unreachable!("two precisions") };
    let found = Quantization { images: indices.len(), of: work.name(), miou_f32: f32, miou_int8: int8 };
    let seconds = |took: std::time::Duration| took.as_secs_f64();
    print(&match arguments.json {
        true => json!({
            "images": found.images, "miou_f32": f32, "miou_int8": int8,
            "seconds_f32": seconds(f32_took), "seconds_int8": seconds(int8_took),
        })
        .to_string(),
        false => format!(
            "mIoU {:.2} in f32, {:.2} in eight bits ({:+.2}); {:.2} times as many images a second",
            100.0 * f32,
            100.0 * int8,
            100.0 * (int8 - f32),
            seconds(f32_took) / seconds(int8_took).max(1e-9)
        ),
    });
    found.check().map_err(|error| error.with_hint("keep the model as it is; --set eval.precision=bf16 costs less"))?;
    card.eval = InferConfig { precision: Precision::Int8, ..card.eval };
    card.int8 = Some(found);
    weights::save(&arguments.out, &work.model, &card.metadata()?)?;
    talk!("wrote `{}` in {:.0} s", arguments.out.display(), started.elapsed().as_secs_f64());
    Ok(End::Done)
}
