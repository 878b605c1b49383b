//! Becoming a daemon, and the numbers of a process.

use super::check;
use super::clock;
use crate::task::{Nanos, Tid};
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Leaves the terminal, the session and the parent behind. It returns in the daemon only; the
/// calling process stays in here until the daemon has given its verdict, and exits with that.
///
/// The daemon keeps the standard descriptors until [`Ready::succeed`], so that what goes wrong at
/// start-up still reaches the user's stderr; all others are closed. To be called while there is one
/// thread, and before anything is opened.
pub fn daemonize() -> io::Result<Ready> {
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
    // Whoever leads a session gets a controlling terminal by opening one; its child does not.
    if !fork()? {
        exit_now(0);
    }
    std::env::set_current_dir("/")?;
    // SAFETY: umask takes a plain number and can't fail.
    unsafe { libc::umask(0o022) };
    Ok(Ready { verdict: ready })
}

/// What a daemon owes the process that started it: a word on how the start went. Dropped without
/// one, or when the daemon dies, its starter exits with 1, as soon as no forked child holds a copy.
#[must_use = "the process that started the daemon waits for its verdict"]
#[derive(Debug)]
pub struct Ready {
    verdict: File,
}

impl Ready {
    /// Gives up the standard descriptors and lets the starter exit with 0.
    pub fn succeed(self) -> io::Result<()> {
        leave_standard_descriptors()?;
        self.send(0);
        Ok(())
    }

    /// Lets the starter exit with this code, which stands for a failure: 0 is taken for 1.
    pub fn fail(self, code: u8) {
        self.send(code.max(1));
    }

    fn send(mut self, code: u8) {
        // It fails if the starter was killed meanwhile: nobody is left who wants to know.
        let _ = self.verdict.write_all(&[code]);
    }
}

/// Points stdin, stdout and stderr at /dev/null, so that no terminal and no pipe is held open. A
/// child forked before [`Ready::succeed`] has to do it for itself.
pub fn leave_standard_descriptors() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for standard in 0..=2 {
        // SAFETY: no object owns the standard descriptors, so none is left with a closed one; std
        // writes to them by number.
        check(unsafe { libc::dup2(null.as_raw_fd(), standard) })?;
    }
    Ok(())
}

/// Closes what the starter happened to have open: its lock, or the pipe to its reader, would stay
/// with the daemon for as long as that lives.
fn close_inherited() -> io::Result<()> {
    let descriptor = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?.flatten().filter_map(descriptor).collect();
    for inherited in open.into_iter().filter(|&fd| fd > 2) {
        // SAFETY: nothing of ours is open, as `daemonize` asks for, so no object owns it. The one
        // that was used to read the directory is closed by now, and closing it again fails without
        // effect.
        unsafe { libc::close(inherited) };
    }
    Ok(())
}

/// The effective user: whose files we may trust.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes no arguments and can't fail.
    unsafe { libc::geteuid() }
}

/// Whether there is a process of this number, a zombie included.
pub fn is_alive(process: Tid) -> bool {
    // 0 and below would name groups of processes.
    if process.0 <= 0 {
        return false;
    }
    // SAFETY: signal 0 is never delivered, only the check for permission and existence is made.
    match check(unsafe { libc::kill(process.0, 0) }) {
        Ok(_) => true,
        Err(e) => e.raw_os_error() != Some(libc::ESRCH),
    }
}

/// A way to fork a child: [`child_of_one_thread`], or a function that is as safe for what the child
/// does.
pub type Fork = fn(name: &CStr, keep: &[i32], life: &mut dyn FnMut()) -> io::Result<Tid>;

/// Forks a child as [`child`] does. It is an error if this process has a second thread.
pub fn child_of_one_thread(name: &CStr, keep: &[i32], life: &mut dyn FnMut()) -> io::Result<Tid> {
    one_thread()?;
    // SAFETY: no other thread can hold a lock that the child might wait for.
    unsafe { child(name, keep, life) }
}

/// Forks a child that sleeps until `moment`, whatever this process does meanwhile.
pub fn sleeping_child(name: &CStr, moment: Nanos) -> io::Result<Tid> {
    // SAFETY: the child makes one system call.
    unsafe { child(name, &[], || clock::sleep_until(moment)) }
}

