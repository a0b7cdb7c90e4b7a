//! `structtoken inspect`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::End;
use crate::cli::console::print;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::Precision;
use crate::model_file::{self, ModelCard};
use crate::{bundled, inspect, weights};

/// Show a recipe with every value, a model's size and cost, or a weight file
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Recipe (.toml) or weight file
    path: PathBuf,
    /// Change a value of the recipe first; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// Number of classes to compute the cost for [default: the dataset's]
    #[arg(long)]
    classes: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  structtoken inspect configs/shapes/demo.toml             every value, parameters and multiply-accumulates
  structtoken inspect runs/a/model.safetensors             architecture, classes, scores and tensors
  structtoken inspect weights.pth --json";

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    if arguments.path.extension().is_some_and(|ending| ending == "toml") {
        recipe(&arguments)
    } else {
        file(&bundled::resolve(&arguments.path)?, arguments.json)
    }
}

fn recipe(arguments: &Arguments) -> Result<End> {
    let config = Config::read(&arguments.path, &arguments.changes)?;
    let classes = match arguments.classes {
        Some(classes) if !(1..=255).contains(&classes) => {
            return Err(Error::usage(format!("--classes {classes} is not between 1 and 255"))
                .with_hint("use a number from 1 to 255; labels are bytes, and 255 is ignored"));
        }
        Some(classes) => classes,
        None => config.data.classes()?.len(),
    };
    let summary = inspect::model_size(&config.model, classes);
    if arguments.json {
        print(&json!({"config": config, "summary": summary}).to_string());
    } else {
        print(&config.to_toml()?);
        print(&format!("# {classes} classes\n{}", summary.table()));
    }
    Ok(End::Done)
}

fn file(path: &Path, as_json: bool) -> Result<End> {
    let summary = weights::describe(path)?;
    let card = model_file::read_card_if_any(path);
    let layout = match (summary.key_format, summary.architecture) {
        (Some(layout), _) => match &summary.convolutional {
            Some(network) => format!("{layout} ({network})"),
            None => layout.to_string(),
        },
        (None, Some(what)) => format!("{what}, which this program cannot build"),
        (None, None) => "an unknown layout".to_owned(),
    };
    if as_json {
        let tensors: Vec<_> = summary
            .tensors
            .iter()
            .map(|tensor| json!({"name": tensor.name, "shape": tensor.shape, "range": tensor.range, "not_finite": tensor.not_finite}))
            .collect();
        let (format, values) = (summary.format.to_string(), summary.elements);
        let known = card.as_ref().ok().and_then(Option::as_ref);
        print(
            &json!({"format": format, "layout": layout, "card": known, "values": values, "tensors": tensors})
                .to_string(),
        );
        return card.map(|_| End::Done);
    }
    for tensor in &summary.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let (low, high) = tensor.range;
        let alarm = if tensor.not_finite > 0 { format!("  {} not finite!", tensor.not_finite) } else { String::new() };
        print(&format!("{:<60} {:<20} {low:>9.4} to {high:<9.4}{alarm}", tensor.name, shape.join(" x ")));
    }
    // Last, where it is seen without scrolling.
    let (tensors, values) = (summary.tensors.len(), summary.elements);
    print(&format!("{}: {}, {layout}, {tensors} tensors, {values} values", path.display(), summary.format));
    if let Some(card) = card? {
        describe(&card);
        if let Err(error) = card.accept(&card.eval, path) {
            talk!("warning: it cannot be used as it is: {error}");
        }
    }
    Ok(End::Done)
}

fn describe(card: &ModelCard) {
    print(&format!("written by structtoken {}", card.version));
    if let Some(training) = &card.training {
        let percent =
            |value: Option<f64>| value.map_or("not measured".into(), |value| format!("{:.2} %", 100.0 * value));
        print(&format!(
            "trained on {} for {} of {} iterations of {} images: mIoU {}, aAcc {}",
            card.data.dataset,
            training.iteration,
            training.iterations,
            training.batch_size,
            percent(training.miou),
            percent(training.aacc)
        ));
    }
    if let (Precision::Int8, Some(found)) = (card.eval.precision, &card.int8) {
        print(&format!(
            "computes in eight bits: mIoU {:.2} % in f32, {:.2} % in eight bits, on {} images, with weights of {} bits",
            100.0 * found.miou_f32,
            100.0 * found.miou_int8,
            found.images,
            found.weight_bits
        ));
    }
    print(&format!("{} classes: {}", card.classes.len(), card.classes.names.join(", ")));
    print(&inspect::model_size(&card.model, card.classes.len()).table());
}
