//! stalld finds starving tasks and lets them run for a bounded time.
//!
//! A waiter is a task that is queued on a CPU and not running. It starves if it waits for a
//! threshold or longer. The task that has the CPU meanwhile is the hog. A boost raises a starving
//! task to SCHED_DEADLINE or, in short pulses, to SCHED_FIFO, and then restores it. A monitor is
//! the thread that scans for one CPU in the modes -A and -M.
//!
//! Data flows one way: [`observe`] takes a snapshot of the run queues. [`detect`] finds the
//! starving tasks and sets the time of the next scan. [`boost`] raises and restores tasks.
//! [`engine`] combines these three; its callers are [`daemon`] and the C library in ffi/.
//! [`guardian`] is the process that restores after stalld died. [`host`] reads facts about the
//! machine. [`sys`] holds all direct system calls and all `unsafe` code.

pub mod boost;
mod chrome_trace;
pub mod command_line;
pub mod cpus;
pub mod daemon;
pub mod denylist;
pub mod detect;
pub mod engine;
pub mod error;
pub mod fault;
pub mod guardian;
pub mod host;
pub mod json;
mod length;
pub mod observe;
pub mod patterns;
pub mod proc;
mod room;
pub mod share;
mod sorted;
#[cfg(feature = "bpf")]
pub mod stat;
mod steps;
#[allow(unsafe_code)]
pub mod sys;
pub mod task;
pub mod timing;
