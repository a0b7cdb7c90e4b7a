//! Tensors of the Open Inference Protocol: in JSON, and as bytes after it.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};

use crate::serve::error::Fault;

/// A request to infer, as its JSON has it.
#[derive(Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) parameters: Parameters,
    pub(super) inputs: Vec<Input>,
    #[serde(default)]
    pub(super) outputs: Vec<Wanted>,
}

/// Those parameters that mean something here.
#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Parameters {
    #[serde(default)]
    pub(super) binary_data: Option<bool>,
    #[serde(default)]
    pub(super) binary_data_size: Option<usize>,
    #[serde(default)]
    pub(super) binary_data_output: Option<bool>,
}

/// A tensor that is given.
#[derive(Deserialize)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<u64>,
    #[serde(default)]
    pub(super) parameters: Parameters,
    #[serde(default)]
    pub(super) data: Option<Data>,
}

/// A tensor that is wanted.
#[derive(Deserialize)]
pub(super) struct Wanted {
    pub(super) name: String,
    #[serde(default)]
    pub(super) parameters: Parameters,
}

/// The values of a tensor in JSON, however their lists are nested.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) numbers: Vec<u8>,
    pub(super) texts: Vec<String>,
}

/// As it is read: a number takes a byte, and not a value of JSON.
impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = Self::default();
        Flat(&mut data).deserialize(deserializer)?;
        Ok(data)
    }
}

struct Flat<'a>(&'a mut Data);

impl<'de> DeserializeSeed<'de> for Flat<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("whole numbers from 0 to 255, base64 texts, or lists of them")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        let byte = u8::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))?;
        self.0.numbers.push(byte);
        Ok(())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.0.texts.push(value.to_owned());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Flat(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// The bytes of a request, cut into its JSON and the tensors after it.
///
/// # Errors
/// A header that is not the length of a part of the body.
pub(super) fn split<'a>(body: &'a [u8], header: Option<&str>) -> Result<(&'a [u8], &'a [u8]), Fault> {
    let Some(header) = header else { return Ok((body, &[])) };
    let length = header.trim().parse::<usize>().ok().filter(|length| *length <= body.len());
    length.map(|length| body.split_at(length)).ok_or_else(|| {
        Fault::bad_request(format!(
            "Inference-Header-Content-Length is `{header}`, and the body has {} bytes",
            body.len()
        ))
        .hint("give the length of the JSON at the start of the body")
    })
}

/// The elements of a tensor of BYTES: each after its length, in 4 bytes, little-endian.
///
/// # Errors
/// Lengths that do not add up.
pub(super) fn elements(mut bytes: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let wrong = || {
        Fault::bad_request("the binary data of a BYTES tensor do not add up")
            .hint("put 4 bytes of length, little-endian, before each element")
    };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
        let (element, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(wrong)?;
        found.push(element);
        bytes = rest;
        // One image a request is all that is taken.
        if found.len() > 1 {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_any_depth_are_flat() {
        let read = |text: &str| serde_json::from_str::<Data>(text);
        assert_eq!(read("[[1, [2]], 3]").unwrap().numbers, [1, 2, 3]);
        assert_eq!(read("[\"aGk=\"]").unwrap().texts, ["aGk="]);
        for wrong in ["[256]", "[-1]", "[1.5]", "{}", "[null]", &"[".repeat(100_000)] {
            assert!(read(wrong).is_err());
        }
    }

    #[test]
    fn bytes_are_cut_where_their_lengths_say() {
        assert_eq!(split(b"{}abc", Some("2")).unwrap(), (&b"{}"[..], &b"abc"[..]));
        assert_eq!(split(b"{}", None).unwrap(), (&b"{}"[..], &b""[..]));
        assert!(split(b"{}", Some("3")).is_err() && split(b"{}", Some("-1")).is_err());
        assert_eq!(elements(b"\x02\0\0\0hi").unwrap(), [b"hi"]);
        for wrong in [&b"\x02\0\0"[..], b"\x03\0\0\0hi", b"\xff\xff\xff\xffx"] {
            assert!(elements(wrong).is_err());
        }
    }
}
