//! A server from its options to its end.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::error::{Error, Result};
use crate::infer::memory::peak;
use crate::serve::app::{App, Phase};
use crate::serve::auth::Tokens;
use crate::serve::estimate::memory;
use crate::serve::gate::Gate;
use crate::serve::label_studio_host::Host;
use crate::serve::limits::Limits;
use crate::serve::listen::listen;
use crate::serve::loaded::Loaded;
use crate::serve::metrics::Metrics;
use crate::serve::models::{Models, Source};
use crate::serve::queue::Queue;
use crate::serve::routes::router;
use crate::serve::signals::{Signal, Signals};
use crate::serve::warmup::warm_up;
use crate::serve::worker;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens, as `127.0.0.1:8080`.
    pub bind: String,
    /// Its models; the first answers requests that name none.
    pub models: Vec<Source>,
    /// Changes of the models' settings, as `eval.mode=slide`.
    pub changes: Vec<String>,
    /// What it takes at most.
    pub limits: Limits,
    /// Whether it labels the largest images that are accepted before it is ready.
    pub warmup: bool,
    /// The file of the token that requests must carry.
    pub token_file: Option<PathBuf>,
    /// The file of the token with which models are loaded.
    pub admin_token_file: Option<PathBuf>,
    /// Origins of pages elsewhere that may ask.
    pub cors: Vec<String>,
    /// The address of Label Studio, from which images are fetched.
    pub label_studio: Option<String>,
    /// The file of its access token.
    pub label_studio_token_file: Option<PathBuf>,
    /// How long requests are still taken after the signal to stop, so that balancers may notice.
    pub drain_delay: Duration,
    /// How long accepted requests may take after that.
    pub drain_time: Duration,
}

/// What a server tells while it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It takes requests at this address, and so many bytes of memory at most, as estimated.
    Listening(SocketAddr, u64),
    /// The model of this name labels images of this height and width, so many at once, before the server is ready.
    WarmingUp(String, (usize, usize), usize),
    /// It is ready after this time. It took so many bytes of memory at most, where that is known, and takes so many
    /// more at most for bodies and answers.
    WarmedUp(Duration, Option<u64>, u64),
    /// It was told to stop.
    Draining,
    /// A model was loaded again.
    Loaded(String),
    /// A model could not be loaded again; the one before is still served.
    NotLoaded(String, String),
}

/// Serves until it is told to stop: by SIGTERM, SIGINT or Ctrl-C. Models are asked on the calling thread, which should
/// be one of rayon's.
///
/// # Errors
/// Options that cannot be, an address that is taken, a model that cannot be loaded, and accepted requests that were not
/// finished in time.
pub fn run(options: Options, device: &Device, tell: impl Fn(Event) + Send + Sync + 'static) -> Result<()> {
    options.limits.check()?;
    let tokens = Tokens::read(options.token_file.as_deref(), options.admin_token_file.as_deref())?;
    let token = options.label_studio_token_file.as_deref();
    let label_studio = options.label_studio.as_deref().map(|address| Host::new(address, token)).transpose()?;
    let listener = bind(&options.bind)?;
    let limits = Limits { connections: connections(options.limits.connections), ..options.limits };
    let app = Arc::new(App {
        models: Models::open(options.models, options.changes, device.clone())?,
        queue: Queue::default(),
        gate: Arc::new(Gate::new(&limits)),
        metrics: Metrics::new(),
        limits,
        tokens,
        label_studio,
        phase: Phase::default(),
    });
    app.models.all().iter().try_for_each(|model| queue_fits(model, &app.gate))?;
    let router = router(app.clone(), &options.cors)?;
    let failed = |error: std::io::Error| Error::new("cannot start the server's threads").with_source(error);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(failed)?;
    if !options.warmup {
        app.phase.begin();
    }
    let tell = Arc::new(tell);
    let (listening, listens) = std::sync::mpsc::channel();
    let served = {
        let (app, tell) = (app.clone(), tell.clone());
        let (delay, time) = (options.drain_delay, options.drain_time);
        runtime.spawn(async move {
            let served = serve(listener, router, app.clone(), (delay, time), listening, &*tell).await;
            app.queue.close(served.is_err());
            served
        })
    };
    if options.warmup {
        let start = Instant::now();
        // What is said begins with where it listens; where it does not listen, nothing is warmed up for.
        let _ = listens.recv();
        warm_up(&app, |name, size, images| tell(Event::WarmingUp(name.to_owned(), size, images)))?;
        if !app.phase.is_leaving() {
            tell(Event::WarmedUp(start.elapsed(), peak(), limits.queue_bytes as u64));
        }
    }
    app.phase.begin();
    worker::work(&app.queue, &app.gate, &app.metrics);
    let served = runtime.block_on(served);
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map_err(|error| Error::new("the server failed").with_source(error))?
}

