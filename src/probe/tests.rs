//! Networks that by construction read one thing only get the verdict they should.

use burn::tensor::{Device, Tensor, TensorData};

use super::tokens::tests::model;
use super::*;
use crate::dataset::shapes::{ClassCue, Shapes, ShapesConfig};
use crate::dataset::{Classes, Sample, Split};
use crate::decoder::SegLogits;
use crate::image::Labels;
use crate::infer::{InferConfig, InferMode, Network};
use crate::loader::preprocess::Preprocess;
use crate::rng::Rng;

/// A network that is a function of 8-bit colours.
struct Fake {
    classes: usize,
    says: fn(&[[f32; 3]], usize) -> Vec<u8>,
}

impl Network for Fake {
    fn predict_logits(&self, images: Tensor<4>) -> SegLogits {
        let ([b, _, h, w], device) = (images.dims(), images.device());
        let plain = Preprocess::default();
        let values: Vec<f32> = images.permute([0, 2, 3, 1]).into_data().iter::<f32>().collect();
        let (mean, std) = (plain.mean, plain.std);
        let colors: Vec<[f32; 3]> = values
            .as_chunks::<3>()
            .0
            .iter()
            .map(|rgb| [0, 1, 2].map(|c| (f64::from(rgb[c]) * f64::from(std[c]) + f64::from(mean[c])) as f32))
            .collect();
        let said = colors.chunks(h * w).flat_map(|image| (self.says)(image, w));
        let one = |id: u8| (0..self.classes).map(move |class| if class == usize::from(id) { 9f32 } else { 0.0 });
        let logits: Vec<f32> = said.flat_map(one).collect();
        Tensor::<4>::from_data(TensorData::new(logits, [b, h, w, self.classes]), &device).into()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn padded(&self, side: usize) -> usize {
        side
    }
}

/// Pictures that a function makes, of its number.
struct Made {
    classes: Classes,
    make: fn(&mut Rng) -> Sample,
}

const SIDE: usize = 48;

impl Made {
    fn new(names: &[&str], make: fn(&mut Rng) -> Sample) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self { classes: Classes { colors: vec![[0; 3]; names.len()], names }, make }
    }
}

impl Dataset for Made {
    fn len(&self) -> usize {
        24
    }

    fn get(&self, index: usize) -> Result<Sample> {
        Ok((self.make)(&mut Rng::new(9, &[index as u64])))
    }

    fn name(&self, index: usize) -> String {
        format!("made-{index}")
    }

    fn classes(&self) -> &Classes {
        &self.classes
    }
}

fn sample(ids: Vec<u8>, color: impl FnMut(usize) -> [u8; 3]) -> Sample {
    let pixels = (0..SIDE * SIDE).flat_map(color).collect();
    Sample { image: Image { width: SIDE, height: SIDE, pixels }, labels: Labels { width: SIDE, height: SIDE, ids } }
}

/// The changes that verdicts are made of, and some beside.
const CUES: [Cue; 10] = [
    Cue::TextureSame,
    Cue::TextureOther,
    Cue::Flat,
    Cue::Silhouettes,
    Cue::Edges,
    Cue::Gray,
    Cue::Hue,
    Cue::Shuffle(8),
    Cue::Rolled,
    Cue::Blank,
];

fn finding(network: &dyn Network, dataset: &dyn Dataset) -> Finding {
    found(network, None, dataset, dataset.len(), 1).0
}

fn found(
    network: &dyn Network,
    model: Option<&Model>,
    dataset: &dyn Dataset,
    images: usize,
    seed: u64,
) -> (Finding, Pictures) {
    let config = InferConfig { mode: InferMode::Whole, ..InferConfig::default() };
    let (preprocess, device) = (Preprocess::default(), Device::flex());
    let inference = Inference { network, preprocess: &preprocess, config: &config, device: &device };
    let subject = Subject { inference, model, other: None };
    let options = ProbeOptions { seed, draws: 100, cues: CUES.to_vec() };
    let indices = spread(dataset.len(), images);
    probe(&subject, dataset, &indices, &options, &mut |_, _| ControlFlow::Continue(())).unwrap().unwrap()
}

