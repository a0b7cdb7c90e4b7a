//! Loss and mIoU of a decoder while it learned, by iteration and by time.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::run::log;
use crate::run::rows::Row as LogRow;
use crate::sweep::compare::times::Times;

/// Points of a loss curve.
const POINTS: usize = 120;

/// A point of a curve.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CurvePoint {
    /// Iterations done.
    pub iteration: u64,
    /// Seconds of training by then.
    pub seconds: f64,
    /// The value.
    pub value: f64,
}

/// A curve by iteration: seconds of training, and the value.
pub(super) type Curve = BTreeMap<u64, (f64, f64)>;

/// The loss and the mIoU of one run.
pub(super) fn curves_of(folder: &Path, iterations: u64) -> Result<(Curve, Curve)> {
    let elapsed = Times::read(folder).elapsed();
    let at = |iteration: u64| if iteration <= iterations { elapsed(iteration) } else { 0.0 };
    let (mut loss, mut miou) = (Curve::new(), Curve::new());
    for row in log::read(folder)? {
        match row {
            LogRow::Step(step) if step.loss.is_finite() => {
                let done = step.iteration.saturating_add(1);
                loss.insert(done, (at(done), step.loss));
            }
            LogRow::Eval(eval) if eval.miou.is_finite() => {
                _ = miou.insert(eval.iteration, (at(eval.iteration), eval.miou))
            }
            _ => {}
        }
    }
    Ok((loss, miou))
}

/// The mean of curves where all have a point.
pub(super) fn mean_curve(curves: &[Curve]) -> Vec<CurvePoint> {
    let Some((first, others)) = curves.split_first() else { return Vec::new() };
    let n = curves.len() as f64;
    let point = |(iteration, (seconds, value)): (&u64, &(f64, f64))| {
        let (mut seconds, mut value) = (*seconds, *value);
        for other in others {
            let (more_seconds, more) = other.get(iteration)?;
            (seconds, value) = (seconds + more_seconds, value + more);
        }
        Some(CurvePoint { iteration: *iteration, seconds: seconds / n, value: value / n })
    };
    first.iter().filter_map(point).collect()
}

/// Means over stretches, so that noise does not hide the course.
pub(super) fn thinned(curve: Vec<CurvePoint>) -> Vec<CurvePoint> {
    let stretch = curve.len().div_ceil(POINTS).max(1);
    let middle = |points: &[CurvePoint]| {
        let value = points.iter().map(|point| point.value).sum::<f64>() / points.len() as f64;
        CurvePoint { value, ..points[points.len() / 2] }
    };
    curve.chunks(stretch).map(middle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_means_of_what_all_have() {
        let curve = |points: &[(u64, f64, f64)]| points.iter().map(|(i, s, v)| (*i, (*s, *v))).collect::<Curve>();
        let found = mean_curve(&[curve(&[(1, 1.0, 4.0), (2, 2.0, 2.0)]), curve(&[(1, 3.0, 2.0), (3, 9.0, 9.0)])]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].iteration, found[0].seconds, found[0].value), (1, 2.0, 3.0));
        let long: Vec<CurvePoint> =
            (0..1008).map(|i| CurvePoint { iteration: i, seconds: i as f64, value: (i % 2) as f64 }).collect();
        let short = thinned(long);
        assert!(short.len() <= POINTS && short.iter().all(|point| (0.3..0.7).contains(&point.value)));
    }
}
