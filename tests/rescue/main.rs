//! Tests that boost starving tasks on this host, and the parts that this takes: backends, journal,
//! guardian.

#![allow(clippy::unwrap_used, clippy::panic)]

mod backends_agree;
mod crash;
mod exact_restore;
mod for_programs;
mod journal;
mod max_loss;
mod rescue;
mod rig_itself;
mod sched_debug;
mod text_log;
