//! Names of classes, from the small files that lie beside masks.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::json::Id;
use super::plan::{Place, folders_in};
use super::read;
use super::splits::split_called;
use crate::data::spec::Source;
use crate::error::{Error, Result};

/// Files that are looked for, the first that is there.
const FILES: [&str; 15] = [
    "labelmap.txt",
    "class_dict.csv",
    "_classes.csv",
    "classes.csv",
    "classes.tsv",
    "classes.txt",
    "class_names.txt",
    "label_colors.txt",
    "labels.txt",
    "names.txt",
    "obj_names.txt",
    "data.yaml",
    "dataset.yaml",
    "config.json",
    "config_v2.0.json",
];

/// A name, and the value it stands for if the file says so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) value: Option<Source>,
}

/// `data.yaml`, as the YOLO programs have it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DataYaml {
    pub(super) path: Option<String>,
    pub(super) train: Option<Paths>,
    pub(super) val: Option<Paths>,
    pub(super) test: Option<Paths>,
    names: Option<Names>,
    pub(super) masks_dir: Option<String>,
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
        serde_saphyr::from_str(&text).map_err(|e| Error::file("understand", path, e.to_string()))
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

/// The names that a file in the folder gives, and which file; or one in each of the folders of splits, which must agree.
///
/// # Errors
/// Files that cannot be read, or that contradict each other.
pub(super) fn find(place: &Place) -> Result<Option<(String, Vec<Named>)>> {
    // Who gives names has no use for files of them.
    if !place.options.names.is_empty() {
        return Ok(None);
    }
    let folder = place.dir;
    if let Some(found) = in_folder(folder, place)? {
        return Ok(Some(found));
    }
    let mut before: Option<(PathBuf, String, Vec<Named>)> = None;
    for (name, path) in folders_in(folder) {
        if split_called(&name).is_none() && !["masks", "labels", "annotations"].contains(&name.as_str()) {
            continue;
        }
        let Some((file, named)) = in_folder(&path, place)? else { continue };
        match &before {
            Some((other, _, names)) if *names != named => {
                return Err(Error::new(format!(
                    "`{}` and `{}` name the classes differently",
                    other.display(),
                    path.join(&file).display()
                ))
                .hint("make them agree, or pass the names: --names a,b,c"));
            }
            Some(_) => {}
            None => before = Some((path.join(&file), format!("{name}/{file}"), named)),
        }
    }
    Ok(before.map(|(_, file, named)| (file, named)))
}

fn in_folder(folder: &Path, place: &Place) -> Result<Option<(String, Vec<Named>)>> {
    for file in FILES {
        let path = folder.join(file);
        if !path.is_file() {
            continue;
        }
        let names: Vec<Named> = if file.ends_with(".yaml") {
            let names = DataYaml::read(&path, place)?.names();
            names.into_iter().map(|(id, name)| Named { name, value: Some(Source::Index(id)) }).collect()
        } else if file.ends_with(".json") {
            mapillary(&read::text(&path, Some(place))?)
        } else {
            parse(&read::text(&path, Some(place))?)
        };
        if !names.is_empty() {
            return Ok(Some((file.to_string(), names)));
        }
    }
    Ok(None)
}

/// The labels of Mapillary Vistas, in the order of their values; none of another file.
fn mapillary(text: &str) -> Vec<Named> {
    let file: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let labels = file.get("labels").and_then(serde_json::Value::as_array).into_iter().flatten();
    let name = |label: &serde_json::Value| label.get("readable")?.as_str().map(str::to_string);
    let names: Option<Vec<String>> = labels.map(name).collect();
    let named = |(id, name)| Some(Named { name, value: Some(Source::Index(u16::try_from(id).ok()?)) });
    names.unwrap_or_default().into_iter().enumerate().filter_map(named).collect()
}

