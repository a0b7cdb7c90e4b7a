//! Pictures as `data:` addresses: photos, label maps, error maps and heat maps.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::ExtendedColorType::Rgb8;
use image::codecs::jpeg::JpegEncoder;

use crate::error::{Error, Result};
use crate::image::{IGNORE, Image, Labels};
use crate::report::TokenBlock;

/// Colours of the heat maps from low to high: eleven stops of "magma", whose lightness rises evenly.
pub(super) const HEAT: [[u8; 3]; 11] = [
    [0, 0, 4],
    [20, 14, 54],
    [59, 15, 112],
    [100, 26, 128],
    [140, 41, 129],
    [183, 55, 121],
    [222, 73, 104],
    [247, 112, 92],
    [254, 159, 109],
    [254, 207, 146],
    [252, 253, 191],
];

/// Colour of wrong pixels in error maps.
pub(super) const WRONG: [u8; 3] = [255, 45, 85];

/// The last palette entry of a heat map: values that are not finite.
const NOT_FINITE: u8 = 255;

/// The size with the same shape whose longer side is at most `limit`.
pub(crate) fn fit(width: usize, height: usize, limit: usize) -> (usize, usize) {
    let longer = width.max(height);
    if longer <= limit {
        return (width, height);
    }
    let scale = |side: usize| ((side as f64 * limit as f64 / longer as f64).round() as usize).max(1);
    (scale(width), scale(height))
}

/// A photo: JPEG, or PNG where that is not much larger (flat colours, small pictures).
pub(crate) fn photo(image: &Image) -> Result<String> {
    let (width, height) = (image.width as u32, image.height as u32);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 86)
        .encode(&image.pixels, width, height, Rgb8)
        .map_err(|source| Error::new("cannot encode a picture of the report").with_source(source))?;
    let png = encode_png(image.width, image.height, &image.pixels, None)?;
    Ok(if png.len() <= jpeg.len() * 3 / 2 { data("png", &png) } else { data("jpeg", &jpeg) })
}

/// A label map in the classes' colours; ignored pixels are transparent.
pub(crate) fn label_map(labels: &Labels, palette: &[[u8; 3]]) -> Result<String> {
    let k = palette.len().min(usize::from(IGNORE)) as u8;
    let ids: Vec<u8> = labels.ids.iter().map(|&id| id.min(k)).collect();
    let colors: Vec<u8> = palette.iter().take(k.into()).flatten().copied().chain([0; 3]).collect();
    let alpha: Vec<u8> = std::iter::repeat_n(255, k.into()).chain([0]).collect();
    Ok(data("png", &encode_png(labels.width, labels.height, &ids, Some((&colors, &alpha)))?))
}

/// Where `class` is, in the highest and lowest colour of [`HEAT`]; ignored pixels are transparent.
pub(super) fn class_mask(labels: &Labels, class: usize) -> Result<String> {
    let side = |&id: &u8| if id == IGNORE { IGNORE } else { u8::from(usize::from(id) == class) };
    label_map(&Labels { ids: labels.ids.iter().map(side).collect(), ..*labels }, &[HEAT[0], HEAT[HEAT.len() - 1]])
}

/// The image in pale grey, wrong pixels in [`WRONG`], ignored pixels hatched.
pub(super) fn error_map(image: &Image, truth: &Labels, prediction: &Labels) -> Result<String> {
    let width = image.width;
    let pixel = |(i, rgb): (usize, &[u8])| {
        let gray = rgb.iter().map(|&c| f32::from(c)).sum::<f32>() / 3.0;
        if truth.ids[i] == IGNORE {
            return if (i % width + i / width) % 8 < 2 { [120; 3] } else { [38; 3] };
        }
        if truth.ids[i] == prediction.ids[i] {
            return [(125.0 + gray * 0.5) as u8; 3];
        }
        WRONG.map(|c| (f32::from(c) * (0.62 + 0.38 * gray / 255.0)) as u8)
    };
    let pixels = image.pixels.chunks_exact(3).enumerate().flat_map(pixel).collect();
    photo(&Image { width, height: image.height, pixels })
}

/// A structure token `[height, width]` of `block` in the colours of [`HEAT`], between its own 1st and 99th percentile.
/// Values that are not finite are grey.
pub(crate) fn heat_map(block: &TokenBlock, class: usize, longer_side: usize) -> Result<String> {
    let (gh, gw) = (block.height, block.width);
    let map = &block.maps[class * gh * gw..][..gh * gw];
    let (low, high) = spread(map);
    // Enlarged here as far as it takes to look smooth; the browser does the rest.
    let (width, height) = match gw.max(gh) {
        longer if longer < longer_side => (gw * longer_side / longer, gh * longer_side / longer),
        _ => fit(gw, gh, longer_side),
    };
    let mut large = vec![0.0; height * width];
    resize(map, (gh, gw), (height, width), &mut large);
    let shade = |value: f32| match value.is_finite() {
        true if high > low => (((value - low) / (high - low)).clamp(0.0, 1.0) * 254.0).round() as u8,
        true => 0,
        false => NOT_FINITE,
    };
    let indices: Vec<u8> = large.into_iter().map(shade).collect();
    let colors: Vec<u8> = (0..255).flat_map(|i| heat(i as f32 / 254.0)).chain([128; 3]).collect();
    Ok(data("png", &encode_png(width, height, &indices, Some((&colors, &[])))?))
}

