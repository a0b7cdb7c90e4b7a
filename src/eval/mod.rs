//! Scores of a network on a dataset, in the resolution of the truth.
//!
//! ```text
//! Image ──[preprocess]──▶ views ──[windows, infer]──▶ Labels ──[confusion]──▶ Scores
//! ```

pub mod bootstrap;
pub mod boundary;
pub mod calibration;
pub mod certainty;
mod config;
pub mod confusion;
pub mod distance;
mod host;
pub mod infer;
pub mod memory;
pub mod merge;
pub mod overlap;
pub mod summary;
pub mod suspects;
pub mod tally;
#[cfg(test)]
pub(crate) mod toy;
mod view;
mod windows;

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};

use crate::data::Dataset;
use crate::data::image::{Image, Labels};
use crate::data::preprocess::Preprocess;
use crate::decoder::Answer;
use crate::error::{Error, Result};
use crate::layers::Pass;
use crate::model::Model;
use crate::room;
pub use certainty::Certainty;
pub use confusion::{Confusion, Scores};
pub use infer::{InferConfig, Network, Padding};
pub use tally::{Ask, Tally};
pub use view::View;

impl Network for Model {
    fn answer(&self, images: Tensor<4>) -> Answer {
        self.forward(images, &Pass::eval()).answer()
    }

    fn classes(&self) -> usize {
        Model::classes(self)
    }

    fn padded(&self, side: usize) -> usize {
        Model::padded(self, side)
    }

    fn activations(&self, size: (usize, usize)) -> usize {
        Model::activations(self, size)
    }
}

/// A network with all that lies between it and 8-bit images.
#[derive(Clone, Copy)]
pub struct Inference<'a> {
    /// The network; without gradients, or each image leaves its graph behind.
    pub network: &'a dyn Network,
    /// The normalisation its weights were trained with.
    pub preprocess: &'a Preprocess,
    /// Windows, scales, flips.
    pub config: &'a InferConfig,
    /// Where the network lives.
    pub device: &'a Device,
}

impl Inference<'_> {
    /// The class of every pixel, in the image's size.
    pub fn labels(&self, image: &Image) -> Result<Labels> {
        self.labels_with(image, &mut |_| {})
    }

    /// As [`labels`](Self::labels); `progress` is told the share that is done, from 0 to 1, from time to time.
    pub fn labels_with(&self, image: &Image, progress: &mut dyn FnMut(f64)) -> Result<Labels> {
        let views = self.views(image)?;
        let mut maps = infer::labels_with(self.network, &views, (image.height, image.width), self.config, progress)?;
        maps.pop().ok_or_else(|| Error::new("the network returned nothing"))
    }

    /// The class of every pixel of an image with its `truth`, and how probable label and truth are.
    pub fn certain(&self, image: &Image, truth: &Labels) -> Result<(Labels, Certainty)> {
        if (truth.width, truth.height, truth.ids.len()) != (image.width, image.height, image.width * image.height) {
            return Err(Error::new(format!(
                "the image has {} x {} pixels, but the truth has {} x {}",
                image.width, image.height, truth.width, truth.height
            )));
        }
        certainty::certain(self.network, &self.views(image)?, truth, self.config)
    }

    /// Class probabilities [k, h, w], in the image's size, row-major.
    ///
    /// Fails where they would take more than 16 GB.
    pub fn probabilities(&self, image: &Image) -> Result<Vec<f32>> {
        let values = image.width.saturating_mul(image.height).saturating_mul(self.network.classes());
        if values > LARGEST_VALUES {
            let (width, height, classes) = (image.width, image.height, self.network.classes());
            return Err(Error::new(format!(
                "the probabilities of {classes} classes at {width} x {height} are too large"
            ))
            .hint("ask for labels, which are computed in bands of rows, or cut the image into tiles"));
        }
        let views = self.views(image)?;
        // In bands, and put together.
        room::need(
            2 * 4 * values as u64,
            &format!("the probabilities of {} x {} pixels", image.width, image.height),
            "leave out --probabilities, or cut the image into tiles",
        )?;
        let tensor = infer::probabilities(self.network, &views, (image.height, image.width), self.config)?;
        tensor.try_into_vec_as().map_err(|e| Error::new("cannot read probabilities from the device").source(e))
    }

    /// The views of an image that the configuration asks for.
    ///
    /// Fails on an empty image, where a view would exceed 2^28 pixels, and where the memory that is left is too little.
    pub fn views<'a>(&'a self, image: &'a Image) -> Result<Vec<View<'a>>> {
        let (width, height) = (image.width, image.height);
        if width == 0 || height == 0 || image.pixels.len() != width * height * 3 {
            return Err(Error::new(format!(
                "an image of {width} x {height} pixels holds {} bytes",
                image.pixels.len()
            )));
        }
        let sizes = self.config.sizes((height, width));
        if let Some((h, w)) = sizes.iter().find(|(h, w)| h.saturating_mul(*w) > LARGEST_VIEW) {
            return Err(Error::new(format!("the image of {width} x {height} pixels would be scaled to {w} x {h}"))
                .hint("lower `scales` or `resize`, or cut the image into tiles"));
        }
        memory::ensure_image(self, (height, width))?;
        let mut views = Vec::with_capacity(sizes.len() * 2);
        for size in sizes {
            let view = |flipped| View::of_image(image, size, flipped, self.preprocess, self.device);
            if self.config.flip {
                views.push(view(true));
            }
            views.push(view(false));
        }
        Ok(views)
    }
}

