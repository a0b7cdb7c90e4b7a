//! Code of others that reads what users bring, held so that a panic of its becomes an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::error::{Error, Result};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` answers, or where it panics, an error that says so. Such a panic prints nothing.
///
/// # Errors
/// Those of `work`, and a panic in it.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    quiet_hook();
    let before = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why");
        let line = text.lines().next().unwrap_or_default();
        Err(Error::new(format!("its decoder failed: {line}"))
            .with_hint("the file is damaged: copy or export it again, or leave it out"))
    })
}

/// Panics of guarded code are reported as errors; all others as before.
fn quiet_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                others(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
        assert_eq!(guarded::<()>(|| Err(Error::new("no"))).unwrap_err().to_string(), "no");
        let empty: [u8; 0] = [];
        let error = guarded(|| Ok(empty[std::hint::black_box(7)])).unwrap_err();
        assert!(
            error.to_string().contains("its decoder failed: index out of bounds") && error.hint().is_some(),
            "{error}"
        );
        // Guards within guards, and after one has caught something.
        assert!(guarded(|| Ok(guarded::<()>(|| panic!("{}", 7)).is_err() && GUARDED.get())).unwrap());
        assert!(!GUARDED.get());
    }
}
