//! Boosts as a test sees them from outside: the policies of tasks, and the journal.

use crate::process::{self, eventually};
use crate::{Event, Rig, Stalld, hogged_cpu};
use stalld::boost::journal::{Boosted, Journal, RestoreRecord};
use stalld::sys::sched;
use stalld::sys::shared::SharedWords;
use stalld::task::{Nanos, Policy, Tid};
use std::fs::File;

/// The default policy of the rig's victims.
pub const OWN: (Policy, u32) = (Policy::FIFO, 1);

pub fn policy(tid: Tid) -> Option<(Policy, u32)> {
    sched::get_attr(tid).ok().map(|attr| (attr.policy, attr.priority))
}

pub fn is_boosted(tid: Tid) -> bool {
    policy(tid).is_some_and(|(policy, _)| policy == Policy::DEADLINE)
}

/// Waits until the victim has its default policy again.
pub fn await_own_policy(victim: Tid) {
    eventually("the victim is restored", || (policy(victim) == Some(OWN)).then_some(()));
}

/// The options of a stalld that boosts by SCHED_DEADLINE, whether or not the kernel ends budgets in
/// time.
const BY_DEADLINE: [&str; 4] = ["-f", "-v", "--boost", "deadline"];

/// Starts a stalld that boosts, by SCHED_DEADLINE unless `args` differ, and waits for its first
/// scan.
pub fn start(args: &[&str]) -> Stalld {
    start_by(&[], args)
}

/// As [`Stalld::start_by`].
pub fn start_by(starter: &[&str], args: &[&str]) -> Stalld {
    let mut stalld = Stalld::start_by(starter, &[&BY_DEADLINE[..], &Stalld::RIG_ONLY, args].concat());
    stalld.scan();
    stalld
}

pub fn guardian(stalld: &Stalld) -> Tid {
    let is_it = |&pid: &Tid| process::status(pid, "Name").as_deref() == Some("stall-guard");
    eventually("there is a guardian", || process::children(stalld.pid()).into_iter().find(is_it))
}

/// Starts a rig with one victim and waits until that is boosted as SCHED_DEADLINE.
pub fn boosted_victim(stalld: &mut Stalld, rig: &[&str]) -> (Rig, Event) {
    for _ in 0..5 {
        let mut rig = Rig::start(rig);
        let victim = rig.event("victim");
        let boosted = stalld.event_of("boosted", victim.tid());
        assert_eq!(boosted.number("cpu"), hogged_cpu().0.into());
        // If a hypervisor takes the CPU away for 2 ms, the victim does not run in time, and stalld
        // boosts it in pulses instead.
        if boosted.text("policy") == "SCHED_DEADLINE" {
            assert!(is_boosted(victim.tid()));
            return (rig, victim);
        }
    }
    panic!("no victim of five was boosted as SCHED_DEADLINE");
}

/// The journal, as stalld and its guardian share it.
pub fn journal() -> Journal {
    let file = eventually("there is a journal", || {
        let file = File::options().read(true).write(true).open("/run/stalld/journal").ok()?;
        file.metadata().is_ok_and(|seen| seen.len() > 0).then_some(file)
    });
    let words = file.metadata().unwrap().len() as usize / size_of::<u64>();
    Journal::over(SharedWords::map(&file, words).unwrap())
}

/// The boosts that the guardian would undo if stalld ended now.
pub fn live_boosts(journal: &Journal) -> impl Iterator<Item = Boosted> + '_ {
    journal.live().filter_map(|(_, undo)| match undo {
        RestoreRecord::Boost(boosted) => Some(boosted),
        _ => None,
    })
}

/// The planned end of this task's boost.
pub fn end_of_boost(victim: Tid) -> Nanos {
    let journal = journal();
    let boosted = live_boosts(&journal).find(|boosted| boosted.tid == victim);
    boosted.expect("the journal has no record of the boost").end
}
