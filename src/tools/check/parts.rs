//! A check shared out: each process writes the facts of its pairs into a file, and the report comes from all of these.
//!
//! The facts of a pair are few, and a report is what is made of those of all pairs in their order. So it is the same
//! from files that were looked at by many machines.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::dataset::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::files;
use crate::shard::Shard;
use crate::tools::check::scan::{Count, MaskFacts, Scanned};
use crate::tools::check::{CHUNK, CheckReport, OnProgress, Set, with_pairs};

/// The form of these files.
const FORMAT: &str = "structtoken-check-1";
/// What is to be passed.
const WANTED: &str = "pass files that `structtoken data check DATASET --shard I/N --out FILE` wrote";
/// The most bytes of a line: some thousand values of a mask.
const LINE: u64 = 1 << 22;

/// The first line: of what the others are facts.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    /// The program's version: what it asks of files may differ in another.
    version: String,
    shard: Shard,
    /// The set's name, and a checksum of its description.
    name: String,
    description: String,
    /// How many pairs it has, and a checksum of their names.
    pairs: usize,
    names: String,
}

impl Head {
    fn new(set: &Set, shard: Shard) -> Result<Self> {
        let description = match set.spec.file.is_file() {
            true => files::read(&set.spec.file, files::RECIPE)
                .map_err(|error| Error::file("read", &set.spec.file, error))?,
            false => set.spec.name.clone().into_bytes(),
        };
        let pairs = set.pairs();
        let mut names = crc32fast::Hasher::new();
        for (split, pair) in &pairs {
            // As they are below the set's folder, which may be another on another machine.
            let below = |path: &Path| path.strip_prefix(set.base).unwrap_or(path).to_string_lossy().replace('\\', "/");
            names.update(format!("{split}\0{}\0{}\0", below(&pair.image), below(&pair.mask)).as_bytes());
        }
        Ok(Self {
            format: FORMAT.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shard,
            name: set.spec.name.clone(),
            description: format!("{:08x}", crc32fast::hash(&description)),
            pairs: pairs.len(),
            names: format!("{:08x}", names.finalize()),
        })
    }
}

/// Reads the files of every N-th pair of the set that `spec` describes, and writes what [`check_parts`] needs of them
/// to `out`. Returns how many pairs these are.
///
/// # Errors
/// A description without any split, or a file that cannot be written. What is wrong with files of the set is in the
/// report.
pub fn check_shard(
    spec: &DatasetSpec,
    root: Option<&Path>,
    shard: Shard,
    out: &Path,
    progress: OnProgress,
) -> Result<usize> {
    with_pairs(spec, root, |set| {
        let pairs = shard.of(set.pairs());
        let head = Head::new(set, shard)?;
        let mut fault = None;
        let write = |file: &mut File| {
            let mut file = std::io::BufWriter::new(file);
            line(&mut file, &head)?;
            progress(0, pairs.len());
            for (at, chunk) in pairs.chunks(CHUNK).enumerate() {
                for ((_, pair), scanned) in chunk.iter().zip(set.scan(chunk)) {
                    if let Some(error) = scanned.scarce(pair) {
                        fault = Some(error);
                        return Err(std::io::Error::other("a file cannot be opened"));
                    }
                    line(&mut file, &scanned)?;
                }
                progress(at * CHUNK + chunk.len(), pairs.len());
            }
            file.flush()
        };
        let written = files::write_with(out, write);
        fault.map_or(written, Err).map(|()| pairs.len())
    })
}

fn line(file: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, value)?;
    file.write_all(b"\n")
}

/// The report of [`check`](crate::tools::check::check), from the files that [`check_shard`] wrote, in any order.
///
/// # Errors
/// Files that are something else, belong to another set, or are not those of all shards.
pub fn check_parts(
    spec: &DatasetSpec,
    root: Option<&Path>,
    parts: &[PathBuf],
    progress: OnProgress,
) -> Result<CheckReport> {
    with_pairs(spec, root, |set| {
        let mut parts = Parts::open(set, parts)?;
        let report = set.report(progress, |chunk| chunk.iter().map(|_| parts.next()).collect())?;
        parts.finish()?;
        Ok(report)
    })
}

/// Files of all shards, read side by side.
struct Parts<'a> {
    /// By shard.
    readers: Vec<(BufReader<File>, &'a Path)>,
    next: usize,
}

