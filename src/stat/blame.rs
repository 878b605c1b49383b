//! Finds the tasks that cause a wait: those that ran meanwhile on that CPU, or on the hardware
//! threads that share its core.

use super::task_table::TaskIdx;
use crate::task::{Cpu, Nanos};
use std::collections::{HashMap, VecDeque};

/// The time that one task cost another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    /// By running on the CPU that the other task waited for.
    pub same: Nanos,
    /// By running on another hardware thread of that core.
    pub beside: Nanos,
}

/// The waits of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Suffered {
    pub waits: u64,
    pub waited: Nanos,
}

/// The charges of an interval, and the recent turns and waits that they are computed from.
#[derive(Default)]
pub(super) struct Blame {
    siblings: Vec<Vec<usize>>,
    cpus: Vec<CpuTimeline>,
    /// The charges by victim and by the task that ran.
    pub charges: HashMap<(TaskIdx, TaskIdx), Charge>,
    pub suffered: HashMap<TaskIdx, Suffered>,
}

/// The recent turns and waits of a CPU.
#[derive(Default)]
struct CpuTimeline {
    slices: VecDeque<RunSpan>,
    /// Waits that have ended, and parts of waits. Turns that end later may overlap them.
    waits: VecDeque<WaitSpan>,
}

#[derive(Clone, Copy)]
struct RunSpan {
    start: Nanos,
    end: Nanos,
    /// The time that the task ran. It is less than the span if several turns were merged.
    ran: Nanos,
    task: TaskIdx,
}

#[derive(Clone, Copy)]
struct WaitSpan {
    start: Nanos,
    end: Nanos,
    victim: TaskIdx,
}

/// The number of recent turns of a CPU that are not merged. Older turns are merged when there are
/// twice as many.
const KEPT: usize = 1 << 15;

/// Older turns of one task within this time are merged.
const WINDOW: Nanos = Nanos::from_millis(10);

/// No piece of a turn is much longer than this.
const LONGEST_PIECE: Nanos = Nanos::from_secs(2);

impl RunSpan {
    fn within(&self, start: Nanos, end: Nanos) -> Nanos {
        let overlap = self.end.min(end) - self.start.max(start);
        let length = self.end - self.start;
        if self.ran == length || length == Nanos::ZERO {
            return overlap.min(self.ran);
        }
        Nanos((overlap.0 as u128 * self.ran.0 as u128 / length.0 as u128) as u64)
    }
}

impl Charge {
    fn add(&mut self, time: Nanos, is_same: bool) {
        let sum = if is_same { &mut self.same } else { &mut self.beside };
        *sum = *sum + time;
    }
}

impl Blame {
    /// `siblings` lists for each CPU the CPUs that share its core.
    pub(super) fn new(siblings: Vec<Vec<usize>>) -> Blame {
        let cpus = siblings.iter().map(|_| CpuTimeline::default()).collect();
        Blame { siblings, cpus, ..Blame::default() }
    }

    /// Records that a task ran on a CPU, until now.
    pub(super) fn ran(&mut self, cpu: Cpu, runner: TaskIdx, start: Nanos, end: Nanos) {
        let slice = RunSpan { start, end, ran: end - start, task: runner };
        let cpu = cpu.0 as usize;
        let Some(timeline) = self.cpus.get_mut(cpu) else { return };
        timeline.slices.push_back(slice);
        if timeline.slices.len() >= 2 * KEPT {
            timeline.compact();
        }
        for &other in std::iter::once(&cpu).chain(&self.siblings[cpu]) {
            // Waits are in the order of their ends.
            let waits = self.cpus[other].waits.iter().rev().take_while(|wait| wait.end > start);
            for (victim, time) in waits.map(|wait| (wait.victim, slice.within(wait.start, wait.end))) {
                self.charges.entry((victim, runner)).or_default().add(time, other == cpu);
            }
        }
    }

    /// Records that a task waited for a CPU, until now. Each part of a wait is recorded, but the
    /// wait is counted only when it is over.
    pub(super) fn waited(&mut self, cpu: Cpu, victim: TaskIdx, start: Nanos, end: Nanos, is_over: bool) {
        let cpu = cpu.0 as usize;
        if cpu >= self.cpus.len() {
            return;
        }
        let suffered = self.suffered.entry(victim).or_default();
        suffered.waits += u64::from(is_over);
        suffered.waited = suffered.waited + (end - start);
        for &other in std::iter::once(&cpu).chain(&self.siblings[cpu]) {
            for (runner, time) in self.cpus[other].during(start, end) {
                self.charges.entry((victim, runner)).or_default().add(time, other == cpu);
            }
        }
        let waits = &mut self.cpus[cpu].waits;
        waits.push_back(WaitSpan { start, end, victim });
        while waits.front().is_some_and(|wait| wait.end + LONGEST_PIECE < end) {
            waits.pop_front();
        }
    }

    /// Removes all charges, turns and waits, and with them all indices of tasks.
    pub(super) fn clear(&mut self) {
        self.start_interval();
        self.cpus.iter_mut().for_each(|timeline| *timeline = CpuTimeline::default());
    }

    /// Removes the charges. Keeps turns and waits, because later ones may overlap them.
    pub(super) fn start_interval(&mut self) {
        self.charges.clear();
        self.suffered.clear();
    }
}