fn bases(finding: &Finding) -> Vec<Basis> {
    finding.verdicts.iter().map(|verdict| verdict.basis).collect()
}

fn effect(finding: &Finding, cue: Cue, class: usize) -> &Effect {
    let effects = finding.cues.iter().find(|effects| effects.name == cue.name()).unwrap();
    &effects.classes[class].iou
}

/// Hues of five classes on grey.
fn by_hue(image: &[[f32; 3]], _: usize) -> Vec<u8> {
    let class = |[r, g, b]: &[f32; 3]| {
        if (r - g).abs() + (g - b).abs() < 20.0 {
            return 0;
        }
        let hue = (3f32.sqrt() * (g - b)).atan2(2.0 * r - g - b).to_degrees().rem_euclid(360.0);
        1 + ((hue / 72.0).round() as u8) % 5
    };
    image.iter().map(class).collect()
}

#[test]
fn a_network_that_reads_colour() {
    let config = ShapesConfig { cue: ClassCue::Color, size: 32, val: 80, ..ShapesConfig::default() };
    let set = Shapes::of(&config, Split::Val);
    let finding = finding(&Fake { classes: 6, says: by_hue }, &set);
    assert!(finding.miou.unwrap() > 0.85, "{:?}", finding.miou);
    let judged = bases(&finding);
    // Where enough regions were seen, the verdict is colour; no class is said to be found by anything else.
    assert!(judged[1..].iter().all(|basis| matches!(basis, Basis::Color | Basis::Unknown)), "{:#?}", finding.verdicts);
    assert!(judged[1..].contains(&Basis::Color), "{:#?}", finding.verdicts);
    for class in 1..6 {
        assert!(effect(&finding, Cue::Gray, class).after.unwrap() < 0.05);
        assert!(
            effect(&finding, Cue::Hue, class).costs(COSTS) && effect(&finding, Cue::Flat, class).kept().unwrap() > 0.9
        );
        let bias = &finding.shape_bias[class];
        assert!(bias.shape == 0 && bias.texture > 0, "{bias:?}");
    }
}

/// Plain ground, blobs of stripes that run down or across.
fn striped(rng: &mut Rng) -> Sample {
    let mut ids = vec![0u8; SIDE * SIDE];
    for (left, class) in [(4, 1 + rng.below(2) as u8), (26, 1 + rng.below(2) as u8)] {
        let (x, y, round) = (left + rng.below(3), 6 + rng.below(16), rng.chance(0.5));
        for at in 0..SIDE * SIDE {
            let [dx, dy] = [(at % SIDE) as f32 - x as f32 - 8.0, (at / SIDE) as f32 - y as f32 - 8.0];
            if if round { dx.hypot(dy) < 9.0 } else { dx.abs().max(dy.abs()) < 8.0 } {
                ids[at] = class;
            }
        }
    }
    let dark = rng.range(20.0, 100.0) as u8;
    let ids_of = ids.clone();
    sample(ids, |at| {
        let on = match ids_of[at] {
            1 => at % SIDE / 2 % 2 == 1,
            2 => at / SIDE / 2 % 2 == 1,
            _ => false,
        };
        [if on { dark + 120 } else { dark }; 3]
    })
}

/// Which way brightness changes most nearby.
fn by_stripes(image: &[[f32; 3]], width: usize) -> Vec<u8> {
    let height = image.len() / width;
    let sums = |x: usize, y: usize| {
        let (mut across, mut down) = (0.0, 0.0);
        for y in y.saturating_sub(2)..(y + 2).min(height - 1) {
            for x in x.saturating_sub(2)..(x + 2).min(width - 1) {
                let at = y * width + x;
                across += (image[at + 1][0] - image[at][0]).abs();
                down += (image[at + width][0] - image[at][0]).abs();
            }
        }
        (across, down)
    };
    let class = |at: usize| match sums(at % width, at / width) {
        (across, down) if across.max(down) < 600.0 => 0,
        (across, down) => 1 + u8::from(down > across),
    };
    (0..image.len()).map(class).collect()
}

