//! One run of a comparison: as many iterations as the budget allows, trained as `structtoken train` does, and evaluated
//! image by image.

use std::path::Path;
use std::time::Duration;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::metrics::image_counts::ImageCounts;
use crate::metrics::{Scores, bootstrap};
use crate::report::About;
use crate::stats::median;
use crate::sweep::compare::judge::{Judge, Judged};
use crate::sweep::compare::kept_predictions::KeptPrediction;
use crate::sweep::compare::times::{StepTimer, Stopwatch, TimedStep, Times};
use crate::sweep::compare::{Budget, COUNTS, ComparePlan, CompareRun, RESULT, patient_lock};
use crate::train::{LONGEST_S, MOST_ITERATIONS, Observer};
use crate::{bench, files, inspect, report};

/// A finished run. Scores are those of the weights after the last iteration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CompareOutcome {
    /// Which run.
    pub run: CompareRun,
    /// Iterations done.
    pub iterations: u64,
    /// Scores on the validation split.
    pub scores: Scores,
    /// Mean over classes of boundary IoU; see [`boundary`](crate::metrics::boundary).
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
    /// The most memory the process held, if the system reports it; not that of a GPU.
    pub peak_mb: Option<u64>,
    /// What it ran on.
    pub device: String,
    /// Images whose predictions are in the strip; of the first seed only.
    pub shown: Vec<KeptPrediction>,
}

impl CompareOutcome {
    /// The outcome that `text` holds, of a run of this many iterations where that is known.
    ///
    /// # Errors
    /// A text that is none, or numbers that cannot be; naming the field.
    pub fn parse(text: &[u8], iterations: Option<u64>) -> Result<Self> {
        let outcome: Self =
            files::parse_json(text).map_err(|error| Error::new("it is not the result of a run").with_source(error))?;
        outcome.check(iterations).map(|()| outcome)
    }

    /// Fails if this cannot be what a run of this many iterations left; naming the field.
    fn check(&self, iterations: Option<u64>) -> Result<()> {
        let refuse = |field: &str, value: &dyn std::fmt::Debug| {
            Err(Error::new(format!("{field} = {value:?} cannot have been measured")))
        };
        if let Some(iterations) = iterations.filter(|iterations| *iterations != self.iterations) {
            return Err(Error::new(format!("iterations = {}: the run's recipe has {iterations}", self.iterations)));
        }
        self.scores.check().map_err(|error| Error::new("scores").with_source(error))?;
        if self.boundary_iou.is_some_and(|iou| !(0.0..=1.0).contains(&iou)) {
            return refuse("boundary_iou", &self.boundary_iou);
        }
        let times =
            [("step_ms", self.step_ms, 1e3), ("training_s", self.training_s, 1.0), ("image_ms", self.image_ms, 1e3)];
        if let Some((field, time, _)) = times.iter().find(|(_, time, unit)| !(0.0..=LONGEST_S * unit).contains(time)) {
            return refuse(field, time);
        }
        if self.parameters > 1 << 48 {
            return refuse("parameters", &self.parameters);
        }
        let large =
            |shown: &&KeptPrediction| shown.size.0 > KeptPrediction::SIDE || shown.size.1 > KeptPrediction::SIDE;
        match self.shown.iter().find(large) {
            Some(shown) => refuse("shown", &shown.size),
            None => Ok(()),
        }
    }
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
pub struct RunContext<'a> {
    /// The comparison's folder.
    pub dir: &'a Path,
    /// The device.
    pub device: &'a Device,
    /// What the device is called, with all that times depend on.
    pub device_name: &'a str,
    /// The command, for the record.
    pub command: &'a str,
}

