//! Answers are the bytes of `predict`'s files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use structtoken::image::{RawMask, decode_mask};

use super::client::{MULTIPART, Response, Server, multipart};
use super::{jpeg, model, png, predicted};
use crate::cli::Lab;

#[test]
fn every_output_is_what_predict_writes() {
    let (lab, model) = (Lab::new(), model());
    let photo = jpeg(3, 90, 61);
    lab.write("photos/a.jpg", &photo);
    lab.ok(&[
        "predict",
        &model,
        "photos/a.jpg",
        "--out",
        "out",
        "--device",
        "cpu",
        "--min-area",
        "20",
        "--format",
        "png,overlay,geojson,coco,coco-rle,stats,npy",
    ]);
    let server = Server::start(&lab, &[&model]);
    let outputs = [
        ("mask", "a.png", "image/png"),
        ("overlay", "a_overlay.png", "image/png"),
        ("geojson", "a.geojson", "application/geo+json"),
        ("coco", "coco.json", "application/json"),
        ("rle", "coco_rle.json", "application/json"),
        ("stats", "a_stats.json", "application/json"),
        ("npy", "a.npy", "application/x-npy"),
    ];
    let form = multipart("a.jpg", &photo, &[]);
    let text = String::from_utf8_lossy;
    for (output, file, kind) in outputs {
        let expected = std::fs::read(lab.path("out").join(file)).unwrap();
        let path = format!("/v1/segment?output={output}&min_area=20");
        let raw = server.post(&format!("{path}&name=a.jpg"), &photo);
        assert_eq!((raw.status, raw.header("content-type")), (200, Some(kind)), "{}", raw.text());
        assert!(raw.body == expected, "{output}: {} for {}", raw.text(), text(&expected));
        let timing = raw.header("server-timing").unwrap();
        assert!(
            ["queue;dur=", "decode;dur=", "infer;dur=", "encode;dur="].iter().all(|part| timing.contains(part)),
            "{timing}"
        );
        let parts = server.ask("POST", &path, &[MULTIPART], &form);
        assert!(parts.status == 200 && parts.body == expected, "{output}: {}", parts.text());
    }
    // By what is accepted, and by the fields of a form.
    let expected = |file: &str| std::fs::read(lab.path("out").join(file)).unwrap();
    let accepting = |kind| server.ask("POST", "/v1/segment?name=a.jpg", &[("Accept", kind)], &photo);
    assert!(accepting("image/png").body == expected("a.png"));
    assert!(accepting("application/x-npy").body == expected("a.npy"));
    assert!(accepting("application/json").body == expected("a_stats.json"));
    let fields = multipart("a.jpg", &photo, &[("output", "geojson"), ("min_area", "20")]);
    assert!(server.ask("POST", "/v1/segment", &[MULTIPART], &fields).body == expected("a.geojson"));
    let within = server.ask("POST", "/v1/segment?output=mask", &[("Accept", "application/json")], &photo).json();
    assert_eq!((within["width"].as_u64(), within["height"].as_u64()), (Some(90), Some(61)));
    assert!(STANDARD.decode(within["mask"].as_str().unwrap()).unwrap() == expected("a.png"));
    assert_eq!(server.metric("structtoken_images_total"), 19.0);
}

#[test]
fn many_at_once_get_what_each_gets_alone() {
    let (lab, model) = (Lab::new(), model());
    let sizes = [(40, 33), (40, 33), (40, 33), (64, 64), (33, 40), (40, 33), (90, 20), (64, 64)];
    let photos: Vec<_> = (0..).zip(sizes).map(|(seed, (width, height))| png(seed, width, height)).collect();
    let server = Server::start(&lab, &[&model]);
    let expected: Vec<_> = (0..)
        .zip(&photos)
        .map(|(at, photo): (usize, _)| {
            let name = format!("{at}.png");
            lab.write(&name, photo);
            predicted(&lab, &model, &name, &[])
        })
        .collect();
    std::thread::scope(|scope| {
        for round in 0..6 {
            for (at, (photo, expected)) in photos.iter().zip(&expected).enumerate() {
                let server = &server;
                scope.spawn(move || {
                    let answer = server.post("/v1/segment?output=mask", photo);
                    assert_eq!(answer.status, 200, "{round} {at}: {}", answer.text());
                    assert!(answer.body == *expected, "{round} {at}");
                });
            }
        }
    });
    assert_eq!(server.metric("structtoken_queue_cost"), 0.0);
    assert_eq!(server.metric("structtoken_queue_bytes"), 0.0);
    assert_eq!(server.metric("structtoken_images_together_sum"), 48.0, "each image is in one pass");
}

