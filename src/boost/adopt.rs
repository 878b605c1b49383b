//! Those who were born to a boosted task: RESET_ON_FORK, without which it could not fork at all, has made
//! them SCHED_OTHER, where they would have been what their parent was.

use super::event::Event;
use super::journal::Saved;
use super::kernel::Kernel;
use super::plan::Raised;
use super::undo::is_ours;
use crate::sys::sched::Attr;
use crate::task::{Policy, Task, Tid};

/// As deep as children of children are followed.
const GENERATIONS: usize = 4;

/// As many older threads are asked for their policy.
const ELDERS: usize = 64;

/// Finds them, and remembers whom it has dealt with.
#[derive(Clone, Default)]
pub struct Nursery {
    done: Vec<(Tid, u64)>,
}

impl Nursery {
    /// Gives the children and threads born during a boost what they would have inherited.
    pub fn adopt(&mut self, kernel: &impl Kernel, raised: &Raised, parent: &Task, events: &mut Vec<Event>) {
        let Raised { boosted, since, .. } = raised;
        let before = boosted.before;
        if before.reset_on_fork || (before.policy == Policy::OTHER && before.nice == 0) {
            return;
        }
        if kernel.start(boosted.tid) != Some(boosted.start) {
            // Who has its number now has children of his own.
            return;
        }
        let is_as_before = |attr: &Attr| before.is(attr) && attr.nice == before.nice;
        let now = kernel.get_attr(boosted.tid);
        if !now.is_ok_and(|attr| is_ours(&attr, boosted.how) || is_as_before(&attr)) {
            // Somebody has set its policy since, and those who were born since then are as that has made them.
            return;
        }
        let threads = kernel.threads(boosted.tgid);
        let young = threads.iter().rev().take_while(|&&tid| is_born_since(kernel, tid, *since)).count();
        let (old, young) = threads.split_at(threads.len() - young);
        let mut children = kernel.children(boosted.tgid, boosted.tid, *since);
        children.tids.retain(|&child| is_born_since(kernel, child, *since));
        // Nothing tells which thread of a process has started another. Where all older ones are scheduled as the
        // boosted one was, it does not matter.
        let is_alike =
            |&tid: &Tid| tid == boosted.tid || kernel.get_attr(tid).is_ok_and(|attr| is_as_before(&attr));
        let matters = !young.is_empty() || children.of_any_thread && !children.tids.is_empty();
        let all_alike = matters && old.len() <= ELDERS && old.iter().all(is_alike);
        for &child in young.iter().filter(|&&tid| tid != boosted.tid) {
            // A lone thread does not show that those it starts are to be like it.
            self.welcome(kernel, child, parent, before, all_alike && old.len() > 1, events);
        }
        let are_its_own = all_alike || !children.of_any_thread;
        let mut generation = children.tids;
        for _ in 0..GENERATIONS {
            for &child in &generation {
                self.welcome(kernel, child, parent, before, are_its_own, events);
            }
            let children = |&child: &Tid| kernel.children(child, child, *since).tids;
            generation = generation.iter().flat_map(children).collect();
            generation.retain(|&child| is_born_since(kernel, child, *since));
        }
    }

    /// Gives a child what is its own, where it is known to be.
    fn welcome(
        &mut self,
        kernel: &impl Kernel,
        child: Tid,
        parent: &Task,
        before: Saved,
        is_its_own: bool,
        events: &mut Vec<Event>,
    ) {
        if is_its_own {
            self.give(kernel, child, parent, before, events);
        } else if is_reset(kernel, child) && self.is_new(kernel, child) {
            events.push(Event::Orphan { parent: *parent, child, policy: before });
        }
    }

    fn give(
        &mut self,
        kernel: &impl Kernel,
        child: Tid,
        parent: &Task,
        before: Saved,
        events: &mut Vec<Event>,
    ) {
        if !is_reset(kernel, child) || !self.is_new(kernel, child) {
            return;
        }
        let given = kernel
            .set_scheduler(child, before.policy, before.priority, false)
            .and_then(|()| if before.nice == 0 { Ok(()) } else { kernel.set_nice(child, before.nice) });
        let (parent, policy) = (*parent, before);
        events.push(match given {
            Ok(()) => Event::Adopted { parent, child, policy },
            Err(_) => Event::Orphan { parent, child, policy },
        });
    }

    fn is_new(&mut self, kernel: &impl Kernel, tid: Tid) -> bool {
        let Some(start) = kernel.start(tid) else { return false };
        if self.done.contains(&(tid, start)) {
            return false;
        }
        if self.done.len() >= 1024 {
            self.done.clear();
        }
        self.done.push((tid, start));
        true
    }
}

fn is_born_since(kernel: &impl Kernel, tid: Tid, since: u64) -> bool {
    kernel.start(tid).is_some_and(|start| start >= since)
}

/// Whether it is what RESET_ON_FORK makes of a task.
fn is_reset(kernel: &impl Kernel, tid: Tid) -> bool {
    kernel.get_attr(tid).is_ok_and(|attr| {
        matches!(attr, Attr { policy: Policy::OTHER, nice: 0, .. }) && !attr.reset_on_fork()
    })
}
