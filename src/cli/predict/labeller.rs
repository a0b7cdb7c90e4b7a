//! An image labelled, and what is asked of it written.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;

use crate::cli::console::{emit, print};
use crate::cli::outputs::{Described, Output, Outputs, others, write_json};
use crate::cli::predict::arguments::Arguments;
use crate::cli::predict::spent::Spent;
use crate::config::Config;
use crate::dataset::Classes;
use crate::error::{Error, Result};
use crate::image::outlines::{self, OutlineOptions};
use crate::image::{Image, ImageRemarks, Labels, decode_image_noting, encode_index_png, encode_png, read_image_noting};
use crate::infer::InferMode;
use crate::model::{Model, ModelConfig};
use crate::predict::earlier_predictions::{sign, write_recorded};
use crate::predict::{Predictor, encode_npy, write_probabilities};
use crate::{files, overlay};

/// A model with what is asked of it, and what was seen of its images.
pub(crate) struct Labeller<'a> {
    predictor: Predictor,
    range: Option<[u16; 2]>,
    arguments: &'a Arguments,
    options: OutlineOptions,
    whole: Option<Whole>,
    seen: RemarkCounts,
    spent: Arc<Spent>,
}

/// What writes of an image what is asked, on any thread.
#[derive(Clone)]
pub(crate) struct Writer<'a> {
    arguments: &'a Arguments,
    options: OutlineOptions,
    classes: Classes,
}

/// What an image is called.
#[derive(Clone)]
pub(crate) struct Names {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Where its outputs lie below the folder, without their endings.
    pub(crate) output: PathBuf,
    /// In files that are written of it.
    pub(crate) image: String,
}

/// An image with its labels.
pub(crate) struct Labelled {
    names: Names,
    image: Image,
    labels: Labels,
    /// Where they are asked for.
    probabilities: Vec<f32>,
}

/// A picture, with what there is to say about its file.
pub(crate) type Found = (Image, ImageRemarks);

impl<'a> Labeller<'a> {
    /// A network with the recipe that it labels by.
    pub(crate) fn new(
        model: Model,
        config: Config,
        classes: Classes,
        device: Device,
        arguments: &'a Arguments,
        options: OutlineOptions,
    ) -> Result<Self> {
        let whole =
            (config.eval.mode == InferMode::Whole).then(|| Whole { model: config.model.clone(), warned: false });
        let range = config.data.preprocess.range;
        let predictor = Predictor::new(model, config.data.preprocess, config.eval, device, classes)?;
        let (seen, spent) = Default::default();
        Ok(Self { predictor, range, arguments, options, whole, seen, spent })
    }

    /// What reads pictures as the model wants them, on any thread.
    pub(crate) fn reader(&self) -> impl Fn(&Path) -> Result<Found> + Send + use<> {
        let (range, spent) = (self.range, Arc::clone(&self.spent));
        move |path| spent.add(0, || read_image_noting(path, range))
    }

    /// What decodes pictures as the model wants them, on any thread.
    pub(crate) fn decoder(&self) -> impl Fn(&[u8]) -> Result<Found> + Send + use<> {
        let (range, spent) = (self.range, Arc::clone(&self.spent));
        move |bytes| spent.add(0, || decode_image_noting(bytes, range))
    }

    /// How many bytes a picture takes with what becomes of it: labels, and probabilities where they are asked for.
    pub(crate) fn bytes(&self) -> impl Fn(&Image) -> usize + Send + use<> {
        let values = if self.arguments.probabilities { self.classes().len() * size_of::<f32>() } else { 0 };
        move |image| image.height * image.width * (3 + 1 + values)
    }

    /// What writes what is asked of an image.
    pub(crate) fn writer(&self) -> Writer<'a> {
        Writer { arguments: self.arguments, options: self.options, classes: self.predictor.classes().clone() }
    }

    /// Labels an image that was read.
    pub(crate) fn label(
        &mut self,
        names: Names,
        (image, remarks): Found,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Labelled> {
        let path = &names.path;
        self.seen.add(path, &remarks);
        if let Some(whole) = &mut self.whole {
            whole.warn(path, (image.height, image.width));
        }
        let (labels, probabilities) = self
            .spent
            .add(1, || match self.arguments.probabilities {
                true => self.predictor.predict_with_probabilities(&image, progress),
                false => Ok((self.predictor.predict_with(&image, progress)?, Vec::new())),
            })
            .map_err(|error| Error::new(format!("cannot predict `{}`", path.display())).with_source(error))?;
        Ok(Labelled { names, image, labels, probabilities })
    }

    /// How long it all took so far.
    pub(crate) fn spent(&self) -> Arc<Spent> {
        Arc::clone(&self.spent)
    }

    /// The classes of the model.
    pub(crate) fn classes(&self) -> &Classes {
        self.predictor.classes()
    }

    /// Says what the pixels of the images do not show of their files.
    pub(crate) fn say_remarks(&self) {
        self.seen.say(self.predictor.has_range());
    }
}

/// A network that sees images as wholes.
struct Whole {
    model: ModelConfig,
    warned: bool,
}

impl Whole {
    /// Says once that an image will take very long: attention looks at all pairs of patches.
    fn warn(&mut self, path: &Path, (height, width): (usize, usize)) {
        const MANY: usize = 1 << 17;
        let features = self.model.backbone.features();
        let patches = height.div_ceil(features.stride()) * width.div_ceil(features.stride());
        if features.transformer.is_some() && patches > MANY && !self.warned {
            self.warned = true;
            talk!(
                "note: `{}` of {width} x {height} is processed as a whole: attention between all pairs of {patches} \
                 patches takes very long; --set eval.mode=slide uses a sliding window",
                path.display()
            );
        }
    }
}

