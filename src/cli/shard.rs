//! `--shard`, the part of some work that this process does: as passed, or `auto`, from the environment of an array job
//! or MPI.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::{Error, Result};
use crate::shard::Shard;

/// A shard, as an option has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// What the environment says.
    Auto,
    /// This one.
    Given(Shard),
}

impl std::str::FromStr for Chosen {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Given).map_err(|error: Error| {
            let hint = error.hint().unwrap_or_default().to_owned();
            error.with_hint(format!("{hint}, or `--shard auto` in an array job"))
        })
    }
}

/// The number of shards, for all commands that take one.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Count {
    /// Number of shards, where the environment gives only the index of this one
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u64>,
}

/// An environment of array jobs: the variable with the index, the one with the number of tasks if there is one, and the
/// first index.
struct Array {
    index: &'static str,
    count: &'static [&'static str],
    first: &'static [&'static str],
    step: Option<&'static str>,
}

/// In the order in which they are asked.
const ARRAYS: [Array; 7] = [
    Array { index: "JOB_COMPLETION_INDEX", count: &["JOB_COMPLETIONS"], first: &[], step: None },
    Array {
        index: "SLURM_ARRAY_TASK_ID",
        count: &["SLURM_ARRAY_TASK_COUNT"],
        first: &["SLURM_ARRAY_TASK_MIN"],
        step: Some("SLURM_ARRAY_TASK_STEP"),
    },
    Array { index: "AWS_BATCH_JOB_ARRAY_INDEX", count: &["AWS_BATCH_JOB_ARRAY_SIZE"], first: &[], step: None },
    Array { index: "HQ_TASK_ID", count: &[], first: &[], step: None },
    Array { index: "OMPI_COMM_WORLD_RANK", count: &["OMPI_COMM_WORLD_SIZE"], first: &[], step: None },
    Array { index: "PMI_RANK", count: &["PMI_SIZE"], first: &[], step: None },
    Array { index: "PMIX_RANK", count: &["SLURM_NTASKS"], first: &[], step: None },
];

/// How many of them are array jobs, which are meant where no option says anything; the rest are ranks of MPI.
const JOBS: usize = 4;

/// The shard of this process, which is reported; everything where neither an option nor an array job names one.
///
/// # Errors
/// `auto` without an array job, a variable that is not a number, or one whose number of shards nobody states.
pub(crate) fn find(chosen: Option<Chosen>, Count { shards }: Count) -> Result<Shard> {
    if let Some(Chosen::Given(shard)) = chosen {
        if shards.is_some() {
            return Err(Error::new("--shard I/N gives the number of shards, and so does --shards")
                .with_hint("leave out --shards; it is for array jobs that do not state their size"));
        }
        talk!("shard {shard}");
        return Ok(shard);
    }
    let asked = if chosen.is_some() { &ARRAYS[..] } else { &ARRAYS[..JOBS] };
    match (from_environment(asked, shards, &|name| std::env::var(name).ok())?, chosen, shards) {
        (Some((shard, source)), ..) => {
            talk!("shard {shard}, from {source}");
            Ok(shard)
        }
        (None, Some(_), _) => Err(Error::new("--shard auto: this process is not a task of an array job")
            .with_hint(format!("pass the shard explicitly: `--shard 1/4`; known are {}", names()))),
        (None, None, None | Some(1)) => Ok(Shard::ALL),
        (None, None, Some(_)) => {
            Err(Error::new("--shards gives the number of shards, but nothing gives the index of this one")
                .with_hint("pass `--shard 1/4`; --shards is for array jobs that do not state their size"))
        }
    }
}

/// The file of a shard, for instance `example`: its own, where the same command runs for all of them.
///
/// # Errors
/// All shards would have the same.
pub(crate) fn file_of(out: &Path, shard: Option<(Chosen, Shard)>, example: &str) -> Result<PathBuf> {
    const PLACE: &str = "{shard}";
    let Some((chosen, shard)) = shard else { return Ok(out.to_owned()) };
    let Some(text) = out.to_str().filter(|text| text.contains(PLACE)) else {
        return match chosen {
            Chosen::Given(_) => Ok(out.to_owned()),
            Chosen::Auto => Err(Error::new(format!("all shards would be written to `{}`", out.display()))
                .with_hint(format!("put `{{shard}}` into the name: `--out {example}`"))),
        };
    };
    Ok(text.replace(PLACE, &shard.to_string().replace('/', "-of-")).into())
}

