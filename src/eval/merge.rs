//! Evaluations of parts of a dataset, made apart and put together exactly.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::dataset::{Classes, Dataset};
use crate::error::{Error, Result};
use crate::eval::accumulate::{EvalAccumulator, EvalOptions};
use crate::files;
use crate::rng::fnv1a;
use crate::shard::Shard;

/// What the files call themselves; the number rises when they change.
const FORMAT: &str = "structtoken evaluation shard 1";

/// The part of the settings that is of the data.
pub const DATA: &str = "data";

/// What was evaluated, on what and how: equal for all shards of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Checksum of the weights.
    pub model: String,
    /// Names and colours of the classes.
    pub classes: Classes,
    /// The part of the dataset.
    pub split: String,
    /// How many images it has.
    pub images: usize,
    /// A hash of their names, in order.
    pub names: String,
    /// Preprocessing and inference.
    pub settings: serde_json::Value,
    /// What was counted.
    pub ask: EvalOptions,
}

impl Identity {
    /// The identity of an evaluation of the weights in the file `model` on one split.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn new(
        model: &Path,
        dataset: &dyn Dataset,
        split: impl std::fmt::Display,
        settings: serde_json::Value,
        ask: EvalOptions,
    ) -> Result<Self> {
        let bytes = files::read(model, files::UNLIMITED).map_err(|error| Error::file("read", model, error))?;
        Ok(Self {
            model: format!("{:08x}-{}", crc32fast::hash(&bytes), bytes.len()),
            classes: dataset.classes().clone(),
            split: split.to_string(),
            images: dataset.len(),
            names: hash((0..dataset.len()).map(|index| dataset.name(index))),
            settings,
            ask,
        })
    }

    /// Fails where it cannot be that of any evaluation: it was read from a file.
    fn check(&self) -> Result<()> {
        let (names, colors) = (self.classes.names.len(), self.classes.colors.len());
        match names == colors {
            true => Ok(()),
            false => Err(Error::new(format!("`identity.classes` has {names} names and {colors} colours"))),
        }
    }

    /// What differs from another evaluation, in words.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            ("of another model", self.model != other.model),
            ("of a dataset with other classes", self.classes != other.classes),
            ("of another split", self.split != other.split),
            ("of other images", (self.images, &self.names) != (other.images, &other.names)),
            ("of other data", self.settings.get(DATA) != other.settings.get(DATA)),
            ("with other inference settings", self.settings != other.settings),
            ("with other options", self.ask != other.ask),
        ];
        parts.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
    }
}

/// A shard of an evaluation, as its file holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardFile {
    format: String,
    shard: Shard,
    identity: Identity,
    #[serde(alias = "tally")]
    counts: EvalAccumulator,
}

impl ShardFile {
    /// The counts of one shard.
    pub fn new(shard: Shard, identity: Identity, counts: EvalAccumulator) -> Self {
        Self { format: FORMAT.to_owned(), shard, identity, counts }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|error| Error::new("cannot write counts").with_source(error))?;
        files::write(path, &json)
    }

    /// Reads and checks one.
    ///
    /// # Errors
    /// The file cannot be read, is something else, or its counts cannot be those of the shard it names.
    pub fn read(path: &Path) -> Result<Self> {
        let foreign = || format!("pass files that `structtoken eval MODEL --shard I/N --out FILE` wrote: `{FORMAT}`");
        let bytes =
            files::read(path, files::RECORD).map_err(|error| Error::file("read", path, error).with_hint(foreign()))?;
        let part: Self = files::parse_json(&bytes)
            .map_err(|error| Error::file("read the shard", path, error).with_hint(foreign()))?;
        if part.format != FORMAT {
            return Err(
                Error::new(format!("`{}` is not a shard of an evaluation", path.display())).with_hint(foreign())
            );
        }
        part.check().map_err(|error| {
            Error::file("use the shard", path, error).with_hint("the file is damaged: evaluate this shard again")
        })?;
        Ok(part)
    }

    fn check(&self) -> Result<()> {
        let Identity { images, classes, ask, .. } = &self.identity;
        self.identity.check()?;
        let (named, counted) = (classes.names.len(), self.counts.classes());
        if named != counted {
            let what = format!("`identity.classes` names {named} classes, and `counts.confusion` counts {counted}");
            return Err(Error::new(what));
        }
        self.counts.check(*images, *ask)?;
        // Every n-th index, without asking memory for as many as a file may claim.
        let mut expected = self.shard.range(*images);
        let complete = self.counts.indices().all(|index| expected.next() == Some(index)) && expected.next().is_none();
        if complete {
            Ok(())
        } else {
            Err(Error::new(format!("`counts.images` are not the images of shard {}", self.shard)))
        }
    }
}

/// Puts all shards of an evaluation together: the very counts of the whole, in whatever order they come.
///
/// # Errors
/// A shard that is missing, there twice, or of another evaluation than the first.
pub fn merge(parts: Vec<(PathBuf, ShardFile)>) -> Result<(Identity, EvalAccumulator)> {
    let mut parts = parts.into_iter();
    let Some((first_path, first)) = parts.next() else {
        return Err(
            Error::new("there are no shards to merge").with_hint("pass the files that `--shard I/N --out FILE` wrote")
        );
    };
    let (count, identity, mut counts) = (first.shard.count(), first.identity, first.counts);
    let mut seen = vec![(first.shard, first_path.clone())];
    for (path, part) in parts {
        let against = |what: &str| {
            Error::new(format!("`{}` is {what} than `{}`", path.display(), first_path.display()))
                .with_hint("merge shards of one model on one dataset with the same options")
        };
        if let Some(difference) = identity.difference(&part.identity) {
            return Err(against(difference));
        }
        if part.shard.count() != count {
            return Err(against("of another division into shards"));
        }
        if let Some((shard, other)) = seen.iter().find(|(shard, _)| *shard == part.shard) {
            let (here, there) = (path.display(), other.display());
            return Err(Error::new(format!("`{here}` and `{there}` are both shard {shard}")).with_hint("leave one out"));
        }
        counts.merge(part.counts).map_err(|error| Error::file("merge", &path, error))?;
        seen.push((part.shard, path));
    }
    let missing: Vec<String> = Shard::all(count)
        .filter(|shard| seen.iter().all(|(other, _)| other != shard))
        .take(10)
        .map(String::from)
        .collect();
    if !missing.is_empty() {
        return Err(Error::new(format!("these of the {count} shards are missing: {}", missing.join(", ")))
            .with_hint("evaluate them with `--shard I/N --out FILE`, and pass all files"));
    }
    if hash(counts.names()) != identity.names {
        return Err(Error::new("the image names in the shards are not those of the dataset that the shards describe")
            .with_hint("one of them is damaged: evaluate all of them again"));
    }
    Ok((identity, counts))
}

/// A hash of the names of a dataset's images, in order.
fn hash(names: impl Iterator<Item = impl AsRef<str>>) -> String {
    let mut text = String::new();
    for (at, name) in names.enumerate() {
        if at > 0 {
            text.push('\n');
        }
        text.push_str(name.as_ref());
    }
    format!("{:016x}", fnv1a(text.as_bytes()))
}

#[cfg(test)]
mod tests;
