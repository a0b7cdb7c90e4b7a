//! Objects in stores (S3, Google Cloud Storage, Azure Blob Storage) and files of web servers, by their URLs.
//!
//! Everything that is asked of a store is started at once, and waited for where its answer is needed, so that transfers
//! overlap with what is computed meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientConfigKey, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig, aws, azure, gcp, http,
};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

pub(crate) use super::object_answers::{Fetched, Put, Replace};
use super::object_errors::fault;
use super::object_settings;
use super::urls::{Scheme, Url};
use crate::error::{Error, ErrorKind, Result};

/// The name of the note in an object's metadata.
const NOTE: &str = "structtoken";
/// What is read or sent in one request of a large object.
const PIECE: u64 = 8 << 20;
/// A store that answers with errors of its own is asked again so often, and for so long.
const RETRIES: usize = 3;
const RETRY_FOR: Duration = Duration::from_secs(60);

/// Stores that are opened when a URL first names them, with the threads that talk to them.
#[derive(Default)]
pub(crate) struct Stores {
    runtime: OnceLock<Runtime>,
    open: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
}

/// An object by its URL, whether it is there or not.
#[derive(Clone)]
pub(crate) struct Object {
    url: Url,
    store: Arc<dyn ObjectStore>,
    path: Path,
    threads: Handle,
}

/// What has been asked of a store.
pub(crate) struct Pending<T> {
    task: JoinHandle<Result<T>>,
    threads: Handle,
}

impl Stores {
    /// The object that `url` names. Nothing is asked of its store.
    ///
    /// # Errors
    /// A URL that names none, or a store that cannot be opened, which is of [`ErrorKind::Unreachable`].
    pub(crate) fn object(&self, url: &str) -> Result<Object> {
        let url = Url::parse(url)?;
        let path = match url.scheme {
            Scheme::Http => url::Url::parse(&url.text).ok().and_then(|url| Path::from_url_path(url.path()).ok()),
            _ => Path::parse(url.key()).ok(),
        };
        // Such slashes would be dropped, and another object named.
        let odd = url.key().starts_with('/') || url.key().ends_with('/') || url.key().contains("//");
        let path = path.filter(|path| !path.as_ref().is_empty() && !odd).ok_or_else(|| {
            Error::new(format!("`{}` does not name an object", url.text))
                .with_hint("the part after the bucket may not be empty, end in `/` or hold `//`, `.` or `..`")
        })?;
        let store = self.open(&url)?;
        Ok(Object { url, store, path, threads: self.threads()? })
    }

