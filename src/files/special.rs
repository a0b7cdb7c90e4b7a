//! Places that are written to although they are not files, as `/dev/stdout` and `/dev/null`: a file that is made beside
//! and renamed would take their place.

use std::fs::File;
use std::io;
use std::path::Path;

/// The device or pipe at `path`, open for writing; none where a file is or may be.
///
/// # Errors
/// A disk, a socket, a pipe that nobody reads, or what may not be opened.
#[cfg(unix)]
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    let Ok(found) = path.metadata() else { return Ok(None) };
    let kind = found.file_type();
    // Of a redirected output `/dev/stdout` is a link to a file.
    let link = path.is_symlink() && path.parent().is_some_and(|folder| folder == Path::new("/dev"));
    if kind.is_dir() || (kind.is_file() && !link) {
        return Ok(None);
    }
    if kind.is_block_device() || kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a disk or a socket, not a file"));
    }
    // Without a reader a pipe would be waited for without end.
    let file = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| {
        let unread = kind.is_fifo() && error.raw_os_error() == Some(libc::ENXIO);
        if unread { io::Error::new(io::ErrorKind::BrokenPipe, "nothing reads this pipe") } else { error }
    })?;
    // SAFETY: sets a flag of a descriptor that is open.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(Some(file))
}

/// Elsewhere such places have no paths.
#[cfg(not(unix))]
pub(super) fn open(_: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::process::Command;

    use crate::files::write;

    #[test]
    fn devices_and_pipes_keep_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let [null, full, pipe] = ["null", "full", "pipe"].map(|name| folder.path().join(name));
        symlink("/dev/null", &null).unwrap();
        write(&null, b"new").unwrap();
        assert!(null.is_symlink() && null.metadata().unwrap().file_type().is_char_device());
        if symlink("/dev/full", &full).is_ok() && full.exists() {
            assert!(write(&full, b"new").unwrap_err().hint().unwrap().contains("full"));
        }
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = write(&pipe, b"new").unwrap_err();
        assert!(error.to_string().contains("nothing reads this pipe") && error.hint().is_some(), "{error}");
        let copy = folder.path().join("copy");
        let mut reader = Command::new("cat").arg(&pipe).stdout(File::create(&copy).unwrap()).spawn().unwrap();
        let bytes = vec![7; 1 << 20];
        while write(&pipe, &bytes).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        reader.wait().unwrap();
        assert!(std::fs::read(&copy).unwrap() == bytes && pipe.metadata().unwrap().file_type().is_fifo());
    }
}
