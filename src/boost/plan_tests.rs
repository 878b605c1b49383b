use super::*;
use crate::boost::journal::{Boosted, Rank, Slot};
use crate::observe::Waiter;
use crate::proc::births::Birth;
use crate::task::{Comm, Policy, Sched};
use std::io;

/// A host on which everything works at once.
#[derive(Default)]
struct Simulated {
    raised: Vec<(Tid, Nanos)>,
    restored: Vec<Tid>,
    pulses: Vec<Tid>,
    /// A raised task is not given its CPU.
    stuck: bool,
    /// Nor is one in a pulse.
    held: bool,
    /// Another thread has all tasks in hand.
    taken: bool,
    /// A task in a pulse gives itself a rank that it keeps.
    raises_itself: bool,
    /// All tasks are of an ordinary user.
    is_of_user: bool,
    /// Children of task 1.
    children: Vec<Tid>,
    /// Tasks from which a rank was taken that was not their own.
    taken_from: Vec<Tid>,
    /// Those whose children each pass looked for, and whether there were too many of them.
    adoptions: Vec<Vec<Tid>>,
    crowded: bool,
    /// The errno that the kernel answers a raise with.
    refuses: Option<i32>,
}

fn raised(task: &Task, how: BoostPolicy, end: Nanos) -> BoostHandle {
    let (tid, tgid, start, priority) = (task.tid, task.tid, task.start, (99 - task.sched.prio) as u32);
    let before = Saved { policy: Policy::FIFO, priority, reset_on_fork: false, nice: 0, timer_slack: 0 };
    let boosted = Boosted {
        tid,
        tgid,
        start,
        leader_start: start,
        leader_rank: Rank::FAIR,
        end,
        grace: Nanos::ZERO,
        before,
        how,
    };
    BoostHandle { boosted, slot: Slot::default(), since: 0, runs: Some(7) }
}

impl Actuator for Simulated {
    fn lower_late(&mut self, raised: &BoostHandle) -> Option<RestoreOutcome> {
        let Boosted { tid, before, .. } = raised.boosted;
        self.raises_itself.then_some(RestoreOutcome::Lowered { tid, from: Saved { priority: 97, ..before } })
    }

    fn birth(&self, task: &Task) -> Option<Birth> {
        let Task { tid, start, .. } = *task;
        self.children.contains(&tid).then_some(Birth { tid, start, parent: Tid(1) })
    }

    fn lower_child(&mut self, child: &Birth, parent: &BoostHandle) -> Option<RestoreOutcome> {
        Some(RestoreOutcome::Lowered {
            tid: child.tid,
            from: Saved { priority: 98, ..parent.boosted.before },
        })
    }

    fn take_foreign_rank(&mut self, task: &Task) -> bool {
        self.taken_from.push(task.tid);
        true
    }

    fn owner(&self, _: &Task) -> Owner {
        if self.is_of_user { Owner::User(1000) } else { Owner::Privileged }
    }

    fn raise(&mut self, task: &Task, end: Nanos) -> Result<BoostHandle, Refusal> {
        if let Some(errno) = self.refuses {
            return Err(Refusal::Kernel(io::Error::from_raw_os_error(errno)));
        }
        self.raised.push((task.tid, end));
        Ok(raised(task, rules(20).how, end))
    }

    fn restore(&mut self, raised: &BoostHandle) -> RestoreOutcome {
        self.restored.push(raised.boosted.tid);
        RestoreOutcome::Restored(raised.boosted.tid)
    }

    fn await_first_run(&mut self, _: &BoostHandle) -> Option<bool> {
        Some(!self.stuck)
    }

    fn pulse(&mut self, task: &Task, _: Option<Saved>) -> Result<Pulse, Refusal> {
        if self.taken {
            return Err(Refusal::Taken);
        }
        self.pulses.push(task.tid);
        let raised = raised(task, BoostPolicy::Fifo, Nanos::MAX);
        let outcome = match self.raises_itself {
            true => RestoreOutcome::Lowered { tid: task.tid, from: raised.boosted.before },
            false => RestoreOutcome::Restored(task.tid),
        };
        Ok(Pulse { raised, outcome, ran: Some(!self.held) })
    }

