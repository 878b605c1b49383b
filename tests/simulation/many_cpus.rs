//! A host with 256 CPUs, on each of which a task starves at the same moment. Each call takes as
//! long as on a real host.

use crate::kernel::{Calls, lock};
use crate::machine::World;
use crate::promises::Watched;
use crate::run;
use crate::setup::{Eyes, Orders, Setup};
use crate::tasks::State;
use rig::costs::ASSUMED;
use stalld::boost::journal::BoostPolicy;
use stalld::boost::plan::Rules;
use stalld::detect::Limits;
use stalld::sys::sched::Attr;
use stalld::task::{Cpu, Nanos, Policy};
use stalld::timing::Boost;
use std::sync::{Arc, Mutex};

const CPUS: usize = 256;

/// The time from a boost to the moment at which another CPU runs the task.
const REACH: Nanos = Nanos::from_micros(30);

/// How much later than planned a sleep ends.
const WAKES_LATE: Nanos = Nanos::from_micros(60);

fn orders(by_deadline: bool) -> Orders {
    let second = Nanos::from_secs(1);
    let limits = Limits { threshold: second, granularity: second };
    let boost = Boost::fit(second, None, None, None);
    let how = match by_deadline {
        true => BoostPolicy::Deadline { runtime: boost.runtime, period: boost.period },
        false => BoostPolicy::Fifo,
    };
    let rules = Rules::new(how, &boost, &limits, boost.runtime);
    Orders { limits, boost, rules, eyes: Eyes::Stamps, boosts: true, asks: true }
}

/// Returns the host. Task N has CPU N, and task CPUS + N waits there, for a moment so far.
fn host(setup: Setup, orders: &Orders) -> World {
    let mut world = World::new(setup, orders.limits.threshold);
    (world.costs, world.reach, world.wakes_late) = (ASSUMED, REACH, WAKES_LATE);
    let now = world.now;
    for (index, life) in world.lives.iter_mut().enumerate() {
        let is_hog = index < CPUS;
        let attr = match is_hog {
            true => Attr { policy: Policy::FIFO, priority: 50, ..Attr::default() },
            false => Attr::default(),
        };
        (life.own.attr, life.own.slack) = (attr, 50_000);
        (life.now, life.hog, life.cpu) = (life.own, is_hog, Cpu((index % CPUS) as u32));
        (life.truly, life.stamp) = (now, Some(now));
        // Such a number means that the task is privileged. stalld reads that again before a boost.
        life.id = 4 * (1 + index as u64);
        life.state = if is_hog { State::Running } else { State::Queued };
    }
    world.cores.iter_mut().for_each(|core| core.hogged = true);
    world
}

/// Returns the time from the threshold to the last start of a boost.
fn last_start(by_deadline: bool) -> Nanos {
    let orders = orders(by_deadline);
    let setup = Setup::quiet(1, CPUS as u32, 2 * CPUS);
    let world = host(setup, &orders);
    let due = world.now + orders.limits.threshold;
    let journal = run::journal(16 * CPUS);
    let watched = Arc::new(Mutex::new(Watched::new(world, orders, Arc::clone(&journal), None)));
    let calls = Calls { watched: Arc::clone(&watched), guardian: false };
    let mut engine = run::start(&watched, &journal, &calls);
    let waiting = |watched: &Watched| watched.world.lives.iter().skip(CPUS).any(|life| life.runs == 0);
    let mut turns = 0;
    while waiting(&lock(&watched)) {
        turns += 1;
        assert!(turns < 100_000, "not all tasks have run");
        let now = {
            let mut watched = lock(&watched);
            watched.world.now = watched.world.now.max(engine.next());
            watched.world.turn += 1;
            watched.turn_began = watched.world.now;
            watched.world.now
        };
        if engine.advance(now) {
            lock(&watched).in_scan = true;
            let now = lock(&watched).world.now;
            engine.scan(now, now).unwrap();
            let mut watched = lock(&watched);
            watched.in_scan = false;
            watched.scan_ended = watched.world.now;
        }
        engine.events().for_each(drop);
    }
    let watched = lock(&watched);
    assert_eq!(watched.broken, None);
    let starts = watched.world.lives.iter().skip(CPUS).map(|life| life.reached_at - REACH);
    starts.max().unwrap() - due
}

#[test]
fn the_last_of_256_cpus_has_its_boost_in_time() {
    let (deadline, pulses) = (last_start(true), last_start(false));
    println!("the last of {CPUS} starts: SCHED_DEADLINE {deadline:?}, pulses {pulses:?} after its threshold");
    assert!(deadline <= Nanos::from_millis(20), "{deadline:?}");
    assert!(pulses <= Nanos::from_millis(40), "{pulses:?}");
}
