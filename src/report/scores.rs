//! Scores as a page shows them: the numbers to remember, and the rows of the classes.

use crate::eval::summary::Evaluation;
use crate::metrics::Scores;
use crate::report::{ClassRow, Headline};

/// The scores of a run, and what an evaluation knows beside them.
pub(super) fn tiles(found: &Evaluation) -> Vec<Headline> {
    let mut tiles = headlines(&found.scores);
    tiles.extend(found.boundary.miou.map(Headline::boundary_iou));
    tiles.extend(found.calibration.as_ref().and_then(|calibration| calibration.ece).map(Headline::calibration_error));
    tiles
}

pub(super) fn headlines(scores: &Scores) -> Vec<Headline> {
    let value = |value: Option<f64>| value.unwrap_or(f64::NAN);
    vec![
        Headline::mean_iou(value(scores.miou)),
        Headline::pixel_accuracy(value(scores.aacc)),
        Headline::mean_accuracy(value(scores.macc)),
        Headline::mean_dice(value(scores.mdice)),
    ]
}

pub(super) fn classes(scores: &Scores, colors: &[[u8; 3]]) -> Vec<ClassRow> {
    let rows = scores.classes.iter().zip(colors).map(|(class, color)| ClassRow {
        name: class.name.clone(),
        color: *color,
        iou: class.iou,
        accuracy: class.acc,
        dice: class.dice,
        pixels: class.pixels,
    });
    rows.collect()
}
