//! Undoes what the journal records, if the thread that recorded it can't. It is called by the
//! guardian, by the next stalld, and by stalld itself at its end.

use super::journal::{Boosted, Journal, RestoreRecord, Slot};
use super::kernel::{Kernel, Settings, UNTHROTTLED};
use super::restore::{RETRY, RestoreOutcome, give_slack_back, settle};
use crate::error::{Error, Result};
use crate::task::Nanos;
use std::{fmt, io};

/// The outcome of undoing a record.
#[derive(Debug)]
pub enum Recovered {
    Task(Boosted, RestoreOutcome),
    /// False if another process has set it since, and it stays so.
    Setting(RestoreRecord, Result<bool>),
}

/// Returns when a boost is overdue: a stalld that has not ended it by then counts as stuck. For a
/// pulse that is soon, because even a killed stalld may not exit: its thread may wait for a CPU
/// behind the boosted task.
pub fn due(boosted: &Boosted) -> Nanos {
    boosted.end + boosted.grace
}

/// Undoes the boosts that are overdue at `now`, of a stalld that lives but may be stuck. It may be
/// stuck after it wrote a record and make the boost later, so the record of a task that is not
/// boosted stays. It may be stuck after it claimed a record. Then the task is restored twice, which
/// does no harm.
pub fn overdue(kernel: &impl Kernel, journal: &Journal, now: Nanos, mut report: impl FnMut(Recovered)) {
    for (slot, record) in journal.open() {
        let RestoreRecord::Boost(boosted) = record else { continue };
        if due(&boosted) > now {
            continue;
        }
        let is_ours = journal.claim(slot);
        if !is_ours && !journal.is_claimed(slot) {
            continue;
        }
        let not_yet = |outcome: &RestoreOutcome| matches!(outcome, RestoreOutcome::NeverBoosted);
        let end = kernel.now() + RETRY;
        let stays = |outcome: &RestoreOutcome| outcome.has_failed() || is_ours && not_yet(outcome);
        let outcome = settle(kernel, journal, slot, &boosted, |outcome| stays(outcome).then_some(end));
        if !not_yet(&outcome) {
            report(Recovered::Task(boosted, outcome));
        }
    }
}

/// Undoes all changes of a stalld that has ended. Tasks come first, because a pinned task can be
/// SCHED_DEADLINE only while throttling is off.
pub fn everything(kernel: &(impl Kernel + Settings), journal: &Journal, mut report: impl FnMut(Recovered)) {
    for (slot, record) in journal.open() {
        let RestoreRecord::Boost(boosted) = record else { continue };
        // stalld may have ended after it claimed the record, before or during the restore.
        let halfway = journal.is_claimed(slot);
        if halfway || journal.claim(slot) {
            let retry = |outcome: &RestoreOutcome| outcome.has_failed().then_some(Nanos::MAX);
            let outcome = settle(kernel, journal, slot, &boosted, retry);
            if halfway && matches!(outcome, RestoreOutcome::NeverBoosted) {
                give_slack_back(kernel, boosted.tid, boosted.before.timer_slack);
            }
            report(Recovered::Task(boosted, outcome));
        }
    }
    journal.reopen();
    for (slot, record) in journal.live() {
        if !matches!(record, RestoreRecord::Boost(_)) && journal.claim(slot) {
            report(Recovered::Setting(record, settle_setting(kernel, journal, slot, &record)));
        }
    }
}

/// Puts back the setting of a record that the caller has claimed. Clears the record, or makes it
/// live again for the next try if that fails.
pub(super) fn settle_setting(
    settings: &impl Settings,
    journal: &Journal,
    slot: Slot,
    record: &RestoreRecord,
) -> Result<bool> {
    let outcome = setting(settings, record);
    match outcome {
        Ok(_) => journal.clear(slot),
        Err(_) => journal.postpone(slot, Nanos::ZERO),
    }
    outcome
}

/// Puts back a setting of the machine. Returns false if another process has changed it since: then
/// it stays.
fn setting(settings: &impl Settings, record: &RestoreRecord) -> Result<bool> {
    match *record {
        RestoreRecord::Throttling { runtime_us } => match settings.rt_runtime_us()? {
            UNTHROTTLED => settings.set_rt_runtime_us(runtime_us).map(|()| true),
            _ => Ok(false),
        },
        RestoreRecord::Hrtick(hrtick) => settings.turn_hrtick_off(hrtick).map(|()| true),
        RestoreRecord::Boost(_) => Ok(false),
    }
}

