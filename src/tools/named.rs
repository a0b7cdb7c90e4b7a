//! A dataset as people name it: built-in, a TOML, or a folder that is described first.

use std::path::{Path, PathBuf};

use crate::dataset::spec::DatasetSpec;
use crate::dataset::{description, shapes};
use crate::error::{Error, Result};
use crate::files::{self, Scratch};
use crate::text::{shell_word, utf8};
use crate::tools::check::OnProgress;
use crate::tools::init::{self, InitOptions, Purpose};

/// Who hears of the work on a dataset.
#[derive(Clone, Copy)]
pub struct Listener<'a> {
    /// Told how many of how many files are done.
    pub progress: OnProgress<'a>,
    /// Told, a line at a time, what was found and what a person should know.
    pub say: &'a dyn Fn(&str),
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatasetArgument {
    /// A built-in name, or the path of a TOML.
    Described(String),
    /// A folder that nothing describes yet.
    Folder(PathBuf),
}

/// The dataset that `path` names; none if it is something else, for instance a recipe, or not there.
///
/// # Errors
/// A file that cannot be read.
pub fn named(path: &Path) -> Result<Option<DatasetArgument>> {
    let name = path.to_string_lossy();
    // As everywhere: a name that is built in means that; `./camvid` is a folder.
    if is_built_in(&name) {
        return Ok(Some(DatasetArgument::Described(name.into_owned())));
    }
    if path.is_dir() {
        let toml = path.join(init::FILE);
        return Ok(Some(match toml.exists() {
            true => DatasetArgument::Described(utf8(&toml)?.to_owned()),
            false => DatasetArgument::Folder(path.to_owned()),
        }));
    }
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(path, files::RECIPE).map_err(|error| Error::file("read", path, error))?;
    let describes = toml::from_str(&text).is_ok_and(|table: toml::Table| table.contains_key("classes"));
    if describes { Ok(Some(DatasetArgument::Described(utf8(path)?.to_owned()))) } else { Ok(None) }
}

/// Whether the program itself describes the dataset `name`, or makes it.
#[must_use]
pub fn is_built_in(name: &str) -> bool {
    name == shapes::NAME || description::BUILT_IN.iter().any(|(known, _)| *known == name)
}

/// Describes `folder` as `structtoken data init` does, in `toml`; says what it is, and what the person should know.
/// `splits`: that includes how images were divided.
///
/// # Errors
/// A folder that cannot be described, or a description that cannot be written.
pub fn describe(
    folder: &Path,
    toml: &Path,
    purpose: Purpose,
    splits: bool,
    listener: Listener,
) -> Result<init::DatasetPlan> {
    let options = InitOptions { purpose, ..InitOptions::default() };
    let found = init::detect_format(folder, toml, &options, listener.progress)?;
    init::write(&found, false, listener.progress)?;
    (listener.say)(&format!("found {}; classes: {}", found.kind, found.classes()));
    let split_note = found.split_note.iter().filter(|_| splits);
    found.notes.iter().chain(split_note).for_each(|note| (listener.say)(&format!("note: {note}")));
    Ok(found)
}

/// A dataset that is described for as long as this lasts.
#[derive(Debug)]
pub struct OpenedDataset {
    /// A built-in name, or the path of a TOML.
    pub name: String,
    /// Whether it has a validation split of its own, not one that was chosen just now.
    pub has_val: bool,
    /// Where the TOML and masks drawn from outlines are, if nothing described the folder before.
    scratch: Option<Scratch>,
}

impl OpenedDataset {
    /// Opens the dataset that `path` names. A folder is described in a temporary place: nothing is written to it.
    /// `splits`: it matters which images are of which split.
    ///
    /// # Errors
    /// It names none, or a folder that cannot be described.
    pub fn open(path: &Path, splits: bool, listener: Listener) -> Result<Self> {
        match named(path)? {
            Some(DatasetArgument::Folder(folder)) => {
                let scratch = Scratch::new(&std::env::temp_dir(), "dataset")?;
                let toml = scratch.path().join(init::FILE);
                let found = describe(&folder, &toml, Purpose::Moment, splits, listener)?;
                let has_val = found.spec.val.is_some() && found.split_note.is_none();
                Ok(Self { name: utf8(&toml)?.to_owned(), has_val, scratch: Some(scratch) })
            }
            Some(DatasetArgument::Described(name)) => {
                let has_val = name == shapes::NAME || DatasetSpec::find(&name)?.val.is_some();
                Ok(Self { name, has_val, scratch: None })
            }
            None => {
                let error = match path.exists() {
                    true => Error::new(format!("`{}` is not a dataset", path.display())),
                    false => Error::new(format!("`{}` is not a dataset: nothing is there", path.display()))
                        .with_missing(path),
                };
                Err(error
                    .with_hint("pass a folder of images and masks, a dataset TOML, or the name of a built-in dataset"))
            }
        }
    }

    /// Whether it was described only for now.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.scratch.is_some()
    }

    /// The command that describes `folder` with the names of `classes`, in the order of its own; none where that would
    /// not make them the model's.
    pub(super) fn renaming(
        &self,
        folder: &Path,
        toml: &Path,
        classes: &[String],
        progress: OnProgress,
    ) -> Option<String> {
        let plain = |name: &String| !name.contains(',') && !name.contains(char::is_control) && !name.starts_with('-');
        if !self.is_temporary() || !classes.iter().all(plain) {
            return None;
        }
        let options = InitOptions { names: classes.to_vec(), ..InitOptions::default() };
        let found = init::detect_format(folder, toml, &options, progress);
        let fits = found.is_ok_and(|found| found.spec.classes.iter().all(|class| classes.contains(&class.name)));
        let names = classes.join(",");
        fits.then(|| {
            format!(
                "structtoken data init {} --names {} --out {}",
                shell_word(folder),
                shell_word(Path::new(&names)),
                shell_word(toml)
            )
        })
    }
}
