//! From what a run was learned: every file of its data by a checksum, so that a run never goes on with other data unnoticed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::files;

/// The name of the list in a run's folder: an image per line.
const FILE: &str = "data.ndjson";
/// What stands in a split's place for the description of the data.
const DESCRIPTION: &str = "description";
/// Images whose files are read before progress is told.
const AT_ONCE: usize = 256;

/// A split and an image in it.
type Key = (String, String);

/// The data of a run: for every image of every split, in order, the CRC-32C of each of its files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Provenance {
    sums: BTreeMap<Key, Vec<String>>,
    order: Vec<Key>,
}

/// A line of the list.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    split: String,
    image: String,
    crc32c: Vec<String>,
}

impl Provenance {
    /// Adds what the description of the data says, other than where they lie.
    pub(super) fn describe(&mut self, label_map: &serde_json::Value) {
        let mut meaning = label_map.clone();
        if let Some(fields) = meaning.as_object_mut() {
            fields.retain(|name, _| !["name", "root"].contains(&&**name));
            for split in fields.values_mut().filter_map(|value| value.as_object_mut()) {
                split.retain(|name, _| !["images", "masks", "list"].contains(&&**name));
            }
        }
        let sum = format!("{:08x}", crc32c::crc32c(meaning.to_string().as_bytes()));
        self.push((DESCRIPTION.to_owned(), "classes and label map".to_owned()), vec![sum]);
    }

    fn push(&mut self, key: Key, sums: Vec<String>) {
        self.sums.insert(key.clone(), sums);
        self.order.push(key);
    }

    /// Reads all files of a split.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn add(&mut self, split: Split, dataset: &dyn Dataset, note: &mut dyn FnMut(&str)) -> Result<()> {
        let sums =
            |index: usize| -> Result<Vec<String>> { dataset.files(index).iter().map(|path| checksum(path)).collect() };
        let indices: Vec<usize> = (0..dataset.len()).collect();
        let mut told = std::time::Instant::now();
        for part in indices.chunks(AT_ONCE) {
            let found: Vec<Result<Vec<String>>> = part.par_iter().map(|index| sums(*index)).collect();
            for (index, sums) in part.iter().zip(found) {
                self.push((split.to_string(), dataset.name(*index)), sums?);
            }
            if told.elapsed().as_secs() >= 10 {
                note(&format!(
                    "reading the files of [{split}]: {} of {}",
                    part.last().map_or(0, |last| last + 1),
                    dataset.len()
                ));
                told = std::time::Instant::now();
            }
        }
        Ok(())
    }

    /// Keeps the list in the folder of a run.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn write(&self, run: &Path) -> Result<()> {
        let path = run.join(FILE);
        let mut text = String::new();
        for key in &self.order {
            let line = Line { split: key.0.clone(), image: key.1.clone(), crc32c: self.sums[key].clone() };
            let line = serde_json::to_string(&line).map_err(|error| Error::file("write", &path, error))?;
            let _ = writeln!(text, "{line}");
        }
        files::write(&path, text.as_bytes())
    }

    /// The list in the folder of a run; none where there is none, as in runs of earlier versions.
    ///
    /// # Errors
    /// A list that cannot be read.
    pub(super) fn read(run: &Path) -> Result<Option<Self>> {
        let path = run.join(FILE);
        let text = match files::read_text(&path, files::RECORD) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| Error::file("read", &path, error))?,
        };
        let mut found = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                Error::new(format!("line {} of `{}` is damaged", number + 1, path.display()))
                    .source(error)
                    .hint("remove the file to go on without knowing whether the data are still the same")
            })?;
            found.push((line.split, line.image), line.crc32c);
        }
        Ok(Some(found))
    }

    /// What is not as it was, in words; empty if nothing is.
    pub(super) fn changes(&self, before: &Self) -> Vec<String> {
        let mut kinds: [(&str, BTreeMap<&str, Vec<&str>>); 4] =
            ["new", "gone", "changed", "changed in their masks alone"].map(|kind| (kind, BTreeMap::new()));
        for (key, sums) in &self.sums {
            let kind = match before.sums.get(key) {
                None => 0,
                Some(earlier) if earlier == sums => continue,
                Some(earlier) if earlier.first() == sums.first() => 3,
                Some(_) => 2,
            };
            kinds[kind].1.entry(&key.0).or_default().push(&key.1);
        }
        for key in before.sums.keys().filter(|key| !self.sums.contains_key(*key)) {
            kinds[1].1.entry(&key.0).or_default().push(&key.1);
        }
        let mut words = Vec::new();
        for (kind, splits) in &kinds {
            for (split, images) in splits {
                let more = if images.len() > 3 { ", …" } else { "" };
                let first: Vec<&str> = images.iter().take(3).copied().collect();
                let plural = if images.len() == 1 { "image" } else { "images" };
                if *split == DESCRIPTION {
                    words.push("the description: other classes, or another label map".to_owned());
                    continue;
                }
                words.push(format!("[{split}]: {} {plural} {kind} ({}{more})", images.len(), first.join(", ")));
            }
        }
        if words.is_empty() && self.order != before.order {
            words.push("the images come in another order".to_owned());
        }
        words
    }
}

/// The CRC-32C of a file's bytes.
fn checksum(path: &Path) -> Result<String> {
    let failed = |error| Error::file("read", path, error);
    let mut file = files::open(path).map_err(failed)?;
    let (mut sum, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(format!("{sum:08x}")),
            n => sum = crc32c::crc32c_append(sum, &buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[(&str, &str, &[&str])]) -> Provenance {
        let sums = |sums: &[&str]| sums.iter().map(|sum| (*sum).to_owned()).collect();
        let mut list = Provenance::default();
        lines.iter().for_each(|(split, image, crc)| list.push(((*split).into(), (*image).into()), sums(crc)));
        list
    }

    #[test]
    fn changes_are_named_by_kind_and_split() {
        let before = list(&[("train", "a", &["1", "2"]), ("train", "b\n\t", &["3", "4"]), ("val", "c", &["5", "6"])]);
        let now = list(&[("train", "a", &["1", "9"]), ("train", "d", &["3", "4"]), ("val", "c", &["0", "6"])]);
        let words = now.changes(&before).join("; ");
        for said in ["[train]: 1 image new (d)", "gone (b", "[val]: 1 image changed (c)", "masks alone (a)"] {
            assert!(words.contains(said), "{words}");
        }
        assert!(before.changes(&before).is_empty());
        let mut turned = list(&[]);
        before.order.iter().rev().for_each(|key| turned.push(key.clone(), before.sums[key].clone()));
        assert_eq!(turned.changes(&before), ["the images come in another order"]);
        let (mut one, mut other) = (list(&[]), list(&[]));
        one.describe(
            &serde_json::json!({"root": "/a", "classes": ["x"], "train": {"images": "i", "mask_suffix": ".png"}}),
        );
        other.describe(
            &serde_json::json!({"root": "/b", "classes": ["x"], "train": {"images": "j", "mask_suffix": ".png"}}),
        );
        assert!(one.changes(&other).is_empty(), "a set that was moved is the same set");
        let mut other = list(&[]);
        other.describe(
            &serde_json::json!({"root": "/a", "classes": ["y"], "train": {"images": "i", "mask_suffix": ".png"}}),
        );
        assert!(other.changes(&one)[0].contains("label map"));
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Provenance::read(run.path()).unwrap(), None);
        before.write(run.path()).unwrap();
        assert_eq!(Provenance::read(run.path()).unwrap(), Some(before));
    }
}
