//! JSON that the program wrote for itself, read strictly: an object for a structure, and an error that names the field.
//!
//! What is derived by serde also reads a structure from an array of as many elements; here only an object will do.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use crate::error::{Error, Result};

/// The value that the JSON `bytes` hold.
///
/// # Errors
/// Something else than JSON of this form; the message names the field.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let trail = Trail::default();
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let found = T::deserialize(Strict { inner: &mut source, trail: &trail });
    let found = found.and_then(|value| source.end().map(|()| value));
    found.map_err(|error| match trail.to_string() {
        field if field.is_empty() => Error::new(error.to_string()),
        field => Error::new(format!("`{field}`: {error}")),
    })
}

/// Where an error was met, from the inside out.
#[derive(Default)]
struct Trail(RefCell<Vec<String>>);

impl Trail {
    fn note<T, E>(&self, found: Result<T, E>, step: impl FnOnce() -> String) -> Result<T, E> {
        if found.is_err() {
            self.0.borrow_mut().push(step());
        }
        found
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.borrow().iter().rev().enumerate() {
            let dot = if at > 0 && !step.starts_with('[') { "." } else { "" };
            write!(f, "{dot}{step}")?;
        }
        Ok(())
    }
}

/// Everything inside of `inner` is read strictly too.
struct Strict<'a, T> {
    inner: T,
    trail: &'a Trail,
}

macro_rules! pass {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let trail = self.trail;
            self.inner.$method(Strict { inner: visitor, trail })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    pass! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option
        deserialize_unit deserialize_seq deserialize_map deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, Strict { inner: visitor, trail: self.trail })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(name, Strict { inner: visitor, trail: self.trail })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(len, Strict { inner: visitor, trail: self.trail })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(name, len, Strict { inner: visitor, trail: self.trail })
    }

    /// A map is read from an object alone.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Strict { inner: visitor, trail: self.trail })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, Strict { inner: visitor, trail: self.trail })
    }
}

macro_rules! visit {
    ($($method:ident: $value:ty,)*) => {
        $(fn $method<E: serde::de::Error>(self, value: $value) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32, visit_f64: f64,
        visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict { inner: source, trail: self.trail })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, source: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Strict { inner: source, trail: self.trail })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Elements { inner: elements, trail: self.trail, at: 0 })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Entries { inner: entries, trail: self.trail, key: String::new() })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Strict { inner: variant, trail: self.trail })
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Strict { inner: source, trail: self.trail })
    }
}

struct Elements<'a, A> {
    inner: A,
    trail: &'a Trail,
    at: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let found = self.inner.next_element_seed(Strict { inner: seed, trail: self.trail });
        self.at += 1;
        self.trail.note(found, || format!("[{}]", self.at - 1))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Entries<'a, A> {
    inner: A,
    trail: &'a Trail,
    key: String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let Some(key) = self.inner.next_key::<String>()? else { return Ok(None) };
        self.key = key;
        let source: StringDeserializer<A::Error> = self.key.clone().into_deserializer();
        self.trail.note(seed.deserialize(source), || self.key.clone()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let found = self.inner.next_value_seed(Strict { inner: seed, trail: self.trail });
        self.trail.note(found, || self.key.clone())
    }
}

impl<'a, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<'a, A> {
    type Error = A::Error;
    type Variant = Strict<'a, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (name, content) = self.inner.variant_seed(seed)?;
        Ok((name, Strict { inner: content, trail: self.trail }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Strict { inner: seed, trail: self.trail })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Strict { inner: visitor, trail: self.trail })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Strict { inner: visitor, trail: self.trail })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        counts: Vec<Inner>,
        by_name: BTreeMap<String, f32>,
        kind: Kind,
        pair: (u8, Option<u64>),
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        a: u64,
        #[serde(default)]
        b: f64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Plain,
        Of(u32),
    }

    const GOOD: &str =
        r#"{"counts": [{"a": 1}, {"a": 2, "b": 0.5}], "by_name": {"x": 0.1}, "kind": {"of": 3}, "pair": [7, null]}"#;

    #[test]
    fn what_is_derived_is_read() {
        let found: Outer = parse_json(GOOD.as_bytes()).unwrap();
        let counts = vec![Inner { a: 1, b: 0.0 }, Inner { a: 2, b: 0.5 }];
        let by_name = BTreeMap::from([("x".to_owned(), 0.1)]);
        assert_eq!(found, Outer { counts, by_name, kind: Kind::Of(3), pair: (7, None) });
        assert_eq!(parse_json::<Kind>(b"\"plain\"").unwrap(), Kind::Plain);
    }

    #[test]
    fn errors_name_the_field_and_arrays_are_no_structures() {
        for (from, to, message) in [
            ("\"a\": 2", "\"a\": -2", "`counts[1].a`: invalid value: integer `-2`"),
            ("\"a\": 2", "\"a\": 2.5", "`counts[1].a`: invalid type: floating point `2.5`"),
            ("\"a\": 2", "\"a\": 18446744073709551616", "`counts[1].a`"),
            ("{\"a\": 1}", "[1, 0.5]", "`counts[0]`: invalid type: sequence"),
            ("0.1", "null", "`by_name.x`: invalid type: null"),
            ("0.1", "1e999", "`by_name.x`: number out of range"),
            ("{\"of\": 3}", "{\"of\": \"3\"}", "`kind`: invalid type"),
            ("7", "256", "`pair[0]`: invalid value"),
            ("\"pair\"", "\"pears\"", "`pears`: unknown field"),
            ("[7, null]}", "[7, null]} x", "trailing characters"),
            (GOOD, "[[], {}, \"plain\", [1, 2]]", "invalid type: sequence"),
            (GOOD, "", "EOF"),
        ] {
            let error = parse_json::<Outer>(GOOD.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(message) || error.contains(message) && !message.starts_with('`'), "{error}");
        }
        let deep = "[".repeat(100_000);
        assert!(
            parse_json::<Outer>(deep.as_bytes()).is_err() && parse_json::<serde_json::Value>(deep.as_bytes()).is_err()
        );
    }
}
