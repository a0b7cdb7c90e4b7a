//! The page: its numbers, class table and samples.

use rayon::prelude::*;

use crate::error::Result;
use crate::image::IGNORE;
use crate::report::document::{Head, document};
use crate::report::label_issues;
use crate::report::markup::{badge, escape, rgb, swatch};
use crate::report::picture_budget::PictureBudget;
use crate::report::{ClassRow, Report, SamplePanel, charts, confusion, pictures, quality, tokens};
use crate::text::thousands;

/// Samples shown at once; more are folded away.
const OPEN: usize = 4;

/// The page of `report` as one HTML document, which loads nothing.
///
/// # Errors
/// Where the report's parts do not fit each other.
pub fn render(report: &Report) -> Result<String> {
    report.check()?;
    let sections = [
        ("result", "Result", result(report)),
        ("samples", "Samples", samples(report)?),
        ("tokens", "Tokens to masks", tokens::section(report)?),
        ("curves", "Training", curves(report)),
        ("classes", "Classes", classes(&report.classes)),
        ("edges", "Edges", quality::edges(report)),
        ("calibration", "Calibration", quality::calibration(report)),
        ("confusion", "Confusions", confusions(report)),
        ("worst", "Worst images", worst(report)?),
        ("label_issues", "Label issues", label_issues::section(report)?),
        ("next", "Next", next_steps(report)),
    ];
    Ok(document(&Head { title: &report.title, lead: &report.lead, hero: hero(report)? }, "", &sections))
}

/// What is seen first: the first sample under the masks that the model gives it.
fn hero(report: &Report) -> Result<String> {
    let Some(sample) = report.samples.first() else { return Ok(String::new()) };
    let size = pictures::fit(sample.image.width, sample.image.height, PictureBudget::of(0, 1).picture);
    let palette: Vec<[u8; 3]> = report.classes.iter().map(|class| class.color).collect();
    let (width, height) = size;
    Ok(format!(
        r#"<figure class="hero"><div class="stack" style="aspect-ratio:{width}/{height}"><img class="photo" alt="{name}" src="{photo}"><img class="stage labels" alt="the model's masks" src="{masks}"></div>
<figcaption>The masks over {name} {iou}</figcaption></figure>
"#,
        name = escape(&sample.name),
        photo = pictures::photo(&pictures::shrink_image(&sample.image, size))?,
        masks = pictures::label_map(&pictures::shrink_labels(&sample.prediction, size), &palette)?,
        iou = badge(sample.iou),
    ))
}

/// Cards in a row: at most four, in rows as even as can be.
fn columns(cards: usize) -> usize {
    cards.div_ceil(cards.div_ceil(4).max(1))
}

fn result(report: &Report) -> String {
    let tile = |headline: &super::Headline| {
        let [name, value, meaning] = [&headline.name, &headline.value, &headline.meaning].map(|text| escape(text));
        format!("<div class=\"card tile\"><dt>{name}</dt><dd><b>{value}</b><span>{meaning}</span></dd></div>\n")
    };
    let fact =
        |(name, value): &(String, String)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value));
    let tiles: String = report.headlines.iter().map(tile).collect();
    let facts: String = report.summary.iter().map(fact).collect();
    let mut html = String::new();
    if !tiles.is_empty() {
        let columns = columns(report.headlines.len());
        html += &format!("<dl class=\"tiles\" style=\"--n:{columns}\">\n{tiles}</dl>\n");
    }
    if !report.command.is_empty() || !facts.is_empty() {
        html += "<div class=\"card run\">";
        if !report.command.is_empty() {
            html += &format!("<p class=\"small\">This page was made by</p>{}", command(&report.command));
        }
        if !facts.is_empty() {
            html += &format!("<dl class=\"facts\">\n{facts}</dl>");
        }
        html += "</div>\n";
    }
    html
}

/// A command line with a button that copies it.
fn command(text: &str) -> String {
    format!("<div class=\"command\"><code>{}</code><button type=\"button\" hidden>Copy</button></div>", escape(text))
}

