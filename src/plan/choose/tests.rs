use std::time::Duration;

use super::*;
use crate::dataset::Classes;
use crate::kernels::Precision;
use crate::plan::facts::{FileArchitecture, Pretrained, Vit};
use crate::weights::Convolutional;

fn facts(size: (usize, usize), shares: &[f64], names: &[&str]) -> Facts {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let classes = Classes { colors: vec![[0; 3]; names.len()], names };
    Facts::example("set.toml", classes, [300, 100], size, shares)
}

const MACHINE: Machine = Machine { threads: 2, free_mb: Some(8000), cpu: true };

fn options(minutes: u64, changes: &[&str]) -> PlanOptions {
    let changes = changes.iter().map(|change| (*change).to_owned()).collect();
    PlanOptions { budget: Duration::from_secs(60 * minutes), pretrained: None, given: Vec::new(), changes }
}

/// DINOv2's ViT-S/14.
fn dinov2_s() -> Vit {
    Vit {
        embed_dim: 384,
        depth: 12,
        patch_size: 14,
        mlp_dim: 1536,
        layer_scale: true,
        reg_tokens: 0,
        class_token: true,
        no_embed_class: false,
        gated: false,
        rotated: false,
        qkv_bias: true,
    }
}

/// A plan on a machine that takes `step_s` for a step with the smallest crop.
fn plan(facts: &Facts, options: &PlanOptions, step_s: f64) -> (Config, String) {
    plan_in(&StepMemory { fixed: 300.0, maps: 400.0, free: f64::INFINITY }, facts, options, step_s)
}

fn plan_in(memory: &StepMemory, facts: &Facts, options: &PlanOptions, step_s: f64) -> (Config, String) {
    let mut draft = PlanDraft::choose_network(facts, &MACHINE, options).unwrap();
    draft.choose_crop(facts, options, step_s, memory).unwrap();
    let timing = StepTiming { step_s, image_s: 0.1, peak_mb: Some(700) };
    let batch = draft.config(options).unwrap().train.batch_size;
    draft.set_length(facts, options, &timing, batch, options.budget.as_secs_f64());
    let unexplained: Vec<Line> = draft.decided(options).into_iter().filter(|line| line.reason.is_empty()).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
    let config = draft.config(options).unwrap();
    let estimated = super::super::estimate(&config, facts, &timing);
    assert!(estimated.total_s <= 1.01 * options.budget.as_secs_f64(), "{estimated:?}");
    (config, draft.render(facts, &MACHINE, options, &estimated))
}

#[test]
fn the_plan_is_a_recipe_and_keeps_the_budget() {
    let facts = facts((640, 480), &[0.6, 0.4], &["ground", "thing"]);
    let (config, text) = plan(&facts, &options(60, &[]), 0.4);
    assert_eq!(Config::parse(&text, "plan", &[]).unwrap(), config);
    let seconds = config.train.iterations as f64 * 0.4;
    assert!((0.8 * 3600.0..3600.0).contains(&seconds), "{seconds}");
    assert_eq!((config.data.augment.resize.unwrap().scale, config.eval.resize), (None, None));
    assert!(text.contains("# 300 images to train on, 100 to evaluate on, 2 classes"), "{text}");
    assert!(config.train.class_weights.is_empty());
    // It ends when it said, and may be lengthened; iterations that the user sets are the user's.
    let train = &config.train;
    assert_eq!(train.max_time.unwrap().0, Duration::from_secs(3600));
    assert_eq!(
        (train.max_iterations, train.restarts),
        (Some((2 * train.iterations).min(30_000)), 2),
        "200 passes over 300 images"
    );
    let own = plan(&facts, &options(60, &["train.iterations=500"]), 0.4).0.train;
    assert_eq!((own.iterations, own.max_time, own.max_iterations), (500, None, None));
}

#[test]
fn a_network_that_is_given_is_taken_as_it_is() {
    let facts = facts((640, 480), &[0.6, 0.4], &["ground", "thing"]);
    let network = "model.backbone={ type = \"vit\", embed_dim = 24, num_heads = 2, depth = 2, patch_size = 14, img_size = [70, 70] }";
    let given = vec![network.to_owned(), "model.decoder={ type = \"fcn\", num_convs = 0 }".to_owned()];
    let options = PlanOptions { given: given.clone(), ..options(60, &[]) };
    let (config, text) = plan(&facts, &options, 0.4);
    assert_eq!(config.model, Config::parse("", "given", &given).unwrap().model);
    assert_eq!(Config::parse(&text, "plan", &[]).unwrap(), config);
    assert!(config.data.augment.crop.iter().all(|side| side % 14 == 0), "{:?}", config.data.augment.crop);
    assert!(text.contains("as the model has it") && text.contains("has learned already"), "{text}");
}

