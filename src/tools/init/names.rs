//! Names of classes, from the small files that lie beside masks.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::dataset::spec::Source;
use crate::error::{Error, Result};
use crate::tools::init::class_name::ClassName;
use crate::tools::init::json::Id;
use crate::tools::init::names_text::parse;
use crate::tools::init::plan::{Place, folders_in};
use crate::tools::init::splits::split_called;
use crate::tools::init::{names_json, read, spelling};

/// Files that are looked for, the first that is there.
const FILES: [&str; 32] = [
    "labelmap.txt",
    "class_dict.csv",
    "_classes.csv",
    "classes.csv",
    "classes.tsv",
    "classes.txt",
    "class_names.txt",
    "label_colors.txt",
    "labels.txt",
    "labels.csv",
    "labels.tsv",
    "label_names.txt",
    "names.txt",
    "obj_names.txt",
    "obj.names",
    "classes.names",
    "codes.txt",
    "data.yaml",
    "dataset.yaml",
    "config.json",
    "config_v2.0.json",
    "config_v1.2.json",
    "id2label.json",
    "classes.json",
    "class_names.json",
    "labels.json",
    "label_map.json",
    "label2id.json",
    "colormap.json",
    "color_map.json",
    "palette.json",
    "notes.json",
];

/// `data.yaml`, as the YOLO programs have it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DataYaml {
    pub(super) path: Option<String>,
    pub(super) train: Option<Paths>,
    pub(super) val: Option<Paths>,
    pub(super) test: Option<Paths>,
    names: Option<Names>,
    /// How many classes there are said to be.
    #[serde(deserialize_with = "count")]
    pub(super) nc: Option<usize>,
    pub(super) masks_dir: Option<String>,
}

/// A count; anything else that stands there says nothing.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    Ok(Option::<Id>::deserialize(deserializer).ok().flatten().and_then(|Id(text)| text.parse().ok()))
}

/// One folder or several, or lists of images.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Paths {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Paths {
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Names {
    List(Vec<Id>),
    Map(std::collections::BTreeMap<Number, Id>),
}

/// A number that is a key, which some write as text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number(u16);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Id(text) = Id::deserialize(deserializer)?;
        text.parse().map(Number).map_err(|_| serde::de::Error::custom(format!("`{text}` is not a class number")))
    }
}

impl DataYaml {
    /// Reads the file; aliases and sizes are bounded by the parser.
    pub(super) fn read(path: &Path, place: &Place) -> Result<Self> {
        let text = read::text(path, Some(place))?;
        serde_saphyr::from_str(&text).map_err(|e| {
            let what = e.to_string();
            let error = Error::file("understand", path, what.clone());
            // Of a list with something else in it, the parser says no more than that.
            if what.contains("enum Names") {
                return error.with_hint(
                    "`names` is a list of text, or text by number: put names such as yes, no, null or ~ in quotes, as in `names: \
                     ['yes', 'no']`",
                );
            }
            error
        })
    }

    /// What stands for it in an export of Label Studio: `classes.txt` beside `images` and `labels`.
    pub(super) fn of_classes(text: &str) -> Self {
        let names = parse(text).into_iter().map(|named| Id(named.name)).collect();
        Self { train: Some(Paths::One("images".to_string())), names: Some(Names::List(names)), ..Self::default() }
    }

    /// The classes' names by their number.
    pub(super) fn names(&self) -> Vec<(u16, String)> {
        match &self.names {
            Some(Names::List(names)) => {
                names.iter().enumerate().map(|(id, name)| (id as u16, name.0.clone())).collect()
            }
            Some(Names::Map(names)) => names.iter().map(|(id, name)| (id.0, name.0.clone())).collect(),
            None => Vec::new(),
        }
    }
}

/// The names that a file in the folder gives, and which file; or one in each of the folders of splits, which must
/// agree.
///
/// # Errors
/// Files that cannot be read, or that contradict each other.
pub(super) fn find(place: &Place) -> Result<Option<(String, Vec<ClassName>)>> {
    // Who gives names has no use for files of them.
    if !place.options.names.is_empty() {
        return Ok(None);
    }
    found(place)
}

/// A file whose names are those that --names gives, and for other values.
pub(super) fn crossed(place: &Place) -> Option<String> {
    let given = Some(&place.options.names).filter(|given| !given.is_empty())?;
    let (file, named) = found(place).ok().flatten()?;
    let names: Vec<String> = named.into_iter().map(|named| named.name).collect();
    (names.len() == given.len() && spelling::crosses(given, &names))
        .then(|| format!("`{file}` has names that --names gives to other values ({}): not used", names.join(", ")))
}

