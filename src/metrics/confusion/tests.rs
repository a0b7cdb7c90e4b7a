//! Scores against definitions, hand-made cases and the figures of others.

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/structtoken/pipeline/metrics");

fn labels(width: usize, ids: &[u8]) -> Labels {
    Labels { width, height: ids.len() / width, ids: ids.to_vec() }
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("class {i}")).collect()
}

#[test]
fn scores_follow_the_definitions() {
    let mut confusion = Confusion::new(4);
    confusion.add(&labels(4, &[0, 0, 0, 1, 1, 255, 255, 0]), &labels(4, &[0, 0, 1, 1, 2, 3, 0, 0])).unwrap();
    let scores = confusion.scores(&names(4));
    assert_eq!(scores.matrix, [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]);
    let iou: Vec<_> = scores.classes.iter().map(|class| class.iou).collect();
    assert_eq!(iou, [Some(0.75), Some(1.0 / 3.0), Some(0.0), None]);
    let acc: Vec<_> = scores.classes.iter().map(|class| class.acc).collect();
    assert_eq!(acc, [Some(0.75), Some(0.5), None, None]);
    assert!((scores.miou.unwrap() - (0.75 + 1.0 / 3.0) / 3.0).abs() < 1e-15);
    assert_eq!((scores.macc, scores.aacc), (Some(0.625), Some(4.0 / 6.0)));
    assert_eq!((scores.pixels, scores.ignored_pixels), (6, 2));
    assert_eq!(scores.absent, ["class 2", "class 3"]);
}

/// Figures of `torchmetrics` 1.9 on maps made by the same formulas: `MulticlassJaccardIndex(7, ignore_index=255)` and
/// `MulticlassAccuracy`. Class 4 is in the truth alone, 6 predicted alone, 5 in neither.
#[test]
fn equals_torchmetrics() {
    let (mut truth, mut prediction) = (Vec::new(), Vec::new());
    for i in 0..2000usize {
        let t = (i * i + i) % 11 % 5;
        let p = if i % 3 > 0 { t } else { (3 * i * i + 7 * i + 1) % 13 % 7 };
        truth.push(if i % 17 == 5 { 255 } else { t as u8 });
        prediction.push(match p {
            4 => 6,
            5 => 0,
            p => p as u8,
        });
    }
    let mut confusion = Confusion::new(7);
    confusion.add(&labels(50, &truth), &labels(50, &prediction)).unwrap();
    let scores = confusion.scores(&names(7));
    let close = |ours: Option<f64>, theirs: f64| (ours.unwrap() - theirs).abs() < 1e-6;
    assert!(close(scores.miou, 0.372_589_17) && close(scores.aacc, 0.615_834_24));
    let theirs = [0.528_112_47, 0.654_275_12, 0.585_714_28, 0.467_432_95, 0.0];
    assert!(scores.classes.iter().zip(theirs).all(|(class, iou)| close(class.iou, iou)));
    assert_eq!((scores.classes[5].iou, scores.classes[6].iou), (None, Some(0.0)));
    assert!(close(scores.classes[3].acc, 0.713_450_31) && scores.classes[4].acc == Some(0.0));
    assert_eq!(scores.absent, ["class 5", "class 6"]);
}

#[test]
fn edge_cases_by_hand() {
    let score = |classes: usize, truth: &[u8], prediction: &[u8]| {
        let mut confusion = Confusion::new(classes);
        confusion.add(&labels(truth.len(), truth), &labels(truth.len(), prediction)).unwrap();
        confusion.scores(&names(classes))
    };
    // Everything ignored: no scores, whatever was predicted.
    let ignored = score(3, &[255; 4], &[0, 1, 2, 0]);
    assert_eq!((ignored.miou, ignored.aacc, ignored.pixels, ignored.ignored_pixels), (None, None, 0, 4));
    assert!(ignored.classes.iter().all(|class| class.predicted_pixels == 0 && class.iou.is_none()));
    // One class can only be right.
    let one = score(1, &[0, 0, 255], &[0, 0, 0]);
    assert_eq!((one.miou, one.macc, one.mdice, one.aacc), (Some(1.0), Some(1.0), Some(1.0), Some(1.0)));
    // Nothing right: 0, not missing, for both classes; the third is in neither map and takes no part.
    let wrong = score(3, &[0, 0], &[1, 1]);
    assert_eq!((wrong.miou, wrong.macc, wrong.mdice), (Some(0.0), Some(0.0), Some(0.0)));
    assert_eq!(wrong.classes.iter().map(|class| class.iou).collect::<Vec<_>>(), [Some(0.0), Some(0.0), None]);
    // A class that is only imagined lowers mIoU, but is not part of mAcc.
    let imagined = score(2, &[0, 0, 0, 0], &[0, 0, 0, 1]);
    assert_eq!((imagined.miou, imagined.macc), (Some(0.375), Some(0.75)));
    assert_eq!(imagined.absent, ["class 1"]);
}

