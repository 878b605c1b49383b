//! Counts the loop iterations of a scan, so that a test can bound the work of a scan without a
//! clock.

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Adds to the count of the calling thread.
#[cfg(test)]
pub(crate) fn count(steps: usize) {
    TAKEN.set(TAKEN.get() + steps as u64);
}

/// Does nothing outside of unit tests.
#[cfg(not(test))]
pub(crate) const fn count(_: usize) {}

/// Returns how many steps `work` takes.
#[cfg(test)]
pub(crate) fn of(work: impl FnOnce()) -> u64 {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}
