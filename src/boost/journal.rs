//! The journal: a restore record for each change that stalld has made to the host and not undone
//! yet.
//!
//! A record is written before its change is made, and cleared after the change is undone. The
//! journal is memory that stalld shares with the guardian, and usually a file. A thread or process
//! claims a record before it undoes the change.

use super::kernel::{Hrtick, SharedWords};
use crate::task::{Nanos, Policy, TaskId, Tid};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

/// How to undo one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreRecord {
    Boost(Boosted),
    /// RT throttling has been turned off: kernel.sched_rt_runtime_us was this.
    Throttling {
        runtime_us: i64,
    },
    /// This scheduler feature has been turned on.
    Hrtick(Hrtick),
}

/// A boosted task, and how it was scheduled before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boosted {
    pub tid: Tid,
    pub tgid: Tid,
    /// In clock ticks since boot.
    pub start: u64,
    /// The start of the leader of its process.
    pub leader_start: u64,
    /// The rank of the leader of its process; `ANY` if the task may take any rank by itself.
    pub leader_rank: Rank,
    /// When the boost is over, on CLOCK_MONOTONIC.
    pub end: Nanos,
    /// The guardian restores the task if stalld has not done so by this time after the end.
    pub grace: Nanos,
    pub before: Saved,
    pub how: BoostPolicy,
}

impl Boosted {
    pub(super) fn id(&self) -> TaskId {
        TaskId { tid: self.tid, start: self.start }
    }

    /// Returns the identity of the leader of its process.
    pub(super) fn leader(&self) -> TaskId {
        TaskId { tid: self.tgid, start: self.leader_start }
    }

    /// Returns the highest ranks that the task may have after a pulse: by its own tid, and by that
    /// of its leader. A thread that calls exec(2) gets the tid of its leader. By that tid the task
    /// may be either thread, and may keep the higher rank of both.
    pub(super) fn highest_ranks(&self) -> [Rank; 2] {
        let own = Rank::of(self.before.policy, self.before.priority);
        match self.leader_rank {
            Rank::ANY => [Rank::ANY; 2],
            leader => [own, leader.max(own)],
        }
    }
}

/// The rank of a task by its policy and priority. The task with the higher rank runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(i32);

impl Rank {
    pub const FAIR: Rank = Rank(0);

    /// Above all ranks.
    pub(super) const ANY: Rank = Rank(i32::MAX);

    pub fn of(policy: Policy, priority: u32) -> Rank {
        Rank(match policy {
            Policy::DEADLINE => 100,
            Policy::FIFO | Policy::RR => priority.min(99) as i32,
            Policy::IDLE => -1,
            _ => Rank::FAIR.0,
        })
    }
}

/// How a task was scheduled before its boost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub policy: Policy,
    pub priority: u32,
    pub reset_on_fork: bool,
    /// A boost does not change it. Children that are born during a boost have to get it.
    pub nice: i32,
    /// In ns; 0 if there is none to restore. Newer kernels take it from every real-time task, and
    /// give a fair task the default.
    pub timer_slack: u64,
}

/// How a task is scheduled during a boost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoostPolicy {
    Deadline {
        runtime: Nanos,
        period: Nanos,
    },
    /// At FIFO 98, in pulses.
    Fifo,
}

impl BoostPolicy {
    /// Returns the name of the policy.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BoostPolicy::Deadline { .. } => "SCHED_DEADLINE",
            BoostPolicy::Fifo => "SCHED_FIFO",
        }
    }
}

/// The place of a record. The generation distinguishes it from earlier records in the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    index: usize,
    generation: u64,
}

/// The number of 64-bit words in a record, and in the head of the journal.
const WORDS: usize = 16;

const MAGIC: u64 = u64::from_le_bytes(*b"stalldJ1");

mod head {
    pub(super) const MAGIC: usize = 0;
    pub(super) const BOOT: [usize; 2] = [1, 2];
    pub(super) const OWNER: usize = 3;
    pub(super) const WATCHED_UNTIL: usize = 4;
}

