//! The common part of ResNet and ConvNeXt: maps of several strides, each with half of the rows and columns of the one
//! before.

use burn::tensor::Tensor;

use crate::backbone::{FeatureInfo, Features};
use crate::error::{Error, Result};

/// A map on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Its channels.
    pub channels: usize,
    /// Image pixels per pixel, along a side.
    pub stride: usize,
}

impl Level {
    /// Pixels of its map, where a map of `stride` has (rows, columns).
    pub(super) fn pixels(self, (rows, columns): (usize, usize), stride: usize) -> usize {
        let side = |side: usize| (side * stride).div_ceil(self.stride);
        side(rows) * side(columns)
    }
}

/// The shapes of the maps that `out_indices` names of `stages`; those of the last one where it names none.
pub(super) fn features(stages: &[Level; STAGES], out_indices: &[usize], img_size: [usize; 2]) -> FeatureInfo {
    let maps: Vec<Level> = handed_out(out_indices).into_iter().map(|stage| stages[stage]).collect();
    let stride = maps.last().map_or(1, |map| map.stride);
    let [rows, columns] = img_size.map(|side| side.div_ceil(stride));
    FeatureInfo {
        channels: maps.iter().map(|map| map.channels).collect(),
        strides: maps.iter().map(|map| map.stride).collect(),
        grid: (rows, columns),
        transformer: None,
    }
}

/// Stages of either network; their maps have strides of 4, 8, 16 and 32.
pub(crate) const STAGES: usize = 4;

/// The stages whose maps are handed out.
pub(super) fn handed_out(out_indices: &[usize]) -> Vec<usize> {
    if out_indices.is_empty() { vec![STAGES - 1] } else { out_indices.to_vec() }
}

/// The deepest stage whose map is handed out: none is run beyond it.
pub(super) fn deepest(out_indices: &[usize]) -> usize {
    handed_out(out_indices).into_iter().max().unwrap_or(STAGES - 1)
}

/// The maps of `stages` that `out_indices` names.
pub(super) fn select(stages: &[Tensor<4>], out_indices: &[usize]) -> Features {
    Features { maps: handed_out(out_indices).into_iter().map(|stage| stages[stage].clone()).collect() }
}

/// Refuses what neither network can be built of, naming the key.
pub(super) fn check(
    channels: &[usize],
    depths: &[usize],
    drop_path_rate: f64,
    out_indices: &[usize],
    img_size: [usize; 2],
) -> Result<()> {
    let refuse = |what: String| Err(Error::new(format!("model.backbone: {what}")));
    if channels.len() != STAGES || channels.iter().any(|width| !(1..=1 << 12).contains(width)) {
        return refuse(format!("the channels {channels:?} are not those of {STAGES} stages, each of 1 to 4096"));
    }
    if depths.len() != STAGES || depths.iter().any(|depth| !(1..=128).contains(depth)) {
        return refuse(format!("depths = {depths:?} are not those of {STAGES} stages, each of 1 to 128 blocks"));
    }
    if !(0.0..1.0).contains(&drop_path_rate) {
        return refuse(format!("drop_path_rate = {drop_path_rate} is not in [0, 1)"));
    }
    let twice = (1..out_indices.len()).any(|i| out_indices[..i].contains(&out_indices[i]));
    if twice || out_indices.iter().any(|stage| *stage >= STAGES) {
        return refuse(format!("out_indices = {out_indices:?} must name stages 0 to {}, none twice", STAGES - 1));
    }
    if img_size.iter().any(|side| !(1..=1 << 16).contains(side)) {
        return refuse(format!("img_size = {img_size:?} is out of range"));
    }
    Ok(())
}
