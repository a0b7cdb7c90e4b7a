//! `structtoken eval`.

mod work;

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{Args, Subcommand};

use crate::cli::console::{bar, on_interrupt_until, print};
use crate::cli::invocation::command_line;
use crate::cli::manifest::checksum;
use crate::cli::shard::{self, Chosen};
use crate::cli::{Computing, End, NO_EIGHT_BITS};
use crate::config::Config;
use crate::dataset::{Classes, Dataset};
use crate::error::{Error, Result};
use crate::eval::EvalOptions;
use crate::eval::merge::{Identity, ShardFile, merge};
use crate::eval::summary::Evaluation;
use crate::infer::{Inference, Replayed, memory};
use crate::kernels::{Precision, int8_weight_bits};
use crate::layers::parameters::visit;
use crate::model::Model;
use crate::report::About;
use crate::{device, eval, files, report};

pub(crate) use work::{EvalWork, ModelSource};

/// Evaluate a model: mIoU, accuracy and Dice per class, calibration, label issues
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    source: ModelSource,
    /// List N regions whose truth may be wrong: the model confidently predicts another class; not with --labels-only
    #[arg(long, alias = "suspects", value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    label_issues: u16,
    /// Skip calibration, which needs probabilities; not with --label-issues
    #[arg(long, conflicts_with = "label_issues")]
    labels_only: bool,
    /// Evaluate every N-th image, starting at the I-th, and write the counts to --out for `eval merge`; auto is what an
    /// array job or MPI says, and `{shard}` in --out becomes for instance 2-of-4
    #[arg(long, value_name = "I/N|auto", value_parser = crate::cli::value::<Chosen>, requires = "out", conflicts_with_all = ["report", "json"])]
    shard: Option<Chosen>,
    #[command(flatten)]
    count: shard::Count,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

const EXAMPLES: &str = "Examples:
  structtoken eval runs/camvid/model.safetensors --report report.html --label-issues 50
  structtoken eval runs/camvid/model.safetensors --data other/ --split all     on other images
  structtoken eval runs/camvid/model.safetensors --shard 1/2 --out 1.json     on one machine
  structtoken eval runs/camvid/model.safetensors --shard 2/2 --out 2.json     on another
  structtoken eval merge 1.json 2.json                                        the same numbers as in a single run";

