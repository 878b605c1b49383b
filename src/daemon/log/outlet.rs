//! One sink with its limits of lines, and the report of dropped lines.

use super::per_cpu::{Admission, PerCpu};
use super::{Level, LogEvent, Message, Record, Sink};
use crate::sys::clock;
use crate::task::Nanos;

const SECOND: Nanos = Nanos::from_secs(1);
/// The longest interval between two attempts to report dropped lines to a broken sink.
const LONGEST_PAUSE: Nanos = Nanos::from_secs(60);
/// The interval between two attempts to write the rest of a line.
const FINISH_INTERVAL: Nanos = Nanos::from_millis(500);

/// A sink, its limits, and what it has not written.
pub struct Outlet {
    sink: Box<dyn Sink>,
    up_to: Level,
    allowance: Allowance,
    cpus: PerCpu,
    dropped: u64,
    /// When to report `dropped`. Not at once, because under a flood each line would be followed by
    /// a report.
    due: Option<Nanos>,
    /// The delay of the next report. It doubles while the sink is broken.
    pause: Nanos,
    /// When to retry a partly written line.
    unfinished: Option<Nanos>,
}

impl Outlet {
    /// Makes an outlet that writes lines of levels up to `up_to` to `sink`.
    pub fn new(sink: impl Sink + 'static, up_to: Level) -> Outlet {
        let allowance = Allowance::new(sink.lines_per_second());
        let cpus = PerCpu::new(sink.lines_per_second_of_cpu());
        Outlet {
            sink: Box::new(sink),
            up_to,
            allowance,
            cpus,
            dropped: 0,
            due: None,
            pause: SECOND,
            unfinished: None,
        }
    }

    pub(super) fn up_to(&self) -> Level {
        self.up_to
    }

    pub(super) fn write(&mut self, record: &Record, now: Nanos) {
        if record.level > self.up_to {
            return;
        }
        self.remark(now);
        let admission = record.event.map_or(Admission::Granted, |event| self.cpus.admit(event, now));
        if admission == Admission::LeftOut {
            return;
        }
        let is_allowed = self.allowance.take(now) || admission == Admission::First;
        if !is_allowed || self.sink.write(record).is_err() {
            self.lose(record.level, 1, now);
        }
        self.finish(now);
    }

    fn finish(&mut self, now: Nanos) {
        self.unfinished = if self.sink.finish() { None } else { Some(now + FINISH_INTERVAL) };
    }

    /// Counts lines of this level as dropped.
    pub(super) fn lose(&mut self, level: Level, count: u64, now: Nanos) {
        if level <= self.up_to {
            self.dropped += count;
            self.due = self.due.or(Some(now + self.pause));
        }
    }

    /// Returns when to call `remark`.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.due.into_iter().chain(self.cpus.due()).chain(self.unfinished).min()
    }

    /// Does what is due: retries a partly written line, and reports the lines left out or dropped.
    pub(super) fn remark(&mut self, now: Nanos) {
        if self.unfinished.is_some_and(|moment| moment <= now) {
            self.finish(now);
        }
        self.sum_up(now);
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        if self.report_dropped() {
            self.due = None;
            self.pause = SECOND;
        } else {
            self.pause = (self.pause + self.pause).min(LONGEST_PAUSE);
            self.due = Some(now + self.pause);
        }
    }

    fn sum_up(&mut self, now: Nanos) {
        while let Some(summary) = self.cpus.take_due(now) {
            let write = |record: &Record| self.sink.write(record).is_ok();
            if !Record::with(clock::monotonic(), Message::LogEvent(&summary), write) {
                self.lose(summary.level(), 1, now);
            }
        }
    }

    /// Writes all that is left. Returns false if the sink has no room for it yet.
    pub(super) fn close(&mut self) -> bool {
        if !self.sink.finish() {
            return false;
        }
        self.sum_up(Nanos::MAX);
        self.sink.finish() && (self.dropped == 0 || self.report_dropped())
    }

    fn report_dropped(&mut self) -> bool {
        let dropped = LogEvent::Dropped { lines: self.dropped };
        let message = Message::LogEvent(&dropped);
        let is_written = Record::with(clock::monotonic(), message, |record| self.sink.write(record).is_ok());
        if is_written {
            self.dropped = 0;
        }
        is_written
    }
}

/// A limit of lines per second. After a quiet second, one second's lines may come at once.
struct Allowance {
    price: Nanos,
    credit: Nanos,
    last: Nanos,
}

impl Allowance {
    fn new(per_second: u32) -> Allowance {
        Allowance { price: Nanos(SECOND.0 / u64::from(per_second.max(1))), credit: SECOND, last: Nanos::ZERO }
    }

    fn take(&mut self, now: Nanos) -> bool {
        self.credit = (self.credit + (now - self.last)).min(SECOND);
        self.last = now;
        let granted = self.credit >= self.price;
        if granted {
            self.credit = self.credit - self.price;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Comm, Cpu, Task, Tid};
    use std::io;
    use std::sync::{Arc, Mutex};

    /// A sink that stores its lines, unless it is broken.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<(Vec<String>, bool)>>);

    impl Paper {
        fn lines(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap().0)
        }

        fn break_down(&self, broken: bool) {
            self.0.lock().unwrap().1 = broken;
        }
    }