/// One class a line: a name, with a number before it, or three of a colour before or after; a heading is left out.
pub(super) fn parse(text: &str) -> Vec<Named> {
    let mut names: Vec<(Named, usize)> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(line)
        .collect();
    // `name,r,g,b` over lines of numbers.
    if names.len() > 1 && names[0].1 == 0 && names[1..].iter().all(|(_, numbers)| *numbers > 0) {
        names.remove(0);
    }
    names.into_iter().map(|(named, _)| named).collect()
}

/// What a line says, and how many numbers are in it.
fn line(line: &str) -> Option<(Named, usize)> {
    let fields: Vec<&str> = match ['\t', ':', ';', ','].into_iter().find(|mark| line.contains(*mark)) {
        Some(mark) => line.split(mark).map(str::trim).collect(),
        None => {
            let numbers = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
            let last = line.split_whitespace().take_while(numbers).last();
            let end = last.map_or(0, |last| last.as_ptr() as usize - line.as_ptr() as usize + last.len());
            vec![&line[..end], line[end..].trim()]
        }
    };
    // One field may hold several: `64 128 64`, or `64,128,64` between colons.
    let numbers = |field: &&str| -> Option<Vec<u64>> {
        let words = field.split([' ', ',']).filter(|word| !word.is_empty());
        words.map(|word| word.parse().ok()).collect()
    };
    let at = fields.iter().position(|field| numbers(field).is_none())?;
    let before: Vec<u64> = fields[..at].iter().filter_map(numbers).flatten().collect();
    let after: Vec<u64> = fields[at + 1..].iter().map_while(numbers).flatten().collect();
    let rgb = |numbers: &[u64]| -> Option<Source> {
        let channels: Vec<u8> = numbers.iter().filter_map(|n| u8::try_from(*n).ok()).collect();
        Some(Source::Rgb(<[u8; 3]>::try_from(channels).ok()?))
    };
    let value = match (before.as_slice(), after.as_slice()) {
        ([index], _) => u16::try_from(*index).ok().map(Source::Index),
        ([], colour @ [_, _, _]) | (colour @ [_, _, _], _) => rgb(colour),
        _ => None,
    };
    Some((Named { name: fields[at].to_string(), value }, before.len() + after.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, Option<Source>)> {
        parse(text).into_iter().map(|named| (named.name, named.value)).collect()
    }

    #[test]
    fn common_files_are_understood() {
        let rgb = |name: &str, rgb| (name.to_string(), Some(Source::Rgb(rgb)));
        let index = |name: &str, id| (name.to_string(), Some(Source::Index(id)));
        assert_eq!(
            parsed("name,r,g,b\nroad,1,2,3\ntraffic light,4,5,6"),
            [rgb("road", [1, 2, 3]), rgb("traffic light", [4, 5, 6])]
        );
        assert_eq!(parsed("# label:color_rgb:parts:actions\ncar:9,8,7::\n"), [rgb("car", [9, 8, 7])]);
        assert_eq!(parsed("64 128 64\tAnimal\n"), [rgb("Animal", [64, 128, 64])]);
        assert_eq!(parsed("Pixel Value, Class\n0, background\n1, leaf"), [index("background", 0), index("leaf", 1)]);
        assert_eq!(parsed("index\tname\tpixels\n3\thair (dryer, old)\t99999999"), [index("hair (dryer, old)", 3)]);
        assert_eq!(parsed("0 sky\n12: wet road\n"), [index("sky", 0), index("wet road", 12)]);
        assert_eq!(parsed("sky\nclass 3\n"), [("sky".to_string(), None), ("class 3".to_string(), None)]);
    }

    #[test]
    fn yaml_names_are_lists_or_maps() {
        let names = |text: &str| serde_saphyr::from_str::<DataYaml>(text).unwrap().names();
        let expected = vec![(0, "a".to_string()), (1, "b".to_string())];
        assert_eq!(names("names: ['a', 'b']\nnc: 2\nroboflow: {version: 3}"), expected);
        assert_eq!(names("names:\n  0: a\n  1: b\n"), expected);
    }
}
