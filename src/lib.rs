//! stalld finds tasks that starve - runnable, yet not given their CPU for a threshold - and lets
//! them run for a bounded moment.
//!
//! Data flows one way: [`observe`] takes a snapshot of the run queues, [`detect`] decides who
//! starves and when to look next, [`engine`] ties the two together, and [`daemon`] is what a
//! program needs around them. [`host`] knows the machine. [`sys`] holds all system calls, and all
//! that is `unsafe`.

pub mod boost;
pub mod chrome_trace;
pub mod command_line;
pub mod cpus;
pub mod daemon;
pub mod denylist;
pub mod detect;
pub mod engine;
pub mod error;
pub mod fault;
pub mod host;
pub mod json;
pub mod length;
pub mod observe;
pub mod patterns;
pub mod proc;
mod room;
mod sorted;
#[cfg(feature = "bpf")]
pub mod stat;
mod steps;
#[allow(unsafe_code)]
pub mod sys;
pub mod task;
pub mod timing;
