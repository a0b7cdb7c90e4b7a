//! Each parser reads its corpus and a fixed number of mutations of it: no panic, and no more memory than is allowed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use structtoken_fuzz::{TARGETS, Target, mutate};

/// Counts what is held, and the most that ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as asked.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as asked.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SEED: u64 = 1;

/// Runs one input; what it did wrong, if anything.
fn fault(target: &Target, bytes: &[u8]) -> Option<String> {
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    let ended = std::panic::catch_unwind(|| (target.run)(bytes));
    let taken = MOST.load(Relaxed).saturating_sub(before) >> 20;
    if ended.is_err() {
        return Some("panics".to_owned());
    }
    (taken > target.memory_mb).then(|| format!("takes {taken} MB, more than {}", target.memory_mb))
}

/// One test for all, since the memory of two at once could not be told apart.
#[test]
fn no_input_panics_or_takes_much_memory() {
    // A target alone, STRUCTTOKEN_FUZZ=target, or an input to look at again, STRUCTTOKEN_FUZZ=target:number.
    let only = std::env::var("STRUCTTOKEN_FUZZ").ok();
    let mut parts = only.as_deref().map(|only| only.split(':')).into_iter().flatten();
    let (name, number) = (parts.next(), parts.next().map(|number| number.parse::<u64>().unwrap()));
    // How long mutations of a target are made, instead of their fixed number: STRUCTTOKEN_FUZZ_MINUTES.
    let minutes: Option<u64> = std::env::var("STRUCTTOKEN_FUZZ_MINUTES").ok().map(|minutes| minutes.parse().unwrap());
    assert!(name.is_none_or(|name| TARGETS.iter().any(|target| target.name == name)), "no such target: {only:?}");
    for target in TARGETS.iter().filter(|target| name.is_none_or(|name| target.name == name)) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let corpus: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert!(!corpus.is_empty(), "`{}` is empty", folder.display());
        if let Some(number) = number {
            let bytes = mutate::input(&corpus, SEED, number);
            std::fs::write(folder.with_file_name("found.bin"), &bytes).unwrap();
            (target.run)(&bytes);
            continue;
        }
        for (path, bytes) in paths.iter().zip(&corpus) {
            assert_eq!(fault(target, bytes), None, "{}", path.display());
        }
        let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
        let mut tried = 0;
        while end.map_or(tried < target.tries, |end| Instant::now() < end) {
            let bytes = mutate::input(&corpus, SEED, tried);
            assert_eq!(fault(target, &bytes), None, "STRUCTTOKEN_FUZZ={}:{tried}", target.name);
            tried += 1;
        }
        println!("{}: {} files, {tried} mutations", target.name, corpus.len());
    }
}
