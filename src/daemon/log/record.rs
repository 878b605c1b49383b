//! A message for the sinks: the line for people, and the fields for programs.

use super::{Level, Line, LogEvent, Message};
use crate::json::{Object, Value};
use crate::sys::clock;
use crate::task::Nanos;
use std::time::{SystemTime, UNIX_EPOCH};

/// A formatted message.
pub struct Record<'a> {
    /// The time of the message, on CLOCK_MONOTONIC.
    pub at: Nanos,
    pub level: Level,
    /// One line without control characters.
    pub text: &'a str,
    /// `None` for a message that is text only.
    pub event: Option<&'a LogEvent>,
    pub(super) cgroup: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// Makes a record of a text, with the current time.
    pub(super) fn now(level: Level, text: &'a str) -> Record<'a> {
        Record { at: clock::monotonic(), level, text, event: None, cgroup: None }
    }

    /// Formats a message, and passes it to `use_it`. This may block.
    pub(super) fn with<T>(at: Nanos, message: Message, use_it: impl FnOnce(&Record) -> T) -> T {
        let level = message.level();
        match message {
            Message::Text(_, text) => use_it(&Record { at, level, text, event: None, cgroup: None }),
            Message::LogEvent(event) => {
                let cgroup = event.resolve_cgroup();
                let cgroup = cgroup.as_deref();
                let line = Line::of(format_args!("{}", event.line(cgroup)));
                use_it(&Record { at, level, text: line.as_str(), event: Some(event), cgroup })
            }
        }
    }

    /// Returns the event's name.
    pub(super) fn name(&self) -> &'static str {
        self.event.map_or("log", LogEvent::name)
    }

    /// Passes the event's fields to `give`.
    pub(super) fn fields(&self, give: &mut dyn FnMut(&'static str, Value)) {
        if let Some(event) = self.event {
            event.fields(self.cgroup, give);
        }
    }

    /// Appends the record to `text`, as one JSON object.
    pub(super) fn json(&self, text: &mut String) {
        let ago = clock::monotonic() - self.at;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = rfc3339(Nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)) - ago);
        let mut object = Object::open(text);
        object.put("time", Value::Text(&time));
        object.put("monotonic_ns", Value::Number(self.at.0 as i64));
        object.put("level", Value::Text(self.level.name()));
        object.put("event", Value::Text(self.name()));
        object.put("message", Value::Text(self.text));
        self.fields(&mut |name, value| object.put(name, value));
    }
}

