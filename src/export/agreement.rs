//! Whether a file is the same model: both label the same images.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::decoder::SegLogits;
use crate::error::{Error, Result};
use crate::export::ends::{VOTES, scores_name};
use crate::export::engine::{Engine, Input};
use crate::export::options::{ExportOptions, Precision, Profile};
use crate::image::resize::{Window, resize_image, resize_labels};
use crate::image::{Image, Labels};
use crate::infer::{Network, at_image_size};
use crate::kernels::{self, with_precision};
use crate::loader::preprocess::Preprocess;
use crate::metrics::Confusion;
use crate::model::Model;

/// Images that both are shown, all of one size.
pub struct Pictures {
    images: Vec<Image>,
    /// One for each image, or none at all.
    truths: Vec<Labels>,
    generated: bool,
}

impl Pictures {
    /// Images of a validation split with their truth, resized to a height and width.
    #[must_use]
    pub fn real(samples: Vec<(Image, Labels)>, size: [usize; 2]) -> Self {
        let size = (size[1], size[0]);
        let resized = |(image, labels): (Image, Labels)| {
            (resize_image(&image, size, Window::whole(size)), resize_labels(&labels, size, Window::whole(size)))
        };
        let (images, truths) = samples.into_iter().map(resized).unzip();
        Self { images, truths, generated: false }
    }

    /// Images of no dataset of the model's.
    #[must_use]
    pub fn generated(images: Vec<Image>, size: [usize; 2]) -> Self {
        let size = (size[1], size[0]);
        let images = images.iter().map(|image| resize_image(image, size, Window::whole(size))).collect();
        Self { images, truths: Vec::new(), generated: true }
    }

    /// The first of them.
    pub(super) fn first(&self) -> &Image {
        &self.images[0]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Some of them, as a file takes them.
    pub(super) fn batch(&self, at: usize, count: usize, preprocess: &Preprocess, profile: Profile) -> Result<Input> {
        let pixels: Vec<u8> =
            self.images[at..][..count].iter().flat_map(|image| image.pixels.iter().copied()).collect();
        if profile.takes_bytes() {
            return Ok(Input::Bytes(pixels));
        }
        Ok(Input::Floats(read(self.tensor(at, count, preprocess))?))
    }

    /// The first two, normalised, and as a file takes them; one is taken twice.
    pub(super) fn pair(&self, preprocess: &Preprocess, profile: Profile) -> Result<(TensorData, Input)> {
        let both = [0, 1.min(self.len() - 1)].map(|at| self.images[at].clone());
        let two = Self { images: both.to_vec(), truths: Vec::new(), generated: true };
        Ok((two.tensor(0, 2, preprocess).into_data(), two.batch(0, 2, preprocess, profile)?))
    }

    /// Some of them, normalised, `[count, 3, h, w]`.
    pub(super) fn tensor(&self, at: usize, count: usize, preprocess: &Preprocess) -> Tensor<4> {
        let images = &self.images[at..][..count];
        let pixels: Vec<u8> = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
        preprocess.batch_to_tensor(pixels, [count, images[0].height, images[0].width], &Device::flex())
    }
}

/// How far a file agrees with its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Agreement {
    /// Images that both labelled.
    pub images: usize,
    /// Whether these were made, as the dataset was not there.
    pub generated: bool,
    /// The largest difference of a class score, as a share of the largest score.
    pub largest_difference: f64,
    /// The share of pixels that both label alike.
    pub same_labels: f64,
    /// The mean IoU of the model and of the file on these images, where their truth is known.
    pub miou: Option<[f64; 2]>,
}

/// What a file must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The largest difference of a class score, as a share of the largest score.
    pub largest_difference: f64,
    /// The least share of pixels that are labelled alike.
    pub same_labels: f64,
    /// By how much the mean IoU may change, where it is known.
    pub miou: f64,
}

