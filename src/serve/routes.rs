//! Which address leads where, and what every request goes through.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::error::{Error, Result};
use crate::page::{self, File};
use crate::serve::app::App;
use crate::serve::error::Fault;
use crate::serve::page::POLICY;
use crate::serve::request_id::{self, Ids};
use crate::serve::{label_studio, oip, openapi, respond, sagemaker, segment, upload};

/// Routes that ask for no token, as do the files of the page, which asks for it.
const OPEN: [&str; 7] =
    ["/openapi.json", "/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready", "/labelstudio/health"];

/// All routes. `origins`: pages elsewhere that may ask.
///
/// # Errors
/// Origins that are not such.
pub(super) fn router(app: Arc<App>, origins: &[String]) -> Result<Router> {
    let mut router = Router::new()
        .route("/v1/segment", post(segment::segment))
        .route("/v1/models", get(segment::models))
        .route("/v1/models/{model}", get(segment::model))
        .route("/openapi.json", get(document))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/v2", get(oip::server))
        .route("/v2/health/live", get(oip::live))
        .route("/v2/health/ready", get(oip::ready))
        .route("/v2/models/{model}", get(oip::model))
        .route("/v2/models/{model}/ready", get(oip::model_ready))
        .route("/v2/models/{model}/infer", post(oip::infer))
        .route("/v2/models/{model}/versions/{version}", get(oip::model))
        .route("/v2/models/{model}/versions/{version}/ready", get(oip::model_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(oip::infer))
        .route("/v2/repository/index", post(oip::index))
        .route("/v2/repository/models/{model}/load", post(oip::load))
        .route("/v2/repository/models/{model}/unload", post(oip::unload))
        .route("/ping", get(sagemaker::ping))
        .route("/invocations", post(sagemaker::invocations))
        .route("/labelstudio/health", get(label_studio::health))
        .route("/labelstudio/setup", post(label_studio::setup))
        .route("/labelstudio/predict", post(label_studio::predict));
    for file in page::of_server() {
        router = router.route(&address(file), get(move || send(file.content_type, file.bytes)));
    }
    let origins: Arc<[String]> = origins.into();
    let guard = Guard { app: app.clone(), origins: origins.clone(), ids: Arc::new(Ids::new()) };
    let router = router
        .fallback(async |request: Request| Fault::not_found(request.uri().path()))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed on this request")
                .hint("report it: it is a fault of the program")
                .into_response()
        }))
        .layer(middleware::from_fn_with_state(guard, guarded))
        .with_state(app);
    Ok(if origins.is_empty() { router } else { router.layer(cors(&origins)?) })
}

fn cors(origins: &[String]) -> Result<CorsLayer> {
    let value = |origin: &String| {
        let wrong = || {
            Error::new(format!("`{origin}` is not an origin"))
                .with_hint("give it as https://example.org, without a path")
        };
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")).ok_or_else(wrong)?;
        if host.is_empty() || host.contains(['/', '*', ' ', ',']) {
            return Err(wrong());
        }
        HeaderValue::from_str(origin).map_err(|_| wrong())
    };
    let origins = origins.iter().map(value).collect::<Result<Vec<_>>>()?;
    Ok(CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT])
        .expose_headers([HeaderName::from_static("server-timing"), header::RETRY_AFTER, request_id::NAME]))
}

#[derive(Clone)]
struct Guard {
    app: Arc<App>,
    origins: Arc<[String]>,
    ids: Arc<Ids>,
}

/// What every request goes through: its id, its token, where it comes from; and its answer is counted.
async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (start, id) = (Instant::now(), guard.ids.of(request.headers()));
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let refused = refused(&guard, &route, &request);
    let mut response = match refused {
        None => next.run(request).await,
        Some(fault) => {
            upload::discard(request.into_body()).await;
            fault.into_response()
        }
    };
    let status = response.status();
    if status.is_client_error() && response.extensions().get::<&'static str>().is_none() {
        response = plain(status).into_response();
    }
    let headers = response.headers_mut();
    headers.insert(request_id::NAME, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    guard.app.metrics.request(&route, status.as_u16(), start.elapsed());
    response
}

fn refused(guard: &Guard, route: &str, request: &Request) -> Option<Fault> {
    let headers = request.headers();
    // A page elsewhere makes a browser ask, which tells so; what answers it could not be read, but it costs as much.
    let site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    let known = headers.get(header::ORIGIN).is_some_and(|origin| guard.origins.iter().any(|known| origin == known));
    if site && !known && request.method() == Method::POST {
        return Some(
            Fault::new(StatusCode::FORBIDDEN, "forbidden", "pages of other origins may not ask")
                .hint("start the server with --cors ORIGIN"),
        );
    }
    let open = OPEN.contains(&route) || page::of_server().any(|file| address(file) == route);
    if open { None } else { guard.app.tokens.check_user(headers).err() }
}

/// A status that no handler gave.
fn plain(status: StatusCode) -> Fault {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            Fault::new(status, "method_not_allowed", "this address does not take the method").hint("see /openapi.json")
        }
        StatusCode::NOT_FOUND => {
            Fault::new(status, "not_found", "there is nothing at this address").hint("see /openapi.json")
        }
        _ => Fault::new(status, "bad_request", "the request cannot be understood").hint("see /openapi.json"),
    }
}

async fn document(State(app): State<Arc<App>>) -> Response {
    respond::json(&openapi::document(app.tokens.are_asked()))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, KIND)], app.metrics.text(&app.gate)).into_response()
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    let ready = app.phase.is_ready();
    let mut response = respond::json(&json!({"ready": ready, "waiting": app.queue.len()}));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Where a file of the page is found.
fn address(file: &File) -> String {
    format!("/{}", if file.path == "index.html" { "" } else { file.path })
}

async fn send(kind: &'static str, bytes: &'static [u8]) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("permissions-policy"), "camera=(self)"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
