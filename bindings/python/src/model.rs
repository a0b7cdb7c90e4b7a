//! A model that labels images.

use std::path::PathBuf;
use std::sync::Arc;

use numpy::PyArray3;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyIterator, PyList, PyMemoryView, PyTuple};
use structtoken::image::{Image, Labels};
use structtoken::predict::Predictor;
use structtoken::{Error, bundled, model_file};

use crate::arrays::{self, array3, label_array};
use crate::attend::attend;
use crate::errors::{OrRaise, about, bad_type, bad_value};
use crate::given;
use crate::numbers::Whole;
use crate::threads::{compute, count, pool};

/// A trained model, with all it needs to label images. Made by `Model.open`; can be pickled, and is then opened again from
/// where its file was, or by its name.
///
/// Predictions run without the interpreter's lock, one at a time or several by several threads.
///
/// Examples
/// --------
/// >>> import structtoken
/// >>> model = structtoken.Model.open("model.safetensors")
/// >>> model
/// Model('model.safetensors', classes=6)
#[pyclass(module = "structtoken", frozen)]
pub(crate) struct Model {
    predictor: Arc<Predictor>,
    /// 0 is one per core.
    threads: usize,
    /// As it was given.
    path: PathBuf,
    /// The same from whatever folder: an absolute path, or the name of a model that comes with the package.
    place: PathBuf,
    device: String,
    changes: Vec<String>,
}

/// Longer texts are no paths on any system.
const LONGEST_PATH: usize = 1 << 15;

