//! A fingerprint of a run's data: enough to tell whether it is still the same.

use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Split};

/// A split of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Which.
    pub split: String,
    /// Images in it.
    pub images: usize,
    /// CRC-32 over the images' names and, for sets of files, the pixels of every class in all masks.
    pub crc32: String,
    /// CRC-32C over names and checksums of all images and masks, for sets of files; of early versions unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl Fingerprint {
    /// Of the images called `names`, with these pixels of each class.
    pub fn new(split: impl ToString, names: impl Iterator<Item = String>, pixels: Option<&[u64]>) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        let mut images = 0;
        for name in names {
            hasher.update(name.as_bytes());
            hasher.update(b"\n");
            images += 1;
        }
        pixels.unwrap_or_default().iter().for_each(|count| hasher.update(&count.to_le_bytes()));
        Self { split: split.to_string(), images, crc32: format!("{:08x}", hasher.finalize()), content: None }
    }

    /// Of a split as it is now; `pixels` are those of each class in all masks, where they were counted.
    pub(super) fn of(split: Split, dataset: &dyn Dataset, pixels: Option<&[u64]>) -> Self {
        Self::new(split, (0..dataset.len()).map(|index| dataset.name(index)), pixels)
    }

    /// The same, with the checksum of all files.
    #[must_use]
    pub fn with_content(self, content: Option<String>) -> Self {
        Self { content, ..self }
    }
}

/// The data of a run, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Data {
    /// The dataset's description: what means which class, and where files lie.
    pub(super) description: serde_json::Value,
    /// Its splits.
    pub(super) splits: Vec<Fingerprint>,
}

impl Data {
    /// Whether the files of a split are known by their bytes.
    pub(super) fn knows(&self, split: Split) -> bool {
        self.splits.iter().any(|one| one.split == split.to_string() && one.content.is_some())
    }

    /// The same splits as found now: those known by their bytes as they were noted at first.
    pub(super) fn completed(self, now: Vec<Fingerprint>) -> Vec<Fingerprint> {
        let known = |one: &Fingerprint| {
            self.splits.iter().find(|other| other.split == one.split && other.content.is_some()).cloned()
        };
        now.into_iter().map(|one| known(&one).unwrap_or(one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_names_and_labels() {
        let of = |names: &[&str], pixels: Option<&[u64]>| {
            Fingerprint::new("train", names.iter().map(|name| (*name).to_owned()), pixels)
        };
        assert_eq!(of(&["a", "b"], None).images, 2);
        assert_eq!(of(&["a", "b"], Some(&[1, 2])), of(&["a", "b"], Some(&[1, 2])));
        for other in [of(&["ab"], Some(&[1, 2])), of(&["b", "a"], Some(&[1, 2])), of(&["a", "b"], Some(&[2, 1]))] {
            assert_ne!(of(&["a", "b"], Some(&[1, 2])).crc32, other.crc32);
        }
    }
}
