//! An image on its way: looked at, accepted, queued, answered.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::image::Image;
use crate::serve::app::App;
use crate::serve::decode::{check_pixels, size};
use crate::serve::error::Fault;
use crate::serve::gate::Permit;
use crate::serve::loaded::Loaded;
use crate::serve::work::{Answer, Job, Picture, Wanted};

/// Labels the image in a file's bytes.
///
/// # Errors
/// Of the image, of the queue, and of the model.
pub(super) async fn file(
    app: &App,
    model: Arc<Loaded>,
    bytes: Bytes,
    wanted: Wanted,
    permit: Permit,
) -> Result<Answer, Fault> {
    let size = size(&bytes, &app.limits)?;
    queue(app, model, Picture::File(bytes, size), size, wanted, permit).await
}

/// Labels an image of which the pixels are there.
///
/// # Errors
/// As [`file`].
pub(super) async fn pixels(
    app: &App,
    model: Arc<Loaded>,
    image: Image,
    wanted: Wanted,
    permit: Permit,
) -> Result<Answer, Fault> {
    let size = (image.height, image.width);
    check_pixels(size, &app.limits)?;
    queue(app, model, Picture::Pixels(image), size, wanted, permit).await
}

async fn queue(
    app: &App,
    model: Arc<Loaded>,
    picture: Picture,
    size: (usize, usize),
    wanted: Wanted,
    mut permit: Permit,
) -> Result<Answer, Fault> {
    app.phase.check()?;
    let pixels = model.cost.pixels(size);
    // What those held who have left may be enough.
    if permit.take_pixels(pixels).is_err() {
        app.queue.prune();
        permit.take_pixels(pixels)?;
    }
    let (reply, answer) = oneshot::channel();
    app.queue.push(Job { model, picture, wanted, permit, since: Instant::now(), reply });
    match timeout(app.limits.request_time, answer).await {
        Ok(Ok(answer)) => answer,
        // The worker is gone.
        Ok(Err(_)) => Err(Fault::draining()),
        Err(_) => {
            let cause = format!("the image was not labelled within {} s", app.limits.request_time.as_secs());
            Err(Fault::new(StatusCode::GATEWAY_TIMEOUT, "timeout", cause)
                .hint("send fewer requests at once, or smaller images"))
        }
    }
}