/// Formats a time since 1970 in UTC, as `2026-02-28T23:59:59.000001Z`.
fn rfc3339(moment: Nanos) -> String {
    let libc::tm { tm_year, tm_mon, tm_mday, tm_hour, tm_min, tm_sec, .. } = clock::utc(moment);
    let (year, month, micros) = (1900 + tm_year, 1 + tm_mon, moment.0 / 1000 % 1_000_000);
    format!("{year}-{month:02}-{tm_mday:02}T{tm_hour:02}:{tm_min:02}:{tm_sec:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boost::event::{Event, Refusal};
    use crate::boost::journal::{BoostPolicy, Saved};
    use crate::boost::restore::RestoreOutcome;
    use crate::engine::Hog;
    use crate::task::{Comm, Cpu, Policy, Sched, Task, Tid};

    fn json(event: &LogEvent) -> String {
        let mut text = String::new();
        Record::with(clock::monotonic(), Message::LogEvent(event), |record| record.json(&mut text));
        text
    }

    /// Returns all but the times, which differ each time.
    fn rest(json: &str) -> &str {
        json.split_once(r#""level""#).unwrap().1
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds| rfc3339(Nanos::from_secs(seconds) + Nanos(1_999));
        assert_eq!(date(0), "1970-01-01T00:00:00.000001Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59.000001Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00.000001Z");
        assert_eq!(date(1_709_251_199), "2024-02-29T23:59:59.000001Z");
        assert_eq!(date(1_767_225_599), "2025-12-31T23:59:59.000001Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00.000001Z");
    }

    #[test]
    fn a_message_is_one_object_with_its_time() {
        let mut text = String::new();
        Record::now(Level::Warning, "it's \"so\"").json(&mut text);
        assert!(text.starts_with(r#"{"time":"20"#) && text.contains(r#"Z","monotonic_ns":"#), "{text}");
        assert_eq!(rest(&text), r#":"warning","event":"log","message":"it's \"so\""}"#);
    }

    #[test]
    fn an_event_of_a_task_has_its_fields_with_any_name() {
        let task = Task {
            tid: Tid(77),
            tgid: Some(Tid(70)),
            cpu: Cpu(3),
            sched: Sched { policy: Some(Policy::FIFO), prio: 98 },
            comm: Comm::new(b"a\"\n\xff\x1b[m"),
            ..Task::default()
        };
        let wait = Nanos::from_millis(2500);
        let starved = LogEvent::Starved { task, since: Nanos::ZERO, wait, exact: true };
        assert_eq!(
            rest(&json(&starved)),
            concat!(
                r#":"warning","event":"starved","#,
                r#""message":"a\"\\x0a\\xff\\x1b[m-77 starved on CPU 3 for 2 seconds (2500 ms)","#,
                r#""tid":77,"tgid":70,"comm":"a\"\u000a"#,
                "\u{fffd}",
                r#"\u001b[m","cpu":3,"policy":"SCHED_FIFO","rt_priority":1,"waited_ns":2500000000}"#
            )
        );
        let hog = Hog { task: Task { tid: Tid(i32::MAX), ..task }, seen_since: Nanos::from_secs(1) };
        let held = json(&LogEvent::Held { cpu: Cpu(3), hog, at: Nanos::from_secs(4) });
        for field in
            [r#""event":"held""#, r#""cpu":3,"hog_tid":2147483647,"hog_tgid":70"#, r#""held_ns":3000000000"#]
        {
            assert!(held.contains(field), "{field} is not in {held}");
        }
    }

    /// Checks the level, the name, the line and the last fields of an event of a boost.
    fn check(event: Event, level: &str, name: &str, line: &str, fields: &str) {
        assert_eq!(
            rest(&json(&LogEvent::Task(event))),
            format!(
                r#":"{level}","event":"{name}","message":"{line}","tid":7,"comm":"victim","cpu":3{fields}}}"#
            )
        );
    }

    #[test]
    fn each_event_of_a_boost_has_a_level_a_name_a_line_and_fields() {
        let task = Task { tid: Tid(7), cpu: Cpu(3), comm: Comm::new(b"victim"), ..Task::default() };
        let before = Saved::default();
        let from = Saved { policy: Policy::FIFO, priority: 98, ..before };
        let (how, child) = (BoostPolicy::Fifo, Tid(8));
        let refused = |why| Event::Refused { task, how, why };
        let over = |outcome| Event::Over { task, before, after: Nanos(2_500_000), early: true, outcome };
        let boosted = Event::Boosted { task, how };
        let line = "boosted pid 7 (victim) (cpu 3) using SCHED_FIFO";
        check(boosted, "info", "boosted", line, r#","policy":"SCHED_FIFO""#);
        let line = "boost_with_fifo failed to boost pid 7: Operation not permitted";
        let fields = r#","policy":"SCHED_FIFO","errno":1"#;
        check(refused(Refusal::Kernel(libc::EPERM)), "warning", "refused", line, fields);
        let line = "boost_with_fifo failed to boost pid 7: the journal is full";
        check(refused(Refusal::JournalFull), "warning", "refused", line, r#","policy":"SCHED_FIFO""#);
        let line = "restored pid 7 (victim) (cpu 3, now 9) to SCHED_OTHER after 2 ms, ended early";
        let fields = r#","now_tid":9,"policy":"SCHED_OTHER","boosted_ns":2500000,"early":true"#;
        check(over(RestoreOutcome::Restored(Tid(9))), "info", "restored", line, fields);
        let line = "restore_policy: failed to restore sched policy for pid 7: Operation not permitted";
        check(over(RestoreOutcome::Failed(libc::EPERM)), "error", "restore_failed", line, r#","errno":1"#);
        let line = "left pid 7 (victim) as it is: another process has made it SCHED_FIFO";
        let outcome = RestoreOutcome::ChangedByOthers(Policy::FIFO);
        check(over(outcome), "info", "left_alone", line, r#","policy":"SCHED_FIFO""#);
        let line =
            "lowered pid 7 (victim) (cpu 3) from SCHED_FIFO 98 to SCHED_OTHER: it got that rank by a pulse";
        let fields = r#","from_policy":"SCHED_FIFO","from_rt_priority":98,"policy":"SCHED_OTHER""#;
        check(Event::Lowered { task, from, before }, "warning", "lowered", line, fields);
        let outcome = RestoreOutcome::Lowered { tid: task.tid, from };
        check(over(outcome), "warning", "lowered", line, fields);
        let line = "pid 7 (victim) has ended during its boost";
        check(over(RestoreOutcome::Gone), "debug", "ended", line, "");
        let fields = r#","child_tid":8,"policy":"SCHED_FIFO","rt_priority":98"#;
        let (parent, policy) = (task, from);
        let line = "gave pid 8, started by pid 7 (victim) during its boost, its policy SCHED_FIFO 98";
        check(Event::Adopted { parent, child, policy }, "debug", "adopted", line, fields);
        let line = "pid 8 was started during the boost of pid 7 (victim) and is SCHED_OTHER; without it, it might be \
                    SCHED_FIFO 98";
        check(Event::Orphan { parent, child, policy }, "warning", "orphan", line, fields);
    }
}
