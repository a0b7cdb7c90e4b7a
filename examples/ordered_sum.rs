//! The time of a sum in a fixed order beside that of `MPI_Allreduce`:
//! `mpirun -n 2 target/release/examples/ordered_sum 38`, in millions of values.
#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::time::Instant;

use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::CommunicatorCollectives;
use structtoken::group::{Group, Mpi, ordered_sum};
use structtoken::{Error, Result};

fn main() -> Result<()> {
    let millions: usize = match std::env::args().nth(1) {
        None => 38,
        Some(text) => text.parse().map_err(|_| Error::new(format!("`{text}` is not a number of millions")))?,
    };
    let group = Mpi::start()?;
    let world = SimpleCommunicator::world();
    let (rank, size, count) = (group.rank(), group.size(), millions * 1_000_000);
    let values: Vec<f32> = (0..count).map(|at| (at % 1000 + rank) as f32 * 1e-3).collect();
    let mut times = Vec::new();
    for round in 0..6 {
        // As after an iteration, whose gradients are not needed any more.
        let gradients = vec![values.clone()];
        group.barrier()?;
        let started = Instant::now();
        let ordered = ordered_sum::sum(&group, size, gradients)?;
        let ordered_took = started.elapsed();
        let mut reduced = vec![0f32; count];
        group.barrier()?;
        let started = Instant::now();
        world.all_reduce_into(&values[..], &mut reduced[..], SystemOperation::sum());
        let reduced_took = started.elapsed();
        let off = ordered.iter().zip(&reduced).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        // The first makes the memory.
        if round > 0 {
            times.push((ordered_took.as_secs_f64(), reduced_took.as_secs_f64()));
        }
        if rank == 0 {
            println!(
                "{millions} M values, {size} processes: in order {:.0} ms, MPI_Allreduce {:.0} ms, largest difference {off:e}",
                ordered_took.as_secs_f64() * 1e3,
                reduced_took.as_secs_f64() * 1e3
            );
        }
    }
    if rank == 0 {
        let median = |of: fn(&(f64, f64)) -> f64| {
            let mut all: Vec<f64> = times.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2] * 1e3
        };
        println!("medians: in order {:.0} ms, MPI_Allreduce {:.0} ms", median(|one| one.0), median(|one| one.1));
    }
    Ok(())
}
