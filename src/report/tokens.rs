//! How structure tokens become masks: every stage of the decoder, seen on single images.

use rayon::prelude::*;

use crate::error::Result;
use crate::image::{IGNORE, Labels};
use crate::metrics::overlap::Overlaps;
use crate::report::markup::{badge, escape, swatch};
use crate::report::picture_budget::PictureBudget;
use crate::report::{ClassRow, Report, SamplePanel, TokenBlock, pictures};

/// What tokens are called that have met the classification they begin with.
pub(super) const WITH_PRIOR: &str = "with their prior";
/// Images unfolded at first.
const OPEN: usize = 2;

/// The section; empty where no sample brings token maps.
pub(super) fn section(report: &Report) -> Result<String> {
    let with_maps: Vec<&SamplePanel> = report.samples.iter().filter(|sample| !sample.blocks.is_empty()).collect();
    if with_maps.is_empty() {
        return Ok(String::new());
    }
    let panels: Vec<String> = with_maps
        .par_iter()
        .enumerate()
        .map(|(i, sample)| panel(sample, &report.classes, i < OPEN, &PictureBudget::of(i, with_maps.len())))
        .collect::<Result<_>>()?;
    let prior = match with_maps.iter().any(|sample| sample.blocks.iter().any(|block| block.name == WITH_PRIOR)) {
        true => " This model's tokens then begin with a classification of each pixel, their prior.",
        false => "",
    };
    let stops: Vec<String> = pictures::HEAT.iter().map(|[r, g, b]| format!("rgb({r} {g} {b})")).collect();
    Ok(format!(
        r#"<h2>How structure tokens become masks</h2>
<p class="intro">Most segmenters classify every pixel on its own. StructToken instead learns one <em>structure token</em> for each class, a map as large as the image's features, and lets it interact with the features block by block until the tokens <em>are</em> the masks. The first column is the same for every image, before the tokens have seen it.{prior} The last column is the model's output: two convolutions weigh the tokens against one another, so until then a token may be faint, or dark where its class is.</p>
<p class="heatkey"><span>low</span><i style="background:linear-gradient(to right,{})"></i><span>high</span> <span class="muted">each map on its own scale</span></p>
{}"#,
        stops.join(","),
        panels.concat(),
    ))
}

fn panel(sample: &SamplePanel, classes: &[ClassRow], open: bool, budget: &PictureBudget) -> Result<String> {
    Ok(format!(
        r#"<details class="card tokens"{open}><summary><h3>{name} {iou}</h3></summary>
<div class="body">
{viewer}{maps}</div></details>
"#,
        open = if open { " open" } else { "" },
        name = escape(&sample.name),
        iou = badge(sample.iou),
        viewer = viewer(sample, classes, budget)?,
        maps = maps(sample, classes, budget)?,
    ))
}

