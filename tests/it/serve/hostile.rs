//! Images and clients that mean harm: each is refused by itself, and the next is answered.

use std::io::{Read, Write};
use std::time::Instant;

use super::client::{MULTIPART, PATIENCE, Response, Server, multipart, until};
use super::{SLOW, jpeg, model, png};
use crate::cli::Lab;

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let sum = crc32fast::hash(&[kind.as_slice(), data].concat());
    [&(data.len() as u32).to_be_bytes()[..], kind, data, &sum.to_be_bytes()].concat()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(data).unwrap();
    writer.finish().unwrap()
}

/// A PNG of this size and depth whose data are of another.
fn claiming(width: u32, height: u32, bits: u8, color: u8, before: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[bits, color, 0, 0, 0]].concat();
    let data = chunk(b"IDAT", &zlib(&[0; 100]));
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..], before, &data, &chunk(b"IEND", b"")].concat()
}

/// What is sent, the statuses that answer it, and what the answers say.
type Case<'a> = (&'a str, Vec<u8>, &'a [u16], &'a [&'a str]);

#[test]
fn hostile_images_are_refused_one_by_one() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&model, "--max-pixels", "1", "--max-body-mb", "1", "--max-queue-mb", "4"]);
    let photo = png(1, 40, 33);
    let expected = server.post("/v1/segment?output=npy", &photo);
    assert_eq!(expected.status, 200);
    let photograph = jpeg(1, 200, 150);
    let mut scans = photograph.clone();
    let end = scans.split_off(photograph.len() - 2);
    scans.extend([0xff, 0xda].repeat(40));
    scans.extend(end);
    let gif = b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;".to_vec();
    let bmp = {
        let mut header = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        header.extend(60_000i32.to_le_bytes());
        header.extend(60_000i32.to_le_bytes());
        header.extend(b"\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        header
    };
    let polyglot = [b"GIF89a<script>".as_slice(), &photo].concat();
    // More pixels than this model's queue may hold, though fewer than an image may have.
    let cases: [Case; 15] = [
        ("nothing", Vec::new(), &[400], &["bad_request"]),
        ("text", b"hello".to_vec(), &[415], &["not_an_image"]),
        ("an array", b"\x93NUMPY\x01\0\x76\0".to_vec(), &[415], &["not_an_image"]),
        ("65k x 65k", claiming(65_535, 65_535, 8, 2, b""), &[413], &["image_too_large"]),
        ("30k x 30k of one bit", claiming(30_000, 30_000, 1, 0, b""), &[413], &["image_too_large"]),
        ("no height", claiming(10, 0, 8, 2, b""), &[422], &["image_damaged"]),
        ("fewer data than pixels", claiming(900, 900, 8, 2, b""), &[422], &["image_damaged"]),
        (
            "a text that inflates",
            claiming(900, 900, 8, 2, &chunk(b"zTXt", &[b"a\0\0", &zlib(&vec![0; 60_000_000])[..]].concat())),
            &[422],
            &["image_damaged"],
        ),
        (
            "a profile that inflates",
            claiming(900, 900, 8, 2, &chunk(b"iCCP", &[b"a\0\0", &zlib(&vec![0; 60_000_000])[..]].concat())),
            &[422],
            &["image_damaged"],
        ),
        ("many scans", scans, &[415], &["unsupported"]),
        ("half a PNG", photo[..photo.len() / 2].to_vec(), &[422], &["image_damaged"]),
        ("half a JPEG", photograph[..photograph.len() / 2].to_vec(), &[422], &["image_damaged"]),
        ("65k x 65k GIF", gif, &[413, 422], &["image_too_large", "image_damaged"]),
        ("60k x 60k BMP", bmp, &[413, 422], &["image_too_large", "image_damaged"]),
        ("two files in one", polyglot, &[413, 422], &["image_too_large", "image_damaged"]),
    ];
    for (what, bytes, statuses, codes) in cases {
        for form in [false, true] {
            let answer = match form {
                false => server.post("/v1/segment", &bytes),
                true => server.ask("POST", "/v1/segment", &[MULTIPART], &multipart("a.png", &bytes, &[])),
            };
            let fault = answer.json();
            assert!(statuses.contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
            assert!(codes.contains(&fault["code"].as_str().unwrap()), "{what}: {fault}");
            assert!(fault["hint"].is_string(), "{what}: {fault}");
        }
    }
    // Deep and odd ones that are pictures are read as `predict` reads them.
    let deep = image::ImageBuffer::<image::Rgb<u16>, Vec<u16>>::from_fn(40, 33, |x, y| {
        image::Rgb([x as u16 * 999, y as u16 * 999, 9])
    });
    let mut sixteen = Vec::new();
    deep.write_to(&mut std::io::Cursor::new(&mut sixteen), image::ImageFormat::Png).unwrap();
    assert_eq!(server.post("/v1/segment", &sixteen).status, 200);
    let fault = server.post("/v1/segment", &vec![0; (1 << 20) + 1]).fault(413, "body_too_large");
    assert!(fault["hint"].is_string());
    // Without a length, the body is measured as it comes.
    let mut stream = server.connect();
    stream
        .write_all(b"POST /v1/segment HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    for _ in 0..40 {
        let piece = [b"8000\r\n".as_slice(), &[0; 0x8000], b"\r\n"].concat();
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    Response::read(stream).fault(413, "body_too_large");
    assert!(server.post("/v1/segment?output=npy", &photo).body == expected.body, "all is as before");
    assert_eq!((server.metric("structtoken_queue_cost"), server.metric("structtoken_queue_bytes")), (0.0, 0.0));
}

#[test]
fn requests_that_make_no_sense_are_told_what_would() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&model]);
    let photo = png(1, 40, 33);
    for query in ["output=jpeg", "tolerance=-1", "min_area=x", "what=1", "name=%ff"] {
        server.post(&format!("/v1/segment?{query}"), &photo).fault(400, "bad_request");
    }
    server.post("/v1/segment?model=other", &photo).fault(404, "unknown_model");
    server.get("/v1/segment").fault(405, "method_not_allowed");
    server.ask("POST", "/v1/segment", &[("Accept", "text/html")], &photo).fault(406, "not_acceptable");
    let no_boundary = [("Content-Type", "multipart/form-data")];
    server.ask("POST", "/v1/segment", &no_boundary, &photo).fault(415, "unsupported_media_type");
    let form = multipart("a.png", &photo, &[]);
    for broken in [&form[..form.len() / 2], b"--b\r\n\r\nx\r\n--b--\r\n", b"--b--\r\n", b"", b"nothing"] {
        server.ask("POST", "/v1/segment", &[MULTIPART], broken).fault(400, "bad_request");
    }
    let twice = [&form[..form.len() - 7], &form].concat();
    server.ask("POST", "/v1/segment", &[MULTIPART], &twice).fault(400, "bad_request");
    let mut stream = server.connect();
    stream.write_all(b"GARBAGE\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"));
    assert_eq!(server.post("/v1/segment", &photo).status, 200);
}

