//! The pictures below a folder, and which of them a name in a file of annotations means.
//!
//! Only files that were found below the folder are ever answered, so no name leads out of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::dataset::Split;
use crate::dataset::pairs::plain_stem;
use crate::error::{Error, ErrorKind, Result};
use crate::text::shell_word;
use crate::tools::init::notes::Notes;
use crate::tools::init::plan::Place;
use crate::tools::init::splits::in_split;

/// Pictures by their paths below a folder.
pub(super) struct Pictures {
    root: PathBuf,
    /// What to do where a picture is not there.
    elsewhere: String,
    /// The command that names a folder of images, in the place of DIR.
    command: String,
    /// Sorted.
    names: Vec<String>,
    /// By file name, in small letters.
    by_file: HashMap<String, Vec<usize>>,
}

/// What a name was found to mean.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'a> {
    /// The picture at that place.
    There(&'a str),
    /// Another place was written, and this is the only picture called so.
    Called(&'a str),
}

impl<'a> Found<'a> {
    pub(super) fn name(&self) -> &'a str {
        match self {
            Self::There(name) | Self::Called(name) => name,
        }
    }
}

impl Pictures {
    /// All below `root`, without those that were drawn by an earlier look.
    pub(super) fn below(place: &Place, root: &Path) -> Self {
        let found = place.files(root).into_iter().map(|(name, _)| name);
        let command = place.again(false, |options| options.images = Some("DIR".into()));
        let elsewhere = format!("add the image, or remove its annotations; if images are elsewhere, in DIR: {command}");
        Self::new(root, elsewhere, command, found.filter(|name| plain_stem(name).is_some()).collect())
    }

    fn new(root: &Path, elsewhere: String, command: String, mut names: Vec<String>) -> Self {
        names.sort();
        let mut by_file: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            by_file.entry(file_name(name).to_lowercase()).or_default().push(at);
        }
        Self { root: root.to_path_buf(), elsewhere, command, names, by_file }
    }

    /// The command that takes the images of a folder below the root.
    pub(super) fn again(&self, folder: &str) -> String {
        self.command.replace("DIR", &shell_word(&self.root.join(folder)))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Where a picture of this name is: the split that its first folder stands for, if it does, and the folder that the
    /// rest of the name is below.
    pub(super) fn placed<'a>(&self, name: &'a str) -> (Option<Split>, PathBuf, &'a str) {
        match in_split(name) {
            Some((split, folder, below)) => (Some(split), self.root.join(folder), below),
            None => (None, self.root.clone(), name),
        }
    }

    /// Whether a picture is at exactly this place.
    pub(super) fn has(&self, name: &str) -> bool {
        self.at(name).is_some()
    }

    fn at(&self, name: &str) -> Option<&str> {
        self.names.binary_search_by(|one| one.as_str().cmp(name)).ok().map(|at| self.names[at].as_str())
    }

    /// The picture that `written` means in a file that lies in the folder `near`, a path below the root.
    ///
    /// # Errors
    /// Names that lead out of the folder; names of no picture, or of several.
    pub(super) fn find(&self, written: &str, near: &str) -> Result<Found<'_>> {
        if let Some(name) = self.at(written) {
            return Ok(Found::There(name));
        }
        let plain = written.trim().replace('\\', "/");
        // A drive of Windows.
        let drive = plain.as_bytes().get(1) == Some(&b':') && plain.as_bytes()[0].is_ascii_alphabetic();
        let plain = if drive { &plain[2..] } else { &plain };
        let outside = |why: &str| {
            Error::new(format!("the image `{written}` {why}")).with_hint(
                "write names relative to the folder of images; images must be below the folder of the dataset",
            )
        };
        if !drive && !plain.starts_with('/') {
            let Some(name) = joined(near, plain) else {
                return self.called(plain, written).map_err(|_| outside("leads out of the folder"));
            };
            if let Some(name) = self.at(&name) {
                return Ok(Found::There(name));
            }
        } else if let Ok(real) = Path::new(written).canonicalize() {
            // A place on this machine: that file is meant and no other.
            let below = self.root.canonicalize().ok().and_then(|root| {
                let below = real.strip_prefix(root).ok()?;
                Some(below.to_str()?.replace('\\', "/"))
            });
            return below
                .and_then(|below| self.at(&below))
                .map(Found::There)
                .ok_or_else(|| outside("is a file outside the folder"));
        }
        self.called(plain, written)
    }

    /// Notes a picture that is not there, whose annotations are left out; other errors remain.
    pub(super) fn left_out<'a>(
        found: Result<Found<'a>>,
        absent: &mut Option<Error>,
        notes: &mut Notes,
        which: impl FnOnce() -> String,
    ) -> Result<Option<Found<'a>>> {
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                notes.add("annotations whose image is not there were left out", which());
                absent.get_or_insert(error);
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// The only picture of this file name; of several the one that shares the most folders.
    fn called(&self, plain: &str, written: &str) -> Result<Found<'_>> {
        let hint = self.elsewhere.as_str();
        let places = self.by_file.get(&file_name(plain).to_lowercase()).map(Vec::as_slice).unwrap_or_default();
        let shared = |at: &usize| {
            let (a, b) = (self.names[*at].rsplit('/'), plain.rsplit('/'));
            a.zip(b).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count()
        };
        let most = places.iter().map(shared).max().unwrap_or(0);
        let best: Vec<&usize> = places.iter().filter(|at| shared(at) == most).collect();
        match best.as_slice() {
            [] if file_name(plain).is_empty() => {
                Err(Error::new(format!("`{written}` is not the name of an image below `{}`", self.root.display()))
                    .with_hint(hint))
            }
            [] => Err(Error::new(format!("the image `{written}` is not below `{}`", self.root.display()))
                .with_hint(hint)
                .with_kind(ErrorKind::NotFound)),
            [at] => Ok(Found::Called(&self.names[**at])),
            [a, b, ..] => Err(Error::new(format!(
                "the image `{written}` may be `{}` or `{}` below `{}`",
                self.names[**a],
                self.names[**b],
                self.root.display()
            ))
            .with_hint("include the folder in its name")),
        }
    }
}