/// What the pixels do not show of the files: how many, and the first of them.
#[derive(Default)]
struct RemarkCounts {
    pages: Option<(usize, PathBuf)>,
    transparent: Option<(usize, PathBuf)>,
    deep: Option<(usize, PathBuf)>,
    /// The highest value of 16 bits.
    high: u16,
}

impl RemarkCounts {
    fn add(&mut self, path: &Path, remarks: &ImageRemarks) {
        for (found, count) in [
            (remarks.more, &mut self.pages),
            (remarks.transparent, &mut self.transparent),
            (remarks.deep.is_some(), &mut self.deep),
        ] {
            if found {
                count.get_or_insert_with(|| (0, path.to_owned())).0 += 1;
            }
        }
        self.high = self.high.max(remarks.deep.map_or(0, |[_, high]| high));
    }

    /// `mapped`: the model says which 16-bit values are black and white.
    fn say(&self, mapped: bool) {
        let who = |(count, first): &(usize, PathBuf)| match count {
            1 => format!("`{}`", first.display()),
            count => format!("{count} images (`{}` first)", first.display()),
        };
        if let Some(pages) = &self.pages {
            talk!("note: several pages or frames in {}: the first is used", who(pages));
        }
        if let Some(transparent) = &self.transparent {
            talk!("note: transparent pixels in {}: the colours below the transparency are used", who(transparent));
        }
        let all = ImageRemarks { deep: Some([0, self.high]), ..ImageRemarks::default() };
        if let (Some(deep), Some([_, most]), false) = (&self.deep, all.narrow_range(), mapped) {
            talk!(
                "note: 16-bit images whose values end at {}: {}. The model has no `range`, so they are read as nearly \
                 black. If it was trained on such images, add --set data.preprocess.range=[0,{most}]",
                self.high,
                who(deep)
            );
        }
    }
}

/// The files that were written of an image.
pub(crate) struct WrittenFiles {
    image: PathBuf,
    /// With what each is called in JSON.
    pub(crate) files: Vec<(&'static str, PathBuf)>,
    /// The shares of the classes, where JSON is printed.
    classes: Option<serde_json::Map<String, serde_json::Value>>,
}

impl WrittenFiles {
    /// Prints where they are: by their paths, or by what `shown` makes of these.
    pub(crate) fn print(self, shown: impl Fn(&Path) -> String) {
        let Some(classes) = self.classes else {
            return self.files.iter().for_each(|(_, path)| print(&shown(path)));
        };
        // A name that is not a text is written with what of it is.
        let mut written = serde_json::json!({"image": self.image.to_string_lossy()});
        for (key, path) in &self.files {
            written[*key] = shown(path).into();
        }
        written["classes"] = classes.into();
        emit(&written);
    }
}

impl Writer<'_> {
    /// Writes what is asked of an image. Returns its labels without regions that are too small.
    pub(crate) fn write(&self, labelled: Labelled) -> Result<(Labels, WrittenFiles)> {
        let Labelled { names: Names { path, output, image: shown }, image, labels, probabilities } = labelled;
        let Self { arguments, options, classes, .. } = self;
        let outputs = Outputs::of(arguments, &output);
        // Again: they may have come, or been edited, since all were looked at.
        if !arguments.overwrite {
            others(outputs.paths())?;
        }
        // Once for all annotations.
        let dropped = match outlines::without_small(&labels, options.min_area) {
            Cow::Borrowed(_) => None,
            Cow::Owned(labels) => Some(labels),
        };
        let annotated = dropped.as_ref().unwrap_or(&labels);
        let (names, shown) = (&classes.names, shown.as_str());
        let options = OutlineOptions { min_area: 0, ..*options };
        for (output, place) in &outputs.0 {
            match output {
                Output::Probabilities => {
                    write_probabilities(place, &probabilities, &[classes.len(), image.height, image.width])?;
                }
                Output::Png => files::write(place, &sign(encode_index_png(&labels, &classes.colors)?))?,
                Output::Overlay => {
                    let blended = overlay::blend(&image, &labels, &classes.colors, overlay::ALPHA);
                    files::write(place, &sign(encode_png(&blended)?))?;
                }
                Output::Npy => write_recorded(place, &encode_npy(&labels))?,
                Output::GeoJson => write_json(place, &outlines::geojson(annotated, names, shown, options))?,
                Output::LabelStudio => {
                    let (link, model) = (outlines::label_studio_link(shown), arguments.model.to_string_lossy());
                    write_json(place, &[outlines::label_studio_task(annotated, names, &link, &model)])?;
                }
                Output::Stats => {
                    let statistics = outlines::statistics(&labels, names);
                    write_json(place, &Described { image: shown, statistics })?;
                }
            }
        }
        let shares = arguments.json.then(|| {
            let found = outlines::statistics(&labels, names).classes;
            found.into_iter().map(|class| (class.name, class.share.into())).collect()
        });
        let files = outputs.0.into_iter().map(|(output, path)| (output.key(), path)).collect();
        Ok((dropped.unwrap_or(labels), WrittenFiles { image: path, files, classes: shares }))
    }
}