#[test]
fn crops_grow_with_time_and_stay_within_the_images() {
    let crop = |size, minutes, step_s| {
        plan(&facts(size, &[0.6, 0.4], &["a", "b"]), &options(minutes, &[]), step_s).0.data.augment.crop
    };
    assert_eq!(crop((640, 480), 10, 1.0), [224, 224]);
    assert_eq!(crop((640, 480), 600, 0.3), [480, 512]);
    assert_eq!(crop((100, 60), 600, 0.1), [56, 96]);
    let text = plan(&facts((100, 60), &[0.6, 0.4], &["a", "b"]), &options(1, &[]), 1.0).1;
    assert!(text.contains("# whole images, in whole patches"), "{text}");
    assert!(crop((640, 480), 60, 0.5) > crop((640, 480), 10, 1.0));
}

/// 300 MB in any case and 400 for four crops of 224 x 224, of which there is room for 65 %.
#[test]
fn crops_and_passes_fit_the_memory() {
    let facts = facts((640, 480), &[0.6, 0.4], &["a", "b"]);
    let with = |free| {
        let (config, text) = plan_in(
            &StepMemory { fixed: 300.0, maps: 400.0, free },
            &facts,
            &options(600, &["train.batch_size=4"]),
            0.3,
        );
        (config.data.augment.crop, config.train.accumulate, text)
    };
    assert_eq!(with(5000.0).1, 1);
    let (crop, accumulate, text) = with(3000.0);
    assert_eq!((crop, accumulate), ([480, 512], 4));
    assert!(text.contains("an image at a time: all at once would take 2259 MB"), "{text}");
    let (crop, accumulate, text) = with(900.0);
    assert_eq!((crop, accumulate), ([320, 320], 4));
    assert!(text.contains("the largest for which there is memory"), "{text}");
}

#[test]
fn few_images_are_not_seen_for_ever() {
    let (config, text) = plan(&facts((64, 64), &[0.6, 0.4], &["a", "b"]), &options(6000, &[]), 0.01);
    assert_eq!(config.train.iterations, 200 * 300 / 2);
    let yours = options(6000, &["train.batch_size=8"]);
    assert_eq!(plan(&facts((64, 64), &[0.6, 0.4], &["a", "b"]), &yours, 0.01).0.train.iterations, 200 * 300 / 8);
    assert!(text.contains("the most that help: 200.0 epochs"), "{text}");
}

#[test]
fn rare_classes_weigh_more_and_sides_are_not_mirrored() {
    let facts = facts((640, 480), &[0.8, 0.19, 0.0, 0.01], &["road", "lane", "absent", "Left arrow"]);
    let (config, text) = plan(&facts, &options(60, &[]), 0.4);
    assert_eq!(config.train.class_weights, [0.5, 1.0, 1.0, 3.0]);
    assert!(config.train.loss.adjust_logits);
    // Without weights, or for a query's class, there is nothing to adjust.
    for own in ["train.class_weights=[]", "model.decoder={ type = \"mask2former\" }"] {
        let train = plan(&facts, &options(60, &[own]), 0.4).0.train;
        assert!(!train.loss.adjust_logits && train.loss.dice == 1.0, "{own}");
    }
    assert_eq!(config.data.augment.flip, 0.0);
    assert!(text.contains("`Left arrow` has 1.00 % of the pixels"), "{text}");
}

