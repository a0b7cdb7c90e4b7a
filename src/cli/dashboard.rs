//! A run in a terminal while it trains: curves of loss and mIoU, and every class of the last evaluation.

use std::fmt::Write as _;

use crate::metrics::Scores;

/// Columns that are filled: those of the narrowest common terminal, less two.
const WIDTH: usize = 78;
/// Columns of a curve.
const CURVE: usize = 40;
/// Columns of a class: its name, IoU, a bar, and a space.
const NAME: usize = 12;
const BAR: usize = 6;
const CELL: usize = NAME + 1 + 5 + 1 + BAR + 1;
/// Classes that are all shown; of more only the worst and the best.
const ALL: usize = 24;

/// What is remembered of a run for its curves.
#[derive(Default)]
pub(crate) struct Dashboard {
    losses: Vec<f64>,
    evaluations: Vec<(u64, f64)>,
    /// Names and IoU of the last evaluation.
    classes: Vec<(String, f64)>,
}

impl Dashboard {
    pub(crate) fn iteration(&mut self, loss: f64) {
        self.losses.push(loss);
    }

    pub(crate) fn evaluated(&mut self, iteration: u64, scores: &Scores) {
        self.evaluations.extend(scores.miou.map(|miou| (iteration, miou)));
        let known = scores.classes.iter().filter_map(|class| Some((class.name.clone(), class.iou?)));
        self.classes = known.collect();
    }

    /// Everything below `head`.
    pub(crate) fn text(&self, head: &str) -> String {
        let mut text = head.to_owned();
        if self.losses.len() > 1 {
            let means = means(&self.losses, CURVE);
            let _ = write!(text, "\nloss {:>7.3} {} {:.3}", means[0], curve(&means), means[means.len() - 1]);
        }
        if let Some((_, last)) = self.evaluations.last() {
            let values: Vec<f64> = self.evaluations.iter().map(|(_, miou)| *miou).collect();
            let means = means(&values, CURVE);
            let _ = write!(text, "\nmIoU {:>7.1} {} {:.1}", 100.0 * values[0], curve(&means), 100.0 * last);
            let best = self.evaluations.iter().max_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((iteration, best)) = best.filter(|_| values.len() > 1) {
                let _ = write!(text, ", best {:.1} at {iteration}", 100.0 * best);
            }
        }
        self.add_classes(&mut text);
        text
    }

    fn add_classes(&self, text: &mut String) {
        let mut shown: Vec<&(String, f64)> = self.classes.iter().collect();
        if shown.len() > ALL {
            shown.sort_by(|a, b| a.1.total_cmp(&b.1));
            shown.drain(ALL / 2..self.classes.len() - ALL / 4);
            let left_out = self.classes.len() - shown.len();
            let _ = write!(text, "\nthe {} worst classes and the {} best, without {left_out}:", ALL / 2, ALL / 4);
        }
        for row in shown.chunks(WIDTH / CELL) {
            text.push('\n');
            for (name, iou) in row {
                let _ = write!(text, "{} {:>5.1} {:<BAR$} ", padded(name), 100.0 * iou, bar(*iou));
            }
        }
    }
}

/// As much of a name as [`NAME`] columns hold, filled up with spaces.
fn padded(name: &str) -> String {
    let (mut text, mut filled) = (String::new(), 0);
    for (c, columns) in name.chars().map(|c| (c, columns(c))) {
        if filled + columns > NAME {
            break;
        }
        text.push(c);
        filled += columns;
    }
    text + &" ".repeat(NAME - filled)
}

