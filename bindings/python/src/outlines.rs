//! Label maps as others take them.

use numpy::PyArray2;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use serde_json::Value;
use structtoken::image::outlines::{self, CocoRle, OutlineOptions};
use structtoken::image::{IGNORE, MAX_PIXELS, encode_index_png};
use structtoken::predict::earlier_predictions::sign;

use crate::arrays::array2;
use crate::errors::{OrRaise, bad_type, bad_value};
use crate::numbers::Whole;

/// Run lengths of a class, as ``pycocotools.mask.encode`` gives them.
///
/// Parameters
/// ----------
/// labels : array [height, width] of uint8 or bool
///     A label map, or a mask.
/// cls : int
///     The class; 1 unless stated, which is what a mask covers.
///
/// Returns
/// -------
/// dict
///     ``size``: [height, width]; ``counts``: compressed run lengths as str, ready for JSON.
///
/// Raises
/// ------
/// InputError, InputTypeError
///     An array that is not a label map.
///
/// Examples
/// --------
/// >>> import numpy, structtoken
/// >>> structtoken.encode_rle(numpy.eye(2, dtype=bool))
/// {'size': [2, 2], 'counts': '0120'}
#[pyfunction]
#[pyo3(signature = (labels, cls = Whole::of(1)), text_signature = "(labels, cls=1)")]
pub(crate) fn encode_rle<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = crate::arrays::labels)] labels: structtoken::image::Labels,
    cls: Whole,
) -> PyResult<Bound<'py, PyDict>> {
    let cls = cls.within(py, "cls", 0, 255)? as u8;
    let rle = py.detach(|| CocoRle::of(&labels, cls));
    let found = PyDict::new(py);
    found.set_item("size", rle.size.to_vec())?;
    found.set_item("counts", rle.counts)?;
    Ok(found)
}

/// The mask that run lengths cover.
///
/// Parameters
/// ----------
/// rle : dict
///     ``size``: [height, width]; ``counts``: compressed run lengths, str or bytes.
///
/// Returns
/// -------
/// array [height, width] of uint8
///     1 where it is covered, else 0.
///
/// Raises
/// ------
/// Error
///     Run lengths that are damaged, or do not add up to the size.
/// InputError, InputTypeError
///     Something else than such a dict.
///
/// Examples
/// --------
/// >>> import structtoken
/// >>> structtoken.decode_rle({"size": [2, 2], "counts": "0120"})
/// array([[1, 0],
///        [0, 1]], dtype=uint8)
#[pyfunction]
pub(crate) fn decode_rle<'py>(py: Python<'py>, rle: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let hint = "pass what encode_rle gives, or pycocotools.mask.encode";
    let Ok(rle) = rle.cast::<PyDict>() else {
        return Err(bad_type(py, &format!("run lengths of type {}", rle.get_type().name()?), hint));
    };
    let (Some(size), Some(counts)) = (rle.get_item("size")?, rle.get_item("counts")?) else {
        return Err(bad_value(py, "run lengths without `size` or `counts`", hint));
    };
    let Ok([height, width]) = size.extract::<[Whole; 2]>() else {
        return Err(bad_value(py, "run lengths whose `size` is not [height, width]", hint));
    };
    let size = [height, width].map(|side| side.size(py, "a side of `size`", 0, MAX_PIXELS as usize));
    let [height, width] = size;
    let size = [height?, width?];
    let counts = if let Ok(bytes) = counts.cast::<PyBytes>() {
        String::from_utf8_lossy(bytes.as_bytes()).into_owned()
    } else if let Ok(text) = counts.cast::<PyString>() {
        text.to_string_lossy().into_owned()
    } else {
        let hint = "compress them by pycocotools.mask.frPyObjects(rle, height, width)";
        return Err(bad_type(py, "run lengths whose `counts` are neither str nor bytes", hint));
    };
    let mask = py.detach(|| CocoRle { size, counts }.decode()).or_raise(py)?;
    array2(py, size, mask)
}

/// A label map as the bytes of an indexed PNG: what ``structtoken predict`` writes.
///
/// Parameters
/// ----------
/// labels : array [height, width] of uint8
/// palette : list of (red, green, blue), or array [classes, 3]
///     The colours of the classes, as `Model.palette`: at most 256, of 0 to 255.
///
/// Returns
/// -------
/// bytes
///
/// Raises
/// ------
/// InputError, InputTypeError
///     An array that is not a label map, or another palette.
///
/// Examples
/// --------
/// >>> import numpy, structtoken
/// >>> structtoken.encode_png(numpy.zeros([2, 3], "uint8"), [(255, 0, 0)])[:4]
/// b'\x89PNG'
#[pyfunction]
pub(crate) fn encode_png<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = crate::arrays::labels)] labels: structtoken::image::Labels,
    #[pyo3(from_py_with = palette_of)] palette: Vec<[u8; 3]>,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = py.detach(|| encode_index_png(&labels, &palette).map(sign)).or_raise(py)?;
    Ok(PyBytes::new(py, &bytes))
}

/// The colours of a palette.
fn palette_of(object: &Bound<'_, PyAny>) -> PyResult<Vec<[u8; 3]>> {
    let py = object.py();
    let hint = "pass one (red, green, blue) of 0 to 255 per class, as Model.palette";
    let Ok(colors) = object.extract::<Vec<[Whole; 3]>>() else {
        return Err(bad_type(py, "a palette that is not a list of (red, green, blue)", hint));
    };
    if colors.len() > 256 {
        return Err(bad_value(py, &format!("a palette of {} colours", colors.len()), "pass at most 256"));
    }
    let level = |value: Whole| value.within(py, "a level of a colour", 0, 255).map(|level| level as u8);
    colors.into_iter().map(|[red, green, blue]| Ok([level(red)?, level(green)?, level(blue)?])).collect()
}