    fn adopt(&mut self, wards: &[Ward], _: &mut Vec<Event>) -> bool {
        self.adoptions.push(wards.iter().map(|ward| ward.task.tid).collect());
        !self.crowded
    }
}

/// One CPU with a hog on it, and a booster that looks when it wants to.
struct Scene {
    booster: Booster,
    host: Simulated,
    events: Vec<Event>,
    now: Nanos,
}

const D: Nanos = Nanos::from_secs(3);

fn rules(cost_us: u64) -> Rules {
    Rules {
        how: BoostPolicy::Deadline { runtime: Nanos::from_micros(20), period: Nanos::from_secs(1) },
        runtime: Nanos::from_micros(20),
        period: Nanos::from_secs(1),
        duration: D,
        cost: Nanos::from_micros(cost_us),
        only_outranked: false,
        retry: Nanos::from_secs(5),
    }
}

fn task(tid: i32, prio: i32) -> Task {
    Task { tid: Tid(tid), cpu: Cpu(1), start: 5, sched: Sched { policy: None, prio }, ..Task::default() }
}

impl Scene {
    fn new(rules: Rules) -> Scene {
        Scene {
            booster: Booster::new(rules),
            host: Simulated::default(),
            events: Vec::new(),
            now: Nanos::from_secs(100),
        }
    }

    /// A look that finds those of them starving who have not been boosted: one who has, has run.
    fn look(&mut self, tids: &[i32], hog: Option<i32>) {
        let waiting = tids.iter().filter(|&&tid| !self.host.raised.iter().any(|(raised, _)| raised.0 == tid));
        let waiting: Vec<Task> = waiting.map(|&tid| task(tid, 98)).collect();
        self.look_at(&waiting, hog);
    }

    fn look_at(&mut self, waiting: &[Task], hog: Option<i32>) {
        let mut snapshot = Snapshot { at: self.now, complete: true, ..Snapshot::default() };
        snapshot.running.extend(hog.map(|prio| task(999, prio)));
        let starves = |&task: &Task| {
            let since = Nanos(task.tid.0 as u64);
            Starving { task, since, wait: D, due: true, again: false }
        };
        let starving: Vec<Starving> = waiting.iter().map(starves).collect();
        self.booster.advance(self.now, &mut self.host, &mut self.events);
        self.booster.see(&snapshot);
        self.booster.look(&snapshot, &starving, &mut self.host, &mut self.events);
    }

    fn pass(&mut self, time: Nanos) {
        self.now = self.now + time;
    }

    fn raised(&self) -> Vec<i32> {
        self.host.raised.iter().map(|(tid, _)| tid.0).collect()
    }
}

#[test]
fn a_boost_ends_when_its_time_is_over() {
    let mut scene = Scene::new(rules(20));
    scene.look(&[1], Some(49));
    assert_eq!(scene.host.raised, [(Tid(1), scene.now + D)]);
    let end = scene.now + D;
    scene.now = Nanos(end.0 - 1);
    scene.booster.advance(scene.now, &mut scene.host, &mut scene.events);
    assert!(scene.host.restored.is_empty());
    scene.booster.advance(end, &mut scene.host, &mut scene.events);
    assert_eq!(scene.host.restored, [Tid(1)]);
    assert!(!scene.booster.is_busy() && scene.booster.next_end().is_none());
    // It was in no look as long as it was in DEADLINE.
    assert_eq!(scene.booster.next_look(), Some(end + BETWEEN_LOOKS));
    scene.look(&[], Some(49));
    assert_eq!(scene.booster.next_look(), None);
}

#[test]
fn boosts_of_a_cpu_start_20_ms_apart_the_longest_starved_first() {
    let mut scene = Scene::new(rules(20));
    scene.look(&[1, 2, 3], Some(49));
    assert_eq!(scene.raised(), [1]);
    assert_eq!(scene.booster.load(), (1, 2));
    assert_eq!(scene.booster.next_look(), Some(scene.now + SPACING));
    scene.pass(Nanos::from_millis(10));
    scene.look(&[1, 2, 3], Some(49));
    assert_eq!(scene.raised(), [1]);
    scene.pass(Nanos::from_millis(10));
    scene.look(&[1, 2, 3], Some(49));
    assert_eq!(scene.raised(), [1, 2]);
}