fn names() -> String {
    ARRAYS.iter().map(|array| array.index).collect::<Vec<_>>().join(", ")
}

/// The shard that the environment names, and the variable that does.
fn from_environment(
    arrays: &[Array],
    shards: Option<u64>,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(Shard, &'static str)>> {
    let number = |name: &str| -> Result<Option<u64>> {
        let Some(text) = get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Error::new(format!("{name} is `{text}`, which is not a number"))
                .with_hint("pass the shard explicitly: `--shard 1/4`")
        })
    };
    let first_of = |names: &[&str]| -> Result<Option<u64>> {
        for name in names {
            if let Some(found) = number(name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    };
    for Array { index: source, count, first, step } in arrays {
        let Some(id) = number(source)? else { continue };
        let step = step.map_or(Ok(None), number)?.unwrap_or(1).max(1);
        let index = id.saturating_sub(first_of(first)?.unwrap_or(0)) / step;
        let count = shards.map_or_else(|| first_of(count), |count| Ok(Some(count)))?.ok_or_else(|| {
            Error::new(format!("{source} gives the index of this shard, but not how many there are"))
                .with_hint("add `--shards N`, or pass `--shard I/N` (`--shard 1/1` for all of the work)")
        })?;
        return Ok(Some((Shard::new(index, count)?, source)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        variables: &[(&str, &str)],
        shards: Option<u64>,
    ) -> std::result::Result<Option<(String, &'static str)>, String> {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        match from_environment(&ARRAYS, shards, &get) {
            Ok(found) => Ok(found.map(|(shard, source)| (shard.to_string(), source))),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_kind_of_array_is_known() {
        for (variables, shards, expected) in [
            (&[("JOB_COMPLETION_INDEX", "1"), ("JOB_COMPLETIONS", "4")][..], None, "2/4"),
            (&[("JOB_COMPLETION_INDEX", "1")], Some(3), "2/3"),
            (
                &[("SLURM_ARRAY_TASK_ID", "8"), ("SLURM_ARRAY_TASK_MIN", "7"), ("SLURM_ARRAY_TASK_COUNT", "2")],
                None,
                "2/2",
            ),
            (
                &[
                    ("SLURM_ARRAY_TASK_ID", "14"),
                    ("SLURM_ARRAY_TASK_MIN", "10"),
                    ("SLURM_ARRAY_TASK_STEP", "2"),
                    ("SLURM_ARRAY_TASK_COUNT", "5"),
                ],
                None,
                "3/5",
            ),
            (&[("AWS_BATCH_JOB_ARRAY_INDEX", "0"), ("AWS_BATCH_JOB_ARRAY_SIZE", "10")], None, "1/10"),
            (&[("HQ_TASK_ID", "6")], Some(7), "7/7"),
            (&[("OMPI_COMM_WORLD_RANK", "3"), ("OMPI_COMM_WORLD_SIZE", "4")], None, "4/4"),
            (&[("PMI_RANK", "0"), ("PMI_SIZE", "2")], None, "1/2"),
            (&[("PMIX_RANK", "1"), ("SLURM_NTASKS", "2")], None, "2/2"),
        ] {
            assert_eq!(found(variables, shards), Ok(Some((expected.to_owned(), variables[0].0))), "{variables:?}");
        }
        let both = [
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("SLURM_ARRAY_TASK_ID", "0"),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
        ];
        assert_eq!(found(&both, None), Ok(Some(("1/2".to_owned(), "SLURM_ARRAY_TASK_ID"))));
        assert_eq!(found(&[("HQ_TASK_ID", "")], None), Ok(None));
        assert!(found(&[("HQ_TASK_ID", "6")], None).unwrap_err().contains("not how many there are"));
        assert!(found(&[("HQ_TASK_ID", "6")], Some(6)).unwrap_err().contains("no shard 7 of 6"));
        assert!(found(&[("PMI_RANK", "x")], None).unwrap_err().contains("`x`, which is not a number"));
    }
}