#[test]
fn a_matrix_from_a_file_is_checked() {
    let mut confusion = Confusion::new(2);
    confusion.add(&labels(2, &[0, 255]), &labels(2, &[1, 1])).unwrap();
    let text = serde_json::to_string(&confusion).unwrap();
    assert_eq!(text, r#"{"matrix":[[0,1],[0,0]],"ignored":1}"#);
    assert_eq!(serde_json::from_str::<Confusion>(&text).unwrap(), confusion);
    for broken in ["[]", "[[1]", "[[1,2],[3]]", "[[18446744073709551615]]"] {
        assert!(serde_json::from_str::<Confusion>(&format!(r#"{{"matrix":{broken},"ignored":0}}"#)).is_err());
    }
}

#[test]
fn merging_is_adding() {
    let (a, b) = (labels(3, &[0, 1, 255]), labels(3, &[1, 1, 0]));
    let (mut one, mut two) = (Confusion::new(2), Confusion::new(2));
    one.add(&a, &b).unwrap();
    two.add(&b, &b).unwrap();
    let mut both = one.clone();
    both.add(&b, &b).unwrap();
    one.merge(&two);
    assert_eq!(one, both);
}

#[test]
fn hostile_maps_are_refused_and_leave_no_trace() {
    let mut confusion = Confusion::new(2);
    let good = labels(2, &[0, 1, 1, 0]);
    for (truth, prediction, part) in [
        (labels(2, &[0, 1, 2, 0]), good.clone(), "truth holds the id 2 at column 0, row 1"),
        (good.clone(), labels(2, &[0, 1, 1, 255]), "prediction holds the id 255 at column 1, row 1"),
        (good.clone(), labels(4, &[0, 1, 1, 0]), "4 x 1"),
    ] {
        let error = confusion.add(&truth, &prediction).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(confusion, Confusion::new(2));
}

#[test]
fn an_empty_matrix_has_no_scores() {
    let scores = Confusion::new(2).scores(&names(2));
    assert_eq!((scores.miou, scores.macc, scores.aacc, scores.mdice), (None, None, None, None));
    assert!(scores.table().contains("absent"));
}

#[test]
fn json_keeps_everything() {
    let mut confusion = Confusion::new(3);
    confusion.add(&labels(2, &[0, 1]), &labels(2, &[0, 0])).unwrap();
    let scores = confusion.scores(&names(3));
    let text = serde_json::to_string(&scores).unwrap();
    assert!(text.contains(r#""matrix":[[1,0,0],[1,0,0],[0,0,0]]"#) && text.contains(r#""absent":["class 2"]"#));
    assert_eq!(serde_json::from_str::<Scores>(&text).unwrap(), scores);
}

#[test]
fn the_table_is_aligned() {
    let mut confusion = Confusion::new(3);
    confusion.add(&labels(4, &[0, 0, 0, 1]), &labels(4, &[0, 0, 1, 1])).unwrap();
    let names = ["sky", "a class with a name that never seems to end", "road"].map(String::from);
    insta::assert_snapshot!(confusion.scores(&names).table(), @r"
    class                                IoU     Acc    Dice   pixels
    sky                                66.67   66.67   80.00   75.00%
    a class with a name that never …   50.00  100.00   66.67   25.00%
    road                                   -       -       -   absent
    mean                               58.33   83.33   73.33
    all pixels                                 75.00
    ");
}

#[test]
fn matches_the_reference() {
    let json = std::fs::read_to_string(format!("{GOLDEN}.json")).unwrap();
    let bytes = std::fs::read(format!("{GOLDEN}.safetensors")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&json).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let map = |name: &str| labels(50, file.tensor(name).unwrap().data());
    for kind in ["plain", "reduce"] {
        let mut confusion = Confusion::new(6);
        for i in 0..3 {
            let mut truth = map(&format!("gt{i}"));
            if kind == "reduce" {
                // 0 becomes ignored and the others move down by one.
                truth.ids.iter_mut().for_each(|id| *id = if matches!(*id, 0 | 255) { 255 } else { *id - 1 });
            }
            confusion.add(&truth, &map(&format!("pred{i}"))).unwrap();
        }
        let scores = confusion.scores(&names(6));
        let close = |ours: Option<f64>, theirs: &serde_json::Value| match (ours, theirs.as_f64()) {
            (Some(ours), Some(theirs)) => (ours - theirs).abs() < 1e-6,
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        for (c, class) in scores.classes.iter().enumerate() {
            for (name, value) in [("IoU", class.iou), ("Acc", class.acc), ("Dice", class.dice)] {
                assert!(close(value, &golden[kind][name][c]), "{kind} {name} {c}: {value:?}");
            }
            let area = |name: &str| -> f32 {
                let tensor = file.tensor(&format!("{kind}.{name}")).unwrap();
                bytemuck::pod_collect_to_vec::<u8, f32>(tensor.data()).iter().skip(c).step_by(6).sum()
            };
            assert_eq!(class.pixels as f32, area("area_label"));
            assert_eq!(class.predicted_pixels as f32, area("area_pred"));
            assert_eq!(scores.matrix[c][c] as f32, area("area_intersect"));
        }
        let summary = &golden[format!("{kind}_summary")];
        for (name, value) in
            [("mIoU", scores.miou), ("mAcc", scores.macc), ("aAcc", scores.aacc), ("mDice", scores.mdice)]
        {
            assert!(close(value, &summary[name]), "{kind} {name}: {value:?} {}", summary[name]);
        }
    }
}

#[test]
fn scores_that_say_nothing_say_so() {
    let map = |ids: &[u8]| Labels { width: ids.len(), height: 1, ids: ids.to_vec() };
    let warnings = |truth: &[u8], prediction: &[u8]| {
        let mut confusion = Confusion::new(3);
        confusion.add(&map(truth), &map(prediction)).unwrap();
        let scores = confusion.scores(&names(3));
        assert_eq!(scores.table().matches("warning: ").count(), scores.warnings.len());
        let json = serde_json::to_value(&scores).unwrap();
        assert_eq!(json["warnings"].as_array().unwrap().len(), scores.warnings.len());
        scores.warnings
    };
    for (truth, prediction, say) in [
        ([0, 0, 255, 0], [0, 0, 1, 0], "holds only one class"),
        ([2, 2, 2, 2], [0, 1, 2, 0], "holds only one class"),
        ([255; 4], [0; 4], "every pixel of the truth is ignored (4)"),
        ([0, 1, 2, 1], [0; 4], "for every pixel"),
        ([0, 1, 2, 1], [0, 2, 1, 0], "of any of the 3 classes in the truth but `class 0`"),
        ([0, 1, 2, 1], [1, 2, 1, 0], "finds no pixel of any"),
    ] {
        let found = warnings(&truth, &prediction);
        assert!(found.len() == 1 && found[0].contains(say), "{found:?}");
    }
    assert_eq!(warnings(&[0, 1, 2, 1], &[0, 1, 1, 1]), [""; 0]);
    assert_eq!(Confusion::new(3).scores(&names(3)).warnings.len(), 1, "nothing was counted");
    let mut alone = Confusion::new(1);
    alone.add(&map(&[0, 0]), &map(&[0, 0])).unwrap();
    let found = alone.scores(&names(1)).warnings;
    assert!(found.len() == 1 && found[0].contains("is the only class"), "{found:?}");
    // Files of before have none.
    let mut json = serde_json::to_value(Confusion::new(3).scores(&names(3))).unwrap();
    json.as_object_mut().unwrap().remove("warnings");
    assert!(serde_json::from_value::<Scores>(json).unwrap().warnings.is_empty());
}
