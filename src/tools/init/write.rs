//! A plan written: whole, or not at all, and over nothing that the program did not write itself.
//!
//! Masks are drawn into a folder beside their place. When all are there, the old folder makes way for it; the description
//! comes last. What the program wrote is noted with checksums, masks in their folder, the description and its lists in the description's
//! last line: what a person has changed since is the person's.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

use crate::dataset::spec::DatasetSpec;
use crate::dataset::walk::walk;
use crate::error::{Error, Result};
use crate::files::{self, Scratch};
use crate::image::encode_index_png;
use crate::text::utf8;
use crate::tools::check::Progress;
use crate::tools::init::home::home;
use crate::tools::init::plan::{Job, NOTE, Plan};
use crate::tools::init::text;

/// What a description's last line begins with: the checksums of the text above it, under no name, and of its lists.
const SEAL: &str = "# As `structtoken init` wrote it: ";

/// As [`super::write`].
pub(super) fn write(plan: &Plan, replace: bool, progress: Progress) -> Result<Vec<PathBuf>> {
    let home = home(&plan.toml);
    for split in [&plan.spec.train, &plan.spec.val, &plan.spec.test].into_iter().flatten() {
        [&split.images, &split.masks].into_iter().chain(&split.list).try_for_each(|path| utf8(path).map(drop))?;
    }
    let text = text::text(plan);
    // What is written must be readable: names may hold anything.
    DatasetSpec::parse(&text, &plan.toml)?;
    let masks = home.join(&plan.masks);
    let lists: Vec<(PathBuf, String)> =
        plan.lists.iter().map(|(list, stems)| (home.join(list), format!("{}\n", stems.join("\n")))).collect();
    let text = sealed(text, plan, &lists)?;
    inputs_are_safe(plan, &masks, &lists)?;
    // One process at a time looks and writes: the last one wins, whole. Where folders cannot be locked there is no order.
    let turn = || {
        let turn = std::fs::File::open(home).ok();
        turn.inspect(|turn| drop(turn.lock()))
    };
    {
        let _turn = turn();
        may_be_written(plan, replace, &masks, &lists)?;
    }
    std::fs::create_dir_all(home).map_err(|error| refused(home, error))?;
    let mut staged = match plan.jobs.is_empty() {
        true => None,
        false => Some(Staged::new(&masks)?),
    };
    if let Some(staged) = &staged {
        draw(plan, &masks, staged.new.path(), progress)?;
    }
    let _turn = turn();
    may_be_written(plan, replace, &masks, &lists)?;
    let kept: Vec<(&PathBuf, Option<Vec<u8>>)> = lists
        .iter()
        .map(|(path, _)| path)
        .chain([&plan.toml])
        .map(|path| (path, files::read(path, files::RECORD).ok()))
        .collect();
    let attempt = |staged: Option<&mut Staged>| -> Result<()> {
        staged.map_or(Ok(()), Staged::place).map_err(|error| refused(&masks, error))?;
        lists.iter().try_for_each(|(path, text)| files::write(path, text.as_bytes()))?;
        files::write(&plan.toml, text.as_bytes())
    };
    if let Err(error) = attempt(staged.as_mut()) {
        if let Some(staged) = &mut staged {
            staged.undo();
        }
        for (path, before) in kept {
            // Where this fails too, the first failure is the one to tell.
            match before {
                Some(bytes) => files::write(path, &bytes).ok(),
                None => std::fs::remove_file(path).ok(),
            };
        }
        return Err(error);
    }
    Ok(lists.into_iter().map(|(path, _)| path).chain([plan.toml.clone()]).collect())
}

fn refused(path: &Path, error: std::io::Error) -> Error {
    Error::file("write", path, error).with_hint("make room, or choose another place with --out")
}

/// A folder of new masks, that which it replaces, and where both go. What a process leaves that is killed on the way has a name
/// by which later ones find and remove it.
struct Staged {
    new: Scratch,
    old: PathBuf,
    place: PathBuf,
    placed: bool,
    replaced: bool,
}

impl Staged {
    fn new(place: &Path) -> Result<Self> {
        let (parent, name) = (home(place), place.file_name().unwrap_or_default().to_string_lossy());
        let (new, old) = (Scratch::new(parent, &name)?, Scratch::name(parent, &name));
        Ok(Self { new, old, place: place.to_path_buf(), placed: false, replaced: false })
    }

