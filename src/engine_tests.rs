use super::*;

use crate::boost::event::Refusal;
use crate::boost::journal::{BoostPolicy, Boosted, Rank, Saved, Slot};
use crate::boost::kernel::Standing;
use crate::boost::plan::{Actuator, Ancestor, BoostHandle, Pulse, Rules, Run};
use crate::boost::probation::Probation;
use crate::boost::pulse_children::LoweredChild;
use crate::boost::restore::RestoreOutcome;
use crate::error::Error;
use crate::task::{Owner, Policy};
use crate::timing::Boost;

/// A backend that returns the given snapshots, one per scan.
struct Script(Vec<Result<Snapshot>>);

impl Backend for Script {
    fn kind(&self) -> Kind {
        Kind::SchedDebug
    }

    fn snapshot(&mut self, _woke: Nanos, _effort: Effort, snapshot: &mut Snapshot) -> Result<()> {
        *snapshot = self.0.remove(0)?;
        Ok(())
    }
}

fn running(at: u64, tids: &[i32]) -> Result<Snapshot> {
    let task = |&tid: &i32| Task { tid: Tid(tid), cpu: Cpu(1), ..Task::default() };
    let running = tids.iter().map(task).collect();
    Ok(Snapshot { at: Nanos::from_secs(at), complete: true, running, ..Snapshot::default() })
}

fn engine(script: Vec<Result<Snapshot>>) -> Engine {
    let limits = Limits { threshold: Nanos::from_secs(60), granularity: Nanos::from_secs(5) };
    Engine::new(Box::new(Script(script)), limits, Ignore::default())
}

#[test]
fn a_hog_is_seen_since_the_first_scan_that_found_it_without_a_break() {
    let mut engine = engine(vec![running(1, &[7]), running(2, &[7]), running(3, &[8]), running(4, &[7])]);
    let mut seen = || {
        engine.scan(Nanos::ZERO, Nanos::ZERO).unwrap();
        engine.hog(Cpu(1)).map(|hog| (hog.task.tid.0, hog.seen_since.as_secs()))
    };
    assert_eq!([seen(), seen(), seen(), seen()], [Some((7, 1)), Some((7, 1)), Some((8, 3)), Some((7, 4))]);
}

#[test]
fn the_higher_ranked_of_two_running_tasks_is_the_hog() {
    let task = |tid, cpu, prio| Task {
        tid: Tid(tid),
        cpu: Cpu(cpu),
        sched: crate::task::Sched { policy: None, prio },
        ..Task::default()
    };
    let running = vec![task(9, 2, 49), task(5, 0, 120), task(1, 2, 120), task(2, 2, 90)];
    let snapshot = Snapshot { at: Nanos::from_secs(1), complete: true, running, ..Snapshot::default() };
    let mut engine = engine(vec![Ok(snapshot)]);
    engine.scan(Nanos::ZERO, Nanos::ZERO).unwrap();
    let hog = |cpu| engine.hog(Cpu(cpu)).map(|hog| hog.task.tid.0);
    assert_eq!([hog(0), hog(1), hog(2), hog(3)], [Some(5), None, Some(9), None]);
}

/// An actuator that reports success and changes no task.
struct Obliging;

impl Actuator for Obliging {
    fn ascend(&mut self) {}

    fn descend(&mut self) {}

    fn may_be_bound(&self, _: &Task) -> bool {
        false
    }

    fn runs(&self, _: &Task) -> Option<u64> {
        None
    }

    fn cpu_time(&self, _: &Task) -> Option<Nanos> {
        None
    }

    fn standing(&self, _: Tid) -> Option<Standing> {
        None
    }

    fn lower_late(&mut self, _: &BoostHandle) -> Option<RestoreOutcome> {
        None
    }

    fn lower_child(&mut self, _: &Task, _: &Probation) -> Option<LoweredChild> {
        None
    }

    fn lower_children(&mut self, _: &Probation, _: &mut dyn FnMut(LoweredChild)) {}

    fn take_foreign_rank(&mut self, _: &Task) -> bool {
        false
    }

    fn owner(&self, _: &Task) -> Owner {
        Owner::Privileged
    }

