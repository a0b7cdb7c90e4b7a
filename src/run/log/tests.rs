use super::*;
use crate::run::rows::{EvalRow, RescheduleRow, StepRow};

fn step(iteration: u64, loss: f64) -> Row {
    Row::Step(StepRow {
        iteration,
        loss,
        lr: 1e-4,
        images_per_s: Some(12.5),
        wait_share: Some(0.02),
        ..StepRow::default()
    })
}

fn eval(iteration: u64, miou: f64) -> Row {
    Row::Eval(EvalRow { iteration, miou, ..EvalRow::default() })
}

fn log(run: &Path, rows: &[Row]) -> RunLog {
    let mut log = RunLog::create(run).unwrap();
    rows.iter().for_each(|row| log.write(row).unwrap());
    log
}

#[test]
fn rows_come_back() {
    let run = tempfile::tempdir().unwrap();
    let rows = [step(0, 2.0), step(1, 1.5), eval(2, 0.25), step(2, 1.25)];
    log(run.path(), &rows);
    assert_eq!(read(run.path()).unwrap(), rows);
}

#[test]
fn rows_of_earlier_versions_come_back() {
    let run = tempfile::tempdir().unwrap();
    let row = Row::Reschedule(RescheduleRow { iteration: 5, iterations: 80, eval_every: Some(9) });
    log(run.path(), std::slice::from_ref(&row));
    let path = run.path().join(LOG);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("{\"kind\":\"reschedule\"", "{\"kind\":\"bend\"")).unwrap();
    assert_eq!((text.matches("reschedule").count(), read(run.path()).unwrap()), (1, vec![row]));
}

#[test]
fn a_resumed_log_equals_one_never_interrupted() {
    let (straight, resumed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rows = [step(0, 2.0), step(1, 1.5), eval(2, 0.25), step(2, 1.25), step(3, 1.0), eval(4, 0.5)];
    log(straight.path(), &rows);
    log(resumed.path(), &rows[..5]);
    let mut log = resume(resumed.path(), 2);
    rows[3..].iter().for_each(|row| log.write(row).unwrap());
    let bytes = |run: &tempfile::TempDir| std::fs::read(run.path().join(LOG)).unwrap();
    assert_eq!(bytes(&straight), bytes(&resumed));
}

#[test]
fn the_table_has_a_line_an_iteration() {
    let run = tempfile::tempdir().unwrap();
    let iou = BTreeMap::from([("a, b".to_owned(), Some(0.5)), ("c".to_owned(), None)]);
    let evaluated = Row::Eval(EvalRow { iteration: 2, miou: 0.25, iou, ..EvalRow::default() });
    log(run.path(), &[step(0, 2.0), step(1, 9.0), step(1, 1.5), evaluated]);
    write_table(run.path()).unwrap();
    let text = std::fs::read_to_string(run.path().join(TABLE)).unwrap();
    let expected = "iteration,loss,lr,images_per_s,wait_share,mIoU,aAcc,mAcc,\"IoU/a, b\",IoU/c\n\
                    1,2,0.0001,12.5,0.02,,,,,\n2,1.5,0.0001,12.5,0.02,0.25,,,0.5,\n";
    assert_eq!(text, expected);
}

/// Goes on with a run whose evaluations are all noted, and that has no damage.
fn resume(run: &Path, next: u64) -> RunLog {
    RunLog::resume(run, next, next, &mut |note| panic!("{note}")).unwrap().0
}

#[test]
fn a_torn_last_line_is_dropped_and_a_broken_one_moved_aside() {
    let run = tempfile::tempdir().unwrap();
    let path = run.path().join(LOG);
    let good = |iteration| format!("{{\"kind\":\"step\",\"iteration\":{iteration},\"loss\":1,\"lr\":0.1}}\n");
    for torn in ["{\"kind\":\"st", "{\"kind\":\"st\n", "\0\0\0", "\n"] {
        std::fs::write(&path, format!("{}{torn}", good(0))).unwrap();
        assert_eq!(read(run.path()).unwrap().len(), 1, "{torn:?}");
        resume(run.path(), 5).write(&step(5, 1.0)).unwrap();
        assert_eq!(read(run.path()).unwrap().len(), 2, "{torn:?}");
    }
    std::fs::write(&path, format!("{}oops\n{}", good(0), good(1))).unwrap();
    assert_eq!(read(run.path()).unwrap().len(), 2);
    let mut notes = Vec::new();
    RunLog::resume(run.path(), 5, 0, &mut |note| notes.push(note.to_owned())).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), good(0) + &good(1));
    assert_eq!(std::fs::read_to_string(run.path().join(DAMAGED_LOG)).unwrap(), "oops\n");
    assert!(notes.len() == 1 && notes[0].contains("1 of the 3 lines") && notes[0].contains("line 2"), "{notes:?}");
    resume(run.path(), 5);
}

/// A kill may cut the log at any byte. Whatever checkpoint is the last by then, the log ends as if nothing had
/// happened.
#[test]
fn a_cut_at_any_byte_leaves_no_row_twice_and_loses_none() {
    let rows = [step(0, 2.0), step(1, 1.5), eval(2, 0.25), step(2, 1.25), step(3, 1.0), eval(4, 0.5), step(4, 0.5)];
    let straight = tempfile::tempdir().unwrap();
    log(straight.path(), &rows);
    let whole = std::fs::read(straight.path().join(LOG)).unwrap();
    for cut in 0..=whole.len() {
        let written = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        // Checkpoints that there may be: after this many iterations, and evaluated or not.
        for (next, evaluated, needs) in [(0, 0, 0), (1, 0, 1), (2, 0, 2), (2, 2, 3), (4, 2, 5), (4, 4, 6), (5, 4, 7)] {
            if needs > written {
                continue;
            }
            let run = tempfile::tempdir().unwrap();
            std::fs::write(run.path().join(LOG), &whole[..cut]).unwrap();
            let mut log = RunLog::resume(run.path(), next, evaluated, &mut |note| panic!("{note}")).unwrap().0;
            rows[needs..].iter().for_each(|row| log.write(row).unwrap());
            let found = std::fs::read(run.path().join(LOG)).unwrap();
            assert!(found == whole, "cut at {cut}, {next} iterations done, evaluated after {evaluated}");
        }
    }
}

#[test]
fn a_diverged_loss_and_unknown_rows_are_read() {
    let run = tempfile::tempdir().unwrap();
    log(run.path(), &[step(0, f64::NAN), step(1, f64::INFINITY)]);
    assert_eq!(read(run.path()).unwrap().len(), 2);
    let line = "{\"kind\":\"gpu\",\"iteration\":3,\"watts\":300}\n";
    std::fs::write(run.path().join(LOG), line).unwrap();
    assert_eq!(read(run.path()).unwrap(), [Row::Other]);
    resume(run.path(), 0);
    assert_eq!(std::fs::read_to_string(run.path().join(LOG)).unwrap(), line);
}

#[test]
fn no_log_is_no_rows() {
    let run = tempfile::tempdir().unwrap();
    assert_eq!(read(run.path()).unwrap(), []);
    std::fs::write(run.path().join("file"), "").unwrap();
    assert!(RunLog::create(&run.path().join("file")).is_err());
}