    fn place(&mut self) -> std::io::Result<()> {
        if self.place.exists() {
            std::fs::rename(&self.place, &self.old)?;
            self.replaced = true;
        }
        self.new.keep_at(&self.place)?;
        self.placed = true;
        Ok(())
    }

    fn undo(&mut self) {
        if std::mem::take(&mut self.placed) {
            std::fs::rename(&self.place, self.new.path()).ok();
        }
        if std::mem::take(&mut self.replaced) {
            std::fs::rename(&self.old, &self.place).ok();
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed && self.replaced {
            self.undo();
        }
        if self.placed {
            std::fs::remove_dir_all(&self.old).ok();
        }
    }
}

/// Draws all masks below `folder`, with the note of what they are.
fn draw(plan: &Plan, masks: &Path, folder: &Path, progress: Progress) -> Result<()> {
    let colors = plan.spec.classes().colors;
    let done = AtomicUsize::new(0);
    progress(0, plan.jobs.len());
    std::fs::create_dir_all(folder).map_err(|error| refused(folder, error))?;
    let one = |job: &Job| {
        let bytes = encode_index_png(&job.draw()?, &colors)?;
        let below = job.mask.strip_prefix(masks).map_err(|_| {
            Error::new(format!("the mask `{}` would lie outside of `{}`", job.mask.display(), masks.display()))
                .with_hint("rename the image")
        })?;
        let path = folder.join(below);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            std::fs::File::create_new(&path).and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
        };
        write().map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(format!("two images would have the mask `{}`", job.mask.display()))
                    .with_hint("rename one of them")
            }
            _ => refused(&job.mask, error),
        })?;
        progress(done.fetch_add(1, Relaxed) + 1, plan.jobs.len());
        Ok(format!("{} {}", checksum(&bytes), below.display()))
    };
    let mut lines = plan.jobs.par_iter().map(one).collect::<Result<Vec<String>>>()?;
    lines.sort_by(|a, b| a[9..].cmp(&b[9..]));
    let note = folder.join(NOTE);
    std::fs::write(&note, lines.join("\n") + "\n").map_err(|error| refused(&note, error))
}

/// No file that is read is one that is written, by whatever name or link.
fn inputs_are_safe(plan: &Plan, masks: &Path, lists: &[(PathBuf, String)]) -> Result<()> {
    if !plan.jobs.is_empty() && masks.is_symlink() {
        return Err(Error::new(format!("`{}`, where masks would be drawn, is a link", masks.display()))
            .with_hint(format!("remove the link, or write elsewhere: {}", plan.commands[1])));
    }
    let mut inputs: HashSet<PathBuf> = HashSet::new();
    for path in plan.jobs.iter().flat_map(|job| [&job.image, &job.source]) {
        inputs.extend(path.canonicalize().ok());
    }
    let splits = [&plan.spec.train, &plan.spec.val, &plan.spec.test].into_iter().flatten();
    let own = |list: &PathBuf| plan.lists.iter().any(|(new, _)| new == list);
    inputs.extend(splits.filter_map(|split| split.list.as_ref()).filter(|list| !own(list)).map(|list| plan.real(list)));
    let outputs = plan.jobs.iter().map(|job| &job.mask).chain(lists.iter().map(|(path, _)| path)).chain([&plan.toml]);
    for path in outputs {
        if path.canonicalize().is_ok_and(|real| inputs.contains(&real)) {
            return Err(Error::new(format!("`{}` would be written over a file that is read", path.display()))
                .with_hint(format!("write elsewhere: {}", plan.commands[1])));
        }
    }
    // The folder is exchanged as a whole: images in it would go with it.
    let folder = masks.canonicalize().ok().filter(|_| !plan.jobs.is_empty());
    if let Some(within) = folder.and_then(|folder| inputs.iter().find(|input| input.starts_with(&folder))) {
        return Err(Error::new(format!(
            "`{}` lies in `{}`, where masks would be drawn",
            within.display(),
            masks.display()
        ))
        .with_hint(format!("write elsewhere: {}", plan.commands[1])));
    }
    Ok(())
}

