//! Reads facts about tasks from /proc.

pub mod births;
pub mod text;

use crate::fault::{self, Fault};
use crate::sys::sched;
use crate::task::{Comm, Cpu, Nanos, Owner, Task, Tid};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

/// The beginning of a file of /proc, on the stack, because a thread that is about to boost must not
/// wait for memory.
struct ProcText {
    bytes: [u8; ProcText::SIZE],
    len: usize,
}

impl ProcText {
    const SIZE: usize = 2048;

    fn read(tid: Tid, name: &str) -> Option<ProcText> {
        ProcText::try_read(tid, name).ok()
    }

    fn try_read(tid: Tid, name: &str) -> io::Result<ProcText> {
        ProcText::try_of(format_args!("/proc/{tid}/{name}"))
    }

    /// Reads the task's own stat. For /proc/TID/stat the kernel adds up the times of all threads of
    /// the process, and there may be 30,000 of them.
    fn stat(tid: Tid) -> io::Result<ProcText> {
        ProcText::try_of(format_args!("/proc/{tid}/task/{tid}/stat"))
    }

    fn try_of(path: fmt::Arguments) -> io::Result<ProcText> {
        let open = |path: &str| Some(File::open(path));
        let mut file = with_stack_str(path, open).ok_or(io::ErrorKind::InvalidInput)??;
        let mut text = ProcText { bytes: [0; ProcText::SIZE], len: 0 };
        loop {
            match file.read(&mut text.bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    text.len = read?;
                    return Ok(text);
                }
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Calls `action` with a text that is formatted on the stack; `None` if it is longer than 64 bytes.
pub fn with_stack_str<T>(text: fmt::Arguments, action: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut bytes = [0; 64];
    let mut free = bytes.as_mut_slice();
    free.write_fmt(text).ok()?;
    let unused = free.len();
    action(std::str::from_utf8(bytes.get(..bytes.len() - unused)?).ok()?)
}

pub fn comm(tid: Tid) -> Option<Comm> {
    Some(text::comm(ProcText::read(tid, "comm")?.as_bytes()))
}

pub fn tgid(tid: Tid) -> Option<Tid> {
    text::tgid(ProcText::read(tid, "status")?.as_bytes())
}

/// Returns the most specific control group of a task: that of the cpu controller if it is not the
/// root, else that of the unified hierarchy. `None` if the tid belongs to a task with another
/// start.
pub fn cgroup(tid: Tid, start: u64) -> Option<String> {
    let groups = fs::read(format!("/proc/{tid}/cgroup")).ok()?;
    if start != 0 && self::start(tid)? != start {
        return None;
    }
    text::cgroup(&groups)
}

/// Returns the highest real-time priority that a task without privileges may set for itself. The
/// file needs no capability. prlimit(2) needs CAP_SYS_RESOURCE.
pub(crate) fn priority_limit(tid: Tid) -> Option<u64> {
    text::priority_limit(ProcText::read(tid, "limits")?.as_bytes())
}

/// Returns the state of a task, as the letter that ps(1) shows. A zombie is Z.
pub fn state(tid: Tid) -> Option<u8> {
    text::state(ProcText::stat(tid).ok()?.as_bytes())
}

/// Where a task is queued, and with which priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The CPU on which it runs or waits, or ran last.
    pub cpu: Cpu,
    /// Its priority on the kernel's scale.
    pub prio: i32,
    /// Whether it runs or waits for a CPU.
    pub is_runnable: bool,
}

/// Reads where a task is queued; `None` if it has ended.
pub(crate) fn standing(tid: Tid) -> Option<Standing> {
    text::standing(ProcText::stat(tid).ok()?.as_bytes())
}

/// Returns the start of a task, in clock ticks since boot.
pub fn start(tid: Tid) -> Option<u64> {
    try_start(tid).ok().flatten()
}

/// The errno for a task that exists and that /proc does not show (hidepid). No system call for
/// scheduling fails with this errno.
pub const HIDDEN: i32 = libc::ENOENT;

/// Returns the start of a task; `None` only if the task has ended. The error is [`HIDDEN`] if /proc
/// does not show the task, and another one if memory or descriptors are short.
pub fn try_start(tid: Tid) -> io::Result<Option<u64>> {
    let exists = || sched::get_attr(tid).err().and_then(|e| e.raw_os_error()) != Some(libc::ESRCH);
    start_of(|| ProcText::stat(tid), exists)
}

fn start_of(read: impl Fn() -> io::Result<ProcText>, exists: impl Fn() -> bool) -> io::Result<Option<u64>> {
    let mut is_second = false;
    loop {
        match read() {
            Ok(stat) => {
                return text::start(stat.as_bytes()).map(Some).ok_or(io::ErrorKind::InvalidData.into());
            }
            Err(e) if !is_missing(&e) => return Err(e),
            Err(_) if is_second && !fault::is(Fault::HiddenIsGone) => {
                return Err(io::Error::from_raw_os_error(HIDDEN));
            }
            Err(_) if is_second || !exists() => return Ok(None),
            // Between the two checks, the tid may have been reused. Read /proc once more.
            Err(_) => is_second = true,
        }
    }
}

/// Returns whether the error means that /proc has no such task, or does not show it. With hidepid=1
/// /proc denies access, with other values it hides the task.
fn is_missing(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM))
}