#[test]
fn classes_of_few_images_are_looked_for() {
    let mut facts = facts((640, 480), &[0.8, 0.19, 0.01], &["road", "lane", "arrow"]);
    facts.holders = vec![300, 200, 29];
    let (config, text) = plan(&facts, &options(60, &[]), 0.4);
    assert_eq!(config.data.augment.rare_class.unwrap().share, 0.5);
    assert!(config.train.class_weights.is_empty(), "what is drawn more often need not weigh more");
    assert!(text.contains("`arrow` is in 29 of 300 images"), "{text}");
    facts.holders[2] = 30;
    let (config, _) = plan(&facts, &options(60, &[]), 0.4);
    assert!(config.data.augment.rare_class.is_none() && !config.train.class_weights.is_empty());
    facts.pretrained = Some(Pretrained { path: "w.pth".into(), network: FileArchitecture::Vit(dinov2_s()) });
    let (config, text) = plan(&facts, &options(60, &[]), 0.4);
    assert!(!config.train.class_weights.is_empty() && config.train.loss.adjust_logits, "{text}");
}

#[test]
fn batches_are_small_on_a_cpu_alone() {
    let facts = facts((640, 480), &[0.6, 0.4], &["a", "b"]);
    for (machine, batch, why) in [(MACHINE, "2", "on a CPU"), (Machine { cpu: false, ..MACHINE }, "16", "a GPU")] {
        let draft = PlanDraft::choose_network(&facts, &machine, &options(60, &[])).unwrap();
        let line = draft.lines.iter().find(|line| line.key == "batch_size").unwrap();
        assert!(line.value == batch && line.reason.contains(why), "{line:?}");
    }
}

#[test]
fn bf16_is_taken_where_it_is_fast() {
    let facts = facts((640, 480), &[0.6, 0.4], &["a", "b"]);
    let (asked, mut draft) =
        (options(60, &[]), PlanDraft::choose_network(&facts, &MACHINE, &options(60, &[])).unwrap());
    assert!(!draft.try_bf16(1.05));
    assert_eq!(draft.config(&asked).unwrap().train.precision, Precision::F32);
    assert!(draft.try_bf16(1.84));
    let config = draft.config(&asked).unwrap();
    assert_eq!((config.train.precision, config.eval.precision), (Precision::Bf16, Precision::F32));
    assert!(toml_of(&draft.lines).contains("1.8 times as fast here as in f32"));
    assert_eq!(options(60, &["train.precision = f32"]).name("train.precision").as_deref(), Some("f32"));
    assert_eq!(asked.value("train.precision"), None);
}

/// Only pretrained features are good from the first step, and only a user knows better.
#[test]
fn a_decoder_is_chosen_by_the_length_of_the_run() {
    let decoder = |facts: &Facts, changes: &[&str], steps| {
        let options = options(60, changes);
        let mut draft = PlanDraft::choose_network(facts, &MACHINE, &options).unwrap();
        draft.lengthen(steps);
        let config = draft.config(&options).unwrap();
        let decoder = serde_json::to_value(&config.model.decoder).unwrap();
        assert!(decoder["type"] != "structtoken" || decoder["num_blocks"] == 2);
        decoder["type"].as_str().unwrap().to_owned()
    };
    let mut facts = facts((640, 480), &[0.6, 0.4], &["a", "b"]);
    assert_eq!(decoder(&facts, &["train.seed=1"], 1e9), "fcn");
    assert_eq!(decoder(&facts, &["model.backbone.type=vit"], 100.0), "structtoken");
    let vit = dinov2_s();
    facts.pretrained =
        Some(Pretrained { path: "dinov2_vits14.safetensors".into(), network: FileArchitecture::Vit(vit) });
    assert_eq!(decoder(&facts, &["train.seed=1"], SHORT), "fcn");
    assert_eq!(decoder(&facts, &["train.seed=1"], SHORT + 1.0), "structtoken");
    assert_eq!(decoder(&facts, &["model.decoder.block=sse"], 100.0), "structtoken");
    for name in ["segmenter", "fcn", "structtoken"] {
        assert_eq!(decoder(&facts, &[&format!("model.decoder.type={name}")], 1e9), name);
        assert_eq!(decoder(&facts, &[&format!("model.decoder.type = \"{name}\"")], 1e9), name);
    }
}

