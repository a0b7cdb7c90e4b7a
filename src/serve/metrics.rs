//! Counters of a server, as Prometheus reads them.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::serve::gate::Gate;
use crate::serve::work::Timing;

/// Counters of a server.
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram>,
    stages: Family<Stage, Histogram>,
    images: Family<Model, Counter>,
    passes: Histogram,
    reloads: Family<Outcome, Counter>,
    connections: Gauge,
    queue_megapixels: Gauge<f64, std::sync::atomic::AtomicU64>,
    queue_utilization: Gauge<f64, std::sync::atomic::AtomicU64>,
    queue_bytes: Gauge,
    rate: Gauge<f64, std::sync::atomic::AtomicU64>,
    memory: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// From a millisecond to two minutes.
fn times() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0])
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("structtoken");
        let requests = Family::default();
        registry.register("requests", "Requests by route and status", requests.clone());
        let seconds: Family<Route, Histogram> = Family::new_with_constructor(times);
        registry.register("request_seconds", "Time from a request's headers to its answer", seconds.clone());
        let stages: Family<Stage, Histogram> = Family::new_with_constructor(times);
        registry.register(
            "stage_seconds",
            "Time of a labelled image in the queue, decoded, inferred, encoded",
            stages.clone(),
        );
        let images = Family::default();
        registry.register("images", "Images labelled", images.clone());
        let passes = Histogram::new([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0]);
        registry.register("images_together", "Images that shared their forward passes", passes.clone());
        let reloads = Family::default();
        registry.register("model_loads", "Models loaded again, by outcome", reloads.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let queue_megapixels = Gauge::default();
        registry.register("queue_cost", "Megapixels of windows accepted and not answered", queue_megapixels.clone());
        let queue_utilization = Gauge::default();
        registry.register("queue_utilization", "The same as a share of what may be", queue_utilization.clone());
        let queue_bytes = Gauge::default();
        registry.register("queue_bytes", "Bytes of bodies that are held", queue_bytes.clone());
        let rate = Gauge::default();
        registry.register("megapixels_per_second", "Windows worked on, as measured", rate.clone());
        let memory = Gauge::default();
        registry.register("resident_memory_bytes", "Memory of the process", memory.clone());
        Self {
            registry,
            requests,
            seconds,
            stages,
            images,
            passes,
            reloads,
            connections,
            queue_megapixels,
            queue_utilization,
            queue_bytes,
            rate,
            memory,
        }
    }

    /// A request was answered.
    pub(super) fn request(&self, route: &str, code: u16, time: Duration) {
        self.requests.get_or_create(&Request { route: route.to_owned(), code }).inc();
        self.seconds.get_or_create(&Route { route: route.to_owned() }).observe(time.as_secs_f64());
    }

    /// An image was labelled by a model.
    pub(super) fn labelled(&self, model: &str, timing: &Timing) {
        self.images.get_or_create(&Model { model: model.to_owned() }).inc();
        for (stage, time) in timing.parts() {
            self.stages.get_or_create(&Stage { stage }).observe(time.as_secs_f64());
        }
    }

    /// So many images shared their passes.
    pub(super) fn pass(&self, images: usize) {
        self.passes.observe(images as f64);
    }

    /// A model was loaded, or was not.
    pub(super) fn loaded(&self, worked: bool) {
        self.reloads.get_or_create(&Outcome { outcome: if worked { "loaded" } else { "failed" } }).inc();
    }

    /// Open connections.
    pub(super) fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// All, in the text format of OpenMetrics.
    pub(super) fn text(&self, gate: &Gate) -> String {
        let megapixels = |pixels: u64| pixels as f64 / 1e6;
        self.queue_megapixels.set(megapixels(gate.pixels()));
        self.queue_utilization.set(gate.pixels() as f64 / gate.most_pixels() as f64);
        self.queue_bytes.set(gate.bytes().cast_signed());
        self.rate.set(gate.rate().per_second() / 1e6);
        self.memory.set(resident().unwrap_or(0).cast_signed());
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Bytes of memory that this process has; none elsewhere than on Linux.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}
