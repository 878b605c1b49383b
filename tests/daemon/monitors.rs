//! The per-CPU monitors: from the start (-A), or while a task of the CPU might starve (-M).

#![cfg(feature = "bpf")]

use rig::boosts::{OWN, boosted_victim, is_boosted, policy, start};
use rig::process::{self, eventually};
use rig::{Rig, Stalld, hogged_cpu, live, online};
use stalld::cpus::CpuSet;
use stalld::proc;
use stalld::sys::{clock, sched};
use stalld::task::{Cpu, Nanos, Tid};
use std::fs;

fn monitor(stalld: &Stalld, cpu: Cpu) -> Option<Tid> {
    let name = format!("stalld/{cpu}\n");
    let is_it = |&tid: &Tid| {
        fs::read_to_string(format!("/proc/{}/task/{tid}/comm", stalld.pid())).is_ok_and(|comm| comm == name)
    };
    process::threads(stalld.pid()).into_iter().find(is_it)
}

/// Returns the CPUs that have a monitor.
fn monitored(stalld: &Stalld) -> CpuSet {
    online().iter().filter(|&cpu| monitor(stalld, cpu).is_some()).collect()
}

/// Moves a monitor behind the hog, so that it can't run before the hog ends.
fn stall_monitor(stalld: &Stalld, cpu: Cpu) {
    let tid = monitor(stalld, cpu).unwrap();
    sched::set_fifo(tid, 1).unwrap();
    sched::set_affinity(tid, &[hogged_cpu()].into_iter().collect()).unwrap();
}

/// Returns when a thread was started, to a clock tick and rather too early than too late.
fn start_of(tid: Tid) -> Nanos {
    let started = proc::start(tid).expect("the thread has ended");
    // In this order, a delay between the two clocks makes the result earlier.
    let now = clock::monotonic();
    now - Nanos::from_millis((clock::boot_ticks() - started) * 10)
}

#[test]
#[ignore = "needs root"]
fn an_aggressive_stalld_has_a_monitor_for_each_cpu_that_it_watches() {
    let _live = live();
    let stalld = start(&["-A", "-l"]);
    eventually("each CPU has a monitor", || (monitored(&stalld) == online()).then_some(()));
    // The two others start the monitors and write the log.
    assert_eq!(process::threads(stalld.pid()).len(), online().len() + 2);
    for cpu in online().iter() {
        let tid = monitor(&stalld, cpu).unwrap();
        assert!(sched::get_attr(tid).unwrap().policy.is_realtime(), "ordinary tasks could starve it");
    }
    assert_eq!(stalld.terminate().0, Some(0));

    let last = hogged_cpu();
    let stalld = start(&["-A", "-l", "-c", &last.to_string()]);
    eventually("the CPU has a monitor", || monitor(&stalld, last));
    assert_eq!(monitored(&stalld), [last].into_iter().collect());
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_stalled_monitor_delays_no_report_about_another_cpu() {
    let _live = live();
    for backend in ["task_iter", "queue_track", "sched_debug"] {
        let mut stalld = start(&["-A", "-t", "1500ms", "-g", "500ms", "-b", backend]);
        let elsewhere = online().iter().find(|&cpu| cpu != hogged_cpu()).unwrap();
        eventually("the CPU has a monitor", || monitor(&stalld, elsewhere));
        let mut rig = Rig::start(&["--for", "8"]);
        let until = rig.event("hog").moment("until");
        let victim = rig.event("victim").tid();
        stall_monitor(&stalld, elsewhere);
        for event in ["starved", "boosted"] {
            let reported = stalld.event_of(event, victim);
            assert_eq!(reported.number("cpu"), hogged_cpu().0.into());
            assert!(reported.at < until, "{backend}: '{event}' came only after the hog's end");
        }
        assert_eq!(stalld.terminate().0, Some(0), "{backend}");
        assert_eq!(policy(victim), Some(OWN), "{backend}");
        assert!(clock::monotonic() < until, "{backend}: stalld ended only after the hog");
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn the_boost_of_a_stalled_monitor_is_restored_at_the_end() {
    let _live = live();
    let mut stalld = start(&["-A", "-t", "2", "-d", "2"]);
    let (rig, victim) = boosted_victim(&mut stalld, &["--for", "10"]);
    let victim = victim.tid();
    stall_monitor(&stalld, hogged_cpu());
    assert!(is_boosted(victim));
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim), Some(OWN));
    assert!(!process::has_ended(rig.pid()), "stalld ended only after the hog");
}

#[test]
#[ignore = "starves tasks, as root"]
fn an_adaptive_stalld_starts_a_monitor_in_time_and_ends_it_when_quiet() {
    let _live = live();
    let (threshold, granularity) = (Nanos::from_millis(1000), Nanos::from_millis(200));
    for backend in ["task_iter", "sched_debug"] {
        let mut stalld = start(&["-M", "-t", "1s", "-d", "200ms", "-g", "200ms", "-b", backend]);
        assert!(monitored(&stalld).is_empty());
        let mut rig = Rig::start(&["--for", "3"]);
        let until = rig.event("hog").moment("until");
        let victim = rig.event("victim");
        let might_starve = stalld.event_of("might_starve", victim.tid());
        assert_eq!(might_starve.number("cpu"), hogged_cpu().0.into());
        let waited = might_starve.time("waited_ns");
        assert!(waited >= Nanos(threshold.0 / 2) && waited < threshold, "{backend}: {might_starve:?}");
        assert!(might_starve.at - victim.moment("since") >= Nanos(threshold.0 / 2), "{backend}");
        let monitor = eventually("the CPU has a monitor", || monitor(&stalld, hogged_cpu()));
        let started = start_of(monitor);
        assert!(started < victim.moment("since") + threshold, "{backend}: the task starved before");
        assert_eq!(monitored(&stalld), [hogged_cpu()].into_iter().collect());

        for event in ["starved", "boosted"] {
            let reported = stalld.event_of(event, victim.tid());
            assert_eq!(reported.number("cpu"), hogged_cpu().0.into());
            assert!(reported.at < until, "{backend}: '{event}' came only after the hog's end");
        }
        eventually("the monitor has ended", || process::has_ended(monitor).then_some(()));
        // The monitor ends after ten quiet scans. The first of them may come before the hog's end,
        // because a boosted task is quiet until it has waited for half a threshold again.
        let least = Nanos(granularity.0 * 9) - Nanos(threshold.0 / 2);
        assert!(clock::monotonic() >= until + least, "{backend}: the monitor ended too early");
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

#[test]
#[ignore = "needs root"]
fn on_request_each_monitor_reports_its_counters() {
    let _live = live();
    let mut stalld = start(&["-A", "-l"]);
    stalld.signal("USR1");
    let mut missing = online();
    while !missing.is_empty() {
        let counters = stalld.message(": task_iter backend: ");
        let cpu = counters.message().split_once(": ").unwrap().0;
        missing = missing.iter().filter(|it| format!("CPU {it}") != cpu).collect();
    }
    assert_eq!(stalld.terminate().0, Some(0));
}
