//! Plans, budgets and shards.

use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn plan(decoders: &[&str], seeds: u64) -> Result<ComparePlan> {
    let recipe = Config::parse("[model.decoder]\ntype = \"structtoken\"\nblock = \"pwe\"\nnum_blocks = 2", "r", &[])?;
    ComparePlan::new(recipe, &names(decoders), &[], seeds, Budget::Iterations(1000), 5)
}

#[test]
fn a_plan_reads_back_and_refuses_another() {
    let folder = tempfile::tempdir().unwrap();
    let first = plan(&["pwe", "cse"], 2).unwrap();
    first.settle(folder.path()).unwrap();
    first.settle(folder.path()).unwrap();
    assert_eq!(ComparePlan::read(folder.path()).unwrap().unwrap(), first);
    let mut other = first.clone();
    (other.budget, other.recipe.train.batch_size) = (Budget::Seconds(60), 3);
    let error = other.settle(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("recipe.train.batch_size: 16 -> 3") && error.contains("budget.seconds: none -> 60"),
        "{error}"
    );
}

#[test]
fn runs_differ_in_decoder_and_seed_alone() {
    let plan = plan(&["pwe", "cse"], 2).unwrap();
    let runs: Vec<String> = plan.runs().iter().map(CompareRun::to_string).collect();
    assert_eq!(runs, ["pwe-s0", "cse-s0", "pwe-s1", "cse-s1"]);
    let config = |name: &str| plan.config(&plan.run(name).unwrap(), 1003).unwrap();
    let (pwe, cse) = (config("pwe-s1"), config("cse-s1"));
    // All blocks of structure tokens take the recipe's settings.
    let found = pwe.differences(&cse).unwrap();
    assert_eq!(found, ["model.decoder.block: \"pwe\" -> \"cse\""]);
    assert_eq!((pwe.train.seed, pwe.train.iterations, pwe.train.eval_every), (1, 1003, 201));
    assert_eq!(pwe.train.schedule.warmup_iters, 100);
    assert!(plan.run("pwe-s7").is_err());
}

#[test]
fn faulty_plans_are_refused() {
    assert!(plan(&["pwe", "pwe"], 1).unwrap_err().to_string().contains("twice"));
    assert_eq!(plan(&["pew"], 1).unwrap_err().hint(), Some("did you mean `pwe`?"));
    assert!(plan(&[], 1).is_err() && plan(&["pwe"], 0).is_err());
    let text =
        "decoders = [\"pwe\"]\nseeds = [0]\nevaluations = 1\nbudget = { iterations = 5 }\ndecoder = {}\nrecipe = {}";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(PLAN), text).unwrap();
    assert!(ComparePlan::read(folder.path()).unwrap_err().to_string().contains("no settings for the decoder `pwe`"));
}

#[test]
fn budgets_are_times() {
    let seconds = |text: &str| text.parse::<Budget>().ok();
    assert_eq!(seconds("90s"), Some(Budget::Seconds(90)));
    assert_eq!(seconds("20m"), Some(Budget::Seconds(1200)));
    assert_eq!(seconds("1h30m"), Some(Budget::Seconds(5400)));
    for bad in ["", "20", "m", "5x", "-5m", "0s", "99999999999999999999h", "1.5h"] {
        assert_eq!(seconds(bad), None, "{bad}");
    }
    assert_eq!(Budget::Seconds(1200).to_string(), "20 min of training");
}

#[test]
fn shards_share_all_runs_out() {
    let runs = plan(&["pwe", "cse", "sse"], 3).unwrap().runs();
    let mut all: Vec<String> = (1..=4)
        .flat_map(|i| format!("{i}/4").parse::<Shard>().unwrap().of(runs.clone()))
        .map(|run| run.to_string())
        .collect();
    all.sort();
    let mut expected: Vec<String> = runs.iter().map(CompareRun::to_string).collect();
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(Shard::ALL.of(runs.clone()), runs);
    assert!(["0/2", "3/2", "1", "a/b", "1/0"].iter().all(|text| text.parse::<Shard>().is_err()));
}

