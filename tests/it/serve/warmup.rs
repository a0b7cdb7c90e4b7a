//! `--warmup`: what the largest images take is known before the first of them comes, or the server does not start.

use std::io::{BufRead, BufReader, Cursor};
use std::process::{Command, Stdio};

use super::client::{Response, Server, until};
use super::{jpeg, model};
use crate::cli::Lab;

/// The number before ` MB`, after `start`.
fn megabytes(talk: &str, start: &str) -> Option<f64> {
    talk.split_once(start)?.1.split_once(" MB")?.0.parse().ok()
}

/// Large images in large windows, few bytes that wait, and time for all to be read one after the other.
const OPTIONS: [&str; 16] = [
    "--max-pixels",
    "4",
    "--max-queue",
    "1e4",
    "--max-body-mb",
    "2",
    "--max-queue-mb",
    "32",
    "--idle-time",
    "120",
    "--set",
    "eval.mode=slide",
    "--set",
    "eval.crop=[256, 256]",
    "--set",
    "eval.stride=[256, 256]",
];

#[cfg(target_os = "linux")]
#[test]
fn memory_is_known_before_the_first_image() {
    let (lab, model) = (Lab::new(), model());
    let server = Server::start(&lab, &[&[&model, "--warmup"][..], &OPTIONS].concat());
    until("it is ready", || (server.get("/readyz").status == 200).then_some(()));
    let said = until("it says so", || megabytes(&server.talk(), "; memory: "));
    let talk = server.talk();
    assert!(talk.contains("warming up tiny: an image of 2000 x 2000\n") && !talk.contains("at most"), "{talk}");
    assert_eq!(megabytes(&talk, " MB, and up to "), Some(32.0), "{talk}");
    assert!(server.metric("structtoken_megapixels_per_second") > 0.0);
    assert_eq!(server.metric("structtoken_images_total"), 0.0, "no request is counted");
    // Of few bytes, and many pixels.
    let mut photo = Vec::new();
    image::RgbImage::from_fn(2000, 2000, |x, y| image::Rgb([(x / 8) as u8, (y / 8) as u8, 90]))
        .write_to(&mut Cursor::new(&mut photo), image::ImageFormat::Jpeg)
        .unwrap();
    let streams: Vec<_> = (0..4).map(|_| server.send("POST", "/v1/segment?output=npy", &[], &photo)).collect();
    for stream in streams {
        assert_eq!(Response::read(stream).status, 200);
    }
    let held = server.metric("structtoken_resident_memory_bytes") / 1e6;
    // Several answers may be on their way at once; without the images before, it would have been half as much.
    assert!((0.98 * said..1.25 * said).contains(&held), "{held} MB, and {said} MB were told: {talk}");
    let cold = Server::start(&lab, &[&[&model[..]], &OPTIONS[..]].concat());
    assert!(cold.metric("structtoken_resident_memory_bytes") / 1e6 < 0.7 * said);
    assert!(cold.talk().contains("MB at most") && cold.get("/readyz").status == 200);
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_without_room_for_what_it_accepts_does_not_start() {
    let (lab, model) = (Lab::new(), model());
    // Up to the end, or until it is ready.
    let start = |change: &[&str]| {
        let script = format!("ulimit -v 500000 && exec {} \"$@\"", env!("CARGO_BIN_EXE_structtoken"));
        let options = ["serve", &model, "--warmup", "--bind", "127.0.0.1:0", "--device", "cpu", "--threads", "1"];
        let whole = ["--set", "eval.mode=whole"];
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).args(options).args(whole).args(change).current_dir(lab.dir.path());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
            said += &format!("{line}\n");
            if line.starts_with("ready after") {
                child.kill().unwrap();
            }
        }
        (child.wait().unwrap().code(), said)
    };
    let (code, said) = start(&["--max-pixels", "64", "--max-queue", "1e6"]);
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "tiny cannot label an image of 8000 x 8000 pixels, although its limits accept as much: labelling needs about",
        "leaves",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let hint = said.split_once("hint: ").unwrap().1;
    assert!(hint.starts_with("lower --max-pixels or --max-queue") && !said.contains("ready after"), "{said}");
    // What is not refused at once fails where the memory ends.
    let (code, said) = start(&["--max-pixels", "25", "--max-queue", "1e6"]);
    assert_eq!(code, Some(1), "{said}");
    let (cause, hint) = said.split_once("hint: ").unwrap();
    assert!(cause.contains("warming up tiny: an image of 5000 x 5000\n") && hint.contains("--max-pixels"), "{said}");
    for lower in [["--max-pixels", "1", "--max-queue", "1e6"], ["--max-pixels", "64", "--max-queue", "0.5"]] {
        let (_, said) = start(&lower);
        assert!(said.contains("ready after"), "{lower:?}: {said}");
    }
}

#[test]
fn the_largest_image_is_the_largest_that_is_accepted() {
    let (lab, model) = (Lab::new(), model());
    let whole = ["--warmup", "--set", "eval.mode=whole"];
    for limits in [["--max-pixels", "1", "--max-queue", "0.3"], ["--max-pixels", "1", "--max-queue", "1"]] {
        let server = Server::start(&lab, &[&[&model[..]], &whole[..], &limits].concat());
        until("it is ready", || (server.get("/readyz").status == 200).then_some(()));
        let talk = server.talk();
        let size = talk.split_once(": an image of ").unwrap().1.split_once('\n').unwrap().0;
        let (width, height) = size.split_once(" x ").unwrap();
        let (width, height) = (width.parse::<u32>().unwrap(), height.parse::<u32>().unwrap());
        assert_eq!(server.post("/v1/segment", &jpeg(1, width, height)).status, 200, "{limits:?} {talk}");
        let more = |side: u32| side + side / 30 + 8;
        let larger = server.post("/v1/segment", &jpeg(1, more(width), more(height)));
        larger.fault(413, "image_too_large");
    }
}

#[test]
fn a_queue_without_room_for_any_image_is_refused() {
    let (lab, model) = (Lab::new(), model());
    let tiny = ["serve", &model, "--bind", "127.0.0.1:0", "--device", "cpu", "--max-queue", "0.00001"];
    let resized = ["--set", "eval.resize=[64, 64]"];
    let output = lab.run(&[&tiny[..], &resized].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the queue is smaller than any image for `tiny`"), "{said}");
    let enough = said.split_once("pass a queue of at least ").unwrap().1.split_whitespace();
    let enough: Vec<&str> = enough.take(2).collect();
    let server = Server::start(&lab, &[&[&model[..]], &enough[..], &resized].concat());
    assert_eq!(server.post("/v1/segment", &jpeg(1, 1, 1)).status, 200, "{enough:?}");
}

/// A signal to stop ends the images before they are all labelled.
#[test]
fn it_can_be_stopped_while_it_warms_up() {
    let (lab, model) = (Lab::new(), model());
    let slow = ["--warmup", "--max-pixels", "4", "--set", "eval.mode=slide", "--set", "eval.crop=[32,32]"];
    let mut server = Server::start(&lab, &[&[&model[..]], &slow[..], &["--set", "eval.stride=[16,16]"]].concat());
    let answer = server.post("/v1/segment", &jpeg(1, 40, 40));
    if answer.status != 200 {
        answer.fault(503, "warming_up");
        assert!(answer.header("retry-after").is_some() && server.get("/healthz").status == 200);
    }
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "{}", server.talk());
    assert!(server.talk().contains("stopping"));
}
