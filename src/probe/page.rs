//! The page of a finding: verdicts, costs per class, every change with the answer beside it, tokens and places.

use std::path::Path;

use super::effects::{Effect, Effects};
use super::text::{interval, points, share};
use super::verdict::{Basis, Verdict};
use super::{Cue, ExampleImage, Finding, LEAST_IMAGES, LEAST_REGIONS, Pictures, TokenFindings};
use crate::dataset::Classes;
use crate::error::Result;
use crate::files;
use crate::image::{Image, Labels};
use crate::report::document::{Head, document};
use crate::report::markup::{escape, swatch};
use crate::report::pictures::{fit, heat_map, label_map, photo, shrink_image, shrink_labels};
use crate::text::percent_or;

/// The longer side of pictures on the page.
const SIDE: usize = 240;
/// Classes whose learned tokens are drawn at most.
const PRIORS: usize = 60;

/// What a page says beside its numbers.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The title.
    pub title: String,
    /// A sentence below it.
    pub lead: String,
    /// The command that made it.
    pub command: String,
}

/// Writes the page to `path`.
///
/// # Errors
/// A picture that cannot be encoded, or a file that cannot be written.
pub fn write(path: &Path, finding: &Finding, classes: &Classes, pictures: &Pictures, about: &About) -> Result<()> {
    let page = Page { finding, classes };
    let sections = [
        ("verdicts", "Verdicts", page.verdicts(about)),
        ("cues", "Cues", page.cues()),
        ("pictures", "Pictures", page.pictures(&pictures.images)?),
        ("bias", "Shape or texture", page.bias()),
        ("tokens", "Tokens", page.tokens(pictures)?),
        ("places", "Where", page.places()),
        ("how", "How it is measured", how()),
    ];
    let head = Head { title: &about.title, lead: &about.lead, hero: String::new() };
    files::write(path, document(&head, include_str!("probe.css"), &sections).as_bytes())
}

struct Page<'a> {
    finding: &'a Finding,
    classes: &'a Classes,
}

