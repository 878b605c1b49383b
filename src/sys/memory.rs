//! Locks the memory of the process, exempts it from the OOM killer, and returns unused memory.

use super::check;
use std::hint::black_box;
use std::{fs, io};

pub fn page_size() -> usize {
    // SAFETY: takes and returns a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Locks all memory that is mapped now, and each later page when it is first used. Otherwise a page
/// fault could make stalld wait for a disk.
///
/// Fails if a limit on locked memory applies to the process, even if the limit has room. All later
/// memory would count against the limit, and the first allocation beyond it would end the process.
pub(crate) fn lock_all() -> io::Result<()> {
    // MCL_ONFAULT (4.4) keeps this from filling memory with pages that nothing uses.
    lock(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT)
}

/// Locks all memory as [`lock_all`] does, but makes all pages present at once. It is for a small
/// process that must not wait for a page later.
pub(crate) fn load_and_lock_all() -> io::Result<()> {
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
    // With a limit of 0, mlockall(2) works only with CAP_IPC_LOCK, by which no limit applies.
    let none = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: the kernel reads a struct rlimit, here and below.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &none) })?;
    let locked = lock();
    // SAFETY: as above.
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) })?;
    locked
}

/// Exempts this process from the OOM killer. It needs CAP_SYS_RESOURCE, unless a service manager
/// has already done it. A child that was forked before keeps its own setting.
pub(crate) fn spare_from_oom_killer() -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", "-1000")
}

/// Touches 64 KiB of stack, so that the calling thread takes no page fault there later.
#[inline(never)]
#[allow(clippy::large_stack_arrays)]
pub(crate) fn fault_in_stack() {
    let mut stack = [0u8; 64 * 1024];
    for page in stack.chunks_mut(4096) {
        page[0] = 1;
    }
    black_box(&stack);
}

/// Returns unused heap memory to the kernel, after start-up or after a scan of very many tasks.
pub(crate) fn trim_heap() {
    // SAFETY: takes a number; only glibc has it.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
