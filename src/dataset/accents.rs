//! Names that look the same, written in two ways: macOS writes `é` as an `e` with an accent after it, others as one
//! character.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::dataset::walk::walk;

/// The name with each accented letter as one character (Unicode's form NFC).
pub(crate) fn composed(name: &str) -> Cow<'_, str> {
    if name.is_ascii() || is_nfc(name) { Cow::Borrowed(name) } else { Cow::Owned(name.nfc().collect()) }
}

/// The files below a folder by their names, in either spelling.
pub(crate) struct ByName<'a> {
    folder: &'a Path,
    /// Paths by the composed name below the folder; read when a name is not there as it is written.
    others: OnceCell<HashMap<String, PathBuf>>,
}

impl<'a> ByName<'a> {
    pub(crate) fn below(folder: &'a Path) -> Self {
        Self { folder, others: OnceCell::new() }
    }

    /// The file called `name`: as it is written, or else in the other spelling; where neither is there, the first.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        if name.is_ascii() || path.is_file() {
            return path;
        }
        let read = || walk(self.folder).files.into_iter().map(|(name, path)| (composed(&name).into_owned(), path));
        self.others.get_or_init(|| read().collect()).get(composed(name).as_ref()).cloned().unwrap_or(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "fen\u{ea}tre";
    const TWO: &str = "fene\u{302}tre";

    #[test]
    fn names_are_found_in_either_spelling() {
        assert_eq!(composed(TWO), ONE);
        assert!(matches!(composed(ONE), Cow::Borrowed(_)));
        for (there, asked) in [(ONE, TWO), (TWO, ONE)] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("a")).unwrap();
            let path = folder.path().join(format!("a/{there}.png"));
            std::fs::write(&path, b"").unwrap();
            let names = ByName::below(folder.path());
            assert_eq!(names.path(&format!("a/{asked}.png")), path);
            assert_eq!(names.path(&format!("a/{there}.png")), path);
            assert_eq!(names.path("a/\u{e9}.png"), folder.path().join("a/\u{e9}.png"), "it is not there at all");
        }
    }
}
