//! The inference thread: it takes jobs, decodes their images, asks the network, and answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use crate::error::Result;
use crate::image::{Image, Labels};
use crate::infer::{InferConfig, InferMode, Inference, overview};
use crate::report::run::blocks;
use crate::serve::decode::decode;
use crate::serve::error::Fault;
use crate::serve::gate::Gate;
use crate::serve::loaded::Loaded;
use crate::serve::metrics::Metrics;
use crate::serve::queue::Queue;
use crate::serve::work::{Answer, Job, Picture, Timing, Tokens, Wanted};

/// Works until the queue is closed and empty.
pub(super) fn work(queue: &Queue, gate: &Arc<Gate>, metrics: &Metrics) {
    while let Some(group) = queue.next(most, shares) {
        let Passed { images, pixels, time } = pass(group);
        if images > 0 {
            metrics.pass(images);
            gate.rate().note(pixels, time);
        }
    }
}

/// Images that were labelled, the pixels of their windows, and the time that it took.
pub(super) struct Passed {
    images: usize,
    pixels: u64,
    /// Without the time that reading them took.
    pub(super) time: Duration,
}

/// Reads and labels the images of all jobs, and answers each.
pub(super) fn pass(group: Vec<Job>) -> Passed {
    let decoded: Vec<Decoded> = group.into_iter().filter_map(read).collect();
    let (images, pixels) = (decoded.len(), decoded.iter().map(|job| job.job.permit.pixels()).sum());
    let start = Instant::now();
    label(decoded);
    Passed { images, pixels, time: start.elapsed() }
}

/// How many images may share the passes of this one.
fn most(job: &Job) -> usize {
    let passes = job.model.settings.passes(size(job)).filter(|_| job.wanted == Wanted::Labels);
    passes.map_or(1, |passes| passes.images_at_once())
}

fn shares(first: &Job, other: &Job) -> bool {
    let alike = Arc::ptr_eq(&first.model, &other.model) && other.wanted == Wanted::Labels;
    alike && first.model.settings.passes(size(first)) == first.model.settings.passes(size(other))
}

/// Height and width.
fn size(job: &Job) -> (usize, usize) {
    match &job.picture {
        Picture::File(_, size) => *size,
        Picture::Pixels(image) => (image.height, image.width),
    }
}

/// A job whose image has been read.
struct Decoded {
    job: Job,
    image: Image,
    timing: Timing,
}

/// Reads the image of a job; one that cannot be read is answered at once.
fn read(mut job: Job) -> Option<Decoded> {
    let (start, queue) = (Instant::now(), job.since.elapsed());
    let stated = size(&job);
    let found = match std::mem::replace(&mut job.picture, Picture::File(bytes::Bytes::new(), stated)) {
        Picture::Pixels(image) => Ok(image),
        Picture::File(bytes, _) => decode(&bytes, job.model.range),
    };
    match found {
        Ok(image) => {
            let timing = Timing { queue, decode: start.elapsed(), ..Timing::default() };
            Some(Decoded { job, image, timing })
        }
        Err(fault) => {
            let _ = job.reply.send(Err(fault));
            None
        }
    }
}

/// Labels all, and answers each.
fn label(group: Vec<Decoded>) {
    // What is in a file may be of another size than its header stated.
    let asked = |job: &Decoded| job.job.model.settings.passes((job.image.height, job.image.width));
    let alike = group.len() > 1 && group.iter().all(|job| asked(job).is_some() && asked(job) == asked(&group[0]));
    if alike {
        let start = Instant::now();
        let images: Vec<&Image> = group.iter().map(|job| &job.image).collect();
        let predictor = &group[0].job.model.predictor;
        let together = guarded(|| predictor.inference().labels_together(&images));
        if let Ok(Ok(labels)) = together {
            let infer = start.elapsed();
            for (job, labels) in group.into_iter().zip(labels) {
                let timing = Timing { infer, ..job.timing };
                let found = labels.map(|labels| Found { labels, confidence: Vec::new(), tokens: None });
                answer(Decoded { timing, ..job }, Ok(found));
            }
            return;
        }
    }
    // One by one: what fails for one does not for others.
    for mut job in group {
        let start = Instant::now();
        let found = guarded(|| find(&job.job.model, &job.image, job.job.wanted));
        job.timing.infer = start.elapsed();
        answer(job, found);
    }
}

/// What the network found in an image.
struct Found {
    labels: Labels,
    confidence: Vec<f32>,
    tokens: Option<Tokens>,
}

fn find(model: &Loaded, image: &Image, wanted: Wanted) -> Result<Found> {
    let inference = model.predictor.inference();
    if wanted == Wanted::Labels {
        return Ok(Found { labels: inference.labels(image)?, confidence: Vec::new(), tokens: None });
    }
    // Of no truth only the probability of the label is of use.
    let none = Labels { width: image.width, height: image.height, ids: vec![0; image.width * image.height] };
    let (labels, found) = inference.labels_with_confidence(image, &none)?;
    let tokens = match wanted {
        Wanted::Tokens if model.has_tokens => Some(tokens(model, &inference, image)?),
        _ => None,
    };
    Ok(Found { labels, confidence: found.confidence, tokens })
}

/// The tokens of the image seen as a whole, scaled down to as many pixels as a window has where it has more.
fn tokens(model: &Loaded, inference: &Inference, image: &Image) -> Result<Tokens> {
    let config = InferConfig { mode: InferMode::Slide, ..inference.config.clone() };
    let inference = Inference { config: &config, ..*inference };
    let (trace, (height, width)) = overview(model.predictor.network(), &inference, image, 1)?;
    let span = |side: usize, pixels: usize| inference.network.padded(side) as f64 * pixels as f64 / side as f64;
    Ok(Tokens { blocks: blocks(&trace.maps), span: (span(width, image.width), span(height, image.height)) })
}

fn answer(decoded: Decoded, found: std::result::Result<Result<Found>, Fault>) {
    let Decoded { job, image, timing } = decoded;
    let found = found.and_then(|found| found.map_err(|error| Fault::of_work(&error)));
    let Job { model, permit, reply, .. } = job;
    let answer = found.map(|Found { labels, confidence, tokens }| Answer {
        model,
        image,
        labels,
        confidence,
        tokens,
        timing,
        permit,
    });
    // Whoever asked may have left.
    let _ = reply.send(answer);
}

/// A panic in one request is an error of that request.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "model_failed", "the model failed on this image")
            .hint("report it with the image: it is a fault of the program")
    })
}
