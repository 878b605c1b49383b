//! A run: the machine and stalld in turn, and the guardian when it is due.

use crate::kernel::{Calls, Killed, Lie, SimulatedBackend, lock};
use crate::machine::World;
use crate::promises::{Tally, Watched};
use crate::setup::{Setup, Trouble};
use stalld::boost::event::Event;
use stalld::boost::journal::{Journal, RestoreRecord};
use stalld::boost::kernel_actuator::KernelActuator;
use stalld::boost::plan::Booster;
use stalld::boost::recover;
use stalld::denylist::Ignore;
use stalld::engine::{Engine, REST_PER_CPU_TIME};
use stalld::sys::shared::{SharedWords, nameless_file};
use stalld::task::{Nanos, Tid};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

/// Returns a journal with room for so many restore records.
pub fn journal(records: usize) -> Arc<Journal> {
    let words = SharedWords::map(&nameless_file().unwrap(), Journal::words(records)).unwrap();
    Arc::new(Journal::over(words))
}

/// stalld rests no longer than this after a scan.
const MAX_REST: Nanos = Nanos::from_millis(300);

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    pub setup: Setup,
    pub step: u64,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "step {}: {}\nSTALLD_SIMULATION='{}'", self.step, self.what, self.setup)
    }
}

struct Run {
    watched: Arc<Mutex<Watched>>,
    journal: Arc<Journal>,
    stalld: Calls,
    guardian: Calls,
    engine: Engine,
    woke: Nanos,
    rests: Nanos,
}

/// Runs a machine to its last step, or to the first promise that is broken.
pub fn run(setup: Setup, lie: Option<Lie>) -> Result<Tally, Broken> {
    let mut run = Run::new(setup, lie);
    let mut step = 0;
    while step < setup.steps {
        step = run.rest(step);
        run.turn();
        step += 1;
        let broken = lock(&run.watched).broken.take();
        if let Some(what) = broken {
            return Err(Broken { setup: setup.ending(step), step, what });
        }
    }
    run.end();
    let watched = lock(&run.watched);
    match &watched.broken {
        Some(what) => Err(Broken { setup, step, what: what.clone() }),
        None => Ok(watched.tally),
    }
}

impl Run {
    fn new(setup: Setup, lie: Option<Lie>) -> Run {
        let journal = journal(64.max(4 * setup.cpus as usize));
        let orders = setup.orders();
        let world = World::new(setup, orders.limits.threshold);
        let watched = Arc::new(Mutex::new(Watched::new(world, orders, Arc::clone(&journal), lie)));
        let calls = |guardian| Calls { watched: Arc::clone(&watched), guardian };
        let (stalld, guardian) = (calls(false), calls(true));
        let engine = start(&watched, &journal, &stalld);
        Run { watched, journal, stalld, guardian, engine, woke: Nanos::ZERO, rests: Nanos::ZERO }
    }

    /// Runs the machine until stalld wakes, which may be late. Returns the next step.
    fn rest(&mut self, mut step: u64) -> u64 {
        let mut until = self.engine.next();
        {
            let mut watched = lock(&self.watched);
            let world = &mut watched.world;
            until = until.max(world.now) + Nanos(world.random.below(50_000));
            if world.setup.has(Trouble::Late) && world.random.one_in(40) {
                until = until + Nanos(world.random.below(3_000_000_000));
            }
        }
        loop {
            let mut watched = lock(&self.watched);
            let mut due = Nanos::MAX;
            for (_, record) in self.journal.open() {
                let RestoreRecord::Boost(boosted) = record else { continue };
                due = due.min(recover::due(&boosted));
            }
            watched.note_records();
            watched.world.step(until.min(due));
            step += 1;
            watched.stepped();
            let now = watched.world.now;
            drop(watched);
            if now >= due {
                recover::overdue(&self.guardian, &self.journal, now, |_| {});
                lock(&self.watched).tally.guarded += 1;
            }
            if now >= until {
                return step;
            }
        }
    }

    /// Runs stalld as the daemon does between two sleeps, and judges the result.
    fn turn(&mut self) {
        let begun = {
            let mut watched = lock(&self.watched);
            watched.world.turn += 1;
            watched.turn_began = watched.world.now;
            watched.turn_began
        };
        self.woke = begun;
        let scanned = match catch_unwind(AssertUnwindSafe(|| self.wake(begun))) {
            Ok(scanned) => scanned,
            Err(killed) if killed.is::<Killed>() => return self.killed(),
            Err(other) => resume_unwind(other),
        };
        self.listen();
        lock(&self.watched).turned(begun, scanned, self.rests, &self.engine);
    }

    fn wake(&mut self, begun: Nanos) -> Option<bool> {
        if !self.engine.advance(begun) {
            return None;
        }
        self.listen();
        let now = {
            let mut watched = lock(&self.watched);
            watched.in_scan = true;
            watched.world.now
        };
        let scanned = self.engine.scan(self.woke, now).is_ok();
        let ended = {
            let mut watched = lock(&self.watched);
            watched.in_scan = false;
            watched.scan_ended = watched.world.now;
            watched.world.now
        };
        self.engine.rest(ended, ended - begun);
        self.rests = ended + Nanos(REST_PER_CPU_TIME * (ended - begun).0).min(MAX_REST);
        Some(scanned)
    }

    fn listen(&mut self) {
        let mut watched = lock(&self.watched);
        for event in self.engine.events() {
            if watched.lie != Some(Lie::EventLost) || !matches!(event, Event::Refused { .. }) {
                watched.on_event(&event);
            }
        }
    }

    fn killed(&mut self) {
        lock(&self.watched).calm = true;
        recover::everything(&self.guardian, &self.journal, |_| {});
        {
            let mut watched = lock(&self.watched);
            (watched.calm, watched.in_scan) = (false, false);
            watched.recovered();
        }
        self.engine = start(&self.watched, &self.journal, &self.stalld);
        self.rests = Nanos::ZERO;
    }

    /// Ends stalld without a kill. No task may stay boosted.
    fn end(&mut self) {
        let now = {
            let mut watched = lock(&self.watched);
            watched.calm = true;
            watched.world.setup = watched.world.setup.without(Trouble::Kill);
            watched.world.now
        };
        self.engine.end_boosts(now);
        self.listen();
        recover::everything(&self.guardian, &self.journal, |_| {});
        let mut watched = lock(&self.watched);
        watched.recovered();
        watched.scanned_no_more_than_needed();
    }
}

/// Starts a new stalld.
pub fn start(watched: &Arc<Mutex<Watched>>, journal: &Arc<Journal>, calls: &Calls) -> Engine {
    journal.begin(1, Tid(1));
    let orders = lock(watched).orders;
    let setup = lock(watched).world.setup;
    let backend = SimulatedBackend { watched: Arc::clone(watched), eyes: orders.eyes, asks: orders.asks };
    let mut engine = Engine::new(Box::new(backend), orders.limits, Ignore::default());
    if orders.boosts {
        let lost = lock(watched).lie == Some(Lie::RecordLost);
        let of = Arc::clone(journal);
        let wake = move || {
            if lost {
                of.live().for_each(|(slot, _)| of.forget(slot));
                // The actuator then calls this for the next record too.
                of.sleeps_until(Nanos::MAX);
            }
        };
        let actuator = KernelActuator::over(
            calls.clone(),
            Arc::clone(journal),
            orders.boost.runtime,
            orders.boost.period,
            Arc::new(wake),
        );
        engine.boost(Booster::new(orders.rules, Box::new(actuator), setup.cpus as usize));
    }
    engine
}
