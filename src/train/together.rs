//! What keeps several processes at one training.

use burn::module::Module;

use super::state::RunState;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::layers::{fetch, parameters};

/// Iterations after which the weights of all processes are compared.
pub(super) const EVERY: u64 = 100;

/// Fails where there are more processes than passes, into which a batch of this size is divided.
pub(super) fn ensure_enough(group: &dyn Group, passes: usize, batch: usize) -> Result<()> {
    let size = group.size();
    if size <= passes {
        return Ok(());
    }
    let hint = match (size..=batch).find(|count| batch.is_multiple_of(*count)) {
        Some(count) => format!("set train.accumulate={count}, or start at most {passes}"),
        None => format!("start at most {passes}, or set train.batch_size={size} and train.accumulate={size}"),
    };
    Err(Error::new(format!("{size} processes cannot share the {passes} passes of train.accumulate")).with_hint(hint))
}

/// Where the run stands, and the losses so far, as the first process has them: it alone reads the log.
pub(super) fn same_start(
    group: &dyn Group,
    (state, losses): (RunState, Vec<(u64, f64)>),
) -> Result<(RunState, Vec<(u64, f64)>)> {
    let own = (state.iteration, state.optimizer_steps);
    let losses = losses.into_iter().map(|(iteration, loss)| (iteration, loss.to_bits())).collect();
    let (state, losses): (RunState, Vec<(u64, u64)>) = group.agree((state, losses))?;
    let fits = if own == (state.iteration, state.optimizer_steps) {
        Ok(())
    } else {
        Err(Error::new(format!("it is at iteration {}, and the first process at {}", own.0, state.iteration))
            .with_hint("all processes must see the folder of the run: put it on a file system that they share"))
    };
    group.all_or_none(fits)?;
    Ok((state, losses.into_iter().map(|(iteration, loss)| (iteration, f64::from_bits(loss))).collect()))
}

/// Fails where the weights of a process are not those of the first.
pub(super) fn ensure_same(group: &dyn Group, model: &impl Module, iteration: u64) -> Result<()> {
    if group.is_alone() {
        return Ok(());
    }
    let sums = group.gather_values(&checksum(model))?;
    let others: Vec<String> =
        (1..sums.len()).filter(|rank| sums[*rank] != sums[0]).map(|rank| rank.to_string()).collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "after {iteration} iterations process {} has other weights than the first",
        others.join(", ")
    ))
    .with_hint(
        "nothing was saved since: continue from the last checkpoint with --resume; if it happens again, test the memory of \
         that machine and see that all of them run the same program",
    ))
}

/// A checksum of all parameters.
fn checksum(model: &impl Module) -> [u32; 2] {
    let (mut first, mut second) = (crc32fast::Hasher::new(), 0);
    parameters::visit(model, |_, value| {
        let data = fetch(value);
        first.update(data.as_bytes());
        second = crc32c::crc32c_append(second, data.as_bytes());
    });
    [first.finalize(), second]
}
