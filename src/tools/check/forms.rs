//! Forms in JSON that the facts of a pair have: what has none of its own, and codes that are known.

use std::collections::BTreeMap;

use image::metadata::Orientation;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name for programs, of those that this program knows.
pub(crate) type Code = &'static str;

/// The codes of files that are at fault themselves.
const CODES: [Code; 11] = [
    "unreadable-file",
    "join-failed",
    "empty-file",
    "lfs-pointer",
    "jpeg-mask",
    "too-large",
    "deep-colours",
    "other-format",
    "several-pages",
    "damaged-file",
    "not-an-image",
];

/// The code of a broken file.
pub(super) fn known_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
    let code = String::deserialize(deserializer)?;
    CODES.into_iter().find(|known| *known == code).ok_or_else(|| D::Error::custom(format!("unknown code `{code}`")))
}

/// That there is a palette is what the check asks.
pub(super) fn no_entries<S: Serializer>(palette: &Option<Vec<[u8; 3]>>, serializer: S) -> Result<S::Ok, S::Error> {
    palette.as_ref().map(|_| [[0u8; 3]; 0]).serialize(serializer)
}

/// Rotations, as EXIF numbers them.
pub(super) mod as_exif {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(value: &Orientation, serializer: S) -> Result<S::Ok, S::Error> {
        value.to_exif().serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Orientation, D::Error> {
        Orientation::from_exif(u8::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no such rotation"))
    }
}

/// Maps whose keys are no texts.
pub(super) mod as_pairs {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer, K: Serialize, V: Serialize>(
        values: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values)
    }

    pub(in super::super) fn deserialize<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        D: Deserializer<'de>,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
    {
        Vec::deserialize(deserializer).map(|values| values.into_iter().collect())
    }
}

/// As [`as_pairs`].
pub(super) mod as_pairs_if_any {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer, K: Serialize, V: Serialize>(
        values: &Option<BTreeMap<K, V>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        values.as_ref().map(|values| values.iter().collect::<Vec<_>>()).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D, K, V>(deserializer: D) -> Result<Option<BTreeMap<K, V>>, D::Error>
    where
        D: Deserializer<'de>,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
    {
        let values: Option<Vec<(K, V)>> = Option::deserialize(deserializer)?;
        Ok(values.map(|values| values.into_iter().collect()))
    }
}
