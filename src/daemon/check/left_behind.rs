//! Finds tasks that a killed C stalld has left boosted.

use crate::sys::sched::{self, Attr};
use crate::task::{Comm, Nanos, Policy, Tid};
use std::fs;
use std::path::Path;

/// The default runtime of a boost by the C program.
const RUNTIME: Nanos = Nanos::from_micros(20);
/// The default period of a boost by the C program.
const PERIOD: Nanos = Nanos::from_secs(1);

/// A task that a C stalld has left boosted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftBehind {
    pub tid: Tid,
    pub comm: Comm,
}

/// Returns all such tasks, in the order of their tids.
pub(super) fn scan(root: &Path) -> Vec<LeftBehind> {
    scan_by(root, |tid| sched::get_attr(tid).ok())
}

fn scan_by(root: &Path, attr: impl Fn(Tid) -> Option<Attr>) -> Vec<LeftBehind> {
    let proc = root.join("proc");
    let mut found: Vec<LeftBehind> = (numbers(&proc).into_iter())
        .flat_map(|pid| {
            let tasks = proc.join(pid.to_string()).join("task");
            numbers(&tasks).into_iter().map(move |tid| (tid, tasks.join(tid.to_string())))
        })
        .filter(|(tid, _)| attr(*tid).is_some_and(|attr| is_left_behind(&attr)))
        .map(|(tid, dir)| {
            let name = fs::read(dir.join("comm")).unwrap_or_default();
            LeftBehind { tid, comm: Comm::new(name.strip_suffix(b"\n").unwrap_or(&name)) }
        })
        .collect();
    found.sort_by_key(|task| task.tid);
    found
}

/// Returns whether this is a boost by the C program. A boost by this program has reset-on-fork set.
fn is_left_behind(attr: &Attr) -> bool {
    attr.policy == Policy::DEADLINE
        && (attr.runtime, attr.period) == (RUNTIME, PERIOD)
        && !attr.reset_on_fork()
}

/// Returns the entries of a directory that are numbers.
fn numbers(dir: &Path) -> Vec<Tid> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Tid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;

    #[test]
    fn threads_in_a_boost_that_is_not_ours_are_found() {
        let root = Scratch::new("left-behind");
        root.file("proc/100/task/100/comm", "leader\n");
        root.file("proc/100/task/101/comm", "bad\x1b\nname\n");
        root.file("proc/20/task/20/comm", "other\n");
        root.file("proc/self/task/7/comm", "me\n");
        let boosted = Attr {
            policy: Policy::DEADLINE,
            runtime: RUNTIME,
            deadline: PERIOD,
            period: PERIOD,
            ..Attr::default()
        };
        let others = [
            None,
            Some(Attr::default()),
            Some(Attr { flags: sched::RESET_ON_FORK, ..boosted }),
            Some(Attr { runtime: RUNTIME + RUNTIME, ..boosted }),
        ];
        for other in others {
            let found = scan_by(root.path(), |tid| if tid == Tid(100) { other } else { Some(boosted) });
            let tids: Vec<Tid> = found.iter().map(|task| task.tid).collect();
            assert_eq!(tids, [Tid(20), Tid(101)], "{other:?}");
            assert_eq!(found[1].comm.to_string(), "bad\\x1b\\x0aname");
        }
    }
}
