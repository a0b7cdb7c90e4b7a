//! The files of a run's data with their checksums: `data.ndjson`, by which changed files can be named.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Split};
use crate::error::{Error, Result};
use crate::files;
use crate::run::DATA_FILES;
use crate::text::{Rest, shortened};

/// Images whose files are read before progress is reported.
const AT_ONCE: usize = 256;
/// Names that are told of a kind of change.
const TOLD: usize = 3;

/// The files of a split in the order of its samples: of each its name, and the CRC-32C of its image and of its masks.
/// Empty for a set that is not made of files.
pub(super) type FileChecksums = Vec<(String, Vec<u32>)>;

/// The files of all splits.
pub(super) type SplitChecksums = BTreeMap<Split, FileChecksums>;

/// A line of the list.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChecksumLine {
    split: Split,
    image: String,
    crc32c: Vec<String>,
}

/// CRC-32C of files, each of which is read once.
#[derive(Default)]
pub(super) struct ChecksumReader(HashMap<PathBuf, u32>);

impl ChecksumReader {
    /// Reads the files of a split. Where that takes long, `note` gets how far it is.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn read_split(
        &mut self,
        split: Split,
        dataset: &dyn Dataset,
        note: &mut dyn FnMut(&str),
    ) -> Result<FileChecksums> {
        let mut last_report = Instant::now();
        let mut checksums = FileChecksums::with_capacity(dataset.len());
        let indices: Vec<usize> = (0..dataset.len()).collect();
        for part in indices.chunks(AT_ONCE) {
            let known = &self.0;
            let sums = |index: usize| -> Result<Vec<(PathBuf, u32)>> {
                let sum = |path: PathBuf| Ok((known.get(&path).copied().map_or_else(|| crc32c_of(&path), Ok)?, path));
                dataset.files(index).into_iter().map(|path| sum(path).map(|(sum, path)| (path, sum))).collect()
            };
            let found: Vec<Result<Vec<(PathBuf, u32)>>> = part.par_iter().map(|index| sums(*index)).collect();
            for (index, files) in part.iter().zip(found) {
                let files = files?;
                if !files.is_empty() {
                    checksums.push((dataset.name(*index), files.iter().map(|(_, sum)| *sum).collect()));
                }
                self.0.extend(files);
            }
            if last_report.elapsed().as_secs() >= 10 {
                note(&format!("reading the files of [{split}]: {} of {}", checksums.len(), dataset.len()));
                last_report = Instant::now();
            }
        }
        Ok(checksums)
    }
}

/// The CRC-32C of a file's bytes.
fn crc32c_of(path: &Path) -> Result<u32> {
    files::open(path).and_then(files::checksum::crc32c).map_err(|error| Error::file("read", path, error))
}

/// One checksum of all of a listing; `None` for a set that is not made of files.
pub(super) fn content(checksums: &FileChecksums) -> Option<String> {
    let add = |sum, bytes: &[u8]| crc32c::crc32c_append(sum, bytes);
    let sum = checksums.iter().fold(0, |sum, (name, files)| {
        let name = add(add(sum, name.as_bytes()), b"\n");
        files.iter().fold(name, |sum, file| add(sum, &file.to_le_bytes()))
    });
    (!checksums.is_empty()).then(|| format!("{sum:08x}"))
}

/// The files of a run's data as they were listed; none where that is not known, or not readable any more.
pub(super) fn read(run: &Path) -> Option<SplitChecksums> {
    let text = files::read_text(&run.join(DATA_FILES), files::RECORD).ok()?;
    let mut found: SplitChecksums = BTreeMap::new();
    for line in text.lines() {
        let ChecksumLine { split, image, crc32c } = serde_json::from_str(line).ok()?;
        let sums = crc32c.iter().map(|sum| u32::from_str_radix(sum, 16).ok()).collect::<Option<_>>()?;
        found.entry(split).or_default().push((image, sums));
    }
    Some(found)
}

