//! Tests of the children of boosted tasks, over a kernel that has only these.

use super::*;
use crate::boost::journal::{BoostPolicy, Boosted, Rank, Slot};
use crate::boost::kernel::Standing;
use crate::boost::plan::BoostHandle;
use crate::sys::sched::RESET_ON_FORK;
use crate::task::{Comm, Cpu, Owner, Task};
use std::cell::{Cell, RefCell};
use std::io;

const PARENT: Tid = Tid(5);
const SINCE: u64 = 100;

/// The time that a read of a task's file takes.
const READ: Nanos = Nanos::from_micros(20);

#[derive(Clone, Copy)]
struct FakeTask {
    birth: Birth,
    tgid: Tid,
    attr: Attr,
    runs: Option<u64>,
    asked: u32,
}

/// A boosted task, and the tasks that were born during its boost.
struct Family {
    tasks: RefCell<Vec<FakeTask>>,
    now: Cell<Nanos>,
    /// Whether /proc shows that `PARENT` has started each child.
    is_shown: bool,
    /// This is done to a task each time its policy is set.
    on_set: fn(&mut FakeTask),
}

const FIFO_33: Saved =
    Saved { policy: Policy::FIFO, priority: 33, reset_on_fork: false, nice: 0, timer_slack: 0 };

fn fifo(priority: u32, flags: u64) -> Attr {
    Attr { policy: Policy::FIFO, priority, flags, ..Attr::default() }
}

/// A child that has its policy from RESET_ON_FORK, and that has never had a CPU.
fn child(tid: i32) -> FakeTask {
    let birth = Birth { tid: Tid(tid), start: SINCE + 1, parent: PARENT, prio: 120 };
    FakeTask { birth, tgid: Tid(tid), attr: Attr::default(), runs: Some(0), asked: 0 }
}

fn thread(tid: i32, start: u64, attr: Attr) -> FakeTask {
    let birth = Birth { tid: Tid(tid), start, parent: Tid(1), prio: 120 };
    FakeTask { birth, tgid: PARENT, attr, runs: Some(7), asked: 0 }
}

fn family(others: impl IntoIterator<Item = FakeTask>) -> Family {
    let mut tasks = vec![thread(PARENT.0, 1, fifo(98, RESET_ON_FORK))];
    tasks.extend(others);
    let (tasks, now) = (RefCell::new(tasks), Cell::new(Nanos::from_secs(1)));
    Family { tasks, now, is_shown: false, on_set: |_| {} }
}

fn ancestor() -> Ancestor {
    let boosted = Boosted {
        tid: PARENT,
        tgid: PARENT,
        start: 1,
        leader_start: 1,
        leader_rank: Rank::FAIR,
        end: Nanos::MAX,
        grace: Nanos::ZERO,
        before: FIFO_33,
        how: BoostPolicy::Fifo,
    };
    let raised = BoostHandle { boosted, slot: Slot::default(), since: SINCE, runs: None };
    Ancestor { raised, task: Task { tid: PARENT, start: 1, ..Task::default() } }
}

impl Family {
    fn pass(&self, time: Nanos) {
        self.now.set(self.now.get() + time);
    }

    fn of<T>(&self, tid: Tid, act: impl FnOnce(&mut FakeTask) -> T) -> Option<T> {
        self.tasks.borrow_mut().iter_mut().find(|it| it.birth.tid == tid).map(act)
    }

    /// Serves the children in one pass. Returns the adopted ones and the orphans.
    fn adopt(&self) -> (Vec<i32>, Vec<i32>) {
        let mut events = Vec::new();
        assert!(ForkedChildren::default().adopt(self, &[ancestor()], &mut events));
        sorted(&events)
    }

    fn attr(&self, tid: i32) -> (Policy, u32) {
        self.of(Tid(tid), |it| (it.attr.policy, it.attr.priority)).unwrap()
    }
}

fn sorted(events: &[Event]) -> (Vec<i32>, Vec<i32>) {
    let (mut adopted, mut orphans) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Adopted { child, .. } => adopted.push(child.0),
            Event::Orphan { child, .. } => orphans.push(child.0),
            _ => panic!("{event:?}"),
        }
    }
    (adopted, orphans)
}

fn gone<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::ESRCH))
}

impl Kernel for Family {
    fn is_bound(&self, _: Tid) -> Option<bool> {
        Some(false)
    }

    fn owner(&self, _: Tid) -> Owner {
        Owner::Privileged
    }

