//! The command line: parse, run, say what went wrong.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (and saved).

/// A line on stderr; a reader that has gone away is no failure.
macro_rules! talk {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($line)*);
    }};
}

mod bench;
mod console;
mod demo;
mod eval;
mod inspect;
mod predict;
mod train;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use structtoken::error::Error;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Semantic segmentation with structure tokens: from a folder of images and masks to a model, without Python.
#[derive(Parser)]
#[command(name = "structtoken", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  structtoken demo                                          train on generated shapes, write a report (3 minutes)
  structtoken train configs/camvid/dinov2-s_pwe.toml --out runs/camvid
  structtoken eval runs/camvid/model.safetensors
  structtoken predict runs/camvid/model.safetensors photo.jpg --overlay
  structtoken inspect runs/camvid/model.safetensors";

#[derive(Subcommand)]
enum Command {
    /// Make a set of shapes, train on it for at most three minutes, and show what the tokens do
    Demo(demo::Arguments),
    /// Train as a recipe says
    Train(train::Arguments),
    /// Measure a model: mIoU, accuracies, Dice, per class
    Eval(eval::Arguments),
    /// Write the label maps of images
    Predict(predict::Arguments),
    /// Time images to label maps, or a step of training, with random weights
    Bench(bench::Arguments),
    /// Show a recipe with all its values, a model's size and cost, or what a weight file holds
    Inspect(inspect::Arguments),
}

/// Options every computing command has.
#[derive(Args, Clone)]
struct Computing {
    /// Where to compute: auto, cpu, cuda:0, rocm:0, vulkan, metal
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
}

/// How a command ended well.
enum End {
    Done,
    Interrupted,
}

fn main() -> ExitCode {
    keep_freed_memory();
    let result = match Cli::parse().command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Train(arguments) => train::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Predict(arguments) => predict::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
    };
    match result {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Interrupted) => ExitCode::from(130),
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Every step frees and takes the same large tensors again; giving their pages back to the system in between costs a third
/// of the time.
fn keep_freed_memory() {
    /// `mi_option_purge_delay` of mimalloc 2 and 3, for which the bindings have no name; -1 is never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets an option of the allocator, which may be done at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}

fn report(error: &Error) {
    talk!("error: {error}");
    if let Some(hint) = error.remedy() {
        talk!("\nhint: {hint}");
    }
}
