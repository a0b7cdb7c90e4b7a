//! The recipe and the data of a run, and whether they still are what they were.
//!
//! A run that is resumed with other images or another learning rate than it started with ends in weights that belong to
//! neither. So every checkpoint carries the recipe and the checksums of the data, and a resumed run is held to them.
//! Runs of early versions have less of that, and are held to what they have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{CONFIG, MANIFEST, MODEL};
use crate::config::Config;
use crate::dataset::Split;
use crate::dataset::spec::DatasetSpec;
use crate::error::{Error, Result};
use crate::files;
use crate::model_file::{self, ModelCard};
use crate::run::checkpoint::{Checkpoints, DATA};
use crate::run::file_checksums::{ChecksumReader, FileChecksums, SplitChecksums, content};
use crate::run::fingerprint::{Data, Fingerprint};
use crate::run::{file_checksums, manifest};
use crate::text::{Rest, shell_word, shortened};

/// Differences that are reported; of more there is the number.
const TOLD: usize = 8;

/// The recipe that the run in the folder `run` started with, if it is known.
fn recipe(run: &Path) -> Result<Option<Config>> {
    let kept = Checkpoints::new(run, 1).newest(CONFIG)?;
    let (path, text) = match kept {
        Some((path, text)) => (path, String::from_utf8_lossy(&text).into_owned()),
        None => match manifest::read(run).ok().flatten().and_then(|manifest| manifest.recipe) {
            Some(text) => (run.join(MANIFEST), text),
            None => return Ok(None),
        },
    };
    Config::parse(&text, &path.display().to_string(), &[]).map(Some)
}

/// What can be done about a recipe or data that are others than they were.
fn remedy(run: &Path, restore: &str, now: &str) -> String {
    let (own, recipe) = (shell_word(run), shell_word(&run.join(CONFIG)));
    let newest = Checkpoints::new(run, 1).list().ok().and_then(|mut all| all.pop());
    match newest {
        Some((_, folder)) => {
            let weights = folder.join(MODEL);
            let start = shell_word(Path::new(&format!("train.pretrained={}", weights.display())));
            format!(
                "{restore}; {now} start another run, from these weights with train.pretrained = \"{}\": `structtoken train {recipe} --out OTHER --set {start}`",
                weights.display()
            )
        }
        None => format!(
            "it has no checkpoint yet, so nothing is lost: start it again with `structtoken train {recipe} --out {own}`"
        ),
    }
}

/// The advice to put the recipe back that a run started with, where a checkpoint has it.
pub(super) fn restore_recipe(run: &Path) -> Option<String> {
    let (path, _) = Checkpoints::new(run, 1).newest(CONFIG).ok()??;
    Some(format!("restore the recipe with `cp {} {}`", shell_word(&path), shell_word(&run.join(CONFIG))))
}

/// Fails if `found`, the recipe in the folder `run`, is not the one that the run started with.
pub(super) fn same_recipe(run: &Path, found: &Config) -> Result<()> {
    let differences = differences_of_recipe(run, found)?;
    if differences.is_empty() {
        return Ok(());
    }
    let own = run.join(CONFIG);
    let restore = restore_recipe(run)
        .unwrap_or_else(|| format!("in `{}`, restore the values on the left of each arrow", own.display()));
    Err(Error::new(format!(
        "`{}` is no longer the recipe that `{}` was started with: {}",
        own.display(),
        run.display(),
        shorten(differences.iter().map(String::as_str))
    ))
    .with_hint(remedy(run, &restore, "to continue with other settings")))
}

fn differences_of_recipe(run: &Path, found: &Config) -> Result<Vec<String>> {
    match recipe(run)? {
        Some(original) => original.differences(found),
        None => of_card(run, found),
    }
}

/// In what a recipe differs from the one of a run of an early version, as far as its weights tell.
fn of_card(run: &Path, found: &Config) -> Result<Vec<String>> {
    let Some(card) = newest_card(run)? else { return Ok(Vec::new()) };
    let mut original = found.clone();
    (original.model, original.data, original.eval) = (card.model, card.data, card.eval);
    if let Some(training) = card.training {
        let train = &mut original.train;
        (train.iterations, train.batch_size, train.seed) = (training.iterations, training.batch_size, training.seed);
    }
    let mut differences = original.differences(found)?;
    // Of tables of positions that were counted otherwise; the weights themselves tell whether they fit.
    differences.retain(|difference| !difference.starts_with("model.backbone.img_size"));
    Ok(differences)
}

