//! The priority of the scanning thread while it acts on tasks.

use super::kernel::{Attr, Kernel};
use super::restore::up_to_twice;
use crate::task::{Policy, Tid};
use std::io;

/// The priority of stalld during a pulse, above that of the task.
const TOP_PRIORITY: u32 = 99;

/// The priority of stalld while it acts on tasks outside of a pulse. It is below that of the
/// guardian, which then runs on the CPU of stalld when stalld wakes it.
const WORK_PRIORITY: u32 = TOP_PRIORITY - 1;

/// Puts this thread at FIFO 98, if it is below. Returns how it was scheduled before.
pub(super) fn ascend(kernel: &impl Kernel) -> Option<Attr> {
    let own = kernel.get_attr(Tid(0)).ok()?;
    if own.policy == Policy::DEADLINE || own.priority >= WORK_PRIORITY {
        return None;
    }
    kernel.set_scheduler(Tid(0), Policy::FIFO, WORK_PRIORITY, own.reset_on_fork()).ok()?;
    Some(own)
}

/// Puts this thread at FIFO 99, above any task in a pulse. Returns how it was scheduled before. A
/// reservation (-R) is suspended for that time: if its budget ran out in the middle of a pulse,
/// this thread could not end the pulse.
pub(super) fn enter_fifo99(kernel: &impl Kernel) -> io::Result<Attr> {
    let own = kernel.get_attr(Tid(0))?;
    kernel.set_scheduler(Tid(0), Policy::FIFO, TOP_PRIORITY, own.reset_on_fork())?;
    Ok(own)
}

/// Schedules this thread as it was before `enter_fifo99` or `ascend`.
pub(super) fn leave(kernel: &impl Kernel, own: &Attr) -> io::Result<()> {
    up_to_twice(|| match own.policy {
        Policy::DEADLINE => kernel.set_deadline(Tid(0), own.runtime, own.period, own.flags),
        policy => kernel.set_scheduler(Tid(0), policy, own.priority, own.reset_on_fork()),
    })
}