/// The 1st and 99th percentile of the finite values; `(0, 0)` where there are none.
fn spread(map: &[f32]) -> (f32, f32) {
    let mut sorted: Vec<f32> = map.iter().copied().filter(|value| value.is_finite()).collect();
    if sorted.is_empty() {
        return (0.0, 0.0);
    }
    sorted.sort_by(f32::total_cmp);
    let last = sorted.len() - 1;
    (sorted[last / 100], sorted[last - last / 100])
}

/// The colour at `position`, 0 (low) to 1 (high).
fn heat(position: f32) -> [u8; 3] {
    let place = position.clamp(0.0, 1.0) * (HEAT.len() - 1) as f32;
    let below = (place as usize).min(HEAT.len() - 2);
    let part = place - below as f32;
    std::array::from_fn(|c| {
        let (low, high) = (f32::from(HEAT[below][c]), f32::from(HEAT[below + 1][c]));
        (low + (high - low) * part).round() as u8
    })
}

/// The class of the largest token at every pixel of a `height` x `width` picture, the tokens enlarged bilinearly, as
/// the logits are. Where no token is finite the pixel is ignored.
pub(crate) fn stage_labels(block: &TokenBlock, (width, height): (usize, usize)) -> Labels {
    let grid = block.height * block.width;
    let mut best = vec![f32::NEG_INFINITY; height * width];
    let mut ids = vec![IGNORE; height * width];
    let mut large = vec![0.0; height * width];
    for (class, map) in block.maps.chunks_exact(grid).enumerate() {
        resize(map, (block.height, block.width), (height, width), &mut large);
        for ((&value, best), id) in large.iter().zip(&mut best).zip(&mut ids) {
            if value > *best {
                (*best, *id) = (value, class as u8);
            }
        }
    }
    Labels { width, height, ids }
}

/// Bilinear resize with half-pixel centres (`align_corners = false`), `[gh, gw]` to `[height, width]`.
fn resize(map: &[f32], (gh, gw): (usize, usize), (height, width): (usize, usize), out: &mut [f32]) {
    let taps = |from: usize, to: usize| -> Vec<(usize, usize, f32)> {
        let place = |i: usize| ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, (from - 1) as f32);
        (0..to).map(place).map(|p| (p as usize, (p as usize + 1).min(from - 1), p.fract())).collect()
    };
    let columns = taps(gw, width);
    for ((top, bottom, down), out) in taps(gh, height).into_iter().zip(out.chunks_exact_mut(width)) {
        let (top, bottom) = (&map[top * gw..][..gw], &map[bottom * gw..][..gw]);
        for (&(left, right, across), out) in columns.iter().zip(out) {
            let above = top[left] + (top[right] - top[left]) * across;
            let below = bottom[left] + (bottom[right] - bottom[left]) * across;
            *out = above + (below - above) * down;
        }
    }
}

/// The image made smaller by averaging areas.
pub(crate) fn shrink_image(image: &Image, (width, height): (usize, usize)) -> Image {
    if (width, height) == (image.width, image.height) {
        return image.clone();
    }
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let rows = area(y, height, image.height);
        for x in 0..width {
            let columns = area(x, width, image.width);
            let count = (rows.len() * columns.len()) as u32;
            let mut sum = [0u32; 3];
            for row in rows.clone() {
                for rgb in image.pixels[(row * image.width + columns.start) * 3..][..columns.len() * 3].chunks_exact(3)
                {
                    sum.iter_mut().zip(rgb).for_each(|(sum, &c)| *sum += u32::from(c));
                }
            }
            pixels.extend(sum.map(|sum| ((sum + count / 2) / count) as u8));
        }
    }
    Image { width, height, pixels }
}

/// The label map made smaller by taking the label at each centre.
pub(crate) fn shrink_labels(labels: &Labels, (width, height): (usize, usize)) -> Labels {
    let center = |i: usize, to: usize, from: usize| (2 * i + 1) * from / (2 * to);
    let id = |y: usize, x: usize| labels.ids[y * labels.width + center(x, width, labels.width)];
    let rows = (0..height).map(|y| center(y, height, labels.height));
    let ids = rows.flat_map(|y| (0..width).map(move |x| id(y, x))).collect();
    Labels { width, height, ids }
}

