//! From the values that masks hold to classes.

use std::collections::{BTreeMap, HashMap};

use super::names::Named;
use crate::data::cause::{STRAY, between};
use crate::data::check::{Survey, ValueCount};
use crate::data::spec::{ClassSpec, Encoding, MAX_CLASSES, Source};

/// Colours that cover less than this share may be smoothed edges between two that cover more.
const EDGE_SHARE: f64 = 0.01;

/// What masks were found to hold.
pub(super) struct Found {
    pub(super) encoding: Encoding,
    pub(super) ignore: Vec<Source>,
    pub(super) classes: Vec<ClassSpec>,
    /// What the person should look over.
    pub(super) notes: Vec<String>,
    /// Why the values are no labels; the classes are then a guess.
    pub(super) doubt: Option<String>,
}

/// The classes of masks. `given`: names in the order of the values; `file`: what a file beside them says.
pub(super) fn find(survey: &Survey, given: &[String], file: Option<(String, Vec<Named>)>) -> Found {
    let (encoding, all) = (survey.encoding(), survey.values());
    let (mut notes, mut ignore) = (Vec::new(), Vec::new());
    let mut doubt = (survey.index > 0 && survey.rgb > 0)
        .then(|| format!("{} masks hold numbers and {} colours", survey.index, survey.rgb));
    let total: u64 = all.values().map(|count| count.pixels).sum();
    let (source, named) = match file {
        Some((file, named)) => (Some(file), named),
        None => (None, Vec::new()),
    };
    let told: HashMap<Source, &str> =
        named.iter().filter_map(|named| Some((named.value?, named.name.as_str()))).collect();

    let smooth = smoothed(all, total, &told);
    if !smooth.is_empty() {
        doubt = Some(format!(
            "{} values lie between the others, as smoothed edges do; export the masks without anti-aliasing, or scale them \
             with nearest",
            smooth.len()
        ));
    }
    let mut values: Vec<(Source, ValueCount)> =
        all.iter().filter(|(value, _)| !smooth.contains(value)).map(|(value, count)| (*value, *count)).collect();
    let binary = matches!(values.as_slice(), [(Source::Index(0), _), (Source::Index(255), _)]);
    values.retain(|(value, count)| {
        let stray = count.pixels < STRAY && total > 100 * STRAY && !told.contains_key(value);
        if *value == Source::Index(255) && !binary && !told.contains_key(value) {
            notes.push("255 is taken for pixels to leave out".to_string());
        } else if let Some(name) = told.get(value).filter(|name| means_nothing(name)) {
            notes.push(format!("`{name}` ({value}) is taken for pixels to leave out"));
        } else if stray {
            notes.push(format!("{value} has {} pixels in all masks: taken for a slip and ignored", count.pixels));
        } else {
            return true;
        }
        ignore.push(*value);
        false
    });
    if values.len() > MAX_CLASSES {
        doubt = Some(format!("{} different values are no labels", values.len()));
        values.sort_by_key(|(_, count)| std::cmp::Reverse(count.pixels));
        values.truncate(MAX_CLASSES);
        values.sort_by_key(|(value, _)| *value);
    }
    let classes = named_classes(&values, given, source.as_deref(), &named, binary, survey, &mut notes);
    Found { encoding, ignore, classes, notes, doubt }
}

