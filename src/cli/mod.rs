//! The command line: parse, run, say what went wrong, with a `hint:`. The feature `cli`.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but for some images that failed,
//! 130 interrupted (and saved).

/// A line on stderr; a reader that has gone away is not a failure.
macro_rules! talk {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($line)*);
    }};
}

mod about;
mod allocator;
mod bench;
mod compare;
mod console;
mod dashboard;
mod data;
mod dataset;
mod demo;
mod eval;
#[cfg(feature = "export")]
mod export;
mod group;
mod init;
mod inspect;
mod invocation;
mod list;
mod manifest;
mod models;
mod outputs;
mod predict;
mod probe;
mod quantize;
mod repeat;
mod runner;
#[cfg(feature = "serve")]
mod serve;
mod shard;
mod train;
#[cfg(not(all(feature = "serve", feature = "export")))]
mod without;

use clap::{Args, Parser, Subcommand};

use crate::error::{Error, ErrorKind, Result};
use crate::kernels;

pub use allocator::Allocator;
pub use invocation::Invocation;

// What it is, is the package's description.
#[derive(Parser)]
#[command(name = "structtoken", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  structtoken demo                                          train on generated shapes, write a report (3 minutes)
  structtoken data init streets/                            describe a folder of images and masks as a dataset
  structtoken data check streets/dataset.toml               report what is wrong with it
  structtoken train configs/camvid/dinov2-s_pwe.toml --out runs/camvid
  structtoken eval runs/camvid/model.safetensors            on its own validation split; --data DIR for other images
  structtoken probe runs/camvid/model.safetensors           what each class is found by
  structtoken predict runs/camvid/model.safetensors photo.jpg --overlay
  structtoken inspect runs/camvid/model.safetensors";

// Each command's summary is the first line of its `Arguments`.
#[derive(Subcommand)]
enum Command {
    Demo(demo::Arguments),
    /// The same as `data init`
    Init(init::Arguments),
    Data(data::Arguments),
    Train(train::Arguments),
    Eval(eval::Arguments),
    Probe(probe::Arguments),
    Quantize(quantize::Arguments),
    Predict(predict::arguments::Arguments),
    #[cfg(feature = "serve")]
    Serve(serve::Arguments),
    #[cfg(not(feature = "serve"))]
    Serve(without::Arguments),
    #[cfg(feature = "export")]
    Export(export::Arguments),
    #[cfg(not(feature = "export"))]
    Export(without::Arguments),
    Compare(compare::Arguments),
    Bench(bench::Arguments),
    Inspect(inspect::Arguments),
    Models(models::Arguments),
    Completions(about::Completions),
    Man(about::Man),
}

impl Command {
    /// The options of commands that compute.
    fn computing(&self) -> Option<&Computing> {
        match self {
            Command::Demo(demo::Arguments { computing, .. })
            | Command::Train(train::Arguments { computing, .. })
            | Command::Eval(eval::Arguments { computing, .. })
            | Command::Probe(probe::Arguments { computing, .. })
            | Command::Quantize(quantize::Arguments { computing, .. })
            | Command::Predict(predict::arguments::Arguments { computing, .. })
            | Command::Compare(compare::Arguments { computing, .. })
            | Command::Bench(bench::Arguments { computing, .. }) => Some(computing),
            #[cfg(feature = "serve")]
            Command::Serve(serve::Arguments { computing, .. }) => Some(computing),
            #[cfg(not(feature = "serve"))]
            Command::Serve(_) => None,
            Command::Init(_)
            | Command::Data(_)
            | Command::Export(_)
            | Command::Inspect(_)
            | Command::Models(_)
            | Command::Completions(_)
            | Command::Man(_) => None,
        }
    }

    fn run(self) -> Result<End> {
        match self {
            Command::Demo(arguments) => demo::run(arguments),
            Command::Init(arguments) => init::run(arguments),
            Command::Data(arguments) => data::run(arguments),
            Command::Train(arguments) => train::run(arguments),
            Command::Eval(arguments) => eval::run(arguments),
            Command::Probe(arguments) => probe::run(arguments),
            Command::Quantize(arguments) => quantize::run(arguments),
            Command::Predict(arguments) => predict::run(arguments),
            #[cfg(feature = "serve")]
            Command::Serve(arguments) => serve::run(arguments),
            #[cfg(not(feature = "serve"))]
            Command::Serve(_) => without::run("serve"),
            #[cfg(feature = "export")]
            Command::Export(arguments) => export::run(arguments),
            #[cfg(not(feature = "export"))]
            Command::Export(_) => without::run("export"),
            Command::Compare(arguments) => compare::run(arguments),
            Command::Bench(arguments) => bench::run(arguments),
            Command::Inspect(arguments) => inspect::run(arguments),
            Command::Models(arguments) => models::run(&arguments),
            Command::Completions(arguments) => about::completions(&arguments),
            Command::Man(arguments) => about::man(&arguments),
        }
    }
}

