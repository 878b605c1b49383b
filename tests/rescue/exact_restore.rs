//! A boost leaves the scheduling of its task exactly as it was, and changes no other task.

#![cfg(feature = "bpf")]

use rig::live;

use stalld::boost::event::{Event, Refusal};
use stalld::boost::journal::Journal;
use stalld::boost::kernel::Host;
use stalld::boost::kernel_actuator::KernelActuator;
use stalld::boost::plan::{Actuator, Ancestor, BoostHandle, Pulse};
use stalld::boost::restore::{RestoreOutcome, undo};
use stalld::proc;
use stalld::sys::bpf::{self, BpfObject, ObjectBytes};
use stalld::sys::clock;
use stalld::sys::map;
use stalld::sys::sched::{self, Attr};
use stalld::sys::shared::{SharedWords, nameless_file};
use stalld::task::{Nanos, Policy, Sched, Task, Tid};
use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

fn journal() -> Arc<Journal> {
    let words = SharedWords::map(&nameless_file().unwrap(), Journal::words(8)).unwrap();
    let journal = Arc::new(Journal::over(words));
    journal.begin(1, Tid(1));
    journal
}

fn hands_over(journal: &Arc<Journal>, runtime: Nanos) -> KernelActuator {
    KernelActuator::new(Arc::clone(journal), runtime, Nanos::from_secs(1), Arc::new(|| {}))
}

fn actuator(runtime: Nanos) -> KernelActuator {
    hands_over(&journal(), runtime)
}

/// A sleeping thread that has run `prepare`. It ends when this is dropped.
struct Sleeper {
    task: Task,
    _end: Sender<()>,
}

impl Sleeper {
    fn start(prepare: impl FnOnce() + Send + 'static) -> Sleeper {
        let (ready, tid) = channel();
        let (end, ended) = channel::<()>();
        thread::spawn(move || {
            prepare();
            ready.send(sched::gettid()).unwrap();
            let _ = ended.recv();
        });
        Sleeper { task: task(tid.recv().unwrap()), _end: end }
    }
}

fn task(tid: Tid) -> Task {
    let start = proc::start(tid).unwrap();
    Task { tid, tgid: proc::tgid(tid), start, sched: Sched::default(), ..Task::default() }
}

fn raise(actuator: &mut KernelActuator, task: &Task) -> BoostHandle {
    let raised = actuator.raise(task, Nanos::MAX).unwrap();
    let attr = sched::get_attr(task.tid).unwrap();
    assert_eq!((attr.policy, attr.reset_on_fork()), (Policy::DEADLINE, true));
    raised
}

/// The slice of a fair task, as slice.bpf.c of the rig writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    length: u64,
    tid: u32,
    is_custom: u32,
}

stalld::plain!(Slice { length, tid, is_custom });

/// The kernel's own view of slices.
struct Slices(bpf::BpfIter);

impl Slices {
    fn open() -> Slices {
        static OBJECT: &ObjectBytes<[u8]> = &ObjectBytes(rig::bpf::SLICE);
        let mut object = BpfObject::open(OBJECT, c"slice").unwrap();
        object.load().unwrap();
        Slices(object.take_program(c"slices").unwrap().link_iterator().unwrap())
    }

    /// Returns `None` before 6.12, where slices can't be chosen.
    fn of(&self, tid: Tid) -> Option<Slice> {
        let mut bytes = Vec::new();
        File::from(self.0.start().unwrap()).read_to_end(&mut bytes).unwrap();
        map::records::<Slice>(&bytes).find(|slice| slice.tid == tid.0 as u32)
    }
}

