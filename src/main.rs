//! The command `structtoken`.

use std::process::ExitCode;

use structtoken::cli::{self, Allocator, Invocation};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    ExitCode::from(cli::run(Invocation::of_process()))
}
