//! What /proc tells of a task.

use crate::task::{Comm, Cpu, Escaped, Policy, Sched, Task, Tid};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};

/// The beginning of a file of /proc, on the stack: who is about to boost must not have to wait for memory.
struct Text {
    bytes: [u8; Text::SIZE],
    len: usize,
}

impl Text {
    const SIZE: usize = 1024;

    fn read(tid: Tid, name: &str) -> Option<Text> {
        Text::try_read(tid, name).ok()
    }

    fn try_read(tid: Tid, name: &str) -> io::Result<Text> {
        let open = |path: &str| Some(File::open(path));
        let mut file =
            with(format_args!("/proc/{tid}/{name}"), open).ok_or(io::ErrorKind::InvalidInput)??;
        let mut text = Text { bytes: [0; Text::SIZE], len: 0 };
        text.len = file.read(&mut text.bytes)?;
        Ok(text)
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
    let name = Text::read(tid, "comm")?;
    let name = name.as_bytes();
    Some(Comm::new(name.strip_suffix(b"\n").unwrap_or(name)))
}

pub fn tgid(tid: Tid) -> Option<Tid> {
    let status = Text::read(tid, "status")?;
    // The name, which comes first, has its newlines escaped.
    let line = status.as_bytes().split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"))?;
    number(line.trim_ascii()).map(Tid)
}

/// The control group that tells most of it: that of the cpu controller where it is not the root, else
/// that of the unified hierarchy.
pub fn cgroup(tid: Tid, start: u64) -> Option<String> {
    let groups = fs::read(format!("/proc/{tid}/cgroup")).ok()?;
    if start != 0 && self::start(tid)? != start {
        return None;
    }
    let mut best: Option<&[u8]> = None;
    for line in groups.split(|&b| b == b'\n') {
        let mut fields = line.splitn(3, |&b| b == b':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_cpu = controllers.split(|&b| b == b',').any(|controller| controller == b"cpu");
        if best.is_none() || path != b"/" && (is_cpu || best == Some(b"/")) {
            best = Some(path);
        }
    }
    best.map(|path| Escaped(path).to_string())
}

/// Its state, as the letter that ps shows: a zombie is Z.
pub fn state(tid: Tid) -> Option<u8> {
    after_name(&Text::read(tid, "stat")?)?.first().copied()
}

/// When it started, in clock ticks since boot.
pub fn start(tid: Tid) -> Option<u64> {
    try_start(tid).ok().flatten()
}

/// The same: None where it has ended, and an error where /proc can't tell, for want of memory or descriptors.
pub fn try_start(tid: Tid) -> io::Result<Option<u64>> {
    let stat = match Text::try_read(tid, "stat") {
        Ok(stat) => stat,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let start = after_name(&stat).and_then(|fields| number(fields.split(|&b| b == b' ').nth(19)?));
    start.map(Some).ok_or(io::ErrorKind::InvalidData.into())
}

/// What follows the name, which may hold blanks and parentheses; nothing behind it does.
fn after_name(stat: &Text) -> Option<&[u8]> {
    let stat = stat.as_bytes();
    stat.get(stat.iter().rposition(|&b| b == b')')? + 2..)
}

/// All that is shown of it in one moment: where it runs or ran last, and how it is scheduled.
pub fn task(tid: Tid) -> Option<Task> {
    let stat = Text::read(tid, "stat")?;
    let fields = || after_name(&stat).into_iter().flat_map(|fields| fields.split(|&b| b == b' '));
    // The kernel's scale, 100 below what it is everywhere else.
    let prio = number::<i32>(fields().nth(15)?)? + 100;
    let policy = Some(Policy(number(fields().nth(38)?)?));
    Some(Task {
        tid,
        tgid: Some(tgid(tid)?),
        cpu: Cpu(number(fields().nth(36)?)?),
        start: number(fields().nth(19)?)?,
        sched: Sched { policy, prio },
        comm: comm(tid)?,
        ..Task::default()
    })
}

/// How often it has been given a CPU; None without CONFIG_SCHED_INFO.
pub fn runs(tid: Tid) -> Option<u64> {
    let schedstat = Text::read(tid, "schedstat")?;
    number(schedstat.as_bytes().trim_ascii().split(|&b| b == b' ').nth(2)?)
}

/// By how much its timers may be late, in ns.
pub fn timer_slack(tid: Tid) -> Option<u64> {
    number(Text::read(tid, "timerslack_ns")?.as_bytes().trim_ascii())
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

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The threads of its process, in the order in which they were started.
pub fn threads(tgid: Tid) -> Vec<Tid> {
    let entries = fs::read_dir(format!("/proc/{tgid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Tid)).collect()
}

/// The processes that it has started.
pub fn children(tgid: Tid, tid: Tid) -> Vec<Tid> {
    let children = fs::read_to_string(format!("/proc/{tgid}/task/{tid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok().map(Tid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sched;

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
        assert!(threads(nobody).is_empty() && children(nobody, nobody).is_empty());
    }
}