fn samples(report: &Report) -> Result<String> {
    let count = report.samples.len();
    if count == 0 {
        return Ok(String::new());
    }
    let palette: Vec<[u8; 3]> = report.classes.iter().map(|class| class.color).collect();
    let strips: Vec<String> = report
        .samples
        .par_iter()
        .enumerate()
        .map(|(i, sample)| strip(sample, &palette, &PictureBudget::of(i, count)))
        .collect::<Result<_>>()?;
    let (first, rest) = strips.split_at(OPEN.min(count));
    let mut seen = [false; 256];
    let ids =
        |sample: &SamplePanel| sample.truth.ids.iter().chain(&sample.prediction.ids).copied().collect::<Vec<u8>>();
    report.samples.iter().flat_map(ids).for_each(|id| seen[usize::from(id)] = true);
    let key = |(id, class): (usize, &ClassRow)| {
        seen[id].then(|| format!("<li>{} {}</li>", swatch(class.color), escape(&class.name)))
    };
    let legend: String = report.classes.iter().enumerate().filter_map(key).collect();
    let mut html = format!(
        r#"<h2>Images and predictions</h2>
<p class="intro">Semantic segmentation gives every pixel a class. Next to each input are the ground truth, the model's prediction, and its errors: wrong pixels are red, pixels without a label are hatched and ignored.</p>
<ul class="legend" aria-label="Colours of the classes">{legend}</ul>
{}"#,
        first.concat()
    );
    if !rest.is_empty() {
        html +=
            &format!("<details class=\"more\"><summary>{} more</summary>\n{}</details>\n", rest.len(), rest.concat());
    }
    Ok(html)
}

/// The images of least mIoU.
fn worst(report: &Report) -> Result<String> {
    let count = report.worst.len();
    if count == 0 {
        return Ok(String::new());
    }
    let palette: Vec<[u8; 3]> = report.classes.iter().map(|class| class.color).collect();
    let strips: Vec<String> = report
        .worst
        .par_iter()
        .map(|sample| strip(sample, &palette, &PictureBudget::of(OPEN, 9.max(count))))
        .collect::<Result<_>>()?;
    Ok(format!(
        r#"<h2>Where it fails</h2>
<p class="intro">The images with the lowest mIoU, the worst first. An image ends up here if almost nothing of one class is found, or a tiny region of an absent class is predicted, even if most of its pixels are right.</p>
{}"#,
        strips.concat()
    ))
}

/// Input, truth, prediction and errors of one sample.
fn strip(sample: &SamplePanel, palette: &[[u8; 3]], budget: &PictureBudget) -> Result<String> {
    let size = pictures::fit(sample.image.width, sample.image.height, budget.picture);
    let image = pictures::shrink_image(&sample.image, size);
    let truth = pictures::shrink_labels(&sample.truth, size);
    let prediction = pictures::shrink_labels(&sample.prediction, size);
    let panels = [
        ("input", "smooth", pictures::photo(&image)?),
        ("truth", "labels", pictures::label_map(&truth, palette)?),
        ("prediction", "labels", pictures::label_map(&prediction, palette)?),
        ("errors", "smooth", pictures::error_map(&image, &truth, &prediction)?),
    ];
    let name = escape(&sample.name);
    let wrong = sample.truth.ids.iter().zip(&sample.prediction.ids).filter(|(t, p)| **t != IGNORE && t != p).count();
    let counted = sample.truth.ids.iter().filter(|&&id| id != IGNORE).count();
    let pictures: String = panels
        .iter()
        .map(|(what, class, data)| {
            let note = match (*what, counted) {
                ("errors", 1..) => format!(" · {:.1} % of the pixels", wrong as f64 / counted as f64 * 100.0),
                _ => String::new(),
            };
            let (width, height) = size;
            format!(
                r#"<figure><img class="{class}" width="{width}" height="{height}" alt="{what} of {name}" loading="lazy" src="{data}"><figcaption>{what}{note}</figcaption></figure>
"#
            )
        })
        .collect();
    Ok(format!(
        "<article class=\"card sample\"><h3>{name} {iou}</h3><div class=\"strip\">\n{pictures}</div></article>\n",
        iou = badge(sample.iou),
    ))
}

