//! A report as a real run would fill it, to be looked at. Nothing in it is learned: the tokens are made from the truth.
//!
//! `cargo test --release --lib report::example -- --ignored` writes `target/report-example.html`.

use std::path::{Path, PathBuf};

use super::curves::curves;
use super::*;
use crate::image::IGNORE;
use crate::rng::Rng;
use crate::run::rows::{EvalRow, Row, StepRow};

const K: usize = 11;
const NAMES: [&str; K] =
    ["Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"];
const COLORS: [[u8; 3]; K] = [
    [120, 180, 225],
    [155, 75, 60],
    [205, 195, 120],
    [120, 85, 145],
    [235, 150, 190],
    [85, 145, 55],
    [230, 175, 40],
    [95, 100, 165],
    [35, 75, 190],
    [225, 95, 45],
    [25, 160, 155],
];
const STAGES: [(&str, f32); 6] =
    [("learned", 0.0), ("block 1", 0.22), ("block 2", 0.45), ("block 3", 0.7), ("block 4", 0.92), ("logits", 1.0)];

#[test]
#[ignore = "writes a page to look at"]
fn write_pages() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/camvid/val"));
    assert!(folder.exists(), "this needs CamVid at {}", folder.display());
    for (count, file) in [(6, "report-example.html"), (100, "report-example-100.html")] {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).join(file);
        let started = std::time::Instant::now();
        write_report(&path, &example(&folder, count)).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        println!("{}: {:.2} MB in {:.1} s", path.display(), size as f64 / 1e6, started.elapsed().as_secs_f64());
        assert!(size < if count == 6 { 3_000_000 } else { 12_000_000 });
    }
}

