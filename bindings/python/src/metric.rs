//! Scores of predictions, counted in whole numbers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use structtoken::image::{IGNORE, Labels};
use structtoken::metrics::{Confusion, Scores};

use crate::arrays::{array2, ids, shape};
use crate::errors::{OrRaise, bad_type, bad_value};
use crate::numbers::Whole;

/// Counts pixels by true and predicted class, and says what follows: mIoU, accuracy, Dice.
///
/// The counts are whole numbers, so the order of updates and merges changes nothing. Scores are those of mmsegmentation and of
/// torchmetrics with ``average="macro"``: means are over the classes that are in the truth or predicted.
///
/// Parameters
/// ----------
/// k : int
///     Number of classes, 1 to 255.
/// ignore : int or None
///     Label of the truth that counts nowhere, 0 to 255; 255 unless stated. A class may be ignored; predicting it elsewhere is
///     wrong all the same.
///
/// Raises
/// ------
/// InputError
///     A number of classes or a label out of range.
///
/// Examples
/// --------
/// >>> import numpy, structtoken
/// >>> metric = structtoken.Metric(2)
/// >>> metric.update(numpy.array([[0, 1]]), numpy.array([[0, 0]])).compute()["miou"]
/// 0.25
#[pyclass(module = "structtoken", frozen)]
pub(crate) struct Metric {
    k: usize,
    ignore: Option<u8>,
    /// Whoever holds them calls nothing of Python, which might call this metric again, here or in another thread.
    counts: Mutex<Confusion>,
}

#[pymethods]
impl Metric {
    #[new]
    #[pyo3(signature = (k, ignore = Some(Whole::of(255))), text_signature = "(k, ignore=255)")]
    fn new(py: Python<'_>, k: Whole, ignore: Option<Whole>) -> PyResult<Self> {
        let k = k.size(py, "k", 1, 255)?;
        let ignore = ignore.map(|ignore| ignore.within(py, "ignore", 0, 255)).transpose()?;
        Ok(Self { k, ignore: ignore.map(|ignore| ignore as u8), counts: Mutex::new(Confusion::new(k)) })
    }

    /// Counts predictions.
    ///
    /// Parameters
    /// ----------
    /// pred : array of whole numbers, any shape
    ///     Predicted classes, below k.
    /// true : array of whole numbers, the same shape
    ///     True classes, below k or the ignored label.
    ///
    /// Returns
    /// -------
    /// Metric
    ///     This one, so that calls can be chained.
    ///
    /// Raises
    /// ------
    /// InputError
    ///     Other shapes, or a label that is not a class; then nothing is counted.
    /// InputTypeError
    ///     Arrays of other types or dtypes.
    fn update<'py>(
        slf: &Bound<'py, Self>,
        pred: &Bound<'py, PyAny>,
        r#true: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        let (py, own) = (slf.py(), slf.get());
        let (shape, of_truth) = (shape(pred), shape(r#true));
        if let (Some(shape), Some(of_truth)) = (&shape, of_truth)
            && *shape != of_truth
        {
            return Err(bad_value(
                py,
                &format!("predictions of shape {shape:?} and a truth of shape {of_truth:?}"),
                "pass arrays of one shape: the prediction in the size of the truth",
            ));
        }
        let class = |label: i128| u8::try_from(label).ok().filter(|id| usize::from(*id) < own.k);
        let ignored = own.ignore.map(i128::from);
        let class_or_ignored = |label: i128| if ignored == Some(label) { Some(IGNORE) } else { class(label) };
        let raised = |what: &str, (at, label): (usize, i128)| {
            let (k, at) = (own.k, place(at, shape.as_deref().unwrap_or_default()));
            let message = format!("the {what} holds the label {label} at {at:?}, but there are {k} classes");
            let hint = "labels are 0 to k - 1; what counts nowhere is given as ignore, and stands in the truth alone";
            bad_value(py, &message, hint)
        };
        let label = own.ignore.unwrap_or(IGNORE);
        let fill = format!("give the truth {label} where nothing counts, true.filled({label})");
        let fill = if own.ignore.is_some() { fill } else { format!("{fill}, and the metric ignore={label}") };
        let predicted = ids(pred, "predictions", &format!("pass pred.data; {fill}"), class)?;
        let truth = ids(r#true, "a truth", &fill, class_or_ignored)?.map_err(|found| raised("truth", found))?;
        let predicted = predicted.map_err(|found| raised("prediction", found))?;
        let map = |ids: Vec<u8>| Labels { width: ids.len(), height: 1, ids };
        let counted = py.detach(|| -> structtoken::Result<Confusion> {
            let mut counted = Confusion::new(own.k);
            counted.add(&map(truth), &map(predicted))?;
            Ok(counted)
        });
        let counted = counted.or_raise(py)?;
        own.lock().merge(&counted);
        Ok(slf.clone())
    }

    /// Adds what another metric has counted.
    ///
    /// Raises
    /// ------
    /// InputError
    ///     It has another number of classes or ignores another label.
    fn merge<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let (py, own) = (slf.py(), slf.get());
        let Ok(other) = other.cast::<Self>() else {
            return Err(bad_type(py, "only a Metric can be merged", "pass a structtoken.Metric"));
        };
        let other = other.get();
        if (own.k, own.ignore) != (other.k, other.ignore) {
            let (k, ignore, theirs, ignored) = (own.k, shown(own.ignore), other.k, shown(other.ignore));
            return Err(bad_value(
                py,
                &format!("a metric of {k} classes, ignore={ignore}, and one of {theirs}, ignore={ignored}"),
                "merge metrics of the same k and ignore",
            ));
        }
        // First, since it may be this one.
        let counted = other.lock().clone();
        own.lock().merge(&counted);
        Ok(slf.clone())
    }

    /// The scores of all that was counted.
    ///
    /// Returns
    /// -------
    /// dict
    ///     ``miou``, ``macc``, ``aacc``, ``mdice``: floats in 0..=1, None where nothing was counted. ``iou``, ``acc``, ``dice``: one
    ///     per class, None where the class is neither in the truth nor predicted (``acc``: not in the truth). ``pixels`` and
    ///     ``ignored``: counts. ``matrix``: uint64 ``[k, k]``, rows are the truth, columns the prediction.
    fn compute<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.lock().clone();
        let names: Vec<String> = (0..self.k).map(|class| class.to_string()).collect();
        let Scores { miou, macc, aacc, mdice, pixels, ignored_pixels, classes, .. } = counts.scores(&names);
        let found = PyDict::new(py);
        for (name, value) in [("miou", miou), ("macc", macc), ("aacc", aacc), ("mdice", mdice)] {
            found.set_item(name, value)?;
        }
        found.set_item("iou", classes.iter().map(|class| class.iou).collect::<Vec<_>>())?;
        found.set_item("acc", classes.iter().map(|class| class.acc).collect::<Vec<_>>())?;
        found.set_item("dice", classes.iter().map(|class| class.dice).collect::<Vec<_>>())?;
        found.set_item("pixels", pixels)?;
        found.set_item("ignored", ignored_pixels)?;
        found.set_item("matrix", matrix(py, &counts)?)?;
        Ok(found)
    }

