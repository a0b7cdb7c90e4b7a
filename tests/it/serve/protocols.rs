//! The protocols of others: Open Inference Protocol, SageMaker, Label Studio.

use std::io::{Read, Write};
use std::net::TcpListener;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use structtoken::image::outlines::decode_label_studio;
use structtoken::image::{RawMask, decode_image, decode_mask};

use super::client::{Response, Server};
use super::{model, png, predicted};
use crate::cli::Lab;

fn ids(mask: &[u8]) -> Vec<u8> {
    match decode_mask(mask).unwrap() {
        RawMask::Index { values, .. } => values.into_iter().map(|id| id as u8).collect(),
        mask => panic!("{mask:?}"),
    }
}

#[test]
fn tensors_go_in_and_out_as_json_and_as_bytes() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&format!("m={model}")]);
    let photo = png(5, 48, 37);
    lab.write("a.png", &photo);
    let expected = ids(&predicted(&lab, &model, "a.png", &[]));
    assert!(server.get("/v2").json()["extensions"].as_array().unwrap().contains(&"binary_tensor_data".into()));
    assert_eq!((server.get("/v2/health/live").status, server.get("/v2/health/ready").status), (200, 200));
    assert_eq!(server.get("/v2/models/m").json()["outputs"][0]["name"], "labels");
    assert_eq!(server.get("/v2/models/m/versions/1/ready").json()["ready"], true);
    server.get("/v2/models/m/versions/2").fault(404, "unknown_model");

    let labels = |answer: &Value| -> Vec<u8> {
        assert_eq!(
            (&answer["outputs"][0]["shape"], &answer["outputs"][0]["datatype"]),
            (&json!([1, 37, 48]), &json!("UINT8"))
        );
        serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap()
    };
    let infer = |body: &Value| server.post("/v2/models/m/infer", body.to_string().as_bytes());
    let file = json!({"id": "7", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [STANDARD.encode(&photo)]}]});
    let answer = infer(&file);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (answer["id"].as_str(), answer["model_name"].as_str(), answer["model_version"].as_str()),
        (Some("7"), Some("m"), Some("1"))
    );
    assert_eq!(labels(&answer), expected);

    let pixels = decode_image(&photo).unwrap().pixels;
    for shape in [json!([1, 37, 48, 3]), json!([37, 48, 3])] {
        let answer = infer(
            &json!({"inputs": [{"name": "x", "datatype": "UINT8", "shape": shape, "data": pixels}], "outputs": [{"name": "labels"}, {"name": "confidence"}]}),
        );
        let answer = answer.json();
        assert_eq!(labels(&answer), expected);
        let confidence: Vec<f32> = serde_json::from_value(answer["outputs"][1]["data"].clone()).unwrap();
        assert!(confidence.len() == expected.len() && confidence.iter().all(|p| (0.0..=1.0).contains(p)));
    }
    let binary = |head: &Value, tensor: &[u8]| {
        let head = head.to_string();
        let length = head.len().to_string();
        let headers = [("Inference-Header-Content-Length", length.as_str())];
        server.ask("POST", "/v2/models/m/infer", &headers, &[head.as_bytes(), tensor].concat())
    };
    let split = |answer: &Response| -> (Value, Vec<u8>) {
        let length = answer.header("inference-header-content-length").unwrap().parse::<usize>().unwrap();
        let (head, tensors) = answer.body.split_at(length);
        (serde_json::from_slice(head).unwrap(), tensors.to_vec())
    };
    let element = [&(photo.len() as u32).to_le_bytes()[..], &photo].concat();
    let head = json!({
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": element.len()}}],
        "outputs": [{"name": "confidence", "parameters": {"binary_data": true}}, {"name": "labels", "parameters": {"binary_data": true}}],
    });
    let (answer, tensors) = split(&binary(&head, &element));
    assert_eq!(answer["outputs"][0]["parameters"]["binary_data_size"], 4 * expected.len());
    assert_eq!(tensors[4 * expected.len()..], expected);
    let head = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 37, 48, 3], "parameters": {"binary_data_size": pixels.len()}}],
    });
    let (answer, tensors) = split(&binary(&head, &pixels));
    assert_eq!((answer["outputs"].as_array().unwrap().len(), tensors), (1, expected));

    let broken = [
        binary(&head, &pixels[1..]),
        server.ask("POST", "/v2/models/m/infer", &[("Inference-Header-Content-Length", "99999999")], b"{}"),
        server.post("/v2/models/m/infer", b"{"),
        infer(&json!({"inputs": []})),
        infer(&json!({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["%"]}]})),
        infer(&json!({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 300]}]})),
        infer(&json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}]})),
        infer(&json!({"inputs": file["inputs"], "outputs": [{"name": "other"}]})),
        server.post("/v2/models/m/infer", "[".repeat(100_000).as_bytes()),
    ];
    for answer in broken {
        answer.fault(400, "bad_request");
    }
    infer(&json!({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["aGk="]}]}))
        .fault(415, "not_an_image");
    server.post("/v2/models/x/infer", b"{}").fault(404, "unknown_model");
}

#[test]
fn sagemaker_asks_by_headers() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&format!("m={model}"), &format!("n={model}")]);
    let photo = png(5, 48, 37);
    assert_eq!(server.get("/ping").status, 200);
    let ask = |headers: &[(&str, &str)]| server.ask("POST", "/invocations", headers, &photo);
    assert!(ask(&[("Accept", "image/png")]).body == server.post("/v1/segment?output=mask", &photo).body);
    assert_eq!(ask(&[]).json()["width"], 48);
    let attributes =
        [("X-Amzn-SageMaker-Custom-Attributes", "output=geojson, min_area=9"), ("X-Amzn-SageMaker-Target-Model", "n")];
    assert!(ask(&attributes).body == server.post("/v1/segment?output=geojson&min_area=9&model=n", &photo).body);
    ask(&[("X-Amzn-SageMaker-Custom-Attributes", "output=x")]).fault(400, "bad_request");
    ask(&[("X-Amzn-SageMaker-Target-Model", "x")]).fault(404, "unknown_model");
    ask(&[("Accept", "text/csv")]).fault(406, "not_acceptable");
}

