//! Files written beside their place and renamed, so that a reader never sees half of one; locks of folders.

pub(crate) mod checksum;
mod exchange;
mod object_answers;
#[cfg(feature = "object-store")]
mod object_errors;
#[cfg(feature = "object-store")]
mod object_settings;
#[cfg(feature = "object-store")]
pub(crate) mod objects;
#[cfg(not(feature = "object-store"))]
#[path = "files/no_objects.rs"]
pub(crate) mod objects;
mod scratch;
mod special;
pub(crate) mod urls;

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use exchange::{Exchange, sync_disk};
pub use scratch::Scratch;
pub(crate) use scratch::sweep;

use crate::error::{Error, Result, scarce};

mod json;
mod read;

pub(crate) use json::parse_json;
pub use read::{ANNOTATIONS, PICTURE, RECIPE, RECORD, TEXT, UNLIMITED, open, read, read_text};

/// The file in a folder that says who works there.
const LOCK: &str = ".lock";

/// A folder that belongs to one process at a time, by a lock on the file `.lock` in it.
#[derive(Debug)]
pub struct Lock {
    /// The lock lasts as long as it is open.
    file: File,
    /// The file, where it goes with the lock.
    passing: Option<PathBuf>,
}

impl Lock {
    /// Locks `folder`, which is made if need be.
    ///
    /// # Errors
    /// Another process has it, or it cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        Self::named(folder, LOCK)
    }

    /// Locks a part of the work in `folder`, which is called `name`.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn named(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let open = || {
            std::fs::create_dir_all(folder)?;
            File::options().create(true).append(true).open(&path)
        };
        let file = open().map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "choose a folder that you may read and write with --out",
                _ => remedy(&error),
            };
            Error::file("write", &path, error).with_hint(hint)
        })?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(format!("`{}` is in use by another process", folder.display()))
                    .with_hint("wait until it is done, or choose another folder with --out"))
            }
            // A file system without locks is no reason not to work.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self { file, passing: None }),
        }
    }

    /// As [`Lock::named`], by a file that is gone when the work is.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub(crate) fn passing(folder: &Path, name: &str) -> Result<Self> {
        // Where files have no lasting numbers, one try is as good as another.
        const TRIES: usize = 100;
        let path = folder.join(name);
        let mut lock = Self::named(folder, name)?;
        for _ in 0..TRIES {
            // Whoever had it may have removed it after it was opened here: such a lock is none.
            if is_at(&lock.file, &path) {
                lock.passing = Some(path);
                break;
            }
            lock = Self::named(folder, name)?;
        }
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked. What cannot be removed stays, and harms nobody.
        if let Some(path) = &self.passing {
            std::fs::remove_file(path).ok();
        }
    }
}

/// Whether an open file is the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let [here, there] = [file.metadata(), path.metadata()].map(|data| data.map(|data| (data.dev(), data.ino())).ok());
    here.is_some() && here == there
}

/// Elsewhere an open file keeps its name.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Writes `bytes` to `path`: whole, or not at all. Folders on the way are made.
///
/// # Errors
///
/// The file, or its folder, cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Lets `write` fill a file beside `path`, flushes it to the disk and renames it to `path`. Folders on the way are
/// made. Of several processes that write `path` at once, the last one wins, whole. A device or a pipe, as `/dev/stdout`
/// may be, is written to as it is.
///
/// # Errors
///
/// If the file cannot be written; the old one is then untouched, and nothing is left beside it.
pub(crate) fn write_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(
            Error::new(format!("cannot write `{}`: it has no file name", path.display())).with_hint("add a file name")
        );
    };
    let attempt = || {
        std::fs::create_dir_all(folder(path))?;
        // What the rename would refuse is reported before the work.
        match path.symlink_metadata() {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return Err(error),
            _ => {}
        }
        if let Some(mut place) = special::open(path)? {
            return write(&mut place);
        }
        scratch::sweep_at_times(folder(path));
        let (mut file, mut beside) = Beside::open(path, name)?;
        write(&mut file)?;
        file.sync_all()?;
        // Windows renames no open file; elsewhere the lock may last until the file has its name.
        if cfg!(windows) {
            drop(file);
        }
        std::fs::rename(&beside.path, path)?;
        beside.placed = true;
        sync_folder(path)
    };
    attempt().map_err(|cause| {
        let hint = remedy(&cause);
        Error::file("write", path, cause).with_hint(hint)
    })
}

/// Fails as writing `path` would, where that can be told before: so that nothing is computed in vain. Nothing is left
/// behind.
///
/// # Errors
/// A place that may not be written, or where a folder is.
pub fn ensure_writable(path: &Path) -> Result<()> {
    let attempt = || {
        match path.symlink_metadata() {
            Ok(_) if path.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // A device or a pipe stays what it is.
            Ok(_) if path.exists() && !path.is_file() => return Ok(()),
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound) => return Err(error),
            _ => {}
        }
        // Folders that are not there yet will be made in the first that is.
        let mut place = folder(path);
        while place.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            place = folder(place);
        }
        if !place.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Beside::open(&place.join("writable"), OsStr::new("writable")).map(drop)
    };
    attempt().map_err(|cause| {
        let hint = remedy(&cause);
        Error::file("write", path, cause).with_hint(hint)
    })
}

