//! JSON of other programs: objects are recognised by their keys, and numbers may be written as text.

use std::cmp::Ordering;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeOwned, MapAccess, Visitor, value};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};
use crate::tools::init::read::{annotations, bytes};

/// A value that was an object. The derived code reads a struct from a list too, by position: any list of three would be
/// taken for one.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(value::MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Map(std::marker::PhantomData))
    }
}

/// A number or text that names something: 7, `7` and 7.0 are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(pub(super) String);

impl Id {
    fn number(&self) -> Option<i64> {
        self.0.parse().ok()
    }
}

impl Ord for Id {
    /// Numbers first, by size.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |id: &Self| (id.number().is_none(), id.number());
        key(self).cmp(&key(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or text")
            }

            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Id, E> {
                Ok(Id(n.to_string()))
            }

            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Id, E> {
                Ok(Id(n.to_string()))
            }

            fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Id, E> {
                Ok(Id(n.to_string()))
            }

            fn visit_bool<E: serde::de::Error>(self, word: bool) -> Result<Id, E> {
                Ok(Id(word.to_string()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
                Ok(Id(text.trim().to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A width or height: a whole number, however it is written. `None` of anything else.
pub(super) fn side<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let number = match &value {
        serde_json::Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    };
    Ok(number.filter(|n| n.fract() == 0.0 && (1.0..1e9).contains(n)).map(|n| n as usize))
}

/// The file, if it is an object with all these keys.
///
/// # Errors
/// A file that cannot be read; one of this form with something else in it, with `hint`.
pub(super) fn with_keys<T: DeserializeOwned>(path: &Path, keys: &[&str], hint: &str) -> Result<Option<T>> {
    let text = text(path)?;
    let text = text.as_slice();
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Ok(None);
    }
    let Ok(Keys(found)) = serde_json::from_slice::<Keys>(text) else {
        // Cut short: what it was going to be is seen by the keys that are there.
        let named = |key: &&str| text.windows(key.len() + 2).any(|part| part == format!("\"{key}\"").as_bytes());
        return match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
            Err(error) if keys.iter().all(named) => Err(broken(path, &error, hint)),
            _ => Ok(None),
        };
    };
    if !keys.iter().all(|key| found.iter().any(|one| one == key)) {
        return Ok(None);
    }
    crate::files::parse_json(text).map(Some).map_err(|error| Error::file("understand", path, error).with_hint(hint))
}

/// The text of a JSON file, in UTF-8 without its mark.
///
/// # Errors
/// A file that cannot be read, or in an encoding that is not Unicode.
pub(super) fn text(path: &Path) -> Result<Vec<u8>> {
    let mut found = bytes(path)?;
    // JSON in UTF-8 has no zeros.
    if matches!(found.as_slice(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) || found.iter().take(64).any(|byte| *byte == 0) {
        return annotations(path).map(String::into_bytes);
    }
    if found.starts_with(b"\xef\xbb\xbf") {
        found.drain(..3);
    }
    Ok(found)
}

/// Why a file is no JSON, and where.
pub(super) fn broken(path: &Path, error: &serde_json::Error, hint: &str) -> Error {
    if error.is_eof() {
        return Error::new(format!("`{}` is damaged or cut short", path.display())).with_hint(hint);
    }
    let place = format!("line {}, column {}", error.line(), error.column());
    let rest = text(path).unwrap_or_default();
    let line = rest.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    // The column counts the byte at which reading stopped, from 1.
    let (before, after) = line.split_at(error.column().saturating_sub(1).min(line.len()));
    let after = after.trim_ascii_start();
    let starts = |words: &[&[u8]]| words.iter().any(|word| after.starts_with(word));
    let (why, remedy) = if starts(&[b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"aN"])
        || before.ends_with(b"-") && starts(&[b"I"])
    {
        ("holds NaN or Infinity, which JSON does not have", "write `null`, or 0 where it is the `area`")
    } else if starts(&[b"]", b"}"]) {
        ("has a comma too many before a closing bracket", "remove the comma")
    } else {
        return Error::new(format!("`{}` is damaged or cut short: it is not JSON at {place}", path.display()))
            .with_hint(hint);
    };
    Error::new(format!("`{}` {why}, at {place}", path.display())).with_hint(format!("{remedy}; {hint}"))
}

/// The names of an object's entries.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                    // Thousands are entries, not keys.
                    if names.len() < 64 {
                        names.push(name);
                    }
                }
                Ok(Keys(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Pair {
        id: Id,
        #[serde(default, deserialize_with = "side")]
        width: Option<usize>,
    }

    #[test]
    fn lists_are_no_objects() {
        assert!(serde_json::from_str::<Pair>("[1, 2]").is_ok(), "the trap that is avoided");
        assert!(serde_json::from_str::<Object<Pair>>("[1, 2]").is_err());
        let pair = serde_json::from_str::<Object<Pair>>(r#"{"id": 1, "width": "20"}"#).unwrap().0;
        assert_eq!((pair.id, pair.width), (Id("1".into()), Some(20)));
        for width in ["20.5", "-1", "1e30", "null", "[]", "\"wide\""] {
            let pair = serde_json::from_str::<Object<Pair>>(&format!("{{\"id\": 1, \"width\": {width}}}"));
            assert_eq!(pair.unwrap().0.width, None, "{width}");
        }
    }

    #[test]
    fn ids_are_one_however_they_are_written() {
        let id = |text: &str| serde_json::from_str::<Id>(text).unwrap();
        assert_eq!([id("7"), id("\"7\""), id("7.0")], [id("7"), id("7"), id("7")]);
        let mut ids = [id("\"b\""), id("10"), id("9"), id("\"-1\"")];
        ids.sort();
        assert_eq!(ids.map(|id| id.0), ["-1", "9", "10", "b"]);
    }

    #[test]
    fn forms_are_told_by_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let found = |text: &str| {
            std::fs::write(&path, text).unwrap();
            with_keys::<Pair>(&path, &["id", "width"], "export it again").map(|pair| pair.is_some())
        };
        assert!(found("\u{feff}{\"id\": 1, \"width\": 2}").unwrap());
        for other in ["[1, 2]", "[{\"id\": 1, \"width\": 2}]", "{\"id\": 1}", "", "\"id\"", "{", "{\"id\": \"width\"}"]
        {
            assert!(!found(other).unwrap(), "{other}");
        }
        let error = found("{\"id\": 1, \"width\": ").unwrap_err();
        assert!(error.to_string().contains("cut short") && error.hint() == Some("export it again"));
        assert!(found("{\"id\": [], \"width\": 2}").unwrap_err().to_string().contains("a.json"));
        // What other programs write.
        let utf16: Vec<u8> = "\u{feff}{\"id\": 1, \"width\": 2}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        std::fs::write(&path, utf16).unwrap();
        assert!(with_keys::<Pair>(&path, &["id", "width"], "").unwrap().is_some());
        for (text, why) in [
            ("{\"id\": 1,\n \"width\": NaN}", "NaN or Infinity, which JSON does not have, at line 2"),
            ("{\"id\": 1, \"width\": -Infinity}", "NaN or Infinity"),
            ("{\"id\": 1, \"width\": [1, 2, ]}", "comma too many"),
            ("{\"id\": 1, \"width\": 2, }", "comma too many"),
            ("{\"id\": 1, \"width\": 2 \"x\": 3}", "is not JSON at line 1"),
        ] {
            let error = found(text).unwrap_err();
            assert!(
                error.to_string().contains(why) && error.hint().unwrap().contains("export it again"),
                "{text}: {error}"
            );
        }
    }
}
