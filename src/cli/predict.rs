//! `structtoken predict`.

pub(crate) mod arguments;
pub(crate) mod labeller;
pub(crate) mod pipeline;
pub(crate) mod spent;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::cli::End;
use crate::cli::console::{StepProgress, bar};
use crate::cli::list::{self, Away, List};
use crate::cli::outputs::{Collections, Outputs, file_name, options, others};
use crate::cli::shard;
use crate::error::{Blame, Error, Result};
use crate::files::urls::{shown, url_or_path};
use crate::image::outlines::OutlineOptions;
use crate::predict::earlier_predictions::is_prediction;
use crate::shard::Shard;
use crate::tools::init::{Role, Roles};
use crate::{device, files, model_file};

use arguments::Arguments;
use labeller::{Labeller, Names};

pub(crate) fn run(mut arguments: Arguments) -> Result<End> {
    let away = Away::of(&mut arguments.out)?;
    let inputs = arguments.inputs.iter().filter_map(|input| input.to_str());
    let urls =
        inputs.map(|input| url_or_path(input).map(|is_url| is_url.then_some(input))).collect::<Result<Vec<_>>>()?;
    let url = urls.into_iter().flatten().next();
    if let Some(url) = url.or(away.as_ref().filter(|_| arguments.list.is_none()).map(|away| &*away.url)) {
        return Err(Error::new(format!("`{}` is in a store, which takes a list of images", shown(url))).with_hint(
            "write paths and URLs into a file, one per line, and pass it with --list; or pass them to --list - by a pipe",
        ));
    }
    let arguments = arguments;
    let options = options(&arguments)?;
    fit_together(&arguments)?;
    let shard = arguments.shard.map(|chosen| shard::find(Some(chosen), arguments.count)).transpose()?;
    if arguments.verify && !arguments.only_failed {
        return list::verify(&arguments, shard, away.as_ref());
    }
    let shard = shard.unwrap_or(Shard::ALL);
    let images = if arguments.list.is_some() { Vec::new() } else { shard.of(images(&arguments)?) };
    let (device, _) = device::open(&arguments.computing.device)?;
    let (model, card) = model_file::open(&arguments.model, &device)?;
    let config = card.to_use(&arguments.changes, &arguments.model)?;
    let mut labeller = Labeller::new(model, config, card.classes, device, &arguments, options)?;
    if let Some(source) = &arguments.list {
        let list = List { source, shard, away: away.as_ref() };
        let end = list::run(&list, &arguments, &mut labeller);
        labeller.say_remarks();
        return end;
    }
    one_by_one(&images, &arguments, options, &mut labeller)
}

/// Fails where one option asks for something that another excludes.
fn fit_together(arguments: &Arguments) -> Result<()> {
    let list = arguments.list.is_some();
    for (given, option) in [(arguments.only_failed, "--only-failed"), (arguments.verify, "--verify")] {
        if given && !list {
            return Err(Error::usage(format!("{option} goes with a list, whose manifest it reads"))
                .with_hint("repeat the command with the --list that was labelled"));
        }
    }
    // All manifests of a folder are looked at without a shard.
    if !arguments.verify || arguments.only_failed {
        shard::check(arguments.shard, arguments.count)?;
    }
    if arguments.out.to_str().is_some_and(|out| out.contains(shard::PLACE)) {
        return Err(Error::usage(format!("`{}` would be a folder for each shard", arguments.out.display()))
            .with_hint("name one folder for all of them with --out: each shard has a manifest of its own there"));
    }
    if !Collections::paths(arguments).is_empty() && (list || arguments.shard.is_some()) {
        return Err(Error::usage("one COCO file cannot be written by several shards, nor by a list that is continued")
            .with_hint("use a format with a file per image: --format png, geojson, label-studio, stats or npy"));
    }
    Ok(())
}