mod word {
    pub(super) const STATE: usize = 0;
    pub(super) const KIND: usize = 1;
    pub(super) const TID: usize = 2;
    pub(super) const TGID: usize = 3;
    pub(super) const START: usize = 4;
    pub(super) const END: usize = 5;
    pub(super) const POLICY: usize = 6;
    pub(super) const PRIORITY: usize = 7;
    pub(super) const RESET_ON_FORK: usize = 8;
    pub(super) const NICE: usize = 9;
    pub(super) const RUNTIME: usize = 10;
    pub(super) const PERIOD: usize = 11;
    pub(super) const VALUE: usize = 12;
    pub(super) const LEADER_START: usize = 13;
    pub(super) const TIMER_SLACK: usize = 14;
    pub(super) const LEADER_RANK: usize = 15;
}

/// The low bits of a record's state. The bits above them are its generation, so that a process that
/// has read one record can't claim or clear the next one in its place.
mod state {
    pub(super) const FREE: u64 = 0;
    pub(super) const LIVE: u64 = 1;
    pub(super) const CLAIMED: u64 = 2;
    pub(super) const WRITING: u64 = 3;
    pub(super) const BITS: u32 = 2;
    pub(super) const MASK: u64 = (1 << BITS) - 1;
}

mod kind {
    pub(super) const DEADLINE: u64 = 1;
    pub(super) const FIFO: u64 = 2;
    pub(super) const THROTTLING: u64 = 3;
    pub(super) const HRTICK: u64 = 4;
}

/// The journal. All processes that share its memory see the same records.
pub struct Journal {
    words: SharedWords,
    /// The file of the journal, locked while it is open; `None` for memory without a name.
    file: Option<File>,
}

impl Journal {
    /// Returns how many words hold this many records.
    pub const fn words(records: usize) -> usize {
        (records + 1) * WORDS
    }

    pub fn over(words: SharedWords) -> Journal {
        Journal { words, file: None }
    }

    /// Adds the file that the words are mapped from.
    pub(crate) fn kept_in(self, file: File) -> Journal {
        Journal { file: Some(file), ..self }
    }