#[test]
fn sixteen_are_boosted_at_once_and_their_places_go_on_to_the_next() {
    let mut scene = Scene::new(rules(20));
    let many: Vec<i32> = (1..=40).collect();
    for _ in 0..40 {
        scene.look(&many, Some(49));
        assert!(scene.booster.load().0 <= 16);
        scene.pass(SPACING);
    }
    let mut raised = scene.raised();
    raised.dedup();
    assert_eq!(raised, many);
}

#[test]
fn boosted_tasks_that_come_from_other_cpus_take_places_too() {
    let mut scene = Scene::new(rules(4000));
    let come = |tid| Task { cpu: Cpu(if tid < 4 { 2 } else { 3 }), ..task(tid, 98) };
    for tid in 1..=6 {
        let starving = Starving { task: come(tid), since: Nanos(1), wait: D, due: true, again: false };
        let snapshot = Snapshot { at: scene.now, complete: true, ..Snapshot::default() };
        scene.booster.see(&snapshot);
        scene.booster.look(&snapshot, &[starving], &mut scene.host, &mut scene.events);
        scene.pass(SPACING);
    }
    let running = (1..=6).map(|tid| task(tid, 98)).collect();
    let snapshot = Snapshot { at: scene.now, complete: true, running, ..Snapshot::default() };
    let one_more = Starving { task: task(7, 98), since: Nanos(1), wait: D, due: true, again: false };
    scene.booster.see(&snapshot);
    scene.booster.look(&snapshot, &[one_more], &mut scene.host, &mut scene.events);
    assert_eq!((scene.raised().len(), scene.booster.load().0), (7, 5));
}

#[test]
fn a_hog_with_the_number_of_a_boosted_task_that_has_ended_is_a_hog() {
    let mut scene = Scene::new(Rules { only_outranked: true, ..rules(20) });
    scene.look(&[1], Some(49));
    scene.pass(SPACING);
    let hog = Task { start: 6, ..task(1, 49) };
    let snapshot = Snapshot { at: scene.now, complete: true, running: vec![hog], ..Snapshot::default() };
    let fair = Starving { task: task(2, 120), since: Nanos(1), wait: D, due: true, again: false };
    scene.booster.see(&snapshot);
    scene.booster.look(&snapshot, &[fair], &mut scene.host, &mut scene.events);
    assert_eq!(scene.raised(), [1, 2]);
}

#[test]
fn where_a_budget_costs_a_tick_a_crowd_is_served_one_by_one() {
    // 4 ms of each second: five places make 2 %.
    let mut scene = Scene::new(rules(4000));
    let many: Vec<i32> = (1..=16).collect();
    for _ in 0..16 {
        scene.look(&many, Some(49));
        assert!(scene.booster.load().0 <= 5);
        scene.pass(SPACING);
    }
    assert_eq!(scene.raised().len(), 16, "all have had a turn within 320 ms");
    assert!(scene.host.restored.len() >= 11, "most are lowered as soon as they have run");
}

#[test]
fn a_boost_that_nothing_makes_necessary_any_more_ends_early() {
    let mut scene = Scene::new(rules(20));
    scene.look(&[1], Some(49));
    scene.pass(RECHECK_INTERVAL);
    scene.look(&[], Some(49));
    assert!(scene.host.restored.is_empty(), "the hog is there");
    scene.pass(RECHECK_INTERVAL);
    scene.look(&[], None);
    assert_eq!(scene.host.restored, [Tid(1)]);
    assert!(matches!(scene.events.last(), Some(Event::Over { early: true, .. })));
}

#[test]
fn at_short_thresholds_equals_who_take_turns_are_left_alone() {
    let mut scene = Scene::new(Rules { only_outranked: true, ..rules(20) });
    let fair = Starving { task: task(1, 120), since: Nanos(1), wait: D, due: true, again: false };
    let mut snapshot = Snapshot { at: scene.now, complete: true, ..Snapshot::default() };
    snapshot.running.push(task(999, 110));
    scene.booster.see(&snapshot);
    scene.booster.look(&snapshot, &[fair], &mut scene.host, &mut scene.events);
    assert!(scene.host.raised.is_empty() && !scene.booster.is_busy());
    snapshot.running.push(task(998, 49));
    scene.booster.see(&snapshot);
    scene.booster.look(&snapshot, &[fair], &mut scene.host, &mut scene.events);
    assert_eq!(scene.raised(), [1]);
}

