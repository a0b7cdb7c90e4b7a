//! Training data as the trainer sees them: augmented batches, the same for the same seed.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray2, PyArray3, ndarray};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use structtoken::config::Config;
use structtoken::dataset::{Cached, Dataset as Samples};
use structtoken::loader::{Batch, Loader};
use structtoken::text::utf8;
use structtoken::tools::named::{Listener, OpenedDataset, is_built_in};

use crate::arrays::{array2, array3, label_array, room};
use crate::errors::{OrRaise, bad_type, bad_value};
use crate::given;
use crate::numbers::Whole;
use crate::run::{log, named_split};
use crate::threads::{compute, count};

/// Samples of a batch, at most.
const MAX_BATCH: usize = 1 << 16;

type ImageAndLabels<'py> = (Bound<'py, PyArray3<u8>>, Bound<'py, PyArray2<u8>>);

/// A dataset, whose iteration gives augmented training batches without end.
///
/// A batch is a function of the seed and its number alone: threads change nothing, and ``batches(start)`` continues where another
/// process stopped. So a network of PyTorch can be trained on exactly the data of a recipe. It can be pickled, and is then opened
/// again from where its files were.
///
/// Parameters
/// ----------
/// dataset : str or path, optional
///     A dataset's TOML, a folder of images and masks, or a built-in name such as "shapes" or "ade20k". Without it, that of the
///     recipe.
/// recipe : path, optional
///     A recipe; its augmentation, batch size and seed are used. The defaults are the paper's for ADE20K.
/// split : str
///     "train", "val" or "test".
/// batch_size, seed, workers : int, optional
///     In place of the recipe's. Batches are of at most 65536 samples.
/// root : path, optional
///     The folder of the files, in place of the dataset's.
/// set : list of str
///     Changes of the recipe, such as "data.augment.crop=[64,64]".
///
/// Raises
/// ------
/// Error
///     A dataset or a recipe that cannot be read. NotFoundError: it is not there.
/// InputError
///     A split or a number that cannot be used.
///
/// Examples
/// --------
/// >>> import structtoken
/// >>> data = structtoken.Dataset("shapes", batch_size=4, set=["data.augment.crop=[32,48]"])
/// >>> batch = next(iter(data))
/// >>> batch["images"].shape, batch["labels"].shape
/// ((4, 32, 48, 3), (4, 32, 48))
#[pyclass(module = "structtoken", frozen)]
pub(crate) struct Dataset {
    samples: Arc<dyn Samples>,
    config: Config,
    /// As it was given, or as the recipe has it.
    name: String,
    batch_size: usize,
    seed: u64,
    workers: usize,
    /// A folder is described for as long as it is read.
    _opened: Option<OpenedDataset>,
    again: Again,
}

/// What opens a dataset again, from whatever folder.
struct Again {
    dataset: PathBuf,
    recipe: Option<PathBuf>,
    split: String,
    root: Option<PathBuf>,
    set: Vec<String>,
}