    /// Returns the descriptor of the file. A process that has it shares the lock on the file.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(|file| file.as_raw_fd())
    }

    /// Removes all records, and makes the journal that of this boot and this process.
    pub fn begin(&self, boot_id: u128, owner: Tid) {
        self.words.iter().for_each(|word| word.store(0, Relaxed));
        let head = self.record(0);
        head[head::BOOT[0]].store(boot_id as u64, Relaxed);
        head[head::BOOT[1]].store((boot_id >> 64) as u64, Relaxed);
        head[head::OWNER].store(owner.0 as u64, Relaxed);
        head[head::WATCHED_UNTIL].store(u64::MAX, Relaxed);
        head[head::MAGIC].store(MAGIC, Release);
    }

    /// Stores when the guardian will wake by itself. The guardian stores `Nanos::MAX` before it
    /// reads the records, and its wake-up time after that.
    pub fn sleeps_until(&self, moment: Nanos) {
        self.record(0)[head::WATCHED_UNTIL].store(moment.0, SeqCst);
        fence(SeqCst);
    }

    /// Returns whether the guardian will wake by itself in time for a record that is due at `due`.
    /// The record must have been written before this call.
    pub(super) fn is_watched_by(&self, due: Nanos) -> bool {
        fence(SeqCst);
        self.record(0)[head::WATCHED_UNTIL].load(SeqCst) <= due.0
    }

    /// Returns the boot that the journal is of; `None` if this is no journal. Records of another
    /// boot are void.
    pub fn boot_id(&self) -> Option<u128> {
        let head = self.record(0);
        (head[head::MAGIC].load(Acquire) == MAGIC).then(|| {
            u128::from(head[head::BOOT[0]].load(Relaxed))
                | u128::from(head[head::BOOT[1]].load(Relaxed)) << 64
        })
    }

    /// Writes a record for a change that is about to be made. Returns `None` if there is no room:
    /// then the change must not be made.
    pub fn arm(&self, undo: &RestoreRecord) -> Option<Slot> {
        let slot = (1..self.words.len() / WORDS).find_map(|index| {
            let word = &self.record(index)[word::STATE];
            let now = word.load(Acquire);
            let slot = Slot { index, generation: ((now >> state::BITS) + 1) & u64::MAX >> state::BITS };
            let free = now & state::MASK == state::FREE;
            let taken =
                free && word.compare_exchange(now, slot.state(state::WRITING), AcqRel, Acquire).is_ok();
            taken.then_some(slot)
        })?;
        let record = self.record(slot.index);
        let set = |word: usize, value: u64| record[word].store(value, Relaxed);
        match undo {
            RestoreRecord::Boost(boosted) => {
                let (kind, runtime, period) = match boosted.how {
                    BoostPolicy::Deadline { runtime, period } => (kind::DEADLINE, runtime, period),
                    BoostPolicy::Fifo => (kind::FIFO, Nanos::ZERO, Nanos::ZERO),
                };
                set(word::KIND, kind);
                set(word::TID, boosted.tid.0 as u64);
                set(word::TGID, boosted.tgid.0 as u64);
                set(word::START, boosted.start);
                set(word::LEADER_START, boosted.leader_start);
                set(word::LEADER_RANK, i64::from(boosted.leader_rank.0) as u64);
                set(word::END, boosted.end.0);
                set(word::POLICY, boosted.before.policy.0.into());
                set(word::PRIORITY, boosted.before.priority.into());
                set(word::RESET_ON_FORK, boosted.before.reset_on_fork.into());
                set(word::NICE, i64::from(boosted.before.nice) as u64);
                set(word::TIMER_SLACK, boosted.before.timer_slack);
                set(word::RUNTIME, runtime.0);
                set(word::PERIOD, period.0);
                set(word::VALUE, boosted.grace.0);
            }
            RestoreRecord::Throttling { runtime_us } => {
                set(word::KIND, kind::THROTTLING);
                set(word::VALUE, *runtime_us as u64);
            }
            RestoreRecord::Hrtick(hrtick) => {
                set(word::KIND, kind::HRTICK);
                set(word::VALUE, u64::from(*hrtick == Hrtick::HrtickDl));
            }
        }
        record[word::STATE].store(slot.state(state::LIVE), Release);
        Some(slot)
    }

    /// Claims a record. Returns true to only one of all callers, which has to undo the change.
    pub fn claim(&self, slot: Slot) -> bool {
        self.turn(slot, state::LIVE, state::CLAIMED)
    }

    /// Clears a record that the caller has claimed and undone.
    pub(super) fn clear(&self, slot: Slot) {
        self.turn(slot, state::CLAIMED, state::FREE);
    }

    /// Clears the record of a change that was not made, unless another thread or process has
    /// claimed it.
    pub fn forget(&self, slot: Slot) {
        if self.claim(slot) {
            self.clear(slot);
        }
    }

    /// Ends a claim because the boost could not be undone. The record is tried again as if the
    /// boost ended at `end`.
    pub fn postpone(&self, slot: Slot, end: Nanos) {
        self.record(slot.index)[word::END].store(end.0, Relaxed);
        self.turn(slot, state::CLAIMED, state::LIVE);
    }

    /// Makes claimed records live again. All their claimers must have ended.
    pub fn reopen(&self) {
        for slot in self.slots().filter(|&slot| self.is(slot, state::CLAIMED)) {
            self.turn(slot, state::CLAIMED, state::LIVE);
        }
    }

    pub fn is_live(&self, slot: Slot) -> bool {
        self.is(slot, state::LIVE)
    }

    /// Returns whether another record than `than` is of a boost for which `is` returns true.
    pub fn has_other(&self, than: Slot, is: impl Fn(&Boosted) -> bool) -> bool {
        self.slots()
            .filter(|&slot| slot != than && !self.is(slot, state::FREE))
            .any(|slot| matches!(read(self.record(slot.index)), Some(RestoreRecord::Boost(boosted)) if is(&boosted)))
    }

    pub fn is_claimed(&self, slot: Slot) -> bool {
        self.is(slot, state::CLAIMED)
    }

    /// Returns all records that are not claimed, without garbled ones.
    pub fn live(&self) -> impl Iterator<Item = (Slot, RestoreRecord)> + '_ {
        self.open().filter(|&(slot, _)| self.is_live(slot))
    }

    /// Returns all records whose changes may not be undone yet: live and claimed ones, without
    /// garbled ones.
    pub fn open(&self) -> impl Iterator<Item = (Slot, RestoreRecord)> + '_ {
        let is_open = |slot: Slot| self.is_live(slot) || self.is_claimed(slot);
        self.slots()
            .filter(move |&slot| is_open(slot))
            .filter_map(|slot| Some((slot, read(self.record(slot.index))?)))
            // If the state has changed, the words that were read may be of two records.
            .filter(move |&(slot, _)| is_open(slot))
    }

    /// Returns the number of live records that are garbled: their words make no record.
    pub fn garbled(&self) -> usize {
        self.slots().filter(|&slot| self.is_live(slot) && read(self.record(slot.index)).is_none()).count()
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (1..self.words.len() / WORDS).map(|index| {
            let generation = self.record(index)[word::STATE].load(Acquire) >> state::BITS;
            Slot { index, generation }
        })
    }

    fn is(&self, slot: Slot, state: u64) -> bool {
        self.record(slot.index)[word::STATE].load(Acquire) == slot.state(state)
    }

    fn turn(&self, slot: Slot, from: u64, to: u64) -> bool {
        let word = &self.record(slot.index)[word::STATE];
        word.compare_exchange(slot.state(from), slot.state(to), AcqRel, Acquire).is_ok()
    }

    fn record(&self, index: usize) -> &[AtomicU64; WORDS] {
        static NONE: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
        let record = self.words.get(index * WORDS..(index + 1) * WORDS);
        record.and_then(|words| words.try_into().ok()).unwrap_or(&NONE)
    }
}

