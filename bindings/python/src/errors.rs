//! Errors of the library as Python's.

use pyo3::prelude::*;
use structtoken::Error;
use structtoken::error::ErrorKind;

/// Results of the library, for Python.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for structtoken::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raised(py, &error))
    }
}

/// The exception of an error, of the class of its kind.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error.kind() {
        ErrorKind::NotFound => "NotFoundError",
        ErrorKind::Memory => "OutOfMemoryError",
        ErrorKind::TooLarge => "InputError",
        _ => "Error",
    };
    of_class(py, class, &error.to_string(), error.hint())
}

/// A value or a shape that cannot be used, and what to do.
pub(crate) fn bad_value(py: Python<'_>, message: &str, hint: &str) -> PyErr {
    of_class(py, "InputError", message, Some(hint))
}

/// A type that cannot be used, and what to do.
pub(crate) fn bad_type(py: Python<'_>, message: &str, hint: &str) -> PyErr {
    of_class(py, "InputTypeError", message, Some(hint))
}

fn of_class(py: Python<'_>, class: &str, message: &str, hint: Option<&str>) -> PyErr {
    let made = py
        .import("structtoken._errors")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call1((message, hint)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}
