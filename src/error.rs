//! Errors: what went wrong, where, and what to do about it.
//!
//! Every fallible function of the crate returns [`Result`]. An [`Error`] carries one sentence that names the file or
//! the key, the causes below it, and where there is a remedy, a hint. The binary prints them as
//!
//! ```text
//! error: cannot read `masks/0001.png`: 3 pixels hold the id 17, which the dataset does not map
//!
//! hint: add 17 to `ignore`, or to the `source` of a class
//! ```

use std::fmt;
use std::io;
use std::path::Path;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is, where a program may do something else about one than about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or folder that is named and not there.
    NotFound,
    /// The system failed to read, write or start something.
    Io,
    /// There is too little memory.
    Memory,
    /// A store of objects that cannot be reached or gives no access: none of its objects can be had.
    Unreachable,
    /// A store of objects refused a request or failed to answer it, for which the object or the store may be to blame.
    Store,
    /// More pixels than are read.
    TooLarge,
    /// A file of a form that is known, and not read.
    Unsupported,
    /// A file of several pictures, of which one is wanted.
    SeveralPictures,
    /// A mask whose colours have more than 8 bits.
    DeepColors,
    /// A command line whose options do not fit together.
    Usage,
    /// Anything else: data, weights or settings that cannot be used as they are.
    Other,
}

/// One failure: a sentence, its cause and a remedy.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    kind: Option<ErrorKind>,
    path: Option<Box<Path>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure described by one sentence, without a full stop, literals in backticks.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind: None, path: None, source: None }
    }

    /// A command line that cannot be meant as it is.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(message).with_kind(ErrorKind::Usage)
    }

    /// A failure of reading, writing or understanding the file at `path`: ``cannot VERB `path```.
    pub fn file(verb: &str, path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error = Self::new(format!("cannot {verb} `{}`", path.display())).with_source(source);
        Self { path: Some(path.into()), ..error }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says of what kind it is.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Says that what is named and not there is `path`.
    #[must_use]
    pub fn with_missing(mut self, path: &Path) -> Self {
        (self.kind, self.path) = (Some(ErrorKind::NotFound), Some(path.into()));
        self
    }

    /// Adds the lower-level cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is: as it says, or as the error which caused it does.
    pub fn kind(&self) -> ErrorKind {
        self.kind.unwrap_or_else(|| match self.cause() {
            Some(Cause::Error(error)) => error.kind(),
            Some(Cause::Io(error)) => match error.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::OutOfMemory => ErrorKind::Memory,
                _ => ErrorKind::Io,
            },
            None => ErrorKind::Other,
        })
    }

    /// Whose fault it probably is: that of what was read or written, or that of the place where it lies.
    pub(crate) fn blame(&self) -> Blame {
        match self.kind() {
            ErrorKind::Unreachable | ErrorKind::Store => return Blame::Place,
            ErrorKind::Io => {}
            _ => return Blame::Item,
        }
        match self.io_kind() {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem) => {
                Blame::FullDisk
            }
            // What the file itself is, or is called.
            Some(
                io::ErrorKind::InvalidData
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidFilename
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::AlreadyExists
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::Unsupported
                | io::ErrorKind::Other,
            )
            | None => Blame::Item,
            Some(_) => Blame::Place,
        }
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        match self.cause()? {
            Cause::Error(error) => error.io_kind(),
            Cause::Io(error) => Some(error.kind()),
        }
    }

    /// What the user can do about it, if that is known: its own hint, or that of the error which caused it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| match self.cause()? {
            Cause::Error(error) => error.hint(),
            Cause::Io(error) => scarce(error),
        })
    }

    /// The file or folder that it is about, where that is known: of several the one nearest to the cause.
    pub fn path(&self) -> Option<&Path> {
        let inner = match self.cause() {
            Some(Cause::Error(error)) => error.path(),
            _ => None,
        };
        inner.or(self.path.as_deref())
    }

    fn cause(&self) -> Option<Cause<'_>> {
        let cause: &(dyn std::error::Error + 'static) = self.source.as_deref()?;
        match cause.downcast_ref::<io::Error>() {
            Some(error) => Some(Cause::Io(error)),
            None => cause.downcast_ref::<Error>().map(Cause::Error),
        }
    }
}

