//! SageMaker's routes: `GET /ping`, `POST /invocations`. What is asked stands in the header
//! `X-Amzn-SageMaker-Custom-Attributes`, as `output=geojson,min_area=20`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::serve::app::App;
use crate::serve::ask::Ask;
use crate::serve::error::Fault;
use crate::serve::segment::labelled;
use crate::serve::{respond, upload};

const ATTRIBUTES: &str = "x-amzn-sagemaker-custom-attributes";
const MODEL: &str = "x-amzn-sagemaker-target-model";

/// `GET /ping`.
pub(super) async fn ping(State(app): State<Arc<App>>) -> Response {
    let ready = app.phase.is_ready();
    let mut response = respond::json(&json!({"ready": ready}));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// `POST /invocations`.
pub(super) async fn invocations(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    match asked(&app, &headers) {
        Ok(ask) => labelled(&app, ask, &headers, body).await,
        Err(fault) => {
            upload::discard(body).await;
            Err(fault)
        }
    }
}

fn asked(app: &App, headers: &HeaderMap) -> Result<Ask, Fault> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let attributes = text(ATTRIBUTES).unwrap_or_default().split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let mut ask = Ask::read(attributes.map(|pair| pair.split_once('=').unwrap_or((pair, ""))))?;
    if let Some(model) = text(MODEL) {
        ask.model = Some(model.to_owned());
    }
    // Refused before the body is read.
    ask.answered(headers)?;
    app.models.get(ask.model.as_deref())?;
    Ok(ask)
}
