//! The parsers, each as a function of bytes.

use std::path::Path;

use structtoken::data::image::{decode_image, decode_mask, jpeg_is_whole};
use structtoken::data::spec::DatasetSpec;

/// The TOML that describes a dataset.
pub fn dataset_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    DatasetSpec::parse(text, Path::new("fuzz.toml")).ok();
}

/// Images of every format.
pub fn image(bytes: &[u8]) {
    decode_image(bytes).ok();
}

/// Masks of every format.
pub fn mask(bytes: &[u8]) {
    decode_mask(bytes).ok();
}

/// Arrays as masks.
pub fn npy(bytes: &[u8]) {
    if bytes.starts_with(b"\x93NUMPY") {
        decode_mask(bytes).ok();
    }
}

/// The walk through the scans of a JPEG.
pub fn jpeg_complete(bytes: &[u8]) {
    jpeg_is_whole(bytes).ok();
}
