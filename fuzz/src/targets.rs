//! The parsers, each as a function of bytes.

use std::cell::OnceCell;
use std::path::Path;

use structtoken::dataset::spec::DatasetSpec;
use structtoken::image::outlines::{CocoRle, decode_label_studio};
use structtoken::image::{decode_image, decode_mask, jpeg_is_whole};
use structtoken::{device, model_file, weights};
use tempfile::NamedTempFile;

/// The TOML that describes a dataset.
pub fn dataset_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    DatasetSpec::parse(text, Path::new("fuzz.toml")).ok();
}

/// Puts the bytes into a file, for what reads files.
fn in_file(bytes: &[u8], read: impl FnOnce(&Path)) {
    thread_local!(static FILE: OnceCell<NamedTempFile> = const { OnceCell::new() });
    FILE.with(|file| {
        let path = file.get_or_init(|| NamedTempFile::new().unwrap()).path();
        std::fs::write(path, bytes).unwrap();
        read(path);
    });
}

/// A file of weights: its tensors, under our names, and what is told of them.
fn weights_of(bytes: &[u8]) {
    in_file(bytes, |path| {
        if let Ok(state) = weights::read(path) {
            weights::remap_keys(&state).ok();
            weights::describe(path).ok();
        }
    });
}

/// safetensors.
pub fn safetensors(bytes: &[u8]) {
    weights_of(bytes);
}

/// A model file, which describes itself.
pub fn model_card(bytes: &[u8]) {
    in_file(bytes, |path| {
        let (device, _) = device::open("cpu").unwrap();
        model_file::open(path, &device).ok();
        model_file::read_card(path).ok();
    });
}

/// PyTorch's old container.
pub fn pickle(bytes: &[u8]) {
    weights_of(bytes);
}

/// PyTorch's zip archive.
pub fn zip_pth(bytes: &[u8]) {
    weights_of(bytes);
}

/// NumPy's archive.
pub fn npz(bytes: &[u8]) {
    weights_of(bytes);
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

/// Run lengths of COCO, and brush strokes of Label Studio, after the sides of their picture.
pub fn run_lengths(bytes: &[u8]) {
    let [height, width, rle @ ..] = bytes else { return };
    let size = [height, width].map(|side| usize::from(*side));
    decode_label_studio(rle, size[1], size[0]).ok();
    if let Ok(counts) = String::from_utf8(rle.to_vec()) {
        CocoRle { size, counts }.decode().ok();
    }
}
