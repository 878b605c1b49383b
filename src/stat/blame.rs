//! Whose fault a wait is: for each wait, who ran meanwhile on that CPU and on the hardware threads
//! that share its core.

use super::people::Who;
use crate::task::{Cpu, Nanos};
use std::collections::{HashMap, VecDeque};

/// What somebody cost somebody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// By running on the CPU that was waited for.
    pub same: Nanos,
    /// By running on a hardware thread beside it.
    pub beside: Nanos,
}

/// How somebody fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suffered {
    pub waits: u64,
    pub waited: Nanos,
}

#[derive(Default)]
pub struct Blame {
    siblings: Vec<Vec<usize>>,
    cpus: Vec<Line>,
    /// By victim and by who ran.
    pub charges: HashMap<(Who, Who), Charge>,
    pub suffered: HashMap<Who, Suffered>,
}

/// What happened on a CPU, as long as it may matter.
#[derive(Default)]
struct Line {
    slices: VecDeque<Slice>,
    /// Waits that are over, or parts of waits. Turns that end later may have overlapped with them.
    waits: VecDeque<Wait>,
}

#[derive(Clone, Copy)]
struct Slice {
    start: Nanos,
    end: Nanos,
    /// How much of that it ran: less where several turns have been put together.
    ran: Nanos,
    who: Who,
}

#[derive(Clone, Copy)]
struct Wait {
    start: Nanos,
    end: Nanos,
    victim: Who,
}

/// As many turns of a CPU are kept one by one; twice as many at most.
const KEPT: usize = 1 << 15;

/// Older ones are put together, those of one task within so long.
const WINDOW: Nanos = Nanos::from_millis(10);

/// A turn is told piece by piece, and no piece is longer than this by far.
const LONGEST_PIECE: Nanos = Nanos::from_secs(2);

impl Slice {
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
    /// `siblings` has for each CPU those that share its core.
    pub fn new(siblings: Vec<Vec<usize>>) -> Blame {
        let cpus = siblings.iter().map(|_| Line::default()).collect();
        Blame { siblings, cpus, ..Blame::default() }
    }

    /// Somebody ran on a CPU, until now.
    pub fn ran(&mut self, cpu: Cpu, who: Who, start: Nanos, end: Nanos) {
        let slice = Slice { start, end, ran: end - start, who };
        let cpu = cpu.0 as usize;
        let Some(line) = self.cpus.get_mut(cpu) else { return };
        line.slices.push_back(slice);
        if line.slices.len() >= 2 * KEPT {
            line.compact();
        }
        for &place in std::iter::once(&cpu).chain(&self.siblings[cpu]) {
            // In order of their ends.
            let waits = self.cpus[place].waits.iter().rev().take_while(|wait| wait.end > start);
            for (victim, time) in waits.map(|wait| (wait.victim, slice.within(wait.start, wait.end))) {
                self.charges.entry((victim, who)).or_default().add(time, place == cpu);
            }
        }
    }

    /// Somebody has waited for a CPU, until now. A part of a wait is a wait of its own, but counts
    /// once.
    pub fn waited(&mut self, cpu: Cpu, victim: Who, start: Nanos, end: Nanos, is_over: bool) {
        let cpu = cpu.0 as usize;
        if cpu >= self.cpus.len() {
            return;
        }
        let suffered = self.suffered.entry(victim).or_default();
        suffered.waits += u64::from(is_over);
        suffered.waited = suffered.waited + (end - start);
        for &place in std::iter::once(&cpu).chain(&self.siblings[cpu]) {
            for (who, time) in self.cpus[place].during(start, end) {
                self.charges.entry((victim, who)).or_default().add(time, place == cpu);
            }
        }
        let waits = &mut self.cpus[cpu].waits;
        waits.push_back(Wait { start, end, victim });
        while waits.front().is_some_and(|wait| wait.end + LONGEST_PIECE < end) {
            waits.pop_front();
        }
    }

    /// Forgets what has happened so far, and everybody's number with it.
    pub fn forget(&mut self) {
        self.settle();
        self.cpus.iter_mut().for_each(|line| *line = Line::default());
    }

    /// Begins a new account; what is going on goes on.
    pub fn settle(&mut self) {
        self.charges.clear();
        self.suffered.clear();
    }
}

impl Line {
    fn during(&self, start: Nanos, end: Nanos) -> impl Iterator<Item = (Who, Nanos)> + '_ {
        // In order of their ends.
        let late_enough = self.slices.iter().rev().take_while(move |slice| slice.end + WINDOW > start);
        let times = late_enough.map(move |slice| (slice.who, slice.within(start, end)));
        times.filter(|(_, time)| *time > Nanos::ZERO)
    }

    /// Puts the older half together.
    fn compact(&mut self) {
        let recent = self.slices.split_off(KEPT);
        let mut old: Vec<Slice> = Vec::new();
        for slice in self.slices.drain(..) {
            let same_window =
                |other: &&mut Slice| other.who == slice.who && slice.end - other.start <= WINDOW;
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
        // What still takes half of the room is too old for any wait.
        let too_many = old.len().saturating_sub(KEPT / 2);
        self.slices.extend(old.into_iter().skip(too_many));
        self.slices.extend(recent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::people::{People, Person};
    use crate::task::Tid;

    fn people<const N: usize>() -> [Who; N] {
        let mut people = People::default();
        std::array::from_fn(|n| {
            people.number(Person { tid: Tid(n as i32 + 1), tgid: Tid(1), comm: [0; 16], cgroup: 0 })
        })
    }

    fn ms(n: u64) -> Nanos {
        Nanos::from_millis(n)
    }

    #[test]
    fn a_wait_is_laid_to_those_who_ran_meanwhile() {
        let [victim, hog, other, elsewhere] = people();
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
        blame.settle();
        assert!(blame.charges.is_empty() && blame.suffered.is_empty());
    }

    #[test]
    fn a_turn_beside_counts_once_whether_it_ends_before_the_wait_or_after() {
        let [victim, hog, before, after] = people();
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
    fn a_part_of_a_wait_is_laid_to_a_turn_that_goes_on() {
        let [victim, hog] = people();
        let mut blame = Blame::new(vec![vec![]]);
        blame.waited(Cpu(0), victim, ms(10), ms(30), false);
        blame.ran(Cpu(0), hog, ms(0), ms(100));
        blame.waited(Cpu(0), victim, ms(30), ms(100), true);
        assert_eq!(blame.charges[&(victim, hog)].same, ms(90));
        assert_eq!(blame.suffered[&victim], Suffered { waits: 1, waited: ms(90) });
    }

    #[test]
    fn turns_that_are_put_together_still_add_up() {
        let [victim, one, two] = people();
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
        for who in [one, two] {
            let share = blame.charges[&(victim, who)].same.0 as f64 / (end - begun).0 as f64;
            assert!((0.49..0.51).contains(&share), "{share}");
        }
    }
}
