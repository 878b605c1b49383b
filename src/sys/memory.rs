//! Keeps the process's memory where it is.

use super::check;
use std::hint::black_box;
use std::{fs, io};

pub fn page_size() -> usize {
    // SAFETY: takes and returns a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Locks what is mapped now, and each later page as it is first used: a page fault behind a
/// starving disk would make stalld one more of the tasks that wait.
///
/// Refused under a limit on locked memory, even one that has room: all later memory would come out
/// of that room, and the first allocation that it can't hold would end the process.
pub fn lock_all() -> io::Result<()> {
    // MCL_ONFAULT (4.4) keeps this from filling memory with pages that nothing uses.
    lock(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT)
}

/// Reads in what is mapped now, and locks it: for a small process that must not wait for a page
/// once it has something to do. A limit is handled as by [`lock_all`].
pub fn load_and_lock_all() -> io::Result<()> {
    lock(libc::MCL_CURRENT | libc::MCL_FUTURE)
}

fn lock(flags: libc::c_int) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a struct rlimit that outlives the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) })?;
    // SAFETY: takes flags only.
    let lock = || check(unsafe { libc::mlockall(flags) }).map(drop);
    if limit.rlim_cur == libc::RLIM_INFINITY {
        return lock();
    }
    // With a limit of 0 the kernel locks only for processes that no limit binds (CAP_IPC_LOCK).
    let none = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: the kernel reads a struct rlimit, here and below.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &none) })?;
    let locked = lock();
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) })?;
    locked
}

/// Keeps the OOM killer from this process. It needs CAP_SYS_RESOURCE, unless a service manager has
/// done it already. A process that was forked before keeps its own setting.
pub fn spare_from_oom_killer() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", "-1000")
}

/// Touches the stack that the calling thread will need.
#[inline(never)]
#[allow(clippy::large_stack_arrays)]
pub fn fault_in_stack() {
    let mut stack = [0u8; 64 * 1024];
    for page in stack.chunks_mut(4096) {
        page[0] = 1;
    }
    black_box(&stack);
}

/// Gives back what start-up or a crowd took and nothing needs any more.
pub fn trim_heap() {
    // SAFETY: a call without arguments that matter; glibc only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Wakes the calling thread when it asked for, not when it suits the kernel (50 us later by
/// default).
pub fn no_timer_slack() {
    // SAFETY: takes numbers only, and can't fail for the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}