/// What was measured to win is what is planned; a transformer from scratch is the user's own wish.
#[test]
fn a_unet_is_taken_where_nothing_is_pretrained() {
    let backbone = |size, changes: &[&str]| {
        let (config, text) = plan(&facts(size, &[0.6, 0.4], &["a", "b"]), &options(5, changes), 0.4);
        assert_eq!(Config::parse(&text, "plan", &[]).unwrap(), config, "{text}");
        (serde_json::to_value(&config.model.backbone).unwrap(), config)
    };
    let (unet, config) = backbone((256, 256), &[]);
    assert_eq!((&unet["type"], &unet["stem_stride"]), (&"unet".into(), &2.into()));
    assert_eq!((config.train.loss.dice, config.data.augment.cat_max_ratio), (1.0, 1.0));
    assert_eq!(backbone((96, 64), &[]).0["stem_stride"], 1);
    assert_eq!(backbone((256, 256), &["model.backbone.type = \"vit\""]).0["size"], "tiny");
    let (_, config) = backbone((4096, 2048), &[]);
    assert_eq!(config.data.augment.resize.unwrap().scale, Some([1024, 512]));
    assert_eq!(config.eval.resize, Some([1024, 512]));
}

#[test]
fn norms_are_tried_unless_one_is_named() {
    let facts = facts((256, 256), &[0.8, 0.2], &["background", "nucleus"]);
    let tried = |changes: &[&str]| {
        let options = options(5, changes);
        PlanDraft::choose_network(&facts, &MACHINE, &options).unwrap().tries_norms(&options)
    };
    assert!(tried(&[]) && tried(&["model.backbone.stem_stride=4"]));
    assert!(!tried(&["model.backbone.norm=batch"]) && !tried(&["model.backbone.type=vit"]));
    assert!(!tried(&["model.backbone={type=\"unet\"}"]));
}

#[test]
fn images_of_many_kinds_are_normed_over_groups() {
    let mut facts = facts((256, 256), &[0.8, 0.2], &["background", "nucleus"]);
    let options = options(5, &[]);
    for (variety, known) in [(0.2, false), (9.6, true)] {
        facts.variety = variety;
        let mut draft = PlanDraft::choose_network(&facts, &MACHINE, &options).unwrap();
        assert_eq!(draft.knows_norm(&facts), known);
        let norm = draft.config(&options).unwrap().to_toml().unwrap();
        assert!(!known || norm.contains("norm = \"group\""), "{norm}");
    }
}

/// DINOv3's weights bring their network along; gates and odd widths of an MLP are exactly as the file has them.
#[test]
fn a_pretrained_dinov3_is_built_as_it_is() {
    let mut facts = facts((640, 480), &[0.6, 0.4], &["a", "b"]);
    let small = Vit {
        embed_dim: 384,
        depth: 12,
        patch_size: 16,
        mlp_dim: 1536,
        layer_scale: true,
        reg_tokens: 4,
        class_token: true,
        no_embed_class: false,
        gated: false,
        rotated: true,
        qkv_bias: true,
    };
    let plus = Vit { gated: true, qkv_bias: false, ..small.clone() };
    let largest = Vit { embed_dim: 4096, depth: 40, mlp_dim: 8192, gated: true, qkv_bias: false, ..small.clone() };
    for (vit, heads) in [(&small, 6), (&plus, 6), (&largest, 32)] {
        facts.pretrained = Some(Pretrained { path: "v3.pth".into(), network: FileArchitecture::Vit(vit.clone()) });
        let (config, text) = plan(&facts, &options(5, &[]), 0.4);
        assert_eq!(Config::parse(&text, "plan", &[]).unwrap(), config, "{text}");
        config.model.check().unwrap();
        let network = serde_json::to_value(&config.model.backbone).unwrap();
        let gated = if vit.gated { "swiglu".into() } else { serde_json::Value::Null };
        let expected = serde_json::json!({
            "type": "dinov3", "embed_dim": vit.embed_dim, "depth": vit.depth, "num_heads": heads, "mlp_layer": gated,
            "qkv_bias": vit.qkv_bias, "final_norm": true, "reg_tokens": 4, "patch_size": 16,
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&network[key], value, "{key}: {text}");
        }
        // The rates of any pretrained transformer.
        let rates = (config.train.optimizer.lr, config.train.optimizer.decoder_lr_mult);
        assert_eq!(rates, (4e-5, 15.0));
    }
    for hidden in [1, 7, 1000, 1535, 4096] {
        let vit = Vit { mlp_dim: hidden, ..plus.clone() };
        facts.pretrained = Some(Pretrained { path: "v3.pth".into(), network: FileArchitecture::Vit(vit) });
        let (config, text) = plan(&facts, &options(5, &[]), 0.4);
        assert_eq!(config.model.backbone.features().transformer.unwrap().mlp_dim, hidden, "{text}");
    }
    // From scratch, by the user's wish.
    facts.pretrained = None;
    let (config, text) = plan(&facts, &options(5, &["model.backbone.type=dinov3"]), 0.4);
    let network = serde_json::to_value(&config.model.backbone).unwrap();
    assert_eq!((&network["type"], &network["embed_dim"]), (&"dinov3".into(), &192.into()), "{text}");
    config.model.check().unwrap();
}

