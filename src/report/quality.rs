//! How good the answers are beyond one number: near edges and far from them, and whether probabilities can be believed.

use crate::metrics::calibration::{Bin, Calibration};
use crate::metrics::distance::BandScore;
use crate::report::Report;
use crate::text::{percent_or, thousands};

/// Scores by the distance to the nearest true edge; empty where they were not measured.
pub(super) fn edges(report: &Report) -> String {
    let Some(found) = report.found.as_ref().filter(|found| found.distance.iter().any(|band| band.pixels > 0)) else {
        return String::new();
    };
    let row = |band: &BandScore| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td title=\"{} pixels\">{:.1} %</td></tr>\n",
            band.range(),
            percent_or(band.miou, 1, "–"),
            percent_or(band.accuracy, 1, "–"),
            thousands(band.pixels),
            band.share * 100.0
        )
    };
    let rows: String = found.distance.iter().map(row).collect();
    format!(
        r#"<h2>On the edges and inside</h2>
<p class="intro">Edges are where annotators disagree and networks guess: a mask that is one pixel too wide is wrong only there. Errors far from any edge are worse: whole regions have the wrong class. This table groups pixels by their distance to the nearest place where the true class changes.</p>
<div class="card quality">{chart}<div class="scroll"><table class="classes">
<thead><tr><th scope="col">Pixels from an edge</th><th scope="col">mIoU, %</th><th scope="col">Accuracy, %</th><th scope="col">Share of pixels</th></tr></thead>
<tbody>
{rows}</tbody></table></div></div>
"#,
        chart = columns(&found.distance),
    )
}

// The drawings' size and plot area, in SVG units.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 452.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 222.0;

fn up(share: f64) -> f64 {
    BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
}

/// Two columns a band: mIoU and accuracy.
fn columns(bands: &[BandScore]) -> String {
    let step = (RIGHT - LEFT) / bands.len() as f64;
    let mut svg = scale();
    for (i, band) in bands.iter().enumerate() {
        let middle = LEFT + step * (i as f64 + 0.5);
        let column = |class: &str, left: f64, value: Option<f64>| match value {
            Some(value) => format!(
                r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" rx="2"/><text x="{:.1}" y="{:.1}" text-anchor="middle">{:.0}</text>"#,
                middle + left,
                up(value),
                step * 0.34,
                BOTTOM - up(value),
                middle + left + step * 0.17,
                up(value) - 4.0,
                value * 100.0
            ),
            None => String::new(),
        };
        svg += &column("one", -step * 0.36, band.miou);
        svg += &column("two", step * 0.02, band.accuracy);
        svg +=
            &format!(r#"<text x="{middle:.1}" y="{:.1}" text-anchor="middle">{}</text>"#, BOTTOM + 17.0, band.range());
    }
    format!(
        r#"<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="mIoU and accuracy by distance to the nearest edge; the table holds the numbers">{svg}<text x="{:.1}" y="{:.1}" text-anchor="middle" class="label">pixels from the nearest edge</text></svg><p class="key"><i></i> mIoU, % <i class="faint"></i> accuracy, %</p></figure>"#,
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 38.0
    )
}

/// Lines and numbers from 0 to 100 %.
fn scale() -> String {
    let line = |tick: i32| {
        let y = up(f64::from(tick) / 100.0);
        format!(
            r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{tick} %</text>"#,
            LEFT - 6.0,
            y + 4.0
        )
    };
    [0, 25, 50, 75, 100].into_iter().map(line).collect()
}

/// Whether probabilities can be believed; empty where that was not measured.
pub(super) fn calibration(report: &Report) -> String {
    let found = report.found.as_ref().and_then(|found| found.calibration.as_ref());
    let Some((found, ece)) = found.and_then(|found| Some((found, found.ece?))) else { return String::new() };
    let mean = found.confidence.unwrap_or(0.0);
    let right = found.bins.iter().filter_map(|bin| Some(bin.accuracy? * bin.pixels as f64)).sum::<f64>();
    let all: u64 = found.bins.iter().map(|bin| bin.pixels).sum();
    let accuracy = right / all.max(1) as f64;
    let verdict = match mean - accuracy {
        gap if gap.abs() < 0.01 => "Overall, its confidence matches its accuracy.",
        gap if gap > 0.0 => "It is overconfident.",
        _ => "It is underconfident.",
    };
    format!(
        r#"<h2>Can its probabilities be trusted?</h2>
<p class="intro">For every pixel the model states a confidence. Of all predictions with a confidence of 80 %, eight of ten should be right: then the columns end on the line. Below the line the model is overconfident, above it underconfident. The faint columns at the bottom show how many pixels there are; where there are few, a column means little.</p>
<div class="card quality">{diagram}<div><dl class="facts">
<div><dt>Expected calibration error</dt><dd>{ece:.2} %</dd></div>
<div><dt>Mean confidence</dt><dd>{mean:.2} %</dd></div>
<div><dt>Accuracy</dt><dd>{accuracy:.2} %</dd></div>
<div><dt>Negative log-likelihood</dt><dd>{nll}</dd></div>
</dl><p class="small">{verdict} The calibration error is the mean distance of the columns from the line, weighted by pixels. The negative log-likelihood (in nats, smaller is better) also punishes confident errors.</p></div></div>
"#,
        diagram = diagram(found, all),
        ece = ece * 100.0,
        mean = mean * 100.0,
        accuracy = accuracy * 100.0,
        nll = found.nll.map_or("–".to_owned(), |nll| format!("{nll:.3}")),
    )
}

/// The reliability diagram: accuracy over probability, and how many pixels each bin holds.
fn diagram(found: &Calibration, all: u64) -> String {
    let across = |share: f64| LEFT + share * (RIGHT - LEFT);
    let mut svg = scale();
    for bin in &found.bins {
        let (x, width) = (across(bin.from) + 1.5, across(bin.to) - across(bin.from) - 3.0);
        let share = bin.pixels as f64 / all.max(1) as f64;
        if let Some(accuracy) = bin.accuracy {
            let (y, height, note) = (up(accuracy), BOTTOM - up(accuracy), note(bin, accuracy, share));
            svg += &format!(
                r#"<rect class="one" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2"><title>{note}</title></rect>"#
            );
            // A fifth of the height for all pixels.
            let height = share * 0.2 * (BOTTOM - TOP);
            svg += &format!(
                r#"<rect class="foot" x="{x:.1}" y="{:.1}" width="{width:.1}" height="{height:.1}"/>"#,
                BOTTOM - height
            );
        }
    }
    for tick in [0, 25, 50, 75, 100] {
        // The last one ends with the drawing.
        let anchor = if tick == 100 { "end" } else { "middle" };
        let x = across(f64::from(tick) / 100.0);
        svg += &format!(r#"<text x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{tick} %</text>"#, BOTTOM + 17.0);
    }
    svg += &format!(r#"<line class="ideal" x1="{LEFT}" y1="{BOTTOM}" x2="{RIGHT}" y2="{TOP}"/>"#);
    format!(
        r#"<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="share of correct pixels over the probability of the predicted class, against the diagonal">{svg}<text x="{:.1}" y="{:.1}" text-anchor="middle" class="label">confidence</text></svg><p class="key"><i></i> right answers <i class="dashed"></i> as it should be</p></figure>"#,
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 38.0
    )
}

fn note(bin: &Bin, accuracy: f64, share: f64) -> String {
    format!(
        "{:.0} to {:.0} %: {:.1} % right, {:.1} % of the pixels",
        bin.from * 100.0,
        bin.to * 100.0,
        accuracy * 100.0,
        share * 100.0
    )
}
