//! What may be asked of an object in a store, and what it answers, also in a build that leaves stores out.

/// What was got of an object.
#[cfg_attr(not(feature = "object-store"), allow(dead_code))]
pub(crate) enum Fetched {
    /// All of its bytes.
    Whole(Vec<u8>),
    /// Nothing, as it is larger than what was to be got at once.
    Large,
}

/// What becomes of an object that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    /// It stays.
    Never,
    /// It stays if it carries no note, and also if its note starts as the new one does up to the first space.
    Noted,
    /// It is replaced.
    Always,
}

/// How an object was put.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "object-store"), allow(dead_code))]
pub(crate) enum Put {
    /// It is there now.
    Done,
    /// It was there before, with this note, and stays.
    Kept(Option<String>),
}