impl Bounds {
    /// Those of a precision.
    #[must_use]
    pub fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self { largest_difference: 1e-3, same_labels: 0.9999, miou: f64::INFINITY },
            Precision::F16 => Self { largest_difference: 5e-2, same_labels: 0.999, miou: f64::INFINITY },
            // Labels and mIoU are what counts here.
            Precision::Int8 | Precision::Int8Dynamic => Self { largest_difference: 0.5, same_labels: 0.98, miou: 0.01 },
        }
    }
}

impl Agreement {
    /// By how much the mean IoU changes, where it is known.
    #[must_use]
    pub fn miou_difference(&self) -> Option<f64> {
        self.miou.map(|[own, file]| (own - file).abs())
    }

    /// Whether it is within bounds. What is no number is not.
    #[must_use]
    pub fn holds(&self, bounds: Bounds) -> bool {
        self.largest_difference <= bounds.largest_difference
            && self.same_labels >= bounds.same_labels
            && self.keeps_miou(bounds)
    }

    /// Whether the mean IoU is within bounds, or not known.
    pub(super) fn keeps_miou(&self, bounds: Bounds) -> bool {
        self.miou_difference().is_none_or(|difference| difference <= bounds.miou)
    }
}

/// Images that enter at once; a file must take several.
pub(super) const BATCH: usize = 2;

/// Labels all pictures with the model and with the file. Also whether the file's labels are those of its own class
/// scores.
///
/// # Errors
/// A file that cannot be run, and a model whose scores are no numbers.
pub(super) fn compare(
    engine: &Engine,
    model: &Model,
    preprocess: &Preprocess,
    options: &ExportOptions,
    pictures: &Pictures,
) -> Result<(Agreement, bool)> {
    let (k, [h, w]) = (model.classes(), options.size);
    let mut largest: f32 = 0.0;
    let (mut difference, mut alike, mut pixels): (f32, usize, usize) = (0.0, 0, 0);
    let mut consistent = true;
    let mut confusions = [Confusion::new(k), Confusion::new(k)];
    for at in (0..pictures.len()).step_by(BATCH) {
        let count = BATCH.min(pictures.len() - at);
        let images = pictures.tensor(at, count, preprocess);
        let seen = with_precision(kernels::Precision::F32, || model.predict_logits(images));
        let own = read(at_image_size(model, seen.clone(), options.size))?; // [count, k, h, w]
        if !own.iter().all(|score| score.is_finite()) {
            return Err(Error::new("the model's logits are infinite or not a number")
                .with_hint("the weights are damaged, or the training diverged: evaluate the model"));
        }
        let input = pictures.batch(at, count, preprocess, options.profile)?;
        let (scores, output) = match options.profile {
            Profile::Web => {
                let scores = read(at_image_size(model, on_the_grid(engine, options, &input, &seen)?, options.size))?;
                (scores.clone(), scores)
            }
            _ => at_size(engine, options, &input)?,
        };
        if scores.len() != own.len()
            || output.len() != if options.profile.output() == "labels" { count * h * w } else { own.len() }
        {
            return Err(other_size());
        }
        largest = own.iter().fold(largest, |largest, score| largest.max(score.abs()));
        difference = own.iter().zip(&scores).fold(difference, |worst, (a, b)| farther(worst, (a - b).abs()));
        for image in 0..count {
            let of = |scores: &[f32]| argmax(&scores[image * k * h * w..][..k * h * w], k);
            let labels = match options.profile.output() {
                "labels" => output[image * h * w..][..h * w].iter().map(|label| *label as u8).collect(),
                _ => of(&output),
            };
            consistent &= labels == of(&scores);
            let both = [of(&own), labels];
            alike += both[0].iter().zip(&both[1]).filter(|(a, b)| a == b).count();
            pixels += h * w;
            if let Some(truth) = pictures.truths.get(at + image) {
                for (confusion, ids) in confusions.iter_mut().zip(both) {
                    confusion.add(truth, &Labels { width: w, height: h, ids })?;
                }
            }
        }
    }
    let names: Vec<String> = (0..k).map(|class| class.to_string()).collect();
    let [own, file] = confusions.map(|confusion| confusion.scores(&names).miou);
    let agreement = Agreement {
        images: pictures.len(),
        generated: pictures.generated,
        largest_difference: f64::from(difference) / f64::from(largest.max(f32::MIN_POSITIVE)),
        same_labels: alike as f64 / pixels.max(1) as f64,
        miou: own.zip(file).map(|(own, file)| [own, file]).filter(|_| !pictures.truths.is_empty()),
    };
    Ok((agreement, consistent))
}

