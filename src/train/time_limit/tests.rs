use std::cell::Cell;

use super::*;
use crate::config::Config;

/// A machine on which things take this many seconds, by the time since the beginning.
struct Simulated<'a> {
    step: &'a dyn Fn(f64) -> f64,
    evaluation: f64,
    save: f64,
}

/// How a simulated run went.
#[derive(Debug)]
struct Ran {
    seconds: f64,
    iterations: u64,
    reschedules: Vec<Reschedule>,
    evaluations: Vec<u64>,
}

/// The loop of a run without the training.
fn simulate(recipe: &str, machine: &Simulated) -> Ran {
    let train = Config::parse(recipe, "r.toml", &[]).unwrap().train;
    let now = Cell::new(0.0);
    let clock = || Duration::from_secs_f64(now.get());
    let pass = |seconds: f64| now.set(now.get() + seconds);
    // What is done beside steps slows down as they do; it lasts as long as many, whose jitter is less than that of one.
    let many = |now: f64| (0..16).map(|_| (machine.step)(now)).sum::<f64>();
    let slower = |now: f64| many(now) / many(0.0);
    let mut time_limit = TimeLimit::new(&train, &clock, None, 0).unwrap();
    let mut progress = RunProgress::new(&train, &[]);
    let (mut it, mut evaluated) = (0, 0);
    let mut ran = Ran { seconds: 0.0, iterations: 0, reschedules: Vec::new(), evaluations: Vec::new() };
    loop {
        if progress.evaluates(it, evaluated) {
            time_limit.skip();
            pass(machine.evaluation * slower(now.get()));
            time_limit.evaluated();
            evaluated = it;
            ran.evaluations.push(it);
        }
        if time_limit.is_due(it, &progress)
            && let Some(reschedule) = time_limit.check(it, &progress)
        {
            assert!(!time_limit.describe(&reschedule, progress.iterations(it)).is_empty());
            progress.reschedule(reschedule);
            ran.reschedules.push(reschedule);
        }
        if it >= progress.iterations(it) {
            break;
        }
        pass((machine.step)(now.get()));
        it += 1;
        time_limit.iteration_done();
        if train.save_every > 0 && it.is_multiple_of(train.save_every) {
            pass(machine.save);
            time_limit.checkpoint_done();
        }
    }
    if evaluated < it {
        pass(machine.evaluation * slower(now.get()));
        ran.evaluations.push(it);
    }
    (ran.seconds, ran.iterations) = (now.get(), it);
    super::super::reschedule::check(&ran.reschedules, 1 << 40).unwrap();
    assert!(
        ran.reschedules.is_empty()
            || (progress.progress(it) - 1.0).abs() < 1e-9
            || it == ran.reschedules[ran.reschedules.len() - 1].iteration
    );
    ran
}

fn recipe(iterations: u64, time: &str, more: &str) -> String {
    let every = iterations / 8;
    format!(
        "[train]\niterations = {iterations}\nmax_time = \"{time}\"\neval_every = {every}\nsave_every = {every}\n{more}"
    )
}

/// In 1000 s: a thousand steps of 0.85 s, eight evaluations of 15 s.
const STEP: f64 = 0.85;
const MINUTES: f64 = 1000.0;

fn kept(ran: &Ran) {
    assert!((0.93..=1.0).contains(&(ran.seconds / MINUTES)), "{ran:?}");
    assert!(ran.reschedules.len() <= 6, "{ran:?}");
}

#[test]
fn a_run_as_planned_is_left_alone() {
    let ran = simulate(&recipe(1000, "16m40s", ""), &Simulated { step: &|_| STEP, evaluation: 15.0, save: 0.5 });
    assert!(ran.reschedules.is_empty() && ran.iterations == 1000 && ran.evaluations.len() == 8, "{ran:?}");
}

#[test]
fn the_end_is_kept_when_a_core_is_taken_away() {
    for (factor, at) in [(2.0, 0.5), (2.0, 0.8), (4.0, 0.3), (1.3, 0.1), (2.0, 0.0), (10.0, 0.0), (1.5, 0.9)] {
        let step = |now: f64| if now < at * MINUTES { STEP } else { STEP * factor };
        let ran = simulate(&recipe(1000, "16m40s", ""), &Simulated { step: &step, evaluation: 15.0, save: 0.5 });
        kept(&ran);
        assert!(ran.iterations < 1000 && !ran.reschedules.is_empty(), "{ran:?}");
    }
}