/// Labels images that were named one by one, or by their folders.
fn one_by_one(
    images: &[(PathBuf, PathBuf)],
    arguments: &Arguments,
    options: OutlineOptions,
    labeller: &mut Labeller,
) -> Result<End> {
    // An image counts for as many steps, so that a large one moves the bar while it is looked at.
    const STEPS: u64 = 1000;
    let progress = bar("{wide_bar} {msg}  {eta} left");
    progress.set_length(images.len() as u64 * STEPS);
    let (names, read, writer) = (labeller.classes().names.clone(), labeller.reader(), labeller.writer());
    let mut collections = Collections::begin(arguments, OutlineOptions { min_area: 0, ..options }, &names)?;
    let (mut to_read, bytes) = (images.iter(), labeller.bytes());
    let mut failed: Vec<Error> = Vec::new();
    let (mut done, mut written) = (0, 0);
    let end = pipeline::run(
        |_| {
            let (path, name) = to_read.next()?;
            Some((Names { path: path.clone(), output: name.clone(), image: file_name(path, name) }, read(path)))
        },
        |(_, found)| found.as_ref().map_or(0, |(image, _)| bytes(image)),
        |(called, found)| {
            progress.set_message(format!("{}/{}", done + 1, images.len()));
            let mut within = |share: f64| progress.set_position(done * STEPS + (share * STEPS as f64) as u64);
            let labelled = found.and_then(|found| labeller.label(called.clone(), found, &mut within));
            done += 1;
            progress.set_position(done * STEPS);
            Ok((called.image, labelled))
        },
        |(image, labelled)| {
            match labelled.and_then(|labelled| writer.write(labelled)) {
                Ok((labels, files)) => {
                    files.print(|path| path.to_string_lossy().into_owned());
                    collections.add(&image, &labels)?;
                    written += 1;
                }
                // All that follow would fail as well.
                Err(error) if images.len() == 1 || error.blame() == Blame::FullDisk => return Err(error),
                Err(error) => {
                    progress.suspend(|| crate::cli::report(&error));
                    failed.push(error);
                }
            }
            Ok(())
        },
        &|| false,
    );
    progress.finish_and_clear();
    labeller.say_remarks();
    end.map_err(|error| match images.len() {
        1 => error,
        all => Error::new(format!("stopped after {written} of {all} images")).with_source(error),
    })?;
    if failed.len() < images.len() {
        collections.finish(arguments)?;
    }
    match failed.len() {
        0 => Ok(End::Done),
        count => {
            crate::cli::report(
                &Error::new(format!("{count} of {} images could not be predicted", images.len()))
                    .with_hint("the errors above say why; all others are written"),
            );
            Ok(End::Partly)
        }
    }
}

/// Every image among the inputs, with the name its outputs get: folders keep their inner structure.
fn images(arguments: &Arguments) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for input in &arguments.inputs {
        if input.is_dir() {
            let before = found.len();
            let out = arguments.out.canonicalize().ok();
            let mut walk = FolderWalk { root: input, out, seen: BTreeSet::new(), earlier: Vec::new() };
            walk.enter(input, &mut found)?;
            let earlier = walk.left_out();
            only_images(input, before, &mut found);
            if found.len() == before {
                if let Some(earlier) = earlier {
                    return Err(Error::new(format!("`{}` holds no images but {earlier}", input.display()))
                        .with_hint("to label them anyway, pass the files"));
                }
                return Err(Error::new(format!("there are no images in `{}`", input.display()))
                    .with_hint(format!("images end in {}", ENDINGS.map(|ending| format!(".{ending}")).join(", "))));
            }
            if let Some(earlier) = earlier {
                talk!("note: `{}` holds {earlier}, left out; to label them too, pass the files", input.display());
            }
        } else {
            found.push((input.clone(), input.file_stem().unwrap_or_default().into()));
        }
    }
    found.sort();
    found.dedup();
    if !Collections::paths(arguments).is_empty() {
        Collections::check(&found)?;
    }
    let sources: BTreeSet<PathBuf> = found.iter().filter_map(|(path, _)| path.canonicalize().ok()).collect();
    let mut taken: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    for (path, name) in &found {
        for output in Outputs::of(arguments, name).paths() {
            if output.canonicalize().is_ok_and(|output| sources.contains(&output)) {
                return Err(Error::new(format!(
                    "`{}` is an image to predict, and would be overwritten",
                    output.display()
                ))
                .with_hint("choose another folder with --out"));
            }
            if let Some(other) = taken.insert(output.clone(), path) {
                return Err(Error::new(format!(
                    "`{}` and `{}` would be written to the same file",
                    other.display(),
                    path.display()
                ))
                .with_hint("predict them in two calls with a different --out"));
            }
        }
    }
    for path in Collections::paths(arguments) {
        taken.insert(path, Path::new(""));
    }
    if !arguments.overwrite {
        others(taken.keys())?;
    }
    // One of each folder tells of all, but for those that are folders themselves.
    let mut folder = None;
    for path in taken.keys() {
        if path.is_dir() || folder.replace(path.parent()) != Some(path.parent()) {
            files::ensure_writable(path)?;
        }
    }
    Ok(found)
}

