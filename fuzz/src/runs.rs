//! The files of runs, each as a function of bytes.

use std::path::Path;

use structtoken::config::Config;
use structtoken::eval::merge::{ShardFile, merge};
use structtoken::metrics::Scores;
use structtoken::run::checkpoint::parse_state;
use structtoken::run::log;
use structtoken::run::manifest;
use structtoken::sweep::compare::ComparePlan;
use structtoken::sweep::compare::run::CompareOutcome;
use structtoken::sweep::repeat::Repeat;

/// A recipe.
pub fn recipe_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = Config::parse(text, "fuzz.toml", &[]) {
        let again = Config::parse(&config.to_toml().unwrap(), "again.toml", &[]).unwrap();
        assert_eq!(again, config);
        // Whatever sizes a recipe may have, they can be counted.
        let features = config.model.backbone.features();
        let image = (features.grid.0 * features.stride(), features.grid.1 * features.stride());
        config.model.macs(255, image).iter().map(|cost| cost.macs).sum::<u64>();
        config.model.activations(255, (config.data.augment.crop[0], config.data.augment.crop[1]));
    }
}

/// Where a run stands.
pub fn state_json(bytes: &[u8]) {
    if let Ok(state) = parse_state(bytes, 1000) {
        assert!(state.iteration <= 1000 && state.best.is_none_or(|(_, miou)| (0.0..=1.0).contains(&miou)));
    }
}

/// The log of a run, and its curves.
pub fn run_log(bytes: &[u8]) {
    structtoken::report::curves::curves(&log::parse(bytes));
}

/// With what a run was made.
pub fn manifest_json(bytes: &[u8]) {
    manifest::parse(bytes).ok();
}

/// A shard of an evaluation; all that is told of it.
pub fn shard_json(bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let Ok(part) = ShardFile::read(file.path()) else { return };
    if let Ok((identity, tally)) = merge(vec![(file.path().to_owned(), part)]) {
        let found = tally.evaluation(&identity.classes.names);
        serde_json::to_string(&found).unwrap();
        found.text();
    }
}

/// The plan of a comparison.
pub fn compare_plan(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(plan) = ComparePlan::parse(text, Path::new("fuzz.toml")) {
        plan.runs().iter().for_each(|run| _ = plan.config(run, 7).unwrap());
    }
}

/// What a run of a comparison left, and scores alone.
pub fn result_json(bytes: &[u8]) {
    if let Ok(outcome) = CompareOutcome::parse(bytes, None) {
        outcome.scores.table();
    }
    if let Ok(scores) = serde_json::from_slice::<Scores>(bytes) {
        scores.check().ok();
    }
}

/// What several runs are.
pub fn repeat_json(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("repeat.json"), bytes).unwrap();
    Repeat::read(folder.path()).ok();
}