#[test]
fn a_faster_machine_does_more_only_where_the_recipe_lets_it() {
    let step = |now: f64| if now < 0.5 * MINUTES { STEP } else { STEP / 2.0 };
    let machine = Simulated { step: &step, evaluation: 15.0, save: 0.5 };
    let explicit = simulate(&recipe(1000, "16m40s", ""), &machine);
    assert!(
        explicit.iterations == 1000 && explicit.reschedules.is_empty() && explicit.seconds < 0.8 * MINUTES,
        "{explicit:?}"
    );
    let planned = simulate(&recipe(1000, "16m40s", "max_iterations = 2000"), &machine);
    kept(&planned);
    assert!((1300..1600).contains(&planned.iterations), "{planned:?}");
    let step = |_: f64| STEP / 10.0;
    let most = simulate(&recipe(1000, "16m40s", "max_iterations = 2000"), &Simulated { step: &step, ..machine });
    assert!(most.iterations == 2000 && most.seconds < 0.6 * MINUTES, "{most:?}");
    // Slow at first, as fast as thought later: all of the recipe, and no more.
    let step = |now: f64| if now < 0.02 * MINUTES { 2.0 * STEP } else { 0.8 * STEP };
    let again = simulate(&recipe(1000, "16m40s", ""), &Simulated { step: &step, evaluation: 15.0, save: 0.5 });
    assert_eq!(again.iterations, 1000, "{again:?}");
}

#[test]
fn noise_is_not_chased() {
    let mut worst = 0;
    for seed in 0..20 {
        let rng = std::cell::RefCell::new(crate::rng::Rng::new(seed, &[]));
        // A busy neighbour comes and goes, and now and then everything stands still.
        let step = |now: f64| {
            let busy = ((now / 40.0) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 62 == seed % 4;
            let noise = 0.8 + 0.4 * f64::from(rng.borrow_mut().uniform());
            let stall = if rng.borrow_mut().uniform() < 0.002 { 8.0 } else { 0.0 };
            noise * STEP * if busy { 1.6 } else { 1.0 } + stall
        };
        let ran = simulate(
            &recipe(1000, "16m40s", "max_iterations = 2000"),
            &Simulated { step: &step, evaluation: 15.0, save: 0.5 },
        );
        assert!((0.93..=1.02).contains(&(ran.seconds / MINUTES)), "{seed}: {ran:?}");
        worst = worst.max(ran.reschedules.len());
    }
    assert!(worst <= 8, "{worst}");
}

#[test]
fn a_steady_machine_reschedules_a_run_seldom_however_its_steps_jitter() {
    for (iterations, off) in [(1000, 1.0), (240, 1.0), (1000, 0.7), (240, 1.4)] {
        let mut reschedules = Vec::new();
        for seed in 0..30 {
            let rng = std::cell::RefCell::new(crate::rng::Rng::new(seed, &[]));
            // 40 % up and down, and not as planned.
            let step = |_: f64| {
                let jitter = 0.6 + 0.8 * f64::from(rng.borrow_mut().uniform());
                jitter * off * STEP * 1000.0 / iterations as f64
            };
            let ran = simulate(
                &recipe(iterations, "16m40s", &format!("max_iterations = {}", 2 * iterations)),
                &Simulated { step: &step, evaluation: 15.0, save: 0.5 },
            );
            assert!((0.94..=1.0).contains(&(ran.seconds / MINUTES)), "{seed}: {ran:?}");
            reschedules.push(ran.reschedules.len());
        }
        let most = reschedules.iter().max().unwrap();
        assert!(*most <= 7, "{iterations} {off}: {reschedules:?}");
    }
}

#[test]
fn evaluations_that_take_long_are_made_seldom() {
    let ran = simulate(&recipe(1000, "16m40s", ""), &Simulated { step: &|_| STEP, evaluation: 90.0, save: 0.5 });
    let share = 90.0 * ran.evaluations.len() as f64 / ran.seconds;
    assert!(ran.seconds <= MINUTES && ran.evaluations.len() < 8 && share < 0.4, "{share} {ran:?}");
    // A run that is a tenth of what was planned is evaluated in between all the same.
    let ran = simulate(&recipe(1000, "16m40s", ""), &Simulated { step: &|_| 10.0 * STEP, evaluation: 5.0, save: 0.5 });
    kept(&ran);
    assert!(ran.evaluations.len() >= 5, "{ran:?}");
}

#[test]
fn what_does_not_fit_at_all_ends_with_what_there_is() {
    let ran = simulate(&recipe(1000, "1m", ""), &Simulated { step: &|_| 45.0, evaluation: 5.0, save: 0.5 });
    assert!(ran.iterations <= 2 && ran.iterations > 0, "{ran:?}");
    let ran = simulate(&recipe(1000, "1m", ""), &Simulated { step: &|_| 500.0, evaluation: 5.0, save: 0.5 });
    assert_eq!((ran.iterations, ran.reschedules.len()), (1, 1));
    // The time that earlier processes took counts.
    let train = Config::parse(&recipe(1000, "1m", ""), "r.toml", &[]).unwrap().train;
    let clock = || Duration::ZERO;
    let mut time_limit = TimeLimit::new(&train, &clock, Some(70.0), 400).unwrap();
    let progress = RunProgress::new(&train, &[]);
    time_limit.last_check = (0.0, 0);
    assert!(time_limit.is_due(400, &progress));
    let reschedule = time_limit.check(400, &progress).unwrap();
    assert_eq!((reschedule.iteration, reschedule.iterations), (400, 400));
    assert_eq!(
        time_limit.describe(&reschedule, 1000),
        "the time of 1m has run out after 400 of 1000 iterations: stopping here"
    );
}
