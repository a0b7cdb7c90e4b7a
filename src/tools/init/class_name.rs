//! A class name as a file of names states it.

use crate::dataset::spec::Source;

/// A name, and the value it stands for if the file says so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ClassName {
    pub(super) name: String,
    pub(super) value: Option<Source>,
    /// The colour it is shown in, where the file says a number too.
    pub(super) color: Option<[u8; 3]>,
}
