//! stalld survives system calls that fail, one kind at a time, with the errors that the kernel may
//! return. strace(1) injects them from outside, so stalld needs no test code, and calls of the C
//! library and of libbpf fail too.

#![cfg(feature = "bpf")]

use rig::boosts::{await_own_policy, policy};
use rig::process::eventually;
use rig::throttling::{limit, set_limit};
use rig::{Record, Rig, Stalld, TIMEOUT, live};
use stalld::task::{Nanos, Policy};
use std::process::Command;

/// The expected behaviour of a stalld whose calls fail.
#[derive(Clone, Copy)]
enum Outcome {
    /// It works as without the fault.
    Rescues,
    /// It works as without the fault, and logs a line with this text.
    RescuesAnd(&'static str),
    /// It logs a line with this text and goes on.
    Logs(&'static str),
    /// It boosts no task, logs a line with this text, and goes on.
    OnlyLogs(&'static str),
    /// It reports a boost that failed with this error number, and goes on.
    IsRefused(i32),
    /// It does not start and prints the reason.
    Refuses(&'static str),
    /// It can't restore the task and reports this error number.
    LeavesBoosted(i32),
    /// It logs a line with this text, and reports at its end that it can't restore throttling.
    LeavesThrottlingOff(&'static str),
}

use Outcome::*;

/// A system call, on one file only if there is one behind an @; the error that it fails with (EOF
/// is a file that ends too early); and which of the calls of a thread fail, in the syntax of
/// strace's `when`. The calls of the loader come before the first one. Their failure is not a fault
/// of stalld, and their number differs between distributions.
type Fault = (&'static str, &'static str, &'static str, Outcome);

/// The essential words of the line about a scan that failed.
const LOST_SCAN: &str = "scan failed";

const WITHOUT_BPF: Outcome = RescuesAnd("the BPF programs");
const LOG_ONLY: Outcome = OnlyLogs("only logs");

const FAULTS: &[Fault] = &[
    ("bpf", "EPERM", "1+", WITHOUT_BPF),
    ("bpf", "ENOMEM", "5+", WITHOUT_BPF),
    ("bpf", "EINVAL", "12+", WITHOUT_BPF),
    ("bpf", "EAGAIN", "3+", WITHOUT_BPF),
    ("bpf", "EMFILE", "20+", WITHOUT_BPF),
    ("clock_nanosleep", "EINTR", "2+3", Rescues),
    ("clone", "EAGAIN", "1", LOG_ONLY),
    ("clone", "ENOMEM", "2", OnlyLogs("Cannot allocate memory")),
    ("clone3", "EAGAIN", "1+", Refuses("stalld-log")),
    ("close_range", "ENOSYS", "1+", Rescues),
    ("fallocate", "ENOSPC", "1+", LOG_ONLY),
    ("fchmod", "EPERM", "1+", Refuses("/run/stalld/")),
    ("fcntl", "EMFILE", "1+", Refuses("Too many open files")),
    ("flock", "ENOLCK", "1+", Refuses("stalld.lock: No locks available")),
    ("getdents64", "EIO", "1+", Rescues),
    ("memfd_create", "ENOMEM", "1+", RescuesAnd("the BPF object: Cannot allocate memory")),
    ("mlockall", "ENOMEM", "1+", RescuesAnd("lock memory: Cannot allocate memory")),
    ("mlockall", "EPERM", "1+", RescuesAnd("CAP_IPC_LOCK")),
    ("mmap", "ENOMEM", "8+", RescuesAnd("Cannot allocate memory")),
    ("mremap", "ENOMEM", "1+", Rescues),
    ("munmap", "EINVAL", "3+", Rescues),
    ("openat", "EMFILE", "1+", Refuses("Too many open files")),
    ("openat", "ENFILE", "33+", LeavesThrottlingOff("Too many open files in system")),
    ("openat", "EINTR", "23+3", Rescues),
    ("pidfd_open", "ENOSYS", "1+", Rescues),
    ("poll", "EINTR", "3+2", Rescues),
    ("prctl", "EINVAL", "1+", Rescues),
    ("prlimit64", "EPERM", "1+", Rescues),
    ("pwrite64", "ENOSPC", "1+", Rescues),
    ("read", "EINTR", "2+3", Rescues),
    ("read", "ENOMEM", "50+9", Rescues),
    ("read", "EOF", "50+9", Rescues),
    ("rt_sigprocmask", "EINVAL", "1+", Refuses("signals: Invalid argument")),
    ("rt_sigtimedwait", "EINTR", "1+2", Rescues),
    ("sched_getaffinity", "EPERM", "1+", Rescues),
    ("sched_getattr", "EPERM", "10+", IsRefused(libc::EPERM)),
    ("sched_setaffinity", "EINVAL", "1+", OnlyLogs("Invalid argument")),
    ("sched_setattr", "EPERM", "1+", RescuesAnd("using SCHED_FIFO for boosting")),
    ("sched_setattr", "EBUSY", "2+", IsRefused(libc::EBUSY)),
    ("sched_setattr", "EINVAL", "2+", IsRefused(libc::EINVAL)),
    ("sched_setscheduler", "EPERM", "1+", LeavesBoosted(libc::EPERM)),
    ("sched_setscheduler", "EINTR", "7+2", Rescues),
    ("sendto", "EPIPE", "1+", RescuesAnd("guardian has been killed")),
    ("sendto", "EAGAIN", "1+", Rescues),
    ("socketpair", "EMFILE", "1+", LOG_ONLY),
    ("statx", "EACCES", "4+", Refuses("Permission denied")),
    ("sysinfo", "EPERM", "1+", Rescues),
    ("wait4", "ECHILD", "1+", Rescues),
    // stalld changes the setting and can't read it back.
    (
        "read@/proc/sys/kernel/sched_rt_runtime_us",
        "ENOMEM",
        "2",
        RescuesAnd("cannot read /proc/sys/kernel/sched_rt_runtime_us"),
    ),
    // The guardian can restore the setting although stalld can't.
    (
        "write@/proc/sys/kernel/sched_rt_runtime_us",
        "EBUSY",
        "2+",
        RescuesAnd("RT throttling is not restored to 950000"),
    ),
];

/// Faults that concern one backend, which is chosen by name.
const FAULTS_OF: &[(&str, Fault)] = &[
    ("sched_debug", ("pread64", "EINTR", "3+2", Rescues)),
    ("sched_debug", ("pread64", "ENOMEM", "8+", Logs("Cannot allocate memory"))),
    ("sched_debug", ("pread64", "EOF", "8+", Logs(LOST_SCAN))),
    ("sched_debug", ("read", "EIO", "10+", Refuses("sched_debug: "))),
    ("queue_track", ("pipe2", "EMFILE", "1+", Refuses("Too many open files"))),
    ("queue_track", ("read", "EIO", "50+", LeavesThrottlingOff(LOST_SCAN))),
    ("queue_track", ("read", "EOF", "70+", Logs("it ended before"))),
    ("queue_track", ("read", "EAGAIN", "70+", Logs("Resource temporarily unavailable"))),
];

/// Whether a line has the form of the log, or of what stalld and its guardian print without the
/// log.
fn is_of_stalld(line: &str) -> bool {
    line.starts_with('{') || line.starts_with("stalld: ")
}

/// Returns how many of these calls are made before stalld does anything.
fn calls_of_the_loader(call: &str) -> u32 {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qqq", "-e", &format!("trace={call}"), env!("CARGO_BIN_EXE_stalld"), "--version"]);
    // The variable of cargo would make the loader search more directories.
    strace.env_remove("LD_LIBRARY_PATH");
    let output = strace.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let is_call = |line: &&str| line.contains(&format!("{call}("));
    String::from_utf8_lossy(&output.stderr).lines().filter(is_call).count() as u32
}

/// Returns `when` with its first number counted from a call that comes after so many.
fn after(count: u32, when: &str) -> String {
    let end = when.find('+').unwrap_or(when.len());
    let first: u32 = when[..end].parse().unwrap();
    format!("{}{}", count + first, &when[end..])
}

/// Starts stalld behind a hog, with calls that fail. Asserts that its behaviour is the expected
/// one, and that it ends and leaves nothing behind.
fn suffer(backend: &str, fault: Fault) {
    let (call, errno, when, outcome) = fault;
    let what = format!("{call} fails with {errno} ({when}), -b {backend}");
    let how = if errno == "EOF" { "retval=0".to_string() } else { format!("error={errno}") };
    set_limit("-1");
    let mut rig = Rig::start(&["--for", "30", "--victim", "spin"]);
    let victim = rig.event("victim").tid();
    set_limit("950000");
    let when = match call.contains('@') {
        true => when.to_string(),
        false => after(calls_of_the_loader(call), when),
    };
    let (call, file) =
        call.split_once('@').map_or((call, String::new()), |(call, file)| (call, format!("-P {file} ")));
    // strace is an ordinary program, so it runs on a CPU without a hog. The variable of cargo would
    // make the loader open more files. With -D, strace is no parent of stalld, so the pid of the
    // started process is that of stalld.
    let starter = format!(
        "taskset -c 0 env -u LD_LIBRARY_PATH strace -D -f -qqq -o /dev/null {file}-e trace={call} -e \
         inject={call}:{how}:when={when}"
    );
    let starter: Vec<&str> = starter.split(' ').collect();
    let options =
        ["-f", "-v", "--boost", "deadline", "-t", "300ms", "-d", "200ms", "-g", "100ms", "-b", backend];
    let mut stalld = Stalld::start_by(&starter, &[&options[..], &Stalld::RIG_ONLY].concat());

    let is_of_error = |record: &Record, event: &str, errno: i32| {
        record.is_of(event, victim) && record.number("errno") == errno as u64
    };
    let is_awaited = |record: &Record| match outcome {
        Rescues | RescuesAnd(_) => record.is_of("restored", victim),
        IsRefused(errno) => is_of_error(record, "refused", errno),
        LeavesBoosted(errno) => is_of_error(record, "restore_failed", errno),
        Logs(text) | OnlyLogs(text) | LeavesThrottlingOff(text) | Refuses(text) => {
            record.message().contains(text)
        }
    };
    if stalld.wait_for(is_awaited, TIMEOUT).is_none() {
        stalld.signal("TERM");
        let (_, mut lines) = stalld.finish_with_text();
        lines.retain(|line| !line.contains(r#""level":"debug""#));
        panic!("{what}: the expected line never came: {lines:#?}");
    }
    if matches!(outcome, OnlyLogs(_)) {
        stalld.event_of("starved", victim);
    }
    if !matches!(outcome, Refuses(_)) {
        stalld.signal("TERM");
    }
    let (code, lines) = stalld.finish_with_text();
    println!("{what}: exit code {code:?}, {} lines", lines.len());
    assert!(lines.iter().all(|line| is_of_stalld(line)), "{what}: {lines:#?}");
    assert_eq!(code, Some(i32::from(matches!(outcome, Refuses(_)))), "{what}: {lines:#?}");
    let records: Vec<Record> = lines.iter().map(|line| Record::read(Nanos::ZERO, line)).collect();
    let text = match outcome {
        RescuesAnd(text) => Some(text),
        LeavesThrottlingOff(_) => Some("RT throttling is not restored to 950000"),
        _ => None,
    };
    if let Some(text) = text {
        let is_logged = records.iter().any(|record| record.message().contains(text));
        assert!(is_logged, "{what}: no line with '{text}' in {lines:#?}");
    }
    if matches!(outcome, OnlyLogs(_) | Refuses(_)) {
        assert!(!records.iter().any(|record| record.is("boosted")), "{what}: {lines:#?}");
    }
    match outcome {
        LeavesBoosted(_) => {
            assert_eq!(policy(victim).map(|(policy, _)| policy), Some(Policy::DEADLINE), "{what}");
        }
        _ => await_own_policy(victim),
    }
    match outcome {
        LeavesThrottlingOff(_) => set_limit("950000"),
        _ => eventually("throttling is restored", || (limit() == "950000").then_some(())),
    }
}

#[test]
#[ignore = "starves tasks, as root"]
fn after_failed_calls_everything_is_restored_or_reported() {
    let _live = live();
    let strace = Command::new("strace").arg("--version").output();
    assert!(strace.is_ok(), "cannot run strace: {strace:?}; install the package strace");
    FAULTS.iter().for_each(|&fault| suffer("auto", fault));
    FAULTS_OF.iter().for_each(|&(backend, fault)| suffer(backend, fault));
}