    fn get_attr(&self, tid: Tid) -> io::Result<Attr> {
        self.of(tid, |it| it.attr).map_or_else(gone, Ok)
    }

    fn set_scheduler(&self, tid: Tid, policy: Policy, priority: u32, _: bool) -> io::Result<()> {
        let on_set = self.on_set;
        let set = |it: &mut FakeTask| {
            it.attr = Attr { policy, priority, ..Attr::default() };
            on_set(it);
        };
        self.of(tid, set).map_or_else(gone, Ok)
    }

    fn set_deadline(&self, _: Tid, _: Nanos, _: Nanos, _: u64) -> io::Result<()> {
        gone()
    }

    fn set_nice(&self, tid: Tid, nice: i32) -> io::Result<()> {
        self.of(tid, |it| it.attr.nice = nice).map_or_else(gone, Ok)
    }

    fn priority_limit(&self, _: Tid) -> Option<u64> {
        Some(0)
    }

    fn try_start(&self, tid: Tid) -> io::Result<Option<u64>> {
        self.pass(READ);
        Ok(self.of(tid, |it| it.birth.start))
    }

    fn tgid(&self, tid: Tid) -> Option<Tid> {
        self.process_of(tid)
    }

    fn comm(&self, _: Tid) -> Option<Comm> {
        None
    }

    fn state(&self, _: Tid) -> Option<u8> {
        None
    }

    fn standing(&self, _: Tid) -> Option<Standing> {
        None
    }

    fn runs(&self, tid: Tid) -> Option<u64> {
        self.pass(READ);
        self.of(tid, |it| it.runs)?
    }

    fn cpu_time(&self, _: Tid) -> Option<Nanos> {
        None
    }

    fn timer_slack(&self, _: Tid) -> Option<u64> {
        None
    }

    fn set_timer_slack(&self, _: Tid, _: u64) -> Option<()> {
        None
    }

    fn threads(&self, tgid: Tid, most: usize) -> Vec<Tid> {
        self.pass(READ);
        let tasks = self.tasks.borrow();
        tasks.iter().filter(|it| it.tgid == tgid).map(|it| it.birth.tid).take(most).collect()
    }

    fn process_of(&self, tid: Tid) -> Option<Tid> {
        self.pass(READ);
        self.of(tid, |it| it.tgid)
    }

    fn birth(&self, _: Tid) -> Option<Birth> {
        None
    }

    fn is_child(&self, _: Tid, tid: Tid, _: Tid) -> Option<bool> {
        self.is_shown.then_some(tid == PARENT)
    }

