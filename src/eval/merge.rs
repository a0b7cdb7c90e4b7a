//! Evaluations of parts of a dataset, made apart and put together exactly.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::tally::{Ask, Tally};
use crate::data::{Classes, Dataset};
use crate::error::{Error, Result};
use crate::files;
use crate::rng::fnv1a;
use crate::shard::Shard;

/// What the files call themselves; the number rises when they change.
const FORMAT: &str = "structtoken evaluation shard 1";

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
    pub ask: Ask,
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
        ask: Ask,
    ) -> Result<Self> {
        let bytes = files::read(model, files::UNLIMITED).map_err(|error| Error::file("read", model, error))?;
        let names: Vec<String> = (0..dataset.len()).map(|index| dataset.name(index)).collect();
        Ok(Self {
            model: format!("{:08x}-{}", crc32fast::hash(&bytes), bytes.len()),
            classes: dataset.classes().clone(),
            split: split.to_string(),
            images: dataset.len(),
            names: format!("{:016x}", fnv1a(names.join("\n").as_bytes())),
            settings,
            ask,
        })
    }

    /// What differs from another evaluation, in words.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            ("of another model", self.model != other.model),
            ("of a dataset with other classes", self.classes != other.classes),
            ("of another split", self.split != other.split),
            ("of other images", (self.images, &self.names) != (other.images, &other.names)),
            ("with other settings of inference", self.settings != other.settings),
            ("with other options", self.ask != other.ask),
        ];
        parts.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
    }
}

/// A shard of an evaluation, as its file holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    format: String,
    shard: Shard,
    identity: Identity,
    tally: Tally,
}

impl Part {
    /// The counts of one shard.
    pub fn new(shard: Shard, identity: Identity, tally: Tally) -> Self {
        Self { format: FORMAT.to_owned(), shard, identity, tally }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|error| Error::new("cannot write counts").source(error))?;
        files::write(path, &json)
    }

    /// Reads and checks one.
    ///
    /// # Errors
    /// The file cannot be read, is something else, or its counts cannot be those of the shard it names.
    pub fn read(path: &Path) -> Result<Self> {
        let foreign = || format!("give files that `structtoken eval MODEL --shard I/N --out FILE` wrote: `{FORMAT}`");
        let bytes =
            files::read(path, files::RECORD).map_err(|error| Error::file("read", path, error).hint(foreign()))?;
        let part: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::file("read the shard", path, error).hint(foreign()))?;
        if part.format != FORMAT {
            return Err(Error::new(format!("`{}` is no shard of an evaluation", path.display())).hint(foreign()));
        }
        part.check().map_err(|error| {
            Error::file("use the shard", path, error).hint("the file is damaged: evaluate this shard again")
        })?;
        Ok(part)
    }

    fn check(&self) -> Result<()> {
        let Identity { images, classes, .. } = &self.identity;
        let k = self.tally.classes();
        if (classes.names.len(), classes.colors.len()) != (k, k) {
            return Err(Error::new("its classes do not fit its counts"));
        }
        self.tally.check(*images)?;
        // Every n-th index, without asking memory for as many as a file may claim.
        let mut expected = self.shard.range(*images);
        let complete = self.tally.indices().all(|index| expected.next() == Some(index)) && expected.next().is_none();
        if complete { Ok(()) } else { Err(Error::new(format!("it does not hold the images of shard {}", self.shard))) }
    }
}

