//! Label Studio's ML backend: `GET /labelstudio/health`, `POST /labelstudio/{setup,predict}`. Predictions are brush
//! strokes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::image::outlines::label_studio_task;
use crate::serve::app::App;
use crate::serve::error::Fault;
use crate::serve::gate::Permit;
use crate::serve::label_config::Interface;
use crate::serve::label_studio_host::inline;
use crate::serve::loaded::Loaded;
use crate::serve::respond::{self, encoded};
use crate::serve::work::{Answer, Wanted};
use crate::serve::{submit, upload};

/// `GET /labelstudio/health`.
pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    let ready = app.phase.is_ready();
    let status = if ready { "UP" } else { "DOWN" };
    let mut response = respond::json(&json!({"status": status, "model_class": "StructToken", "v2": false}));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// `POST /labelstudio/setup`.
pub(super) async fn setup(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, Fault> {
    let mut permit = app.gate.permit();
    let body = upload::read(&headers, body, &app.limits, &mut permit).await?;
    let request: Setup = read(&body)?;
    let model = app.models.get(None)?;
    if let Some(schema) = request.schema.filter(|schema| !schema.trim().is_empty()) {
        interface(&schema)?;
    }
    Ok(respond::json(&json!({"model_version": version(&model)})))
}

#[derive(Deserialize)]
struct Setup {
    #[serde(default)]
    schema: Option<String>,
}

#[derive(Deserialize)]
struct Predict {
    tasks: Vec<Task>,
    #[serde(default)]
    label_config: Option<String>,
}

#[derive(Deserialize)]
struct Task {
    data: Map<String, Value>,
}

fn read<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        Fault::bad_request(format!("the request is not JSON as Label Studio sends it: {error}"))
            .hint("send what label-studio-ml's clients send")
    })
}

fn interface(xml: &str) -> Result<Interface, Fault> {
    Interface::read(xml).ok_or_else(|| {
        Fault::bad_request("the labelling interface has no BrushLabels on an Image")
            .hint("add <BrushLabels name=\"label\" toName=\"image\"> for <Image name=\"image\" value=\"$image\"/>")
    })
}

/// The name and the checksum: predictions of a model that was loaded again are told apart.
fn version(model: &Loaded) -> String {
    format!("{}-{}", model.name, model.version)
}

/// `POST /labelstudio/predict`.
pub(super) async fn predict(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, Fault> {
    /// Label Studio sends tasks one by one, or a page of them.
    const MOST: usize = 256;
    if let Err(fault) = app.phase.check() {
        upload::discard(body).await;
        return Err(fault);
    }
    let model = app.models.get(None)?;
    let mut permit = app.gate.permit();
    let body = upload::read(&headers, body, &app.limits, &mut permit).await?;
    let request: Predict = read(&body)?;
    if request.tasks.len() > MOST {
        return Err(Fault::bad_request(format!("the request has {} tasks", request.tasks.len()))
            .hint(format!("send at most {MOST} at once")));
    }
    let xml = request.label_config.filter(|xml| !xml.trim().is_empty());
    let interface = Arc::new(xml.map(|xml| interface(&xml)).transpose()?);
    let mut results = Vec::with_capacity(request.tasks.len());
    for task in request.tasks {
        let field = interface.as_ref().as_ref().map(|interface| interface.field.as_str());
        let link = link(&task, field)?;
        let mut permit = app.gate.permit();
        let bytes = image(&app, link, &mut permit).await?;
        let answer = submit::file(&app, model.clone(), bytes, Wanted::Confidence, permit).await?;
        let drawn = interface.clone();
        let encoded = encoded(&app, answer, move |answer| {
            Ok(prediction(answer, drawn.as_ref().as_ref()).to_string().into_bytes())
        })
        .await?;
        // Held with what it takes until all are there.
        results.push(encoded);
    }
    let all = results.iter().map(|encoded| encoded.bytes.as_slice()).collect::<Vec<_>>().join(&b","[..]);
    Ok(respond::text([b"{\"results\":[", &all[..], b"]}"].concat()))
}

fn prediction(answer: &Answer, interface: Option<&Interface>) -> Value {
    let version = version(&answer.model);
    let mut task = label_studio_task(&answer.labels, &answer.model.predictor.classes().names, "", &version);
    let mut result = task["predictions"][0]["result"].take();
    if let (Some(interface), Some(regions)) = (interface, result.as_array_mut()) {
        regions.retain(|region| {
            let label = region["value"]["brushlabels"][0].as_str().unwrap_or_default();
            interface.labels.is_empty() || interface.labels.iter().any(|known| known == label)
        });
        for region in regions {
            region["from_name"] = interface.from_name.as_str().into();
            region["to_name"] = interface.to_name.as_str().into();
        }
    }
    let sum: f64 = answer.confidence.iter().map(|value| f64::from(*value)).sum();
    let score = sum / answer.confidence.len().max(1) as f64;
    json!({"model_version": version, "score": score, "result": result})
}

/// The link of a task's image: in the field that the interface names, or the only one.
fn link<'a>(task: &'a Task, field: Option<&str>) -> Result<&'a str, Fault> {
    let value = match field {
        Some(field) => task.data.get(field),
        None => task.data.get("image").or_else(|| task.data.values().find(|value| value.is_string())),
    };
    value.and_then(Value::as_str).ok_or_else(|| {
        Fault::bad_request(format!("a task's data have no text `{}`", field.unwrap_or("image")))
            .hint("name the field of the image as the labelling interface does")
    })
}

/// Reads a request, and drops what is found.
pub(super) fn untrusted(body: &Bytes) {
    if let Ok(Setup { schema: Some(schema) }) = read(body) {
        drop(interface(&schema));
    }
    let Ok(request) = read::<Predict>(body) else { return };
    let interface = request.label_config.and_then(|xml| interface(&xml).ok());
    for task in &request.tasks {
        let link = link(task, interface.as_ref().map(|interface| interface.field.as_str()));
        drop(link.map(inline));
    }
}

async fn image(app: &App, link: &str, permit: &mut Permit) -> Result<Bytes, Fault> {
    if let Some(bytes) = inline(link) {
        let bytes = bytes?;
        permit.take_bytes(bytes.len())?;
        return Ok(bytes);
    }
    match &app.label_studio {
        Some(host) => host.fetch(link, &app.limits, permit).await,
        None => Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", "this server fetches no images")
            .hint("start it with --label-studio http://HOST:PORT, the address of Label Studio")),
    }
}
