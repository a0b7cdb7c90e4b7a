//! The confusion matrix as a heat map, or its largest entries.

use crate::eval::summary::ConfusedPair;
use crate::report::ClassRow;
use crate::report::markup::{escape, swatch};
use crate::text::thousands;

/// Classes that a matrix shows at most; with more, only the largest confusions are listed.
const MATRIX: usize = 30;
/// Classes up to which the cells hold numbers.
const NUMBERS: usize = 16;

/// The matrix and the list of the largest confusions. `counts` is `[truth][prediction]`, k x k.
pub(super) fn section(classes: &[ClassRow], counts: &[Vec<u64>]) -> String {
    let total: u64 = counts.iter().flatten().sum();
    if total == 0 {
        return r#"<p class="empty">No labelled pixel was counted.</p>"#.into();
    }
    if classes.len() > MATRIX {
        return confusions(classes, counts, 25);
    }
    format!(r#"<div class="confusion">{}{}</div>"#, matrix(classes, counts), confusions(classes, counts, 8))
}

fn matrix(classes: &[ClassRow], counts: &[Vec<u64>]) -> String {
    let k = classes.len();
    let numbers = k <= NUMBERS;
    let heads: String =
        classes.iter().map(|class| format!(r#"<th scope="col"><span>{}</span></th>"#, escape(&class.name))).collect();
    let mut rows = String::new();
    for (truth, row) in classes.iter().zip(counts) {
        let sum: u64 = row.iter().sum();
        rows += &format!(r#"<tr><th scope="row">{} {}</th>"#, swatch(truth.color), escape(&truth.name));
        for (prediction, &count) in classes.iter().zip(row) {
            rows += &cell(truth, prediction, count, sum, numbers);
        }
        rows += "</tr>\n";
    }
    format!(
        r#"<div class="scroll"><table class="matrix{small}">
<caption>Rows are the truth, columns the prediction. Each row adds up to 100 % of that class's pixels; a perfect model has only the diagonal.</caption>
<thead><tr><td>truth ↓ &nbsp; prediction →</td>{heads}</tr></thead>
<tbody>
{rows}</tbody></table></div>
"#,
        small = if numbers { "" } else { " small" },
    )
}

fn cell(truth: &ClassRow, prediction: &ClassRow, count: u64, sum: u64, numbers: bool) -> String {
    if sum == 0 {
        return format!(r#"<td class="none" title="no pixel of {} in the truth"></td>"#, escape(&truth.name));
    }
    let share = count as f64 / sum as f64;
    let right = std::ptr::eq(truth, prediction);
    // The root makes a few per cent visible, which is where the interesting confusions lie.
    let strength = (share.sqrt() * 100.0).round();
    let text = match numbers && share >= 0.005 {
        true => format!("{:.0}", share * 100.0),
        false => String::new(),
    };
    format!(
        r#"<td class="{kind}{strong}" style="--s:{strength}%" title="{truth} taken for {prediction}: {count} pixels, {percent:.2} %">{text}</td>"#,
        kind = if right { "right" } else { "wrong" },
        strong = if strength > 60.0 { " strong" } else { "" },
        truth = escape(&truth.name),
        prediction = escape(&prediction.name),
        count = thousands(count),
        percent = share * 100.0,
    )
}

/// The `most` largest confusions by the share of the true class's pixels that they cost.
fn confusions(classes: &[ClassRow], counts: &[Vec<u64>], most: usize) -> String {
    let mut found: Vec<(f64, u64, usize, usize)> = Vec::new();
    for (truth, row) in counts.iter().enumerate() {
        let sum: u64 = row.iter().sum();
        let wrong = row.iter().enumerate().filter(|&(prediction, &count)| prediction != truth && count > 0);
        found.extend(wrong.map(|(prediction, &count)| (count as f64 / sum as f64, count, truth, prediction)));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    if found.is_empty() {
        return r#"<p class="empty">No pixel was predicted as another class.</p>"#.into();
    }
    let line = |&(share, count, truth, prediction): &(f64, u64, usize, usize)| {
        let (truth, prediction) = (&classes[truth], &classes[prediction]);
        format!(
            r#"<li title="{count} pixels"><b>{percent:.1} %</b> of <span class="name">{} {}</span> taken for <span class="name">{} {}</span><i style="width:{percent:.1}%"></i></li>
"#,
            swatch(truth.color),
            escape(&truth.name),
            swatch(prediction.color),
            escape(&prediction.name),
            count = thousands(count),
            percent = share * 100.0,
        )
    };
    let lines: String = found.iter().take(most).map(line).collect();
    format!("<div class=\"taken\"><h3>Largest confusions</h3><ol>\n{lines}</ol></div>\n")
}

/// The pairs of classes that most of the wrong pixels lie between.
pub(super) fn pairs(classes: &[ClassRow], pairs: &[ConfusedPair]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let name = |class: usize| {
        format!("<span class=\"name\">{} {}</span>", swatch(classes[class].color), escape(&classes[class].name))
    };
    let line = |pair: &ConfusedPair| {
        let [a, b] = pair.classes.map(name);
        let [there, back] = pair.pixels.map(thousands);
        let share = pair.share_of_errors * 100.0;
        format!(
            r#"<li><b>{share:.1} %</b> of all wrong pixels confuse {a} with {b} <span class="muted">{there} of the first predicted as the second, {back} the other way round</span><i style="width:{share:.1}%"></i></li>
"#
        )
    };
    let lines: String = pairs.iter().map(line).collect();
    format!("<div class=\"card taken\"><h3>Most confused pairs</h3><ol>\n{lines}</ol></div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(k: usize) -> Vec<ClassRow> {
        (0..k).map(|i| ClassRow { name: format!("class {i}"), ..ClassRow::default() }).collect()
    }

    #[test]
    fn rows_are_shares_of_the_truth() {
        let text = section(&classes(2), &[vec![75, 25], vec![0, 0]]);
        assert!(text.contains(r#"title="class 0 taken for class 0: 75 pixels, 75.00 %">75</td>"#), "{text}");
        assert!(text.contains("no pixel of class 1 in the truth"));
        assert!(text.contains("<b>25.0 %</b> of"));
    }

    #[test]
    fn many_classes_become_a_list() {
        let counts: Vec<Vec<u64>> = (0..31).map(|i| (0..31).map(|j| u64::from(i == j || i == 3)).collect()).collect();
        let text = section(&classes(31), &counts);
        assert!(!text.contains("<table") && text.matches("<li").count() == 25);
    }

    #[test]
    fn one_class_and_no_pixels_are_said() {
        assert!(section(&classes(1), &[vec![9]]).contains("No pixel was predicted as another class"));
        assert!(section(&classes(1), &[vec![0]]).contains("No labelled pixel"));
    }
}
