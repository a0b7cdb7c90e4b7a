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

/// An environment of array jobs: the variable with the index, which counts from 0, and the one with the number of tasks
/// if there is one.
struct Array {
    index: &'static str,
    count: Option<&'static str>,
    /// Those with the smallest and the largest index and the step, where any indices may be started.
    bounds: Option<[&'static str; 3]>,
}

/// In the order in which they are asked.
const ARRAYS: [Array; 7] = [
    Array { index: "JOB_COMPLETION_INDEX", count: Some("JOB_COMPLETIONS"), bounds: None },
    Array {
        index: "SLURM_ARRAY_TASK_ID",
        count: Some("SLURM_ARRAY_TASK_COUNT"),
        bounds: Some(["SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"]),
    },
    Array { index: "AWS_BATCH_JOB_ARRAY_INDEX", count: Some("AWS_BATCH_JOB_ARRAY_SIZE"), bounds: None },
    Array { index: "HQ_TASK_ID", count: None, bounds: None },
    Array { index: "OMPI_COMM_WORLD_RANK", count: Some("OMPI_COMM_WORLD_SIZE"), bounds: None },
    Array { index: "PMI_RANK", count: Some("PMI_SIZE"), bounds: None },
    Array { index: "PMIX_RANK", count: Some("SLURM_NTASKS"), bounds: None },
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
            return Err(Error::usage("--shard I/N gives the number of shards, and so does --shards")
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
        (None, Some(_), _) => Err(Error::usage("--shard auto: this process is not a task of an array job")
            .with_hint(format!("pass the shard explicitly: `--shard 1/4`; known are {}", names()))),
        (None, None, None | Some(1)) => Ok(Shard::ALL),
        (None, None, Some(_)) => {
            Err(Error::usage("--shards gives the number of shards, but nothing gives the index of this one")
                .with_hint("pass `--shard 1/4`; --shards is for array jobs that do not state their size"))
        }
    }
}

/// Fails where the number of shards is stated, and nothing asks for one.
pub(crate) fn check(chosen: Option<Chosen>, Count { shards }: Count) -> Result<()> {
    match (chosen, shards) {
        (None, Some(_)) => {
            Err(Error::usage("--shards is for --shard auto").with_hint("add `--shard auto`, or leave out --shards"))
        }
        _ => Ok(()),
    }
}

/// What stands for the shard in the name of its file.
pub(crate) const PLACE: &str = "{shard}";

/// The file of a shard, for instance `example`: its own, where the same command runs for all of them.
///
/// # Errors
/// All shards would have the same, or the name is meant for a shard and there is none.
pub(crate) fn file_of(out: &Path, shard: Option<(Chosen, Shard)>, example: &str) -> Result<PathBuf> {
    let text = out.to_str().filter(|text| text.contains(PLACE));
    match (shard, text) {
        (Some((_, shard)), Some(text)) => Ok(text.replace(PLACE, &shard.to_string().replace('/', "-of-")).into()),
        (Some((Chosen::Given(_), _)) | None, None) => Ok(out.to_owned()),
        (Some((Chosen::Auto, _)), None) => {
            Err(Error::usage(format!("all shards would be written to `{}`", out.display()))
                .with_hint(format!("put `{PLACE}` into the name: `--out {example}`")))
        }
        (None, Some(text)) => Err(Error::usage(format!("`{text}` names the file of a shard, and there is no --shard"))
            .with_hint(format!("add `--shard auto` or `--shard 1/4`, or take `{PLACE}` out of the name"))),
    }
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
    for array in arrays {
        let Some(id) = number(array.index)? else { continue };
        let stated = array.count.map_or(Ok(None), &number)?;
        let count = match (shards, stated) {
            (Some(shards), _) => {
                agree(array, (id, shards), stated, &number)?;
                shards
            }
            (None, Some(stated)) => {
                is_whole(array, (id, stated), &number)?;
                stated
            }
            (None, None) => {
                return Err(Error::new(format!(
                    "{} gives the index of this shard, but not how many there are",
                    array.index
                ))
                .with_hint("add `--shards N`, or pass `--shard I/N` (`--shard 1/1` for all of the work)"));
            }
        };
        return Ok(Some((Shard::new(id, count)?, array.index)));
    }
    Ok(None)
}

/// A variable's number.
type Number<'a> = &'a dyn Fn(&str) -> Result<Option<u64>>;

/// Whether the task `id` of an array is one of `shards` that an option states, and these are not contradicted.
///
/// # Errors
/// An index beyond them, or an array of another number of tasks than shards.
fn agree(array: &Array, (id, shards): (u64, u64), stated: Option<u64>, number: Number) -> Result<()> {
    let from_zero = format!("of {shards} shards the tasks count from 0 to {}", shards.saturating_sub(1));
    let beyond = |name: &str, value: u64| {
        Err(Error::new(format!("{name} is {value}, and {from_zero} (--shards {shards})"))
            .with_hint(format!("start the tasks 0-{}, or state their number with --shards", shards.saturating_sub(1))))
    };
    if id >= shards {
        return beyond(array.index, id);
    }
    let (Some(name), Some(stated)) = (array.count, stated) else { return Ok(()) };
    let Some([_, last, _]) = array.bounds else {
        return match stated == shards {
            true => Ok(()),
            false => Err(Error::new(format!("{name} is {stated}, and --shards is {shards}"))
                .with_hint(format!("leave out --shards, or start {shards} tasks"))),
        };
    };
    match number(last)? {
        Some(most) if most >= shards => return beyond(last, most),
        _ => {}
    }
    if stated < shards {
        talk!("note: this array has {stated} tasks ({name}), which do {stated} of the {shards} shards (--shards)");
    }
    Ok(())
}

/// Fails where the tasks of an array that states their number are some of a larger one: which shards those of that one
/// were is then not known.
fn is_whole(array: &Array, (id, count): (u64, u64), number: Number) -> Result<()> {
    let Some([first, last, step]) = array.bounds else { return Ok(()) };
    let refuse = |what: String| {
        Err(Error::new(format!("--shard auto: the tasks are not 0 to {}: {what}", count.saturating_sub(1))).with_hint(
            format!(
                "number them from 0, as by --array=0-63; or to do some shards of such an array again, state how many it has, \
                 as by --shards 64: then {} counts from 0",
                array.index
            ),
        ))
    };
    match (number(first)?, number(last)?, number(step)?) {
        (Some(first_is @ 1..), ..) => refuse(format!("{first} is {first_is}")),
        (.., Some(step_is @ 2..)) => refuse(format!("{step} is {step_is}")),
        (_, Some(last_is), _) if last_is.checked_add(1) != Some(count) => {
            let name = array.count.unwrap_or_default();
            refuse(format!("{last} is {last_is}, and {name} is {count}"))
        }
        _ if id >= count => refuse(format!("{} is {id}", array.index)),
        _ => Ok(()),
    }
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

    /// What Slurm tells a task of an array: its number, the first, the last, how many there are, and the step.
    fn slurm<'a>(id: &'a str, min: &'a str, max: &'a str, count: &'a str, step: &'a str) -> [(&'a str, &'a str); 5] {
        [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", min),
            ("SLURM_ARRAY_TASK_MAX", max),
            ("SLURM_ARRAY_TASK_COUNT", count),
            ("SLURM_ARRAY_TASK_STEP", step),
        ]
    }