/// What the newest weights of a run say about themselves.
fn newest_card(run: &Path) -> Result<Option<ModelCard>> {
    let folders = Checkpoints::new(run, 1).list()?;
    Ok(folders.iter().rev().find_map(|(_, folder)| model_file::read_card(folder.join(MODEL)).ok()))
}

/// The data that the run in the folder `run` started with, as far as it tells.
pub(super) fn data(run: &Path) -> Result<Option<Data>> {
    if let Some((path, text)) = Checkpoints::new(run, 1).newest(DATA)? {
        return files::parse_json(&text).map(Some).map_err(|error| Error::file("read", &path, error));
    }
    let Some(manifest) = manifest::read(run).ok().flatten() else { return Ok(None) };
    let description = match manifest.description {
        Some(description) => description,
        None => newest_card(run)?.map_or(serde_json::Value::Null, |card| card.label_map),
    };
    Ok(Some(Data { description, splits: manifest.data }))
}

/// In what data differ from those of before, in words. What was listed may be of other data, or missing: then only
/// numbers are reported.
pub(super) fn differences(
    before: &Data,
    now: &Data,
    listed: Option<&SplitChecksums>,
    checksums: &SplitChecksums,
) -> Vec<String> {
    let mut found = Vec::new();
    if !before.description.is_null() {
        found.extend(
            json_differences("", &meaning(&before.description), &meaning(&now.description))
                .into_iter()
                .map(|difference| format!("the dataset TOML: other classes, or another label map: {difference}")),
        );
    }
    for split in &now.splits {
        let Some(earlier) = before.splits.iter().find(|earlier| earlier.split == split.split) else { continue };
        let same = match (&earlier.content, &split.content) {
            (Some(earlier), Some(now)) => earlier == now,
            _ => earlier.crc32 == split.crc32,
        };
        if same && earlier.images == split.images {
            continue;
        }
        let of = |all: &SplitChecksums| {
            all.iter().find(|(name, _)| name.to_string() == split.split).map(|(_, checksums)| checksums.clone())
        };
        let known = listed.and_then(of).filter(|checksums| content(checksums) == earlier.content);
        let detail = match (known, of(checksums)) {
            (Some(before), Some(now)) => file_checksums::changes(&before, &now).join("; "),
            _ => "other names or masks".to_owned(),
        };
        let count = match earlier.images == split.images {
            true => format!("{} images", split.images),
            false => format!("{} images before, {} now", earlier.images, split.images),
        };
        found.push(format!("[{}]: {detail}, of {count}", split.split));
    }
    found
}

/// What a description says of the meaning of masks: where files are is given by the files, and what an earlier version
/// did not write has its default.
fn meaning(description: &serde_json::Value) -> serde_json::Value {
    let spec = || -> Option<serde_json::Value> {
        let spec: DatasetSpec = toml::Value::try_from(description).ok()?.try_into().ok()?;
        serde_json::to_value(spec).ok()
    };
    let mut found = spec().unwrap_or_else(|| description.clone());
    if let Some(fields) = found.as_object_mut() {
        fields.retain(|key, _| !["name", "root", "train", "val", "test"].contains(&key.as_str()));
    }
    found
}

/// The places at which two JSON values differ.
fn json_differences(place: &str, before: &serde_json::Value, now: &serde_json::Value) -> Vec<String> {
    use serde_json::Value::{Array, Null, Object};
    let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    match (before, now) {
        _ if before == now => Vec::new(),
        (Object(before), Object(now)) => {
            let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
            let of = |all: &serde_json::Map<_, _>, key: &String| all.get(key).cloned().unwrap_or(Null);
            keys.into_iter().flat_map(|key| json_differences(&below(key), &of(before, key), &of(now, key))).collect()
        }
        (Array(before), Array(now)) if before.len() == now.len() => {
            let pairs = before.iter().zip(now).enumerate();
            pairs.flat_map(|(at, (before, now))| json_differences(&format!("{place}[{at}]"), before, now)).collect()
        }
        _ => {
            let shown = |value: &serde_json::Value| match value.to_string() {
                long if long.chars().count() > 60 => long.chars().take(59).chain(['…']).collect(),
                short => short,
            };
            vec![format!("{place}: {} -> {}", shown(before), shown(now))]
        }
    }
}

fn shorten<'a>(differences: impl Iterator<Item = &'a str>) -> String {
    shortened(differences, TOLD, Rest::Counted)
}

