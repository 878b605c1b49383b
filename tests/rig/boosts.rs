//! Boosts as tests see them from outside: who is boosted, and what the journal says of it.

use super::process::{self, eventually};
use super::{Event, Rig, Stalld, hogged_cpu};
use stalld::boost::journal::{Boosted, Journal, Undo};
use stalld::sys::sched;
use stalld::sys::shared::SharedWords;
use stalld::task::{Nanos, Policy, Tid};
use std::fs::File;

/// How the rig's victims are scheduled unless told otherwise.
pub const OWN: (Policy, u32) = (Policy::FIFO, 1);

pub fn policy(tid: Tid) -> Option<(Policy, u32)> {
    sched::get_attr(tid).ok().map(|attr| (attr.policy, attr.priority))
}

pub fn is_boosted(tid: Tid) -> bool {
    policy(tid).is_some_and(|(policy, _)| policy == Policy::DEADLINE)
}

/// Waits until it is scheduled as it is by itself.
pub fn await_own_policy(victim: Tid) {
    eventually("the victim is what it was", || (policy(victim) == Some(OWN)).then_some(()));
}

/// A stalld that boosts, after its first look.
pub fn start(args: &[&str]) -> Stalld {
    start_by(&[], args)
}

/// As [`Stalld::start_by`].
pub fn start_by(starter: &[&str], args: &[&str]) -> Stalld {
    let mut stalld = Stalld::start_by(starter, &[&["-f", "-v"], &Stalld::RIG_ONLY[..], args].concat());
    stalld.look();
    stalld
}

pub fn guardian(stalld: &Stalld) -> Tid {
    let is_it = |&pid: &Tid| process::status(pid, "Name").as_deref() == Some("stall-guard");
    eventually("there is a guardian", || process::children(stalld.pid()).into_iter().find(is_it))
}

/// A rig with one victim that is in the middle of its boost.
pub fn boosted_victim(stalld: &mut Stalld, rig: &[&str]) -> (Rig, Event) {
    let mut rig = Rig::start(rig);
    let victim = rig.event("victim");
    stalld.line_with(&format!(
        "boosted pid {} (victim) (cpu {}) using SCHED_DEADLINE",
        victim.tid(),
        hogged_cpu()
    ));
    assert!(is_boosted(victim.tid()));
    (rig, victim)
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

/// The boosts that would be undone should stalld end now.
pub fn live_boosts(journal: &Journal) -> impl Iterator<Item = Boosted> + '_ {
    journal.live().filter_map(|(_, undo)| match undo {
        Undo::Boost(boosted) => Some(boosted),
        _ => None,
    })
}

/// When the boost of this task ought to be over.
pub fn end_of_boost(victim: Tid) -> Nanos {
    let journal = journal();
    let boosted = live_boosts(&journal).find(|boosted| boosted.tid == victim);
    boosted.expect("the boost is not on record").end
}
