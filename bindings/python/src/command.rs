//! The command `structtoken`, called by the script that Python installs.

use std::ffi::OsString;

use pyo3::prelude::*;
use structtoken::cli::{self, Invocation};

/// Runs the command line `arguments`, the first of which is the program's name, and returns its exit code. `program` are the words
/// that start it again.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<OsString>, program: Vec<OsString>) -> u8 {
    py.detach(|| cli::run(Invocation { arguments, program }))
}
