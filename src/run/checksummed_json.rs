//! JSON that carries the checksum of its own text.
//!
//! What is summed are the digits as they stand in the file, white space between them apart. Nothing that is parsed
//! takes part: a float that reads back as its neighbour would make a sound file look damaged.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// What comes before the checksum, which is the last field, and after it.
const BEFORE: &[u8] = b",\"crc32\":\"";
const AFTER: &[u8] = b"\"}";
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 8;

/// CRC-32 in hexadecimal digits.
pub(super) fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

/// `value`, which has fields, as JSON with the checksum of its text as the last of them.
pub(super) fn seal(value: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |error| Error::new("cannot write JSON").with_source(error);
    let mut text = serde_json::to_vec_pretty(value).map_err(failed)?;
    let sum = checksum(&compact(&text));
    text.truncate(text.len() - "\n}".len());
    text.extend(format!(",\n  \"crc32\": \"{sum}\"\n}}").as_bytes());
    Ok(text)
}

/// What [`seal`] was given. A text without a checksum, as earlier versions wrote some, is taken as it is.
///
/// # Errors
/// Another text than was sealed, or one that is not such JSON.
pub(super) fn unseal<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let mut body = compact(text);
    let tail = body.len().saturating_sub(BEFORE.len() + DIGITS + AFTER.len());
    let written = body[tail..].strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER)).map(<[u8]>::to_vec);
    if let Some(written) = written {
        body.truncate(tail);
        body.push(b'}');
        if written != checksum(&body).as_bytes() {
            return Err(Error::new("it has changed since it was written: its checksum differs"));
        }
    }
    // A list would be taken for the fields in their order.
    if body.first() != Some(&b'{') {
        return Err(Error::new("it has changed since it was written: it has no fields"));
    }
    serde_json::from_slice(&body).map_err(|error| Error::new("it has changed since it was written").with_source(error))
}

/// The JSON without the white space between its tokens.
fn compact(text: &[u8]) -> Vec<u8> {
    let (mut inside, mut escaped) = (false, false);
    let mut kept = Vec::with_capacity(text.len());
    for &byte in text {
        if !inside && matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            continue;
        }
        kept.push(byte);
        (inside, escaped) = match byte {
            _ if escaped => (inside, false),
            b'\\' => (inside, inside),
            b'"' => (!inside, false),
            _ => (inside, false),
        };
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn white_space_is_dropped_outside_of_strings_alone() {
        let text = "{ \"a b\" : \"c \\\" \\\\\" ,\n\t\"d\": [ 1, 2 ] }";
        assert_eq!(compact(text.as_bytes()), br#"{"a b":"c \" \\","d":[1,2]}"#);
        let value = json!({"a b": "c \" \\", "d": [1, 2.5, {"e": "} "}]});
        assert_eq!(compact(&serde_json::to_vec_pretty(&value).unwrap()), value.to_string().as_bytes());
    }

    /// Any float, in whatever form it is written, reads back and is no damage.
    #[test]
    fn every_float_is_sealed_and_read_back() {
        let mut rng = Rng::new(17, &[]);
        for _ in 0..100_000 {
            let number = f64::from_bits(rng.next_u64());
            let share = f64::from(rng.uniform()) * f64::from(rng.uniform());
            let value = json!({"number": number, "share": share});
            let text = seal(&value).unwrap();
            assert_eq!(unseal::<Value>(&text).unwrap(), value, "{number:e} {share}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let value = json!({"best": [20, 0.164_078_148_087_341_97], "name": "a b", "stale": 1});
        let text = seal(&value).unwrap();
        let mut same = 0;
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // In the name of the checksum itself the value is still the one that was sealed, beside an unknown field.
            match unseal::<Value>(&flipped) {
                Ok(found) => {
                    assert!(found["best"] == value["best"] && found["stale"] == value["stale"], "{bit}");
                    same += 1;
                }
                Err(error) => assert!(error.to_string().starts_with("it has changed since it was written"), "{error}"),
            }
        }
        assert!(same < text.len(), "{same}");
        assert_eq!(unseal::<Value>(value.to_string().as_bytes()).unwrap(), value, "an earlier version's");
    }
}