impl<'a> RunContext<'a> {
    fn options(&self, run: &'a Path, resume: bool) -> crate::run::RunOptions<'a> {
        let Self { device, device_name, command, .. } = *self;
        crate::run::RunOptions { resume, device_name, command, ..crate::run::RunOptions::new(run, device) }
    }
}

/// Whether the run called `name` is finished in `dir`.
pub fn finished(dir: &Path, name: &str) -> bool {
    dir.join(name).join(RESULT).exists()
}

/// Fails if the runs that are finished in `dir` are of another plan, or of other data than there are now.
///
/// # Errors
/// As [`crate::run::check_recipe`] and [`crate::run::check_runs_data`].
fn check_earlier_runs(plan: &ComparePlan, dir: &Path) -> Result<()> {
    let mut done = Vec::new();
    for run in plan.runs() {
        let folder = dir.join(run.to_string());
        if !folder.join(RESULT).exists() {
            continue;
        }
        let recipe = crate::run::recipe(&folder, &[])?;
        crate::run::check_recipe(&folder, &plan.config(&run, recipe.train.iterations)?)?;
        done.push((folder, recipe));
    }
    crate::run::check_runs_data(&done)
}

/// Trains and evaluates one run of the plan in its folder below `place.dir`, or resumes it. Does nothing where it is
/// finished.
///
/// # Errors
/// As [`crate::run::train`]; or the folder holds a run with other settings, or one beside it was made by another plan
/// or on other data.
pub fn train_and_evaluate(
    plan: &ComparePlan,
    run: &CompareRun,
    place: &RunContext,
    observer: &mut dyn Observer,
) -> Result<Ended> {
    let folder = place.dir.join(run.to_string());
    if finished(place.dir, &run.to_string()) {
        return Ok(Ended::Finished);
    }
    // What is made now has to be of the same data as what is there.
    check_earlier_runs(plan, place.dir)?;
    let own = folder.join(crate::run::CONFIG);
    let has_run = own.exists();
    let iterations = match (has_run, plan.budget) {
        (true, _) => crate::run::recipe(&folder, &[])?.train.iterations,
        (false, Budget::Iterations(n)) => n,
        (false, Budget::Seconds(seconds)) => {
            let Some(step) = step_time(plan, run, seconds, place, observer)? else { return Ok(Ended::Interrupted) };
            let iterations = ((seconds as f64 / step) as u64).max(1);
            observer.note(&format!(
                "{run}: {:.1} ms per step, so {iterations} iterations in {}",
                step * 1e3,
                plan.budget
            ));
            iterations
        }
    };
    let config = plan.config(run, iterations)?;
    let _lock = crate::run::prepare(&config, &folder, has_run)?;
    let images = if plan.seeds.first() == Some(&run.seed) { config.data.open(Split::Val)?.len() } else { 0 };
    let mut judge = Judge::new(images, observer);
    let mut watch = Stopwatch::new(&folder, &mut judge);
    let trained = crate::run::train(&config, &place.options(&folder, has_run), &mut watch)?;
    watch.finish()?;
    if trained.interrupted {
        return Ok(Ended::Interrupted);
    }
    let about = About {
        title: run.to_string(),
        lead: format!("One run of the comparison in {}.", place.dir.display()),
        command: place.command.to_owned(),
        device: place.device_name.to_owned(),
        took: trained.took,
        ..About::default()
    };
    report::run::write(&folder, &crate::run::scores(&folder)?, place.device, &about)?;
    let Some(judged) = judge.finish(&trained.model, &config, place.device)? else { return Ok(Ended::Interrupted) };
    settle(run, &config, judged, &folder, place)?;
    Ok(Ended::Finished)
}

/// Seconds of a step of this decoder. All its seeds take the first measurement, so that they differ in nothing but the
/// seed. `None` where the user wants to stop.
fn step_time(
    plan: &ComparePlan,
    run: &CompareRun,
    budget: u64,
    place: &RunContext,
    observer: &mut dyn Observer,
) -> Result<Option<f64>> {
    /// Measured at most.
    const LONGEST: f64 = 10.0;
    /// Seconds that a step can take: from a nanosecond to a year.
    const POSSIBLE: std::ops::RangeInclusive<f64> = 1e-9..=3e7;
    let path = place.dir.join(format!("{}.step.json", run.decoder));
    let known = || -> Result<Option<f64>> {
        match files::read(&path, files::RECORD) {
            Ok(bytes) => {
                let again = "remove the file to time the steps again";
                let step: StepTime =
                    files::parse_json(&bytes).map_err(|error| Error::file("read", &path, error).with_hint(again))?;
                match POSSIBLE.contains(&step.seconds) && step.decoder == run.decoder {
                    true => Ok(Some(step.seconds)),
                    false => {
                        let what =
                            format!("seconds = {:e} in `{}` cannot be the time of a step", step.seconds, step.decoder);
                        Err(Error::file("use", &path, Error::new(what)).with_hint(again))
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path, error)),
        }
    };
    if let Some(step) = known()? {
        return Ok(Some(step));
    }
    observer.note(&format!("{run}: timing a few steps"));
    let mut config = plan.config(run, MOST_ITERATIONS)?;
    (config.train.eval_every, config.train.save_every) = (0, 0);
    let scratch = files::Scratch::new(place.dir, "probe")?;
    let mut probe = StepTimer::new(Duration::from_secs_f64((budget as f64 * 0.05).min(LONGEST)), observer);
    let options = crate::run::RunOptions { trial: true, ..place.options(scratch.path(), true) };
    crate::run::train(&config, &options, &mut probe)?;
    let TimedStep::Step(seconds) = probe.found()? else { return Ok(None) };
    let _lock = patient_lock(place.dir)?;
    // Another machine may have been faster.
    if let Some(step) = known()? {
        return Ok(Some(step));
    }
    let step = StepTime { decoder: run.decoder.clone(), seconds, device: place.device_name.to_owned() };
    files::write(&path, &json(&step)?)?;
    Ok(Some(seconds))
}

/// The time of a step as it is kept for a decoder's other seeds.
#[derive(Serialize, Deserialize)]
struct StepTime {
    decoder: String,
    seconds: f64,
    device: String,
}

/// Writes what was measured of a run, and with it that it is finished.
fn settle(run: &CompareRun, config: &Config, judged: Judged, folder: &Path, place: &RunContext) -> Result<()> {
    let times_of_steps = Times::read(folder);
    let boundary: Vec<ImageCounts> = judged.images.iter().map(|image| image.boundary.clone()).collect();
    let [height, width] = config.data.augment.crop;
    let classes = config.data.open(Split::Val)?.classes().clone();
    let outcome = CompareOutcome {
        run: run.clone(),
        iterations: config.train.iterations,
        boundary_iou: bootstrap::miou(&boundary),
        scores: judged.scores,
        parameters: inspect::model_size(&config.model, classes.len()).total_parameters,
        macs: config.model.macs(classes.len(), (height, width)).iter().map(|cost| cost.macs).sum(),
        step_ms: times_of_steps.median().unwrap_or(0.0),
        training_s: times_of_steps.elapsed()(config.train.iterations),
        image_ms: median(&judged.times).unwrap_or(0.0),
        peak_mb: bench::peak_rss_mb(),
        device: place.device_name.to_owned(),
        shown: judged.strip.write(folder, &classes.colors)?,
    };
    let counts =
        serde_json::to_vec(&judged.images).map_err(|error| Error::new("cannot write counts").with_source(error))?;
    files::write(&folder.join(COUNTS), &counts)?;
    files::write(&folder.join(RESULT), &json(&outcome)?)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| Error::new("cannot write JSON").with_source(error))
}
