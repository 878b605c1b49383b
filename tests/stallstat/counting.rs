//! Compares the counts of stallstat with those of the tasks themselves and of the kernel.

use rig::stallstat::{Row, Stallstat, path as stallstat_path};
use rig::worker::{Account, Worker};
use rig::{Rig, hogged_cpu, keep_away_from_the_hog, live, process};
use stalld::stat::topology::Topology;
use stalld::sys::{clock, perf, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;

/// All rows, one for each task.
const EACH_TASK: [&str; 2] = ["-d", "-C"];

const fn ms(millis: u64) -> Nanos {
    Nanos::from_millis(millis)
}

fn start(groups: &str) -> Stallstat {
    Stallstat::start(&[&["-g", groups], &EACH_TASK[..]].concat())
}

/// Asserts that two times differ by 5 % at most.
fn assert_close(what: &str, measured: Nanos, own: Nanos) {
    let (measured_ns, own_ns) = (measured.0 as f64, own.0 as f64);
    assert!((measured_ns - own_ns).abs() <= own_ns * 0.05, "{what}: {measured:?}, and by itself {own:?}");
}

fn median(samples: &[Nanos]) -> Nanos {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) / 2]
}

#[test]
#[ignore = "starves tasks, as root"]
fn each_wait_each_turn_and_each_sleep_is_counted_once() {
    let _live = live();
    retry(count_turns_of_two_tasks);
}

/// Runs a comparison of what was counted with the kernel's own accounts until it succeeds, eight
/// times at most. On some virtual machines the tracepoint of a switch is not reached each time that
/// a thread of the machine's agent leaves its CPU. The kernel's own tracer misses the same events.
fn retry(compare: impl FnMut() -> Result<(), String>) {
    let mut differences = Vec::new();
    for outcome in std::iter::repeat_with(compare).take(8) {
        match outcome {
            Ok(()) => return,
            Err(difference) => differences.push(difference),
        }
    }
    panic!("{differences:#?}");
}