/// An error unless this process has one thread only.
fn one_thread() -> io::Result<()> {
    let status = fs::read("/proc/self/status")?;
    // The name, which comes first, has its newlines escaped.
    let threads = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Threads:"));
    match threads.map(<[u8]>::trim_ascii) {
        Some(b"1") => Ok(()),
        _ => Err(io::Error::other("the process has more than one thread")),
    }
}

/// Forks a child that runs `life` and then exits. It has no other descriptors than standard ones
/// and those in `keep`, blocks all signals, and goes by another name. No process gets a signal when
/// it ends, so that a program around the library can't mistake it for a child of its own.
///
/// # Safety
///
/// In a process with more than one thread, `life` must do nothing that a signal handler may not do:
/// no allocation and no lock, because the thread that holds one does not exist in the child.
pub unsafe fn child(name: &CStr, keep: &[i32], life: impl FnOnce()) -> io::Result<Tid> {
    // Blocked before, because a signal could reach the child before it has blocked any.
    let before = block_signals()?;
    // SAFETY: clone(2) with no flags and no stack is fork(2) without the signal. The caller
    // promises that the child does only what it may after that.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) });
    if !matches!(pid, Ok(0)) {
        set_blocked_signals(&before);
        return pid.map(|pid| Tid(pid as i32));
    }
    // SAFETY: the name ends with a NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    close_all_but(keep);
    // A panic must not unwind into what the parent was doing.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(life));
    exit_now(0)
}

/// Blocks all signals for the calling thread. Returns the ones that were blocked before.
fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: a set of signals is plain numbers. sigfillset initialises `all`, and pthread_sigmask
    // fills
    // `before`.
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

/// Closes all but standard descriptors and these.
fn close_all_but(keep: &[i32]) {
    let behind = keep.iter().fold(3, |behind, &kept| behind.max(kept + 1));
    // SAFETY: takes numbers only. What is closed, here and below, belonged to objects that this
    // process, which never unwinds into them, will not use or drop.
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

/// Waits for a child to end, but no longer than this.
pub fn reap(child: Tid, patience: Nanos) {
    let until = clock::monotonic() + patience;
    loop {
        // SAFETY: asks for no status, and does not block. __WALL: its end is signalled to nobody.
        let ended = unsafe { libc::waitpid(child.0, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
        if ended != 0 || clock::monotonic() >= until {
            return;
        }
        clock::nap(Nanos::from_micros(200));
    }
}

/// What is ready to be read as soon as this process has ended; None before 5.3, where the kernel
/// has no such thing.
pub fn watch_own() -> Option<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) }).ok()?;
    // SAFETY: the call made this descriptor for us; like all of its kind it is closed by execve(2).
    Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// True in the child.
fn fork() -> io::Result<bool> {
    // SAFETY: `daemonize`, the only caller, has made sure that no other thread exists whose locks
    // could stay locked in the child.
    Ok(check(unsafe { libc::fork() })? == 0)
}

/// The reading and the writing end of a new pipe.
pub fn pipe() -> io::Result<(File, File)> {
    let mut ends = [-1; 2];
    // SAFETY: pipe2 fills an array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: pipe2 succeeded, so both are open descriptors that nobody else owns.
    let [reading, writing] = ends.map(|end| File::from(unsafe { OwnedFd::from_raw_fd(end) }));
    Ok((reading, writing))
}

/// Both ends of a line to another process. Unlike a pipe's, its end is no signal to who writes.
pub fn line() -> io::Result<(File, File)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: socketpair fills an array of two.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    // SAFETY: as for a pipe.
    let [ours, theirs] = ends.map(|end| File::from(unsafe { OwnedFd::from_raw_fd(end) }));
    Ok((ours, theirs))
}

/// Sends a byte down a line, without waiting for room and without SIGPIPE.
pub fn send(line: &File, byte: u8) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the kernel reads the one byte that it is told of.
    check(unsafe { libc::send(line.as_raw_fd(), std::ptr::from_ref(&byte).cast(), 1, flags) }).map(drop)
}

fn await_verdict(mut verdict: File) -> ! {
    let mut code = [0];
    match verdict.read_exact(&mut code) {
        Ok(()) => exit_now(code[0]),
        Err(_) => exit_now(1),
    }
}

/// Ends a process that was only a step on the way: what the daemon inherited from it, down to what
/// it has to put back on the host, is the daemon's to clean up.
fn exit_now(code: u8) -> ! {
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
        reap(child, Nanos::from_secs(60));
        assert!(!is_alive(child));
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
