//! The parsers, each as a function of bytes.

use std::path::Path;

use structtoken::data::spec::DatasetSpec;

/// The TOML that describes a dataset.
pub fn dataset_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    DatasetSpec::parse(text, Path::new("fuzz.toml")).ok();
}
