//! Facts about the machine, which the kernel shows in /proc and /sys.
//!
//! Each function reads below a `root`, which is `/` except in tests.

pub mod debugfs;
pub mod mounts;
pub mod own_file;
pub mod privilege;
pub mod settings;

use crate::cpus::CpuSet;
use crate::task::Nanos;
use std::fs::{self, File};
use std::path::Path;

// The initial namespaces have fixed numbers.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
const INITIAL_TIME_NAMESPACE: &str = "time:[4026531834]";

/// The most CPUs that a kernel can be configured for.
pub(crate) const MOST_CPUS: u32 = 8192;

/// Returns the release of the kernel, such as `6.12.33-rt-amd64`.
pub fn kernel_release(root: &Path) -> Option<String> {
    line(root, "proc/sys/kernel/osrelease")
}

/// Returns the major and the minor number of a release.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub fn online_cpus(root: &Path) -> Option<CpuSet> {
    CpuSet::parse(&line(root, "sys/devices/system/cpu/online")?, MOST_CPUS).ok()
}

/// Returns whether the kernel has BTF, by which libbpf fits BPF programs to the kernel's types.
pub fn has_btf(root: &Path) -> bool {
    File::open(root.join("sys/kernel/btf/vmlinux")).is_ok()
}

/// Returns whether the kernel records when a task is queued. Without CONFIG_SCHED_INFO,
/// /proc/self/schedstat is missing. With `nodelayacct`, it counts no runs of this process.
pub fn stamps_queued_tasks(root: &Path) -> bool {
    let runs = || line(root, "proc/self/schedstat")?.split(' ').nth(2)?.parse::<u64>().ok();
    runs().is_some_and(|runs| runs > 0)
}

/// RT throttling: the part of each period that real-time tasks may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling {
    /// Below 0 there is no limit.
    pub runtime_us: i64,
    pub period_us: i64,
}

impl Throttling {
    pub fn is_off(&self) -> bool {
        self.runtime_us < 0
    }
}

pub fn throttling(root: &Path) -> Option<Throttling> {
    let number = |name: &str| line(root, &format!("proc/sys/kernel/{name}"))?.parse().ok();
    Some(Throttling { runtime_us: number("sched_rt_runtime_us")?, period_us: number("sched_rt_period_us")? })
}

/// Returns how long a CPU may delay RCU before the kernel logs a stall; `None` if it never does.
pub fn rcu_stall_timeout(root: &Path) -> Option<Nanos> {
    let parameters = "sys/module/rcupdate/parameters";
    match line(root, &format!("{parameters}/rcu_cpu_stall_suppress")) {
        Some(suppress) if suppress != "0" => None,
        _ => seconds(root, &format!("{parameters}/rcu_cpu_stall_timeout")),
    }
}

/// Returns how long a task may be blocked before the kernel logs it; `None` if it never does.
pub fn hung_task_timeout(root: &Path) -> Option<Nanos> {
    seconds(root, "proc/sys/kernel/hung_task_timeout_secs")
}

/// The namespace of this process, for one kind of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The initial namespace, with which the kernel starts.
    Initial,
    Other,
    Unknown,
}

/// Returns the pid namespace. Only in the initial one, this process and the kernel have the same
/// tids.
pub fn pid_namespace(root: &Path) -> Namespace {
    namespace(root, "pid", INITIAL_PID_NAMESPACE)
}

/// Returns the user namespace. Only in the initial one, capabilities apply to the whole machine.
pub fn user_namespace(root: &Path) -> Namespace {
    namespace(root, "user", INITIAL_USER_NAMESPACE)
}

/// Returns the time namespace. Only in the initial one, this process and the kernel have the same
/// start times of tasks. It is unknown before 5.6, which has no time namespaces.
pub fn time_namespace(root: &Path) -> Namespace {
    namespace(root, "time", INITIAL_TIME_NAMESPACE)
}

