//! Checksums of an earlier `init`'s files, which show whether these are as it wrote them.
//!
//! Masks are noted with checksums in their folder, the description and its lists in the description's last line. While
//! things change places, a note beside the description says what the new lists are: a process that is killed then
//! leaves nothing that the next one does not know.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::files::checksum::crc32;
use crate::text::utf8;
use crate::tools::init::paths::parent_folder;
use crate::tools::init::plan::{DatasetPlan, NOTE};

/// What a note begins with, and then the name of the description that the masks belong to.
const FOR: &str = "# masks of ";

/// What a description's last line begins with: the checksums of the text above it, under no name, and of its lists.
const SEAL: &str = "# Checksums by `structtoken data init`, do not edit: ";
/// What earlier versions began it with.
const EARLIER_SEAL: &str = "# As `structtoken init` wrote it: ";

/// What file managers leave everywhere.
const LITTER: [&str; 3] = [".DS_Store", "Thumbs.db", "desktop.ini"];

/// Names of lists, as the description says them, to checksums. The description itself has no name.
type FileSums = BTreeMap<String, String>;

/// The description that is there, and its lists.
pub(super) struct Own {
    described: Option<FileSums>,
    announced: Option<FileSums>,
}

impl Own {
    /// What was written where `plan` is to be written.
    pub(super) fn find(plan: &DatasetPlan) -> Self {
        let announced = || serde_json::from_str(&files::read_text(&announcement(plan), files::RECORD).ok()?).ok();
        Self { described: described(&plan.toml), announced: announced() }
    }

    /// Whether the description is as it was written.
    pub(super) fn is_described(&self) -> bool {
        self.described.is_some()
    }

    /// Whether the list at `path`, which descriptions call `list`, is as it was written.
    pub(super) fn has_list(&self, list: &Path, path: &Path) -> bool {
        let Some(sum) = sum(path) else { return false };
        let known = |sums: &Option<FileSums>| sums.as_ref().and_then(|sums| sums.get(utf8(list).ok()?)) == Some(&sum);
        known(&self.described) || known(&self.announced)
    }

    /// Lists of the description that is there, as they were written, which `plan` does without.
    pub(super) fn dropped(&self, plan: &DatasetPlan) -> Vec<PathBuf> {
        let names = self.described.iter().flat_map(|sums| sums.keys()).filter(|name| !name.is_empty()).map(Path::new);
        let gone = names.filter(|name| !plan.lists.iter().any(|(list, _)| list == name));
        let used = [&plan.spec.train, &plan.spec.val, &plan.spec.test].into_iter().flatten();
        let used: Vec<&PathBuf> = used.filter_map(|split| split.list.as_ref()).collect();
        gone.filter(|name| !used.iter().any(|list| list == name))
            .map(|name| (name, parent_folder(&plan.toml).join(name)))
            .filter(|(name, path)| self.has_list(name, path))
            .map(|(_, path)| path)
            .collect()
    }
}

/// A description with its seal.
pub(super) fn sealed(text: String, plan: &DatasetPlan, lists: &[(PathBuf, String)]) -> Result<String> {
    let sums = sums(plan, lists, Some(checksum(text.as_bytes())))?;
    Ok(format!("{text}\n{}", last_line(SEAL, &sums)))
}

fn last_line(seal: &str, sums: &FileSums) -> String {
    format!("{seal}{}\n", serde_json::to_value(sums).unwrap_or_default())
}

fn sums(plan: &DatasetPlan, lists: &[(PathBuf, String)], toml: Option<String>) -> Result<FileSums> {
    let mut sums: FileSums = toml.map(|sum| (String::new(), sum)).into_iter().collect();
    for ((list, _), (_, content)) in plan.lists.iter().zip(lists) {
        sums.insert(utf8(list)?.to_owned(), checksum(content.as_bytes()));
    }
    Ok(sums)
}

/// The checksums of a description that is still as the program wrote it, seal and all.
fn described(toml: &Path) -> Option<FileSums> {
    let text = is_plain(toml).then(|| files::read_text(toml, files::RECIPE).ok())??;
    [SEAL, EARLIER_SEAL].into_iter().find_map(|seal| {
        let (above, last) = text.rsplit_once(&format!("\n{seal}"))?;
        let sums: FileSums = serde_json::from_str(last.trim_end()).ok()?;
        let whole = format!("{above}\n{}", last_line(seal, &sums)) == text;
        (whole && sums.get("") == Some(&checksum(above.as_bytes()))).then_some(sums)
    })
}

/// Whether a description is as it was written.
pub(super) fn is_described(toml: &Path) -> bool {
    described(toml).is_some()
}

/// Says what the lists will be, before anything changes places.
pub(super) fn announce(plan: &DatasetPlan, lists: &[(PathBuf, String)]) -> Result<()> {
    let json =
        serde_json::to_string(&sums(plan, lists, None)?).map_err(|error| Error::file("describe", &plan.toml, error))?;
    files::write(&announcement(plan), json.as_bytes())
}

