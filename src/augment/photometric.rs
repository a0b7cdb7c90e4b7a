//! Random brightness, contrast, saturation and hue, as the reference distorts them (mmseg's `PhotoMetricDistortion`),
//! to the last bit: 8 bits between all steps, colours turned through OpenCV's 8-bit HSV.

use std::sync::LazyLock;

use crate::image::Image;
use crate::rng::Rng;

/// Which distortions an image gets, and how strong; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Photometric {
    /// Added to all channels, -32 to 32.
    pub brightness: Option<f32>,
    /// Whether contrast changes before saturation and hue, or after.
    pub contrast_first: bool,
    /// Factor on all channels, 0.5 to 1.5.
    pub contrast: Option<f32>,
    /// Factor on the saturation, 0.5 to 1.5.
    pub saturation: Option<f32>,
    /// Steps of two degrees to turn the hue by, -18 to 17.
    pub hue: Option<i32>,
}

impl Photometric {
    /// Draws each distortion with probability one half.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut maybe = |low: f32, high: f32| rng.chance(0.5).then(|| rng.range(low, high));
        let brightness = maybe(-32.0, 32.0);
        let contrast = maybe(0.5, 1.5);
        let saturation = maybe(0.5, 1.5);
        let hue = rng.chance(0.5).then(|| rng.below(36) as i32 - 18);
        Self { brightness, contrast_first: rng.chance(0.5), contrast, saturation, hue }
    }

    /// Distorts the image in place.
    pub fn apply(&self, image: &mut Image) {
        let identity: [u8; 256] = std::array::from_fn(|v| v as u8);
        let contrast = self.contrast.map_or(identity, |alpha| table(alpha, 0.0));
        let mut before = self.brightness.map_or(identity, |beta| table(1.0, beta));
        let mut after = identity;
        if self.contrast_first {
            before = before.map(|v| contrast[usize::from(v)]);
        } else {
            after = contrast;
        }
        let saturation = self.saturation.map(|alpha| table(alpha, 0.0));
        if before != identity {
            image.pixels.iter_mut().for_each(|v| *v = before[usize::from(*v)]);
        }
        if let Some(table) = saturation {
            through_hsv(image, |[h, s, v]| [h, table[usize::from(s)], v]);
        }
        if let Some(turn) = self.hue {
            through_hsv(image, |[h, s, v]| [(i32::from(h) + turn).rem_euclid(180) as u8, s, v]);
        }
        if after != identity {
            image.pixels.iter_mut().for_each(|v| *v = after[usize::from(*v)]);
        }
    }
}

/// `v * alpha + beta` in 32 bits, clipped and cut off (not rounded) to 8.
fn table(alpha: f32, beta: f32) -> [u8; 256] {
    std::array::from_fn(|v| (v as f32 * alpha + beta).clamp(0.0, 255.0) as u8)
}

/// OpenCV's vector code handles 32 pixels at once and cuts results off where the scalar code, which does the rest of
/// a row, rounds them.
const LANES: usize = 32;

fn through_hsv(image: &mut Image, change: impl Fn([u8; 3]) -> [u8; 3]) {
    let (in_vectors, hues) = (image.width / LANES * LANES, &*HUES);
    for row in image.pixels.chunks_exact_mut(image.width.max(1) * 3) {
        let (vectors, rest) = row.as_chunks_mut::<3>().0.split_at_mut(in_vectors);
        for pixel in vectors {
            *pixel = hsv_to_rgb(change(rgb_to_hsv(*pixel)), hues).map(|v| v as u8);
        }
        for pixel in rest {
            *pixel = hsv_to_rgb(change(rgb_to_hsv(*pixel)), hues).map(|v| v.round_ties_even() as u8);
        }
    }
}

/// 8-bit HSV: hue in steps of two degrees (0 to 179), saturation and value 0 to 255.
fn rgb_to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = [r, g, b].map(i32::from);
    let value = r.max(g).max(b);
    let span = value - r.min(g).min(b);
    let saturation = (span * RECIPROCALS[value as usize].0 + (1 << 11)) >> 12;
    let sixth = if value == r {
        g - b
    } else if value == g {
        b - r + 2 * span
    } else {
        r - g + 4 * span
    };
    let hue = (sixth * RECIPROCALS[span as usize].1 + (1 << 11)) >> 12;
    [(if hue < 0 { hue + 180 } else { hue }) as u8, saturation as u8, value as u8]
}

/// 255 / i and 30 / i in 12-bit fixed point, rounded.
static RECIPROCALS: [(i32, i32); 256] = {
    let mut table = [(0, 0); 256];
    let mut i = 1;
    while i < 256 {
        table[i] = (rounded_quotient(255 << 12, i as i32), rounded_quotient(30 << 12, i as i32));
        i += 1;
    }
    table
};

/// To the nearest, halves to the even number.
const fn rounded_quotient(a: i32, b: i32) -> i32 {
    let (quotient, rest) = (a / b, a % b);
    if 2 * rest > b || (2 * rest == b && quotient % 2 == 1) { quotient + 1 } else { quotient }
}

