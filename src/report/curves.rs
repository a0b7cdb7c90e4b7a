//! A run's log as curves.

use std::collections::{BTreeMap, BTreeSet};

use super::{Curve, Goal};
use crate::run::rows::{EvalRow, Row, StepRow};

/// A run's curves: loss, validation mIoU, learning rate, speed, and the loss's parts. Curves without
/// points are left out; of two rows for one iteration the later counts.
pub fn curves(rows: &[Row]) -> Vec<Curve> {
    let steps = || rows.iter().filter_map(|row| if let Row::Step(step) = row { Some(step) } else { None });
    let evals = || rows.iter().filter_map(|row| if let Row::Eval(eval) = row { Some(eval) } else { None });
    let of_steps = |value: &dyn Fn(&StepRow) -> Option<f64>| latest(steps().map(|step| (step.iteration, value(step))));
    let of_evals = |value: &dyn Fn(&EvalRow) -> Option<f64>| latest(evals().map(|eval| (eval.iteration, value(eval))));
    let curve = |name: &str, unit: &str, goal, points| Curve { name: name.into(), unit: unit.into(), goal, points };

    let mut all = vec![
        curve("Training loss", "", Goal::Lower, of_steps(&|step| Some(step.loss))),
        curve("Validation mIoU", "%", Goal::Higher, of_evals(&|eval| Some(eval.miou * 100.0))),
        curve("Learning rate", "", Goal::Neither, of_steps(&|step| Some(step.lr))),
        curve("Speed", "images/s", Goal::Neither, of_steps(&|step| step.images_per_s)),
    ];
    let parts: BTreeSet<&String> = steps().flat_map(|step| step.parts.keys()).collect();
    for part in parts {
        let points = of_steps(&|step| step.parts.get(part).map(|value| value.unwrap_or(f64::NAN)));
        all.push(curve(&format!("Loss part: {part}"), "", Goal::Lower, points));
    }
    all.retain(|curve| !curve.points.is_empty());
    all
}

fn latest(values: impl Iterator<Item = (u64, Option<f64>)>) -> Vec<(f64, f64)> {
    let known: BTreeMap<u64, f64> = values.filter_map(|(iteration, value)| Some((iteration, value?))).collect();
    known.into_iter().map(|(iteration, value)| (iteration as f64, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(iteration: u64, loss: f64) -> Row {
        Row::Step(StepRow {
            iteration,
            loss,
            lr: 1e-4,
            images_per_s: Some(12.5),
            wait_share: Some(0.02),
            ..StepRow::default()
        })
    }

    fn eval(iteration: u64, miou: f64) -> Row {
        Row::Eval(EvalRow { iteration, miou, ..EvalRow::default() })
    }

    #[test]
    fn rows_become_curves() {
        let curves = curves(&[step(0, 2.0), step(1, 1.5), eval(2, 0.25), step(2, 1.25)]);
        let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["Training loss", "Validation mIoU", "Learning rate", "Speed"]);
        assert_eq!(curves[0].points, [(0.0, 2.0), (1.0, 1.5), (2.0, 1.25)]);
        assert_eq!(curves[1].points, [(2.0, 25.0)]);
    }

    #[test]
    fn a_diverged_loss_is_shown_and_repeated_rows_count_once() {
        assert_eq!(curves(&[step(0, f64::NAN), step(1, f64::INFINITY)])[0].points.len(), 2);
        assert_eq!(curves(&[eval(5, 0.1), eval(5, 0.2)])[0].points, [(5.0, 20.0)]);
    }
}
