//! An allocator that counts, in place of the usual one: bytes held, the most of them, and calls.
//!
//! It counts per thread, so tests may run side by side, and counting allocates nothing. Whoever
//! declares this module has it as the global allocator. It refuses to know what is counted.

#![allow(dead_code)] // each test binary that declares it asks for its own part

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(more: usize, less: usize) {
    // At a thread's very end the counters are gone, and nobody reads them any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get().saturating_add(more).saturating_sub(less));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn called(size: usize) {
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
    let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + size));
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        called(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are held while the bytes are copied.
        count(size, 0);
        called(size);
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        count(0, layout.size());
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory held at once while `work` runs, beyond what was held before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let result = black_box(work());
    (PEAK.get() - before, result)
}

/// How often `work` asks for memory, growing what it has included, and for how many bytes in all.
pub fn allocated<T>(work: impl FnOnce() -> T) -> ((usize, usize), T) {
    let before = (CALLS.get(), BYTES.get());
    let result = black_box(work());
    let after = (CALLS.get(), BYTES.get());
    ((after.0 - before.0, after.1 - before.1), result)
}
