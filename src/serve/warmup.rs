//! The largest images that are accepted, labelled before the server is ready: what they take is there from then on, and
//! known.
//!
//! A server that cannot label them fails at its start, and not at the first large photo. After vLLM's profiling run.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::image::outlines::OutlineOptions;
use crate::image::{Image, encode_png};
use crate::serve::app::App;
use crate::serve::error::Fault;
use crate::serve::estimate::{LESS, Load, ensure, heaviest, largest};
use crate::serve::loaded::Loaded;
use crate::serve::output::{Output, encode};
use crate::serve::work::{Answer, Job, Picture, Wanted};
use crate::serve::worker;

/// Labels the images that take the most with each model, and says so before each: the name of the model, height and
/// width of the images, and how many share a pass. The rate is measured beside it.
///
/// # Errors
/// Images that cannot be labelled, as there is too little memory for them.
pub(super) fn warm_up(app: &App, tell: impl Fn(&str, (usize, usize), usize)) -> Result<()> {
    let mut passed = 0;
    for model in app.models.all() {
        let [largest, heaviest] = [largest, heaviest].map(|of| of(&model, &app.gate, &app.limits));
        for load in [largest, heaviest.filter(|load| Some(*load) != largest)].into_iter().flatten() {
            tell(&model.name, load.size, load.images);
            let failed = |cause: &str, hint: &str| failed(&model.name, load, cause, hint);
            let taken = ensure(&model, load, passed).map_err(|error| failed(&error.to_string(), LESS))?;
            let file = encode_png(&picture(load.size)).map_err(|error| failed(&error.to_string(), LESS))?;
            let file = Bytes::from(file);
            // Twice: answers are encoded while the next images are read and labelled.
            let mut before = Vec::new();
            for wanted in [Wanted::Tokens, Wanted::Labels] {
                if app.phase.is_leaving() {
                    return Ok(());
                }
                before = label(app, &model, (load, &file), wanted, before).map_err(|fault| match fault.status {
                    StatusCode::PAYLOAD_TOO_LARGE => failed(&fault.cause, LESS),
                    _ => failed(&fault.cause, fault.hint.as_deref().unwrap_or(LESS)),
                })?;
            }
            passed = passed.max(taken);
        }
    }
    Ok(())
}

/// As requests are answered, but for the room in the queue: nothing else is held yet. The answers of the pass before
/// are there until these are.
fn label(
    app: &App,
    model: &Arc<Loaded>,
    (load, file): (Load, &Bytes),
    wanted: Wanted,
    before: Vec<Answer>,
) -> Result<Vec<Answer>, Fault> {
    let (group, answers): (Vec<Job>, Vec<_>) = (0..load.images)
        .map(|_| {
            let (reply, answer) = oneshot::channel();
            let picture = Picture::File(file.clone(), load.size);
            let job =
                Job { model: model.clone(), picture, wanted, permit: app.gate.permit(), since: Instant::now(), reply };
            (job, answer)
        })
        .unzip();
    let passed = worker::pass(group);
    // With tokens it takes longer than most requests do.
    if wanted == Wanted::Labels {
        app.gate.rate().note(load.images as u64 * model.cost.pixels(load.size), passed.time);
    }
    for answer in before {
        let encode = || encode(&answer, Output::Overlay, OutlineOptions::default(), "warmup");
        worker::guarded(encode)?.map_err(|error| Fault::of_work(&error))?;
    }
    answers.into_iter().map(|mut answer| answer.try_recv().unwrap_or_else(|_| Err(Fault::draining()))).collect()
}

/// Stripes, which PNG stores in few bytes.
fn picture((height, width): (usize, usize)) -> Image {
    let row: Vec<u8> = (0..width * 3).map(|at| (at / 3 * 7 + at % 3 * 85) as u8).collect();
    Image { width, height, pixels: row.repeat(height) }
}

fn failed(name: &str, Load { size: (height, width), images }: Load, cause: &str, hint: &str) -> Error {
    let what = if images == 1 { "an image".to_owned() } else { format!("{images} images") };
    let accepted = "although its limits accept as much";
    Error::new(format!("{name} cannot label {what} of {width} x {height} pixels, {accepted}: {cause}")).with_hint(hint)
}
