//! Things that change places: all of them, or none.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::remedy;

/// New files and folders that take the places of old ones, one after the other; the old ones are kept where the new
/// ones were. Dropped without [`Exchange::keep`], all come back.
#[derive(Default)]
pub(crate) struct Exchange {
    done: Vec<Change>,
}

enum Change {
    /// What is at the first was at the second, and the other way round.
    Swapped(PathBuf, PathBuf),
    /// What is at the second was at the first.
    Moved(PathBuf, PathBuf),
}

impl Exchange {
    /// Puts `new` at `place`, and what is there at `new`; in one step where the system can.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub(crate) fn place(&mut self, new: &Path, place: &Path) -> Result<()> {
        let (from, to) = (new.to_path_buf(), place.to_path_buf());
        if place.symlink_metadata().is_ok() {
            swap(new, place).map_err(|error| refused(place, error))?;
            self.done.push(Change::Swapped(from, to));
        } else {
            std::fs::rename(new, place).map_err(|error| refused(place, error))?;
            self.done.push(Change::Moved(from, to));
        }
        Ok(())
    }

    /// Puts what is at `place` away, at `away`.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub(crate) fn remove(&mut self, place: &Path, away: &Path) -> Result<()> {
        std::fs::rename(place, away).map_err(|error| refused(place, error))?;
        self.done.push(Change::Moved(place.to_path_buf(), away.to_path_buf()));
        Ok(())
    }

    /// All are where they should be.
    pub(crate) fn keep(&mut self) {
        self.done.clear();
    }

    /// Everything goes back, as far as it can: the failure that led here is the one to tell.
    pub(crate) fn undo(&mut self) {
        while let Some(step) = self.done.pop() {
            match step {
                Change::Swapped(new, place) => swap(&place, &new).ok(),
                Change::Moved(from, to) => std::fs::rename(to, from).ok(),
            };
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.undo();
    }
}

fn refused(place: &Path, error: io::Error) -> Error {
    let hint = remedy(&error);
    Error::file("write", place, error).with_hint(hint)
}

fn swap(new: &Path, place: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match swap_at_once(new, place) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)) => {}
        done => return done,
    }
    let mut between = new.to_path_buf().into_os_string();
    between.push("-old");
    std::fs::rename(place, &between)?;
    if let Err(error) = std::fs::rename(new, place) {
        return back(&between, place, error);
    }
    if let Err(error) = std::fs::rename(&between, new) {
        std::fs::rename(place, new)?;
        return back(&between, place, error);
    }
    Ok(())
}

/// Puts what waits at `between` back, and fails with what led here. Where that cannot be, it says where it is.
fn back(between: &OsStr, place: &Path, error: io::Error) -> io::Result<()> {
    std::fs::rename(between, place)
        .map_err(|_| io::Error::new(error.kind(), format!("{error}; what was there is now `{}`", between.display())))?;
    Err(error)
}

/// Not every file system can.
#[cfg(target_os = "linux")]
fn swap_at_once(a: &Path, b: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let [a, b] = [a, b].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (a, b) = (a?, b?);
    // SAFETY: both are strings that end, and live as long as the call.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Flushes what was written to the disk of `folder`, as far as the system can; many small files at once.
pub(crate) fn sync_disk(folder: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(folder) = std::fs::File::open(folder) {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open.
        unsafe { libc::syncfs(folder.as_raw_fd()) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = folder;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_change_places_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let read = |name: &str| std::fs::read_to_string(at(name)).ok();
        let begin = || {
            for name in ["a", "new-a", "new-b", "c"] {
                std::fs::write(at(name), name).unwrap();
            }
        };
        for keep in [false, true] {
            begin();
            let mut exchange = Exchange::default();
            exchange.place(&at("new-a"), &at("a")).unwrap();
            exchange.place(&at("new-b"), &at("b")).unwrap();
            exchange.remove(&at("c"), &at("old-c")).unwrap();
            assert!(exchange.place(&at("none"), &at("d")).is_err());
            assert_eq!(
                (read("a").unwrap(), read("new-a").unwrap(), read("b").unwrap(), read("c")),
                ("new-a".into(), "a".into(), "new-b".into(), None)
            );
            if keep {
                exchange.keep();
            }
            drop(exchange);
            let [a, b, c] = ["a", "b", "c"].map(read);
            assert_eq!(a.as_deref(), Some(if keep { "new-a" } else { "a" }));
            assert_eq!((b.is_some(), c.is_some()), (keep, !keep));
        }
    }

    #[test]
    fn folders_swap_as_files_do() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        for path in [&a, &b] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join(path.file_name().unwrap()), "").unwrap();
        }
        swap(&a, &b).unwrap();
        assert!(a.join("b").exists() && b.join("a").exists());
        assert!(swap(&folder.path().join("none"), &b).is_err() && b.join("a").exists());
    }
}
