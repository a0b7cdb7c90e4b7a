//! The wire format of protocol buffers, as far as ONNX files need it.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::error::{Error, Result};

/// A message that is being written. Large contents are borrowed, so that a file is never in memory twice.
#[derive(Default)]
pub(super) struct Message<'a> {
    parts: Vec<Cow<'a, [u8]>>,
    length: usize,
}

impl<'a> Message<'a> {
    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// A number of any integer type.
    pub(super) fn number(&mut self, field: u32, value: i64) {
        self.tag(field, 0);
        self.varint(value as u64);
    }

    /// A float.
    pub(super) fn float(&mut self, field: u32, value: f32) {
        self.tag(field, 5);
        self.append(&value.to_le_bytes());
    }

    /// Text.
    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.append(value.as_bytes());
    }

    /// Bytes.
    pub(super) fn bytes(&mut self, field: u32, value: Cow<'a, [u8]>) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.length += value.len();
        self.parts.push(value);
    }

    /// A message within.
    pub(super) fn message(&mut self, field: u32, value: Message<'a>) {
        self.tag(field, 2);
        self.varint(value.length as u64);
        self.length += value.length;
        self.parts.extend(value.parts);
    }

    /// All of it.
    ///
    /// # Errors
    /// Those of `to`.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| to.write_all(part))
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    fn varint(&mut self, mut value: u64) {
        let mut bytes = [0; 10];
        let mut count = 0;
        loop {
            bytes[count] = (value & 0x7f) as u8 | if value > 0x7f { 0x80 } else { 0 };
            count += 1;
            value >>= 7;
            if value == 0 {
                break;
            }
        }
        self.append(&bytes[..count]);
    }

    fn append(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        match self.parts.last_mut() {
            Some(Cow::Owned(last)) => last.extend_from_slice(bytes),
            _ => self.parts.push(Cow::Owned(bytes.to_vec())),
        }
    }
}

/// The value of a field that is being read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    /// An integer.
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed,
}

/// The fields of a message, in their order: numbers and values.
///
/// # Errors
/// Where `bytes` are no message.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Field<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            1 => take(&mut bytes, 8).map(|_| Field::Fixed)?,
            2 => {
                let length = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => take(&mut bytes, 4).map(|_| Field::Fixed)?,
            _ => return Err(damaged()),
        };
        let field = u32::try_from(tag >> 3).map_err(|_| damaged())?;
        found.push((field, value));
    }
    Ok(found)
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let length = usize::try_from(length).ok().filter(|length| *length <= bytes.len()).ok_or_else(damaged)?;
    let (head, tail) = bytes.split_at(length);
    *bytes = tail;
    Ok(head)
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or_else(damaged)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged())
}

fn damaged() -> Error {
    Error::new("it is damaged, or is not ONNX").with_hint("copy the file again, or export the model again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Message::default();
        inner.text(1, "key");
        inner.number(2, -1);
        let mut message = Message::default();
        message.number(1, 300);
        message.float(3, 1.5);
        message.message(7, inner);
        message.bytes(9, Cow::Borrowed(&[1, 2, 3]));
        message.number(20, 0);
        let mut bytes = Vec::new();
        message.write(&mut bytes).unwrap();
        assert_eq!(message.len(), bytes.len());
        let read = fields(&bytes).unwrap();
        let [(1, Field::Number(300)), (3, Field::Fixed), (7, Field::Bytes(inner)), (9, Field::Bytes(&[1, 2, 3])), last] =
            read[..]
        else {
            panic!("{read:?}")
        };
        assert_eq!(last, (20, Field::Number(0)));
        assert_eq!(fields(inner).unwrap(), [(1, Field::Bytes(b"key")), (2, Field::Number(u64::MAX))]);
    }

    #[test]
    fn damaged_messages_are_refused() {
        for bytes in [&[0x0a, 5, 1][..], &[0x80], &[0x0b], &[0xff; 12], &[0x0d, 1, 2]] {
            assert!(fields(bytes).is_err(), "{bytes:?}");
        }
    }
}
