//! Faults that tests have to find: a test that can't fail says nothing.
//!
//! They exist with feature `seeded-faults` only. A thread of the simulation plants one for itself.
//! A whole process has the one that the environment names, for the attacks of tests/adversary.

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
    /// JSON has the names of tasks as they are.
    NamesUnescaped,
    /// A symbolic link in place of a file is followed.
    LinksFollowed,
    /// A rank that a task has given itself in a pulse stays.
    RankKept,
    /// All tasks are boosted as SCHED_DEADLINE, and lend that on without being noticed.
    RankLent,
    /// A scan may follow another one at once, whatever that has cost.
    RestIgnored,
    /// The tasks of all owners are served in one queue.
    TurnsIgnored,
    /// A task that /proc hides is taken for one that has ended.
    HiddenIsGone,
    /// The guardian does not lock its memory.
    GuardianUnlocked,
}

#[cfg(all(feature = "seeded-faults", not(debug_assertions)))]
compile_error!("seeded-faults is for tests, and never for a release");

/// The environment variable that names the fault of a whole process.
#[cfg(feature = "seeded-faults")]
pub const VARIABLE: &str = "STALLD_SEEDED_FAULT";

#[cfg(feature = "seeded-faults")]
impl Fault {
    /// Faults that revert what bounds an attack. The table of tests/adversary/mutants.rs names the
    /// test that finds each of them.
    pub const OF_ATTACKS: [Fault; 8] = [
        Fault::NamesUnescaped,
        Fault::LinksFollowed,
        Fault::RankKept,
        Fault::RankLent,
        Fault::RestIgnored,
        Fault::TurnsIgnored,
        Fault::HiddenIsGone,
        Fault::GuardianUnlocked,
    ];

    /// The fault of the whole process.
    fn of_process() -> Option<Fault> {
        static CHOSEN: std::sync::OnceLock<Option<Fault>> = std::sync::OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let name = std::env::var(VARIABLE).ok()?;
            let named = Fault::OF_ATTACKS.into_iter().find(|fault| format!("{fault:?}") == name);
            if named.is_none() {
                eprintln!("stalld: {VARIABLE}={name}: there is no such fault; see src/fault.rs");
                std::process::exit(22);
            }
            named
        })
    }
}

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
    PLANTED.get().or_else(Fault::of_process) == Some(fault)
}

#[cfg(not(feature = "seeded-faults"))]
pub(crate) const fn is(_: Fault) -> bool {
    false
}
