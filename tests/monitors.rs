//! A thread for each CPU: from the start (-A), or where somebody might starve (-M).

#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{OWN, is_boosted, policy, start};
use rig::process::{self, eventually};
use rig::{PATIENCE, Rig, Stalld, hogged_cpu, live, online};
use stalld::cpus::CpuSet;
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

fn monitors(stalld: &Stalld) -> CpuSet {
    online().iter().filter(|&cpu| monitor(stalld, cpu).is_some()).collect()
}

/// Puts a monitor where it can't run for as long as the hog does.
fn hold_up(stalld: &Stalld, cpu: Cpu) {
    let tid = monitor(stalld, cpu).unwrap();
    sched::set_fifo(tid, 1).unwrap();
    sched::set_affinity(tid, &[hogged_cpu()].into_iter().collect()).unwrap();
}

#[test]
fn an_aggressive_stalld_has_a_monitor_of_each_cpu_that_it_watches() {
    let Some(_live) = live() else { return };
    let stalld = start(&["-A", "-l"]);
    eventually("all monitors are there", || (monitors(&stalld) == online()).then_some(()));
    // Beside the one that starts them and the one that writes the log.
    assert_eq!(process::threads(stalld.pid()).len(), online().len() + 2);
    for cpu in online().iter() {
        let tid = monitor(&stalld, cpu).unwrap();
        assert!(sched::get_attr(tid).unwrap().policy.is_realtime(), "it could be shut out by ordinary tasks");
    }
    assert_eq!(stalld.terminate().0, Some(0));

    let last = hogged_cpu();
    let stalld = start(&["-A", "-l", "-c", &last.to_string()]);
    eventually("the monitor is there", || monitor(&stalld, last));
    assert_eq!(monitors(&stalld), [last].into_iter().collect());
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
fn a_monitor_that_is_held_up_delays_no_report_of_another_cpu() {
    let Some(_live) = live() else { return };
    for backend in ["task_iter", "queue_track", "sched_debug"] {
        let mut stalld = start(&["-A", "-t", "1500ms", "-g", "500ms", "-b", backend]);
        let elsewhere = online().iter().find(|&cpu| cpu != hogged_cpu()).unwrap();
        eventually("the monitors are there", || monitor(&stalld, elsewhere));
        let mut rig = Rig::start(&["--for", "4"]);
        let victim = rig.event("victim");
        hold_up(&stalld, elsewhere);
        let (at, _) = stalld.line_with(&format!("victim-{} starved", victim.tid()));
        let waited = at - victim.moment("since");
        assert!(waited < Nanos::from_millis(2500), "{backend}: {} ms", waited.as_millis());
        stalld.line_with(&format!("boosted pid {}", victim.tid()));
        assert_eq!(stalld.terminate().0, Some(0), "{backend}");
        assert_eq!(policy(victim.tid()), Some(OWN), "{backend}: the hog is still there");
    }
}

#[test]
fn what_a_monitor_has_boosted_that_is_held_up_is_put_back_at_the_end() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-A", "-t", "1"]);
    let mut rig = Rig::start(&["--for", "4"]);
    let victim = rig.event("victim");
    stalld.line_with(&format!("boosted pid {}", victim.tid()));
    hold_up(&stalld, hogged_cpu());
    assert!(is_boosted(victim.tid()));
    assert_eq!(stalld.terminate().0, Some(0));
    assert_eq!(policy(victim.tid()), Some(OWN), "the hog is still there");
}

#[test]
fn an_adaptive_stalld_has_a_monitor_where_somebody_might_starve_until_it_is_quiet() {
    let Some(_live) = live() else { return };
    let (threshold, granularity) = (Nanos::from_millis(1000), Nanos::from_millis(200));
    for backend in ["task_iter", "sched_debug"] {
        let mut stalld = start(&["-M", "-t", "1s", "-d", "200ms", "-g", "200ms", "-b", backend]);
        assert!(monitors(&stalld).is_empty());
        let mut rig = Rig::start(&["--for", "2.5"]);
        let victim = rig.event("victim");
        let (at, _) = stalld.line_with(&format!(
            "victim-{} might starve on CPU {} (waiting for 0 seconds)",
            victim.tid(),
            hogged_cpu()
        ));
        assert!(at - victim.moment("since") >= Nanos(threshold.0 / 2), "{backend}");
        let monitor = eventually("there is a monitor", || monitor(&stalld, hogged_cpu()));
        assert!(clock::monotonic() - victim.moment("since") < threshold, "{backend}: not before it starved");
        assert_eq!(monitors(&stalld), [hogged_cpu()].into_iter().collect());

        let (at, _) = stalld.line_with(&format!("victim-{} starved on CPU {}", victim.tid(), hogged_cpu()));
        let late = at - (victim.moment("since") + threshold);
        assert!(late < granularity + Nanos::from_millis(500), "{backend}: {} ms late", late.as_millis());
        stalld.line_with(&format!("boosted pid {}", victim.tid()));
        let over = rig.event("end victim").at;
        eventually("the monitor has ended", || process::has_ended(monitor).then_some(()));
        let quiet = clock::monotonic() - over;
        // Ten looks, the first of them at most half a threshold before the hog ended: whoever runs by a boost
        // has waited for half of it again by then.
        let least = Nanos(granularity.0 * 9) - Nanos(threshold.0 / 2);
        assert!(quiet >= least && quiet < PATIENCE, "{backend}: {} ms", quiet.as_millis());
        assert_eq!(stalld.terminate().0, Some(0));
    }
}

#[test]
fn the_status_tells_of_each_monitor() {
    let Some(_live) = live() else { return };
    let mut stalld = start(&["-A", "-l"]);
    stalld.signal("USR1");
    let mut missing = online();
    while !missing.is_empty() {
        let is_counter = |line: &str| line.contains(" looks, ");
        let (_, line) = stalld.wait_for(is_counter, PATIENCE).unwrap();
        let cpu = line.strip_prefix("stalld: CPU ").unwrap().split_once(": task_iter backend").unwrap().0;
        missing = missing.iter().filter(|it| it.to_string() != cpu).collect();
    }
    assert_eq!(stalld.terminate().0, Some(0));
}
