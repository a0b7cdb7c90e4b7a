//! The mask on its way: what the tokens say before the image, after every block, and in the end.

use serde::Serialize;

use crate::decoder::{Output, SegLogits};
use crate::error::Result;
use crate::image::{IGNORE, Image, Labels};
use crate::infer::{Inference, Trace, overview};
use crate::metrics::overlap::Overlaps;
use crate::model::Model;
use crate::report::TokenBlock;
use crate::report::pictures::stage_labels;
use crate::report::run::{OVERVIEW, block, blocks};
use crate::stats::ratio;

/// What one stage of a decoder would answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// `learned tokens`, `with their prior` where there is one, `after block 1`, ..., `logits`.
    pub name: String,
    /// Its mIoU against the truth.
    pub miou: Option<f64>,
    /// The IoU of each class.
    pub classes: Vec<Option<f64>>,
    /// The share of pixels with a truth where it says what the last stage says.
    pub agreement: Option<f64>,
}

/// The stages of one image.
pub(super) struct Stages {
    /// Each as the tokens of all classes; empty for decoders that have but one stage.
    pub(super) maps: Vec<TokenBlock>,
    /// What a map spans: the image as it passed, and padded as the network pads it, widths and heights.
    passed: (usize, usize),
    padded: (usize, usize),
}

impl Stages {
    /// Those of `image`, which passes as in a report of its run.
    pub(super) fn of(model: &Model, inference: &Inference, image: &Image) -> Result<Self> {
        let (Trace { output, maps }, (height, width)) = overview(model, inference, image, OVERVIEW)?;
        let found = blocks(&maps);
        let maps = if found.is_empty() { answers(output) } else { found };
        let padded = (inference.network.padded(width), inference.network.padded(height));
        Ok(Self { maps, passed: (width, height), padded })
    }

    /// The class of the largest token at every pixel of an image of this height and width, by stage.
    pub(super) fn labels(&self, (height, width): (usize, usize)) -> Vec<(String, Labels)> {
        let labels = |stage: &TokenBlock| {
            let map = stage_labels(stage, self.padded);
            let at =
                |y: usize, x: usize| map.ids[y * self.passed.1 / height * self.padded.0 + x * self.passed.0 / width];
            let ids = (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| at(y, x)).collect();
            (stage.name.clone(), Labels { width, height, ids })
        };
        self.maps.iter().map(labels).collect()
    }
}

/// The answers of a decoder that gives one at each of its stages.
fn answers(output: Output) -> Vec<TokenBlock> {
    let answers: Vec<SegLogits> = match output {
        Output::Dense { logits, auxiliary } => auxiliary.into_iter().chain([logits]).map(SegLogits::from).collect(),
        Output::Queries { predictions } => {
            let one = |prediction| Output::Queries { predictions: vec![prediction] }.seg_logits();
            predictions.into_iter().map(one).collect()
        }
    };
    let last = answers.len().saturating_sub(1);
    let name = |at: usize| if at == last { "answer".to_owned() } else { format!("stage {}", at + 1) };
    let named = answers.into_iter().enumerate().map(|(at, answer)| block(name(at), &answer.scores().into_data()));
    named.collect()
}

/// Counts of stages over images.
pub(super) struct StageCounts {
    classes: usize,
    names: Vec<String>,
    overlaps: Vec<Overlaps>,
    /// Pixels on which a stage agrees with the last.
    agree: Vec<u64>,
    /// Pixels of each class in the last stage.
    answer: Vec<u64>,
}

impl StageCounts {
    pub(super) fn new(classes: usize) -> Self {
        Self { classes, names: Vec::new(), overlaps: Vec::new(), agree: Vec::new(), answer: vec![0; classes] }
    }

    /// Counts an image: its truth, and the label map of each stage.
    pub(super) fn add(&mut self, truth: &Labels, stages: &[(String, Labels)]) {
        let Some((_, last)) = stages.last() else { return };
        if self.names.is_empty() {
            self.names = stages.iter().map(|(name, _)| name.clone()).collect();
            self.overlaps = vec![Overlaps::new(self.classes); stages.len()];
            self.agree = vec![0; stages.len()];
        }
        // A token that is not a number says the first class.
        let class = |id: u8| if usize::from(id) < self.classes { id } else { 0 };
        for at in (0..truth.ids.len()).filter(|at| truth.ids[*at] != IGNORE) {
            let answer = class(last.ids[at]);
            self.answer[usize::from(answer)] += 1;
            for (number, (_, labels)) in stages.iter().enumerate() {
                let said = class(labels.ids[at]);
                self.overlaps[number].count(truth.ids[at], said);
                self.agree[number] += u64::from(said == answer);
            }
        }
    }

    /// The stages.
    pub(super) fn scores(&self) -> Vec<Stage> {
        let all = self.answer.iter().sum();
        let stage = |at: usize| Stage {
            name: self.names[at].clone(),
            miou: self.overlaps[at].miou(),
            classes: self.overlaps[at].ious(),
            agreement: ratio(self.agree[at], all),
        };
        (0..self.names.len()).map(stage).collect()
    }

    /// How far a map of one class, the most frequent in the answers, agrees with these: what knowing nothing of the
    /// image gives.
    pub(super) fn constant(&self) -> Option<f64> {
        ratio(self.answer.iter().copied().max()?, self.answer.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tests::model;
    use super::*;
    use crate::infer::InferConfig;
    use crate::infer::InferMode;
    use crate::loader::preprocess::Preprocess;
    use burn::tensor::Device;

    #[test]
    fn the_last_stage_is_the_answer() {
        let config = InferConfig { mode: InferMode::Whole, ..InferConfig::default() };
        let (preprocess, device) = (Preprocess::default(), Device::flex());
        let image = crate::infer::toy::picture(2, 30, 27);
        for (decoder, first, least) in [
            ("structtoken", "learned tokens", 4),
            ("knet", "stage 1", 3),
            ("maskformer", "stage 1", 3),
            ("eomt", "stage 1", 2),
        ] {
            let model = model(decoder, 3);
            let inference = Inference { network: &model, preprocess: &preprocess, config: &config, device: &device };
            let found = Stages::of(&model, &inference, &image).unwrap().labels((27, 30));
            assert_eq!(found[0].0, first);
            assert!(found.len() >= least, "{decoder}: {}", found.len());
            let last = &found.last().unwrap().1;
            let answer = inference.labels(&image).unwrap();
            let same = last.ids.iter().zip(&answer.ids).filter(|(a, b)| a == b).count();
            assert!(same * 100 >= answer.ids.len() * 90, "{decoder}: {same} of {}", answer.ids.len());
        }
        let fcn = model("fcn", 0);
        let inference = Inference { network: &fcn, preprocess: &preprocess, config: &config, device: &device };
        let mut counts = StageCounts::new(3);
        let maps = Stages::of(&fcn, &inference, &image).unwrap().labels((27, 30));
        let truth = Labels { ids: vec![1; 30 * 27], ..maps[0].1.clone() };
        counts.add(&truth, &maps);
        assert_eq!(counts.scores().last().unwrap().agreement, Some(1.0));
        assert!(counts.constant().unwrap() >= 1.0 / 3.0);
    }
}
