//! Children of boosted tasks, over a kernel that has just them.

use super::*;
use crate::boost::journal::{BoostPolicy, Boosted, Rank, Slot};
use crate::boost::plan::BoostHandle;
use crate::sys::sched::RESET_ON_FORK;
use crate::task::{Comm, Cpu, Owner, Task};
use std::cell::{Cell, RefCell};
use std::io;

const PARENT: Tid = Tid(5);
const SINCE: u64 = 100;

/// What reading the file of a task takes.
const READ: Nanos = Nanos::from_micros(20);

#[derive(Clone, Copy)]
struct Person {
    birth: Birth,
    tgid: Tid,
    attr: Attr,
    runs: Option<u64>,
    asked: u32,
}

/// A boosted task and those that were born during its boost.
struct Family {
    people: RefCell<Vec<Person>>,
    now: Cell<Nanos>,
    /// Each time a policy is set, this happens to the task.
    on_set: fn(&mut Person),
}

const FIFO_33: Saved =
    Saved { policy: Policy::FIFO, priority: 33, reset_on_fork: false, nice: 0, timer_slack: 0 };

fn fifo(priority: u32, flags: u64) -> Attr {
    Attr { policy: Policy::FIFO, priority, flags, ..Attr::default() }
}

/// A child that RESET_ON_FORK has made what it is, and that has never had a CPU.
fn child(tid: i32) -> Person {
    let birth = Birth { tid: Tid(tid), start: SINCE + 1, parent: PARENT };
    Person { birth, tgid: Tid(tid), attr: Attr::default(), runs: Some(0), asked: 0 }
}

fn thread(tid: i32, start: u64, attr: Attr) -> Person {
    let birth = Birth { tid: Tid(tid), start, parent: Tid(1) };
    Person { birth, tgid: PARENT, attr, runs: Some(7), asked: 0 }
}

fn family(others: impl IntoIterator<Item = Person>) -> Family {
    let mut people = vec![thread(PARENT.0, 1, fifo(98, RESET_ON_FORK))];
    people.extend(others);
    Family { people: RefCell::new(people), now: Cell::new(Nanos::from_secs(1)), on_set: |_| {} }
}

fn ward() -> Ward {
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
    Ward { raised, task: Task { tid: PARENT, start: 1, ..Task::default() } }
}

impl Family {
    fn pass(&self, time: Nanos) {
        self.now.set(self.now.get() + time);
    }

    fn of<T>(&self, tid: Tid, look: impl FnOnce(&mut Person) -> T) -> Option<T> {
        self.people.borrow_mut().iter_mut().find(|it| it.birth.tid == tid).map(look)
    }

