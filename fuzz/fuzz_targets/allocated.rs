// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts what is allocated, so that a target can hold the program to a bound.

// UNSAFETY: a global allocator that passes everything on to the system's.
#![expect(unsafe_code, reason = "as above")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY:
// - Each method does what the same method of `System` does, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY:
        // - The caller keeps the contract of this very method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY:
        // - The caller keeps the contract of this very method, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Returns what `run` returns, and how many bytes more than before were in use at once.
pub(crate) fn most_during<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = run();
    (result, PEAK.load(Ordering::Relaxed) - before)
}
