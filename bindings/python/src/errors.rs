//! Errors of the library as Python's.

use std::path::Path;

use pyo3::prelude::*;
use structtoken::Error;
use structtoken::error::ErrorKind;

use crate::wording::in_python;

/// Results of the library, for Python.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception. Making it runs Python: no lock may be held.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for structtoken::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raised(py, &error))
    }
}

/// The exception of an error, of the class of its kind.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let (message, hint) = (error.to_string(), error.hint().map(in_python));
    // Elsewhere two hyphens may belong to the name of a file.
    let of_option = ["--set ", "after --set "].iter().any(|start| message.starts_with(start));
    let message = if of_option { in_python(&message) } else { message.as_str().into() };
    let (class, path) = match error.kind() {
        ErrorKind::NotFound => ("NotFoundError", error.path()),
        ErrorKind::Memory => ("OutOfMemoryError", None),
        ErrorKind::TooLarge => ("InputError", None),
        _ => ("Error", None),
    };
    of_class(py, class, &message, hint.as_deref(), path)
}

/// A value or a shape that cannot be used, and what to do.
pub(crate) fn bad_value(py: Python<'_>, message: &str, hint: &str) -> PyErr {
    of_class(py, "InputError", message, Some(hint), None)
}

/// A type that cannot be used, and what to do.
pub(crate) fn bad_type(py: Python<'_>, message: &str, hint: &str) -> PyErr {
    of_class(py, "InputTypeError", message, Some(hint), None)
}

/// The exception with what it is about before its message. One that is not the package's own stays as it is.
pub(crate) fn about(py: Python<'_>, what: &str, error: PyErr) -> PyErr {
    let value = error.value(py);
    let rename = || -> PyResult<()> {
        let message = format!("{what}: {}", value.getattr("message")?.extract::<String>()?);
        value.setattr("args", (&message, value.getattr("hint")?))?;
        value.setattr("message", message)
    };
    // One without a message has nothing to put it before.
    let _ = rename();
    error
}

fn of_class(py: Python<'_>, class: &str, message: &str, hint: Option<&str>, path: Option<&Path>) -> PyErr {
    let made = py.import("structtoken._errors").and_then(|module| {
        let class = module.getattr(class)?;
        match path {
            Some(path) => class.call1((message, hint, path.as_os_str())),
            None => class.call1((message, hint)),
        }
    });
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