/// Where an image comes from.
enum Source {
    Pixels(Image),
    File(PathBuf),
    /// The content of a file.
    Bytes(Vec<u8>),
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (path, threads = None, device = "auto", set = vec![]),
           text_signature = "(path, threads=None, device='auto', set=())")]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = given::path)] path: PathBuf,
        threads: Option<Whole>,
        device: &str,
        #[pyo3(from_py_with = given::changes)] set: Vec<String>,
    ) -> PyResult<Self> {
        Self::open(py, path, threads, device, set)
    }

    /// Opens a model file; `Model(path)` does the same.
    ///
    /// Parameters
    /// ----------
    /// path : str or path
    ///     A ``model.safetensors`` that training wrote, or the name of a model of the package, such as "@nuclei".
    /// threads : int, optional
    ///     CPU threads that its predictions share; one per core without it. Models of the same number share them.
    /// device : str
    ///     "auto", "cpu", "cuda:0" and so on.
    /// set : list of str
    ///     Changes of its settings, such as "eval.mode=slide" for images that are too large as a whole.
    ///
    /// Raises
    /// ------
    /// NotFoundError
    ///     There is no such file.
    /// Error
    ///     It is not a model file, is damaged, or needs a device that is not there.
    ///
    /// Examples
    /// --------
    /// >>> import structtoken
    /// >>> structtoken.Model.open("model.safetensors", threads=1).classes[0]
    /// 'background'
    #[staticmethod]
    #[pyo3(signature = (path, threads = None, device = "auto", set = vec![]),
           text_signature = "(path, threads=None, device='auto', set=())")]
    fn open(
        py: Python<'_>,
        #[pyo3(from_py_with = given::path)] path: PathBuf,
        threads: Option<Whole>,
        device: &str,
        #[pyo3(from_py_with = given::changes)] set: Vec<String>,
    ) -> PyResult<Self> {
        let threads = count(py, "threads", threads)?;
        let opened = compute(py, threads, || {
            let (device, _) = given::open_device(device)?;
            let (model, card) = model_file::open(&path, &device)?;
            let config = card.to_use(&set, &path)?;
            Predictor::new(model, config.data.preprocess, config.eval, device, card.classes)
        })?;
        let place = match bundled::is_name(&path) {
            true => path.clone(),
            false => std::path::absolute(&path).unwrap_or_else(|_| path.clone()),
        };
        Ok(Self { predictor: Arc::new(opened), threads, path, place, device: device.to_owned(), changes: set })
    }

    /// The class of every pixel.
    ///
    /// Parameters
    /// ----------
    /// image : array [height, width, 3] of uint8, path, bytes of a file, PIL image, or a list of these
    ///     RGB. A file is read as ``structtoken predict`` reads it; PIL images are turned as their EXIF says.
    ///
    /// Returns
    /// -------
    /// array [height, width] of uint8, or a list of them
    ///     Class indices in the size of the image.
    ///
    /// Raises
    /// ------
    /// InputTypeError, InputError
    ///     Another dtype or shape; the hint says how to convert it.
    /// Error
    ///     A file that cannot be read. OutOfMemoryError: the image is too large for the memory that is left.
    /// KeyboardInterrupt
    ///     Ctrl-C, between the images of a list.
    ///
    /// Examples
    /// --------
    /// >>> import numpy, structtoken
    /// >>> model = structtoken.Model.open("model.safetensors")
    /// >>> model.predict(numpy.zeros([48, 64, 3], "uint8")).shape
    /// (48, 64)
    /// >>> [labels.shape for labels in model.predict(["photo.png", "photo.png"])]
    /// [(48, 48), (48, 48)]
    fn predict<'py>(&self, py: Python<'py>, image: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Some(several) = several(image)? else {
            let labels = self.labels(py, source(image, Place::Alone)?)?;
            return Ok(label_array(py, labels)?.into_any());
        };
        let of_list = |(at, image): (usize, &Bound<'py, PyAny>)| {
            source(image, Place::InList).map_err(|error| about(py, &element(at), error))
        };
        let sources = several.iter().enumerate().map(of_list).collect::<PyResult<Vec<_>>>()?;
        let predictor = &*self.predictor;
        let (found, failure) = attend(
            py,
            &*pool(py, self.threads)?,
            // It reports nothing, so that no thread of the shared pool waits for Python.
            |caller| -> structtoken::Result<Vec<Labels>> {
                let mut maps = Vec::with_capacity(sources.len());
                for (at, source) in sources.into_iter().enumerate() {
                    if caller.is_told_to_stop() {
                        break;
                    }
                    let labels = source.image(predictor).and_then(|image| predictor.predict(&image));
                    maps.push(labels.map_err(|error| Error::new(element(at)).with_source(error))?);
                }
                Ok(maps)
            },
            |_, _| Ok(()),
        );
        if let Some(failure) = failure {
            return Err(failure);
        }
        let maps = found.unwrap_or_else(|| Ok(Vec::new())).or_raise(py)?;
        let maps = maps.into_iter().map(|labels| label_array(py, labels)).collect::<PyResult<Vec<_>>>()?;
        Ok(PyList::new(py, maps)?.into_any())
    }

    /// The probability of every class at every pixel.
    ///
    /// Parameters
    /// ----------
    /// image : array [height, width, 3] of uint8, path, bytes of a file, or PIL image
    ///
    /// Returns
    /// -------
    /// array [classes, height, width] of float32
    ///     They add up to 1 at each pixel.
    ///
    /// Raises
    /// ------
    /// As `predict`; Error where they would take more than 16 GB.
    ///
    /// Examples
    /// --------
    /// >>> import structtoken
    /// >>> model = structtoken.Model.open("model.safetensors")
    /// >>> model.probabilities("photo.png").shape
    /// (6, 48, 48)
    fn probabilities<'py>(&self, py: Python<'py>, image: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let (source, predictor) = (source(image, Place::Only("probabilities"))?, &*self.predictor);
        let (shape, values) = compute(py, self.threads, || {
            let image = source.image(predictor)?;
            let values = predictor.probabilities(&image)?;
            Ok(([predictor.classes().len(), image.height, image.width], values))
        })?;
        array3(py, shape, values)
    }

    /// The structure tokens of an image after a block, on the feature grid of the image as a whole.
    ///
    /// Parameters
    /// ----------
    /// image : array [height, width, 3] of uint8, path, bytes of a file, or PIL image
    /// block : int
    ///     How many blocks they have passed: 0 are the learned tokens, with their prior where the model has one, 1 those after the
    ///     first block, -1 those after the last.
    ///
    /// Returns
    /// -------
    /// array [classes, rows, columns] of float32
    ///     One map per class.
    ///
    /// Raises
    /// ------
    /// InputError
    ///     There are fewer blocks.
    /// Error
    ///     The model's decoder has no structure tokens.
    ///
    /// Examples
    /// --------
    /// >>> import structtoken
    /// >>> model = structtoken.Model.open("model.safetensors")
    /// >>> model.tokens("photo.png", block=1).shape
    /// (6, 24, 24)
    #[pyo3(signature = (image, block = Whole::of(-1)), text_signature = "($self, image, block=-1)")]
    fn tokens<'py>(
        &self,
        py: Python<'py>,
        image: &Bound<'py, PyAny>,
        block: Whole,
    ) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let (source, predictor) = (source(image, Place::Only("tokens"))?, &*self.predictor);
        let mut found = compute(py, self.threads, || predictor.tokens(&source.image(predictor)?))?;
        let all = found.len();
        let Some(at) = block.place(all) else {
            return Err(bad_value(
                py,
                &format!("there are no tokens after block {block}"),
                &format!("pass 0 for the learned tokens to {}, or -1 for the last", all - 1),
            ));
        };
        let tokens = found.swap_remove(at);
        array3(py, [tokens.classes, tokens.height, tokens.width], tokens.values)
    }

    /// The names of the classes, by index.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.predictor.classes().names.clone()
    }

    /// The colours of the classes, (red, green, blue) by index.
    #[getter]
    fn palette(&self) -> Vec<(u8, u8, u8)> {
        self.predictor.classes().colors.iter().map(|[red, green, blue]| (*red, *green, *blue)).collect()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, model) = (slf.py(), slf.get());
        let threads = (model.threads > 0).then_some(model.threads);
        let arguments =
            (model.place.as_os_str(), threads, model.device.as_str(), model.changes.clone()).into_pyobject(py)?;
        Ok((slf.get_type().into_any(), arguments))
    }

    fn __repr__(&self) -> String {
        format!("Model('{}', classes={})", self.path.display(), self.predictor.classes().len())
    }
}

