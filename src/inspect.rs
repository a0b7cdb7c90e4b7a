//! Cost and composition of a model, without running it.

use burn::tensor::Device;
use serde::Serialize;

use crate::layers::{Cost, parameters};
use crate::model::ModelConfig;

/// Size and cost of a model.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ModelSize {
    /// Classes.
    pub classes: usize,
    /// Height and width of the image that was counted.
    pub image: [usize; 2],
    /// Rows, columns and channels of the feature map, and of the logits.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Parameters of each part, summed over tensors.
    pub parameters: Vec<(String, u64)>,
    /// All parameters.
    pub total_parameters: u64,
    /// Multiply-accumulates of one image by part.
    pub macs: Vec<Cost>,
    /// All multiply-accumulates.
    pub total_macs: u64,
}

/// Counts the model of `config` for one image of the size it is made for.
pub fn model_size(config: &ModelConfig, classes: usize) -> ModelSize {
    let features = config.backbone.features();
    let (rows, cols) = features.grid;
    let image = [rows * features.stride(), cols * features.stride()];
    let mut counted: Vec<(String, u64)> = Vec::new();
    for (name, shape, _) in parameters::list(&config.blank(classes, &Device::flex())) {
        let part = part_of(&name);
        let count = shape.iter().product::<usize>() as u64;
        match counted.iter_mut().find(|(name, _)| *name == part) {
            Some((_, sum)) => *sum += count,
            None => counted.push((part, count)),
        }
    }
    let macs = config.macs(classes, (image[0], image[1]));
    let channels = features.channels.last().copied().unwrap_or(0);
    ModelSize {
        classes,
        image,
        shapes: vec![
            ("images [b, 3, height, width]".into(), vec![1, 3, image[0], image[1]]),
            ("features [b, h, w, c]".into(), vec![1, rows, cols, channels]),
            ("logits [b, h, w, k]".into(), vec![1, rows, cols, classes]),
            ("label map [height, width]".into(), image.to_vec()),
        ],
        total_parameters: counted.iter().map(|(_, count)| count).sum(),
        parameters: counted,
        total_macs: macs.iter().map(|cost| cost.macs).sum(),
        macs,
    }
}

/// The first parts of a name, so that a table has a line a block.
fn part_of(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let depth = if parts.get(2).is_some_and(|part| part.parse::<usize>().is_ok()) { 3 } else { 2 };
    parts[..depth.min(parts.len())].join(".")
}

impl ModelSize {
    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| text.push_str(&format!("{name:<34} {value:>22}\n"));
        row("parameters", String::new());
        for (name, count) in &self.parameters {
            row(&format!("  {name}"), grouped(*count));
        }
        row("  total", grouped(self.total_parameters));
        let [height, width] = self.image;
        row(&format!("multiply-accumulates, {height} x {width}"), String::new());
        for cost in &self.macs {
            row(&format!("  {}", cost.part), giga(cost.macs));
        }
        row("  total", giga(self.total_macs));
        row("shapes", String::new());
        for (name, shape) in &self.shapes {
            let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
            row(&format!("  {name}"), shape.join(" x "));
        }
        text
    }
}

/// `1234567` as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

/// Multiply-accumulates in thousands of millions, or in millions if there are few.
fn giga(macs: u64) -> String {
    if macs < 100_000_000 { format!("{:.3} M", macs as f64 / 1e6) } else { format!("{:.3} G", macs as f64 / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_row_of_vit_s_pwe() {
        let summary = model_size(&ModelConfig::default(), 150);
        assert_eq!((summary.total_parameters, summary.total_macs), (37_962_588, 47_853_093_888));
        assert!(summary.table().contains("37 962 588") && summary.table().contains("47.853 G"));
        assert_eq!(part_of("backbone.blocks.3.attn.qkv.weight"), "backbone.blocks.3");
        assert_eq!(part_of("decoder.kernels"), "decoder.kernels");
    }
}
