//! The system calls of the attacks.

#![allow(unsafe_code)]

use stalld::task::{Nanos, Tid};
use std::io;
use std::sync::atomic::AtomicU32;

/// The bit of a PI futex that is set while a thread is blocked on it.
pub const WAITERS: u32 = libc::FUTEX_WAITERS;

fn check(result: i64) -> io::Result<i64> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn futex(word: &AtomicU32, operation: i32, value: u32) -> io::Result<()> {
    let operation = operation | libc::FUTEX_PRIVATE_FLAG;
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: `word` is aligned and outlives the call, and the kernel reads no timeout from a null
    // pointer.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, no_timeout) };
    check(result).map(drop)
}

/// Takes a PI mutex. The thread that owns it inherits the rank of the caller meanwhile.
pub fn lock_pi(word: &AtomicU32) -> io::Result<()> {
    futex(word, libc::FUTEX_LOCK_PI, 0)
}

pub fn unlock_pi(word: &AtomicU32) -> io::Result<()> {
    futex(word, libc::FUTEX_UNLOCK_PI, 0)
}

/// Sleeps as long as `word` is 0 and no thread wakes it.
pub fn wait(word: &AtomicU32) {
    let _ = futex(word, libc::FUTEX_WAIT, 0);
}

pub fn wake_all(word: &AtomicU32) {
    let _ = futex(word, libc::FUTEX_WAKE, i32::MAX as u32);
}

/// Forks a child that runs `life` and then exits. `life` may only make system calls.
pub fn fork(life: impl FnOnce()) -> io::Result<Tid> {
    // SAFETY: the child makes system calls only and never returns from here.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        life();
        // SAFETY: takes a number and does not return.
        unsafe { libc::_exit(0) };
    }
    check(pid.into()).map(|pid| Tid(pid as i32))
}

/// Waits for a child if it has ended. Returns whether it has.
pub fn reap(child: Tid) -> bool {
    // SAFETY: the kernel writes no status to a null pointer, and the call does not block.
    unsafe { libc::waitpid(child.0, std::ptr::null_mut(), libc::WNOHANG) != 0 }
}

/// Makes this process one of a user without groups, capabilities and limits above zero. Needs root.
pub fn become_user(user: u32) -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls take numbers, an empty list and a valid rlimit. The process has one thread,
    // to which all of them apply.
    unsafe {
        check(libc::setrlimit(libc::RLIMIT_RTPRIO, &none).into())?;
        check(libc::setrlimit(libc::RLIMIT_NICE, &none).into())?;
        check(libc::setgroups(0, std::ptr::null()).into())?;
        check(libc::setresgid(user, user, user).into())?;
        check(libc::setresuid(user, user, user).into())?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0).into())?;
        // A process that was started as this user is dumpable, too.
        check(libc::prctl(libc::PR_SET_DUMPABLE, 1 as libc::c_ulong).into())?;
    }
    Ok(())
}

/// Returns the rank by which the scheduler runs this process: negative for a real-time one,
/// whatever its policy. It allocates nothing, so a forked child can call it.
pub fn own_rank() -> Option<i32> {
    let mut stat = [0u8; 512];
    // SAFETY: the path ends with NUL, and the kernel writes no more bytes than the array has.
    let length = unsafe {
        let file = libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY);
        let length = libc::read(file, stat.as_mut_ptr().cast(), stat.len());
        libc::close(file);
        usize::try_from(length).ok()?
    };
    let behind = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = stat.get(behind + 2..length)?.split(|&byte| byte == b' ');
    std::str::from_utf8(fields.into_iter().nth(15)?).ok()?.parse().ok()
}

/// Ends the process without running anything else.
pub fn exit() -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(0) }
}

/// Has the kernel reap the children that end.
pub fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition of SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

pub fn kill(process: Tid, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(process.0, signal) };
}

/// Sends a signal to one thread of the calling process.
pub fn kill_thread(tid: Tid, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid.0, signal) };
}

/// Runs `handler` at each signal of this number. It may only make system calls.
pub fn on_signal(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: the handler has the type that the kernel calls, and makes system calls only.
    unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
}

pub fn set_timer_slack(slack: Nanos) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack.0 as libc::c_ulong) }.into()).map(drop)
}

/// Lets any process of the same user trace this one.
pub fn allow_tracers() {
    // SAFETY: takes numbers only. Without Yama it fails, and no permission is needed.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
}

fn ptrace(request: libc::c_uint, tid: Tid) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests neither read nor write through the last two arguments.
    check(unsafe { libc::ptrace(request as _, tid.0, none, none) }).map(drop)
}

pub fn seize(tid: Tid) -> io::Result<()> {
    ptrace(libc::PTRACE_SEIZE as libc::c_uint, tid)
}

/// Stops a seized task, and waits for that.
pub fn interrupt(tid: Tid) -> io::Result<()> {
    ptrace(libc::PTRACE_INTERRUPT as libc::c_uint, tid)?;
    // SAFETY: the kernel writes no status to a null pointer.
    check(unsafe { libc::waitpid(tid.0, std::ptr::null_mut(), libc::__WALL) }.into()).map(drop)
}

/// Continues a task that `interrupt` has stopped.
pub fn go_on(tid: Tid) -> io::Result<()> {
    ptrace(libc::PTRACE_CONT as libc::c_uint, tid)
}

/// The highest real-time priority and the lowest nice value, as 20 - nice, that this process may
/// choose.
pub fn limits() -> (u64, u64) {
    let limit = |resource: libc::__rlimit_resource_t| {
        let mut limit = libc::rlimit { rlim_cur: u64::MAX, rlim_max: u64::MAX };
        // SAFETY: `limit` is an rlimit that outlives the call.
        unsafe { libc::getrlimit(resource, &mut limit) };
        limit.rlim_max
    };
    (limit(libc::RLIMIT_RTPRIO), limit(libc::RLIMIT_NICE))
}
