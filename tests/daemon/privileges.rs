//! stalld with fewer privileges than root has: it does all that it can, and names the missing ones.

#![cfg(feature = "bpf")]

use crate::{assert_words, refusal};
use rig::boosts::{OWN, policy};
use rig::scratch::{self, Scratch};
use rig::throttling::{limit, set_limit};
use rig::{Rig, Stalld, hogged_cpu, live, process};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Starts a program as the user `nobody`, without any capability.
const AS_NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// A copy of stalld that every user can run. The original may be in a private home directory.
struct PublicCopy(Scratch);

impl PublicCopy {
    fn new(name: &str) -> PublicCopy {
        let scratch = Scratch::new(name);
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
        scratch::install(Path::new(Stalld::path()), &scratch.join("stalld"));
        PublicCopy(scratch)
    }

    fn path(&self) -> PathBuf {
        self.0.join("stalld")
    }

    /// Starts the copy through another program, after these shell commands.
    fn start(&self, starter: &[&str], before: &str, args: &[&str]) -> Stalld {
        // The first argument of the script is the path of the original.
        let script = format!("{before} shift; exec {} \"$@\"", self.path().display());
        Stalld::start_by(&[starter, &["sh", "-c", &script, "sh"]].concat(), args)
    }
}

#[test]
#[ignore = "needs root"]
fn help_and_version_need_no_privilege() {
    let copy = PublicCopy::new("privileges-help");
    for option in ["-h", "-V"] {
        let mut command = Command::new(AS_NOBODY[0]);
        command.args(&AS_NOBODY[1..]).arg(copy.path()).arg(option);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{option}: {output:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{option}: {output:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn an_ordinary_user_reads_which_privileges_are_missing() {
    let _live = live();
    let copy = PublicCopy::new("privileges-nobody");
    let line = refusal(copy.start(&AS_NOBODY, "", &["-f", "-l"]));
    assert_words(&line, &["no backend works", "CAP_BPF"]);
    let line = refusal(copy.start(&AS_NOBODY, "", &["-f", "-l", "-b", "sched_debug"]));
    assert_words(&line, &["run stalld as root", "CAP_DAC_READ_SEARCH"]);
    let line = refusal(copy.start(&AS_NOBODY, "", &["-f"]));
    assert_words(&line, &["/run/stalld", "run stalld as root", "-l"]);
}

#[test]
#[ignore = "needs root"]
fn without_cap_bpf_it_falls_back_to_sched_debug_and_logs_the_reason() {
    let _live = live();
    let powerless = ["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"];
    let mut stalld = Stalld::start_by(&powerless, &["-f", "-l", "-v"]);
    stalld.scan();
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert!(log.mentions("using sched_debug backend"), "{log:?}");
    let reason = ["BPF programs", "lacks CAP_BPF, CAP_PERFMON"];
    for backend in ["task_iter: ", "queue_track: "] {
        let refused = log.iter().find(|record| record.message().starts_with(backend));
        assert_words(refused.unwrap_or_else(|| panic!("no '{backend}' in {log:?}")).message(), &reason);
    }

    for backend in ["task_iter", "queue_track"] {
        let line = refusal(Stalld::start_by(&powerless, &["-f", "-l", "-b", backend]));
        assert!(line.starts_with(&format!("{backend}: ")), "{line}");
        assert_words(&line, &reason);
    }
}

#[test]
#[ignore = "needs root"]
fn without_cap_sys_nice_it_scans_and_warns_that_scans_may_be_late() {
    let _live = live();
    let mut stalld = Stalld::start_by(&["setpriv", "--bounding-set", "-sys_nice"], &["-f", "-l", "-v"]);
    let warning = stalld.message("CAP_SYS_NICE");
    assert_words(warning.message(), &["real-time priority", "late on a busy host"]);
    stalld.scan();
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
#[ignore = "starves tasks, as root"]
fn without_cap_sys_nice_it_only_logs_or_refuses_to_be_a_service() {
    let _live = live();
    let powerless = ["setpriv", "--bounding-set", "-sys_nice"];
    set_limit("950000");
    let args = [&["-f", "-v", "-t", "1", "-g", "1"], &Stalld::RIG_ONLY[..]].concat();
    let mut stalld = Stalld::start_by(&powerless, &args);
    let reason = ["boost", "Operation not permitted", "CAP_SYS_NICE"];
    assert_words(stalld.message("only logs").message(), &reason);
    stalld.scan();
    assert_eq!(limit(), "950000", "throttling is off though stalld can't boost");
    set_limit("-1");
    let mut rig = Rig::start(&["--for", "8"]);
    let victim = rig.event("victim").tid();
    for _ in 0..2 {
        assert_eq!(stalld.event_of("starved", victim).number("cpu"), hogged_cpu().0.into());
    }
    assert_eq!(policy(victim), Some(OWN));
    let (code, log) = stalld.terminate();
    assert_eq!(code, Some(0));
    assert_eq!((log.count_text("only logs"), log.count("boosted")), (1, 0), "{log:?}");

    let (code, log) = Stalld::start_by(&powerless, &["-f", "--systemd"]).finish();
    assert_eq!(code, Some(1));
    assert_words(log.last().unwrap().message(), &reason);
}

#[test]
#[ignore = "starves tasks, as root"]
fn in_a_pid_namespace_it_only_logs() {
    let _live = live();
    set_limit("950000");
    // The rig is in the namespace too, because stalld sees no process outside.
    let script = format!("{} --for 8 >/dev/null & exec \"$@\"", Rig::path().display());
    let starter = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script, "sh"];
    let args = [&["-f", "-v", "-t", "1", "-g", "1"], &Stalld::RIG_ONLY[..]].concat();
    let mut stalld = Stalld::start_by(&starter, &args);
    assert_words(stalld.message("only logs").message(), &["pid namespace"]);
    for _ in 0..2 {
        assert_eq!(stalld.event("starved").number("cpu"), hogged_cpu().0.into());
    }
    assert_eq!(limit(), "950000");
    // The test's own child is unshare, and stalld is its child.
    process::signal(process::children(stalld.pid())[0], "TERM");
    let (code, log) = stalld.finish();
    assert_eq!(code, Some(0));
    assert_eq!((log.count_text("only logs"), log.count("boosted")), (1, 0), "{log:?}");
}

#[test]
#[ignore = "needs root"]
fn three_capabilities_are_enough_to_watch_through_bpf() {
    let _live = live();
    let copy = PublicCopy::new("privileges-three");
    let three = "+bpf,+perfmon,+sys_nice";
    let starter = [&AS_NOBODY[..], &["--inh-caps", three, "--ambient-caps", three]].concat();
    for backend in ["task_iter", "queue_track"] {
        let mut stalld = copy.start(&starter, "", &["-f", "-l", "-v", "-b", backend]);
        stalld.scan();
        let (code, log) = stalld.terminate();
        assert_eq!(code, Some(0), "{log:?}");
        assert!(!log.mentions("CAP_SYS_NICE"), "{log:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn memory_is_not_locked_where_reaching_the_limit_would_end_the_process() {
    let _live = live();
    let copy = PublicCopy::new("privileges-memlock");
    let read_all = "+dac_read_search";
    let starter = [&AS_NOBODY[..], &["--inh-caps", read_all, "--ambient-caps", read_all]].concat();
    // With one arena, all that is mapped at the start is less than the limit.
    let before = "ulimit -l 8192; export MALLOC_ARENA_MAX=1;";
    let mut stalld = copy.start(&starter, before, &["-f", "-l", "-v", "-b", "sched_debug"]);
    assert_words(stalld.message("CAP_IPC_LOCK").message(), &["lock memory"]);
    stalld.scan();
    assert_eq!(process::status(stalld.pid(), "VmLck").unwrap(), "0 kB");
    assert_eq!(stalld.terminate().0, Some(0));
}