    fn raise(&mut self, task: &Task, end: Nanos) -> std::result::Result<BoostHandle, Refusal> {
        let Task { tid, start, .. } = *task;
        let before =
            Saved { policy: Policy::OTHER, priority: 0, reset_on_fork: false, nice: 0, timer_slack: 0 };
        let how = BoostPolicy::Deadline { runtime: Nanos(1), period: Nanos(2) };
        let (leader_rank, grace) = (Rank::FAIR, Nanos::ZERO);
        let boosted =
            Boosted { tid, tgid: tid, start, leader_start: start, leader_rank, end, grace, before, how };
        Ok(BoostHandle { boosted, slot: Slot::default(), since: 0, runs: None })
    }

    fn restore(&mut self, raised: &BoostHandle) -> RestoreOutcome {
        RestoreOutcome::Restored(raised.boosted.tid)
    }

    fn await_budgets(&mut self) {}

    fn now(&self) -> Nanos {
        Nanos::ZERO
    }

    fn await_first_run(&mut self, _: &BoostHandle, _: Nanos) -> Run {
        Run::Unknown
    }

    fn pulse(&mut self, _: &Task, _: Option<Saved>) -> std::result::Result<Pulse, Refusal> {
        Err(Refusal::Gone)
    }

    fn adopt(&mut self, _: &[Ancestor], _: &mut Vec<Event>) -> bool {
        true
    }
}

#[test]
fn the_end_of_a_boost_waits_for_no_rest_and_a_rest_is_short() {
    let secs = Nanos::from_secs;
    let limits = Limits { threshold: secs(60), granularity: secs(5) };
    let boost = Boost::fit(secs(60), Some(secs(3)), None, None);
    let how = BoostPolicy::Deadline { runtime: boost.runtime, period: boost.period };
    let script = vec![running(100, &[7]), running(163, &[7])];
    let mut engine = Engine::new(Box::new(Script(script)), limits, Ignore::default());
    engine.boost(Booster::new(Rules::new(how, &boost, &limits, boost.runtime), Box::new(Obliging), 2));
    engine.scan(secs(100), secs(100)).unwrap();
    let task = Task { tid: Tid(5), ..Task::default() };
    assert!(matches!(engine.boost_task(&task, true, secs(100)), Some(Ok(()))));
    // A scan that used a CPU for a minute is followed by a short rest. The boost ends during the
    // rest.
    let end = secs(103);
    engine.rest(Nanos(end.0 - 1), secs(60));
    assert_eq!(engine.next(), end);
    assert!(!engine.advance(end), "it rests, so no scan is due");
    assert!(engine.events().any(|event| matches!(event, Event::Over { .. })));
    assert_eq!(engine.next(), Nanos(end.0 - 1) + MAX_REST);
    assert!(engine.advance(engine.next()));
    // A scan that was blocked for a minute has used no CPU, and needs no rest.
    engine.scan(secs(163), secs(163)).unwrap();
    engine.rest(secs(163), Nanos(1000));
    assert_eq!(engine.next(), secs(168));
}

#[test]
fn the_memory_of_a_crowd_is_freed_once_the_crowd_is_over() {
    let waiting = |at, count: i32| {
        let waiter = |tid| Waiter { task: Task { tid: Tid(tid), ..Task::default() }, since: None };
        let waiters = (1..=count).map(waiter).collect();
        Ok(Snapshot { at: Nanos::from_secs(at), complete: true, waiters, ..Snapshot::default() })
    };
    let script = vec![waiting(1, 3000), waiting(70, 3000), waiting(79, 3), waiting(80, 3), waiting(99, 3)];
    let mut engine = engine(script);
    let mut scan = || {
        engine.scan(Nanos::ZERO, Nanos::ZERO).unwrap();
        (engine.shrink(), engine.verdict.starving.capacity() > ROOM)
    };
    assert_eq!(
        [scan(), scan(), scan(), scan(), scan()],
        [(false, false), (false, true), (false, true), (true, false), (false, false)]
    );
}

#[test]
fn a_hog_on_each_of_many_cpus_takes_one_step() {
    let task = |n: u32| Task { tid: Tid(n as i32), cpu: Cpu(n), ..Task::default() };
    let running: Vec<Task> = (0..8192).map(task).collect();
    let snapshot = Snapshot { at: Nanos::from_secs(1), complete: true, running, ..Snapshot::default() };
    let mut engine = engine(vec![Ok(snapshot.clone()), Ok(snapshot)]);
    for _ in 0..2 {
        let steps = steps::of(|| engine.scan(Nanos::ZERO, Nanos::ZERO).unwrap());
        assert!(steps <= 2 * 8192, "{steps} steps");
    }
}

