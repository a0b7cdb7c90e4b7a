//! Scores of predictions, counted in whole numbers.

use numpy::PyArray2;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use structtoken::image::{IGNORE, Labels};
use structtoken::metrics::{Confusion, Scores};

use crate::arrays::{array2, indices};
use crate::errors::{bad_type, bad_value};

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
#[pyclass(module = "structtoken")]
#[derive(Clone)]
pub(crate) struct Metric {
    counts: Confusion,
    ignore: Option<u8>,
}

#[pymethods]
impl Metric {
    #[new]
    #[pyo3(signature = (k, ignore = Some(255)))]
    fn new(py: Python<'_>, k: i64, ignore: Option<i64>) -> PyResult<Self> {
        if !(1..=255).contains(&k) {
            return Err(bad_value(py, &format!("{k} classes"), "pass k=1 to 255"));
        }
        let ignore = match ignore.map(u8::try_from) {
            None => None,
            Some(Ok(label)) => Some(label),
            Some(Err(_)) => {
                return Err(bad_value(
                    py,
                    &format!("ignore={} is not a label", ignore.unwrap_or_default()),
                    "pass 0 to 255, or None",
                ));
            }
        };
        Ok(Self { counts: Confusion::new(k as usize), ignore })
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
        let py = slf.py();
        let (pred, shape) = indices(pred, "predictions")?;
        let (truth, of_truth) = indices(r#true, "a truth")?;
        if shape != of_truth {
            return Err(bad_value(
                py,
                &format!("predictions of shape {shape:?} and a truth of shape {of_truth:?}"),
                "pass arrays of one shape: the prediction in the size of the truth",
            ));
        }
        let (k, ignore) = {
            let own = slf.borrow();
            (own.counts.classes(), own.ignore)
        };
        let counted = py.detach(|| count(k, ignore, &pred, &truth, &shape));
        let counted = counted.map_err(|(message, hint)| bad_value(py, &message, &hint))?;
        slf.borrow_mut().counts.merge(&counted);
        Ok(slf.clone())
    }

    /// Adds what another metric has counted.
    ///
    /// Raises
    /// ------
    /// InputError
    ///     It has another number of classes or ignores another label.
    fn merge<'py>(slf: &Bound<'py, Self>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let py = slf.py();
        let Ok(other) = other.cast::<Self>() else {
            return Err(bad_type(py, "only a Metric can be merged", "pass a structtoken.Metric"));
        };
        // First, since it may be this one.
        let other = other.borrow().clone();
        let mut own = slf.borrow_mut();
        let (k, ignore) = (own.counts.classes(), own.ignore);
        if (k, ignore) != (other.counts.classes(), other.ignore) {
            let (theirs, ignored) = (other.counts.classes(), other.ignore);
            return Err(bad_value(
                py,
                &format!(
                    "a metric of {k} classes, ignore={}, and one of {theirs}, ignore={}",
                    shown(ignore),
                    shown(ignored)
                ),
                "merge metrics of the same k and ignore",
            ));
        }
        own.counts.merge(&other.counts);
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
        let k = self.counts.classes();
        let names: Vec<String> = (0..k).map(|class| class.to_string()).collect();
        let Scores { miou, macc, aacc, mdice, pixels, ignored_pixels, classes, .. } = self.counts.scores(&names);
        let found = PyDict::new(py);
        for (name, value) in [("miou", miou), ("macc", macc), ("aacc", aacc), ("mdice", mdice)] {
            found.set_item(name, value)?;
        }
        found.set_item("iou", classes.iter().map(|class| class.iou).collect::<Vec<_>>())?;
        found.set_item("acc", classes.iter().map(|class| class.acc).collect::<Vec<_>>())?;
        found.set_item("dice", classes.iter().map(|class| class.dice).collect::<Vec<_>>())?;
        found.set_item("pixels", pixels)?;
        found.set_item("ignored", ignored_pixels)?;
        found.set_item("matrix", self.matrix(py)?)?;
        Ok(found)
    }

    /// The counts, uint64 [k, k]: rows are the truth, columns the prediction.
    #[getter]
    fn matrix<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u64>>> {
        let k = self.counts.classes();
        let counts = (0..k * k).map(|at| self.counts.count(at / k, at % k)).collect();
        array2(py, [k, k], counts)
    }

    /// The number of classes.
    #[getter]
    fn k(&self) -> usize {
        self.counts.classes()
    }

    /// The label of the truth that counts nowhere.
    #[getter]
    fn ignore(&self) -> Option<u8> {
        self.ignore
    }

    fn __getnewargs__(&self) -> (usize, Option<u8>) {
        (self.counts.classes(), self.ignore)
    }

    fn __getstate__(&self, py: Python<'_>) -> PyResult<String> {
        serde_json::to_string(&self.counts)
            .map_err(|error| bad_value(py, &error.to_string(), "report this as a fault of the program"))
    }

    fn __setstate__(&mut self, py: Python<'_>, state: &str) -> PyResult<()> {
        let damaged = |why: String| bad_value(py, &format!("a metric's state is damaged: {why}"), "pickle it again");
        let counts: Confusion = serde_json::from_str(state).map_err(|error| damaged(error.to_string()))?;
        if counts.classes() != self.counts.classes() {
            return Err(damaged("it is of another number of classes".to_owned()));
        }
        self.counts = counts;
        Ok(())
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let other = other.cast::<Self>().ok().and_then(|other| other.try_borrow().ok());
        other.is_some_and(|other| (&other.counts, other.ignore) == (&self.counts, self.ignore))
    }

    fn __repr__(&self) -> String {
        format!("Metric(k={}, ignore={})", self.counts.classes(), shown(self.ignore))
    }
}

/// A label as Python writes it.
fn shown(label: Option<u8>) -> String {
    label.map_or("None".to_owned(), |label| label.to_string())
}

/// The counts of these alone, or what is wrong with them and what to do.
fn count(
    k: usize,
    ignore: Option<u8>,
    pred: &[i64],
    truth: &[i64],
    shape: &[usize],
) -> Result<Confusion, (String, String)> {
    let wrong = |what: &str, label: i64, at: usize| {
        (
            format!("the {what} holds the label {label} at {:?}, but there are {k} classes", place(at, shape)),
            "labels are 0 to k - 1; what counts nowhere is given as ignore, and stands in the truth alone".to_owned(),
        )
    };
    let class = |label: i64| u8::try_from(label).ok().filter(|id| usize::from(*id) < k);
    let mut ids = Vec::with_capacity(truth.len());
    for (at, label) in truth.iter().enumerate() {
        let ignored = ignore.is_some_and(|ignore| i64::from(ignore) == *label);
        ids.push(if ignored { IGNORE } else { class(*label).ok_or_else(|| wrong("truth", *label, at))? });
    }
    let mut predicted = Vec::with_capacity(pred.len());
    for (at, label) in pred.iter().enumerate() {
        predicted.push(class(*label).ok_or_else(|| wrong("prediction", *label, at))?);
    }
    let map = |ids: Vec<u8>| Labels { width: ids.len(), height: 1, ids };
    let mut counted = Confusion::new(k);
    let added = counted.add(&map(ids), &map(predicted));
    added.map(|()| counted).map_err(|error| (error.to_string(), error.hint().unwrap_or_default().to_owned()))
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
