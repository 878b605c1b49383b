//! What stalld does with fewer rights than root has: as much as it can, and it names what is missing.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{OWN, policy};
use rig::scratch::Scratch;
use rig::throttling::{limit, set_limit};
use rig::{Rig, Stalld, hogged_cpu, live, process};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// A copy of stalld where anybody can run it: the one that was built may lie in somebody's home.
struct Public(Scratch);

impl Public {
    fn new(name: &str) -> Public {
        let scratch = Scratch::new(name);
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(Stalld::PATH, scratch.join("stalld")).unwrap();
        fs::set_permissions(scratch.join("stalld"), Permissions::from_mode(0o755)).unwrap();
        Public(scratch)
    }

    fn path(&self) -> PathBuf {
        self.0.join("stalld")
    }

    /// `sh` takes the path of the copy for that of the original, which follows it.
    fn starter<'a>(&self, by: &[&'a str], script: &'a str) -> Vec<&'a str> {
        by.iter().copied().chain(["sh", "-c", script, "sh"]).collect()
    }

    fn script(&self) -> String {
        format!("shift; exec {} \"$@\"", self.path().display())
    }
}

fn nobody_runs(public: &Public, args: &[&str]) -> Output {
    let mut command = Command::new(NOBODY[0]);
    command.args(&NOBODY[1..]).arg(public.path()).args(args).stdin(Stdio::null()).output().unwrap()
}

/// One line on stderr and exit code 1.
fn refusal(stalld: Stalld) -> String {
    let (code, said) = stalld.finish();
    assert_eq!((code, said.len()), (Some(1), 1), "{said:?}");
    said[0].1.clone()
}

#[test]
fn help_and_version_are_for_everybody() {
    let Some(_live) = live() else { return };
    let public = Public::new("privileges-help");
    for option in ["-h", "-V"] {
        let output = nobody_runs(&public, &[option]);
        assert_eq!(output.status.code(), Some(0), "{option}: {output:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{option}: {output:?}");
    }
}

#[test]
fn nobody_is_told_what_it_takes() {
    let Some(_live) = live() else { return };
    let public = Public::new("privileges-nobody");
    let script = public.script();
    let line = refusal(Stalld::start_by(&public.starter(&NOBODY, &script), &["-f", "-l"]));
    assert!(line.starts_with("stalld: no backend works here: "), "{line}");
    assert!(line.contains("CAP_BPF"), "{line}");
    let line =
        refusal(Stalld::start_by(&public.starter(&NOBODY, &script), &["-f", "-l", "-b", "sched_debug"]));
    assert!(line.contains("run stalld as root, or with CAP_DAC_READ_SEARCH"), "{line}");
    let line = refusal(Stalld::start_by(&public.starter(&NOBODY, &script), &["-f"]));
    assert!(line.contains("/run/stalld"), "{line}");
    assert!(line.ends_with("; run stalld as root, or with -l, which only watches"), "{line}");
}

#[test]
fn without_the_right_to_load_bpf_programs_it_looks_by_the_text_and_says_why() {
    let Some(_live) = live() else { return };
    let powerless = ["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"];
    let mut stalld = Stalld::start_by(&powerless, &["-f", "-l", "-v"]);
    stalld.look();
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    let said: Vec<&str> = said.iter().map(|(_, line)| line.as_str()).collect();
    assert!(said.contains(&"stalld: using sched_debug backend"), "{said:?}");
    for backend in ["task_iter", "queue_track"] {
        let refusal = format!("stalld: {backend}: cannot load the BPF programs: ");
        let line = said.iter().find(|line| line.starts_with(&refusal));
        assert!(line.is_some_and(|line| line.contains("lacks CAP_BPF, CAP_PERFMON")), "{said:?}");
    }

    for backend in ["task_iter", "queue_track"] {
        let line = refusal(Stalld::start_by(&powerless, &["-f", "-l", "-b", backend]));
        assert!(line.starts_with(&format!("stalld: {backend}: cannot load the BPF programs: ")), "{line}");
        assert!(line.contains("lacks CAP_BPF, CAP_PERFMON"), "{line}");
    }
}

#[test]
fn without_the_right_to_raise_itself_it_runs_and_says_that_looks_may_be_late() {
    let Some(_live) = live() else { return };
    let mut stalld = Stalld::start_by(&["setpriv", "--bounding-set", "-sys_nice"], &["-f", "-l", "-v"]);
    let (_, line) = stalld.line_with("looks may be late on a busy host");
    assert!(line.contains("it needs CAP_SYS_NICE"), "{line}");
    stalld.look();
    assert_eq!(stalld.terminate().0, Some(0));
}

