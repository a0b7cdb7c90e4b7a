//! One run of a comparison: as many iterations as the budget allows, trained as `structtoken train` does, and evaluated
//! image by image.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::picture::{Shown, Strip};
use super::stats::median;
use super::times::{Found, Probe, Stopwatch, Times};
use super::{Budget, Plan, Run, patient_lock};
use crate::config::Config;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::eval::bootstrap::{self, ImageCounts};
use crate::eval::boundary::{self, band_width, boundary_counts};
use crate::eval::{self, Inference, Scores};
use crate::model::Model;
use crate::report::run::About;
use crate::train::{self, Observer};
use crate::{bench, files, inspect, report};

/// What was measured of a finished run; its folder is finished when this is in it.
pub(super) const RESULT: &str = "result.json";
/// The counts of every image of the validation split.
pub(super) const COUNTS: &str = "counts.json";

/// A finished run. Scores are those of the weights after the last iteration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which run.
    pub run: Run,
    /// Iterations done.
    pub iterations: u64,
    /// Scores on the validation split.
    pub scores: Scores,
    /// Mean over classes of boundary IoU; see [`boundary`].
    pub boundary_iou: Option<f64>,
    /// Parameters of the network.
    pub parameters: u64,
    /// Multiply-accumulates of one training crop, forward.
    pub macs: u64,
    /// Median time of a step of training.
    pub step_ms: f64,
    /// Training in all, evaluations apart.
    pub training_s: f64,
    /// Median time from an 8-bit image to its labels, as the recipe evaluates.
    pub image_ms: f64,
    /// The most memory the process held, if the system tells; not that of a GPU.
    pub peak_mb: Option<u64>,
    /// What it ran on.
    pub device: String,
    /// Images whose predictions are in the strip; of the first seed only.
    pub shown: Vec<Shown>,
}

/// Counts of one image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageResult {
    /// Its name.
    pub name: String,
    /// All pixels.
    pub area: ImageCounts,
    /// Those along the contours.
    pub boundary: ImageCounts,
}

/// How a run ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is finished, now or before.
    Finished,
    /// It was told to stop, and can be resumed.
    Interrupted,
}

/// Where and how a run is made.
pub struct Place<'a> {
    /// The comparison's folder.
    pub dir: &'a Path,
    /// The device.
    pub device: &'a Device,
    /// What the device is called, with all that times depend on.
    pub device_name: &'a str,
    /// The command, for the record.
    pub command: &'a str,
}

/// Whether `run` is finished in `dir`.
pub fn finished(dir: &Path, run: &Run) -> bool {
    dir.join(run.to_string()).join(RESULT).exists()
}

/// Trains and evaluates one run of the plan in its folder below `place.dir`, or goes on with it. Does nothing where it is
/// finished.
///
/// # Errors
/// As [`train::run`]; or the folder holds a run with other settings.
pub fn train_and_evaluate(plan: &Plan, run: &Run, place: &Place, observer: &mut dyn Observer) -> Result<Ended> {
    let folder = place.dir.join(run.to_string());
    if finished(place.dir, run) {
        return Ok(Ended::Finished);
    }
    let started = Instant::now();
    let own = folder.join("config.toml");
    let begun = own.exists();
    let iterations = match (begun, plan.budget) {
        (true, _) => Config::read(&own, &[])?.train.iterations,
        (false, Budget::Iterations(n)) => n,
        (false, Budget::Seconds(seconds)) => {
            let Some(step) = step_time(plan, run, seconds, place, observer)? else { return Ok(Ended::Interrupted) };
            let iterations = ((seconds as f64 / step) as u64).max(1);
            observer.note(&format!(
                "{run}: {:.1} ms a step, so {iterations} iterations in {}",
                step * 1e3,
                plan.budget
            ));
            iterations
        }
    };
    let config = plan.config(run, iterations)?;
    let _lock = train::prepare(&config, &folder, begun)?;
    let mut watch = Stopwatch::new(&folder, observer);
    let trained = train::run(&config, &folder, begun, place.device, &mut watch)?;
    watch.finish()?;
    if trained.interrupted {
        return Ok(Ended::Interrupted);
    }
    let about = About {
        title: run.to_string(),
        lead: format!("One run of the comparison in {}.", place.dir.display()),
        command: place.command.to_owned(),
        device: place.device_name.to_owned(),
        took: started.elapsed(),
        ..About::default()
    };
    report::run::write(&folder, &train::scores(&folder)?, place.device, &about)?;
    observer.note(&format!("{run}: evaluating the last weights, image by image"));
    evaluate(plan, run, &config, &trained.model, &folder, place, observer)?;
    Ok(Ended::Finished)
}

