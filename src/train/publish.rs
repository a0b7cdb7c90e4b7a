//! What a run's weights are worth, and the best of them published.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use burn::tensor::Device;

use super::SCORES;
use super::bend::Course;
use super::checkpoint::{Checkpoints, State};
use super::observer::Observer;
use crate::config::Config;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::eval::{self, Inference, Scores};
use crate::layers::parameters;
use crate::model::Model;
use crate::report::progress::{self, Row, RunLog};
use crate::{artifact, files, weights};

/// How a run's weights are judged.
pub(super) struct Judge<'a> {
    pub(super) validation: &'a dyn Dataset,
    pub(super) config: &'a Config,
    pub(super) device: &'a Device,
}

impl Judge<'_> {
    fn inference<'a>(&'a self, network: &'a Model) -> Inference<'a> {
        Inference { network, preprocess: &self.config.data.preprocess, config: &self.config.eval, device: self.device }
    }

    /// The scores of a model on the validation split; none where the observer breaks it off.
    pub(super) fn evaluate(&self, model: &Model, observer: &mut dyn Observer) -> Result<Option<Scores>> {
        let all = self.validation.len();
        let see = &mut |image: &eval::Evaluated| observer.evaluating(image, all).flow();
        eval::evaluate_each(&self.inference(model), self.validation, see)
    }

    /// About how many seconds an evaluation takes, from two images of it.
    pub(super) fn foretell(&self, model: &Model, clock: &dyn Fn() -> Duration) -> Result<f64> {
        let all = self.validation.len();
        let mut took = 0.0;
        // The first warms up.
        for index in [0, all / 2].into_iter().filter(|index| *index < all) {
            let began = clock();
            self.inference(model).labels(&self.validation.get(index)?.image)?;
            took = clock().saturating_sub(began).as_secs_f64();
        }
        Ok(took * all as f64)
    }
}

pub(super) fn not_finite(loss: f64, iteration: u64, names: &[String], checkpoints: &Checkpoints) -> Error {
    let (kept, from) = match checkpoints.list().ok().and_then(|mut all| all.pop()) {
        Some((iteration, folder)) => (
            format!("the checkpoint of iteration {iteration} in `{}` is good", folder.display()),
            format!(
                "; to start from the good weights set train.pretrained = \"{}/model.safetensors\"",
                folder.display()
            ),
        ),
        None => ("no checkpoint had been written yet".to_owned(), String::new()),
    };
    let what = if loss.is_nan() { "not a number".to_owned() } else { loss.to_string() };
    Error::new(format!("the loss is {what} at iteration {}, on {}; {kept}", iteration + 1, names.join(", "))).hint(
        format!(
            "start another run, in another --out folder, with a lower train.optimizer.lr, \
             train.optimizer.clip_norm = 1.0 or more train.schedule.warmup_iters{from}"
        ),
    )
}

/// Fails if a weight is not finite.
pub(super) fn sound(model: &Model, state: &State, checkpoints: &Checkpoints) -> Result<()> {
    let mut finite = true;
    parameters::visit(model, |_, value| finite &= value.abs().max().into_scalar::<f32>().is_finite());
    match finite {
        true => Ok(()),
        false => Err(not_finite(f64::NAN, state.iteration.saturating_sub(1), &["the weights".to_owned()], checkpoints)),
    }
}

/// Logs an evaluation and, if none before was better, publishes the weights as the run's `model.safetensors`.
pub(super) fn offer(
    scores: &Scores,
    state: &mut State,
    course: &Course,
    model: &Model,
    run: &Path,
    metadata: &BTreeMap<String, String>,
    log: &mut RunLog,
) -> Result<()> {
    let miou = scores.miou.unwrap_or(0.0);
    // A bend at this very iteration comes after the evaluation.
    let length = course.iterations(state.iteration.saturating_sub(1)).max(state.iteration);
    // One that is made again because its weights are gone is in the log already.
    let logged = state.evaluated == state.iteration && state.iteration > 0;
    state.evaluated = state.iteration;
    state.stale += 1;
    if !logged {
        log.write(&Row::Eval(progress::Eval {
            iteration: state.iteration,
            miou,
            pixel_accuracy: scores.aacc,
            mean_accuracy: scores.macc,
            loss: None,
            iou: scores.classes.iter().map(|class| (class.name.clone(), class.iou)).collect(),
        }))?;
    }
    log.sync()?;
    progress::write_table(run)?;
    if state.best.is_none_or(|(_, best)| miou >= best) {
        if state.best.is_none_or(|(_, best)| miou > best) {
            state.stale = 0;
        }
        state.best = Some((state.iteration, miou));
        let metadata = artifact::with_training(metadata, [state.iteration, length], scores)?;
        weights::save(&run.join("model.safetensors"), model, &metadata)?;
        let json =
            serde_json::to_vec_pretty(scores).map_err(|error| Error::new("cannot write scores").source(error))?;
        files::write(&run.join(SCORES), &json)?;
    }
    Ok(())
}
