//! The journal: first as memory that processes share, then as a file that a former stalld has left.

use super::is_one_line;
use stalld::boost::journal::{BoostPolicy, Boosted, Journal, Rank, RestoreRecord, Saved};
use stalld::guardian::journal_file;
use stalld::host::settings::Hrtick;
use stalld::sys::lock;
use stalld::sys::shared::{SharedWords, nameless_file};
use stalld::task::{Nanos, Policy, Tid};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Once;

/// The size of a record in bytes.
const RECORD: usize = 128;

pub fn run(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(64 * RECORD)];
    in_memory(bytes);
    in_a_file(&harmless(bytes));
    // This depends on no input, and takes a second.
    static ONCE: Once = Once::new();
    ONCE.call_once(in_use);
}

fn in_memory(bytes: &[u8]) {
    // A journal may be cut off anywhere.
    let words = bytes.len().div_ceil(8).max(1);
    let file = nameless_file().expect("a file without a name");
    let shared = SharedWords::map(&file, words).expect("memory to share");
    file.write_all_at(bytes, 0).expect("room in memory");
    let journal = Journal::over(shared);
    let records = (words / 16).saturating_sub(1);

    let live: Vec<_> = journal.live().collect();
    let open: Vec<_> = journal.open().collect();
    assert!(live.iter().all(|record| open.contains(record)) && open.len() <= records);
    assert!(live.len() + journal.garbled() <= records);
    for (slot, undo) in &open {
        if let RestoreRecord::Boost(boosted) = undo {
            assert!(boosted.tid.0 > 0 && boosted.tgid.0 > 0 && boosted.before.priority < 100, "{boosted:?}");
            let alike = open.iter().filter(|(_, undo)| is_of(undo, boosted.tid)).count();
            assert!(alike == 1 || journal.has_other(*slot, |other| other.tid == boosted.tid));
        }
        assert_ne!(journal.is_live(*slot), journal.is_claimed(*slot));
    }
    // A record can be claimed only once, until it is postponed or cleared.
    for (slot, undo) in &live {
        assert!(journal.claim(*slot) && !journal.claim(*slot) && journal.is_claimed(*slot));
        journal.postpone(*slot, Nanos(9));
        assert!(journal.is_live(*slot));
        if let RestoreRecord::Boost(boosted) = *undo {
            let again = (*slot, RestoreRecord::Boost(Boosted { end: Nanos(9), ..boosted }));
            assert!(journal.live().any(|record| record == again), "{again:?}");
        }
        journal.forget(*slot);
        assert!(!journal.is_live(*slot) && !journal.is_claimed(*slot));
    }
    journal.reopen();
    assert!(journal.open().eq(journal.live()), "nothing stays claimed");
    let before =
        Saved { policy: Policy::RR, priority: 3, reset_on_fork: true, nice: -5, timer_slack: 50_000 };
    let boosted = Boosted {
        tid: Tid(1 << 30),
        tgid: Tid(1 << 30),
        start: 1,
        leader_start: 2,
        leader_rank: Rank::of(Policy::FIFO, 4),
        end: Nanos(3),
        grace: Nanos(5),
        before,
        how: BoostPolicy::Deadline { runtime: Nanos(20_000), period: Nanos::from_secs(1) },
    };
    for undo in [
        RestoreRecord::Boost(boosted),
        RestoreRecord::Boost(Boosted { how: BoostPolicy::Fifo, ..boosted }),
        RestoreRecord::Throttling { runtime_us: 950_000 },
        RestoreRecord::Hrtick(Hrtick::HrtickDl),
    ] {
        let room = journal.arm(&undo);
        assert!(room.is_some() || !live.iter().any(|_| true), "a place was cleared");
        if let Some(slot) = room {
            assert!(journal.live().any(|record| record == (slot, undo)), "{undo:?}");
            journal.forget(slot);
        }
    }
    if records > 0 {
        journal.begin(7, Tid(1));
        assert!(journal.boot_id() == Some(7) && journal.open().count() == 0 && journal.garbled() == 0);
    }
}

fn is_of(undo: &RestoreRecord, tid: Tid) -> bool {
    matches!(undo, RestoreRecord::Boost(boosted) if boosted.tid == tid)
}

/// Changes the records to those that recovery may act on: of this boot, of tasks only, and with
/// tids that no kernel assigns.
fn harmless(bytes: &[u8]) -> Vec<u8> {
    let mut words: Vec<u64> = bytes
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        })
        .collect();
    if let [_, boot @ .., _] = &mut words[..] {
        if let Some(boot) = boot.get_mut(..2).filter(|boot| **boot == [0, 0]) {
            boot.copy_from_slice(&boot_id());
        }
    }
    for record in words.chunks_mut(RECORD / 8).skip(1) {
        for tid in record.iter_mut().skip(2).take(2) {
            *tid |= 1 << 30;
        }
        if let Some(kind) = record.get_mut(1).filter(|kind| **kind > 2) {
            *kind = u64::MAX;
        }
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn boot_id() -> [u64; 2] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0);
    [id as u64, (id >> 64) as u64]
}

fn in_a_file(bytes: &[u8]) {
    let (path, file) = left_behind(bytes);
    drop(file);
    let opened = journal_file::open(&path);
    fs::remove_file(&path).expect("it is there");
    let (journal, left) = opened.expect("a journal is made of anything");
    for one in &left {
        assert!(is_one_line(&one.to_string()) && one.is_done(), "{one:?}");
    }
    assert!(left.len() <= bytes.len() / RECORD + 1 && (bytes.is_empty() || journal.boot_id().is_some()));
    assert!(journal.boot_id() == Some(u128::from(boot_id()[0]) | u128::from(boot_id()[1]) << 64));
    assert_eq!((journal.open().count(), journal.garbled()), (0, 0), "it is emptied");
    assert!(journal.descriptor().is_some());
}

/// A journal that another process has locked is refused. One in memory has no file to lock.
fn in_use() {
    let (path, file) = left_behind(b"");
    assert!(lock::try_lock(&file).expect("a lock"));
    let refused = journal_file::open(&path).map(|_| ());
    fs::remove_file(&path).expect("it is there");
    let error = refused.expect_err("it is in use");
    assert!(error.errno() == Some(libc::EBUSY) && is_one_line(&error.to_string()), "{error:?}");
    let journal = journal_file::in_memory().expect("memory");
    assert!(journal.descriptor().is_none() && journal.open().count() == 0);
}

fn left_behind(bytes: &[u8]) -> (PathBuf, File) {
    let path = PathBuf::from(format!("/dev/shm/stalld-fuzz-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let file = file.and_then(|mut file| file.write_all(bytes).map(|()| file));
    (path, file.expect("room in /dev/shm"))
}
