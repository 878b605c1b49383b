//! Measures how long a CPU takes to switch between two tasks.

use super::process::{child, control_socketpair};
use super::trial::{end, only};
use super::{check, clock, cpu, sched};
use crate::task::Nanos;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of_val;
use std::os::fd::AsRawFd;

/// The number of times that the CPU switches to a child and back. The median counts, because a
/// hypervisor or an interrupt may delay one.
const ROUNDS: usize = 33;

/// The longest time that a child may take to answer, in microseconds. A task that outranks it
/// delays it.
const ANSWER_TIMEOUT_US: i64 = 20_000;

/// Returns how long the CPU of the calling thread takes to switch to another task and back. A byte
/// is sent in each direction, so the result is rather too large than too small.
pub(crate) fn switch_and_back() -> io::Result<Nanos> {
    let (ours, theirs) = control_socketpair()?;
    limit_reads(&ours)?;
    // SAFETY: the child makes system calls only.
    let child = unsafe { child(c"stall-trial", &[theirs.as_raw_fd()], || answer(&theirs)) }?;
    let times = sched::set_affinity(child, &only(cpu::current()))
        .and_then(|()| (0..ROUNDS).map(|_| time_one(&ours)).collect::<io::Result<Vec<Nanos>>>());
    end(child);
    let mut times = times?;
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}

fn time_one(mut child: &File) -> io::Result<Nanos> {
    let begun = clock::monotonic();
    child.write_all(&[0])?;
    child.read_exact(&mut [0])?;
    Ok(clock::monotonic() - begun)
}

/// Runs in the child until its parent ends: no allocation, no lock, no unwinding.
fn answer(mut parent: &File) {
    while parent.read_exact(&mut [0]).and_then(|()| parent.write_all(&[0])).is_ok() {}
}

fn limit_reads(socket: &File) -> io::Result<()> {
    let limit = libc::timeval { tv_sec: 0, tv_usec: ANSWER_TIMEOUT_US };
    let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVTIMEO);
    let size = size_of_val(&limit) as libc::socklen_t;
    // SAFETY: the kernel reads a timeval of this size.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const limit).cast(), size) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_takes_some_time_and_not_much() {
        let time = switch_and_back().unwrap();
        assert!((Nanos(200)..Nanos::from_millis(20)).contains(&time), "{time:?}");
    }
}
