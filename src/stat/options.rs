//! The command line of stallstat.

use super::collector::Metric;
use crate::command_line::Takes::{Name, Nothing, Text};
use crate::command_line::{self, HostFacts, Opt, Syntax, UsageError, set};
use crate::cpus::CpuSet;
use crate::length::{Length, LengthLimits, MICROSECONDS, MILLISECONDS, SECONDS};
use crate::patterns::Patterns;
use crate::task::{Nanos, Tid};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The options of a run.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub groups: Vec<MetricGroup>,
    /// The length of the interval between two reports.
    pub interval: Nanos,
    /// `None` to run until a signal comes.
    pub run_time: Option<Nanos>,
    /// The names selected within `control_groups`.
    pub names: Patterns,
    /// The names selected in all control groups.
    pub global_names: Patterns,
    pub control_groups: Patterns,
    pub numbers: Vec<Tid>,
    pub cpus: Option<CpuSet>,
    pub shortest: Nanos,
    /// One row for each name instead of each task.
    pub collapse: bool,
    pub detailed: bool,
    pub form: Form,
    /// The key by which `hogs` sums up times.
    pub by: By,
    /// Names of events for the performance counters.
    pub events: Vec<String>,
    /// The period of the timers of `jitter`.
    pub period: Nanos,
    /// The FIFO priority of the threads of `jitter`; `None` for ordinary threads.
    pub priority: Option<u32>,
}

/// A group of metrics, as `-g` selects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricGroup {
    Latency,
    Slice,
    Sleep,
    Waking,
    Migration,
    Schedstat,
    Perf,
}

impl MetricGroup {
    pub(super) const ALL: [MetricGroup; 7] = [
        MetricGroup::Latency,
        MetricGroup::Slice,
        MetricGroup::Sleep,
        MetricGroup::Waking,
        MetricGroup::Migration,
        MetricGroup::Schedstat,
        MetricGroup::Perf,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            MetricGroup::Latency => "latency",
            MetricGroup::Slice => "slice",
            MetricGroup::Sleep => "sleep",
            MetricGroup::Waking => "waking",
            MetricGroup::Migration => "migration",
            MetricGroup::Schedstat => "schedstat",
            MetricGroup::Perf => "perf",
        }
    }

    /// Returns the group's metrics that BPF programs count.
    pub(super) fn metrics(self) -> &'static [Metric] {
        match self {
            MetricGroup::Latency => &[Metric::Latency, Metric::Depth],
            MetricGroup::Slice => &[Metric::Voluntary, Metric::Preempted],
            MetricGroup::Sleep => &[Metric::Sleep],
            MetricGroup::Waking => &[Metric::Waking],
            MetricGroup::Migration => &[Metric::Migrations],
            MetricGroup::Schedstat | MetricGroup::Perf => &[],
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    #[default]
    Text,
    Json,
    Csv,
}

/// The key by which times are summed up, both of victims and of the tasks that ran meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    #[default]
    Name,
    Task,
    ControlGroup,
    Container,
    Pod,
}

impl By {
    pub(super) const ALL: [(By, &str); 5] = [
        (By::Name, "name"),
        (By::Task, "task"),
        (By::ControlGroup, "cgroup"),
        (By::Container, "container"),
        (By::Pod, "pod"),
    ];
}

/// The command that the command line selects.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Count(Options),
    /// Show which tasks ran while others waited.
    Hogs(Options),
    Jitter(Options),
    Record(Options, PathBuf),
    Trace(Options, PathBuf),
    Help,
    Version,
}

#[derive(Default)]
pub struct Draft {
    asked: Option<Command>,
    interval: Option<Nanos>,
    once: bool,
    words: Vec<OsString>,
    options: Options,
}

const TIME: LengthLimits = LengthLimits {
    unit: SECONDS,
    least: Nanos::from_secs(1),
    least_with_unit: Nanos::from_millis(10),
    most: DAY,
};
const LATENCY: LengthLimits = LengthLimits {
    unit: MICROSECONDS,
    least: Nanos(0),
    least_with_unit: Nanos(0),
    most: Nanos::from_secs(3600),
};
const PERIOD: LengthLimits = LengthLimits {
    unit: MILLISECONDS,
    least: Nanos::from_millis(1),
    least_with_unit: Nanos::from_micros(50),
    most: Nanos::from_secs(10),
};
const DAY: Nanos = Nanos::from_secs(24 * 3600);
const EVENTS: usize = super::bpf_abi::EVENTS as usize;

