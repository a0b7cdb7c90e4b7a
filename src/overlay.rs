//! Pictures of label maps: made to be looked at.

use crate::image::{IGNORE, Image, Labels};

mod font;

/// How strongly class colours cover the image, unless something else is asked for.
pub(crate) const ALPHA: f32 = 0.55;

/// The colours of a label map over its image: `alpha` of the class colour inside a segment, more on the line where two
/// classes meet. Pixels of 255, ids without a colour and classes that are black, by custom the background, stay as they
/// are.
///
/// The image and the map must be of one size.
pub(crate) fn blend(image: &Image, labels: &Labels, colors: &[[u8; 3]], alpha: f32) -> Image {
    assert_eq!((image.width, image.height), (labels.width, labels.height), "the image and its labels");
    let mut pixels = image.pixels.clone();
    for (at, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        if let Some(color) = colors.get(usize::from(labels.ids[at])).filter(|color| **color != [0; 3]) {
            let alpha = if on_border(labels, at) { alpha + (1.0 - alpha) * BORDER } else { alpha };
            mix(pixel, *color, alpha);
        }
    }
    Image { pixels, ..*image }
}

/// The colours of a label map alone; pixels of 255 are hatched.
pub fn paint(labels: &Labels, colors: &[[u8; 3]]) -> Image {
    let color = |(at, id): (usize, &u8)| match colors.get(usize::from(*id)) {
        Some(color) => *color,
        None => hatch(labels.width, at),
    };
    let pixels = labels.ids.iter().enumerate().flat_map(color).collect();
    Image { width: labels.width, height: labels.height, pixels }
}

/// Where a prediction is wrong: wrong pixels in the colour of the true class, right ones in dim grey, ignored ones
/// hatched. All three must be of one size.
pub fn errors(image: &Image, truth: &Labels, prediction: &Labels, colors: &[[u8; 3]]) -> Image {
    assert_eq!((truth.width, truth.height), (prediction.width, prediction.height), "the truth and the prediction");
    assert_eq!((image.width, image.height), (truth.width, truth.height), "the image and its labels");
    let mut picture = image.clone();
    for (at, pixel) in picture.pixels.chunks_exact_mut(3).enumerate() {
        let light = (u32::from(pixel[0]) * 77 + u32::from(pixel[1]) * 150 + u32::from(pixel[2]) * 29) >> 8;
        pixel.fill((light * 2 / 5) as u8);
        let (truth, prediction) = (truth.ids[at], prediction.ids[at]);
        match colors.get(usize::from(truth)) {
            _ if truth == IGNORE => pixel.copy_from_slice(&hatch(image.width, at)),
            _ if truth == prediction => {}
            Some(color) => mix(pixel, *color, 0.9),
            None => mix(pixel, [255, 0, 0], 0.9),
        }
    }
    picture
}

/// Titled pictures in rows of `columns`, with a legend of class colours below. The first picture's size is the cell's.
pub(crate) fn sheet(panels: &[(&str, Image)], columns: usize, legend: &[(String, [u8; 3])]) -> Image {
    let Some((_, first)) = panels.first() else { return Image { width: 0, height: 0, pixels: Vec::new() } };
    let scale = magnification(first.width);
    let (gap, title) = (8 * scale, (font::HEIGHT + 3) * scale);
    let columns = columns.clamp(1, panels.len());
    let (cell_width, cell_height) = (first.width + gap, first.height + title + gap);
    let width = gap + columns * cell_width;
    let strip = legend_strip(legend, width - 2 * gap, scale);
    let grid_height = gap + panels.len().div_ceil(columns) * cell_height;
    let mut page = blank(width, grid_height + if strip.height > 0 { strip.height + gap } else { 0 });
    for (i, (name, panel)) in panels.iter().enumerate() {
        let (x, y) = (gap + i % columns * cell_width, gap + i / columns * cell_height);
        font::write(&mut page, name, (x, y), scale, INK);
        paste(&mut page, panel, (x, y + title));
    }
    paste(&mut page, &strip, (gap, grid_height));
    page
}

/// Input | truth | prediction | errors in one row, with a legend of the classes seen; without truth, input |
/// prediction. `names` and `colors` go by class index. All maps must be of the image's size.
pub fn comparison(
    image: &Image,
    truth: Option<&Labels>,
    prediction: &Labels,
    names: &[String],
    colors: &[[u8; 3]],
) -> Image {
    let overlay = |labels: &Labels| blend(image, labels, colors, ALPHA);
    let mut panels = vec![("input", image.clone())];
    if let Some(truth) = truth {
        panels.push(("truth", overlay(truth)));
    }
    panels.push(("prediction", overlay(prediction)));
    if let Some(truth) = truth {
        panels.push(("errors, in the colour of the truth", errors(image, truth, prediction, colors)));
    }
    let mut seen = [false; 256];
    let ids = prediction.ids.iter().chain(truth.iter().flat_map(|truth| &truth.ids));
    ids.for_each(|id| seen[usize::from(*id)] = true);
    let classes = names.iter().cloned().zip(colors.iter().copied()).enumerate();
    let legend: Vec<_> = classes.filter(|(class, _)| seen.get(*class) == Some(&true)).map(|(_, entry)| entry).collect();
    sheet(&panels, panels.len(), &legend)
}

