//! `stalld --check` on this host, from which each test takes one thing away.

use crate::assert_words;
use rig::{Rig, hogged_cpu, live};
use stalld::host;
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::path::Path;
use std::process::{Child, Command, Stdio};

struct Report {
    code: Option<i32>,
    text: String,
}

impl Report {
    /// Whether one finding of this level contains all of these words.
    fn has(&self, level: &str, words: &[&str]) -> bool {
        let findings = self.text.lines().filter_map(|line| line.strip_prefix(&format!("{level:9}")));
        findings.into_iter().any(|fact| words.iter().all(|word| fact.contains(word)))
    }

    fn verdict(&self) -> &str {
        self.text.lines().last().unwrap_or_default()
    }

    #[track_caller]
    fn assert_protects(&self) {
        assert_eq!(self.code, Some(0), "{}", self.text);
        assert!(self.verdict().starts_with("stalld would protect this host: "), "{}", self.text);
    }

    #[track_caller]
    fn assert_does_not_protect(&self, reason: &[&str]) {
        assert_eq!(self.code, Some(1), "{}", self.text);
        assert!(self.verdict().starts_with("stalld would not protect this host: "), "{}", self.text);
        assert_words(self.verdict(), reason);
    }

    #[track_caller]
    fn assert_has(&self, level: &str, words: &[&str]) {
        assert!(self.has(level, words), "no '{level}' finding has {words:?}:\n{}", self.text);
    }
}

/// The level of a line that continues the finding before it with the cure.
const CURE: &str = "";

fn check(args: &[&str]) -> Report {
    check_by(&[], args)
}

/// Runs the check through another program, such as one that drops capabilities.
fn check_by(starter: &[&str], args: &[&str]) -> Report {
    let words = [starter, &[env!("CARGO_BIN_EXE_stalld"), "--check"], args].concat();
    let (program, args) = words.split_first().unwrap();
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Report { code: output.status.code(), text: String::from_utf8(output.stdout).unwrap() }
}

/// Runs the check in a mount namespace of its own, which this shell script has changed.
fn check_among(mounts: &str, args: &[&str]) -> Report {
    let script = format!("set -e; {mounts}; exec \"$@\"");
    check_by(&["unshare", "--mount", "sh", "-c", &script, "sh"], args)
}

const WITH_DEBUGFS: &str = "grep -q ' debugfs ' /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug";
const WITHOUT_DEBUGFS: &str = "while at=$(awk '$3 == \"debugfs\" { print $2; exit }' /proc/mounts); test -n \"$at\"; do umount -R $at; done";

#[test]
#[ignore = "needs root"]
fn without_debugfs_sched_debug_and_hrtick_are_missing() {
    let _live = live();
    assert!(
        !Path::new("/proc/sched_debug").exists(),
        "this kernel has /proc/sched_debug, so sched_debug needs no debugfs; run a kernel from 5.13 on"
    );
    let with = check_among(WITH_DEBUGFS, &["-b", "S"]);
    with.assert_has("ok", &["sched_debug works"]);
    with.assert_protects();

    let without = check_among(WITHOUT_DEBUGFS, &["-b", "S", "--boost", "deadline"]);
    without.assert_has("failure", &["sched_debug: ", "debugfs is not mounted"]);
    without.assert_has("note", &["HRTICK can be neither seen nor turned on"]);
    without.assert_has(CURE, &["-> mount debugfs"]);
    without.assert_does_not_protect(&["sched_debug", "-b"]);
}

#[test]
#[ignore = "needs root"]
fn without_btf_task_iter_is_missing() {
    let _live = live();
    assert!(
        host::has_btf(Path::new("/")),
        "this kernel has no /sys/kernel/btf/vmlinux; run one with CONFIG_DEBUG_INFO_BTF"
    );
    if cfg!(feature = "bpf") {
        let with = check(&["-b", "T"]);
        with.assert_has("ok", &["task_iter works"]);
        with.assert_has("ok", &["BTF"]);
        with.assert_protects();
    }
    let without = check_among("mount -t tmpfs none /sys/kernel/btf", &["-b", "T"]);
    without.assert_has("failure", &["task_iter: "]);
    without.assert_has("warning", &["BTF is missing"]);
    without.assert_does_not_protect(&["task_iter", "-b"]);
}

#[test]
#[ignore = "needs root"]
fn without_cap_sys_nice_no_boost_is_possible() {
    let _live = live();
    check(&[]).assert_protects();
    let without = check_by(&["setpriv", "--bounding-set", "-sys_nice"], &["-v"]);
    without.assert_has("failure", &["lacks CAP_SYS_NICE", "boost"]);
    without.assert_has(CURE, &["-> run it as root"]);
    assert!(without.text.lines().any(|line| line == "capability cap_sys_nice no"), "{}", without.text);
    without.assert_does_not_protect(&["lacks CAP_SYS_NICE", "no boost is possible"]);
}

