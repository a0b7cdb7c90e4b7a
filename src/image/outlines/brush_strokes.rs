//! Label Studio's brush strokes.
//!
//! They are the bytes of an RGBA picture, of which what is not transparent is covered, packed by `@thi.ng/rle-pack`: 32
//! bits of how many words, 5 of the bits of a word, four times 4 of the bits of a length; then runs, one word for all
//! or one each.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::image::outlines::{ClassStatistics, statistics};
use crate::image::{Labels, MAX_PIXELS};

/// The brush strokes of a class, as label-studio-converter's `mask2rle` packs a mask of 0 and 255.
#[must_use]
pub fn label_studio_rle(labels: &Labels, class: u8) -> Vec<u8> {
    // As many bits as the lengths of four kinds of runs have, which are given less one.
    const LENGTHS: [u32; 4] = [3, 4, 8, 16];
    let mut bits = BitWriter::default();
    bits.put(4 * labels.ids.len() as u32, 32);
    bits.put(7, 5);
    LENGTHS.into_iter().for_each(|length| bits.put(length - 1, 4));
    let mut pixels = labels.ids.chunk_by(|a, b| (*a == class) == (*b == class));
    let mut run = |covered: bool, length: usize| {
        let kind = LENGTHS.iter().position(|bits| length <= 1 << bits).unwrap_or(3);
        bits.put(1, 1);
        bits.put(kind as u32, 2);
        bits.put(length as u32 - 1, LENGTHS[kind]);
        bits.put(if covered { 255 } else { 0 }, 8);
    };
    pixels.by_ref().for_each(|pixels| {
        let mut left = 4 * pixels.len();
        while left > 0 {
            let length = left.min(1 << LENGTHS[3]);
            run(pixels[0] == class, length);
            left -= length;
        }
    });
    bits.finish()
}

/// A task with a prediction, to be imported: a brush region per class. `image` is the value of `data.image`, a link
/// that Label Studio opens. The tags are called `label` and `image`.
#[must_use]
pub fn label_studio_task(labels: &Labels, names: &[String], image: &str, version: &str) -> Value {
    let region = |class: &ClassStatistics| {
        json!({
            "id": format!("class{}", class.id),
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": labels.width,
            "original_height": labels.height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": label_studio_rle(labels, class.id), "brushlabels": [class.name]},
        })
    };
    let regions: Vec<Value> = statistics(labels, names).classes.iter().map(region).collect();
    json!({"data": {"image": image}, "predictions": [{"model_version": version, "result": regions}]})
}

/// The link to an image in Label Studio's local storage, for a path below its document root.
#[must_use]
pub fn label_studio_link(path: &str) -> String {
    let mut link = "/data/local-files/?d=".to_owned();
    for byte in path.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b'/' => link.push(byte.into()),
            _ => link.push_str(&format!("%{byte:02X}")),
        }
    }
    link
}

/// What brush strokes cover, `height * width` values that are 0 or 255.
///
/// # Errors
/// Bytes that are damaged, or of another picture.
pub fn decode_label_studio(rle: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let wrong = || Error::new("its `rle` is damaged");
    let mut bits = Bits { bytes: rle, at: 0 };
    let count = bits.take(32).ok_or_else(wrong)? as usize;
    let pixels = (width as u64).saturating_mul(height as u64);
    if pixels > MAX_PIXELS || count as u64 != 4 * pixels {
        return Err(Error::new(format!("its `rle` has {} pixels, and the picture has {width}x{height}", count / 4)));
    }
    let word = bits.take(5).ok_or_else(wrong)? + 1;
    let mut lengths = [0; 4];
    for length in &mut lengths {
        *length = bits.take(4).ok_or_else(wrong)? + 1;
    }
    let mut covered = vec![0u8; width * height];
    let mut at = 0;
    while at < count {
        let same = bits.take(1).ok_or_else(wrong)? == 1;
        let length = lengths[bits.take(2).ok_or_else(wrong)? as usize];
        let end = at + 1 + bits.take(length).ok_or_else(wrong)? as usize;
        if end > count {
            return Err(wrong());
        }
        let mut value = if same { bits.take(word).ok_or_else(wrong)? } else { 0 };
        while at < end {
            if !same {
                value = bits.take(word).ok_or_else(wrong)?;
            }
            // The last of four is how opaque a pixel is.
            if at % 4 == 3 && value > 0 {
                covered[at / 4] = 255;
            }
            at += 1;
        }
    }
    Ok(covered)
}

/// Bits put into bytes, the highest first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    last: u64,
    count: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: u32) {
        self.last = self.last << count | u64::from(value);
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.last >> self.count) as u8);
        }
    }

    /// Filled up with zeros, of which there is at least one.
    fn finish(mut self) -> Vec<u8> {
        self.put(0, 8 - self.count);
        self.bytes
    }
}

/// Bits of bytes, the highest first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }
}