#[test]
#[ignore = "needs root"]
fn policy_priority_nice_slice_and_reset_on_fork_are_restored() {
    let _live = live();
    let mut actuator = actuator(Nanos::from_micros(20));
    let slices = Slices::open();
    let seven = Nanos::from_millis(7);
    for (policy, priority, nice, runtime) in [
        (Policy::OTHER, 0, 0, Nanos::ZERO),
        (Policy::OTHER, 0, 7, Nanos::ZERO),
        (Policy::OTHER, 0, -3, seven),
        (Policy::BATCH, 0, 5, Nanos::ZERO),
        (Policy::BATCH, 0, 0, seven),
        (Policy::IDLE, 0, 0, Nanos::ZERO),
        (Policy::FIFO, 33, 0, Nanos::ZERO),
        (Policy::RR, 33, 0, Nanos::ZERO),
        (Policy::FIFO, 99, 0, Nanos::ZERO),
    ] {
        for reset_on_fork in [false, true] {
            let flags = if reset_on_fork { sched::RESET_ON_FORK } else { 0 };
            let own = Attr { policy, priority, nice, flags, runtime, ..Attr::default() };
            let sleeper = Sleeper::start(move || sched::set_attr(Tid(0), &own).unwrap());
            // This includes the slice of a fair task, which newer kernels report.
            let seen = || (sched::get_attr(sleeper.task.tid).unwrap(), slices.of(sleeper.task.tid));
            let before = seen();
            let expected = (policy, priority, nice, reset_on_fork);
            let Attr { policy, priority, nice, .. } = before.0;
            assert_eq!((policy, priority, nice, before.0.reset_on_fork()), expected);
            if let Some(slice) = before.1 {
                let is_custom = runtime != Nanos::ZERO;
                assert_eq!(
                    (slice.is_custom == 1, slice.length == seven.0),
                    (is_custom, is_custom),
                    "{slice:?}"
                );
            }
            let raised = raise(&mut actuator, &sleeper.task);
            assert!(
                matches!(actuator.restore(&raised), RestoreOutcome::Restored(tid) if tid == sleeper.task.tid)
            );
            assert_eq!(seen(), before);
            let again = actuator.restore(&raised);
            assert!(matches!(again, RestoreOutcome::Restored(_)), "the second undo failed: {again:?}");
            assert_eq!(seen(), before);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn the_timer_slack_of_a_fair_task_is_restored() {
    let _live = live();
    let mut actuator = actuator(Nanos::from_micros(20));
    let sleeper = Sleeper::start(clock::be_punctual);
    let before = proc::timer_slack(sleeper.task.tid);
    assert_eq!(before, Some(1));
    let raised = raise(&mut actuator, &sleeper.task);
    assert!(matches!(actuator.restore(&raised), RestoreOutcome::Restored(_)));
    assert_eq!(proc::timer_slack(sleeper.task.tid), before);
}

#[test]
#[ignore = "needs root"]
fn two_threads_that_boost_one_task_at_once_leave_it_as_it_was() {
    let _live = live();
    let sleeper = Sleeper::start(|| sched::set_scheduler(Tid(0), Policy::FIFO, 5, false).unwrap());
    let before = sched::get_attr(sleeper.task.tid).unwrap();
    let journal = journal();
    let pulses = || {
        let mut actuator = hands_over(&journal, Nanos::from_micros(8));
        let outcomes = (0..500).map(|_| actuator.pulse(&sleeper.task, None));
        outcomes.fold((0, 0), |(made, left), outcome| match outcome {
            Ok(Pulse {
                raised, outcome: RestoreOutcome::Restored(_) | RestoreOutcome::NeverBoosted, ..
            }) => {
                assert!(
                    raised.boosted.before.is(&before),
                    "the pulse of the other thread was recorded as its own policy"
                );
                (made + 1, left)
            }
            Err(Refusal::Taken | Refusal::ChangedByOthers(_)) => (made, left + 1),
            other => panic!("{other:?}"),
        })
    };
    // The threads may run one after the other for a while, but not for ever.
    rig::process::eventually("both threads boost at once", || {
        let (one, other) = thread::scope(|scope| {
            let (one, other) = (scope.spawn(pulses), scope.spawn(pulses));
            (one.join().unwrap(), other.join().unwrap())
        });
        (one.0 > 0 && other.0 > 0 && one.1 + other.1 > 0).then_some(())
    });
    assert_eq!(sched::get_attr(sleeper.task.tid).unwrap(), before);
    assert_eq!(journal.live().count(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_pulse_restores_the_task_and_the_calling_thread() {
    let _live = live();
    let mut actuator = actuator(Nanos::from_micros(50));
    let sleeper = Sleeper::start(|| sched::set_scheduler(Tid(0), Policy::RR, 5, true).unwrap());
    let before = (sched::get_attr(sleeper.task.tid).unwrap(), sched::get_attr(Tid(0)).unwrap());
    let pulse = actuator.pulse(&sleeper.task, None).unwrap();
    assert!(matches!(pulse.outcome, RestoreOutcome::Restored(_)));
    assert_eq!((sched::get_attr(sleeper.task.tid).unwrap(), sched::get_attr(Tid(0)).unwrap()), before);

    sched::set_scheduler(sleeper.task.tid, Policy::FIFO, 6, false).unwrap();
    let refused = actuator.pulse(&sleeper.task, Some(pulse.raised.boosted.before));
    assert!(matches!(refused, Err(Refusal::ChangedByOthers(Policy::FIFO))));
}

#[test]
#[ignore = "needs root"]
fn another_task_with_the_same_tid_is_not_touched() {
    let _live = live();
    let mut actuator = actuator(Nanos::from_micros(20));
    let sleeper = Sleeper::start(|| sched::set_scheduler(Tid(0), Policy::FIFO, 5, false).unwrap());
    let mut raised = raise(&mut actuator, &sleeper.task);
    // Now the record is that of an ended task, and this task has its tid and a boost by another
    // process.
    raised.boosted.start += 1;
    assert!(matches!(undo(&Host, &raised.boosted, false), RestoreOutcome::Gone));
    assert_eq!(sched::get_attr(sleeper.task.tid).unwrap().policy, Policy::DEADLINE);
    raised.boosted.start -= 1;
    assert!(matches!(undo(&Host, &raised.boosted, false), RestoreOutcome::Restored(_)));
}

#[test]
#[ignore = "needs root"]
fn a_boosted_leader_is_not_taken_for_a_thread_that_has_ended() {
    let _live = live();
    let mut actuator = actuator(Nanos::from_micros(20));
    let leader = Sleeper::start(|| sched::set_nice(Tid(0), 4).unwrap());
    let before = sched::get_attr(leader.task.tid).unwrap();
    let of_leader = raise(&mut actuator, &leader.task);
    // The record of a thread of FIFO 33 of that process. The thread has ended.
    let mut of_thread = of_leader.boosted;
    of_thread.tid = Tid(i32::MAX);
    of_thread.tgid = leader.task.tid;
    of_thread.leader_start = leader.task.start;
    (of_thread.before.policy, of_thread.before.priority) = (Policy::FIFO, 33);
    assert!(matches!(undo(&Host, &of_thread, true), RestoreOutcome::Gone));
    assert!(matches!(actuator.restore(&of_leader), RestoreOutcome::Restored(_)));
    assert_eq!(sched::get_attr(leader.task.tid).unwrap(), before);
}

/// A process that is killed and reaped when dropped.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs root"]
fn a_child_of_a_boosted_task_that_has_run_stays_as_it_is_and_is_reported() {
    let _live = live();
    let mut actuator = actuator(Nanos::from_millis(1));
    let mut shell = Command::new("sh")
        .args(["-c", "read go; sleep 60 & read end; kill $!"])
        .stdin(Stdio::piped())
        .spawn()
        .map(Shell)
        .unwrap();
    let parent = Tid(shell.0.id() as i32);
    sched::set_scheduler(parent, Policy::FIFO, 33, false).unwrap();
    let task = task(parent);
    let raised = raise(&mut actuator, &task);
    use std::io::Write;
    shell.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let child = rig::process::eventually("the shell has a child", || {
        rig::process::children_of_thread(parent, parent).first().copied()
    });
    rig::process::eventually("the child has run", || proc::runs(child).filter(|&runs| runs > 0));
    let mut events = Vec::new();
    // Other tests may start many tasks at the same time.
    rig::process::eventually("the child is reported", || {
        actuator.adopt(&[Ancestor { raised, task }], &mut events);
        let is_it = |event: &&Event| matches!(event, Event::Orphan { child: it, .. } if *it == child);
        events.iter().find(is_it).map(drop)
    });
    let attr = sched::get_attr(child).unwrap();
    assert_eq!((attr.policy, attr.nice), (Policy::OTHER, 0));
    assert!(matches!(actuator.restore(&raised), RestoreOutcome::Restored(_)));
    shell.0.stdin.as_mut().unwrap().write_all(b"end\n").unwrap();
    shell.0.wait().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_task_that_has_ended_or_is_deadline_itself_is_not_boosted() {
    let _live = live();
    let mut actuator = actuator(Nanos::from_micros(20));
    let gone = Task { tid: Tid(i32::MAX), tgid: Some(Tid(i32::MAX)), start: 1, ..Task::default() };
    assert!(matches!(actuator.raise(&gone, Nanos::MAX), Err(Refusal::Gone)));
    let sleeper = Sleeper::start(|| {
        let (runtime, period) = (Nanos::from_millis(1), Nanos::from_secs(1));
        sched::set_deadline(Tid(0), runtime, period, 0).unwrap();
    });
    assert!(matches!(actuator.raise(&sleeper.task, Nanos::MAX), Err(Refusal::IsDeadline)));
}