fn example(folder: &Path, count: usize) -> Report {
    let mut names: Vec<String> = std::fs::read_dir(folder.join("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let every = names.len() / count;
    let samples: Vec<SamplePanel> =
        names.iter().step_by(every.max(1)).take(count).map(|name| sample(folder, name)).collect();
    let mut confusion = vec![vec![0u64; K]; K];
    samples.iter().for_each(|sample| count_pixels(sample, &mut confusion));
    // A class that neither side holds.
    for i in 0..K {
        confusion[10][i] = 0;
        confusion[i][10] = 0;
    }
    let classes: Vec<ClassRow> = (0..K).map(|class| scores(class, &confusion)).collect();
    let known: Vec<f64> = classes.iter().filter_map(|class| class.iou).collect();
    let right: u64 = (0..K).map(|i| confusion[i][i]).sum();
    let total: u64 = confusion.iter().flatten().sum();
    let fact = |name: &str, value: &str| (name.to_string(), value.to_string());
    let next = |command: &str, purpose: &str| NextStep { command: command.into(), purpose: purpose.into() };
    Report {
        title: "StructToken on street scenes".into(),
        lead: "A small vision transformer with four structure-token blocks, trained on CamVid and scored on images it has never seen.".into(),
        command: "structtoken train configs/camvid/structtoken-cse_vit-s_480.toml --run runs/camvid --seed 7".into(),
        summary: vec![
            fact("Dataset", "CamVid, 367 train, 101 val"),
            fact("Model", "ViT-S/16 + StructToken-CSE"),
            fact("Parameters", "24.1 million"),
            fact("Iterations", "8,000 of 8,000"),
            fact("Batch", "8 images of 480 x 360"),
            fact("Time", "1 h 52 min"),
            fact("Device", "cuda:0, NVIDIA H200"),
            fact("Seed", "7"),
            fact("Version", "structtoken 0.1.0"),
        ],
        headlines: vec![
            Headline::mean_iou(known.iter().sum::<f64>() / known.len() as f64),
            Headline::pixel_accuracy(right as f64 / total as f64),
            Headline::mean_accuracy(0.731),
            Headline::mean_dice(0.762),
        ],
        curves: curves(&log()),
        classes,
        confusion: Some(confusion),
        samples,
        next_steps: vec![
            next("structtoken predict runs/camvid photos/ --out masks/", "Segment your own photos; masks and overlays go to one folder."),
            next("structtoken eval runs/camvid --flip --scales 0.75,1,1.25", "Score again with several scales and flips: slower, usually one or two points better."),
            next("structtoken train configs/camvid/structtoken-cse_vit-s_480.toml --run runs/longer --set train.iterations=20000", "Train longer: the validation score was still rising at the end."),
        ],
        ..Report::default()
    }
}

fn log() -> Vec<Row> {
    let mut rng = Rng::new(3, &[]);
    let mut rows = Vec::new();
    for iteration in (0..8000).step_by(10) {
        let part = iteration as f64 / 8000.0;
        let noise = f64::from(rng.normal());
        let loss = (0.32 + 2.1 * (-part * 9.0).exp() + 0.25 * (1.0 - part)) * (1.0 + 0.13 * noise).max(0.4);
        let lr = 1e-4 * (1.0 - part) * (iteration as f64 / 300.0).min(1.0);
        let speed = Some(58.0 + 1.5 * f64::from(rng.normal()));
        rows.push(Row::Step(StepRow { iteration, loss, lr, images_per_s: speed, ..StepRow::default() }));
        if iteration % 500 == 490 {
            let miou = 0.715 * (1.0 - (-part * 5.0).exp()) + 0.006 * f64::from(rng.normal());
            rows.push(Row::Eval(EvalRow { iteration: iteration + 10, miou, ..EvalRow::default() }));
        }
    }
    rows
}

fn sample(folder: &Path, name: &str) -> SamplePanel {
    let photo = image::open(folder.join(format!("images/{name}.jpg"))).unwrap().to_rgb8();
    let (width, height) = (photo.width() as usize, photo.height() as usize);
    let mask = image::open(folder.join(format!("masks/{name}.png"))).unwrap().to_luma8().into_raw();
    let ids: Vec<u8> = mask.into_iter().map(|id| if usize::from(id) < K { id } else { IGNORE }).collect();
    let truth = Labels { width, height, ids };
    let blocks: Vec<TokenBlock> = STAGES.iter().map(|&(stage, sharp)| block(&truth, stage, sharp, name)).collect();
    let prediction = pictures::stage_labels(&blocks[5], (width, height));
    let mut sample = SamplePanel {
        name: format!("{name}.jpg"),
        image: Image { width, height, pixels: photo.into_raw() },
        truth,
        prediction,
        iou: None,
        blocks,
    };
    let mut confusion = vec![vec![0; K]; K];
    count_pixels(&sample, &mut confusion);
    let known: Vec<f64> = (0..K).filter_map(|class| scores(class, &confusion).iou).collect();
    sample.iou = Some(known.iter().sum::<f64>() / known.len() as f64);
    sample
}

/// Tokens between noise (`sharp` 0) and the blurred truth (1).
fn block(truth: &Labels, stage: &str, sharp: f32, image: &str) -> TokenBlock {
    let (height, width) = (23, 30);
    let mut learned = Rng::named(1, "learned");
    let mut own = Rng::named(2, &format!("{image}{stage}"));
    let mut maps = Vec::new();
    for class in 0..K {
        let cell = |y: usize, x: usize| {
            let (rows, columns) = (y * truth.height / height..(y + 1) * truth.height / height, x * 16..x * 16 + 16);
            let inside = rows.clone().flat_map(|row| columns.clone().map(move |column| row * truth.width + column));
            inside.filter(|&i| usize::from(truth.ids[i]) == class).count() as f32 / (rows.len() * 16) as f32
        };
        let density: Vec<f32> = (0..height * width).map(|i| cell(i / width, i % width)).collect();
        let noise: Vec<f32> = (0..height * width).map(|_| learned.normal()).collect();
        let noise = blur(&blur(&noise, height, width), height, width);
        let mut soft = density.clone();
        for _ in 0..((1.0 - sharp) * 9.0) as usize {
            soft = blur(&soft, height, width);
        }
        let mixed = soft.iter().zip(&noise).map(|(mask, noise)| {
            sharp * (8.0 * mask - 3.0) + (1.0 - sharp).powi(2) * 3.0 * noise + 0.55 * sharp * own.normal()
        });
        maps.extend(mixed);
    }
    TokenBlock { name: stage.into(), maps, height, width }
}

fn blur(map: &[f32], height: usize, width: usize) -> Vec<f32> {
    let at = |i: usize| {
        let (y, x) = (i / width, i % width);
        let rows = y.saturating_sub(1)..(y + 2).min(height);
        let near: Vec<f32> =
            rows.flat_map(|y| map[y * width + x.saturating_sub(1)..y * width + (x + 2).min(width)].to_vec()).collect();
        near.iter().sum::<f32>() / near.len() as f32
    };
    (0..map.len()).map(at).collect()
}

fn count_pixels(sample: &SamplePanel, confusion: &mut [Vec<u64>]) {
    for (&truth, &prediction) in sample.truth.ids.iter().zip(&sample.prediction.ids) {
        if truth != IGNORE {
            confusion[usize::from(truth)][usize::from(prediction)] += 1;
        }
    }
}

fn scores(class: usize, confusion: &[Vec<u64>]) -> ClassRow {
    let hit = confusion[class][class];
    let truth: u64 = confusion[class].iter().sum();
    let predicted: u64 = confusion.iter().map(|row| row[class]).sum();
    let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
    ClassRow {
        name: NAMES[class].into(),
        color: COLORS[class],
        iou: share(hit, truth + predicted - hit),
        accuracy: share(hit, truth),
        dice: share(2 * hit, truth + predicted),
        pixels: truth,
    }
}