/// Reads a task: the CPU on which it runs or ran last, its scheduling and its name.
pub fn task(tid: Tid) -> Option<Task> {
    let stat = ProcText::stat(tid).ok()?;
    let (status, comm) = (ProcText::read(tid, "status")?, ProcText::read(tid, "comm")?);
    text::task(tid, stat.as_bytes(), status.as_bytes(), comm.as_bytes())
}

/// Returns the owner of a task, as far as /proc shows it.
pub fn owner(tid: Tid) -> Owner {
    let read = |name| ProcText::read(tid, name);
    let of_process = || {
        let (status, uid_map) = (read("status")?, read("uid_map")?);
        text::owner(status.as_bytes(), uid_map.as_bytes())
    };
    match ProcText::stat(tid).ok().and_then(|stat| text::is_kernel_thread(stat.as_bytes())) {
        Some(true) => Owner::Kernel,
        Some(false) => of_process().unwrap_or_default(),
        None => Owner::Unknown,
    }
}

/// Returns whether no user may change the affinity of a task, as of the kernel's threads of one
/// CPU; `None` if that is not known.
pub fn is_bound(tid: Tid) -> Option<bool> {
    text::is_bound(ProcText::stat(tid).ok()?.as_bytes())
}

/// Returns the effective user of a task.
pub fn uid(tid: Tid) -> Option<u32> {
    with_stack_str(format_args!("/proc/{tid}"), |path| fs::metadata(path).ok())
        .map(|directory| directory.uid())
}

/// Returns /proc/TID/schedstat; `None` if the kernel does not count there. Then it shows zeros,
/// which are true for a task that has never run, but not for the calling thread.
fn schedstat(tid: Tid) -> Option<ProcText> {
    let text = ProcText::read(tid, "schedstat")?;
    let is_true = !text::counts_nothing(text.as_bytes())
        || !text::counts_nothing(ProcText::read(sched::gettid(), "schedstat")?.as_bytes());
    is_true.then_some(text)
}

/// Returns how often a task got a CPU; `None` if the kernel does not count that.
pub fn runs(tid: Tid) -> Option<u64> {
    text::runs(schedstat(tid)?.as_bytes())
}

/// Returns the CPU time that a task has used; `None` if the kernel does not count that.
pub fn cpu_time(tid: Tid) -> Option<Nanos> {
    text::cpu_time(schedstat(tid)?.as_bytes())
}

/// Returns for how long a task has waited for a CPU, all its waits together; `None` if the kernel
/// does not count that.
pub fn waited(tid: Tid) -> Option<Nanos> {
    text::waited(schedstat(tid)?.as_bytes())
}