#[test]
#[ignore = "needs root"]
fn the_capabilities_that_bpf_lacks_are_named() {
    let _live = live();
    let without = check_by(&["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"], &["-b", "T"]);
    without.assert_has("warning", &["lacks CAP_BPF, CAP_PERFMON", "BPF programs"]);
    without.assert_does_not_protect(&["task_iter", "-b"]);
    if cfg!(feature = "bpf") {
        without.assert_has(
            "failure",
            &[
                "task_iter: ",
                "Operation not permitted",
                "needs CAP_BPF and CAP_PERFMON",
                "CAP_SYS_ADMIN before 5.8",
                "lacks CAP_BPF, CAP_PERFMON",
            ],
        );
        // Without CAP_SYS_ADMIN, the two newer capabilities are enough.
        let enough = check_by(&["setpriv", "--bounding-set", "-sys_admin"], &["-b", "T"]);
        enough.assert_has("ok", &["task_iter works"]);
        enough.assert_protects();
    }
}

#[test]
#[ignore = "needs root"]
fn a_pid_namespace_is_a_failure() {
    let _live = live();
    let inside = check_by(&["unshare", "--pid", "--fork", "--mount-proc"], &[]);
    inside.assert_has("failure", &["pid namespace"]);
    inside.assert_does_not_protect(&["pid namespace"]);
}

#[test]
#[ignore = "needs root"]
fn a_threshold_above_the_rcu_stall_timeout_is_a_warning() {
    let _live = live();
    // The kernel's own timeout may be any, or off.
    let stall_timeout = "cd /sys/module/rcupdate/parameters; mount -t tmpfs none .; cd \"$PWD\"; \
        echo 21 >rcu_cpu_stall_timeout; echo 0 >rcu_cpu_stall_suppress; cd /";
    let below = check_among(stall_timeout, &["-t", "3"]);
    below.assert_has("ok", &["threshold is 3s", "RCU", " 21s"]);
    let above = check_among(stall_timeout, &["-t", "3600"]);
    above.assert_has("warning", &["threshold is 3600s", "RCU", " 21s"]);
    above.assert_has(CURE, &["-> ", "lower -t", "rcu_cpu_stall_timeout"]);
    assert_eq!(above.code, below.code);
}

#[test]
#[ignore = "needs root"]
fn each_fact_has_a_line_of_its_own() {
    let _live = live();
    let text = check(&["-v"]).text;
    let (facts, findings) = text.split_once("\n\n").unwrap();
    let release = host::kernel_release(Path::new("/")).unwrap();
    for line in [&format!("kernel {release}"), "capability cap_sys_nice yes", "initial_pid_namespace yes"] {
        assert!(facts.lines().any(|fact| fact == line), "no '{line}' in:\n{facts}");
    }
    for key in ["btf", "sched_info", "lockdown", "backend queue_track", "rt_throttling", "trial cpu"] {
        assert!(facts.lines().any(|fact| fact.starts_with(&format!("{key} "))), "no '{key}' in:\n{facts}");
    }
    if cfg!(feature = "bpf") && host::has_btf(Path::new("/")) {
        let walk = facts.lines().find_map(|fact| fact.strip_prefix("verified task_iter walk ")).unwrap();
        let instructions: u32 = walk.split(' ').next().unwrap().parse().unwrap();
        assert!(instructions > 0, "{walk}");
    }
    assert_eq!(findings, check(&[]).text);
}

#[test]
fn a_policy_that_is_not_going_to_be_used_is_not_tried() {
    let tried = |args: &[&str]| -> Vec<String> {
        let text = check(args).text;
        let lines = text.lines().filter_map(|line| line.strip_prefix("trial cpu "));
        lines.filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
    };
    assert_eq!(tried(&["-v"]), ["deadline", "fifo"]);
    assert_eq!(tried(&["-v", "-F"]), ["fifo"]);
}

/// A process that sleeps. Killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn tid(&self) -> Tid {
        Tid(self.0.id() as i32)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // With 20 us of each second the process would take long to die.
        let _ = sched::set_scheduler(self.tid(), Policy::OTHER, 0, false);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs root"]
fn a_task_that_a_killed_stalld_left_boosted_is_reported_with_its_cure() {
    let _live = live();
    let sleeper = Sleeper(Command::new("sleep").arg("60").spawn().unwrap());
    let left = format!("task {} (", sleeper.tid());
    let left = [left.as_str()];
    assert!(!check(&[]).has("warning", &left));
    sched::set_deadline(sleeper.tid(), Nanos::from_micros(20), Nanos::from_secs(1), 0).unwrap();
    let report = check(&[]);
    report.assert_has("warning", &left);
    let cure = report.text.lines().find_map(|line| line.split_once(": chrt ")).unwrap().1;
    let cured = Command::new("chrt").args(cure.split(' ')).status().unwrap();
    assert!(cured.success());
    assert!(!check(&[]).has("warning", &left));
}

#[test]
#[ignore = "starves tasks, as root"]
fn a_hog_on_the_cpu_of_the_trial_does_not_delay_the_check() {
    let _live = live();
    let mut rig = Rig::start(&["--for", "10"]);
    let hog = rig.event("hog");
    let report = check(&["-c", &hogged_cpu().to_string()]);
    assert!(clock::monotonic() < hog.moment("until"), "--check ended only after the hog");
    report.assert_protects();
}
