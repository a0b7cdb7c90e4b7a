//! A dataset as people name it: built-in, a TOML, or a folder that is described first.

use std::path::{Path, PathBuf};

use structtoken::data::init::{self, Options};
use structtoken::data::spec::DatasetSpec;
use structtoken::data::{shapes, spec};
use structtoken::error::{Error, Result};
use structtoken::files::{self, Scratch};
use structtoken::text::utf8;

use crate::console::Steps;

/// What a path names.
pub(crate) enum Named {
    /// A built-in name, or the path of a TOML.
    Described(String),
    /// A folder that nothing describes yet.
    Folder(PathBuf),
}

/// The dataset that `path` names; none if it is something else, for instance a recipe.
pub(crate) fn named(path: &Path) -> Result<Option<Named>> {
    let name = path.to_string_lossy();
    // As everywhere: a name that is built in means that; `./camvid` is a folder.
    if spec::BUILT_IN.iter().any(|(known, _)| *known == name) || name == shapes::NAME {
        return Ok(Some(Named::Described(name.into_owned())));
    }
    if path.is_dir() {
        let toml = path.join(init::FILE);
        return Ok(Some(match toml.exists() {
            true => Named::Described(utf8(&toml)?.to_owned()),
            false => Named::Folder(path.to_owned()),
        }));
    }
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(path, files::TEXT).map_err(|error| Error::file("read", path, error))?;
    let describes = toml::from_str(&text).is_ok_and(|table: toml::Table| table.contains_key("classes"));
    if describes { Ok(Some(Named::Described(utf8(path)?.to_owned()))) } else { Ok(None) }
}

/// Describes `folder` as `structtoken data init` does, in `toml`; what it is, and what the person should know.
pub(crate) fn describe(folder: &Path, toml: &Path) -> Result<init::Plan> {
    let steps = Steps::new("looking at files");
    let found = init::look(folder, toml, &Options::default(), &|done, all| steps.show(done, all))?;
    init::write(&found, false, &|done, all| steps.show(done, all))?;
    steps.clear();
    talk!("found {}", found.kind);
    found.notes.iter().for_each(|note| talk!("note: {note}"));
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
    ///
    /// # Errors
    /// It names none, or a folder that cannot be described.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        match named(path)? {
            Some(Named::Folder(folder)) => {
                let scratch = Scratch::new(&std::env::temp_dir(), "dataset")?;
                let toml = scratch.path().join(init::FILE);
                let found = describe(&folder, &toml)?;
                let has_val = found.spec.val.is_some() && !found.halved;
                Ok(Self { name: utf8(&toml)?.to_owned(), has_val, scratch: Some(scratch) })
            }
            Some(Named::Described(name)) => {
                let has_val = name == shapes::NAME || DatasetSpec::find(&name)?.val.is_some();
                Ok(Self { name, has_val, scratch: None })
            }
            None => Err(Error::new(format!("`{}` is no dataset", path.display()))
                .hint("name a folder of images and masks, the TOML that describes one, or a built-in dataset")),
        }
    }

    /// Whether it was described only for now.
    pub(crate) fn is_temporary(&self) -> bool {
        self.scratch.is_some()
    }
}
