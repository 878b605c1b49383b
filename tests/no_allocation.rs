//! Once warm, a look allocates nothing: memory may be what the host has run out of.

use stalld::cpus::{self, CpuSet};
use stalld::denylist::Ignore;
use stalld::detect::Limits;
use stalld::engine::Engine;
use stalld::observe::{self, Kind, Watch};
use stalld::sys::clock;
use stalld::task::Nanos;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes every call on as it is.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_look_allocates_nothing() {
    for kind in Kind::ALL {
        for idle_detection in [true, false] {
            let watch = Watch { cpus: CpuSet::first(cpus::configured()), idle_detection };
            let backend = match observe::open(Some(kind), &watch) {
                Ok((backend, _)) => backend,
                Err(e) => {
                    assert!(std::env::var_os("CI").is_none(), "{e}");
                    println!("skipped: {e}");
                    continue;
                }
            };
            let limits = Limits { threshold: Nanos::from_millis(10), granularity: Nanos::from_millis(10) };
            let mut engine = Engine::new(backend, limits, Ignore::default());
            let mut look = || {
                clock::nap(Nanos::from_millis(2));
                let before = ALLOCATIONS.get();
                let now = clock::monotonic();
                engine.look(now, now).map(|()| ALLOCATIONS.get() - before)
            };
            // Another test's tasks may come and go, and make a buffer grow once more; a leak or an allocation
            // for each look goes on for ever.
            let quiet = (0..200).map(|_| look()).filter(|look| *look == Ok(0)).count();
            assert!(quiet >= 150, "{}: only {quiet} of 200 looks did without an allocation", kind.name());
        }
    }
}
