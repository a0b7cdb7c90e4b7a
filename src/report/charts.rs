//! Curves as inline SVG.

use crate::report::axes::{Area, Plot, Scale, number, path, whole};
use crate::report::markup::escape;
use crate::report::{Curve, Goal};

// The drawing's size, in SVG units.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 250.0;
const AREA: Area = Area { left: 58.0, right: 544.0, top: 14.0, bottom: 214.0 };

/// Points that a line is drawn with at most; more cannot be told apart.
const DRAWN: usize = 600;
/// Points that answer the pointer at most.
const READ: usize = 240;
/// From here on a number counts as infinite, so that sums and differences of smaller ones are finite.
const HUGE: f64 = 1e300;
/// Curves with fewer points are not smoothed, and show every point.
const FEW: usize = 60;

/// A curve with its axes, as a `<figure>`.
pub(super) fn figure(curve: &Curve) -> String {
    let mut points: Vec<(f64, f64)> =
        curve.points.iter().copied().filter(|(x, y)| x.abs() < HUGE && y.abs() < HUGE).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let left_out = curve.points.len() - points.len();
    let name = escape(&curve.name);
    let unit = if curve.unit.is_empty() { String::new() } else { format!(" <span>{}</span>", escape(&curve.unit)) };
    let mut note = String::new();
    if left_out > 0 {
        note =
            format!(r#"<p class="warn">{} not finite and not drawn.</p>"#, count(left_out, "value is", "values are"));
    }
    let (drawing, reading) = match points.last() {
        Some(&last) => (drawing(curve, &points), reading(curve, &points, last)),
        None => (r#"<p class="empty">No values.</p>"#.into(), String::new()),
    };
    format!(
        r#"<figure class="card curve"><figcaption><h3>{name}{unit}</h3><p class="reading">{reading}</p></figcaption>
{drawing}{note}</figure>
"#
    )
}

/// The last value and the best one.
fn reading(curve: &Curve, points: &[(f64, f64)], last: (f64, f64)) -> String {
    if noisy(points) {
        let tenth = &points[points.len() - points.len() / 10..];
        let mean = tenth.iter().map(|point| point.1).sum::<f64>() / tenth.len() as f64;
        return format!("mean of the last tenth <b>{}</b>", number(mean));
    }
    let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let best = match curve.goal {
        Goal::Lower => points.iter().min_by(by_value),
        Goal::Higher => points.iter().max_by(by_value),
        Goal::Neither => None,
    };
    let last = format!("last <b>{}</b>", number(last.1));
    match best {
        Some(best) => format!("{last} · best <b>{}</b> at {}", number(best.1), whole(best.0)),
        None => last,
    }
}

fn drawing(curve: &Curve, points: &[(f64, f64)]) -> String {
    let along = Scale::linear(points.iter().map(|p| p.0), false);
    let up = Scale::fit(points.iter().map(|p| p.1));
    let plot = Plot { area: AREA, along, up };
    let place = |point: &(f64, f64)| plot.place(*point);

    let scale = if plot.up.is_logarithmic() { ", logarithmic scale" } else { "" };
    let mut svg = plot.axes(6, &format!("iteration{scale}"), HEIGHT - 2.0);

    let smooth = noisy(points);
    let line = if smooth {
        svg += &format!(r#"<path class="raw" d="{}"/>"#, path(&thin_extremes(points), place));
        smoothed(points)
    } else {
        points.to_vec()
    };
    if line.len() > 1 {
        svg += &format!(r#"<path class="line" d="{}"/>"#, path(&thin(&line, DRAWN), place));
    }
    if points.len() < FEW {
        for (x, y) in points.iter().map(place) {
            svg += &format!(r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="3"/>"#);
        }
    }
    let read: Vec<String> = thin(&line, READ)
        .iter()
        .map(|point| (place(point), point))
        .map(|((x, y), point)| format!("{x:.1},{y:.1},{},{}", whole(point.0).replace(',', " "), number(point.1)))
        .collect();
    let explained =
        if smooth { "<p class=\"key\"><i></i> smoothed <i class=\"faint\"></i> as measured</p>" } else { "" };
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name} over iterations: from {first} to {last}" data-points="{read}">{svg}</svg>{explained}"#,
        name = escape(&curve.name),
        first = points.first().map(|p| number(p.1)).unwrap_or_default(),
        last = points.last().map(|p| number(p.1)).unwrap_or_default(),
        read = read.join(";"),
    )
}

/// Whether the values go up and down much more than they get anywhere.
fn noisy(points: &[(f64, f64)]) -> bool {
    let values = || points.iter().map(|point| point.1);
    let traveled: f64 = values().zip(values().skip(1)).map(|(a, b)| (b - a).abs()).sum();
    let span = values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min);
    points.len() >= FEW && traveled > 4.0 * span
}

/// The mean over a centred window of a thirtieth of the points, at every n-th of them.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = (points.len() / 60).max(2);
    let mean = |i: usize| {
        let window = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
        (points[i].0, window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64)
    };
    thin(&(0..points.len()).collect::<Vec<_>>(), DRAWN).into_iter().map(mean).collect()
}

/// Every n-th point, and the last.
fn thin<T: Copy>(points: &[T], most: usize) -> Vec<T> {
    let every = points.len().div_ceil(most).max(1);
    let mut kept: Vec<_> = points.iter().copied().step_by(every).collect();
    if !(points.len().max(1) - 1).is_multiple_of(every) {
        kept.extend(points.last());
    }
    kept
}

/// The lowest and the highest point of each stretch, so that spikes survive.
fn thin_extremes(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= DRAWN {
        return points.to_vec();
    }
    let both = |stretch: &[(f64, f64)]| {
        let low = stretch.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1))?.0;
        let high = stretch.iter().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1))?.0;
        Some([stretch[low.min(high)], stretch[low.max(high)]])
    };
    points.chunks(points.len().div_ceil(DRAWN / 2)).filter_map(both).flatten().collect()
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve { name: "loss".into(), goal: Goal::Lower, points: points.to_vec(), ..Curve::default() }
    }

    #[test]
    fn odd_curves_are_drawn_without_odd_numbers() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let odd: [&[(f64, f64)]; 7] = [
            &[],
            &[(0.0, nan)],
            &[(0.0, 1.0)],
            &[(5.0, 0.0), (5.0, 0.0)],
            &[(0.0, 1.0), (1.0, inf), (2.0, -inf), (nan, 1.0), (3.0, 0.5)],
            &[(0.0, f64::MAX), (1.0, -1e299), (2.0, 1e299)],
            &[(0.0, f64::MIN_POSITIVE), (1e18, 1e300)],
        ];
        for points in odd {
            let text = figure(&curve(points));
            assert!(!text.contains("NaN") && !text.contains("inf\"") && !text.contains("inf "), "{points:?}: {text}");
        }
        assert!(figure(&curve(odd[0])).contains("No values."));
        assert!(figure(&curve(odd[4])).contains("3 values are not finite"));
    }

    #[test]
    fn long_curves_are_thinned_but_keep_their_ends_and_spikes() {
        let mut points: Vec<(f64, f64)> = (0..100_001).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 9.0;
        let kept = thin(&points, DRAWN);
        assert!(kept.len() <= DRAWN + 1 && kept[0].0 == 0.0 && kept[kept.len() - 1].0 == 100_000.0);
        let extremes = thin_extremes(&points);
        assert!(extremes.len() <= DRAWN + 2 && extremes.contains(&(54_321.0, 9.0)));
        assert!(figure(&curve(&points)).len() < 40_000);
    }

    #[test]
    fn only_noise_is_smoothed() {
        let points = |value: fn(f64) -> f64| (0..500).map(|i| (f64::from(i), value(f64::from(i)))).collect::<Vec<_>>();
        assert!(!noisy(&points(|i| (i / 20.0).min(1.0) * (500.0 - i))));
        assert!(noisy(&points(|i| 5.0 - i / 100.0 + (i * 7.0).sin())));
    }

    #[test]
    fn smoothing_keeps_a_straight_line_away_from_the_ends() {
        let points: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i), f64::from(i) * 2.0)).collect();
        for (smooth, exact) in smoothed(&points).iter().zip(&points).skip(3).take(194) {
            assert!((smooth.1 - exact.1).abs() < 1e-9);
        }
    }
}
