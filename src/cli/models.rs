//! `structtoken models`.

use clap::Args;

use crate::bundled::{self, BundledModel};
use crate::cli::End;
use crate::cli::console::{emit, print};
use crate::error::Result;
use crate::model_file;

/// List the models that this build carries, for use as @NAME
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  structtoken models
  structtoken models --json";

pub(crate) fn run(arguments: &Arguments) -> Result<End> {
    let carried = bundled::carried();
    if carried.is_empty() {
        talk!("this build carries no models: models are passed as files");
    }
    for (BundledModel { name, sha256, about, .. }, path) in carried {
        let card = model_file::read_card(format!("@{name}"))?;
        let classes = card.classes.names;
        if arguments.json {
            emit(&serde_json::json!({
                "name": name, "about": about, "classes": classes, "path": path.to_string_lossy(), "sha256": sha256,
            }));
        } else {
            print(&format!("@{name}  {about}; classes: {}", classes.join(", ")));
        }
    }
    Ok(End::Done)
}