/// Headers and bodies that drip, and answers that are not read.
#[test]
fn clients_that_dawdle_are_closed() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&model, "--header-time", "1", "--idle-time", "1", "--body-time", "3"]);
    let photo = png(1, 40, 33);
    let mut headers: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let mut bodies: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for stream in &mut headers {
        stream.write_all(b"POST /v1/segment HTTP/1.1\r\nHost: ").unwrap();
    }
    for stream in &mut bodies {
        stream
            .write_all(b"POST /v1/segment HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 100000\r\n\r\nx")
            .unwrap();
    }
    assert_eq!(server.post("/v1/segment", &photo).status, 200, "others are answered meanwhile");
    // One byte now and then does not help.
    let start = Instant::now();
    while start.elapsed() < PATIENCE && bodies.iter_mut().any(|stream| stream.write_all(b"x").is_ok()) {
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    for mut stream in headers {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
    }
    until("bodies are counted", || (server.metric("structtoken_queue_bytes") == 0.0).then_some(()));
    let text = server.get("/metrics").text();
    assert!(text.contains("code=\"408\"}"), "{text}");
    assert_eq!(server.post("/v1/segment", &photo).status, 200);
}

/// Over the bound of bytes, and of work: told to come again, and when.
#[test]
fn too_much_at_once_is_refused_at_once() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(
        &lab,
        &[&[&model, "--max-queue", "0.3", "--max-queue-mb", "1", "--max-body-mb", "1"][..], &SLOW].concat(),
    );
    let photo = png(1, 40, 33);
    let mut held = server.connect();
    let body = vec![0; 900_000];
    held.write_all(b"POST /v1/segment HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    held.write_all(&body).unwrap();
    until("bytes are held", || (server.metric("structtoken_queue_bytes") >= 900_000.0).then_some(()));
    let refused = server.post("/v1/segment", &vec![0; 200_000]);
    refused.fault(429, "overloaded");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(server.post("/v1/segment", &photo).status, 200, "there is room for a small one");
    drop(held);
    until("bytes are given back", || (server.metric("structtoken_queue_bytes") == 0.0).then_some(()));

    // Images of 15 x 15 windows of 32 x 32, and of 19 x 19: one of the first fits, of the second none.
    let (large, larger) = (jpeg(2, 256, 256), jpeg(2, 320, 320));
    server.post("/v1/segment", &larger).fault(413, "image_too_large");
    let expected = server.post("/v1/segment?output=npy", &large).body;
    // However fast it is, some of many come while another is worked on.
    until("one is refused", || {
        let streams: Vec<_> = (0..8).map(|_| server.send("POST", "/v1/segment?output=npy", &[], &large)).collect();
        let answers: Vec<_> = streams.into_iter().map(Response::read).collect();
        let (answered, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert!(!answered.is_empty() && answered.iter().all(|answer| answer.body == expected));
        for answer in &refused {
            answer.fault(429, "overloaded");
            assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        }
        refused.first().map(|_| ())
    });
    until("all is done", || (server.metric("structtoken_queue_cost") == 0.0).then_some(()));
}

/// One that leaves while it waits is not labelled: seen at the latest with an image that takes long on any machine.
#[test]
fn who_leaves_is_not_labelled() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&[model.as_str()][..], &SLOW].concat());
    let photo = png(1, 40, 33);
    let seen = [256, 512, 1024, 2048].into_iter().any(|side| {
        let before = server.metric("structtoken_images_total");
        let first = server.send("POST", "/v1/segment?output=npy", &[], &jpeg(2, side, side));
        until("it is accepted", || {
            let labelled = server.metric("structtoken_images_total") > before;
            (labelled || server.metric("structtoken_queue_cost") > 0.0).then_some(())
        });
        drop(server.send("POST", "/v1/segment", &[], &photo));
        assert_eq!(Response::read(first).status, 200);
        until("all is done", || (server.metric("structtoken_queue_cost") == 0.0).then_some(()));
        server.metric("structtoken_images_total") == before + 1.0
    });
    assert!(seen);
    assert_eq!(server.metric("structtoken_queue_bytes"), 0.0);
}
