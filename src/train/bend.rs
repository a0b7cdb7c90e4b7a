//! Where a run changes its length while it goes.
//!
//! A run that has to end at a certain time finds out on the way how many iterations fit. Each time it decides otherwise than
//! before, that is a bend.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// From an iteration on, a run is to end after so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Bend {
    /// The first iteration, from 0, that belongs to the new end.
    pub iteration: u64,
    /// Iterations in all.
    pub iterations: u64,
    /// Iterations between evaluations from there on, where that changes too.
    pub eval_every: Option<u64>,
}

impl TryFrom<Vec<u64>> for Bend {
    type Error = String;

    fn try_from(numbers: Vec<u64>) -> std::result::Result<Self, String> {
        let (iteration, iterations, eval_every) = match numbers[..] {
            [iteration, iterations] => (iteration, iterations, None),
            [iteration, iterations, every] => (iteration, iterations, Some(every)),
            _ => return Err("a bend is [iteration, iterations] or [iteration, iterations, eval_every]".to_owned()),
        };
        Ok(Self { iteration, iterations, eval_every })
    }
}

impl From<Bend> for Vec<u64> {
    fn from(Bend { iteration, iterations, eval_every }: Bend) -> Self {
        [iteration, iterations].into_iter().chain(eval_every).collect()
    }
}

/// Fails on bends that no run can follow, one after the other, to an end of at most `most` iterations; naming the bend.
pub(super) fn check(bends: &[Bend], most: u64) -> Result<()> {
    let mut before: Option<Bend> = None;
    for (at, bend) in bends.iter().enumerate() {
        let Bend { iteration, iterations, eval_every } = *bend;
        let refuse = |what: String| Err(Error::new(format!("bends[{at}] = {:?}: {what}", Vec::from(*bend))));
        if iteration == 0 {
            return refuse("a run can bend after its first iteration at the earliest".to_owned());
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
                "it must come after the previous bend, and before the end that the previous bend sets".to_owned(),
            );
        }
        before = Some(*bend);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn bend(iteration: u64, iterations: u64) -> Bend {
        Bend { iteration, iterations, eval_every: None }
    }

    #[test]
    fn a_recipe_says_its_bends_as_numbers() {
        let text = "[train]\niterations = 100\n[train.schedule]\nbends = [[10, 80], [20, 90, 30]]";
        let config = Config::parse(text, "r.toml", &[]).unwrap();
        assert_eq!(config.train.schedule.bends, [bend(10, 80), Bend { eval_every: Some(30), ..bend(20, 90) }]);
        assert_eq!(Config::parse(&config.to_toml().unwrap(), "r.toml", &[]).unwrap(), config);
        for (bends, what) in [
            ("[[10]]", "a bend is [iteration, iterations]"),
            ("[[0, 80]]", "after its first iteration"),
            ("[[10, 9]]", "10 to"),
            ("[[10, 80, 0]]", "every 0 iterations"),
            ("[[10, 80], [10, 70]]", "after the previous bend"),
            ("[[10, 80], [80, 90]]", "before the end"),
        ] {
            let error = Config::parse(&format!("[train.schedule]\nbends = {bends}"), "r.toml", &[]).unwrap_err();
            assert!(error.to_string().contains(what), "{bends}: {error}");
        }
        let both = format!("{}\n[train]\nmax_time = \"5m\"", "[train.schedule]\nbends = [[10, 80]]");
        let error = Config::parse(&both, "r.toml", &[]).unwrap_err();
        assert!(error.to_string().contains("max_time"), "{error}");
    }
}
