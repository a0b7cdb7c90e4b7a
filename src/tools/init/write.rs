//! A plan written: whole, or not at all, and over nothing that the program did not write itself.
//!
//! Everything is made in a hidden folder beside its place. When all of it is there it changes places with what an
//! earlier `init` wrote; what a person has changed since is the person's.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

use crate::dataset::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::files::{self, Exchange, Scratch};
use crate::image::encode_index_png;
use crate::text::utf8;
use crate::tools::check::OnProgress;
use crate::tools::init::paths::parent_folder;
use crate::tools::init::plan::{DatasetPlan, Job, NOTE};
use crate::tools::init::provenance::{self, Own};
use crate::tools::init::text;

/// As [`super::write`].
pub(super) fn write(plan: &DatasetPlan, replace: bool, progress: OnProgress) -> Result<Vec<PathBuf>> {
    let home = parent_folder(&plan.toml);
    for split in [&plan.spec.train, &plan.spec.val, &plan.spec.test].into_iter().flatten() {
        [&split.images, &split.masks].into_iter().chain(&split.list).try_for_each(|path| utf8(path).map(drop))?;
    }
    let masks = home.join(&plan.masks);
    let lists: Vec<(PathBuf, String)> =
        plan.lists.iter().map(|(list, stems)| Ok((home.join(list), lines(stems)?))).collect::<Result<_>>()?;
    let text = description(plan, &lists)?;
    inputs_are_safe(plan, &masks, &lists)?;
    // One process at a time looks and writes: the last one wins, whole. Where folders cannot be locked there is no
    // order.
    let turn = || {
        let turn = std::fs::File::open(home).ok();
        turn.inspect(|turn| drop(turn.lock()))
    };
    {
        let _turn = turn();
        may_be_written(plan, replace, &masks, &lists)?;
    }
    let name = plan.toml.file_name().unwrap_or_default().to_string_lossy();
    let scratch = Scratch::new(home, &name)?;
    let [new_masks, new_toml] = ["masks", "toml"].map(|name| scratch.path().join(name));
    if !plan.jobs.is_empty() {
        draw(plan, &masks, &new_masks, progress)?;
    }
    let mut new_lists = Vec::new();
    for (i, (_, text)) in lists.iter().enumerate() {
        new_lists.push(scratch.path().join(format!("list-{i}")));
        files::write(&new_lists[i], text.as_bytes())?;
    }
    files::write(&new_toml, text.as_bytes())?;
    files::sync_disk(scratch.path());
    let _turn = turn();
    let own = may_be_written(plan, replace, &masks, &lists)?;
    provenance::announce(plan, &lists)?;
    let mut exchange = Exchange::default();
    let mut attempt = || -> Result<()> {
        if !plan.jobs.is_empty() {
            exchange.place(&new_masks, &masks)?;
        }
        new_lists.iter().zip(&lists).try_for_each(|(new, (place, _))| exchange.place(new, place))?;
        // Lists of an earlier description that this one has no more.
        for (i, list) in own.dropped(plan).iter().enumerate() {
            exchange.remove(list, &scratch.path().join(format!("dropped-{i}")))?;
        }
        exchange.place(&new_toml, &plan.toml)?;
        // What was edited in the meantime comes back.
        let edited = [
            (&masks, new_masks.is_dir() && provenance::foreign(&new_masks, plan).is_some()),
            (&plan.toml, new_toml.exists() && !provenance::is_described(&new_toml)),
        ];
        let mut edited = edited.into_iter().chain(lists.iter().zip(&new_lists).zip(&plan.lists).map(
            |(((place, text), old), (list, _))| {
                (place, old.exists() && !own.has_list(list, old) && !provenance::is(old, text.as_bytes()))
            },
        ));
        match edited.find(|(_, edited)| *edited) {
            Some((place, _)) => {
                Err(Error::new(format!("`{}` was changed just now", place.display())).with_hint("run it again"))
            }
            None => Ok(()),
        }
    };
    let done = attempt();
    match done {
        Ok(()) => exchange.keep(),
        Err(_) => exchange.undo(),
    }
    provenance::withdraw(plan);
    done?;
    Ok(lists.into_iter().map(|(path, _)| path).chain([plan.toml.clone()]).collect())
}

/// The text of a description, with its seal: one that can be read again, for names may hold anything.
fn description(plan: &DatasetPlan, lists: &[(PathBuf, String)]) -> Result<String> {
    let text = provenance::sealed(text::text(plan), plan, lists)?;
    if text.len() as u64 > files::RECIPE {
        let size = format!("the description would have {} bytes, and may have {}", text.len(), files::RECIPE);
        return Err(Error::new(size).with_hint("shorten the names of classes, or leave notes out"));
    }
    DatasetSpec::parse(&text, &plan.toml)?;
    Ok(text)
}

