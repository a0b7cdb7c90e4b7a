//! A dataset as a command names it, with what it is told on the way.

use std::path::Path;

use crate::cli::console::StepProgress;
use crate::error::Result;
use crate::tools::init::{DatasetPlan, Purpose};
use crate::tools::named;

pub(crate) use crate::tools::named::{DatasetArgument, Listener, OpenedDataset, named};

/// Describes `folder` in `toml`, as [`named::describe`] does.
pub(crate) fn describe(folder: &Path, toml: &Path, purpose: Purpose, splits: bool) -> Result<DatasetPlan> {
    listening(|listener| named::describe(folder, toml, purpose, splits, listener))
}

/// Opens the dataset that `path` names, as [`OpenedDataset::open`] does.
pub(crate) fn open(path: &Path, splits: bool) -> Result<OpenedDataset> {
    listening(|listener| OpenedDataset::open(path, splits, listener))
}

/// Does `work`, whose progress and notes are shown.
pub(crate) fn listening<T>(work: impl FnOnce(Listener) -> T) -> T {
    let steps = StepProgress::new("looking at files");
    let progress = |done, all| steps.show(done, all);
    let say = |line: &str| {
        steps.clear();
        talk!("{line}");
    };
    let found = work(Listener { progress: &progress, say: &say });
    steps.clear();
    found
}
