//! A message on its way to the sinks: the line that people read, and what programs may want to know
//! besides.

use super::{Level, Line, LogEvent, Message};
use crate::json::{Object, Value};
use crate::sys::clock;
use crate::task::Nanos;
use std::time::{SystemTime, UNIX_EPOCH};

pub struct Record<'a> {
    /// On CLOCK_MONOTONIC.
    pub at: Nanos,
    pub level: Level,
    /// One line without control characters.
    pub text: &'a str,
    /// None for a message that is text only.
    pub told: Option<&'a LogEvent>,
    pub(super) cgroup: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// A line of this moment.
    pub fn now(level: Level, text: &'a str) -> Record<'a> {
        Record { at: clock::monotonic(), level, text, told: None, cgroup: None }
    }

    /// Makes a message ready to be written: here it may take time.
    pub fn with<T>(at: Nanos, message: Message, use_it: impl FnOnce(&Record) -> T) -> T {
        let level = message.level();
        match message {
            Message::Text(_, text) => use_it(&Record { at, level, text, told: None, cgroup: None }),
            Message::LogEvent(told) => {
                let cgroup = told.read_up();
                let cgroup = cgroup.as_deref();
                let line = Line::of(format_args!("{}", told.line(cgroup)));
                use_it(&Record { at, level, text: line.as_str(), told: Some(told), cgroup })
            }
        }
    }

    /// What it tells of, in a word.
    pub fn event(&self) -> &'static str {
        self.told.map_or("log", LogEvent::event)
    }

    /// Gives out what the line tells, name by name.
    pub fn fields(&self, give: &mut dyn FnMut(&'static str, Value)) {
        if let Some(told) = self.told {
            told.fields(self.cgroup, give);
        }
    }

    /// Adds it to `text`, as one JSON object.
    pub fn json(&self, text: &mut String) {
        let ago = clock::monotonic() - self.at;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = rfc3339(Nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)) - ago);
        let mut object = Object::open(text);
        object.put("time", Value::Text(&time));
        object.put("monotonic_ns", Value::Number(self.at.0 as i64));
        object.put("level", Value::Text(self.level.name()));
        object.put("event", Value::Text(self.event()));
        object.put("message", Value::Text(self.text));
        self.fields(&mut |name, value| object.put(name, value));
    }
}

/// A moment after 1970, in UTC, as `2026-02-28T23:59:59.000001Z`.
fn rfc3339(moment: Nanos) -> String {
    let (days, second) = (moment.as_secs() / 86_400, moment.as_secs() % 86_400);
    // Counted from a 1 March, years end with the day that not all of them have, and 400 of them are
    // 146097 days.
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = moment.0 / 1000 % 1_000_000;
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Hog;
    use crate::task::{Comm, Cpu, Policy, Sched, Task, Tid};

    fn json(told: &LogEvent) -> String {
        let mut text = String::new();
        Record::with(clock::monotonic(), Message::LogEvent(told), |record| record.json(&mut text));
        text
    }

    /// All but the times, which are another each time.
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
    fn what_happens_to_a_task_comes_with_its_fields_whatever_its_name() {
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
}
