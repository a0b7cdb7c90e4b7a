//! Faults that come one after the other: of some images each, or of the disk or store that all of them lie in.
//!
//! Whether one is of an image alone cannot be told from it. So what may be a fault of the place is held back until an
//! image after it is labelled, and then noted; and after many in a row the work ends, with none of them noted.

use crate::cli::manifest::Line;
use crate::error::{Blame, Error, ErrorKind, Result};

/// A line that is to be written.
pub(super) struct Settled {
    pub(super) line: Line,
    /// The line of the manifest that it replaces, from 1; none where it is added.
    pub(super) replaces: Option<u64>,
}

/// What is done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is noted against the image.
    Noted,
    /// It may concern all that follow.
    Held,
    /// It concerns all that follow.
    Ends,
}

/// Faults that may be of the place.
pub(super) struct Faults {
    /// So many in a row are too many; 0 is never.
    most: usize,
    held: Vec<Settled>,
    over: bool,
}

impl Faults {
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: Vec::new(), over: false }
    }

    /// The next fault ends the work.
    pub(super) fn is_over(&mut self) {
        self.over = true;
    }

    /// What `error` of an image means for those after it. `any`: an image has been labelled.
    pub(super) fn judge(&self, error: &Error, any: bool) -> Verdict {
        let unreachable = error.kind() == ErrorKind::Unreachable;
        match error.blame() {
            // The first shows that a setting is wrong; later ones may be of one bucket among others.
            _ if self.over || (unreachable && !any) => Verdict::Ends,
            Blame::FullDisk => Verdict::Ends,
            Blame::Place if self.most > 0 => Verdict::Held,
            Blame::Place | Blame::Item => Verdict::Noted,
        }
    }

    /// Holds a line back.
    ///
    /// # Errors
    /// Too many in a row.
    pub(super) fn hold(&mut self, settled: Settled) -> Result<()> {
        self.held.push(settled);
        if self.held.len() < self.most {
            return Ok(());
        }
        let count = self.held.len();
        self.held.clear();
        Err(Error::new(format!("{count} images in a row failed by what may be the fault of a disk or a store"))
            .with_hint(
                "none of them is noted as failed: mend what the errors above say, and repeat the command, which \
                 continues there; --give-up-after 0 notes such images and goes on",
            ))
    }

    /// The lines that are held back, which are then no longer.
    pub(super) fn held(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_place_are_told_from_those_of_an_image() {
        let of = |kind: ErrorKind| Error::new("no").with_kind(kind);
        let full = || Error::file("write", "a".as_ref(), std::io::Error::from(std::io::ErrorKind::StorageFull));
        let mut faults = Faults::new(20);
        for (error, any, expected) in [
            (of(ErrorKind::NotFound), false, Verdict::Noted),
            (of(ErrorKind::Store), false, Verdict::Held),
            (of(ErrorKind::Unreachable), false, Verdict::Ends),
            (of(ErrorKind::Unreachable), true, Verdict::Held),
            (full(), true, Verdict::Ends),
        ] {
            assert_eq!(faults.judge(&error, any), expected, "{error}: {any}");
        }
        faults.is_over();
        assert_eq!(faults.judge(&of(ErrorKind::Unreachable), true), Verdict::Ends);
        assert_eq!(Faults::new(0).judge(&of(ErrorKind::Store), true), Verdict::Noted);
    }
}
