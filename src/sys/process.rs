//! Daemonizing, child processes, and the pipes and sockets between processes.

use super::check;
use super::clock;
use crate::task::{Nanos, Tid};
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Turns this process into a daemon, without the terminal, the session and the parent of its
/// starter. Returns only in the daemon. The starter is the calling process: it waits in here for
/// the exit code that [`Ready`] sends, and exits with it.
///
/// The daemon keeps the standard descriptors until [`Ready::succeed`], so that errors at start-up
/// reach the user's stderr. All other descriptors are closed. Must be called while the process has
/// one thread, and before it opens a file.
pub(crate) fn daemonize() -> io::Result<Ready> {
    one_thread()?;
    close_inherited()?;
    let (verdict, ready) = pipe()?;
    if !fork()? {
        drop(ready);
        await_verdict(verdict);
    }
    drop(verdict);
    // SAFETY: setsid takes no arguments.
    check(unsafe { libc::setsid() })?;
    // A session leader that opens a terminal gets it as its controlling terminal. Its child does
    // not.
    if !fork()? {
        exit_now(0);
    }
    std::env::set_current_dir("/")?;
    // SAFETY: umask takes a plain number and can't fail.
    unsafe { libc::umask(0o022) };
    Ok(Ready { verdict: ready })
}

/// The daemon's end of the pipe to its starter, which waits for an exit code. If this is dropped,
/// or the daemon dies, the starter exits with 1, as soon as no forked child has a copy of the pipe.
#[must_use = "the process that started the daemon waits for its verdict"]
#[derive(Debug)]
pub(crate) struct Ready {
    verdict: File,
}

impl Ready {
    /// Points the standard descriptors at /dev/null, and makes the starter exit with 0.
    pub(crate) fn succeed(self) -> io::Result<()> {
        leave_standard_descriptors()?;
        self.send(0);
        Ok(())
    }

    fn send(mut self, code: u8) {
        // It fails if the starter was killed. No process waits for the code then.
        let _ = self.verdict.write_all(&[code]);
    }
}

/// Points stdin, stdout and stderr at /dev/null, so that no terminal and no pipe stays open. A
/// child that was forked before [`Ready::succeed`] has to call this itself.
pub(crate) fn leave_standard_descriptors() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for standard in 0..=2 {
        // SAFETY: no object owns the standard descriptors, so none is left with a closed one; std
        // writes to them by number.
        check(unsafe { libc::dup2(null.as_raw_fd(), standard) })?;
    }
    Ok(())
}

/// Closes the descriptors that the starter has inherited. Otherwise a lock or a pipe of another
/// program would stay open for as long as the daemon lives.
fn close_inherited() -> io::Result<()> {
    let descriptor = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?.flatten().filter_map(descriptor).collect();
    for inherited in open.into_iter().filter(|&fd| fd > 2) {
        // SAFETY: `daemonize` requires that this program has opened no file, so no object owns the
        // descriptor. The one of the directory is closed by now, and closing it again fails without
        // effect.
        unsafe { libc::close(inherited) };
    }
    Ok(())
}

/// Returns the effective user, whose files stalld may trust.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes no arguments and can't fail.
    unsafe { libc::geteuid() }
}

/// Returns whether a process with this number exists. A zombie counts.
pub(crate) fn is_alive(process: Tid) -> bool {
    // To kill(2), 0 and negative numbers are process groups.
    if process.0 <= 0 {
        return false;
    }
    // SAFETY: signal 0 is never delivered, only the check for permission and existence is made.
    match check(unsafe { libc::kill(process.0, 0) }) {
        Ok(_) => true,
        Err(e) => e.raw_os_error() != Some(libc::ESRCH),
    }
}

/// A function that forks a child: [`child_of_one_thread`], or one that is as safe for what `life`
/// does in the child.
pub(crate) type Fork = fn(name: &CStr, keep: &[i32], life: &mut dyn FnMut()) -> io::Result<Tid>;