/// Returns the number of files that this process may have open; `None` if there is no limit, or if
/// it is unknown.
pub fn descriptor_limit(root: &Path) -> Option<u64> {
    let limits = fs::read_to_string(root.join("proc/self/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn namespace(root: &Path, kind: &str, initial: &str) -> Namespace {
    match fs::read_link(root.join("proc/self/ns").join(kind)) {
        Ok(own) if own.as_os_str() == initial => Namespace::Initial,
        Ok(_) => Namespace::Other,
        Err(_) => Namespace::Unknown,
    }
}

/// Returns the text of a file that has one line.
pub(crate) fn line(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim_end().to_string())
}

/// Reads a number of seconds; `None` for 0, which means never.
fn seconds(root: &Path, path: &str) -> Option<Nanos> {
    line(root, path)?.parse().ok().filter(|&secs| secs > 0).map(Nanos::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_version_is_parsed_from_a_release() {
        let root = Scratch::new("host-release");
        assert_eq!(kernel_release(root.path()), None);
        root.file("proc/sys/kernel/osrelease", "5.10.0-34-rt-amd64\n");
        assert_eq!(kernel_release(root.path()).as_deref(), Some("5.10.0-34-rt-amd64"));
        assert_eq!(kernel_version("5.10.0-34-rt-amd64"), Some((5, 10)));
        assert_eq!(kernel_version("7.2-rc1"), Some((7, 2)));
        assert_eq!(kernel_version("5"), None);
        assert_eq!(kernel_version("linux"), None);
    }

    #[test]
    fn btf_is_there_or_not() {
        let root = Scratch::new("host-btf");
        assert!(!has_btf(root.path()));
        root.file("sys/kernel/btf/vmlinux", "");
        assert!(has_btf(root.path()));
    }

    #[test]
    fn the_cpus_that_are_online_are_a_list() {
        let root = Scratch::new("host-online");
        assert_eq!(online_cpus(root.path()), None);
        root.file("sys/devices/system/cpu/online", "0-1,3\n");
        assert_eq!(online_cpus(root.path()).unwrap().to_string(), "0-1,3");
    }

    #[test]
    fn a_process_that_never_ran_shows_that_nothing_is_stamped() {
        let root = Scratch::new("host-schedstat");
        assert!(!stamps_queued_tasks(root.path()));
        root.file("proc/self/schedstat", "0 0 0\n");
        assert!(!stamps_queued_tasks(root.path()));
        root.file("proc/self/schedstat", "360015 76985 2\n");
        assert!(stamps_queued_tasks(root.path()));
    }

    #[test]
    fn throttling_is_off_below_0_only() {
        let root = Scratch::new("host-throttling");
        assert_eq!(throttling(root.path()), None);
        root.file("proc/sys/kernel/sched_rt_period_us", "1000000\n");
        for (runtime, off) in [("950000\n", false), ("0\n", false), ("-1\n", true)] {
            root.file("proc/sys/kernel/sched_rt_runtime_us", runtime);
            assert_eq!(throttling(root.path()).unwrap().is_off(), off);
        }
    }

    #[test]
    fn a_stall_timeout_counts_unless_stalls_are_not_reported() {
        let root = Scratch::new("host-stall");
        assert_eq!(rcu_stall_timeout(root.path()), None);
        root.file("sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", "21\n");
        assert_eq!(rcu_stall_timeout(root.path()), Some(Nanos::from_secs(21)));
        root.file("sys/module/rcupdate/parameters/rcu_cpu_stall_suppress", "0\n");
        assert_eq!(rcu_stall_timeout(root.path()), Some(Nanos::from_secs(21)));
        root.file("sys/module/rcupdate/parameters/rcu_cpu_stall_suppress", "1\n");
        assert_eq!(rcu_stall_timeout(root.path()), None);
    }

    #[test]
    fn a_hung_task_timeout_of_0_is_none() {
        let root = Scratch::new("host-hung");
        assert_eq!(hung_task_timeout(root.path()), None);
        root.file("proc/sys/kernel/hung_task_timeout_secs", "120\n");
        assert_eq!(hung_task_timeout(root.path()), Some(Nanos::from_secs(120)));
        root.file("proc/sys/kernel/hung_task_timeout_secs", "0\n");
        assert_eq!(hung_task_timeout(root.path()), None);
    }

    #[test]
    fn the_soft_limit_on_descriptors_counts() {
        let root = Scratch::new("host-limits");
        assert_eq!(descriptor_limit(root.path()), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        root.file("proc/self/limits", limits);
        assert_eq!(descriptor_limit(root.path()), Some(1024));
        root.file("proc/self/limits", &limits.replace("1024", "unlimited"));
        assert_eq!(descriptor_limit(root.path()), None);
    }

    #[test]
    fn a_namespace_is_known_by_its_number() {
        let root = Scratch::new("host-namespace");
        assert_eq!(pid_namespace(root.path()), Namespace::Unknown);
        fs::create_dir_all(root.join("proc/self/ns")).unwrap();
        symlink("pid:[4026531836]", root.join("proc/self/ns/pid")).unwrap();
        symlink("user:[4026532198]", root.join("proc/self/ns/user")).unwrap();
        assert_eq!(pid_namespace(root.path()), Namespace::Initial);
        assert_eq!(user_namespace(root.path()), Namespace::Other);
    }
}
