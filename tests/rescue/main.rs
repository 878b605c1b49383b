//! Tests that boost starving tasks on this host, and the parts that this takes: backends, journal,
//! guardian.

#![allow(clippy::unwrap_used, clippy::panic)]

mod backends_agree;
mod crash;
mod exact_restore;
mod for_programs;
mod hostile;
mod journal;
mod pressure;
mod rescue;
mod rig_itself;
mod sched_debug;
mod stale_waiter;
mod stunts;
mod text_log;

#[cfg(feature = "bpf")]
use rig::{Log, Record};

/// Asserts that stalld has reported no failure since its first scan.
#[cfg(feature = "bpf")]
fn assert_no_failure(log: &Log) {
    for record in log.iter().skip_while(|record| !record.message().contains("checking cpu")) {
        let is_failure = ["refused", "restore_failed", Record::PLAIN].contains(&record.event())
            || record.is("log") && ["warning", "error"].contains(&record.level());
        assert!(!is_failure, "stalld reported a failure: {record:?}");
    }
}
