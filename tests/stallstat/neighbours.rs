//! Tests `stallstat hogs`, `record` and `trace` with a hog and its victim.

use rig::json::Json;
use rig::scratch::Scratch;
use rig::stallstat::{Stallstat, path as stallstat_path};
use rig::{Program, Rig, TIMEOUT, hogged_cpu, keep_away_from_the_hog, live};
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::fs;
use std::process::Command;

/// Starts stallstat with these arguments.
fn start(args: &[&str]) -> Program {
    let mut command = Command::new(stallstat_path());
    command.args(args);
    Program::start("stallstat", command)
}

/// Whether two times differ by 10 % at most. The kernel's server for fair tasks may take 5 % of the
/// CPU from the hog.
fn is_close(measured: Nanos, exact: Nanos) -> bool {
    measured.0.abs_diff(exact.0) as f64 <= exact.0 as f64 * 0.1
}

/// Starts `stallstat hogs`, and returns when it sees each turn from its start.
fn watch_victims() -> Stallstat {
    let mut stallstat = Stallstat::start_as(&["--json", "hogs", "--by", "task", "-c", "^victim$"]);
    stallstat.report();
    stallstat
}

/// Returns how long the culprit ran while the victim waited for its CPU.
fn cost(report: &Json, victim: &str, culprit: &str) -> Nanos {
    let rows = report.get("hogs").unwrap().list();
    let row = rows.iter().find(|row| row.text("victim") == victim && row.text("culprit") == culprit);
    Nanos(row.map_or(0.0, |row| row.number("ran_ns").unwrap()) as u64)
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_wait_is_charged_to_the_hog_once_while_it_lasts() {
    let _live = live();
    keep_away_from_the_hog();
    let mut stallstat = watch_victims();
    let mut rig = Rig::start(&["--for", "3", "--victim", "spin"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let (hog_name, victim_name) = (format!("hog-{}", hog.tid()), format!("victim-{}", victim.tid()));
    let cost = |report: &Json| cost(report, &victim_name, &hog_name);
    // One report in the middle of the wait, and one after it.
    clock::sleep_until(hog.moment("at") + Nanos::from_secs(1));
    let first = cost(&stallstat.report().0);
    let end = rig.event("end victim");
    let second = cost(&stallstat.report().0);
    let waited = end.moment("first_ran_after") - victim.moment("since");
    assert!(first > Nanos::ZERO && second > Nanos::ZERO, "{first:?} {second:?}");
    assert!(is_close(first + second, waited), "{first:?} and {second:?} of {waited:?}");
    assert_eq!(stallstat.end_by("TERM").0, Some(0));
}

/// The victim is a fair task, so that it delays no other task on the CPU to which it moves.
#[test]
#[ignore = "starves tasks, as root"]
fn a_wait_that_moves_is_charged_to_the_hog_of_its_first_cpu() {
    let _live = live();
    keep_away_from_the_hog();
    let mut stallstat = watch_victims();
    let mut rig = Rig::start(&["--for", "2", "--victim", "fair"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    // The kernel does not run fair tasks behind a hog before that time.
    clock::sleep_until(victim.moment("since") + Nanos::from_millis(500));
    let moved = clock::monotonic();
    sched::set_affinity(victim.tid(), &[Cpu(0)].into_iter().collect()).unwrap();
    rig.event("end victim");
    let report = stallstat.report();
    let laid = cost(&report.0, &format!("victim-{}", victim.tid()), &format!("hog-{}", hog.tid()));
    let waited = moved - victim.moment("since");
    assert!(is_close(laid, waited), "{laid:?} of {waited:?}: {report:?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_record_has_each_millisecond_of_the_hog() {
    let _live = live();
    keep_away_from_the_hog();
    let scratch = Scratch::new("record-live");
    let path = scratch.join("slots.csv");
    let mut rig = Rig::start(&["--for", "4", "--alone"]);
    let hog = rig.event("hog");
    let mut record = start(&["record", path.to_str().unwrap(), "-r", "1", "-e", "task-clock"]);
    assert_eq!(record.finish(TIMEOUT), Some(0));
    let text = fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    let head = "time_ns,cpu,tid,tgid,comm,cgroup,container,pod,ran_ns,task-clock";
    assert_eq!(lines.next(), Some(head));
    let of_hog = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |index: usize| fields[index].parse::<u64>().unwrap();
        (Tid(number(2) as i32) == hog.tid()).then(|| (number(0), number(1), number(8), number(9)))
    });
    let slots: Vec<_> = of_hog.collect();
    assert!(slots.len() > 500, "{} slots", slots.len());
    assert!(slots.iter().all(|&(_, cpu, ..)| cpu == u64::from(hogged_cpu().0)));
    assert!(slots.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].0 % 1_000_000 == 0));
    // The slots cover all of the time from first to last, and the clock of the task ran as long.
    let span = slots.last().unwrap().0 + 1_000_000 - slots[0].0;
    let (ran, clock) = slots.iter().fold((0, 0), |(ran, clock), slot| (ran + slot.2, clock + slot.3));
    // The kernel keeps a twentieth for fair tasks.
    assert!((span / 10 * 9..=span).contains(&ran), "{ran} of {span}");
    assert!(is_close(Nanos(clock), Nanos(ran)), "{clock} and {ran}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_trace_shows_the_turn_of_the_hog_and_the_wait_of_its_victim() {
    let _live = live();
    keep_away_from_the_hog();
    let scratch = Scratch::new("trace-live");
    let path = scratch.join("trace.json");
    let mut trace = start(&["trace", path.to_str().unwrap(), "-r", "1000"]);
    // stallstat is attached once it has written an event.
    rig::process::eventually("the trace has begun", || {
        let begun = fs::read_to_string(&path).ok()?;
        begun.contains("\"ph\":\"X\"").then_some(())
    });
    let mut rig = Rig::start(&["--for", "2", "--victim", "spin"]);
    let (hog, victim) = (rig.event("hog"), rig.event("victim"));
    let end = rig.event("end victim");
    rig::process::signal(trace.pid(), "INT");
    assert_eq!(trace.finish(TIMEOUT), Some(0));
    let events = Json::parse(&fs::read_to_string(&path).unwrap());
    let took = |name: &str, tid: Tid, track: f64| -> Nanos {
        let is_it = |event: &&Json| {
            let whose = match track as u32 {
                1 => event.get("args").and_then(|args| args.number("tid")),
                _ => event.number("tid"),
            };
            event.number("pid") == Some(track) && event.text("name") == name && whose == Some(tid.0.into())
        };
        let micros: f64 = events.list().iter().filter(is_it).map(|event| event.number("dur").unwrap()).sum();
        Nanos((micros * 1000.0) as u64)
    };
    let held = took(&format!("hog-{}", hog.tid()), hog.tid(), 1.0);
    assert!(is_close(held, hog.moment("until") - hog.moment("at")), "{held:?}");
    let waited = took("waits", victim.tid(), 2.0);
    assert!(is_close(waited, end.moment("first_ran_after") - victim.moment("since")), "{waited:?}");
}

#[test]
fn an_unwritable_file_is_an_error_before_anything_is_attached() {
    for (args, reason) in [
        (
            &["record", "-e", "task-clock", "/nowhere/slots.csv"][..],
            "cannot open /nowhere/slots.csv: No such file or directory",
        ),
        (&["record", "-e", "task-clock", "/tmp/slots.txt"], "end its name in .csv or .parquet"),
        (&["trace", "/nowhere/trace.json"], "cannot open /nowhere/trace.json: No such file or directory"),
    ] {
        let mut stallstat = start(args);
        stallstat.line_with(reason);
        assert_eq!(stallstat.finish(TIMEOUT), Some(1));
    }
}
