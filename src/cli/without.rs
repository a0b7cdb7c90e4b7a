//! What a command says in a build that leaves it out.

use std::ffi::OsString;

use clap::Args;

use crate::cli::End;
use crate::error::{Error, Result};

/// Not in this build, which has no feature `full`
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Arguments {
    /// Anything: whoever asks for the command is told how to get it.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<OsString>,
}

/// Refuses `command`, which is also the name of its feature.
pub(crate) fn run(command: &str) -> Result<End> {
    Err(Error::new(format!("this build of structtoken has no {command}")).with_hint(
        "build one that has: cargo build --release --features full; or install a release: pip install structtoken",
    ))
}
