//! `structtoken data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::End;
use crate::cli::console::{StepProgress, emit, print};
use crate::dataset::shapes;
use crate::dataset::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::tools::{check, init};

/// Describe a folder as a dataset, or report what is wrong with one
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(crate::cli::init::Arguments),
    /// Read every image and mask, and report what is there, what is wrong and how to fix it
    Check(Check),
}

const EXAMPLES: &str = "Examples:
  structtoken data check streets/            a folder with images/ and masks/, also in train/ and val/
  structtoken data check streets.toml        a dataset TOML
  structtoken data check camvid --root data/camvid

Exit code: 0 if there are no faults (warnings are allowed), otherwise 1.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Check {
    /// A folder of images and masks, a dataset TOML, or a built-in name
    set: PathBuf,
    /// Folder that the paths in the TOML are relative to, in place of the TOML's own
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let arguments = match arguments.command {
        Command::Init(arguments) => return crate::cli::init::run(arguments),
        Command::Check(arguments) => arguments,
    };
    let steps = StepProgress::new("reading");
    let progress = |done, all| steps.show(done, all);
    let set = &arguments.set;
    let own = set.join(init::FILE);
    let report = match &arguments.root {
        None if own.is_file() => {
            talk!("the folder is described by `{}`", own.display());
            check::check(&DatasetSpec::read(&own)?, None, &progress)?
        }
        None if set.is_dir() => init::check_folder(set, &progress)?,
        _ if set.as_os_str() == shapes::NAME => {
            return Err(
                Error::new("`shapes` is generated and has no files").with_hint("pass a folder or a dataset TOML")
            );
        }
        root => {
            let spec = set.to_str().map_or_else(|| DatasetSpec::read(set), DatasetSpec::find)?;
            check::check(&spec, root.as_deref(), &progress)?
        }
    };
    steps.clear();
    if arguments.json {
        let value =
            serde_json::to_value(&report).map_err(|error| Error::new("cannot write JSON").with_source(error))?;
        emit(&value);
    } else {
        print(&report.text());
    }
    Ok(if report.ok { End::Done } else { End::Faulty })
}