/// All is in place, or back.
pub(super) fn withdraw(plan: &DatasetPlan) {
    // A note that stays says nothing wrong.
    std::fs::remove_file(announcement(plan)).ok();
}

fn announcement(plan: &DatasetPlan) -> PathBuf {
    let name = plan.toml.file_name().unwrap_or_default().to_string_lossy();
    plan.toml.with_file_name(format!(".{name}.being-written"))
}

/// The note of a folder of masks; each line a checksum and a name.
pub(super) fn note(plan: &DatasetPlan, lines: &[String]) -> String {
    let name = plan.toml.file_name().unwrap_or_default().to_string_lossy();
    format!("{FOR}{name}\n{}\n", lines.join("\n"))
}

/// The first thing in a folder of masks that is not as the program drew it for this description.
pub(super) fn foreign(masks: &Path, plan: &DatasetPlan) -> Option<PathBuf> {
    let path = masks.join(NOTE);
    let Some(known) = files::read_text(&path, files::RECORD).ok().and_then(|text| noted(&text, plan)) else {
        return Some(if path.symlink_metadata().is_ok() { path } else { masks.to_path_buf() });
    };
    foreign_in(masks, "", &known).unwrap_or_else(|_| Some(masks.to_path_buf()))
}

/// Names and checksums of a note, if all of it is the program's and of this description. Earlier versions did not say
/// of which: then it is the one with the usual ending.
fn noted(text: &str, plan: &DatasetPlan) -> Option<FileSums> {
    let (first, rest) = text.split_once('\n')?;
    let lines = match first.strip_prefix(FOR) {
        Some(name) => (plan.toml.file_name()?.to_str()? == name).then_some(rest)?,
        None => plan.toml.extension().is_some_and(|ending| ending == "toml").then_some(text)?,
    };
    let line = |line: &str| {
        let (sum, name) = line.split_once(' ')?;
        let sum_like = sum.len() == 8 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
        (sum_like && !name.is_empty()).then(|| (name.to_owned(), sum.to_owned()))
    };
    lines.lines().map(line).collect()
}

/// Everything is looked at, hidden or not: what is replaced goes as a whole. `prefix`: the folder's own name with a
/// slash.
fn foreign_in(folder: &Path, prefix: &str, known: &FileSums) -> io::Result<Option<PathBuf>> {
    let mut any = false;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let Ok(name) = entry.file_name().into_string() else { return Ok(Some(path)) };
        any = true;
        if (prefix.is_empty() && name == NOTE) || (kind.is_file() && LITTER.contains(&name.as_str())) {
            continue;
        }
        let name = format!("{prefix}{name}");
        if kind.is_dir() {
            // Only as deep as a mask that was drawn.
            let below = format!("{name}/");
            let leads = known.range(below.clone()..).next().is_some_and(|(mask, _)| mask.starts_with(&below));
            match leads.then(|| foreign_in(&path, &below, known)).transpose()? {
                Some(None) => continue,
                Some(Some(foreign)) => return Ok(Some(foreign)),
                None => return Ok(Some(path)),
            }
        }
        if !kind.is_file() || known.get(&name).is_none_or(|known| sum(&path).is_none_or(|sum| sum != *known)) {
            return Ok(Some(path));
        }
    }
    // A folder without anything was not made here.
    Ok((!any).then(|| folder.to_path_buf()))
}

pub(super) fn checksum(bytes: &[u8]) -> String {
    shown(crc32fast::hash(bytes))
}

fn shown(sum: u32) -> String {
    format!("{sum:08x}")
}

/// Whether `path` is a file with these bytes.
pub(super) fn is(path: &Path, bytes: &[u8]) -> bool {
    is_plain(path) && files::read(path, files::RECORD).is_ok_and(|found| found == bytes)
}

/// The checksum of a file; none of what is not a plain file, or cannot be read.
fn sum(path: &Path) -> Option<String> {
    let within = |file: &std::fs::File| file.metadata().is_ok_and(|found| found.len() <= files::RECORD);
    let file = is_plain(path).then(|| files::open(path).ok()).flatten().filter(within)?;
    crc32(file).ok().map(shown)
}

/// A file, and no link to one.
fn is_plain(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Earlier versions began the last line otherwise: what they wrote is still known, and what was edited is not.
    #[test]
    fn descriptions_of_earlier_versions_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let toml = folder.path().join("dataset.toml");
        for seal in [SEAL, EARLIER_SEAL] {
            let text = "name = \"a\"\n";
            let sums = FileSums::from([(String::new(), checksum(text.as_bytes()))]);
            std::fs::write(&toml, format!("{text}\n{}", last_line(seal, &sums))).unwrap();
            assert!(is_described(&toml), "{seal}");
            let edited = std::fs::read_to_string(&toml).unwrap().replace("\"a\"", "\"b\"");
            std::fs::write(&toml, edited).unwrap();
            assert!(!is_described(&toml), "{seal}");
        }
    }
}