/// Forks a child as [`child`] does. Returns an error if this process has a second thread.
pub(crate) fn child_of_one_thread(name: &CStr, keep: &[i32], life: &mut dyn FnMut()) -> io::Result<Tid> {
    one_thread()?;
    // SAFETY: no other thread can hold a lock that the child might wait for.
    unsafe { child(name, keep, life) }
}

/// Forks a child that sleeps until `moment` and then exits.
pub fn sleeping_child(name: &CStr, moment: Nanos) -> io::Result<Tid> {
    // SAFETY: the child makes one system call.
    unsafe { child(name, &[], || clock::sleep_until(moment)) }
}

/// Returns an error unless this process has exactly one thread.
fn one_thread() -> io::Result<()> {
    let status = fs::read("/proc/self/status")?;
    // The name of the process comes first. Its newlines are escaped, so it can't fake this line.
    let threads = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Threads:"));
    match threads.map(<[u8]>::trim_ascii) {
        Some(b"1") => Ok(()),
        _ => Err(io::Error::other("the process has more than one thread")),
    }
}

/// Forks a child named `name` that runs `life` and then exits. The child blocks all signals, and
/// closes all descriptors but the standard ones and those in `keep`. Its end sends no SIGCHLD, so
/// that a program that uses the library does not take it for a child of its own.
///
/// # Safety
///
/// In a process with more than one thread, `life` must do nothing that a signal handler may not do:
/// no allocation and no lock, because the thread that owns a lock does not exist in the child.
pub unsafe fn child(name: &CStr, keep: &[i32], life: impl FnOnce()) -> io::Result<Tid> {
    // Block signals before the fork: one could reach the child before the child blocks them.
    let before = block_signals()?;
    // SAFETY: clone(2) with no flags and no stack is fork(2) without SIGCHLD. The caller guarantees
    // that the child does only what is allowed after fork(2).
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) });
    if !matches!(pid, Ok(0)) {
        set_blocked_signals(&before);
        return pid.map(|pid| Tid(pid as i32));
    }
    // SAFETY: the name ends with a NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    close_all_but(keep);
    // A panic must not unwind into the code of the parent.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(life));
    exit_now(0)
}

/// Blocks all signals for the calling thread. Returns the ones that were blocked before.
fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: a set of signals is plain numbers. sigfillset initialises `all`, and pthread_sigmask
    // fills `before`.
    unsafe {
        let (mut all, mut before) = std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>();
        libc::sigfillset(&mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) {
            0 => Ok(before),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn set_blocked_signals(set: &libc::sigset_t) {
    // SAFETY: the kernel reads an initialised set. The call fails only for an unknown way of
    // setting it.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, std::ptr::null_mut()) };
}

/// Closes all descriptors but the standard ones and those in `keep`.
fn close_all_but(keep: &[i32]) {
    let behind = keep.iter().fold(3, |behind, &kept| behind.max(kept + 1));
    // SAFETY: takes numbers only. Here and below, the objects that own the closed descriptors are
    // neither used nor dropped, because the child never unwinds into the code of the parent.
    let closed = check(unsafe { libc::syscall(libc::SYS_close_range, behind, u32::MAX, 0) });
    let end = match closed {
        Ok(_) => behind,
        // SAFETY: takes a number. Kernels before 5.9 close one by one.
        Err(_) => unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }.clamp(64, 4096) as i32,
    };
    for fd in (3..end).filter(|fd| !keep.contains(fd)) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// The state of a child after `reap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaped {
    Exited(u8),
    /// It was killed, or another thread has waited for it.
    Killed,
    Running,
}

/// Waits for a child to end, but no longer than `timeout`.
pub(crate) fn reap(child: Tid, timeout: Nanos) -> Reaped {
    let until = clock::monotonic() + timeout;
    loop {
        let mut status = 0;
        // SAFETY: the call fills the status, and does not block. A child without SIGCHLD needs
        // __WALL.
        let ended = unsafe { libc::waitpid(child.0, &mut status, libc::WNOHANG | libc::__WALL) };
        match ended {
            0 if clock::monotonic() >= until => return Reaped::Running,
            0 => {}
            ended if ended == child.0 && libc::WIFEXITED(status) => {
                return Reaped::Exited(libc::WEXITSTATUS(status) as u8);
            }
            _ => return Reaped::Killed,
        }
        clock::nap(Nanos::from_micros(200));
    }
}

/// Returns a pidfd of this process, which becomes readable when the process ends; `None` before
/// 5.3, where the kernel has no pidfd_open(2).
pub(crate) fn watch_own() -> Option<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) }).ok()?;
    // SAFETY: the call made this descriptor for us; like all of its kind it is closed by execve(2).
    Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Forks. Returns true in the child.
