//! Where the description lies, and paths as it says them.

use std::path::{Component, Path, PathBuf};

/// The folder of a file; `.` for a bare name.
pub(super) fn parent_folder(file: &Path) -> &Path {
    file.parent().filter(|parent_folder| !parent_folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The absolute path without links and dots, of what may not be there yet.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut real = PathBuf::new();
    for component in std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).components() {
        match component {
            // What was resolved before has no links.
            Component::ParentDir => drop(real.pop()),
            component => real.push(component),
        }
        real = real.canonicalize().unwrap_or(real);
    }
    real
}

/// The relative path from one real folder to another that moves with it: one below it, around it or next to it. `None`
/// for others.
pub(super) fn relative_path(from: &Path, to: &Path) -> Option<PathBuf> {
    if let Ok(below) = to.strip_prefix(from) {
        return Some(below.to_path_buf());
    }
    if let Ok(inner) = from.strip_prefix(to) {
        return Some(inner.components().map(|_| Component::ParentDir).collect());
    }
    let around = from.parent().filter(|around| around.parent().is_some())?;
    Some(Path::new("..").join(to.strip_prefix(around).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_lead_below_around_and_next_to() {
        let relative =
            |from: &str, to: &str| relative_path(Path::new(from), Path::new(to)).map(|path| path.display().to_string());
        assert_eq!(relative("/p", "/p/set").as_deref(), Some("set"));
        assert_eq!(relative("/p/set", "/p/set").as_deref(), Some(""));
        assert_eq!(relative("/p/set/a/b", "/p/set").as_deref(), Some("../.."));
        assert_eq!(relative("/p/out", "/p/set").as_deref(), Some("../set"));
        assert_eq!(relative("/p/runs/a", "/p/set"), None);
        assert_eq!(relative("/out", "/set/a"), None);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_there_has_a_real_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).unwrap();
        assert_eq!(real(&root.join("link/../new/./x")), root.join("a/new/x"));
        assert_eq!(real(&root.join("new/../a")), root.join("a"));
        assert_eq!(
            (parent_folder(Path::new("x.toml")), parent_folder(Path::new("a/x.toml"))),
            (Path::new("."), Path::new("a"))
        );
    }
}
