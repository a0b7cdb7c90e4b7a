//! One run by several processes, as threads of this one: they end in the bytes of one process.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use burn::tensor::Device;
use structtoken::Result;
use structtoken::config::Config;
use structtoken::group::{Group, Thread, threads};
use structtoken::run::{self, Outcome, RunOptions};
use structtoken::train::{Observer, Progress, Stop};

use crate::cli::Lab;

const RECIPE: &str = r#"
[model.backbone]
type = "vit"
embed_dim = 12
depth = 1
num_heads = 2
patch_size = 8
img_size = [32, 32]

[model.decoder]
type = "structtoken"
block = "pwe"
num_blocks = 1

[data]
dataset = "shapes"
shapes = { size = 32, train = 12, val = 5 }
workers = 1

[data.augment]
resize = "none"
crop = [32, 32]

[train]
iterations = 6
batch_size = 8
accumulate = 4
eval_every = 3
save_every = 2
keep_checkpoints = 9
log_every = 1
tensorboard = false

[train.optimizer]
lr = 1e-2

[train.schedule]
warmup_iters = 2

[eval]
mode = "whole"
"#;

fn recipe(changes: &[&str]) -> Config {
    let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    Config::parse(RECIPE, "many.toml", &changes).unwrap()
}

/// Stops at an iteration, if one is given.
struct Until(Option<u64>);

impl Observer for Until {
    fn stop(&mut self, iteration: u64) -> Stop {
        if self.0.is_some_and(|stop| iteration >= stop) { Stop::Save } else { Stop::No }
    }
}

