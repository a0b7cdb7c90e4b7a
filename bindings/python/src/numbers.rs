//! Whole numbers of Python, which have no bounds, within those of a parameter.

use std::fmt;

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;

use crate::errors::bad_value;

/// A whole number, or whatever else has an index; one that 64 bits do not hold stands at the end of its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole(i128);

impl Whole {
    /// For the values that parameters have unless stated.
    pub(crate) const fn of(value: i64) -> Self {
        Self(value as i128)
    }

    /// The number, which `name` is, where it is from `low` to `high`.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn within(self, py: Python<'_>, name: &str, low: u64, high: u64) -> PyResult<u64> {
        match u64::try_from(self.0) {
            Ok(value) if (low..=high).contains(&value) => Ok(value),
            _ if high == u64::MAX && self.0 < i128::from(low) => {
                Err(bad_value(py, &format!("{name} is {self}"), &format!("pass {low} or more")))
            }
            _ => Err(bad_value(py, &format!("{name} is {self}"), &format!("pass {low} to {high}"))),
        }
    }

    /// The same where a `usize` is wanted.
    ///
    /// # Errors
    /// As [`within`](Self::within).
    pub(crate) fn size(self, py: Python<'_>, name: &str, low: usize, high: usize) -> PyResult<usize> {
        let found = self.within(py, name, low as u64, high as u64)?;
        usize::try_from(found).map_err(|_| bad_value(py, &format!("{name} is {self}"), "pass a smaller number"))
    }

    /// The place that it is of `all`, where -1 is the last; none outside.
    pub(crate) fn place(self, all: usize) -> Option<usize> {
        let from_the_start = if self.0 < 0 { self.0.checked_add(all as i128)? } else { self.0 };
        usize::try_from(from_the_start).ok().filter(|at| *at < all)
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            i128::MAX => formatter.write_str("a number of more than 64 bits"),
            i128::MIN => formatter.write_str("a negative number of more than 64 bits"),
            value => value.fmt(formatter),
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Whole {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let too_long = match object.extract::<i64>() {
            Ok(value) => return Ok(Self(value.into())),
            Err(error) if error.is_instance_of::<PyOverflowError>(object.py()) => object,
            Err(error) => return Err(error),
        };
        match too_long.extract::<u64>() {
            Ok(value) => Ok(Self(value.into())),
            Err(_) if too_long.lt(0)? => Ok(Self(i128::MIN)),
            Err(_) => Ok(Self(i128::MAX)),
        }
    }
}
