//! Scores of a network on a dataset, in the resolution of the truth.
//!
//! ```text
//! Image ──[infer]──▶ Labels ──[metrics]──▶ counts ──[summary]──▶ Scores
//! ```

pub mod accumulate;
pub mod merge;
pub mod summary;

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use accumulate::{EvalAccumulator, EvalOptions};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::image::{Image, Labels};
use crate::infer::memory::{self, AHEAD};
use crate::infer::{Confidence, Inference};
use crate::metrics::{Confusion, Scores};

/// What to do where no thread can be started.
pub(crate) const MORE_THREADS: &str = "allow this user more processes (ulimit -u), or use fewer --threads";

/// One image to evaluate on: its name, its pixels, its truth.
type NamedSample = (String, Image, Labels);

/// What [`evaluate_each`] reports after each image.
#[derive(Debug)]
#[non_exhaustive]
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
    pub confidence: Option<&'a Confidence>,
    /// The counts of this image alone.
    pub confusion: &'a Confusion,
    /// How long the network and all about it took for this image, from 8-bit pixels to labels.
    pub took: Duration,
}

fn samples(dataset: &dyn Dataset) -> impl Iterator<Item = Result<NamedSample>> + Send {
    (0..dataset.len()).map(|index| sample(dataset, index))
}

fn samples_at(dataset: &dyn Dataset, indices: &[usize]) -> impl Iterator<Item = Result<NamedSample>> + Send {
    indices.iter().map(|index| sample(dataset, *index))
}

fn sample(dataset: &dyn Dataset, index: usize) -> Result<NamedSample> {
    let sample = dataset.get(index)?;
    Ok((dataset.name(index), sample.image, sample.labels))
}

/// Scores a network on a whole dataset: one confusion matrix over all pixels, in the size of the truth.
///
/// Images are fetched by another thread, at most three ahead. `see` gets for every image what was predicted and
/// counted; nothing of it is kept. None where `see` broke it off.
///
/// # Errors
/// The first image that cannot be had or does not fit, by its name; or there are none.
pub fn evaluate_each(
    inference: &Inference,
    dataset: &dyn Dataset,
    see: &mut dyn FnMut(&Evaluated) -> ControlFlow<()>,
) -> Result<Option<Scores>> {
    let names = &dataset.classes().names;
    Ok(walk(inference, names, samples(dataset), false, see)?.map(|counts| counts.scores(names)))
}

/// The counts of [`evaluate_each`] for the samples at `indices` alone, which may be none.
///
/// # Errors
/// As [`evaluate_each`].
pub fn count_each(
    inference: &Inference,
    dataset: &dyn Dataset,
    indices: &[usize],
    see: &mut dyn FnMut(&Evaluated) -> ControlFlow<()>,
) -> Result<Option<Confusion>> {
    let names = &dataset.classes().names;
    if indices.is_empty() {
        return Ok(Some(Confusion::new(names.len())));
    }
    walk(inference, names, samples_at(dataset, indices), false, see)
}

/// Evaluates the samples of a dataset at `indices` and counts all that an [`EvalAccumulator`] keeps: with `confidence`
/// also how probable the answers are, which takes a little longer, and with `label_issues` where the truth itself may
/// be wrong. None where `progress` broke it off.
pub fn accumulate(
    inference: &Inference,
    dataset: &dyn Dataset,
    indices: &[usize],
    ask: EvalOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<EvalAccumulator>> {
    let names = &dataset.classes().names;
    let samples = samples_at(dataset, indices);
    let mut accumulate = EvalAccumulator::new(names.len(), ask);
    // Of more shards than images some have nothing to do.
    if indices.is_empty() && !dataset.is_empty() {
        return Ok(Some(accumulate));
    }
    let counts = walk(inference, names, samples, ask.needs_confidence(), |image| {
        accumulate.add(indices[image.done - 1], image);
        progress(image.done, indices.len())
    })?;
    Ok(counts.map(|_| accumulate))
}

/// Predicts every sample, with its confidence if asked for, and shows it to `see`; the counts of all, or none where
/// that broke it off.
fn walk<I>(
    inference: &Inference,
    names: &[String],
    samples: I,
    with_confidence: bool,
    mut see: impl FnMut(&Evaluated) -> ControlFlow<()>,
) -> Result<Option<Confusion>>
where
    I: IntoIterator<Item = Result<NamedSample>>,
    I::IntoIter: Send,
{
    inference.config.check()?;
    inference.preprocess.check()?;
    let classes = inference.network.classes();
    if names.len() != classes {
        return Err(Error::new(format!("the network has {classes} classes and the dataset {}", names.len()))
            .with_hint("evaluate on a dataset with the classes that the network was trained on"));
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
        std::thread::Builder::new().name("images".to_owned()).spawn_scoped(scope, fetch).map_err(|error| {
            Error::new("cannot start a thread that reads images").with_source(error).with_hint(MORE_THREADS)
        })?;
        // By value, so that a failure closes the channel before the thread is waited for.
        let mut total = Confusion::new(classes);
        let mut done = 0;
        for sample in receiver {
            let (name, image, truth) = sample?;
            let at = |e: Error| Error::new(format!("cannot evaluate on `{name}`")).with_source(e);
            memory::ensure_judged(inference, (image.height, image.width)).map_err(at)?;
            let start = Instant::now();
            let (prediction, confidence) = match with_confidence {
                true => inference
                    .labels_with_confidence(&image, &truth)
                    .map(|(labels, confidence)| (labels, Some(confidence))),
                false => inference.labels(&image).map(|labels| (labels, None)),
            }
            .map_err(at)?;
            let took = start.elapsed();
            let mut confusion = Confusion::new(classes);
            confusion.add(&truth, &prediction).map_err(at)?;
            total.merge(&confusion);
            done += 1;
            let (image, truth, prediction, confidence) = (&image, &truth, &prediction, confidence.as_ref());
            let seen = see(&Evaluated {
                done,
                name: &name,
                image,
                truth,
                prediction,
                confidence,
                confusion: &confusion,
                took,
            });
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::infer::toy::{config, picture, with};

    fn names() -> Vec<String> {
        (0..4).map(|i| format!("class {i}")).collect()
    }

    fn evaluate_samples(
        inference: &Inference,
        names: &[String],
        samples: impl IntoIterator<Item = Result<NamedSample>, IntoIter: Send>,
        mut progress: impl FnMut(&Evaluated),
    ) -> Result<Scores> {
        let see = |image: &Evaluated| {
            progress(image);
            ControlFlow::Continue(())
        };
        Ok(walk(inference, names, samples, false, see)?.unwrap().scores(names))
    }

    #[test]
    fn a_network_agrees_with_itself() {
        with(config(), |inference| {
            let sizes = [(30, 20), (16, 16), (41, 7)];
            let samples: Vec<Result<NamedSample>> = sizes
                .iter()
                .map(|(width, height)| {
                    let image = picture(*width as u64, *width, *height);
                    let mut truth = inference.labels(&image)?;
                    truth.ids[3] = crate::image::IGNORE;
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
            let fails = |samples: Vec<Result<NamedSample>>| {
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
}