    #[test]
    fn every_kind_of_array_is_known() {
        for (variables, shards, expected) in [
            (&[("JOB_COMPLETION_INDEX", "1"), ("JOB_COMPLETIONS", "4")][..], None, "2/4"),
            (&[("JOB_COMPLETION_INDEX", "1")], Some(3), "2/3"),
            (&slurm("1", "0", "1", "2", "1"), None, "2/2"),
            // Some of a larger array, started again.
            (&slurm("17", "5", "17", "2", "12"), Some(64), "18/64"),
            (&slurm("17", "17", "17", "1", "1"), Some(64), "18/64"),
            (&slurm("0", "0", "63", "64", "1"), Some(64), "1/64"),
            (&[("AWS_BATCH_JOB_ARRAY_INDEX", "0"), ("AWS_BATCH_JOB_ARRAY_SIZE", "10")], None, "1/10"),
            (&[("HQ_TASK_ID", "6")], Some(7), "7/7"),
            (&[("OMPI_COMM_WORLD_RANK", "3"), ("OMPI_COMM_WORLD_SIZE", "4")], None, "4/4"),
            (&[("PMI_RANK", "0"), ("PMI_SIZE", "2")], None, "1/2"),
            (&[("PMIX_RANK", "1"), ("SLURM_NTASKS", "2")], None, "2/2"),
        ] {
            assert_eq!(found(variables, shards), Ok(Some((expected.to_owned(), variables[0].0))), "{variables:?}");
        }
        for (variables, shards, names) in [
            // Which shards these are of a larger array is not known.
            (slurm("5", "5", "17", "2", "12"), None, "SLURM_ARRAY_TASK_MIN is 5"),
            (slurm("0", "0", "17", "2", "17"), None, "SLURM_ARRAY_TASK_STEP is 17"),
            (slurm("0", "0", "17", "3", "1"), None, "SLURM_ARRAY_TASK_MAX is 17, and SLURM_ARRAY_TASK_COUNT is 3"),
            (slurm("17", "17", "17", "1", "1"), None, "SLURM_ARRAY_TASK_MIN is 17"),
            (slurm("1", "1", "64", "64", "1"), None, "SLURM_ARRAY_TASK_MIN is 1"),
            (slurm("4", "0", "3", "4", "1"), None, "SLURM_ARRAY_TASK_ID is 4"),
            (slurm("64", "64", "64", "1", "1"), Some(64), "SLURM_ARRAY_TASK_ID is 64"),
            (slurm("1", "1", "64", "64", "1"), Some(64), "SLURM_ARRAY_TASK_MAX is 64"),
        ] {
            let error = found(&variables, shards).unwrap_err();
            assert!(error.contains(names), "{variables:?}: {error}");
        }
        for (index, count) in [
            ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
            ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"),
            ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ] {
            let error = found(&[(index, "1"), (count, "4")], Some(8)).unwrap_err();
            assert!(error.contains(&format!("{count} is 4, and --shards is 8")), "{error}");
            assert!(found(&[(index, "8"), (count, "8")], Some(8)).unwrap_err().contains(&format!("{index} is 8")));
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
        assert!(found(&[("HQ_TASK_ID", "6")], Some(6)).unwrap_err().contains("HQ_TASK_ID is 6"));
        assert!(found(&[("PMI_RANK", "x")], None).unwrap_err().contains("`x`, which is not a number"));
    }
}