#[test]
fn without_the_right_to_boost_it_only_logs_or_as_a_service_ends() {
    let Some(_live) = live() else { return };
    let powerless = ["setpriv", "--bounding-set", "-sys_nice"];
    set_limit("950000");
    let args = [&["-f", "-v", "-t", "1", "-g", "1"], &Stalld::RIG_ONLY[..]].concat();
    let mut stalld = Stalld::start_by(&powerless, &args);
    let refusal = "cannot boost a task: Operation not permitted; it needs CAP_SYS_NICE";
    stalld.line_with(&format!("{refusal}: stalld only logs"));
    stalld.look();
    assert_eq!(limit(), "950000", "what is of no use is put back");
    set_limit("-1");
    let mut rig = Rig::start(&["--for", "4"]);
    let victim = rig.event("victim").tid();
    for _ in 0..2 {
        stalld.line_with(&format!("victim-{victim} starved on CPU {} for ", hogged_cpu()));
    }
    assert_eq!(policy(victim), Some(OWN));
    let (code, said) = stalld.terminate();
    assert_eq!(code, Some(0));
    let count = |text: &str| said.iter().filter(|(_, line)| line.contains(text)).count();
    assert_eq!((count("only logs"), count("boosted pid")), (1, 0), "{said:?}");

    let (code, said) = Stalld::start_by(&powerless, &["-f", "--systemd"]).finish();
    assert_eq!(code, Some(1));
    assert_eq!(said.last().unwrap().1, format!("stalld: {refusal}"));
}

#[test]
fn in_a_foreign_pid_namespace_it_only_logs() {
    let Some(_live) = live() else { return };
    set_limit("950000");
    // The rig is inside, too: of those outside it knows nothing.
    let script = format!("{} --for 5 >/dev/null & exec \"$@\"", Rig::path().display());
    let starter = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script, "sh"];
    let mut stalld =
        Stalld::start_by(&starter, &[&["-f", "-v", "-t", "1", "-g", "1"], &Stalld::RIG_ONLY[..]].concat());
    stalld.line_with(
        "in a pid namespace of its own stalld can't tell the tasks of the machine apart: it only logs",
    );
    for _ in 0..2 {
        stalld.line_with(&format!(" starved on CPU {} for ", hogged_cpu()));
    }
    assert_eq!(limit(), "950000");
    // What was started is not stalld here, but its parent.
    process::signal(process::children(stalld.pid())[0], "TERM");
    let (code, said) = stalld.finish();
    assert_eq!(code, Some(0));
    let count = |text: &str| said.iter().filter(|(_, line)| line.contains(text)).count();
    assert_eq!((count("only logs"), count("boosted pid")), (1, 0), "{said:?}");
}

#[test]
fn three_capabilities_are_enough_to_watch_by_bpf() {
    let Some(_live) = live() else { return };
    let public = Public::new("privileges-three");
    let script = public.script();
    let three = "+bpf,+perfmon,+sys_nice";
    let by = [&NOBODY[..], &["--inh-caps", three, "--ambient-caps", three]].concat();
    for backend in ["task_iter", "queue_track"] {
        let mut stalld = Stalld::start_by(&public.starter(&by, &script), &["-f", "-l", "-v", "-b", backend]);
        stalld.look();
        let (code, said) = stalld.terminate();
        assert_eq!(code, Some(0), "{said:?}");
        assert!(!said.iter().any(|(_, line)| line.contains("CAP_SYS_NICE")), "{said:?}");
    }
}

#[test]
fn memory_is_not_locked_under_a_limit_that_would_end_the_process_once_it_is_reached() {
    let Some(_live) = live() else { return };
    let public = Public::new("privileges-memlock");
    let by =
        [&NOBODY[..], &["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]].concat();
    // With little enough of address space that all of it fits in.
    let script = format!("ulimit -l 8192; export MALLOC_ARENA_MAX=1; {}", public.script());
    let mut stalld =
        Stalld::start_by(&public.starter(&by, &script), &["-f", "-l", "-v", "-b", "sched_debug"]);
    let (_, line) = stalld.line_with("cannot lock memory: ");
    assert!(line.ends_with("; it needs CAP_IPC_LOCK"), "{line}");
    stalld.look();
    assert_eq!(process::status(stalld.pid(), "VmLck").unwrap(), "0 kB");
    assert_eq!(stalld.terminate().0, Some(0));
}
