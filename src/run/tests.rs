//! Whole runs on a clock of their own.

use std::cell::Cell;
use std::time::Duration;

use burn::tensor::Device;

use super::rows::Row;
use super::{log, rows, *};
use crate::config::Config;
use crate::eval::Evaluated;
use crate::train::{Observer, Progress, Reschedule, Stop, TrainConfig};

const TINY: &str = r#"
[model.backbone]
type = "vit"
embed_dim = 12
depth = 1
num_heads = 1
patch_size = 8
img_size = [16, 16]

[model.decoder]
type = "structtoken"
block = "pwe"
num_blocks = 1

[data]
dataset = "shapes"
shapes = { size = 16, train = 16, val = 4 }

[data.augment]
resize = "none"
crop = [16, 16]

[train]
iterations = 100
batch_size = 2
eval_every = 20
save_every = 15
log_every = 1
ema = 0.9
tensorboard = false

[train.optimizer]
lr = 1e-3

[train.schedule]
warmup_iters = 5
"#;

/// A run on a simulated machine: seconds of an iteration by its number, half a second for an image of an evaluation.
struct Machine<'a> {
    now: &'a Cell<f64>,
    step: &'a dyn Fn(u64) -> f64,
    stop: u64,
    /// Images of evaluations so far, and the one after which it is told to stop.
    images: u64,
    stop_at_image: u64,
    notes: Vec<String>,
    lengths: Vec<u64>,
}

impl Observer for Machine<'_> {
    fn note(&mut self, message: &str) {
        self.notes.push(message.to_owned());
    }

    fn iteration(&mut self, progress: &Progress) {
        self.now.set(self.now.get() + (self.step)(progress.iteration));
        self.lengths.push(progress.iterations);
    }

    fn evaluating(&mut self, _: &Evaluated, _: usize) -> Stop {
        self.now.set(self.now.get() + 0.5);
        self.images += 1;
        if self.images == self.stop_at_image { Stop::Save } else { Stop::No }
    }

    fn evaluated(&mut self, _: u64, _: &Scores) {}

    fn stop(&mut self, iteration: u64) -> Stop {
        if iteration >= self.stop { Stop::Save } else { Stop::No }
    }
}

/// Trains in `run`, or resumes there, until `stop`; what happened, and the seconds it took.
fn train<'a>(
    config: &Config,
    run: &Path,
    (resume, stop): (bool, u64),
    now: &'a Cell<f64>,
    step: &'a dyn Fn(u64) -> f64,
) -> (Outcome, Machine<'a>) {
    train_until(config, run, (resume, stop, u64::MAX), now, step)
}

/// The same, until an image of its evaluations.
fn train_until<'a>(
    config: &Config,
    run: &Path,
    (resume, stop, stop_at_image): (bool, u64, u64),
    now: &'a Cell<f64>,
    step: &'a dyn Fn(u64) -> f64,
) -> (Outcome, Machine<'a>) {
    let _lock = prepare(config, run, resume).unwrap();
    let device = Device::flex();
    let options = RunOptions { resume, device_name: "simulated", command: "test", ..RunOptions::new(run, &device) };
    let mut machine = Machine { now, step, stop, images: 0, stop_at_image, notes: Vec::new(), lengths: Vec::new() };
    now.set(0.0);
    let clock = || Duration::from_secs_f64(now.get());
    let outcome = train_by(config, &options, &clock, &mut machine).unwrap();
    (outcome, machine)
}

fn assert_same_weights(a: &Path, b: &Path, last: u64) {
    let last = format!("checkpoints/step-{last:08}");
    let in_last =
        ["model.safetensors", "ema.safetensors", "optimizer.safetensors"].map(|name| format!("{last}/{name}"));
    for file in ["model.safetensors".to_owned(), "scores.json".to_owned()].into_iter().chain(in_last) {
        assert!(std::fs::read(a.join(&file)).unwrap() == std::fs::read(b.join(&file)).unwrap(), "{file} differs");
    }
}