/// A list: names that its reader finds again.
fn lines(stems: &[String]) -> Result<String> {
    match stems.iter().find(|stem| stem.trim() != *stem || stem.contains(['\n', '\r'])) {
        Some(stem) => {
            Err(Error::new(format!("the image {stem:?} cannot stand in a list, by its blanks or line breaks"))
                .with_hint("rename it, and run this again"))
        }
        None => Ok(format!("{}\n", stems.join("\n"))),
    }
}

fn refused(path: &Path, error: std::io::Error) -> Error {
    let remedy = files::remedy(&error);
    Error::file("write", path, error).with_hint(format!("{remedy}; --out chooses another place"))
}

/// Draws all masks below `folder`, with the note of what they are.
fn draw(plan: &DatasetPlan, masks: &Path, folder: &Path, progress: OnProgress) -> Result<()> {
    let colors = plan.spec.classes().colors;
    let done = AtomicUsize::new(0);
    progress(0, plan.jobs.len());
    std::fs::create_dir_all(folder).map_err(|error| refused(folder, error))?;
    let one = |job: &Job| {
        let bytes = encode_index_png(&job.draw()?, &colors)?;
        let below = job.mask.strip_prefix(masks).map_err(|_| {
            Error::new(format!("the mask `{}` would be outside of `{}`", job.mask.display(), masks.display()))
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
        Ok(format!("{} {}", provenance::checksum(&bytes), below.display()))
    };
    let mut lines = plan.jobs.par_iter().map(one).collect::<Result<Vec<String>>>()?;
    lines.sort_by(|a, b| a[9..].cmp(&b[9..]));
    let note = folder.join(NOTE);
    std::fs::write(&note, provenance::note(plan, &lines)).map_err(|error| refused(&note, error))
}

/// No file that is read is one that is written, by whatever name or link.
fn inputs_are_safe(plan: &DatasetPlan, masks: &Path, lists: &[(PathBuf, String)]) -> Result<()> {
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
            "`{}` is in `{}`, where masks would be drawn",
            within.display(),
            masks.display()
        ))
        .with_hint(format!("write elsewhere: {}", plan.commands[1])));
    }
    Ok(())
}

/// Whether everything that is to be written is either not there, or the program's own and to be replaced.
fn may_be_written(plan: &DatasetPlan, replace: bool, masks: &Path, lists: &[(PathBuf, String)]) -> Result<Own> {
    let own = Own::find(plan);
    let drawn = (!plan.jobs.is_empty()).then_some(masks);
    let there = |path: &&Path| path.symlink_metadata().is_ok();
    let outputs = [plan.toml.as_path()].into_iter().chain(lists.iter().map(|(path, _)| path.as_path())).chain(drawn);
    let present: Vec<&Path> = outputs.filter(there).collect();
    let Some(first) = present.first() else { return Ok(own) };
    if !replace {
        let more = match present.len() - 1 {
            0 => " is".to_owned(),
            1 => " and another are".to_owned(),
            more => format!(" and {more} others are"),
        };
        return Err(Error::new(format!("`{}`{more} there already", first.display())).with_hint(format!(
            "to replace what an earlier `init` wrote: {}; to write elsewhere: {}",
            plan.commands[0], plan.commands[1]
        )));
    }
    // What is not as it was written, and what has to be moved away to keep it.
    let mut changed: Vec<(PathBuf, &Path)> = Vec::new();
    if there(&plan.toml.as_path()) && !own.is_described() {
        // All that it names belongs to it.
        changed.push((plan.toml.clone(), &plan.toml));
        changed.extend(present.iter().filter(|path| ***path != plan.toml).map(|path| (path.to_path_buf(), *path)));
    } else {
        for ((path, text), (list, _)) in lists.iter().zip(&plan.lists).filter(|((path, _), _)| there(&path.as_path())) {
            if !own.has_list(list, path) && !provenance::is(path, text.as_bytes()) {
                changed.push((path.clone(), path));
            }
        }
        if let Some(masks) = drawn.filter(there)
            && let Some(strange) = provenance::foreign(masks, plan)
        {
            changed.push((strange, masks));
        }
    }
    let Some((first, _)) = changed.first() else { return Ok(own) };
    let away: Vec<String> = changed.iter().map(|(_, path)| format!("`{}`", path.display())).collect();
    Err(Error::new(format!("`{}` is there, and `init` did not write it as it is", first.display())).with_hint(format!(
        "move {} away, or write elsewhere: {}",
        away.join(", "),
        plan.commands[1]
    )))
}
