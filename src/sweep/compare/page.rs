//! `compare.html`: the table, curves, trade-offs, and predictions side by side, in one file that loads nothing.

use crate::error::Result;
use crate::image::{IGNORE, Labels};
use crate::report::document::{Head, document};
use crate::report::markup::{escape, swatch};
use crate::report::pictures::{label_map, photo};
use crate::sweep::compare::ComparePlan;
use crate::sweep::compare::collect::{Comparison, DecoderRow};
use crate::sweep::compare::curves::CurvePoint;
use crate::sweep::compare::picture::{Pictures, Row};
use crate::sweep::compare::plot::{Axes, COLORS, Series, lines, scatter};
use crate::sweep::compare::table::COLUMNS;
use crate::text::percent_or;

/// The page of a comparison.
///
/// # Errors
/// A picture that cannot be encoded.
pub(super) fn render(plan: &ComparePlan, comparison: &Comparison, pictures: &Pictures) -> Result<String> {
    let page = Page { plan, comparison };
    let sections = [
        ("table", "Result", page.table()),
        ("pictures", "Side by side", page.pictures(pictures)?),
        ("trade", "Cost", page.trade_offs()),
        ("curves", "Training", page.curves()),
        ("runs", "Runs", page.runs()),
    ];
    let title = format!("{} decoders on {}", plan.decoders.len(), comparison.dataset);
    let lead = format!(
        "The same recipe with each decoder: the same images in the same order, the same backbone from the same weights, \
         {} each, {} seeds.",
        comparison.budget,
        plan.seeds.len()
    );
    let head = Head { title: &title, lead: &lead, hero: String::new() };
    Ok(document(&head, include_str!("compare.css"), &sections))
}

struct Page<'a> {
    plan: &'a ComparePlan,
    comparison: &'a Comparison,
}