/// Counts two running tasks. Returns the counts and their own accounts as an error if these differ.
fn count_turns_of_two_tasks() -> Result<(), String> {
    let mut stallstat = start("latency,slice,sleep,waking");
    // Two ordinary tasks on one CPU preempt each other, sleep, are woken by timers and by each
    // other, and yield.
    let work = || {
        for round in 0..300u64 {
            match round % 3 {
                0 => clock::spin_until(clock::monotonic() + ms(1)),
                1 => thread::yield_now(),
                _ => clock::nap(ms(round % 4)),
            }
        }
    };
    let workers = [b"one", b"two"].map(|name| Worker::start(name, hogged_cpu(), 0, work));
    let before = workers.each_ref().map(Worker::account);
    stallstat.report();
    workers.iter().for_each(Worker::go);
    workers.iter().for_each(Worker::outcome);
    let accounts = workers.each_ref().map(Worker::account);
    let report = stallstat.report();
    for (worker, (after, before)) in workers.iter().zip(accounts.into_iter().zip(before)) {
        let account = after - before;
        let of = |table, column| report.of_task(table, worker.tid()).count(column);
        let Account { voluntary, preempted, turns, .. } = account;
        let own = [turns, preempted, turns, voluntary, voluntary];
        let [latency, sleep, waking] = ["latency", "sleep", "waking"].map(|table| of(table, "count"));
        let counted = [of("slice", "count"), of("slice", "preempted"), latency, sleep, waking];
        if counted != own {
            return Err(format!("counted {counted:?}, by its own account {own:?}"));
        }
    }
    assert_eq!(report.not_counted(), 0);
    Ok(())
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_wait_is_as_long_as_the_waiter_measures_it() {
    let _live = live();
    keep_away_from_the_hog();
    const WAITS: u64 = 50;
    const BURST: [Nanos; 2] = [ms(10), ms(20)];
    let mut stallstat = start("latency");
    // The time at which both threads begin.
    let begin = Arc::new(OnceLock::new());
    let bursts = |begin: &OnceLock<Nanos>| {
        let begin = *begin.get().unwrap();
        (0..WAITS).map(move |burst| begin + Nanos(BURST[1].0 * burst))
    };
    let of_hog = begin.clone();
    let hog = Worker::start(b"bursts", hogged_cpu(), 2, move || {
        for burst in bursts(&of_hog) {
            clock::sleep_until(burst);
            clock::spin_until(burst + BURST[0]);
        }
    });
    // The waiter wakes while the hog has the CPU, and waits for the rest of that burst.
    let of_waiter = begin.clone();
    let waiter = Worker::start(b"waiter", hogged_cpu(), 1, move || -> Vec<Nanos> {
        let wait = |burst| {
            let woken = burst + ms(2);
            clock::sleep_until(woken);
            clock::monotonic() - woken
        };
        bursts(&of_waiter).map(wait).collect()
    });
    let before = waiter.account();
    stallstat.report();
    begin.set(clock::monotonic() + ms(100)).unwrap();
    hog.go();
    waiter.go();
    let own = waiter.outcome();
    let turns = (waiter.account() - before).turns;
    let report = stallstat.report();
    let row = report.of_task("latency", waiter.tid());
    assert_eq!(row.count("count"), turns, "{row:?}");
    assert_close("median", row.time("p50_ns"), median(&own));
    // The turns include the one in which the thread received its start message, without a wait.
    assert_close("mean", row.time("mean_ns"), Nanos(own.iter().map(|wait| wait.0).sum::<u64>() / turns));
    assert_close("longest", row.time("max_ns"), *own.iter().max().unwrap());
    let is_its = |row: &Row| row.count("cpu") == hogged_cpu().0.into();
    let cpu = report.rows("latency_by_cpu").iter().map(Row).find(is_its).unwrap();
    assert!(cpu.count("count") >= turns && cpu.time("max_ns") >= row.time("max_ns"), "{cpu:?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn turns_and_sleeps_are_as_long_as_they_were() {
    let _live = live();
    const ROUNDS: u64 = 40;
    let mut stallstat = start("slice,sleep");
    let worker = Worker::start(b"regular", hogged_cpu(), 1, || -> (Vec<Nanos>, Vec<Nanos>) {
        let round = |_| {
            let begin = clock::monotonic();
            clock::spin_until(begin + ms(5));
            let asleep = clock::monotonic();
            clock::nap(ms(15));
            (asleep - begin, clock::monotonic() - asleep)
        };
        (0..ROUNDS).map(round).unzip()
    });
    stallstat.report();
    worker.go();
    let (turns, sleeps) = worker.outcome();
    let report = stallstat.report();
    let slice = report.of_task("slice", worker.tid());
    assert_close("turns", slice.time("voluntary_p50_ns"), median(&turns));
    let ran = Nanos(turns.iter().map(|turn| turn.0).sum());
    assert_close("all turns together", slice.time("ran_ns"), ran);
    let sleep = report.of_task("sleep", worker.tid());
    assert_close("sleeps", sleep.time("p50_ns"), median(&sleeps));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_wait_from_before_the_start_is_shown_and_counted_when_it_ends() {
    let _live = live();
    keep_away_from_the_hog();
    let mut rig = Rig::start(&["--for", "5", "--victim", "spin:1:waiter"]);
    let hog = rig.event("hog");
    let victim = rig.event("victim");
    let mut stallstat = Stallstat::start_as(&[&["--json"], &EACH_TASK[..]].concat());
    let asked = clock::monotonic();
    let report = stallstat.report();
    assert!(clock::monotonic() < hog.moment("until"), "it took the hog's end to attach");
    let row = report.of_task("still_waiting", victim.tid());
    let so_far = row.time("waited_ns");
    assert!(so_far >= asked - victim.moment("since") && so_far < Nanos::from_secs(5), "{row:?}");
    assert_eq!(row.count("on_cpu"), hogged_cpu().0.into());
    assert_eq!(row.0.text("owner"), format!("behind hog-{}", hog.tid()));

    let end = rig.events("end victim", 1).remove(0);
    let report = stallstat.report();
    let row = report.of_task("latency", victim.tid());
    let own = end.moment("first_ran_after") - victim.moment("since");
    assert!(own >= Nanos::from_secs(4), "{own:?}");
    assert_close("the wait", row.time("max_ns"), own);
}

#[test]
#[ignore = "starves tasks, as root"]
fn migrations_are_counted_by_how_far_they_go() {
    let _live = live();
    const MOVES: u64 = 60;
    let (near, far) = (Cpu(0), hogged_cpu());
    let mut stallstat = start("migration");
    let worker = Worker::start(b"nomad", near, 0, move || {
        for cpu in [far, near].into_iter().cycle().take(MOVES as usize) {
            sched::set_affinity(Tid(0), &[cpu].into_iter().collect()).unwrap();
        }
    });
    stallstat.report();
    worker.go();
    worker.outcome();
    let report = stallstat.report();
    let row = report.of_task("migration", worker.tid());
    let topology = Topology::read(Path::new("/"));
    let nodes = if topology.crosses_node(near, far) { MOVES } else { 0 };
    let caches = if topology.crosses_llc(near, far) { MOVES - nodes } else { 0 };
    let counts = ["count", "cross_cache", "cross_node"].map(|key| row.count(key));
    assert_eq!(counts, [MOVES, caches, nodes], "{row:?}");
    assert!(row.count("per_second") > 0, "{row:?}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn counters_of_the_kernel_are_divided_among_tasks() {
    let _live = live();
    retry(count_page_faults);
}

fn count_page_faults() -> Result<(), String> {
    const PAGES: usize = 5_000;
    let page = stalld::sys::memory::page_size();
    let mut stallstat =
        Stallstat::start(&[&["-g", "perf", "-e", "page-faults,cpu-clock"], &EACH_TASK[..]].concat());
    let worker = Worker::start(b"toucher", hogged_cpu(), 1, move || {
        let mut fresh = vec![0u8; PAGES * page];
        fresh.iter_mut().step_by(page).for_each(|byte| *byte = 1);
        let end = clock::monotonic() + ms(200);
        clock::spin_until(end);
        std::hint::black_box(&fresh).len()
    });
    let before = worker.account();
    stallstat.report();
    worker.go();
    worker.outcome();
    let faults = (worker.account() - before).faults;
    let report = stallstat.report();
    let row = report.of_task("perf", worker.tid());
    let counted = row.count("page-faults");
    assert!(faults > 0, "no page fault");
    let is_close = counted.abs_diff(faults) <= 10 + faults / 100 && row.time("cpu-clock") >= ms(190);
    if is_close { Ok(()) } else { Err(format!("{row:?}, and {faults} faults by its own account")) }
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_missing_counter_is_reported_in_a_line_and_left_out_of_all() {
    let _live = live();
    let run = |args: &[&str]| {
        let output =
            Command::new(stallstat_path()).args(args).args(["-1", "-r", "100ms", "--json"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), said)
    };
    let has_schedstat = Path::new("/proc/schedstat").exists();
    let has_counters = perf::count(Cpu(0), perf::PerfEvent { kind: perf::HARDWARE, config: 0 }).is_ok();
    for (group, there, reason) in [
        ("schedstat", has_schedstat, "/proc/schedstat"),
        ("perf", has_counters, "this machine has no counter for it"),
    ] {
        let (code, report, said) = run(&["-g", group]);
        match there {
            true => assert!(code == Some(0) && report.contains(&format!("\"{group}\":")), "{said}"),
            false => {
                assert_eq!((code, report.as_str()), (Some(1), ""), "{said}");
                assert!(said.contains(reason) && said.lines().count() == 1, "{said}");
            }
        }
        let (code, report, said) = run(&["-g", "all"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(report.contains(&format!("\"{group}\":")), there, "{said}");
        assert_eq!(said.contains(&format!("{group} is left out: ")), !there, "{said}");
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn none_of_ten_thousand_tasks_is_lost() {
    let _live = live();
    const TASKS: usize = 10_000;
    // The threads wait for this one.
    let barrier = Arc::new(Barrier::new(TASKS + 1));
    let spawn = |_| {
        let barrier = barrier.clone();
        let thread = thread::Builder::new().name("crowd".to_string()).stack_size(64 * 1024);
        thread.spawn(move || barrier.wait()).unwrap()
    };
    let threads: Vec<_> = (0..TASKS).map(spawn).collect();
    let mut stallstat = Stallstat::start(&["-d"]);
    barrier.wait();
    for thread in threads {
        thread.join().unwrap();
    }
    let report = stallstat.report();
    let row = report.of("latency", "crowd");
    assert_eq!((row.count("tasks"), report.not_counted()), (TASKS as u64, 0));
    assert!(row.count("count") >= TASKS as u64, "{row:?}");
    let peak = process::status(stallstat.pid(), "VmHWM").unwrap();
    let peak_kib: u64 = peak.trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib <= 8 * 1024, "{peak}");
}

#[test]
#[ignore = "starves tasks, as root"]
fn it_starts_behind_a_hog() {
    let _live = live();
    keep_away_from_the_hog();
    let mut rig = Rig::start(&["--for", "20"]);
    let hog = rig.event("hog");
    let stallstat = Stallstat::start(&["-g", "most"]);
    assert!(clock::monotonic() < hog.moment("until"), "it waited for the hog");
    let (code, said) = stallstat.end_by("TERM");
    assert!(clock::monotonic() < hog.moment("until"), "it waited for the hog to end");
    assert_eq!(code, Some(0), "{said:?}");
}