#[pymethods]
impl Dataset {
    #[new]
    #[pyo3(signature = (dataset = None, *, recipe = None, split = "train", batch_size = None, seed = None, workers = None,
                        root = None, set = vec![]),
           text_signature = "(dataset=None, *, recipe=None, split='train', batch_size=None, seed=None, workers=None, root=None, set=())")]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = given::optional_path)] dataset: Option<PathBuf>,
        #[pyo3(from_py_with = given::optional_path)] recipe: Option<PathBuf>,
        split: &str,
        batch_size: Option<Whole>,
        seed: Option<Whole>,
        workers: Option<Whole>,
        #[pyo3(from_py_with = given::optional_path)] root: Option<PathBuf>,
        #[pyo3(from_py_with = given::changes)] set: Vec<String>,
    ) -> PyResult<Self> {
        let Some(of) = named_split(split) else {
            let hint = "pass \"train\", \"val\" or \"test\"";
            return Err(bad_value(py, &format!("there is no split `{split}`"), hint));
        };
        if dataset.is_none() && recipe.is_none() {
            return Err(bad_value(
                py,
                "neither a dataset nor a recipe",
                "pass a dataset's TOML or a folder, or recipe=PATH",
            ));
        }
        let batch_size = batch_size.map(|size| size.size(py, "batch_size", 1, MAX_BATCH)).transpose()?;
        let seed = seed.map(|seed| seed.within(py, "seed", 0, u64::MAX)).transpose()?;
        let workers = count(py, "workers", workers)?;
        let split = split.to_owned();
        let mut notes = Vec::new();
        let opened = py.detach(|| -> structtoken::Result<Self> {
            let mut config = read(recipe.as_deref(), &set)?;
            let opened = dataset.as_deref().map(|dataset| folder(dataset, &mut notes)).transpose()?.flatten();
            if let Some(dataset) = &dataset {
                config.data.dataset = match &opened {
                    Some(opened) => opened.name.clone(),
                    None => dataset.to_string_lossy().into_owned(),
                };
                if !set.iter().any(|change| change.starts_with("data.root")) {
                    config.data.root = None;
                }
            }
            config.data.root = root.or(config.data.root).as_deref().map(absolute);
            config.check()?;
            let name = config.data.dataset.clone();
            if !is_built_in(&name) && Path::new(&name).exists() {
                // Files are read when they are wanted, which may be in another working folder.
                config.data.dataset = utf8(&absolute(Path::new(&name)))?.to_owned();
            }
            let samples = Cached::new(config.data.open(of)?, config.data.cache_mb << 20);
            let again = Again {
                dataset: match (dataset, &opened) {
                    (Some(folder), Some(_)) => absolute(&folder),
                    _ => PathBuf::from(&config.data.dataset),
                },
                // One that is not there comes with the program.
                recipe: recipe.map(|recipe| if recipe.exists() { absolute(&recipe) } else { recipe }),
                root: config.data.root.clone(),
                split,
                set,
            };
            Ok(Self {
                samples: Arc::new(samples),
                batch_size: batch_size.unwrap_or(config.train.batch_size),
                seed: seed.unwrap_or(config.train.seed),
                workers: if workers > 0 { workers } else { config.data.workers },
                config,
                name,
                _opened: opened,
                again,
            })
        });
        notes.iter().try_for_each(|note| log(py, note))?;
        opened.or_raise(py)
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let Again { dataset, recipe, split, root, set } = &self.again;
        let keywords = PyDict::new(py);
        keywords.set_item("recipe", recipe.as_deref().map(Path::as_os_str))?;
        keywords.set_item("split", split)?;
        keywords.set_item("batch_size", self.batch_size)?;
        keywords.set_item("seed", self.seed)?;
        keywords.set_item("workers", self.workers)?;
        keywords.set_item("root", root.as_deref().map(Path::as_os_str))?;
        keywords.set_item("set", set)?;
        Ok(((dataset.as_os_str(),).into_pyobject(py)?, keywords))
    }

    /// The batches from the number `start` on, without end.
    ///
    /// Returns
    /// -------
    /// Batches
    ///     An iterator of dicts: ``images`` uint8 [batch, height, width, 3], RGB; ``labels`` uint8 [batch, height, width], 255 counts
    ///     nowhere; ``names``: a list of str; ``content``: per sample the height and width that the image fills, the rest is
    ///     padding.
    ///
    /// Raises
    /// ------
    /// Error
    ///     There are no samples, or threads cannot be started. A sample that cannot be read raises when its batch is asked for;
    ///     the next call gives the batch after it.
    ///
    /// Examples
    /// --------
    /// >>> import structtoken
    /// >>> data = structtoken.Dataset("shapes", batch_size=2, set=["data.augment.crop=[32,32]"])
    /// >>> third = next(data.batches(start=2))
    /// >>> len(third["names"])
    /// 2
    #[pyo3(signature = (start = Whole::of(0)), text_signature = "($self, start=0)")]
    fn batches(&self, py: Python<'_>, start: Whole) -> PyResult<Batches> {
        let [height, width] = self.config.data.augment.crop;
        let bytes =
            [self.batch_size, height, width].iter().fold(4, |bytes: u64, side| bytes.saturating_mul(*side as u64));
        let what = format!("a batch of {} samples of {height} x {width} pixels", self.batch_size);
        room(py, bytes, &what, "lower batch_size, or data.augment.crop")?;
        // The number of every sample before it has to be a number too.
        let start = start.within(py, "start", 0, u64::MAX / (2 * MAX_BATCH as u64))?;
        // Masks may be looked at first, by all threads that it has.
        let loader = compute(py, self.workers.min(1024), || {
            Loader::new(
                Arc::clone(&self.samples),
                self.config.data.augment.clone(),
                self.batch_size,
                self.seed,
                start,
                self.workers,
            )
        })?;
        Ok(Batches { loader: Mutex::new(Some(loader)), process: std::process::id() })
    }

    fn __iter__(&self, py: Python<'_>) -> PyResult<Batches> {
        self.batches(py, Whole::of(0))
    }

    fn __len__(&self) -> usize {
        self.samples.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: Whole) -> PyResult<ImageAndLabels<'py>> {
        let all = self.samples.len();
        let Some(at) = index.place(all) else {
            // What ends a `for` over the samples.
            return Err(pyo3::exceptions::PyIndexError::new_err(format!("sample {index} of {all}")));
        };
        let sample = py.detach(|| self.samples.get(at)).or_raise(py)?;
        let image = sample.image;
        let pixels = ndarray::Array3::from_shape_vec((image.height, image.width, 3), image.pixels);
        let pixels =
            pixels.map_err(|error| bad_value(py, &error.to_string(), "report this as a fault of the program"))?;
        Ok((pixels.into_pyarray(py), label_array(py, sample.labels)?))
    }

    /// What a sample is called: for files, the path below the image folder without its ending.
    fn name(&self, py: Python<'_>, index: Whole) -> PyResult<String> {
        let last = self.samples.len().saturating_sub(1);
        match index.place(self.samples.len()) {
            Some(at) => Ok(self.samples.name(at)),
            None => Err(bad_value(py, &format!("there is no sample {index}"), &format!("pass 0 to {last}"))),
        }
    }

    /// The names of the classes, by index.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.samples.classes().names.clone()
    }

    /// The colours of the classes, (red, green, blue) by index.
    #[getter]
    fn palette(&self) -> Vec<(u8, u8, u8)> {
        self.samples.classes().colors.iter().map(|[red, green, blue]| (*red, *green, *blue)).collect()
    }

    /// What is subtracted from red, green and blue, and what divides them, before a network: values of 0..=255.
    #[getter]
    fn normalization(&self) -> ([f32; 3], [f32; 3]) {
        (self.config.data.preprocess.mean, self.config.data.preprocess.std)
    }

    fn __repr__(&self) -> String {
        format!("Dataset('{}', samples={}, classes={})", self.name, self.samples.len(), self.samples.classes().len())
    }
}

