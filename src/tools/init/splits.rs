//! Which images are for training, validation and testing.

use std::collections::HashSet;

use crate::dataset::Split;
use crate::rng::{Rng, order_by_hash};

/// One image in this many is kept for validation where the set has no split of its own.
const VAL_EVERY: usize = 5;

/// Names of the folders and lists of splits.
pub(super) const SPLITS: [(Split, &[&str]); 3] = [
    (Split::Train, &["train", "training", "train2017", "trainset"]),
    (Split::Val, &["val", "valid", "validation", "val2017", "valset"]),
    (Split::Test, &["test", "testing", "test2017", "testset"]),
];

/// Most names for training and the rest for validation, by a hash: the same names are split alike, wherever and
/// whenever.
pub(super) fn split_off_validation(stems: &[String]) -> (Vec<String>, Vec<String>) {
    let order = order_by_hash(stems, |stem| Rng::named(0, stem).next_u64());
    let count = (stems.len() / VAL_EVERY).max(1);
    let val: HashSet<&String> = order.into_iter().take(count).map(|at| &stems[at]).collect();
    let (val, train) = stems.iter().cloned().partition(|stem| val.contains(stem));
    (train, val)
}

/// Of a path whose first folder stands for a split: the split, that folder, and the path below it.
pub(super) fn in_split(path: &str) -> Option<(Split, &str, &str)> {
    let (folder, below) = path.split_once('/')?;
    Some((split_called(folder)?, folder, below))
}

/// The split that a folder's or file's name stands for.
pub(super) fn split_called(name: &str) -> Option<Split> {
    let name = name.to_ascii_lowercase();
    SPLITS.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(split, _)| *split)
}

/// The split that a name mentions between other words, as `instances_val2017` does.
pub(super) fn split_mentioned(name: &str) -> Option<Split> {
    name.split(|c: char| !c.is_alphanumeric()).rev().find_map(split_called)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_depends_on_names_alone() {
        let stems: Vec<String> = (0..50).map(|i| format!("image_{i:02}")).collect();
        let (train, val) = split_off_validation(&stems);
        assert_eq!((train.len(), val.len()), (40, 10));
        assert!(train.iter().all(|stem| !val.contains(stem)));
        let mut reversed = stems.clone();
        reversed.reverse();
        let again = split_off_validation(&reversed).1;
        assert!(again.len() == 10 && again.iter().all(|stem| val.contains(stem)));
        assert_eq!(split_off_validation(&stems[..2]).1.len(), 1);
    }

    #[test]
    fn splits_are_known_by_name() {
        assert_eq!((split_called("Valid"), split_called("images")), (Some(Split::Val), None));
        assert_eq!(split_mentioned("instances_train2017"), Some(Split::Train));
        assert_eq!(split_mentioned("annotations"), None);
    }
}