    /// The counts, uint64 [k, k]: rows are the truth, columns the prediction.
    #[getter]
    fn matrix<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u64>>> {
        let counts = self.lock().clone();
        matrix(py, &counts)
    }

    /// The number of classes.
    #[getter]
    fn k(&self) -> usize {
        self.k
    }

    /// The label of the truth that counts nowhere.
    #[getter]
    fn ignore(&self) -> Option<u8> {
        self.ignore
    }

    fn __getnewargs__(&self) -> (usize, Option<u8>) {
        (self.k, self.ignore)
    }

    fn __getstate__(&self, py: Python<'_>) -> PyResult<String> {
        let written = serde_json::to_string(&*self.lock());
        written.map_err(|error| bad_value(py, &error.to_string(), "report this as a fault of the program"))
    }

    fn __setstate__(&self, py: Python<'_>, state: &str) -> PyResult<()> {
        let damaged = |why: String| bad_value(py, &format!("a metric's state is damaged: {why}"), "pickle it again");
        let counts: Confusion = serde_json::from_str(state).map_err(|error| damaged(error.to_string()))?;
        if counts.classes() != self.k {
            return Err(damaged("it is of another number of classes".to_owned()));
        }
        *self.lock() = counts;
        Ok(())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let Ok(other) = other.cast::<Self>() else { return false };
        // One after the other: it may be this one.
        let counted = other.get().lock().clone();
        other.get().ignore == self.ignore && counted == *self.lock()
    }

    fn __repr__(&self) -> String {
        format!("Metric(k={}, ignore={})", self.k, shown(self.ignore))
    }
}

impl Metric {
    fn lock(&self) -> MutexGuard<'_, Confusion> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matrix<'py>(py: Python<'py>, counts: &Confusion) -> PyResult<Bound<'py, PyArray2<u64>>> {
    let k = counts.classes();
    array2(py, [k, k], (0..k * k).map(|at| counts.count(at / k, at % k)).collect())
}

/// A label as Python writes it.
fn shown(label: Option<u8>) -> String {
    label.map_or("None".to_owned(), |label| label.to_string())
}

/// The index in every axis of an element by its number.
fn place(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|side| {
            let index = at % side;
            at /= side;
            index
        })
        .collect();
    place.reverse();
    place
}
