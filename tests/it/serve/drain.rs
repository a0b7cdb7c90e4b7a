//! Servers that stop, and models that change, while requests are under way.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use super::client::{Response, Server, until};
use super::{SLOW, jpeg, model, png, predicted};
use crate::cli::Lab;

#[test]
fn nothing_that_was_accepted_is_lost() {
    let (lab, model) = (Lab::new(), model());
    let mut server = Server::start(&lab, &[&[&model, "--drain-delay", "1"][..], &SLOW].concat());
    let photos: Vec<_> = (0..6).map(|seed| jpeg(seed, 144, 144)).collect();
    let expected: Vec<_> = photos.iter().map(|photo| server.post("/v1/segment?output=mask", photo).body).collect();
    // 8 x 8 windows of 32 x 32 each.
    let streams: Vec<_> =
        photos.iter().map(|photo| server.send("POST", "/v1/segment?output=mask", &[], photo)).collect();
    let answered = |server: &Server| {
        server.metric("structtoken_images_total") + server.metric("structtoken_queue_cost") / 0.065536
    };
    until("all are accepted", || (answered(&server) > 11.9).then_some(()));
    let mut idle = server.connect();
    server.signal(libc::SIGTERM);
    until("it is not ready", || (server.get("/readyz").status == 503).then_some(()));
    assert_eq!((server.get("/v2/health/ready").status, server.get("/ping").status), (503, 503));
    // Until balancers have noticed, it answers.
    assert_eq!(server.get("/healthz").status, 200);
    for (stream, expected) in streams.into_iter().zip(expected) {
        let answer = Response::read(stream);
        assert!(answer.status == 200 && answer.body == expected, "{}", answer.text());
    }
    assert_eq!(server.wait().code(), Some(0), "{}", server.talk());
    assert_eq!(std::io::Read::read(&mut idle, &mut [0]).unwrap_or(0), 0, "idle connections are closed");
    assert!(server.talk().contains("stopping"));
}

#[test]
fn what_takes_too_long_after_the_end_is_told() {
    let (lab, model) = (Lab::new(), model());
    let mut server = Server::start(&lab, &[&[&model, "--drain-time", "0"][..], &SLOW].concat());
    let stream = server.send("POST", "/v1/segment", &[], &jpeg(1, 256, 256));
    until("it is worked on", || (server.metric("structtoken_queue_cost") > 0.0).then_some(()));
    server.signal(libc::SIGINT);
    assert_eq!(server.wait().code(), Some(1));
    let talk = server.talk();
    assert!(talk.contains("were dropped") && talk.contains("pass a longer --drain-time"), "{talk}");
    drop(stream);
    let mut server = Server::start(&lab, &[&[&model, "--drain-time", "600"][..], &SLOW].concat());
    let stream = server.send("POST", "/v1/segment", &[], &jpeg(1, 256, 256));
    until("it is worked on", || {
        (server.metric("structtoken_queue_cost") > 0.0 || server.metric("structtoken_images_total") > 0.0).then_some(())
    });
    server.signal(libc::SIGINT);
    assert_eq!((Response::read(stream).status, server.wait().code()), (200, Some(0)));
}

