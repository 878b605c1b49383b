//! `stalld --check` on this very host, with one thing after another taken away from it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::{Rig, hogged_cpu, live};
use stalld::host;
use stalld::sys::sched;
use stalld::task::{Nanos, Policy, Tid};
use std::path::Path;
use std::process::{Child, Command, Stdio};

struct Report {
    code: Option<i32>,
    text: String,
}

impl Report {
    /// Whether there is a finding of this level that begins so.
    fn has(&self, level: &str, fact: &str) -> bool {
        self.text.lines().any(|line| line.starts_with(&format!("{level:9}{fact}")))
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
    fn assert_does_not_protect(&self, because: &str) {
        assert_eq!(self.code, Some(1), "{}", self.text);
        assert_eq!(self.verdict(), format!("stalld would not protect this host: {because}"), "{}", self.text);
    }

    #[track_caller]
    fn assert_has(&self, level: &str, fact: &str) {
        assert!(self.has(level, fact), "no '{level} {fact}' in:\n{}", self.text);
    }
}

fn check(args: &[&str]) -> Report {
    check_by(&[], args)
}

/// Runs it by way of another program, such as one that takes capabilities away.
fn check_by(way: &[&str], args: &[&str]) -> Report {
    let words = [way, &[env!("CARGO_BIN_EXE_stalld"), "--check"], args].concat();
    let (program, args) = words.split_first().unwrap();
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Report { code: output.status.code(), text: String::from_utf8(output.stdout).unwrap() }
}

/// Runs it in mounts of its own, which this shell script has changed.
fn check_among(mounts: &str, args: &[&str]) -> Report {
    let script = format!("set -e; {mounts}; exec \"$@\"");
    check_by(&["unshare", "--mount", "sh", "-c", &script, "sh"], args)
}

const WITH_DEBUGFS: &str = "grep -q ' debugfs ' /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug";
const WITHOUT_DEBUGFS: &str = "while at=$(awk '$3 == \"debugfs\" { print $2; exit }' /proc/mounts); test -n \"$at\"; do umount -R $at; done";

#[test]
fn without_debugfs_there_is_no_sched_debug_and_no_hrtick() {
    let Some(_live) = live() else { return };
    if Path::new("/proc/sched_debug").exists() {
        eprintln!("skipped: this kernel has /proc/sched_debug and needs no debugfs");
        return;
    }
    let with = check_among(WITH_DEBUGFS, &["-b", "S"]);
    with.assert_has("ok", "sched_debug works");
    with.assert_protects();

    let without = check_among(WITHOUT_DEBUGFS, &["-b", "S"]);
    without
        .assert_has("failure", "sched_debug: cannot find the scheduler's debug file: debugfs is not mounted");
    without.assert_has("note", "HRTICK can be neither seen nor turned on: ");
    without.assert_has("", "-> mount debugfs: ");
    without.assert_does_not_protect("sched_debug does not work, and -b allows no other backend");
}

#[test]
fn without_btf_there_is_no_task_iter() {
    let Some(_live) = live() else { return };
    let has_bpf = cfg!(feature = "bpf") && host::has_btf(Path::new("/"));
    let with = check(&["-b", "T"]);
    if has_bpf {
        with.assert_has("ok", "task_iter works");
        with.assert_has("ok", "BTF is there");
        with.assert_protects();
    }
    let without = check_among("mount -t tmpfs none /sys/kernel/btf", &["-b", "T"]);
    without.assert_has("failure", "task_iter: ");
    without.assert_has("warning", "BTF is missing");
    without.assert_does_not_protect("task_iter does not work, and -b allows no other backend");
}

#[test]
fn without_cap_sys_nice_stalld_can_boost_nobody() {
    let Some(_live) = live() else { return };
    check(&[]).assert_protects();
    let without = check_by(&["setpriv", "--bounding-set", "-sys_nice"], &["-v"]);
    without.assert_has("failure", "stalld lacks CAP_SYS_NICE, so it can boost nobody");
    without.assert_has("", "-> run it as root");
    assert!(without.text.lines().any(|line| line == "capability cap_sys_nice no"), "{}", without.text);
    without.assert_does_not_protect("it lacks CAP_SYS_NICE, no boost is possible");
}

#[test]
fn without_its_capabilities_bpf_is_refused_by_name() {
    let Some(_live) = live() else { return };
    let without = check_by(&["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"], &["-b", "T"]);
    without.assert_has("warning", "stalld lacks CAP_BPF, CAP_PERFMON, so it can load no BPF programs");
    without.assert_does_not_protect("task_iter does not work, and -b allows no other backend");
    if cfg!(feature = "bpf") {
        without.assert_has(
            "failure",
            "task_iter: cannot load the BPF programs: Operation not permitted; it needs CAP_BPF and CAP_PERFMON \
             (CAP_SYS_ADMIN before 5.8), and lacks CAP_BPF, CAP_PERFMON",
        );
        // The other way is as good.
        let enough = check_by(&["setpriv", "--bounding-set", "-sys_admin"], &["-b", "T"]);
        enough.assert_has("ok", "task_iter works");
        enough.assert_protects();
    }
}

#[test]
fn in_a_pid_namespace_stalld_would_boost_others() {
    let Some(_live) = live() else { return };
    let inside = check_by(&["unshare", "--pid", "--fork", "--mount-proc"], &[]);
    inside.assert_has("failure", "stalld runs in a pid namespace of its own");
    inside.assert_does_not_protect("it is in a pid namespace");
}

#[test]
fn a_threshold_above_the_rcu_stall_time_is_a_warning() {
    let Some(_live) = live() else { return };
    let Some(stall) = host::rcu_stall_timeout(Path::new("/")) else {
        eprintln!("skipped: this kernel reports no RCU stalls");
        return;
    };
    let secs = stall.as_secs();
    let below = check(&["-t", "3"]);
    below.assert_has("ok", &format!("the threshold is 3s, and RCU reports a stall after {secs}s"));
    let above = check(&["-t", "3600"]);
    above.assert_has("warning", &format!("the threshold is 3600s, but RCU reports a stall after {secs}s: "));
    above.assert_has("", "-> choose a lower -t");
    assert_eq!(above.code, below.code);
}

#[test]
fn each_fact_has_a_line_of_its_own() {
    let Some(_live) = live() else { return };
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
        let look = facts.lines().find_map(|fact| fact.strip_prefix("verified task_iter look ")).unwrap();
        let instructions: u32 = look.split(' ').next().unwrap().parse().unwrap();
        assert!(instructions > 0, "{look}");
    }
    assert_eq!(findings, check(&[]).text);
}

