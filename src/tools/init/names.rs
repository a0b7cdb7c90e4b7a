//! Names of classes, from the small files that lie beside masks.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use crate::dataset::spec::Source;
use crate::error::{Error, Result};
use crate::tools::init::json::Id;
use crate::tools::init::named::Named;
use crate::tools::init::plan::{Place, folders_in};
use crate::tools::init::splits::split_called;
use crate::tools::init::{names_json, read};

/// Files that are looked for, the first that is there.
const FILES: [&str; 27] = [
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
fn contradict(one: &[Named], other: &[Named]) -> bool {
    let stated = |names: &[Named]| names.iter().all(|named| named.value.is_some());
    if !stated(one) || !stated(other) {
        return one != other;
    }
    let differs = |a: &Named| other.iter().any(|b| (a.value == b.value) != (a.name == b.name));
    let covers = |a: &[Named], b: &[Named]| a.iter().all(|a| b.iter().any(|b| a.value == b.value));
    one.iter().any(differs) || !covers(one, other) && !covers(other, one)
}

fn in_folder(folder: &Path, place: &Place) -> Result<Option<(String, Vec<Named>)>> {
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

fn in_file(path: &Path, place: &Place) -> Result<Vec<Named>> {
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml") => {
            let names = DataYaml::read(path, place)?.names();
            let named = |(id, name)| Named { name, value: Some(Source::Index(id)), color: None };
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
pub(super) fn of_config(path: &Path, place: &Place) -> Result<Vec<(u16, Named)>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let number = |named: Named| match named.value? {
        Source::Index(number) => Some((number, named)),
        Source::Rgb(_) => None,
    };
    Ok(in_file(path, place)?.into_iter().filter_map(number).collect())
}

/// Files of names beside the one that is used which say something else.
pub(super) fn others(place: &Place, used: &str, names: &[Named]) -> Vec<String> {
    let folder = place.dir.join(used);
    let (Some(folder), Some(file)) = (folder.parent(), Path::new(used).file_name()) else { return Vec::new() };
    // LabelMe's lists begin with what is no class.
    let of = |names: &[Named]| -> Vec<String> {
        names.iter().map(|named| named.name.clone()).filter(|name| name != "__ignore__").collect()
    };
    let differs = |other: &&&str| {
        let path = folder.join(other);
        file != **other
            && path.is_file()
            && in_file(&path, place).is_ok_and(|found| !found.is_empty() && of(&found) != of(names))
    };
    FILES
        .iter()
        .filter(differs)
        .map(|other| format!("`{other}` names classes otherwise than `{used}`: not used"))
        .collect()
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
    let fields: Vec<&str> = match ['\t', ':', ';', ',', '='].into_iter().find(|mark| outside_quotes(line, *mark)) {
        Some(mark) => split(line, mark),
        None => {
            let numbers = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
            let last = line.split_whitespace().take_while(numbers).last();
            let end = last.map_or(0, |last| last.as_ptr() as usize - line.as_ptr() as usize + last.len());
            vec![&line[..end], line[end..].trim()]
        }
    };
    let at = fields.iter().position(|field| numbers(field).is_none())?;
    let before: Vec<u64> = fields[..at].iter().filter_map(|field| numbers(field)).flatten().collect();
    let after: Vec<u64> = fields[at + 1..].iter().map_while(|field| numbers(field)).flatten().collect();
    let rgb = |numbers: &[u64]| -> Option<[u8; 3]> {
        let channels: Vec<u8> = numbers.iter().filter_map(|n| u8::try_from(*n).ok()).collect();
        <[u8; 3]>::try_from(channels).ok()
    };
    let index = |n: u64| u16::try_from(n).ok().map(Source::Index);
    let (value, color) = match (before.as_slice(), after.as_slice()) {
        ([number], colour) => (index(*number), rgb(colour)),
        ([number, colour @ ..], _) if colour.len() == 3 => (index(*number), rgb(colour)),
        ([], colour @ [_, _, _]) | (colour @ [_, _, _], _) => (rgb(colour).map(Source::Rgb), None),
        // `name=0`, as many write tables of their own; a count of pixels is no class.
        ([], [number]) if line.contains(['=', ':']) && *number < 256 => (index(*number), None),
        _ => (None, None),
    };
    Some((Named { name: fields[at].to_string(), value, color }, before.len() + after.len()))
}

/// Whether the mark stands somewhere that is not between quotes.
fn outside_quotes(line: &str, mark: char) -> bool {
    line.split('"').step_by(2).any(|part| part.contains(mark))
}

/// The fields between marks; what stands between quotes is one, and the quotes are no part of it.
fn split(line: &str, mark: char) -> Vec<&str> {
    let mut quoted = false;
    let ends = move |c: char| {
        quoted ^= c == '"';
        c == mark && !quoted
    };
    line.split(ends).map(|field| field.trim().trim_matches('"').trim()).collect()
}

/// The numbers of a field, which may hold several: `64 128 64`, `(64, 128, 64)`, `#408040`, `64.0`.
fn numbers(field: &str) -> Option<Vec<u64>> {
    if let Some(colour) = names_json::hex(field) {
        return Some(colour.map(u64::from).to_vec());
    }
    let whole = |word: &str| {
        let value: f64 = word.parse().ok()?;
        (value.fract() == 0.0 && (0.0..4e15).contains(&value)).then_some(value as u64)
    };
    let inner = field.trim_start_matches(['(', '[']).trim_end_matches([')', ']']);
    inner.split([' ', ',']).filter(|word| !word.is_empty()).map(whole).collect()
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
        assert_eq!(parsed("sky=0\nroad = 7\n"), [index("sky", 0), index("road", 7)]);
        assert_eq!(
            parsed("\"name\",\"r\",\"g\",\"b\"\n\"sky, clear\",\"1.0\",\"2\",\"3\"\nroad,4,5,6"),
            [rgb("sky, clear", [1, 2, 3]), rgb("road", [4, 5, 6])]
        );
        assert_eq!(parsed("name;colour\nsky;#010203\nroad;(4, 5, 6)"), [rgb("sky", [1, 2, 3]), rgb("road", [4, 5, 6])]);
        let both = parse("id,name,r,g,b\n7,road,1,2,3");
        assert_eq!((both[0].value, both[0].color), (Some(Source::Index(7)), Some([1, 2, 3])));
    }

    #[test]
    fn yaml_names_are_lists_or_maps() {
        let names = |text: &str| serde_saphyr::from_str::<DataYaml>(text).unwrap().names();
        let expected = vec![(0, "a".to_string()), (1, "b".to_string())];
        assert_eq!(names("names: ['a', 'b']\nnc: 2\nroboflow: {version: 3}"), expected);
        assert_eq!(names("names:\n  0: a\n  1: b\n"), expected);
    }
}