/// Puts all shards of an evaluation together: the very counts of the whole, in whatever order they come.
///
/// # Errors
/// A shard that is missing, there twice, or of another evaluation than the first.
pub fn merge(parts: Vec<(PathBuf, Part)>) -> Result<(Identity, Tally)> {
    let mut parts = parts.into_iter();
    let Some((first_path, first)) = parts.next() else {
        return Err(
            Error::new("there are no shards to merge").hint("name the files that `--shard I/N --out FILE` wrote")
        );
    };
    let (count, identity, mut tally) = (first.shard.count(), first.identity, first.tally);
    let mut seen = vec![(first.shard, first_path.clone())];
    for (path, part) in parts {
        let against = |what: &str| {
            Error::new(format!("`{}` is {what} than `{}`", path.display(), first_path.display()))
                .hint("merge shards of one model on one dataset with the same options")
        };
        if let Some(difference) = identity.difference(&part.identity) {
            return Err(against(difference));
        }
        if part.shard.count() != count {
            return Err(against("of another division into shards"));
        }
        if let Some((shard, other)) = seen.iter().find(|(shard, _)| *shard == part.shard) {
            let (here, there) = (path.display(), other.display());
            return Err(Error::new(format!("`{here}` and `{there}` are both shard {shard}")).hint("leave one out"));
        }
        tally.merge(part.tally).map_err(|error| Error::file("merge", &path, error))?;
        seen.push((part.shard, path));
    }
    let missing: Vec<String> = Shard::all(count)
        .filter(|shard| seen.iter().all(|(other, _)| other != shard))
        .take(10)
        .map(String::from)
        .collect();
    if !missing.is_empty() {
        return Err(Error::new(format!("of {count} shards these are missing: {}", missing.join(", ")))
            .hint("evaluate them with `--shard I/N --out FILE`, and name all files"));
    }
    Ok((identity, tally))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    fn identity() -> Identity {
        Identity {
            model: "00-1".into(),
            classes: Classes { names: vec!["a".into(), "b".into()], colors: vec![[0; 3]; 2] },
            split: Split::Val.to_string(),
            images: 1,
            names: "ab".into(),
            settings: serde_json::json!({"flip": false}),
            ask: Ask::default(),
        }
    }

    /// Shards of no image: a dataset of none can be shared out too.
    fn part(shard: &str, identity: Identity) -> (PathBuf, Part) {
        let tally = Tally::new(2, identity.ask);
        (PathBuf::from(shard.replace('/', "-")), Part::new(shard.parse().unwrap(), identity, tally))
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let fails = |parts: Vec<(PathBuf, Part)>| merge(parts).unwrap_err().to_string();
        let with = |change: fn(&mut Identity)| {
            let mut other = identity();
            change(&mut other);
            part("2/2", other)
        };
        for (other, part_of_message) in [
            (with(|one| one.model = "01-1".into()), "`2-2` is of another model than `1-2`"),
            (with(|one| one.classes.names[0] = "c".into()), "other classes"),
            (with(|one| one.split = Split::Test.to_string()), "another split"),
            (with(|one| one.images = 2), "other images"),
            (with(|one| one.settings = serde_json::json!({"flip": true})), "other settings of inference"),
            (with(|one| one.ask.certainty = true), "other options"),
            (part("2/3", identity()), "another division"),
            (part("1/2", identity()), "are both shard 1/2"),
        ] {
            let message = fails(vec![part("1/2", identity()), other]);
            assert!(message.contains(part_of_message), "{message}");
        }
        let message = fails(vec![part("3/4", identity()), part("1/4", identity())]);
        assert!(message.ends_with("missing: 2/4, 4/4"), "{message}");
        let huge = fails(vec![part("1/18446744073709551615", identity())]);
        assert!(huge.contains("missing: 2/"), "{huge}");
        assert!(fails(vec![]).contains("no shards"));
        assert!(merge(vec![part("2/2", identity()), part("1/2", identity())]).is_ok());
    }

    #[test]
    fn files_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.json");
        let mut none = identity();
        none.images = 0;
        part("1/2", none).1.write(&path).unwrap();
        let read = Part::read(&path).unwrap();
        assert_eq!(read.shard.to_string(), "1/2");
        let text = std::fs::read_to_string(&path).unwrap();
        for (from, to, message) in [
            ("shard 1", "shard 9", "is no shard of an evaluation"),
            ("1/2", "3/2", "cannot read the shard"),
            ("\"images\":0", "\"images\":1", "does not hold the images of shard 1/2"),
            ("[[0,0],[0,0]]", "[[0,0],[0]]", "not square"),
            ("\"boundary\":[[0,0,0],[0,0,0]]", "\"boundary\":[[0,0,0]]", "do not fit each other"),
            ("\"a\",\"b\"", "\"a\"", "classes do not fit"),
            ("{", "", "cannot read the shard"),
        ] {
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = Part::read(&path).unwrap_err();
            assert!(error.to_string().contains(message) && error.remedy().is_some(), "{error}");
        }
    }
}