#[test]
fn a_task_that_another_thread_has_in_hand_is_tried_again_soon_and_holds_nobody_up() {
    let mut scene = Scene::new(Rules { how: BoostPolicy::Fifo, ..rules(20) });
    scene.host.taken = true;
    scene.look(&[1, 2], Some(49));
    assert!(scene.events.is_empty());
    scene.host.taken = false;
    scene.pass(SPACING);
    scene.look(&[1, 2], Some(49));
    assert_eq!(scene.host.pulses, [Tid(2)]);
    assert_eq!(scene.booster.next_look(), Some(scene.now + RECHECK_INTERVAL - SPACING));
    scene.pass(RECHECK_INTERVAL);
    scene.look(&[1], Some(49));
    assert_eq!(scene.host.pulses, [Tid(2), Tid(1)]);
}

#[test]
fn a_boosted_task_is_followed_to_the_cpu_that_it_runs_on() {
    let mut scene = Scene::new(rules(20));
    scene.look(&[1], Some(49));
    let moved = Task { cpu: Cpu(3), ..task(1, 98) };
    let snapshot = Snapshot { at: scene.now, complete: true, running: vec![moved], ..Snapshot::default() };
    scene.booster.see(&snapshot);
    scene.booster.look(&snapshot, &[], &mut scene.host, &mut scene.events);
    scene.booster.end_all(scene.now, &mut scene.host, &mut scene.events);
    assert!(matches!(scene.events.last(), Some(Event::Over { task: Task { cpu: Cpu(3), .. }, .. })));
}

#[test]
fn only_kernel_threads_and_privileged_tasks_are_boosted_as_deadline() {
    for (owner, start, comm, is_deadline) in [
        (Owner::Kernel, 5, "kworker/1:1", true),
        (Owner::Kernel, 5, "cpuhp/1", false),
        (Owner::Privileged, 5, "cpuhp/1", true),
        (Owner::User(0), 5, "victim", false),
        (Owner::User(1000), 5, "victim", false),
        // The host says that the task is privileged.
        (Owner::Unknown, 5, "victim", true),
        (Owner::User(1000), 0, "victim", true),
    ] {
        let mut scene = Scene::new(rules(20));
        let comm = Comm::new(comm.as_bytes());
        scene.look_at(&[Task { start, owner, comm, ..task(1, 120) }], Some(49));
        let (raised, pulses) = (scene.host.raised.len(), scene.host.pulses.len());
        assert_eq!((raised, pulses), if is_deadline { (1, 0) } else { (0, 1) }, "{owner:?} {comm}");
    }
}

#[test]
fn a_task_that_can_not_be_boosted_is_not_tried_again_at_once() {
    let mut scene = Scene::new(rules(20));
    scene.host.refuses = Some(libc::EINVAL);
    for _ in 0..10 {
        scene.look(&[1], Some(49));
        scene.pass(SPACING);
    }
    assert_eq!(scene.events.iter().filter(|event| matches!(event, Event::Refused { .. })).count(), 1);
    scene.pass(Nanos::from_secs(5));
    scene.host.refuses = None;
    scene.look(&[1], Some(49));
    assert_eq!(scene.raised(), [1]);
}

#[test]
fn at_the_end_nobody_stays_boosted() {
    let mut scene = Scene::new(rules(20));
    for _ in 0..3 {
        scene.look(&[1, 2, 3], Some(49));
        scene.pass(SPACING);
    }
    scene.booster.end_all(scene.now, &mut scene.host, &mut scene.events);
    scene.host.restored.sort();
    assert_eq!(scene.host.restored, [Tid(1), Tid(2), Tid(3)]);
}

#[path = "crowd_tests.rs"]
mod crowd_tests;

#[path = "pulse_tests.rs"]
mod pulse_tests;
