//! The files below a folder, and what could not be looked at.

use std::io;
use std::path::{Path, PathBuf};

/// Folders within folders are followed this far.
const MAX_DEPTH: usize = 16;

/// What lies below a folder.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Files by their path below the folder, parts joined by `/`; in the order of these. Hidden ones are left out, they
    /// are a file manager's.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// Folders that could not be read.
    pub(crate) unreadable: Vec<(PathBuf, io::Error)>,
    /// Links to a folder that they lie in; they are not followed.
    pub(crate) loops: Vec<PathBuf>,
    /// Names that are not UTF-8: neither a list nor a report could hold them.
    pub(crate) unnamed: Vec<PathBuf>,
}

/// Finds all files below `folder`, through links, but not in circles.
pub(crate) fn walk(folder: &Path) -> Walked {
    let mut walked = Walked::default();
    enter(folder, "", &mut Vec::new(), &mut walked);
    walked.files.sort();
    walked
}

/// `above`: the folders on the way here, with links resolved.
fn enter(folder: &Path, prefix: &str, above: &mut Vec<PathBuf>, walked: &mut Walked) {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let (entries, real) = match entries.and_then(|entries| Ok((entries, folder.canonicalize()?))) {
        Ok(found) => found,
        Err(error) => return walked.unreadable.push((folder.to_path_buf(), error)),
    };
    if above.contains(&real) {
        return walked.loops.push(folder.to_path_buf());
    }
    above.push(real);
    for entry in entries {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            walked.unnamed.push(path);
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        if !path.is_dir() {
            walked.files.push((name, path));
        } else if above.len() <= MAX_DEPTH {
            enter(&path, &format!("{name}/"), above, walked);
        }
    }
    above.pop();
}
