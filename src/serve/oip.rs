//! `/v2`: the Open Inference Protocol of KServe and Triton. One image in, as a file's bytes or as pixels; labels out,
//! and how probable they are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::error::Result as Built;
use crate::image::Image;
use crate::serve::app::App;
use crate::serve::error::Fault;
use crate::serve::respond::{encoded, json as respond};
use crate::serve::tensor::{Input, Request, elements, split};
use crate::serve::work::{Answer, Wanted};
use crate::serve::{submit, upload};

const LENGTH: &str = "inference-header-content-length";
const PLATFORM: &str = "structtoken";
/// There is one version of a model at a time.
const VERSION: &str = "1";

/// `GET /v2`.
pub(super) async fn server() -> Response {
    respond(&json!({
        "name": PLATFORM,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "model_repository"],
    }))
}

/// `GET /v2/health/live`.
pub(super) async fn live() -> Response {
    respond(&json!({"live": true}))
}

/// `GET /v2/health/ready`.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = app.phase.is_ready();
    let mut response = respond(&json!({"ready": ready}));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// `GET /v2/models/{m}`.
pub(super) async fn model(State(app): State<Arc<App>>, Path(path): Path<Named>) -> Result<Response, Fault> {
    path.check()?;
    let model = app.models.get(Some(&path.model))?;
    Ok(respond(&json!({
        "name": model.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [1, -1, -1, 3]},
        ],
        "outputs": [
            {"name": "labels", "datatype": "UINT8", "shape": [1, -1, -1]},
            {"name": "confidence", "datatype": "FP32", "shape": [1, -1, -1]},
        ],
        "parameters": {"checksum": model.version, "classes": model.predictor.classes().names},
    })))
}

/// `GET /v2/models/{m}/ready`.
pub(super) async fn model_ready(State(app): State<Arc<App>>, Path(path): Path<Named>) -> Result<Response, Fault> {
    path.check()?;
    let model = app.models.get(Some(&path.model))?;
    Ok(respond(&json!({"name": model.name, "ready": true})))
}

/// The model of an address, and the version where it names one.
#[derive(serde::Deserialize)]
pub(super) struct Named {
    model: String,
    #[serde(default)]
    version: Option<String>,
}

impl Named {
    fn check(&self) -> Result<(), Fault> {
        match &self.version {
            Some(version) if version != VERSION => Err(Fault::new(
                StatusCode::NOT_FOUND,
                "unknown_model",
                format!("`{}` has no version `{version}`", self.model),
            )
            .hint("there is version 1 alone")),
            _ => Ok(()),
        }
    }
}

/// `POST /v2/models/{m}/infer`.
pub(super) async fn infer(
    State(app): State<Arc<App>>,
    Path(path): Path<Named>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let known = path.check().and_then(|()| app.models.get(Some(&path.model)));
    let model = match known.and_then(|model| app.phase.check().map(|()| model)) {
        Ok(model) => model,
        Err(fault) => {
            upload::discard(body).await;
            return Err(fault);
        }
    };
    let mut permit = app.gate.permit();
    let body = upload::read(&headers, body, &app.limits, &mut permit).await?;
    let length = headers.get(LENGTH).map(|value| value.to_str().unwrap_or("?"));
    let asked = Asked::read(&body, length)?;
    let wanted =
        if asked.outputs.iter().any(|output| output.name == CONFIDENCE) { Wanted::Confidence } else { Wanted::Labels };
    let (id, outputs) = (asked.id, asked.outputs);
    let answer = match asked.picture {
        Picture::File(bytes) => submit::file(&app, model, bytes, wanted, permit).await?,
        Picture::Pixels(image) => submit::pixels(&app, model, image, wanted, permit).await?,
    };
    respond_tensors(&app, answer, id, outputs).await
}

