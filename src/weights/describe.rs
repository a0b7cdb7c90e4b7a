//! The contents of a weight file, for people to read.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Result;
use crate::weights::key_format::KeyFormat;
use crate::weights::read::read;
use crate::weights::recognize_convolutional::Convolutional;
use crate::weights::remap_keys::{architecture, remap_keys};
use crate::weights::state::WeightFormat;

/// A weights file in short.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckpointSummary {
    /// The kind of file.
    pub format: WeightFormat,
    /// The key format its names follow; none where they fit no known one.
    pub key_format: Option<KeyFormat>,
    /// What network it is of, where that is known to be none of this crate's.
    pub architecture: Option<&'static str>,
    /// Which ResNet or ConvNeXt is in it, if one is.
    pub convolutional: Option<Convolutional>,
    /// The dictionary inside the file that was taken, for instance `state_dict`.
    pub wrapper: Option<String>,
    /// Every tensor, by our names where the key format is known.
    pub tensors: Vec<TensorSummary>,
    /// Elements in all tensors.
    pub elements: usize,
    /// How many tensors have each element type, for instance 174 of `f16`.
    pub dtypes: BTreeMap<String, usize>,
    /// The strings the file carries.
    pub metadata: BTreeMap<String, String>,
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSummary {
    /// The name.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// The smallest and the largest finite value; zeros where there is none.
    pub range: (f32, f32),
    /// How many values are infinite or NaN.
    pub not_finite: usize,
}

/// Reads the file at `path` and describes what it holds.
///
/// # Errors
///
/// As [`read`]. Unknown names are none.
pub fn describe(path: &Path) -> Result<CheckpointSummary> {
    let state = read(path)?;
    let renamed = remap_keys(&state).ok();
    let tensors: Vec<TensorSummary> = match &renamed {
        Some(renamed) => renamed.tensors.iter().map(|(name, t)| summary(name, &t.shape, &t.data)).collect(),
        None => state.tensors.iter().map(|(name, t)| summary(name, &t.shape, &t.data)).collect(),
    };
    let shapes = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    let convolutional = Convolutional::of(&shapes);
    let mut dtypes = BTreeMap::new();
    for dtype in state.dtypes.values() {
        *dtypes.entry((*dtype).to_owned()).or_default() += 1;
    }
    Ok(CheckpointSummary {
        architecture: if renamed.is_none() { architecture(&state) } else { None },
        convolutional,
        format: state.format,
        key_format: renamed.map(|renamed| renamed.key_format),
        wrapper: state.wrapper.clone(),
        elements: tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum(),
        tensors,
        dtypes,
        metadata: state.metadata,
    })
}

fn summary(name: &str, shape: &[usize], data: &[f32]) -> TensorSummary {
    let finite = || data.iter().copied().filter(|value| value.is_finite());
    let range = finite().fold(None, |range: Option<(f32, f32)>, value| {
        Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    });
    TensorSummary {
        name: name.to_owned(),
        shape: shape.to_vec(),
        range: range.unwrap_or_default(),
        not_finite: data.len() - finite().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::parameters::tests::model;
    use crate::weights::save;

    #[test]
    fn summarises_a_saved_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let metadata = BTreeMap::from([("classes".to_owned(), "a, b".to_owned())]);
        save(&path, &model(4, 2, 3, (2, 2), "a", &burn::prelude::Device::flex()), &metadata).unwrap();
        let summary = describe(&path).unwrap();
        assert_eq!((summary.key_format, summary.elements, summary.tensors.len()), (Some(KeyFormat::Ours), 96, 9));
        assert_eq!((summary.dtypes["f32"], summary.metadata["classes"].as_str()), (9, "a, b"));
    }

    #[test]
    fn counts_what_is_not_finite() {
        let tensor = summary("x", &[4], &[1.0, f32::NAN, -3.0, f32::INFINITY]);
        assert_eq!((tensor.range, tensor.not_finite), ((-3.0, 1.0), 2));
        assert_eq!(summary("e", &[0], &[]).range, (0.0, 0.0));
    }
}
