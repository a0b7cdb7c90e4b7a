//! A report as a person reads it: what there is, then what is wrong with it, the worst first.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::tools::check::{CheckReport, ClassReport, Fault, Severity};

/// More classes than this are shown by their most and least frequent.
const CLASSES: usize = 24;

/// Longer lines of TOML are cut; JSON has them whole.
const LINE: usize = 600;

pub(super) fn text(report: &CheckReport) -> String {
    let mut text = String::new();
    let pairs: usize = report.splits.iter().map(|split| split.pairs).sum();
    let (classes, root) = (report.classes.len(), report.root.display());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} in `{root}`: {pairs} pairs, {classes} classes\n", report.name);
    splits(report, &mut text);
    if pairs > 0 {
        text.push('\n');
        class_table(report, &mut text);
    }
    for fault in &report.faults {
        text.push('\n');
        tell(fault, &mut text);
    }
    let counted = |level, noun: &str| match report.count(level) {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    };
    let _ = write!(text, "\n{}, {}", counted(Severity::Fault, "fault"), counted(Severity::Warning, "warning"));
    text
}

fn splits(report: &CheckReport, text: &mut String) {
    let formats = |formats: &BTreeMap<String, usize>| match formats.len() {
        1 => formats.keys().next().cloned().unwrap_or_default(),
        _ => formats.iter().map(|(format, count)| format!("{count} {format}")).collect::<Vec<_>>().join(", "),
    };
    let mut rows = vec![["split", "pairs", "images", "masks", "sizes"].map(str::to_string)];
    for split in &report.splits {
        let size = |([w, h], _): &([usize; 2], usize)| format!("{w}x{h}");
        let sizes = match split.sizes.as_slice() {
            some if some.len() <= 3 => some.iter().map(size).collect::<Vec<_>>().join(", "),
            many => {
                let (smallest, largest) =
                    (many.iter().min_by_key(|s| s.0[0] * s.0[1]), many.iter().max_by_key(|s| s.0[0] * s.0[1]));
                let range = [smallest, largest].into_iter().flatten().map(size).collect::<Vec<_>>().join(" to ");
                format!("{range} ({} different)", many.len())
            }
        };
        let mut images = formats(&split.image_formats);
        for (count, note) in [(split.turned, "rotated by EXIF"), (split.duplicates, "duplicates")] {
            if count > 0 {
                images += &format!(", {count} {note}");
            }
        }
        rows.push([split.split.to_string(), split.pairs.to_string(), images, formats(&split.mask_formats), sizes]);
    }
    table(&rows, |column| column == 1, text);
}

fn class_table(report: &CheckReport, text: &mut String) {
    let mut head = vec!["class".to_string()];
    for split in &report.splits {
        head.extend([format!("{} pixels", split.split), "images".to_string()]);
    }
    let share = |part: u64, all: u64| match 100.0 * part as f64 / all.max(1) as f64 {
        0.0 => "none".to_string(),
        percent if percent < 0.01 => "<0.01 %".to_string(),
        percent => format!("{percent:.2} %"),
    };
    let row = |class: &ClassReport| -> Vec<String> {
        let cells = report
            .splits
            .iter()
            .zip(class.pixels.iter().zip(&class.images))
            .flat_map(|(split, (pixels, images))| [share(*pixels, split.pixels), images.to_string()]);
        std::iter::once(class.name.clone()).chain(cells).collect()
    };
    let all = &report.classes;
    let mut rows = vec![head];
    if all.len() <= CLASSES {
        rows.extend(all.iter().map(row));
    } else {
        let mut sorted: Vec<&ClassReport> = all.iter().collect();
        sorted.sort_by_key(|class| std::cmp::Reverse(class.pixels.iter().sum::<u64>()));
        rows.extend(sorted[..CLASSES / 2].iter().map(|class| row(class)));
        rows.push(vec![format!("… {} more", all.len() - CLASSES)]);
        rows.extend(sorted[all.len() - CLASSES / 2..].iter().map(|class| row(class)));
    }
    if report.splits.iter().any(|split| split.ignored > 0) {
        let cells = report.splits.iter().flat_map(|split| [share(split.ignored, split.pixels), String::new()]);
        rows.push(std::iter::once("(ignored)".to_string()).chain(cells).collect());
    }
    table(&rows, |column| column > 0, text);
}

/// Columns of equal width; `is_number` says which are set to the right.
fn table(rows: &[impl AsRef<[String]>], is_number: fn(usize) -> bool, text: &mut String) {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.as_ref().get(column)?.chars().count())).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> = row
            .as_ref()
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(at, (cell, width))| {
                    if is_number(at) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                },
            )
            .collect();
        let _ = writeln!(text, "  {}", cells.join("  ").trim_end());
    }
}

fn tell(fault: &Fault, text: &mut String) {
    let level = match fault.level {
        Severity::Fault => "fault",
        Severity::Warning => "warning",
    };
    let plural = match (fault.count, fault.unit) {
        (1, _) => "",
        (_, "class") => "es",
        _ => "s",
    };
    let _ = writeln!(text, "{level}: {}: {} {}{plural} [{}]", fault.what, fault.count, fault.unit, fault.code);
    for example in &fault.examples {
        let mut line = format!("  {}", example.file.display());
        if let Some([x, y]) = example.at {
            line += &format!(" at column {x}, row {y}");
        }
        if let Some(value) = example.value {
            line += &format!(": {value}");
        }
        if let Some(note) = &example.note {
            line += &format!("{} {note}", if example.value.is_some() { "," } else { ":" });
        }
        let _ = writeln!(text, "{line}");
    }
    if !fault.examples.is_empty() && fault.count > fault.examples.len() {
        let _ = writeln!(text, "  and {} more", fault.count - fault.examples.len());
    }
    if let Some(cause) = &fault.cause {
        let _ = writeln!(text, "  cause: {cause}");
    }
    let _ = writeln!(text, "  remedy: {}", fault.remedy);
    for line in fault.toml.iter().flat_map(|toml| toml.lines()) {
        let cut: String = line.chars().take(LINE).collect();
        let more = if cut.len() < line.len() { " … (whole with --json)" } else { "" };
        let _ = writeln!(text, "    {cut}{more}");
    }
}