#[test]
fn single_decoders_can_be_changed() {
    let plan = |changes: &[&str]| {
        ComparePlan::new(Config::default(), &names(&["pwe", "eomt"]), &names(changes), 1, Budget::Iterations(10), 1)
    };
    let DecoderConfig::Eomt(eomt) = &plan(&["eomt.num_queries=7", "eomt.loss.num_points=9"]).unwrap().decoder["eomt"]
    else {
        panic!("not EoMT")
    };
    assert_eq!((eomt.num_queries, eomt.loss.num_points), (7, 9));
    for (change, text) in [("eomt=3", "form"), ("cse.num_blocks=1", "no such"), ("eomt.querries=1", "querries")] {
        let error = plan(&[change]).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn plans_that_cannot_be_are_refused_with_their_field() {
    let good = toml::to_string(&plan(&["pwe", "cse"], 2).unwrap()).unwrap();
    let parse = |text: &str| ComparePlan::parse(text, Path::new("dir/plan.toml"));
    parse(&good).unwrap();
    let many = format!("seeds = [{}]", (0..101).map(|seed| seed.to_string()).collect::<Vec<_>>().join(", "));
    for (from, to, say) in [
        ("seeds = [0, 1]", "seeds = []", "seeds"),
        ("seeds = [0, 1]", "seeds = [4, 4]", "seeds: 4 is there twice"),
        ("seeds = [0, 1]", "seeds = [-1, 1]", "invalid value"),
        ("seeds = [0, 1]", &many, "there are 2 and 101"),
        ("decoders = [\"pwe\", \"cse\"]", "decoders = []", "decoders"),
        ("decoders = [\"pwe\", \"cse\"]", "decoders = [\"pwe\", \"pwe\"]", "`pwe` is there twice"),
        ("decoders = [\"pwe\", \"cse\"]", "decoders = [\"../pwe\"]", "there is no decoder `../pwe`"),
        ("iterations = 1000", "iterations = 9223372036854775807", "budget.iterations"),
        ("iterations = 1000", "iterations = 0", "budget"),
        ("iterations = 1000", "seconds = 9223372036854775807", "budget.seconds"),
        ("iterations = 1000", "seconds = 1e3", "invalid type"),
        ("batch_size = 16", "batch_size = 9223372036854775807", "batch_size"),
    ] {
        assert!(good.contains(from), "{from}: {good}");
        let error = parse(&good.replacen(from, to, 1)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("dir/plan.toml") && text.contains(say) && error.hint().is_some(), "{to}: {text}");
    }
}

/// Whatever number stands in a result, it is refused or does no harm.
#[test]
fn results_that_cannot_be_are_refused_with_their_field() {
    use crate::metrics::Confusion;
    let text = r#"{"matrix": [[8, 2], [1, 9]], "ignored": 3}"#;
    let confusion: Confusion = serde_json::from_str(text).unwrap();
    let good = serde_json::json!({
        "run": {"decoder": "pwe", "seed": 0}, "iterations": 7, "scores": confusion.scores(&names(&["a", "b"])),
        "boundary_iou": 0.5, "parameters": 1000, "macs": 1000, "step_ms": 1.5, "training_s": 2.5, "image_ms": 3.5,
        "peak_mb": 100, "device": "cpu", "shown": [{"index": 0, "size": [32, 32]}],
    });
    let parse = |value: &serde_json::Value| run::CompareOutcome::parse(value.to_string().as_bytes(), Some(7));
    parse(&good).unwrap();
    for (place, value, say) in [
        ("/iterations", serde_json::json!(1u64 << 63), "iterations"),
        ("/scores/miou", serde_json::json!(0.5), "miou"),
        ("/scores/aacc", serde_json::json!(1.0), "aacc"),
        ("/scores/matrix/0/0", serde_json::json!(1u64 << 60), "impossible"),
        ("/scores/matrix/0/0", serde_json::json!(9), "miou"),
        ("/scores/pixels", serde_json::json!(u64::MAX), "pixels"),
        ("/scores/classes/1/iou", serde_json::json!(null), "`b`"),
        ("/scores/ignored_pixels", serde_json::json!(u64::MAX), "ignored"),
        ("/boundary_iou", serde_json::json!(1e300), "boundary_iou"),
        ("/step_ms", serde_json::json!(-1.0), "step_ms"),
        ("/training_s", serde_json::json!(1e300), "training_s"),
        ("/image_ms", serde_json::json!(1e300), "image_ms"),
        ("/parameters", serde_json::json!(u64::MAX), "parameters"),
        ("/shown/0/size/1", serde_json::json!(1u64 << 62), "shown"),
        ("/shown", serde_json::json!({}), "not the result"),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        let error = parse(&bad).unwrap_err().to_string();
        assert!(error.contains(say), "{place}: {error}");
    }
}
