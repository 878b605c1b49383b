//! Tests of the actuator over a scripted kernel, which records the calls that it gets.

use super::*;
use crate::boost::journal::RestoreRecord;
use crate::boost::restore::{CALL, FIFO_PRIORITY};
use crate::proc::births::{Birth, Walk};
use crate::sys::sched::RESET_ON_FORK;
use crate::sys::shared::{SharedWords, nameless_file};
use crate::task::Comm;
use std::sync::{Mutex, MutexGuard};

const TASK: Tid = Tid(5);
const START: u64 = 99;
/// The child that is born during the boost of the task.
const YOUNG: Tid = Tid(6);
/// A thread that is older than the boost.
const ELDER: Tid = Tid(7);
const BUDGET: Nanos = Nanos::from_micros(20);
const PERIOD: Nanos = Nanos::from_secs(1);

/// The state of a waiter and of the thread that boosts it.
#[derive(Default)]
struct State {
    now: Nanos,
    attr: Attr,
    slack: u64,
    /// The time from the boost to the moment at which the task is given its CPU.
    reached_after: Option<Nanos>,
    raised_at: Option<Nanos>,
    others: Vec<(Tid, Attr)>,
    children: Vec<Tid>,
    priority_limit: u64,
    owner: Owner,
    /// The priority that /proc shows for the child.
    young_prio: i32,
    has_ended: bool,
    /// A task that is boosted above the hog sets this rank for itself at once.
    raises_to: Option<Attr>,
    threads: Vec<Tid>,
    /// The policies that were set for the task and for the boosting thread, in order.
    log: Vec<String>,
    /// The number of calls that have set a policy.
    calls: u32,
    /// Returns whether the kernel refuses the call of this number.
    refuses: Option<fn(u32) -> bool>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<State>>);

impl Scripted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn set(&self, tid: Tid, attr: Attr) -> io::Result<()> {
        let mut state = self.state();
        state.calls += 1;
        if state.refuses.is_some_and(|refuses| refuses(state.calls)) {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        let now = state.now;
        let what = format!("{} {} at {}", attr.policy.name().unwrap_or_default(), attr.priority, now.0);
        match (tid, state.others.iter().position(|(other, _)| *other == tid)) {
            (Tid(0), _) => state.log.push(format!("self {what}")),
            (_, Some(index)) => state.others[index].1 = attr,
            _ => {
                state.log.push(format!("task {what}"));
                state.raised_at = attr.reset_on_fork().then_some(now);
                let is_raised = attr.priority == FIFO_PRIORITY;
                let attr = state.raises_to.filter(|_| is_raised).unwrap_or(attr);
                state.attr = Attr { nice: state.attr.nice, ..attr };
            }
        }
        Ok(())
    }
}

impl Kernel for Scripted {
    fn get_attr(&self, tid: Tid) -> io::Result<Attr> {
        let state = self.state();
        let of_other = state.others.iter().find(|(other, _)| *other == tid).map(|(_, attr)| *attr);
        Ok(match tid {
            Tid(0) => Attr { policy: Policy::FIFO, priority: 10, ..Attr::default() },
            TASK => state.attr,
            _ => of_other.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?,
        })
    }

    fn set_scheduler(&self, tid: Tid, policy: Policy, priority: u32, reset_on_fork: bool) -> io::Result<()> {
        let flags = if reset_on_fork { RESET_ON_FORK } else { 0 };
        self.set(tid, Attr { policy, priority, flags, ..Attr::default() })
    }

    fn set_deadline(&self, tid: Tid, runtime: Nanos, period: Nanos, flags: u64) -> io::Result<()> {
        self.set(tid, Attr { policy: Policy::DEADLINE, flags, runtime, period, ..Attr::default() })
    }

    fn set_nice(&self, tid: Tid, nice: i32) -> io::Result<()> {
        self.state().others.iter_mut().filter(|(other, _)| *other == tid).for_each(|it| it.1.nice = nice);
        Ok(())
    }

    fn priority_limit(&self, _: Tid) -> Option<u64> {
        Some(self.state().priority_limit)
    }

    fn try_start(&self, tid: Tid) -> io::Result<Option<u64>> {
        let has_ended = tid == TASK && self.state().has_ended;
        Ok((!has_ended).then_some(if tid == YOUNG { START + 1 } else { START }))
    }

    fn tgid(&self, tid: Tid) -> Option<Tid> {
        Some(tid)
    }

    fn is_bound(&self, _: Tid) -> Option<bool> {
        Some(false)
    }

    fn owner(&self, _: Tid) -> Owner {
        self.state().owner
    }

    fn comm(&self, _: Tid) -> Option<Comm> {
        None
    }

