//! What processes are connected by: how long their messages take, measured, and how long a sum of gradients takes by
//! that.

use std::time::Instant;

use crate::error::Result;
use crate::group::{Group, ordered_sum};

/// Bandwidth and latency between processes, as all of them see it at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// What a process sends while it receives as much, in bytes per second.
    pub bandwidth: f64,
    /// What a message takes whose size does not matter, in seconds.
    pub latency: f64,
}

impl Link {
    /// Measures it by messages between all processes of `group`, which must be two or more. Takes less than a second
    /// at 1 Gb/s.
    ///
    /// # Errors
    /// As those of [`Group`].
    pub fn measure(group: &dyn Group) -> Result<Self> {
        /// Values that a process sends: 16 MB.
        const VALUES: usize = 4 << 20;
        let size = group.size();
        let exchange_s = |values: &[f32], rounds: usize| -> Result<f64> {
            let bounds: Vec<usize> = (0..=size).map(|rank| rank * (values.len() / size)).collect();
            let mut times = Vec::new();
            for _ in 0..rounds {
                group.barrier()?;
                let started = Instant::now();
                group.exchange(values, &bounds)?;
                times.push(started.elapsed().as_secs_f64());
            }
            Ok(median(times))
        };
        let values = vec![0.5; VALUES];
        let small = exchange_s(&values[..size], 25)?;
        let large = exchange_s(&values, 5)?;
        let sent = (VALUES / size * (size - 1) * size_of::<f32>()) as f64;
        let own = (small / (size - 1) as f64, sent / (large - small).max(1e-9));
        // The slowest decides, and all say the same.
        let all = group.gather_values(&own)?;
        let latency = all.iter().map(|(latency, _)| *latency).fold(0.0, f64::max);
        let bandwidth = all.iter().map(|(_, bandwidth)| *bandwidth).fold(f64::INFINITY, f64::min);
        Ok(Self { bandwidth, latency })
    }

    /// How long the sum of `values` numbers over `processes` takes, in seconds: each sends its slices to be added, and
    /// the one that it has added to all others.
    pub fn sum_s(&self, values: usize, processes: usize) -> f64 {
        let (bytes, others) = ((values * size_of::<f32>()) as f64, processes.saturating_sub(1) as f64);
        2.0 * others / processes.max(1) as f64 * bytes / self.bandwidth + 2.0 * others * self.latency
    }
}

/// How long the sum of `values` numbers takes in `group`, measured, in seconds.
///
/// # Errors
/// As those of [`Group`].
pub fn time_sum(group: &dyn Group, values: usize) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let own = vec![vec![0.5; values]];
        group.barrier()?;
        let started = Instant::now();
        ordered_sum::sum(group, group.size(), own)?;
        times.push(started.elapsed().as_secs_f64());
    }
    let own = median(times);
    Ok(group.gather_values(&own)?.into_iter().fold(own, f64::max))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::super::tests::together;
    use super::*;

    #[test]
    fn a_link_is_measured_by_all_alike() {
        for size in [2, 3] {
            let found = together(size, |group| (Link::measure(group).unwrap(), time_sum(group, 1000).unwrap()));
            assert!(found.iter().all(|one| one.0 == found[0].0 && one.1 == found[0].1));
            let Link { bandwidth, latency } = found[0].0;
            assert!(bandwidth > 0.0 && bandwidth.is_finite() && latency > 0.0 && found[0].1 > 0.0);
        }
    }

    /// The table of docs/scale.md: 38 million values.
    #[test]
    fn sums_take_what_the_documentation_says() {
        let [slow, fast] = [(1.25e8, 50e-6), (1.25e9, 20e-6)].map(|(bandwidth, latency)| Link { bandwidth, latency });
        for (processes, expected) in [(2, 1.22), (4, 1.82), (64, 2.40)] {
            assert!((slow.sum_s(38_000_000, processes) - expected).abs() < 0.006, "{processes}");
        }
        assert!((fast.sum_s(38_000_000, 8) - 0.213).abs() < 0.0006);
        assert_eq!(slow.sum_s(38_000_000, 1), 0.0);
    }
}