    fn births(&self, walk: &mut Walk, since: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool {
        while (walk.top as usize) < self.tasks.borrow().len() {
            self.pass(READ);
            let birth = {
                let mut tasks = self.tasks.borrow_mut();
                let next = &mut tasks[walk.top as usize];
                next.asked += 1;
                next.birth
            };
            walk.top += 1;
            if !each(Some(birth).filter(|birth| birth.start >= since)) {
                return false;
            }
        }
        true
    }

    fn cpu(&self) -> Cpu {
        Cpu(0)
    }

    fn now(&self) -> Nanos {
        self.now.get()
    }

    fn boot_ticks(&self) -> u64 {
        SINCE
    }

    fn sleep_until(&self, moment: Nanos) {
        self.now.set(moment);
    }

    fn spin_until(&self, moment: Nanos) {
        self.now.set(moment);
    }
}

#[test]
fn a_child_that_has_never_run_gets_what_it_would_have_inherited() {
    let before = FakeTask { birth: Birth { start: SINCE - 1, ..child(8).birth }, ..child(8) };
    let of_another = FakeTask { birth: Birth { parent: Tid(99), ..child(9).birth }, ..child(9) };
    let family = family([child(7), before, of_another]);
    assert_eq!(family.adopt(), (vec![7], vec![]));
    assert_eq!(
        [7, 8, 9].map(|tid| family.attr(tid)),
        [(Policy::FIFO, 33), (Policy::OTHER, 0), (Policy::OTHER, 0)]
    );
}

#[test]
fn a_child_that_may_have_made_itself_what_it_is_stays_so_and_is_reported() {
    // If the kernel does not count runs, no child is certain never to have run.
    let family = family([FakeTask { runs: Some(1), ..child(7) }, FakeTask { runs: None, ..child(8) }]);
    assert_eq!(family.adopt(), (vec![], vec![7, 8]));
    assert_eq!((family.attr(7), family.attr(8)), ((Policy::OTHER, 0), (Policy::OTHER, 0)));
}

#[test]
fn a_child_with_a_policy_of_its_own_is_not_touched() {
    let attrs =
        [fifo(5, 0), Attr { nice: 3, ..Attr::default() }, Attr { flags: RESET_ON_FORK, ..Attr::default() }];
    let family = family((7..).zip(attrs).map(|(tid, attr)| FakeTask { attr, ..child(tid) }));
    assert_eq!(family.adopt(), (vec![], vec![]));
    assert_eq!(family.attr(7), (Policy::FIFO, 5));
}

#[test]
fn a_new_thread_is_adopted_only_where_all_older_ones_are_alike() {
    let young = || FakeTask { runs: Some(9), ..thread(30, SINCE + 5, Attr::default()) };
    for (elders, expected) in [
        (vec![], (vec![], vec![30])),
        (vec![fifo(33, 0)], (vec![30], vec![])),
        (vec![fifo(33, 0), fifo(34, 0)], (vec![], vec![30])),
        (vec![fifo(33, 0); ELDERS], (vec![], vec![30])),
    ] {
        let elders: Vec<FakeTask> = (100..).zip(elders).map(|(tid, attr)| thread(tid, 2, attr)).collect();
        let family = family(elders.into_iter().chain([young()]));
        assert_eq!(family.adopt(), expected);
    }
}

#[test]
fn the_parent_of_a_thread_among_different_ones_is_unknown() {
    let family = family([thread(6, 2, fifo(34, 0)), child(7)]);
    assert_eq!(family.adopt(), (vec![], vec![7]));
}

#[test]
fn a_task_that_gets_the_tid_of_a_child_meanwhile_does_not_stay_real_time() {
    let mut family = family([child(7)]);
    family.on_set = |it| it.birth.start = SINCE + 50;
    assert_eq!(family.adopt(), (vec![], vec![]));
    assert_eq!(family.attr(7), (Policy::OTHER, 0));
}

#[test]
fn the_children_of_a_task_whose_policy_was_changed_are_skipped() {
    let family = family([child(7)]);
    family.of(PARENT, |it| it.attr = fifo(44, 0)).unwrap();
    assert_eq!(family.adopt(), (vec![], vec![]));
}

#[test]
fn a_new_thread_of_a_child_that_is_older_than_the_boost_keeps_its_policy() {
    let family = family([FakeTask { tgid: Tid(6), ..child(7) }]);
    assert_eq!(family.adopt(), (vec![], vec![]));
    assert_eq!(family.attr(7), (Policy::OTHER, 0));
}

#[test]
fn the_child_of_one_boosted_thread_is_not_taken_for_that_of_another() {
    let other = Tid(6);
    let of_other = || {
        let mut ancestor = ancestor();
        (ancestor.raised.boosted.tid, ancestor.raised.boosted.start) = (other, 2);
        ancestor
    };
    for ancestors in [[of_other(), ancestor()], [ancestor(), of_other()]] {
        let family = Family { is_shown: true, ..family([thread(other.0, 2, fifo(44, 0)), child(7)]) };
        let mut events = Vec::new();
        assert!(ForkedChildren::default().adopt(&family, &ancestors, &mut events));
        assert_eq!(sorted(&events), (vec![7], vec![]));
    }
}

#[test]
fn a_thousand_children_are_all_met_within_the_budget_of_each_pass() {
    let family = family((0..1000).map(|n| child(1000 + n)));
    let (mut children, mut events) = (ForkedChildren::default(), Vec::new());
    let mut passes = 0;
    loop {
        let before = family.now();
        let has_met_all = children.adopt(&family, &[ancestor()], &mut events);
        // A pass starts no child after the budget, but finishes one.
        let took = family.now() - before;
        assert!(took <= BUDGET + Nanos(10 * READ.0), "{took:?} for one pass");
        passes += 1;
        if has_met_all {
            break;
        }
        assert!(passes < 100);
    }
    assert!(passes > 10, "{passes}");
    assert_eq!(sorted(&events).0.len(), 1000);
    assert!(family.tasks.borrow().iter().all(|it| it.asked == 1), "each was met once");
    assert!(children.adopt(&family, &[], &mut events));
    assert_eq!(children.walk.top, 0, "without boosts nothing is remembered");
}
