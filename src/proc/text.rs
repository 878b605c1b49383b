//! What the files of /proc say: each function takes the text of one, or as much of it as there was room for.

use crate::task::{Comm, Cpu, Escaped, Policy, Sched, Task, Tid};

/// /proc/TID/comm
pub fn comm(text: &[u8]) -> Comm {
    Comm::new(text.strip_suffix(b"\n").unwrap_or(text))
}

/// /proc/TID/status
pub fn tgid(status: &[u8]) -> Option<Tid> {
    // The name, which comes first, has its newlines escaped.
    let line = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"))?;
    number(line).map(Tid)
}

/// /proc/TID/cgroup: the control group that tells most of the task, that of the cpu controller where it is not the
/// root, else that of the unified hierarchy.
pub fn cgroup(groups: &[u8]) -> Option<String> {
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

/// /proc/TID/stat: the state, as the letter that ps shows.
pub fn state(stat: &[u8]) -> Option<u8> {
    after_name(stat)?.first().copied()
}

/// /proc/TID/stat: the process that has started it.
pub fn parent(stat: &[u8]) -> Option<Tid> {
    number(field(stat, 1)?).map(Tid)
}

/// /proc/TID/stat: when it started, in clock ticks since boot.
pub fn start(stat: &[u8]) -> Option<u64> {
    number(field(stat, 19)?)
}

/// /proc/TID/stat, /proc/TID/status and /proc/TID/comm.
pub fn task(tid: Tid, stat: &[u8], status: &[u8], comm: &[u8]) -> Option<Task> {
    Some(Task {
        tid,
        tgid: Some(tgid(status)?),
        cpu: Cpu(number(field(stat, 36)?)?),
        start: start(stat)?,
        sched: Sched {
            policy: Some(Policy(number(field(stat, 38)?)?)),
            // The kernel's scale, 100 below what it is everywhere else.
            prio: number::<i32>(field(stat, 15)?)?.checked_add(100)?,
        },
        comm: self::comm(comm),
        ..Task::default()
    })
}

/// The fields that follow the name are counted from 0, which is the state.
fn field(stat: &[u8], index: usize) -> Option<&[u8]> {
    after_name(stat)?.split(|&b| b == b' ').nth(index)
}

/// What follows the name, which may hold blanks and parentheses; nothing behind it does.
fn after_name(stat: &[u8]) -> Option<&[u8]> {
    stat.get(stat.iter().rposition(|&b| b == b')')? + 2..)
}

/// /proc/TID/schedstat: how often it has been given a CPU.
pub fn runs(schedstat: &[u8]) -> Option<u64> {
    number(schedstat.split(|&b| b == b' ').nth(2)?)
}

/// /proc/loadavg: how many tasks are runnable on the whole machine.
pub fn runnable(loadavg: &[u8]) -> Option<u32> {
    // 0.31 0.08 0.03 1/90 4907: the fourth is runnable/all.
    number(loadavg.split(|&b| b == b' ').nth(3)?.split(|&b| b == b'/').next()?)
}

/// /proc/loadavg: how many tasks there are.
pub fn tasks(loadavg: &[u8]) -> Option<u32> {
    number(loadavg.split(|&b| b == b' ').nth(3)?.split(|&b| b == b'/').nth(1)?)
}

/// /proc/loadavg: the number that was given to a task last.
pub fn newest(loadavg: &[u8]) -> Option<i32> {
    number(loadavg.split(|&b| b == b' ').nth(4)?)
}

/// A number, and what blanks are around it.
pub fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_the_cpu_controller_tells_most_unless_it_is_the_root() {
        for (groups, expected) in [
            ("0::/user.slice\n", Some("/user.slice")),
            ("4:cpu,cpuacct:/rt\n2:memory:/m\n0::/user.slice\n", Some("/rt")),
            ("4:cpuacct,cpu:/\n0::/user.slice\n", Some("/user.slice")),
            ("0::/a:b\n", Some("/a:b")),
            ("0::/\n", Some("/")),
            ("nonsense\n", None),
            ("", None),
        ] {
            assert_eq!(cgroup(groups.as_bytes()).as_deref(), expected, "{groups:?}");
        }
    }

    #[test]
    fn a_number_that_has_no_room_is_no_number() {
        let stat = |prio: &str| format!("7 (a) b) R{}", format!(" {prio}").repeat(40));
        let read = |prio| task(Tid(7), stat(prio).as_bytes(), b"Name:\ta\nTgid:\t5\n", b"a) b\n");
        assert_eq!(read("20").unwrap().sched.prio, 120);
        assert_eq!((read("2147483647"), read("x")), (None, None));
    }

    #[test]
    fn runnable_tasks_stand_before_the_slash() {
        assert_eq!(runnable(b"0.31 0.08 0.03 2/90 4907\n"), Some(2));
        assert_eq!((runnable(b""), runnable(b"0 0 0 x/90\n")), (None, None));
        assert_eq!(tasks(b"0.31 0.08 0.03 2/90 4907\n"), Some(90));
        assert_eq!(newest(b"0.31 0.08 0.03 2/90 4907\n"), Some(4907));
        assert_eq!((newest(b""), newest(b"0 0 0 2/90 x\n")), (None, None));
    }
}
