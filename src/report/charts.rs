//! Curves as inline SVG.

use super::html::{escape, thousands};
use super::{Curve, Goal};

// The drawing's size and its plot area, in SVG units.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 544.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 214.0;

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
    let place = |&(x, y): &(f64, f64)| (LEFT + along.at(x) * (RIGHT - LEFT), BOTTOM - up.at(y) * (BOTTOM - TOP));

    let mut svg = String::new();
    for tick in up.ticks(5) {
        let y = place(&(along.low, tick)).1;
        svg += &format!(r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/>"#);
        svg += &format!(r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 8.0, y + 4.0, number(tick));
    }
    svg += &format!(r#"<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>"#);
    for tick in along.ticks(6) {
        let x = place(&(tick, up.low)).0;
        svg += &format!(r#"<line class="axis" x1="{x:.1}" x2="{x:.1}" y1="{BOTTOM}" y2="{:.1}"/>"#, BOTTOM + 4.0);
        svg += &format!(r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#, BOTTOM + 18.0, whole(tick));
    }
    let scale = if up.log { ", logarithmic scale" } else { "" };
    svg += &format!(
        r#"<text x="{RIGHT}" y="{:.1}" text-anchor="end" class="label">iteration{scale}</text>"#,
        HEIGHT - 2.0
    );

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

fn path(points: &[(f64, f64)], place: impl Fn(&(f64, f64)) -> (f64, f64)) -> String {
    let step = |(i, (x, y)): (usize, (f64, f64))| format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
    points.iter().map(place).enumerate().map(step).collect()
}

/// Whether the values go up and down much more than they get anywhere.
fn noisy(points: &[(f64, f64)]) -> bool {
    let values = || points.iter().map(|point| point.1);
    let travelled: f64 = values().zip(values().skip(1)).map(|(a, b)| (b - a).abs()).sum();
    let span = values().fold(f64::MIN, f64::max) - values().fold(f64::MAX, f64::min);
    points.len() >= FEW && travelled > 4.0 * span
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

/// An axis from `low` to `high`.
#[derive(Debug)]
pub(crate) struct Scale {
    pub(crate) low: f64,
    pub(crate) high: f64,
    log: bool,
}

impl Scale {
    /// Logarithmic where the bulk of the values, all positive, spans two decades or more.
    pub(crate) fn fit(values: impl Iterator<Item = f64> + Clone) -> Self {
        let mut sorted: Vec<f64> = values.clone().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        let (low, high) = (sorted[last / 50], sorted[last - last / 50]);
        if sorted[0] <= 0.0 || high / low < 100.0 {
            return Self::linear(values, true);
        }
        Self { low: sorted[0], high: sorted[last] * 1.05, log: true }
    }

    /// From the least to the largest value, with a little room where `room`, never empty.
    pub(crate) fn linear(values: impl Iterator<Item = f64> + Clone, room: bool) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let span = high - low;
        if span <= high.abs().max(low.abs()) * 1e-12 {
            let around = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
            return Self { low: low - around, high: high + around, log: false };
        }
        if !room {
            return Self { low, high, log: false };
        }
        // A curve of positive values stands on its zero line when it comes near it.
        let near_zero = low >= 0.0 && low < span * 0.5;
        let low = if near_zero { 0.0 } else { low - span * 0.08 };
        Self { low, high: high + span * 0.08, log: false }
    }

    /// Where `value` lies, 0 at `low` and 1 at `high`.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let part = match self.log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        part.clamp(0.0, 1.0)
    }

    /// About `wanted` round values: steps of 1, 2 or 5 times a power of ten, or powers of ten.
    pub(crate) fn ticks(&self, wanted: usize) -> Vec<f64> {
        if self.log {
            let (first, last) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
            let every = ((last - first).max(0) as usize / wanted + 1).max(1);
            return (first..=last).step_by(every).map(|power| 10f64.powi(power)).collect();
        }
        let rough = (self.high - self.low) / wanted as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&step| step >= rough * 0.999);
        let step = step.unwrap_or(rough);
        let first = (self.low / step - 1e-9).ceil();
        let ticks = (0..=2 * wanted).map(|i| (first + i as f64) * step);
        ticks.take_while(|&tick| tick <= self.high + step * 1e-9).collect()
    }
}

/// Four significant digits, without trailing zeros; very large and small values as powers of ten.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trim(digits));
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    trim(&format!("{value:.decimals$}")).into()
}

fn trim(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

/// An iteration count.
pub(crate) fn whole(value: f64) -> String {
    match value {
        _ if value.fract() != 0.0 || value.abs() >= 1e15 => number(value),
        _ if value.abs() >= 1e6 => format!("{}M", number(value / 1e6)),
        _ if value.abs() >= 2e4 && value % 100.0 == 0.0 => format!("{}k", number(value / 1e3)),
        _ if value < 0.0 => format!("{value}"),
        _ => thousands(value as u64),
    }
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
    fn ticks_are_round_and_inside() {
        let linear = |low, high| Scale { low, high, log: false };
        assert_eq!(linear(0.0, 2000.0).ticks(5), [0.0, 500.0, 1000.0, 1500.0, 2000.0]);
        assert_eq!(linear(0.31, 0.79).ticks(5), [0.4, 0.5, 0.6000000000000001, 0.7000000000000001]);
        assert_eq!(linear(-3.0, 3.0).ticks(3), [-2.0, 0.0, 2.0]);
        assert_eq!(Scale { low: 0.02, high: 30.0, log: true }.ticks(5), [0.1, 1.0, 10.0]);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.6000000000000001, 1234.5678, 12.0, 2e-5, -0.5, 3.2e7].map(number);
        assert_eq!(texts, ["0", "0.6", "1235", "12", "2e-5", "-0.5", "3.2e7"]);
        assert_eq!(
            [0.0, 1500.0, 20_000.0, 20_010.0, 2_500_000.0, 1.5].map(whole),
            ["0", "1,500", "20k", "20,010", "2.5M", "1.5"]
        );
    }

    #[test]
    fn a_wide_positive_range_is_drawn_on_a_log_scale() {
        let falling: Vec<f64> = (0..100).map(|i| 10f64.powf(-f64::from(i) / 25.0)).collect();
        assert!(Scale::fit(falling.iter().copied()).log);
        // A warm-up from nearly nothing does not make a learning rate logarithmic, nor does a zero.
        let warm_up = (0..1000).map(|i| if i < 10 { 1e-10 } else { 1e-4 });
        assert!(!Scale::fit(warm_up).log);
        assert!(!Scale::fit([0.0, 1.0, 1000.0].into_iter()).log);
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
