use super::*;
use crate::train::Reschedule;

/// As versions without checksums of their own text wrote it.
fn earlier(state: &RunState) -> Vec<u8> {
    let mut fields = serde_json::to_value(state).unwrap();
    fields["crc32"] = checksum(fields.to_string().as_bytes()).into();
    serde_json::to_vec_pretty(&fields).unwrap()
}

#[test]
fn states_of_this_and_earlier_versions_open_whatever_their_score() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(STATE);
    let mut rng = crate::rng::Rng::new(45, &[]);
    for round in 0..3000u64 {
        let miou = rng.next_u64() as f64 / u64::MAX as f64;
        let state = RunState {
            iteration: round,
            optimizer_steps: round,
            best: Some((round, miou)),
            evaluated: round,
            ..RunState::default()
        };
        assert_eq!(earlier(&state), seal(&state).unwrap(), "one form for all");
        std::fs::write(&path, earlier(&state)).unwrap();
        assert_eq!(load_state(&path, 3000).unwrap(), state, "{miou}");
    }
    std::fs::write(&path, r#"{"iteration": 3, "optimizer_steps": 3, "best": null}"#).unwrap();
    assert_eq!(load_state(&path, 3).unwrap().iteration, 3, "before there were checksums");
}

fn text_of(state: &RunState) -> String {
    serde_json::to_string(state).unwrap()
}

fn reschedules(all: &[[u64; 2]]) -> Vec<Reschedule> {
    all.iter().map(|reschedule| reschedule.to_vec().try_into().unwrap()).collect()
}

#[test]
fn reschedules_and_time_are_in_the_state_of_a_run_that_has_them() {
    let plain = RunState { iteration: 30, optimizer_steps: 30, ..RunState::default() };
    let text = String::from_utf8(seal(&plain).unwrap()).unwrap();
    assert!(!text.contains("reschedules") && !text.contains("elapsed"), "{text}");
    let rescheduled = RunState { reschedules: reschedules(&[[10, 50], [20, 40]]), elapsed_s: Some(1.25), ..plain };
    assert_eq!(parse_state(&seal(&rescheduled).unwrap(), 60).unwrap(), rescheduled);
    // As earlier versions called them.
    let earlier = text_of(&rescheduled).replace("\"reschedules\"", "\"bends\"");
    assert_eq!(parse_state(earlier.as_bytes(), 60).unwrap(), rescheduled);
    // As many iterations as the last reschedule says, and as the recipe allows.
    assert!(parse_state(&seal(&rescheduled).unwrap(), 45).unwrap_err().to_string().starts_with("reschedules[0]"));
}

#[test]
fn states_that_cannot_be_are_refused_with_their_field() {
    let state = RunState {
        iteration: 30,
        optimizer_steps: 30,
        best: Some((20, 0.5)),
        evaluated: 20,
        stale: 1,
        ..RunState::default()
    };
    state.check(60).unwrap();
    type Change = fn(&mut RunState);
    let changes: [(&str, Change); 12] = [
        ("iteration", |state| state.iteration = 1 << 63),
        ("optimizer_steps", |state| state.optimizer_steps = u64::MAX),
        ("evaluated", |state| state.evaluated = 31),
        ("stale", |state| state.stale = 1 << 60),
        ("best[0]", |state| state.best = Some((31, 0.5))),
        ("best[1]", |state| state.best = Some((20, -0.5))),
        ("best[1]", |state| state.best = Some((20, 1e300))),
        ("best[1]", |state| state.best = Some((20, f64::NAN))),
        ("reschedules", |state| state.reschedules = reschedules(&[[31, 60]])),
        ("reschedules", |state| state.reschedules = reschedules(&[[10, 20]])),
        ("reschedules[1]", |state| state.reschedules = reschedules(&[[10, 50], [5, 60]])),
        ("elapsed_s", |state| state.elapsed_s = Some(-1.0)),
    ];
    for (field, change) in changes {
        let mut state = state.clone();
        change(&mut state);
        let error = state.check(60).unwrap_err().to_string();
        assert!(error.starts_with(field), "{field}: {error}");
    }
}

/// What another parser reads one unit in the last place off is still what was written.
#[test]
fn the_checksum_is_of_the_digits_that_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(STATE);
    let compact = r#"{"iteration":45,"optimizer_steps":45,"best":[30,0.30000000000000004441],"evaluated":30,"stale":0"#;
    let sum = checksum(format!("{compact}}}").as_bytes());
    let spread = compact.replace(',', ",\n  ").replace(':', ": ");
    fs::write(&path, format!("{spread},\n  \"crc32\": \"{sum}\"\n}}")).unwrap();
    assert_eq!(load_state(&path, 60).unwrap().best, Some((30, 0.300_000_000_000_000_04)));
    fs::write(&path, format!("{},\n  \"crc32\": \"{sum}\"\n}}", spread.replace("4441", "4442"))).unwrap();
    assert!(load_state(&path, 60).unwrap_err().to_string().contains("checksum differs"));
    fs::write(&path, format!("{spread},\n  \"crc33\": \"{sum}\"\n}}")).unwrap();
    load_state(&path, 60).unwrap_err();
    for text in [r#"{"iteration": 5.5, "optimizer_steps": 5}"#, "[5, 5, null, 0, 0]", "{\"iteration\": 5}"] {
        fs::write(&path, text).unwrap();
        assert!(load_state(&path, 60).unwrap_err().to_string().contains("state.json"), "{text}");
    }
}
