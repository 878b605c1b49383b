//! Gives children and threads that are born during a boost the policy that they would have
//! inherited.
//!
//! A boost sets RESET_ON_FORK, because a SCHED_DEADLINE task can't fork without it. The kernel
//! therefore makes the children of a boosted task SCHED_OTHER. To adopt a child is to give it its
//! parent's own policy.

use super::active::Ancestor;
use super::event::Event;
use super::journal::{BoostPolicy, Saved};
use super::kernel::{Attr, Birth, Kernel, Walk};
use super::restore::is_ours;
use crate::task::{Nanos, Policy, Tid};

/// The longest time of one pass, however many children there are. The next pass continues there.
pub(super) const BUDGET: Nanos = Nanos::from_millis(2);

/// The most older threads that a process may have for its new threads to be adopted. The policy of
/// each older thread has to be read.
const ELDERS: usize = 64;

/// Finds the tasks that are born during boosts, and handles each of them once.
#[derive(Clone, Default)]
pub(super) struct ForkedChildren {
    walk: Walk,
    parents: Vec<Parent>,
}

/// A boosted task whose children would have inherited something. The optional fields take system
/// calls, so they are filled in when there is a child.
#[derive(Clone, Copy)]
struct Parent {
    ancestor: Ancestor,
    is_unchanged: Option<bool>,
    elders: Option<Elders>,
}

/// The threads that the process of a boosted task had before the boost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elders {
    /// The boosted task is the only one.
    Alone,
    /// All others are scheduled as the boosted task was.
    Alike,
    Different,
}

/// Whether a new task is a process of its own or a thread of an existing one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kin {
    Child,
    Thread,
}

impl ForkedChildren {
    /// Gives the children and threads of these tasks what they would have inherited, where that is
    /// certain, and reports the others as orphans. Returns false if there was not enough time to
    /// find all of them.
    pub(super) fn adopt(
        &mut self,
        kernel: &impl Kernel,
        ancestors: &[Ancestor],
        events: &mut Vec<Event>,
    ) -> bool {
        let until = kernel.now() + BUDGET;
        self.parents.clear();
        let inherits = ancestors.iter().filter(|ancestor| ancestor.hands_down());
        self.parents.extend(inherits.map(|&ancestor| Parent { ancestor, is_unchanged: None, elders: None }));
        let Some(since) = self.parents.iter().map(|parent| parent.ancestor.raised.since).min() else {
            self.walk = Walk::default();
            return true;
        };
        let ForkedChildren { walk, parents } = self;
        kernel.births(walk, since, &mut |birth| {
            if let Some(birth) = birth {
                meet(kernel, parents, &birth, events);
            }
            kernel.now() < until
        })
    }
}

/// Returns whether the boosted task has not ended, and no other process has set its policy since.
/// Only then may its children get its old policy.
fn is_unchanged(kernel: &impl Kernel, ancestor: &Ancestor) -> bool {
    let boosted = &ancestor.raised.boosted;
    let is_itself = |attr: &Attr| is_ours(attr, boosted.how) || is_as_before(attr, boosted.before);
    kernel.is_itself(boosted.id()) && kernel.get_attr(boosted.tid).is_ok_and(|attr| is_itself(&attr))
}

fn is_as_before(attr: &Attr, before: Saved) -> bool {
    before.is(attr) && attr.nice == before.nice
}

/// Handles a task that was born during a boost, if its parent or its process is that of a boosted
/// task. Other threads of that process may be boosted too, and any of them may be its parent.
fn meet(kernel: &impl Kernel, parents: &mut [Parent], birth: &Birth, events: &mut Vec<Event>) {
    let Some(tgid) = kernel.process_of(birth.tid) else { return };
    let (of, kin) = match tgid == birth.tid {
        true => (birth.parent, Kin::Child),
        // `birth.parent` is the parent of its process.
        false => (tgid, Kin::Thread),
    };
    let may_be_parent =
        |parent: &&mut Parent| of == parent.ancestor.raised.boosted.tgid && is_elder(parent, birth);
    let mut orphan = None;
    for parent in parents.iter_mut().filter(may_be_parent) {
        let (policy, child) = (parent.ancestor.raised.boosted.before, birth.tid);
        match see_to(kernel, parent, birth, kin) {
            Some(Given::Policy) => {
                return events.push(Event::Adopted { parent: parent.ancestor.task, child, policy });
            }
            Some(Given::Nothing) => {
                orphan.get_or_insert(Event::Orphan { parent: parent.ancestor.task, child, policy });
            }
            None => {}
        }
    }
    events.extend(orphan);
}

