//! NumPy's `.npy` as a mask: whole numbers or truth values, in two dimensions.

use crate::error::{Error, Result};
use crate::image::formats::canvas::{Canvas, Kind, Layout, RowPlace};
use crate::image::formats::{DAMAGED, Format, check_size};

/// Puts the array on the canvas.
pub(super) fn decode(bytes: &[u8], canvas: &mut dyn Canvas) -> Result<()> {
    let header = Header::read(bytes)?;
    let (height, width, size) = (header.shape[0], header.shape[1], header.size);
    check_size(width as u64, height as u64)?;
    let data = bytes.get(header.length..).filter(|data| data.len() >= width * height * size).ok_or_else(|| {
        Error::new(format!("it is cut short: an array of {height} x {width} takes {} bytes", width * height * size))
            .with_hint(DAMAGED)
    })?;
    let bits = if size == 1 { 8 } else { 16 };
    canvas.begin((width, height), Layout::new(Format::Npy, Kind::Gray, bits, None))?;
    let mut samples = Vec::with_capacity(width);
    for y in 0..height {
        samples.clear();
        for x in 0..width {
            let at = if header.fortran { x * height + y } else { y * width + x };
            let value = header.value(&data[at * size..][..size]);
            samples.push(u16::try_from(value).map_err(|_| {
                Error::new(format!("column {x}, row {y} holds {value}, but class numbers are 0 to 65535"))
                    .with_hint("write 255 for pixels to ignore")
            })?);
        }
        canvas.place(RowPlace { x: 0, y, step: 1 }, &samples);
    }
    Ok(())
}

/// Width and height.
pub(super) fn size(bytes: &[u8]) -> Result<(usize, usize)> {
    let Header { shape: [height, width], .. } = Header::read(bytes)?;
    check_size(width as u64, height as u64)?;
    Ok((width, height))
}

struct Header {
    /// Bytes before the data.
    length: usize,
    shape: [usize; 2],
    fortran: bool,
    big: bool,
    signed: bool,
    /// Bytes of a number.
    size: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::new("its NumPy header cannot be understood").with_hint(DAMAGED);
        let (start, length) = match (bytes.get(6), bytes.get(8..12)) {
            (Some(1), Some(length)) => (10, usize::from(u16::from_le_bytes([length[0], length[1]]))),
            (Some(2 | 3), Some(length)) => {
                (12, u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize)
            }
            _ => return Err(damaged()),
        };
        let text = bytes.get(start..start + length).and_then(|text| std::str::from_utf8(text).ok());
        let text = text.ok_or_else(damaged)?;
        let value = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
        let kind = value("descr").ok_or_else(damaged)?;
        let kind = kind.strip_prefix('\'').and_then(|kind| kind.split('\'').next()).unwrap_or(kind);
        let (order, number) = kind.split_at_checked(1).ok_or_else(damaged)?;
        let (signed, size) = match number {
            "b1" | "u1" => (false, 1),
            "i1" => (true, 1),
            "u2" => (false, 2),
            "i2" => (true, 2),
            "u4" => (false, 4),
            "i4" => (true, 4),
            "u8" => (false, 8),
            "i8" => (true, 8),
            _ => {
                return Err(Error::new(format!("it holds numbers of type `{kind}`"))
                    .with_hint("masks hold integers or booleans: numpy.save(path, mask.astype(numpy.uint8))"));
            }
        };
        let shape = value("shape").and_then(|shape| shape.strip_prefix('(')?.split_once(')')).ok_or_else(damaged)?.0;
        let mut sides: Vec<&str> = shape.split(',').map(str::trim).filter(|side| !side.is_empty()).collect();
        // One channel, or a batch of one, is not a dimension.
        while sides.len() > 2 && (sides.last() == Some(&"1") || sides.first() == Some(&"1")) {
            if sides.last() == Some(&"1") {
                sides.pop();
            } else {
                sides.remove(0);
            }
        }
        let [height, width] = sides[..] else {
            return Err(Error::new(format!("it is an array of shape ({shape})"))
                .with_hint(
                    "a mask has two dimensions, height and width, and one class number per pixel; of a layer for each class: \
                     numpy.save(path, mask.argmax(axis=-1).astype(numpy.uint8)), or axis=0 where the layers come first",
                ));
        };
        let side = |text: &str| text.parse::<u32>().map(|side| side as usize).map_err(|_| damaged());
        Ok(Self {
            length: start + length,
            shape: [side(height)?, side(width)?],
            fortran: value("fortran_order").is_some_and(|value| value.starts_with("True")),
            big: order == ">",
            signed,
            size,
        })
    }

    fn value(&self, bytes: &[u8]) -> i128 {
        let fold = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let number = if self.big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) };
        let unused = 64 - 8 * self.size as u32;
        if self.signed { i128::from((number << unused) as i64 >> unused) } else { i128::from(number) }
    }
}