    fn state(&self, _: Tid) -> Option<u8> {
        Some(b'R')
    }

    fn standing(&self, _: Tid) -> Option<Standing> {
        None
    }

    fn runs(&self, _: Tid) -> Option<u64> {
        let state = self.state();
        let reached = state.raised_at.zip(state.reached_after);
        Some(u64::from(reached.is_some_and(|(raised, after)| state.now >= raised + after)))
    }

    fn cpu_time(&self, _: Tid) -> Option<Nanos> {
        None
    }

    fn timer_slack(&self, _: Tid) -> Option<u64> {
        Some(self.state().slack)
    }

    fn set_timer_slack(&self, _: Tid, slack: u64) -> Option<()> {
        self.state().slack = slack;
        Some(())
    }

    fn threads(&self, _: Tid, most: usize) -> Vec<Tid> {
        self.state().threads.iter().copied().take(most).collect()
    }

    fn process_of(&self, tid: Tid) -> Option<Tid> {
        Some(if self.state().threads.contains(&tid) { TASK } else { tid })
    }

    fn birth(&self, tid: Tid) -> Option<Birth> {
        let parent = if self.state().children.contains(&tid) { TASK } else { Tid(1) };
        Some(Birth { tid, start: self.start(tid)?, parent, prio: 120 })
    }

    fn is_child(&self, _: Tid, tid: Tid, child: Tid) -> Option<bool> {
        Some(tid == TASK && self.state().children.contains(&child))
    }

    fn births(&self, _: &mut Walk, _: u64, each: &mut dyn FnMut(Option<Birth>) -> bool) -> bool {
        let parent = if self.state().children.contains(&YOUNG) { TASK } else { Tid(1) };
        let prio = self.state().young_prio;
        each(Some(Birth { tid: YOUNG, start: START + 1, parent, prio }))
    }

    fn cpu(&self) -> Cpu {
        Cpu(0)
    }

    fn now(&self) -> Nanos {
        self.state().now
    }

    fn boot_ticks(&self) -> u64 {
        START + 1
    }

    fn sleep_until(&self, moment: Nanos) {
        self.state().now = moment;
    }

    fn spin_until(&self, moment: Nanos) {
        self.state().now = moment;
    }
}

fn task() -> Task {
    let sched = crate::task::Sched { policy: None, prio: 120 };
    Task { tid: TASK, cpu: Cpu(1), start: START, sched, ..Task::default() }
}

fn journal() -> Arc<Journal> {
    let words = SharedWords::map(&nameless_file().unwrap(), Journal::words(4)).unwrap();
    let journal = Journal::over(words);
    journal.begin(7, Tid(42));
    Arc::new(journal)
}

/// Returns an actuator that calls `meanwhile` between the record of a boost and the boost.
fn actuator(
    kernel: &Scripted,
    journal: &Arc<Journal>,
    meanwhile: impl Fn(&mut State) + Send + Sync + 'static,
) -> KernelActuator<Scripted> {
    let own = kernel.clone();
    let wake = move || meanwhile(&mut own.state());
    KernelActuator::over(kernel.clone(), Arc::clone(journal), BUDGET, PERIOD, Arc::new(wake))
}

#[test]
fn the_thread_acts_on_tasks_at_fifo_98_and_then_restores_its_priority() {
    let kernel = Scripted::default();
    let mut actuator = actuator(&kernel, &journal(), |_| {});
    actuator.ascend();
    actuator.ascend();
    assert_eq!(kernel.state().log, ["self SCHED_FIFO 98 at 0"]);
    actuator.descend();
    actuator.descend();
    assert_eq!(kernel.state().log[1..], ["self SCHED_FIFO 10 at 0"]);
}

#[test]
fn the_guardian_is_woken_before_the_thread_enters_fifo_99() {
    let kernel = Scripted::default();
    kernel.state().reached_after = Some(Nanos::ZERO);
    let mut actuator = actuator(&kernel, &journal(), |state| state.log.push("guardian".to_string()));
    actuator.pulse(&task(), None).unwrap();
    let log = kernel.state().log.join(", ");
    let order: Vec<&str> = log.split(", ").map(|one| one.split(" at").next().unwrap()).collect();
    assert_eq!(
        order,
        ["guardian", "self SCHED_FIFO 99", "task SCHED_FIFO 98", "task SCHED_OTHER 0", "self SCHED_FIFO 10"]
    );
}