/// What a file for the browser says of the first picture.
///
/// # Errors
/// A file that cannot be run, and scores that cannot be read.
pub(super) fn labels(
    engine: &Engine,
    model: &Model,
    preprocess: &Preprocess,
    options: &ExportOptions,
    pictures: &Pictures,
) -> Result<Labels> {
    let images = pictures.tensor(0, 1, preprocess);
    let seen = with_precision(kernels::Precision::F32, || model.predict_logits(images));
    let said = on_the_grid(engine, options, &pictures.batch(0, 1, preprocess, options.profile)?, &seen)?;
    let scores = read(at_image_size(model, said, options.size))?; // [1, k, h, w]
    let [height, width] = options.size;
    Ok(Labels { width, height, ids: argmax(&scores, model.classes()) })
}

fn other_size() -> Error {
    Error::new("the file gives scores of another size")
}

/// The class scores at image size that a file gives, and its output.
fn at_size(engine: &Engine, options: &ExportOptions, input: &Input) -> Result<(Vec<f32>, Vec<f32>)> {
    let names = [scores_name(options.profile), options.profile.output()];
    let wanted = if names[0] == names[1] { &names[..1] } else { &names[..] };
    let mut given = engine.run(input, options.size, wanted)?.into_iter();
    let Some(scores) = given.next() else { return Err(Error::new("the file gives no scores")) };
    let output = given.next().unwrap_or_else(|| scores.clone());
    Ok((scores, output))
}

/// What a file gives that says the same as the network, on the network's grid.
fn on_the_grid(engine: &Engine, options: &ExportOptions, input: &Input, network: &SegLogits) -> Result<SegLogits> {
    let names = [options.profile.output(), VOTES];
    let wanted = if network.votes.is_some() { &names[..] } else { &names[..1] };
    let mut given = engine.run(input, options.size, wanted)?.into_iter();
    fn shaped<const D: usize>(values: Option<Vec<f32>>, shape: [usize; D]) -> Result<Tensor<D>> {
        let values = values.filter(|values| values.len() == shape.iter().product::<usize>()).ok_or_else(other_size)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), &Device::flex()))
    }
    let maps = shaped(given.next(), network.maps.dims())?;
    let votes = network.votes.as_ref().map(|votes| shaped(given.next(), votes.dims())).transpose()?;
    Ok(SegLogits { maps, votes })
}

/// The larger of two differences; what is no number is larger than all.
pub(super) fn farther(a: f32, b: f32) -> f32 {
    if b.is_nan() { f32::INFINITY } else { a.max(b) }
}

/// The best class of every pixel of `[k, pixels]`, the lowest on ties.
fn argmax(scores: &[f32], k: usize) -> Vec<u8> {
    let pixels = scores.len() / k;
    let best = |at: usize| {
        (1..k)
            .fold(0, |best, class| if scores[class * pixels + at] > scores[best * pixels + at] { class } else { best })
    };
    (0..pixels).map(|at| best(at) as u8).collect()
}

pub(super) fn read(tensor: Tensor<4>) -> Result<Vec<f32>> {
    tensor.try_into_vec_as().map_err(|error| Error::new("cannot read the scores").with_source(error))
}
