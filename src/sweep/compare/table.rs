//! The comparison as a Markdown table.

use crate::sweep::compare::collect::{Comparison, DecoderRow};
use crate::text::percent;

/// A column: its head, and the cell of a decoder.
type Column = (&'static str, fn(&DecoderRow) -> Option<String>);

/// Numbers of the table, in the order of its columns.
pub(super) const COLUMNS: [Column; 12] = [
    ("mIoU", |row| row.miou.map(|score| percent(score, 2))),
    ("95 % over seeds", |row| row.miou_over_seeds.map(interval)),
    ("95 % over images", |row| row.miou_over_images.map(interval)),
    ("vs. the best", |row| {
        row.to_best.map(|d| {
            format!(
                "{:+.2} (p {}) [{:+.2}, {:+.2}]",
                d.miou * 100.0,
                p(d.p),
                d.interval[0] * 100.0,
                d.interval[1] * 100.0,
            )
        })
    }),
    ("boundary IoU", |row| row.boundary_iou.map(|score| percent(score, 2))),
    ("parameters, M", |row| row.parameters.map(|n| format!("{:.2}", n as f64 / 1e6))),
    ("GMAC per crop", |row| row.gmac.map(significant)),
    ("step, ms", |row| row.step_ms.map(significant)),
    ("image, ms", |row| row.image_ms.map(significant)),
    ("peak, MB", |row| row.peak_mb.map(|mb| mb.to_string())),
    ("iterations", iterations),
    ("seeds", |row| Some(seeds(row))),
];

fn interval([low, high]: [f64; 2]) -> String {
    format!("{} to {}", percent(low, 2), percent(high, 2))
}

fn p(value: f64) -> String {
    if value < 0.001 { "< 0.001".to_owned() } else { format!("{value:.3}") }
}

/// Three digits that count.
fn significant(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn iterations(row: &DecoderRow) -> Option<String> {
    let all = || row.runs.iter().map(|run| run.iterations);
    let (least, most) = (all().min()?, all().max()?);
    Some(if least == most { least.to_string() } else { format!("{least} to {most}") })
}

/// Finished seeds, and of how many.
fn seeds(row: &DecoderRow) -> String {
    match row.runs.len() {
        done if done == row.seeds => done.to_string(),
        0 => "missing".to_owned(),
        done => format!("{done} of {}", row.seeds),
    }
}

impl Comparison {
    /// How the numbers came about, one sentence per line.
    pub(super) fn explained(&self) -> Vec<String> {
        let [height, width] = self.crop;
        vec![
            format!(
                "Dataset {}, {} validation images; {} for each run; crops of {height} x {width}.",
                self.dataset, self.images, self.budget
            ),
            "mIoU and boundary IoU in percent, of the weights after the last iteration, as means over seeds.".to_owned(),
            "Over seeds: Student's t interval of the mean; it shows what other seeds may give. Over images: percentile \
             bootstrap of the same mean, 2000 draws of images; it shows what other images may give."
                .to_owned(),
            "vs. the best: difference on the same draws of images, its 95 % interval and two-sided p, not corrected \
             for the number of decoders; it says nothing about other seeds."
                .to_owned(),
            "Boundary IoU (arXiv 2103.16562): a band of 2 % of the diagonal along the contours. Times are medians; an image \
             is timed from 8-bit pixels to labels. GMAC: multiply-accumulates of the forward pass."
                .to_owned(),
        ]
    }

    /// `compare.md`: the table, what it means, and what is missing.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let heads = std::iter::once("decoder").chain(COLUMNS.iter().map(|(head, _)| *head));
        let mut text = line(heads.map(str::to_owned).collect());
        text += &format!("|:---|{}\n", "---:|".repeat(COLUMNS.len()));
        for row in &self.decoders {
            let cells = COLUMNS.iter().map(|(_, cell)| cell(row).unwrap_or_else(|| "–".to_owned()));
            text += &line(std::iter::once(row.decoder.clone()).chain(cells).collect());
        }
        let lines = self.explained().into_iter().chain(self.notes.iter().map(|note| format!("**{note}**")));
        text + "\n" + &lines.collect::<Vec<_>>().join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::compare::Budget;
    use crate::sweep::compare::collect::Difference;

    pub(super) fn row(decoder: &str) -> DecoderRow {
        DecoderRow {
            decoder: decoder.to_owned(),
            miou: None,
            miou_over_seeds: None,
            miou_over_images: None,
            to_best: None,
            boundary_iou: None,
            parameters: None,
            gmac: None,
            step_ms: None,
            image_ms: None,
            peak_mb: None,
            runs: Vec::new(),
            seeds: 3,
            loss: Vec::new(),
            miou_curve: Vec::new(),
        }
    }

    #[test]
    fn the_table_says_what_is_there_and_what_is_not() {
        let to_best = Some(Difference { miou: -0.0123, interval: [-0.02, -0.005], p: 0.0004 });
        let some =
            DecoderRow { miou: Some(0.5), to_best, parameters: Some(1_234_567), gmac: Some(0.0123), ..row("pwe") };
        let comparison = Comparison {
            version: 1,
            dataset: "shapes".to_owned(),
            images: 6,
            budget: Budget::Seconds(60),
            crop: [32, 48],
            decoders: vec![some, row("cse")],
            missing: vec!["cse-s0".to_owned()],
            notes: vec!["Not finished: cse-s0.".to_owned()],
        };
        let text = comparison.markdown();
        assert!(
            text.contains("| pwe | 50.00 | – | – | -1.23 (p < 0.001) [-2.00, -0.50] | – | 1.23 | 0.0123 |"),
            "{text}"
        );
        assert!(text.contains("| missing |") && text.contains("**Not finished: cse-s0.**"), "{text}");
        assert!(text.lines().take(4).all(|line| line.matches('|').count() == COLUMNS.len() + 2), "{text}");
    }
}
