//! numpy's arrays, and what else holds pixels, as images and label maps.

use std::convert::Infallible;

use numpy::{
    Element, IntoPyArray, PyArray2, PyArray3, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn,
    PyUntypedArray, PyUntypedArrayMethods, ndarray,
};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use structtoken::available_memory::require;
use structtoken::image::{Image, Labels, MAX_PIXELS};

use crate::errors::{OrRaise, bad_type, bad_value};

/// The RGB pixels of an array `[height, width, 3]` of uint8, whatever its strides.
///
/// # Errors
/// Another dtype or shape, an empty array, or more than [`MAX_PIXELS`].
pub(crate) fn image(array: &Bound<'_, PyAny>) -> PyResult<Image> {
    let py = array.py();
    let unmask = "pass array.filled(0), or array.data without the mask";
    let untyped = untyped(array, "an image", "a uint8 array [height, width, 3], a path or a PIL image", unmask)?;
    let shape = untyped.shape().to_vec();
    let Ok(array) = array.cast::<PyArrayDyn<u8>>() else {
        let hint = match (untyped.dtype().kind(), untyped.dtype().itemsize()) {
            (b'b', _) => "False and True become black and white by array.astype(\"uint8\") * 255",
            (b'u', 2) => {
                "pass the path of a 16-bit file, whose values are mapped as in training; or, where 65535 is white, \
                 (array // 257).astype(\"uint8\")"
            }
            (b'u' | b'i', _) => "values from 0 to 255 become uint8 by array.astype(\"uint8\")",
            (b'f', _) => {
                "values from 0 to 1 become uint8 by (255 * array).round().astype(\"uint8\"), those from 0 to 255 by \
                 array.round().astype(\"uint8\")"
            }
            _ => "pass uint8 from 0 to 255",
        };
        return Err(bad_type(py, &format!("an image of dtype {}", untyped.dtype()), hint));
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
    let unmask = "pass array.filled(255), where 255 is no class, or array.data without the mask";
    let untyped = untyped(array, "a label map", "a uint8 array [height, width]", unmask)?;
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
        let Ok(ids) = each(array, &|_, value| Ok::<_, Infallible>(u8::from(value)))?;
        ids
    } else {
        let hint = match untyped.dtype().kind() {
            b'u' | b'i' => "class indices from 0 to 255 become uint8 by array.astype(\"uint8\")",
            b'f' => {
                "probabilities become classes by .argmax(axis).astype(\"uint8\"), whole numbers by array.astype(\"uint8\")"
            }
            _ => "pass class indices as uint8, or bool for a mask",
        };
        return Err(bad_type(py, &format!("a label map of dtype {}", untyped.dtype()), hint));
    };
    Ok(Labels { width, height, ids })
}

/// The shape of an array; none of anything else.
pub(crate) fn shape(object: &Bound<'_, PyAny>) -> Option<Vec<usize>> {
    object.cast::<PyUntypedArray>().ok().map(|array| array.shape().to_vec())
}

/// Class ids from an array of whole numbers of any shape, in the order of its elements: what `class` makes of each, or
/// the first that is none, with its number. `unmask` is what to do with a masked array.
///
/// # Errors
/// Another dtype, and more elements than there is memory for.
pub(crate) fn ids(
    array: &Bound<'_, PyAny>,
    what: &str,
    unmask: &str,
    class: impl Fn(i128) -> Option<u8> + Sync,
) -> PyResult<Result<Vec<u8>, (usize, i128)>> {
    let untyped = untyped(array, what, "an array of whole numbers; a PyTorch tensor by .cpu().numpy()", unmask)?;
    macro_rules! try_each {
        ($($kind:ty),*) => {
            $(if let Ok(array) = array.cast::<PyArrayDyn<$kind>>() {
                return each(array, &|at, value| {
                    let value = i128::from(value);
                    class(value).ok_or((at, value))
                });
            })*
        };
    }
    try_each!(u8, i64, i32, u16, i16, i8, u32, u64, bool);
    let hint = match untyped.dtype().kind() {
        b'f' => "probabilities become classes by .argmax(axis), whole numbers by .astype(\"int64\")",
        b'u' | b'i' => "pass whole numbers in the machine's byte order: .astype(\"int64\")",
        _ => "pass whole numbers, one class index per pixel",
    };
    Err(bad_type(array.py(), &format!("{what} of dtype {}", untyped.dtype()), hint))
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
/// A picture of more than 8 bits a channel, which Pillow would cut off; one that Pillow cannot read, or make RGB.
pub(crate) fn of_pillow<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    // Without Pillow there are no pictures of its.
    let Ok(module) = py.import("sys")?.getattr("modules")?.get_item("PIL.Image") else { return Ok(None) };
    if !object.is_instance(&module.getattr("Image")?)? {
        return Ok(None);
    }
    let mode: String = object.getattr("mode")?.extract()?;
    if mode == "F" {
        return Err(bad_value(
            py,
            "an image of Pillow's mode `F`, of fractions",
            "values from 0 to 1 become uint8 by (255 * numpy.asarray(image)).round().astype(\"uint8\"), those from 0 to 255 by \
             numpy.asarray(image).round().astype(\"uint8\"); and grey becomes RGB by numpy.stack([array] * 3, axis=-1)",
        ));
    }
    if mode.starts_with('I') {
        return Err(bad_value(
            py,
            &format!("an image of Pillow's mode `{mode}`, of more than 8 bits"),
            "pass its path instead, so that its 16-bit values are mapped as in training",
        ));
    }
    let pixels = || {
        let turned = py.import("PIL.ImageOps")?.call_method1("exif_transpose", (object,))?;
        // A palette with transparency is no colour of RGB before it is RGBA.
        let opaque = if mode == "P" { turned.call_method1("convert", ("RGBA",))? } else { turned };
        let rgb = opaque.call_method1("convert", ("RGB",))?;
        py.import("numpy")?.call_method1("asarray", (rgb,))
    };
    match pixels() {
        Ok(pixels) => Ok(Some(pixels)),
        Err(error) if error.is_instance_of::<PyException>(py) => {
            let message = format!("Pillow does not give the pixels of an image of mode `{mode}`: {}", error.value(py));
            let raised = bad_value(py, &message, "pass the path or the bytes of its file, while it is there and whole");
            raised.set_cause(py, Some(error));
            Err(raised)
        }
        Err(error) => Err(error),
    }
}