/// Fails if the data that a run is resumed with are not those it started with.
pub(super) fn check_run_data(run: &Path, before: &Data, now: &Data, checksums: &SplitChecksums) -> Result<()> {
    let listed = file_checksums::read(run);
    let differences = differences(before, now, listed.as_ref(), checksums);
    if differences.is_empty() {
        return Ok(());
    }
    let mut restore = "restore the files to continue".to_owned();
    if before.splits.iter().all(|split| split.content.is_none()) {
        // It has no checksum of its own, so it may be what has changed.
        let manifest = run.join(MANIFEST);
        restore += &format!(", or remove `{}` to continue without this check", manifest.display());
    }
    Err(Error::new(format!(
        "the data is not what `{}` was trained on: {}",
        run.display(),
        shorten(differences.iter().map(String::as_str))
    ))
    .with_hint(remedy(run, &restore, "to train on the data as it is now")))
}

/// Fails if a run in one of these folders started with another recipe than this one.
///
/// # Errors
/// The keys that differ.
pub fn check_recipe(run: &Path, recipe: &Config) -> Result<()> {
    let differences = differences_of_recipe(run, recipe)?;
    if differences.is_empty() {
        return Ok(());
    }
    let shortened = shorten(differences.iter().map(String::as_str));
    Err(Error::new(format!("`{}` was made by another recipe: {shortened}", run.display()))
        .with_hint("restore those values to continue; or start all runs again in another folder with --out"))
}

/// Fails if the data are not those that each of these runs, with its recipe, was made on.
///
/// # Errors
/// What has changed; or a file that cannot be read.
pub fn check_runs_data(runs: &[(PathBuf, Config)]) -> Result<()> {
    let mut sums = ChecksumReader::default();
    for (run, config) in runs {
        let Some(before) = data(run)? else { continue };
        let mut checksums = BTreeMap::new();
        let mut splits = Vec::new();
        for split in [Split::Train, Split::Val] {
            let dataset = config.data.open(split)?;
            let files = sums.read_split(split, dataset.as_ref(), &mut |_| ())?;
            let pixels = if before.knows(split) { None } else { dataset.survey()?.map(|survey| survey.pixels) };
            splits.push(Fingerprint::of(split, dataset.as_ref(), pixels.as_deref()).with_content(content(&files)));
            checksums.insert(split, files);
        }
        let now = Data { description: config.data.label_map()?, splits };
        check_run_data(run, &before, &now, &checksums).map_err(|error| {
            Error::new("runs of one set belong together")
                .with_source(error)
                .with_hint("restore the data to continue; or start all runs again in another folder with --out")
        })?;
    }
    Ok(())
}

/// The data that a run was made on, with their files where those are known. With `parts`, all of them are one split;
/// `None` where that is not known.
fn made_on(run: &Path, parts: bool) -> Result<Option<(Data, Option<SplitChecksums>)>> {
    let Some(mut data) = data(run)? else { return Ok(None) };
    // A list that was damaged is none.
    let noted = |split: Split| data.splits.iter().find(|one| one.split == split.to_string())?.content.clone();
    let listed = file_checksums::read(run);
    let listed = listed.filter(|listed| listed.iter().all(|(split, checksums)| content(checksums) == noted(*split)));
    if !parts {
        return Ok(Some((data, listed)));
    }
    let Some(listed) = listed else { return Ok(None) };
    let mut all: FileChecksums = listed.into_values().flatten().collect();
    all.sort_unstable();
    let names = all.iter().map(|(name, _)| name.clone());
    data.splits = vec![Fingerprint::new(Split::Train, names, None).with_content(content(&all))];
    Ok(Some((data, Some(BTreeMap::from([(Split::Train, all)])))))
}

/// Fails if runs were not made on the same data. With `parts`, as folds have them, training and validation images are
/// taken together.
///
/// # Errors
/// Which runs differ, and in what.
pub fn check_runs_share_data(runs: &[PathBuf], parts: bool) -> Result<()> {
    let mut first: Option<(&PathBuf, Data, Option<SplitChecksums>)> = None;
    for run in runs {
        let Some((data, checksums)) = made_on(run, parts)? else { continue };
        let Some((of, before, listed)) = &first else {
            first = Some((run, data, checksums));
            continue;
        };
        let differences = differences(before, &data, listed.as_ref(), &checksums.unwrap_or_default());
        if !differences.is_empty() {
            return Err(Error::new(format!(
                "`{}` and `{}` were not trained on the same data: {}",
                of.display(),
                run.display(),
                shorten(differences.iter().map(String::as_str))
            ))
            .with_hint(
                "restore the data, remove the folders of the runs that were trained on other data, and continue: \
                   they are run again",
            ));
        }
    }
    Ok(())
}