/// Options every computing command has.
#[derive(Args, Clone)]
struct Computing {
    /// Where to compute: auto, cpu, cuda:0, rocm:0, vulkan, metal
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// CPU threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Why nothing is computed in eight bits.
const NO_EIGHT_BITS: &str = "this processor has no instructions for eight bits, or STRUCTTOKEN_SIMD forbids them";

/// How a command ended well.
enum End {
    Done,
    Interrupted,
    /// What was looked at has faults, which were reported.
    Faulty,
    /// Some images failed, which was reported; all else is done.
    Partly,
}

/// Runs the command of an [`Invocation`], and answers with the exit code. Once in a process: it starts the threads that
/// all kernels share.
#[must_use]
pub fn run(invocation: Invocation) -> u8 {
    let invocation = invocation::keep(invocation);
    keep_freed_memory();
    large_files_are_errors();
    let work = || {
        let Some(Cli { command }) = parse(invocation)? else { return Ok(End::Done) };
        kernels::instruction_set()?;
        start_threads(command.computing())?;
        rayon::scope(|_| command.run())
    };
    match console::finish_output(work()) {
        Ok(End::Done) => 0,
        Ok(End::Interrupted) => 130,
        Ok(End::Faulty) => 1,
        Ok(End::Partly) => 3,
        Err(error) => {
            report(&error);
            if error.kind() == ErrorKind::Usage { 2 } else { 1 }
        }
    }
}

/// The value of an option, or what is wrong with it and what to do.
fn value<T: std::str::FromStr<Err = Error>>(text: &str) -> std::result::Result<T, String> {
    text.parse().map_err(|error: Error| match error.hint() {
        Some(hint) => format!("{error}\n\nhint: {hint}"),
        None => error.to_string(),
    })
}

/// What the command line asks for; none if it was for help, which is printed. One that is wrong ends the process.
fn parse(invocation: &Invocation) -> Result<Option<Cli>> {
    match Cli::try_parse_from(&invocation.arguments) {
        Ok(cli) => Ok(Some(cli)),
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => {
            console::note_write_error(help.print());
            Ok(None)
        }
    }
}

/// Starts the threads that kernels share. The command is to run on one of them: from any other thread every kernel
/// would have to hand its work over and sleep until it is done, which a small network feels.
fn start_threads(computing: Option<&Computing>) -> Result<()> {
    // As much as a main thread has.
    const STACK: usize = 8 << 20;
    let count = computing.and_then(|computing| computing.threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count.map_or(0, usize::from)).stack_size(STACK);
    pool.build_global().map_err(|error| {
        let wanted = count.map_or("one per core".to_owned(), |count| count.to_string());
        Error::new(format!("cannot start the CPU threads ({wanted}, with 8 MB of stack each)"))
            .with_source(error)
            .with_hint(format!(
                "start one with {}, or allow more processes (`ulimit -u`) and memory (`ulimit -v`)",
                if computing.is_some() { "--threads 1" } else { "setting RAYON_NUM_THREADS=1 in the environment" }
            ))
    })
}

/// Writing beyond a limit (`ulimit -f`) is then an error, which is reported, and no signal that ends the process.
fn large_files_are_errors() {
    // SAFETY: sets what one signal does; ignoring it calls nothing.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Every step frees and takes the same large tensors again; giving their pages back to the system in between costs a
/// third of the time. Large pages save the walks through the tables of small ones, which are long in a virtual machine.
pub fn keep_freed_memory() {
    /// `mi_option_allow_large_os_pages` and `mi_option_purge_delay` of mimalloc 2 and 3, for which the bindings have no
    /// name.
    const LARGE_PAGES: libmimalloc_sys::mi_option_t = 6;
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const NEVER: std::ffi::c_long = -1;
    // SAFETY: sets options of the allocator, which may be done at any time.
    unsafe {
        libmimalloc_sys::mi_option_set(LARGE_PAGES, 1);
        libmimalloc_sys::mi_option_set(PURGE_DELAY, NEVER);
    }
}

fn report(error: &Error) {
    talk!("error: {}", plain(&error.to_string()));
    if let Some(hint) = error.hint() {
        talk!("\nhint: {}", plain(&invocation::whole(hint)));
    }
}

/// A text without what a terminal would obey: names of files may hold that.
fn plain(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return text.into();
    }
    let escaped = |c: char| match c {
        '\n' => c.to_string(),
        c if c.is_control() => c.escape_debug().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect::<String>().into()
}