/// A host that gives one image to whoever has its token, and leads elsewhere; what it was asked.
fn studio(photo: Vec<u8>) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let answer = match (head.contains("Token studio-token-0123456789"), head.split(' ').nth(1)) {
                (true, Some("/data/upload/1/a.png")) => {
                    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", photo.len()).as_bytes(), &photo].concat()
                }
                (true, Some("/moved")) => {
                    b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n".to_vec()
                }
                (true, Some("/endless")) => [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![0; 3 << 20]].concat(),
                _ => b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            let _ = stream.write_all(&answer);
            let _ = tell.send(head.lines().next().unwrap_or_default().to_owned());
        }
    });
    (format!("http://{address}"), told)
}

#[test]
fn label_studio_gets_brush_strokes_of_its_images() {
    let (lab, model) = (Lab::new(), model());
    let photo = png(5, 48, 37);
    lab.write("a.png", &photo);
    let expected = ids(&predicted(&lab, &model, "a.png", &[]));
    let (host, told) = studio(photo.clone());
    lab.write("studio", "studio-token-0123456789");
    let server = Server::start(
        &lab,
        &[&format!("m={model}"), "--label-studio", &host, "--label-studio-token-file", "studio", "--max-body-mb", "1"],
    );
    let health = server.get("/labelstudio/health").json();
    assert_eq!(health["status"], "UP");
    let names: Vec<String> = server.get("/v1/models/m").json()["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["name"].as_str().unwrap().to_owned())
        .collect();
    let labels: String = names.iter().map(|name| format!("<Label value=\"{name}\"/>")).collect();
    let xml = |labels: &str| {
        format!(
            "<View><Image name=\"img\" value=\"$photo\"/><BrushLabels name=\"tag\" toName=\"img\">{labels}</BrushLabels></View>"
        )
    };
    let post = |path: &str, body: &Value| server.post(path, body.to_string().as_bytes());
    let setup = post("/labelstudio/setup", &json!({"project": "1.2", "schema": xml(&labels), "hostname": host})).json();
    let predict = |link: &str, labels: &str| {
        let task = json!({"id": 3, "data": {"photo": link, "other": 1}});
        post("/labelstudio/predict", &json!({"tasks": [task], "label_config": xml(labels), "params": {}}))
    };
    let inline = format!("data:image/png;base64,{}", STANDARD.encode(&photo));
    for link in ["/data/upload/1/a.png", &format!("{host}/data/upload/1/a.png"), &inline] {
        let answer = predict(link, &labels);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let prediction = &answer["results"][0];
        assert_eq!(prediction["model_version"], setup["model_version"]);
        assert!((0.0..=1.0).contains(&prediction["score"].as_f64().unwrap()));
        let mut found = vec![255; expected.len()];
        for region in prediction["result"].as_array().unwrap() {
            assert_eq!((region["from_name"].as_str(), region["to_name"].as_str()), (Some("tag"), Some("img")));
            let rle: Vec<u8> = serde_json::from_value(region["value"]["rle"].clone()).unwrap();
            let name = region["value"]["brushlabels"][0].as_str().unwrap();
            let id = names.iter().position(|known| known == name).unwrap() as u8;
            let covered = decode_label_studio(&rle, 48, 37).unwrap();
            covered.iter().zip(&mut found).filter(|(covered, _)| **covered > 0).for_each(|(_, found)| *found = id);
        }
        assert_eq!(found, expected);
    }
    assert_eq!(told.try_iter().count(), 2);
    let one = predict(&inline, "<Label value=\"none of them\"/>").json();
    assert_eq!(one["results"][0]["result"], json!([]), "labels that the project does not have");
    for link in ["http://127.0.0.1:1/a.png", "https://example.org/a.png", "//example.org/a.png", "file:///etc/passwd"] {
        predict(link, &labels).fault(403, "forbidden");
    }
    assert_eq!(told.try_iter().count(), 0, "nothing is fetched for those");
    predict("/moved", &labels).fault(502, "fetch_failed");
    predict("/none", &labels).fault(502, "fetch_failed");
    predict("/endless", &labels).fault(413, "body_too_large");
    predict("data:image/png;base64,?", &labels).fault(400, "bad_request");
    post("/labelstudio/predict", &json!({"tasks": [{"data": {}}]})).fault(400, "bad_request");
    post("/labelstudio/predict", &json!({"tasks": 1})).fault(400, "bad_request");
    post("/labelstudio/setup", &json!({"schema": "<View/>"})).fault(400, "bad_request");
    assert_eq!(post("/labelstudio/predict", &json!({"tasks": []})).json(), json!({"results": []}));
    // Without a host nothing is fetched, and the hint says how.
    let alone = Server::start(&lab, &[&model]);
    let task = json!({"tasks": [{"data": {"image": "/data/upload/1/a.png"}}]}).to_string();
    let fault = alone.post("/labelstudio/predict", task.as_bytes()).fault(403, "forbidden");
    assert!(fault["hint"].as_str().unwrap().contains("--label-studio http://HOST:PORT"));
    lab.refused(&["serve", &model, "--label-studio", "https://studio"], &["http://"]);
}
