//! Checkpoints: everything a run needs to be resumed as if it had never stopped.
//!
//! A checkpoint is a folder `checkpoints/step-00000030` with the weights, their moving average, what the optimizer
//! keeps, the recipe and the data they come from, a small state and the checksums of all. It is written beside under
//! another name and renamed when it is whole, so the last good one survives a full disk or a pulled plug. Batches and
//! random numbers are functions of seed and iteration, so nothing of them is stored.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, tensor::TensorView};

use super::{CHECKPOINTS, CONFIG, MODEL};
use crate::error::{Error, Result};
use crate::files;
use crate::layers::parameters;
use crate::model::Model;
use crate::run::checksummed_json::{checksum, seal, unseal};
use crate::text::shell_word;
use crate::train::ema::Ema;
use crate::train::optimizer::{Optimizer, OptimizerConfig};
use crate::train::{RunState, TrainConfig, TrainState};
use crate::weights::{self, LoadOptions};

/// The state of a run of at most `iterations` that `text` holds, with or without a checksum.
///
/// # Errors
/// A text that was altered, or a state that cannot be; naming the field.
pub fn parse_state(text: &[u8], iterations: u64) -> Result<RunState> {
    let state: RunState = unseal(text)?;
    state.check(iterations).map(|()| state)
}

/// The checkpoints of one run.
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    /// The recipe and the data, as files that every checkpoint gets.
    run_files: Vec<(&'static str, Vec<u8>)>,
}

impl Checkpoints {
    /// Those under `run`; the newest `keep` stay.
    pub fn new(run: &Path, keep: usize) -> Self {
        Self { folder: run.join(CHECKPOINTS), keep: keep.max(1), run_files: Vec::new() }
    }

    /// The same, whose new checkpoints say that they come from this recipe and these data.
    #[must_use]
    pub(super) fn of(self, recipe: String, data: Vec<u8>) -> Self {
        Self { run_files: vec![(CONFIG, recipe.into_bytes()), (DATA, data)], ..self }
    }

    /// The newest file `name` of a checkpoint that is what was written, and where it lies.
    pub(super) fn newest(&self, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>> {
        let found = self.list()?.into_iter().rev().find_map(|(_, folder)| {
            let path = folder.join(name);
            let bytes = files::read(&path, files::RECORD).ok()?;
            let sums = read_checksums(&folder).ok()?;
            (*sums.get(name)? == checksum(&bytes)).then_some((path, bytes))
        });
        Ok(found)
    }

    /// Writes the checkpoint of `state.iteration` and removes the oldest. On failure nothing is left behind, and the
    /// checkpoints before stay.
    pub fn save(&self, state: &RunState, train: &TrainState<Model>, metadata: &BTreeMap<String, String>) -> Result<()> {
        let target = self.folder.join(format!("step-{:08}", state.iteration));
        let [beside, before] =
            ["tmp", "old"].map(|ending| self.folder.join(format!(".step-{:08}.{ending}", state.iteration)));
        let write = || -> Result<()> {
            remove(&beside)?;
            fs::create_dir_all(&beside).map_err(|error| Error::file("create", &beside, error))?;
            weights::save(&beside.join(MODEL), &train.model, metadata)?;
            if let Some(ema) = &train.ema {
                weights::save(&beside.join(EMA), ema.model(), metadata)?;
            }
            save_optimizer(&beside.join(OPTIMIZER), &train.optimizer)?;
            for (name, bytes) in &self.run_files {
                files::write(&beside.join(name), bytes)?;
            }
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
            let hint = format!(
                "earlier checkpoints, if any, are untouched; {}, then continue with --resume",
                error.hint().unwrap_or("make room, or make the folder writable")
            );
            return Err(Error::new(format!("cannot save the checkpoint of iteration {}", state.iteration))
                .with_source(error)
                .with_hint(hint));
        }
        let all = self.list()?;
        for (_, old) in &all[..all.len().saturating_sub(self.keep)] {
            remove(old)?;
        }
        Ok(())
    }

    /// Writes what has become of `state` since its checkpoint was saved: the weights are the same.
    pub fn update(&self, state: &RunState) -> Result<()> {
        save_state(&self.folder.join(format!("step-{:08}", state.iteration)).join(STATE), state)
    }

    /// The newest checkpoint that is whole, restored into a copy of `model`; `None` when there is none. Tells of those
    /// that are damaged.
    ///
    /// # Errors
    /// There are checkpoints, and all of them are damaged.
    pub fn load_last(
        &self,
        model: &Model,
        config: &TrainConfig,
        device: &Device,
        note: &mut dyn FnMut(&str),
    ) -> Result<Option<(RunState, TrainState<Model>)>> {
        let mut newest: Option<Error> = None;
        for (iteration, folder) in self.list()?.into_iter().rev() {
            match load(&folder, iteration, model, config, device) {
                Ok(found) => return Ok(Some(found)),
                Err(error) => {
                    note(&format!(
                        "the checkpoint of iteration {iteration} is damaged, trying the previous one: {error}"
                    ));
                    newest.get_or_insert(error);
                }
            }
        }
        match newest {
            None => Ok(None),
            Some(error) => Err(Error::new(format!("no checkpoint in `{}` is intact", self.folder.display()))
                .with_source(error)
                .with_hint(format!(
                    "start again in another folder: `structtoken train {} --out OTHER`",
                    shell_word(&self.folder.with_file_name(CONFIG))
                ))),
        }
    }

    /// All checkpoints by iteration, the oldest first.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(Error::file("read", &self.folder, error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| Error::file("read", &self.folder, error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(iteration) = name.strip_prefix("step-").and_then(|digits| digits.parse().ok()) {
                found.push((iteration, path));
            }
        }
        found.sort();
        Ok(found)
    }
}

