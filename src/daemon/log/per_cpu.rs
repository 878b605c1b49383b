//! Limits the lines per second about tasks of each owner on each CPU, so that a crowd of one user
//! on one CPU hides no other lines.

use super::LogEvent;
use crate::boost::event::Event;
use crate::sorted::Sorted;
use crate::task::{Cpu, Nanos, Owner};

const SECOND: Nanos = Nanos::from_secs(1);

/// The maximum number of windows. A user may have thousands of uids, so all further owners on a CPU
/// share one window.
const MAX_WINDOWS: usize = 256;

/// The lines of each CPU and owner in the current second.
pub(super) struct PerCpu {
    limit: u32,
    windows: Sorted<(Cpu, Owner), Window>,
    /// The kinds of lines that each CPU has had in the current second.
    firsts: Sorted<Cpu, Firsts>,
    /// When the next summary is due.
    due: Option<Nanos>,
}

/// The lines of one second, which begins with a line.
#[derive(Clone, Copy)]
struct Window {
    begun: Nanos,
    lines: u32,
    /// The starving tasks that were left out.
    tasks: u64,
    /// The longest wait of these tasks.
    longest: Nanos,
    /// The other lines that were left out.
    others: u64,
}

/// The kinds of lines that a CPU has had in one second.
#[derive(Clone, Copy)]
struct Firsts {
    begun: Nanos,
    has_starved: bool,
    has_boosted: bool,
}

impl Firsts {
    fn new(begun: Nanos) -> Firsts {
        Firsts { begun, has_starved: false, has_boosted: false }
    }

    fn is_first(&mut self, event: &LogEvent) -> bool {
        let has_one = match event {
            LogEvent::Starved { .. } => &mut self.has_starved,
            LogEvent::Task(Event::Boosted { .. }) => &mut self.has_boosted,
            _ => return false,
        };
        !std::mem::replace(has_one, true)
    }
}

/// The decision about a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The first line of its kind on its CPU in this second. It is always written.
    First,
    Granted,
    /// Counted for the summary at the end of the second.
    LeftOut,
}

impl Window {
    fn new(begun: Nanos) -> Window {
        Window { begun, lines: 0, tasks: 0, longest: Nanos::ZERO, others: 0 }
    }

    fn end(&self) -> Nanos {
        self.begun + SECOND
    }

    fn leave_out(&mut self, event: &LogEvent) {
        match *event {
            LogEvent::Starved { wait, .. } => {
                self.tasks += 1;
                self.longest = self.longest.max(wait);
            }
            _ => self.others += 1,
        }
    }

    fn has_left_out(&self) -> bool {
        self.tasks + self.others > 0
    }
}

impl PerCpu {
    /// Makes a limit of `limit` lines per second for each owner on each CPU.
    pub(super) fn new(limit: u32) -> PerCpu {
        PerCpu { limit, windows: Sorted::new(), firsts: Sorted::new(), due: None }
    }

    /// Decides about a line. Call `take_due` before, until it returns `None`.
    pub(super) fn admit(&mut self, event: &LogEvent, now: Nanos) -> Admission {
        let Some((cpu, owner)) = event.owner() else { return Admission::Granted };
        let firsts = self.firsts.entry(cpu, Firsts::new(now));
        if now >= firsts.begun + SECOND {
            *firsts = Firsts::new(now);
        }
        let is_first = firsts.is_first(event);
        self.windows.update_if(MAX_WINDOWS, |window| now < window.end() || window.has_left_out());
        let is_known = self.windows.contains((cpu, owner)) || self.windows.len() < MAX_WINDOWS;
        let key = (cpu, if is_known { owner } else { Owner::Unknown });
        let window = self.windows.entry(key, Window::new(now));
        if now >= window.end() && !window.has_left_out() {
            *window = Window::new(now);
        }
        window.lines = window.lines.saturating_add(1);
        if is_first {
            Admission::First
        } else if window.lines <= self.limit {
            Admission::Granted
        } else {
            window.leave_out(event);
            let end = window.end();
            self.due = Some(self.due.map_or(end, |due| due.min(end)));
            Admission::LeftOut
        }
    }

