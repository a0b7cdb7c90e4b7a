//! Training and evaluation.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use structtoken::config::Config;
use structtoken::dataset::Split;
use structtoken::eval::{self, EvalOptions};
use structtoken::infer::Inference;
use structtoken::metrics::Scores;
use structtoken::run::{self, Outcome, RunOptions};
use structtoken::sweep::compare::ComparePlan;
use structtoken::tools::measured::{ALL, Asked, Measured, SplitChoice};
use structtoken::tools::named::Listener;
use structtoken::train::Progress;
use structtoken::{Error, Result, model_file};

use crate::attend::{Event, attend};
use crate::errors::{OrRaise, bad_type, bad_value};
use crate::given;
use crate::numbers::Whole;
use crate::outlines::of_json;
use crate::threads::{count, own_pool};

/// Trains as a recipe says, in a folder.
///
/// On Ctrl-C, and on any exception of a callback, the run saves and stops; then that is raised. ``resume=True`` continues it, and
/// ends in the same bytes as a run that was not interrupted. Callbacks are called by the calling thread.
///
/// Parameters
/// ----------
/// recipe : path or None
///     A recipe, a TOML file or one of the program's own such as "configs/shapes/demo.toml"; None to resume.
/// out : path
///     The folder of the run: its model, log, checkpoints.
/// set : list of str
///     Changes of the recipe, such as "train.iterations=2000".
/// resume : bool
///     Continue from the last checkpoint in ``out``.
/// on_step : callable, optional
///     Called after every iteration with a dict: ``iteration``, ``iterations``, ``loss``, ``parts``, ``lr``, ``images_per_s``,
///     ``wait_share``, ``eta_s``.
/// on_evaluation : callable, optional
///     Called after every evaluation with the iteration and a dict: ``miou``, ``macc``, ``aacc``, ``mdice`` in 0..=1, None where
///     nothing was counted; ``pixels`` and ``ignored_pixels``, counts; ``absent``, the names of classes that the truth never holds;
///     ``warnings``, a list of str; ``classes``, a list with a dict for each: ``name``, ``iou``, ``acc``, ``dice``, ``pixels``,
///     ``predicted_pixels``, ``absent``; and ``matrix``, a list of rows: of the truth, columns of the prediction.
/// threads : int, optional
///     CPU threads; one per core without it.
/// device : str
///     "auto", "cpu", "cuda:0" and so on.
///
/// What is reported beside that goes to the logger "structtoken" of `logging`.
///
/// Returns
/// -------
/// dict
///     ``model``: path of the best weights; ``iteration``; ``best``: (iteration, mIoU); ``took_s``; ``scores``, a dict as that of
///     ``on_evaluation``.
///
/// Raises
/// ------
/// Error
///     A recipe or data that cannot be read, a folder that holds a run, weights that do not fit, a loss that is not finite.
///     NotFoundError: a recipe, data or a run to resume that are not there.
/// KeyboardInterrupt
///     Ctrl-C; the run has saved.
///
/// Examples
/// --------
/// >>> import structtoken
/// >>> losses = []
/// >>> run = structtoken.train("recipe.toml", "run", set=["train.iterations=2"], on_step=lambda step: losses.append(step["loss"]))
/// >>> run["iteration"], len(losses)
/// (2, 2)
#[pyfunction]
#[pyo3(signature = (recipe, out, *, set = vec![], resume = false, on_step = None, on_evaluation = None, threads = None,
                    device = "auto"),
       text_signature = "(recipe, out, *, set=(), resume=False, on_step=None, on_evaluation=None, threads=None, device='auto')")]