/// Returns whether a task was born since the boost of this parent began.
fn is_elder(parent: &Parent, birth: &Birth) -> bool {
    let Ancestor { raised, .. } = parent.ancestor;
    birth.start >= raised.since && birth.tid != raised.boosted.tid
}

/// Gives a new task the policy of a parent that it may have. Returns `None` if it needs none from
/// this parent.
fn see_to(kernel: &impl Kernel, parent: &mut Parent, birth: &Birth, kin: Kin) -> Option<Given> {
    let boosted = parent.ancestor.raised.boosted;
    if !*parent.is_unchanged.get_or_insert_with(|| is_unchanged(kernel, &parent.ancestor)) {
        return None;
    }
    let elders = *parent.elders.get_or_insert_with(|| elders(kernel, &parent.ancestor));
    // The kernel does not show which thread of a process started another thread. For a child
    // process, it does not always show that.
    let is_its_own = match (kin, elders) {
        // A process of one thread does not show whether its new threads are to be scheduled alike.
        (Kin::Thread, _) => elders == Elders::Alike,
        (Kin::Child, Elders::Alone | Elders::Alike) => true,
        (Kin::Child, Elders::Different) => {
            kernel.is_child(boosted.tgid, boosted.tid, birth.tid) == Some(true)
        }
    };
    match is_its_own {
        // The child may starve and be boosted by now. The restore of that boost makes it what
        // RESET_ON_FORK made it.
        _ if is_boosted(kernel, birth, boosted.how) => Some(Given::Nothing),
        true => give(kernel, birth, kin, boosted.before),
        false => is_reset(kernel, birth).then_some(Given::Nothing),
    }
}

/// Compares the older threads of a boosted task's process with that task.
fn elders(kernel: &impl Kernel, ancestor: &Ancestor) -> Elders {
    let (boosted, since) = (ancestor.raised.boosted, ancestor.raised.since);
    let threads = kernel.threads(boosted.tgid, ELDERS + 1);
    let is_young = |&&tid: &&Tid| kernel.start(tid).is_none_or(|start| start >= since);
    let young = threads.iter().rev().take_while(is_young).count();
    let (old, _) = threads.split_at(threads.len() - young);
    let is_alike = |&tid: &Tid| {
        tid == boosted.tid || kernel.get_attr(tid).is_ok_and(|attr| is_as_before(&attr, boosted.before))
    };
    match old {
        [] | [_] => Elders::Alone,
        old if old.len() <= ELDERS && old.iter().all(is_alike) => Elders::Alike,
        _ => Elders::Different,
    }
}

enum Given {
    Policy,
    /// The child keeps the schedule that RESET_ON_FORK gave it, which may be intended.
    Nothing,
}

/// Gives a child what it would have inherited. Returns `None` if it already has another policy, or
/// has ended.
///
/// A task that makes itself SCHED_OTHER looks like one that was born SCHED_OTHER. It has to run for
/// that, so a child process that has never had a CPU has not done it. For threads the policy of all
/// older threads decides.
fn give(kernel: &impl Kernel, birth: &Birth, kin: Kin, before: Saved) -> Option<Given> {
    let tid = birth.tid;
    if !is_reset(kernel, birth) {
        return None;
    }
    if kin == Kin::Child && kernel.runs(tid) != Some(0) {
        return Some(Given::Nothing);
    }
    let given = kernel
        .set_scheduler(tid, before.policy, before.priority, false)
        .and_then(|()| if before.nice == 0 { Ok(()) } else { kernel.set_nice(tid, before.nice) });
    if kernel.start(tid).is_some_and(|start| start != birth.start) {
        // The child ended in between, and a new task has its tid. Take the policy back.
        let _ = kernel.set_scheduler(tid, Policy::OTHER, 0, false);
        let _ = kernel.set_nice(tid, 0);
        return None;
    }
    Some(if given.is_ok() { Given::Policy } else { Given::Nothing })
}

/// Returns whether a child has a boost of its own.
fn is_boosted(kernel: &impl Kernel, birth: &Birth, how: BoostPolicy) -> bool {
    let is_it = |attr: &Attr| is_ours(attr, how) || is_ours(attr, BoostPolicy::Fifo);
    kernel.is_itself(birth.id()) && kernel.get_attr(birth.tid).is_ok_and(|attr| is_it(&attr))
}

/// Returns whether the task has not ended and is scheduled as RESET_ON_FORK makes a task.
fn is_reset(kernel: &impl Kernel, birth: &Birth) -> bool {
    let attr = kernel.get_attr(birth.tid);
    let is_plain = attr.is_ok_and(|attr| {
        matches!(attr, Attr { policy: Policy::OTHER, nice: 0, .. }) && !attr.reset_on_fork()
    });
    is_plain && kernel.is_itself(birth.id())
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
