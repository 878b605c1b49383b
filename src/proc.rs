//! What /proc tells of a task.

use crate::task::{Comm, Escaped, Tid};
use std::fs;

pub fn comm(tid: Tid) -> Option<Comm> {
    let name = fs::read(format!("/proc/{tid}/comm")).ok()?;
    Some(Comm::new(name.strip_suffix(b"\n").unwrap_or(&name)))
}

pub fn tgid(tid: Tid) -> Option<Tid> {
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    // The name, which comes first, has its newlines escaped.
    let line = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok().map(Tid)
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
    stat(tid)?.first().copied()
}

/// When it started, in clock ticks since boot.
pub fn start(tid: Tid) -> Option<u64> {
    std::str::from_utf8(stat(tid)?.split(|&b| b == b' ').nth(19)?).ok()?.parse().ok()
}

/// What follows the name, which may hold blanks and parentheses; nothing behind it does.
fn stat(tid: Tid) -> Option<Vec<u8>> {
    let stat = fs::read(format!("/proc/{tid}/stat")).ok()?;
    Some(stat.get(stat.iter().rposition(|&b| b == b')')? + 2..)?.to_vec())
}

/// How often it has been given a CPU; None without CONFIG_SCHED_INFO.
pub fn runs(tid: Tid) -> Option<u64> {
    let schedstat = fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
    schedstat.split_whitespace().nth(2)?.parse().ok()
}

/// The threads of its process.
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
    fn a_process_that_does_not_exist_has_nothing() {
        let nobody = Tid(i32::MAX);
        assert_eq!((tgid(nobody), start(nobody), runs(nobody)), (None, None, None));
        assert!(threads(nobody).is_empty() && children(nobody, nobody).is_empty());
    }
}
