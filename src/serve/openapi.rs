//! `/openapi.json`: the routes, for programs.

use serde_json::{Value, json};

use crate::serve::output::Output;

/// The document. `secured`: a token is asked for.
pub(super) fn document(secured: bool) -> Value {
    let security = if secured { json!([{"token": []}]) } else { json!([]) };
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "structtoken",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Semantic segmentation: an image in, the class of every pixel out.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": security,
        "paths": paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
        },
    })
}

fn paths() -> Value {
    let open = json!([]);
    let model = json!({"name": "model", "in": "path", "required": true, "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]*$"}});
    let anything = || {
        with_faults(
            json!({"200": {"description": "JSON", "content": {"application/json": {"schema": {"type": "object"}}}}}),
            &[],
        )
    };
    let get = |summary: &str, responses: Value| json!({"get": {"summary": summary, "responses": responses}});
    let free = |mut path: Value| {
        path["get"]["security"] = open.clone();
        path
    };
    let health = || json!({"200": {"description": "Ready"}, "503": fault("Draining")});
    json!({
        "/v1/segment": {"post": {
            "summary": "Label an image",
            "parameters": segment_parameters(),
            "requestBody": image_body(),
            "responses": segment_responses(),
        }},
        "/v1/models": get("List the models", with_faults(json!({"200": {"description": "The models", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Models"}}}}}), &[])),
        "/v1/models/{model}": {"parameters": [model], "get": {
            "summary": "Describe a model",
            "responses": with_faults(json!({"200": {"description": "The model", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Model"}}}}}), &["404"]),
        }},
        "/openapi.json": free(get("This document", json!({"200": {"description": "JSON", "content": {"application/json": {"schema": {"type": "object"}}}}}))),
        "/metrics": get("Counters, as Prometheus reads them", with_faults(json!({"200": {"description": "Text", "content": {"application/openmetrics-text": {"schema": {"type": "string"}}}}}), &[])),
        "/healthz": free(get("Whether the process lives", json!({"200": {"description": "It does"}}))),
        "/readyz": free(get("Whether requests should be sent", health())),
        "/v2": get("Describe the server (Open Inference Protocol)", anything()),
        "/v2/health/live": free(get("Whether the process lives", json!({"200": {"description": "It does"}}))),
        "/v2/health/ready": free(get("Whether requests should be sent", health())),
        "/v2/models/{model}": {"parameters": [model], "get": {
            "summary": "Describe a model's tensors", "responses": with_faults(anything(), &["404"])}},
        "/v2/models/{model}/ready": {"parameters": [model], "get": {
            "summary": "Whether a model is loaded", "responses": with_faults(anything(), &["404"])}},
        "/v2/models/{model}/infer": {"parameters": [model], "post": {
            "summary": "Label an image given as a tensor",
            "parameters": [{"name": "Inference-Header-Content-Length", "in": "header", "required": false,
                "description": "The length of the JSON, where binary tensors follow it", "schema": {"type": "integer", "minimum": 0}}],
            "requestBody": {"required": true, "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            }},
            "responses": with_faults(json!({"200": {"description": "Tensors", "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            }}}), &INFERENCE),
        }},
        "/v2/repository/index": {"post": {"summary": "List the models, loaded or not", "responses": with_faults(json!({"200": {"description": "The models", "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}}}}), &[])}},
        "/v2/repository/models/{model}/load": {"parameters": [model], "post": {
            "summary": "Load a model's file again; with the administrator's token", "responses": with_faults(anything(), &["403", "404", "422"])}},
        "/v2/repository/models/{model}/unload": {"parameters": [model], "post": {
            "summary": "Stop serving a model; with the administrator's token", "responses": with_faults(anything(), &["403", "404"])}},
        "/ping": free(get("SageMaker's health check", health())),
        "/invocations": {"post": {
            "summary": "Label an image (SageMaker)",
            "parameters": [
                {"name": "X-Amzn-SageMaker-Custom-Attributes", "in": "header", "required": false, "description": "For instance output=geojson,min_area=20", "schema": {"type": "string"}},
                {"name": "X-Amzn-SageMaker-Target-Model", "in": "header", "required": false, "schema": {"type": "string"}},
            ],
            "requestBody": image_body(),
            "responses": segment_responses(),
        }},
        "/labelstudio/health": free(get("Label Studio's health check", health())),
        "/labelstudio/setup": {"post": {
            "summary": "Label Studio's greeting",
            "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Setup"}}}},
            "responses": with_faults(anything(), &["400", "404", "408", "413", "429"]),
        }},
        "/labelstudio/predict": {"post": {
            "summary": "Predictions for Label Studio's tasks",
            "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Predict"}}}},
            "responses": with_faults(anything(), &[&INFERENCE[..], &["403", "502"]].concat()),
        }},
    })
}

const INFERENCE: [&str; 10] = ["400", "404", "408", "413", "415", "422", "429", "500", "503", "504"];

fn fault(description: &str) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Fault"}}}})
}

/// The responses, with a fault for each of these statuses, and for a missing token.
fn with_faults(mut responses: Value, codes: &[&str]) -> Value {
    for code in codes.iter().chain(&["401"]) {
        responses[*code] = fault(match *code {
            "400" => "The request cannot be understood",
            "401" => "No valid token",
            "403" => "Not allowed",
            "404" => "No such model",
            "406" => "Nothing of what is accepted can be made",
            "408" => "The body did not arrive in time",
            "413" => "The body or the image is too large",
            "415" => "Not an image of a known format",
            "422" => "The file is damaged",
            "429" => "Too much work waits; see Retry-After",
            "502" => "Label Studio did not give the image",
            "503" => "The server is shutting down",
            "504" => "Not labelled in time",
            _ => "A fault of the server",
        });
    }
    responses
}

fn segment_parameters() -> Value {
    let names = Output::NAMED.map(|(name, _)| name);
    json!([
        {"name": "model", "in": "query", "required": false, "schema": {"type": "string"}},
        {"name": "output", "in": "query", "required": false, "description": "Without it, what the header Accept asks for", "schema": {"enum": names}},
        {"name": "min_area", "in": "query", "required": false, "description": "Pixels of the smallest region in annotations", "schema": {"type": "integer", "minimum": 0}},
        {"name": "tolerance", "in": "query", "required": false, "description": "Pixels that polygons may lie off the border", "schema": {"type": "number", "minimum": 0}},
        {"name": "name", "in": "query", "required": false, "description": "What the image is called in the answer", "schema": {"type": "string"}},
    ])
}

fn image_body() -> Value {
    let file = json!({"schema": {"type": "string", "format": "binary"}});
    json!({"required": true, "content": {
        "image/png": file,
        "image/jpeg": file,
        "application/octet-stream": file,
        "multipart/form-data": {"schema": {"type": "object", "required": ["image"], "properties": {"image": {"type": "string", "format": "binary"}}}},
    }})
}

fn segment_responses() -> Value {
    let file = json!({"schema": {"type": "string", "format": "binary"}});
    let ok = json!({"description": "The labels", "content": {
        "application/json": {"schema": {"type": "object"}},
        "application/geo+json": {"schema": {"type": "object"}},
        "image/png": file,
        "application/x-npy": file,
    }});
    with_faults(json!({"200": ok}), &[&INFERENCE[..], &["406"]].concat())
}

fn schemas() -> Value {
    let class = json!({"type": "object", "required": ["id", "name", "color"], "properties": {
        "id": {"type": "integer"}, "name": {"type": "string"}, "color": {"type": "string", "pattern": "^#[0-9a-f]{6}$"}}});
    json!({
        "Fault": {"type": "object", "required": ["code", "cause", "hint"], "properties": {
            "code": {"type": "string"}, "cause": {"type": "string"}, "hint": {"type": ["string", "null"]}}},
        "Class": class,
        "Model": {"type": "object", "required": ["name", "default", "version", "classes", "window", "tokens"], "properties": {
            "name": {"type": "string"}, "default": {"type": "boolean"}, "version": {"type": "string"},
            "classes": {"type": "array", "items": {"$ref": "#/components/schemas/Class"}},
            "architecture": {"type": "string"}, "window": {"type": "array", "items": {"type": "integer"}},
            "tokens": {"type": "boolean"}, "parameters": {"type": "integer"}, "miou": {"type": ["number", "null"]}}},
        "Models": {"type": "object", "required": ["models", "limits"], "properties": {
            "models": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
            "limits": {"type": "object", "properties": {"image_bytes": {"type": "integer"}, "pixels": {"type": "integer"}}}}},
        "InferRequest": {"type": "object", "required": ["inputs"], "properties": {
            "id": {"type": "string"}, "parameters": {"type": "object"},
            "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "object", "required": ["name", "datatype", "shape"], "properties": {
                "name": {"type": "string"}, "datatype": {"enum": ["BYTES", "UINT8"]}, "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
                "parameters": {"type": "object"}, "data": {"type": "array"}}}},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"enum": ["labels", "confidence"]}, "parameters": {"type": "object"}}}}}},
        "Setup": {"type": "object", "properties": {"schema": {"type": ["string", "null"]}}},
        "Predict": {"type": "object", "required": ["tasks"], "properties": {
            "tasks": {"type": "array", "items": {"type": "object", "required": ["data"], "properties": {"data": {"type": "object"}}}},
            "label_config": {"type": ["string", "null"]}}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference leads to a schema.
    #[test]
    fn references_are_there() {
        let document = document(true);
        let text = document.to_string();
        let mut found = 0;
        for rest in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
            found += 1;
        }
        assert!(found > 10 && document["security"][0].get("token").is_some());
    }
}
