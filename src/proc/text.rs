//! What the files of /proc say: each function takes the text of one, or as much of it as there was
//! room for.

use crate::task::{Comm, Cpu, Escaped, Owner, Policy, Sched, Task, Tid};

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

/// /proc/TID/cgroup: the control group that tells most of the task, that of the cpu controller
/// where it is not the root, else that of the unified hierarchy.
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

/// /proc/TID/stat: whether it is a kernel thread.
pub fn is_kernel_thread(stat: &[u8]) -> Option<bool> {
    const PF_KTHREAD: u32 = 0x0020_0000;
    Some(number::<u32>(field(stat, 6)?)? & PF_KTHREAD != 0)
}

/// /proc/TID/status and /proc/TID/uid_map: the owner of a task that is no kernel thread.
/// Capabilities count if the task's user namespace has all users of the initial one, which no
/// unprivileged user can make.
pub fn owner(status: &[u8], uid_map: &[u8]) -> Option<Owner> {
    const CAP_SYS_NICE: u64 = 1 << 23;
    let line = |name: &[u8]| status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(name));
    let uid = number(line(b"Uid:")?.trim_ascii().split(|&b| b == b'\t').next()?)?;
    let permitted = line(b"CapPrm:").and_then(|caps| std::str::from_utf8(caps.trim_ascii()).ok());
    let permitted = permitted.and_then(|caps| u64::from_str_radix(caps, 16).ok()).unwrap_or(0);
    let mut map = uid_map.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let has_all_users = [&b"0"[..], b"0", b"4294967295"].iter().all(|&word| map.next() == Some(word));
    Some(match permitted & CAP_SYS_NICE != 0 && has_all_users {
        true => Owner::Privileged,
        false => Owner::User(uid),
    })
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
    fn a_task_is_privileged_by_a_capability_in_the_initial_user_namespace() {
        let owner = |uid: &str, caps: &str, map: &str| {
            let status = format!("Name:\tUid:\nUid:\t{uid}\t0\t0\t0\nCapInh:\t0\nCapPrm:\t{caps}\n");
            owner(status.as_bytes(), map.as_bytes())
        };
        let initial = "         0          0 4294967295\n";
        let nice = "0000000000800000";
        assert_eq!(owner("0", "000001ffffffffff", initial), Some(Owner::Privileged));
        assert_eq!(owner("1000", nice, initial), Some(Owner::Privileged));
        assert_eq!(owner("0", "00000000a80425fb", initial), Some(Owner::User(0)));
        assert_eq!(owner("1000", "0000000000000000", initial), Some(Owner::User(1000)));
        // Namespaces of a user's own, and one that has no users yet.
        for map in ["0 1000 1\n", "0 0 4294967294\n", "0 1 4294967295\n", ""] {
            assert_eq!(owner("1000", "000001ffffffffff", map), Some(Owner::User(1000)), "{map:?}");
        }
        // A long list of groups leaves no room for the capabilities.
        assert_eq!(
            super::owner(b"Uid:\t7\t7\t7\t7\nGroups:\t1 2 3", initial.as_bytes()),
            Some(Owner::User(7))
        );
        assert_eq!(super::owner(b"", initial.as_bytes()), None);
    }

    #[test]
    fn a_kernel_thread_has_its_flag() {
        assert_eq!(is_kernel_thread(b"2 (kthreadd) S 0 0 0 0 -1 2129984 0"), Some(true));
        assert_eq!(is_kernel_thread(b"7 (cpuhp/0) S 1 7 7 0 -1 4194560 0"), Some(false));
        assert_eq!(is_kernel_thread(b"7 (x) S"), None);
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