#[test]
fn a_pulse_begins_when_the_task_is_given_its_cpu() {
    for (reached_after, has_run) in
        [(Some(Nanos::ZERO), true), (Some(Nanos::from_micros(150)), true), (None, false)]
    {
        let kernel = Scripted::default();
        kernel.state().reached_after = reached_after;
        let pulse = actuator(&kernel, &journal(), |_| {}).pulse(&task(), None).unwrap();
        assert_eq!(pulse.run, if has_run { Run::Given } else { Run::Missed });
        let lasted = match reached_after {
            Some(after) => after + BUDGET - IDENTITY_CHECK_TIME,
            None => MAX_PULSE_DELAY,
        };
        // After the pulse, stalld waits for a call that the task may have begun.
        let now = kernel.now() - CALL;
        assert!(now >= lasted && now <= lasted + RUN_CHECK_INTERVAL, "{now:?} for {lasted:?}");
    }
}

#[test]
fn a_task_whose_boost_the_guardian_has_undone_is_not_taken_for_ended() {
    // stalld was stopped between the record and the boost.
    let (kernel, journal) = (Scripted::default(), journal());
    let of_guardian = Arc::clone(&journal);
    let stopped = move |_: &mut State| {
        let (slot, _) = of_guardian.live().next().unwrap();
        of_guardian.forget(slot);
    };
    let outcome = actuator(&kernel, &journal, stopped).raise(&task(), PERIOD);
    assert!(matches!(outcome, Err(Refusal::Taken)), "{outcome:?}");
    assert_eq!(kernel.state().attr.policy, Policy::OTHER);
    // stalld was stopped between the claim of the record and the restore.
    let mut actuator = actuator(&kernel, &journal, |_| {});
    let raised = actuator.raise(&task(), PERIOD).unwrap();
    kernel.set_scheduler(TASK, Policy::OTHER, 0, false).unwrap();
    let outcome = actuator.restore(&raised);
    assert!(matches!(outcome, RestoreOutcome::Restored(TASK)), "{outcome:?}");
}

#[test]
fn the_first_run_of_a_boost_is_awaited_for_a_bounded_time_since_its_start() {
    let us = Nanos::from_micros;
    for (after, waited, expected) in
        [(0, 0, 0), (15, 0, 20), (20, 0, 20), (1000, 0, 1000), (5000, 0, 2000), (15, 30, 0)]
    {
        let kernel = Scripted::default();
        kernel.state().reached_after = Some(us(after));
        let mut actuator = actuator(&kernel, &journal(), |_| {});
        let raised = actuator.raise(&task(), PERIOD).unwrap();
        let since = kernel.now();
        // Other tasks were raised meanwhile.
        kernel.sleep_until(since + us(waited));
        let begun = kernel.now();
        let run = if after > 2000 { Run::Missed } else { Run::Given };
        assert_eq!(actuator.await_first_run(&raised, since), run);
        assert_eq!(kernel.now() - begun, us(expected), "{after} {waited}");
        actuator.await_budgets();
        assert_eq!(kernel.now() - begun, us(expected) + BUDGET);
    }
}

#[test]
fn a_task_that_changes_between_record_and_boost_is_not_boosted() {
    let changes: [fn(&mut State); 3] = [
        |state| state.slack = 70_000,
        |state| state.attr.nice = 3,
        |state| state.attr.policy = Policy::BATCH,
    ];
    for change in changes {
        let (kernel, journal) = (Scripted::default(), journal());
        kernel.state().slack = 50_000;
        let outcome = actuator(&kernel, &journal, change).raise(&task(), PERIOD);
        assert!(matches!(outcome, Err(Refusal::ChangedByOthers(_))), "{outcome:?}");
        assert_eq!((kernel.state().log.len(), journal.live().count()), (0, 0));
    }
}

#[test]
fn a_task_boosted_under_another_tid_is_not_boosted_again() {
    let (kernel, journal) = (Scripted::default(), journal());
    let before = Saved::of(&kernel, TASK, &Attr::default());
    let boosted = Boosted {
        tid: Tid(9),
        tgid: TASK,
        start: START + 7,
        leader_start: START,
        leader_rank: Rank::FAIR,
        end: PERIOD,
        grace: Nanos::ZERO,
        before,
        how: BoostPolicy::Fifo,
    };
    journal.arm(&RestoreRecord::Boost(boosted)).unwrap();
    apply(&kernel, TASK, BoostPolicy::Fifo).unwrap();
    let outcome = actuator(&kernel, &journal, |_| {}).raise(&task(), PERIOD);
    assert!(matches!(outcome, Err(Refusal::Taken)), "{outcome:?}");
    // Once the thread is not boosted any more, the leader can be.
    kernel.state().attr = Attr::default();
    assert!(actuator(&kernel, &journal, |_| {}).raise(&task(), PERIOD).is_ok());
}

