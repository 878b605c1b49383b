//! After the first scans and boosts, further ones allocate no memory, because the host may have run
//! out of it.

#![allow(clippy::unwrap_used, clippy::panic)]

use rig::throttling::Throttling;
use stalld::boost::event::Event;
use stalld::boost::journal::{BoostPolicy, Boosted, Journal, Rank, RestoreRecord, Saved};
use stalld::boost::kernel::Host;
use stalld::boost::kernel_actuator::KernelActuator;
use stalld::boost::plan::{Booster, Pulsed, Rules};
use stalld::boost::recover::{self, Recovered};
use stalld::boost::restore::{RestoreOutcome, apply};
use stalld::cpus::CpuSet;
use stalld::daemon::log::{Format, Level, LogEvent, Outlet, Terminal, Writer};
use stalld::denylist::Ignore;
use stalld::detect::{Limits, Starving};
use stalld::engine::Engine;
use stalld::host::settings;
use stalld::observe::{self, HAS_BPF, Kind, Snapshot, Watch};
use stalld::proc;
use stalld::sys::shared::{SharedWords, nameless_file};
use stalld::sys::{clock, cpu, sched};
use stalld::task::{Comm, Cpu, Nanos, Policy, Sched, Task, Tid};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

/// The system's allocator with a counter of the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code)]
// SAFETY: each call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
#[ignore = "needs root"]
fn a_warm_scan_allocates_nothing() {
    rig::add_kernel_filesystems();
    for kind in Kind::ALL.into_iter().filter(|&kind| HAS_BPF || kind == Kind::SchedDebug) {
        for idle_detection in [true, false] {
            let watch = Watch { cpus: CpuSet::first(cpu::configured()), idle_detection, own_threads: false };
            let (backend, _) = observe::open(Some(kind), &watch)
                .unwrap_or_else(|e| panic!("backend {} does not work here: {e}", kind.name()));
            let limits = Limits { threshold: Nanos::from_millis(10), granularity: Nanos::from_millis(10) };
            let mut engine = Engine::new(backend, limits, Ignore::default());
            let mut scan = || {
                clock::nap(Nanos::from_millis(2));
                let before = ALLOCATIONS.get();
                let now = clock::monotonic();
                engine.scan(now, now).map(|()| ALLOCATIONS.get() - before)
            };
            // Tasks of other tests may start and end, and make a buffer grow once more. A leak or
            // an allocation in each scan would go on for ever.
            let quiet = (0..200).map(|_| scan()).filter(|allocated| *allocated == Ok(0)).count();
            assert!(quiet >= 150, "{}: only {quiet} of 200 scans allocated nothing", kind.name());
        }
    }
}

/// One more than can be boosted on a CPU at the same time.
const VICTIMS: usize = 6;

#[test]
#[ignore = "starves tasks, as root"]
fn a_warm_boost_allocates_nothing() {
    let _live = rig::live();
    let (runtime, period) = (Nanos::from_micros(20), Nanos::from_secs(1));
    for how in [BoostPolicy::Deadline { runtime, period }, BoostPolicy::Fifo] {
        let words = SharedWords::map(&nameless_file().unwrap(), Journal::words(16)).unwrap();
        let journal = Arc::new(Journal::over(words));
        journal.begin(1, Tid(1));
        let actuator = KernelActuator::new(journal, runtime, period, Arc::new(|| {}));
        let rules = Rules {
            how,
            runtime,
            period,
            duration: period,
            cost: Nanos::from_millis(4),
            pulsed: Pulsed::Nothing,
            max_loss: None,
            only_outranked: false,
            retry: period,
        };
        let (ready, tids) = channel();
        thread::scope(|scope| {
            let sleepers: Vec<_> = (0..VICTIMS)
                .map(|_| {
                    let ready = ready.clone();
                    scope.spawn(move || {
                        // Children of ordinary tasks inherit no policy, so boosts read no list of
                        // children.
                        ready.send(sched::gettid()).unwrap();
                        thread::park();
                    })
                })
                .collect();
            let tasks: Vec<Task> = tids.iter().take(VICTIMS).map(task).collect();
            let mut booster = Booster::new(rules, Box::new(actuator), 2);
            let mut rounds = Vec::new();
            for _ in 0..3 {
                let mut allocated = 0;
                for _ in 0..VICTIMS {
                    let snapshot = Snapshot { at: clock::monotonic(), complete: true, ..Snapshot::default() };
                    let starving: Vec<Starving> = tasks.iter().map(|&task| starving(task)).collect();
                    let before = ALLOCATIONS.get();
                    booster.serve(&snapshot, &starving);
                    allocated += ALLOCATIONS.get() - before;
                    clock::nap(Nanos::from_millis(21));
                }
                let boosts = booster.events().filter(|it| matches!(it, Event::Boosted { .. })).count();
                rounds.push((boosts, allocated));
                booster.end_all(clock::monotonic());
                booster.events();
            }
            // This comes before the assertions, because a failure would wait for these threads.
            sleepers.iter().for_each(|sleeper| sleeper.thread().unpark());
            assert!(rounds.iter().all(|&(boosts, _)| boosts >= 5), "{how:?}: {rounds:?}");
            assert!(rounds[1..].iter().all(|&(_, allocated)| allocated == 0), "{how:?}: {rounds:?}");
        });
    }
}

