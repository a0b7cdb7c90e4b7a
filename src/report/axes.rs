//! Axes of charts: scales, round numbers along them, and how numbers are written.

use crate::text::thousands;

/// Where in a drawing the values lie, in SVG units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
}

/// An area with its scales.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) area: Area,
    pub(crate) along: Scale,
    pub(crate) up: Scale,
}

impl Plot {
    /// Where a point lies in the drawing.
    pub(crate) fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let Area { left, right, top, bottom } = self.area;
        (left + self.along.at(x) * (right - left), bottom - self.up.at(y) * (bottom - top))
    }

    /// The axes with about `ticks` numbers along, below which `label` (safe in HTML) stands at the height `low`.
    pub(crate) fn axes(&self, ticks: usize, label: &str, low: f64) -> String {
        let Area { left, right, bottom, .. } = self.area;
        let mut svg = String::new();
        for tick in self.up.ticks(5) {
            let y = self.place((self.along.low, tick)).1;
            svg += &format!(r#"<line class="grid" x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#);
            let (x, y, number) = (left - 8.0, y + 4.0, number(tick));
            svg += &format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="end">{number}</text>"#);
        }
        svg += &format!(r#"<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>"#);
        for tick in self.along.ticks(ticks) {
            let x = self.place((tick, self.up.low)).0;
            svg += &format!(r#"<line class="axis" x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{:.1}"/>"#, bottom + 4.0);
            svg += &format!(r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#, bottom + 18.0, whole(tick));
        }
        svg + &format!(r#"<text x="{right}" y="{low:.1}" text-anchor="end" class="label">{label}</text>"#)
    }
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

    /// Whether equal distances are equal factors.
    pub(crate) fn is_logarithmic(&self) -> bool {
        self.log
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

/// The line through points, each placed, as the `d` of a path.
pub(crate) fn path(points: &[(f64, f64)], place: impl Fn(&(f64, f64)) -> (f64, f64)) -> String {
    let step = |(i, (x, y)): (usize, (f64, f64))| format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
    points.iter().map(place).enumerate().map(step).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
