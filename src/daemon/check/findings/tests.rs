//! Each test changes one fact, and checks the finding and the verdict that follow.

use super::*;
use crate::cpus::CpuSet;
use crate::daemon::check::facts::Trial;
use crate::daemon::check::left_behind::LeftBehind;
use crate::daemon::options::{self, Command, HostFacts};
use crate::host::debugfs::{HrtickFile, Served};
use crate::host::mounts::Hidepid;
use crate::host::privilege::{Capabilities, Capability, Lockdown};
use crate::host::{Namespace, Throttling};
use crate::sys::trial;
use crate::task::{Comm, Cpu, Nanos, Tid};
use std::io;

/// A host that offers everything.
fn good() -> Facts {
    Facts {
        kernel: Some("6.12.33".to_string()),
        cpus: CpuSet::first(2),
        capabilities: Some(Capabilities::all_but(&[])),
        needs_memlock: false,
        lockdown: Lockdown::Off,
        pid_namespace: Namespace::Initial,
        user_namespace: Namespace::Initial,
        time_namespace: Namespace::Initial,
        hidepid: None,
        sees_kernel_threads: true,
        descriptors: Some(1024),
        btf: true,
        stamps_queued_tasks: true,
        debugfs: Some("/sys/kernel/debug".into()),
        backends: Kind::ALL.map(|kind| (kind, Ok(()))).into(),
        verified: Vec::new(),
        throttling: Some(Throttling { runtime_us: -1, period_us: 1_000_000 }),
        hrtick: Some(HrtickFile {
            path: "/sys/kernel/debug/sched/features".into(),
            feature: None,
            is_on: Ok(true),
            writable: Ok(()),
        }),
        ends_budgets_in_time: None,
        has_one_cpu: false,
        switching: None,
        dl_server: None,
        tick: Nanos::from_millis(4),
        rcu_stall: Some(Nanos::from_secs(60)),
        hung_task: Some(Nanos::from_secs(120)),
        trial: tried(Ok(()), Ok(())),
        left_behind: Vec::new(),
    }
}

fn tried(deadline: io::Result<()>, fifo: io::Result<()>) -> Trial {
    Trial { cpu: Cpu(1), outcome: Ok(trial::Trial { deadline: Some(deadline), fifo }) }
}

fn only_fifo(fifo: io::Result<()>) -> Trial {
    Trial { cpu: Cpu(1), outcome: Ok(trial::Trial { deadline: None, fifo }) }
}

fn refused<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

fn no_permission() -> Error {
    Error::io("write it", &io::Error::from_raw_os_error(libc::EPERM))
}

fn throttled() -> Option<Throttling> {
    Some(Throttling { runtime_us: 950_000, period_us: 1_000_000 })
}

fn asked(args: &[&str]) -> Options {
    let host = HostFacts { configured_cpus: 2, notify_socket: false };
    match options::parse(args.iter().map(Into::into).chain(["--check".into()]), &host) {
        Ok(Command::Check(options)) => options,
        other => panic!("{args:?} is {other:?}"),
    }
}

const PROTECTS: &str =
    "stalld would protect this host: task_iter finds starving tasks, SCHED_DEADLINE lets them run";

/// Returns the differences from a good host: the level and the fact of each new finding, and the
/// verdict if it differs.
fn changes(args: &[&str], change: impl Fn(&mut Facts)) -> Vec<String> {
    let options = asked(args);
    let before: Vec<String> = of(&good(), &options).iter().map(shown).collect();
    let mut facts = good();
    change(&mut facts);
    let findings = of(&facts, &options);
    let verdict = verdict(&facts, &options, &findings);
    assert_eq!(
        findings.iter().any(|finding| finding.level == Severity::Failure),
        verdict.starts_with("stalld would not protect this host: ")
    );
    let mut changes: Vec<String> = findings.iter().map(shown).filter(|line| !before.contains(line)).collect();
    if verdict != PROTECTS {
        changes.push(verdict);
    }
    changes
}

fn shown(finding: &Finding) -> String {
    format!("{:?} {}", finding.level, finding.fact)
}

#[track_caller]
fn assert_changes(args: &[&str], change: impl Fn(&mut Facts), expected: &[&str]) {
    assert_eq!(changes(args, change), expected);
}

#[test]
fn a_good_host_is_fine_throughout() {
    let options = asked(&[]);
    let findings = of(&good(), &options);
    assert!(findings.len() > 8);
    assert!(findings.iter().all(|finding| finding.level == Severity::Ok && finding.cure.is_none()));
    assert_eq!(verdict(&good(), &options, &findings), PROTECTS);
}

