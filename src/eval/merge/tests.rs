//! Shards that belong together, and those that cannot be.

use super::*;
use crate::dataset::Split;
use crate::eval::Evaluated;
use crate::image::{IGNORE, Image, Labels};
use crate::infer::Confidence;
use crate::metrics::Confusion;

fn identity() -> Identity {
    Identity {
        model: "00-1".into(),
        classes: Classes { names: vec!["a".into(), "b".into()], colors: vec![[0; 3]; 2] },
        split: Split::Val.to_string(),
        images: 1,
        names: hash(std::iter::empty::<&str>()),
        settings: serde_json::json!({"flip": false}),
        ask: EvalOptions::default(),
    }
}

/// Shards of no image: a dataset of none can be shared out too.
fn part(shard: &str, identity: Identity) -> (PathBuf, ShardFile) {
    let counts = EvalAccumulator::new(2, identity.ask);
    (PathBuf::from(shard.replace('/', "-")), ShardFile::new(shard.parse().unwrap(), identity, counts))
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let fails = |parts: Vec<(PathBuf, ShardFile)>| merge(parts).unwrap_err().to_string();
    let with = |change: fn(&mut Identity)| {
        let mut other = identity();
        change(&mut other);
        part("2/2", other)
    };
    for (other, part_of_message) in [
        (with(|one| one.model = "01-1".into()), "`2-2` is of another model than `1-2`"),
        (with(|one| one.classes.names[0] = "c".into()), "other classes"),
        (with(|one| one.split = Split::Test.to_string()), "another split"),
        (with(|one| one.images = 2), "other images"),
        (with(|one| one.settings = serde_json::json!({"flip": true})), "other inference settings"),
        (with(|one| one.settings = serde_json::json!({"flip": false, "data": {"files": ["00"]}})), "of other data"),
        (with(|one| one.ask.confidence = true), "other options"),
        (part("2/3", identity()), "another division"),
        (part("1/2", identity()), "are both shard 1/2"),
    ] {
        let message = fails(vec![part("1/2", identity()), other]);
        assert!(message.contains(part_of_message), "{message}");
    }
    let message = fails(vec![part("3/4", identity()), part("1/4", identity())]);
    assert!(message.ends_with("missing: 2/4, 4/4"), "{message}");
    let huge = fails(vec![part("1/18446744073709551615", identity())]);
    assert!(huge.contains("missing: 2/"), "{huge}");
    assert!(fails(vec![]).contains("no shards"));
    assert!(merge(vec![part("2/2", identity()), part("1/2", identity())]).is_ok());
}

/// Shards of four images of 12 x 8 pixels with three classes, of which all that can be asked for was counted.
fn counted() -> [ShardFile; 2] {
    let mut identity = identity();
    identity.classes = Classes { names: ["a", "b", "c"].map(String::from).to_vec(), colors: vec![[0; 3]; 3] };
    (identity.images, identity.ask) = (4, EvalOptions { confidence: true, label_issues: 3 });
    identity.names = hash((0..4).map(|index| format!("image-{index}")));
    [1, 2].map(|shard| {
        let shard: Shard = format!("{shard}/2").parse().unwrap();
        let mut counts = EvalAccumulator::new(3, identity.ask);
        for index in shard.range(4) {
            let labels = |ids: Vec<u8>| Labels { width: 12, height: 8, ids };
            let right: Vec<bool> = (0..96).map(|at| at % 12 < 5 + index || at / 12 > 5).collect();
            let truth: Vec<u8> = (0..96).map(|at| if at == 90 { IGNORE } else { u8::from(at % 12 > 3) }).collect();
            let predicted = |at: usize| if right[at] { truth[at].min(1) } else { 0 };
            let confidence = Confidence {
                confidence: (0..96).map(|at| 0.6 + (at % 12) as f32 / 40.0).collect(),
                of_truth: (0..96).map(|at| if right[at] { 0.6 + (at % 12) as f32 / 40.0 } else { 0.05 }).collect(),
            };
            let (truth, prediction) = (labels(truth.clone()), labels((0..96).map(predicted).collect()));
            let mut confusion = Confusion::new(3);
            confusion.add(&truth, &prediction).unwrap();
            counts.add(
                index,
                &Evaluated {
                    done: 1,
                    name: &format!("image-{index}"),
                    image: &Image { width: 12, height: 8, pixels: vec![0; 288] },
                    truth: &truth,
                    prediction: &prediction,
                    confidence: Some(&confidence),
                    confusion: &confusion,
                    took: std::time::Duration::ZERO,
                },
            );
        }
        ShardFile::new(shard, identity.clone(), counts)
    })
}

/// Shards that earlier versions wrote open.
#[test]
fn fields_of_earlier_versions_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.json");
    let [part, other] = counted();
    part.write(&path).unwrap();
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (new, old) in
        [("label_issues\":3", "suspects\":3"), ("confidence\":true", "certainty\":true"), ("counts\":{", "tally\":{")]
    {
        assert_eq!(text.matches(new).count(), 1, "{new}");
        text = text.replace(new, old);
    }
    std::fs::write(&path, text).unwrap();
    let earlier = ShardFile::read(&path).unwrap();
    assert_eq!(earlier, part);
    merge(vec![(path.clone(), earlier), (path, other)]).unwrap();
}

