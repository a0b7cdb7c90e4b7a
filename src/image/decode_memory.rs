//! Memory for decoded pictures: a sum for the whole process, however many threads decode.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes of pictures that may be decoded at once. One that takes more is decoded alone.
const TOTAL: u64 = 1 << 30;

static PROCESS: DecodeMemory = DecodeMemory::new();

thread_local! {
    static HELD: Cell<u32> = const { Cell::new(0) };
}

struct DecodeMemory {
    free: Mutex<u64>,
    returned: Condvar,
}

impl DecodeMemory {
    const fn new() -> Self {
        Self { free: Mutex::new(TOTAL), returned: Condvar::new() }
    }

    fn take(&'static self, bytes: u64) -> Reservation {
        let held = HELD.replace(HELD.get() + 1) > 0;
        let bytes = if held { 0 } else { bytes.min(TOTAL) };
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        Reservation { bytes, budget: self, thread: PhantomData }
    }
}

/// The right to hold some bytes, until it is dropped.
///
/// Work that is handed to other threads must not be waited for with one in hand: they may wait for this one.
pub(crate) struct Reservation {
    bytes: u64,
    budget: &'static DecodeMemory,
    /// It is of this thread.
    thread: PhantomData<*const ()>,
}

/// Waits until `bytes` may be taken. A thread that holds a reservation gets more at once, or it would wait for itself.
pub(crate) fn take(bytes: u64) -> Reservation {
    PROCESS.take(bytes)
}

impl Drop for Reservation {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(1));
        *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    static OF_THE_TEST: DecodeMemory = DecodeMemory::new();

    #[test]
    fn threads_together_take_no_more_than_there_is() {
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (now, most) = (&now, &most);
                scope.spawn(move || {
                    for step in 0..50 {
                        let bytes = TOTAL / 8 * (1 + (thread + step) % 9); // up to more than there is
                        let reservation = OF_THE_TEST.take(bytes);
                        let inner = OF_THE_TEST.take(TOTAL);
                        let sum = now.fetch_add(reservation.bytes, Ordering::SeqCst) + reservation.bytes;
                        most.fetch_max(sum, Ordering::SeqCst);
                        now.fetch_sub(reservation.bytes, Ordering::SeqCst);
                        assert_eq!(inner.bytes, 0);
                    }
                });
            }
        });
        assert!((TOTAL / 2..=TOTAL).contains(&most.into_inner()));
        assert_eq!(*OF_THE_TEST.free.lock().unwrap(), TOTAL);
    }
}
