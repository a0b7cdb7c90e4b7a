//! What `--only-failed` has done so far: lines beside the manifest, until all of them take their places in it.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::manifest::{Head, Line, Manifest, json, read_line};
use crate::error::{Error, Result};

/// A line that replaces another.
#[derive(Serialize, Deserialize)]
pub(super) struct Retried {
    /// Which one of the manifest, from 1.
    pub(super) entry: u64,
    pub(super) line: Line,
}

/// Where such lines are, of the manifest at `path`.
pub(super) fn place(path: &Path) -> PathBuf {
    path.with_extension("ndjson.retried")
}

/// Puts the lines that are there into the manifest at `path`, called `shown`; whether there were any.
///
/// # Errors
/// A manifest of another head, or a file that cannot be read or written.
pub(super) fn settle(path: &Path, shown: &str, head: &Head) -> Result<bool> {
    let (place, beside) = (place(path), path.with_extension("ndjson.tmp"));
    let lines = match File::open(&place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        file => file.map_err(|error| Error::file("read", &place, error))?,
    };
    let Some(mut manifest) = Manifest::read(path, shown, head)? else { return Ok(false) };
    let mut lines = BufReader::with_capacity(1 << 16, lines);
    // One that a kill has cut off ends them.
    let mut next = || -> Result<Option<Retried>> {
        let found = read_line(&mut lines, 1 << 20).map_err(|error| Error::file("read", &place, error))?;
        Ok(found.filter(|(_, whole)| *whole).and_then(|(line, _)| serde_json::from_slice(&line).ok()))
    };
    let failed = |error| Error::file("write", &beside, error);
    let mut file = BufWriter::new(File::create(&beside).map_err(failed)?);
    file.write_all(&json(head)?).map_err(failed)?;
    let mut retried = next()?;
    while let Some(mut line) = manifest.next_line()? {
        while retried.as_ref().is_some_and(|retried| retried.entry < manifest.lines) {
            retried = next()?;
        }
        if let Some(other) =
            retried.take_if(|retried| retried.entry == manifest.lines && retried.line.image == line.image)
        {
            line = other.line;
            retried = next()?;
        }
        file.write_all(&json(&line)?).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    std::fs::remove_file(&place).map_err(|error| Error::file("remove", &place, error))?;
    Ok(true)
}
