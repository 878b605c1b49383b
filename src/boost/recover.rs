//! Undoes what the journal says, for whoever has to do it in stalld's place.

use super::journal::{Boosted, Journal, RestoreRecord, Slot};
use super::kernel::Kernel;
use super::restore::{RETRY, RestoreOutcome, give_slack_back, settle};
use crate::error::{Error, Result};
use crate::host::debugfs;
use crate::host::settings::{self, UNTHROTTLED};
use crate::task::Nanos;
use std::fmt;
use std::path::Path;

/// What was done about a record.
#[derive(Debug)]
pub enum Recovered {
    Task(Boosted, RestoreOutcome),
    /// False where it is as somebody else has set it since.
    Setting(RestoreRecord, Result<bool>),
}

/// Returns the moment from which stalld counts as stuck if it has not ended this boost. For a pulse
/// that comes soon: a thread of a stalld that was killed may even wait behind the task, and has to
/// run once more for the process to end.
pub fn due(boosted: &Boosted) -> Nanos {
    boosted.end + boosted.grace
}

/// Undoes the boosts that are overdue at `now`, of a stalld that lives but may be stuck. It may be
/// so between a record and the change, and make that change yet: such a record stays. Or between a
/// claim and what it had claimed the record for: twice does no harm.
pub fn overdue(kernel: &impl Kernel, journal: &Journal, now: Nanos, mut tell: impl FnMut(Recovered)) {
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
        let stays = |outcome: &RestoreOutcome| is_ours && not_yet(outcome);
        let outcome = settle(kernel, journal, slot, &boosted, kernel.now() + RETRY, stays);
        if !not_yet(&outcome) {
            tell(Recovered::Task(boosted, outcome));
        }
    }
}

/// Undoes everything, for a stalld that has ended: tasks first, because pinned ones can be DEADLINE
/// only while throttling is off.
pub fn everything(kernel: &impl Kernel, journal: &Journal, mut tell: impl FnMut(Recovered)) {
    for (slot, record) in journal.open() {
        let RestoreRecord::Boost(boosted) = record else { continue };
        // It may have ended between a claim and what it had claimed the record for, or halfway
        // through that.
        let halfway = journal.is_claimed(slot);
        if halfway || journal.claim(slot) {
            let outcome = settle(kernel, journal, slot, &boosted, Nanos::MAX, |_| false);
            if halfway && matches!(outcome, RestoreOutcome::NeverBoosted) {
                give_slack_back(kernel, boosted.tid, boosted.before.timer_slack);
            }
            tell(Recovered::Task(boosted, outcome));
        }
    }
    journal.reopen();
    for (slot, record) in journal.live() {
        if !matches!(record, RestoreRecord::Boost(_)) && journal.claim(slot) {
            tell(Recovered::Setting(record, settle_setting(journal, slot, &record)));
        }
    }
}

/// Puts back the setting of a record that the caller has claimed, and clears the record or, if that
/// has failed, leaves it for the next who tries.
pub fn settle_setting(journal: &Journal, slot: Slot, record: &RestoreRecord) -> Result<bool> {
    let outcome = setting(record);
    match outcome {
        Ok(_) => journal.clear(slot),
        Err(_) => journal.postpone(slot, Nanos::ZERO),
    }
    outcome
}

/// Puts back a setting of the machine. False if somebody else has changed it since, which is left
/// as it is.
fn setting(record: &RestoreRecord) -> Result<bool> {
    match *record {
        RestoreRecord::Throttling { runtime_us } => match settings::rt_runtime_us()? {
            UNTHROTTLED => settings::set_rt_runtime_us(runtime_us).map(|()| true),
            _ => Ok(false),
        },
        RestoreRecord::Hrtick(hrtick) => {
            let found = debugfs::hrtick(Path::new("/"));
            let found =
                found.ok_or_else(|| Error::new("cannot find the scheduler's features to turn HRTICK off"))?;
            settings::set_hrtick(&found.path, hrtick, false).map(|()| true)
        }
        RestoreRecord::Boost(_) => Ok(false),
    }
}

impl Recovered {
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
                            "left as it is, somebody has made it {}",
                            policy.name().unwrap_or("another policy")
                        )
                    }
                    RestoreOutcome::Failed(e) => write!(f, "{}", Error::io("restore its policy", e)),
                }
            }
            Recovered::Setting(_, Ok(false)) => write!(f, "RT throttling left as somebody has set it"),
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

    /// A record of a boost of nobody: there is no such number.
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
        let mut told = 0;
        overdue(&Host, journal, now, |_| told += 1);
        told
    }

    #[test]
    fn what_stalld_had_claimed_when_it_died_is_undone_too() {
        let journal = journal(Nanos::MAX);
        let (slot, _) = journal.live().next().unwrap();
        assert!(journal.claim(slot));
        let mut told = Vec::new();
        everything(&Host, &journal, |one| told.push(one));
        assert!(matches!(told[..], [Recovered::Task(_, RestoreOutcome::Gone)]));
        assert_eq!(journal.live().count(), 0);
    }

    #[test]
    fn what_stalld_has_claimed_and_got_no_further_with_is_undone_in_time() {
        let journal = journal(Nanos(100));
        let (slot, _) = journal.live().next().unwrap();
        assert!(journal.claim(slot));
        assert!(told_of_overdue(&journal, Nanos(100)) == 0 && journal.is_claimed(slot));
        assert_eq!(told_of_overdue(&journal, Nanos::from_secs(1)), 1);
        assert_eq!(journal.open().count(), 0);
    }

    #[test]
    fn only_what_is_overdue_is_undone_for_a_stalld_that_lives() {
        let journal = journal(Nanos(100));
        let due = Nanos(100) + GRACE;
        assert_eq!(told_of_overdue(&journal, due - Nanos(1)), 0);
        assert_eq!(told_of_overdue(&journal, due), 1);
        assert_eq!(journal.live().count(), 0);
    }
}
