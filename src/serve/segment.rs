//! `/v1`: an image in, labels out, in one of the forms that `predict` writes; and the models.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::page::color;
use crate::serve::app::App;
use crate::serve::ask::{Ask, pairs};
use crate::serve::error::Fault;
use crate::serve::gate::Permit;
use crate::serve::loaded::Loaded;
use crate::serve::output::{Output, encode};
use crate::serve::respond::encoded;
use crate::serve::work::Wanted;
use crate::serve::{respond, submit, upload};

/// `POST /v1/segment`.
pub(super) async fn segment(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let read = pairs(query.as_deref()).and_then(|pairs| {
        let ask = Ask::read(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        // Refused before the body is read.
        ask.answered(&headers)?;
        app.models.get(ask.model.as_deref())?;
        Ok(ask)
    });
    match read {
        Ok(ask) => labelled(&app, ask, &headers, body).await,
        Err(fault) => {
            upload::discard(body).await;
            Err(fault)
        }
    }
}

/// Reads the body, labels the image in it, and answers as is asked.
pub(super) async fn labelled(app: &Arc<App>, mut ask: Ask, headers: &HeaderMap, body: Body) -> Result<Response, Fault> {
    if let Err(fault) = app.phase.check() {
        upload::discard(body).await;
        return Err(fault);
    }
    let mut permit = app.gate.permit();
    let bytes = upload::read(headers, body, &app.limits, &mut permit).await?;
    let bytes = image_of(headers, bytes, &mut ask).await?;
    let (model, output) = (app.models.get(ask.model.as_deref())?, ask.answered(headers)?);
    answer(app, model, bytes, permit, (ask, output)).await
}

async fn answer(
    app: &Arc<App>,
    model: Arc<Loaded>,
    bytes: Bytes,
    permit: Permit,
    (ask, output): (Ask, Output),
) -> Result<Response, Fault> {
    let wanted = if output == Output::Page { Wanted::Tokens } else { Wanted::Labels };
    let answer = submit::file(app, model, bytes, wanted, permit).await?;
    let name = ask.name.unwrap_or_else(|| "image".to_owned());
    let encoded = encoded(app, answer, move |answer| encode(answer, output, ask.options, &name)).await?;
    Ok(encoded.response(output.content_type()))
}

/// The image of a body: all of it, or the part `image` of a multipart one, whose other parts are parameters.
async fn image_of(headers: &HeaderMap, bytes: Bytes, ask: &mut Ask) -> Result<Bytes, Fault> {
    let Some(boundary) = upload::boundary(headers) else {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.to_ascii_lowercase().starts_with("multipart/") {
            return Err(Fault::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                format!("`{kind}` names no boundary"),
            )
            .hint("send multipart/form-data, as `curl -F image=@photo.jpg` does"));
        }
        return Ok(bytes);
    };
    let mut image = None;
    for part in upload::parts(bytes, boundary).await? {
        match part.name.as_str() {
            "image" | "file" if image.is_some() => {
                return Err(Fault::bad_request("the body holds several images").hint("send one image per request"));
            }
            "image" | "file" => {
                if ask.name.is_none() {
                    ask.name = part.file_name.filter(|name| !name.is_empty());
                }
                image = Some(part.bytes);
            }
            name => {
                let value = std::str::from_utf8(&part.bytes)
                    .map_err(|_| Fault::bad_request(format!("the field `{name}` is not text")))?;
                ask.set(name, value.trim())?;
            }
        }
    }
    image.ok_or_else(|| {
        Fault::bad_request("the body has no part `image`").hint("send it as `curl -F image=@photo.jpg` does")
    })
}

/// `GET /v1/models`.
pub(super) async fn models(State(app): State<Arc<App>>) -> Response {
    let all = app.models.all();
    let models: Vec<Value> = all.iter().map(|model| described(model, model.name == app.models.first())).collect();
    let limits = json!({"image_bytes": app.limits.body_bytes, "pixels": app.limits.pixels});
    respond::json(&json!({"models": models, "limits": limits}))
}

/// `GET /v1/models/{m}`.
pub(super) async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, Fault> {
    let model = app.models.get(Some(&name))?;
    Ok(respond::json(&described(&model, model.name == app.models.first())))
}

fn described(model: &Loaded, first: bool) -> Value {
    let classes = model.predictor.classes();
    let class = |(id, name): (usize, &String)| json!({"id": id, "name": name, "color": color(classes.colors.get(id))});
    json!({
        "name": model.name,
        "default": first,
        "version": model.version,
        "classes": classes.names.iter().enumerate().map(class).collect::<Vec<_>>(),
        "architecture": model.architecture,
        "window": model.settings.crop,
        "tokens": model.has_tokens,
        "parameters": model.parameters,
        "miou": model.miou,
    })
}
