//! What names tell: images without masks and masks without images, lists, folders.

use std::collections::HashSet;
use std::path::Path;

use super::fault::{Example, Fault, Faults, Level};
use super::naming;
use crate::data::Split;
use crate::data::pairs::{Pair, Pairs, Problem, is_empty, stem};
use crate::data::spec::{DatasetSpec, SplitSpec};
use crate::data::walk::walk;

/// Endings of pictures, of which some cannot be read.
const PICTURES: [&str; 10] = ["jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp", "heic", "avif"];

/// Adds what is wrong with the names in all splits.
pub(super) fn judge(
    spec: &DatasetSpec,
    base: &Path,
    splits: &[(Split, &SplitSpec)],
    found: &[Pairs],
    faults: &mut Faults,
) {
    for ((split, files), pairs) in splits.iter().zip(found) {
        for problem in &pairs.problems {
            add_problem(problem, files, faults);
        }
        if pairs.pairs.is_empty() && pairs.lacking.is_empty() && pairs.problems.is_empty() {
            let error = is_empty(&spec.name, *split, base, files);
            let example = Example::file(&base.join(files.list.as_ref().unwrap_or(&files.images)));
            let fault = Fault::new(Level::Fault, "empty-split", error.to_string(), error.remedy().unwrap_or_default());
            faults.add(fault.unit("split"), example);
        }
        if !pairs.lacking.is_empty() {
            lacking_masks(*split, files, base, pairs, faults);
        }
        names(pairs, files, faults);
    }
    for (at, (_, files)) in splits.iter().enumerate() {
        let same = |(_, other): &&(Split, &SplitSpec)| other.masks == files.masks;
        let shared: Vec<usize> = (0..splits.len()).filter(|other| same(&&splits[*other])).collect();
        // Of a folder with lists, it cannot be told what should be used.
        if shared[0] == at && shared.iter().all(|other| splits[*other].1.list.is_none()) {
            let pairs: Vec<&Pairs> = shared.iter().map(|other| &found[*other]).collect();
            orphans(base, files, &pairs, faults);
        }
    }
}

fn add_problem(problem: &Problem, files: &SplitSpec, faults: &mut Faults) {
    let error = problem.error(files);
    let remedy = error.remedy().unwrap_or_default();
    let new = |code, what: &str| Fault::new(Level::Fault, code, what, remedy);
    let (fault, path) = match problem {
        Problem::Folder(path, _) => (new("unreadable-folder", "folders that cannot be read").unit("folder"), path),
        Problem::SameStem(path, _) => (new("same-stem", "images that would share one mask"), path),
        Problem::List(path, _) => (new("unreadable-list", "lists that cannot be read"), path),
        Problem::ListedTwice { list, .. } => (new("listed-twice", "images that a list names again").unit("line"), list),
        Problem::NotThere { list, .. } => (new("not-there", "names in a list that are no image").unit("line"), list),
    };
    faults.add(fault, Example::file(path).note(error.to_string()));
}

/// Images without masks: by a rule of names that would find them, if there is one.
fn lacking_masks(split: Split, files: &SplitSpec, base: &Path, pairs: &Pairs, faults: &mut Faults) {
    let folder = base.join(&files.masks);
    let present = walk(&folder);
    let shown = folder.display();
    let example = |pair: &Pair| Example::file(&pair.image).note(format!("no `{}`", pair.mask.display()));
    let new = |code, remedy| Fault::new(Level::Fault, code, format!("images of [{split}] without a mask"), remedy);
    let fault = if let Some((path, error)) = present.unreadable.first() {
        new("mask-missing", format!("check `masks` of [{split}]: `{}` cannot be read ({error})", path.display()))
    } else if present.files.is_empty() {
        new("mask-missing", format!("check `masks` of [{split}]: `{shown}` is empty"))
    } else if let Some(fault) = other_rule(split, files, base, pairs, &present.files) {
        fault
    } else {
        new("mask-missing", "add the masks, or leave the images out with a `list`".to_string())
            .cause(format!("`{shown}` holds for instance `{}`", present.files[0].0))
    };
    let shown = pairs.lacking.iter().take(8).map(example);
    faults.add_many(fault, pairs.lacking.len(), shown);
}

