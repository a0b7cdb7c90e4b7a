//! A dataset as people name it: built-in, a TOML, or a folder that is described first.

use std::path::{Path, PathBuf};

use crate::cli::console::StepProgress;
use crate::dataset::spec::DatasetSpec;
use crate::dataset::{description, shapes};
use crate::error::{Error, Result};
use crate::files::{self, Scratch};
use crate::text::{shell_word, utf8};
use crate::tools::init;
use crate::tools::init::{InitOptions, Purpose};

/// What a path names.
pub(crate) enum DatasetArgument {
    /// A built-in name, or the path of a TOML.
    Described(String),
    /// A folder that nothing describes yet.
    Folder(PathBuf),
}

/// The dataset that `path` names; none if it is something else, for instance a recipe.
pub(crate) fn named(path: &Path) -> Result<Option<DatasetArgument>> {
    let name = path.to_string_lossy();
    // As everywhere: a name that is built in means that; `./camvid` is a folder.
    if description::BUILT_IN.iter().any(|(known, _)| *known == name) || name == shapes::NAME {
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

/// Describes `folder` as `structtoken data init` does, in `toml`; says what it is, and what the person should know.
/// `splits`: that includes how images were divided.
pub(crate) fn describe(folder: &Path, toml: &Path, purpose: Purpose, splits: bool) -> Result<init::DatasetPlan> {
    let steps = StepProgress::new("looking at files");
    let options = InitOptions { purpose, ..InitOptions::default() };
    let found = init::detect_format(folder, toml, &options, &|done, all| steps.show(done, all))?;
    init::write(&found, false, &|done, all| steps.show(done, all))?;
    steps.clear();
    talk!("found {}; classes: {}", found.kind, found.classes());
    let split_note = found.split_note.iter().filter(|_| splits);
    found.notes.iter().chain(split_note).for_each(|note| talk!("note: {note}"));
    Ok(found)
}

/// A dataset that is described for as long as this lasts.
pub(crate) struct Opened {
    /// A built-in name, or the path of a TOML.
    pub(crate) name: String,
    /// Whether it has a validation split of its own, not one that was chosen just now.
    pub(crate) has_val: bool,
    /// Where the TOML and masks drawn from outlines are, if nothing described the folder before.
    scratch: Option<Scratch>,
}

impl Opened {
    /// Opens the dataset that `path` names. A folder is described in a temporary place: nothing is written to it.
    /// `splits`: it matters which images are of which split.
    ///
    /// # Errors
    /// It names none, or a folder that cannot be described.
    pub(crate) fn new(path: &Path, splits: bool) -> Result<Self> {
        match named(path)? {
            Some(DatasetArgument::Folder(folder)) => {
                let scratch = Scratch::new(&std::env::temp_dir(), "dataset")?;
                let toml = scratch.path().join(init::FILE);
                let found = describe(&folder, &toml, Purpose::Moment, splits)?;
                let has_val = found.spec.val.is_some() && found.split_note.is_none();
                Ok(Self { name: utf8(&toml)?.to_owned(), has_val, scratch: Some(scratch) })
            }
            Some(DatasetArgument::Described(name)) => {
                let has_val = name == shapes::NAME || DatasetSpec::find(&name)?.val.is_some();
                Ok(Self { name, has_val, scratch: None })
            }
            None => Err(Error::new(format!("`{}` is not a dataset", path.display()))
                .with_hint("pass a folder of images and masks, a dataset TOML, or the name of a built-in dataset")),
        }
    }

    /// Whether it was described only for now.
    pub(crate) fn is_temporary(&self) -> bool {
        self.scratch.is_some()
    }

    /// The command that describes `folder` with the names of `classes`, in the order of its own; none where that would
    /// not make them the model's.
    pub(crate) fn renaming(&self, folder: &Path, toml: &Path, classes: &[String]) -> Option<String> {
        let plain = |name: &String| !name.contains(',') && !name.contains(char::is_control) && !name.starts_with('-');
        if !self.is_temporary() || !classes.iter().all(plain) {
            return None;
        }
        let options = InitOptions { names: classes.to_vec(), ..InitOptions::default() };
        let steps = StepProgress::new("looking at files");
        let found = init::detect_format(folder, toml, &options, &|done, all| steps.show(done, all));
        steps.clear();
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