/// Writes the list of files; sets that are not made of files have none.
pub(super) fn write(run: &Path, checksums: &SplitChecksums) -> Result<()> {
    if checksums.values().all(Vec::is_empty) {
        return Ok(());
    }
    files::write_with(&run.join(DATA_FILES), |file| {
        let mut text = BufWriter::new(file);
        for (split, files) in checksums {
            for (name, sums) in files {
                let crc32c = sums.iter().map(|sum| format!("{sum:08x}")).collect();
                serde_json::to_writer(&mut text, &ChecksumLine { split: *split, image: name.clone(), crc32c })?;
                text.write_all(b"\n")?;
            }
        }
        text.flush()
    })
}

/// Which files of a split are new, gone, or others than before, in words.
pub(super) fn changes(before: &FileChecksums, now: &FileChecksums) -> Vec<String> {
    fn by_name(checksums: &FileChecksums) -> BTreeMap<&str, &[u32]> {
        checksums.iter().map(|(name, sums)| (name.as_str(), sums.as_slice())).collect()
    }
    let (old, new) = (by_name(before), by_name(now));
    let mut kinds = ["new", "gone", "changed", "changed only in their masks"].map(|kind| (kind, Vec::<&str>::new()));
    for (name, sums) in &new {
        let kind = match old.get(name) {
            None => 0,
            Some(earlier) if earlier == sums => continue,
            Some(earlier) if earlier.first() == sums.first() => 3,
            Some(_) => 2,
        };
        kinds[kind].1.push(name);
    }
    kinds[1].1.extend(old.keys().filter(|name| !new.contains_key(*name)));
    let words = kinds.iter().filter(|(_, names)| !names.is_empty()).map(|(kind, names)| {
        let plural = if names.len() == 1 { "image" } else { "images" };
        format!("{} {plural} {kind} ({})", names.len(), shortened(names, TOLD, Rest::Dots))
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { vec!["the images are in another order".to_owned()] } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[(&str, &[u32])]) -> FileChecksums {
        lines.iter().map(|(name, sums)| ((*name).to_owned(), sums.to_vec())).collect()
    }

    #[test]
    fn changes_are_named_by_kind() {
        let before = list(&[("a", &[1, 2]), ("b\n\t", &[3, 4]), ("c", &[5, 6])]);
        let now = list(&[("a", &[1, 9]), ("d", &[3, 4]), ("c", &[0, 6])]);
        let words = changes(&before, &now);
        let said = [
            "1 image new (d)",
            "1 image gone (b\n\t)",
            "1 image changed (c)",
            "1 image changed only in their masks (a)",
        ];
        assert_eq!(words, said);
        let turned: FileChecksums = before.iter().rev().cloned().collect();
        assert_eq!(changes(&before, &turned), ["the images are in another order"]);
        let many: FileChecksums = (0..5).map(|i| (i.to_string(), vec![i])).collect();
        assert_eq!(changes(&Vec::new(), &many), ["5 images new (0, 1, 2, …)"]);
        let sums = [&before, &now, &turned, &many].map(content);
        assert!((0..4).all(|a| (0..a).all(|b| sums[a] != sums[b])));
        assert_eq!(content(&Vec::new()), None);
    }

    #[test]
    fn a_list_reads_back_and_is_nothing_when_damaged() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(read(run.path()), None);
        let checksums = BTreeMap::from([
            (Split::Train, list(&[("a", &[1, 2]), ("b\n\"", &[u32::MAX, 0, 7])])),
            (Split::Val, list(&[("a", &[5])])),
        ]);
        write(run.path(), &checksums).unwrap();
        assert_eq!(read(run.path()), Some(checksums));
        std::fs::write(run.path().join(DATA_FILES), "{\"split\":\"train\",\"image\":\"a\",\"crc32c\":[\"x\"]}\n")
            .unwrap();
        assert_eq!(read(run.path()), None);
        let none = tempfile::tempdir().unwrap();
        write(none.path(), &BTreeMap::from([(Split::Train, Vec::new())])).unwrap();
        assert!(!none.path().join(DATA_FILES).exists());
    }
}