/// The recipe that repeats a rescheduled run.
fn repeating(recipe: &Config, run: &Path) -> Config {
    let mut again = recipe.clone();
    again.train.schedule.reschedules = manifest::read(run).unwrap().unwrap().reschedules;
    (again.train.max_time, again.train.max_iterations) = (None, None);
    again
}

#[test]
fn a_rescheduled_run_is_repeated_by_its_reschedules() {
    let folder = tempfile::tempdir().unwrap();
    let [limited, repeated, halves, free] =
        ["limited", "repeated", "halves", "free"].map(|name| folder.path().join(name));
    let config = Config::parse(TINY, "tiny.toml", &["train.max_time=1m50s".into()]).unwrap();
    let now = Cell::new(0.0);
    // A core is taken away half way.
    let slower = |it: u64| if it < 50 { 1.0 } else { 2.0 };
    let (outcome, machine) = train(&config, &limited, (false, u64::MAX), &now, &slower);
    assert!((103.0..=110.0).contains(&now.get()), "{} s", now.get());
    assert!(outcome.iteration < 90 && !outcome.reschedules.is_empty() && !outcome.interrupted, "{outcome:?}");
    assert_eq!(machine.lengths.last(), Some(&outcome.iteration), "what is shown follows");
    assert!(machine.notes.iter().any(|note| note.contains("slower than planned") && note.contains("into 1m50s")));
    let rows = log::read(&limited).unwrap();
    let logged: Vec<Reschedule> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Reschedule(rows::RescheduleRow { iteration, iterations, eval_every }) => {
                Some(Reschedule { iteration: *iteration, iterations: *iterations, eval_every: *eval_every })
            }
            _ => None,
        })
        .collect();
    assert_eq!(logged, outcome.reschedules);
    // The learning rate has come to its end.
    let rates: Vec<f64> =
        rows.iter().filter_map(|row| if let Row::Step(step) = row { Some(step.lr) } else { None }).collect();
    assert!(rates.len() as u64 == outcome.iteration && rates[rates.len() - 1] < 0.05 * 1e-3, "{rates:?}");

    let again = repeating(&config, &limited);
    assert_eq!(again.train.schedule.reschedules, outcome.reschedules);
    let all = |_| 0.0;
    train(&again, &repeated, (false, u64::MAX), &now, &all);
    assert_same_weights(&limited, &repeated, outcome.iteration);
    assert_eq!(
        log::read(&repeated).unwrap().iter().filter(|row| matches!(row, Row::Reschedule(_))).count(),
        logged.len()
    );
    // Wherever it is cut in two.
    for stop in [outcome.reschedules[0].iteration, outcome.reschedules[0].iteration + 1, 33] {
        std::fs::remove_dir_all(&halves).ok();
        train(&again, &halves, (false, stop), &now, &all);
        train(&again, &halves, (true, u64::MAX), &now, &all);
        assert_same_weights(&limited, &halves, outcome.iteration);
        let text = |run: &Path| std::fs::read_to_string(run.join("metrics.csv")).unwrap().lines().count();
        assert_eq!(text(&halves), text(&limited));
    }
    // One that has the time it needs is one without a limit.
    let recipe = Config::parse(TINY, "tiny.toml", &["train.max_time=10h".into()]).unwrap();
    let (limited, unlimited) = (folder.path().join("ample"), repeating(&recipe, &repeated));
    let unlimited =
        Config { train: TrainConfig { schedule: recipe.train.schedule.clone(), ..unlimited.train }, ..unlimited };
    train(&recipe, &limited, (false, u64::MAX), &now, &slower);
    train(&unlimited, &free, (false, u64::MAX), &now, &slower);
    assert_same_weights(&limited, &free, 100);
}