/// Every number of a shard is changed, one at a time, to what it cannot be.
#[test]
fn counts_that_cannot_be_are_refused_with_their_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.json");
    let [part, other] = counted();
    part.write(&path).unwrap();
    assert_eq!(ShardFile::read(&path).unwrap(), part);
    let whole = merge(vec![(path.clone(), part.clone()), (path.clone(), other.clone())]).unwrap().1;
    assert!(whole.evaluation(&part.identity.classes.names).label_issues.unwrap().len() > 1);

    let good = serde_json::to_value(&part).unwrap();
    let mut places = Vec::new();
    numbers(&good["counts"], "/counts".to_owned(), &mut places);
    assert!(places.len() > 150, "{}", places.len());
    let mut refused = 0;
    for place in places {
        let value = good.pointer(&place).unwrap().as_u64().unwrap();
        for bad in ["-1", "0.5", "1e999", "18446744073709551615", "9007199254740993", "null", &(value + 1).to_string()]
        {
            let mut changed = good.clone();
            *changed.pointer_mut(&place).unwrap() = serde_json::json!("HERE");
            std::fs::write(&path, changed.to_string().replace("\"HERE\"", bad)).unwrap();
            // One part of 2^24 or one pixel more may be true: there is nothing that says otherwise.
            let small = bad == (value + 1).to_string();
            let free = ["log_loss", "of_truth", "confidence", "of_label", "bins", "bounds", "boundary", "ignored"];
            match ShardFile::read(&path) {
                Ok(_) => assert!(small && free.iter().any(|name| place.contains(name)), "{place} {bad}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains("shard.json`: ") && text.contains("`counts.") && error.hint().is_some(),
                        "{text}"
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

fn numbers(value: &serde_json::Value, place: String, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Number(_) => found.push(place),
        serde_json::Value::Array(all) => {
            all.iter().enumerate().for_each(|(at, one)| numbers(one, format!("{place}/{at}"), found));
        }
        serde_json::Value::Object(all) => {
            all.iter().for_each(|(key, one)| numbers(one, format!("{place}/{key}"), found));
        }
        _ => {}
    }
}

#[test]
fn shards_whose_parts_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.json");
    let [part, other] = counted();
    let good = serde_json::to_string(&part).unwrap();
    let tail = good.rfind("\"images\":").unwrap();
    for (text, message) in [
        (good.replace("\"label_issues\":3", "\"label_issues\":4"), "`counts.regions.wanted`"),
        (good.replace("\"label_issues\":3", "\"label_issues\":0"), "`counts.regions` does not fit"),
        (good.replacen("\"reliability\":{", "\"reliability\":null,\"x\":{", 1), "`counts.x`: unknown field"),
        (good.replacen("{\"format\":", "[{\"format\":", 1), "invalid type: sequence"),
        (format!("{}\"images\":[]}}}}", &good[..tail]), "`counts.confusion`: class 0"),
        (good.replace("image-2", "image-3"), ""),
    ] {
        std::fs::write(&path, &text).unwrap();
        match ShardFile::read(&path) {
            Err(error) => assert!(!message.is_empty() && error.to_string().contains(message), "{error}"),
            // Names can be told from others only when all are there.
            Ok(renamed) => {
                assert!(message.is_empty(), "{message}");
                let parts = vec![(path.clone(), renamed), (path.clone(), other.clone())];
                assert!(merge(parts).unwrap_err().to_string().contains("the image names in the shards"));
            }
        }
    }
    // No sum of shards runs over.
    let mut large = part.counts.clone();
    let (mut sum, mut doubled) = (Ok(()), 0);
    while sum.is_ok() {
        let mut again = large.clone();
        again.images.clear();
        sum = large.merge(again);
        doubled += 1;
    }
    assert!(doubled < 64 && sum.unwrap_err().to_string().contains("too large"), "{doubled}");
}

#[test]
fn files_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.json");
    let mut none = identity();
    none.images = 0;
    part("1/2", none).1.write(&path).unwrap();
    let read = ShardFile::read(&path).unwrap();
    assert_eq!(read.shard.to_string(), "1/2");
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, message) in [
        ("shard 1", "shard 9", "is not a shard of an evaluation"),
        ("1/2", "3/2", "cannot read the shard"),
        ("\"images\":0", "\"images\":1", "`counts.images` are not the images of shard 1/2"),
        ("[[0,0],[0,0]]", "[[0,0],[0]]", "`counts.confusion`: the confusion matrix is not square"),
        ("\"boundary\":[[0,0,0],[0,0,0]]", "\"boundary\":[[0,0,0]]", "`counts.boundary` counts 1 classes"),
        ("\"a\",\"b\"", "\"a\"", "`identity.classes` has 1 names and 2 colours"),
        ("{", "", "cannot read the shard"),
    ] {
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = ShardFile::read(&path).unwrap_err();
        assert!(error.to_string().contains(message) && error.hint().is_some(), "{error}");
    }
}

#[test]
fn settings_read_back_to_the_last_bit() {
    let mut rng = crate::rng::Rng::new(1, &[]);
    let any = |rng: &mut crate::rng::Rng| f64::from_bits(rng.next_u64());
    let numbers: Vec<f64> = (0..20_000).map(|_| any(&mut rng)).filter(|number| number.is_finite()).collect();
    let mut identity = identity();
    identity.settings = serde_json::json!({ "numbers": numbers });
    let part = part("1/2", identity).1;
    let read: ShardFile = files::parse_json(&serde_json::to_vec(&part).unwrap()).unwrap();
    let bits = |part: &ShardFile| -> Vec<u64> {
        let found = part.identity.settings["numbers"].as_array().unwrap();
        found.iter().map(|number| number.as_f64().unwrap().to_bits()).collect()
    };
    assert_eq!(bits(&read), numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>());
    assert!(numbers.len() > 19_000);
}
