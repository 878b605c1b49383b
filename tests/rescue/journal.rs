//! Journals that stalld finds at its start: it undoes good ones, empties bad ones and rejects
//! unsafe ones.

#![cfg(feature = "bpf")]

use rig::boosts::{OWN, policy};
use rig::scratch::Scratch;
use rig::throttling::{limit, set_limit};
use rig::{Rig, Stalld, hogged_cpu, live};
use stalld::boost::journal::{BoostPolicy, Boosted, Journal, Rank, RestoreRecord, Saved};
use stalld::boost::kernel::Host;
use stalld::proc;
use stalld::sys::sched;
use stalld::sys::shared::SharedWords;
use stalld::task::{Nanos, Policy, Tid};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};

const RECORDS: usize = 4;

/// A process that sleeps, scheduled as in a pulse. Killed when dropped.
struct Sleeper {
    tid: Tid,
    before: Saved,
    child: Child,
}

impl Sleeper {
    const BOOSTED: (Policy, u32) = (Policy::FIFO, 98);

    fn start() -> Sleeper {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let tid = Tid(child.id() as i32);
        let before = Saved::of(&Host, tid, &sched::get_attr(tid).unwrap());
        let (policy, priority) = Sleeper::BOOSTED;
        sched::set_scheduler(tid, policy, priority, true).unwrap();
        Sleeper { tid, before, child }
    }

    /// Writes the journal of a stalld that is in the middle of its pulse.
    fn write_journal(&self, path: &Path, boot_id: u128) {
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        let journal = Journal::over(SharedWords::map(&file, Journal::words(RECORDS)).unwrap());
        journal.begin(boot_id, Tid(1));
        let Sleeper { tid, before, .. } = *self;
        let start = proc::start(tid).unwrap();
        let (end, how) = (Nanos::ZERO, BoostPolicy::Fifo);
        let boosted = Boosted {
            tid,
            tgid: tid,
            start,
            leader_start: start,
            leader_rank: Rank::FAIR,
            end,
            grace: Nanos::ZERO,
            before,
            how,
        };
        journal.arm(&RestoreRecord::Boost(boosted)).unwrap();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn boot_id() -> u128 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap()
}

/// Starts stalld with a /run of its own, in which a shell runs `prepared` first.
fn start(prepared: &str) -> Stalld {
    let script = format!(
        "mount -t tmpfs -o mode=755 none /run && mkdir /run/stalld && cd /run/stalld && {prepared} && exec \"$@\""
    );
    let args = [&["-f", "-v", "--boost", "deadline", "-t", "1", "-g", "1"], &Stalld::RIG_ONLY[..]].concat();
    Stalld::start_by(&["unshare", "-m", "sh", "-c", &script, "sh"], &args)
}

/// The journal that this stalld uses now.
fn journal(stalld: &Stalld) -> Journal {
    let path = format!("/proc/{}/root/run/stalld/journal", stalld.pid());
    let file = File::options().read(true).write(true).open(path).unwrap();
    let words = file.metadata().unwrap().len() as usize / size_of::<u64>();
    Journal::over(SharedWords::map(&file, words).unwrap())
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_file_that_is_no_journal_of_this_boot_is_emptied_and_not_followed() {
    let _live = live();
    let scratch = Scratch::new("journal-foreign");
    // A stalld that followed one of these journals would restore this process.
    let sleeper = Sleeper::start();
    sleeper.write_journal(&scratch.join("former"), boot_id() ^ 1);
    sleeper.write_journal(&scratch.join("garbled"), boot_id());
    let mut bytes = fs::read(scratch.join("garbled")).unwrap();
    let record = bytes.len() / (RECORDS + 1);
    bytes[record + 16..record + 24].fill(0xff);
    fs::write(scratch.join("garbled"), &bytes).unwrap();
    bytes.reverse();
    fs::write(scratch.join("foreign"), &bytes).unwrap();
    fs::write(scratch.join("short"), "x").unwrap();
    for (name, reason) in [
        ("former", "another boot"),
        ("garbled", "1 records"),
        ("foreign", "no journal"),
        ("short", "no journal"),
    ] {
        let path = scratch.join(name);
        let mut stalld = start(&format!("cp {} journal && chmod 600 journal", path.display()));
        let line = stalld.message(reason);
        assert!(line.message().starts_with("/run/stalld/journal"), "{line:?}");
        stalld.message("using SCHED_DEADLINE for boosting");
        stalld.scan();
        let journal = journal(&stalld);
        assert_eq!((journal.boot_id(), journal.live().count(), journal.garbled()), (Some(boot_id()), 0, 0));
        assert_eq!(policy(sleeper.tid), Some(Sleeper::BOOSTED), "{name}");
        assert_eq!(stalld.terminate().0, Some(0));
    }
    // The same record in a good journal is followed.
    sleeper.write_journal(&scratch.join("good"), boot_id());
    let mut stalld = start(&format!("cp {} journal && chmod 600 journal", scratch.join("good").display()));
    stalld.message(&format!("task {}: restored to SCHED_OTHER", sleeper.tid));
    assert_eq!(policy(sleeper.tid), Some((Policy::OTHER, 0)));
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn without_a_journal_that_it_can_trust_it_only_logs() {
    let _live = live();
    set_limit("950000");
    // The words are the reason and the cure.
    for (prepared, words) in [
        ("echo precious >/run/target && ln -s /run/target journal", ["symbolic link", "remove it"]),
        (": >journal && chmod 600 journal && chown 65534 journal", ["user 65534", "remove it"]),
        (": >journal && chmod 622 journal", ["mode is 0622", "remove it"]),
        ("mkdir journal", ["cannot open", "Is a directory"]),
        (
            // This fills the file system to the last byte.
            "mount -t tmpfs -o size=8k,mode=755 none /run/stalld && ! head -c 9000 /dev/zero >/run/stalld/full 2>&-",
            ["cannot use", "No space left on device"],
        ),
    ] {
        let mut stalld = start(prepared);
        let line = stalld.message("only logs");
        let has = |text: &str| line.message().contains(text);
        assert!(has("/run/stalld/journal") && words.into_iter().all(has), "{line:?}");
        stalld.scan();
        let mut rig = Rig::start(&["--for", "20"]);
        let victim = rig.event("victim").tid();
        assert_eq!(stalld.event_of("starved", victim).number("cpu"), hogged_cpu().0.into());
        stalld.scan();
        assert_eq!((policy(victim), limit().as_str()), (Some(OWN), "950000"));
        let target = format!("/proc/{}/root/run/target", stalld.pid());
        assert!(
            fs::read_to_string(target).is_ok_and(|text| text == "precious\n") || !prepared.contains("target")
        );
        let (code, log) = stalld.terminate();
        assert_eq!(code, Some(0));
        assert_eq!((log.count_text("only logs"), log.count("boosted")), (1, 0), "{log:?}");
    }
}