/// Says so when it is dropped, by a panic too.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn models_change_while_they_are_served() {
    let (lab, first) = (Lab::new(), model());
    let other = {
        let recipe = lab.write("tiny.toml", crate::cli::TINY);
        let few = ["--set", "train.iterations=3", "--set", "train.eval_every=0", "--set", "train.optimizer.lr=0.05"];
        lab.ok(&[&["train", recipe.to_str().unwrap(), "--device", "cpu", "--out", "other"][..], &few].concat());
        std::fs::read(lab.path("other/model.safetensors")).unwrap()
    };
    let original = std::fs::read(&first).unwrap();
    lab.write("served.safetensors", &original);
    lab.write("admin", "0123456789abcdef0123");
    let server = Server::start(&lab, &["m=served.safetensors", "--admin-token-file", "admin", "--threads", "1"]);
    let admin = [("Authorization", "Bearer 0123456789abcdef0123")];
    let load = || server.ask("POST", "/v2/repository/models/m/load", &admin, b"");
    let photo = png(4, 64, 50);
    lab.write("a.png", &photo);
    let mask = |bytes: &[u8]| {
        lab.write("compared.safetensors", bytes);
        predicted(&lab, "compared.safetensors", "a.png", &[])
    };
    let (before, after) = (mask(&original), mask(&other));
    let served = || server.post("/v1/segment?output=mask", &photo).body;
    assert!(served() == before);
    // Requests keep coming while models are swapped, and files that are none change nothing.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ended = Ended(&done);
        let asking = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::SeqCst) || count < 5 {
                let answer = server.post("/v1/segment?output=mask", &photo);
                assert!(answer.status == 200 && (answer.body == before || answer.body == after), "{}", answer.text());
                count += 1;
            }
        });
        for round in 0..6 {
            let (bytes, works): (&[u8], bool) = match round % 3 {
                0 => (&other, true),
                1 => (&original[..original.len() / 2], false),
                _ => (&original, true),
            };
            lab.write("served.safetensors", bytes);
            let version = server.get("/v1/models/m").json()["version"].clone();
            let answer = load();
            match works {
                true => assert_eq!(answer.status, 200, "{}", answer.text()),
                false => drop(answer.fault(422, "model_damaged")),
            }
            let changed = server.get("/v1/models/m").json()["version"] != version;
            assert_eq!(changed, works, "{round}");
        }
        drop(ended);
        asking.join().unwrap();
    });
    assert!(served() == before);
    // By a signal.
    lab.write("served.safetensors", &other);
    server.signal(libc::SIGHUP);
    until("it is loaded", || server.talk().contains("loaded m again").then_some(()));
    assert!(served() == after);
    lab.write("served.safetensors", "none");
    server.signal(libc::SIGHUP);
    until("it is not loaded", || server.talk().contains("warning: m was not loaded again").then_some(()));
    assert!(served() == after);
    // Unloaded, and back.
    assert_eq!(server.ask("POST", "/v2/repository/models/m/unload", &admin, b"").status, 200);
    server.post("/v1/segment", &photo).fault(404, "unknown_model");
    assert_eq!(server.post("/v2/repository/index", b"").json()[0]["state"], "UNAVAILABLE");
    lab.write("served.safetensors", &original);
    assert_eq!(load().status, 200);
    assert_eq!(server.post("/v2/repository/index", b"").json()[0]["state"], "READY");
    assert!(served() == before);
    server.ask("POST", "/v2/repository/models/x/load", &admin, b"").fault(404, "unknown_model");
}

#[test]
fn what_cannot_be_served_is_told_at_the_start() {
    let (lab, model) = (Lab::new(), model());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let talk = lab.refused(&["serve", &model, "--bind", &address], &["cannot listen at", "--bind 127.0.0.1:8081"]);
    assert!(!talk.contains("listening on"));
    lab.refused(&["serve", &model, "--bind", "nowhere"], &["cannot listen at `nowhere`"]);
    let free = ["--bind", "127.0.0.1:0"];
    lab.write("none.safetensors", "none");
    lab.refused(&[&["serve", "absent.safetensors"][..], &free].concat(), &["absent.safetensors", "check the path"]);
    lab.refused(&[&["serve", "none.safetensors"][..], &free].concat(), &["none.safetensors"]);
    let (one, two) = (format!("a={model}"), format!("a b={model}"));
    lab.refused(&[&["serve", &one, &one][..], &free].concat(), &["two models are called `a`"]);
    lab.refused(&[&["serve", &two][..], &free].concat(), &["`a b` cannot be the name"]);
    lab.refused(&[&["serve", &model, "--max-body-mb", "0"][..], &free].concat(), &["the size of a body"]);
    lab.refused(&[&["serve", &model, "--max-pixels", "1000"][..], &free].concat(), &["too large"]);
    lab.refused(&[&["serve", &model, "--idle-time", "0"][..], &free].concat(), &["a time limit is 0"]);
    lab.refused(&[&["serve", &model, "--cors", "*"][..], &free].concat(), &["`*` is not an origin"]);
    lab.refused(&[&["serve", &model, "--set", "eval.crop=[0,1]"][..], &free].concat(), &["crop"]);
    // The remedy, and a warning where others reach it.
    let open = Server::start(&lab, &[&model, "--bind", "0.0.0.0:0"]);
    assert!(open.talk().contains("warning: 0.0.0.0:") && open.talk().contains("anyone"), "{}", open.talk());
    assert!(!Server::start(&lab, &[&model]).talk().contains("warning"));
    let talk = Server::start(&lab, &["@nuclei"]).talk();
    assert!(talk.contains("serving nuclei on"), "{talk}");
}