#[test]
#[ignore = "changes RT throttling, as root"]
fn a_restore_by_the_guardian_allocates_nothing() {
    let _live = rig::live();
    let _throttling = Throttling::off();
    let words = SharedWords::map(&nameless_file().unwrap(), Journal::words(16)).unwrap();
    let journal = Journal::over(words);
    journal.begin(1, Tid(1));
    let (runtime, period) = (Nanos::from_micros(20), Nanos::from_secs(1));
    // The kernel refuses the second limit, which is longer than its period.
    let limits = [950_000, 2_000_000].map(|runtime_us| RestoreRecord::Throttling { runtime_us });
    let (ready, tids) = channel();
    let (mut restored, mut set, mut failed) = (0, 0, 0);
    let allocated = thread::scope(|scope| {
        let sleepers: Vec<_> = (0..4)
            .map(|_| {
                let ready = ready.clone();
                scope.spawn(move || {
                    ready.send(sched::gettid()).unwrap();
                    thread::park();
                })
            })
            .collect();
        let tids: Vec<Tid> = tids.iter().take(sleepers.len()).collect();
        let boost = |tid: Tid, how| {
            let Task { tgid, start, .. } = task(tid);
            let before = Saved::of(&Host, tid, &sched::get_attr(tid).unwrap());
            let tgid = tgid.unwrap();
            let leader_start = proc::start(tgid).unwrap();
            let (leader_rank, end, grace) = (Rank::FAIR, Nanos::ZERO, Nanos::ZERO);
            let boosted = Boosted { tid, tgid, start, leader_start, leader_rank, end, grace, before, how };
            journal.arm(&RestoreRecord::Boost(boosted)).unwrap();
            apply(&Host, tid, how).unwrap();
        };
        let mut allocated = Vec::new();
        for round in tids.chunks(2) {
            boost(round[0], BoostPolicy::Deadline { runtime, period });
            boost(round[1], BoostPolicy::Fifo);
            let before = ALLOCATIONS.get();
            if allocated.is_empty() {
                recover::overdue(&Host, &journal, clock::monotonic(), |one| {
                    restored += u32::from(matches!(one, Recovered::Task(_, RestoreOutcome::Restored(_))));
                });
            } else {
                limits.iter().for_each(|limit| _ = journal.arm(limit));
                recover::everything(&Host, &journal, |one| match one {
                    Recovered::Task(_, RestoreOutcome::Restored(_)) => restored += 1,
                    Recovered::Setting(_, Ok(true)) => {
                        set += 1;
                        settings::set_rt_runtime_us(settings::UNTHROTTLED).unwrap();
                    }
                    Recovered::Setting(_, Err(_)) => failed += 1,
                    Recovered::Task(..) | Recovered::Setting(..) => {}
                });
            }
            allocated.push(ALLOCATIONS.get() - before);
        }
        sleepers.iter().for_each(|sleeper| sleeper.thread().unpark());
        allocated
    });
    assert_eq!((restored, set, failed), (4, 1, 1));
    assert_eq!(allocated, [0, 0]);
}

fn task(tid: Tid) -> Task {
    let sched = Sched { policy: Some(Policy::OTHER), prio: 120 };
    let start = proc::start(tid).unwrap();
    Task { tid, tgid: proc::tgid(tid), start, cpu: Cpu(0), sched, ..Task::default() }
}

fn starving(task: Task) -> Starving {
    Starving { task, since: Nanos::ZERO, wait: Nanos::from_secs(1), due: true, again: false }
}

#[test]
fn a_log_record_allocates_nothing() {
    let sink = Terminal::new(File::options().write(true).open("/dev/null").unwrap(), Format::Json);
    let (log, writer) = Writer::start("log", vec![Outlet::new(sink, Level::Debug)], || {}).unwrap();
    let task = Task { comm: Comm::new(b"a\"\n\xff"), ..Task::default() };
    let how = BoostPolicy::Fifo;
    let before = ALLOCATIONS.get();
    for i in 0..5000 {
        log.emit(&LogEvent::Starved { task, since: Nanos::ZERO, wait: Nanos(i), exact: true });
        log.emit(&LogEvent::Task(Event::Boosted { task, how }));
        log.warning(format_args!("{} is a line of text", task.comm));
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(writer.close(rig::TIMEOUT));
}
