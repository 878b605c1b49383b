//! stalld's log as `--log-format=json` writes it.

use crate::json::Json;
use stalld::task::{Nanos, Tid};
use std::ops::Deref;

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the line arrived at the test.
    pub at: Nanos,
    json: Json,
}

impl Record {
    /// The event of a line that is not JSON: stalld prints an error before its log is open.
    pub const PLAIN: &str = "plain";

    pub fn read(at: Nanos, line: &str) -> Record {
        let text = |text: &str| Json::Text(text.to_string());
        let json = if line.starts_with('{') {
            Json::parse(line)
        } else {
            Json::Object(vec![
                ("event".to_string(), text(Record::PLAIN)),
                ("message".to_string(), text(line.strip_prefix("stalld: ").unwrap_or(line))),
            ])
        };
        Record { at, json }
    }

    /// The event's name, such as `boosted`; `log` for a line that is text only.
    pub fn event(&self) -> &str {
        self.json.text("event")
    }

    /// The line as the text format has it, without `stalld: `.
    pub fn message(&self) -> &str {
        self.json.text("message")
    }

    pub fn level(&self) -> &str {
        self.json.text("level")
    }

    /// Whether it reports this event.
    pub fn is(&self, event: &str) -> bool {
        self.event() == event
    }

    /// Whether it reports this event of this task.
    pub fn is_of(&self, event: &str, tid: Tid) -> bool {
        self.is(event) && self.tid("tid") == Some(tid)
    }

    /// The task that a key names: `tid`, `hog_tid`, `child_tid`, `now_tid`.
    pub fn tid(&self, key: &str) -> Option<Tid> {
        self.json.number(key).map(|number| Tid(number as i32))
    }

    /// Panics if there is no such number.
    pub fn number(&self, key: &str) -> u64 {
        self.json.number(key).unwrap_or_else(|| panic!("there is no number {key} in {self:?}")) as u64
    }

    /// A duration of nanoseconds, such as `waited_ns`.
    pub fn time(&self, key: &str) -> Nanos {
        Nanos(self.number(key))
    }

    /// Empty if there is no such text.
    pub fn text(&self, key: &str) -> &str {
        self.json.text(key)
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.json.get(key) {
            Some(Json::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }
}

/// The whole log of a stalld that has ended.
#[derive(Debug)]
pub struct Log(pub Vec<Record>);

impl Log {
    /// The records of one event.
    pub fn of<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Record> {
        self.iter().filter(move |record| record.is(event))
    }

    /// How often an event was reported.
    pub fn count(&self, event: &str) -> usize {
        self.of(event).count()
    }

    /// Whether an event of this task was reported.
    pub fn has(&self, event: &str, tid: Tid) -> bool {
        self.iter().any(|record| record.is_of(event, tid))
    }

    /// Whether a line contains this text.
    pub fn mentions(&self, text: &str) -> bool {
        self.iter().any(|record| record.message().contains(text))
    }

    /// How many lines contain this text.
    pub fn count_text(&self, text: &str) -> usize {
        self.iter().filter(|record| record.message().contains(text)).count()
    }

    /// Asserts that stalld has reported no failure since its first scan.
    pub fn assert_no_failure(&self) {
        for record in self.iter().skip_while(|record| !record.message().contains("checking cpu")) {
            let is_failure = ["refused", "restore_failed", Record::PLAIN].contains(&record.event())
                || record.is("log") && ["warning", "error"].contains(&record.level());
            assert!(!is_failure, "stalld reported a failure: {record:?}");
        }
    }

    pub fn messages(&self) -> Vec<&str> {
        self.iter().map(Record::message).collect()
    }
}

impl Deref for Log {
    type Target = [Record];

    fn deref(&self) -> &[Record] {
        &self.0
    }
}
