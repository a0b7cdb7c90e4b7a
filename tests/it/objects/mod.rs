//! Images and labels in object stores: the bytes of files, whatever a store answers and whenever the process dies.

mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::{Lab, TINY};
use server::Server;

const CPU: [&str; 4] = ["--device", "cpu", "--threads", "1"];
const PREDICT: [&str; 4] = ["predict", "run/model.safetensors", "--list", "list.txt"];
const OUT: [&str; 2] = ["--out", "s3://bucket/labels"];

/// A model that has learned next to nothing.
fn model(lab: &Lab) {
    lab.write("tiny.toml", TINY);
    let quick = ["--set", "train.iterations=1", "--set", "train.tensorboard=false"];
    lab.ok(&[&["train", "tiny.toml", "--out", "run"][..], &quick, &CPU].concat());
}

fn picture(i: usize) -> Vec<u8> {
    let image = image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([(i * 31) as u8, x as u8 * 9, y as u8 * 9]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// The command, told of a server, and of nothing that this machine may know of others.
fn at(lab: &Lab, server: &str, arguments: &[&str]) -> Command {
    let mut command = lab.command(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") || name.to_string_lossy().to_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.env("AWS_ENDPOINT_URL", server).env("AWS_ACCESS_KEY_ID", "me").env("AWS_SECRET_ACCESS_KEY", "secret");
    command
}

/// What it prints, and says, of a command that must work.
fn done(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let [data, talk] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{talk}");
    (data, talk)
}

/// What it says of a command that must fail, with all of `say`.
fn refused(command: &mut Command, say: &[&str]) -> String {
    ends(1, command, say)
}

/// As [`refused`], of a command that does all but some images.
fn partly(command: &mut Command, say: &[&str]) -> String {
    ends(3, command, say)
}

fn ends(code: i32, command: &mut Command, say: &[&str]) -> String {
    let output = command.output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{talk}");
    assert!(talk.contains("error: ") && talk.contains("hint: ") && !talk.contains("panicked"), "{talk}");
    for part in say {
        assert!(talk.contains(part), "`{part}` is not in:\n{talk}");
    }
    talk
}

fn lines(manifest: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(manifest).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn images(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["image"].as_str().unwrap()).collect()
}

/// `count` pictures as files in `photos`, and labelled there.
fn files(lab: &Lab, count: usize) -> Vec<Vec<u8>> {
    let names: Vec<String> = (0..count).map(|i| format!("photos/{i}.png")).collect();
    names.iter().enumerate().for_each(|(i, name)| drop(lab.write(name, picture(i))));
    lab.write("files.txt", names.join("\n"));
    lab.ok(&[&["predict", "run/model.safetensors", "--list", "files.txt", "--out", "files"][..], &CPU].concat());
    (0..count).map(|i| std::fs::read(lab.path(&format!("files/photos/{i}.png.png"))).unwrap()).collect()
}

#[test]
fn what_is_in_a_store_is_labelled_as_files_are() {
    let (lab, server) = (Lab::new(), Server::start());
    model(&lab);
    let masks = files(&lab, 4);
    for i in 0..3 {
        server.insert(&format!("photos/{i}.png"), &picture(i));
    }
    // From a store, from a web server, and from a file.
    let web = format!("{}/bucket/photos/1.png", server.url);
    lab.write("list.txt", format!("s3://bucket/photos/0.png\n{web}\ns3://bucket/photos/2.png\nphotos/3.png\n"));
    let host = web.trim_start_matches("http://").split('/').next().unwrap();
    let places = ["s3/bucket/photos/0.png", &format!("http/{host}/bucket/photos/1.png"), "s3/bucket/photos/2.png"];
    let places = [&places[..], &["photos/3.png"]].concat();
    let command = [&PREDICT[..], &OUT, &CPU].concat();
    let (data, talk) = done(&mut at(&lab, &server.url, &command));
    let manifest = server.get("labels/manifest-1-of-1.ndjson").bytes;
    let rows = lines(&manifest);
    assert!(talk.contains("s3://bucket/labels/manifest-1-of-1.ndjson"), "{talk}");
    for (place, (mask, row)) in places.iter().zip(masks.iter().zip(&rows)) {
        let stored = server.get(&format!("labels/{place}.png"));
        let url = format!("s3://bucket/labels/{place}.png");
        assert!(stored.bytes == *mask && data.lines().any(|line| line == url), "{place}: {data}");
        let checksum = format!("{:08x}", crc32fast::hash(mask));
        assert_eq!(row["files"][&url], checksum);
        assert!(stored.note.unwrap().ends_with(&checksum));
    }
    assert_eq!(server.keys("labels").len(), 5, "no part of the manifest is left");
    // Nothing is done twice.
    let (data, talk) = done(&mut at(&lab, &server.url, &command));
    assert!(data.is_empty() && talk.contains("4 entries are already done"), "{talk}");
    assert!(server.keys("labels/s3").iter().all(|key| server.get(key).puts == 1));
    assert!(server.get("labels/manifest-1-of-1.ndjson").bytes == manifest);
    // Into a folder, the same.
    done(&mut at(&lab, &server.url, &[&PREDICT[..], &["--out", "folder"], &CPU].concat()));
    for (place, mask) in places.iter().zip(&masks) {
        assert!(std::fs::read(lab.path(&format!("folder/{place}.png"))).unwrap() == *mask, "{place}");
    }
}

#[test]
fn a_killed_process_is_continued_with_nothing_done_twice() {
    const ALL: usize = 620;
    let (lab, server) = (Lab::new(), Server::start());
    model(&lab);
    for i in 0..ALL {
        server.insert(&format!("photos/{i}.png"), &picture(i));
    }
    let entries: Vec<String> = (0..ALL).map(|i| format!("s3://bucket/photos/{i}.png")).collect();
    lab.write("list.txt", entries.join("\n"));
    let command = [&PREDICT[..], &OUT, &CPU].concat();
    let masks = || server.keys("labels/s3").len();
    server.state.delay.store(2, Ordering::Relaxed);
    // Before a part of the manifest is there, and after.
    for until in [20, 180, 530] {
        let mut child = at(&lab, &server.url, &command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        while masks() < until && started.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(masks() >= until && masks() < ALL, "{} of {until}", masks());
    }
    assert!(!server.keys("labels/manifest-1-of-1.ndjson.").is_empty(), "a part of the manifest");
    done(&mut at(&lab, &server.url, &command));
    let rows = lines(&server.get("labels/manifest-1-of-1.ndjson").bytes);
    assert_eq!(images(&rows), entries);
    for (key, row) in (0..ALL).map(|i| format!("labels/s3/bucket/photos/{i}.png.png")).zip(&rows) {
        let stored = server.get(&key);
        assert_eq!(stored.puts, 1, "{key} was put again");
        assert_eq!(row["files"][&format!("s3://bucket/{key}")], format!("{:08x}", crc32fast::hash(&stored.bytes)));
    }
    assert_eq!(server.keys("labels/manifest"), ["labels/manifest-1-of-1.ndjson"]);
}

#[test]
fn answers_that_no_store_should_give_are_faults_of_one_line() {
    let (lab, server) = (Lab::new(), Server::start());
    model(&lab);
    let odd = ["huge", "short", "endless", "denied", "fails", "noise", "text", "absent"];
    server.insert("odd/text.png", b"no picture");
    server.insert("photos/0.png", &picture(0));
    server.insert("labels/s3/bucket/photos/1.png.png", b"of somebody else");
    server.insert("photos/1.png", &picture(1));
    let entries: Vec<String> = odd.iter().map(|name| format!("s3://bucket/odd/{name}.png")).collect();
    let last = ["s3://bucket/photos//2.png", "https://me@127.0.0.1/a.png", "s3://bucket/photos/1.png"];
    let all =
        [&entries.iter().map(String::as_str).collect::<Vec<_>>()[..], &last, &["s3://bucket/photos/0.png"]].concat();
    lab.write("list.txt", all.join("\n"));
    let command = [&PREDICT[..], &OUT, &CPU].concat();
    let say = [
        "11 of 12 images could not be predicted",
        "`s3://bucket/odd/huge.png`: it holds 5000 MB, and pictures may hold at most 1074 MB",
        "cannot read `s3://bucket/odd/short.png`",
        "cannot read `s3://bucket/odd/endless.png`",
        "cannot read `s3://bucket/odd/denied.png`: the store denies access",
        "cannot read `s3://bucket/odd/fails.png`",
        "cannot read `s3://bucket/odd/noise.png`",
        "cannot read `s3://bucket/odd/text.png`: ",
        "cannot read `s3://bucket/odd/absent.png`: it is not there",
        "`s3://bucket/photos//2.png` does not name an object",
        "has a user's name",
        "`s3://bucket/labels/s3/bucket/photos/1.png.png` was not written by an earlier prediction",
        "AWS_ACCESS_KEY_ID",
        "--only-failed",
    ];
    let talk = partly(&mut at(&lab, &server.url, &command), &say);
    assert!(!talk.contains('\x1b'), "a server's words reach the terminal: {talk}");
    assert_eq!(server.get("labels/s3/bucket/photos/1.png.png").bytes, b"of somebody else");
    let rows = lines(&server.get("labels/manifest-1-of-1.ndjson").bytes);
    assert_eq!(images(&rows), all.iter().map(|entry| entry.replace("me@", "…@")).collect::<Vec<_>>());
    assert_eq!(rows.iter().filter(|row| row.get("error").is_none()).count(), 1);
    // Mended, and tried again.
    server.insert("odd/text.png", &picture(5));
    let again = [&command[..], &["--only-failed", "--overwrite"]].concat();
    let talk = partly(&mut at(&lab, &server.url, &again), &["9 of 12 images could not be predicted"]);
    assert!(!talk.contains("text.png"), "{talk}");
    let rows = lines(&server.get("labels/manifest-1-of-1.ndjson").bytes);
    let good: Vec<&str> =
        rows.iter().filter(|row| row.get("error").is_none()).map(|row| row["image"].as_str().unwrap()).collect();
    assert_eq!(good, ["s3://bucket/odd/text.png", "s3://bucket/photos/1.png", "s3://bucket/photos/0.png"]);
    assert!(server.get("labels/s3/bucket/photos/1.png.png").bytes != b"of somebody else");
    assert_eq!(server.get("labels/s3/bucket/photos/0.png.png").puts, 1);
}

#[test]
fn a_store_that_cannot_be_had_ends_all_with_what_to_do() {
    let (lab, server) = (Lab::new(), Server::start());
    model(&lab);
    server.insert("photos/0.png", &picture(0));
    lab.write("list.txt", "s3://bucket/photos/0.png\n");
    let (to_store, to_folder) = ([&PREDICT[..], &OUT, &CPU].concat(), [&PREDICT[..], &["--out", "out"], &CPU].concat());
    // Nobody listens on port 1.
    let closed = "http://127.0.0.1:1";
    for command in [&to_store, &to_folder] {
        let talk = refused(&mut at(&lab, closed, command), &["the server cannot be reached", "AWS_ENDPOINT_URL"]);
        assert!(!talk.contains("could not be predicted"), "{talk}");
        let mut without = at(&lab, &server.url, command);
        without.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        refused(without.env("AWS_METADATA_ENDPOINT", closed), &["there are no credentials", "set AWS_ACCESS_KEY_ID"]);
    }
    // What was not reached has no line: the same command does it.
    done(&mut at(&lab, &server.url, &to_folder));
    refused(
        &mut at(&lab, &server.url, &[&PREDICT[..], &["--out", "http://127.0.0.1/a"], &CPU].concat()),
        &["web servers"],
    );
    let single = ["predict", "run/model.safetensors", "s3://bucket/photos/0.png"];
    refused(&mut at(&lab, &server.url, &[&single[..], &CPU].concat()), &["takes a list", "--list"]);
    // Another process is at the same work: its part of the manifest is there.
    server.insert("labels/manifest-1-of-1.ndjson.000000000000", b"{}\n");
    refused(&mut at(&lab, &server.url, &to_store), &["another process does the same work", "start each shard once"]);
    // Another model, or other settings.
    let other = [&to_store[..], &["--set", "eval.flip=true"]].concat();
    refused(&mut at(&lab, &server.url, &other), &["s3://bucket/labels/manifest-1-of-1.ndjson", "other settings"]);
}

#[test]
fn a_fault_of_a_store_is_told_from_those_of_objects() {
    let (lab, server) = (Lab::new(), Server::start());
    model(&lab);
    (0..5).for_each(|i| server.insert(&format!("photos/{i}.png"), &picture(i)));
    server.insert("good/0.png", &picture(0));
    let manifest = || lines(&server.get("labels/manifest-1-of-1.ndjson").bytes);
    let entries: Vec<String> = (0..5).map(|i| format!("s3://bucket/photos/{i}.png")).collect();
    // A bucket that is not there is of one line; the first of all may be a wrong setting.
    lab.write("list.txt", format!("s3://absent/a.png\n{}\n", entries[0]));
    let command = [&PREDICT[..], &OUT, &CPU].concat();
    refused(&mut at(&lab, &server.url, &command), &["there is no such bucket", "check the name in `s3://absent`"]);
    assert!(manifest().is_empty());
    lab.write("list.txt", [&["s3://bucket/good/0.png", "s3://absent/a.png"][..], &[&entries[0]]].concat().join("\n"));
    partly(&mut at(&lab, &server.url, &command), &["line 2 of `list.txt`: ", "1 of 3 images could not be predicted"]);
    // Many in a row are the store's: none is noted.
    let all = [&["s3://bucket/good/0.png", "s3://absent/a.png", &entries[0]][..], &[&entries[1], &entries[2]]].concat();
    lab.write("list.txt", [&all[..], &[&entries[3], &entries[4]]].concat().join("\n"));
    server.state.denied.store(true, Ordering::Relaxed);
    let few = [&command[..], &["--give-up-after", "3"]].concat();
    let talk = refused(&mut at(&lab, &server.url, &few), &["3 images in a row failed", "--give-up-after 0"]);
    assert!(talk.contains("photos/1.png") && talk.contains("photos/3.png"), "{talk}");
    assert_eq!(manifest().len(), 3);
    // Asked for, they are.
    let on = [&command[..], &["--give-up-after", "0"]].concat();
    partly(&mut at(&lab, &server.url, &on), &["5 of 7 images could not be predicted"]);
    server.state.denied.store(false, Ordering::Relaxed);
    let again = [&command[..], &["--only-failed"]].concat();
    partly(&mut at(&lab, &server.url, &again), &["1 of 7 images could not be predicted"]);
    // As a process left it that was killed while it tried again.
    let text = String::from_utf8(server.get("labels/manifest-1-of-1.ndjson").bytes).unwrap();
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    let whole = rows[3].clone();
    rows[3] = serde_json::json!({"image": entries[0], "error": "no"}).to_string();
    server.insert("labels/manifest-1-of-1.ndjson", (rows.join("\n") + "\n").as_bytes());
    let part = format!("{{\"entry\":3,\"line\":{whole}}}\n");
    server.insert("labels/manifest-1-of-1.ndjson.retried.000000000000", part.as_bytes());
    partly(&mut at(&lab, &server.url, &command), &["1 of 7 images could not be predicted"]);
    assert_eq!(String::from_utf8(server.get("labels/manifest-1-of-1.ndjson").bytes).unwrap(), text);
    assert_eq!(server.keys("labels/manifest"), ["labels/manifest-1-of-1.ndjson"]);
    // What is gone is found by its note.
    lab.write("list.txt", "s3://bucket/good/0.png\n");
    let good = ["--list", "list.txt", "--out", "s3://bucket/good-labels"];
    let good = [&["predict", "run/model.safetensors"][..], &good, &CPU].concat();
    done(&mut at(&lab, &server.url, &good));
    let verify = [&good[..], &["--verify"]].concat();
    done(&mut at(&lab, &server.url, &verify));
    server.state.objects.lock().unwrap().remove("bucket/good-labels/s3/bucket/good/0.png.png");
    partly(&mut at(&lab, &server.url, &verify), &["0 whole, 0 failed, 1 missing or changed"]);
    done(&mut at(&lab, &server.url, &[&verify[..], &["--only-failed"]].concat()));
    done(&mut at(&lab, &server.url, &verify));
    let elsewhere = verify.iter().map(|word| if word.starts_with("s3://") { "s3://bucket/no" } else { word });
    refused(
        &mut at(&lab, &server.url, &elsewhere.collect::<Vec<_>>()),
        &["there is no `s3://bucket/no/manifest-1-of-1.ndjson`", "with --shards N"],
    );
    // Another shard in the same place, of other settings.
    let other = [&good[..], &["--shard", "1/2", "--set", "eval.flip=true"]].concat();
    refused(&mut at(&lab, &server.url, &other), &["good-labels/manifest-1-of-1.ndjson`, which lies in the same place"]);
}

#[test]
fn a_lost_answer_is_no_other_process() {
    let (lab, server) = (Lab::new(), Server::start());
    model(&lab);
    (0..3).for_each(|i| server.insert(&format!("photos/{i}.png"), &picture(i)));
    server.state.objects.lock().unwrap().values_mut().for_each(|stored| stored.puts = 1);
    let entries: Vec<String> = (0..3).map(|i| format!("s3://bucket/photos/{i}.png")).collect();
    lab.write("list.txt", entries.join("\n"));
    server.state.loses_answers.store(true, Ordering::Relaxed);
    done(&mut at(&lab, &server.url, &[&PREDICT[..], &OUT, &CPU].concat()));
    assert_eq!(images(&lines(&server.get("labels/manifest-1-of-1.ndjson").bytes)), entries);
}

#[test]
fn a_wrong_setting_is_named() {
    let (lab, server) = (Lab::new(), Server::start());
    model(&lab);
    lab.write("list.txt", "s3://bucket/photos/0.png\n");
    let command = [&PREDICT[..], &OUT, &CPU].concat();
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "localhost:9000"),
        ("AWS_ENDPOINT_URL", "ftp://host"),
        ("AWS_ENDPOINT_URL", ""),
        ("AWS_ACCESS_KEY_ID", "key\n"),
        ("AWS_SECRET_ACCESS_KEY", "s\u{e9}cret"),
        ("AWS_REGION", "us east 1"),
    ] {
        let talk = refused(at(&lab, &server.url, &command).env(name, value), &[&format!("error: {name} ")]);
        assert!(!talk.contains("cret\n") && !talk.contains("could not be predicted"), "{talk}");
    }
    lab.write("list.txt", "s3://buc%ket/a.png\n");
    partly(&mut at(&lab, &server.url, &command), &["`buc%ket` is no name of a bucket"]);
}

#[cfg(unix)]
#[test]
fn a_process_that_is_to_end_leaves_its_lines_in_the_store() {
    let (lab, server) = (Lab::new(), Server::start());
    model(&lab);
    (0..3).for_each(|i| server.insert(&format!("photos/{i}.png"), &picture(i)));
    let command = [&["predict", "run/model.safetensors", "--list", "-"][..], &OUT, &CPU].concat();
    let mut command = at(&lab, &server.url, &command);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    (0..3).for_each(|i| writeln!(pipe, "s3://bucket/photos/{i}.png").unwrap());
    let started = Instant::now();
    while server.keys("labels/s3").len() < 3 && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = crate::lists::terminated(child);
    drop(pipe);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let part = server.get("labels/manifest-1-of-1.ndjson.000000000000").bytes;
    assert_eq!(part.iter().filter(|byte| **byte == b'\n').count(), 3);
}

/// One request to a server that does not ask who sends it, as long as somebody has signed.
fn request(server: &str, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(server.trim_start_matches("http://")).unwrap();
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=me/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, \
         Signature=0\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[..end]).unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

/// Ends when the test does.
struct Moto(std::process::Child, String);

impl Moto {
    fn start(program: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let found = Self(child, format!("http://127.0.0.1:{port}"));
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(120), "{program} does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        found
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The S3 of others: `moto_server`, of PyPI's `moto[server]`, whose place is in `STRUCTTOKEN_MOTO_SERVER`.
#[test]
#[ignore = "needs moto_server"]
fn moto_holds_the_bytes_of_files_and_a_killed_process_is_continued() {
    const ALL: usize = 40;
    let program = std::env::var("STRUCTTOKEN_MOTO_SERVER").expect("the place of moto_server");
    let (lab, server) = (Lab::new(), Moto::start(&program));
    let url = server.1.as_str();
    model(&lab);
    let masks = files(&lab, ALL);
    assert_eq!(request(url, "PUT", "bucket", b"").0, 200);
    for i in 0..ALL {
        assert_eq!(request(url, "PUT", &format!("bucket/photos/{i}.png"), &picture(i)).0, 200);
    }
    let entries: Vec<String> = (0..ALL).map(|i| format!("s3://bucket/photos/{i}.png")).collect();
    lab.write("list.txt", entries.join("\n"));
    let command = [&PREDICT[..], &OUT, &CPU].concat();
    let place = |i: usize| format!("bucket/labels/s3/bucket/photos/{i}.png.png");
    let mut child = at(&lab, url, &command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while request(url, "GET", &place(12), b"").0 != 200 && started.elapsed() < Duration::from_secs(120) {}
    child.kill().unwrap();
    child.wait().unwrap();
    // What was under way when the process was killed may still arrive.
    let count = || (0..ALL).filter(|i| request(url, "GET", &place(*i), b"").0 == 200).count();
    let mut there = 0;
    while there != count() {
        there = count();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!((12..ALL).contains(&there), "{there}");
    let (data, _) = done(&mut at(&lab, url, &command));
    assert_eq!(data.lines().count(), ALL - there, "what was there is not labelled again");
    for (i, mask) in masks.iter().enumerate() {
        assert!(request(url, "GET", &place(i), b"").1 == *mask, "{i}");
    }
    let rows = lines(&request(url, "GET", "bucket/labels/manifest-1-of-1.ndjson", b"").1);
    assert_eq!(images(&rows), entries);
    assert!(rows.iter().all(|row| row.get("error").is_none()));
    let (data, talk) = done(&mut at(&lab, url, &command));
    assert!(data.is_empty() && talk.contains("40 entries are already done"), "{talk}");
}
