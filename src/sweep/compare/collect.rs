//! From the folders of finished runs to one comparison.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::metrics::bootstrap::{p_value, percentile_interval, resampled_mious};
use crate::metrics::image_counts::ImageCounts;
use crate::stats::{mean, median, t_interval};
use crate::sweep::compare::curves::{CurvePoint, curves_of, mean_curve, thinned};
use crate::sweep::compare::judge::ImageResult;
use crate::sweep::compare::run::CompareOutcome;
use crate::sweep::compare::{Budget, COUNTS, ComparePlan, CompareRun, RESULT};
use crate::{files, run};

/// Draws of the bootstrap, and their seed.
const DRAWS: usize = 2000;
const SEED: u64 = 0;
/// The level of all intervals.
const LEVEL: f64 = 0.95;

/// A finished run as it lies on disk.
pub struct Finished {
    /// Its folder.
    pub folder: PathBuf,
    /// What was measured.
    pub outcome: CompareOutcome,
    images: Vec<ImageResult>,
}

/// The result of a comparison: what `compare.json` holds. Scores and their intervals lie in 0..=1, and intervals are of
/// 95 %.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The version of this form.
    pub version: u32,
    /// The dataset.
    pub dataset: String,
    /// Images of the validation split.
    pub images: usize,
    /// How long each run was trained.
    pub budget: Budget,
    /// Height and width of a training crop.
    pub crop: [usize; 2],
    /// The best decoder first; those without a finished run last.
    pub decoders: Vec<DecoderRow>,
    /// Runs that are not finished.
    pub missing: Vec<String>,
    /// What has to be known when reading the numbers.
    pub notes: Vec<String>,
}

/// What was found of one decoder.
#[derive(Clone, Debug, Serialize)]
pub struct DecoderRow {
    /// Its name.
    pub decoder: String,
    /// The mean over seeds of mIoU on the validation split.
    pub miou: Option<f64>,
    /// Student's interval of that mean over seeds, of two seeds or more: what other seeds may give.
    pub miou_over_seeds: Option<[f64; 2]>,
    /// The bootstrap interval of that mean over images: what other images may give.
    pub miou_over_images: Option<[f64; 2]>,
    /// The difference to the best decoder; none for itself.
    pub to_best: Option<Difference>,
    /// The mean over seeds of the boundary IoU.
    pub boundary_iou: Option<f64>,
    /// Parameters of the whole network.
    pub parameters: Option<u64>,
    /// Multiply-accumulates of one training crop, forward, in thousands of millions; a GFLOP by the count of the
    /// papers.
    pub gmac: Option<f64>,
    /// A step of training: the median, and over seeds the median of those.
    pub step_ms: Option<f64>,
    /// An image to labels: the same.
    pub image_ms: Option<f64>,
    /// The most memory over seeds.
    pub peak_mb: Option<u64>,
    /// Each finished seed.
    pub runs: Vec<RunRow>,
    /// Seeds of the plan.
    pub seeds: usize,
    /// The training loss, and mIoU on the validation split, as means over seeds.
    pub loss: Vec<CurvePoint>,
    /// The same of mIoU.
    pub miou_curve: Vec<CurvePoint>,
}

/// A difference of mIoU on the same draws of images: this decoder minus the best.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Difference {
    /// The difference of the means over seeds.
    pub miou: f64,
    /// Its bootstrap interval over images.
    pub interval: [f64; 2],
    /// Two-sided, not corrected for the number of decoders.
    pub p: f64,
}

/// One run in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct RunRow {
    /// Its name, and that of its folder.
    pub run: String,
    /// Its seed.
    pub seed: u64,
    /// Scores of the last weights.
    pub miou: Option<f64>,
    /// See [`boundary`](crate::metrics::boundary).
    pub boundary_iou: Option<f64>,
    /// Share of right pixels.
    pub pixel_accuracy: Option<f64>,
    /// Iterations done.
    pub iterations: u64,
    /// Seconds they took.
    pub training_s: f64,
    /// Median time of a step.
    pub step_ms: f64,
    /// Median time of an image.
    pub image_ms: f64,
    /// Peak memory.
    pub peak_mb: Option<u64>,
    /// What it ran on.
    pub device: String,
}