/// The image under the label map of each stage, with a slider that steps through them.
fn viewer(sample: &SamplePanel, classes: &[ClassRow], budget: &PictureBudget) -> Result<String> {
    let size = pictures::fit(sample.image.width, sample.image.height, budget.stage);
    let palette: Vec<[u8; 3]> = classes.iter().map(|class| class.color).collect();
    let truth = pictures::shrink_labels(&sample.truth, size);
    let photo = pictures::photo(&pictures::shrink_image(&sample.image, size))?;
    let name = escape(&sample.name);
    let last = sample.blocks.len() - 1;
    let (mut stages, mut steps) = (String::new(), String::new());
    for (i, block) in sample.blocks.iter().enumerate() {
        let labels = pictures::stage_labels(block, size);
        let stage = escape(&block.name);
        stages += &format!(
            r#"<img class="stage labels" alt="largest token at each pixel, {stage}" src="{}"{}>"#,
            pictures::label_map(&labels, &palette)?,
            if i == last { "" } else { " hidden" },
        );
        let now = if i == last { " class=\"now\"" } else { "" };
        let right = agreement(&truth, &labels);
        let (text, bar) =
            right.map_or((String::new(), 0.0), |share| (format!("{:.0} %", share * 100.0), share * 100.0));
        steps += &format!(r#"<li{now}><span>{stage}</span><i style="--v:{bar:.1}%"></i><b>{text}</b></li>"#);
    }
    let (width, height) = size;
    Ok(format!(
        r#"<div class="viewer"><div class="stack" style="aspect-ratio:{width}/{height}"><img class="photo" alt="{name}" src="{photo}">{stages}</div>
<div class="controls" hidden><button type="button" class="play" aria-label="Play the stages">▶</button><input type="range" class="slider" min="0" max="{last}" value="{last}" step="1" aria-label="Stage of the decoder"></div>
<p class="small">The class of the largest token at each pixel, and its mIoU:</p>
<ol class="stages">{steps}</ol>
<label class="small opacity" hidden>Overlay <input type="range" min="0" max="100" value="72"></label></div>
"#
    ))
}

/// The mean IoU over the classes that are drawn or found; `None` where no pixel is labelled.
fn agreement(truth: &Labels, labels: &Labels) -> Option<f64> {
    let mut overlaps = Overlaps::new(256);
    let labeled = truth.ids.iter().zip(&labels.ids).filter(|(truth, _)| **truth != IGNORE);
    labeled.for_each(|(truth, label)| overlaps.count(*truth, *label));
    overlaps.miou()
}

/// One row per class, one column per stage.
fn maps(sample: &SamplePanel, classes: &[ClassRow], budget: &PictureBudget) -> Result<String> {
    let (shown, hidden) = present(sample, classes.len(), budget.classes);
    let heads: String =
        sample.blocks.iter().map(|block| format!(r#"<th scope="col">{}</th>"#, escape(&block.name))).collect();
    let mut rows = String::new();
    for &class in &shown {
        rows += &row(sample, class, &classes[class], budget)?;
    }
    let more = match hidden.len() {
        0 => String::new(),
        _ => {
            let named = |&class: &usize| {
                format!("<span class=\"name\">{} {}</span>", swatch(classes[class].color), escape(&classes[class].name))
            };
            let names: Vec<String> = hidden.iter().map(named).collect();
            format!("<p class=\"small\">Also present, with fewer pixels: {}.</p>", names.join(", "))
        }
    };
    Ok(format!(
        r#"<div class="scroll"><table class="maps" style="--n:{columns}"><caption class="hide">Structure tokens of {name}, one row per class, one column per stage</caption>
<thead><tr><td></td>{heads}<th scope="col" class="truth">truth</th></tr></thead>
<tbody>
{rows}</tbody></table>{more}</div>
"#,
        columns = sample.blocks.len() + 1,
        name = escape(&sample.name),
    ))
}

fn row(sample: &SamplePanel, class: usize, of: &ClassRow, budget: &PictureBudget) -> Result<String> {
    let name = escape(&of.name);
    let (truth, width, height) = (&sample.truth, sample.image.width, sample.image.height);
    let mut cells = String::new();
    for block in &sample.blocks {
        let (low, high) = extremes(block, class);
        cells += &format!(
            r#"<td><img alt="structure token of {name}, {stage}" title="{name}, {stage}: {low:.3} to {high:.3}" style="aspect-ratio:{width}/{height}" src="{data}"></td>"#,
            stage = escape(&block.name),
            data = pictures::heat_map(block, class, budget.map)?,
        );
    }
    let truth =
        pictures::class_mask(&pictures::shrink_labels(truth, pictures::fit(width, height, 2 * budget.map)), class)?;
    cells += &format!(r#"<td class="truth"><img class="labels" alt="true mask of {name}" src="{truth}"></td>"#);
    Ok(format!("<tr><th scope=\"row\">{} {name}</th>{cells}</tr>\n", swatch(of.color)))
}

/// The least and the largest value of one token.
fn extremes(block: &TokenBlock, class: usize) -> (f32, f32) {
    let area = block.height * block.width;
    let map = &block.maps[class * area..][..area];
    map.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}

/// The classes in the truth or the prediction by falling area: those with room for their tokens, and the others.
fn present(sample: &SamplePanel, k: usize, most: usize) -> (Vec<usize>, Vec<usize>) {
    let mut area = vec![0u64; 256];
    // The truth counts double, so that a class that was missed comes before one that was imagined.
    sample.truth.ids.iter().for_each(|&id| area[usize::from(id)] += 2);
    sample.prediction.ids.iter().for_each(|&id| area[usize::from(id)] += 1);
    let mut found: Vec<usize> = (0..k).filter(|&class| area[class] > 0).collect();
    found.sort_by_key(|&class| std::cmp::Reverse(area[class]));
    let hidden = found.split_off(most.min(found.len()));
    (found, hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    fn sample(truth: Vec<u8>, prediction: Vec<u8>) -> SamplePanel {
        let (width, height) = (truth.len(), 1);
        let labels = |ids| Labels { width, height, ids };
        SamplePanel {
            name: "s".into(),
            image: Image { width, height, pixels: vec![0; width * 3] },
            truth: labels(truth),
            prediction: labels(prediction),
            iou: None,
            blocks: Vec::new(),
        }
    }

    #[test]
    fn the_largest_classes_are_shown_and_the_others_named() {
        let (shown, hidden) = present(&sample(vec![1, 1, 0, IGNORE], vec![2, 1, 2, 2]), 3, 6);
        assert_eq!((shown, hidden), (vec![1, 2, 0], vec![]));
        let many: Vec<u8> = (0..9).collect();
        let (shown, hidden) = present(&sample(many.clone(), many), 9, 6);
        assert_eq!((shown.len(), hidden.len()), (6, 3));
    }

    #[test]
    fn agreement_leaves_ignored_pixels_out() {
        let labels = |ids: &[u8]| Labels { width: ids.len(), height: 1, ids: ids.to_vec() };
        assert_eq!(agreement(&labels(&[0, 1, IGNORE, 1]), &labels(&[0, 0, 0, 1])), Some(0.5));
        assert_eq!(agreement(&labels(&[IGNORE]), &labels(&[0])), None);
    }
}
