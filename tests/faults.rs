//! System calls of stalld that fail, one kind at a time, with what the kernel may answer. strace(1) sees to that from
//! outside, so nothing of stalld is made for it, and the C library's and libbpf's own calls fail as well.

// stalld as it is meant to be: with its BPF backends.
#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod rig;

use rig::boosts::{await_own_policy, policy};
use rig::process::eventually;
use rig::throttling::{limit, set_limit};
use rig::{PATIENCE, Rig, Stalld, live};
use stalld::task::Policy;
use std::process::Command;

/// What becomes of a stalld whose calls fail.
#[derive(Clone, Copy)]
enum Outcome {
    /// All goes well.
    Rescues,
    /// All goes well, and there is a line with this text.
    RescuesAnd(&'static str),
    /// It boosts nobody, but goes on, and there is a line that says why.
    OnlySays(&'static str),
    /// It does not start, and says why.
    Refuses(&'static str),
    /// It can't undo the boost, and says so.
    LeavesBoosted(&'static str),
    /// There is a line with this text, and at the end it can't put throttling back, and says so.
    LeavesThrottlingOff(&'static str),
}

use Outcome::*;

/// A system call, on one file only if there is one behind an @, what it fails with (EOF is a file that ends
/// too early), and which of a thread's calls do so, as strace's `when` has it: the first ones may
/// be those of the loader, whose failure is not stalld's.
type Fault = (&'static str, &'static str, &'static str, Outcome);

const WITHOUT_BPF: Outcome = RescuesAnd("task_iter: cannot load the BPF programs");
const LOG_ONLY: Outcome = OnlySays("without a journal stalld only logs");

const FAULTS: &[Fault] = &[
    ("bpf", "EPERM", "1+", WITHOUT_BPF),
    ("bpf", "ENOMEM", "5+", WITHOUT_BPF),
    ("bpf", "EINVAL", "12+", WITHOUT_BPF),
    ("bpf", "EAGAIN", "3+", WITHOUT_BPF),
    ("bpf", "EMFILE", "20+", WITHOUT_BPF),
    ("clock_nanosleep", "EINTR", "2+3", Rescues),
    ("clone", "EAGAIN", "1", LOG_ONLY),
    ("clone", "ENOMEM", "2", OnlySays("cannot try out what the kernel allows: Cannot allocate memory")),
    ("clone3", "EAGAIN", "1+", Refuses("cannot start the thread stalld-log")),
    ("close_range", "ENOSYS", "1+", Rescues),
    ("fallocate", "ENOSPC", "1+", LOG_ONLY),
    ("fchmod", "EPERM", "1+", Refuses("cannot change the mode of /run/stalld/")),
    ("fcntl", "EMFILE", "1+", Refuses("cannot write to stderr: Too many open files")),
    ("flock", "ENOLCK", "1+", Refuses("cannot lock /run/stalld/stalld.lock: No locks available")),
    ("getdents64", "EIO", "1+", Rescues),
    (
        "memfd_create",
        "ENOMEM",
        "1+",
        RescuesAnd("task_iter: cannot open the BPF object: Cannot allocate memory"),
    ),
    ("mlockall", "ENOMEM", "1+", RescuesAnd("cannot lock memory: Cannot allocate memory")),
    (
        "mlockall",
        "EPERM",
        "1+",
        RescuesAnd("cannot lock memory: Operation not permitted; it needs CAP_IPC_LOCK"),
    ),
    ("mmap", "ENOMEM", "25+", RescuesAnd("Cannot allocate memory")),
    ("mremap", "ENOMEM", "1+", Rescues),
    ("munmap", "EINVAL", "5+", Rescues),
    ("openat", "EMFILE", "8+", Refuses("Too many open files")),
    ("openat", "ENFILE", "40+", LeavesThrottlingOff("Too many open files in system")),
    ("openat", "EINTR", "30+3", Rescues),
    ("pidfd_open", "ENOSYS", "1+", Rescues),
    ("poll", "EINTR", "4+2", Rescues),
    ("prctl", "EINVAL", "1+", Rescues),
    ("prlimit64", "EPERM", "1+", Rescues),
    ("pwrite64", "ENOSPC", "1+", Rescues),
    ("read", "EINTR", "12+3", Rescues),
    ("read", "ENOMEM", "60+9", Rescues),
    ("read", "EOF", "60+9", Rescues),
    ("read", "EOF", "80+", OnlySays("this look is lost: cannot walk over all tasks: it ended before")),
    (
        "read",
        "EAGAIN",
        "80+",
        OnlySays("this look is lost: cannot walk over all tasks: Resource temporarily"),
    ),
    ("rt_sigprocmask", "EINVAL", "1+", Refuses("cannot block signals: Invalid argument")),
    ("rt_sigtimedwait", "EINTR", "1+2", Rescues),
    ("sched_getaffinity", "EPERM", "1+", Rescues),
    ("sched_getattr", "EPERM", "10+", OnlySays("Operation not permitted")),
    (
        "sched_setaffinity",
        "EINVAL",
        "1+",
        OnlySays("cannot try out what the kernel allows: Invalid argument"),
    ),
    ("sched_setattr", "EPERM", "1+", RescuesAnd("using SCHED_FIFO for boosting")),
    ("sched_setattr", "EBUSY", "2+", OnlySays("Device or resource busy")),
    ("sched_setattr", "EINVAL", "2+", OnlySays("Invalid argument")),
    ("sched_setscheduler", "EPERM", "1+", LeavesBoosted("failed to restore sched policy")),
    ("sched_setscheduler", "EINTR", "7+2", Rescues),
    ("sendto", "EPIPE", "1+", RescuesAnd("the guardian has been killed")),
    ("sendto", "EAGAIN", "1+", Rescues),
    ("socketpair", "EMFILE", "1+", LOG_ONLY),
    ("statx", "EACCES", "5+", Refuses("Permission denied")),
    ("sysinfo", "EPERM", "1+", Rescues),
    ("wait4", "ECHILD", "1+", Rescues),
    // It is changed, and not seen to be.
    (
        "read@/proc/sys/kernel/sched_rt_runtime_us",
        "ENOMEM",
        "2",
        RescuesAnd("RT throttling stays on: cannot read /proc/sys/kernel/sched_rt_runtime_us"),
    ),
    // What stalld can't put back the guardian can.
    (
        "write@/proc/sys/kernel/sched_rt_runtime_us",
        "EBUSY",
        "2+",
        RescuesAnd("RT throttling is not restored to 950000"),
    ),
];

/// Those of a backend, chosen by name.
const FAULTS_OF: &[(&str, Fault)] = &[
    ("sched_debug", ("pread64", "EINTR", "5+2", Rescues)),
    ("sched_debug", ("pread64", "ENOMEM", "10+", OnlySays("this look is lost: cannot read"))),
    ("sched_debug", ("pread64", "EOF", "10+", OnlySays("this look is lost: "))),
    ("sched_debug", ("read", "EIO", "20+", Refuses("sched_debug: "))),
    (
        "queue_track",
        ("pipe2", "EMFILE", "1+", Refuses("queue_track: cannot start the process that attaches")),
    ),
    ("queue_track", ("read", "EIO", "60+", LeavesThrottlingOff("this look is lost"))),
];

/// Starts it behind a hog, with calls that fail, and sees that it does what is said of it, ends when told, and
/// leaves nothing behind.
fn suffer(backend: &str, fault: Fault) {
    let (call, errno, when, outcome) = fault;
    let what = format!("{call} fails with {errno} ({when}), -b {backend}");
    let how = if errno == "EOF" { "retval=0".to_string() } else { format!("error={errno}") };
    set_limit("-1");
    let mut rig = Rig::start(&["--for", "8", "--victim", "spin"]);
    let victim = rig.event("victim").tid();
    set_limit("950000");
    let (call, file) =
        call.split_once('@').map_or((call, String::new()), |(call, file)| (call, format!("-P {file} ")));
    // On a CPU without a hog, as it is an ordinary program; without cargo's variable, which has the loader open more
    // files; and as a stepparent (-D), so that what is started here is stalld itself.
    let starter = format!(
        "taskset -c 0 env -u LD_LIBRARY_PATH strace -D -f -qqq -o /dev/null {file}-e trace={call} -e \
         inject={call}:{how}:when={when}"
    );
    let starter: Vec<&str> = starter.split(' ').collect();
    let options = ["-f", "-v", "-t", "300ms", "-d", "200ms", "-g", "100ms", "-b", backend];
    let mut stalld = Stalld::start_by(&starter, &[&options[..], &Stalld::RIG_ONLY].concat());

    let restored = format!("restored pid {victim}");
    let awaited = match outcome {
        Rescues | RescuesAnd(_) => restored.as_str(),
        OnlySays(text) | LeavesBoosted(text) | LeavesThrottlingOff(text) | Refuses(text) => text,
    };
    assert!(
        stalld.wait_for(|line| line.contains(awaited), PATIENCE).is_some(),
        "{what}: nothing of '{awaited}'"
    );
    let (code, said) = match outcome {
        Refuses(_) => stalld.finish(),
        _ => stalld.terminate(),
    };
    let said: Vec<&str> = said.iter().map(|(_, line)| line.as_str()).collect();
    println!("{what}: exit code {code:?}, {} lines", said.len());
    assert!(said.iter().all(|line| line.starts_with("stalld: ")), "{what}: {said:#?}");
    assert_eq!(code, Some(i32::from(matches!(outcome, Refuses(_)))), "{what}: {said:#?}");
    let text = match outcome {
        RescuesAnd(text) => Some(text),
        LeavesThrottlingOff(_) => Some("RT throttling is not restored to 950000"),
        _ => None,
    };
    if let Some(text) = text {
        assert!(said.iter().any(|line| line.contains(text)), "{what}: nothing of '{text}' in {said:#?}");
    }
    match outcome {
        LeavesBoosted(_) => {
            assert_eq!(policy(victim).map(|(policy, _)| policy), Some(Policy::DEADLINE), "{what}");
        }
        _ => await_own_policy(victim),
    }
    match outcome {
        LeavesThrottlingOff(_) => set_limit("950000"),
        _ => eventually("throttling is what it was", || (limit() == "950000").then_some(())),
    }
}

#[test]
fn whatever_the_kernel_refuses_all_is_put_back_or_a_line_says_what_is_not() {
    let Some(_live) = live() else { return };
    if Command::new("strace").arg("--version").output().is_err() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no strace: make setup-all");
        return eprintln!("skipped: there is no strace");
    }
    FAULTS.iter().for_each(|&fault| suffer("auto", fault));
    FAULTS_OF.iter().for_each(|&(backend, fault)| suffer(backend, fault));
}
