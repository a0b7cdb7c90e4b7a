//! The allocator: mimalloc, and an error in place of an abort where the system has no more memory to give.

use std::alloc::{GlobalAlloc, Layout};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use mimalloc::MiMalloc;

/// mimalloc; when it has nothing to give, the process says so and ends with an error.
///
/// Rust would abort: a crash to whoever sees it, and a core file on the disk. What was written stays whole: files are
/// renamed into their places when they are finished.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

// SAFETY: every call goes to mimalloc unchanged, and what it gives is handed on; or the call does not return.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as asked.
        given(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as asked.
        given(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as asked.
        given(unsafe { MiMalloc.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as asked.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

/// Whether this process serves, and is bounded by other options than most commands.
pub(crate) static SERVES: AtomicBool = AtomicBool::new(false);

#[inline]
fn given(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        exhausted(size);
    }
    pointer
}

/// Says it without asking for memory, and without what the thread may hold at this moment: locks, or a line half
/// written.
#[cold]
fn exhausted(size: usize) -> ! {
    let mut text = [0; 512];
    let mut rest = &mut text[..];
    let less = if SERVES.load(Ordering::Relaxed) {
        "lower --max-pixels, --max-queue or --threads"
    } else {
        "ask for less: smaller batches, crops, images or --threads; --resume continues a run from its last checkpoint"
    };
    let _ = writeln!(
        rest,
        "error: out of memory: {size} bytes more were needed than the system gives this process\n\nhint: raise its \
         limit (ulimit -v, or that of its container), end other programs, or {less}"
    );
    let left = rest.len();
    let text = &text[..text.len() - left];
    #[cfg(unix)]
    // SAFETY: writes bytes that are there, and ends the process with no more of its code: that might ask for memory.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::_exit(1)
    }
    #[cfg(not(unix))]
    {
        let _ = std::io::stderr().write_all(text);
        std::process::exit(1)
    }
}
