//! What /proc tells of a task.

pub mod births;
pub mod text;

use crate::fault::{self, Fault};
use crate::sys::sched;
use crate::task::{Comm, Owner, Task, Tid};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;

/// The beginning of a file of /proc, on the stack: who is about to boost must not have to wait for
/// memory.
struct Text {
    bytes: [u8; Text::SIZE],
    len: usize,
}

impl Text {
    const SIZE: usize = 2048;

    fn read(tid: Tid, name: &str) -> Option<Text> {
        Text::try_read(tid, name).ok()
    }

    fn try_read(tid: Tid, name: &str) -> io::Result<Text> {
        Text::try_of(format_args!("/proc/{tid}/{name}"))
    }

    fn try_of(path: fmt::Arguments) -> io::Result<Text> {
        let open = |path: &str| Some(File::open(path));
        let mut file = with(path, open).ok_or(io::ErrorKind::InvalidInput)??;
        let mut text = Text { bytes: [0; Text::SIZE], len: 0 };
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

/// Does something with a short text that is put together on the stack.
pub fn with<T>(text: fmt::Arguments, action: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut bytes = [0; 64];
    let mut free = bytes.as_mut_slice();
    free.write_fmt(text).ok()?;
    let unused = free.len();
    action(std::str::from_utf8(bytes.get(..bytes.len() - unused)?).ok()?)
}

pub fn comm(tid: Tid) -> Option<Comm> {
    Some(text::comm(Text::read(tid, "comm")?.as_bytes()))
}

pub fn tgid(tid: Tid) -> Option<Tid> {
    text::tgid(Text::read(tid, "status")?.as_bytes())
}

/// The control group that tells most of it: that of the cpu controller where it is not the root,
/// else that of the unified hierarchy.
pub fn cgroup(tid: Tid, start: u64) -> Option<String> {
    let groups = fs::read(format!("/proc/{tid}/cgroup")).ok()?;
    if start != 0 && self::start(tid)? != start {
        return None;
    }
    text::cgroup(&groups)
}

/// Its state, as the letter that ps shows: a zombie is Z.
pub fn state(tid: Tid) -> Option<u8> {
    text::state(Text::read(tid, "stat")?.as_bytes())
}

/// When it started, in clock ticks since boot.
pub fn start(tid: Tid) -> Option<u64> {
    try_start(tid).ok().flatten()
}

/// The number of the error for a task that exists, and that this /proc does not show (hidepid). No
/// system call on a task's schedule fails with it.
pub const HIDDEN: i32 = libc::ENOENT;

/// The same, with the reason if it can't be told: the error [`HIDDEN`] for a task that /proc does
/// not show, another one for want of memory or descriptors. Returns `None` only for a task that has
/// ended.
pub fn try_start(tid: Tid) -> io::Result<Option<u64>> {
    let exists = || sched::get_attr(tid).err().and_then(|e| e.raw_os_error()) != Some(libc::ESRCH);
    start_of(|| Text::try_read(tid, "stat"), exists)
}

fn start_of(read: impl Fn() -> io::Result<Text>, exists: impl Fn() -> bool) -> io::Result<Option<u64>> {
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
            // The number may have been given to the next task in between, so /proc is asked once
            // more.
            Err(_) => is_second = true,
        }
    }
}

/// Whether /proc says that there is no such task, or that this process may not know. hidepid=1
/// refuses, other values hide.
fn is_missing(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM))
}

/// All that is shown of it in one moment: where it runs or ran last, and how it is scheduled.
pub fn task(tid: Tid) -> Option<Task> {
    let [stat, status, comm] = ["stat", "status", "comm"].map(|name| Text::read(tid, name));
    text::task(tid, stat?.as_bytes(), status?.as_bytes(), comm?.as_bytes())
}

/// Returns the owner of a task, as far as /proc shows it.
pub fn owner(tid: Tid) -> Owner {
    let read = |name| Text::read(tid, name);
    let of_process = || {
        let (status, uid_map) = (read("status")?, read("uid_map")?);
        text::owner(status.as_bytes(), uid_map.as_bytes())
    };
    match read("stat").and_then(|stat| text::is_kernel_thread(stat.as_bytes())) {
        Some(true) => Owner::Kernel,
        Some(false) => of_process().unwrap_or_default(),
        None => Owner::Unknown,
    }
}

/// Returns the effective user of a task.
pub fn uid(tid: Tid) -> Option<u32> {
    with(format_args!("/proc/{tid}"), |path| fs::metadata(path).ok()).map(|directory| directory.uid())
}

/// How often it has been given a CPU; None without CONFIG_SCHED_INFO.
pub fn runs(tid: Tid) -> Option<u64> {
    text::runs(Text::read(tid, "schedstat")?.as_bytes())
}

/// By how much its timers may be late, in ns.
pub fn timer_slack(tid: Tid) -> Option<u64> {
    text::number(Text::read(tid, "timerslack_ns")?.as_bytes())
}

pub fn set_timer_slack(tid: Tid, slack: u64) -> Option<()> {
    let open = |path: &str| File::options().write(true).open(path).ok();
    let mut file = with(format_args!("/proc/{tid}/timerslack_ns"), open)?;
    // In one piece: each write sets it.
    with(format_args!("{slack}"), |slack| file.write_all(slack.as_bytes()).ok())
}

/// Whether it is a thread of this process.
pub fn is_own_thread(tid: Tid) -> bool {
    with(format_args!("/proc/self/task/{tid}"), |path| fs::symlink_metadata(path).ok()).is_some()
}

/// All processes that there are.
pub fn processes() -> Vec<Tid> {
    numbers("/proc")
}

/// The threads of its process, in the order in which they were started.
pub fn threads(tgid: Tid) -> Vec<Tid> {
    numbers(&format!("/proc/{tgid}/task"))
}

/// The first of them, at most so many.
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
    fn a_task_is_what_the_kernel_says_it_is() {
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
    fn a_task_that_is_shown_at_the_second_look_is_not_hidden() {
        let looks = std::cell::Cell::new(0);
        let read = || {
            looks.set(looks.get() + 1);
            if looks.get() == 1 {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            Text::try_read(sched::gettid(), "stat")
        };
        assert_eq!(start_of(read, || true).unwrap(), start(sched::gettid()));
    }
}