impl Page<'_> {
    fn named(&self, class: usize) -> String {
        let color = self.classes.colors.get(class).copied().unwrap_or_default();
        format!("{} {}", swatch(color), escape(&self.finding.classes[class]))
    }

    fn verdicts(&self, about: &About) -> String {
        let Finding { miou, boundary_miou, images, seed, verdicts, .. } = self.finding;
        let tile = |name: &str, value: String, meaning: &str| {
            format!("<div class=\"card tile\"><dt>{name}</dt><dd><b>{value}</b><span>{meaning}</span></dd></div>\n")
        };
        let percent = |value: Option<f64>| percent_or(value, 1, "–") + if value.is_some() { " %" } else { "" };
        let tiles = [
            tile("mIoU", percent(*miou), "On the unchanged pictures: what every change is compared with."),
            tile("Boundary IoU", percent(*boundary_miou), "The same along contours only."),
            tile("Images", images.to_string(), &format!("Each with every change; seed {seed}.")),
        ];
        let cards: String = verdicts.iter().enumerate().map(|(class, verdict)| self.verdict(class, verdict)).collect();
        format!(
            "<h2>What each class is found by</h2>\n<dl class=\"tiles\" style=\"--n:3\">\n{}</dl>\n{cards}\
             <div class=\"card run\"><p class=\"small\">This page was made by</p><div class=\"command\"><code>{}</code>\
             <button type=\"button\" hidden>Copy</button></div></div>\n",
            tiles.concat(),
            escape(&about.command)
        )
    }

    fn verdict(&self, class: usize, verdict: &Verdict) -> String {
        let (first, rest) =
            verdict.sentences.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        let rest: String = rest.iter().map(|sentence| format!("<li>{}</li>", prose(sentence))).collect();
        let rest = if rest.is_empty() { rest } else { format!("<ul>{rest}</ul>") };
        format!(
            "<article class=\"card verdict\"><h3>{} <span class=\"badge\">{}</span></h3><p>{}</p>{rest}</article>\n",
            self.named(class),
            badge(verdict.basis),
            prose(first),
        )
    }

    fn cues(&self) -> String {
        let none: Vec<&str> = self.finding.not_measured.iter().map(|cue| cue.name()).collect();
        let note = match none.len() {
            0 => String::new(),
            _ => format!("<p class=\"note\">No image has regions for {}.</p>\n", none.join(", ")),
        };
        format!(
            "<h2>What each change costs</h2>\n<p class=\"intro\">One row per change of the pictures, one column per class: \
             how many points of IoU it loses against the same pictures unchanged. Brackets hold the middle 95 % over draws \
             of images; a change whose interval includes zero may have no effect. The darker a cell, the more is lost. \
             <em>texture-same</em> is a control: it costs what the way of painting textures costs.</p>\n{}{note}",
            self.costs(&self.finding.cues, |name| Cue::ALL.iter().find(|cue| cue.name() == name).map(|cue| cue.when()))
        )
    }

    /// Changes by classes.
    fn costs(&self, rows: &[Effects], when: impl Fn(&str) -> Option<&'static str>) -> String {
        let classes: Vec<usize> = (0..self.finding.classes.len())
            .filter(|class| rows.iter().any(|row| row.classes[*class].iou.images > 0))
            .collect();
        let heads: String =
            classes.iter().map(|class| format!("<th scope=\"col\">{}</th>", self.named(*class))).collect();
        let mut body = String::new();
        for row in rows {
            let title = when(&row.name).map_or(String::new(), |when| format!(" title=\"when {}\"", escape(when)));
            let cells: String = classes.iter().map(|class| cost(&row.classes[*class].iou)).collect();
            let boundary = row.boundary_miou.as_ref().map_or("<td>–</td>".to_owned(), cost);
            body += &format!(
                "<tr><th scope=\"row\"{title}>{}</th><td>{}</td>{}{boundary}{cells}</tr>\n",
                escape(&row.name),
                row.images,
                cost(&row.miou)
            );
        }
        format!(
            "<div class=\"card scroll\"><table class=\"costs\"><thead><tr><th scope=\"col\">change</th><th scope=\"col\">images</th>\
             <th scope=\"col\">mIoU</th><th scope=\"col\">boundary IoU</th>{heads}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
        )
    }

    fn pictures(&self, images: &[ExampleImage]) -> Result<String> {
        if images.is_empty() {
            return Ok(String::new());
        }
        let legend: String = (0..self.classes.len()).map(|class| format!("<li>{}</li>", self.named(class))).collect();
        let mut html = format!(
            "<h2>Every change, with the prediction next to it</h2>\n<p class=\"intro\">The images with the most classes. Left: \
             what the network sees. Middle: the ground truth that is scored (hatched where it is not). Right: the \
             prediction.</p>\n<ul class=\"legend\" aria-label=\"Colours of the classes\">{legend}</ul>\n"
        );
        for (at, shown) in images.iter().enumerate() {
            let mut figures = self.triple("as it is", &shown.plain)?;
            for (cue, pictures) in &shown.changed {
                figures += &self.triple(cue.name(), pictures)?;
            }
            let open = if at == 0 { " open" } else { "" };
            html += &format!(
                "<details class=\"card more\"{open}><summary>{}</summary><div class=\"triples\">{figures}</div></details>\n",
                escape(&shown.name)
            );
        }
        Ok(html)
    }

    fn triple(&self, name: &str, (image, truth, prediction): &(Image, Labels, Labels)) -> Result<String> {
        let size = fit(image.width, image.height, SIDE);
        let (width, height) = size;
        let picture = |what: &str, class: &str, data: String| {
            format!(
                "<img class=\"{class}\" width=\"{width}\" height=\"{height}\" alt=\"{what}, {name}\" loading=\"lazy\" src=\"{data}\">"
            )
        };
        Ok(format!(
            "<figure><div class=\"strip\">{}{}{}</div><figcaption>{name}</figcaption></figure>\n",
            picture("picture", "labels", photo(&shrink_image(image, size))?),
            picture("truth", "labels", label_map(&shrink_labels(truth, size), &self.classes.colors)?),
            picture("prediction", "labels", label_map(&shrink_labels(prediction, size), &self.classes.colors)?),
        ))
    }

    fn bias(&self) -> String {
        let measured = self.finding.shape_bias.iter().enumerate();
        let mut rows = String::new();
        for (class, bias) in measured.filter(|(_, bias)| bias.shape + bias.texture + bias.neither > 0) {
            let all = (bias.shape + bias.texture + bias.neither) as f64;
            let part = |name: &str, n: usize| {
                format!("<i class=\"{name}\" style=\"width:{:.1}%\"></i>", 100.0 * n as f64 / all)
            };
            let share = match (bias.bias, bias.interval) {
                (Some(share), Some([low, high])) => format!("{share:.2} <span>[{low:.2}, {high:.2}]</span>"),
                _ => "–".to_owned(),
            };
            rows += &format!(
                "<tr><th scope=\"row\">{}</th><td class=\"parts\"><div>{}{}{}</div></td><td>{}</td><td>{}</td><td>{}</td><td>{share}</td></tr>\n",
                self.named(class),
                part("shape", bias.shape),
                part("neither", bias.neither),
                part("texture", bias.texture),
                bias.shape,
                bias.neither,
                bias.texture
            );
        }
        if rows.is_empty() {
            return String::new();
        }
        format!(
            "<h2>Shape or texture?</h2>\n<p class=\"intro\">Regions with the shape of their class and the texture of another, \
             that the network finds in the picture as it is. <em>Shape bias</em> is the share labelled by shape among those \
             labelled by either (Geirhos et al. 2019), with Wilson's interval; {LEAST_REGIONS} are needed for a verdict.</p>\n\
             <div class=\"card scroll\"><table class=\"classes\"><thead><tr><th scope=\"col\">class</th><th scope=\"col\">\
             <span class=\"shape\">shape</span> · <span class=\"neither\">neither</span> · <span class=\"texture\">texture</span></th>\
             <th scope=\"col\">shape</th><th scope=\"col\">neither</th><th scope=\"col\">texture</th><th scope=\"col\">shape bias</th></tr></thead>\n\
             <tbody>\n{rows}</tbody></table></div>\n"
        )
    }

    fn tokens(&self, pictures: &Pictures) -> Result<String> {
        let Some(tokens) = &self.finding.tokens else { return Ok(String::new()) };
        let what = match (tokens.grid, tokens.of_classes) {
            (Some([rows, columns]), _) => format!("{} tokens, maps of {rows} x {columns},", tokens.count),
            (None, true) => format!("{} vectors, one for each class", tokens.count),
            (None, false) => format!("{} queries", tokens.count),
        };
        let mut html = format!(
            "<h2>What the tokens do</h2>\n<p class=\"intro\">The decoder knows {what} before it sees an image. Here they are \
             changed after training, and nothing else is. If a change costs nothing, the network does not use what it \
             changes.</p>\n{}{}",
            self.costs(&tokens.edits, |_| None),
            stages(tokens)
        );
        if let Some(priors) = &pictures.priors {
            let mut figures = String::new();
            for class in 0..self.finding.classes.len().min(PRIORS) {
                figures += &format!(
                    "<figure><img alt=\"learned token of {name}\" src=\"{}\"><figcaption>{}</figcaption></figure>\n",
                    heat_map(priors, class, 96)?,
                    self.named(class),
                    name = escape(&self.finding.classes[class]),
                );
            }
            html += &format!(
                "<h3>Before the image: where each class is expected</h3>\n<p class=\"intro\">The learned tokens, from low (dark) \
                 to high (light), each on its own scale.</p>\n<div class=\"card priors\">{figures}</div>\n"
            );
        }
        Ok(html)
    }

    fn places(&self) -> String {
        let place = &self.finding.place;
        let row = |name: String, count: String, scores: &[Option<f64>]| {
            let cells: String = scores.iter().map(|score| format!("<td>{}</td>", percent_or(*score, 1, "–"))).collect();
            format!("<tr><th scope=\"row\">{name}</th><td>{count}</td>{cells}</tr>\n")
        };
        let with = |first: Option<f64>, classes: &[Option<f64>]| [&[first], classes].concat();
        let distance = place
            .distance
            .iter()
            .map(|band| row(band.range(), band.pixels.to_string(), &with(band.miou, &band.classes)));
        let size = place.size.iter().filter(|bin| bin.regions > 0);
        let size = size.map(|bin| row(share(bin.from, bin.to), bin.regions.to_string(), &with(bin.iou, &bin.classes)));
        let curvature = place.curvature.iter().filter(|bin| bin.pixels > 0).map(|bin| {
            let range = bin.to.map_or(format!("{:.1} and more", bin.from), |to| format!("{:.1} to {to:.1}", bin.from));
            row(range, bin.pixels.to_string(), &with(bin.miou, &bin.classes))
        });
        let names: String = (0..self.finding.classes.len())
            .map(|class| format!("<th scope=\"col\">{}</th>", self.named(class)))
            .collect();
        let table = |what: &str, count: &str, first: &str, rows: String| {
            format!(
                "<div class=\"card scroll\"><table class=\"classes\"><thead><tr><th scope=\"col\">{what}</th><th scope=\"col\">{count}</th>\
                 <th scope=\"col\">{first}</th>{names}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
            )
        };
        format!(
            "<h2>Where it fails</h2>\n<p class=\"intro\">IoU in percent on the unchanged pictures: by the distance of pixels to \
             the nearest true edge, by the share of the image that a true region covers (the mean over regions), and along true \
             contours by their curvature (0 is straight, 1 bends as tightly as the disc that it is \
             measured with).</p>\n{}{}{}",
            table("pixels from an edge", "pixels", "mIoU", distance.collect()),
            table("size of a region", "regions", "mean", size.collect()),
            table("curvature", "pixels", "mIoU", curvature.collect())
        )
    }
}