/// The source pixels under pixel `i` of `to`.
fn area(i: usize, to: usize, from: usize) -> std::ops::Range<usize> {
    let start = i * from / to;
    start..((i + 1) * from / to).max(start + 1)
}

/// An 8-bit PNG: RGB, or indexed where a palette and its alpha are given.
fn encode_png(width: usize, height: usize, bytes: &[u8], palette: Option<(&[u8], &[u8])>) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(if palette.is_some() { png::ColorType::Indexed } else { png::ColorType::Rgb });
    encoder.set_compression(png::Compression::High);
    if let Some((colors, alpha)) = palette {
        encoder.set_palette(colors);
        if !alpha.is_empty() {
            encoder.set_trns(alpha);
        }
    }
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(bytes)?;
        writer.finish()
    });
    written.map_err(|source| Error::new("cannot encode a picture of the report").with_source(source))?;
    Ok(file)
}

fn data(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", BASE64.encode(bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Width, height and RGB pixels of a `data:` address.
    pub(crate) fn decode(address: &str) -> image::RgbaImage {
        let (kind, code) = address.strip_prefix("data:image/").unwrap().split_once(";base64,").unwrap();
        assert!(kind == "png" || kind == "jpeg", "{kind}");
        image::load_from_memory(&BASE64.decode(code).unwrap()).unwrap().to_rgba8()
    }

    #[test]
    fn fit_keeps_the_shape_and_never_gives_nothing() {
        assert_eq!(fit(480, 360, 240), (240, 180));
        assert_eq!(fit(64, 64, 240), (64, 64));
        assert_eq!(fit(10_000, 1, 100), (100, 1));
    }

    #[test]
    fn label_maps_show_the_palette_and_let_ignored_pixels_through() {
        let labels = Labels { width: 3, height: 1, ids: vec![0, 1, IGNORE] };
        let picture = decode(&label_map(&labels, &[[10, 20, 30], [200, 0, 0]]).unwrap());
        assert_eq!(picture.into_raw(), [10, 20, 30, 255, 200, 0, 0, 255, 0, 0, 0, 0]);
        let none = Labels { width: 2, height: 1, ids: vec![0, IGNORE] };
        assert_eq!(decode(&label_map(&none, &[]).unwrap()).into_raw(), [0; 8]);
    }

    #[test]
    fn error_maps_mark_wrong_pixels_only() {
        let image = Image { width: 2, height: 1, pixels: vec![255; 6] };
        let labels = |ids| Labels { width: 2, height: 1, ids };
        let picture = decode(&error_map(&image, &labels(vec![0, 1]), &labels(vec![0, 0])).unwrap());
        assert_eq!(picture.get_pixel(0, 0).0, [252, 252, 252, 255]);
        assert_eq!(picture.get_pixel(1, 0).0[..3], WRONG);
    }

    #[test]
    fn heat_maps_span_the_colours_and_survive_any_number() {
        let block = |maps: Vec<f32>| TokenBlock { name: "b".into(), height: 1, width: maps.len(), maps };
        let picture = decode(&heat_map(&block(vec![-3.0, 5.0]), 0, 2).unwrap());
        assert_eq!(picture.get_pixel(0, 0).0[..3], HEAT[0]);
        assert_eq!(picture.get_pixel(1, 0).0[..3], HEAT[10]);
        for odd in
            [vec![7.0; 4], vec![f32::NAN; 4], vec![f32::INFINITY, f32::NEG_INFINITY, 0.0, 1.0], vec![1e38, -1e38]]
        {
            decode(&heat_map(&block(odd), 0, 32).unwrap());
        }
    }

    #[test]
    fn stages_take_the_largest_token_of_each_pixel() {
        let block = TokenBlock { name: "b".into(), maps: vec![1.0, 0.0, 0.0, 1.0], height: 1, width: 2 };
        assert_eq!(stage_labels(&block, (4, 1)).ids, [0, 0, 1, 1]);
        let nothing = TokenBlock { maps: vec![f32::NAN; 4], ..block };
        assert_eq!(stage_labels(&nothing, (2, 1)).ids, [IGNORE; 2]);
    }

    #[test]
    fn shrinking_averages_images_and_picks_labels() {
        let image =
            Image { width: 4, height: 2, pixels: (0..24).map(|i| if i / 3 % 4 < 2 { 10 } else { 30 }).collect() };
        assert_eq!(shrink_image(&image, (2, 1)).pixels, [10, 10, 10, 30, 30, 30]);
        let labels = Labels { width: 4, height: 2, ids: vec![0, 1, 2, 3, 4, 5, 6, 7] };
        assert_eq!(shrink_labels(&labels, (2, 1)).ids, [5, 7]);
    }
}
