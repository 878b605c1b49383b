//! Children and threads that are born during a boost. Without RESET_ON_FORK a boosted task could
//! not fork at all; with it, they are SCHED_OTHER where they would have inherited the own policy of
//! their parent.

use super::active::Ward;
use super::event::Event;
use super::journal::{BoostPolicy, Saved};
use super::kernel::Kernel;
use super::restore::is_ours;
use crate::proc::births::{Birth, Walk};
use crate::sys::sched::Attr;
use crate::task::{Nanos, Policy, Tid};

/// One pass takes no longer, however many children there are. The next one goes on from there.
pub const BUDGET: Nanos = Nanos::from_millis(2);

/// Threads with more older threads than this are not adopted, because each of them is asked for its
/// policy.
const ELDERS: usize = 64;

/// Finds the tasks that are born during boosts, and meets each of them once.
#[derive(Clone, Default)]
pub struct ForkedChildren {
    walk: Walk,
    parents: Vec<Parent>,
}

/// A boosted task whose children would have inherited something. What takes a call is found out
/// when there is a child.
#[derive(Clone, Copy)]
struct Parent {
    ward: Ward,
    is_unchanged: Option<bool>,
    elders: Option<Elders>,
}

/// The threads that its process had before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elders {
    /// It has no other thread.
    Alone,
    /// All others are scheduled as it was.
    Alike,
    Different,
}

/// How a task was born.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kin {
    Child,
    Thread,
}

impl ForkedChildren {
    /// Gives the children and threads of these tasks what they would have inherited, where that is
    /// certain, and reports the others. Returns false if there was not enough time to meet all of
    /// them.
    pub fn adopt(&mut self, kernel: &impl Kernel, wards: &[Ward], events: &mut Vec<Event>) -> bool {
        let until = kernel.now() + BUDGET;
        self.parents.clear();
        let inherits = wards.iter().filter(|ward| ward.hands_down());
        self.parents.extend(inherits.map(|&ward| Parent { ward, is_unchanged: None, elders: None }));
        let Some(since) = self.parents.iter().map(|parent| parent.ward.raised.since).min() else {
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

/// Whether it is the task that was boosted, and no other process has set its policy since: its
/// children follow that.
fn is_unchanged(kernel: &impl Kernel, ward: &Ward) -> bool {
    let boosted = &ward.raised.boosted;
    let is_itself = |attr: &Attr| is_ours(attr, boosted.how) || is_as_before(attr, boosted.before);
    kernel.is_itself(boosted.id()) && kernel.get_attr(boosted.tid).is_ok_and(|attr| is_itself(&attr))
}

fn is_as_before(attr: &Attr, before: Saved) -> bool {
    before.is(attr) && attr.nice == before.nice
}

/// Sees to a task that was born during a boost, if it is of the family of one of these.
fn meet(kernel: &impl Kernel, parents: &mut [Parent], birth: &Birth, events: &mut Vec<Event>) {
    let is_child = |parent: &&mut Parent| birth.parent == parent.ward.raised.boosted.tgid;
    if let Some(parent) = parents.iter_mut().filter(|parent| is_elder(parent, birth)).find(is_child) {
        return see_to(kernel, parent, birth, Kin::Child, events);
    }
    let Some(tgid) = kernel.process_of(birth.tid).filter(|&tgid| tgid != birth.tid) else { return };
    let is_thread = |parent: &&mut Parent| tgid == parent.ward.raised.boosted.tgid;
    if let Some(parent) = parents.iter_mut().filter(|parent| is_elder(parent, birth)).find(is_thread) {
        see_to(kernel, parent, birth, Kin::Thread, events);
    }
}

fn is_elder(parent: &Parent, birth: &Birth) -> bool {
    let Ward { raised, .. } = parent.ward;
    birth.start >= raised.since && birth.tid != raised.boosted.tid
}

fn see_to(kernel: &impl Kernel, parent: &mut Parent, birth: &Birth, kin: Kin, events: &mut Vec<Event>) {
    let Ward { raised, task } = parent.ward;
    let (boosted, child) = (raised.boosted, birth.tid);
    if !*parent.is_unchanged.get_or_insert_with(|| is_unchanged(kernel, &parent.ward)) {
        return;
    }
    let elders = *parent.elders.get_or_insert_with(|| elders(kernel, &parent.ward));
    // The kernel does not show which thread of a process has started a thread, and not always which
    // a child.
    let is_its_own = match (kin, elders) {
        // A lone thread does not show that those it starts are to be like it.
        (Kin::Thread, _) => elders == Elders::Alike,
        (Kin::Child, Elders::Alone | Elders::Alike) => true,
        (Kin::Child, Elders::Different) => kernel.is_child(boosted.tgid, boosted.tid, child) == Some(true),
    };
    let policy = boosted.before;
    let given = match is_its_own {
        // A child that starves may be boosted by now. Its restore makes it what RESET_ON_FORK made
        // it.
        _ if is_boosted(kernel, birth, boosted.how) => Some(Given::Nothing),
        true => give(kernel, birth, kin, policy),
        false => is_reset(kernel, birth).then_some(Given::Nothing),
    };
    events.extend(given.map(|given| match given {
        Given::Policy => Event::Adopted { parent: task, child, policy },
        Given::Nothing => Event::Orphan { parent: task, child, policy },
    }));
}

fn elders(kernel: &impl Kernel, ward: &Ward) -> Elders {
    let (boosted, since) = (ward.raised.boosted, ward.raised.since);
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
    /// It is as RESET_ON_FORK makes a task, and as it may be on purpose.
    Nothing,
}

/// Gives a child what it would have inherited. `None` if it has another policy as it is, or has
/// ended.
///
/// A task that makes itself SCHED_OTHER looks like one that was born so. But it has to run for
/// that, so a child that has never had a CPU is certain. For threads the policy of all older ones
/// decides.
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
        // It has ended in between, and its number is that of a new task.
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

/// Whether it is that task still, and is what RESET_ON_FORK makes of a task.
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
