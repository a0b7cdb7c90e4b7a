//! The cost of a part of a network.

use serde::Serialize;

/// Multiply-accumulates of a part of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// For instance `backbone.qkv`.
    pub part: &'static str,
    /// Multiply-accumulates of one image.
    pub macs: u64,
}

impl Cost {
    /// `macs` multiply-accumulates in `part`.
    pub fn new(part: &'static str, macs: usize) -> Self {
        Self { part, macs: macs as u64 }
    }
}