/// All options, in the order of `--help`. `make regen` writes them into completions and manual
/// pages.
pub const TABLE: &[Opt<Draft>] = &[
    Opt {
        short: Some('g'),
        long: "group",
        takes: Name("GROUPS", group_names, |d, list, _| groups(list).map(|groups| d.options.groups = groups)),
        help: "count these: latency, slice, sleep, waking, migration, schedstat, perf;\nmost is all but waking and perf, all is all (latency)",
    },
    Opt {
        short: Some('i'),
        long: "interval",
        takes: Text("TIME", |d, time, _| set(&mut d.interval, length(time, &TIME))),
        help: "report this often (1 s)",
    },
    Opt {
        short: Some('r'),
        long: "run-time",
        takes: Text("TIME", |d, time, _| set(&mut d.options.run_time, length(time, &TIME))),
        help: "end after this long (when interrupted)",
    },
    Opt { short: Some('1'), long: "once", takes: Nothing(|d| d.once = true), help: "one report, at the end" },
    Opt {
        short: Some('c'),
        long: "comm",
        takes: Text("REGEXES", |d, list, _| d.options.names.add(list)),
        help: "only tasks whose name matches one of these",
    },
    Opt {
        short: None,
        long: "cgroup",
        takes: Text("REGEXES", |d, list, _| d.options.control_groups.add(list)),
        help: "only tasks in control groups whose path matches, and below them",
    },
    Opt {
        short: None,
        long: "global-comm",
        takes: Text("REGEXES", |d, list, _| d.options.global_names.add(list)),
        help: "and those whose name matches, whatever group they are in",
    },
    Opt {
        short: Some('p'),
        long: "pid",
        takes: Text("PIDS", |d, list, _| pids(list).map(|pids| d.options.numbers.extend(pids))),
        help: "only these processes and threads",
    },
    Opt {
        short: None,
        long: "cpu",
        takes: Text("CPUS", |d, list, host| {
            set(&mut d.options.cpus, CpuSet::parse(list, host.configured_cpus))
        }),
        help: "only what happens on these CPUs, such as 0,2-4 (all)",
    },
    Opt {
        short: Some('l'),
        long: "min-latency",
        takes: Text("TIME", |d, time, _| length(time, &LATENCY).map(|time| d.options.shortest = time)),
        help: "only latencies of at least this, in us (0)",
    },
    Opt {
        short: Some('C'),
        long: "no-collapse",
        takes: Nothing(|d| d.options.collapse = false),
        help: "a row for each task, not for each name",
    },
    Opt {
        short: Some('d'),
        long: "detailed",
        takes: Nothing(|d| d.options.detailed = true),
        help: "all rows, not the worst of each band of latencies",
    },
    Opt {
        short: Some('e'),
        long: "event",
        takes: Text("EVENTS", |d, list, _| events(list).map(|events| d.options.events = events)),
        help: "what the group perf counts: names as perf(1) has them, or r and hex digits;\n8 at most (cycles,instructions,cache-misses)",
    },
    Opt {
        short: None,
        long: "json",
        takes: Nothing(|d| d.options.form = Form::Json),
        help: "an object a report, each on a line",
    },
    Opt {
        short: None,
        long: "csv",
        takes: Nothing(|d| d.options.form = Form::Csv),
        help: "a line for each figure",
    },
    Opt {
        short: None,
        long: "by",
        takes: Name("WHAT", by_names, |d, what, _| by(what).map(|by| d.options.by = by)),
        help: "of hogs: add up by name, task, cgroup, container or pod (name)",
    },
    Opt {
        short: None,
        long: "period",
        takes: Text("TIME", |d, time, _| length(time, &PERIOD).map(|time| d.options.period = time)),
        help: "of jitter: how often a timer is set, in ms (1 ms)",
    },
    Opt {
        short: None,
        long: "fifo",
        takes: Text("PRIORITY", |d, number, _| set(&mut d.options.priority, priority(number))),
        help: "of jitter: measure by threads in SCHED_FIFO of this priority",
    },
    Opt {
        short: Some('V'),
        long: "version",
        takes: Nothing(|d| d.asked = Some(Command::Version)),
        help: "print the version and exit",
    },
    Opt {
        short: Some('h'),
        long: "help",
        takes: Nothing(|d| d.asked = Some(Command::Help)),
        help: "print this text and exit",
    },
];

/// Parses a command line without the program's name.
pub(super) fn parse(
    args: impl IntoIterator<Item = OsString>,
    host: &HostFacts,
) -> Result<Command, UsageError> {
    let mut draft = Draft::default();
    let syntax = Syntax {
        table: TABLE,
        word: |draft: &mut Draft, word| {
            draft.words.push(word.to_os_string());
            Ok(())
        },
        is_over: |draft| draft.asked.is_some(),
    };
    command_line::read(args, &syntax, host, &mut draft)?;
    if let Some(command) = draft.asked.take() {
        return Ok(command);
    }
    let options = draft.resolve();
    let words: Vec<&OsStr> = draft.words.iter().map(|word| word.as_os_str()).collect();
    let file = |path: &OsStr| PathBuf::from(path);
    match words.iter().map(|word| word.to_str()).collect::<Vec<_>>().as_slice() {
        [] => Ok(Command::Count(options)),
        [Some("hogs")] => Ok(Command::Hogs(options)),
        [Some("jitter")] => Ok(Command::Jitter(options)),
        [Some("record"), _] => Ok(Command::Record(options, file(words[1]))),
        [Some("trace"), _] => Ok(Command::Trace(options, file(words[1]))),
        [Some(word @ ("record" | "trace"))] => {
            Err(UsageError::new(format!("{word} needs a file to write to")))
        }
        [Some("hogs" | "jitter"), ..] => Err(UsageError::about("unexpected argument", words[1], "")),
        [Some("record" | "trace"), _, ..] => Err(UsageError::about("unexpected argument", words[2], "")),
        _ => Err(UsageError::about(
            "unknown command",
            words[0],
            ": give hogs, jitter, record FILE, trace FILE, or none to count",
        )),
    }
}

