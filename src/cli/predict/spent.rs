//! How long the parts of labelling took, each in the thread that does it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How long images took to be read, labelled and written (parts 0, 1 and 2), and how many they were.
#[derive(Default)]
pub(crate) struct Spent([(AtomicU64, AtomicU64); 3]);

impl Spent {
    pub(crate) fn add<T>(&self, part: usize, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let (nanos, times) = &self.0[part];
        nanos.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        times.fetch_add(1, Ordering::Relaxed);
        done
    }

    /// How many images a second these parts would come to, one after the other; nothing where none was labelled.
    pub(crate) fn text(&self) -> Option<String> {
        let mean = |(nanos, times): &(AtomicU64, AtomicU64)| {
            nanos.load(Ordering::Relaxed) as f64 / 1e6 / times.load(Ordering::Relaxed).max(1) as f64
        };
        let [read, label, write] = self.0.each_ref().map(mean);
        let rate = 1e3 / (read + label + write);
        (label > 0.0).then(|| {
            format!(
                "one after the other: {rate:.1} images/s ({read:.1} ms to read an image, {label:.1} ms to label it and \
                 {write:.1} ms to write what was asked)"
            )
        })
    }
}
