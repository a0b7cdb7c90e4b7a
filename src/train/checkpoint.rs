//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! A checkpoint is a folder `checkpoints/step-00000030` with the weights, their moving average, what the optimiser remembers, a
//! small state and the checksums of all. It is written beside under another name and renamed when it is whole, so the last good one survives a
//! full disk or a pulled plug. Batches and random numbers are functions of seed and iteration, so nothing of them is stored.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use super::ema::Ema;
use super::optimizer::{Optimizer, OptimizerConfig};
use super::step::Learner;
use crate::artifact;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files;
use crate::layers::parameters;
use crate::model::Model;
use crate::weights::{self, LoadOptions};

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Iterations done.
    pub iteration: u64,
    /// Steps of the optimiser.
    pub optimizer_steps: u64,
    /// The best evaluation so far: (iteration, mIoU).
    #[serde(default)]
    pub best: Option<(u64, f64)>,
    /// The iteration of the last evaluation; 0 for none.
    #[serde(default)]
    pub evaluated: u64,
    /// Evaluations since the best.
    #[serde(default)]
    pub stale: u64,
}

/// The checkpoints of one run.
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    /// The resolved recipe, which goes into each.
    recipe: String,
}

impl Checkpoints {
    /// Those of the recipe `config` under `run`; the newest `train.keep_checkpoints` stay.
    ///
    /// # Errors
    /// A recipe that cannot be written.
    pub fn new(run: &Path, config: &Config) -> Result<Self> {
        let folder = run.join("checkpoints");
        Ok(Self { folder, keep: config.train.keep_checkpoints.max(1), recipe: config.to_toml()? })
    }

    /// Whether there are any under `run`.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn any(run: &Path) -> Result<bool> {
        Ok(!list(&run.join("checkpoints"))?.is_empty())
    }

    /// Writes the checkpoint of `state.iteration` and removes the oldest. On failure nothing is left behind, and the
    /// checkpoints before stay.
    pub fn save(&self, state: &State, learner: &Learner, metadata: &BTreeMap<String, String>) -> Result<()> {
        let target = self.folder.join(format!("step-{:08}", state.iteration));
        let [beside, before] =
            ["tmp", "old"].map(|ending| self.folder.join(format!(".step-{:08}.{ending}", state.iteration)));
        let write = || -> Result<()> {
            remove(&beside)?;
            fs::create_dir_all(&beside).map_err(|error| Error::file("create", &beside, error))?;
            weights::save(&beside.join(MODEL), &learner.model, metadata)?;
            if let Some(ema) = &learner.ema {
                weights::save(&beside.join(EMA), ema.model(), metadata)?;
            }
            save_optimizer(&beside.join(OPTIMIZER), &learner.optimizer)?;
            files::write(&beside.join(RECIPE), self.recipe.as_bytes())?;
            save_checksums(&beside)?;
            save_state(&beside.join(STATE), state)?;
            // One of this iteration that is already there makes way, and is removed only then.
            remove(&before)?;
            if target.exists() {
                fs::rename(&target, &before).map_err(|error| Error::file("rename", &target, error))?;
            }
            fs::rename(&beside, &target).map_err(|error| Error::file("write", &target, error))?;
            remove(&before)
        };
        if let Err(error) = write() {
            let _ = fs::remove_dir_all(&beside);
            return Err(Error::new(format!("cannot save the checkpoint of iteration {}", state.iteration))
                .source(error)
                .hint("checkpoints before it, if any, are untouched; make room or the folder writable, then go on with --resume"));
        }
        let all = self.list()?;
        for (_, old) in &all[..all.len().saturating_sub(self.keep)] {
            remove(old)?;
        }
        Ok(())
    }

    /// Writes what has become of `state` since its checkpoint was saved: the weights are the same.
    pub fn update(&self, state: &State) -> Result<()> {
        save_state(&self.folder.join(format!("step-{:08}", state.iteration)).join(STATE), state)
    }

    /// The newest checkpoint that is whole, restored into a copy of `model`; `None` when there is none. Tells of those that
    /// are damaged.
    ///
    /// # Errors
    /// There are checkpoints, and all of them are damaged; or the newest that is whole was trained by another recipe than
    /// `config`.
    pub fn load_last(
        &self,
        model: &Model,
        config: &Config,
        device: &Device,
        note: &mut dyn FnMut(&str),
    ) -> Result<Option<(State, Learner)>> {
        let mut newest: Option<Error> = None;
        for (iteration, folder) in self.list()?.into_iter().rev() {
            let whole = check_checksums(&folder);
            if whole.is_ok() {
                same_recipe(&folder, config)?;
            }
            match whole.and_then(|()| load(&folder, iteration, model, &config.train, device)) {
                Ok(found) => return Ok(Some(found)),
                Err(error) => {
                    note(&format!(
                        "the checkpoint of iteration {iteration} is damaged, trying the one before: {error}"
                    ));
                    newest.get_or_insert(error);
                }
            }
        }
        match newest {
            None => Ok(None),
            Some(error) => Err(Error::new(format!("no checkpoint in `{}` is whole", self.folder.display()))
                .source(error)
                .hint("remove the folder of the run and start again without --resume")),
        }
    }

    /// All checkpoints by iteration, the oldest first.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        list(&self.folder)
    }
}

fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::file("read", folder, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::file("read", folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(iteration) = name.strip_prefix("step-").and_then(|digits| digits.parse().ok()) {
            found.push((iteration, path));
        }
    }
    found.sort();
    Ok(found)
}

const MODEL: &str = "model.safetensors";
const EMA: &str = "ema.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const RECIPE: &str = "config.toml";
const STATE: &str = "state.json";
const CHECKSUMS: &str = "checksums.json";
/// The key of the state's own checksum: it changes when the other files do not.
const CHECKSUM: &str = "crc32";

fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

fn save_state(path: &Path, state: &State) -> Result<()> {
    let failed = |error| Error::file("write", path, error);
    let mut fields = serde_json::to_value(state).map_err(failed)?;
    fields[CHECKSUM] = checksum(fields.to_string().as_bytes()).into();
    files::write(path, &serde_json::to_vec_pretty(&fields).map_err(failed)?)
}

/// The text of a state as its checksum was taken: without white space and without the checksum. Numbers keep the digits that
/// were written, since a number that is parsed and written again may have others.
fn checked_text(text: &str) -> Option<(String, String)> {
    let (mut compact, mut in_string, mut escaped) = (String::with_capacity(text.len()), false, false);
    for character in text.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            in_string = character == '"';
        }
        compact.push(character);
    }
    let (before, after) = compact.split_once(&format!("\"{CHECKSUM}\":\""))?;
    let (sum, rest) = after.split_once('"')?;
    // It is the last field, or the first of several.
    let before = if rest.starts_with(',') { before } else { before.strip_suffix(',').unwrap_or(before) };
    Some((format!("{before}{}", rest.strip_prefix(',').unwrap_or(rest)), sum.to_owned()))
}

/// The state at `path`; one that an earlier version wrote has no checksum.
fn load_state(path: &Path) -> Result<State> {
    let text = files::read_text(path, files::TEXT).map_err(|error| Error::file("read", path, error))?;
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| Error::file("read", path, error))?;
    if fields.remove(CHECKSUM).is_some() {
        let sound = checked_text(&text).is_some_and(|(text, sum)| sum == checksum(text.as_bytes()));
        if !sound {
            return Err(altered(path));
        }
    }
    let state: State =
        serde_json::from_value(serde_json::Value::Object(fields)).map_err(|error| Error::file("read", path, error))?;
    let possible = [
        ("optimizer_steps", state.optimizer_steps <= state.iteration),
        ("evaluated", state.evaluated <= state.iteration),
        ("stale", state.stale <= state.iteration),
        ("best", state.best.is_none_or(|(at, miou)| at <= state.iteration && (0.0..=1.0).contains(&miou))),
    ];
    if let Some((field, _)) = possible.iter().find(|(_, possible)| !possible) {
        return Err(Error::new(format!(
            "`{}`: its `{field}` cannot be, after {} iterations",
            path.display(),
            state.iteration
        )));
    }
    Ok(state)
}

