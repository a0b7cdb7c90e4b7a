//! The Python package `structtoken`: the library's models, metrics, outlines, datasets and runs, with numpy in and out, and the
//! command.
//!
//! Whatever computes runs on a pool of threads without the interpreter's lock (`threads`), and callbacks are called by the thread
//! that called (`attend`). Arrays are copied before the lock is released, so that nobody changes them meanwhile.

mod arrays;
mod attend;
mod batches;
mod command;
mod errors;
mod given;
mod metric;
mod model;
mod numbers;
mod outlines;
mod run;
mod threads;
mod wording;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: structtoken::cli::Allocator = structtoken::cli::Allocator;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    structtoken::cli::keep_freed_memory();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<model::Model>()?;
    module.add_class::<metric::Metric>()?;
    module.add_class::<batches::Dataset>()?;
    module.add_class::<batches::Batches>()?;
    module.add_function(wrap_pyfunction!(outlines::encode_rle, module)?)?;
    module.add_function(wrap_pyfunction!(outlines::decode_rle, module)?)?;
    module.add_function(wrap_pyfunction!(outlines::encode_png, module)?)?;
    module.add_function(wrap_pyfunction!(outlines::polygons, module)?)?;
    module.add_function(wrap_pyfunction!(outlines::label_studio, module)?)?;
    module.add_function(wrap_pyfunction!(run::train, module)?)?;
    module.add_function(wrap_pyfunction!(run::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(run::check_comparison, module)?)?;
    module.add_function(wrap_pyfunction!(in_python, module)?)?;
    module.add_function(wrap_pyfunction!(set_models_folder, module)?)?;
    module.add_function(wrap_pyfunction!(command::main, module)?)
}

/// What the command says to do, in the words of Python.
#[pyfunction]
fn in_python(text: &str) -> String {
    wording::in_python(text).into_owned()
}

/// Says where the models lie that come with the package.
#[pyfunction]
fn set_models_folder(folder: std::path::PathBuf) {
    structtoken::bundled::set_folder(folder);
}