/// A strip of coloured squares with names, broken into as many lines as `width` pixels ask for.
pub(crate) fn legend_strip(entries: &[(String, [u8; 3])], width: usize, scale: usize) -> Image {
    let (square, gap, line) = (font::HEIGHT * scale, 4 * scale, (font::HEIGHT + 5) * scale);
    let mut places = Vec::with_capacity(entries.len());
    let (mut x, mut y) = (0, 0);
    for (name, color) in entries {
        let advance = square + gap + font::width(name, scale) + 3 * gap;
        if x > 0 && x + advance - 3 * gap > width {
            (x, y) = (0, y + line);
        }
        places.push((name, *color, (x, y)));
        x += advance;
    }
    let mut strip = blank(width, if entries.is_empty() { 0 } else { y + line });
    for (name, color, (x, y)) in places {
        fill(&mut strip, (x, y), (square, square), color);
        font::write(&mut strip, name, (x + square + gap, y + scale), scale, INK);
    }
    strip
}

/// How much nearer to the pure colour the border is than the inside.
const BORDER: f32 = 0.7;
const INK: [u8; 3] = [40, 40, 44];
const PAPER: [u8; 3] = [250, 250, 248];

/// Whether the class changes to the right of, or below, a pixel.
fn on_border(labels: &Labels, at: usize) -> bool {
    let (x, y) = (at % labels.width, at / labels.width);
    let differs = |other: usize| labels.ids[other] != labels.ids[at];
    (x + 1 < labels.width && differs(at + 1)) || (y + 1 < labels.height && differs(at + labels.width))
}

/// Diagonal stripes of two greys.
fn hatch(width: usize, at: usize) -> [u8; 3] {
    if (at % width + at / width) % 8 < 2 { [88; 3] } else { [56; 3] }
}

fn mix(pixel: &mut [u8], color: [u8; 3], alpha: f32) {
    for (value, color) in pixel.iter_mut().zip(color) {
        *value = (f32::from(*value) * (1.0 - alpha) + f32::from(color) * alpha).round() as u8;
    }
}

/// Text grows with the pictures.
fn magnification(width: usize) -> usize {
    (width / 480).clamp(1, 8)
}

fn blank(width: usize, height: usize) -> Image {
    Image { width, height, pixels: PAPER.repeat(width * height) }
}

/// Copies `part` to (x, y); what leaves the picture is cut off.
fn paste(image: &mut Image, part: &Image, (x, y): (usize, usize)) {
    let width = part.width.min(image.width.saturating_sub(x));
    for row in 0..part.height.min(image.height.saturating_sub(y)) {
        let from = row * part.width * 3;
        let to = ((y + row) * image.width + x) * 3;
        image.pixels[to..to + width * 3].copy_from_slice(&part.pixels[from..from + width * 3]);
    }
}