/// What every process of a group of `size` makes of `work`.
fn together<T: Send>(size: usize, work: impl Fn(&Thread) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let all: Vec<_> = threads(size).into_iter().map(|member| scope.spawn(move || work(&member))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Trains in the folder `run` by one process of a group.
fn train(group: &dyn Group, config: &Config, run: &Path, resume: bool, stop: Option<u64>) -> Result<Outcome> {
    let device = Device::flex();
    let _lock = if group.leads() { Some(run::prepare(config, run, resume)?) } else { None };
    group.barrier()?;
    let mut options = RunOptions::new(run, &device);
    (options.resume, options.group) = (resume, group);
    // Only one of them is told to stop.
    let stop = stop.filter(|_| group.rank() == group.size() - 1);
    run::train_with_restarts(config, &options, Duration::ZERO, &mut Until(stop))
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a run leaves that others can be compared with.
fn files(run: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let last = "checkpoints/step-00000006";
    let ema = "checkpoints/step-00000006/ema.safetensors";
    ["model.safetensors", "scores.json", "checkpoints/step-00000006/model.safetensors"]
        .into_iter()
        .chain(["checkpoints/step-00000006/optimizer.safetensors", "checkpoints/step-00000006/state.json"])
        .chain(run.join(ema).exists().then_some(ema))
        .inspect(|_| assert!(run.join(last).exists()))
        .map(|name| (name, bytes(&run.join(name))))
        .collect()
}

/// The losses of a run, as its log has them.
fn losses(run: &Path) -> Vec<(u64, String)> {
    let log = std::fs::read_to_string(run.join("log.ndjson")).unwrap();
    let rows = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.filter(|row| row.get("loss").is_some())
        .map(|row| (row["iteration"].as_u64().unwrap(), format!("{} {}", row["loss"], row["parts"])))
        .collect()
}

fn same_on_any_number(name: &str, changes: &[&str], sizes: &[usize]) {
    let lab = Lab::new();
    let config = recipe(changes);
    let mut first = None;
    for size in sizes {
        let run = lab.path(&format!("{name}-{size}"));
        let outcomes = together(*size, |group| train(group, &config, &run, false, None).unwrap());
        assert!(outcomes.iter().all(|outcome| outcome.iteration == 6 && outcome.best == outcomes[0].best));
        let found = (files(&run), losses(&run));
        assert_eq!(found.1.len(), 6);
        let (files, losses) = first.get_or_insert_with(|| found.clone());
        for ((file, before), (_, now)) in files.iter().zip(&found.0) {
            assert!(before == now, "{name}: {file} of {size} processes is not that of one");
        }
        assert_eq!(*losses, found.1, "{name}: losses of {size} processes");
    }
}

#[test]
fn adamw_with_an_average_and_clipping() {
    let changes = ["train.ema=0.9", "train.optimizer.clip_norm=0.1", "train.loss.dice=1"];
    same_on_any_number("adamw", &changes, &[1, 2, 3, 4]);
}

#[test]
fn sgd_over_batch_norm() {
    let head = "model.decoder={ type = \"fcn\", num_convs = 1, channels = 8 }";
    same_on_any_number("fcn", &["train.optimizer.type=sgd", head], &[1, 2, 4]);
    let unet = "model.backbone={ type = \"unet\", channels = [8, 16], depths = [1, 1], img_size = [32, 32] }";
    same_on_any_number("unet", &[unet, head], &[1, 2, 4]);
}

#[test]
fn dynamic_kernels() {
    let head = "model.decoder={ type = \"knet\", num_stages = 1, num_convs = 1, channels = 8, feat_channels = 8, \
                num_heads = 2, feedforward_channels = 12 }";
    same_on_any_number("knet", &[head], &[1, 2, 4]);
}

#[test]
fn queries_that_look_at_sampled_points() {
    let head = "model.decoder={ type = \"mask2former\", num_queries = 7, hidden_dim = 32, mask_dim = 9, num_heads = 4, \
                enc_layers = 1, enc_dim_feedforward = 13, dec_layers = 2, dim_feedforward = 15, loss = { num_points = 24 } }";
    same_on_any_number("mask2former", &[head], &[1, 2, 4]);
}

#[test]
fn products_in_bf16_of_passes_that_do_not_divide() {
    let changes = ["train.precision=bf16", "train.accumulate=6", "train.batch_size=12"];
    same_on_any_number("bf16", &changes, &[1, 2, 4, 5]);
}

/// Four processes, then two, then one, and four again; each told to stop, and each resumed.
#[test]
fn a_run_is_resumed_by_any_number_of_processes() {
    let lab = Lab::new();
    let config = recipe(&["train.ema=0.9"]);
    let [whole, parts] = ["whole", "parts"].map(|name| lab.path(name));
    together(1, |group| train(group, &config, &whole, false, None).unwrap());
    for (number, (size, stop)) in [(4, Some(1)), (2, Some(3)), (1, Some(5)), (4, None)].into_iter().enumerate() {
        let outcomes = together(size, |group| train(group, &config, &parts, number > 0, stop).unwrap());
        for outcome in outcomes {
            assert_eq!((outcome.iteration, outcome.interrupted), (stop.unwrap_or(6), stop.is_some()));
        }
    }
    for ((file, whole), (_, parts)) in files(&whole).into_iter().zip(files(&parts)) {
        assert!(whole == parts, "{file} differs");
    }
    assert_eq!(losses(&whole), losses(&parts));
}

/// An iteration takes so many seconds.
struct Clock<'a>(&'a Cell<f64>, f64);

impl Observer for Clock<'_> {
    fn iteration(&mut self, _progress: &Progress) {
        self.0.set(self.0.get() + self.1);
    }
}

/// The first one's clock decides, whatever that of another says.
#[test]
fn a_run_with_a_time_limit_ends_for_all_at_once() {
    let lab = Lab::new();
    let run = lab.path("run");
    let few = ["train.iterations=150", "train.accumulate=2", "train.batch_size=2", "train.max_time=\"40s\""];
    let config = recipe(&[&few[..], &["train.eval_every=0", "train.save_every=20"]].concat());
    let outcomes = together(2, |member| {
        let group: &dyn Group = member;
        let (device, now) = (Device::flex(), Cell::new(0.0));
        let _lock = group.leads().then(|| run::prepare(&config, &run, false).unwrap());
        group.barrier().unwrap();
        let mut options = RunOptions::new(&run, &device);
        options.group = group;
        let step = [1.0, 1e-6][group.rank()];
        let clock = || Duration::from_secs_f64(now.get());
        let outcome = run::train_by(&config, &options, &clock, &mut Clock(&now, step)).unwrap();
        (outcome.iteration, outcome.reschedules)
    });
    assert_eq!(outcomes[0], outcomes[1]);
    assert!((30..=41).contains(&outcomes[0].0) && !outcomes[0].1.is_empty(), "{outcomes:?}");
}

/// Passes on what it gets, but for one bit of one value at one moment.
struct Faulty<'a> {
    group: &'a Thread,
    left: AtomicU32,
}

