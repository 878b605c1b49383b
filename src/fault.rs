//! Seeded faults. Tests have to find them, which shows that these tests can fail.
//!
//! They exist only with the feature `seeded-faults`. A thread of the simulation plants one for
//! itself. For the attacks of tests/adversary, an environment variable names the fault of a whole
//! process.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A task that has run since the last scan still counts as waiting.
    ProgressIgnored,
    /// A task with a reused tid is taken for the former task with that tid.
    StartIgnored,
    ThresholdHalved,
    /// The next scan is a nanosecond late.
    NextScanLate,
    /// The number of boosts on a CPU has no limit.
    CapIgnored,
    /// Boosts start without the time that must lie between two of them.
    SpacingIgnored,
    /// Pulses follow each other as if they cost nothing.
    LossIgnored,
    EndIgnored,
    /// A task is never boosted again after a boost of it failed.
    RefusalNotRetried,
    /// A boost counts as needed for as long as it lasts.
    RecheckSkipped,
    /// JSON holds the names of tasks unescaped.
    NamesUnescaped,
    /// A symbolic link in place of a file is followed.
    LinksFollowed,
    /// A rank that a task has set for itself during a pulse is not lowered.
    RankKept,
    /// All tasks are boosted to SCHED_DEADLINE, and stalld does not notice that they lend that rank
    /// on.
    RankLent,
    /// The next scan may follow at once, however much CPU time the last one took.
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
    /// Faults that remove a limit on attacks. The table in tests/adversary/mutants.rs names the
    /// test that finds each fault.
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

    /// Returns the fault of the whole process.
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

/// Sets the fault of the calling thread.
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
