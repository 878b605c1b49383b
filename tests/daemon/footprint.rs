//! The programs that stalld attaches in the kernel: by default, none that an event could run.

#![cfg(feature = "bpf")]

use rig::process::eventually;
use rig::{Rig, Stalld, hogged_cpu, live, process};
use stalld::task::Tid;

#[test]
#[ignore = "needs root"]
fn by_default_nothing_is_attached_to_any_event() {
    let _live = live();
    let stalld = Stalld::watch(&["-b", "task_iter"]);
    assert_eq!(process::bpf_links(stalld.pid()), ["iter"]);
    assert_eq!(process::children(stalld.pid()), []);
    assert_eq!(stalld.terminate().0, Some(0));
}

/// Waits until queue_track is attached. Returns the process that holds its links.
fn await_holder(stalld: &Stalld) -> Tid {
    eventually("queue_track is attached", || {
        let children = process::children(stalld.pid());
        assert!(children.len() <= 1, "{children:?}");
        children.into_iter().find(|&child| process::bpf_links(child).len() == 4)
    })
}

fn tracking() -> (Stalld, Tid) {
    let stalld = Stalld::watch(&["-b", "queue_track", "-g", "1"]);
    let holder = await_holder(&stalld);
    (stalld, holder)
}

#[test]
#[ignore = "needs root"]
fn a_process_that_ends_with_stalld_holds_the_links_of_queue_track() {
    let _live = live();
    for signal in ["TERM", "KILL"] {
        let (stalld, holder) = tracking();
        assert_eq!(process::status(holder, "Name").unwrap(), "stall-events");
        assert_eq!(process::bpf_links(stalld.pid()), ["iter"]);
        let links = process::bpf_links(holder);
        assert!(links.len() == 4 && !links.contains(&"iter".to_string()), "{links:?}");
        stalld.signal(signal);
        assert_eq!(stalld.finish().0, (signal == "TERM").then_some(0));
        process::await_end(holder);
    }
}

#[test]
#[ignore = "needs root"]
fn the_process_that_holds_the_links_ignores_signals() {
    let _live = live();
    let (stalld, holder) = tracking();
    for signal in ["TERM", "INT", "HUP", "USR1"] {
        process::signal(holder, signal);
    }
    stalld.signal("USR1");
    assert_eq!(process::bpf_links(holder).len(), 4);
    assert_eq!(stalld.terminate().0, Some(0));
    process::await_end(holder);
}

#[test]
#[ignore = "starves tasks, as root"]
fn queue_track_reports_the_loss_of_its_links_and_goes_on() {
    let _live = live();
    let args = ["-f", "-l", "-v", "-b", "queue_track", "-t", "1", "-g", "1"];
    let mut stalld = Stalld::start(&[&args, &Stalld::RIG_ONLY[..]].concat());
    process::signal(await_holder(&stalld), "KILL");
    stalld.message("has died");
    let mut rig = Rig::start(&["--for", "8"]);
    let victim = rig.event("victim").tid();
    assert_eq!(stalld.event_of("starved", victim).number("cpu"), hogged_cpu().0.into());
    assert_eq!(stalld.terminate().0, Some(0));
}