#[test]
fn the_page_gets_confidence_and_tokens() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&format!("tiny={model}")]);
    for (path, kind, say) in [
        ("/", "text/html", "<html"),
        ("/app.js", "text/javascript", ""),
        ("/style.css", "text/css", ""),
        ("/icon.svg", "image/svg+xml", "<svg"),
    ] {
        let file = server.get(path);
        assert!(file.status == 200 && file.header("content-type").unwrap().starts_with(kind), "{path}");
        assert!(file.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        assert!(file.text().contains(say));
    }
    let photo = png(1, 50, 41);
    lab.write("a.png", &photo);
    let mask = predicted(&lab, &model, "a.png", &[]);
    let found = server.post("/v1/segment?output=page", &photo).json();
    let values = |bytes: &[u8]| match decode_mask(bytes).unwrap() {
        RawMask::Index { values, width, height, .. } => (values, width, height),
        mask => panic!("{mask:?}"),
    };
    let picture = |value: &serde_json::Value| values(&STANDARD.decode(value.as_str().unwrap()).unwrap());
    let (ids, width, height) = picture(&found["mask"]);
    assert_eq!((&ids, width, height), (&values(&mask).0, 50, 41));
    let confidence = picture(&found["confidence"]).0;
    let classes = found["classes"].as_array().unwrap();
    assert_eq!(classes.iter().map(|class| class["pixels"].as_u64().unwrap()).sum::<u64>(), 50 * 41);
    for class in classes {
        let of = ids.iter().zip(&confidence).filter(|(id, _)| u64::from(**id) == class["id"].as_u64().unwrap());
        let (sum, count) = of.fold((0.0, 0.0), |(sum, count), (_, p)| (sum + f64::from(*p) / 255.0, count + 1.0));
        assert!((class["mean_confidence"].as_f64().unwrap() - sum / count).abs() < 0.01, "{class}");
        assert!(class["color"].as_str().unwrap().starts_with('#'));
    }
    let tokens = &found["tokens"];
    assert_eq!(tokens["blocks"], serde_json::json!(["learned tokens", "after block 1", "after block 2", "logits"]));
    assert_eq!((tokens["width"].as_f64(), tokens["height"].as_f64()), (Some(56.0), Some(48.0)), "whole patches");
    let maps = tokens["maps"].as_array().unwrap();
    assert!(maps.len() == 4 && maps.iter().all(|maps| maps.as_array().unwrap().len() == classes.len()));
    // The last tokens are the answer.
    let (last, wide, high) = picture(&tokens["labels"][3]);
    let at = |x: usize, y: usize| last[y * high / 48 * wide + x * wide / 56];
    let same = (0..50 * 41).filter(|at_pixel| at(at_pixel % 50, at_pixel / 50) == ids[*at_pixel]).count();
    assert!(same * 10 > 50 * 41 * 8, "{same}");
    let models = server.get("/v1/models").json();
    assert_eq!(
        (models["models"][0]["name"].as_str(), models["models"][0]["tokens"].as_bool()),
        (Some("tiny"), Some(true))
    );
    assert_eq!(server.get("/v1/models/tiny").json(), models["models"][0]);
    server.get("/v1/models/other").fault(404, "unknown_model");
}

/// What the document names is there, and takes the method.
#[test]
fn the_document_names_what_there_is() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&format!("m={model}")]);
    let document = server.get("/openapi.json").json();
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for method in ["get", "post"] {
            let answer = server.ask(&method.to_uppercase(), &path.replace("{model}", "m"), &[], b"");
            let responses = &methods[method]["responses"];
            match methods.get(method) {
                None => drop(answer.fault(405, "method_not_allowed")),
                Some(_) => {
                    assert!(responses.get(answer.status.to_string()).is_some(), "{method} {path}: {}", answer.status)
                }
            }
        }
    }
    assert!(paths.len() > 15);
    let id = server.ask("GET", "/healthz", &[("X-Request-Id", "abc")], b"");
    assert_eq!((id.header("x-request-id"), id.text().as_str()), (Some("abc"), "ok"));
    server.get("/nothing").fault(404, "not_found");
}

/// One connection, many requests.
#[test]
fn a_connection_is_kept() {
    use std::io::{Read, Write};
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&model]);
    let (mut stream, photo) = (server.connect(), png(1, 40, 33));
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let head =
            format!("POST /v1/segment?output=npy HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", photo.len());
        stream.write_all(&[head.as_bytes(), &photo].concat()).unwrap();
        let mut bytes = Vec::new();
        let whole = loop {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "closed");
            bytes.extend(&part[..read]);
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if end.is_some_and(|end| bytes.len() - end - 4 == 128 + 40 * 33) {
                break Response::parse(&bytes).unwrap();
            }
        };
        bodies.push(whole.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}