#[derive(Subcommand)]
enum Action {
    /// Merge the shards of an evaluation; the numbers are those of a single run
    Merge {
        /// Files written by `--shard I/N --out FILE`, in any order
        #[arg(required = true)]
        shards: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

/// Where the numbers go.
#[derive(Args)]
pub(crate) struct Output {
    /// Also write the scores as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print the scores as JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write a page with pictures
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

pub(crate) fn run(mut arguments: Arguments) -> Result<End> {
    if let Some(Action::Merge { shards, output }) = arguments.action {
        output.check(&shards)?;
        return merge_shards(&shards, &output);
    }
    shard::check(arguments.shard, arguments.count)?;
    let shard = arguments.shard.map(|chosen| shard::find(Some(chosen), arguments.count)).transpose()?;
    arguments.output.out = arguments
        .output
        .out
        .map(|out| shard::file_of(&out, arguments.shard.zip(shard), "eval-{shard}.json"))
        .transpose()?;
    let Some(path) = &arguments.source.model else { unreachable!("the model is required") };
    arguments.output.check(std::slice::from_ref(path))?;
    let (device, name) = device::open(&arguments.computing.device)?;
    let work = EvalWork::open(path, &arguments.source, &device)?;
    let of = work.name();
    // A folder is described for as long as it is read.
    let EvalWork { model, config, dataset, split, weights, opened: _opened, .. } = work;
    let ask = EvalOptions { confidence: !arguments.labels_only, label_issues: arguments.label_issues.into() };
    let indices: Vec<usize> = match shard {
        Some(shard) => shard.range(dataset.len()).collect(),
        None => (0..dataset.len()).collect(),
    };
    let (preprocess, settings) = (&config.data.preprocess, &config.eval);
    let counted = Arc::new(AtomicBool::new(false));
    let interrupted = on_interrupt_until("image", &counted)?;
    talk!("evaluating {} images of {of} on {name}", indices.len());
    note_precision(settings.precision);
    let estimated = estimate(&model, &config, dataset.as_ref())?;
    let network = Replayed::new(model.for_inference());
    let inference = Inference { network: &network, preprocess, config: settings, device: &device };
    let (progress, started) = (bar("{wide_bar} {pos}/{len}  {eta} left"), Instant::now());
    let accumulate = eval::accumulate(&inference, dataset.as_ref(), &indices, ask, &mut |done, all| {
        progress.set_length(all as u64);
        progress.set_position(done as u64);
        if interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    progress.finish_and_clear();
    counted.store(true, Ordering::SeqCst);
    let Some(accumulate) = accumulate.filter(|_| !interrupted.load(Ordering::SeqCst)) else {
        talk!("stopped: nothing is written");
        return Ok(End::Interrupted);
    };
    if let Some(peak) = memory::peak() {
        let peak = peak as f64 / 1e6;
        let beside = estimated.map_or(String::new(), |estimated| {
            format!(", {:+.0} % relative to the estimate", (peak / (estimated as f64 / 1e6) - 1.0) * 100.0)
        });
        talk!("memory: peak {peak:.1} MB{beside}");
    }
    if let (Some(shard), Some(out)) = (shard, &arguments.output.out) {
        let data = data(&config, dataset.as_ref())?;
        let settings = serde_json::json!({
            "preprocess": preprocess, "eval": settings, "model": config.model, eval::merge::DATA: data
        });
        let identity = Identity::new(&weights, dataset.as_ref(), &split, settings, ask)?;
        ShardFile::new(shard, identity, accumulate).write(out)?;
        talk!("wrote shard {shard} to `{}`; merge all shards with `eval merge`", out.display());
        return Ok(End::Done);
    }
    let found = accumulate.evaluation(&dataset.classes().names);
    tell(&found, &arguments.output)?;
    let model_name = called(path);
    let about = About {
        title: format!("Evaluation of {model_name}"),
        lead: format!("How good it is on the {} images of {of}, and where it fails.", found.images),
        device: name,
        took: started.elapsed(),
        ..About::default()
    };
    let seen = Some((&inference, dataset.as_ref()));
    write_page(&arguments.output, &found, dataset.classes(), seen, about)?;
    Ok(End::Done)
}

/// What tells a dataset from another whose images are called the same: how masks are read, and the bytes of the first
/// and the last of its files.
fn data(config: &Config, dataset: &dyn Dataset) -> Result<serde_json::Value> {
    let mut labels = config.data.label_map()?;
    // Where files lie may differ between machines.
    if let Some(fields) = labels.as_object_mut() {
        ["name", "root", "train", "val", "test"].iter().for_each(|field| drop(fields.remove(*field)));
    }
    let ends = if dataset.is_empty() { Vec::new() } else { vec![0, dataset.len() - 1] };
    let files = ends.into_iter().flat_map(|index| dataset.files(index));
    let sums = files.map(|path| checksum(&path)).collect::<Result<Vec<String>>>()?;
    Ok(serde_json::json!({"labels": labels, "files": sums}))
}

/// What a model is called on a page: as the folder of its run, or as its file.
pub(crate) fn called(model: &Path) -> std::borrow::Cow<'_, str> {
    model.parent().and_then(Path::file_name).or(model.file_stem()).unwrap_or_default().to_string_lossy()
}

/// Says where the precision that is asked for is not this processor's.
pub(crate) fn note_precision(precision: Precision) {
    if precision == Precision::Int8 && int8_weight_bits().is_none() {
        talk!("note: {NO_EIGHT_BITS}: computed in f32");
    }
}

/// Prints the estimated memory of the evaluation and returns it in bytes; `None` where it is too little to be
/// estimated.
pub(crate) fn estimate(model: &Model, config: &Config, dataset: &dyn Dataset) -> Result<Option<usize>> {
    let mut parameters = 0;
    visit(model, |parameter, _| parameters += parameter.shape.iter().product::<usize>());
    let (largest, image) = memory::largest(dataset, LOOKS)?;
    let (classes, threads) = (dataset.classes().len(), rayon::current_num_threads());
    let memory =
        memory::MemoryModel { model: &config.model, classes, parameters, settings: &config.eval, image, threads };
    let named = |error| Error::new(format!("cannot evaluate on `{}`", dataset.name(largest))).with_source(error);
    memory.ensure(4 * parameters).map_err(named)?;
    let found = memory.estimate();
    if found.is_small() {
        talk!("memory: estimated below 100 MB for images of {} x {}, however many", image.1, image.0);
        return Ok(None);
    }
    let mb = |bytes: usize| bytes as f64 / 1e6;
    talk!(
        "memory: {} {:.0} MB for images of {} x {}, whatever their number: {:.0} weights, {:.0} network, {:.0} windows, {:.0} images, {:.0} program",
        if memory.is_upper_bound() { "at most about" } else { "about" },
        mb(found.total()),
        image.1,
        image.0,
        mb(found.weights),
        mb(found.network + found.convolutions),
        mb(found.windows),
        mb(found.images),
        mb(found.program)
    );
    Ok(Some(found.total()))
}

/// Images whose size is looked at before the evaluation.
const LOOKS: usize = 8;

fn merge_shards(shards: &[PathBuf], output: &Output) -> Result<End> {
    let parts = shards.iter().map(|path| Ok((path.clone(), ShardFile::read(path)?))).collect::<Result<Vec<_>>>()?;
    let (identity, accumulate) = merge(parts)?;
    let found = accumulate.evaluation(&identity.classes.names);
    tell(&found, output)?;
    let about = About {
        title: "Evaluation".to_owned(),
        lead: format!("Merged from {} shards; there are no pictures, which need the model.", shards.len()),
        ..About::default()
    };
    write_page(output, &found, &identity.classes, None, about)?;
    Ok(End::Done)
}

impl Output {
    /// Refuses to replace what was read, or files that no evaluation wrote, before any work is done.
    pub(crate) fn check(&self, inputs: &[PathBuf]) -> Result<()> {
        let files =
            [(&self.out, "--out", "{", "scores as JSON"), (&self.report, "--report", "<!doctype html", "a page")];
        for (path, option, beginning, what) in files {
            let Some(path) = path.as_deref() else { continue };
            files::ensure_writable(path)?;
            if !path.is_file() {
                continue;
            }
            let real = path.canonicalize().ok();
            let refuse = |why: &str| {
                Err(Error::new(format!("{option} would replace `{}`, {why}", path.display()))
                    .with_hint(format!("name another file after {option}")))
            };
            if real.is_some() && inputs.iter().any(|input| input.canonicalize().ok() == real) {
                return refuse("which is read");
            }
            let mut start = vec![0; beginning.len()];
            let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
            let empty = path.metadata().is_ok_and(|data| data.len() == 0);
            if !empty && (read.is_err() || !start.eq_ignore_ascii_case(beginning.as_bytes())) {
                return refuse(&format!("which is not {what}"));
            }
        }
        Ok(())
    }
}

/// Prints the numbers and writes them where they were wanted.
fn tell(found: &Evaluation, output: &Output) -> Result<()> {
    if output.json {
        found.scores.warnings.iter().for_each(|warning| talk!("warning: {warning}"));
    }
    let json =
        serde_json::to_string_pretty(found).map_err(|error| Error::new("cannot write scores").with_source(error))?;
    print(&if output.json { json.clone() } else { found.text() });
    match &output.out {
        Some(path) => files::write(path, json.as_bytes()),
        None => Ok(()),
    }
}

fn write_page(
    output: &Output,
    found: &Evaluation,
    classes: &Classes,
    seen: Option<(&Inference, &dyn Dataset)>,
    about: About,
) -> Result<()> {
    let Some(page) = &output.report else { return Ok(()) };
    report::evaluation::write(page, found, classes, seen, &About { command: command_line(), ..about })?;
    talk!("report  {}", page.display());
    Ok(())
}
