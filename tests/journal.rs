//! The journal that stalld finds at its start, or can't have: what it makes of that.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{OWN, policy};
use rig::scratch::Scratch;
use rig::throttling::{limit, set_limit};
use rig::{Rig, Stalld, hogged_cpu, live};
use stalld::boost::journal::{Boosted, How, Journal, Saved, Undo};
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
        let (end, how) = (Nanos::ZERO, How::Fifo);
        let boosted = Boosted { tid, tgid: tid, start, leader_start: start, end, before, how };
        journal.arm(&Undo::Boost(boosted)).unwrap();
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

/// Starts it with a /run of its own, in which a shell has prepared this.
fn start(prepared: &str) -> Stalld {
    let script = format!(
        "mount -t tmpfs -o mode=755 none /run && mkdir /run/stalld && cd /run/stalld && {prepared} && exec \"$@\""
    );
    let args = [&["-f", "-v", "-t", "1", "-g", "1"], &Stalld::RIG_ONLY[..]].concat();
    Stalld::start_by(&["unshare", "-m", "sh", "-c", &script, "sh"], &args)
}

/// The journal that it uses now.
fn journal(stalld: &Stalld) -> Journal {
    let path = format!("/proc/{}/root/run/stalld/journal", stalld.pid());
    let file = File::options().read(true).write(true).open(path).unwrap();
    let words = file.metadata().unwrap().len() as usize / size_of::<u64>();
    Journal::over(SharedWords::map(&file, words).unwrap())
}

#[test]
fn what_is_no_journal_of_this_boot_is_said_and_replaced_and_nothing_of_it_followed() {
    let Some(_live) = live() else { return };
    let scratch = Scratch::new("journal-foreign");
    // What a journal that was believed would have undone.
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
    for (name, said) in [
        ("former", "is of another boot: it is emptied"),
        ("garbled", ": 1 records make no sense: it is emptied"),
        ("foreign", "is no journal: it is emptied"),
        ("short", "is no journal: it is emptied"),
    ] {
        let path = scratch.join(name);
        let mut stalld = start(&format!("cp {} journal && chmod 600 journal", path.display()));
        let (_, line) = stalld.line_with(said);
        assert!(line.starts_with("stalld: /run/stalld/journal"), "{line}");
        stalld.line_with("using SCHED_DEADLINE for boosting");
        stalld.look();
        let journal = journal(&stalld);
        assert_eq!((journal.boot_id(), journal.live().count(), journal.garbled()), (Some(boot_id()), 0, 0));
        assert_eq!(policy(sleeper.tid), Some(Sleeper::BOOSTED), "{name}");
        assert_eq!(stalld.terminate().0, Some(0));
    }
    // The same record, believed.
    sleeper.write_journal(&scratch.join("good"), boot_id());
    let mut stalld = start(&format!("cp {} journal && chmod 600 journal", scratch.join("good").display()));
    stalld.line_with(&format!("left by a former stalld: task {}: restored to SCHED_OTHER", sleeper.tid));
    assert_eq!(policy(sleeper.tid), Some((Policy::OTHER, 0)));
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
fn without_a_journal_that_it_can_trust_it_only_logs() {
    let Some(_live) = live() else { return };
    set_limit("950000");
    for (prepared, reason) in [
        (
            "echo precious >/run/target && ln -s /run/target journal",
            "cannot use /run/stalld/journal: it is a symbolic link; remove it",
        ),
        (
            ": >journal && chmod 600 journal && chown 65534 journal",
            "cannot use /run/stalld/journal: it belongs to the user 65534, not to 0; \
             make sure that nothing uses it and remove it",
        ),
        (
            ": >journal && chmod 622 journal",
            "cannot use /run/stalld/journal: its mode is 0622, which allows more than 0600; \
             make sure that nothing uses it and remove it",
        ),
        ("mkdir journal", "cannot open /run/stalld/journal: Is a directory"),
        (
            // As much as fits, and no byte more.
            "mount -t tmpfs -o size=8k,mode=755 none /run/stalld && ! head -c 9000 /dev/zero >/run/stalld/full 2>&-",
            "cannot use the journal /run/stalld/journal: No space left on device",
        ),
    ] {
        let mut stalld = start(prepared);
        stalld.line_with(&format!("{reason}: without a journal stalld only logs"));
        stalld.look();
        let mut rig = Rig::start(&["--for", "2.5"]);
        let victim = rig.event("victim").tid();
        stalld.line_with(&format!("victim-{victim} starved on CPU {} for ", hogged_cpu()));
        stalld.look();
        assert_eq!((policy(victim), limit().as_str()), (Some(OWN), "950000"));
        let target = format!("/proc/{}/root/run/target", stalld.pid());
        assert!(
            fs::read_to_string(target).is_ok_and(|text| text == "precious\n") || !prepared.contains("target")
        );
        let (code, said) = stalld.terminate();
        assert_eq!(code, Some(0));
        let count = |text: &str| said.iter().filter(|(_, line)| line.contains(text)).count();
        assert_eq!((count("only logs"), count("boosted pid")), (1, 0), "{said:?}");
    }
}
