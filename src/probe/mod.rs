//! What a network relies on: cues taken away or set against each other, tokens changed, and where it fails.
//!
//! ```text
//! Sample ──[changes]──▶ changed picture and truth ──[infer]──▶ Labels ──[effects]──▶ costs with intervals ──[verdict]──▶ sentences
//! Model  ──[tokens]──▶ models with other tokens  ──[infer]──▶ Labels ──[effects]──▶ costs
//!        ──[stages]──▶ the mask after every block
//! ```

mod changes;
mod count;
mod cues;
mod effects;
mod geometry;
pub mod page;
mod place;
mod regions;
mod stages;
mod surface;
mod text;
mod textures;
mod tokens;
mod verdict;

use std::ops::ControlFlow;

use serde::Serialize;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::image::{Image, Labels};
use crate::infer::Inference;
use crate::model::Model;
use crate::report::TokenBlock;

pub use cues::Cue;
pub use effects::{ClassEffect, Effect, Effects, LEAST_IMAGES};
pub use place::{CurvatureScore, FailureScores, SizeScore};
pub use stages::Stage;
pub use tokens::Edit;
pub use verdict::{Basis, COSTS, KEEPS, LEAST_IOU, LEAST_REGIONS, ShapeBias, Verdict};

/// How a network is probed.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Decides every change and every draw.
    pub seed: u64,
    /// The changes to make.
    pub cues: Vec<Cue>,
    /// Draws of the bootstrap.
    pub draws: usize,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { seed: 0, cues: Cue::ALL.to_vec(), draws: 1000 }
    }
}

/// What is probed: a network with all about it, and the model that it is, where its tokens are to be changed.
pub struct Subject<'a> {
    /// The network.
    pub inference: Inference<'a>,
    /// The same as a model; without it tokens are left alone.
    pub model: Option<&'a Model>,
    /// A model of another seed, whose tokens the first is given.
    pub other: Option<&'a Model>,
}

/// What was found. The same subject, dataset, images and options give the same finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Images looked at.
    pub images: usize,
    /// The seed.
    pub seed: u64,
    /// The classes.
    pub classes: Vec<String>,
    /// The mean IoU of the pictures as they are, over the classes that the truth holds.
    pub miou: Option<f64>,
    /// The mean boundary IoU.
    pub boundary_miou: Option<f64>,
    /// What each class is found by.
    pub verdicts: Vec<Verdict>,
    /// What each change costs.
    pub cues: Vec<Effects>,
    /// Changes that no image allowed.
    pub not_measured: Vec<Cue>,
    /// How regions are labelled whose shape and texture contradict each other.
    pub shape_bias: Vec<ShapeBias>,
    /// What tokens do; none of a decoder that has none.
    pub tokens: Option<TokenFindings>,
    /// Where the network is right.
    pub place: FailureScores,
}

/// What tokens do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenFindings {
    /// How many there are.
    pub count: usize,
    /// Rows and columns of each, where they are maps.
    pub grid: Option<[usize; 2]>,
    /// Whether each is of a class.
    pub of_classes: bool,
    /// What each edit of the tokens costs.
    pub edits: Vec<Effects>,
    /// The mask on its way.
    pub stages: Vec<Stage>,
    /// How far a map of one class agrees with the answers: what the first stage has to be compared with.
    pub constant_agreement: Option<f64>,
}

/// Pictures for a page.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    /// Images with all their changes.
    pub images: Vec<ExampleImage>,
    /// The tokens before an image is seen, at the grid of the first image; none where they are not maps.
    pub priors: Option<TokenBlock>,
}

/// An image as it is and changed, with what the network makes of it.
#[derive(Clone, Debug)]
pub struct ExampleImage {
    /// Its name.
    pub name: String,
    /// The picture, its truth and its prediction.
    pub plain: (Image, Labels, Labels),
    /// The same for each change.
    pub changed: Vec<(Cue, (Image, Labels, Labels))>,
}

/// Probes a network on the images of a dataset at `indices`. `progress` gets the steps that are done and all there are;
/// where it breaks off, there is no finding.
///
/// # Errors
/// Images that cannot be read or do not fit the network, an `other` model with other tokens, and where there is no
/// image.
pub fn probe(
    subject: &Subject,
    dataset: &dyn Dataset,
    indices: &[usize],
    options: &ProbeOptions,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<(Finding, Pictures)>> {
    let (classes, expected) = (dataset.classes().len(), subject.inference.network.classes());
    if classes != expected {
        return Err(Error::new(format!("the network has {expected} classes and the dataset {classes}"))
            .with_hint("probe on a dataset with the classes that the network was trained on"));
    }
    if indices.is_empty() {
        return Err(Error::new("there is no image to probe with"));
    }
    count::run(subject, dataset, indices, options, progress)
}

/// `n` indices spread evenly over 0..len.
pub fn spread(len: usize, n: usize) -> Vec<usize> {
    crate::report::run::spread(len, n).collect()
}

#[cfg(test)]
mod tests;