/// Fills a rectangle at (x, y); what leaves the picture is cut off.
fn fill(image: &mut Image, (x, y): (usize, usize), (width, height): (usize, usize), color: [u8; 3]) {
    for row in y..(y + height).min(image.height) {
        for column in x..(x + width).min(image.width) {
            let at = (row * image.width + column) * 3;
            image.pixels[at..at + 3].copy_from_slice(&color);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(width: usize, height: usize) -> Image {
        Image { width, height, pixels: vec![100; width * height * 3] }
    }

    fn pixel(image: &Image, x: usize, y: usize) -> [u8; 3] {
        let at = (y * image.width + x) * 3;
        [image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]
    }

    #[test]
    fn blending_covers_the_inside_and_strengthens_the_border() {
        let labels = Labels { width: 4, height: 1, ids: vec![0, 0, 1, 255] };
        let picture = blend(&gray(4, 1), &labels, &[[200, 0, 0], [0, 200, 0]], 0.5);
        assert_eq!(pixel(&picture, 0, 0), [150, 50, 50]);
        assert_eq!(pixel(&picture, 1, 0), [185, 15, 15]);
        assert_eq!(pixel(&picture, 3, 0), [100, 100, 100]);
        let black = blend(&gray(4, 1), &labels, &[[0; 3], [0, 200, 0]], 0.5);
        assert_eq!(pixel(&black, 0, 0), [100, 100, 100]);
    }

    #[test]
    fn errors_show_only_what_is_wrong() {
        let truth = Labels { width: 3, height: 1, ids: vec![0, 1, 255] };
        let prediction = Labels { width: 3, height: 1, ids: vec![0, 0, 0] };
        let picture = errors(&gray(3, 1), &truth, &prediction, &[[200, 0, 0], [0, 200, 0]]);
        assert_eq!(pixel(&picture, 0, 0), [40, 40, 40]);
        assert_eq!(pixel(&picture, 1, 0), [4, 184, 4]);
        assert_eq!(pixel(&picture, 2, 0), [56, 56, 56]);
        assert_eq!(pixel(&paint(&truth, &[[200, 0, 0], [0, 200, 0]]), 1, 0), [0, 200, 0]);
    }

    #[test]
    fn a_legend_breaks_its_lines_and_survives_little_room() {
        let entries: Vec<_> = (0..9).map(|i| (format!("class {i}"), [i as u8 * 20; 3])).collect();
        let wide = legend_strip(&entries, 2000, 1);
        let narrow = legend_strip(&entries, 150, 1);
        assert!(narrow.height > 2 * wide.height && wide.height > 0);
        assert_eq!(pixel(&narrow, 0, 0), [0; 3]);
        assert_eq!(legend_strip(&entries, 5, 1).height, 9 * wide.height);
        assert_eq!(legend_strip(&[], 100, 1).height, 0);
    }

    #[test]
    fn a_comparison_has_its_panels_side_by_side() {
        let labels = Labels { width: 20, height: 10, ids: vec![1; 200] };
        let names: Vec<String> = ["a", "b", "\u{e9}"].map(String::from).to_vec();
        let colors = [[1; 3], [2; 3], [3; 3]];
        let four = comparison(&gray(20, 10), Some(&labels), &labels, &names, &colors);
        let two = comparison(&gray(20, 10), None, &labels, &names, &colors);
        assert_eq!((four.width, two.width), (8 + 4 * 28, 8 + 2 * 28));
        assert_eq!(four.pixels.len(), four.width * four.height * 3);
        assert_eq!(pixel(&four, 8 + 2, 8 + 12 + 2), [100, 100, 100]);
    }

    /// Writes pictures to look at into `structtoken-pictures` of the temporary folder:
    /// `cargo test --release pictures -- --ignored`.
    #[test]
    #[ignore = "makes pictures for the eye"]
    fn pictures() {
        let set = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/camvid");
        let out = std::env::temp_dir().join("structtoken-pictures");
        std::fs::create_dir_all(&out).unwrap();
        let classes =
            std::fs::read_to_string(format!("{set}/classes.tsv")).expect("this needs CamVid in ../shared/data");
        let names: Vec<String> = classes.lines().skip(1).map(|line| line.split('\t').nth(1).unwrap().into()).collect();
        let colors = [
            [96, 168, 232],
            [178, 84, 74],
            [236, 208, 96],
            [128, 100, 152],
            [226, 132, 186],
            [88, 152, 72],
            [232, 146, 52],
            [160, 136, 112],
            [44, 62, 172],
            [216, 44, 52],
            [28, 158, 150],
        ];
        for stem in ["0016E5_07959", "0016E5_08001"] {
            let image = image::open(format!("{set}/val/images/{stem}.jpg"))
                .or_else(|_| image::open(format!("{set}/val/images/{stem}.png")))
                .unwrap()
                .to_rgb8();
            let (width, height) = (image.width() as usize, image.height() as usize);
            let image = Image { width, height, pixels: image.into_raw() };
            let mask = image::open(format!("{set}/val/masks/{stem}.png")).unwrap().to_luma8().into_raw();
            let ids: Vec<u8> = mask.into_iter().map(|id| if id == 11 { IGNORE } else { id }).collect();
            let truth = Labels { width, height, ids };
            // A prediction as a coarse network would make it: the label at the centre of each 12 x 12 block.
            let coarse = |at: usize| {
                let (x, y) = (at % width / 12 * 12 + 6, at / width / 12 * 12 + 6);
                match truth.ids[y.min(height - 1) * width + x.min(width - 1)] {
                    IGNORE => 1,
                    id => id,
                }
            };
            let prediction = Labels { width, height, ids: (0..width * height).map(coarse).collect() };
            let save = |name: &str, picture: &Image| {
                let path = out.join(format!("{stem}-{name}.png"));
                let size = (picture.width as u32, picture.height as u32);
                image::save_buffer(path, &picture.pixels, size.0, size.1, image::ColorType::Rgb8).unwrap();
            };
            save("comparison", &comparison(&image, Some(&truth), &prediction, &names, &colors));
            save("overlay", &blend(&image, &truth, &colors, ALPHA));
            let letters: String = (33..127u8).map(char::from).collect();
            let lines: Vec<_> =
                letters.as_bytes().chunks(24).map(|c| (String::from_utf8_lossy(c).into_owned(), colors[0])).collect();
            save("font", &legend_strip(&lines, 400, 2));
            save("paint", &paint(&truth, &colors));
        }
    }
}