/// Of the pictures from `before` on, which lie in `folder`: its images alone, if it is a dataset. Others are as many as
/// there were before.
fn only_images(folder: &Path, before: usize, found: &mut Vec<(PathBuf, PathBuf)>) {
    let steps = StepProgress::new("looking for masks");
    let roles = Roles::of(folder, &|done, all| steps.show(done, all));
    steps.clear();
    let roles = match roles {
        Ok(Some(roles)) => roles,
        Ok(None) => return,
        Err(error) => {
            let folder = folder.display();
            return talk!(
                "note: `{folder}` has folders of images and masks, but cannot be read as a dataset: {error}; all pictures in \
                 it are labelled, including masks; pass the folder of images to label only them"
            );
        }
    };
    let role: Vec<Role> = found[before..].iter().map(|(path, _)| roles.role(path)).collect();
    let count = |of: Role| role.iter().filter(|role| **role == of).count();
    let (images, masks, others) = (count(Role::Image), count(Role::Mask), count(Role::Other));
    if images == 0 || masks + others == 0 {
        return;
    }
    let first = |of: Role| found[before..].iter().zip(&role).find(|(_, role)| **role == of);
    let left = [(masks, Role::Mask, "masks"), (others, Role::Other, "pictures of other folders")];
    let left = left.iter().filter_map(|(count, role, what)| {
        let ((path, _), _) = first(*role)?;
        Some(format!("{what} ({count}, `{}` first)", path.display()))
    });
    talk!(
        "note: `{}` is a dataset: its images are labelled ({images}); left out: {}; to label these too, name their folders",
        folder.display(),
        left.collect::<Vec<_>>().join(" and ")
    );
    let mut role = role.into_iter();
    let mut at = 0;
    found.retain(|_| {
        at += 1;
        at <= before || role.next() == Some(Role::Image)
    });
}

/// The endings of images in folders.
const ENDINGS: [&str; 8] = ["jpg", "jpeg", "png", "tif", "tiff", "bmp", "gif", "webp"];

/// Finds images in a folder and those below it.
struct FolderWalk<'a> {
    root: &'a Path,
    /// What was predicted before is not an input.
    out: Option<PathBuf>,
    /// Folders that have been entered: links may lead in circles.
    seen: BTreeSet<PathBuf>,
    /// What was predicted into other folders, or beside the images, which is not an input either.
    earlier: Vec<PathBuf>,
}

impl FolderWalk<'_> {
    /// The earlier predictions that were met, in words.
    fn left_out(&self) -> Option<String> {
        let first = self.earlier.iter().min()?;
        let (count, first) = (self.earlier.len(), first.display());
        Some(match count {
            1 => format!("an earlier prediction (`{first}`)"),
            count => format!("earlier predictions ({count}, `{first}` first)"),
        })
    }

    fn enter(&mut self, folder: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
        let canonical = folder.canonicalize().map_err(|error| Error::file("read", folder, error))?;
        if (self.out.as_ref() == Some(&canonical) && folder != self.root) || !self.seen.insert(canonical) {
            return Ok(());
        }
        let entries = std::fs::read_dir(folder).map_err(|error| Error::file("read", folder, error))?;
        for entry in entries {
            let path = entry.map_err(|error| Error::file("read", folder, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                self.enter(&path, found)?;
            } else if ending == "png" && is_prediction(&path) {
                self.earlier.push(path);
            } else if ENDINGS.contains(&ending.as_str()) {
                let inner = path.strip_prefix(self.root).unwrap_or(&path).with_extension("");
                found.push((path.clone(), inner));
            } else if ["heic", "avif", "jxl", "jp2", "tga", "exr"].contains(&ending.as_str()) {
                talk!("skipped `{}`: its format is not supported", path.display());
            }
        }
        Ok(())
    }
}
