//! onnxruntime-web, which runs ONNX files in browsers. It is larger than this program, so it is brought: an npm
//! package.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::export::folder::Files;
use crate::files;

/// The version that pages are made for and tested with.
pub const VERSION: &str = "1.30.0";

/// What the page loads of the package: the engine on the processor, and the one on the graphics card.
const PARTS: [&str; 6] = [
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
];
/// The largest has 27 MB.
const LARGEST: u64 = 200_000_000;
const LARGEST_DESCRIPTION: u64 = 1_000_000;
/// What WebAssembly begins with.
const WASM: &[u8] = b"\0asm\x01\0\0\0";

/// The package's files that a page needs.
pub struct Runtime {
    parts: Vec<(&'static str, Vec<u8>)>,
}

/// What is read of `package.json`.
#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// How to get the package.
#[must_use]
pub fn hint() -> String {
    format!(
        "get it from npm: npm pack onnxruntime-web@{VERSION} && tar -xzf onnxruntime-web-{VERSION}.tgz; \
         then pass --runtime package"
    )
}

impl Runtime {
    /// Reads the unpacked package in `folder`.
    ///
    /// # Errors
    /// A folder with something else, another version, and files that are missing or damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        let place = folder.display();
        let text = files::read_text(&folder.join("package.json"), LARGEST_DESCRIPTION);
        let text = text.map_err(|error| {
            Error::new(format!("`{place}` is not an unpacked onnxruntime-web: `package.json` cannot be read"))
                .with_source(error)
                .with_hint(hint())
        })?;
        let package: Option<Package> = serde_json::from_str(&text).ok();
        let Some(package) = package.filter(|package| package.name == "onnxruntime-web") else {
            let message = format!("`{place}` is another package than onnxruntime-web");
            return Err(Error::new(message).with_hint(hint()));
        };
        if package.version != VERSION {
            let message = format!("`{place}` is onnxruntime-web {}; pages are made for {VERSION}", package.version);
            return Err(Error::new(message).with_hint(hint()));
        }
        let part = |name: &'static str| -> Result<(&'static str, Vec<u8>)> {
            let path = folder.join("dist").join(name);
            let bytes =
                files::read(&path, LARGEST).map_err(|error| Error::file("read", &path, error).with_hint(hint()))?;
            let whole = if name.ends_with(".wasm") { bytes.starts_with(WASM) } else { !bytes.is_empty() };
            if !whole {
                return Err(Error::new(format!("`{}` is damaged", path.display())).with_hint(hint()));
            }
            Ok((name, bytes))
        };
        Ok(Self { parts: PARTS.into_iter().map(part).collect::<Result<_>>()? })
    }

    /// Its files as they lie in the page's folder, with its licence, which asks to stay with them.
    pub(super) fn files(&self) -> Files {
        let mut all: Files = self.parts.iter().map(|(name, bytes)| (format!("ort/{name}"), bytes.clone())).collect();
        all.push(("ort/LICENSE.txt".to_owned(), include_bytes!("onnxruntime-license.txt").to_vec()));
        all
    }
}
