//! What a piece of work allocates: counts that are the same on a busy machine, where times are not.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static MOST: Cell<i64> = const { Cell::new(0) };
    static ALL: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counted by thread.
pub struct Counted;

fn count(taken: usize, given_back: usize) {
    let bytes = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    let (taken, given_back) = (bytes(taken), bytes(given_back));
    // A thread at its end counts no more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + taken - given_back);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
        let _ = ALL.try_with(|all| all.set(all.get() + taken));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Of a piece of work, on its own thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Most that it held at once.
    pub most_bytes: i64,
    /// All that it asked for, one after another: it grows with the work.
    pub all_bytes: i64,
}

pub fn spent<T>(work: impl FnOnce() -> T) -> (T, Spent) {
    let (held, all) = (HELD.get(), ALL.get());
    MOST.set(held);
    let done = work();
    (done, Spent { most_bytes: MOST.get() - held, all_bytes: ALL.get() - all })
}

#[test]
fn what_is_allocated_is_counted() {
    let (_, spent) = spent(|| {
        drop(vec![0u8; 5000]);
        vec![0u8; 3000].len()
    });
    assert_eq!((spent.most_bytes, spent.all_bytes), (5000, 8000));
}