#[test]
fn a_network_that_reads_texture() {
    let set = Made::new(&["ground", "down", "across"], striped);
    let finding = finding(&Fake { classes: 3, says: by_stripes }, &set);
    assert!(finding.miou.unwrap() > 0.6, "{:?}", finding.miou);
    assert_eq!(bases(&finding)[1..], [Basis::Texture, Basis::Texture], "{:#?}", finding.verdicts);
    assert!(effect(&finding, Cue::Flat, 1).after.unwrap() < 0.1);
    assert!(effect(&finding, Cue::Gray, 1).change().unwrap() > -0.01);
}

/// Three bands that always lie in the same place, in colours that say nothing.
fn banded(rng: &mut Rng) -> Sample {
    let colors = [(); 3].map(|()| [(); 3].map(|()| rng.below(256) as u8));
    let ids: Vec<u8> = (0..SIDE * SIDE).map(|at| (at / SIDE / 16) as u8).collect();
    let mut noise = rng.clone();
    let ids_of = ids.clone();
    sample(ids, |at| colors[usize::from(ids_of[at])].map(|c| c.saturating_add(noise.below(20) as u8)))
}

fn by_place(image: &[[f32; 3]], width: usize) -> Vec<u8> {
    (0..image.len()).map(|at| ((at / width / 16) as u8).min(2)).collect()
}

#[test]
fn a_network_that_reads_position() {
    let set = Made::new(&["sky", "house", "road"], banded);
    let finding = finding(&Fake { classes: 3, says: by_place }, &set);
    assert_eq!(finding.miou, Some(1.0));
    assert_eq!(bases(&finding), [Basis::Position; 3], "{:#?}", finding.verdicts);
    assert!(effect(&finding, Cue::Rolled, 1).costs(COSTS));
    assert_eq!(effect(&finding, Cue::TextureOther, 1).change(), Some(0.0));
}

/// Flat squares and discs, brighter than their ground.
fn plain_shapes(rng: &mut Rng) -> Sample {
    let mut ids = vec![0u8; SIDE * SIDE];
    for left in [3, 26] {
        let (x, y, disc) = (left + rng.below(3) + 9, 12 + rng.below(22), rng.chance(0.5));
        for at in 0..SIDE * SIDE {
            let [dx, dy] = [(at % SIDE) as f32 - x as f32, (at / SIDE) as f32 - y as f32];
            if if disc { dx.hypot(dy) < 9.0 } else { dx.abs().max(dy.abs()) < 8.0 } {
                ids[at] = 1 + u8::from(disc);
            }
        }
    }
    let mut color = |low: f32, high: f32| [(); 3].map(|()| rng.range(low, high) as u8);
    let (ground, left, right) = (color(10.0, 70.0), color(150.0, 240.0), color(150.0, 240.0));
    let ids_of = ids.clone();
    sample(ids, |at| match (ids_of[at], at % SIDE < SIDE / 2) {
        (0, _) => ground,
        (_, true) => left,
        (_, false) => right,
    })
}

/// Contours, what they enclose, and whether that fills its bounding box. Nothing else is read.
fn by_edges(image: &[[f32; 3]], width: usize) -> Vec<u8> {
    let differ = |a: usize, b: usize| (0..3).any(|c| (image[a][c] - image[b][c]).abs() > 12.0);
    let edge = |at: usize| {
        (at % width + 1 < width && differ(at, at + 1)) || (at + width < image.len() && differ(at, at + width))
    };
    // Not an edge: 0; an edge: 1.
    let ids = (0..image.len()).map(|at| u8::from(edge(at))).collect();
    let regions = super::regions::Regions::of(&Labels { width, height: image.len() / width, ids });
    let mut said = vec![0; image.len()];
    let height = image.len() / width;
    for region in regions.all.iter().filter(|region| region.class == 0) {
        let [left, top, right, bottom] = region.bounds;
        if left == 0 || top == 0 || right == width || bottom == height || region.pixels.len() < 20 {
            continue;
        }
        let filled = region.pixels.len() as f32 / ((right - left) * (bottom - top)) as f32;
        let class = 1 + u8::from(filled < 0.9);
        for at in &region.pixels {
            // What lies on its right and below are its last pixels.
            [*at, at + 1, at + width].into_iter().for_each(|at| said[at] = class);
        }
    }
    said
}