fn found(place: &Place) -> Result<Option<(String, Vec<ClassName>)>> {
    let folder = place.dir;
    if let Some(found) = in_folder(folder, place)? {
        return Ok(Some(found));
    }
    let mut before: Option<(PathBuf, String, Vec<ClassName>)> = None;
    for (name, path) in folders_in(folder) {
        if split_called(&name).is_none() && !["masks", "labels", "annotations"].contains(&name.as_str()) {
            continue;
        }
        let Some((file, named)) = in_folder(&path, place)? else { continue };
        match &before {
            Some((other, _, names)) if contradict(names, &named) => {
                let command = place.again_with_names(false, names.iter().map(|named| named.name.clone()).collect());
                let command = command.map_or(String::new(), |command| format!(", or say the names: {command}"));
                return Err(Error::new(format!(
                    "`{}` and `{}` name the classes differently",
                    other.display(),
                    path.join(&file).display()
                ))
                .with_hint(format!("make them agree{command}")));
            }
            // What one split lacks is in another.
            Some((_, _, names)) if named.len() <= names.len() => {}
            Some(_) => before = Some((path.join(&file), format!("{name}/{file}"), named)),
            None => before = Some((path.join(&file), format!("{name}/{file}"), named)),
        }
    }
    Ok(before.map(|(_, file, named)| (file, named)))
}

/// Whether two tables cannot both be right: one value has two names, or lists without values differ.
fn contradict(one: &[ClassName], other: &[ClassName]) -> bool {
    let stated = |names: &[ClassName]| names.iter().all(|named| named.value.is_some());
    if !stated(one) || !stated(other) {
        return one != other;
    }
    let differs = |a: &ClassName| other.iter().any(|b| (a.value == b.value) != (a.name == b.name));
    let covers = |a: &[ClassName], b: &[ClassName]| a.iter().all(|a| b.iter().any(|b| a.value == b.value));
    one.iter().any(differs) || !covers(one, other) && !covers(other, one)
}

fn in_folder(folder: &Path, place: &Place) -> Result<Option<(String, Vec<ClassName>)>> {
    for file in FILES {
        let path = folder.join(file);
        if !path.is_file() {
            continue;
        }
        let names = in_file(&path, place)?;
        if !names.is_empty() {
            return Ok(Some((file.to_string(), names)));
        }
    }
    Ok(None)
}

fn in_file(path: &Path, place: &Place) -> Result<Vec<ClassName>> {
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml") => {
            let names = DataYaml::read(path, place)?.names();
            let named = |(id, name)| ClassName { name, value: Some(Source::Index(id)), color: None };
            names.into_iter().map(named).collect()
        }
        Some("json") => {
            let config = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("config"));
            names_json::parse(&read::text(path, Some(place))?, config)
        }
        _ => parse(&read::text(path, Some(place))?),
    })
}

/// The numbers, names and colours that a config says.
pub(super) fn of_config(path: &Path, place: &Place) -> Result<Vec<(u16, ClassName)>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let number = |named: ClassName| match named.value? {
        Source::Index(number) => Some((number, named)),
        Source::Rgb(_) => None,
    };
    Ok(in_file(path, place)?.into_iter().filter_map(number).collect())
}

/// Files of names beside the one that is used which say something else.
pub(super) fn others(place: &Place, used: &str, names: &[ClassName]) -> Vec<String> {
    let folder = place.dir.join(used);
    let (Some(folder), Some(file)) = (folder.parent(), Path::new(used).file_name()) else { return Vec::new() };
    // LabelMe's lists begin with what is not a class.
    let of = |names: &[ClassName]| -> Vec<String> {
        names.iter().map(|named| named.name.clone()).filter(|name| name != "__ignore__").collect()
    };
    let differs = |other: &&&str| {
        let path = folder.join(other);
        file != **other
            && path.is_file()
            && in_file(&path, place).is_ok_and(|found| !found.is_empty() && of(&found) != of(names))
    };
    let beside = FILES.iter().filter(differs).map(|other| other.to_string());
    // In the folder of masks, where labelling programs put theirs.
    let within = ["masks", "labels", "annotations"].into_iter().filter_map(|inner| {
        let path = place.dir.join(inner);
        let (other, found) = in_folder(&path, place).ok().flatten().filter(|_| folder == place.dir)?;
        (of(&found) != of(names)).then(|| format!("{inner}/{other}"))
    });
    beside
        .chain(within)
        .map(|other| format!("`{other}` names the classes differently from `{used}` and is not used"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_names_are_lists_or_maps() {
        let names = |text: &str| serde_saphyr::from_str::<DataYaml>(text).unwrap().names();
        let expected = vec![(0, "a".to_string()), (1, "b".to_string())];
        assert_eq!(names("names: ['a', 'b']\nnc: 2\nroboflow: {version: 3}"), expected);
        assert_eq!(names("names:\n  0: a\n  1: b\n"), expected);
    }
}
