//! The files below a folder, and what could not be looked at.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// Folders within folders are followed this far.
const MAX_DEPTH: usize = 16;

/// Entries of all folders together that are looked at. Sets of images have fewer; file systems have more.
const MAX_ENTRIES: usize = 2_000_000;

/// What lies below a folder.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Regular files, and links that lead nowhere, by their path below the folder, parts joined by `/`; in the order of
    /// these. Hidden ones are left out, they are a file manager's.
    pub(crate) files: Vec<(String, PathBuf)>,
    /// Folders that could not be read, or not to their end.
    pub(crate) unreadable: Vec<(PathBuf, io::Error)>,
    /// Links to a folder that they lie in, or that was entered already; they are not followed.
    pub(crate) loops: Vec<PathBuf>,
    /// Names that are not UTF-8: neither a list nor a report could hold them.
    pub(crate) unnamed: Vec<PathBuf>,
    /// Pipes, sockets and devices, which are not files.
    pub(crate) special: Vec<PathBuf>,
    /// Those of the files that are links which lead nowhere.
    pub(crate) dangling: Vec<PathBuf>,
}

/// What lies in a folder itself, by name; nothing of one that cannot be read.
pub(crate) fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Finds all files below `folder`, through links, but no folder twice.
pub(crate) fn walk(folder: &Path) -> Walked {
    walk_within(folder, MAX_ENTRIES)
}

fn walk_within(folder: &Path, entries: usize) -> Walked {
    let mut walk = Walk { walked: Walked::default(), entered: HashSet::new(), left: entries, links: Vec::new() };
    match is_system(folder) {
        true => walk.walked.special.push(folder.to_path_buf()),
        false => walk.enter(folder, "", 0),
    }
    // Links come last, in the order of their names, so that a folder keeps its own name where a link leads to it too.
    while !walk.links.is_empty() && walk.left > 0 {
        let mut links = std::mem::take(&mut walk.links);
        links.sort();
        links.into_iter().for_each(|(name, path, depth)| walk.enter(&path, &name, depth));
    }
    if walk.left == 0 {
        let what = format!(
            "it holds more than {entries} files and folders, including subfolders: this is not a dataset of \
                     images"
        );
        walk.walked = Walked { unreadable: vec![(folder.to_path_buf(), io::Error::other(what))], ..Walked::default() };
    }
    let Walked { files, loops, unnamed, special, dangling, .. } = &mut walk.walked;
    files.sort();
    [loops, unnamed, special, dangling].into_iter().for_each(|paths| paths.sort());
    walk.walked
}

struct Walk {
    walked: Walked,
    /// Folders by what the file system calls them.
    entered: HashSet<Id>,
    /// Entries that may still be looked at.
    left: usize,
    /// Links to folders, to be followed later: name, path, depth.
    links: Vec<(String, PathBuf, usize)>,
}

impl Walk {
    /// `prefix`: the folder's own name below the first, with a slash at its end.
    fn enter(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let fail = |walk: &mut Self, error| walk.walked.unreadable.push((folder.to_path_buf(), error));
        if self.left == 0 {
            return;
        }
        let (id, entries) = match id(folder).and_then(|id| Ok((id, std::fs::read_dir(folder)?))) {
            Ok(found) => found,
            Err(error) => return fail(self, error),
        };
        if !self.entered.insert(id) {
            return self.walked.loops.push(folder.to_path_buf());
        }
        if depth > MAX_DEPTH {
            let what = format!("it is more than {MAX_DEPTH} folders deep, and is not read");
            return fail(self, io::Error::other(what));
        }
        let mut folders = Vec::new();
        for entry in entries {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            let (entry, kind) = match entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind))) {
                Ok(found) => found,
                Err(error) => return fail(self, error),
            };
            let path = entry.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                self.walked.unnamed.push(path);
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            // Of a link that leads nowhere nothing is known: whoever reads it gets an error.
            let real =
                if kind.is_symlink() { std::fs::metadata(&path).ok().map(|data| data.file_type()) } else { Some(kind) };
            match real {
                // What lies in a folder that is none of the system's can be one only by a link, or at the root.
                Some(real) if real.is_dir() && (kind.is_symlink() || depth == 0) && is_system(&path) => {
                    self.walked.special.push(path)
                }
                Some(real) if real.is_dir() && kind.is_symlink() => {
                    self.links.push((format!("{name}/"), path, depth + 1))
                }
                Some(real) if real.is_dir() => folders.push((format!("{name}/"), path)),
                Some(real) if !real.is_file() => self.walked.special.push(path),
                Some(_) => self.walked.files.push((name, path)),
                None => {
                    self.walked.dangling.push(path.clone());
                    self.walked.files.push((name, path));
                }
            }
        }
        folders.sort();
        folders.into_iter().for_each(|(name, path)| self.enter(&path, &name, depth + 1));
    }
}