    impl Sink for Paper {
        fn write(&mut self, record: &Record) -> io::Result<()> {
            let (lines, broken) = &mut *self.0.lock().unwrap();
            if *broken {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            lines.push(record.text.to_string());
            Ok(())
        }

        fn lines_per_second(&self) -> u32 {
            10
        }
    }

    fn outlet(up_to: Level) -> (Outlet, Paper) {
        let paper = Paper::default();
        (Outlet::new(paper.clone(), up_to), paper)
    }

    fn ms(millis: u64) -> Nanos {
        Nanos::from_millis(millis)
    }

    #[test]
    fn a_flood_is_cut_to_the_allowance_and_the_rest_is_counted_a_second_later() {
        let (mut outlet, paper) = outlet(Level::Info);
        for i in 0..100 {
            outlet.write(&Record::now(Level::Info, &format!("line {i}")), ms(i));
        }
        // 10 lines pass at once. The eleventh would need another tenth of a second.
        assert_eq!(paper.lines(), (0..10).map(|i| format!("line {i}")).collect::<Vec<_>>());
        assert_eq!(outlet.due(), Some(ms(1010)));
        outlet.remark(ms(1009));
        assert_eq!(paper.lines(), [""; 0]);
        outlet.remark(ms(1010));
        assert_eq!(paper.lines(), ["90 messages were dropped"]);
        assert_eq!(outlet.due(), None);
        outlet.close();
        assert_eq!(paper.lines(), [""; 0]);
    }

    #[test]
    fn under_a_lasting_flood_lines_still_get_through_at_the_allowed_rate() {
        let (mut outlet, paper) = outlet(Level::Info);
        for i in 0..10_000 {
            outlet.write(&Record::now(Level::Info, "line"), ms(i));
        }
        outlet.close();
        let (lines, remarks): (Vec<_>, Vec<_>) = paper.lines().into_iter().partition(|text| text == "line");
        // 10 lines pass at once, and 10 in each of 10 seconds, of which the last is not quite over.
        assert_eq!(lines.len(), 109);
        assert!((9..=11).contains(&remarks.len()), "{remarks:?}");
        let reported: u64 =
            remarks.iter().map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(reported, 10_000 - 109);
    }

    #[test]
    fn a_crowded_cpu_gets_a_summary_and_another_cpu_keeps_its_first_line() {
        let (mut outlet, paper) = outlet(Level::Info);
        let starved = |cpu: u32, wait| {
            let task = Task { tid: Tid(7), cpu: Cpu(cpu), comm: Comm::new(b"task"), ..Task::default() };
            LogEvent::Starved { task, since: Nanos::ZERO, wait: Nanos::from_secs(wait), exact: false }
        };
        let mut write = |event: &LogEvent, at| {
            Record::with(at, Message::LogEvent(event), |record| outlet.write(record, at));
        };
        for n in 0..100 {
            write(&starved(1, n), ms(n));
        }
        // The allowance of all lines together is used up.
        write(&starved(2, 5), ms(100));
        let lines = paper.lines();
        assert_eq!(
            (lines.len(), lines.last().map(String::as_str)),
            (11, Some("task-7 starved on CPU 2 for 5 seconds"))
        );
        assert_eq!(outlet.due(), Some(ms(1000)));
        outlet.remark(ms(1000));
        assert_eq!(paper.lines(), ["50 more tasks starve on CPU 1, the longest for 99 s"]);
        outlet.close();
        assert_eq!(paper.lines(), ["40 messages were dropped"]);
    }

    #[test]
    fn ten_lines_a_second_are_no_flood() {
        let (mut outlet, paper) = outlet(Level::Info);
        for i in 0..100 {
            outlet.write(&Record::now(Level::Info, "line"), ms(100 * i));
        }
        assert_eq!(paper.lines(), ["line"; 100]);
        assert_eq!(outlet.due(), None);
    }

    #[test]
    fn a_broken_sink_gets_the_number_of_lost_lines_once_it_works_again() {
        let (mut outlet, paper) = outlet(Level::Info);
        paper.break_down(true);
        outlet.write(&Record::now(Level::Info, "one"), ms(0));
        outlet.write(&Record::now(Level::Info, "two"), ms(1));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let due = outlet.due().unwrap();
            outlet.remark(due);
            pauses.push((outlet.due().unwrap() - due).as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        paper.break_down(false);
        let due = outlet.due().unwrap();
        outlet.write(&Record::now(Level::Info, "three"), due);
        assert_eq!(paper.lines(), ["2 messages were dropped", "three"]);
        assert_eq!(outlet.due(), None);
    }

    #[test]
    fn a_single_loss_is_reported_at_the_latest_when_the_log_closes() {
        let (mut outlet, paper) = outlet(Level::Info);
        outlet.lose(Level::Error, 1, ms(0));
        outlet.close();
        assert_eq!(paper.lines(), ["1 message was dropped"]);
    }

    #[test]
    fn lines_beyond_its_level_are_neither_written_nor_missed() {
        let (mut outlet, paper) = outlet(Level::Warning);
        outlet.write(&Record::now(Level::Info, "info"), ms(0));
        outlet.write(&Record::now(Level::Debug, "debug"), ms(0));
        outlet.lose(Level::Debug, 5, ms(0));
        outlet.write(&Record::now(Level::Warning, "warning"), ms(0));
        outlet.write(&Record::now(Level::Error, "error"), ms(0));
        outlet.close();
        assert_eq!(paper.lines(), ["warning", "error"]);
    }
}