impl Model {
    fn labels(&self, py: Python<'_>, source: Source) -> PyResult<Labels> {
        let predictor = &*self.predictor;
        compute(py, self.threads, || predictor.predict(&source.image(predictor)?))
    }
}

impl Source {
    fn image(self, predictor: &Predictor) -> structtoken::Result<Image> {
        match self {
            Self::Pixels(image) => Ok(image),
            Self::File(path) => predictor.read(path),
            Self::Bytes(bytes) => predictor.decode(&bytes),
        }
    }
}

/// Where an image is given.
#[derive(Clone, Copy)]
enum Place {
    /// By itself, to what also takes a list.
    Alone,
    /// In a list.
    InList,
    /// To a method that takes one image alone.
    Only(&'static str),
}

/// An element of a list, as errors call it.
fn element(at: usize) -> String {
    format!("image [{at}] of the list")
}

/// The images of a list or tuple; none of anything else.
fn several<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        return object.try_iter()?.collect::<PyResult<Vec<_>>>().map(Some);
    }
    Ok(None)
}

fn source(object: &Bound<'_, PyAny>, place: Place) -> PyResult<Source> {
    let py = object.py();
    if given::is_path(object)? {
        return given::path(object).map(Source::File);
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        let bytes = bytes.as_bytes();
        // No file of a picture is plain text.
        if !bytes.is_empty() && !bytes.iter().any(u8::is_ascii_control) && bytes.len() < LONGEST_PATH {
            let shown = object.repr()?;
            let hint = format!("a path is a str or an os.PathLike: os.fsdecode({shown})");
            return Err(bad_type(py, &format!("the bytes {shown}, which are no image file"), &hint));
        }
        return Ok(Source::Bytes(bytes.to_vec()));
    }
    if several(object)?.is_some() {
        let (message, hint) = match place {
            Place::Only(method) => (
                format!("{method} of a list of images"),
                format!("it takes one: [model.{method}(image) for image in images]"),
            ),
            _ => ("a list among images".to_owned(), "pass one list of images, each an array or a path".to_owned()),
        };
        return Err(bad_type(py, &message, &hint));
    }
    if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() || object.hasattr("read")? {
        let hint = "pass the bytes of the file: bytes(...), or what .read() gives";
        let name = object.get_type().name()?;
        return Err(bad_type(py, &format!("an image of type {name}"), hint));
    }
    if object.is_instance_of::<PyIterator>() {
        return Err(bad_type(py, "an image that is an iterator", "pass a list of images: list(...)"));
    }
    match arrays::of_pillow(object)? {
        Some(pixels) => arrays::image(&pixels).map(Source::Pixels),
        None => arrays::image(object).map(Source::Pixels),
    }
}
