//! The models that are served, by name. One is loaded beside the one in use, tried, and takes its place.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use burn::tensor::Device;

use crate::error::{Error, Result};
use crate::serve::error::Fault;
use crate::serve::loaded::Loaded;

/// Bytes of the stack of a thread that loads, as much as a main thread has.
const STACK: usize = 8 << 20;

/// A model file, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name in addresses: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
}

/// All models of a server.
pub(super) struct Models {
    sources: Vec<Source>,
    loaded: RwLock<Vec<Option<Arc<Loaded>>>>,
    changes: Vec<String>,
    device: Device,
    /// Held while a model is loaded: one at a time.
    loading: Mutex<()>,
}

impl Models {
    /// Loads all of them. The first is the one that is asked where a request names none.
    ///
    /// # Errors
    /// Names that are taken twice or cannot stand in an address, and models that cannot be loaded.
    pub(super) fn open(sources: Vec<Source>, changes: Vec<String>, device: Device) -> Result<Self> {
        let mut names = BTreeSet::new();
        for Source { name, path } in &sources {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
                return Err(Error::new(format!("`{name}` cannot be the name of a model in an address"))
                    .with_hint(format!("name it with letters, digits, `-`, `_` and `.`: NAME={}", path.display())));
            }
            if !names.insert(name) {
                return Err(Error::new(format!("two models are called `{name}`"))
                    .with_hint(format!("give each a name of its own: NAME={}", path.display())));
            }
        }
        let open =
            |source: &Source| Loaded::open(&source.name, &source.path, &changes, &device).map(Arc::new).map(Some);
        let loaded = sources.iter().map(open).collect::<Result<Vec<_>>>()?;
        Ok(Self { sources, loaded: RwLock::new(loaded), changes, device, loading: Mutex::new(()) })
    }

    /// The model called `name`, or the first.
    ///
    /// # Errors
    /// 404 where there is none of that name, and where it is not loaded.
    pub(super) fn get(&self, name: Option<&str>) -> Result<Arc<Loaded>, Fault> {
        let loaded = self.all();
        // The first stays the first while it is not loaded: no other answers in its place.
        let name = name.unwrap_or(self.first());
        let known = || loaded.iter().map(|model| model.name.clone()).collect::<Vec<_>>();
        let found = loaded.iter().find(|model| model.name == name);
        found.cloned().ok_or_else(|| Fault::unknown_model(name, &known()))
    }

    /// The name of the first.
    pub(super) fn first(&self) -> &str {
        self.sources.first().map_or("", |source| &source.name)
    }

    /// Those that are loaded.
    pub(super) fn all(&self) -> Vec<Arc<Loaded>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).iter().flatten().cloned().collect()
    }

    /// All, with whether each is loaded.
    pub(super) fn index(&self) -> Vec<(String, Option<Arc<Loaded>>)> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.sources.iter().map(|source| source.name.clone()).zip(loaded).collect()
    }

    /// Reads the file of a model again; it is served once it has been tried. Requests that were accepted before are
    /// answered by the model that was there then.
    ///
    /// # Errors
    /// None of that name; and what keeps it from being loaded, in which case nothing changes.
    pub(super) fn load(&self, name: &str) -> Result<Arc<Loaded>> {
        let at = self.position(name)?;
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let Source { name, path } = &self.sources[at];
        // Of a pool of its own: a thread of the pool that all share waits for requests, and may be its only one.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(STACK).build();
        let pool = pool.map_err(|error| Error::new("cannot start a thread to load the model").with_source(error))?;
        let loaded = Arc::new(pool.install(|| Loaded::open(name, path, &self.changes, &self.device))?);
        self.loaded.write().unwrap_or_else(PoisonError::into_inner)[at] = Some(loaded.clone());
        Ok(loaded)
    }

    /// Serves a model no longer, until it is loaded again.
    ///
    /// # Errors
    /// None of that name.
    pub(super) fn unload(&self, name: &str) -> Result<()> {
        let at = self.position(name)?;
        self.loaded.write().unwrap_or_else(PoisonError::into_inner)[at] = None;
        Ok(())
    }

    /// Whether there is one of that name, loaded or not.
    pub(super) fn position(&self, name: &str) -> Result<usize> {
        let found = self.sources.iter().position(|source| source.name == name);
        found.ok_or_else(|| Error::new(format!("there is no model `{name}`")))
    }

    /// The names of all.
    pub(super) fn names(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.name.clone()).collect()
    }
}
