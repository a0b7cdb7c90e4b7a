//! What went wrong, where, and what to do about it.
//!
//! Every fallible function of the crate returns [`Result`]. An [`Error`] carries one sentence that names the file or the
//! key, the causes below it, and where there is a remedy, a hint. The binary prints them as
//!
//! ```text
//! error: cannot read `masks/0001.png`: 3 pixels hold the id 17, which the dataset does not map
//!
//! hint: add `17 = "ignore"` under [labels.map] of `dataset.toml`, or name the class it stands for
//! ```

use std::fmt;
use std::io;
use std::path::Path;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One failure: a sentence, its cause and a remedy.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure described by one sentence, without a full stop, literals in backticks.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, source: None }
    }

    /// A failure of reading, writing or understanding the file at `path`: ``cannot VERB `path```.
    pub fn file(verb: &str, path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(format!("cannot {verb} `{}`", path.display())).source(source)
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the lower-level cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The remedy, if one is known: its own, or that of the error which caused it.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| {
            let cause: &(dyn std::error::Error + 'static) = self.source.as_deref()?;
            match cause.downcast_ref::<io::Error>() {
                Some(cause) => scarce(cause),
                None => cause.downcast_ref::<Error>()?.remedy(),
            }
        })
    }
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

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_the_causes_and_finds_the_deepest_hint() {
        let cause = Error::new("`a.png` is cut short").hint("copy it again");
        let error = Error::file("read", Path::new("set.toml"), cause);
        assert_eq!(error.to_string(), "cannot read `set.toml`: `a.png` is cut short");
        assert_eq!(error.remedy(), Some("copy it again"));
    }

    #[cfg(unix)]
    #[test]
    fn what_the_system_has_too_little_of_has_a_remedy() {
        let failed = |code| Error::file("read", Path::new("a"), io::Error::from_raw_os_error(code));
        assert!(failed(libc::EMFILE).remedy().unwrap().contains("ulimit -n"));
        assert!(Error::new("no").source(failed(libc::ENOMEM)).remedy().unwrap().contains("ulimit -v"));
        assert_eq!(failed(libc::EIO).remedy(), None);
    }
}