/// Batches in order; see `Dataset.batches`. Its threads end with it.
#[pyclass(module = "structtoken", frozen)]
pub(crate) struct Batches {
    loader: Mutex<Option<Loader>>,
    /// Whose threads the loader has: a process that was forked from it has none of them.
    process: u32,
}

impl Drop for Batches {
    fn drop(&mut self) {
        let loader = self.loader.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.process != std::process::id() {
            // Nobody here can be waited for.
            std::mem::forget(loader);
        }
    }
}

#[pymethods]
impl Batches {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __reduce__(&self, py: Python<'_>) -> PyResult<()> {
        let hint = "pickle the Dataset, and take its batches(start) where they are used";
        Err(bad_type(py, "batches that would be pickled: threads of this process load them", hint))
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        if self.process != std::process::id() {
            let hint = "make the Dataset's iterator in the process that takes the batches";
            return Err(bad_value(py, "these batches are loaded by threads of another process", hint));
        }
        let batch = py.detach(|| {
            let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
            loader.as_mut().map(Loader::next)
        });
        let Some(batch) = batch.transpose().or_raise(py)? else {
            return Err(pyo3::exceptions::PyStopIteration::new_err(()));
        };
        let Batch { images, labels, names, content, height, width, size } = batch;
        let images = ndarray::Array4::from_shape_vec((size, height, width, 3), images);
        let images =
            images.map_err(|error| bad_value(py, &error.to_string(), "report this as a fault of the program"))?;
        let found = PyDict::new(py);
        found.set_item("images", images.into_pyarray(py))?;
        found.set_item("labels", array3(py, [size, height, width], labels)?)?;
        found.set_item("names", names)?;
        let sides = content.iter().flatten().map(|side| *side as i64).collect();
        found.set_item("content", array2(py, [size, 2], sides)?)?;
        Ok(found)
    }
}

/// A folder as a dataset, with what there is to say about it; none where the path is not that of a folder.
fn folder(path: &Path, notes: &mut Vec<String>) -> structtoken::Result<Option<OpenedDataset>> {
    if is_built_in(&path.to_string_lossy()) || !path.is_dir() {
        return Ok(None);
    }
    let heard = RefCell::new(notes);
    let say = |line: &str| heard.borrow_mut().push(line.to_owned());
    OpenedDataset::open(path, true, Listener { progress: &|_, _| {}, say: &say }).map(Some)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn read(recipe: Option<&Path>, changes: &[String]) -> structtoken::Result<Config> {
    match recipe {
        Some(recipe) => Config::read(recipe, changes),
        None => Config::parse("", "the defaults", changes),
    }
}