impl CpuTimeline {
    fn during(&self, start: Nanos, end: Nanos) -> impl Iterator<Item = (TaskIdx, Nanos)> + '_ {
        // Turns are in the order of their ends.
        let late_enough = self.slices.iter().rev().take_while(move |slice| slice.end + WINDOW > start);
        let times = late_enough.map(move |slice| (slice.task, slice.within(start, end)));
        times.filter(|(_, time)| *time > Nanos::ZERO)
    }

    /// Merges turns in the older half.
    fn compact(&mut self) {
        let recent = self.slices.split_off(KEPT);
        let mut old: Vec<RunSpan> = Vec::new();
        for slice in self.slices.drain(..) {
            let same_window =
                |other: &&mut RunSpan| other.task == slice.task && slice.end - other.start <= WINDOW;
            let found =
                old.iter_mut().rev().take_while(|other| slice.end - other.start <= WINDOW).find(same_window);
            match found {
                Some(other) => {
                    other.end = slice.end;
                    other.ran = other.ran + slice.ran;
                }
                None => old.push(slice),
            }
        }
        // Drop the oldest turns beyond half of `KEPT`: they are too old for any wait.
        let too_many = old.len().saturating_sub(KEPT / 2);
        self.slices.extend(old.into_iter().skip(too_many));
        self.slices.extend(recent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::task_table::{TaskIdentity, TaskTable};
    use crate::task::Tid;

    fn tasks<const N: usize>() -> [TaskIdx; N] {
        let mut table = TaskTable::default();
        std::array::from_fn(|n| {
            table.add(TaskIdentity { tid: Tid(n as i32 + 1), tgid: Tid(1), comm: [0; 16], cgroup: 0 })
        })
    }

    fn ms(n: u64) -> Nanos {
        Nanos::from_millis(n)
    }

    #[test]
    fn a_wait_is_charged_to_the_tasks_that_ran_meanwhile() {
        let [victim, hog, other, elsewhere] = tasks();
        let mut blame = Blame::new(vec![vec![], vec![]]);
        blame.ran(Cpu(0), hog, ms(0), ms(10));
        blame.ran(Cpu(1), elsewhere, ms(0), ms(100));
        blame.ran(Cpu(0), other, ms(10), ms(14));
        blame.ran(Cpu(0), hog, ms(14), ms(30));
        blame.waited(Cpu(0), victim, ms(8), ms(30), true);
        assert_eq!(blame.charges.len(), 2);
        assert_eq!(blame.charges[&(victim, hog)].same, ms(2 + 16));
        assert_eq!(blame.charges[&(victim, other)].same, ms(4));
        assert_eq!(blame.suffered[&victim], Suffered { waits: 1, waited: ms(22) });
        blame.start_interval();
        assert!(blame.charges.is_empty() && blame.suffered.is_empty());
    }

    #[test]
    fn a_turn_beside_counts_once_whether_it_ends_before_the_wait_or_after() {
        let [victim, hog, before, after] = tasks();
        let mut blame = Blame::new(vec![vec![1], vec![0]]);
        blame.ran(Cpu(1), before, ms(0), ms(7));
        blame.ran(Cpu(0), hog, ms(0), ms(10));
        blame.waited(Cpu(0), victim, ms(5), ms(10), true);
        blame.ran(Cpu(1), after, ms(7), ms(20));
        assert_eq!(blame.charges[&(victim, hog)], Charge { same: ms(5), beside: ms(0) });
        assert_eq!(blame.charges[&(victim, before)], Charge { same: ms(0), beside: ms(2) });
        assert_eq!(blame.charges[&(victim, after)], Charge { same: ms(0), beside: ms(3) });
    }

    #[test]
    fn a_part_of_a_wait_is_charged_to_a_turn_that_goes_on() {
        let [victim, hog] = tasks();
        let mut blame = Blame::new(vec![vec![]]);
        blame.waited(Cpu(0), victim, ms(10), ms(30), false);
        blame.ran(Cpu(0), hog, ms(0), ms(100));
        blame.waited(Cpu(0), victim, ms(30), ms(100), true);
        assert_eq!(blame.charges[&(victim, hog)].same, ms(90));
        assert_eq!(blame.suffered[&victim], Suffered { waits: 1, waited: ms(90) });
    }

    #[test]
    fn turns_that_are_put_together_still_add_up() {
        let [victim, one, two] = tasks();
        let mut blame = Blame::new(vec![vec![]]);
        let turn = Nanos::from_micros(50);
        let turns = 5 * KEPT as u64;
        for n in 0..turns {
            let start = Nanos(n * turn.0);
            blame.ran(Cpu(0), if n % 2 == 0 { one } else { two }, start, start + turn);
        }
        assert!(blame.cpus[0].slices.len() < 2 * KEPT);
        let end = Nanos(turns * turn.0);
        let begun = Nanos::from_secs(1);
        blame.waited(Cpu(0), victim, begun, end, true);
        for runner in [one, two] {
            let share = blame.charges[&(victim, runner)].same.0 as f64 / (end - begun).0 as f64;
            assert!((0.49..0.51).contains(&share), "{share}");
        }
    }
}
