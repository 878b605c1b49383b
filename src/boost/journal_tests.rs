use super::*;
use crate::boost::restore::leader_is_boosted;
use crate::sys::shared::nameless_file;

fn journal(records: usize) -> Journal {
    let words = SharedWords::map(&nameless_file().unwrap(), Journal::words(records)).unwrap();
    let journal = Journal::over(words);
    journal.begin(7, Tid(42));
    journal
}

fn boosted(tid: i32) -> RestoreRecord {
    RestoreRecord::Boost(Boosted {
        tid: Tid(tid),
        tgid: Tid(tid),
        start: 99,
        leader_start: 98,
        leader_rank: Rank::of(Policy::IDLE, 0),
        end: Nanos(12345),
        grace: Nanos(99),
        before: Saved { policy: Policy::RR, priority: 33, reset_on_fork: true, nice: -7, timer_slack: 777 },
        how: BoostPolicy::Deadline { runtime: Nanos(20_000), period: Nanos::from_secs(1) },
    })
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let journal = journal(4);
    let all = [
        boosted(5),
        RestoreRecord::Throttling { runtime_us: 950_000 },
        RestoreRecord::Hrtick(Hrtick::HrtickDl),
    ];
    let slots: Vec<Slot> = all.iter().map(|undo| journal.arm(undo).unwrap()).collect();
    assert_eq!(journal.live().map(|(_, undo)| undo).collect::<Vec<_>>(), all);
    assert!(journal.claim(slots[1]));
    journal.clear(slots[1]);
    assert_eq!(journal.live().map(|(_, undo)| undo).collect::<Vec<_>>(), [all[0], all[2]]);
    assert_eq!(journal.boot_id(), Some(7));
}

#[test]
fn a_record_is_claimed_by_one_only() {
    let journal = journal(1);
    let slot = journal.arm(&boosted(5)).unwrap();
    assert!(journal.claim(slot));
    assert!(!journal.claim(slot));
    assert_eq!(journal.live().count(), 0);
    journal.reopen();
    assert!(journal.claim(slot));
}

#[test]
fn a_reader_of_a_record_can_not_claim_the_next_one_in_its_place() {
    let journal = journal(1);
    let first = journal.arm(&boosted(5)).unwrap();
    assert!(journal.claim(first));
    journal.clear(first);
    let second = journal.arm(&boosted(6)).unwrap();
    assert!(!journal.claim(first) && journal.is_live(second));
    journal.clear(first);
    assert!(journal.is_live(second));
    let is_sixth = |boosted: &Boosted| boosted.tid == Tid(6);
    assert!(journal.has_other(first, is_sixth) && !journal.has_other(second, is_sixth));
}

#[test]
fn an_earlier_task_with_the_tid_of_a_leader_is_not_the_leader() {
    let journal = journal(2);
    let RestoreRecord::Boost(of_5) = boosted(5) else { panic!() };
    let thread = Boosted { tgid: Tid(4), ..of_5 };
    let slot = journal.arm(&RestoreRecord::Boost(thread)).unwrap();
    for (start, is_leader) in [(thread.leader_start - 1, false), (thread.leader_start, true)] {
        let other = journal.arm(&RestoreRecord::Boost(Boosted { tid: Tid(4), start, ..of_5 })).unwrap();
        assert_eq!(leader_is_boosted(&journal, slot, &thread), is_leader);
        journal.forget(other);
    }
}

#[test]
fn a_record_that_could_not_be_restored_is_live_again_later() {
    let journal = journal(1);
    let slot = journal.arm(&boosted(5)).unwrap();
    assert!(journal.claim(slot));
    journal.postpone(slot, Nanos(777));
    let live: Vec<(Slot, RestoreRecord)> = journal.live().collect();
    assert!(
        matches!(live[..], [(again, RestoreRecord::Boost(Boosted { end: Nanos(777), .. }))] if again == slot)
    );
}

#[test]
fn a_full_journal_takes_no_more() {
    let journal = journal(2);
    let first = journal.arm(&boosted(1)).unwrap();
    journal.arm(&boosted(2)).unwrap();
    assert_eq!(journal.arm(&boosted(3)), None);
    assert!(journal.claim(first));
    assert_eq!(journal.arm(&boosted(3)), None);
    journal.clear(first);
    assert!(journal.arm(&boosted(3)).is_some());
}

#[test]
fn a_garbled_record_is_no_record() {
    let journal = journal(1);
    journal.arm(&boosted(5)).unwrap();
    journal.words[WORDS + word::TID].store(u64::MAX, Relaxed);
    assert_eq!((journal.live().count(), journal.garbled()), (0, 1));
    journal.words[head::MAGIC].store(1, Relaxed);
    assert_eq!(journal.boot_id(), None);
}