/// The finished runs of the plan in `folders`, in the plan's order; of one that is in several the first counts.
///
/// # Errors
/// Files that cannot be read, or that do not fit the plan.
pub fn gather(plan: &ComparePlan, folders: &[PathBuf]) -> Result<Vec<Finished>> {
    let mut found = Vec::new();
    for run in plan.runs() {
        let place = folders.iter().map(|dir| dir.join(run.to_string())).find(|folder| folder.join(RESULT).exists());
        if let Some(folder) = place {
            let finished = read(&run, folder)?;
            run::check_recipe(&finished.folder, &plan.config(&run, finished.outcome.iterations)?)?;
            found.push(finished);
        }
    }
    Ok(found)
}

fn read(run: &CompareRun, folder: PathBuf) -> Result<Finished> {
    let again = format!("remove `{RESULT}` in that folder: the run is then evaluated again");
    let bytes = |path: &Path| files::read(path, files::RECORD).map_err(|error| Error::file("read", path, error));
    let [result, counts] = [RESULT, COUNTS].map(|name| folder.join(name));
    let iterations = run::recipe(&folder, &[]).ok().map(|recipe| recipe.train.iterations);
    let outcome = CompareOutcome::parse(&bytes(&result)?, iterations)
        .map_err(|error| Error::file("use", &result, error).with_hint(again.clone()))?;
    if outcome.run != *run {
        return Err(Error::new(format!("`{}` holds the run {}", folder.display(), outcome.run))
            .with_hint("do not rename run folders"));
    }
    let images: Vec<ImageResult> = files::parse_json(&bytes(&counts)?)
        .map_err(|error| Error::file("read", &counts, error).with_hint(again.clone()))?;
    ImageResult::check(&images, &outcome.scores)
        .map_err(|error| Error::file("use", &counts, error).with_hint(again))?;
    Ok(Finished { folder, outcome, images })
}

/// The comparison of what was gathered.
///
/// # Errors
/// Runs that were evaluated on different images.
pub fn compare(plan: &ComparePlan, gathered: &[Finished]) -> Result<Comparison> {
    let names = |finished: &Finished| finished.images.iter().map(|image| image.name.clone()).collect::<Vec<_>>();
    if let Some(odd) = gathered.iter().find(|finished| names(finished) != names(&gathered[0])) {
        return Err(Error::new(format!(
            "`{}` and `{}` were evaluated on different images",
            gathered[0].folder.display(),
            odd.folder.display()
        ))
        .with_hint("use the same dataset everywhere; remove result.json of those that differ to evaluate them again"));
    }
    run::check_runs_share_data(&gathered.iter().map(|finished| finished.folder.clone()).collect::<Vec<_>>(), false)?;
    let mut rows: Vec<(DecoderRow, Vec<f64>)> = Vec::new();
    for decoder in &plan.decoders {
        let runs: Vec<&Finished> =
            gathered.iter().filter(|finished| finished.outcome.run.decoder == *decoder).collect();
        let counts: Vec<Vec<ImageCounts>> =
            runs.iter().map(|run| run.images.iter().map(|image| image.area.clone()).collect()).collect();
        let counts: Vec<&[ImageCounts]> = counts.iter().map(Vec::as_slice).collect();
        let drawn = if counts.is_empty() { Vec::new() } else { resampled_mious(&counts, DRAWS, SEED) };
        rows.push((row(decoder, plan.seeds.len(), &runs, &drawn)?, drawn));
    }
    let score = |row: &DecoderRow| row.miou.unwrap_or(f64::NEG_INFINITY);
    rows.sort_by(|a, b| score(&b.0).total_cmp(&score(&a.0)));
    if let Some((best, best_draws)) = rows.first().map(|(row, drawn)| (row.miou, drawn.clone())) {
        for (row, drawn) in rows.iter_mut().skip(1) {
            row.to_best = difference(row.miou, best, drawn, &best_draws);
        }
    }
    let done = |run: &CompareRun| gathered.iter().any(|finished| finished.outcome.run == *run);
    let missing: Vec<String> = plan.runs().iter().filter(|run| !done(run)).map(CompareRun::to_string).collect();
    Ok(Comparison {
        version: 1,
        dataset: plan.recipe.data.dataset.clone(),
        images: gathered.first().map_or(0, |finished| finished.images.len()),
        budget: plan.budget,
        crop: plan.recipe.data.augment.crop,
        decoders: rows.into_iter().map(|(row, _)| row).collect(),
        notes: notes(gathered, &missing),
        missing,
    })
}