/// Seconds of a step of this decoder. All its seeds take the first measurement, so that they differ in nothing but the seed.
/// `None` where the user wants to stop.
fn step_time(plan: &Plan, run: &Run, budget: u64, place: &Place, observer: &mut dyn Observer) -> Result<Option<f64>> {
    /// Measured at most.
    const LONGEST: f64 = 10.0;
    let path = place.dir.join(format!("{}.step.json", run.decoder));
    let known = || -> Result<Option<f64>> {
        match std::fs::read(&path) {
            Ok(bytes) => {
                let step: Step = serde_json::from_slice(&bytes).map_err(|error| Error::file("read", &path, error))?;
                Ok(Some(step.seconds).filter(|seconds| *seconds > 0.0))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path, error)),
        }
    };
    if let Some(step) = known()? {
        return Ok(Some(step));
    }
    observer.note(&format!("{run}: timing a few steps"));
    let mut config = plan.config(run, u64::MAX >> 16)?;
    (config.train.eval_every, config.train.save_every) = (0, 0);
    let scratch = Scratch(place.dir.join(format!(".probe-{run}")));
    let mut probe = Probe::new(Duration::from_secs_f64((budget as f64 * 0.05).min(LONGEST)), observer);
    train::run(&config, &scratch.0, true, place.device, &mut probe)?;
    let Found::Step(seconds) = probe.found()? else { return Ok(None) };
    let _lock = patient_lock(place.dir)?;
    // Another machine may have been faster.
    if let Some(step) = known()? {
        return Ok(Some(step));
    }
    let step = Step { decoder: run.decoder.clone(), seconds, device: place.device_name.to_owned() };
    files::write(&path, &json(&step)?)?;
    Ok(Some(seconds))
}

/// The time of a step as it is kept for a decoder's other seeds.
#[derive(Serialize, Deserialize)]
struct Step {
    decoder: String,
    seconds: f64,
    device: String,
}

/// A folder that goes when it is no longer needed.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn evaluate(
    plan: &Plan,
    run: &Run,
    config: &Config,
    model: &Model,
    folder: &Path,
    place: &Place,
    observer: &mut dyn Observer,
) -> Result<()> {
    let validation = config.data.open(Split::Val)?;
    let all = validation.len();
    let inference =
        Inference { network: model, preprocess: &config.data.preprocess, config: &config.eval, device: place.device };
    let mut images = Vec::with_capacity(all);
    let mut times = Vec::with_capacity(all);
    let mut strip = Strip::new(if plan.seeds.first() == Some(&run.seed) { all } else { 0 });
    let scores = eval::evaluate_each(&inference, validation.as_ref(), &mut |one| {
        let d = band_width((one.truth.width, one.truth.height), boundary::BAND);
        images.push(ImageResult {
            name: one.name.to_owned(),
            area: ImageCounts::of(one.confusion),
            boundary: boundary_counts(one.truth, one.prediction, d),
        });
        times.push(one.took.as_secs_f64() * 1e3);
        strip.offer(one.done - 1, one.prediction);
        observer.evaluating(one.done, all);
    })?;
    let times_of_steps = Times::read(folder);
    let boundary: Vec<ImageCounts> = images.iter().map(|image| image.boundary.clone()).collect();
    let [height, width] = config.data.augment.crop;
    let classes = validation.classes();
    let outcome = Outcome {
        run: run.clone(),
        iterations: config.train.iterations,
        boundary_iou: bootstrap::miou(&boundary),
        scores,
        parameters: inspect::summarise(&config.model, classes.len()).total_parameters,
        macs: config.model.macs(classes.len(), (height, width)).iter().map(|cost| cost.macs).sum(),
        step_ms: times_of_steps.median().unwrap_or(0.0),
        training_s: times_of_steps.elapsed(config.train.iterations).last().copied().unwrap_or(0.0),
        image_ms: median(&times).unwrap_or(0.0),
        peak_mb: bench::peak_rss_mb(),
        device: place.device_name.to_owned(),
        shown: strip.write(folder, &classes.colors)?,
    };
    let counts = serde_json::to_vec(&images).map_err(|error| Error::new("cannot write counts").source(error))?;
    files::write(&folder.join(COUNTS), &counts)?;
    files::write(&folder.join(RESULT), &json(&outcome)?)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| Error::new("cannot write JSON").source(error))
}
