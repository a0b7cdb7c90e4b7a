//! A server with as much of S3 as `predict` uses, and answers that no store should give.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An object, with what its metadata hold for this program.
#[derive(Clone, Default)]
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    pub(super) note: Option<String>,
    /// How often it was put.
    pub(super) puts: usize,
}

#[derive(Default)]
pub(super) struct State {
    /// By bucket and key.
    pub(super) objects: Mutex<BTreeMap<String, Stored>>,
    /// Whether all pictures are denied.
    pub(super) denied: AtomicBool,
    /// Whether objects that are put for the first time are kept, and answered with an error.
    pub(super) loses_answers: AtomicBool,
    /// How long each object takes to be put, in milliseconds.
    pub(super) delay: AtomicU64,
}

pub(super) struct Server {
    pub(super) url: String,
    pub(super) state: Arc<State>,
}

impl Server {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // Whoever goes away in the middle is of no concern.
                std::thread::spawn(move || serve(stream, &state).ok());
            }
        });
        Self { url, state }
    }

    pub(super) fn insert(&self, key: &str, bytes: &[u8]) {
        let stored = Stored { bytes: bytes.to_vec(), ..Stored::default() };
        self.state.objects.lock().unwrap().insert(format!("bucket/{key}"), stored);
    }

    pub(super) fn get(&self, key: &str) -> Stored {
        let objects = self.state.objects.lock().unwrap();
        objects.get(&format!("bucket/{key}")).unwrap_or_else(|| panic!("no {key} in {:?}", objects.keys())).clone()
    }

    /// The keys that start with `prefix`.
    pub(super) fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.state.objects.lock().unwrap();
        let keys = objects.keys().filter_map(|key| key.strip_prefix("bucket/"));
        keys.filter(|key| key.starts_with(prefix)).map(str::to_owned).collect()
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path: decoded(path.trim_start_matches('/')), query: query.to_owned(), headers, body }))
}

/// A path without its percent signs.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        if let Some(odd) = odd(&request) {
            writer.write_all(odd.as_bytes())?;
            return Ok(());
        }
        let (status, headers, body) = answer(&request, state);
        let length =
            if request.method == "HEAD" { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        write!(writer, "HTTP/1.1 {status}\r\n{length}{headers}\r\n")?;
        if request.method != "HEAD" {
            writer.write_all(&body)?;
        }
    }
    Ok(())
}

/// Answers to keys that ask for them, after which the connection ends.
fn odd(request: &Request) -> Option<String> {
    let about = "etag: \"1\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let (_, name) = request.path.split_once("odd/")?;
    if request.method == "PUT" || request.path.contains("labels") {
        return None;
    }
    match name {
        "huge.png" => Some(format!("HTTP/1.1 200 OK\r\ncontent-length: 5000000000\r\n{about}\r\n")),
        "short.png" => Some(format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n{about}\r\nten bytes.")),
        "endless.png" => Some(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{about}\r\n")),
        "denied.png" => Some("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned()),
        "fails.png" => Some("HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n\x1b[2Jno such \n".to_owned()),
        "noise.png" => Some("\0\0\0 this is not HTTP\r\n\r\n".to_owned()),
        _ => None,
    }
}

fn answer(request: &Request, state: &State) -> (&'static str, String, Vec<u8>) {
    let missing =
        |code: &str| ("404 Not Found", String::new(), format!("<Error><Code>{code}</Code></Error>").into_bytes());
    if !request.path.starts_with("bucket") {
        return missing("NoSuchBucket");
    }
    if state.denied.load(Ordering::Relaxed) && request.path.starts_with("bucket/photos/") {
        return ("403 Forbidden", String::new(), b"<Error><Code>AccessDenied</Code></Error>".to_vec());
    }
    let mut objects = state.objects.lock().unwrap();
    let about = |stored: &Stored| {
        let note = stored.note.as_ref().map_or(String::new(), |note| format!("x-amz-meta-structtoken: {note}\r\n"));
        format!("etag: \"1\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{note}")
    };
    match request.method.as_str() {
        "PUT" => {
            let only_new = request.headers.get("if-none-match").is_some_and(|value| value == "*");
            if only_new && objects.contains_key(&request.path) {
                return ("412 Precondition Failed", String::new(), Vec::new());
            }
            let stored = objects.entry(request.path.clone()).or_default();
            stored.bytes.clone_from(&request.body);
            stored.note = request.headers.get("x-amz-meta-structtoken").cloned();
            stored.puts += 1;
            let first = stored.puts == 1;
            drop(objects);
            if first && state.loses_answers.load(Ordering::Relaxed) {
                return (
                    "500 Internal Server Error",
                    String::new(),
                    b"<Error><Code>InternalError</Code></Error>".to_vec(),
                );
            }
            std::thread::sleep(Duration::from_millis(state.delay.load(Ordering::Relaxed)));
            ("200 OK", "etag: \"1\"\r\n".to_owned(), Vec::new())
        }
        "GET" | "HEAD" => match objects.get(&request.path) {
            None => missing("NoSuchKey"),
            Some(stored) if request.method == "HEAD" => {
                ("200 OK", format!("content-length: {}\r\n{}", stored.bytes.len(), about(stored)), Vec::new())
            }
            Some(stored) => match request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")) {
                None => ("200 OK", about(stored), stored.bytes.clone()),
                Some(range) => {
                    let (from, to) = range.split_once('-').unwrap();
                    let from: usize = from.parse().unwrap();
                    let to = to.parse::<usize>().map_or(stored.bytes.len(), |to| (to + 1).min(stored.bytes.len()));
                    let all = stored.bytes.len();
                    let headers = format!("content-range: bytes {from}-{}/{all}\r\n{}", to - 1, about(stored));
                    ("206 Partial Content", headers, stored.bytes[from..to].to_vec())
                }
            },
        },
        "DELETE" => {
            objects.remove(&request.path);
            ("204 No Content", String::new(), Vec::new())
        }
        "POST" if request.query.starts_with("delete") => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            let bucket = request.path.trim_end_matches('/');
            let mut deleted = String::new();
            for key in keys {
                objects.remove(&format!("{bucket}/{key}"));
                deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
            }
            ("200 OK", String::new(), format!("<DeleteResult>{deleted}</DeleteResult>").into_bytes())
        }
        _ => ("501 Not Implemented", String::new(), Vec::new()),
    }
}
