//! `structtoken probe`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use crate::cli::console::{StepProgress, on_interrupt_until, print};
use crate::cli::eval::{EvalWork, ModelSource, Output, called, note_precision};
use crate::cli::invocation::command_line;
use crate::cli::{Computing, End};
use crate::error::{Error, Result};
use crate::infer::Inference;
use crate::probe::page::{self, About};
use crate::probe::{Cue, ProbeOptions, Subject, spread};
use crate::{device, files, model_file, probe};

/// Find out what a model relies on: shape, texture, colour, position, tokens
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: ModelSource,
    /// Images to probe with, spread evenly over the split; each is predicted about 30 times
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Seed of all changes and of the intervals; the same seed gives the same numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Changes to make, by name, for instance texture-other,silhouettes,grey [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = cue)]
    cues: Vec<Cue>,
    /// Model of the same recipe trained with another seed; one of the changes swaps in its tokens
    #[arg(long, value_name = "MODEL")]
    other_seed: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

const EXAMPLES: &str = "Examples:
  structtoken probe runs/camvid/model.safetensors --report probe.html
  structtoken probe runs/camvid/model.safetensors --data other/ --images 20
  structtoken probe runs/a/model.safetensors --other-seed runs/b/model.safetensors --json";

fn cue(name: &str) -> std::result::Result<Cue, String> {
    let known = Cue::ALL.into_iter().find(|cue| cue.name() == name);
    known.ok_or_else(|| format!("the changes are {}", Cue::ALL.map(Cue::name).join(", ")))
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let Some(path) = &arguments.source.model else { unreachable!("the model is required") };
    let read: Vec<PathBuf> = std::iter::once(path).chain(&arguments.other_seed).cloned().collect();
    arguments.output.check(&read)?;
    let (device, device_name) = device::open(&arguments.computing.device)?;
    let mut work = EvalWork::open(path, &arguments.source, &device)?;
    work.model = work.model.for_inference();
    let other = match &arguments.other_seed {
        Some(path) => Some(model_file::open(path, &device)?.0.for_inference()),
        None => None,
    };
    let (model, config, dataset) = (&work.model, &work.config, work.dataset.as_ref());
    let inference =
        Inference { network: model, preprocess: &config.data.preprocess, config: &config.eval, device: &device };
    let indices = spread(dataset.len(), arguments.images as usize);
    let counted = Arc::new(AtomicBool::new(false));
    let interrupted = on_interrupt_until("prediction", &counted)?;
    talk!("probing with {} of {} images of {} on {device_name}", indices.len(), dataset.len(), work.name());
    note_precision(config.eval.precision);
    let mut options = ProbeOptions { seed: arguments.seed, ..ProbeOptions::default() };
    if !arguments.cues.is_empty() {
        options.cues.clone_from(&arguments.cues);
        options.cues.sort_unstable();
        options.cues.dedup();
    }
    let subject = Subject { inference, model: Some(model), other: other.as_ref() };
    let steps = StepProgress::new("predictions");
    let found = probe::probe(&subject, dataset, &indices, &options, &mut |done, all| {
        steps.show(done, all);
        if interrupted.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    steps.clear();
    counted.store(true, Ordering::SeqCst);
    let Some((finding, pictures)) = found?.filter(|_| !interrupted.load(Ordering::SeqCst)) else {
        talk!("stopped: nothing is written");
        return Ok(End::Interrupted);
    };
    let json = serde_json::to_string_pretty(&finding)
        .map_err(|error| Error::new("cannot write the finding").with_source(error))?;
    print(&if arguments.output.json { json.clone() } else { finding.text() });
    if let Some(out) = &arguments.output.out {
        files::write(out, json.as_bytes())?;
    }
    if let Some(page) = &arguments.output.report {
        let name = called(path);
        let about = About {
            title: format!("What {name} relies on"),
            lead: format!(
                "Cues taken away and set against each other on {} images of {}, and what that costs each class.",
                finding.images,
                work.name()
            ),
            command: command_line(),
        };
        page::write(page, &finding, dataset.classes(), &pictures, &about)?;
        talk!("report  {}", page.display());
    }
    Ok(End::Done)
}