/// What to do where no thread can be started.
pub(crate) const MORE_THREADS: &str = "allow this user more processes (ulimit -u), or use fewer --threads";

/// One image to evaluate on: its name, its pixels, its truth.
pub type Sample = (String, Image, Labels);

/// What [`evaluate_samples`] tells after each image.
#[derive(Debug)]
pub struct Evaluated<'a> {
    /// Images done so far, this one included.
    pub done: usize,
    /// The image's name.
    pub name: &'a str,
    /// Its pixels.
    pub image: &'a Image,
    /// Its truth.
    pub truth: &'a Labels,
    /// What was predicted.
    pub prediction: &'a Labels,
    /// How probable prediction and truth are, where that was asked for.
    pub certainty: Option<&'a Certainty>,
    /// The counts of this image alone.
    pub confusion: &'a Confusion,
    /// How long the network and all about it took for this image, from 8-bit pixels to labels.
    pub took: Duration,
}

/// Scores a network on a whole dataset; `progress` is told the images done and in all.
pub fn evaluate(
    inference: &Inference,
    dataset: &dyn Dataset,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Scores> {
    let all = dataset.len();
    evaluate_samples(inference, &dataset.classes().names, samples(dataset), |image| progress(image.done, all))
}

fn samples(dataset: &dyn Dataset) -> impl Iterator<Item = Result<Sample>> + Send {
    (0..dataset.len()).map(|index| {
        let sample = dataset.get(index)?;
        Ok((dataset.name(index), sample.image, sample.labels))
    })
}

/// The same, told of every image what was predicted and counted; nothing of it is kept. None where `see` broke it off.
pub fn evaluate_each(
    inference: &Inference,
    dataset: &dyn Dataset,
    see: &mut dyn FnMut(&Evaluated) -> ControlFlow<()>,
) -> Result<Option<Scores>> {
    let names = &dataset.classes().names;
    Ok(walk(inference, names, samples(dataset), false, see)?.map(|counts| counts.scores(names)))
}

/// Scores a network on samples: one confusion matrix over all pixels, in the size of the truth.
///
/// Samples are fetched by another thread, at most three ahead; nothing of an image is kept but its counts. `names` are
/// the classes. Fails on the first sample that cannot be had or does not fit, naming it, and where there are none.
pub fn evaluate_samples<I>(
    inference: &Inference,
    names: &[String],
    samples: I,
    mut progress: impl FnMut(&Evaluated),
) -> Result<Scores>
where
    I: IntoIterator<Item = Result<Sample>>,
    I::IntoIter: Send,
{
    let see = |image: &Evaluated| {
        progress(image);
        ControlFlow::Continue(())
    };
    let counts = walk(inference, names, samples, false, see)?;
    Ok(counts.unwrap_or_else(|| Confusion::new(names.len())).scores(names))
}

/// Evaluates the samples of a dataset at `indices` and counts all that a [`Tally`] keeps: with `certain` also how probable the
/// answers are, which takes a little longer, and with `suspects` where the truth itself may be wrong. None where `progress`
/// broke it off.
pub fn tally(
    inference: &Inference,
    dataset: &dyn Dataset,
    indices: &[usize],
    ask: Ask,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<Tally>> {
    let names = &dataset.classes().names;
    let samples = indices.iter().map(|index| {
        let sample = dataset.get(*index)?;
        Ok((dataset.name(*index), sample.image, sample.labels))
    });
    let mut tally = Tally::new(names.len(), ask);
    // Of more shards than images some have nothing to do.
    if indices.is_empty() && !dataset.is_empty() {
        return Ok(Some(tally));
    }
    let counts = walk(inference, names, samples, ask.certainty || ask.suspects > 0, |image| {
        tally.add(indices[image.done - 1], image);
        progress(image.done, indices.len())
    })?;
    Ok(counts.map(|_| tally))
}

/// Predicts every sample, with its certainty if asked for, and shows it to `see`; the counts of all, or none where that broke
/// it off.
fn walk<I>(
    inference: &Inference,
    names: &[String],
    samples: I,
    certain: bool,
    mut see: impl FnMut(&Evaluated) -> ControlFlow<()>,
) -> Result<Option<Confusion>>
where
    I: IntoIterator<Item = Result<Sample>>,
    I::IntoIter: Send,
{
    inference.config.check()?;
    inference.preprocess.check()?;
    let classes = inference.network.classes();
    if names.len() != classes {
        return Err(Error::new(format!("the network has {classes} classes and the dataset {}", names.len()))
            .hint("evaluate on a dataset with the classes that the network was trained on"));
    }
    let samples = samples.into_iter();
    let (sender, receiver) = mpsc::sync_channel(AHEAD);
    std::thread::scope(|scope| {
        let fetch = move || {
            for sample in samples {
                if sender.send(sample).is_err() {
                    break; // the evaluation has failed
                }
            }
        };
        std::thread::Builder::new()
            .name("images".to_owned())
            .spawn_scoped(scope, fetch)
            .map_err(|error| Error::new("cannot start a thread that reads images").source(error).hint(MORE_THREADS))?;
        // By value, so that a failure closes the channel before the thread is waited for.
        let mut total = Confusion::new(classes);
        let mut done = 0;
        for sample in receiver {
            let (name, image, truth) = sample?;
            let at = |e: Error| Error::new(format!("cannot evaluate on `{name}`")).source(e);
            let start = Instant::now();
            let (prediction, certainty) = match certain {
                true => inference.certain(&image, &truth).map(|(labels, certainty)| (labels, Some(certainty))),
                false => inference.labels(&image).map(|labels| (labels, None)),
            }
            .map_err(at)?;
            let took = start.elapsed();
            let mut confusion = Confusion::new(classes);
            confusion.add(&truth, &prediction).map_err(at)?;
            total.merge(&confusion);
            done += 1;
            let (image, truth, prediction, certainty) = (&image, &truth, &prediction, certainty.as_ref());
            let seen =
                see(&Evaluated { done, name: &name, image, truth, prediction, certainty, confusion: &confusion, took });
            if seen.is_break() {
                return Ok(None);
            }
        }
        match done {
            0 => Err(Error::new("there is no image to evaluate on")),
            _ => Ok(Some(total)),
        }
    })
}

/// Samples that wait for the network, besides the one being fetched.
const AHEAD: usize = 2;
const LARGEST_VIEW: usize = 1 << 28;
const LARGEST_VALUES: usize = 4_000_000_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::rng::Rng;
    use toy::Toy;

    fn picture(seed: u64, width: usize, height: usize) -> Image {
        let mut rng = Rng::new(seed, &[]);
        // Blocks of colour, so that the labels have structure.
        let blocks: Vec<[u8; 3]> = (0..64).map(|_| [0; 3].map(|_| rng.below(256) as u8)).collect();
        let pixels = (0..width * height).flat_map(|at| blocks[(at / width / 6 * 7 + at % width / 6) % 64]).collect();
        Image { width, height, pixels }
    }

    fn with<T>(config: InferConfig, run: impl FnOnce(&Inference) -> T) -> T {
        let (network, preprocess, device) = (Toy::new(4), Preprocess::default(), Device::flex());
        let (network, preprocess, device) = (&network, &preprocess, &device);
        run(&Inference { network, preprocess, config: &config, device })
    }

    fn config() -> InferConfig {
        InferConfig { crop: [16, 16], stride: [10, 10], ..InferConfig::default() }
    }

    fn names() -> Vec<String> {
        (0..4).map(|i| format!("class {i}")).collect()
    }

    #[test]
    fn a_network_agrees_with_itself() {
        with(config(), |inference| {
            let sizes = [(30, 20), (16, 16), (41, 7)];
            let samples: Vec<Result<Sample>> = sizes
                .iter()
                .map(|(width, height)| {
                    let image = picture(*width as u64, *width, *height);
                    let mut truth = inference.labels(&image)?;
                    truth.ids[3] = crate::data::image::IGNORE;
                    Ok((format!("{width}"), image, truth))
                })
                .collect();
            let mut seen = Vec::new();
            let scores =
                evaluate_samples(inference, &names(), samples, |one| seen.push((one.done, one.name.to_string())))
                    .unwrap();
            assert_eq!((scores.aacc, scores.ignored_pixels), (Some(1.0), 3));
            assert_eq!(scores.pixels as usize, 30 * 20 + 16 * 16 + 41 * 7 - 3);
            assert!(scores.classes.iter().filter(|class| class.pixels > 0).count() > 1);
            assert_eq!(seen, [(1, "30".to_string()), (2, "16".into()), (3, "41".into())]);
        });
    }

    #[test]
    fn failures_name_the_sample_and_end_the_fetching() {
        with(config(), |inference| {
            let good = |name: &str| {
                let labels = Labels { width: 8, height: 8, ids: vec![0; 64] };
                Ok((name.to_string(), picture(1, 8, 8), labels))
            };
            let fails = |samples: Vec<Result<Sample>>| {
                evaluate_samples(inference, &names(), samples, |_| {}).unwrap_err().to_string()
            };
            let off_size = Ok(("b".to_string(), picture(1, 8, 9), Labels { width: 8, height: 8, ids: vec![0; 64] }));
            let fetched = AtomicUsize::new(0);
            let many = std::iter::once(off_size).chain((0..100).map(|_| good("a")));
            let many = many.inspect(|_| _ = fetched.fetch_add(1, Ordering::Relaxed));
            let error = evaluate_samples(inference, &names(), many, |_| {}).unwrap_err().to_string();
            assert!(error.starts_with("cannot evaluate on `b`: the prediction has 8 x 9"), "{error}");
            assert!(fetched.into_inner() <= AHEAD + 3);
            let unknown = Ok(("c".to_string(), picture(1, 8, 8), Labels { width: 8, height: 8, ids: vec![9; 64] }));
            assert!(fails(vec![good("a"), unknown]).contains("`c`: the truth holds the id 9"));
            let broken = Ok((
                "d".to_string(),
                Image { width: 4, height: 4, pixels: vec![] },
                Labels { width: 4, height: 4, ids: vec![0; 16] },
            ));
            assert!(fails(vec![broken]).contains("`d`: an image of 4 x 4 pixels holds 0 bytes"));
            assert_eq!(fails(vec![Err(Error::new("lost"))]), "lost");
            assert_eq!(fails(vec![]), "there is no image to evaluate on");
            assert!(evaluate_samples(inference, &names()[1..], vec![good("a")], |_| {}).is_err());
        });
    }

    #[test]
    fn views_follow_the_configuration() {
        let config = InferConfig { resize: Some([64, 32]), scales: vec![0.5, 1.0], flip: true, ..config() };
        with(config.clone(), |inference| {
            let image = picture(3, 40, 20);
            let views = inference.views(&image).unwrap();
            let sizes: Vec<_> = views.iter().map(|view| (view.size(), view.is_flipped())).collect();
            assert_eq!(sizes, [((16, 32), true), ((16, 32), false), ((32, 64), true), ((32, 64), false)]);
            let labels = inference.labels(&image).unwrap();
            assert_eq!((labels.width, labels.height, labels.ids.len()), (40, 20, 800));
            let probabilities = inference.probabilities(&image).unwrap();
            assert_eq!(probabilities.len(), 4 * 800);
            let sum: f32 = (0..4).map(|class| probabilities[class * 800 + 123]).sum();
            assert!((sum - 1.0).abs() < 1e-5);
        });
        with(InferConfig { scales: vec![100.0], ..config }, |inference| {
            let flat = Image { width: 1, height: 1, pixels: vec![0; 3] };
            assert!(inference.views(&flat).is_ok());
            let large = InferConfig { resize: Some([1 << 20, 1 << 20]), ..inference.config.clone() };
            assert!(Inference { config: &large, ..*inference }.views(&flat).is_err());
        });
    }
}