/// Returns the timer slack of a task, in ns.
pub fn timer_slack(tid: Tid) -> Option<u64> {
    text::number(ProcText::read(tid, "timerslack_ns")?.as_bytes())
}

pub fn set_timer_slack(tid: Tid, slack: u64) -> Option<()> {
    let open = |path: &str| File::options().write(true).open(path).ok();
    let mut file = with_stack_str(format_args!("/proc/{tid}/timerslack_ns"), open)?;
    // Use a single write(2), because each one sets the slack.
    with_stack_str(format_args!("{slack}"), |slack| file.write_all(slack.as_bytes()).ok())
}

/// Returns whether a task is a thread of this process.
pub fn is_own_thread(tid: Tid) -> bool {
    with_stack_str(format_args!("/proc/self/task/{tid}"), |path| fs::symlink_metadata(path).ok()).is_some()
}

/// Returns all processes.
pub fn processes() -> Vec<Tid> {
    numbers("/proc")
}

/// Returns the threads of a process, in the order of their start.
pub fn threads(tgid: Tid) -> Vec<Tid> {
    numbers(&format!("/proc/{tgid}/task"))
}

/// Returns the first `most` threads of a process.
pub fn first_threads(tgid: Tid, most: usize) -> Vec<Tid> {
    each_number(&format!("/proc/{tgid}/task")).take(most).collect()
}

fn numbers(directory: &str) -> Vec<Tid> {
    each_number(directory).collect()
}

fn each_number(directory: &str) -> impl Iterator<Item = Tid> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Tid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Sched;

    #[test]
    fn this_thread_has_a_name_a_process_and_a_start() {
        let tid = sched::gettid();
        assert_eq!(tgid(tid), Some(Tid(std::process::id() as i32)));
        assert!(comm(tid).is_some() && start(tid).is_some_and(|start| start > 0));
        assert!(threads(Tid(std::process::id() as i32)).contains(&tid));
        assert!(cgroup(tid, start(tid).unwrap_or(0)).is_none_or(|path| path.starts_with('/')));
        assert_eq!(cgroup(tid, 1), None);
    }

    #[test]
    fn a_task_has_the_properties_that_the_kernel_shows() {
        let own = task(sched::gettid()).unwrap();
        assert_eq!((own.tgid, own.comm), (tgid(own.tid), comm(own.tid).unwrap()));
        let attr = sched::get_attr(own.tid).unwrap();
        assert_eq!(own.sched, Sched { policy: Some(attr.policy), prio: 120 + attr.nice });
        assert_eq!(task(Tid(i32::MAX)), None);
    }

    #[test]
    fn a_process_that_does_not_exist_has_nothing() {
        let nobody = Tid(i32::MAX);
        assert_eq!((tgid(nobody), start(nobody), runs(nobody)), (None, None, None));
        assert!(threads(nobody).is_empty() && births::birth(nobody).is_none());
    }

    #[test]
    fn only_a_task_that_the_kernel_does_not_know_has_ended() {
        let failing = |errno: i32, exists: bool| {
            let outcome = start_of(|| Err(io::Error::from_raw_os_error(errno)), || exists);
            outcome.map_err(|e| e.raw_os_error())
        };
        for errno in [libc::ENOENT, libc::ESRCH, libc::EACCES, libc::EPERM] {
            assert_eq!(failing(errno, false), Ok(None));
            assert_eq!(failing(errno, true), Err(Some(HIDDEN)));
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            assert_eq!(failing(errno, false), Err(Some(errno)));
        }
        assert_eq!(try_start(Tid(i32::MAX)).unwrap(), None);
    }

    #[test]
    fn a_task_that_is_shown_at_the_second_try_is_not_hidden() {
        let tries = std::cell::Cell::new(0);
        let read = || {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            ProcText::stat(sched::gettid())
        };
        assert_eq!(start_of(read, || true).unwrap(), start(sched::gettid()));
    }
}
