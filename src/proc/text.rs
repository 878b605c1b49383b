//! Parses files of /proc. Each function takes the text of a file, which may be cut off at its end.

use super::Standing;
use crate::task::{Comm, Cpu, Escaped, Nanos, Owner, Policy, Sched, Task, Tid};

/// /proc/TID/comm: the name.
pub fn comm(text: &[u8]) -> Comm {
    Comm::new(text.strip_suffix(b"\n").unwrap_or(text))
}

/// /proc/TID/status: the process.
pub fn tgid(status: &[u8]) -> Option<Tid> {
    // The name of the task comes first. Its newlines are escaped, so it can't fake this line.
    let line = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"))?;
    number(line).map(Tid)
}

/// /proc/TID/cgroup: the most specific control group, which is that of the cpu controller if it is
/// not the root, else that of the unified hierarchy.
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

/// /proc/TID/stat: the state, as the letter that ps(1) shows.
pub fn state(stat: &[u8]) -> Option<u8> {
    after_name(stat)?.first().copied()
}

/// /proc/TID/stat: the parent process.
pub(super) fn parent(stat: &[u8]) -> Option<Tid> {
    number(field(stat, 1)?).map(Tid)
}

/// /proc/TID/stat: the priority on the kernel's scale, which is 100 above the field.
pub(super) fn prio(stat: &[u8]) -> Option<i32> {
    number::<i32>(field(stat, 15)?)?.checked_add(100)
}

/// /proc/TID/stat: the CPU on which the task runs or ran last.
fn cpu(stat: &[u8]) -> Option<Cpu> {
    number(field(stat, 36)?).map(Cpu)
}

/// /proc/TID/stat: where the task is queued.
pub(super) fn standing(stat: &[u8]) -> Option<Standing> {
    Some(Standing { cpu: cpu(stat)?, prio: prio(stat)?, is_runnable: state(stat)? == b'R' })
}

/// /proc/TID/limits: the highest real-time priority that the task may set without a privilege.
pub(super) fn priority_limit(limits: &[u8]) -> Option<u64> {
    let mut lines = limits.split(|&b| b == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(b"Max realtime priority"))?;
    let hard = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty()).nth(1)?;
    if hard == b"unlimited" { Some(u64::MAX) } else { number(hard) }
}

/// /proc/TID/stat: whether it is a kernel thread.
pub(super) fn is_kernel_thread(stat: &[u8]) -> Option<bool> {
    const PF_KTHREAD: u32 = 0x0020_0000;
    Some(flags(stat)? & PF_KTHREAD != 0)
}

/// /proc/TID/stat: whether no user may change its affinity.
pub(super) fn is_bound(stat: &[u8]) -> Option<bool> {
    const PF_NO_SETAFFINITY: u32 = 0x0400_0000;
    Some(flags(stat)? & PF_NO_SETAFFINITY != 0)
}

fn flags(stat: &[u8]) -> Option<u32> {
    number(field(stat, 6)?)
}