const EMA: &str = "ema.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// The data, as they were when the run started.
pub(super) const DATA: &str = "data.json";
/// All whose checksums are noted; the state has its own, for it changes when the others do not.
const FILES: [&str; 5] = [MODEL, EMA, OPTIMIZER, CONFIG, DATA];
const STATE: &str = "state.json";
const CHECKSUMS: &str = "checksums.json";

fn save_state(path: &Path, state: &RunState) -> Result<()> {
    files::write(path, &seal(state).map_err(|error| Error::file("write", path, error))?)
}

/// The state at `path`; one that an early version wrote has no checksum.
fn load_state(path: &Path, iterations: u64) -> Result<RunState> {
    let text = files::read(path, files::TEXT).map_err(|error| Error::file("read", path, error))?;
    parse_state(&text, iterations).map_err(|error| Error::file("use", path, error))
}

/// Notes the checksums of the files that are in the folder.
fn save_checksums(folder: &Path) -> Result<()> {
    let mut sums = BTreeMap::new();
    for (name, path) in FILES.map(|name| (name, folder.join(name))) {
        if path.exists() {
            sums.insert(name, checksum_of(&path)?);
        }
    }
    let path = folder.join(CHECKSUMS);
    files::write(&path, &serde_json::to_vec_pretty(&sums).map_err(|error| Error::file("write", &path, error))?)
}

/// The checksums noted in the folder; none by an early version.
fn read_checksums(folder: &Path) -> Result<BTreeMap<String, String>> {
    let path = folder.join(CHECKSUMS);
    let text = match files::read_text(&path, files::TEXT) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text.map_err(|error| Error::file("read", &path, error))?,
    };
    let sums: BTreeMap<String, String> =
        serde_json::from_str(&text).map_err(|error| Error::file("read", &path, error))?;
    match sums.keys().find(|name| !FILES.contains(&name.as_str())) {
        Some(name) => Err(Error::new(format!("`{}` names `{name}`, which no checkpoint has", path.display()))),
        None => Ok(sums),
    }
}

/// Fails if a file is not what was written.
fn check_checksums(folder: &Path) -> Result<()> {
    for (name, sum) in read_checksums(folder)? {
        let path = folder.join(name);
        if checksum_of(&path)? != sum {
            return Err(altered(&path));
        }
    }
    Ok(())
}

/// The checksum of a file, as it is noted.
fn checksum_of(path: &Path) -> Result<String> {
    let sum = files::open(path).and_then(files::checksum::crc32).map_err(|error| Error::file("read", path, error))?;
    Ok(format!("{sum:08x}"))
}

fn altered(path: &Path) -> Error {
    Error::new(format!("`{}` has changed since it was written: its checksum differs", path.display()))
}

fn load(
    folder: &Path,
    iteration: u64,
    model: &Model,
    config: &TrainConfig,
    device: &Device,
) -> Result<(RunState, TrainState<Model>)> {
    check_checksums(folder)?;
    let path = folder.join(STATE);
    let state = load_state(&path, config.most())?;
    if state.iteration != iteration {
        let what = format!("iteration = {}: the folder is that of {iteration}", state.iteration);
        return Err(Error::file("use", &path, Error::new(what)));
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
    Ok((state, TrainState { model, ema, optimizer }))
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
mod tests;