impl Recovered {
    /// Returns false if the record needs another try.
    pub fn is_done(&self) -> bool {
        !matches!(self, Recovered::Task(_, RestoreOutcome::Failed(_)) | Recovered::Setting(_, Err(_)))
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Recovered::Task(boosted, outcome) => {
                write!(f, "task {}: ", boosted.tid)?;
                match outcome {
                    RestoreOutcome::Restored(_) => write!(f, "restored to {}", boosted.before),
                    RestoreOutcome::Lowered { from, .. } => {
                        write!(f, "lowered from {from} to {}, its policy before the boost", boosted.before)
                    }
                    RestoreOutcome::NeverBoosted => write!(f, "was not boosted yet"),
                    RestoreOutcome::Gone => write!(f, "has ended"),
                    RestoreOutcome::ChangedByOthers(policy) => {
                        write!(
                            f,
                            "left as it is: another process has made it {}",
                            policy.name().unwrap_or("another policy")
                        )
                    }
                    RestoreOutcome::Failed(errno) => {
                        let reason = io::Error::from_raw_os_error(*errno);
                        write!(f, "{}", Error::io("restore its policy", &reason))
                    }
                }
            }
            Recovered::Setting(_, Ok(false)) => write!(f, "RT throttling left as another process has set it"),
            Recovered::Setting(RestoreRecord::Throttling { runtime_us }, Ok(true)) => {
                write!(f, "RT Throttling runtime restored to {runtime_us}")
            }
            Recovered::Setting(_, Ok(true)) => write!(f, "HRTICK turned off again"),
            Recovered::Setting(RestoreRecord::Throttling { runtime_us }, Err(e)) => {
                write!(f, "RT throttling is not restored to {runtime_us}: {e}")
            }
            Recovered::Setting(_, Err(e)) => write!(f, "HRTICK is not turned off again: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boost::journal::{BoostPolicy, Rank, Saved};
    use crate::boost::kernel::Host;
    use crate::sys::shared::{SharedWords, nameless_file};
    use crate::task::{Policy, Tid};

    const GRACE: Nanos = Nanos::from_millis(2);

    /// Returns a journal with the record of a boost. No task can have its tid.
    fn journal(end: Nanos) -> Journal {
        let words = SharedWords::map(&nameless_file().unwrap(), Journal::words(2)).unwrap();
        let journal = Journal::over(words);
        journal.begin(1, Tid(1));
        let before =
            Saved { policy: Policy::FIFO, priority: 1, reset_on_fork: false, nice: 0, timer_slack: 0 };
        let (tid, tgid) = (Tid(i32::MAX), Tid(i32::MAX));
        let boosted = Boosted {
            tid,
            tgid,
            start: 1,
            leader_start: 1,
            leader_rank: Rank::FAIR,
            end,
            grace: GRACE,
            before,
            how: BoostPolicy::Fifo,
        };
        journal.arm(&RestoreRecord::Boost(boosted)).unwrap();
        journal
    }

    fn told_of_overdue(journal: &Journal, now: Nanos) -> usize {
        let mut reported = 0;
        overdue(&Host, journal, now, |_| reported += 1);
        reported
    }

    #[test]
    fn a_record_that_stalld_had_claimed_when_it_died_is_restored_too() {
        let journal = journal(Nanos::MAX);
        let (slot, _) = journal.live().next().unwrap();
        assert!(journal.claim(slot));
        let mut reported = Vec::new();
        everything(&Host, &journal, |one| reported.push(one));
        assert!(matches!(reported[..], [Recovered::Task(_, RestoreOutcome::Gone)]));
        assert_eq!(journal.live().count(), 0);
    }

    #[test]
    fn a_claimed_record_of_a_stuck_stalld_is_restored_in_time() {
        let journal = journal(Nanos(100));
        let (slot, _) = journal.live().next().unwrap();
        assert!(journal.claim(slot));
        assert!(told_of_overdue(&journal, Nanos(100)) == 0 && journal.is_claimed(slot));
        assert_eq!(told_of_overdue(&journal, Nanos::from_secs(1)), 1);
        assert_eq!(journal.open().count(), 0);
    }

    #[test]
    fn only_overdue_boosts_are_restored_while_stalld_lives() {
        let journal = journal(Nanos(100));
        let due = Nanos(100) + GRACE;
        assert_eq!(told_of_overdue(&journal, due - Nanos(1)), 0);
        assert_eq!(told_of_overdue(&journal, due), 1);
        assert_eq!(journal.live().count(), 0);
    }
}