/// /proc/TID/status and /proc/TID/uid_map: the owner of a task that is no kernel thread.
/// Capabilities count only if the task's user namespace has all users of the initial one. No
/// unprivileged user can create such a namespace.
pub(super) fn owner(status: &[u8], uid_map: &[u8]) -> Option<Owner> {
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

/// /proc/TID/stat: the start, in clock ticks since boot.
pub fn start(stat: &[u8]) -> Option<u64> {
    number(field(stat, 19)?)
}

/// /proc/TID/stat, /proc/TID/status and /proc/TID/comm: the task.
pub fn task(tid: Tid, stat: &[u8], status: &[u8], comm: &[u8]) -> Option<Task> {
    Some(Task {
        tid,
        tgid: Some(tgid(status)?),
        cpu: cpu(stat)?,
        start: start(stat)?,
        sched: Sched { policy: Some(Policy(number(field(stat, 38)?)?)), prio: prio(stat)? },
        comm: self::comm(comm),
        ..Task::default()
    })
}

/// Returns a field after the name. Field 0 is the state.
fn field(stat: &[u8], index: usize) -> Option<&[u8]> {
    after_name(stat)?.split(|&b| b == b' ').nth(index)
}

/// Returns the text after the name. Only the name may contain parentheses.
fn after_name(stat: &[u8]) -> Option<&[u8]> {
    stat.get(stat.iter().rposition(|&b| b == b')')? + 2..)
}

/// /proc/TID/schedstat: whether all counts are 0, as they are if the kernel does not count.
pub fn counts_nothing(schedstat: &[u8]) -> bool {
    schedstat.trim_ascii() == b"0 0 0"
}

/// /proc/TID/schedstat: how often it has been given a CPU.
pub fn runs(schedstat: &[u8]) -> Option<u64> {
    number(schedstat.split(|&b| b == b' ').nth(2)?)
}

/// /proc/TID/schedstat: the CPU time that it has used.
pub fn cpu_time(schedstat: &[u8]) -> Option<Nanos> {
    number(schedstat.split(|&b| b == b' ').next()?).map(Nanos)
}

/// /proc/TID/schedstat: how long it has waited for a CPU.
pub fn waited(schedstat: &[u8]) -> Option<Nanos> {
    number(schedstat.split(|&b| b == b' ').nth(1)?).map(Nanos)
}

/// /proc/loadavg: the number of runnable tasks on the whole machine.
pub fn runnable(loadavg: &[u8]) -> Option<u32> {
    // 0.31 0.08 0.03 1/90 4907: the fourth is runnable/all.
    number(loadavg.split(|&b| b == b' ').nth(3)?.split(|&b| b == b'/').next()?)
}

/// /proc/loadavg: the number of all tasks.
#[cfg(any(feature = "bpf", test))]
pub(crate) fn tasks(loadavg: &[u8]) -> Option<u32> {
    number(loadavg.split(|&b| b == b' ').nth(3)?.split(|&b| b == b'/').nth(1)?)
}

/// /proc/loadavg: the tid that was assigned last.
pub(super) fn newest(loadavg: &[u8]) -> Option<i32> {
    number(loadavg.split(|&b| b == b' ').nth(4)?)
}

/// Parses a number with or without blanks around it.
pub fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_no_counts() {
        assert!(counts_nothing(b"0 0 0\n"));
        assert!(!counts_nothing(b"0 0 1\n") && !counts_nothing(b"1 0 0\n") && !counts_nothing(b""));
    }

    #[test]
    fn the_group_of_the_cpu_controller_is_preferred_unless_it_is_the_root() {
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
    fn the_limit_of_real_time_priorities_is_the_hard_one() {
        for (limits, expected) in [
            ("Max nice priority  0  0\nMax realtime priority     10      20      \nMax x  1  1\n", Some(20)),
            ("Max realtime priority     0                    0                    \n", Some(0)),
            ("Max realtime priority     0                    unlimited            \n", Some(u64::MAX)),
            ("Max nice priority  0  0\n", None),
        ] {
            assert_eq!(priority_limit(limits.as_bytes()), expected, "{limits:?}");
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
        assert_eq!(is_bound(b"2 (kthreadd) S 0 0 0 0 -1 2129984 0"), Some(false));
        assert_eq!(is_bound(b"14 (ksoftirqd/0) S 2 0 0 0 -1 69238848 0"), Some(true));
        assert_eq!(is_bound(b"7 (x) S"), None);
    }

    #[test]
    fn a_task_is_queued_on_a_cpu_with_a_priority() {
        let stat = |state: &str| {
            let between = |first: u32, last: u32| (first..=last).map(|n| format!(" {n}")).collect::<String>();
            format!("7 (a) R 9) {state}{} -51{} 3{}", between(1, 14), between(16, 35), between(37, 49))
        };
        let standing = |is_runnable| Some(Standing { cpu: Cpu(3), prio: 49, is_runnable });
        assert_eq!(super::standing(stat("R").as_bytes()), standing(true));
        assert_eq!(super::standing(stat("S").as_bytes()), standing(false));
        assert_eq!(super::standing(b"7 (a) R 1 2"), None);
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