#[test]
fn a_network_that_reads_edges() {
    let set = Made::new(&["ground", "square", "disc"], plain_shapes);
    let finding = finding(&Fake { classes: 3, says: by_edges }, &set);
    assert!(finding.miou.unwrap() > 0.9, "{:?}", finding.miou);
    assert_eq!(bases(&finding)[1..], [Basis::Shape, Basis::Shape], "{:#?}", finding.verdicts);
    for class in [1, 2] {
        assert!(effect(&finding, Cue::Silhouettes, class).kept().unwrap() > 0.8);
        assert!(effect(&finding, Cue::Gray, class).change().unwrap() > -0.05);
        assert!(effect(&finding, Cue::Blank, class).after.unwrap() < 0.01);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let set = Made::new(&["ground", "down", "across"], striped);
    let model = model("structtoken", 3);
    let json = |seed| {
        let (finding, pictures) = found(&model, Some(&model), &set, 3, seed);
        assert_eq!((pictures.images.len(), pictures.priors.is_some()), (2, true));
        let tokens = finding.tokens.as_ref().unwrap();
        assert_eq!((tokens.count, tokens.stages.len()), (3, 4));
        assert_eq!(tokens.stages.last().unwrap().agreement, Some(1.0));
        assert!(finding.text().contains("shuffle-8"));
        (serde_json::to_string(&finding).unwrap(), finding, pictures)
    };
    let (first, finding, pictures) = json(1);
    assert_eq!(first, json(1).0);
    assert_ne!(first, json(2).0);
    // The page holds every verdict and every picture, and loads nothing.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    let about = page::About { title: "A <b>".into(), lead: "l".into(), command: "c".into() };
    page::write(&path, &finding, set.classes(), &pictures, &about).unwrap();
    let html = std::fs::read_to_string(&path).unwrap();
    assert!(html.contains("A &lt;b&gt;"));
    // What is between tags and in attributes, without pictures.
    let text: String = html.split("base64,").map(|part| part.trim_start_matches(|c: char| c != '"')).collect();
    assert!(!text.contains("NaN") && !text.contains("inf%") && !text.contains("src=\"http"));
    assert_eq!(html.matches("class=\"card verdict\"").count(), 3);
    assert!(html.contains("learned token of across"));
}

#[test]
fn it_can_be_broken_off_and_refuses_what_does_not_fit() {
    let set = Made::new(&["ground", "down", "across"], striped);
    let config = InferConfig { mode: InferMode::Whole, ..InferConfig::default() };
    let (preprocess, device) = (Preprocess::default(), Device::flex());
    let run = |classes, indices: &[usize], least: usize| {
        let network = Fake { classes, says: by_place };
        let inference = Inference { network: &network, preprocess: &preprocess, config: &config, device: &device };
        let subject = Subject { inference, model: None, other: None };
        let mut steps_reported = Vec::new();
        let found =
            probe(&subject, &set, indices, &ProbeOptions { draws: 10, ..ProbeOptions::default() }, &mut |done, all| {
                steps_reported.push((done, all));
                if done == least { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        (found, steps_reported)
    };
    for least in [1, 2, 3, 10] {
        let (found, steps_reported) = run(3, &[0, 1], least);
        assert!(found.unwrap().is_none() && steps_reported.len() == least);
    }
    let (found, steps_reported) = run(3, &[0, 1], usize::MAX);
    assert!(found.unwrap().is_some());
    assert_eq!(*steps_reported.last().unwrap(), (steps_reported.len(), steps_reported.len()));
    assert!(run(4, &[0], 0).0.unwrap_err().to_string().contains("4 classes"));
    assert!(run(3, &[], 0).0.unwrap_err().to_string().contains("no image"));
    assert_eq!((spread(10, 3), spread(2, 9)), (vec![0, 3, 6], vec![0, 1]));
}