/// Both kinds of pretrained convolutional networks become the way down of a U-Net, which can be built.
#[test]
fn a_pretrained_convolutional_network_becomes_an_encoder() {
    let mut facts = facts((256, 256), &[0.6, 0.4], &["a", "b"]);
    let networks = [
        Convolutional::Resnet {
            depths: vec![3, 4, 6, 3],
            bottleneck: true,
            stem: 64,
            channels: vec![64, 128, 256, 512],
        },
        Convolutional::Resnet { depths: vec![1, 1, 2, 1], bottleneck: false, stem: 8, channels: vec![8, 8, 16, 16] },
        Convolutional::Convnext { depths: vec![2, 2, 6, 2], channels: vec![40, 80, 160, 320] },
        Convolutional::Convnext { depths: vec![1, 1, 2, 1], channels: vec![8, 8, 16, 16] },
    ];
    let strides = [2, 2, 4, 4];
    for (network, stride) in networks.into_iter().zip(strides) {
        facts.pretrained =
            Some(Pretrained { path: "w.pth".into(), network: FileArchitecture::Convolutional(network.clone()) });
        let (config, text) = plan(&facts, &options(5, &[]), 0.4);
        assert_eq!(Config::parse(&text, "plan", &[]).unwrap(), config, "{text}");
        config.model.check().unwrap();
        assert_eq!(config.model.backbone.features().stride(), stride, "{text}");
        assert!(text.contains(&format!("# {network}, as in w.pth")), "{text}");
        assert!(text.contains("type = \"unet\"") && text.contains("type = \"fcn\""), "{text}");
        assert_eq!(config.train.pretrained.as_deref(), Some("w.pth".as_ref()));
    }
}

#[test]
fn what_has_no_above_is_mirrored_both_ways() {
    let mut facts = facts((256, 256), &[0.8, 0.2], &["background", "nucleus"]);
    assert_eq!(plan(&facts, &options(5, &[]), 0.4).0.data.augment.vertical_flip, 0.0);
    facts.upright = false;
    assert_eq!(plan(&facts, &options(5, &[]), 0.4).0.data.augment.vertical_flip, 0.5);
}

#[test]
fn what_the_user_decides_stands() {
    let facts = facts((640, 480), &[0.6, 0.4], &["a", "b"]);
    let (config, text) =
        plan(&facts, &options(60, &["train.iterations=7", "model.decoder.block=cse", "train.seed=3"]), 0.4);
    assert_eq!(config.train.iterations, 7);
    assert!(text.contains("iterations = 7") && text.contains("set by you; planned: \"pwe\""), "{text}");
    assert!(text.contains("seed = 3") && text.contains("block = \"cse\""), "{text}");
    assert_eq!(Config::parse(&text, "plan", &[]).unwrap(), config);
    let table = "model.decoder={ type = \"fcn\", num_convs = 1, channels = 16 }";
    let (config, text) = plan(&facts, &options(60, &[table]), 0.4);
    assert_eq!(Config::parse(&text, "plan", &[]).unwrap(), config, "{text}");
}

#[test]
fn what_depends_on_the_length_follows_one_that_is_set() {
    let facts = facts((256, 256), &[0.5, 0.5], &["a", "b"]);
    for (iterations, expected) in [(3, (1, 1, 0)), (400, (100, 40, 20))] {
        let set = options(5, &[&format!("train.iterations={iterations}")]);
        let train = plan(&facts, &set, 0.2).0.train;
        assert_eq!(train.iterations, iterations);
        assert_eq!((train.eval_every, train.save_every, train.schedule.warmup_iters), expected);
    }
    let set = options(5, &["train.iterations=400", "train.eval_every=200", "train.schedule.warmup_iters=3"]);
    let train = plan(&facts, &set, 0.2).0.train;
    assert_eq!((train.eval_every, train.save_every, train.schedule.warmup_iters), (200, 40, 3));
}