/// What to do about a failure to write a file or folder.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full: make room, or write elsewhere",
        io::ErrorKind::QuotaExceeded => "your quota on this disk is used up: make room, or write elsewhere",
        io::ErrorKind::FileTooLarge => {
            "the disk or a limit (`ulimit -f`) does not allow a file this large: write \
                                        elsewhere"
        }
        io::ErrorKind::PermissionDenied => "you may not write there: choose a folder of your own",
        io::ErrorKind::ReadOnlyFilesystem => "this disk is read-only: choose another",
        io::ErrorKind::InvalidFilename => "shorten the name; most disks allow 255 bytes per part of a path",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a part of the path is a file where a folder should be: choose another path"
        }
        io::ErrorKind::IsADirectory => "a folder has this name: choose another",
        _ => scarce(error).unwrap_or("choose another place to write"),
    }
}

/// The unfinished file, removed on the way out unless it took its place; also when a tensor's readback panics.
struct Beside {
    path: PathBuf,
    placed: bool,
}

impl Beside {
    /// A new file beside `path`, under a name that no other process has. It is locked as long as it is open: what is
    /// not locked was left by a process that is gone.
    fn open(path: &Path, name: &OsStr) -> io::Result<(File, Self)> {
        loop {
            let beside = Self { path: path.with_file_name(scratch::name(&name.to_string_lossy())), placed: false };
            match File::options().write(true).create_new(true).open(&beside.path) {
                Ok(file) => {
                    // A file system without locks is no reason not to work.
                    let _ = file.try_lock();
                    return Ok((file, beside));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => std::mem::forget(beside),
                Err(error) => {
                    std::mem::forget(beside);
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.placed {
            // Where this fails too, the first failure is the one to tell.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Makes the rename itself last. Only Unix can open a folder for that.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(folder(path))?.sync_all()?;
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        assert!(Lock::take(folder.path()).unwrap_err().to_string().contains("in use"));
        drop(lock);
        Lock::take(folder.path()).unwrap();
        std::fs::remove_file(folder.path().join(LOCK)).unwrap();
        let lock = Lock::passing(folder.path(), "part").unwrap();
        assert!(Lock::passing(folder.path(), "part").unwrap_err().to_string().contains("in use"));
        drop(lock);
        assert!(entries(folder.path()).is_empty());
        drop(Lock::passing(folder.path(), "part").unwrap());
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, b"old").unwrap();
        let error = write_with(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        let error = error.unwrap_err();
        assert!(error.to_string().contains("model.safetensors") && error.hint().unwrap().contains("full"), "{error}");
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), entries(folder.path()).len()), (&b"old"[..], 1));
        let unwound = std::panic::catch_unwind(|| write_with(&path, |_| panic!("a device is lost")));
        assert!(unwound.is_err());
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), entries(folder.path()).len()), (&b"old"[..], 1));
    }

    #[test]
    fn of_writers_at_once_the_last_one_wins_whole() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["mask.png".to_owned(), "n".repeat(255), format!("{}g", "ü".repeat(127))] {
            let path = folder.path().join(&name);
            std::thread::scope(|scope| {
                for writer in 0..4u8 {
                    let path = &path;
                    scope.spawn(move || (0..20).for_each(|_| super::write(path, &[writer; 5000]).unwrap()));
                }
            });
            let found = std::fs::read(&path).unwrap();
            assert!(found.len() == 5000 && found.iter().all(|byte| *byte == found[0]));
            assert_eq!(entries(folder.path()), [name]);
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_written_is_told_before() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::write(place("file"), b"").unwrap();
        std::fs::create_dir(place("folder")).unwrap();
        for good in ["new", "file", "a/b/new", "folder/new", "folder/a/new"] {
            ensure_writable(&place(good)).unwrap();
        }
        let long = "n".repeat(256);
        for bad in ["folder", "file/new", "file/a/new", &*long, &*format!("{long}/new")] {
            let message_and_hint = |error: Error| (error.to_string(), error.hint().map(str::to_owned));
            let (before, after) = (ensure_writable(&place(bad)).unwrap_err(), write(&place(bad), b"").unwrap_err());
            assert_eq!(message_and_hint(before).1, message_and_hint(after).1, "{bad}");
        }
        assert_eq!(entries(folder.path()), ["file", "folder"]);
        assert!(entries(&place("folder")).is_empty());
        #[cfg(unix)]
        ensure_writable(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn a_failure_names_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"").unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let long = "n".repeat(256);
        for (name, remedy) in [
            (&*long, "shorten the name"),
            (&*format!("{long}/mask.png"), "shorten the name"),
            ("file/mask.png", "a file where a folder should be"),
            ("folder", "a folder has this name"),
        ] {
            let error = write(&folder.path().join(name), b"new").unwrap_err();
            assert!(error.hint().unwrap().contains(remedy), "{name}: {error}: {:?}", error.hint());
        }
        for (kind, remedy) in [
            (io::ErrorKind::QuotaExceeded, "quota"),
            (io::ErrorKind::ReadOnlyFilesystem, "read-only"),
            (io::ErrorKind::PermissionDenied, "of your own"),
            (io::ErrorKind::FileTooLarge, "ulimit -f"),
        ] {
            let error = write_with(&folder.path().join("a"), |_| Err(kind.into())).unwrap_err();
            assert!(error.hint().unwrap().contains(remedy), "{error}: {:?}", error.hint());
        }
        assert_eq!(entries(folder.path()), ["file", "folder"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_as_the_system_has_them_for_new_files() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| folder.path().join(name));
        write(&ours, b"new").unwrap();
        std::fs::write(&plain, b"new").unwrap();
        let [ours, plain] = [ours, plain].map(|path| path.metadata().unwrap().permissions().mode());
        assert_eq!(ours, plain);
    }

    #[test]
    fn folders_on_the_way_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.txt");
        write(&path, b"new").unwrap();
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), entries(path.parent().unwrap()).len()), (&b"new"[..], 1));
    }
}