fn difference(ours: Option<f64>, best: Option<f64>, drawn: &[f64], best_drawn: &[f64]) -> Option<Difference> {
    let differences: Vec<f64> = drawn.iter().zip(best_drawn).map(|(a, b)| a - b).collect();
    let interval = percentile_interval(&differences, LEVEL)?;
    Some(Difference { miou: ours? - best?, interval, p: p_value(&differences) })
}

fn row(decoder: &str, seeds: usize, runs: &[&Finished], drawn: &[f64]) -> Result<DecoderRow> {
    let all =
        |of: fn(&CompareOutcome) -> Option<f64>| runs.iter().filter_map(|run| of(&run.outcome)).collect::<Vec<_>>();
    let mious = all(|outcome| outcome.scores.miou);
    let first = runs.first().map(|run| &run.outcome);
    let mut curves = Vec::new();
    for run in runs {
        curves.push(curves_of(&run.folder, run.outcome.iterations)?);
    }
    let (loss, miou_curve): (Vec<_>, Vec<_>) = curves.into_iter().unzip();
    Ok(DecoderRow {
        decoder: decoder.to_owned(),
        miou: mean(&mious),
        miou_over_seeds: t_interval(&mious),
        miou_over_images: percentile_interval(drawn, LEVEL),
        to_best: None,
        boundary_iou: mean(&all(|outcome| outcome.boundary_iou)),
        parameters: first.map(|outcome| outcome.parameters),
        gmac: first.map(|outcome| outcome.macs as f64 / 1e9),
        step_ms: median(&all(|outcome| Some(outcome.step_ms))),
        image_ms: median(&all(|outcome| Some(outcome.image_ms))),
        peak_mb: runs.iter().filter_map(|run| run.outcome.peak_mb).max(),
        runs: runs.iter().map(|run| run_row(&run.outcome)).collect(),
        seeds,
        loss: thinned(mean_curve(&loss)),
        miou_curve: mean_curve(&miou_curve),
    })
}

fn run_row(outcome: &CompareOutcome) -> RunRow {
    RunRow {
        run: outcome.run.to_string(),
        seed: outcome.run.seed,
        miou: outcome.scores.miou,
        boundary_iou: outcome.boundary_iou,
        pixel_accuracy: outcome.scores.aacc,
        iterations: outcome.iterations,
        training_s: outcome.training_s,
        step_ms: outcome.step_ms,
        image_ms: outcome.image_ms,
        peak_mb: outcome.peak_mb,
        device: outcome.device.clone(),
    }
}

fn notes(gathered: &[Finished], missing: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    if !missing.is_empty() {
        notes.push(format!("Not finished: {}.", missing.join(", ")));
    }
    for finished in gathered {
        let outcome = &finished.outcome;
        notes.extend(outcome.scores.warnings.iter().map(|warning| format!("{}: {warning}.", outcome.run)));
    }
    let mut devices: Vec<&str> = gathered.iter().map(|finished| finished.outcome.device.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    if devices.len() > 1 {
        notes.push(format!(
            "Runs were made on different machines, so their times are not comparable: {}.",
            devices.join("; ")
        ));
    }
    if gathered.iter().any(|finished| finished.outcome.iterations < 100) {
        notes.push("Some runs had fewer than 100 iterations, which says little about a decoder.".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_paired() {
        let best: Vec<f64> = (0..2000).map(|i| f64::from(i % 100) / 100.0).collect();
        let worse: Vec<f64> = best.iter().map(|value| value - 0.02).collect();
        let found = difference(Some(0.48), Some(0.5), &worse, &best).unwrap();
        // However much the draws vary, the difference does not.
        assert!((found.interval[0] + 0.02).abs() < 1e-9 && (found.interval[1] + 0.02).abs() < 1e-9 && found.p < 0.002);
        assert!(difference(None, Some(0.5), &[], &best).is_none());
    }
}