impl Page<'_> {
    /// A decoder keeps its colour wherever it stands in the table.
    fn color(&self, decoder: &str) -> usize {
        self.plan.decoders.iter().position(|name| name == decoder).unwrap_or(0)
    }

    fn named(&self, decoder: &str) -> String {
        format!("<span class=\"key c{}\"></span>{}", self.color(decoder) % COLORS, escape(decoder))
    }

    fn table(&self) -> String {
        let head = |name: &str| format!("<th scope=\"col\">{name}</th>");
        let heads: String = std::iter::once("decoder").chain(COLUMNS.iter().map(|(name, _)| *name)).map(head).collect();
        let rows: String = self.comparison.decoders.iter().map(|row| self.row(row)).collect();
        let item = |class: &str, text: &String| format!("<li{class}>{}</li>", escape(text));
        let warnings = self.comparison.notes.iter().map(|text| item(" class=\"warn\"", text));
        let notes: String = warnings.chain(self.comparison.explained().iter().map(|text| item("", text))).collect();
        format!(
            "<h2>Which is better</h2>\n<div class=\"card scroll\"><table class=\"classes sortable\">\n\
             <thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n<ul class=\"notes\">{notes}</ul>\n"
        )
    }

    fn row(&self, row: &DecoderRow) -> String {
        let cell = |(name, cell): &(&str, fn(&DecoderRow) -> Option<String>)| {
            let text = cell(row).unwrap_or_else(|| "–".to_owned());
            let number = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(-1e9);
            let class = match *name {
                "vs. the best" => " class=\"interval difference\"",
                name if name.starts_with("95 %") => " class=\"interval\"",
                _ => "",
            };
            // An interval is not broken inside of its brackets.
            let text = escape(&text).replace(", +", ",&nbsp;+").replace(", -", ",&nbsp;-").replace("(p ", "(p&nbsp;");
            format!("<td{class} data-value=\"{number}\">{text}</td>")
        };
        let cells: String = COLUMNS.iter().map(cell).collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", self.named(&row.decoder))
    }

    fn series(&self, of: impl Fn(&DecoderRow) -> Vec<(f64, f64)>) -> Vec<Series> {
        let one = |row: &DecoderRow| Series {
            name: row.decoder.clone(),
            color: self.color(&row.decoder),
            points: of(row),
            interval: None,
        };
        self.comparison.decoders.iter().map(one).collect()
    }

    fn curves(&self) -> String {
        let seconds = |point: &CurvePoint, factor: f64| (point.seconds / 60.0, point.value * factor);
        let iterations = |point: &CurvePoint, factor: f64| (point.iteration as f64, point.value * factor);
        let miou = |of: &dyn Fn(&CurvePoint, f64) -> (f64, f64)| {
            self.series(|row| row.miou_curve.iter().map(|point| of(point, 100.0)).collect())
        };
        let loss = |of: &dyn Fn(&CurvePoint, f64) -> (f64, f64)| {
            self.series(|row| row.loss.iter().map(|point| of(point, 1.0)).collect())
        };
        let (minutes, steps) = ("minutes of training", "iteration");
        let axes = |title, along, up| Axes { title, along, up };
        let figures = [
            lines(&axes("mIoU (%) by time", minutes, "mIoU"), &miou(&seconds)),
            lines(&axes("mIoU (%) by iteration", steps, "mIoU"), &miou(&iterations)),
            lines(&axes("Training loss by time", minutes, "loss"), &loss(&seconds)),
            lines(&axes("Training loss by iteration", steps, "loss"), &loss(&iterations)),
        ];
        format!(
            "<h2>How they got there</h2>\n<p class=\"intro\">Means over seeds, on the validation split for mIoU. Time \
             is that of training alone. Losses are smoothed, and those of different kinds of decoders are different \
             quantities: compare their shape, not their height.</p>\n<div class=\"curves\">\n{}</div>\n",
            figures.concat()
        )
    }

    fn trade_offs(&self) -> String {
        let against = |of: fn(&DecoderRow) -> Option<f64>| {
            let mut series =
                self.series(|row| of(row).zip(row.miou).map(|(cost, miou)| (cost, miou * 100.0)).into_iter().collect());
            for (series, row) in series.iter_mut().zip(&self.comparison.decoders) {
                series.interval = row.miou_over_seeds.or(row.miou_over_images).map(|ends| ends.map(|end| end * 100.0));
                // A wide interval would make the drawing one of the interval.
                series.interval = series.interval.filter(|[low, high]| *low >= 0.0 && *high <= 100.0);
            }
            series
        };
        let axes = |title, along| Axes { title, along, up: "mIoU" };
        let figures = [
            scatter(&axes("mIoU (%) against training", "ms per step"), &against(|row| row.step_ms)),
            scatter(&axes("mIoU (%) against inference", "ms per image"), &against(|row| row.image_ms)),
            scatter(
                &axes("mIoU (%) against size", "million parameters"),
                &against(|row| row.parameters.map(|n| n as f64 / 1e6)),
            ),
            scatter(&axes("mIoU (%) against computation", "GMAC per crop"), &against(|row| row.gmac)),
        ];
        format!(
            "<h2>What it costs</h2>\n<p class=\"intro\">Further left is cheaper, further up is better. Whiskers are \
             the 95 % interval over seeds, or over images if there is only one seed; those that extend beyond 0 to 100 \
             % are not drawn.</p>\n<div class=\"curves\">\n{}</div>\n",
            figures.concat()
        )
    }

    fn pictures(&self, pictures: &Pictures) -> Result<String> {
        if pictures.rows.is_empty() {
            let note = if pictures.note.is_empty() { "No pictures." } else { &pictures.note };
            return Ok(format!("<h2>Side by side</h2>\n<p class=\"intro\">{}</p>\n", escape(note)));
        }
        let rows: Vec<String> =
            pictures.rows.iter().map(|row| self.picture(row, &pictures.classes.colors)).collect::<Result<_>>()?;
        let mut seen = [false; 256];
        let maps = |row: &Row| {
            std::iter::once(row.truth.clone()).chain(row.predictions.iter().map(|p| p.1.clone())).collect::<Vec<_>>()
        };
        pictures.rows.iter().flat_map(maps).for_each(|map| map.ids.iter().for_each(|id| seen[usize::from(*id)] = true));
        let classes = pictures.classes.names.iter().zip(&pictures.classes.colors).enumerate();
        let legend: String = classes
            .filter(|(class, _)| seen[*class])
            .map(|(_, (name, color))| format!("<li>{} {}</li>", swatch(*color), escape(name)))
            .collect();
        Ok(format!(
            "<h2>Side by side</h2>\n<p class=\"intro\">The validation images on which the decoders disagree most, by \
             the share of pixels where one differs from the majority; first seed. Next to each name is the share of \
             correct pixels.</p>\n<ul class=\"legend\" aria-label=\"Colours of the classes\">{legend}</ul>\n{}",
            rows.concat()
        ))
    }

    fn picture(&self, row: &Row, colors: &[[u8; 3]]) -> Result<String> {
        let (width, height) = (row.image.width, row.image.height);
        let name = escape(&row.name);
        let figure = |what: &str, caption: &str, class: &str, data: &str| {
            format!(
                "<figure><img class=\"{class}\" width=\"{width}\" height=\"{height}\" alt=\"{what} of {name}\" loading=\"lazy\" \
                 src=\"{data}\"><figcaption>{caption}</figcaption></figure>\n"
            )
        };
        let mut figures = figure("input", "image", "smooth", &photo(&row.image)?);
        figures += &figure("truth", "truth", "labels", &label_map(&row.truth, colors)?);
        for (decoder, prediction) in &row.predictions {
            let right = right(&row.truth, prediction).map_or(String::new(), |share| format!("{:.1} %", share * 100.0));
            let caption = format!("<b>{}</b><span>{right}</span>", self.named(decoder));
            let what = format!("prediction of {}", escape(decoder));
            figures += &figure(&what, &caption, "labels", &label_map(prediction, colors)?);
        }
        Ok(format!(
            "<article class=\"card sample\"><h3>{name} <span class=\"badge\">{:.1} % disagreement</span></h3>\
             <div class=\"side\">\n{figures}</div></article>\n",
            row.disagreement * 100.0
        ))
    }

    fn runs(&self) -> String {
        let head = |name: &&str| format!("<th scope=\"col\">{name}</th>");
        let heads = [
            "run",
            "mIoU",
            "boundary IoU",
            "right pixels",
            "iterations",
            "training, s",
            "step, ms",
            "image, ms",
            "peak, MB",
            "machine",
        ];
        let heads: String = heads.iter().map(head).collect();
        let percent = |value| percent_or(value, 2, "–");
        let cell = |text: String| format!("<td>{}</td>", escape(&text));
        let mut rows = String::new();
        for (row, run) in self.comparison.decoders.iter().flat_map(|row| row.runs.iter().map(move |run| (row, run))) {
            let cells = [
                percent(run.miou),
                percent(run.boundary_iou),
                percent(run.pixel_accuracy),
                run.iterations.to_string(),
                format!("{:.0}", run.training_s),
                format!("{:.1}", run.step_ms),
                format!("{:.1}", run.image_ms),
                run.peak_mb.map_or("–".to_owned(), |mb| mb.to_string()),
                run.device.clone(),
            ];
            let cells: String = cells.into_iter().map(cell).collect();
            let link = format!("{}/report.html", escape(&run.run));
            let key = format!("<span class=\"key c{}\"></span>", self.color(&row.decoder) % COLORS);
            rows +=
                &format!("<tr><th scope=\"row\">{key}<a href=\"{link}\">{}</a></th>{cells}</tr>\n", escape(&run.run));
        }
        if rows.is_empty() {
            return String::new();
        }
        format!(
            "<h2>Every run</h2>\n<div class=\"card scroll\"><table class=\"classes\">\n<thead><tr>{heads}</tr></thead>\n\
             <tbody>\n{rows}</tbody></table></div>\n"
        )
    }
}

/// The share of right pixels.
fn right(truth: &Labels, prediction: &Labels) -> Option<f64> {
    let counted = || truth.ids.iter().zip(&prediction.ids).filter(|(truth, _)| **truth != IGNORE);
    let all = counted().count();
    (all > 0).then(|| counted().filter(|(truth, prediction)| truth == prediction).count() as f64 / all as f64)
}