/// Whose fault an error probably is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// That of one file or object.
    Item,
    /// That of a disk, a store or the way there: others that lie there will probably fail as well.
    Place,
    /// That of a disk on which nothing more can be written.
    FullDisk,
}

/// A cause of which more is known.
enum Cause<'a> {
    Error(&'a Error),
    Io(&'a io::Error),
}

/// What helps where the system gives this process no more of something, whatever that was wanted for.
pub(crate) fn scarce(error: &io::Error) -> Option<&'static str> {
    #[cfg(unix)]
    match error.raw_os_error()? {
        libc::EMFILE => return Some("allow this process more open files, for instance by `ulimit -n 1024`"),
        libc::ENFILE => return Some("this machine cannot open more files: end other programs"),
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::OutOfMemory => Some("give this process more memory (`ulimit -v`), or end other programs"),
        _ => None,
    }
}

/// The sentence and its causes, joined by `: `.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

/// The cause is part of what is displayed; it is here for those who look for its type.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_the_causes_and_finds_the_deepest_hint() {
        let cause = Error::new("`a.png` is cut short").with_hint("copy it again");
        let error = Error::file("read", Path::new("set.toml"), cause);
        assert_eq!(error.to_string(), "cannot read `set.toml`: `a.png` is cut short");
        assert_eq!(error.hint(), Some("copy it again"));
    }

    #[test]
    fn what_is_not_there_is_known_by_its_kind_and_path() {
        let nowhere = || io::Error::from(io::ErrorKind::NotFound);
        let inner = Error::file("read", Path::new("a.png"), nowhere());
        let error = Error::file("use", Path::new("set.toml"), inner);
        assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(Path::new("a.png"))));
        let error = Error::new("no").with_source(Error::new("there is no such file").with_missing(Path::new("b")));
        assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(Path::new("b"))));
        assert_eq!(Error::new("no").path(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_fault_of_a_disk_is_told_from_one_of_a_file() {
        let failed = |cause: io::Error| {
            let inner = Error::file("read", Path::new("a"), cause);
            Error::new("cannot predict").with_source(inner).blame()
        };
        for code in [libc::EIO, libc::EACCES, libc::ESTALE, libc::EMFILE, libc::ETIMEDOUT] {
            assert_eq!(failed(io::Error::from_raw_os_error(code)), Blame::Place, "{code}");
        }
        for code in [libc::ENOENT, libc::EISDIR, libc::ENOTDIR, libc::ENAMETOOLONG, libc::ENOMEM] {
            assert_eq!(failed(io::Error::from_raw_os_error(code)), Blame::Item, "{code}");
        }
        for code in [libc::ENOSPC, libc::EDQUOT, libc::EROFS] {
            assert_eq!(failed(io::Error::from_raw_os_error(code)), Blame::FullDisk, "{code}");
        }
        assert_eq!(failed(io::ErrorKind::UnexpectedEof.into()), Blame::Item);
        assert_eq!(Error::new("no").blame(), Blame::Item);
        assert_eq!(Error::new("no").with_kind(ErrorKind::Store).blame(), Blame::Place);
    }

    #[cfg(unix)]
    #[test]
    fn what_the_system_has_too_little_of_has_a_remedy() {
        let failed = |code| Error::file("read", Path::new("a"), io::Error::from_raw_os_error(code));
        assert!(failed(libc::EMFILE).hint().unwrap().contains("ulimit -n"));
        assert!(Error::new("no").with_source(failed(libc::ENOMEM)).hint().unwrap().contains("ulimit -v"));
        assert_eq!(failed(libc::EIO).hint(), None);
    }
}
