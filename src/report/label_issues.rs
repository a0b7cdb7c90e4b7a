//! Regions whose truth may be wrong, to be looked at by a person.

use rayon::prelude::*;

use crate::error::Result;
use crate::report::markup::{escape, swatch};
use crate::report::{LabelIssuePanel, Report, pictures};
use crate::text::thousands;

/// Longer side of a crop's pictures.
const SIDE: usize = 220;

/// The section; empty where nothing was looked for.
pub(super) fn section(report: &Report) -> Result<String> {
    let Some(all) = report.found.as_ref().and_then(|found| found.label_issues.as_ref()) else {
        return Ok(String::new());
    };
    let intro = r#"<h2>Label issues</h2>
<p class="intro">In these regions the model is confident of a class other than the ground truth. It may be wrong; but it has learned from all labels together, and a region that contradicts the rest is often mislabelled. The largest and most confident come first. Look, and decide.</p>
"#;
    if all.is_empty() {
        return Ok(format!("{intro}<p class=\"empty\">No label issues were found.</p>"));
    }
    let panels: Vec<String> = report.label_issues.par_iter().map(|one| panel(report, one)).collect::<Result<_>>()?;
    let rest = all.len() - report.label_issues.len().min(all.len());
    let more = if rest > 0 {
        format!("<p class=\"small\">{rest} more are in the evaluation's JSON.</p>")
    } else {
        String::new()
    };
    Ok(format!("{intro}<div class=\"label_issues\">{}</div>{more}", panels.concat()))
}

fn panel(report: &Report, one: &LabelIssuePanel) -> Result<String> {
    let (crop, issue) = (&one.crop, &one.issue);
    let palette: Vec<[u8; 3]> = report.classes.iter().map(|class| class.color).collect();
    let size = pictures::fit(crop.image.width, crop.image.height, SIDE);
    let labels = |labels| pictures::label_map(&pictures::shrink_labels(labels, size), &palette);
    let drawn = [
        ("input", "smooth", pictures::photo(&pictures::shrink_image(&crop.image, size))?),
        ("truth", "labels", labels(&crop.truth)?),
        ("prediction", "labels", labels(&crop.prediction)?),
    ];
    let frame = frame(one);
    let image = escape(&issue.image);
    let figure = |(what, class, data): &(&str, &str, String)| {
        let (width, height) = size;
        format!(
            r#"<figure><div class="framed"><img class="{class}" width="{width}" height="{height}" alt="{what} around the region in {image}" loading="lazy" src="{data}">{frame}</div><figcaption>{what}</figcaption></figure>
"#
        )
    };
    let figures: String = drawn.iter().map(figure).collect();
    let [x, y, width, height] = issue.bounds;
    Ok(format!(
        r#"<article class="card"><h3>{image}</h3><p class="small">Labelled {label}, looks like {prediction} <b>{confidence:.0}&nbsp;%</b><br>{pixels} pixels, {width} x {height} at {x}, {y}</p><div class="strip">
{figures}</div></article>
"#,
        label = named(report, &issue.label),
        prediction = named(report, &issue.prediction),
        confidence = issue.confidence * 100.0,
        pixels = thousands(issue.pixels),
    ))
}

/// A class's name with its colour.
fn named(report: &Report, name: &str) -> String {
    let color = report.classes.iter().find(|class| class.name == name).map_or([0; 3], |class| class.color);
    format!("<span class=\"name\">{} {}</span>", swatch(color), escape(name))
}

/// A frame around the region, over a picture of the crop.
fn frame(one: &LabelIssuePanel) -> String {
    let ([x, y, width, height], [left, top]) = (one.issue.bounds, one.corner);
    let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    let (across, down) = (one.crop.image.width, one.crop.image.height);
    format!(
        r#"<i style="left:{:.2}%;top:{:.2}%;width:{:.2}%;height:{:.2}%"></i>"#,
        percent(x.saturating_sub(left), across),
        percent(y.saturating_sub(top), down),
        percent(width, across),
        percent(height, down)
    )
}