#[test]
fn a_scan_that_fails_is_counted_and_the_next_one_is_not_rushed() {
    let mut engine = engine(vec![Err(Error::new("garbled")), running(9, &[])]);
    assert!(engine.scan(Nanos::ZERO, Nanos::from_secs(3)).is_err());
    assert_eq!(engine.next_scan(), Nanos::from_secs(8));
    assert!(engine.scan(Nanos::ZERO, Nanos::from_secs(8)).is_ok());
    assert_eq!((engine.counters().scans, engine.counters().failed_scans), (2, 1));
}

#[test]
fn a_task_that_is_boosted_is_reported_in_the_same_scan() {
    let secs = Nanos::from_secs;
    let limits = Limits { threshold: secs(60), granularity: secs(5) };
    let boost = Boost::fit(secs(60), Some(secs(3)), None, None);
    let how = BoostPolicy::Deadline { runtime: boost.runtime, period: boost.period };
    // A scan reports one task of each CPU, the longest wait first. Boosts serve another owner's
    // task before the second one of an owner.
    let waiter = |tid: i32, owner, since| {
        let task = Task { tid: Tid(tid), owner, ..Task::default() };
        Waiter { task, since: Some(secs(since)) }
    };
    let root = Owner::Privileged;
    let waiters = [waiter(1, Owner::Kernel, 1), waiter(2, Owner::Kernel, 2), waiter(3, root, 3)];
    let scan = |at, waiters: &[Waiter]| {
        Ok(Snapshot { at: secs(at), complete: true, waiters: waiters.to_vec(), ..Snapshot::default() })
    };
    let script = vec![scan(100, &waiters), scan(104, &waiters[1..]), scan(108, &waiters[1..2])];
    let mut engine = Engine::new(Box::new(Script(script)), limits, Ignore::default());
    engine.boost(Booster::new(Rules::new(how, &boost, &limits, boost.runtime), Box::new(Obliging), 2));
    let mut scan = |at| {
        engine.advance(secs(at));
        engine.scan(secs(at), secs(at)).unwrap();
        let boosted: Vec<_> = engine
            .events()
            .filter_map(|event| match event {
                Event::Boosted { task, .. } => Some(task.tid.0),
                _ => None,
            })
            .collect();
        let due = engine.starving().iter().filter(|starving| starving.due);
        (boosted, due.map(|starving| (starving.task.tid.0, starving.again)).collect::<Vec<_>>())
    };
    assert_eq!(scan(100), (vec![1], vec![(1, false)]));
    assert_eq!(scan(104), (vec![3], vec![(2, false), (3, false)]));
    assert_eq!(scan(108), (vec![2], vec![(2, true)]));
    assert_eq!(engine.counters().starved, 3);
}

/// A backend that has spare memory until the engine frees it.
struct Spare {
    spare: bool,
    script: Script,
}

impl Backend for Spare {
    fn kind(&self) -> Kind {
        self.script.kind()
    }

    fn snapshot(&mut self, woke: Nanos, effort: Effort, snapshot: &mut Snapshot) -> Result<()> {
        self.script.snapshot(woke, effort, snapshot)
    }

    fn has_spare_memory(&self) -> bool {
        self.spare
    }

    fn shrink(&mut self) -> bool {
        self.spare = false;
        true
    }
}

#[test]
fn the_memory_for_a_crowd_of_sleepers_is_freed_too() {
    let limits = Limits { threshold: Nanos::from_secs(60), granularity: Nanos::from_secs(5) };
    let script = Script(vec![running(1, &[]), running(8, &[]), running(12, &[]), running(30, &[])]);
    let mut engine = Engine::new(Box::new(Spare { spare: true, script }), limits, Ignore::default());
    let mut scan = || {
        engine.scan(Nanos::ZERO, Nanos::ZERO).unwrap();
        engine.shrink()
    };
    assert_eq!([scan(), scan(), scan(), scan()], [false, false, true, false]);
}
