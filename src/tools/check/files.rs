//! Faults that names show: images without masks and masks without images, lists, folders.

use std::collections::HashSet;
use std::path::Path;

use crate::dataset::join::Joiner;
use crate::dataset::leftover::Leftover;
use crate::dataset::pairs::{Pair, Pairs, Problem, is_empty, stem};
use crate::dataset::spec::{DatasetSpec, SplitSpec};
use crate::dataset::walk::walk;
use crate::dataset::{Split, leftover};
use crate::tools::check::fault::{Example, Fault, Faults, Severity};
use crate::tools::check::mask_names;

/// Adds what is wrong with the names in all splits.
pub(super) fn judge(
    spec: &DatasetSpec,
    base: &Path,
    splits: &[(Split, &SplitSpec)],
    found: &[Pairs],
    joiner: Option<&Joiner>,
    faults: &mut Faults,
) {
    for ((split, files), pairs) in splits.iter().zip(found) {
        for problem in &pairs.problems {
            add_problem(problem, files, faults);
        }
        if pairs.pairs.is_empty() && pairs.lacking.is_empty() && pairs.problems.is_empty() {
            let error = is_empty(&spec.name, *split, base, files);
            let example = Example::file(&base.join(files.list.as_ref().unwrap_or(&files.images)));
            let fault = Fault::new(Severity::Fault, "empty-split", error.to_string(), error.hint().unwrap_or_default());
            faults.add(fault.unit("split"), example);
        }
        if !pairs.lacking.is_empty() {
            lacking_masks(spec, *split, files, base, pairs, faults);
        }
        names(pairs, faults);
    }
    for Leftover { code, what, remedy, files } in leftover::of(base, splits, found, joiner) {
        let examples = files.iter().take(8).map(|path| Example::file(path));
        faults.add_many(Fault::new(Severity::Warning, code, what, remedy), files.len(), examples);
    }
}

fn add_problem(problem: &Problem, files: &SplitSpec, faults: &mut Faults) {
    let error = problem.error(files);
    let remedy = error.hint().unwrap_or_default();
    let new = |code, what: &str| Fault::new(Severity::Fault, code, what, remedy);
    let (fault, path) = match problem {
        Problem::Folder(path, _) => (new("unreadable-folder", "folders that cannot be read").unit("folder"), path),
        Problem::Masks(path, _) => (new("unreadable-folder", "folders that cannot be read").unit("folder"), path),
        Problem::SameMask { mask, .. } => (new("same-mask", "masks that belong to two images"), mask),
        Problem::SameStem(path, _) => (new("same-stem", "images that would share one mask"), path),
        Problem::List(path, _) => (new("unreadable-list", "lists that cannot be read"), path),
        Problem::ListedTwice { list, .. } => (new("listed-twice", "images that a list names twice").unit("line"), list),
        Problem::NotThere { list, .. } => (new("not-there", "names in a list that are not images").unit("line"), list),
    };
    faults.add(fault, Example::file(path).note(error.to_string()));
}

/// Images without masks: by a rule of names that would find them, if there is one.
fn lacking_masks(spec: &DatasetSpec, split: Split, files: &SplitSpec, base: &Path, pairs: &Pairs, faults: &mut Faults) {
    let folder = base.join(&files.masks);
    let present = walk(&folder);
    let shown = folder.display();
    let example = |pair: &Pair| Example::file(&pair.image).note(format!("no `{}`", pair.mask.display()));
    let new = |code, remedy| Fault::new(Severity::Fault, code, format!("images of [{split}] without a mask"), remedy);
    let fault = if let Some(join) = &spec.join {
        let names: Vec<String> = join.masks.iter().map(|mask| format!("`{}`", mask.file)).collect();
        let cause = format!("`{shown}` holds nothing named {} for them", names.join(" or "));
        let remedy = "add the masks (an empty one if need be), or leave the images out with a `list`";
        new("mask-missing", remedy.to_string()).cause(cause)
    } else if let Some((path, error)) = present.unreadable.first() {
        new("mask-missing", format!("check `masks` of [{split}]: `{}` cannot be read ({error})", path.display()))
    } else if present.files.is_empty() {
        new("mask-missing", format!("check `masks` of [{split}]: `{shown}` is empty"))
    } else if let Some(fault) = other_rule(split, files, base, pairs, &present.files) {
        fault
    } else {
        new("mask-missing", "add the masks, or leave the images out with a `list`".to_string())
            .cause(format!("`{shown}` holds, for instance, `{}`", present.files[0].0))
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
    let new = |remedy: String| Fault::new(Severity::Fault, "mask-name", what.clone(), remedy);

    if let Some((rule, hits)) = mask_names::guess(&borrow(&all), &masks, apart)
        && hits > pairs.pairs.len()
    {
        let mut toml = format!("[{split}]\nmask_suffix = {}", serde_json::Value::from(rule.mask_suffix.as_str()));
        if let Some(suffix) = &rule.image_suffix {
            toml += &format!("\nimage_suffix = {}", serde_json::Value::from(suffix.as_str()));
        }
        let cause = format!("{hits} of {} images have a mask that ends in `{}`", all.len(), rule.mask_suffix);
        return Some(
            new(format!("write under [{split}] of the dataset's TOML, instead of the lines of the same keys"))
                .cause(cause)
                .toml(toml),
        );
    }
    // A few masks only, called otherwise than the rest: no image has them.
    let taken: HashSet<&Path> = pairs.pairs.iter().map(|pair| pair.mask.as_path()).collect();
    let folder = base.join(&files.masks);
    let masks: Vec<&str> = masks.into_iter().filter(|mask| !taken.contains(folder.join(mask).as_path())).collect();
    if let Some((rule, hits)) = mask_names::guess(&borrow(lacking), &masks, apart)
        && 2 * hits > lacking.len()
    {
        let first = lacking.iter().find_map(|image| Some((image, rule.mask(image)?)))?;
        let cause = format!("their masks end in `{}`: `{}` has `{}`", rule.mask_suffix, first.0, first.1);
        return Some(new(format!("rename them to end in `{}` like the others", files.mask_suffix)).cause(cause));
    }
    let lower: HashSet<String> = masks.iter().map(|name| name.to_lowercase()).collect();
    let wanted = |image: &String| Some(format!("{}{}", stem(image, files)?, files.mask_suffix).to_lowercase());
    if lacking.iter().all(|image| wanted(image).is_some_and(|mask| lower.contains(&mask))) {
        let cause = "the names differ only in capital letters";
        return Some(new("rename the masks exactly like their images".to_string()).cause(cause));
    }
    let (from, to, ending) = mask_names::guess_prefix(&borrow(lacking), &masks)?;
    let cause = format!("images begin with `{from}` and masks with `{to}`");
    Some(new(format!("run: {}", mask_names::rename(&folder, &from, &to, &ending))).cause(cause))
}

/// Names that a list could not hold.
fn names(pairs: &Pairs, faults: &mut Faults) {
    let trimmed = |pair: &&Pair| pair.stem.split('/').any(|part| part.trim() != part);
    for pair in pairs.pairs.iter().filter(trimmed) {
        let what = "names that begin or end with a space, which a list cannot name";
        faults.add(
            Fault::new(Severity::Warning, "name-with-space", what, "rename image and mask"),
            Example::file(&pair.image),
        );
    }
}
