//! A finding as text for people.

use super::Finding;
use super::effects::{Effect, Effects};
use crate::text::percent_or;

impl Finding {
    /// Verdicts, costs, tokens and places, as tables.
    pub fn text(&self) -> String {
        let mut text = format!(
            "mIoU {}  boundary IoU {}  on {} unchanged images\n\n",
            percent_or(self.miou, 2, "none"),
            percent_or(self.boundary_miou, 2, "none"),
            self.images
        );
        for verdict in &self.verdicts {
            for (at, sentence) in verdict.sentences.iter().enumerate() {
                text += &wrapped(sentence, if at == 0 { "" } else { "    " });
            }
        }
        text += &format!("\n{}", table("change", &self.cues));
        if !self.not_measured.is_empty() {
            let names: Vec<&str> = self.not_measured.iter().map(|cue| cue.name()).collect();
            text += &format!("not measured, because no image has regions for it: {}\n", names.join(", "));
        }
        if let Some(tokens) = &self.tokens {
            text += &format!("\n{}", table("tokens", &tokens.edits));
            text += &format!("\n{:<18}{:>8}{:>22}\n", "stage", "mIoU", "as the last stage");
            for stage in &tokens.stages {
                let (miou, same) = (percent_or(stage.miou, 2, "-"), percent_or(stage.agreement, 1, "-"));
                text += &format!("{:<18}{miou:>8}{same:>20} %\n", stage.name);
            }
            text += &format!(
                "{:<18}{:>8}{:>20} %\n",
                "a map of one class",
                "",
                percent_or(tokens.constant_agreement, 1, "-")
            );
        }
        text += "\npixels from an edge    mIoU   accuracy\n";
        for band in &self.place.distance {
            let range = band.range();
            text +=
                &format!("{range:<20}{:>7}{:>11}\n", percent_or(band.miou, 2, "-"), percent_or(band.accuracy, 2, "-"));
        }
        text += "\nsize of a region      regions    mean IoU\n";
        for bin in self.place.size.iter().filter(|bin| bin.regions > 0) {
            let range = share(bin.from, bin.to);
            text += &format!("{range:<20}{:>9}{:>12}\n", bin.regions, percent_or(bin.iou, 2, "-"));
        }
        text += "\ncurvature of contours    pixels    mIoU   accuracy\n";
        for bin in self.place.curvature.iter().filter(|bin| bin.pixels > 0) {
            let range = bin.to.map_or(format!("{:.1} and more", bin.from), |to| format!("{:.1} to {to:.1}", bin.from));
            let (miou, accuracy) = (percent_or(bin.miou, 2, "-"), percent_or(bin.accuracy, 2, "-"));
            text += &format!("{range:<20}{:>11}{miou:>8}{accuracy:>11}\n", bin.pixels);
        }
        text
    }
}

/// A sentence in lines of at most 110 letters where words allow that, the first after `indent` and the others further
/// in.
fn wrapped(sentence: &str, indent: &str) -> String {
    const WIDTH: usize = 110;
    let mut text = String::new();
    let mut line = indent.to_owned();
    for word in sentence.split(' ') {
        if line.trim().is_empty() || line.chars().count() + 1 + word.chars().count() <= WIDTH {
            line += if line.trim().is_empty() { "" } else { " " };
        } else {
            text += &format!("{line}\n");
            line = format!("{indent}  ");
        }
        line += word;
    }
    text + &line + "\n"
}

/// From this share of the image to that.
pub(super) fn share(from: f64, to: Option<f64>) -> String {
    match to {
        Some(to) => format!("{:.1} to {:.1} %", from * 100.0, to * 100.0),
        None => format!("{:.1} % and more", from * 100.0),
    }
}

/// One row for each change: what is left of mIoU and boundary IoU, and which class loses most.
fn table(what: &str, rows: &[Effects]) -> String {
    let mut text = format!(
        "{what:<16}{:>6}{:>8}{:>8}{:>9}{:>18}{:>10}  {}\n",
        "images", "before", "after", "change", "95 %", "boundary", "loses most"
    );
    for row in rows {
        let cost = |effect: &Effect| effect.change().map_or("-".to_owned(), points);
        let interval = row.miou.interval.map_or("-".to_owned(), interval);
        let worst = row
            .classes
            .iter()
            .filter_map(|class| Some((class, class.iou.change()?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, change)| *change < 0.0)
            .map_or(String::new(), |(class, change)| format!("{} {}", class.class, points(change)));
        text += &format!(
            "{:<16}{:>6}{:>8}{:>8}{:>9}{interval:>18}{:>10}  {worst}\n",
            row.name,
            row.images,
            percent_or(row.miou.before, 1, "-"),
            percent_or(row.miou.after, 1, "-"),
            cost(&row.miou),
            row.boundary_miou.as_ref().map_or("-".to_owned(), cost),
        );
    }
    text
}

/// An interval of a difference, in points.
pub(super) fn interval([low, high]: [f64; 2]) -> String {
    format!("[{}, {}]", points(low), points(high))
}

/// A difference in points; nothing is lost by zero.
pub(super) fn points(change: f64) -> String {
    format!("{:+.1}", (change * 1000.0).round() / 10.0 + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sentences_are_wrapped() {
        let sentence = "word ".repeat(60);
        let text = wrapped(sentence.trim(), "    ");
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.len() <= 110));
        assert!(text.starts_with("    word") && text.lines().nth(1).unwrap().starts_with("      word"));
        assert_eq!(text.split_whitespace().count(), 60);
    }
}