fn fork() -> io::Result<bool> {
    // SAFETY: `daemonize`, the only caller, has made sure that no other thread exists whose locks
    // could stay locked in the child.
    Ok(check(unsafe { libc::fork() })? == 0)
}

/// Returns the reading and the writing end of a new pipe.
pub fn pipe() -> io::Result<(File, File)> {
    let mut ends = [-1; 2];
    // SAFETY: pipe2 fills an array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: pipe2 succeeded, so both are open descriptors that no other object owns.
    let [reading, writing] = ends.map(|end| File::from(unsafe { OwnedFd::from_raw_fd(end) }));
    Ok((reading, writing))
}

/// Returns a connected pair of sockets. Unlike a write to a pipe, [`send`] raises no signal after
/// the other end is closed.
pub(crate) fn control_socketpair() -> io::Result<(File, File)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socketpair fills an array of two.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    // SAFETY: as for a pipe.
    let [ours, theirs] = ends.map(|end| File::from(unsafe { OwnedFd::from_raw_fd(end) }));
    Ok((ours, theirs))
}

/// Sends a byte to the other end, without waiting for room and without SIGPIPE.
pub(crate) fn send(socket: &File, byte: u8) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the kernel reads one byte, which outlives the call.
    check(unsafe { libc::send(socket.as_raw_fd(), std::ptr::from_ref(&byte).cast(), 1, flags) }).map(drop)
}

fn await_verdict(mut verdict: File) -> ! {
    let mut code = [0];
    match verdict.read_exact(&mut code) {
        Ok(()) => exit_now(code[0]),
        Err(_) => exit_now(1),
    }
}

/// Ends a child, or a process between the starter and the daemon, without destructors and exit
/// handlers. Only the daemon cleans up files and settings on the host.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: _exit takes a plain number, runs nothing of ours and does not return.
    unsafe { libc::_exit(code.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The harness runs each test in a thread of its own.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(daemonize().is_err());
                assert!(child_of_one_thread(c"child", &[], &mut || {}).is_err());
            });
        });
    }

    #[test]
    fn a_child_leaves_the_blocked_signals_of_its_parent_as_they_are() {
        let blocked = || {
            // SAFETY: a set of signals is plain numbers, and the call fills it.
            let mut set = unsafe { std::mem::zeroed() };
            // SAFETY: as above. No new set is given.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set) };
            // SAFETY: asks for members of an initialised set.
            (1..32).filter(|&signal| unsafe { libc::sigismember(&set, signal) } == 1).collect::<Vec<_>>()
        };
        let before = blocked();
        let child = sleeping_child(c"child", Nanos::ZERO).unwrap();
        assert_eq!(blocked(), before);
        assert_eq!(reap(child, Nanos::from_secs(60)), Reaped::Exited(0));
        assert!(!is_alive(child));
        assert_eq!(reap(child, Nanos::ZERO), Reaped::Killed);
    }

    #[test]
    fn this_process_is_alive_and_no_process_is_group_0() {
        assert!(is_alive(Tid(std::process::id() as i32)));
        assert!(!is_alive(Tid(0)));
        assert!(!is_alive(Tid(-1)));
        // Above PID_MAX_LIMIT.
        assert!(!is_alive(Tid(i32::MAX)));
    }
}