/// The last part of a path.
pub(super) fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The folder of a file, below that which its name counts from.
pub(super) fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// `path` from the folder `near` on, with `.` and `..` resolved. `None` if it leads above where both count from.
fn joined(near: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in near.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures() -> Pictures {
        let names = ["a.png", "images/a.png", "images/b.JPG", "images/one/c.png", "images/two/c.png", "odd\\name.png"];
        Pictures::new(
            Path::new("/nowhere/set"),
            "add it".to_string(),
            String::new(),
            names.map(str::to_string).to_vec(),
        )
    }

    #[test]
    fn names_mean_pictures_below_the_folder() {
        let pictures = pictures();
        for (written, near, name, there) in [
            ("a.png", "", "a.png", true),
            ("images/a.png", "labels", "images/a.png", true),
            ("a.png", "images", "a.png", true),
            ("c.png", "images/one", "images/one/c.png", true),
            ("../images/b.JPG", "labels", "images/b.JPG", true),
            ("./images/./one/../b.JPG", "", "images/b.JPG", true),
            ("images\\b.JPG", "", "images/b.JPG", true),
            ("odd\\name.png", "", "odd\\name.png", true),
            // Of another machine.
            ("C:\\Users\\me\\images\\b.jpg", "", "images/b.JPG", false),
            ("/home/me/set/images/two/c.png", "", "images/two/c.png", false),
            ("D:two\\c.png", "", "images/two/c.png", false),
            ("../../../elsewhere/b.JPG", "labels", "images/b.JPG", false),
            ("b.jpg", "", "images/b.JPG", false),
        ] {
            let found = pictures.find(written, near).unwrap();
            assert_eq!((found.name(), matches!(found, Found::There(_))), (name, there), "{written}");
        }
        for (written, why) in [
            ("../../etc/passwd", "leads out"),
            ("..", "leads out"),
            ("/etc/passwd", "outside"),
            ("d.png", "is not below"),
            ("/home/me/three/c.png", "may be"),
            ("", "is not the name of an image"),
        ] {
            let error = pictures.find(written, "").unwrap_err();
            assert!(error.to_string().contains(why) && error.hint().is_some(), "{written}: {error}");
        }
    }
}