/// Gives each value a name and a colour.
fn named_classes(
    values: &[(Source, ValueCount)],
    given: &[String],
    source: Option<&str>,
    named: &[Named],
    binary: bool,
    survey: &Survey,
    notes: &mut Vec<String>,
) -> Vec<ClassSpec> {
    let grey = |value: &Source, level: u8| *value == Source::Rgb([level; 3]);
    let binary = binary || matches!(values, [(a, _), (b, _)] if grey(a, 0) && grey(b, 255));
    let in_order: Vec<&str> = match given {
        [] => named.iter().filter(|named| named.value.is_none()).map(|named| named.name.as_str()).collect(),
        given => given.iter().map(String::as_str).collect(),
    };
    // One name less than values: 0 is what has no name.
    let zero = matches!(values.first(), Some((Source::Index(0), _)));
    let shift = usize::from(zero && !in_order.is_empty() && in_order.len() + 1 == values.len());
    // Names that count from the value 0 fit sets of which some values do not occur.
    let by_value = |value: &Source| match value {
        Source::Index(n) if in_order.len() > values.len() => in_order.get(usize::from(*n)).copied(),
        _ => None,
    };
    let mut unnamed = Vec::new();
    let name = |(at, (value, _)): (usize, &(Source, ValueCount))| {
        let told = named.iter().find(|named| named.value == Some(*value)).map(|named| named.name.as_str());
        let told = if given.is_empty() { told } else { None };
        let name = match (told, by_value(value)) {
            (Some(name), _) | (None, Some(name)) => name.to_string(),
            _ if shift == 1 && at == 0 => "background".to_string(),
            _ => match in_order.get(at - shift.min(at)) {
                Some(name) => (*name).to_string(),
                None if binary => ["background", "object"][at].to_string(),
                None => {
                    unnamed.push(*value);
                    match value {
                        Source::Index(n) => format!("class {n}"),
                        Source::Rgb([r, g, b]) => format!("class {r}-{g}-{b}"),
                    }
                }
            },
        };
        let color = match value {
            Source::Rgb(rgb) => Some(*rgb),
            Source::Index(n) if survey.one_palette => {
                survey.palette.as_ref().and_then(|palette| palette.get(usize::from(*n))).copied()
            }
            Source::Index(_) => None,
        };
        ClassSpec { name, color, source: Some(vec![*value]) }
    };
    let mut classes: Vec<ClassSpec> = values.iter().enumerate().map(name).collect();
    if !unnamed.is_empty() {
        notes.push(format!(
            "the files do not say what {} of the {} values mean: write the names into the TOML, or pass --names a,b,c",
            unnamed.len(),
            values.len()
        ));
    } else if let (Some(source), true) = (source, given.is_empty()) {
        notes.push(format!("class names are from `{source}`"));
    }
    if shift == 1 {
        notes.push(
            "0 has no name: taken for a class of its own; if it means unlabelled, move it from `classes` to `ignore`"
                .to_string(),
        );
    }
    distinct(&mut classes);
    classes
}

/// Whether a class is called what pixels are called that count nowhere.
fn means_nothing(name: &str) -> bool {
    const WORDS: [&str; 5] = ["void", "ignore", "ignored", "unlabeled", "unlabelled"];
    name.split(|c: char| !c.is_alphanumeric()).any(|word| WORDS.contains(&word.to_ascii_lowercase().as_str()))
}

/// Numbers names that occur again.
fn distinct(classes: &mut [ClassSpec]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for class in classes {
        let times = seen.entry(class.name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            class.name = format!("{} ({times})", class.name);
        }
    }
}

/// Values that stem from smoothing: rare, and between two frequent ones.
fn smoothed(all: &BTreeMap<Source, ValueCount>, total: u64, told: &HashMap<Source, &str>) -> Vec<Source> {
    let rgb = |value: &Source| match value {
        Source::Rgb(rgb) => *rgb,
        Source::Index(n) => [u8::try_from(*n).unwrap_or(u8::MAX), 0, 0],
    };
    let frequent: Vec<&Source> = all
        .iter()
        .filter(|(value, count)| told.contains_key(value) || count.pixels as f64 >= EDGE_SHARE * total as f64)
        .map(|(value, _)| value)
        .collect();
    // Numbers are all on one line: only masks of black and white tell.
    let numbers = matches!(all.keys().next(), Some(Source::Index(_)));
    if numbers && frequent != [&Source::Index(0), &Source::Index(255)] || frequent.len() > MAX_CLASSES {
        return Vec::new();
    }
    let pairs = || frequent.iter().enumerate().flat_map(|(at, a)| frequent[..at].iter().map(|b| (rgb(a), rgb(b))));
    let rare: Vec<&Source> = all.keys().filter(|value| !frequent.contains(value)).collect();
    let smooth: Vec<Source> =
        rare.iter().filter(|value| pairs().any(|(a, b)| between(rgb(value), a, b))).map(|value| **value).collect();
    if smooth.len() > 2 && smooth.len() * 2 >= rare.len() { smooth } else { Vec::new() }
}