    /// Returns when the next summary is due.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.due
    }

    /// Returns the summary of a second that has ended by `now`, and starts a new second.
    pub(super) fn take_due(&mut self, now: Nanos) -> Option<LogEvent> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        let mut summary = None;
        self.due = None;
        for ((cpu, owner), window) in self.windows.iter_mut().filter(|(_, window)| window.has_left_out()) {
            if summary.is_none() && window.end() <= now {
                let Window { tasks, longest, others, .. } = *window;
                summary = Some(LogEvent::LeftOut { cpu, owner, tasks, longest, others });
                *window = Window::new(now);
            } else {
                self.due = Some(self.due.map_or(window.end(), |due| due.min(window.end())));
            }
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boost::event::Refusal;
    use crate::boost::journal::BoostPolicy;
    use crate::task::{Task, Tid};

    fn starved(cpu: u32, wait: u64) -> LogEvent {
        let task = Task { tid: Tid(wait as i32), cpu: Cpu(cpu), ..Task::default() };
        LogEvent::Starved { task, since: Nanos::ZERO, wait: Nanos::from_secs(wait), exact: false }
    }

    fn boosted(cpu: u32) -> LogEvent {
        let task = Task { cpu: Cpu(cpu), ..Task::default() };
        LogEvent::Task(Event::Boosted { task, how: BoostPolicy::Fifo })
    }

    fn ms(millis: u64) -> Nanos {
        Nanos::from_millis(millis)
    }

    #[test]
    fn a_crowd_on_one_cpu_is_summed_up_and_leaves_the_lines_of_another_alone() {
        let mut cpus = PerCpu::new(50);
        let granted = (0..400).filter(|&n| cpus.admit(&starved(3, n), ms(n)) != Admission::LeftOut).count();
        assert_eq!(granted, 50);
        for n in 0..49 {
            assert_ne!(cpus.admit(&starved(2, 7), ms(400 + n)), Admission::LeftOut);
        }
        assert_eq!((cpus.due(), cpus.take_due(ms(999)).is_none()), (Some(ms(1000)), true));
        let summary = cpus.take_due(ms(1000));
        assert!(
            matches!(
                summary,
                Some(LogEvent::LeftOut { cpu: Cpu(3), tasks: 350, longest, others: 0, .. })
                    if longest == Nanos::from_secs(399)
            ),
            "{summary:?}"
        );
        assert_eq!((cpus.due(), cpus.take_due(ms(9999)).is_none()), (None, true));
        assert_eq!(cpus.admit(&starved(3, 1), ms(1001)), Admission::First);
    }

    #[test]
    fn the_first_starving_task_and_boost_are_written_despite_many_other_lines() {
        let mut cpus = PerCpu::new(50);
        let task = Task { cpu: Cpu(1), ..Task::default() };
        let refused = Event::Refused { task, how: BoostPolicy::Fifo, why: Refusal::JournalFull };
        for _ in 0..1000 {
            cpus.admit(&LogEvent::Task(refused), ms(0));
        }
        assert_eq!(cpus.admit(&starved(1, 5), ms(1)), Admission::First);
        assert_eq!(cpus.admit(&boosted(1), ms(2)), Admission::First);
        assert_eq!(cpus.admit(&starved(1, 6), ms(3)), Admission::LeftOut);
        assert_eq!(cpus.admit(&boosted(1), ms(4)), Admission::LeftOut);
        let summary = cpus.take_due(ms(1500));
        assert!(matches!(summary, Some(LogEvent::LeftOut { tasks: 1, others: 951, .. })), "{summary:?}");
    }

    #[test]
    fn each_cpu_with_a_crowd_has_a_summary_a_second() {
        let mut cpus = PerCpu::new(2);
        let mut summaries = 0;
        for at in 0..10_000 {
            while let Some(summary) = cpus.take_due(ms(at)) {
                assert!(matches!(summary, LogEvent::LeftOut { .. }));
                summaries += 1;
            }
            for cpu in 0..4 {
                cpus.admit(&starved(cpu, 1), ms(at));
            }
        }
        assert_eq!(summaries, 4 * 9);
    }

    #[test]
    fn a_crowd_of_one_owner_leaves_the_lines_of_another_on_its_cpu_alone() {
        let mut cpus = PerCpu::new(50);
        let owned = |owner, wait| {
            let LogEvent::Starved { task, since, wait, exact } = starved(3, wait) else { unreachable!() };
            LogEvent::Starved { task: Task { owner, ..task }, since, wait, exact }
        };
        let granted = |n| cpus.admit(&owned(Owner::User(7), n), ms(n)) != Admission::LeftOut;
        assert_eq!((0..400).map(granted).filter(|&granted| granted).count(), 50);
        for n in 0..50 {
            assert_eq!(cpus.admit(&owned(Owner::Kernel, n), ms(400 + n)), Admission::Granted);
        }
        let summary = cpus.take_due(ms(1000));
        assert!(
            matches!(summary, Some(LogEvent::LeftOut { owner: Owner::User(7), tasks: 350, .. })),
            "{summary:?}"
        );
        // Thousands of uids share the last window and its limit.
        let many = (0..5000).map(|uid| cpus.admit(&owned(Owner::User(uid), 1), ms(2000)));
        let granted = many.filter(|&admission| admission != Admission::LeftOut).count();
        assert!(granted <= MAX_WINDOWS + 51 && cpus.windows.len() <= MAX_WINDOWS + 1, "{granted}");
    }

    #[test]
    fn lines_of_no_cpu_are_not_counted() {
        let mut cpus = PerCpu::new(1);
        for _ in 0..100 {
            assert_eq!(cpus.admit(&LogEvent::Late { late: ms(5) }, ms(0)), Admission::Granted);
        }
    }
}