impl<'a> Parts<'a> {
    fn open(set: &Set, paths: &'a [PathBuf]) -> Result<Self> {
        let mut found: BTreeMap<u64, (BufReader<File>, &Path)> = BTreeMap::new();
        let mut count = None;
        let expected = Head::new(set, Shard::ALL)?;
        for path in paths {
            let file = files::open(path).map_err(|error| Error::file("read", path, error).with_hint(WANTED))?;
            let mut reader = BufReader::new(file);
            let head: Head = read(&mut reader, path).ok().flatten().ok_or_else(|| foreign(path))?;
            if head.format != FORMAT {
                return Err(foreign(path));
            }
            let shard = head.shard;
            let head = Head { shard: Shard::ALL, ..head };
            if head != expected {
                let what = match () {
                    () if head.version != expected.version => format!("was written by version {}", head.version),
                    () if head.name != expected.name => format!("is of the dataset `{}`", head.name),
                    () if head.description != expected.description => {
                        "was written with another description of the dataset".to_owned()
                    }
                    () => "is of other files: images or masks were added, removed or renamed since".to_owned(),
                };
                return Err(Error::new(format!("`{}` {what}", path.display()))
                    .with_hint("run `data check --shard` again for all shards"));
            }
            if *count.get_or_insert(shard.count()) != shard.count() {
                return Err(Error::new(format!(
                    "`{}` is shard {shard}, and others are of {}",
                    path.display(),
                    count.unwrap_or_default()
                ))
                .with_hint("pass the files of one division into shards"));
            }
            if let Some((_, other)) = found.insert(shard.index(), (reader, path.as_path())) {
                return Err(Error::new(format!(
                    "`{}` and `{}` are both shard {shard}",
                    other.display(),
                    path.display()
                ))
                .with_hint("pass each shard once"));
            }
        }
        let count = count.unwrap_or_default();
        if let Some(missing) = Shard::all(count).find(|shard| !found.contains_key(&shard.index())) {
            return Err(Error::new(format!("shard {missing} is missing"))
                .with_hint("pass the files of all shards that `data check --shard I/N --out FILE` wrote"));
        }
        Ok(Self { readers: found.into_values().collect(), next: 0 })
    }

    /// The facts of the next pair of the set.
    fn next(&mut self) -> Result<Scanned> {
        let count = self.readers.len();
        let (reader, path) = &mut self.readers[self.next % count];
        self.next += 1;
        let scanned: Option<Scanned> = read(reader, path)?;
        scanned.filter(is_possible).ok_or_else(|| damaged(path))
    }

    fn finish(&mut self) -> Result<()> {
        for (reader, path) in &mut self.readers {
            if read::<IgnoredAny>(reader, path)?.is_some() {
                return Err(damaged(path));
            }
        }
        Ok(())
    }
}

/// Whether counts and places are those of a mask of its size.
fn is_possible(scanned: &Scanned) -> bool {
    let possible = |mask: &MaskFacts| {
        let pixels = mask.size[0].saturating_mul(mask.size[1]);
        let fits = |count: &Count| count.first < pixels && count.pixels <= pixels as u64;
        pixels > 0
            && mask.values.values().chain(mask.colors.iter().flat_map(BTreeMap::values)).all(fits)
            && mask.transparent.is_none_or(|at| at < pixels)
            && mask.overlapping.is_none_or(|(_, at)| at < pixels)
    };
    // As many pixels as are read at most.
    let side = |size: [usize; 2]| size.iter().all(|side| *side < 1 << 31);
    scanned.mask.as_ref().map_or(true, |mask| side(mask.size) && possible(mask))
        && scanned.image.as_ref().map_or(true, |image| side(image.size))
}

fn read<T: for<'de> Deserialize<'de>>(reader: &mut BufReader<File>, path: &Path) -> Result<Option<T>> {
    let mut line = Vec::new();
    let length = reader.take(LINE).read_until(b'\n', &mut line).map_err(|error| Error::file("read", path, error))?;
    if length == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| damaged(path).with_source(error))
}

fn foreign(path: &Path) -> Error {
    Error::new(format!("`{}` is not a shard of a check", path.display())).with_hint(WANTED)
}

fn damaged(path: &Path) -> Error {
    Error::new(format!("`{}` is not a whole shard of a check", path.display()))
        .with_hint("run `data check --shard` again for this shard")
}