#[test]
fn time_counts_over_interruptions_and_what_was_bent_stays() {
    let folder = tempfile::tempdir().unwrap();
    let [halves, repeated] = ["halves", "repeated"].map(|name| folder.path().join(name));
    let changes = ["train.max_time=1m50s".to_owned(), "train.max_iterations=200".to_owned()];
    let config = Config::parse(TINY, "tiny.toml", &changes).unwrap();
    let now = Cell::new(0.0);
    let slower = |it: u64| if it < 20 { 1.0 } else { 2.5 };
    let (first, _) = train(&config, &halves, (false, 38), &now, &slower);
    let before = now.get();
    assert!(first.interrupted && !first.reschedules.is_empty(), "{first:?}");
    // The other machine is faster.
    let faster = |_| 0.5;
    let (second, machine) = train(&config, &halves, (true, u64::MAX), &now, &faster);
    let took = before + now.get();
    assert!((103.0..=110.0).contains(&took), "{took} s, {second:?}");
    assert_eq!((first.took.as_secs_f64(), second.took.as_secs_f64()), (before, took), "over both processes");
    assert!(
        second.reschedules.starts_with(&first.reschedules) && second.reschedules.len() > first.reschedules.len(),
        "{second:?}"
    );
    let foreseen = first.reschedules[first.reschedules.len() - 1].iterations;
    assert!(
        second.iteration > foreseen && machine.notes.iter().any(|note| note.starts_with("faster than planned")),
        "{second:?} {:?}",
        machine.notes
    );
    let state = std::fs::read_to_string(halves.join(format!("checkpoints/step-{:08}/state.json", second.iteration)));
    assert!(state.unwrap().contains("elapsed_s"));
    train(&repeating(&config, &halves), &repeated, (false, u64::MAX), &now, &faster);
    assert_same_weights(&halves, &repeated, second.iteration);
}

#[test]
fn a_run_whose_time_is_over_is_evaluated_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let [over, repeated] = ["over", "repeated"].map(|name| folder.path().join(name));
    let config = Config::parse(TINY, "tiny.toml", &["train.max_time=10s".into()]).unwrap();
    let now = Cell::new(0.0);
    let (outcome, machine) = train(&config, &over, (false, u64::MAX), &now, &|_| 30.0);
    assert_eq!((outcome.iteration, outcome.interrupted), (1, false));
    assert!(
        machine.notes.iter().any(|note| note == "the time of 10s has run out after 1 of 100 iterations: stopping here")
    );
    assert!(over.join("model.safetensors").exists() && over.join(SCORES).exists());
    assert!(
        log::read(&over)
            .unwrap()
            .iter()
            .any(|row| matches!(row, Row::Reschedule(reschedule) if reschedule.iterations == 1))
    );
    train(&repeating(&config, &over), &repeated, (false, u64::MAX), &now, &|_| 0.0);
    assert_same_weights(&over, &repeated, 1);
    // There is nothing left to do for one that is resumed.
    let (again, _) = train(&config, &over, (true, u64::MAX), &now, &|_| 30.0);
    assert_eq!((again.iteration, again.reschedules), (1, outcome.reschedules));
}

/// Trains as `structtoken train` does: a run that has collapsed is started again.
fn train_until_it_stands(config: &Config, run: &Path) -> (Config, Vec<String>) {
    let (now, step) = (Cell::new(0.0), |_: u64| 1.0);
    let (mut config, mut notes, mut resume, mut spent) = (config.clone(), Vec::new(), false, 0.0);
    loop {
        let (outcome, machine) = train(&config, run, (resume, u64::MAX), &now, &step);
        notes.extend(machine.notes);
        spent += now.get();
        if !outcome.collapsed {
            return (config, notes);
        }
        let (next, message) = restart::restart(&config, run, &outcome).unwrap();
        notes.push(message);
        (config, resume) = (next, true);
        assert!(spent < 1e4);
    }
}

