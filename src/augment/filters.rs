//! Changes of an image's colours beside the reference's distortion: RandAugment's, blur, grey, and covered parts.
//!
//! Brightness, contrast, posterizing, solarizing, autocontrast, equalizing, colour and sharpness are Pillow's, which
//! RandAugment was defined with (Cubuk et al. 2020).

use crate::image::Image;
use crate::rng::Rng;

/// Luma as Pillow has it: ITU-R 601 in 16 bits.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// `from + (to - from) * factor`, cut off to 8 bits as Pillow's `blend` does.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let value = f32::from(from) + factor * (f32::from(to) - f32::from(from));
    if (0.0..=1.0).contains(&factor) { value as u8 } else { value.clamp(0.0, 255.0) as u8 }
}

fn each(image: &mut Image, change: impl Fn(u8) -> u8) {
    let table: [u8; 256] = std::array::from_fn(|v| change(v as u8));
    image.pixels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

/// Black at a factor of 0, unchanged at 1.
pub(crate) fn brightness(image: &mut Image, factor: f32) {
    each(image, |v| blend(0, v, factor));
}

/// The mean grey at 0, unchanged at 1.
pub(crate) fn contrast(image: &mut Image, factor: f32) {
    let pixels = image.pixels.as_chunks::<3>().0;
    let sum: u64 = pixels.iter().map(|rgb| u64::from(luma(*rgb))).sum();
    let mean = (sum as f64 / pixels.len().max(1) as f64 + 0.5) as u8;
    each(image, |v| blend(mean, v, factor));
}

/// Grey at 0, unchanged at 1.
pub fn color(image: &mut Image, factor: f32) {
    for rgb in image.pixels.as_chunks_mut::<3>().0 {
        let gray = luma(*rgb);
        *rgb = rgb.map(|v| blend(gray, v, factor));
    }
}

/// Smoothed at 0, unchanged at 1, sharper above; the outermost pixels stay.
pub(crate) fn sharpness(image: &mut Image, factor: f32) {
    let (width, height) = (image.width, image.height);
    let before = image.pixels.clone();
    for (y, x) in (1..height.saturating_sub(1)).flat_map(|y| (1..width.saturating_sub(1)).map(move |x| (y, x))) {
        for channel in 0..3 {
            let at = |y: usize, x: usize| before[(y * width + x) * 3 + channel];
            let around: u32 = (y - 1..=y + 1)
                .flat_map(|y| (x - 1..=x + 1).map(move |x| (y, x)))
                .map(|(y, x)| u32::from(at(y, x)))
                .sum();
            let smooth = (around + 4 * u32::from(at(y, x))) as f32 / 13.0;
            image.pixels[(y * width + x) * 3 + channel] = blend((smooth + 0.5) as u8, at(y, x), factor);
        }
    }
}

/// Keeps the upper `bits` of 8.
pub(crate) fn posterize(image: &mut Image, bits: u32) {
    let mask = !(0xff_u32 >> bits.min(8)) as u8;
    each(image, |v| v & mask);
}

/// Inverts values from `threshold` on.
pub(crate) fn solarize(image: &mut Image, threshold: u16) {
    each(image, |v| if u16::from(v) >= threshold { 255 - v } else { v });
}

/// Stretches each channel to the whole range.
pub(crate) fn autocontrast(image: &mut Image) {
    by_channel(image, |histogram| {
        let low = histogram.iter().position(|count| *count > 0).unwrap_or(0);
        let high = histogram.iter().rposition(|count| *count > 0).unwrap_or(255);
        if high <= low {
            return std::array::from_fn(|v| v as u8);
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        std::array::from_fn(|v| (v as f64 * scale + offset).clamp(0.0, 255.0) as u8)
    });
}

/// Gives every value of a channel the same number of pixels, as far as that goes.
pub(crate) fn equalize(image: &mut Image) {
    by_channel(image, |histogram| {
        let used: Vec<u64> = histogram.iter().copied().filter(|count| *count > 0).collect();
        let step = (used.iter().sum::<u64>() - used.last().copied().unwrap_or(0)) / 255;
        if used.len() <= 1 || step == 0 {
            return std::array::from_fn(|v| v as u8);
        }
        let mut n = step / 2;
        std::array::from_fn(|v| {
            let value = (n / step).min(255) as u8;
            n += histogram[v];
            value
        })
    });
}

fn by_channel(image: &mut Image, table: impl Fn(&[u64; 256]) -> [u8; 256]) {
    for channel in 0..3 {
        let mut histogram = [0; 256];
        image.pixels.iter().skip(channel).step_by(3).for_each(|v| histogram[usize::from(*v)] += 1);
        let table = table(&histogram);
        image.pixels.iter_mut().skip(channel).step_by(3).for_each(|v| *v = table[usize::from(*v)]);
    }
}

/// Gaussian blur of standard deviation `sigma` pixels, cut at three of them; the edge is repeated.
pub(crate) fn blur(image: &mut Image, sigma: f32) {
    let radius = (3.0 * sigma).ceil() as usize;
    let weights: Vec<f32> =
        (0..=2 * radius).map(|i| (-0.5 * ((i as f32 - radius as f32) / sigma).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|weight| weight / sum).collect();
    let (width, height) = (image.width, image.height);
    let mut rows = vec![0f32; image.pixels.len()];
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for (i, weight) in weights.iter().enumerate() {
            let near = (x + i).saturating_sub(radius).min(width - 1);
            for channel in 0..3 {
                rows[(y * width + x) * 3 + channel] +=
                    weight * f32::from(image.pixels[(y * width + near) * 3 + channel]);
            }
        }
    }
    let mut line = vec![0f32; width * 3];
    for y in 0..height {
        line.fill(0.0);
        for (i, weight) in weights.iter().enumerate() {
            let near = (y + i).saturating_sub(radius).min(height - 1);
            line.iter_mut().zip(&rows[near * width * 3..][..width * 3]).for_each(|(sum, v)| *sum += weight * v);
        }
        image.pixels[y * width * 3..][..width * 3].iter_mut().zip(&line).for_each(|(v, sum)| *v = sum.round() as u8);
    }
}

/// Covers one to three rectangles of 2 to 15 % of the area each with `fill`; what is under them is still asked for.
pub(crate) fn cutout(image: &mut Image, fill: [u8; 3], rng: &mut Rng) {
    let (width, height) = (image.width, image.height);
    for _ in 0..1 + rng.below(3) {
        let area = rng.range(0.02, 0.15) * (width * height) as f32;
        let side = (area * rng.range(0.5, 2.0)).sqrt();
        let (w, h) = ((side as usize).clamp(1, width), ((area / side) as usize).clamp(1, height));
        let (left, top) = (rng.below(width - w + 1), rng.below(height - h + 1));
        for row in image.pixels.chunks_exact_mut(width * 3).skip(top).take(h) {
            row[left * 3..][..w * 3].as_chunks_mut::<3>().0.fill(fill);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image and what Pillow 13 makes of it; made by `ImageEnhance` and `ImageOps`.
    const PILLOW: &str = include_str!("../../tests/fixtures/pillow.json");

    #[test]
    fn colours_are_pillows() {
        let json: serde_json::Value = serde_json::from_str(PILLOW).unwrap();
        let bytes = |name: &str| -> Vec<u8> {
            json[name].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u8).collect()
        };
        type Change = fn(&mut Image);
        let changes: [(&str, Change); 12] = [
            ("brightness 0.4", |image| brightness(image, 0.4)),
            ("brightness 1.7", |image| brightness(image, 1.7)),
            ("contrast 0.3", |image| contrast(image, 0.3)),
            ("contrast 1.6", |image| contrast(image, 1.6)),
            ("color 0.2", |image| color(image, 0.2)),
            ("color 1.9", |image| color(image, 1.9)),
            ("sharpness 0.1", |image| sharpness(image, 0.1)),
            ("sharpness 1.8", |image| sharpness(image, 1.8)),
            ("posterize 3", |image| posterize(image, 3)),
            ("solarize 100", |image| solarize(image, 100)),
            ("autocontrast", autocontrast),
            ("equalize", equalize),
        ];
        for (name, change) in changes {
            let mut image = Image { width: 12, height: 10, pixels: bytes("image") };
            change(&mut image);
            assert_eq!(image.pixels, bytes(name), "{name}");
        }
    }

    #[test]
    fn blurring_keeps_the_mean_and_flattens() {
        let flat = Image { width: 9, height: 5, pixels: vec![77; 135] };
        let mut blurred = flat.clone();
        blur(&mut blurred, 1.3);
        assert_eq!(blurred, flat);
        let mut point = Image { width: 15, height: 15, pixels: vec![0; 675] };
        point.pixels[(7 * 15 + 7) * 3] = 255;
        blur(&mut point, 1.0);
        let at = |y: usize, x: usize| f32::from(point.pixels[(y * 15 + x) * 3]);
        // 255 / (2π) at the centre, e^(-1/2) of it beside.
        assert!(
            (at(7, 7) - 40.6).abs() < 1.0 && (at(7, 8) - 24.6).abs() < 1.0 && at(7, 8) == at(8, 7) && at(0, 0) == 0.0
        );
        assert!(point.pixels.iter().skip(1).step_by(3).all(|v| *v == 0));
    }

    #[test]
    fn covered_parts_are_few_and_whole() {
        for seed in 0..50 {
            let mut image = Image { width: 40, height: 30, pixels: vec![9; 3600] };
            cutout(&mut image, [1, 2, 3], &mut Rng::new(seed, &[]));
            let covered = image.pixels.as_chunks::<3>().0.iter().filter(|rgb| **rgb == [1, 2, 3]).count();
            assert!((10..=540).contains(&covered), "{covered}");
        }
    }
}