/// Notes the checksums of the files that are in the folder.
fn save_checksums(folder: &Path) -> Result<()> {
    let mut sums = BTreeMap::new();
    for name in [MODEL, EMA, OPTIMIZER, RECIPE] {
        let path = folder.join(name);
        if name == EMA && !path.exists() {
            continue;
        }
        sums.insert(
            name,
            checksum(&files::read(&path, files::UNLIMITED).map_err(|error| Error::file("read", &path, error))?),
        );
    }
    let path = folder.join(CHECKSUMS);
    files::write(&path, &serde_json::to_vec_pretty(&sums).map_err(|error| Error::file("write", &path, error))?)
}

/// Fails if a file is not what was written; an earlier version noted nothing.
fn check_checksums(folder: &Path) -> Result<()> {
    let path = folder.join(CHECKSUMS);
    let text = match files::read_text(&path, files::RECORD) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.map_err(|error| Error::file("read", &path, error))?,
    };
    let sums: BTreeMap<String, String> =
        serde_json::from_str(&text).map_err(|error| Error::file("read", &path, error))?;
    for (name, sum) in sums {
        let path = folder.join(name);
        if checksum(&files::read(&path, files::UNLIMITED).map_err(|error| Error::file("read", &path, error))?) != sum {
            return Err(altered(&path));
        }
    }
    Ok(())
}

fn altered(path: &Path) -> Error {
    Error::new(format!("`{}` is not what was written: its checksum differs", path.display()))
}

/// Fails if the checkpoint in `folder`, which is whole, was trained by another recipe: a run that goes on must be the same
/// run, whatever has become of its `config.toml` meanwhile.
fn same_recipe(folder: &Path, config: &Config) -> Result<()> {
    let path = folder.join(RECIPE);
    let differences = match files::read_text(&path, files::TEXT) {
        Ok(text) => Config::parse(&text, &path.display().to_string(), &[])?.differences(config)?,
        // An earlier version wrote none, but noted some of it beside the weights.
        Err(error) if error.kind() == ErrorKind::NotFound => differs_from_card(&folder.join(MODEL), config)?,
        Err(error) => return Err(Error::file("read", &path, error)),
    };
    if differences.is_empty() {
        return Ok(());
    }
    let run = folder.parent().and_then(Path::parent).unwrap_or(folder);
    let own = run.join(RECIPE);
    let remedy = if path.exists() {
        format!("take the recipe back with `cp {} {}`", path.display(), own.display())
    } else {
        format!("put the values before the arrows back into `{}`", own.display())
    };
    Err(Error::new(format!(
        "`{}` is no longer the recipe that `{}` was trained by: {}",
        own.display(),
        folder.display(),
        differences.join(", ")
    ))
    .hint(format!(
        "{remedy}; to go on from its weights with other settings start another run with train.pretrained = \"{}\"",
        folder.join(MODEL).display()
    )))
}

/// In what a recipe differs from what a model file says of its own.
fn differs_from_card(model: &Path, config: &Config) -> Result<Vec<String>> {
    let card = artifact::read_card(model)?;
    let mut known = config.clone();
    (known.model, known.data, known.eval) = (card.model, card.data, card.eval);
    if let Some(training) = card.training {
        (known.train.iterations, known.train.batch_size, known.train.seed) =
            (training.iterations, training.batch_size, training.seed);
    }
    known.differences(config)
}