#[test]
fn a_broken_backend_matters_if_the_options_name_it() {
    let break_task_iter = |facts: &mut Facts| facts.backends[0].1 = Err(Error::new("too old"));
    let protects =
        "stalld would protect this host: queue_track finds starving tasks, SCHED_DEADLINE lets them run";
    assert_changes(&[], break_task_iter, &["Note task_iter: too old", protects]);
    assert_changes(
        &["-b", "T"],
        break_task_iter,
        &[
            "Failure task_iter: too old",
            "stalld would not protect this host: task_iter does not work, and -b allows no other backend",
        ],
    );
    let protects =
        "stalld would protect this host: sched_debug finds starving tasks, SCHED_DEADLINE lets them run";
    assert_changes(&["-b", "S"], break_task_iter, &["Note task_iter: too old", protects]);
}

#[test]
fn without_any_backend_there_is_no_protection() {
    assert_changes(
        &[],
        |facts| facts.backends.iter_mut().for_each(|(_, outcome)| *outcome = Err(Error::new("gone"))),
        &[
            "Failure task_iter: gone",
            "Failure queue_track: gone",
            "Failure sched_debug: gone",
            "stalld would not protect this host: no backend works",
        ],
    );
}

#[test]
fn btf_and_sched_info_are_missed_by_bpf_only() {
    let btf = "BTF is missing (/sys/kernel/btf/vmlinux can't be read), which the BPF backends need";
    let info = "the kernel does not record when a task is queued (SCHED_INFO), which task_iter goes by";
    assert_changes(&[], |facts| facts.btf = false, &[&format!("Warning {btf}")]);
    assert_changes(&[], |facts| facts.stamps_queued_tasks = false, &[&format!("Warning {info}")]);
    let with_debug = changes(&["-b", "S"], |facts| facts.btf = false);
    assert_eq!(with_debug.first(), Some(&format!("Note {btf}")));
}

#[test]
fn lockdown_is_named() {
    for (mode, line) in [
        (Lockdown::Integrity, "Note kernel lockdown is 'integrity': "),
        (Lockdown::Confidentiality, "Note kernel lockdown is 'confidentiality': "),
        (Lockdown::Unknown, "Note cannot tell whether the kernel is locked down"),
    ] {
        let changes = changes(&[], |facts| facts.lockdown = mode);
        assert!(changes.len() == 1 && changes[0].starts_with(line), "{changes:?}");
    }
}

#[test]
fn each_capability_that_is_missing_is_named_with_what_it_is_for() {
    let without = |taken: &'static [Capability]| {
        move |facts: &mut Facts| facts.capabilities = Some(Capabilities::all_but(taken))
    };
    assert_changes(
        &[],
        without(&[Capability::SysNice]),
        &[
            "Failure stalld lacks CAP_SYS_NICE, so it can boost no task",
            "stalld would not protect this host: it lacks CAP_SYS_NICE",
        ],
    );
    let no_bpf = &[Capability::Bpf, Capability::SysAdmin];
    assert_changes(&[], without(no_bpf), &["Warning stalld lacks CAP_BPF, so it can load no BPF programs"]);
    assert_changes(
        &[],
        without(&[Capability::IpcLock]),
        &["Note stalld lacks CAP_IPC_LOCK: it may have to wait for its own memory"],
    );
    // Locked memory has not been counted for BPF since 5.11.
    assert_changes(&[], without(&[Capability::SysResource]), &[]);
    let on_an_old_kernel = changes(&[], |facts| {
        without(&[Capability::SysResource])(facts);
        facts.needs_memlock = true;
    });
    assert!(on_an_old_kernel[0].starts_with("Note stalld lacks CAP_SYS_RESOURCE: "), "{on_an_old_kernel:?}");
}

#[test]
fn in_a_namespace_stalld_can_boost_no_task() {
    let pid = changes(&[], |facts| facts.pid_namespace = Namespace::Other);
    assert_eq!(pid[1..], ["stalld would not protect this host: it is in a pid namespace"]);
    let user = changes(&[], |facts| facts.user_namespace = Namespace::Other);
    assert_eq!(user[1..], ["stalld would not protect this host: it is in a user namespace"]);
    let unknown = changes(&[], |facts| facts.pid_namespace = Namespace::Unknown);
    assert!(unknown.len() == 1 && unknown[0].starts_with("Warning cannot tell"), "{unknown:?}");
}

