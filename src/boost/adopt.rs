//! Those who were born to a boosted task: RESET_ON_FORK, without which it could not fork at all, has made
//! them SCHED_OTHER, where they would have been what their parent was.

use super::journal::Saved;
use super::plan::{Event, Raised};
use crate::proc;
use crate::sys::sched::{self, Attr};
use crate::task::{Policy, Task, Tid};

/// As deep as children of children are followed.
const GENERATIONS: usize = 4;

/// Gives the children and threads born during a boost what they would have inherited. `done` remembers
/// those who have been told of.
pub fn adopt(raised: &Raised, parent: &Task, done: &mut Vec<(Tid, u64)>, events: &mut Vec<Event>) {
    let before = raised.boosted.before;
    if before.reset_on_fork || (before.policy == Policy::OTHER && before.nice == 0) {
        return;
    }
    if proc::start(raised.boosted.tid) != Some(raised.boosted.start) {
        // Who has its number now has children of his own.
        return;
    }
    let mut generation = proc::children(raised.boosted.tgid, raised.boosted.tid);
    for _ in 0..GENERATIONS {
        generation.retain(|&child| is_born_since(child, raised.since));
        for &child in &generation {
            give(child, parent, before, done, events);
        }
        generation = generation.iter().flat_map(|&child| proc::children(child, child)).collect();
    }
    threads(raised, parent, done, events);
}

/// Nothing tells which thread of a process has started another. Where all older ones are scheduled as the
/// boosted one was, and there are some, it does not matter.
fn threads(raised: &Raised, parent: &Task, done: &mut Vec<(Tid, u64)>, events: &mut Vec<Event>) {
    let before = raised.boosted.before;
    let threads = proc::threads(raised.boosted.tgid);
    let (young, old): (Vec<Tid>, Vec<Tid>) = threads
        .into_iter()
        .filter(|&tid| tid != raised.boosted.tid)
        .partition(|&tid| is_born_since(tid, raised.since));
    let all_alike =
        !old.is_empty() && old.iter().all(|&tid| sched::get_attr(tid).is_ok_and(|attr| before.is(&attr)));
    for child in young {
        if all_alike {
            give(child, parent, before, done, events);
        } else if is_reset(child) && is_new(child, done) {
            events.push(Event::Orphan { parent: *parent, child, policy: before });
        }
    }
}

fn give(child: Tid, parent: &Task, before: Saved, done: &mut Vec<(Tid, u64)>, events: &mut Vec<Event>) {
    if !is_reset(child) || !is_new(child, done) {
        return;
    }
    let given = sched::set_scheduler(child, before.policy, before.priority, false)
        .and_then(|()| if before.nice == 0 { Ok(()) } else { sched::set_nice(child, before.nice) });
    let (parent, policy) = (*parent, before);
    events.push(match given {
        Ok(()) => Event::Adopted { parent, child, policy },
        Err(_) => Event::Orphan { parent, child, policy },
    });
}

fn is_born_since(tid: Tid, since: u64) -> bool {
    proc::start(tid).is_some_and(|start| start >= since)
}

/// Whether it is what RESET_ON_FORK makes of a task.
fn is_reset(tid: Tid) -> bool {
    sched::get_attr(tid).is_ok_and(|attr| {
        matches!(attr, Attr { policy: Policy::OTHER, nice: 0, .. }) && !attr.reset_on_fork()
    })
}

fn is_new(tid: Tid, done: &mut Vec<(Tid, u64)>) -> bool {
    let Some(start) = proc::start(tid) else { return false };
    if done.contains(&(tid, start)) {
        return false;
    }
    if done.len() >= 1024 {
        done.clear();
    }
    done.push((tid, start));
    true
}
