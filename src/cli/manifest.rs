//! The manifest of a list of images: a line for each entry, in the order of the list.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::shard::Shard;
use serde::{Deserialize, Serialize};

/// The first line: what the others were made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The CRC-32 of the model's file.
    pub(crate) model: String,
    pub(crate) shard: Shard,
    /// Every option besides that changes what is written.
    pub(crate) settings: Vec<String>,
    pub(crate) outputs: Vec<String>,
}

impl Head {
    /// In what another one differs, apart from the shard, in words.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            ("another model", self.model != other.model),
            ("other outputs", self.outputs != other.outputs),
            ("other settings", self.settings != other.settings),
        ];
        parts.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
    }

    /// The one that some bytes begin with, if they begin with one.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let (line, true) = read_line(&mut &*bytes, bytes.len() as u64).ok()?? else { return None };
        serde_json::from_slice(&line).ok()
    }
}

/// What the manifest of a shard is called.
pub(crate) fn manifest_name(shard: Shard) -> String {
    format!("manifest-{}.ndjson", shard.to_string().replace('/', "-of-"))
}

/// The shard whose manifest is called so.
pub(crate) fn manifest_shard(name: &str) -> Option<Shard> {
    name.strip_prefix("manifest-")?.strip_suffix(".ndjson")?.replacen("-of-", "/", 1).parse().ok()
}

/// How every manifest starts.
const START: &[u8] = b"{\"model\":";

/// What became of an entry of the list.
#[derive(Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) image: String,
    /// The checksum of each file that was written (CRC-32).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) files: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// A manifest that is read from its beginning.
pub(crate) struct Manifest<'a> {
    /// What it is called.
    shown: &'a Path,
    reader: BufReader<File>,
    /// Where its last whole line ends.
    end: u64,
    pub(crate) lines: u64,
}

impl<'a> Manifest<'a> {
    /// The one at `path`, called `shown`, of this head; started if there is none.
    pub(crate) fn open(path: &Path, shown: &'a str, head: &Head) -> Result<Self> {
        let shown = Path::new(shown);
        let failed = |error| Error::file("use", shown, error);
        let file = File::options().read(true).append(true).create(true).open(path).map_err(failed)?;
        let mut found = Self { shown, reader: BufReader::with_capacity(1 << 16, file), end: 0, lines: 0 };
        match found.next_whole()? {
            Some(line) => found.compare(&line, head)?,
            None => {
                let (line, mut start) = (json(head)?, Vec::new());
                let file = found.reader.get_mut();
                // Only what was cut off while it was written is replaced.
                file.seek(SeekFrom::Start(0)).map_err(failed)?;
                Read::by_ref(file).take(START.len() as u64).read_to_end(&mut start).map_err(failed)?;
                if !START.starts_with(&start) {
                    return Err(Error::file("use", shown, Error::new("it is not a manifest"))
                        .with_hint("choose another folder with --out"));
                }
                file.set_len(0).and_then(|()| file.write_all(&line)).map_err(failed)?;
                found.end = line.len() as u64;
                file.seek(SeekFrom::Start(found.end)).map_err(failed)?;
            }
        }
        Ok(found)
    }

    /// The one at `path` to be read alone; none where there is none, or only its beginning.
    pub(crate) fn read(path: &Path, shown: &'a str, head: &Head) -> Result<Option<Self>> {
        let shown = Path::new(shown);
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| Error::file("read", shown, error))?,
        };
        let mut found = Self { shown, reader: BufReader::with_capacity(1 << 14, file), end: 0, lines: 0 };
        let Some(line) = found.next_whole()? else { return Ok(None) };
        found.compare(&line, head)?;
        Ok(Some(found))
    }

    /// Fails unless `line` is this head.
    fn compare(&self, line: &[u8], head: &Head) -> Result<()> {
        let before: Head = serde_json::from_slice(line).map_err(|error| {
            Error::file("use", self.shown, Error::new("it is not a manifest").with_source(error))
                .with_hint("choose another folder with --out")
        })?;
        let shard = || (before.shard != head.shard).then_some("another shard");
        match head.difference(&before).or_else(shard) {
            None => Ok(()),
            Some(what) => Err(Error::new(format!("`{}` was made with {what}", self.shown.display()))
                .with_hint("repeat the command that it was started with, or choose another folder with --out")),
        }
    }

    /// The next line that has an end.
    fn next_whole(&mut self) -> Result<Option<Vec<u8>>> {
        const MOST: u64 = 1 << 20;
        let found = read_line(&mut self.reader, MOST).map_err(|error| Error::file("read", self.shown, error))?;
        let Some((line, true)) = found else { return Ok(None) };
        self.end += line.len() as u64 + 1;
        Ok(Some(line))
    }

    pub(crate) fn next_line(&mut self) -> Result<Option<Line>> {
        let Some(bytes) = self.next_whole()? else { return Ok(None) };
        self.lines += 1;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::new(format!("line {} of `{}` is damaged", self.lines + 1, self.shown.display()))
                .with_source(error)
                .with_hint("remove that line and all after it: their images are labelled again")
        })
    }

    /// The file, to which lines are added after the last whole one.
    pub(crate) fn appending(self) -> Result<File> {
        let file = self.reader.into_inner();
        file.set_len(self.end).map_err(|error| Error::file("write", self.shown, error))?;
        Ok(file)
    }
}

pub(crate) fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| Error::new("cannot write JSON").with_source(error))?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(crate) fn checksum(path: &Path) -> Result<String> {
    let failed = |error| Error::file("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut sum, mut buffer) = (crc32fast::Hasher::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(format!("{:08x}", sum.finalize())),
            count => sum.update(&buffer[..count]),
        }
    }
}

/// One line, without its end; none at the end of the file. Whether it has an end is the second.
pub(crate) fn read_line(reader: &mut impl BufRead, most: u64) -> std::io::Result<Option<(Vec<u8>, bool)>> {
    let mut line = Vec::new();
    if reader.take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let whole = line.last() == Some(&b'\n');
    if whole {
        line.pop();
    }
    Ok(Some((line, whole)))
}
