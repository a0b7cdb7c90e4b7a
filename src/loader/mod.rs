//! Training batches: decoded and augmented by threads ahead of their use, delivered in order.
//!
//! A batch is a pure function of seed and iteration: neither the number of threads nor where a run was resumed
//! changes a byte. Of the samples that an endless run sees, the `p`-th is `permutation(seed, p / n)[p % n]`, augmented
//! with the random numbers of `(seed, p)`; or, with `rare_class`, what the random numbers of `(seed, rare, p)` draw
//! instead. Of several processes each loads its [`Portion`] of the batches.

mod config;
pub mod preprocess;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::augment::crop::pad;
use crate::augment::rare::RareClasses;
use crate::augment::{AugmentConfig, augment_unpadded};
use crate::dataset::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::rng::Rng;
pub use config::DataConfig;

/// Batches that may lie ready or be under way; with small batches, two samples per thread.
const BATCHES_AHEAD: u64 = 3;

/// The stream of sample orders, apart from those of samples, which have one counter.
const ORDER: u64 = 0x006f_7264_6572;
/// The stream of what is drawn for rare classes.
const RARE: u64 = 0x7261_7265;

/// Samples of one size, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// RGB, `[size, height, width, 3]`.
    pub images: Vec<u8>,
    /// Class indices, 255 = ignore, `[size, height, width]`.
    pub labels: Vec<u8>,
    /// What the dataset calls the samples.
    pub names: Vec<String>,
    /// Height and width that the image fills, from the upper left; the rest is padding. Who normalises can set it to
    /// exactly 0, as the reference does.
    pub content: Vec<[usize; 2]>,
    /// Pixels down.
    pub height: usize,
    /// Pixels across.
    pub width: usize,
    /// Samples.
    pub size: usize,
}

/// Which batches are loaded: of every `of` those from number `first` on, `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// The first, from 0.
    pub first: u64,
    /// How many of them, at least one.
    pub count: u64,
    /// Out of how many.
    pub of: u64,
}

impl Portion {
    /// All batches.
    pub const ALL: Self = Self { first: 0, count: 1, of: 1 };

    /// The number, among all, of the batch that is loaded after `loaded` others.
    fn batch(self, loaded: u64) -> u64 {
        loaded / self.count * self.of + self.first + loaded % self.count
    }
}

/// An endless, ordered, resumable supply of batches. Dropping it stops its threads.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    waited: Duration,
}

impl Loader {
    /// Starts `workers` threads (at least one) that prepare the batches of `dataset` from iteration `start` on.
    ///
    /// With `augment.rare_class` all masks are looked at first.
    ///
    /// # Errors
    /// An empty dataset, a batch size of 0, an augmentation out of range, a mask that cannot be read, or threads that
    /// cannot be started.
    pub fn new(
        dataset: Arc<dyn Dataset>,
        augment: AugmentConfig,
        batch_size: usize,
        seed: u64,
        start: u64,
        workers: usize,
    ) -> Result<Self> {
        Self::portion(dataset, augment, batch_size, seed, (Portion::ALL, start), workers)
    }

    /// The same for a portion of the batches, after `rounds` times as many as are loaded out of each of its rounds.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn portion(
        dataset: Arc<dyn Dataset>,
        augment: AugmentConfig,
        batch_size: usize,
        seed: u64,
        (portion, rounds): (Portion, u64),
        workers: usize,
    ) -> Result<Self> {
        augment.check()?;
        if dataset.is_empty() {
            return Err(Error::new("there is nothing to train on: the dataset is empty"));
        }
        if batch_size == 0 || portion.count == 0 {
            return Err(Error::new("a batch of 0 samples").with_hint("set the batch size to 1 or more"));
        }
        let rare = augment.rare_class.map(|config| RareClasses::of(config, dataset.as_ref())).transpose()?;
        let first = rounds * portion.count * batch_size as u64;
        let state =
            State { next: first, delivered: first, ready: BTreeMap::new(), order: (u64::MAX, Vec::new()), stop: false };
        let workers = workers.max(1);
        let ahead = BATCHES_AHEAD * (batch_size as u64).max(workers as u64 * 2 / BATCHES_AHEAD + 1);
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { dataset, augment, rare, batch_size, portion, seed, ahead, state, changed });
        let mut loader = Self { shared, threads: Vec::new(), waited: Duration::ZERO };
        for _ in 0..workers {
            let shared = loader.shared.clone();
            let thread = std::thread::Builder::new().name("loader".to_string()).spawn(move || shared.work());
            loader.threads.push(thread.map_err(|error| {
                let (wanted, started) = (workers, loader.threads.len());
                Error::new(format!("cannot start {wanted} loader threads, only {started}"))
                    .with_source(error)
                    .with_hint(
                        "lower data.workers, or allow this user more processes (ulimit -u) and memory (ulimit -v)",
                    )
            })?);
        }
        Ok(loader)
    }

    /// The next batch, waiting for it if need be.
    ///
    /// # Errors
    /// What the dataset answered to one of the batch's samples; the next call continues with the batch after it.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results ends at its first error, this does not")]
    pub fn next(&mut self) -> Result<Batch> {
        let start = Instant::now();
        let samples = self.shared.take();
        self.waited += start.elapsed();
        let [height, width] = self.shared.augment.crop;
        let size = samples.len();
        let mut batch = Batch {
            images: Vec::with_capacity(size * height * width * 3),
            labels: Vec::with_capacity(size * height * width),
            names: Vec::with_capacity(size),
            content: Vec::with_capacity(size),
            height,
            width,
            size,
        };
        for sample in samples {
            let Prepared { sample, name, content } = sample?;
            batch.images.extend_from_slice(&sample.image.pixels);
            batch.labels.extend_from_slice(&sample.labels.ids);
            batch.names.push(name);
            batch.content.push(content);
        }
        Ok(batch)
    }

    /// The time that [`next`](Self::next) has spent waiting for samples so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread catches its panics; should one be lost all the same, there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// What the threads and the loader have in common.