fn curves(report: &Report) -> String {
    if report.curves.is_empty() {
        return String::new();
    }
    let figures: String = report.curves.iter().map(charts::figure).collect();
    format!(
        r#"<h2>How training went</h2>
<p class="intro">The loss measures how wrong the model is on the training images, and should fall. Scores on the validation set, on which it is never trained, should rise. The learning rate is the size of the steps.</p>
<div class="curves">
{figures}</div>
"#
    )
}

fn classes(classes: &[ClassRow]) -> String {
    if classes.is_empty() {
        return String::new();
    }
    let total: u64 = classes.iter().map(|class| class.pixels).fold(0, u64::saturating_add);
    let rows: String = classes.iter().map(|class| class_row(class, total)).collect();
    let absent: Vec<String> =
        classes.iter().filter(|class| class.pixels == 0).map(|class| escape(&class.name)).collect();
    let note = match absent.len() {
        0 => String::new(),
        n => format!(
            r#"<p class="note"><b>{n} of {k} {classes} in the truth: {names}.</b> A class that is never predicted either has no IoU and is left out of the means; one that is predicted has an IoU of 0.</p>
"#,
            k = classes.len(),
            classes = if n == 1 { "classes does not occur" } else { "classes do not occur" },
            names = absent.join(", "),
        ),
    };
    let head = |name: &str, title: &str| format!(r#"<th scope="col" title="{title}">{name}</th>"#);
    format!(
        r#"<h2>Class by class</h2>
<p class="intro">Intersection over union (IoU) is the area where prediction and truth agree on a class, over the area where either holds it. Accuracy is the share of a class's pixels that were found. Click a column heading to sort.</p>
{note}<div class="card scroll"><table class="classes sortable">
<thead><tr>{}{}{}{}{}</tr></thead>
<tbody>
{rows}</tbody></table></div>
"#,
        head("Class", "name of the class"),
        head("IoU, %", "intersection over union"),
        head("Accuracy, %", "share of the class's pixels that were found"),
        head("Dice, %", "twice the overlap divided by the sum of both areas"),
        head("Share of the truth", "share of the labelled pixels"),
    )
}

fn class_row(class: &ClassRow, total: u64) -> String {
    let percent =
        |value: Option<f64>| value.filter(|value| value.is_finite()).map(|value| value.clamp(0.0, 1.0) * 100.0);
    let cell = |value: Option<f64>| match percent(value) {
        Some(value) => format!(r#"<td data-value="{value}">{value:.1}</td>"#),
        None => r#"<td data-value="-1"><span class="muted">–</span></td>"#.into(),
    };
    let iou = match percent(class.iou) {
        Some(value) => format!(
            r#"<td class="iou" data-value="{value}"><div><span class="bar"><i style="width:{value:.1}%;background:{}"></i></span>{value:.1}</div></td>"#,
            rgb(class.color)
        ),
        None => r#"<td class="iou" data-value="-1"><span class="muted">absent, no score</span></td>"#.into(),
    };
    format!(
        r#"<tr{absent}><th scope="row">{swatch} {name}</th>{iou}{accuracy}{dice}<td data-value="{pixels}" title="{count} pixels">{share:.1} %</td></tr>
"#,
        absent = if class.pixels == 0 { " class=\"absent\"" } else { "" },
        swatch = swatch(class.color),
        name = escape(&class.name),
        accuracy = cell(class.accuracy),
        dice = cell(class.dice),
        pixels = class.pixels,
        count = thousands(class.pixels),
        share = class.pixels as f64 / total.max(1) as f64 * 100.0,
    )
}

fn confusions(report: &Report) -> String {
    match &report.confusion {
        Some(counts) if !counts.is_empty() => format!(
            "<h2>Confusion matrix</h2>\n<div class=\"card\">{}</div>\n{}",
            confusion::section(&report.classes, counts),
            report.found.as_ref().map_or(String::new(), |found| confusion::pairs(&report.classes, &found.confused)),
        ),
        _ => String::new(),
    }
}

fn next_steps(report: &Report) -> String {
    if report.next_steps.is_empty() {
        return String::new();
    }
    let step =
        |step: &super::NextStep| format!("<li><p>{}</p>{}</li>\n", escape(&step.purpose), command(&step.command));
    let steps: String = report.next_steps.iter().map(step).collect();
    format!("<h2>What to try next</h2>\n<ol class=\"steps\">\n{steps}</ol>\n")
}