/// Returns the text of `--help`.
pub fn help() -> String {
    format!(
        "Usage: stallstat [OPTION]... [hogs | jitter | record FILE | trace FILE]\n\
         Shows who waits for a CPU and for how long; hogs shows for whom, jitter how late timers are,\n\
         record and trace write down who ran, and who waited meanwhile.\n\n\
         {}\n\
         TIME is a number with a unit (ns, us, ms, s), such as 1.5s or 20us, or a whole number in the unit\n\
         that the option has. Lists are separated by commas. More in stallstat(8).\n",
        command_line::help(TABLE)
    )
}

impl Default for Options {
    fn default() -> Options {
        Options {
            groups: vec![MetricGroup::Latency],
            interval: Nanos::from_secs(1),
            run_time: None,
            names: Patterns::default(),
            global_names: Patterns::default(),
            control_groups: Patterns::default(),
            numbers: Vec::new(),
            cpus: None,
            shortest: Nanos::ZERO,
            collapse: true,
            detailed: false,
            form: Form::Text,
            by: By::Name,
            events: ["cycles", "instructions", "cache-misses"].map(String::from).to_vec(),
            period: Nanos::from_millis(1),
            priority: None,
        }
    }
}

impl Draft {
    /// Returns the options. With --once the interval is the run time.
    fn resolve(&mut self) -> Options {
        let mut options = self.options.clone();
        options.interval = self.interval.unwrap_or(options.interval);
        if self.once {
            options.interval = options.run_time.unwrap_or(options.interval);
            options.run_time = Some(options.interval);
        }
        options
    }
}

fn length(text: &str, limits: &LengthLimits) -> Result<Nanos, String> {
    Length::parse(text, limits).map(|length| length.nanos)
}

fn groups(list: &str) -> Result<Vec<MetricGroup>, String> {
    let mut groups = Vec::new();
    for name in list.split(',').map(str::trim) {
        match name {
            "all" => groups.extend(MetricGroup::ALL),
            "most" => {
                groups.extend(
                    MetricGroup::ALL
                        .iter()
                        .filter(|group| !matches!(group, MetricGroup::Waking | MetricGroup::Perf)),
                );
            }
            _ => {
                let found = MetricGroup::ALL.iter().find(|group| group.name() == name);
                groups.push(
                    *found
                        .ok_or_else(|| format!("'{name}' is no group: give {}", group_names().join(", ")))?,
                );
            }
        }
    }
    groups.dedup();
    let mut unique = Vec::new();
    groups.retain(|&group| {
        let is_new = !unique.contains(&group);
        unique.push(group);
        is_new
    });
    Ok(groups)
}

fn group_names() -> Vec<&'static str> {
    [&MetricGroup::ALL.map(MetricGroup::name)[..], &["most", "all"]].concat()
}

fn by(what: &str) -> Result<By, String> {
    let found = By::ALL.iter().find(|(_, name)| *name == what);
    found.map(|(by, _)| *by).ok_or_else(|| format!("no way to add up: give {}", by_names().join(", ")))
}

fn by_names() -> Vec<&'static str> {
    By::ALL.map(|(_, name)| name).to_vec()
}

fn pids(list: &str) -> Result<Vec<Tid>, String> {
    let pid = |item: &str| match item.trim().parse() {
        Ok(pid @ 1..) if !item.trim().starts_with('+') => Ok(Tid(pid)),
        _ => Err(format!("'{}' is not the number of a process or thread", item.trim())),
    };
    list.split(',').map(pid).collect()
}

fn events(list: &str) -> Result<Vec<String>, String> {
    let events: Vec<String> = list.split(',').map(|name| name.trim().to_string()).collect();
    match events.len() {
        0..=EVENTS => Ok(events),
        many => Err(format!("these are {many} events: {EVENTS} at most can be counted")),
    }
}

fn priority(number: &str) -> Result<u32, String> {
    match number.trim().parse() {
        Ok(priority @ 1..=98) if !number.trim().starts_with('+') => Ok(priority),
        _ => Err("not a priority: give a whole number from 1 to 98".to_string()),
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