#[test]
fn deadline_that_only_throttling_refuses_is_as_good_as_allowed() {
    let throttle = |facts: &mut Facts| {
        facts.throttling = throttled();
        facts.trial = tried(refused(libc::EPERM), Ok(()));
    };
    let on = "RT throttling is on: real-time tasks get 950000 us of each 1000000 us";
    assert_changes(
        &[],
        throttle,
        &[
            "Ok a task that is pinned to CPU 1 can be boosted with SCHED_DEADLINE once RT throttling is off",
            &format!("Note {on}; stalld turns it off when it starts"),
        ],
    );
    assert_changes(
        &["-S"],
        throttle,
        &[
            "Warning a task that is pinned to CPU 1 can be boosted with SCHED_FIFO only; with SCHED_DEADLINE it \
             can't: Operation not permitted",
            &format!("Warning {on}; with -S stalld leaves that as it is"),
            "stalld would protect this host: task_iter finds starving tasks, SCHED_FIFO lets them run",
        ],
    );
}

#[test]
fn fifo_stands_in_for_deadline_unless_it_is_refused_too() {
    for errno in [libc::EPERM, libc::EBUSY, libc::EINVAL] {
        let reason = crate::error::Reason(&io::Error::from_raw_os_error(errno)).to_string();
        let only = format!(
            "Warning a task that is pinned to CPU 1 can be boosted with SCHED_FIFO only; with SCHED_DEADLINE it \
             can't: {reason}"
        );
        let by_fifo =
            "stalld would protect this host: task_iter finds starving tasks, SCHED_FIFO lets them run";
        assert_changes(&[], |facts| facts.trial = tried(refused(errno), Ok(())), &[&only, by_fifo]);
        let neither = format!(
            "Failure a task that is pinned to CPU 1 can't be boosted with SCHED_FIFO: Operation not permitted; \
             with SCHED_DEADLINE it can't: {reason}"
        );
        let nothing = "stalld would not protect this host: no boost is possible";
        assert_changes(
            &[],
            |facts| facts.trial = tried(refused(errno), refused(libc::EPERM)),
            &[&neither, nothing],
        );
    }
}

#[test]
fn with_forced_fifo_only_fifo_counts() {
    let by_fifo = "stalld would protect this host: task_iter finds starving tasks, SCHED_FIFO lets them run";
    assert_changes(&["-F"], |facts| facts.trial = only_fifo(Ok(())), &[by_fifo]);
    assert_changes(&["-F"], |facts| facts.hrtick = None, &[by_fifo]);
    // A cgroup without real-time runtime is no obstacle once throttling is off.
    let throttled = changes(&["-F"], |facts| {
        facts.throttling = throttled();
        facts.trial = only_fifo(refused(libc::EPERM));
    });
    assert_eq!(
        throttled[0],
        "Ok a task that is pinned to CPU 1 can be boosted with SCHED_FIFO once RT throttling is off"
    );
    assert_eq!(throttled.last().map(String::as_str), Some(by_fifo));
    assert_changes(
        &["-F"],
        |facts| facts.trial = only_fifo(refused(libc::EPERM)),
        &[
            "Failure a task that is pinned to CPU 1 can't be boosted with SCHED_FIFO: Operation not permitted",
            "stalld would not protect this host: no boost is possible",
        ],
    );
}

#[test]
fn a_trial_that_can_not_be_held_is_no_verdict() {
    assert_changes(
        &[],
        |facts| facts.trial.outcome = refused(libc::EINVAL),
        &["Warning cannot try a boost on a child that is pinned to CPU 1: Invalid argument"],
    );
}

#[test]
fn the_dl_server_is_noted_where_it_serves() {
    let served = |cpu, millis| Served {
        cpu: Cpu(cpu),
        runtime: Nanos::from_millis(millis),
        period: Nanos::from_secs(1),
    };
    assert_changes(
        &[],
        |facts| facts.dl_server = Some(Ok(vec![served(0, 0), served(1, 50), served(2, 50)])),
        &[
            "Note the kernel's DL server gives fair tasks behind real-time ones 50ms of each 1s on CPU 1: they \
             don't starve there",
        ],
    );
    assert_changes(
        &[],
        |facts| facts.dl_server = Some(Ok(vec![served(0, 0), served(1, 0), served(2, 50)])),
        &["Ok the kernel's DL server is off"],
    );
    let unseen = changes(&[], |facts| facts.dl_server = Some(Err(no_permission())));
    assert!(unseen.len() == 1 && unseen[0].ends_with("(cannot write it: Operation not permitted)"));
}