#[expect(clippy::too_many_arguments, reason = "keywords of Python")]
pub(crate) fn train<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = given::optional_path)] recipe: Option<PathBuf>,
    #[pyo3(from_py_with = given::path)] out: PathBuf,
    #[pyo3(from_py_with = given::changes)] set: Vec<String>,
    resume: bool,
    on_step: Option<Py<PyAny>>,
    on_evaluation: Option<Py<PyAny>>,
    threads: Option<Whole>,
    device: &str,
) -> PyResult<Bound<'py, PyDict>> {
    if recipe.is_none() && !resume {
        return Err(bad_value(py, "there is no recipe to train", "pass a recipe, or resume=True for the run in `out`"));
    }
    callable(py, "on_step", on_step.as_ref())?;
    callable(py, "on_evaluation", on_evaluation.as_ref())?;
    let pool = own_pool(py, count(py, "threads", threads)?)?;
    let see = |py: Python<'_>, event: Event| match (event, &on_step, &on_evaluation) {
        (Event::Note(line), ..) => log(py, &line),
        (Event::Step(progress), Some(call), _) => call.call1(py, (step(py, &progress)?,)).map(drop),
        (Event::Evaluation(iteration, scores), _, Some(call)) => {
            call.call1(py, (iteration, scores_of(py, &scores)?)).map(drop)
        }
        _ => Ok(()),
    };
    let work = |caller: &crate::attend::Caller| -> Result<(Outcome, Option<Scores>)> {
        let (device, name) = given::open_device(device)?;
        let config = match recipe.as_deref() {
            Some(recipe) => Config::read(recipe, &set)?,
            None => {
                let mut config = run::recipe(&out, &set)?;
                config.data.find_again(&out.join(run::CONFIG), None);
                config
            }
        };
        let _lock = run::prepare(&config, &out, resume)?;
        let mut options = RunOptions::new(&out, &device);
        (options.resume, options.device_name, options.command) = (resume, &name, "structtoken.train");
        let outcome = run::train_with_restarts(&config, &options, Duration::ZERO, &mut &*caller)?;
        let scores = if outcome.interrupted { None } else { Some(run::scores(&out)?) };
        Ok((outcome, scores))
    };
    let (found, failure) = attend(py, &pool, work, see);
    let found = found.unwrap_or_else(|| Err(Error::new("the run ended without a result")));
    if let Some(failure) = failure {
        // What went wrong while it was saved is the worse news.
        return Err(found.or_raise(py).err().unwrap_or(failure));
    }
    let (outcome, scores) = found.or_raise(py)?;
    let answer = PyDict::new(py);
    answer.set_item("model", out.join(run::MODEL))?;
    answer.set_item("iteration", outcome.iteration)?;
    answer.set_item("best", outcome.best)?;
    answer.set_item("took_s", outcome.took.as_secs_f64())?;
    answer.set_item("scores", scores.map(|scores| scores_of(py, &scores)).transpose()?)?;
    Ok(answer)
}

/// Scores a model on a dataset.
///
/// Parameters
/// ----------
/// model : path
///     A model file.
/// data : str or path, optional
///     A folder of images and masks, as ``structtoken eval --data`` takes it, a dataset's TOML, or a built-in name. Classes are
///     matched by name. The model's own data without it.
/// split : str, optional
///     "train", "val", "test" or "all". Without it "val", and of ``data`` without a validation split "all".
/// set : list of str
///     Changes of the model's settings, such as "eval.flip=true" or "data.root=DIR".
/// calibration : bool
///     Also whether probabilities can be believed.
/// label_issues : int
///     How many regions to list whose truth may be wrong.
/// on_image : callable, optional
///     Called after every image with how many are done, and of how many. What it raises ends the evaluation.
/// threads : int, optional
///     CPU threads; one per core without it.
/// device : str
///     "auto", "cpu", "cuda:0" and so on.
///
/// Returns
/// -------
/// dict
///     What ``structtoken eval --json`` prints: ``miou``, ``macc``, ``aacc``, ``mdice`` in 0..=1, ``miou_interval``, ``classes``,
///     ``matrix``, ``boundary``, ``distance``, ``confused``, ``worst``, and what was asked for.
///
/// Raises
/// ------
/// Error
///     A model or data that cannot be read, or that do not fit each other. NotFoundError: they are not there.
/// KeyboardInterrupt
///     Ctrl-C.
///
/// Examples
/// --------
/// >>> import structtoken
/// >>> found = structtoken.evaluate("model.safetensors", set=["data.shapes.val=4"])
/// >>> found["images"], 0 <= found["miou"] <= 1
/// (4, True)
#[pyfunction]
#[pyo3(signature = (model, data = None, *, split = None, set = vec![], calibration = false, label_issues = Whole::of(0),
                    on_image = None, threads = None, device = "auto"),
       text_signature = "(model, data=None, *, split=None, set=(), calibration=False, label_issues=0, on_image=None, threads=None, device='auto')")]