fn load(
    folder: &Path,
    iteration: u64,
    model: &Model,
    config: &TrainConfig,
    device: &Device,
) -> Result<(State, Learner)> {
    let state = load_state(&folder.join(STATE))?;
    if state.iteration != iteration {
        return Err(Error::new(format!("`{}` is of iteration {}", folder.join(STATE).display(), state.iteration)));
    }
    let read = |name: &str, model: Model| -> Result<Model> {
        Ok(weights::load(model, &weights::read(&folder.join(name))?, &LoadOptions::exact())?.0)
    };
    let ema = match config.ema {
        Some(decay) => Some(Ema::new(read(EMA, model.valid())?, decay)),
        None => None,
    };
    let model = read(MODEL, model.clone())?;
    let path = folder.join(OPTIMIZER);
    let optimizer = load_optimizer(&path, &config.optimizer, state.optimizer_steps, device)?;
    let mut sizes = BTreeMap::new();
    parameters::visit(&model, |parameter, value| _ = sizes.insert(parameter.name.to_owned(), value.dims()[0]));
    if let Some((name, _)) = optimizer.sizes().find(|(name, size)| sizes.get(*name) != Some(size)) {
        return Err(Error::new(format!("`{}`: what it holds of `{name}` does not fit the model", path.display())));
    }
    Ok((state, Learner { model, ema, optimizer }))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", folder, error)),
        _ => Ok(()),
    }
}

fn save_optimizer(path: &Path, optimizer: &Optimizer) -> Result<()> {
    let failed = |error: safetensors::SafeTensorError| Error::file("write", path, error);
    let state = optimizer.state();
    let mut views = Vec::with_capacity(state.len());
    for (name, data) in &state {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes()).map_err(failed)?;
        views.push((name, view));
    }
    safetensors::serialize_to_file(views, None, path).map_err(failed)?;
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(|error| Error::file("write", path, error))
}

fn load_optimizer(path: &Path, config: &OptimizerConfig, step: u64, device: &Device) -> Result<Optimizer> {
    let state = weights::read(path)?.tensors.into_iter().map(|(name, tensor)| {
        let len = tensor.data.len();
        (name, Tensor::<1>::from_data(TensorData::new(tensor.data, [len]), device))
    });
    Optimizer::restore(config, step, state).map_err(|error| Error::file("use", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn a_state_comes_back_with_any_score() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STATE);
        let mut rng = Rng::new(3, &[]);
        for _ in 0..300 {
            let miou = (rng.below(1 << 30) as f64 / (1u64 << 30) as f64
                + rng.below(1 << 30) as f64 / (1u64 << 60) as f64)
                / 1.1;
            let state = State { iteration: 45, optimizer_steps: 45, best: Some((30, miou)), evaluated: 30, stale: 0 };
            save_state(&path, &state).unwrap();
            assert_eq!(load_state(&path).unwrap(), state);
        }
    }

    /// What another parser reads one unit in the last place off is still what was written.
    #[test]
    fn the_checksum_is_of_the_digits_that_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STATE);
        let compact =
            r#"{"iteration":45,"optimizer_steps":45,"best":[30,0.30000000000000004441],"evaluated":30,"stale":0"#;
        let sum = checksum(format!("{compact}}}").as_bytes());
        let spread = compact.replace(',', ",\n  ").replace(':', ": ");
        fs::write(&path, format!("{spread},\n  \"crc32\": \"{sum}\"\n}}")).unwrap();
        assert_eq!(load_state(&path).unwrap().best, Some((30, 0.300_000_000_000_000_04)));
        fs::write(&path, format!("{},\n  \"crc32\": \"{sum}\"\n}}", spread.replace("4441", "4442"))).unwrap();
        assert!(load_state(&path).unwrap_err().to_string().contains("checksum differs"));
        fs::write(&path, format!("{spread},\n  \"crc33\": \"{sum}\"\n}}")).unwrap();
        load_state(&path).unwrap_err();
    }

    #[test]
    fn a_state_that_cannot_be_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STATE);
        for text in [
            r#"{"iteration": 5, "optimizer_steps": 9223372036854775808}"#,
            r#"{"iteration": 5, "optimizer_steps": 5, "best": [3, 1e300]}"#,
            r#"{"iteration": 5, "optimizer_steps": 5, "best": [9, 0.5]}"#,
            r#"{"iteration": 5.5, "optimizer_steps": 5}"#,
            r#"[5, 5, null, 0, 0]"#,
        ] {
            fs::write(&path, text).unwrap();
            assert!(load_state(&path).unwrap_err().to_string().contains("state.json"), "{text}");
        }
    }
}
