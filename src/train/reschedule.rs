//! Changes of a run's length while it trains.
//!
//! A run that has to end at a certain time finds out on the way how many iterations fit. Each change of that number is
//! a reschedule.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// From an iteration on, a run is to end after this many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Reschedule {
    /// The first iteration, from 0, that belongs to the new end.
    pub iteration: u64,
    /// Iterations in all.
    pub iterations: u64,
    /// Iterations between evaluations from there on, where that changes too.
    pub eval_every: Option<u64>,
}

impl TryFrom<Vec<u64>> for Reschedule {
    type Error = String;

    fn try_from(numbers: Vec<u64>) -> std::result::Result<Self, String> {
        let (iteration, iterations, eval_every) = match numbers[..] {
            [iteration, iterations] => (iteration, iterations, None),
            [iteration, iterations, every] => (iteration, iterations, Some(every)),
            _ => {
                return Err("a reschedule is [iteration, iterations] or [iteration, iterations, eval_every]".to_owned());
            }
        };
        Ok(Self { iteration, iterations, eval_every })
    }
}

impl From<Reschedule> for Vec<u64> {
    fn from(Reschedule { iteration, iterations, eval_every }: Reschedule) -> Self {
        [iteration, iterations].into_iter().chain(eval_every).collect()
    }
}

/// Fails on reschedules that no run can follow to an end of at most `most` iterations, and names the first of them.
pub(super) fn check(reschedules: &[Reschedule], most: u64) -> Result<()> {
    let mut before: Option<Reschedule> = None;
    for (at, reschedule) in reschedules.iter().enumerate() {
        let Reschedule { iteration, iterations, eval_every } = *reschedule;
        let refuse =
            |what: String| Err(Error::new(format!("reschedules[{at}] = {:?}: {what}", Vec::from(*reschedule))));
        if iteration == 0 {
            return refuse("a run can be rescheduled after its first iteration at the earliest".to_owned());
        }
        if iterations < iteration || iterations > most {
            return refuse(format!(
                "the run would end after {iterations} iterations, but {iteration} to {most} are possible"
            ));
        }
        if eval_every == Some(0) {
            return refuse("an evaluation every 0 iterations".to_owned());
        }
        if before.is_some_and(|before| iteration <= before.iteration || iteration >= before.iterations) {
            return refuse(
                "it must come after the previous reschedule, and before the end that the previous reschedule sets"
                    .to_owned(),
            );
        }
        before = Some(*reschedule);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn reschedule(iteration: u64, iterations: u64) -> Reschedule {
        Reschedule { iteration, iterations, eval_every: None }
    }

    #[test]
    fn a_recipe_says_its_reschedules_as_numbers() {
        let text = "[train]\niterations = 100\n[train.schedule]\nreschedules = [[10, 80], [20, 90, 30]]";
        let config = Config::parse(text, "r.toml", &[]).unwrap();
        assert_eq!(
            config.train.schedule.reschedules,
            [reschedule(10, 80), Reschedule { eval_every: Some(30), ..reschedule(20, 90) }]
        );
        assert_eq!(Config::parse(&config.to_toml().unwrap(), "r.toml", &[]).unwrap(), config);
        for (reschedules, what) in [
            ("[[10]]", "a reschedule is [iteration, iterations]"),
            ("[[0, 80]]", "after its first iteration"),
            ("[[10, 9]]", "10 to"),
            ("[[10, 80, 0]]", "every 0 iterations"),
            ("[[10, 80], [10, 70]]", "after the previous reschedule"),
            ("[[10, 80], [80, 90]]", "before the end"),
        ] {
            let error =
                Config::parse(&format!("[train.schedule]\nreschedules = {reschedules}"), "r.toml", &[]).unwrap_err();
            assert!(error.to_string().contains(what), "{reschedules}: {error}");
        }
        let both = format!("{}\n[train]\nmax_time = \"5m\"", "[train.schedule]\nbends = [[10, 80]]");
        let error = Config::parse(&both, "r.toml", &[]).unwrap_err();
        assert!(error.to_string().contains("max_time"), "{error}");
    }
}
