//! numpy's arrays, and what else holds pixels, as images and label maps.

use numpy::{
    Element, IntoPyArray, PyArray2, PyArray3, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods,
    ndarray,
};
use pyo3::prelude::*;
use pyo3::types::PyString;
use structtoken::image::{Image, Labels, MAX_PIXELS};

use crate::errors::{bad_type, bad_value};

/// The RGB pixels of an array `[height, width, 3]` of uint8, whatever its strides.
///
/// # Errors
/// Another dtype or shape, an empty array, or more than [`MAX_PIXELS`].
pub(crate) fn image(array: &Bound<'_, PyAny>) -> PyResult<Image> {
    let py = array.py();
    let untyped = untyped(array, "an image", "a uint8 array [height, width, 3], a path or a PIL image")?;
    let shape = untyped.shape().to_vec();
    let Ok(array) = array.cast::<PyArrayDyn<u8>>() else {
        return Err(bad_type(
            py,
            &format!("an image of dtype {}", untyped.dtype()),
            "pass uint8 from 0 to 255: values from 0 to 1 become that by (255 * array).round().astype(\"uint8\")",
        ));
    };
    let [height, width, 3] = shape[..] else {
        let hint = match shape[..] {
            [_, _] | [_, _, 1] => "a grey image becomes RGB by numpy.stack([array] * 3, axis=-1)",
            [_, _, 4] => "leave the transparency out: array[..., :3]",
            [3, _, _] => "the channels come last: array.transpose(1, 2, 0)",
            [_, _, _, 3] => "several images are passed as a list: list(array)",
            _ => "pass [height, width, 3], RGB",
        };
        return Err(bad_value(py, &format!("an image of shape {shape:?}"), hint));
    };
    size(py, height, width)?;
    Ok(Image { width, height, pixels: values(array)? })
}

/// A label map from an array `[height, width]` of uint8 or bool, whatever its strides.
///
/// # Errors
/// Another dtype or shape, an empty array, or more than [`MAX_PIXELS`].
pub(crate) fn labels(array: &Bound<'_, PyAny>) -> PyResult<Labels> {
    let py = array.py();
    let untyped = untyped(array, "a label map", "a uint8 array [height, width]")?;
    let [height, width] = untyped.shape()[..] else {
        return Err(bad_value(
            py,
            &format!("a label map of shape {:?}", untyped.shape()),
            "pass [height, width]: one class index per pixel",
        ));
    };
    size(py, height, width)?;
    let ids = if let Ok(array) = array.cast::<PyArrayDyn<u8>>() {
        values(array)?
    } else if let Ok(array) = array.cast::<PyArrayDyn<bool>>() {
        values(array)?.into_iter().map(u8::from).collect()
    } else {
        return Err(bad_type(
            py,
            &format!("a label map of dtype {}", untyped.dtype()),
            "pass uint8, or bool for a mask: array.astype(\"uint8\")",
        ));
    };
    Ok(Labels { width, height, ids })
}

/// Class indices from an array of whole numbers of any shape: `i64`, in the order of its elements, with the shape.
///
/// # Errors
/// Another dtype.
pub(crate) fn indices(array: &Bound<'_, PyAny>, what: &str) -> PyResult<(Vec<i64>, Vec<usize>)> {
    let untyped = untyped(array, what, "an array of whole numbers; a PyTorch tensor by .cpu().numpy()")?;
    let shape = untyped.shape().to_vec();
    macro_rules! try_each {
        ($($kind:ty),*) => {
            $(if let Ok(array) = array.cast::<PyArrayDyn<$kind>>() {
                // What does not fit is no class either.
                let wide = |value: $kind| i64::try_from(value).unwrap_or(i64::MAX);
                return Ok((values(array)?.into_iter().map(wide).collect(), shape));
            })*
        };
    }
    try_each!(u8, i64, i32, u16, i16, i8, u32, u64);
    if let Ok(array) = array.cast::<PyArrayDyn<bool>>() {
        return Ok((values(array)?.into_iter().map(i64::from).collect(), shape));
    }
    Err(bad_type(
        array.py(),
        &format!("{what} of dtype {}", untyped.dtype()),
        "pass whole numbers in the machine's byte order: probabilities become classes by .argmax(axis)",
    ))
}