/// Whether a folder holds what the system makes up when it is asked, whatever a link to it is called.
fn is_system(folder: &Path) -> bool {
    const SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];
    /// Memory that is used as a disk.
    const DISK: &str = "/dev/shm";
    folder
        .canonicalize()
        .is_ok_and(|real| SYSTEM.iter().any(|system| real.starts_with(system)) && !real.starts_with(DISK))
}

#[cfg(unix)]
type Id = (u64, u64);

/// Device and number of a folder: the same whatever way leads to it.
#[cfg(unix)]
fn id(folder: &Path) -> io::Result<Id> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder).map(|data| (data.dev(), data.ino()))
}

#[cfg(not(unix))]
type Id = PathBuf;

#[cfg(not(unix))]
fn id(folder: &Path) -> io::Result<Id> {
    folder.canonicalize()
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        folder
    }

    fn names(walked: &Walked) -> Vec<&str> {
        walked.files.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn links_are_followed_once() {
        let folder = tree(&["b/x.png", "c.png", ".hidden/y.png"]);
        let elsewhere = tree(&["z.png"]);
        // Each folder holds links to all others: without memory, paths would multiply.
        for at in 0..20 {
            let inner = folder.path().join(format!("d{at}"));
            std::fs::create_dir(&inner).unwrap();
            for to in 0..20 {
                symlink(folder.path().join(format!("d{to}")), inner.join(format!("l{to}"))).unwrap();
            }
        }
        symlink(".", folder.path().join("again")).unwrap();
        symlink("b", folder.path().join("a")).unwrap();
        symlink(elsewhere.path(), folder.path().join("out")).unwrap();
        symlink("nowhere", folder.path().join("dangling.png")).unwrap();
        let walked = walk(folder.path());
        assert_eq!(names(&walked), ["b/x.png", "c.png", "dangling.png", "out/z.png"]);
        assert_eq!(walked.loops.len(), 20 * 20 + 2);
        assert!(walked.unreadable.is_empty());
        assert_eq!(walked.dangling, [folder.path().join("dangling.png")]);
    }

    #[test]
    fn what_is_no_file_is_left_out_and_said() {
        let folder = tree(&["a.png"]);
        let _socket = UnixListener::bind(folder.path().join("s.png")).unwrap();
        std::fs::create_dir(folder.path().join("x")).unwrap();
        symlink("/dev", folder.path().join("x/dev")).unwrap();
        // Whatever they are called.
        symlink("/dev/fd", folder.path().join("own")).unwrap();
        symlink("/dev/zero", folder.path().join("zero.png")).unwrap();
        let walked = walk(folder.path());
        assert_eq!(names(&walked), ["a.png"]);
        assert_eq!(walked.special, ["own", "s.png", "x/dev", "zero.png"].map(|name| folder.path().join(name)));
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = format!("{}x.png", "d/".repeat(40));
        let folder = tree(&[&deep, "y.png"]);
        let walked = walk(folder.path());
        assert_eq!(names(&walked), ["y.png"]);
        let (path, error) = &walked.unreadable[0];
        assert!(path.ends_with("d/d") && error.to_string().contains("16 folders deep"), "{error}");
        let many: Vec<String> = (0..30).map(|at| format!("{}/{at}.png", at % 3)).collect();
        let folder = tree(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let walked = walk_within(folder.path(), 20);
        assert!(walked.files.is_empty() && walked.unreadable[0].1.to_string().contains("more than 20"));
        assert_eq!(walked.unreadable[0].0, folder.path());
        assert!(walk_within(folder.path(), 34).unreadable.is_empty());
    }
}
