//! One run by processes that MPI starts, over loopback: the bytes of one process, whatever becomes of the others.
//! Needs `mpirun` (Debian: openmpi-bin).

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use structtoken::rng::Rng;

use crate::cli::{Lab, TINY};

const SMALL: [&str; 12] = [
    "--set",
    "train.iterations=40",
    "--set",
    "train.accumulate=4",
    "--set",
    "train.eval_every=16",
    "--set",
    "train.save_every=4",
    "--set",
    "train.ema=0.9",
    "--set",
    "train.tensorboard=false",
];

/// `mpirun -n size structtoken …`, as root and with more processes than cores, whichever MPI it is.
fn mpirun(lab: &Lab, size: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    let environment = [
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
        ("OMPI_MCA_mpi_yield_when_idle", "1"),
        ("OMPI_MCA_btl", "self,tcp"),
        ("OMPI_MCA_btl_tcp_if_include", "lo"),
        ("NO_COLOR", "1"),
    ];
    command.current_dir(lab.dir.path()).envs(environment).args(["-n", &size.to_string()]);
    command.arg(env!("CARGO_BIN_EXE_structtoken")).args(arguments).args(["--device", "cpu", "--threads", "1"]);
    command
}

fn done(output: &Output) -> String {
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{talk}");
    talk
}

fn files(run: &Path) -> Vec<Vec<u8>> {
    let last = "checkpoints/step-00000040";
    ["model.safetensors", "scores.json", &format!("{last}/optimizer.safetensors"), &format!("{last}/ema.safetensors")]
        .map(|name| std::fs::read(run.join(name)).unwrap())
        .to_vec()
}

#[test]
fn any_number_of_processes_ends_in_the_bytes_of_one() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let alone = [&["train", "tiny.toml", "--out", "alone", "--device", "cpu", "--threads", "1"][..], &SMALL].concat();
    lab.ok(&alone);
    for size in [1, 2, 4] {
        let out = format!("by-{size}");
        let train = [&["train", "tiny.toml", "--mpi", "--out", &out][..], &SMALL].concat();
        let talk = done(&mpirun(&lab, size, &train).output().unwrap());
        assert!(size == 1 || talk.contains(&format!("by {size} processes")), "{talk}");
        assert!(files(&lab.path("alone")) == files(&lab.path(&out)), "{size} processes");
    }
}

/// The processes of a run that `mpirun` has started.
fn ranks(parent: &Child) -> Vec<u32> {
    let text = Command::new("ps").args(["-o", "pid=", "--ppid", &parent.id().to_string()]).output().unwrap().stdout;
    String::from_utf8_lossy(&text).split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Killed at moments that nobody chose, one rank at a time, and resumed with another number. `STRUCTTOKEN_KILLS=20`
/// tries more.
#[test]
fn a_process_that_is_killed_takes_the_others_along_and_nothing_is_lost() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let alone = [&["train", "tiny.toml", "--out", "alone", "--device", "cpu", "--threads", "1"][..], &SMALL].concat();
    lab.ok(&alone);
    let kills: usize = std::env::var("STRUCTTOKEN_KILLS").map_or(3, |count| count.parse().unwrap());
    let mut rng = Rng::new(5, &[]);
    let first = [&["train", "tiny.toml", "--mpi", "--out", "run"][..], &SMALL].concat();
    let resume = ["train", "--mpi", "--resume", "--out", "run"];
    let checkpoints = || std::fs::read_dir(lab.path("run/checkpoints")).map_or(0, Iterator::count);
    let (mut killed, mut latest) = (0, 3000);
    for _ in 0..10 * kills {
        let size = [1, 2, 4][rng.below(3)];
        let arguments = if lab.path("run/config.toml").exists() { &resume[..] } else { &first[..] };
        let child = mpirun(&lab, size, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        // Not while it starts: Open MPI may wait for ever for a process that ended before it had joined.
        let until = Duration::from_millis(300 + rng.below(latest) as u64);
        std::thread::sleep(until);
        let all = ranks(&child);
        if let Some(victim) = all.get(rng.below(all.len().max(1))) {
            killed += usize::from(Command::new("kill").args(["-9", &victim.to_string()]).status().unwrap().success());
        }
        let told = Instant::now();
        let output = child.wait_with_output().unwrap();
        eprintln!(
            "{size} processes, killed after {until:?}, all ended {:?} later, of {:?}: {} checkpoints",
            told.elapsed(),
            started.elapsed(),
            checkpoints()
        );
        if killed >= kills {
            break;
        }
        if output.status.success() {
            // This machine is faster: again, and sooner.
            latest = (latest * 2 / 3).max(50);
            std::fs::remove_dir_all(lab.path("run")).unwrap();
            continue;
        }
        assert!(!output.stderr.is_empty(), "nothing was said");
    }
    assert!(killed > 0);
    if lab.path("run/config.toml").exists() {
        done(&mpirun(&lab, 2, &resume).output().unwrap());
    } else {
        done(&mpirun(&lab, 2, &first).output().unwrap());
    }
    assert!(files(&lab.path("alone")) == files(&lab.path("run")));
}

#[test]
fn a_fault_is_reported_and_ends_all() {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    let train = [&["train", "tiny.toml", "--mpi", "--out", "run"][..], &SMALL].concat();
    let output = mpirun(&lab, 5, &train).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && talk.contains("5 processes cannot share the 4 passes"), "{talk}");
    let output = mpirun(&lab, 2, &["train", "absent.toml", "--mpi", "--out", "run"]).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && talk.contains("absent.toml"), "{talk}");
}

#[test]
fn a_plan_says_what_several_processes_take() {
    let lab = Lab::new();
    let plan = ["train", "shapes", "--plan", "--mpi", "--budget", "2m", "--set", "train.accumulate=4"];
    let small = ["--set", "train.batch_size=4", "--set", "data.shapes.size=32", "--set", "model.backbone.norm=group"];
    let output = mpirun(&lab, 2, &[&plan[..], &small].concat()).output().unwrap();
    let talk = done(&output);
    for part in
        ["1 process: ", "2 processes: ", "4 processes: ", "measured alone", "measured by these", "between processes"]
    {
        assert!(talk.contains(part), "`{part}` is not in:\n{talk}");
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("accumulate = 4"));
}
