//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! A checkpoint is a folder `checkpoints/step-00000030` with the weights, the optimiser's moments, a small state and the
//! checksums of all. It is written beside under another name and renamed when it is whole, so the last good one survives a
//! full disk or a pulled plug. Batches and random numbers are functions of seed and iteration, so nothing of them is stored.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::optimizer::{AdamW, OptimizerConfig};
use crate::error::{Error, Result};
use crate::files;
use crate::layers::parameters;
use crate::model::Model;
use crate::weights::{self, LoadOptions, StateDict};

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Iterations done.
    pub iteration: u64,
    /// Steps of the optimiser.
    pub optimizer_steps: u64,
    /// The best evaluation so far: (iteration, mIoU).
    pub best: Option<(u64, f64)>,
    /// The iteration of the last evaluation; 0 for none.
    #[serde(default)]
    pub evaluated: u64,
}

/// The checkpoints of one run.
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Those under `run`; the newest `keep` stay.
    pub fn new(run: &Path, keep: usize) -> Self {
        Self { folder: run.join("checkpoints"), keep: keep.max(1) }
    }

    /// Writes the checkpoint of `state.iteration` and removes the oldest. On failure nothing is left behind, and the
    /// checkpoints before stay.
    pub fn save(
        &self,
        state: &State,
        model: &Model,
        optimizer: &AdamW,
        metadata: &BTreeMap<String, String>,
    ) -> Result<()> {
        let target = self.folder.join(format!("step-{:08}", state.iteration));
        let [beside, before] =
            ["tmp", "old"].map(|ending| self.folder.join(format!(".step-{:08}.{ending}", state.iteration)));
        let write = || -> Result<()> {
            remove(&beside)?;
            fs::create_dir_all(&beside).map_err(|error| Error::file("create", &beside, error))?;
            weights::save(&beside.join("model.safetensors"), model, metadata)?;
            save_moments(&beside.join("optimizer.safetensors"), optimizer)?;
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
    /// There are checkpoints, and all of them are damaged.
    pub fn load_last(
        &self,
        model: &Model,
        config: &OptimizerConfig,
        device: &Device,
        note: &mut dyn FnMut(&str),
    ) -> Result<Option<(State, Model, AdamW)>> {
        let mut newest: Option<Error> = None;
        for (iteration, folder) in self.list()?.into_iter().rev() {
            match load(&folder, model, config, device) {
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

/// The state at `path`; one that an earlier version wrote has no checksum.
fn load_state(path: &Path) -> Result<State> {
    let text = fs::read_to_string(path).map_err(|error| Error::file("read", path, error))?;
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| Error::file("read", path, error))?;
    let written = fields.remove(CHECKSUM);
    let fields = serde_json::Value::Object(fields);
    if written.is_some_and(|written| written != checksum(fields.to_string().as_bytes())) {
        return Err(altered(path));
    }
    serde_json::from_value(fields).map_err(|error| Error::file("read", path, error))
}

/// Notes the checksums of the files that are in the folder.
fn save_checksums(folder: &Path) -> Result<()> {
    let mut sums = BTreeMap::new();
    for name in ["model.safetensors", "optimizer.safetensors"] {
        let path = folder.join(name);
        sums.insert(name, checksum(&fs::read(&path).map_err(|error| Error::file("read", &path, error))?));
    }
    let path = folder.join(CHECKSUMS);
    files::write(&path, &serde_json::to_vec_pretty(&sums).map_err(|error| Error::file("write", &path, error))?)
}

/// Fails if a file is not what was written; an earlier version noted nothing.
fn check_checksums(folder: &Path) -> Result<()> {
    let path = folder.join(CHECKSUMS);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.map_err(|error| Error::file("read", &path, error))?,
    };
    let sums: BTreeMap<String, String> =
        serde_json::from_str(&text).map_err(|error| Error::file("read", &path, error))?;
    for (name, sum) in sums {
        let path = folder.join(name);
        if checksum(&fs::read(&path).map_err(|error| Error::file("read", &path, error))?) != sum {
            return Err(altered(&path));
        }
    }
    Ok(())
}

fn altered(path: &Path) -> Error {
    Error::new(format!("`{}` is not what was written: its checksum differs", path.display()))
}

fn load(folder: &Path, model: &Model, config: &OptimizerConfig, device: &Device) -> Result<(State, Model, AdamW)> {
    check_checksums(folder)?;
    let state = load_state(&folder.join(STATE))?;
    let file = weights::read(&folder.join("model.safetensors"))?;
    let (model, _) = weights::load(model.clone(), &file, &LoadOptions::default())?;
    let path = folder.join("optimizer.safetensors");
    let moments = restored(weights::read(&path)?, device)?;
    let mut sizes = BTreeMap::new();
    parameters::visit(&model, |parameter, value| _ = sizes.insert(parameter.name.to_owned(), value.dims()));
    for (name, pair) in &moments {
        let size = sizes.get(name);
        if pair.iter().any(|moment| Some(&moment.dims()) != size) {
            return Err(Error::new(format!("`{}`: the moments of `{name}` do not fit the model", path.display())));
        }
    }
    let optimizer = AdamW::restore(config, state.optimizer_steps, moments);
    Ok((state, model, optimizer))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", folder, error)),
        _ => Ok(()),
    }
}

fn save_moments(path: &Path, optimizer: &AdamW) -> Result<()> {
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

fn restored(file: StateDict, device: &Device) -> Result<BTreeMap<String, [Tensor<1>; 2]>> {
    let mut firsts = BTreeMap::new();
    let mut seconds = BTreeMap::new();
    for (name, tensor) in file.tensors {
        let len = tensor.data.len();
        let value = Tensor::<1>::from_data(TensorData::new(tensor.data, [len]), device);
        match (name.strip_prefix("exp_avg."), name.strip_prefix("exp_avg_sq.")) {
            (Some(name), _) => firsts.insert(name.to_owned(), value),
            (_, Some(name)) => seconds.insert(name.to_owned(), value),
            _ => return Err(Error::new(format!("`{name}` is no moment of AdamW"))),
        };
    }
    let pairs = firsts.into_iter().map(|(name, first)| match seconds.remove(&name) {
        Some(second) => Ok((name, [first, second])),
        None => Err(Error::new(format!("the second moment of `{name}` is missing"))),
    });
    pairs.collect()
}
