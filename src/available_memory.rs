//! How much memory this process may still take, as the system reports it, so that what cannot fit is refused with
//! numbers before it starts. An allocation that fails in the midst of work can only end the process.

use std::fs::read_to_string;

use crate::error::{Error, ErrorKind, Result};

/// What is left, and by what it is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AvailableMemory {
    /// Bytes.
    pub bytes: u64,
    /// For instance `the machine's memory`.
    pub bound: &'static str,
}

/// The smallest of what the machine has free, what the control group allows and what the limit on the process' address
/// space (`ulimit -v`) leaves; none where the system does not tell (other than Linux).
pub(crate) fn left() -> Option<AvailableMemory> {
    let group = || {
        let number =
            |name: &str| read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?.trim().parse::<u64>().ok();
        Some(number("max")?.saturating_sub(number("current").unwrap_or(0)))
    };
    let bounds = [
        ("the machine's memory", field("/proc/meminfo", "MemAvailable:").map(|kilobytes| kilobytes << 10)),
        ("the memory of its control group", group()),
        ("the limit on its address space (ulimit -v)", address_space()),
    ];
    let bounds = bounds.into_iter().filter_map(|(bound, bytes)| Some(AvailableMemory { bytes: bytes?, bound }));
    bounds.min_by_key(|memory| memory.bytes)
}

/// Fails if `bytes` are more than is left; `what` needs them, and `hint` says how it could need less.
///
/// # Errors
/// There is less memory: of the kind [`ErrorKind::Memory`], with both numbers.
pub fn require(bytes: u64, what: &str, hint: &str) -> Result<()> {
    require_estimated(bytes, bytes, what, hint)
}

/// The same of an estimate: it fails where less is left than is `certain` to be needed, and tells what is `estimated`.
///
/// # Errors
/// As [`require`].
pub(crate) fn require_estimated(estimated: u64, certain: u64, what: &str, hint: &str) -> Result<()> {
    match left() {
        Some(memory) if memory.bytes < certain => Err(memory.too_small(estimated, what, hint)),
        _ => Ok(()),
    }
}

impl AvailableMemory {
    fn too_small(self, bytes: u64, what: &str, hint: &str) -> Error {
        let (needed, left) = (readable(bytes), readable(self.bytes));
        Error::new(format!("{what} needs about {needed}, and {} leaves {left}", self.bound))
            .with_hint(hint)
            .with_kind(ErrorKind::Memory)
    }
}

fn readable(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{} MB", bytes.div_ceil(1_000_000)),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// The limit less what is held; none where there is no limit. What the allocator has only reserved is still to be had.
fn address_space() -> Option<u64> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit = line.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(limit.saturating_sub(field("/proc/self/status", "VmRSS:")? << 10))
}

/// The number after `name` in a file of lines.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells() {
        let memory = left().unwrap();
        assert!(memory.bytes > 1 << 20);
        require(1 << 20, "a test", "").unwrap();
        let error = require(u64::MAX, "a test", "wish for less").unwrap_err();
        assert!(
            error.to_string().contains("a test needs about") && error.to_string().contains(memory.bound),
            "{error}"
        );
        assert_eq!((error.hint(), error.kind()), (Some("wish for less"), ErrorKind::Memory));
        require_estimated(u64::MAX, 1 << 20, "a test", "").unwrap();
        let error = require_estimated(9_900_000_000, u64::MAX, "a test", "").unwrap_err();
        assert!(error.to_string().starts_with("a test needs about 9.9 GB, and "), "{error}");
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!((readable(1), readable(2_500_000_000)), ("1 MB".into(), "2.5 GB".into()));
    }
}