/// Whether everything that is to be written is either not there, or the program's own and to be replaced.
fn may_be_written(plan: &Plan, replace: bool, masks: &Path, lists: &[(PathBuf, String)]) -> Result<()> {
    let listed = lists.iter().map(|(path, _)| path);
    let drawn = (!plan.jobs.is_empty()).then_some(masks);
    let present: Vec<&Path> = [plan.toml.as_path()]
        .into_iter()
        .chain(listed.map(PathBuf::as_path))
        .chain(drawn)
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    let Some(first) = present.first() else { return Ok(()) };
    if !replace {
        let more = if present.len() > 1 { format!(" and {} others are", present.len() - 1) } else { " is".into() };
        return Err(Error::new(format!("`{}`{more} there already", first.display())).with_hint(format!(
            "to replace what an earlier `init` wrote: {}; to write elsewhere: {}",
            plan.commands[0], plan.commands[1]
        )));
    }
    let hint = format!("move it away, or write elsewhere: {}", plan.commands[1]);
    let written = written(&plan.toml);
    let changed = |path: &Path| {
        Err(Error::new(format!("`{}` is there, and `init` did not write it as it is", path.display()))
            .with_hint(hint.clone()))
    };
    if plan.toml.symlink_metadata().is_ok() && written.is_none() {
        return changed(&plan.toml);
    }
    for ((path, _), (list, _)) in lists.iter().zip(&plan.lists).filter(|((path, _), _)| path.symlink_metadata().is_ok())
    {
        let known = written.as_ref().and_then(|sums| sums.get(utf8(list).ok()?));
        let sum = files::read(path, files::RECORD).map(|bytes| checksum(&bytes));
        if !path.is_file() || known.is_none_or(|known| sum.is_ok_and(|sum| sum != *known)) {
            return changed(path);
        }
    }
    if let Some(masks) = drawn.filter(|masks| masks.symlink_metadata().is_ok())
        && let Some(strange) = foreign(masks)
    {
        return Err(Error::new(format!("`{}` is there, and `init` did not draw it as it is", strange.display()))
            .with_hint(format!("move `{}` away, or write elsewhere: {}", masks.display(), plan.commands[1])));
    }
    Ok(())
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

/// A description with its seal.
fn sealed(text: String, plan: &Plan, lists: &[(PathBuf, String)]) -> Result<String> {
    let mut sums = BTreeMap::from([("", checksum(text.as_bytes()))]);
    for ((list, _), (_, content)) in plan.lists.iter().zip(lists) {
        sums.insert(utf8(list)?, checksum(content.as_bytes()));
    }
    let json = serde_json::to_string(&sums).map_err(|error| Error::file("describe", &plan.toml, error))?;
    Ok(format!("{text}\n{SEAL}{json}\n"))
}

/// The checksums of a description that is still as the program wrote it.
fn written(toml: &Path) -> Option<BTreeMap<String, String>> {
    let text = files::read_text(toml, files::RECIPE).ok().filter(|_| toml.is_file())?;
    let (above, seal) = text.rsplit_once(&format!("\n{SEAL}"))?;
    let sums: BTreeMap<String, String> = serde_json::from_str(seal.trim_end()).ok()?;
    (sums.get("") == Some(&checksum(above.as_bytes()))).then_some(sums)
}

/// The first file in a folder of masks that is not as the program drew it.
fn foreign(masks: &Path) -> Option<PathBuf> {
    if !masks.is_dir() {
        return Some(masks.to_path_buf());
    }
    let files = walk(masks).files;
    let Ok(note) = files::read_text(&masks.join(NOTE), files::RECORD) else {
        return files.into_iter().next().map(|(_, path)| path);
    };
    let known: BTreeMap<&str, &str> =
        note.lines().filter_map(|line| line.split_once(' ')).map(|(sum, name)| (name, sum)).collect();
    let drawn = |(name, path): &(String, PathBuf)| {
        let sum = || files::read(path, files::PICTURE).map(|bytes| checksum(&bytes));
        known.get(name.as_str()).is_some_and(|known| sum().is_ok_and(|sum| sum == **known))
    };
    files.into_iter().find(|file| !drawn(file)).map(|(_, path)| path)
}
