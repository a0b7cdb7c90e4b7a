//! The logits of the views of an image, window by window, read in bands of rows of the output.

use std::ops::Range;

use burn::tensor::{Tensor, activation::softmax};

use crate::error::Result;
use crate::infer::bands::{Bands, axis};
use crate::infer::config::InferConfig;
use crate::infer::postprocess::CpuViewLogits;
use crate::infer::view::View;
use crate::infer::{Network, not_finite, shares};
use crate::layers::resize::{Axis, along_height, along_width};

/// All views of an image, read in step.
pub(super) struct MultiViewLogits<'a> {
    pub(super) views_logits: Vec<ViewLogits<'a>>,
    height: usize,
    /// Rows that are made at once.
    pub(super) band: usize,
}

impl<'a> MultiViewLogits<'a> {
    pub(super) fn new(
        network: &'a dyn Network,
        views: &[View<'a>],
        size: (usize, usize),
        config: &InferConfig,
    ) -> Self {
        assert!(!views.is_empty() && size.0 > 0 && size.1 > 0, "nothing to look at");
        let views_logits: Vec<ViewLogits> =
            views.iter().map(|view| ViewLogits::new(network, view, size, config)).collect();
        // Per output row of the largest view: its source and itself, each with one temporary copy.
        let source =
            |view_logits: &ViewLogits| (view_logits.bands.size().0 * view_logits.bands.size().1).div_ceil(size.0);
        let pixels = views_logits.iter().map(source).max().unwrap_or(0) + size.1;
        let bytes = views[0].batch() * pixels * network.classes() * size_of::<f32>() * 2;
        Self { views_logits, height: size.0, band: (config.logits_mb * 1_000_000 / bytes).clamp(1, size.0) }
    }

    /// The bands of rows, from top to bottom.
    pub(super) fn bands(&self) -> Vec<Range<usize>> {
        (0..self.height).step_by(self.band).map(|top| top..(top + self.band).min(self.height)).collect()
    }

    /// The views with their windows over some output rows, in CPU memory.
    pub(super) fn fetch(&mut self, rows: Range<usize>) -> Result<Vec<CpuViewLogits>> {
        let fetch = |view_logits: &mut ViewLogits| {
            view_logits.bands.advance_to(view_logits.vertical.sources(rows.clone()));
            CpuViewLogits::fetch(&view_logits.bands, view_logits.size, view_logits.flipped)
        };
        self.views_logits.iter_mut().map(fetch).collect()
    }

    /// Fails if the network said of a window in reach what is not a number.
    pub(super) fn check(&self) -> Result<()> {
        let answers =
            self.views_logits.iter().flat_map(|view_logits| view_logits.bands.window_rows()).flat_map(|row| &row.grids);
        let finite = answers.map(|answer| {
            let finite = answer.maps.clone().is_finite().all();
            match &answer.votes {
                Some(votes) => finite.bool_and(votes.clone().is_finite().all()),
                None => finite,
            }
        });
        // Read once, as each time the device has to be waited for.
        match finite.reduce(|all, one| all.bool_and(one)).map(|finite| finite.into_scalar::<bool>()) {
            Some(false) => Err(not_finite()),
            _ => Ok(()),
        }
    }

    /// What orders the classes: [b, rows, w, k]. One view needs no softmax for that.
    pub(super) fn scores(&mut self, rows: Range<usize>) -> Tensor<4> {
        if self.views_logits.len() == 1 { self.views_logits[0].logits(rows) } else { self.probabilities(rows) }
    }

    /// The probabilities [b, rows, w, k] that [`scores`](Self::scores) stand for.
    pub(super) fn of_scores(&self, scores: Tensor<4>) -> Tensor<4> {
        match &self.views_logits[..] {
            [view_logits] if view_logits.bands.votes() => shares(scores),
            [_] => softmax(scores, 3),
            _ => scores,
        }
    }

    /// The mean of the softmax, or of the votes, over views: [b, rows, w, k].
    pub(super) fn probabilities(&mut self, rows: Range<usize>) -> Tensor<4> {
        let n = self.views_logits.len() as f32;
        let mut votes = false;
        let each = self.views_logits.iter_mut().map(|view_logits| {
            let scores = view_logits.logits(rows.clone());
            votes = view_logits.bands.votes();
            if votes { scores } else { softmax(scores, 3) }
        });
        let Some(sum) = each.reduce(|sum, one| sum + one) else { unreachable!("there is a view") };
        match votes {
            true => shares(sum),
            false if n > 1.0 => sum / n,
            false => sum,
        }
    }
}

/// One view, read at the output's size.
pub(super) struct ViewLogits<'a> {
    pub(super) bands: Bands<'a>,
    vertical: Axis,
    horizontal: Axis,
    /// Height and width of the output.
    pub(super) size: (usize, usize),
    pub(super) flipped: bool,
}

impl<'a> ViewLogits<'a> {
    fn new(network: &'a dyn Network, view: &View<'a>, size: (usize, usize), config: &InferConfig) -> Self {
        let (h, w) = view.size();
        let windows = config.windows((h, w));
        let bands = Bands::new(network, view.clone(), windows, config);
        Self { bands, vertical: axis(h, size.0), horizontal: axis(w, size.1), size, flipped: view.is_flipped() }
    }

    /// The logits of some output rows, mirrored back: [b, rows, w, k].
    fn logits(&mut self, rows: Range<usize>) -> Tensor<4> {
        let (h, w) = self.bands.size();
        let mut x = if h == self.size.0 {
            self.bands.rows(rows)
        } else {
            let sources = self.vertical.sources(rows.clone());
            let x = self.bands.rows(sources.clone()); // [b, sources, w, k]
            let matrix = self.vertical.matrix(rows, sources, &x.device(), x.dtype());
            along_height(x, matrix)
        }; // [b, rows, w, k]
        if w != self.size.1 {
            let matrix = self.horizontal.matrix(0..self.size.1, 0..w, &x.device(), x.dtype());
            x = along_width(x, matrix); // [b, rows, output w, k]
        }
        if self.flipped { x.flip([2]) } else { x }
    }
}
