//! Several images at a time: one is read while another is labelled and a third is written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::Duration;

use crate::error::{Error, Result};

/// How often whoever waits looks whether there is still something to wait for.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// After a picture that takes more bytes than this, with all that becomes of it, the next is read once it is written.
const LARGE: usize = 64 << 20;

/// Passes what `read` finds, until there is no more, through `label` and `write`, in its order. `read` and `write` have
/// threads of their own. `bytes` says how many a picture takes. With `stop` what has been labelled is written, and no
/// more is labelled. `read` is told once it is over, so that it waits for nothing.
///
/// # Errors
/// The first of `label` and `write`, after which nothing is written.
pub(crate) fn run<P: Send, L: Send>(
    mut read: impl FnMut(&AtomicBool) -> Option<P> + Send,
    bytes: impl Fn(&P) -> usize + Send,
    mut label: impl FnMut(P) -> Result<L>,
    mut write: impl FnMut(L) -> Result<()> + Send,
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // However this ends.
        let ends = Over(&over);
        let (pictures, found) = mpsc::sync_channel(1);
        let (labelled, to_write) = mpsc::sync_channel::<L>(0);
        let (written, done) = mpsc::channel();
        let over = &over;
        let reading = move || {
            let mut under_way = 0;
            while let Some(picture) = read(over) {
                let is_large = bytes(&picture) > LARGE;
                if pictures.send(picture).is_err() {
                    return;
                }
                under_way += 1;
                under_way -= done.try_iter().count();
                while is_large && under_way > 0 && done.recv().is_ok() {
                    under_way -= 1;
                }
            }
        };
        let writing = move || {
            for one in to_write {
                write(one)?;
                // Nobody asks after the last picture.
                let _ = written.send(());
            }
            Ok(())
        };
        Builder::new().name("images".to_owned()).spawn_scoped(scope, reading).map_err(no_thread)?;
        let writing = Builder::new().name("outputs".to_owned()).spawn_scoped(scope, writing).map_err(no_thread)?;
        let mut fault = Ok(());
        while !stop() {
            match found.recv_timeout(PATIENCE) {
                Ok(picture) => match label(picture).map(|one| labelled.send(one)) {
                    Ok(Ok(())) => {}
                    // Its own error is told by the thread that writes.
                    Ok(Err(_)) => break,
                    Err(error) => {
                        fault = Err(error);
                        break;
                    }
                },
                Err(RecvTimeoutError::Timeout) if writing.is_finished() => break,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        drop((ends, labelled, found));
        ended(writing).and(fault)
    })
}

/// Says at its end that it is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn ended<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn no_thread(error: std::io::Error) -> Error {
    Error::new("cannot start a thread that reads or writes images")
        .with_source(error)
        .with_hint("allow this user more processes (ulimit -u), or use fewer --threads")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// What is written of pictures of these megabytes, and how many were read before each was written.
    fn through(pictures: &[usize], fault: Option<usize>, stop: &dyn Fn() -> bool) -> (Vec<usize>, Vec<usize>, bool) {
        let (read, mut seen, mut order) = (AtomicUsize::new(0), Vec::new(), Vec::new());
        let mut pictures = pictures.iter().copied();
        let next = |_: &AtomicBool| {
            let picture = pictures.next();
            read.fetch_add(usize::from(picture.is_some()), Ordering::SeqCst);
            picture
        };
        let label = |one| if fault == Some(one) { Err(Error::new("label")) } else { Ok(one) };
        let end = run(
            next,
            |megabytes| megabytes << 20,
            label,
            |one| {
                order.push(one);
                seen.push(read.load(Ordering::SeqCst));
                if fault == Some(one + 1000) { Err(Error::new("write")) } else { Ok(()) }
            },
            stop,
        );
        (order, seen, end.is_ok())
    }

    #[test]
    fn pictures_pass_in_their_order_and_few_at_a_time() {
        let all: Vec<usize> = (0..50).collect();
        let (order, read, good) = through(&all, None, &|| false);
        assert!(good && order == all);
        // One is written, one labelled, one waits, and one has been read.
        assert!(read.iter().enumerate().all(|(at, read)| (at + 1..=at + 4).contains(read)), "{read:?}");
        let (order, read, good) = through(&[100; 20], None, &|| false);
        assert!(good && order.len() == 20 && read == (1..=20).collect::<Vec<_>>(), "{read:?}");
    }

    #[test]
    fn a_fault_or_a_word_ends_it_and_nobody_waits() {
        let all: Vec<usize> = (0..50).collect();
        let (order, _, good) = through(&all, Some(7), &|| false);
        assert!(!good && order == all[..7]);
        let (order, _, good) = through(&all, Some(1007), &|| false);
        assert!(!good && order == all[..8]);
        let asked = AtomicUsize::new(0);
        let (order, _, good) = through(&all, None, &|| asked.fetch_add(1, Ordering::SeqCst) >= 20);
        assert!(good && order == all[..order.len()] && order.len() <= 20);
        // One that waits for more until it is told.
        let forever = |over: &AtomicBool| {
            while !over.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            None::<usize>
        };
        assert!(run(forever, |_| 0, |_| Ok(()), |()| Ok(()), &|| true).is_ok());
        // A fault of what is written is not kept until there is more.
        let mut first = Some(1);
        let one = move |over: &AtomicBool| first.take().or_else(|| forever(over));
        assert!(run(one, |_| 0, |_| Ok(()), |()| Err(Error::new("write")), &|| false).is_err());
    }
}