#[test]
fn a_collapsed_run_is_begun_again_and_repeated_by_its_last_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let [run, repeated, warned] = ["run", "repeated", "warned"].map(|name| folder.path().join(name));
    let wild =
        ["train.optimizer.lr=10.0", "train.schedule.warmup_iters=0", "train.precision=bf16", "train.max_time=3m"];
    let wild = wild.map(str::to_owned).to_vec();
    let config = Config::parse(TINY, "tiny.toml", &[&wild[..], &["train.restarts=2".to_owned()]].concat()).unwrap();
    let (last, notes) = train_until_it_stands(&config, &run);
    let said = |what: &str| notes.iter().filter(|note| note.contains(what)).count();
    assert!(said("the run has collapsed; if it does not recover") >= 2, "{notes:?}");
    assert_eq!(said("starting again, within the"), 2, "{notes:?}");
    let manifest = manifest::read(&run).unwrap().unwrap();
    let folders: Vec<&str> = manifest.collapsed.iter().map(|attempt| attempt.folder.as_str()).collect();
    assert_eq!(folders, ["collapsed-1", "collapsed-2"]);
    assert!(manifest.collapsed[0].changed.iter().any(|change| change.starts_with("train.optimizer.lr: 10.0 -> 3.33")));
    for file in ["config.toml", "log.ndjson", "checkpoints", "model.safetensors", "scores.json"] {
        assert!(run.join("collapsed-1").join(file).exists() && run.join(file).exists(), "{file}");
    }
    assert_eq!((last.train.restarts, last.train.precision), (0, crate::kernels::Precision::F32));
    assert!((last.train.optimizer.lr - 10.0 / 9.0).abs() < 1e-12);
    assert!(last.train.max_time.unwrap().0 < Duration::from_secs(180) && last.train.iterations <= 100);
    assert_eq!(recipe(&run, &[]).unwrap(), last);
    // What came of it is what its last recipe gives by itself.
    let again = repeating(&last, &run);
    let (outcome, _) = train(&again, &repeated, (false, u64::MAX), &Cell::new(0.0), &|_| 0.0);
    assert_same_weights(&run, &repeated, outcome.iteration);
    // A recipe that does not ask for it is only warned.
    let config = Config::parse(TINY, "tiny.toml", &wild).unwrap();
    let (kept, notes) = train_until_it_stands(&config, &warned);
    assert!(kept == config && notes.iter().any(|note| note.contains("--set train.optimizer.lr=3.3e0")), "{notes:?}");
    assert!(!warned.join("collapsed-1").exists());
}

#[test]
fn an_evaluation_that_is_broken_off_is_made_again_and_ends_in_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let changes = ["train.iterations=40".to_owned(), "train.restarts=0".to_owned()];
    let config = Config::parse(TINY, "tiny.toml", &changes).unwrap();
    let (now, step) = (Cell::new(0.0), |_: u64| 1.0);
    train(&config, &whole, (false, u64::MAX), &now, &step);
    // The second image of the evaluation after 20, the first of that of the resumed run, and the last of the last one.
    for (resume, image, iteration) in [(false, 2, 20), (true, 1, 20), (true, 8, 40)] {
        let (outcome, machine) = train_until(&config, &parts, (resume, u64::MAX, image), &now, &step);
        assert!(outcome.interrupted && outcome.iteration == iteration && machine.images == image, "{outcome:?}");
        let evaluations = log::read(&parts).unwrap().iter().filter(|row| matches!(row, Row::Eval(_))).count();
        assert_eq!(evaluations as u64, iteration / 40, "only what was seen as a whole is logged");
    }
    let (outcome, machine) = train(&config, &parts, (true, u64::MAX), &now, &step);
    assert!(!outcome.interrupted && machine.images == 4);
    assert_same_weights(&whole, &parts, 40);
    let text = |run: &Path| std::fs::read_to_string(run.join("metrics.csv")).unwrap().lines().count();
    assert_eq!(text(&whole), text(&parts));
}
