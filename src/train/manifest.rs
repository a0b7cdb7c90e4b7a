//! `manifest.json`: with what a run was made, for those who want to make it again.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Session;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files;

/// The name of the file in a run's folder.
pub const MANIFEST: &str = "manifest.json";

/// With what a run was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The seed that all randomness follows from.
    pub seed: u64,
    /// The dataset as the recipe names it.
    pub dataset: String,
    /// What was found in its splits.
    pub data: Vec<Fingerprint>,
    /// Parameters of the network.
    pub parameters: u64,
    /// The processes that worked on it, one after the other.
    pub sessions: Vec<Sitting>,
}

/// A split of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Which.
    pub split: String,
    /// Images in it.
    pub images: usize,
    /// CRC-32 over the images' names and, for sets of files, the pixels of every class in all masks.
    pub crc32: String,
}

/// One process's part of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sitting {
    /// The version of this program.
    pub version: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// After so many iterations.
    pub iteration: u64,
    /// The command.
    pub command: String,
    /// The device.
    pub device: String,
    /// Threads of the CPU's kernels.
    pub threads: usize,
}

impl Fingerprint {
    /// Of the images called `names`, with these pixels of each class.
    pub fn new(split: impl ToString, names: impl Iterator<Item = String>, pixels: Option<&[u64]>) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        let mut images = 0;
        for name in names {
            hasher.update(name.as_bytes());
            hasher.update(b"\n");
            images += 1;
        }
        pixels.unwrap_or_default().iter().for_each(|count| hasher.update(&count.to_le_bytes()));
        Self { split: split.to_string(), images, crc32: format!("{:08x}", hasher.finalize()) }
    }
}

/// Notes that a session of the run begins, after `iteration` iterations. `data` is of its first session.
pub(super) fn record(
    session: &Session,
    config: &Config,
    parameters: u64,
    data: Vec<Fingerprint>,
    iteration: u64,
) -> Result<()> {
    let path = session.run.join(MANIFEST);
    let begun = match files::read(&path, files::RECORD) {
        // One that is not readable is no reason not to train.
        Ok(bytes) if session.resume => serde_json::from_slice(&bytes).ok(),
        _ => None,
    };
    let mut manifest = begun.unwrap_or_else(|| Manifest {
        seed: config.train.seed,
        dataset: config.data.dataset.clone(),
        data,
        parameters,
        sessions: Vec::new(),
    });
    manifest.sessions.push(Sitting {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        iteration,
        command: session.command.to_owned(),
        device: session.device_name.to_owned(),
        threads: rayon::current_num_threads(),
    });
    write(&path, &manifest)
}

/// What the manifest in a run's folder says of the data; nothing where it cannot be read.
pub(super) fn data(run: &Path) -> Vec<Fingerprint> {
    let text = files::read_text(&run.join(MANIFEST), files::TEXT).ok();
    text.and_then(|text| serde_json::from_str::<Manifest>(&text).ok()).map_or(Vec::new(), |manifest| manifest.data)
}

fn write(path: &Path, manifest: &Manifest) -> Result<()> {
    let json = serde_json::to_vec_pretty(manifest).map_err(|error| Error::file("write", path, error))?;
    files::write(path, &json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_names_and_labels() {
        let of = |names: &[&str], pixels: Option<&[u64]>| {
            Fingerprint::new("train", names.iter().map(|name| (*name).to_owned()), pixels)
        };
        assert_eq!(of(&["a", "b"], None).images, 2);
        assert_eq!(of(&["a", "b"], Some(&[1, 2])), of(&["a", "b"], Some(&[1, 2])));
        for other in [of(&["ab"], Some(&[1, 2])), of(&["b", "a"], Some(&[1, 2])), of(&["a", "b"], Some(&[2, 1]))] {
            assert_ne!(of(&["a", "b"], Some(&[1, 2])).crc32, other.crc32);
        }
    }
}
