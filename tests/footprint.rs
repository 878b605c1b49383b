//! What stalld leaves attached in the kernel: by default nothing that an event could run into.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::{Rig, Stalld, live, process};
use stalld::task::Tid;

#[test]
fn by_default_nothing_is_attached_to_any_event() {
    let Some(_live) = live() else { return };
    let stalld = Stalld::watch(&["-b", "task_iter"]);
    assert_eq!(process::bpf_links(stalld.pid()), ["iter"]);
    assert_eq!(process::children(stalld.pid()), []);
    assert_eq!(stalld.terminate().0, Some(0));
}

/// queue_track, once it is attached: stalld, and the process that holds what is attached.
fn tracking() -> (Stalld, Tid) {
    let mut stalld = Stalld::watch(&["-b", "queue_track", "-g", "1"]);
    // The first look may have been the one that told it.
    if process::children(stalld.pid()).iter().all(|&keeper| process::bpf_links(keeper).len() < 4) {
        stalld.line_with("scheduler events are being recorded");
    }
    let children = process::children(stalld.pid());
    assert_eq!(children.len(), 1, "{children:?}");
    (stalld, children[0])
}

#[test]
fn what_queue_track_attaches_is_held_by_a_process_that_ends_with_it() {
    let Some(_live) = live() else { return };
    for signal in ["TERM", "KILL"] {
        let (stalld, keeper) = tracking();
        assert_eq!(process::status(keeper, "Name").unwrap(), "stall-events");
        assert_eq!(process::bpf_links(stalld.pid()), ["iter"]);
        let links = process::bpf_links(keeper);
        assert!(links.len() == 4 && !links.contains(&"iter".to_string()), "{links:?}");
        stalld.signal(signal);
        assert_eq!(stalld.finish().0, (signal == "TERM").then_some(0));
        process::await_end(keeper);
    }
}

#[test]
fn signals_that_are_not_for_it_do_not_end_what_queue_track_has_attached() {
    let Some(_live) = live() else { return };
    let (stalld, keeper) = tracking();
    for signal in ["TERM", "INT", "HUP", "USR1"] {
        process::signal(keeper, signal);
    }
    stalld.signal("USR1");
    assert_eq!(process::bpf_links(keeper).len(), 4);
    assert_eq!(stalld.terminate().0, Some(0));
    process::await_end(keeper);
}

#[test]
fn queue_track_says_when_its_record_has_ended_and_goes_on() {
    let Some(_live) = live() else { return };
    let args = ["-f", "-l", "-v", "-b", "queue_track", "-t", "1", "-g", "1"];
    let mut stalld = Stalld::start(&[&args, &Stalld::RIG_ONLY[..]].concat());
    stalld.line_with("scheduler events are being recorded");
    let keeper = process::children(stalld.pid())[0];
    process::signal(keeper, "KILL");
    stalld.line_with("cannot record the scheduler's events: the process that is attached to them has died");
    let mut rig = Rig::start(&["--for", "2"]);
    let tid = rig.event("victim").tid();
    stalld.line_with(&format!("victim-{tid} starved on CPU "));
    assert_eq!(rig.finish().0, Some(0));
    assert_eq!(stalld.terminate().0, Some(0));
}