#[expect(clippy::too_many_arguments, reason = "keywords of Python")]
pub(crate) fn evaluate<'py>(
    py: Python<'py>,
    #[pyo3(from_py_with = given::path)] model: PathBuf,
    #[pyo3(from_py_with = given::optional_path)] data: Option<PathBuf>,
    split: Option<&str>,
    #[pyo3(from_py_with = given::changes)] set: Vec<String>,
    calibration: bool,
    label_issues: Whole,
    on_image: Option<Py<PyAny>>,
    threads: Option<Whole>,
    device: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let split = split.map(|split| chosen_split(py, split)).transpose()?;
    callable(py, "on_image", on_image.as_ref())?;
    let pool = own_pool(py, count(py, "threads", threads)?)?;
    let label_issues = label_issues.size(py, "label_issues", 0, usize::MAX)?;
    let see = |py: Python<'_>, event: Event| match (event, &on_image) {
        (Event::Done(done, all), Some(call)) => call.call1(py, (done, all)).map(drop),
        (Event::Note(line), _) => log(py, &line),
        _ => Ok(()),
    };
    let ask = EvalOptions { confidence: calibration, label_issues };
    let work = |caller: &crate::attend::Caller| -> Result<Option<String>> {
        let (device, _) = given::open_device(device)?;
        let (network, card) = model_file::open(&model, &device)?;
        let network = network.for_inference();
        let mut config = card.with_changes(&set, &model)?;
        if data.is_none()
            && let Some(note) = config.data.find_again(&model, Some(&card.label_map))
        {
            caller.tell(Event::Note(format!("note: {note}")));
        }
        let has_root = set.iter().any(|change| change.starts_with("data.root"));
        let asked = Asked { data: data.as_deref(), split, has_root };
        let say = |line: &str| _ = caller.tell(Event::Note(line.to_owned()));
        let listener = Listener { progress: &|_, _| {}, say: &say };
        // A folder is described for as long as it is read.
        let Measured { dataset, opened: _opened, .. } =
            Measured::open(asked, &mut config.data, &card.classes, &model, listener)?;
        let (preprocess, settings) = (&config.data.preprocess, &config.eval);
        let inference = Inference { network: &network, preprocess, config: settings, device: &device };
        let indices: Vec<usize> = (0..dataset.len()).collect();
        let counted = eval::accumulate(&inference, dataset.as_ref(), &indices, ask, &mut |done, all| match caller
            .tell(Event::Done(done, all))
        {
            true => std::ops::ControlFlow::Break(()),
            false => std::ops::ControlFlow::Continue(()),
        })?;
        let Some(counted) = counted else { return Ok(None) };
        let found = counted.evaluation(&dataset.classes().names);
        let json = serde_json::to_string(&found);
        json.map(Some).map_err(|error| Error::new("cannot write scores").with_source(error))
    };
    let (found, failure) = attend(py, &pool, work, see);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let found = found.unwrap_or(Ok(None)).or_raise(py)?;
    of_json(py, found.as_deref().unwrap_or("null"))
}

/// The split of this name, or all.
fn chosen_split(py: Python<'_>, name: &str) -> PyResult<SplitChoice> {
    match (named_split(name), name) {
        (Some(split), _) => Ok(SplitChoice::One(split)),
        (None, ALL) => Ok(SplitChoice::All),
        _ => {
            let hint = "pass \"train\", \"val\", \"test\" or \"all\"";
            Err(bad_value(py, &format!("there is no split `{name}`"), hint))
        }
    }
}

/// The split of this name, if there is one.
pub(crate) fn named_split(name: &str) -> Option<Split> {
    match name {
        "train" => Some(Split::Train),
        "val" => Some(Split::Val),
        "test" => Some(Split::Test),
        _ => None,
    }
}

/// Raises what is wrong with a comparison before its processes start: their errors are lines of text.
#[pyfunction]
pub(crate) fn check_comparison(
    py: Python<'_>,
    #[pyo3(from_py_with = given::optional_path)] recipe: Option<PathBuf>,
    #[pyo3(from_py_with = given::path)] out: PathBuf,
    #[pyo3(from_py_with = given::changes)] set: Vec<String>,
    device: &str,
) -> PyResult<()> {
    py.detach(|| -> Result<()> {
        if device != "auto" {
            given::open_device(device)?;
        }
        if let Some(recipe) = &recipe {
            return Config::read(recipe, &set)?.data.classes().map(drop);
        }
        ComparePlan::read(&out)?.map(drop).ok_or_else(|| {
            Error::new(format!("`{}` holds no comparison", out.display()))
                .with_missing(&out)
                .with_hint("pass a recipe to start one, or the right folder as `out`")
        })
    })
    .or_raise(py)
}

fn step<'py>(py: Python<'py>, progress: &Progress) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("iteration", progress.iteration)?;
    found.set_item("iterations", progress.iterations)?;
    found.set_item("loss", progress.loss)?;
    found.set_item("parts", progress.parts.clone())?;
    found.set_item("lr", progress.lr)?;
    found.set_item("images_per_s", progress.images_per_s)?;
    found.set_item("wait_share", progress.wait_share)?;
    found.set_item("eta_s", progress.eta.as_secs_f64())?;
    Ok(found)
}

fn scores_of<'py>(py: Python<'py>, scores: &Scores) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(scores).map_err(|error| Error::new("cannot write scores").with_source(error));
    of_json(py, &text.or_raise(py)?)
}

/// That `found` can be called, before it is first needed in the midst of work.
fn callable(py: Python<'_>, name: &str, found: Option<&Py<PyAny>>) -> PyResult<()> {
    match found.map(|found| found.bind(py)) {
        Some(found) if !found.is_callable() => {
            let message = format!("{name} of type {}", found.get_type().name()?);
            Err(bad_type(py, &message, "pass a function, or leave it out"))
        }
        _ => Ok(()),
    }
}

/// A line that is reported, to Python's log.
pub(crate) fn log(py: Python<'_>, line: &str) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", ("structtoken",))?;
    let level = if line.starts_with("warning:") { "warning" } else { "info" };
    logger.call_method1(level, ("%s", line)).map(drop)
}