/// Columns that a terminal gives a character: two for East Asian wide forms and pictographs (Unicode's UAX #11), none
/// for marks that are put on the character before.
fn columns(c: char) -> usize {
    const WIDE: [std::ops::RangeInclusive<char>; 9] = [
        '\u{1100}'..='\u{115f}',   // Hangul
        '\u{2e80}'..='\u{303e}',   // radicals, punctuation
        '\u{3041}'..='\u{a4cf}',   // kana, ideographs, Yi
        '\u{a960}'..='\u{a97c}',   // Hangul
        '\u{ac00}'..='\u{d7a3}',   // Hangul
        '\u{f900}'..='\u{faff}',   // ideographs
        '\u{fe30}'..='\u{fe6f}',   // vertical and small forms
        '\u{ff01}'..='\u{ff60}',   // fullwidth forms
        '\u{1f300}'..='\u{3fffd}', // pictographs, ideographs
    ];
    const JOINERS: [std::ops::RangeInclusive<char>; 3] =
        ['\u{300}'..='\u{36f}', '\u{200b}'..='\u{200f}', '\u{fe00}'..='\u{fe0f}'];
    let among = |ranges: &[std::ops::RangeInclusive<char>]| ranges.iter().any(|range| range.contains(&c));
    if among(&JOINERS) {
        0
    } else if among(&WIDE) {
        2
    } else {
        1
    }
}

/// At most `count` means of parts of equal length.
fn means(values: &[f64], count: usize) -> Vec<f64> {
    let count = count.min(values.len());
    let part = |at: usize| &values[at * values.len() / count..(at + 1) * values.len() / count];
    (0..count).map(|at| part(at).iter().sum::<f64>() / part(at).len() as f64).collect()
}

/// Values as columns, from the least to the largest.
fn curve(values: &[f64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (least, most) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let level = |value: &f64| ((value - least) / (most - least).max(f64::MIN_POSITIVE) * 7.0).round() as usize;
    values.iter().map(|value| if value.is_finite() { LEVELS[level(value).min(7)] } else { ' ' }).collect()
}

/// A share of 1 as a bar.
fn bar(share: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (8 * BAR) as f64).round() as usize;
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_classes(count: usize) -> Dashboard {
        let classes = (0..count).map(|at| (format!("class number {at}"), at as f64 / count as f64)).collect();
        let losses = (0..1000).map(|at| 3.0 / (1.0 + f64::from(at) / 100.0)).collect();
        Dashboard { losses, evaluations: vec![(20, 0.25), (40, 0.5), (60, 0.45)], classes }
    }

    #[test]
    fn the_picture_of_a_run() {
        assert_eq!(Dashboard::default().text("head"), "head");
        let text = with_classes(4).text("head");
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "head",
                "loss   2.690 █▇▆▅▄▄▄▃▃▃▃▂▂▂▂▂▂▂▂▂▂▂▂▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ 0.276",
                "mIoU    25.0 ▁█▇ 45.0, best 50.0 at 40",
                "class number   0.0        class number  25.0 █▌     class number  50.0 ███",
                "class number  75.0 ████▌",
            ]
        );
    }

    #[test]
    fn it_fits_whatever_happens() {
        for count in [0, 1, 24, 25, 150, 255] {
            let mut dashboard = with_classes(count);
            dashboard.losses.extend([f64::NAN, f64::INFINITY]);
            dashboard.classes.iter_mut().for_each(|(name, _)| name.insert_str(0, "größe 大きさ "));
            let text = dashboard.text("head");
            let wide = |line: &str| line.chars().map(columns).sum::<usize>();
            assert!(text.lines().count() <= 12 && text.lines().all(|line| wide(line) <= WIDTH), "{text}");
        }
        // Seven wide characters have fourteen columns, and an accent of its own none.
        assert_eq!(padded("建築物と道路だ"), "建築物と道路");
        let spaces = |count| " ".repeat(count);
        assert_eq!(padded("a\u{301}b"), format!("a\u{301}b{}", spaces(NAME - 2)));
        assert_eq!(padded("路a"), format!("路a{}", spaces(NAME - 3)));
        assert_eq!((curve(&[2.0; 3]), bar(1.5), bar(f64::NAN)), ("▁▁▁".to_owned(), "█".repeat(BAR), String::new()));
    }
}
