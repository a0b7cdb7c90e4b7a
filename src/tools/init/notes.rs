//! Notes about what is left out, counted and named.

use std::collections::BTreeMap;

/// How many of one kind are named.
const NAMED: usize = 3;

/// Things that were left out or read in another way than they are written, by why.
#[derive(Debug, Default)]
pub(super) struct Notes {
    by_kind: BTreeMap<String, (usize, Vec<String>)>,
}

impl Notes {
    /// One more of what `kind` says in the plural, for instance `polygons of fewer than 3 corners were left out`.
    pub(super) fn add(&mut self, kind: impl Into<String>, which: impl Into<String>) {
        self.add_many(kind, 1, which);
    }

    /// Several at once, of which one is named.
    pub(super) fn add_many(&mut self, kind: impl Into<String>, count: usize, which: impl Into<String>) {
        if count == 0 {
            return;
        }
        let (sum, named) = self.by_kind.entry(kind.into()).or_default();
        *sum += count;
        if named.len() < NAMED {
            named.push(which.into());
        }
    }

    /// One line a kind.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |(kind, (count, named)): (&String, &(usize, Vec<String>))| {
            let more = if *count > named.len() { "; and others" } else { "" };
            format!("{kind} ({count}): {}{more}", named.join("; "))
        };
        self.by_kind.iter().map(line).collect()
    }
}