impl Group for Faulty<'_> {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn exchange(&self, values: &[f32], bounds: &[usize]) -> Result<(Vec<f32>, Vec<usize>)> {
        self.group.exchange(values, bounds)
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.group.gather(own)
    }

    fn complete(&self, own: &[f32], values: &mut [f32], bounds: &[usize]) -> Result<()> {
        self.group.complete(own, values, bounds)?;
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // The largest, whose step is no rounding error.
            let largest = values.iter_mut().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
            *largest = -*largest;
        }
        Ok(())
    }
}

#[test]
fn a_process_with_other_weights_is_caught_before_they_are_saved() {
    let lab = Lab::new();
    let run = lab.path("run");
    let config = recipe(&["train.optimizer.type=sgd"]);
    let errors = together(3, |member| {
        // One sum in each of the first two iterations, and four or more, while the last pass computes, in the third.
        let faulty = Faulty { group: member, left: AtomicU32::new(4) };
        let group: &dyn Group = if member.rank() == 1 { &faulty } else { member };
        train(group, &config, &run, false, None).unwrap_err()
    });
    for error in errors {
        let text = error.to_string();
        assert!(text.contains("process 1 has other weights than the first"), "{text}");
        assert!(error.hint().unwrap().contains("--resume"));
    }
    let saved: Vec<_> =
        std::fs::read_dir(run.join("checkpoints")).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert!(!saved.is_empty() && saved.iter().all(|name| name.to_str().unwrap() < "step-00000004"), "{saved:?}");
    // What was saved is good: it ends as a run without a fault.
    together(2, |group| train(group, &config, &run, true, None).unwrap());
    let other = lab.path("other");
    together(1, |group| train(group, &config, &other, false, None).unwrap());
    assert!(files(&run) == files(&other));
}

#[test]
fn faults_end_all_processes() {
    let lab = Lab::new();
    let errors = |name: &str, changes: &[&str], size| {
        let (run, config) = (lab.path(name), recipe(changes));
        together(size, |group| train(group, &config, &run, false, None).unwrap_err().to_string())
    };
    for text in errors("more", &[], 5) {
        assert!(text.contains("5 processes cannot share the 4 passes of train.accumulate"), "{text}");
    }
    // The remedy.
    for (changes, size) in
        [(&["train.batch_size=6", "train.accumulate=2"], 3), (&["train.batch_size=4", "train.accumulate=2"], 5)]
    {
        let run = lab.path(&format!("remedy-{size}"));
        let start = |config: &Config| together(size, |group| train(group, config, &run, false, Some(1)).map(drop));
        let error = start(&recipe(changes)).remove(0).unwrap_err();
        let hint = error.hint().unwrap();
        let remedy: Vec<&str> = hint.split([' ', ',']).filter(|word| word.starts_with("train.")).collect();
        let all = [&changes[..], &remedy].concat();
        start(&recipe(&all)).into_iter().for_each(|end| end.unwrap());
    }
    let texts = errors("diverged", &["train.optimizer.lr=1e30", "train.optimizer.type=sgd"], 2);
    assert!(texts[0].contains("the loss is") && texts[0] == texts[1], "{texts:?}");
    // The folder cannot be written by the one that writes.
    let run = lab.write("taken/checkpoints", "a file");
    let config = recipe(&[]);
    let ended = together(2, |group| train(group, &config, run.parent().unwrap(), false, None).map(drop));
    assert!(ended.iter().all(Result::is_err), "{ended:?}");
    assert!(ended[1].as_ref().unwrap_err().to_string().contains("process 0 of 2 has ended before the others"));
}