/// The outlines of all regions, by class, and within a class by their first pixel in reading order.
///
/// Pixels that count nowhere (255) are in none. Coordinates are pixels, x to the right and y down, (0, 0) at the corner of the first
/// pixel, whose centre is (0.5, 0.5).
///
/// Parameters
/// ----------
/// labels : array [height, width] of uint8 or bool
/// tolerance : float
///     Pixels that a simplified border may lie off; below 0.5 the polygons cover exactly the same pixels, 0 keeps every corner.
/// min_area : int
///     Regions and holes of fewer pixels are dropped and filled.
///
/// Returns
/// -------
/// list of dict
///     ``class``: int; ``area``: pixels before simplification; ``exterior``: int32 array [points, 2] of x and y, not closed;
///     ``holes``: a list of such arrays.
///
/// Raises
/// ------
/// Error
///     A tolerance that is negative.
/// InputError, InputTypeError
///     An array that is not a label map.
///
/// Examples
/// --------
/// >>> import numpy, structtoken
/// >>> [polygon] = structtoken.polygons(numpy.ones([2, 3], "uint8"))
/// >>> polygon["class"], polygon["area"], polygon["exterior"].tolist()
/// (1, 6, [[0, 0], [3, 0], [3, 2], [0, 2]])
#[pyfunction]
#[pyo3(signature = (labels, tolerance = 1.0, min_area = Whole::of(0)), text_signature = "(labels, tolerance=1.0, min_area=0)")]
pub(crate) fn polygons<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = crate::arrays::labels)] labels: structtoken::image::Labels,
    tolerance: f64,
    min_area: Whole,
) -> PyResult<Bound<'py, PyList>> {
    let min_area = min_area.within(py, "min_area", 0, u64::MAX)?;
    let options = OutlineOptions { tolerance, min_area };
    options.check().or_raise(py)?;
    let found = py.detach(|| outlines::polygons(&labels, options));
    py.check_signals()?;
    let ring = |points: &[[u32; 2]]| {
        let corners = points.iter().flatten().map(|value| *value as i32).collect();
        array2(py, [points.len(), 2], corners)
    };
    let list = PyList::empty(py);
    for (at, polygon) in found.into_iter().enumerate() {
        if at % ELEMENTS_AT_ONCE == 0 {
            pause(py)?;
        }
        let entry = PyDict::new(py);
        entry.set_item("class", polygon.class)?;
        entry.set_item("area", polygon.area)?;
        entry.set_item("exterior", ring(&polygon.exterior)?)?;
        let holes = polygon.holes.iter().map(|hole| ring(hole)).collect::<PyResult<Vec<_>>>()?;
        entry.set_item("holes", holes)?;
        list.append(entry)?;
    }
    Ok(list)
}

/// A task of Label Studio with a prediction: a brush region per class.
///
/// Parameters
/// ----------
/// labels : array [height, width] of uint8
/// classes : list of str
///     Names, as `Model.classes`.
/// image : str
///     The link that Label Studio opens, ``data.image``.
/// version : str
///     What the model is called.
///
/// Returns
/// -------
/// dict
///     To be imported as JSON. The tags of the interface are called ``label`` and ``image``.
///
/// Raises
/// ------
/// InputError, InputTypeError
///     An array that is not a label map, or that holds a class without a name.
///
/// Examples
/// --------
/// >>> import numpy, structtoken
/// >>> task = structtoken.label_studio(numpy.zeros([4, 4], "uint8"), ["road"], "/data/local-files/?d=a.png")
/// >>> task["predictions"][0]["result"][0]["value"]["brushlabels"]
/// ['road']
#[pyfunction]
#[pyo3(signature = (labels, classes, image, version = "structtoken"))]
pub(crate) fn label_studio<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = crate::arrays::labels)] labels: structtoken::image::Labels,
    #[pyo3(from_py_with = crate::given::classes)] classes: Vec<String>,
    image: &str,
    version: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let unnamed = |id: &&u8| **id != IGNORE && usize::from(**id) >= classes.len();
    if let Some(id) = py.detach(|| labels.ids.iter().find(unnamed)) {
        let message = format!("the label map holds the class {id}, and classes has {} names", classes.len());
        return Err(bad_value(py, &message, "pass the names of all classes, as Model.classes; 255 needs none"));
    }
    let task = py.detach(|| outlines::label_studio_task(&labels, &classes, image, version));
    py.check_signals()?;
    of_value(py, &task)
}

/// Elements that are made before others may run, and a signal is heard.
const ELEMENTS_AT_ONCE: usize = 1 << 10;

/// Lets other threads run, and hears a signal.
fn pause(py: Python<'_>) -> PyResult<()> {
    py.detach(|| ());
    py.check_signals()
}

/// A value of JSON as Python's.
fn of_value<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => value.into_bound_py_any(py)?,
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into_bound_py_any(py)?,
            (None, Some(number)) => number.into_bound_py_any(py)?,
            (None, None) => number.as_f64().into_bound_py_any(py)?,
        },
        Value::String(text) => text.into_bound_py_any(py)?,
        Value::Array(values) => {
            let list = PyList::empty(py);
            for (at, value) in values.iter().enumerate() {
                if at % ELEMENTS_AT_ONCE == 0 {
                    pause(py)?;
                }
                list.append(of_value(py, value)?)?;
            }
            list.into_any()
        }
        Value::Object(entries) => {
            let found = PyDict::new(py);
            for (key, value) in entries {
                found.set_item(key, of_value(py, value)?)?;
            }
            found.into_any()
        }
    })
}

/// A text of JSON as Python's values.
pub(crate) fn of_json<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (text,))
}
