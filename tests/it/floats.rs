//! Every number that a run writes as text reads back as the very number it was.

use structtoken::config::Config;
use structtoken::dataset::Classes;
use structtoken::image::Labels;
use structtoken::metrics::{Confusion, Scores};
use structtoken::model_file::{ModelCard, Quantization, Training};
use structtoken::rng::Rng;
use structtoken::run::log;
use structtoken::run::rows::{EvalRow, Row, StepRow};
use structtoken::sweep::compare::run::CompareOutcome;
use structtoken::sweep::compare::{Budget, ComparePlan, CompareRun};

const ROUNDS: u64 = 2000;

/// Any finite float.
fn any(rng: &mut Rng) -> f64 {
    std::iter::repeat_with(|| f64::from_bits(rng.next_u64())).find(|number| number.is_finite()).unwrap()
}

/// A quotient of whole numbers, as scores are.
fn share(rng: &mut Rng) -> f64 {
    let whole = 1 + rng.next_u64() % (1 << 40);
    (rng.next_u64() % (whole + 1)) as f64 / whole as f64
}

/// A small number of any digits, as rates and times are.
fn small(rng: &mut Rng) -> f64 {
    share(rng) * 10f64.powi(rng.below(12) as i32 - 8)
}

fn scores(rng: &mut Rng) -> Scores {
    let mut confusion = Confusion::new(3);
    for _ in 0..3 {
        let labels =
            |rng: &mut Rng| Labels { width: 40, height: 1, ids: (0..40).map(|_| rng.below(3) as u8).collect() };
        let (truth, prediction) = (labels(rng), labels(rng));
        confusion.add(&truth, &prediction).unwrap();
    }
    confusion.scores(&["a", "b", "c"].map(str::to_owned))
}

fn config(rng: &mut Rng) -> Config {
    let mut config = Config::parse("[model.backbone]\ntype = \"vit\"\nsize = \"tiny\"", "r.toml", &[]).unwrap();
    config.train.optimizer.lr = small(rng);
    config.train.ema = Some(share(rng).min(0.999));
    config.train.class_weights = (0..3).map(|_| 1e-3 + small(rng) as f32).collect();
    config.train.schedule.warmup_ratio = share(rng);
    config.data.preprocess.mean = [0; 3].map(|_| 255.0 * rng.uniform());
    config.data.preprocess.std = [0; 3].map(|_| 1.0 + 99.0 * rng.uniform());
    config
}

#[test]
fn rows_of_a_log_read_back() {
    let mut rng = Rng::new(1, &[]);
    for iteration in 0..10 * ROUNDS {
        let rows = [
            Row::Step(StepRow {
                iteration,
                loss: any(&mut rng),
                lr: small(&mut rng),
                images_per_s: Some(any(&mut rng)),
                wait_share: Some(share(&mut rng)),
                parts: [("ce".to_owned(), Some(any(&mut rng)))].into(),
            }),
            Row::Eval(EvalRow {
                iteration,
                miou: share(&mut rng),
                pixel_accuracy: Some(share(&mut rng)),
                mean_accuracy: Some(share(&mut rng)),
                iou: [("a".to_owned(), Some(share(&mut rng))), ("b".to_owned(), None)].into(),
            }),
        ];
        let text: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
        assert_eq!(log::parse(text.as_bytes()), rows, "{text}");
    }
}

#[test]
fn scores_and_results_read_back_and_are_taken_for_sound() {
    let mut rng = Rng::new(2, &[]);
    for _ in 0..ROUNDS {
        let scores = scores(&mut rng);
        let text = serde_json::to_vec_pretty(&scores).unwrap();
        let again: Scores = serde_json::from_slice(&text).unwrap();
        assert_eq!(again, scores);
        again.check().unwrap();
        let outcome = CompareOutcome {
            run: CompareRun { decoder: "pwe".into(), seed: 3 },
            iterations: 7,
            scores,
            boundary_iou: Some(share(&mut rng)),
            parameters: 1 << 20,
            macs: 1 << 30,
            step_ms: small(&mut rng),
            training_s: small(&mut rng),
            image_ms: small(&mut rng),
            peak_mb: None,
            device: "cpu".into(),
            shown: Vec::new(),
        };
        let text = serde_json::to_string_pretty(&outcome).unwrap();
        let again = CompareOutcome::parse(text.as_bytes(), Some(7)).unwrap();
        assert_eq!(serde_json::to_string_pretty(&again).unwrap(), text);
        let times = |one: &CompareOutcome| [one.step_ms, one.training_s, one.image_ms].map(f64::to_bits);
        assert_eq!(times(&again), times(&outcome));
    }
}

#[test]
fn recipes_plans_and_cards_read_back() {
    let mut rng = Rng::new(3, &[]);
    for _ in 0..ROUNDS / 10 {
        let config = config(&mut rng);
        let again = Config::parse(&config.to_toml().unwrap(), "again.toml", &[]).unwrap();
        assert_eq!(again, config);
        let plan = ComparePlan::new(config.clone(), &["pwe".to_owned()], &[], 2, Budget::Iterations(9), 1).unwrap();
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(ComparePlan::parse(&text, std::path::Path::new("plan.toml")).unwrap(), plan);
        let card = ModelCard {
            version: "0".into(),
            model: config.model.clone(),
            classes: Classes { names: vec!["a".into()], colors: vec![[0; 3]] },
            data: config.data.clone(),
            label_map: serde_json::json!({"mean": share(&mut rng)}),
            eval: config.eval.clone(),
            int8: Some(Quantization {
                images: 1,
                of: "a set".into(),
                weight_bits: 8,
                miou_f32: share(&mut rng),
                miou_int8: share(&mut rng),
            }),
            training: Some(Training {
                iteration: 1,
                iterations: 2,
                batch_size: 3,
                seed: 4,
                miou: Some(share(&mut rng)),
                aacc: Some(share(&mut rng)),
            }),
        };
        let again: ModelCard = serde_json::from_str(&serde_json::to_string(&card).unwrap()).unwrap();
        assert_eq!(again, card);
    }
}