/// Masks are there under other names.
fn other_rule(
    split: Split,
    files: &SplitSpec,
    base: &Path,
    pairs: &Pairs,
    masks: &[(String, std::path::PathBuf)],
) -> Option<Fault> {
    let images = base.join(&files.images);
    let name = |pair: &Pair| Some(pair.image.strip_prefix(&images).ok()?.to_str()?.to_string());
    let all: Vec<String> = pairs.lacking.iter().chain(&pairs.pairs).filter_map(name).collect();
    let lacking = &all[..pairs.lacking.len().min(all.len())];
    fn borrow(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }
    let masks: Vec<&str> = masks.iter().map(|(name, _)| name.as_str()).collect();
    let apart = files.images != files.masks;
    let what = format!("images of [{split}] whose mask has another name");
    let new = |remedy: String| Fault::new(Level::Fault, "mask-name", what.clone(), remedy);

    if let Some((rule, hits)) = naming::guess(&borrow(&all), &masks, apart)
        && hits > pairs.pairs.len()
    {
        let mut toml = format!("[{split}]\nmask_suffix = {}", serde_json::Value::from(rule.mask_suffix.as_str()));
        if let Some(suffix) = &rule.image_suffix {
            toml += &format!("\nimage_suffix = {}", serde_json::Value::from(suffix.as_str()));
        }
        let cause = format!("{hits} of {} images have a mask that ends in `{}`", all.len(), rule.mask_suffix);
        return Some(new("write into the dataset's TOML".to_string()).cause(cause).toml(toml));
    }
    // A few masks only, called otherwise than the rest.
    if let Some((rule, hits)) = naming::guess(&borrow(lacking), &masks, apart)
        && 2 * hits > lacking.len()
    {
        let first = lacking.iter().find_map(|image| Some((image, rule.mask(image)?)))?;
        let cause = format!("theirs end in `{}`: `{}` has `{}`", rule.mask_suffix, first.0, first.1);
        return Some(new(format!("rename them to end in `{}` like the others", files.mask_suffix)).cause(cause));
    }
    let lower: HashSet<String> = masks.iter().map(|name| name.to_lowercase()).collect();
    let wanted = |image: &String| Some(format!("{}{}", stem(image, files)?, files.mask_suffix).to_lowercase());
    if lacking.iter().all(|image| wanted(image).is_some_and(|mask| lower.contains(&mask))) {
        let cause = "the names differ in capital letters only";
        return Some(new("rename the masks to the letters of their images".to_string()).cause(cause));
    }
    let (from, to, ending) = naming::guess_prefix(&borrow(lacking), &masks)?;
    let folder = base.join(&files.masks);
    let cause = format!("images begin with `{from}` and masks with `{to}`");
    let command =
        format!("run: cd '{}' && for f in {to}*{ending}; do mv \"$f\" \"{from}${{f#{to}}}\"; done", folder.display());
    Some(new(command).cause(cause))
}

/// What is beside the images of one split.
fn names(pairs: &Pairs, files: &SplitSpec, faults: &mut Faults) {
    for path in &pairs.walked.loops {
        let what = "links to a folder that they lie in, which are not followed";
        faults.add(Fault::new(Level::Warning, "link-loop", what, "remove the link"), Example::file(path));
    }
    for path in &pairs.walked.unnamed {
        let what = "files whose name is not UTF-8, which are not read";
        faults.add(Fault::new(Level::Warning, "name-not-utf8", what, "rename them"), Example::file(path));
    }
    let trimmed = |pair: &&Pair| pair.stem.split('/').any(|part| part.trim() != part);
    for pair in pairs.pairs.iter().filter(trimmed) {
        let what = "names that begin or end with a space, which a list cannot name";
        faults.add(
            Fault::new(Level::Warning, "name-with-space", what, "rename image and mask"),
            Example::file(&pair.image),
        );
    }
    for (name, path) in &pairs.walked.files {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let picture = PICTURES.contains(&ending.to_ascii_lowercase().as_str());
        let is_mask = files.images == files.masks && name.ends_with(&files.mask_suffix);
        if !picture || is_mask || stem(name, files).is_some() {
            continue;
        }
        let (what, remedy) = match &files.image_suffix {
            Some(suffix) => (
                format!("pictures among the images that do not end in `{suffix}` and are not read"),
                "change or leave out `image_suffix`, or rename them".to_string(),
            ),
            None => (
                format!("pictures among the images that are not read: .{ending}"),
                format!("convert them to PNG: magick mogrify -format png *.{ending}"),
            ),
        };
        faults.add(Fault::new(Level::Warning, "not-read", what, remedy), Example::file(path));
    }
}

/// Masks that no image asks for.
fn orphans(base: &Path, files: &SplitSpec, pairs: &[&Pairs], faults: &mut Faults) {
    let all = || pairs.iter().flat_map(|pairs| pairs.pairs.iter().chain(&pairs.lacking));
    let wanted: HashSet<&Path> = all().map(|pair| pair.mask.as_path()).collect();
    let images: HashSet<&Path> = all().map(|pair| pair.image.as_path()).collect();
    let masks = walk(&base.join(&files.masks)).files;
    let orphan = |(name, path): &&(String, std::path::PathBuf)| {
        name.ends_with(&files.mask_suffix) && !wanted.contains(path.as_path()) && !images.contains(path.as_path())
    };
    let orphans: Vec<_> = masks.iter().filter(orphan).collect();
    // Where images lack masks too, that is told with them.
    if orphans.is_empty() || pairs.iter().any(|pairs| !pairs.lacking.is_empty()) {
        return;
    }
    let fault = Fault::new(
        Level::Warning,
        "image-missing",
        "masks without an image",
        "add the images, or remove the masks; training does not use them",
    );
    faults.add_many(fault, orphans.len(), orphans.iter().take(8).map(|(_, path)| Example::file(path)));
}