    /// What becomes of the children in one pass: the adopted and the orphans.
    fn adopt(&self) -> (Vec<i32>, Vec<i32>) {
        let mut events = Vec::new();
        assert!(ForkedChildren::default().adopt(self, &[ward()], &mut events));
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
    fn owner(&self, _: Tid) -> Owner {
        Owner::Privileged
    }

    fn get_attr(&self, tid: Tid) -> io::Result<Attr> {
        self.of(tid, |it| it.attr).map_or_else(gone, Ok)
    }

    fn set_scheduler(&self, tid: Tid, policy: Policy, priority: u32, _: bool) -> io::Result<()> {
        let on_set = self.on_set;
        let set = |it: &mut Person| {
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

    fn priority_limit(&self, _: Tid) -> io::Result<u64> {
        Ok(0)
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

    fn runs(&self, tid: Tid) -> Option<u64> {
        self.pass(READ);
        self.of(tid, |it| it.runs)?
    }

    fn timer_slack(&self, _: Tid) -> Option<u64> {
        None
    }

    fn set_timer_slack(&self, _: Tid, _: u64) -> Option<()> {
        None
    }

    fn threads(&self, tgid: Tid, most: usize) -> Vec<Tid> {
        self.pass(READ);
        let people = self.people.borrow();
        people.iter().filter(|it| it.tgid == tgid).map(|it| it.birth.tid).take(most).collect()
    }

    fn process_of(&self, tid: Tid) -> Option<Tid> {
        self.pass(READ);
        self.of(tid, |it| it.tgid)
    }

    fn birth(&self, _: Tid) -> Option<Birth> {
        None
    }

    fn is_child(&self, _: Tid, _: Tid, _: Tid) -> Option<bool> {
        None
    }

    fn births(&self, walk: &mut Walk, since: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool {
        while (walk.top as usize) < self.people.borrow().len() {
            self.pass(READ);
            let birth = {
                let mut people = self.people.borrow_mut();
                let next = &mut people[walk.top as usize];
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
    let before = Person { birth: Birth { start: SINCE - 1, ..child(8).birth }, ..child(8) };
    let of_another = Person { birth: Birth { parent: Tid(99), ..child(9).birth }, ..child(9) };
    let family = family([child(7), before, of_another]);
    assert_eq!(family.adopt(), (vec![7], vec![]));
    assert_eq!(
        [7, 8, 9].map(|tid| family.attr(tid)),
        [(Policy::FIFO, 33), (Policy::OTHER, 0), (Policy::OTHER, 0)]
    );
}

#[test]
fn a_child_that_may_have_made_itself_what_it_is_stays_so_and_is_reported() {
    // Where the kernel does not count runs, none is certain.
    let family = family([Person { runs: Some(1), ..child(7) }, Person { runs: None, ..child(8) }]);
    assert_eq!(family.adopt(), (vec![], vec![7, 8]));
    assert_eq!((family.attr(7), family.attr(8)), ((Policy::OTHER, 0), (Policy::OTHER, 0)));
}

#[test]
fn a_child_with_a_policy_of_its_own_is_not_touched() {
    let attrs =
        [fifo(5, 0), Attr { nice: 3, ..Attr::default() }, Attr { flags: RESET_ON_FORK, ..Attr::default() }];
    let family = family((7..).zip(attrs).map(|(tid, attr)| Person { attr, ..child(tid) }));
    assert_eq!(family.adopt(), (vec![], vec![]));
    assert_eq!(family.attr(7), (Policy::FIFO, 5));
}

#[test]
fn a_new_thread_is_adopted_only_where_all_older_ones_are_alike() {
    let young = || Person { runs: Some(9), ..thread(30, SINCE + 5, Attr::default()) };
    for (elders, expected) in [
        (vec![], (vec![], vec![30])),
        (vec![fifo(33, 0)], (vec![30], vec![])),
        (vec![fifo(33, 0), fifo(34, 0)], (vec![], vec![30])),
        (vec![fifo(33, 0); ELDERS], (vec![], vec![30])),
    ] {
        let elders: Vec<Person> = (100..).zip(elders).map(|(tid, attr)| thread(tid, 2, attr)).collect();
        let family = family(elders.into_iter().chain([young()]));
        assert_eq!(family.adopt(), expected);
    }
}

#[test]
fn of_a_thread_among_others_it_is_not_known_whose_child_it_is() {
    let family = family([thread(6, 2, fifo(34, 0)), child(7)]);
    assert_eq!(family.adopt(), (vec![], vec![7]));
}

#[test]
fn a_task_that_takes_the_number_of_a_child_in_the_middle_does_not_stay_real_time() {
    let mut family = family([child(7)]);
    family.on_set = |it| it.birth.start = SINCE + 50;
    assert_eq!(family.adopt(), (vec![], vec![]));
    assert_eq!(family.attr(7), (Policy::OTHER, 0));
}

#[test]
fn the_children_of_a_task_whose_policy_was_set_since_are_let_alone() {
    let family = family([child(7)]);
    family.of(PARENT, |it| it.attr = fifo(44, 0)).unwrap();
    assert_eq!(family.adopt(), (vec![], vec![]));
}

#[test]
fn a_thousand_children_take_no_more_than_the_budget_at_once_and_are_all_met_in_the_end() {
    let family = family((0..1000).map(|n| child(1000 + n)));
    let (mut nursery, mut events) = (ForkedChildren::default(), Vec::new());
    let mut passes = 0;
    loop {
        let before = family.now();
        let has_met_all = nursery.adopt(&family, &[ward()], &mut events);
        // The last of them is begun within the budget.
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
    assert!(family.people.borrow().iter().all(|it| it.asked == 1), "each was met once");
    assert!(nursery.adopt(&family, &[], &mut events));
    assert_eq!(nursery.walk.top, 0, "without boosts nothing is remembered");
}
