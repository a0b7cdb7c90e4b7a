//! Names of classes in JSON: lists, tables of numbers and names, and lists of objects, as many tools write them.

use serde_json::{Map, Value};

use crate::dataset::spec::Source;
use crate::tools::init::class_name::ClassName;

/// The names that a text says; none of another file. `config`: it holds settings too, so that a bare table does not
/// hold names.
pub(super) fn parse(text: &str, config: bool) -> Vec<ClassName> {
    let file: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap_or_default();
    let bare = file.as_object().is_none_or(|map| inner(map).is_none());
    if config && bare { Vec::new() } else { named(&file).unwrap_or_default() }
}

/// What names are called.
const KEYS: [&str; 6] = ["labels", "classes", "names", "categories", "id2label", "items"];

/// The list or table of names in an object that holds more.
fn inner(map: &Map<String, Value>) -> Option<&Value> {
    KEYS.iter().find_map(|key| map.get(*key)).filter(|inner| inner.is_array() || inner.is_object())
}

fn named(file: &Value) -> Option<Vec<ClassName>> {
    match file {
        Value::Array(list) => list.iter().enumerate().map(|(at, item)| item_named(at, item)).collect(),
        // Annotations are something else.
        Value::Object(map) if map.contains_key("annotations") || map.contains_key("images") => None,
        Value::Object(map) => match inner(map) {
            Some(inner) => named(inner),
            None => table(map),
        },
        _ => None,
    }
}

/// A name alone is of no stated value; an object says its number and colour.
fn item_named(at: usize, item: &Value) -> Option<ClassName> {
    let Value::Object(item) = item else {
        return Some(ClassName { name: item.as_str()?.trim().to_string(), value: None, color: None });
    };
    let name = ["readable", "name", "title", "label", "class"].iter().find_map(|key| item.get(*key)?.as_str())?;
    let number = ["id", "index", "value", "trainId", "class_id"].iter().find_map(|key| item.get(*key)?.as_u64());
    let color = ["color", "colour", "rgb"].iter().find_map(|key| color(item.get(*key)?));
    // Where objects have no numbers, their order is that of the values, as in Mapillary Vistas, or their colours count.
    let value = match (number, color) {
        (Some(number), _) => Some(Source::Index(u16::try_from(number).ok()?)),
        (None, Some(_)) if !item.contains_key("readable") => color.map(Source::Rgb),
        (None, _) => Some(Source::Index(u16::try_from(at).ok()?)),
    };
    Some(ClassName { name: name.trim().to_string(), value, color })
}

/// `{"0": "sky"}` or `{"sky": 0}`; or colours in the place of the numbers.
fn table(map: &Map<String, Value>) -> Option<Vec<ClassName>> {
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok()).map(Source::Index);
    let of = |(key, value): (&String, &Value)| {
        let (name, value) = match (key.trim().parse::<u16>(), value) {
            (Ok(number), Value::String(name)) => (name, Source::Index(number)),
            // `{"(0, 128, 64)": "sky"}`
            (Err(_), Value::String(name)) if key_color(key).is_some() => (name, Source::Rgb(key_color(key)?)),
            (_, value) => (key, number(value).or_else(|| color(value).map(Source::Rgb))?),
        };
        Some(ClassName { name: name.trim().to_string(), value: Some(value), color: None })
    };
    let mut named = map.iter().map(of).collect::<Option<Vec<_>>>()?;
    named.sort_by_key(|named| named.value);
    Some(named)
}

/// A colour that is a key: `(0, 128, 64)`.
fn key_color(key: &str) -> Option<[u8; 3]> {
    let inner = key.trim().trim_matches(['(', ')', '[', ']']);
    let channels: Option<Vec<u8>> =
        inner.split([',', ' ', '-']).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect();
    <[u8; 3]>::try_from(channels?).ok()
}

/// `[64, 128, 64]` or `"#408040"`.
fn color(value: &Value) -> Option<[u8; 3]> {
    match value {
        Value::String(text) => hex(text),
        Value::Array(channels) => {
            let channel = |value: &Value| u8::try_from(value.as_u64()?).ok();
            <[u8; 3]>::try_from(channels.iter().take(3).map(channel).collect::<Option<Vec<u8>>>()?).ok()
        }
        _ => None,
    }
}

/// The colour that `#408040` says.
pub(super) fn hex(text: &str) -> Option<[u8; 3]> {
    let text = text.trim();
    let digits = text.strip_prefix('#').or_else(|| text.strip_prefix("0x")).or_else(|| text.strip_prefix("0X"))?;
    let digits =
        Some(digits).filter(|digits| digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let channel = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    Some([channel(0)?, channel(2)?, channel(4)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_tables_and_objects_are_understood() {
        let index = |n| Some(Source::Index(n));
        let rgb = |rgb| Some(Source::Rgb(rgb));
        for (text, values) in [
            (r#"["sky", "road"]"#, [None, None]),
            (r#"{"0": "sky", "7": "road"}"#, [index(0), index(7)]),
            (r#"{"sky": 0, "road": 10}"#, [index(0), index(10)]),
            (r#"{"id2label": {"0": "sky", "1": "road"}}"#, [index(0), index(1)]),
            (r#"[{"id": 3, "name": "sky"}, {"id": 4, "name": "road", "color": [1, 2, 3]}]"#, [index(3), index(4)]),
            (
                r##"[{"name": "sky", "color": "#000000"}, {"name": "road", "color": "#010203"}]"##,
                [rgb([0; 3]), rgb([1, 2, 3])],
            ),
            (r#"{"labels": [{"readable": "sky", "color": [1, 1, 1]}, {"readable": "road"}]}"#, [index(0), index(1)]),
            (r#"{"sky": [0, 0, 0], "road": [1, 2, 3]}"#, [rgb([0; 3]), rgb([1, 2, 3])]),
            (r#"{"(0, 0, 0)": "sky", "(1, 2, 3)": "road"}"#, [rgb([0; 3]), rgb([1, 2, 3])]),
        ] {
            let found = parse(text, false);
            assert_eq!(found.iter().map(|named| named.name.as_str()).collect::<Vec<_>>(), ["sky", "road"], "{text}");
            assert_eq!(found.iter().map(|named| named.value).collect::<Vec<_>>(), values, "{text}");
        }
        for other in
            ["", "3", "{}", r#"{"version": "5.0", "shapes": []}"#, r#"{"images": [], "categories": []}"#, "[1, 2]"]
        {
            assert!(parse(other, false).is_empty(), "{other}");
        }
        assert!(parse(r#"{"width": 640, "classes": 3}"#, true).is_empty());
        assert_eq!(parse(r#"{"version": 1, "labels": [{"readable": "sky"}]}"#, true).len(), 1);
    }
}