struct Shared {
    dataset: Arc<dyn Dataset>,
    augment: AugmentConfig,
    rare: Option<RareClasses>,
    batch_size: usize,
    portion: Portion,
    seed: u64,
    /// How many positions beyond the delivered ones may be started.
    ahead: u64,
    state: Mutex<State>,
    /// Told whenever a sample is ready, a batch is taken, or all is over.
    changed: Condvar,
}

/// Positions are counted among the samples of the portion here.
struct State {
    /// The first position that no thread has started.
    next: u64,
    /// The first position that is not delivered.
    delivered: u64,
    ready: BTreeMap<u64, Result<Prepared>>,
    /// An epoch and its order of samples.
    order: (u64, Vec<usize>),
    stop: bool,
}

struct Prepared {
    sample: Sample,
    name: String,
    content: [usize; 2],
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is changed in single steps, so a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn work(&self) {
        while let Some((place, position, index)) = self.claim() {
            let drawn = self.rare.as_ref().and_then(|rare| rare.draw(&mut Rng::new(self.seed, &[RARE, position])));
            let (index, class) = drawn.map_or((index, None), |(index, class)| (index, Some(class)));
            let prepared = catch_unwind(AssertUnwindSafe(|| self.prepare(position, index, class)));
            let prepared = prepared.unwrap_or_else(|_| {
                Err(Error::new(format!("preparing the sample `{}` panicked", self.dataset.name(index))))
            });
            self.lock().ready.insert(place, prepared);
            self.changed.notify_all();
        }
    }

    /// The next place in the portion, its position among the samples of all, and its sample, once it is near enough to
    /// be wanted; none when all is over.
    fn claim(&self) -> Option<(u64, u64, usize)> {
        let mut state = self.lock();
        while !state.stop && state.next >= state.delivered + self.ahead {
            state = self.wait(state);
        }
        if state.stop {
            return None;
        }
        let (place, count, size) = (state.next, self.dataset.len(), self.batch_size as u64);
        let position = self.portion.batch(place / size) * size + place % size;
        state.next += 1;
        let epoch = position / count as u64;
        if state.order.0 != epoch {
            state.order = (epoch, Rng::new(self.seed, &[ORDER, epoch]).permutation(count));
        }
        Some((place, position, state.order.1[(position % count as u64) as usize]))
    }

    fn prepare(&self, position: u64, index: usize, class: Option<u8>) -> Result<Prepared> {
        let sample = self.dataset.get(index)?;
        let varied = augment_unpadded(&sample, class, &self.augment, &mut Rng::new(self.seed, &[position]));
        let content = [varied.image.height, varied.image.width];
        let sample = pad(varied, self.augment.crop, self.augment.pad);
        Ok(Prepared { sample, name: self.dataset.name(index), content })
    }

