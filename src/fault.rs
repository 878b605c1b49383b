//! Faults that the simulated machine has to find: a test that can't fail says nothing.
//!
//! They exist with feature `seeded-faults` only, and one at a time in the thread that plants it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A task that has run meanwhile is taken to wait still.
    ProgressIgnored,
    /// A number that is used again is taken for the task that had it.
    StartIgnored,
    ThresholdHalved,
    /// By a nanosecond.
    NextLookLate,
    /// A CPU has a place for everybody.
    CapIgnored,
    /// Boosts start at once.
    SpacingIgnored,
    EndIgnored,
    /// A task that could not be boosted is not tried again.
    RefusalNotRetried,
}

#[cfg(all(feature = "seeded-faults", not(debug_assertions)))]
compile_error!("seeded-faults is for tests, and never for a release");

#[cfg(feature = "seeded-faults")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread has this fault, or none.
#[cfg(feature = "seeded-faults")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

#[cfg(feature = "seeded-faults")]
pub(crate) fn is(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

#[cfg(not(feature = "seeded-faults"))]
pub(crate) const fn is(_: Fault) -> bool {
    false
}