#[test]
fn a_policy_set_by_another_process_between_pulses_is_reported() {
    let kernel = Scripted::default();
    let mut actuator = actuator(&kernel, &journal(), |_| {});
    let pulse = actuator.pulse(&task(), None).unwrap();
    assert!(matches!(actuator.restore(&pulse.raised), RestoreOutcome::Restored(TASK)));
    kernel.state().attr.policy = Policy::BATCH;
    assert!(matches!(actuator.restore(&pulse.raised), RestoreOutcome::ChangedByOthers(Policy::BATCH)));
}

/// Returns the nice value of a child that is born during the boost of a task with nice value 7,
/// after `meanwhile`.
fn nice_of_young(meanwhile: impl Fn(&mut State)) -> i32 {
    let kernel = Scripted::default();
    kernel.state().attr.nice = 7;
    kernel.state().threads = vec![TASK];
    let mut actuator = actuator(&kernel, &journal(), |_| {});
    let pulse = actuator.pulse(&task(), None).unwrap();
    kernel.state().others = vec![(YOUNG, Attr::default()), (ELDER, kernel.get_attr(TASK).unwrap())];
    meanwhile(&mut kernel.state());
    actuator.adopt(&[Ancestor { raised: pulse.raised, task: task() }], &mut Vec::new());
    kernel.get_attr(YOUNG).unwrap().nice
}

#[test]
fn children_get_the_former_policy_of_their_parent_unless_it_was_changed() {
    assert_eq!(nice_of_young(|state| state.children = vec![YOUNG]), 7);
    let changed = |state: &mut State| {
        state.children = vec![YOUNG];
        state.attr.policy = Policy::BATCH;
    };
    assert_eq!(nice_of_young(changed), 0);
}

#[test]
fn a_new_thread_is_as_the_others_are_if_they_are_all_alike() {
    let threads = |state: &mut State| state.threads = vec![TASK, ELDER, YOUNG];
    assert_eq!(nice_of_young(threads), 7);
    let nicer = |state: &mut State| {
        threads(state);
        state.others[1].1.nice = 3;
    };
    assert_eq!(nice_of_young(nicer), 0);
}

/// Runs a pulse during which `meanwhile` happens to the task, and returns its outcome and the
/// task's policy, priority and timer slack afterwards.
const fn attr(policy: Policy, priority: u32) -> Attr {
    let (flags, zero) = (RESET_ON_FORK, Nanos::ZERO);
    Attr { policy, priority, nice: 0, flags, runtime: zero, deadline: zero, period: zero }
}

#[test]
fn a_task_that_another_process_boosts_is_left_alone() {
    let of_another = [
        attr(Policy::FIFO, FIFO_PRIORITY),
        Attr { runtime: BUDGET, period: PERIOD, deadline: PERIOD, ..attr(Policy::DEADLINE, 0) },
    ];
    for attr in of_another {
        let (kernel, journal) = (Scripted::default(), journal());
        kernel.state().attr = attr;
        let mut actuator = actuator(&kernel, &journal, |_| {});
        assert!(matches!(actuator.raise(&task(), PERIOD), Err(Refusal::Taken)));
        assert!(matches!(actuator.pulse(&task(), None), Err(Refusal::Taken)));
        // The same holds between two pulses of stalld: the task's own policy is that of the record.
        let before = Saved::of(&kernel, TASK, &Attr::default());
        assert!(matches!(actuator.pulse(&task(), Some(before)), Err(Refusal::Taken)));
        assert_eq!((kernel.state().log.len(), journal.live().count()), (0, 0));
    }
}

#[test]
fn the_guardian_ends_a_pulse_soon_and_a_long_one_later() {
    for (runtime, grace) in [(BUDGET, Nanos::from_millis(2)), (PERIOD, Nanos::from_secs(10))] {
        let (kernel, journal) = (Scripted::default(), journal());
        let actuator =
            KernelActuator::over(kernel.clone(), Arc::clone(&journal), runtime, PERIOD, Arc::new(|| {}));
        let noted = actuator.note(&task(), None, BoostPolicy::Fifo, PERIOD).unwrap();
        assert_eq!(due(&noted.boosted), PERIOD + grace);
        let noted = actuator.note(&task(), None, actuator.how, PERIOD).unwrap();
        assert_eq!(due(&noted.boosted), PERIOD + Nanos::from_secs(1));
    }
}

#[test]
fn a_task_whose_name_can_not_be_read_has_not_ended() {
    let (kernel, journal) = (Scripted::default(), journal());
    let outcome = actuator(&kernel, &journal, |_| {}).raise(&Task { start: 0, ..task() }, PERIOD);
    assert!(matches!(outcome, Err(Refusal::Kernel(_))), "{outcome:?}");
}

#[path = "rank_tests.rs"]
mod ranks;

#[path = "refused_call_tests.rs"]
mod refused_calls;