/// A label map as an array `[height, width]`, without a copy.
pub(crate) fn label_array<'py>(py: Python<'py>, labels: Labels) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let Labels { width, height, ids } = labels;
    array2(py, [height, width], ids)
}

/// Values by rows as an array, without a copy.
pub(crate) fn array2<T: Element>(
    py: Python<'_>,
    [rows, columns]: [usize; 2],
    values: Vec<T>,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    let array = ndarray::Array2::from_shape_vec((rows, columns), values);
    Ok(array
        .map_err(|error| bad_value(py, &error.to_string(), "report this as a fault of the program"))?
        .into_pyarray(py))
}

/// The same of three axes.
pub(crate) fn array3<T: Element>(
    py: Python<'_>,
    [first, rows, columns]: [usize; 3],
    values: Vec<T>,
) -> PyResult<Bound<'_, PyArray3<T>>> {
    let array = ndarray::Array3::from_shape_vec((first, rows, columns), values);
    Ok(array
        .map_err(|error| bad_value(py, &error.to_string(), "report this as a fault of the program"))?
        .into_pyarray(py))
}

/// A picture of Pillow as an array `[height, width, 3]`, turned as its EXIF says; none for other objects.
///
/// # Errors
/// A picture of more than 8 bits a channel, which Pillow would cut off.
pub(crate) fn of_pillow<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    let module = object.get_type().module()?;
    if !module.to_string_lossy().starts_with("PIL.") || !object.hasattr("convert")? {
        return Ok(None);
    }
    let mode: String = object.getattr("mode")?.extract()?;
    if mode.starts_with('I') || mode == "F" {
        return Err(bad_value(
            py,
            &format!("an image of Pillow's mode `{mode}`, of more than 8 bits"),
            "pass its path instead, so that its 16-bit values are mapped as in training",
        ));
    }
    let turned = py.import("PIL.ImageOps")?.call_method1("exif_transpose", (object,))?;
    // A palette with transparency is no colour of RGB before it is RGBA.
    let opaque = if mode == "P" { turned.call_method1("convert", ("RGBA",))? } else { turned };
    let rgb = opaque.call_method1("convert", ("RGB",))?;
    Ok(Some(py.import("numpy")?.call_method1("asarray", (rgb,))?))
}

/// The path that an object stands for; none for other objects.
pub(crate) fn path(object: &Bound<'_, PyAny>) -> PyResult<Option<std::path::PathBuf>> {
    if object.is_instance_of::<PyString>() || object.hasattr("__fspath__")? {
        return object.extract().map(Some);
    }
    Ok(None)
}

fn untyped<'a, 'py>(
    array: &'a Bound<'py, PyAny>,
    what: &str,
    wanted: &str,
) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    array.cast::<PyUntypedArray>().map_err(|_| {
        let name = array.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        bad_type(array.py(), &format!("{what} of type {name}"), &format!("pass {wanted}"))
    })
}

fn size(py: Python<'_>, height: usize, width: usize) -> PyResult<()> {
    match (height as u64).checked_mul(width as u64) {
        Some(0) => Err(bad_value(py, &format!("an array of {height} x {width} pixels"), "pass at least one pixel")),
        Some(pixels) if pixels <= MAX_PIXELS => Ok(()),
        _ => Err(bad_value(
            py,
            &format!("an array of {height} x {width} pixels, and at most {MAX_PIXELS} are taken"),
            "cut it into tiles",
        )),
    }
}

/// The elements in their order, whatever the strides.
fn values<T: Element + Copy>(array: &Bound<'_, PyArrayDyn<T>>) -> PyResult<Vec<T>> {
    if !array.is_aligned() {
        let copy = array.call_method0("copy")?;
        return values(copy.cast::<PyArrayDyn<T>>()?);
    }
    let array = array.try_readonly().map_err(|error| {
        bad_value(array.py(), &format!("the array is being written to: {error}"), "pass a copy of it")
    })?;
    // Also a slice of columns is one: its order is not that of the elements.
    Ok(match array.as_slice() {
        Ok(values) if array.is_c_contiguous() => values.to_vec(),
        _ => array.as_array().iter().copied().collect(),
    })
}
