use std::cell::Cell;

use super::*;
use crate::config::Config;

/// A machine on which things take so many seconds, by the time since the beginning.
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
    bends: Vec<Bend>,
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
    let mut keeper = Timekeeper::new(&train, &clock, None, 0).unwrap();
    let mut course = Course::new(&train, &[]);
    let (mut it, mut evaluated) = (0, 0);
    let mut ran = Ran { seconds: 0.0, iterations: 0, bends: Vec::new(), evaluations: Vec::new() };
    loop {
        if course.evaluates(it, evaluated) {
            keeper.skip();
            pass(machine.evaluation * slower(now.get()));
            keeper.evaluated();
            evaluated = it;
            ran.evaluations.push(it);
        }
        if keeper.is_due(it, &course)
            && let Some(bend) = keeper.look(it, &course)
        {
            assert!(!keeper.tell(&bend, course.iterations(it)).is_empty());
            course.bend(bend);
            ran.bends.push(bend);
        }
        if it >= course.iterations(it) {
            break;
        }
        pass((machine.step)(now.get()));
        it += 1;
        keeper.stepped();
        if train.save_every > 0 && it.is_multiple_of(train.save_every) {
            pass(machine.save);
            keeper.saved();
        }
    }
    if evaluated < it {
        pass(machine.evaluation * slower(now.get()));
        ran.evaluations.push(it);
    }
    (ran.seconds, ran.iterations) = (now.get(), it);
    super::super::bend::check(&ran.bends, 1 << 40).unwrap();
    assert!(
        ran.bends.is_empty()
            || (course.progress(it) - 1.0).abs() < 1e-9
            || it == ran.bends[ran.bends.len() - 1].iteration
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
    assert!(ran.bends.len() <= 6, "{ran:?}");
}

#[test]
fn a_run_as_planned_is_left_alone() {
    let ran = simulate(&recipe(1000, "16m40s", ""), &Simulated { step: &|_| STEP, evaluation: 15.0, save: 0.5 });
    assert!(ran.bends.is_empty() && ran.iterations == 1000 && ran.evaluations.len() == 8, "{ran:?}");
}

#[test]
fn the_end_is_kept_when_a_core_is_taken_away() {
    for (factor, at) in [(2.0, 0.5), (2.0, 0.8), (4.0, 0.3), (1.3, 0.1), (2.0, 0.0), (10.0, 0.0), (1.5, 0.9)] {
        let step = |now: f64| if now < at * MINUTES { STEP } else { STEP * factor };
        let ran = simulate(&recipe(1000, "16m40s", ""), &Simulated { step: &step, evaluation: 15.0, save: 0.5 });
        kept(&ran);
        assert!(ran.iterations < 1000 && !ran.bends.is_empty(), "{ran:?}");
    }
}

#[test]
fn a_faster_machine_does_more_only_where_the_recipe_lets_it() {
    let step = |now: f64| if now < 0.5 * MINUTES { STEP } else { STEP / 2.0 };
    let machine = Simulated { step: &step, evaluation: 15.0, save: 0.5 };
    let explicit = simulate(&recipe(1000, "16m40s", ""), &machine);
    assert!(
        explicit.iterations == 1000 && explicit.bends.is_empty() && explicit.seconds < 0.8 * MINUTES,
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
        worst = worst.max(ran.bends.len());
    }
    assert!(worst <= 8, "{worst}");
}

#[test]
fn a_steady_machine_bends_a_run_seldom_however_its_steps_jitter() {
    for (iterations, off) in [(1000, 1.0), (240, 1.0), (1000, 0.7), (240, 1.4)] {
        let mut bends = Vec::new();
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
            bends.push(ran.bends.len());
        }
        let most = bends.iter().max().unwrap();
        assert!(*most <= 7, "{iterations} {off}: {bends:?}");
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
    assert_eq!((ran.iterations, ran.bends.len()), (1, 1));
    // The time that earlier processes took counts.
    let train = Config::parse(&recipe(1000, "1m", ""), "r.toml", &[]).unwrap().train;
    let clock = || Duration::ZERO;
    let mut keeper = Timekeeper::new(&train, &clock, Some(70.0), 400).unwrap();
    let course = Course::new(&train, &[]);
    keeper.looked = (0.0, 0);
    assert!(keeper.is_due(400, &course));
    let bend = keeper.look(400, &course).unwrap();
    assert_eq!((bend.iteration, bend.iterations), (400, 400));
    assert_eq!(keeper.tell(&bend, 1000), "1m are over after 400 of 1000 iterations: stopping with what there is");
}
