//! A simulated host for the tests of the plan.

use super::*;

/// A simulated host, on which all actions succeed at once unless a field changes that.
#[derive(Default)]
pub(super) struct Simulated {
    pub(super) raised: Vec<(Tid, Nanos)>,
    pub(super) restored: Vec<Tid>,
    pub(super) pulses: Vec<Tid>,
    /// A task that is boosted as SCHED_DEADLINE does not get its CPU.
    pub(super) stuck: bool,
    /// A task in a pulse does not get its CPU.
    pub(super) held: bool,
    /// Why each pulse is refused.
    pub(super) pulse_refusal: Option<Refusal>,
    /// A task in a pulse sets a rank for itself, and keeps it.
    pub(super) raises_itself: bool,
    pub(super) clock: Nanos,
    pub(super) length_of_raise: Nanos,
    /// The calls of the starts, in order.
    pub(super) log: Vec<String>,
    /// How often each task has been given a CPU.
    pub(super) runs: u64,
    /// The time for which a task runs in each pulse.
    pub(super) used: Nanos,
    /// The kernel does not count the CPU time.
    pub(super) is_uncounted: bool,
    /// The time from the begin of a pulse to its end; 0 for a second.
    pub(super) pulse_length: Nanos,
    /// No user may change the affinity of a task.
    pub(super) is_bound: bool,
    /// All tasks belong to an ordinary user.
    pub(super) is_of_user: bool,
    /// The children of task 1.
    pub(super) children: Vec<Tid>,
    /// The calling thread has raised itself, which all actions on tasks require.
    pub(super) is_above: bool,
    /// The children that the next pass for tasks on probation finds.
    pub(super) newborn: Vec<LoweredChild>,
    /// The tasks that lost a rank which was not their own.
    pub(super) taken_from: Vec<Tid>,
    /// The tasks of each pass that searched for children.
    pub(super) adoptions: Vec<Vec<Tid>>,
    /// There are too many children for one pass.
    pub(super) crowded: bool,
    /// The errno with which the kernel refuses a boost.
    pub(super) refuses: Option<i32>,
    /// The tasks whose present CPU and priority can be read.
    pub(super) standings: Vec<(Tid, Standing)>,
}

pub(super) fn raised(task: &Task, how: BoostPolicy, end: Nanos) -> BoostHandle {
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
    fn ascend(&mut self) {
        self.is_above = true;
    }

    fn descend(&mut self) {
        self.is_above = false;
    }

    fn lower_late(&mut self, raised: &BoostHandle) -> Option<RestoreOutcome> {
        assert!(self.is_above);
        let Boosted { tid, before, .. } = raised.boosted;
        self.raises_itself.then_some(RestoreOutcome::Lowered { tid, from: Saved { priority: 97, ..before } })
    }

    fn lower_child(&mut self, task: &Task, parents: &Probation) -> Option<LoweredChild> {
        let raised = parents.iter().next().filter(|_| self.children.contains(&task.tid))?.raised;
        Some(LoweredChild { task: *task, raised, from: Saved { priority: 98, ..raised.boosted.before } })
    }

    fn lower_children(&mut self, _: &Probation, each: &mut dyn FnMut(LoweredChild)) {
        self.newborn.drain(..).for_each(each);
    }

    fn take_foreign_rank(&mut self, task: &Task) -> bool {
        self.taken_from.push(task.tid);
        true
    }

    fn owner(&self, _: &Task) -> Owner {
        if self.is_of_user { Owner::User(1000) } else { Owner::Privileged }
    }

    fn may_be_bound(&self, _: &Task) -> bool {
        self.is_bound
    }

    fn runs(&self, _: &Task) -> Option<u64> {
        assert!(self.is_above);
        Some(self.runs)
    }

    fn cpu_time(&self, _: &Task) -> Option<Nanos> {
        assert!(self.is_above);
        (!self.is_uncounted).then_some(Nanos(self.used.0 * self.pulses.len() as u64))
    }

    fn standing(&self, tid: Tid) -> Option<Standing> {
        assert!(self.is_above);
        let here = Standing { cpu: Cpu(1), prio: 120, is_runnable: true };
        let of_it = self.standings.iter().find(|(other, _)| *other == tid).map(|&(_, standing)| standing);
        if self.standings.is_empty() { Some(here) } else { of_it }
    }

    fn raise(&mut self, task: &Task, end: Nanos) -> Result<BoostHandle, Refusal> {
        assert!(self.is_above);
        if let Some(errno) = self.refuses {
            return Err(Refusal::Kernel(errno));
        }
        self.raised.push((task.tid, end));
        self.log.push(format!("raise {}", task.tid));
        self.clock = self.clock + self.length_of_raise;
        Ok(raised(task, rules(20).how, end))
    }

    fn restore(&mut self, raised: &BoostHandle) -> RestoreOutcome {
        assert!(self.is_above);
        self.restored.push(raised.boosted.tid);
        self.log.push(format!("restore {}", raised.boosted.tid));
        RestoreOutcome::Restored(raised.boosted.tid)
    }

    fn await_budgets(&mut self) {}

    fn now(&self) -> Nanos {
        self.clock
    }

    fn await_first_run(&mut self, raised: &BoostHandle, _: Nanos) -> Run {
        self.log.push(format!("await {}", raised.boosted.tid));
        if self.stuck { Run::Missed } else { Run::Given }
    }

    fn pulse(&mut self, task: &Task, _: Option<Saved>) -> Result<Pulse, Refusal> {
        assert!(self.is_above);
        if let Some(why) = self.pulse_refusal {
            return Err(why);
        }
        self.pulses.push(task.tid);
        let raised = raised(task, BoostPolicy::Fifo, Nanos::MAX);
        let outcome = match self.raises_itself {
            true => RestoreOutcome::Lowered { tid: task.tid, from: raised.boosted.before },
            false => RestoreOutcome::Restored(task.tid),
        };
        let run = if self.held { Run::Missed } else { Run::Given };
        let length = if self.pulse_length == Nanos::ZERO { Nanos::from_secs(1) } else { self.pulse_length };
        Ok(Pulse { raised, outcome, run, ended: length })
    }

    fn adopt(&mut self, ancestors: &[Ancestor], _: &mut Vec<Event>) -> bool {
        assert!(self.is_above);
        self.adoptions.push(ancestors.iter().map(|ancestor| ancestor.task.tid).collect());
        !self.crowded
    }
}
