//! Objects in stores, in a build that leaves them out: none of them can be had.

use std::fs::File;

pub(crate) use super::object_answers::{Fetched, Put, Replace};
use super::urls::Url;
use crate::error::{Error, ErrorKind, Result};

/// As with the feature `object-store`, but nothing is reached.
#[derive(Default)]
pub(crate) struct Stores(());

/// There is none.
#[derive(Clone)]
pub(crate) enum Object {}

/// There is none.
pub(crate) struct Pending<T>(Object, std::marker::PhantomData<T>);

impl Stores {
    pub(crate) fn object(&self, url: &str) -> Result<Object> {
        let url = Url::parse(url)?;
        Err(Error::new(format!("cannot open `{}`: this build reaches no object stores", url.text))
            .with_kind(ErrorKind::Unreachable)
            .with_hint("build one that does: cargo build --release --features full"))
    }
}

impl Object {
    pub(crate) fn url(&self) -> &str {
        match *self {}
    }

    pub(crate) fn fetch(&self, _limit: u64, _at_once: u64) -> Pending<Fetched> {
        match *self {}
    }

    pub(crate) fn note(&self) -> Pending<Option<Option<String>>> {
        match *self {}
    }

    pub(crate) fn put(&self, _bytes: Vec<u8>, _note: &str, _replace: Replace) -> Pending<Put> {
        match *self {}
    }

    pub(crate) fn start_of(&self, _most: u64) -> Result<Option<Vec<u8>>> {
        match *self {}
    }

    pub(crate) fn read_into(&self, _file: &mut File) -> Result<bool> {
        match *self {}
    }

    pub(crate) fn write_from(&self, _file: &mut File, _note: &str) -> Result<()> {
        match *self {}
    }

    pub(crate) fn remove(&self) -> Result<()> {
        match *self {}
    }
}

impl<T> Pending<T> {
    pub(crate) fn is_there(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn wait(self) -> Result<T> {
        match self.0 {}
    }
}
