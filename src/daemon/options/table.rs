//! The options of stalld.

use super::draft::{DURATION, Draft, GRANULARITY, Job, PERIOD, RUNTIME, THRESHOLD};
use super::{BoostMethod, Command, Format, Mode};
use crate::command_line::Takes::{Name, Nothing, Path, Text};
use crate::command_line::{self, Opt, set};
use crate::cpus::CpuSet;
use crate::length::Length;
use crate::observe::Kind;
use crate::share::Share;
use crate::task::Tid;

/// All options, in the order of `--help`. `make regen` writes them into completions and manual
/// pages.
pub const TABLE: &[Opt<Draft>] = &[
    Opt {
        short: Some('c'),
        long: "cpu",
        takes: Text("CPUS", |d, list, host| {
            set(&mut d.options.cpus, CpuSet::parse(list, host.configured_cpus))
        }),
        help: "watch these CPUs, such as 0,2-4 (all)",
    },
    Opt {
        short: Some('a'),
        long: "affinity",
        takes: Text("CPUS", |d, list, host| {
            set(&mut d.options.affinity, CpuSet::parse(list, host.configured_cpus))
        }),
        help: "run stalld itself on these CPUs only",
    },
    Opt {
        short: Some('t'),
        long: "starving_threshold",
        takes: Text("TIME", |d, time, _| set(&mut d.threshold, Length::parse(time, &THRESHOLD))),
        help: "a task starves once it has waited this long (60 s)",
    },
    Opt {
        short: Some('g'),
        long: "granularity",
        takes: Text("TIME", |d, time, _| {
            Length::parse(time, &GRANULARITY).map(|length| d.options.granularity = length.nanos)
        }),
        help: "sleep no longer than this between two scans (5 s)",
    },
    Opt {
        short: Some('b'),
        long: "backend",
        takes: Name("NAME", backend_names, |d, name, _| backend(name).map(|kind| d.options.backend = kind)),
        help: "scan by task_iter (T), queue_track (Q) or sched_debug (S)\n(auto: the best that works here)",
    },
    Opt {
        short: Some('N'),
        long: "no_idle_detect",
        takes: Nothing(|d| d.options.idle_detection = false),
        help: "scan CPUs that have idle time too",
    },
    Opt {
        short: Some('i'),
        long: "ignore_threads",
        takes: Text("REGEXES", |d, list, _| d.options.ignore_threads.add(list)),
        help: "leave threads alone whose name matches one of these",
    },
    Opt {
        short: Some('I'),
        long: "ignore_processes",
        takes: Text("REGEXES", |d, list, _| d.options.ignore_processes.add(list)),
        help: "leave threads of processes alone whose name matches",
    },
    Opt {
        short: Some('d'),
        long: "boost_duration",
        takes: Text("TIME", |d, time, _| set(&mut d.duration, Length::parse(time, &DURATION))),
        help: "boost a starving task for this long (3 s)",
    },
    Opt {
        short: Some('p'),
        long: "boost_period",
        takes: Text("TIME", |d, time, _| set(&mut d.period, Length::parse(time, &PERIOD))),
        help: "let it run once in each such period (1000000000 ns)",
    },
    Opt {
        short: Some('r'),
        long: "boost_runtime",
        takes: Text("TIME", |d, time, _| set(&mut d.runtime, Length::parse(time, &RUNTIME))),
        help: "for this long each time (20000 ns)",
    },
    Opt {
        short: Some('F'),
        long: "force_fifo",
        takes: Nothing(|d| d.options.boost_method = BoostMethod::Fifo),
        help: "boost with SCHED_FIFO instead of SCHED_DEADLINE",
    },
    Opt {
        short: None,
        long: "boost",
        takes: Name("METHOD", method_names, |d, name, _| {
            method(name).map(|method| d.options.boost_method = method)
        }),
        help: "boost by deadline (SCHED_DEADLINE), or fifo (as -F)\n(auto: by deadline if budgets end in time here)",
    },
    Opt {
        short: None,
        long: "max-loss",
        takes: Text("SHARE", |d, share, _| set(&mut d.options.max_loss, Share::parse(share))),
        help: "boost as with -F, as often as boosted tasks take no more\nthan this of a CPU in any second, such as 0.1% (no bound)",
    },
    Opt {
        short: Some('O'),
        long: "power_mode",
        takes: Nothing(|d| d.options.mode = Mode::Power),
        help: "watch all CPUs with one thread (this is the default)",
    },
    Opt {
        short: Some('M'),
        long: "adaptive_mode",
        takes: Nothing(|d| d.options.mode = Mode::Adaptive),
        help: "give a CPU a monitor once a task may starve there",
    },
    Opt {
        short: Some('A'),
        long: "aggressive_mode",
        takes: Nothing(|d| d.options.mode = Mode::Aggressive),
        help: "give each CPU a monitor from the start",
    },
    Opt {
        short: Some('R'),
        long: "reservation",
        takes: Text("PERCENT", |d, number, _| set(&mut d.options.reservation, percent(number))),
        help: "reserve 10 to 90 percent of a CPU for stalld (off)",
    },
    Opt {
        short: Some('S'),
        long: "systemd",
        takes: Nothing(|d| d.options.systemd = true),
        help: "leave RT throttling alone, only check that it is off",
    },
    Opt {
        short: Some('l'),
        long: "log_only",
        takes: Nothing(|d| d.options.log_only = true),
        help: "report what starves, boost nothing",
    },
    Opt {
        short: Some('v'),
        long: "verbose",
        takes: Nothing(|d| d.options.verbose = true),
        help: "log to the terminal, in more detail; implies -f",
    },
    Opt {
        short: Some('k'),
        long: "log_kmsg",
        takes: Nothing(|d| d.options.log_kmsg = true),
        help: "log to the kernel's log",
    },
    Opt {
        short: Some('s'),
        long: "log_syslog",
        takes: Nothing(|d| d.options.log_syslog = true),
        help: "log to syslog (on unless in the foreground)",
    },
    Opt {
        short: None,
        long: "log-format",
        takes: Name("FORMAT", format_names, |d, name, _| {
            format(name).map(|format| d.options.log_format = format)
        }),
        help: "log to the terminal as text, or as json: one object a line",
    },
    Opt {
        short: Some('f'),
        long: "foreground",
        takes: Nothing(|d| d.options.foreground = true),
        help: "do not daemonize",
    },
    Opt {
        short: Some('P'),
        long: "pidfile",
        takes: Path("PATH", |d, path| d.options.pidfile = Some(path)),
        help: "write stalld's pid to this file",
    },
    Opt {
        short: None,
        long: "no-pidfile",
        takes: Nothing(|d| d.options.pidfile = None),
        help: "write no pidfile, whatever -P before this says",
    },
    Opt {
        short: None,
        long: "metrics",
        takes: Path("PATH", |d, path| d.options.metrics = Some(path)),
        help: "keep numbers for Prometheus in this file",
    },
    Opt {
        short: None,
        long: "trace",
        takes: Path("PATH", |d, path| d.options.trace = Some(path)),
        help: "write to this file who waits and who is boosted, for Perfetto",
    },
    Opt {
        short: None,
        long: "check",
        takes: Nothing(|d| d.job = Job::Check),
        help: "say what this host offers and lacks for such a run, and exit;\nwith -v fact by fact",
    },
    Opt {
        short: None,
        long: "recover",
        takes: Nothing(|d| d.asked = Some(Command::Recover)),
        help: "undo what a stalld that was killed has left behind, and exit",
    },
    Opt {
        short: None,
        long: "write-pidfile",
        takes: Text("PID", |d, number, _| pid(number).map(|pid| d.job = Job::WritePidfile(pid))),
        help: "write this pid to the file of -P, and exit",
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

const FORMATS: [(Format, &str); 2] = [(Format::Text, "text"), (Format::Json, "json")];

fn backend(name: &str) -> Result<Option<Kind>, String> {
    match Kind::from_name(name) {
        None if name != "auto" => Err(format!("no such backend: give {}", backend_names().join(", "))),
        kind => Ok(kind),
    }
}

fn backend_names() -> Vec<&'static str> {
    [&["auto"][..], &Kind::ALL.map(Kind::name)].concat()
}

fn method(name: &str) -> Result<BoostMethod, String> {
    let found = BoostMethod::ALL.into_iter().find(|method| method.name() == name);
    found.ok_or_else(|| format!("no such method: give {}", method_names().join(", ")))
}

fn method_names() -> Vec<&'static str> {
    BoostMethod::ALL.map(BoostMethod::name).to_vec()
}