    fn threads(&self) -> Result<Handle> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime.handle().clone());
        }
        let started = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = started.map_err(|error| {
            Error::new("cannot start threads that talk to object stores")
                .with_source(error)
                .with_kind(ErrorKind::Unreachable)
                .with_hint("allow this user more processes (ulimit -u), or use fewer --threads")
        })?;
        // Of two that start it at once, one is kept.
        Ok(self.runtime.get_or_init(|| runtime).handle().clone())
    }

    fn open(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(url.store()) {
            return Ok(Arc::clone(store));
        }
        object_settings::check(url.scheme, &|name| std::env::var(name).ok())?;
        let store = builder(url).map_err(|error| {
            let error = fault("open", url, error).with_kind(ErrorKind::Unreachable);
            match error.hint() {
                Some(_) => error,
                None => {
                    error.with_hint("look at the settings of the store in the environment, such as AWS_ENDPOINT_URL")
                }
            }
        })?;
        open.insert(url.store().to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

/// The store of a URL, with credentials and settings of the environment.
fn builder(url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    // Whoever built TLS into the process first has chosen for all.
    rustls::crypto::ring::default_provider().install_default().ok();
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
    // A large object may take long, but not stand still.
    let patience = [
        (ClientConfigKey::ConnectTimeout, "5 seconds"),
        (ClientConfigKey::ReadTimeout, "30 seconds"),
        (ClientConfigKey::Timeout, "15 minutes"),
    ];
    let store = url.store();
    Ok(match url.scheme {
        Scheme::S3 => {
            let mut builder = aws::AmazonS3Builder::from_env().with_url(store).with_retry(retry);
            for (key, value) in patience {
                builder = builder.with_config(aws::AmazonS3ConfigKey::Client(key), value);
            }
            let endpoint = [aws::AmazonS3ConfigKey::S3Endpoint, aws::AmazonS3ConfigKey::Endpoint];
            let endpoint = endpoint.iter().find_map(|key| builder.get_config_value(key));
            if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.build()?)
        }
        Scheme::Google => {
            let mut builder = gcp::GoogleCloudStorageBuilder::from_env().with_url(store).with_retry(retry);
            for (key, value) in patience {
                builder = builder.with_config(gcp::GoogleConfigKey::Client(key), value);
            }
            Arc::new(builder.build()?)
        }
        Scheme::Azure => {
            let mut builder = azure::MicrosoftAzureBuilder::from_env().with_url(store).with_retry(retry);
            for (key, value) in patience {
                builder = builder.with_config(azure::AzureConfigKey::Client(key), value);
            }
            Arc::new(builder.build()?)
        }
        Scheme::Http => {
            let mut builder = http::HttpBuilder::new().with_url(store).with_retry(retry);
            for (key, value) in patience {
                builder = builder.with_config(key, value);
            }
            builder = builder.with_config(ClientConfigKey::AllowHttp, "true");
            Arc::new(builder.build()?)
        }
    })
}

impl Object {
    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url.text
    }

    fn start<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Pending<T> {
        Pending { task: self.threads.spawn(work), threads: self.threads.clone() }
    }

    /// Gets it, if it has no more than `at_once` bytes. Fails, before any of them are read, if it has more than
    /// `limit`.
    pub(crate) fn fetch(&self, limit: u64, at_once: u64) -> Pending<Fetched> {
        let object = self.clone();
        self.start(async move { object.get(limit, at_once).await })
    }

    async fn get(&self, limit: u64, at_once: u64) -> Result<Fetched> {
        let failed = |error| fault("read", &self.url, error);
        let found = self.store.get_opts(&self.path, GetOptions::default()).await.map_err(failed)?;
        let size = found.meta.size;
        if size > limit {
            let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
            return Err(Error::new(format!(
                "cannot read `{}`: it holds {} MB, and pictures may hold at most {} MB",
                self.url.text,
                megabytes(size),
                megabytes(limit)
            ))
            .with_kind(ErrorKind::TooLarge));
        }
        if size > at_once {
            return Ok(Fetched::Large);
        }
        let bytes = found.bytes().await.map_err(failed)?;
        if bytes.len() as u64 != size {
            return Err(Error::new(format!(
                "cannot read `{}`: {} bytes came of the {size} that were announced",
                self.url.text,
                bytes.len()
            )));
        }
        Ok(Fetched::Whole(bytes.into()))
    }

    /// Its note; none if it is not there.
    pub(crate) fn note(&self) -> Pending<Option<Option<String>>> {
        let object = self.clone();
        self.start(async move { object.find_note().await })
    }

    async fn find_note(&self) -> Result<Option<Option<String>>> {
        let head = GetOptions { head: true, ..GetOptions::default() };
        match self.store.get_opts(&self.path, head).await {
            Ok(found) => {
                let note = found.attributes.get(&Attribute::Metadata(NOTE.into()));
                Ok(Some(note.map(|note| note.to_string())))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fault("look for", &self.url, error)),
        }
    }

    /// Puts `bytes` there as a whole, with a note.
    pub(crate) fn put(&self, bytes: Vec<u8>, note: &str, replace: Replace) -> Pending<Put> {
        let (object, note) = (self.clone(), note.to_owned());
        self.start(async move { object.send(bytes, &note, replace).await })
    }

    async fn send(&self, bytes: Vec<u8>, note: &str, replace: Replace) -> Result<Put> {
        let failed = |error| fault("write", &self.url, error);
        let payload = PutPayload::from(bytes);
        let options = |mode| PutOptions { mode, attributes: self.attributes(note), ..PutOptions::default() };
        if replace != Replace::Always {
            match self.store.put_opts(&self.path, payload.clone(), options(PutMode::Create)).await {
                Ok(_) => return Ok(Put::Done),
                Err(object_store::Error::AlreadyExists { .. }) => {}
                // A store without conditions is asked first: two processes could then write one object at once, which
                // has the same bytes from both.
                Err(object_store::Error::NotImplemented { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
            if let Some(found) = self.find_note().await? {
                let first = |text: &str| text.split(' ').next().map(str::to_owned);
                let stays = match (&found, replace) {
                    (Some(there), Replace::Noted) => first(there) == first(note),
                    _ => true,
                };
                if stays {
                    return Ok(Put::Kept(found));
                }
            }
        }
        self.store.put_opts(&self.path, payload, options(PutMode::Overwrite)).await.map_err(failed)?;
        Ok(Put::Done)
    }

    fn attributes(&self, note: &str) -> Attributes {
        let kind = match self.path.extension() {
            Some("png") => "image/png",
            Some("json" | "geojson") => "application/json",
            Some("ndjson") => "application/x-ndjson",
            _ => "application/octet-stream",
        };
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, kind.into());
        attributes.insert(Attribute::Metadata(NOTE.into()), note.to_owned().into());
        attributes
    }

    /// Its first bytes, at most `most`; none if it is not there.
    pub(crate) fn start_of(&self, most: u64) -> Result<Option<Vec<u8>>> {
        let piece = GetOptions { range: Some(GetRange::Bounded(0..most)), ..GetOptions::default() };
        let ask = async {
            let found = self.store.get_opts(&self.path, piece).await?;
            found.bytes().await
        };
        match self.threads.block_on(ask) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(fault("read", &self.url, error)),
        }
    }

    /// Adds its bytes to `file`, piece by piece; whether it is there.
    pub(crate) fn read_into(&self, file: &mut File) -> Result<bool> {
        let failed = |error| fault("read", &self.url, error);
        let size = match self.threads.block_on(self.store.head(&self.path)) {
            Ok(found) => found.size,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        if size > super::RECORD {
            return Err(Error::new(format!("cannot read `{}`: no manifest has {size} bytes", self.url.text))
                .with_hint("choose another folder with --out"));
        }
        for start in (0..size).step_by(PIECE as usize) {
            let range = start..(start + PIECE).min(size);
            let piece = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let ask = async { self.store.get_opts(&self.path, piece).await?.bytes().await };
            let bytes = self.threads.block_on(ask).map_err(failed)?;
            if bytes.len() as u64 != range.end - range.start {
                return Err(Error::new(format!("cannot read `{}`: it is cut short", self.url.text)));
            }
            file.write_all(&bytes).map_err(|error| Error::new("cannot write a temporary file").with_source(error))?;
        }
        Ok(true)
    }

    /// Puts all that `file` has from where it is, piece by piece, in place of what is there.
    pub(crate) fn write_from(&self, file: &mut File, note: &str) -> Result<()> {
        let failed = |error| fault("write", &self.url, error);
        let local = |error| Error::new("cannot read a temporary file").with_source(error);
        let piece = |file: &mut File| {
            let mut bytes = Vec::new();
            Read::by_ref(file).take(PIECE).read_to_end(&mut bytes).map_err(local).map(|_| bytes)
        };
        let first = piece(file)?;
        if (first.len() as u64) < PIECE {
            return self.put(first, note, Replace::Always).wait().map(drop);
        }
        let mut upload = self.threads.block_on(self.store.put_multipart(&self.path)).map_err(failed)?;
        let mut bytes = first;
        while !bytes.is_empty() {
            self.threads.block_on(upload.put_part(PutPayload::from(bytes))).map_err(failed)?;
            bytes = piece(file)?;
        }
        self.threads.block_on(upload.complete()).map_err(failed).map(drop)
    }

    /// Removes it.
    pub(crate) fn remove(&self) -> Result<()> {
        match self.threads.block_on(self.store.delete(&self.path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(fault("remove", &self.url, error)),
        }
    }
}

impl<T> Pending<T> {
    /// Whether its answer is there.
    pub(crate) fn is_there(&self) -> bool {
        self.task.is_finished()
    }

    /// Its answer. Not for the threads that talk to stores.
    pub(crate) fn wait(self) -> Result<T> {
        self.threads.block_on(self.task).unwrap_or_else(|error| {
            let broken = Error::new("a request to an object store broke off").with_source(error);
            Err(broken.with_kind(ErrorKind::Unreachable))
        })
    }
}