    /// The samples of the next batch, all of them.
    fn take(&self) -> Vec<Result<Prepared>> {
        let mut state = self.lock();
        let end = state.delivered + self.batch_size as u64;
        // Positions before `end` can only be in `ready` once each.
        while state.ready.range(..end).count() < self.batch_size {
            state = self.wait(state);
        }
        let later = state.ready.split_off(&end);
        let samples = std::mem::replace(&mut state.ready, later);
        state.delivered = end;
        drop(state);
        self.changed.notify_all();
        samples.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::shapes::Shapes;
    use crate::dataset::{Classes, Split};

    fn config() -> AugmentConfig {
        AugmentConfig { resize: None, crop: [40, 56], ..AugmentConfig::default() }
    }

    fn loader(start: u64, workers: usize) -> Loader {
        let set = Arc::new(Shapes::new(1, Split::Train, 7, 48));
        Loader::new(set, config(), 3, 9, start, workers).unwrap()
    }

    #[test]
    fn workers_and_resuming_change_nothing() {
        let batches = |start, workers, count| {
            let mut loader = loader(start, workers);
            (0..count).map(|_| loader.next().unwrap()).collect::<Vec<_>>()
        };
        let all = batches(0, 1, 9);
        assert_eq!(all, batches(0, 3, 9));
        assert_eq!(all[5..], batches(5, 2, 4));
        let first = &all[0];
        assert_eq!((first.size, first.height, first.width), (3, 40, 56));
        assert_eq!((first.images.len(), first.labels.len()), (3 * 40 * 56 * 3, 3 * 40 * 56));
        assert_eq!(first.content, [[40, 48]; 3]);
        assert_ne!(all[0], all[1]);
    }

    #[test]
    fn portions_are_the_batches_of_all() {
        let mut whole = loader(0, 2);
        let all: Vec<Batch> = (0..20).map(|_| whole.next().unwrap()).collect();
        for (portion, rounds, expected) in [
            (Portion { first: 0, count: 2, of: 4 }, 0, [0, 1, 4, 5]),
            (Portion { first: 2, count: 2, of: 4 }, 1, [6, 7, 10, 11]),
            (Portion { first: 3, count: 1, of: 4 }, 1, [7, 11, 15, 19]),
            (Portion { first: 1, count: 2, of: 3 }, 2, [7, 8, 10, 11]),
        ] {
            let set = Arc::new(Shapes::new(1, Split::Train, 7, 48));
            let mut loader = Loader::portion(set, config(), 3, 9, (portion, rounds), 2).unwrap();
            for number in expected {
                assert!(loader.next().unwrap() == all[number], "{portion:?}: batch {number}");
            }
        }
    }

    #[test]
    fn an_epoch_has_every_sample_once_and_its_own_order() {
        let mut loader = loader(0, 2);
        let names: Vec<String> = (0..7).flat_map(|_| loader.next().unwrap().names).collect();
        let epochs: Vec<Vec<String>> = names.chunks(7).map(<[String]>::to_vec).collect();
        for epoch in &epochs {
            let distinct: std::collections::HashSet<_> = epoch.iter().collect();
            assert_eq!(distinct.len(), 7);
        }
        assert!(epochs[0] != epochs[1] || epochs[1] != epochs[2]);
    }

    /// Fails, or panics, at one sample.
    struct Faulty(Shapes, bool);

    impl Dataset for Faulty {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn get(&self, index: usize) -> Result<Sample> {
            assert!(index != 4 || !self.1, "on purpose");
            if index == 4 { Err(Error::new("cannot read `bad.png`")) } else { self.0.get(index) }
        }

        fn name(&self, index: usize) -> String {
            format!("number {index}")
        }

        fn classes(&self) -> &Classes {
            self.0.classes()
        }
    }

    #[test]
    fn a_fault_comes_in_its_place_and_the_rest_follows() {
        for panics in [false, true] {
            let run = |workers| {
                let set = Arc::new(Faulty(Shapes::new(1, Split::Train, 6, 32), panics));
                let mut loader = Loader::new(set, config(), 2, 3, 0, workers).unwrap();
                (0..6).map(|_| loader.next().map(|b| b.names).map_err(|e| e.to_string())).collect::<Vec<_>>()
            };
            let results = run(1);
            let message = if panics { "`number 4` panicked" } else { "`bad.png`" };
            for epoch in results.chunks(3) {
                let faults: Vec<_> = epoch.iter().filter_map(|r| r.as_ref().err()).collect();
                assert!(faults.len() == 1 && faults[0].contains(message), "{faults:?}");
            }
            assert_eq!(results, run(3));
        }
    }

    #[test]
    fn dropping_does_not_hang() {
        for taken in 0..4 {
            let mut loader = loader(0, 4);
            for _ in 0..taken {
                loader.next().unwrap();
            }
            assert!(loader.waited() < Duration::from_secs(60));
        }
    }

    #[test]
    fn impossible_orders_are_refused() {
        let make =
            |len, batch, augment| Loader::new(Arc::new(Shapes::new(1, Split::Val, len, 32)), augment, batch, 0, 0, 1);
        assert!(make(0, 1, config()).is_err());
        assert!(make(3, 0, config()).is_err());
        assert!(make(3, 1, AugmentConfig { flip: 2.0, ..config() }).is_err());
    }
}