async fn serve(
    listener: TcpListener,
    router: axum::Router,
    app: Arc<App>,
    (delay, time): (Duration, Duration),
    listening: std::sync::mpsc::Sender<()>,
    tell: &(impl Fn(Event) + Send + Sync),
) -> Result<()> {
    let failed = |error: std::io::Error| Error::new("cannot listen").with_source(error);
    let address = listener.local_addr().map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let mut signals = Signals::new().map_err(failed)?;
    let (stop, stopped) = watch::channel(false);
    let mut connections = tokio::spawn(listen(listener, router, app.clone(), stopped));
    let models = app.models.all();
    let memory = memory(&models.iter().map(AsRef::as_ref).collect::<Vec<_>>(), &app.gate, &app.limits);
    tell(Event::Listening(address, memory));
    drop(listening);
    while signals.next().await == Signal::Reload {
        reload(&app, tell).await;
    }
    app.phase.leave();
    tell(Event::Draining);
    tokio::select! {
        () = sleep(delay) => {}
        // Told again: it does not wait for balancers.
        () = async { while signals.next().await == Signal::Reload {} } => {}
    }
    app.phase.close();
    // The receivers are in the task above.
    let _ = stop.send(true);
    let late = || Error::new(format!("requests were not finished within {} s, and were dropped", time.as_secs()));
    match timeout(time, &mut connections).await {
        Ok(ended) => ended.map_err(|error| Error::new("the server failed").with_source(error)),
        Err(_) => Err(late().with_hint("pass a longer --drain-time")),
    }
}

/// Loads all models again; one that cannot be changes nothing.
async fn reload(app: &Arc<App>, tell: &impl Fn(Event)) {
    for name in app.models.names() {
        let (at_work, model) = (app.clone(), name.clone());
        let loading = tokio::task::spawn_blocking(move || at_work.models.load(&model)).await;
        let loaded = loading.map_err(|_| Error::new("loading failed")).and_then(|loaded| loaded);
        app.metrics.loaded(loaded.is_ok());
        match loaded {
            Ok(_) => tell(Event::Loaded(name)),
            Err(error) => tell(Event::NotLoaded(name, error.to_string())),
        }
    }
}

/// Fails where the queue has no room for the smallest image.
fn queue_fits(model: &Loaded, gate: &Gate) -> Result<()> {
    let least = model.cost.pixels((1, 1));
    if least <= gate.most_pixels() {
        return Ok(());
    }
    // Rounded up to what is printed.
    let least = (least as f64 / 1e2).ceil() / 1e4;
    Err(Error::new(format!("the queue is smaller than any image for `{}`", model.name))
        .with_hint(format!("pass a queue of at least --max-queue {least}")))
}

fn bind(address: &str) -> Result<TcpListener> {
    let failed = |error: std::io::Error| {
        Error::new(format!("cannot listen at `{address}`"))
            .with_source(error)
            .with_hint("pass another address or port with --bind, such as --bind 127.0.0.1:8081")
    };
    let found: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
    let listener = TcpListener::bind(&found[..]).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// As many connections as there can be open files, less those that are needed otherwise.
fn connections(wanted: usize) -> usize {
    #[cfg(unix)]
    {
        const OTHERS: u64 = 64;
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: reads and writes one structure of this process's limits.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
                let asked = (wanted as u64 + OTHERS).max(limit.rlim_cur).min(limit.rlim_max);
                let more = libc::rlimit { rlim_cur: asked, ..limit };
                if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) == 0 {
                    limit = more;
                }
                return wanted.min(limit.rlim_cur.saturating_sub(OTHERS).max(1) as usize);
            }
        }
    }
    wanted
}
