//! `structtoken serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;

use crate::cli::allocator::SERVES;
use crate::cli::{Computing, End};
use crate::device;
use crate::error::{Error, Result};
use crate::serve::{Event, Limits, Options, Source, run as serve};

/// Serve models over HTTP, with a page to try them
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Model files. NAME=FILE sets the name; otherwise it is taken from the folder or file. The first is the default
    #[arg(required = true, value_name = "[NAME=]FILE")]
    models: Vec<String>,
    /// Address and port to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    bind: String,
    /// File with the token that requests must carry as `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the token for loading and unloading models
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Other origin whose pages may call the server, such as https://example.org; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Address of Label Studio, from which images of its tasks are fetched, such as http://label-studio:8080
    #[arg(long, value_name = "URL")]
    label_studio: Option<String>,
    /// File with Label Studio's access token
    #[arg(long, value_name = "FILE", requires = "label_studio")]
    label_studio_token_file: Option<PathBuf>,
    /// Maximum work that is accepted and not yet answered, in megapixels of windows
    #[arg(long, value_name = "MEGAPIXELS", default_value_t = Limits::default().queue_megapixels)]
    max_queue: f64,
    /// Maximum size of the bodies and answers held at once, in MB
    #[arg(long, value_name = "MB", default_value_t = 256)]
    max_queue_mb: usize,
    /// Maximum request body, in MB
    #[arg(long, value_name = "MB", default_value_t = 32)]
    max_body_mb: usize,
    /// Maximum image, in megapixels
    #[arg(long, value_name = "MEGAPIXELS", default_value_t = 64)]
    max_pixels: u64,
    /// Maximum number of open connections; more wait
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// Time limit for the headers of a request, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    header_time: u64,
    /// Time limit for a body, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    body_time: u64,
    /// Time limit for reading or writing the next byte, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    idle_time: u64,
    /// Time limit for labelling an accepted request, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    request_time: u64,
    /// Label the largest images that are accepted before /readyz says that the server is ready, and report the memory
    /// in use then
    #[arg(long)]
    warmup: bool,
    /// Time for which requests are accepted after SIGTERM, while /readyz says that the server stops, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    drain_delay: u64,
    /// Time limit for accepted requests after that, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    drain_time: u64,
    /// Change a setting of the models, for instance eval.mode=slide; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    #[command(flatten)]
    pub(crate) computing: Computing,
}

const EXAMPLES: &str = "Examples:
  structtoken serve runs/camvid/model.safetensors               then open http://127.0.0.1:8080
  structtoken serve streets=runs/a/model.safetensors cells=runs/b/model.safetensors --token-file token
  curl -F image=@photo.jpg 'http://127.0.0.1:8080/v1/segment?output=mask' -o mask.png";

pub(crate) fn run(arguments: Arguments) -> Result<End> {
    let (device, device_name) = device::open(&arguments.computing.device)?;
    let seconds = Duration::from_secs;
    let bytes = |mb: usize| mb.saturating_mul(1_000_000);
    let limits = Limits {
        body_bytes: bytes(arguments.max_body_mb),
        pixels: arguments.max_pixels.saturating_mul(1_000_000),
        queue_megapixels: arguments.max_queue,
        queue_bytes: bytes(arguments.max_queue_mb),
        connections: arguments.max_connections,
        header_time: seconds(arguments.header_time),
        body_time: seconds(arguments.body_time),
        idle_time: seconds(arguments.idle_time),
        request_time: seconds(arguments.request_time),
        ..Limits::default()
    };
    let models = arguments.models.iter().map(|text| source(text)).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    let (protected, warmup) = (arguments.token_file.is_some(), arguments.warmup);
    let options = Options {
        bind: arguments.bind,
        models,
        changes: arguments.changes,
        limits,
        warmup: arguments.warmup,
        token_file: arguments.token_file,
        admin_token_file: arguments.admin_token_file,
        cors: arguments.cors,
        label_studio: arguments.label_studio,
        label_studio_token_file: arguments.label_studio_token_file,
        drain_delay: seconds(arguments.drain_delay),
        drain_time: seconds(arguments.drain_time),
    };
    SERVES.store(true, Ordering::Relaxed);
    serve(options, &device, move |event| match event {
        Event::Listening(address, memory) => {
            warn(address, protected);
            // Measured later where it warms up.
            if !warmup {
                talk!("memory: about {} MB at most, for the largest image and a full queue", megabytes(memory));
            }
            talk!("serving {} on {device_name}: listening on http://{address}", names.join(", "));
        }
        Event::WarmingUp(name, (height, width), 1) => talk!("warming up {name}: an image of {width} x {height}"),
        Event::WarmingUp(name, (height, width), images) => {
            talk!("warming up {name}: {images} images of {width} x {height} at once");
        }
        Event::WarmedUp(time, memory, more) => {
            let more = format!("up to {} MB more for bodies and answers", megabytes(more));
            let memory =
                memory.map_or(String::new(), |memory| format!("; memory: {} MB, and {more}", megabytes(memory)));
            talk!("ready after {:.1} s{memory}", time.as_secs_f64());
        }
        Event::Draining => talk!("stopping: accepted requests are finished"),
        Event::Loaded(name) => talk!("loaded {name} again"),
        Event::NotLoaded(name, cause) => {
            talk!("warning: {name} was not loaded again, and is served as before: {cause}")
        }
    })?;
    Ok(End::Done)
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

fn warn(address: SocketAddr, protected: bool) {
    if address.ip().is_loopback() {
        return;
    }
    let token = if protected { "the token" } else { "anyone, since no token is asked for," };
    talk!(
        "warning: {address} can be reached from other machines, and by {token} without encryption: let a proxy speak TLS for it"
    );
}

/// A model of the command line: `NAME=FILE`, or a file that is called as its folder or itself.
fn source(text: &str) -> Result<Source> {
    if let Some((name, path)) = text.split_once('=').filter(|(name, _)| !name.contains(['/', '\\'])) {
        return Ok(Source { name: name.to_owned(), path: path.into() });
    }
    let path = PathBuf::from(text);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().and_then(|folder| folder.file_name()).map(|name| name.to_string_lossy().into_owned());
    let name = if stem == "model" { folder.unwrap_or(stem) } else { stem };
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.trim_start_matches(['.', '@']).chars().map(fits).collect();
    if name.is_empty() {
        return Err(Error::new(format!("`{text}` is not a model file"))
            .with_hint("pass the file of a model, such as runs/NAME/model.safetensors"));
    }
    Ok(Source { name, path })
}
