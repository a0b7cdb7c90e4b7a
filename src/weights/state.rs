//! Tensors in CPU memory, and what their file says of itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::weights::dtype::Dtype;

/// How many times its own size a compressed or aliased file may grow to in memory; small files may reach 64 MiB.
pub const MAX_EXPANSION: u64 = 16;

/// A tensor in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// As many values as the product of the extents.
    pub data: Vec<f32>,
}

/// What a weights file holds: tensors by name, and whatever it says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateDict {
    /// The tensors, under the names the file gives them.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Strings the file carries: safetensors' `__metadata__`, or what stands beside the weights in a `.pth`.
    pub metadata: BTreeMap<String, String>,
    /// The file, where it came from one.
    pub path: Option<PathBuf>,
    /// The kind of file.
    pub format: WeightFormat,
    /// The dictionary inside the file that was taken, for instance `state_dict`.
    pub wrapper: Option<String>,
    /// The element type each tensor had in the file, for instance `f16`.
    pub dtypes: BTreeMap<String, &'static str>,
}

/// The kinds of files that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightFormat {
    /// No file: tensors taken from a module.
    #[default]
    Memory,
    /// Hugging Face's safetensors.
    Safetensors,
    /// `torch.save` since PyTorch 1.6, a zip archive.
    PytorchZip,
    /// `torch.save` before PyTorch 1.6, a stream of pickles.
    PytorchLegacy,
    /// NumPy's archive of arrays.
    Npz,
}

impl std::fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "in memory",
            Self::Safetensors => "safetensors",
            Self::PytorchZip => "PyTorch zip",
            Self::PytorchLegacy => "PyTorch before 1.6",
            Self::Npz => "NumPy npz",
        })
    }
}

impl StateDict {
    pub(super) fn new(format: WeightFormat) -> Self {
        Self { format, ..Self::default() }
    }

    /// Adds the tensor `name` from its bytes in the file. The caller has compared their number with the shape.
    pub(super) fn insert(&mut self, name: String, shape: Vec<usize>, dtype: Dtype, bytes: &[u8]) {
        self.dtypes.insert(name.clone(), dtype.name());
        self.tensors.insert(name, HostTensor { shape, data: dtype.decode(bytes) });
    }

    /// The file's name for messages.
    pub(super) fn title(&self) -> String {
        self.path.as_ref().map_or_else(|| "the state dict".to_owned(), |path| format!("`{}`", path.display()))
    }
}

/// The number of elements of `shape`, or an error that names the tensor. An extent of zero hides no impossible others.
pub(super) fn elements(name: &str, shape: &[usize]) -> Result<usize> {
    let product = shape.iter().try_fold(1usize, |n, extent| n.checked_mul((*extent).max(1)));
    if product.is_none_or(|n| n > usize::MAX / 16) {
        return Err(Error::new(format!("the tensor `{name}` claims the impossible shape {shape:?}"))
            .with_hint("the file is damaged or was made to do harm: get it again from its source"));
    }
    Ok(shape.iter().product())
}

/// The bytes a file of `len` bytes may take in memory, see [`MAX_EXPANSION`].
pub(super) fn allowance(len: u64) -> u64 {
    len.saturating_mul(MAX_EXPANSION).max(64 << 20)
}

/// The remedy for a file that ends too early or contradicts itself.
pub(super) const AGAIN: &str = "the file is damaged or was cut short: copy or download it again and compare its size";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_shapes_are_refused() {
        assert_eq!(elements("x", &[2, 3]).unwrap(), 6);
        assert_eq!(elements("x", &[]).unwrap(), 1);
        assert_eq!(elements("x", &[3, 0]).unwrap(), 0);
        assert!(elements("x", &[0, usize::MAX, 2]).is_err());
        assert!(elements("x", &[usize::MAX, 2]).is_err() && elements("x", &[usize::MAX / 4]).is_err());
    }
}