fn untyped<'a, 'py>(
    array: &'a Bound<'py, PyAny>,
    what: &str,
    wanted: &str,
    unmask: &str,
) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    if is_masked(array)? {
        return Err(bad_type(array.py(), &format!("{what} as a masked array, whose mask would be lost"), unmask));
    }
    array.cast::<PyUntypedArray>().map_err(|_| {
        let name = array.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        bad_type(array.py(), &format!("{what} of type {name}"), &format!("pass {wanted}"))
    })
}

/// Whether an array hides some of its elements.
fn is_masked(array: &Bound<'_, PyAny>) -> PyResult<bool> {
    // Before numpy.ma is imported there are none.
    let Ok(module) = array.py().import("sys")?.getattr("modules")?.get_item("numpy.ma") else { return Ok(false) };
    array.is_instance(&module.getattr("MaskedArray")?)
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
///
/// # Errors
/// There is too little memory.
fn values<T: Element + Copy>(array: &Bound<'_, PyArrayDyn<T>>) -> PyResult<Vec<T>> {
    let array = InOrder::of(array, size_of::<T>())?;
    array.read(<[T]>::to_vec)
}

/// What `to` makes of every element by its number, in their order, whatever the strides; or what it fails with first.
///
/// # Errors
/// There is too little memory.
fn each<T: Element + Copy, U: Send, E: Send>(
    array: &Bound<'_, PyArrayDyn<T>>,
    to: &(impl Fn(usize, T) -> Result<U, E> + Sync),
) -> PyResult<Result<Vec<U>, E>> {
    let array = InOrder::of(array, size_of::<U>())?;
    array.read(|values| {
        let mut found = Vec::with_capacity(values.len());
        for (at, value) in values.iter().enumerate() {
            found.push(to(at, *value)?);
        }
        Ok(found)
    })
}

/// An array whose elements lie one after the other, in their order.
struct InOrder<'py, T: Element> {
    array: PyReadonlyArrayDyn<'py, T>,
    /// Whether it is a copy, which nobody else knows of.
    copied: bool,
}

impl<'py, T: Element> InOrder<'py, T> {
    /// The array, once there is room for `size` bytes per element; numpy's copy of one whose elements lie otherwise or
    /// are not aligned, which takes no time of other threads.
    ///
    /// # Errors
    /// There is too little memory.
    fn of(array: &Bound<'py, PyArrayDyn<T>>, size: usize) -> PyResult<Self> {
        let (py, shape) = (array.py(), array.shape());
        let copied = !array.is_aligned() || !array.is_c_contiguous();
        let size = size + if copied { size_of::<T>() } else { 0 };
        // An array may be far larger than what it stands on.
        let product = |all: u64, side: &usize| all.saturating_mul(*side as u64);
        let all = if shape.contains(&0) { 0 } else { shape.iter().fold(size as u64, product) };
        room(py, all, &format!("a copy of an array of shape {shape:?}"), "pass it in pieces")?;
        let readable = if copied {
            let order = [("order", "C")].into_py_dict(py)?;
            let copy = py.import("numpy")?.call_method("array", (array,), Some(&order))?;
            copy.cast::<PyArrayDyn<T>>()?.try_readonly()
        } else {
            array.try_readonly()
        };
        let readable = readable
            .map_err(|error| bad_value(py, &format!("the array is being written to: {error}"), "pass a copy of it"));
        Ok(Self { array: readable?, copied })
    }

    /// What `to` makes of the elements: with the interpreter's lock where others could change them meanwhile.
    fn read<U: Send>(&self, to: impl FnOnce(&[T]) -> U + Send) -> PyResult<U> {
        let py = self.array.py();
        let values = self.array.as_slice();
        let values =
            values.map_err(|error| bad_value(py, &error.to_string(), "report this as a fault of the program"))?;
        Ok(if self.copied { py.detach(|| to(values)) } else { to(values) })
    }
}

/// Fails where `bytes` for `what` are more than the memory that is left.
///
/// # Errors
/// They are.
pub(crate) fn room(py: Python<'_>, bytes: u64, what: &str, hint: &str) -> PyResult<()> {
    // What is small is not worth a look at the system's files.
    if bytes < 1 << 24 { Ok(()) } else { require(bytes, what, hint).or_raise(py) }
}
