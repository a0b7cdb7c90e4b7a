//! Arguments as Python gives them: paths, lists of texts, devices.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use structtoken::burn::tensor::Device;
use structtoken::{Error, Result, device};

use crate::errors::bad_type;

const A_PATH: &str = "a path is a str or an os.PathLike";

/// The path that an argument is.
///
/// # Errors
/// It is none.
pub(crate) fn path(object: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let py = object.py();
    if object.is_instance_of::<PyBytes>() {
        return Err(of_bytes(object));
    }
    if !is_path(object)? {
        return Err(bad_type(py, &format!("a path of type {}", object.get_type().name()?), A_PATH));
    }
    let found = py.import("os")?.call_method1("fspath", (object,))?;
    if found.is_instance_of::<PyBytes>() { Err(of_bytes(&found)) } else { found.extract() }
}

/// The same, where it may be None.
///
/// # Errors
/// As [`path`].
pub(crate) fn optional_path(object: &Bound<'_, PyAny>) -> PyResult<Option<PathBuf>> {
    if object.is_none() { Ok(None) } else { path(object).map(Some) }
}

/// Whether an object stands for a path.
pub(crate) fn is_path(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.is_instance_of::<PyString>() || object.hasattr("__fspath__")?)
}

fn of_bytes(object: &Bound<'_, PyAny>) -> PyErr {
    let shown = object.repr().map_or_else(|_| "b''".to_owned(), |shown| shown.to_string());
    bad_type(object.py(), &format!("a path of type bytes: {shown}"), &format!("{A_PATH}: os.fsdecode({shown})"))
}

/// Changes of settings, each such as "eval.mode=slide".
///
/// # Errors
/// Something else than a list of str.
pub(crate) fn changes(object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    texts(object, "set", "set=[\"eval.mode=slide\"]")
}

/// Names of classes.
///
/// # Errors
/// Something else than a list of str.
pub(crate) fn classes(object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    texts(object, "classes", "as Model.classes")
}

fn texts(object: &Bound<'_, PyAny>, name: &str, example: &str) -> PyResult<Vec<String>> {
    let py = object.py();
    if object.is_instance_of::<PyString>() {
        let hint = format!("pass a list: {name}=[{}]", object.repr()?);
        return Err(bad_type(py, &format!("{name} of type str"), &hint));
    }
    let hint = format!("pass a list of str, {example}");
    let Ok(items) = object.extract::<Vec<Bound<'_, PyAny>>>() else {
        return Err(bad_type(py, &format!("{name} of type {}", object.get_type().name()?), &hint));
    };
    let text = |(at, item): (usize, &Bound<'_, PyAny>)| match item.is_instance_of::<PyString>() {
        true => item.extract(),
        false => Err(bad_type(py, &format!("{name}[{at}] of type {}", item.get_type().name()?), &hint)),
    };
    items.iter().enumerate().map(text).collect()
}

/// The device called `name`, and its full name.
///
/// # Errors
/// As [`device::open`].
pub(crate) fn open_device(name: &str) -> Result<(Device, String)> {
    device::open(name).map_err(|error| match device::is_left_out(name) {
        // Whoever has a wheel has no source to build.
        true => Error::new(format!("device `{name}`: this build of the package does not have it")).with_hint(
            "pass device=\"cpu\": the wheels compute on the CPU; https://github.com/structtoken/structtoken says under Devices \
             how to build for a GPU",
        ),
        false => error,
    })
}