#[test]
fn what_is_not_to_be_used_is_not_tried() {
    let tried = |args: &[&str]| -> Vec<String> {
        let text = check(args).text;
        let lines = text.lines().filter_map(|line| line.strip_prefix("trial cpu "));
        lines.filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
    };
    assert_eq!(tried(&["-v"]), ["deadline", "fifo"]);
    assert_eq!(tried(&["-v", "-F"]), ["fifo"]);
}

/// A process that sleeps, killed at the end.
struct Sleeper(Child);

impl Sleeper {
    fn tid(&self) -> Tid {
        Tid(self.0.id() as i32)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // With 20 us a second it would take long to die.
        let _ = sched::set_scheduler(self.tid(), Policy::OTHER, 0, false);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_task_that_a_killed_stalld_left_behind_is_found_until_it_is_put_back() {
    let Some(_live) = live() else { return };
    let sleeper = Sleeper(Command::new("sleep").arg("60").spawn().unwrap());
    let left = format!("task {} (", sleeper.tid());
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
fn a_hog_on_the_cpu_of_the_trial_does_not_hold_it_up() {
    let Some(_live) = live() else { return };
    let mut rig = Rig::start(&["--for", "3"]);
    let hog = rig.event("hog");
    let report = check(&["-c", &hogged_cpu().to_string()]);
    assert!(stalld::sys::clock::monotonic() < hog.moment("until"), "--check took as long as the hog lives");
    report.assert_protects();
    assert_eq!(rig.finish().0, Some(0));
}
