//! Checks before a boost that a tid still belongs to the same task.

use super::event::Refusal;
use super::kernel::Kernel;
use crate::task::Task;
use std::io;

/// Returns the start of a task if its name has not changed, for a backend that does not know
/// starts.
pub(super) fn same_by_name(kernel: &impl Kernel, task: &Task) -> Result<u64, Refusal> {
    let start = kernel.try_start(task.tid)?.ok_or(Refusal::Gone)?;
    let Some(comm) = kernel.comm(task.tid) else {
        // The name can't be read. Either memory is short, or the task has just ended.
        let is_there = kernel.try_start(task.tid)?.is_some();
        return Err(if is_there { Refusal::Kernel(libc::ENOMEM) } else { Refusal::Gone });
    };
    // The file of sched_debug pads names on the left.
    match comm.as_bytes().trim_ascii_start() == task.comm.as_bytes().trim_ascii_start() {
        true => Ok(start),
        false => Err(Refusal::Gone),
    }
}

/// Returns why a task could not be boosted after a failed system call.
pub(super) fn refusal(e: io::Error) -> Refusal {
    match e.raw_os_error() {
        Some(libc::ESRCH) => Refusal::Gone,
        _ => e.into(),
    }
}