impl Slot {
    fn state(self, state: u64) -> u64 {
        self.generation << state::BITS | state
    }
}

fn read(record: &[AtomicU64; WORDS]) -> Option<RestoreRecord> {
    let get = |word: usize| record[word].load(Relaxed);
    let tid = |word: usize| i32::try_from(get(word)).ok().filter(|&tid| tid > 0).map(Tid);
    let kind = get(word::KIND);
    match kind {
        kind::DEADLINE | kind::FIFO => {
            let how = match kind {
                kind::FIFO => BoostPolicy::Fifo,
                _ => BoostPolicy::Deadline {
                    runtime: Nanos(get(word::RUNTIME)),
                    period: Nanos(get(word::PERIOD)),
                },
            };
            let before = Saved {
                policy: Policy(u32::try_from(get(word::POLICY)).ok()?),
                priority: u32::try_from(get(word::PRIORITY)).ok().filter(|&priority| priority < 100)?,
                reset_on_fork: get(word::RESET_ON_FORK) != 0,
                nice: i32::try_from(get(word::NICE) as i64).ok()?,
                timer_slack: get(word::TIMER_SLACK),
            };
            Some(RestoreRecord::Boost(Boosted {
                tid: tid(word::TID)?,
                tgid: tid(word::TGID)?,
                start: get(word::START),
                leader_start: get(word::LEADER_START),
                leader_rank: Rank(i32::try_from(get(word::LEADER_RANK) as i64).ok()?),
                end: Nanos(get(word::END)),
                grace: Nanos(get(word::VALUE)),
                before,
                how,
            }))
        }
        kind::THROTTLING => Some(RestoreRecord::Throttling { runtime_us: get(word::VALUE) as i64 }),
        kind::HRTICK => {
            Some(RestoreRecord::Hrtick(if get(word::VALUE) != 0 { Hrtick::HrtickDl } else { Hrtick::Hrtick }))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