/// Which of four tones each channel takes in each sixth of the hues.
const ORDER: [[u8; 3]; 6] = [[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]];

/// For each hue the tones of its sixth, and how far it is into it and from its end.
static HUES: LazyLock<[([u8; 3], f64, f64); 180]> = LazyLock::new(|| {
    std::array::from_fn(|h| {
        let hue = h as f32 * (6.0f32 / 180.0);
        let part = hue - hue.trunc();
        (ORDER[hue as usize % 6], f64::from(part), f64::from(1.0 - part))
    })
});

/// Channels of 0 to 255, neither rounded nor cut.
fn hsv_to_rgb([h, s, v]: [u8; 3], hues: &[([u8; 3], f64, f64); 180]) -> [f32; 3] {
    let (order, part, rest) = hues[usize::from(h)];
    let (s, v) = (f32::from(s) * (1.0f32 / 255.0), f32::from(v) * (1.0f32 / 255.0));
    // OpenCV's build fuses these products and differences; in f64 the product of two f32 is exact.
    let less = |part: f64| (1.0 - f64::from(s) * part) as f32;
    let tones = [v, v * (1.0 - s), v * less(part), v * less(rest)];
    order.map(|tone| tones[usize::from(tone & 3)] * 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::golden;

    #[test]
    fn single_steps_are_the_references() {
        let golden = golden::Pipeline::read();
        let image = golden.image("img");
        let hsv: Vec<u8> = image.pixels.as_chunks::<3>().0.iter().flat_map(|rgb| rgb_to_hsv(*rgb)).collect();
        assert_eq!(hsv, golden.bytes("bgr2hsv"));
        let distorted = |distortion: Photometric| {
            let mut image = image.clone();
            distortion.apply(&mut image);
            image
        };
        let mut back = image.clone();
        through_hsv(&mut back, |hsv| hsv);
        assert_eq!(back, golden.image("hsv2bgr_of_it"));
        let none = Photometric::default;
        assert_eq!(distorted(none()), image);
        assert_eq!(distorted(Photometric { hue: Some(-13), ..none() }), golden.image("hue_-13"));
        assert_eq!(distorted(Photometric { contrast: Some(0.61), ..none() }), golden.image("convert_alpha0.61"));
        assert_eq!(distorted(Photometric { contrast: Some(1.37), ..none() }), golden.image("convert_alpha1.37"));
        assert_eq!(distorted(Photometric { brightness: Some(17.3), ..none() }), golden.image("convert_beta17.3"));
    }

    /// One "with probability one half" of the reference's log.
    fn maybe(log: &mut impl Iterator<Item = f64>) -> Option<f32> {
        (log.next().unwrap() == 1.0).then(|| log.next().unwrap() as f32)
    }

    #[test]
    fn whole_distortions_are_the_references() {
        let golden = golden::Pipeline::read();
        let runs = golden.json["photometric"]["draws"].as_array().unwrap();
        for (index, run) in runs.iter().enumerate() {
            let mut log = run.as_array().unwrap().iter().map(|draw| draw[3].as_f64().unwrap());
            let brightness = maybe(&mut log);
            let contrast_first = log.next().unwrap() == 1.0;
            let early = if contrast_first { maybe(&mut log) } else { None };
            let saturation = maybe(&mut log);
            let hue = maybe(&mut log).map(|turn| turn as i32);
            let contrast = if contrast_first { early } else { maybe(&mut log) };
            assert_eq!(log.next(), None);
            let mut image = golden.image("img");
            Photometric { brightness, contrast_first, contrast, saturation, hue }.apply(&mut image);
            let expected = golden.image(&format!("pmd{index}"));
            let wrong = image.pixels.iter().zip(&expected.pixels).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "run {index}");
        }
        assert_eq!(runs.len(), 24);
    }

    #[test]
    fn grey_survives_and_every_colour_has_a_hue() {
        let steps = || (0..=255u8).step_by(5);
        for (r, g, b) in steps().flat_map(|r| steps().flat_map(move |g| steps().map(move |b| (r, g, b)))) {
            let [h, s, v] = rgb_to_hsv([r, g, b]);
            assert!(h < 180 && v == r.max(g).max(b) && (s == 0) == (r == g && g == b));
        }
        assert_eq!(hsv_to_rgb([77, 0, 51], &HUES).map(f32::round), [51.0; 3]);
    }

    #[test]
    fn draws_cover_their_ranges() {
        let mut rng = Rng::new(3, &[]);
        let draws: Vec<_> = (0..2000).map(|_| Photometric::draw(&mut rng)).collect();
        let share = |chosen: fn(&&Photometric) -> bool| draws.iter().filter(chosen).count() as f64 / 2000.0;
        assert!((share(|d| d.brightness.is_some()) - 0.5).abs() < 0.05);
        assert!((share(|d| d.contrast_first) - 0.5).abs() < 0.05);
        let hues: Vec<i32> = draws.iter().filter_map(|d| d.hue).collect();
        assert!(hues.iter().min() == Some(&-18) && hues.iter().max() == Some(&17));
        assert!(draws.iter().filter_map(|d| d.saturation).all(|s| (0.5..1.5).contains(&s)));
    }
}