/// What stages of the decoder would answer.
fn stages(tokens: &TokenFindings) -> String {
    let row = |name: &str, miou: Option<f64>, agreement: Option<f64>| {
        let width = agreement.unwrap_or(0.0) * 100.0;
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"iou\"><div><span class=\"bar\"><i style=\"width:{width:.1}%;\
             background:var(--accent)\"></i></span>{}</div></td></tr>\n",
            escape(name),
            percent_or(miou, 1, "–"),
            percent_or(agreement, 1, "–")
        )
    };
    let mut rows: String = tokens.stages.iter().map(|stage| row(&stage.name, stage.miou, stage.agreement)).collect();
    rows += &row("a map of one class, to compare with", None, tokens.constant_agreement);
    format!(
        "<h3>Block by block</h3>\n<p class=\"intro\">What the largest token at each pixel says after every stage. The share that \
         agrees with the last stage before the image has been seen is what the network knows without looking.</p>\n\
         <div class=\"card scroll\"><table class=\"classes\"><thead><tr><th scope=\"col\">stage</th><th scope=\"col\">mIoU, %</th>\
         <th scope=\"col\">agrees with the last, %</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// A change in points, darker the more it loses.
fn cost(effect: &Effect) -> String {
    let Some(change) = effect.change() else { return "<td><span class=\"muted\">–</span></td>".to_owned() };
    let range = effect.interval.map_or(String::new(), |ends| format!("<span>{}</span>", interval(ends)));
    let shade = (-change * 100.0).clamp(0.0, 100.0) * 0.6;
    let title = format!(
        "{} to {}, {} images",
        percent_or(effect.before, 1, "–"),
        percent_or(effect.after, 1, "–"),
        effect.images
    );
    format!("<td style=\"--loss:{shade:.0}%\" title=\"{title}\">{}{range}</td>", points(change))
}

/// A sentence: names in backticks stand out, and it ends.
fn prose(sentence: &str) -> String {
    let parts = escape(sentence);
    let marked: String = parts
        .split('`')
        .enumerate()
        .map(|(at, part)| if at % 2 == 1 { format!("<b>{part}</b>") } else { part.to_owned() })
        .collect();
    let mut letters = marked.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn badge(basis: Basis) -> &'static str {
    match basis {
        Basis::Shape => "shape",
        Basis::Form => "not texture",
        Basis::Texture => "texture",
        Basis::Color => "colour",
        Basis::Both => "shape and texture",
        Basis::Position => "position",
        Basis::Default => "default",
        Basis::NotFound => "not found",
        Basis::Unknown => "open",
    }
}

fn how() -> String {
    let rows: String = Cue::ALL
        .iter()
        .map(|cue| format!("<tr><th scope=\"row\">{}</th><td>when {}</td></tr>\n", cue.name(), escape(cue.when())))
        .collect();
    format!(
        "<h2>How it is measured</h2>\n<p class=\"intro\">Every image is changed in every way, as the seed decides, and scored \
         against the truth that moved along. Differences are paired: before and after are scores of the same regions of the \
         same images, and their interval is the bootstrap over images; with fewer than {LEAST_IMAGES} images there is none. \
         Where one object is moved, or everything around it is removed, each class has the same chance to be picked, and only \
         that object counts. Unnatural changes also cost because they are unusual: compare them with one another, and with \
         <em>texture-same</em>.</p>\n<div class=\"card scroll\"><table \
         class=\"classes\"><tbody>\n{rows}</tbody></table></div>\n"
    )
}
