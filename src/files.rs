//! Files are written beside their place and renamed, so a reader never sees half of one.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

mod read;

pub use read::{ANNOTATIONS, PICTURE, RECORD, TEXT, UNLIMITED, open, read, read_text};

/// A folder that belongs to one process at a time, by a lock on the file `.lock` in it.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lasts as long as its file is open")] File);

impl Lock {
    /// Locks `folder`, which is made if need be.
    ///
    /// # Errors
    /// Another process has it, or it cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(".lock");
        let open = || {
            std::fs::create_dir_all(folder)?;
            File::options().create(true).append(true).open(&path)
        };
        let file = open().map_err(|error| {
            Error::file("write", &path, error).hint("name a folder you may read and write with --out")
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(format!("`{}` is in use by another process", folder.display()))
                    .hint("wait until it is done, or take another folder with --out"))
            }
            // A file system without locks is no reason not to work.
            Err(TryLockError::Error(_)) => Ok(Self(file)),
        }
    }
}

/// Writes `bytes` to `path`: whole, or not at all. Folders on the way are made.
///
/// # Errors
///
/// As [`write_with`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// Lets `write` fill a file beside `path`, flushes it to the disk and renames it to `path`. Folders on the way are made.
///
/// # Errors
///
/// If the file cannot be written; the old one is then untouched, and nothing is left beside it.
pub fn write_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::new(format!("cannot write `{}`: it names no file", path.display())).hint("add a file name"));
    };
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".tmp");
    let beside = Beside { path: path.with_file_name(beside), placed: false };
    let attempt = |mut beside: Beside| {
        std::fs::create_dir_all(folder(path))?;
        let mut file = File::create(&beside.path)?;
        write(&mut file)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&beside.path, path)?;
        beside.placed = true;
        sync_folder(path)
    };
    attempt(beside).map_err(|cause| {
        let hint = match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "the disk is full: make room, or write elsewhere"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "the folder cannot be written: choose another"
            }
            io::ErrorKind::IsADirectory => "a folder has this name: choose another",
            _ => "choose another place to write",
        };
        Error::file("write", path, cause).hint(hint)
    })
}

/// The unfinished file, removed on the way out unless it took its place; also when a tensor's readback panics.
struct Beside {
    path: PathBuf,
    placed: bool,
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
        assert!(error.to_string().contains("model.safetensors") && error.remedy().unwrap().contains("full"), "{error}");
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), entries(folder.path()).len()), (&b"old"[..], 1));
        let unwound = std::panic::catch_unwind(|| write_with(&path, |_| panic!("a device is lost")));
        assert!(unwound.is_err());
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), entries(folder.path()).len()), (&b"old"[..], 1));
    }

    #[test]
    fn folders_on_the_way_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.txt");
        write(&path, b"new").unwrap();
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), entries(path.parent().unwrap()).len()), (&b"new"[..], 1));
    }
}