#[test]
fn a_threshold_above_the_kernels_own_is_a_warning() {
    let warning = |args: &[&str], change: fn(&mut Facts)| {
        let options = asked(args);
        let mut facts = good();
        change(&mut facts);
        let findings = of(&facts, &options);
        let warnings = findings.iter().filter(|finding| finding.level == Severity::Warning);
        assert_eq!(verdict(&facts, &options, &findings), PROTECTS);
        warnings.map(|finding| finding.fact.clone()).collect::<Vec<_>>()
    };
    let rcu =
        "the threshold is 61s, but RCU reports a stall after 60s: the kernel complains before stalld acts";
    assert_eq!(warning(&["-t", "61"], |_| ()), [rcu]);
    assert_eq!(warning(&["-t", "60"], |_| ()), [""; 0]);
    assert_eq!(warning(&["-t", "3600"], |_| ()).len(), 2);
    assert_eq!(warning(&["-t", "3600"], |facts| facts.rcu_stall = None).len(), 1);
    assert_eq!(warning(&["-t", "3600"], |facts| (facts.rcu_stall, facts.hung_task) = (None, None)), [""; 0]);
    assert_eq!(warning(&["-t", "30"], |facts| facts.rcu_stall = Some(Nanos::from_secs(21))).len(), 1);
}

#[test]
fn a_task_left_in_a_boost_is_named_with_the_cure() {
    let mut facts = good();
    facts.left_behind.push(LeftBehind { tid: Tid(4711), comm: Comm::new(b"bad\x1bname") });
    let findings = of(&facts, &asked(&[]));
    let last = findings.last().unwrap();
    assert_eq!(last.level, Severity::Warning);
    assert!(last.fact.starts_with("task 4711 (bad\\x1bname) is SCHED_DEADLINE "), "{}", last.fact);
    assert!(last.cure.as_ref().unwrap().ends_with(": chrt -o -p 0 4711"));
}

#[test]
fn a_time_namespace_is_a_failure() {
    assert_changes(
        &[],
        |facts| facts.time_namespace = Namespace::Other,
        &[
            "Failure stalld runs in a time namespace, where tasks seem to have started at another time, so it can't \
             tell them apart",
            "stalld would not protect this host: it is in a time namespace",
        ],
    );
    assert_changes(&[], |facts| facts.time_namespace = Namespace::Unknown, &[]);
}

fn mounted(options: &str, gid: u32, is_ptraceable: bool) -> Option<Hidepid> {
    Some(Hidepid { options: options.to_string(), gid, is_ptraceable })
}

#[test]
fn a_proc_that_hides_tasks_from_the_service_is_a_warning() {
    assert_changes(
        &[],
        |facts| facts.hidepid = mounted("hidepid=invisible,gid=12", 12, false),
        &[
            "Warning /proc, mounted with hidepid=invisible,gid=12, hides tasks from a stalld without CAP_SYS_PTRACE, as \
           its service is: it can't tell them apart and boosts none of them",
        ],
    );
    assert_changes(
        &[],
        |facts| facts.hidepid = mounted("hidepid=2", 0, false),
        &["Ok /proc, mounted with hidepid=2, hides nothing from root's group"],
    );
    let cure = |options: &str, gid, is_ptraceable| {
        let facts = Facts { hidepid: mounted(options, gid, is_ptraceable), ..good() };
        let findings = of(&facts, &asked(&[]));
        findings.into_iter().find(|finding| finding.fact.contains("hidepid")).and_then(|finding| finding.cure)
    };
    assert!(
        cure("hidepid=2,gid=12", 12, false).unwrap().starts_with("add SupplementaryGroups=12 to its unit")
    );
    assert_eq!(cure("hidepid=ptraceable", 0, true).unwrap(), "mount /proc without hidepid");
}

#[test]
fn a_proc_that_hides_tasks_from_this_process_is_a_failure() {
    assert_changes(
        &[],
        |facts| {
            facts.hidepid = mounted("hidepid=2,gid=12", 12, false);
            facts.sees_kernel_threads = false;
        },
        &[
            "Failure /proc, mounted with hidepid=2,gid=12, hides tasks from stalld, so it can't tell them apart and \
             boosts none of them",
            "stalld would not protect this host: /proc hides tasks",
        ],
    );
}

#[test]
fn few_descriptors_are_a_warning() {
    assert_changes(
        &[],
        |facts| facts.descriptors = Some(20),
        &["Warning stalld may have 20 files open (RLIMIT_NOFILE): without a free one it can boost no task"],
    );
    assert_changes(&[], |facts| facts.descriptors = None, &[]);
}

#[path = "budget_tests.rs"]
mod budget_tests;