async fn respond_tensors(
    app: &Arc<App>,
    answer: Answer,
    id: Option<String>,
    outputs: Vec<Output>,
) -> Result<Response, Fault> {
    let binary = outputs.iter().any(|output| output.binary);
    // The length of the JSON is known once it is written.
    let (tell, told) = tokio::sync::oneshot::channel();
    let encoded = encoded(app, answer, move |answer| {
        let (json, tensors) = written(answer, id, &outputs)?;
        // Whoever asked waits for this answer.
        let _ = tell.send(json.len());
        Ok([json, tensors].concat())
    })
    .await?;
    if !binary {
        return Ok(encoded.response("application/json"));
    }
    let mut response = encoded.response("application/octet-stream");
    if let Ok(length) = told.await {
        response.headers_mut().insert(LENGTH, HeaderValue::from(length));
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

const LABELS: &str = "labels";
const CONFIDENCE: &str = "confidence";

/// A tensor that is answered.
struct Output {
    name: &'static str,
    /// After the JSON, and not in it.
    binary: bool,
}

enum Picture {
    File(Bytes),
    Pixels(Image),
}

/// What a request asks.
pub(super) struct Asked {
    id: Option<String>,
    picture: Picture,
    outputs: Vec<Output>,
}

impl Asked {
    /// Reads the bytes of a request, of which `length` are JSON where binary tensors follow.
    ///
    /// # Errors
    /// What is not a request for one image.
    pub(super) fn read(body: &Bytes, length: Option<&str>) -> Result<Self, Fault> {
        let (text, tensors) = split(body, length)?;
        let request: Request = serde_json::from_slice(text).map_err(|error| {
            Fault::bad_request(format!("the request is not JSON of the inference protocol: {error}"))
                .hint("see /openapi.json for its form")
        })?;
        let [input] = <[Input; 1]>::try_from(request.inputs).map_err(|inputs| {
            Fault::bad_request(format!("the request has {} inputs", inputs.len())).hint("give one input, the image")
        })?;
        let picture = picture(input, tensors, body)?;
        let default = request.parameters.binary_data_output.unwrap_or(false);
        let outputs = request.outputs.iter().map(|wanted| {
            let name = [LABELS, CONFIDENCE].into_iter().find(|name| *name == wanted.name).ok_or_else(|| {
                Fault::bad_request(format!("there is no output `{}`", wanted.name))
                    .hint("there are labels and confidence")
            })?;
            Ok(Output { name, binary: wanted.parameters.binary_data.unwrap_or(default) })
        });
        let mut outputs = outputs.take(3).collect::<Result<Vec<_>, Fault>>()?;
        if outputs.len() > 2 {
            return Err(Fault::bad_request("an output is asked for twice"));
        }
        if outputs.is_empty() {
            outputs.push(Output { name: LABELS, binary: default });
        }
        Ok(Self { id: request.id, picture, outputs })
    }
}

/// The image of a tensor, as the bytes of a file or as pixels.
fn picture(input: Input, tensors: &[u8], body: &Bytes) -> Result<Picture, Fault> {
    let Input { name, datatype, shape, parameters, data } = input;
    let wrong = |cause: String| Fault::bad_request(format!("the input `{name}` {cause}"));
    let binary = match parameters.binary_data_size {
        Some(size) if size == tensors.len() => Some(tensors),
        Some(size) => {
            return Err(wrong(format!("has {} bytes of binary data, and `binary_data_size` is {size}", tensors.len())));
        }
        None => None,
    };
    let values = shape.iter().try_fold(1u64, |product, side| product.checked_mul(*side));
    match (datatype.as_str(), binary, data) {
        ("BYTES", _, _) if values != Some(1) => {
            Err(wrong(format!("has the shape {shape:?}")).hint("give one image per request: [1]"))
        }
        ("BYTES", Some(bytes), _) => match elements(bytes)?[..] {
            [file] => Ok(Picture::File(body.slice_ref(file))),
            _ => Err(wrong("does not hold one element".into())),
        },
        ("BYTES", None, Some(data)) => match &data.texts[..] {
            [text] if data.numbers.is_empty() => {
                let bytes = STANDARD.decode(text).map_err(|error| wrong(format!("is not base64: {error}")))?;
                Ok(Picture::File(bytes.into()))
            }
            _ => Err(wrong("does not hold one text".into()).hint("give the file's bytes as base64")),
        },
        ("UINT8", binary, data) => {
            let (height, width) = match shape[..] {
                [1, height, width, 3] | [height, width, 3] => (height, width),
                _ => {
                    return Err(wrong(format!("has the shape {shape:?}"))
                        .hint("give [1, height, width, 3] or [height, width, 3]"));
                }
            };
            let pixels = match (binary, data) {
                (Some(bytes), _) => bytes.to_vec(),
                (None, Some(data)) if data.texts.is_empty() => data.numbers,
                _ => return Err(wrong("holds no numbers".into())),
            };
            if values != Some(pixels.len() as u64) || pixels.is_empty() {
                return Err(wrong(format!("has the shape {shape:?} and {} values", pixels.len())));
            }
            Ok(Picture::Pixels(Image { width: width as usize, height: height as usize, pixels }))
        }
        ("BYTES", None, None) => Err(wrong("holds no data".into())),
        (other, ..) => Err(wrong(format!("is of the type {other}")).hint("give BYTES, a file, or UINT8, pixels")),
    }
}

/// The JSON of an answer, and the tensors after it.
fn written(answer: &Answer, id: Option<String>, outputs: &[Output]) -> Built<(Vec<u8>, Vec<u8>)> {
    let (labels, mut tensors) = (&answer.labels, Vec::new());
    let shape = json!([1, labels.height, labels.width]);
    let mut head = json!({"model_name": answer.model.name, "model_version": VERSION});
    if let Some(id) = id {
        head["id"] = id.into();
    }
    head["outputs"] = json!([]);
    // Numbers are written as text at once: as values of JSON they would take many times their size.
    let mut text = head.to_string();
    text.truncate(text.len() - "]}".len());
    for (at, output) in outputs.iter().enumerate() {
        let (datatype, size) = if output.name == LABELS { ("UINT8", 1) } else { ("FP32", 4) };
        let mut tensor = json!({"name": output.name, "datatype": datatype, "shape": shape});
        if output.binary {
            tensor["parameters"] = json!({"binary_data_size": labels.ids.len() * size});
            match output.name {
                LABELS => tensors.extend_from_slice(&labels.ids),
                _ => tensors.extend(answer.confidence.iter().flat_map(|value| value.to_le_bytes())),
            }
        }
        text += if at > 0 { "," } else { "" };
        text += &tensor.to_string();
        if !output.binary {
            text.pop();
            text += ",\"data\":[";
            match output.name {
                LABELS => list(&mut text, labels.ids.iter()),
                _ => list(&mut text, answer.confidence.iter()),
            }
            text += "]}";
        }
    }
    text += "]}";
    Ok((text.into_bytes(), tensors))
}

fn list<T: std::fmt::Display>(text: &mut String, values: impl Iterator<Item = T>) {
    use std::fmt::Write;
    for (at, value) in values.enumerate() {
        // Writing to a string does not fail.
        let _ = write!(text, "{}{value}", if at > 0 { "," } else { "" });
    }
}

/// `POST /v2/repository/index`.
pub(super) async fn index(State(app): State<Arc<App>>) -> Response {
    let entry = |(name, loaded): (String, Option<_>)| json!({"name": name, "version": VERSION, "state": if loaded.is_some() { "READY" } else { "UNAVAILABLE" }, "reason": ""});
    respond(&Value::Array(app.models.index().into_iter().map(entry).collect()))
}

/// `POST /v2/repository/models/{m}/load`.
pub(super) async fn load(
    State(app): State<Arc<App>>,
    Path(path): Path<Named>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    app.tokens.check_admin(&headers)?;
    known(&app, &path.model)?;
    let at_work = app.clone();
    let loading = tokio::task::spawn_blocking(move || at_work.models.load(&path.model));
    let loaded = loading.await.map_err(|_| crate::Error::new("loading the model failed")).and_then(|loaded| loaded);
    app.metrics.loaded(loaded.is_ok());
    let loaded = loaded.map_err(|error| Fault::of(&error, StatusCode::UNPROCESSABLE_ENTITY, "model_damaged"))?;
    Ok(respond(&json!({"name": loaded.name, "state": "READY", "checksum": loaded.version})))
}

/// `POST /v2/repository/models/{m}/unload`.
pub(super) async fn unload(
    State(app): State<Arc<App>>,
    Path(path): Path<Named>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    app.tokens.check_admin(&headers)?;
    known(&app, &path.model)?;
    app.models.unload(&path.model).map_err(|error| Fault::of(&error, StatusCode::NOT_FOUND, "unknown_model"))?;
    Ok(respond(&json!({"name": path.model, "state": "UNAVAILABLE"})))
}

fn known(app: &App, name: &str) -> Result<(), Fault> {
    app.models.position(name).map(drop).map_err(|_| Fault::unknown_model(name, &app.models.names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, tensors: &[u8]) -> Result<Asked, Fault> {
        let body = Bytes::from([text.as_bytes(), tensors].concat());
        Asked::read(&body, Some(&text.len().to_string()))
    }

    #[test]
    fn images_are_taken_in_both_forms() {
        let input = |rest: &str| format!(r#"{{"inputs": [{{"name": "x", {rest}}}]}}"#);
        let file = |asked: Asked| match asked.picture {
            Picture::File(bytes) => bytes,
            Picture::Pixels(_) => panic!("not a file"),
        };
        let json = input(r#""datatype": "BYTES", "shape": [1], "data": ["aGk="]"#);
        assert_eq!(file(read(&json, b"").unwrap()), "hi");
        let binary = input(r#""datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 6}"#);
        assert_eq!(file(read(&binary, b"\x02\0\0\0hi").unwrap()), "hi");
        for (shape, data) in [("[1, 1, 2, 3]", "[[[[1, 2, 3], [4, 5, 6]]]]"), ("[1, 2, 3]", "[1, 2, 3, 4, 5, 6]")] {
            let json = input(&format!(r#""datatype": "UINT8", "shape": {shape}, "data": {data}"#));
            let Picture::Pixels(image) = read(&json, b"").unwrap().picture else { panic!("not pixels") };
            assert_eq!(image, Image { width: 2, height: 1, pixels: vec![1, 2, 3, 4, 5, 6] });
        }
        let wrong = [
            r#""datatype": "BYTES", "shape": [2], "data": ["aGk=", "aGk="]"#,
            r#""datatype": "BYTES", "shape": [1], "data": ["?"]"#,
            r#""datatype": "BYTES", "shape": [1]"#,
            r#""datatype": "FP32", "shape": [1, 1, 1, 3], "data": [1, 2, 3]"#,
            r#""datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2]"#,
            r#""datatype": "UINT8", "shape": [1, 0, 1, 3], "data": []"#,
            r#""datatype": "UINT8", "shape": [4294967296, 4294967296, 3], "data": []"#,
            r#""datatype": "UINT8", "shape": [1, 1, 1, 3], "parameters": {"binary_data_size": 3}"#,
        ];
        for wrong in wrong {
            assert_eq!(read(&input(wrong), b"").err().unwrap().status.as_u16(), 400, "{wrong}");
        }
        assert!(read("{", b"").is_err() && read(r#"{"inputs": []}"#, b"").is_err());
    }
}
