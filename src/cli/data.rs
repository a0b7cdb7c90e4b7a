//! `structtoken data`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::cli::End;
use crate::cli::console::{StepProgress, emit, print};
use crate::cli::shard::{self, Chosen};
use crate::dataset::shapes;
use crate::dataset::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::text::shell_word;
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
  structtoken data check streets.toml --shard 1/2 --out 1.ndjson    on one machine
  structtoken data check streets.toml --shard 2/2 --out 2.ndjson    on another
  structtoken data check streets.toml --parts 1.ndjson 2.ndjson     the report of both

Exit code: 0 if there are no faults (warnings are allowed), otherwise 1.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Check {
    /// A folder of images and masks, a dataset TOML, or a built-in name
    set: PathBuf,
    /// Folder that the paths in the TOML are relative to, in place of the TOML's own
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Read every N-th pair, starting at the I-th, and write what was found to --out for --parts; auto is what an array
    /// job or MPI says, and `{shard}` in --out becomes for instance 2-of-4
    #[arg(long, value_name = "I/N|auto", value_parser = crate::cli::value::<Chosen>, requires = "out", conflicts_with = "json")]
    shard: Option<Chosen>,
    #[command(flatten)]
    count: shard::Count,
    /// Where a shard is written
    #[arg(long, value_name = "FILE", requires = "shard")]
    out: Option<PathBuf>,
    /// Report from the files of all shards, in any order, in place of images and masks
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["shard", "shards"])]
    parts: Vec<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let arguments = match arguments.command {
        Command::Init(arguments) => return crate::cli::init::run(arguments),
        Command::Check(arguments) => arguments,
    };
    shard::check(arguments.shard, arguments.count)?;
    let steps = StepProgress::new("reading");
    let progress = |done, all| steps.show(done, all);
    let set = &arguments.set;
    let own = set.join(init::FILE);
    if let (Some(chosen), Some(out)) = (arguments.shard, &arguments.out) {
        let shard = shard::find(Some(chosen), arguments.count)?;
        let out = shard::file_of(out, Some((chosen, shard)), "check-{shard}.ndjson")?;
        let (spec, root) = described(&arguments)?;
        let pairs = check::check_shard(&spec, root, shard, &out, &progress)?;
        steps.clear();
        talk!("wrote shard {shard} to `{}` ({pairs} pairs); report all shards with --parts", out.display());
        return Ok(End::Done);
    }
    let report = match &arguments.root {
        _ if !arguments.parts.is_empty() => {
            let (spec, root) = described(&arguments)?;
            check::check_parts(&spec, root, &arguments.parts, &progress)?
        }
        None if set.is_dir() && !own.is_file() => init::check_folder(set, &progress)?,
        _ => {
            let (spec, root) = described(&arguments)?;
            check::check(&spec, root, &progress)?
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

/// The set as it is described, and the folder that is passed for it.
fn described(arguments: &Check) -> Result<(DatasetSpec, Option<&Path>)> {
    let (set, root) = (&arguments.set, arguments.root.as_deref());
    let own = set.join(init::FILE);
    match root {
        None if own.is_file() => {
            talk!("the folder is described by `{}`", own.display());
            Ok((DatasetSpec::read(&own)?, None))
        }
        None if set.is_dir() => Err(Error::new(format!("nothing describes `{}` yet", set.display())).with_hint(
            format!("run: structtoken data init {}, so that all shards see the same description", shell_word(set)),
        )),
        _ if set.as_os_str() == shapes::NAME => {
            Err(Error::new("`shapes` is generated and has no files").with_hint("pass a folder or a dataset TOML"))
        }
        root => Ok((set.to_str().map_or_else(|| DatasetSpec::read(set), DatasetSpec::find)?, root)),
    }
}