fn format(name: &str) -> Result<Format, String> {
    let found = FORMATS.iter().find(|(_, known)| *known == name);
    found
        .map(|(format, _)| *format)
        .ok_or_else(|| format!("no such format: give {}", format_names().join(" or ")))
}

fn format_names() -> Vec<&'static str> {
    FORMATS.map(|(_, name)| name).to_vec()
}

fn percent(number: &str) -> Result<u8, String> {
    let number = number.trim();
    match number.parse() {
        Ok(percent @ 10..=90) if !number.starts_with('+') => Ok(percent),
        _ => Err("not a percentage that can be reserved: give a whole number from 10 to 90".to_string()),
    }
}

fn pid(number: &str) -> Result<Tid, String> {
    match number.parse() {
        Ok(pid @ 1..) => Ok(Tid(pid)),
        _ => Err("not the number of a process".to_string()),
    }
}

/// Returns the text of `--help`.
pub fn help() -> String {
    format!(
        "Usage: stalld [OPTION]...\n\
         Finds tasks that starve behind real-time tasks, and lets them run for a bounded moment.\n\n\
         {}\n\
         TIME is a number with a unit (ns, us, ms, s), such as 1.5s or 20us, or a whole number in the unit\n\
         of the default in brackets. Of an option given twice the last counts; -i and -I add up.\n\
         More in stalld(8).\n",
        command_line::help(TABLE)
    )
}
