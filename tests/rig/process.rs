//! Facts about a process from /proc, and signals.

use crate::TIMEOUT;
use stalld::sys::clock;
use stalld::task::{Cpu, Nanos, Tid};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Sends a signal by its name, with the kill of the shell, because not every host has the program.
pub fn signal(pid: Tid, name: &str) {
    let kill = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &kill]).status().expect("cannot start sh");
    assert!(status.success(), "'{kill}' failed");
}

/// Sends SIGKILL, if there is still such a process.
pub fn kill(pid: Tid) {
    let kill = format!("kill -KILL {pid} 2>/dev/null");
    let _ = Command::new("sh").args(["-c", &kill]).status().expect("cannot start sh");
}

/// Returns the anonymous memory of a process, in KiB.
pub fn anonymous_kib(pid: Tid) -> u64 {
    let value = status(pid, "RssAnon").expect("cannot read the memory of a process");
    value.split(' ').next().and_then(|word| word.parse().ok()).expect("memory is a number")
}

/// Repeats `look` until it finds something, and returns that. Panics when it takes too long.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = clock::monotonic() + TIMEOUT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock::monotonic() < until, "waited in vain until {what}");
        clock::nap(Nanos::from_millis(2));
    }
}

pub fn await_end(pid: Tid) {
    eventually("a process ends", || has_ended(pid).then_some(()));
}

pub fn has_ended(pid: Tid) -> bool {
    matches!(state(pid), None | Some(b'Z' | b'X'))
}

/// Returns whether a task sleeps and is in no run queue. A task whose state is "sleeping" may still
/// wait for its CPU, on its way into that sleep.
pub fn is_off_its_queue(tid: Tid) -> bool {
    let wchan = fs::read_to_string(format!("/proc/{tid}/wchan"));
    state(tid) == Some(b'S') && wchan.is_ok_and(|wchan| wchan != "0")
}

/// Returns the state as the letter that ps shows; `None` if there is no such task.
pub fn state(tid: Tid) -> Option<u8> {
    field(tid, 0).and_then(|state| state.bytes().next())
}

pub fn parent(pid: Tid) -> Option<Tid> {
    field(pid, 1)?.parse().ok().map(Tid)
}

/// Returns the processes that a thread has started.
pub fn children_of_thread(tgid: Tid, tid: Tid) -> Vec<Tid> {
    let children = fs::read_to_string(format!("/proc/{tgid}/task/{tid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok().map(Tid)).collect()
}

/// The process group.
pub fn group(pid: Tid) -> Option<Tid> {
    field(pid, 2)?.parse().ok().map(Tid)
}

/// The rank by which the scheduler runs a task now, ranks that it was lent included. It is negative
/// for real-time tasks, and 20 + nice for fair ones.
pub fn rank(tid: Tid) -> Option<i32> {
    field(tid, 15)?.parse().ok()
}

/// The CPU on which a task ran last.
pub fn cpu(tid: Tid) -> Option<Cpu> {
    field(tid, 36)?.parse().ok().map(Cpu)
}

/// The CPU time that all threads of a process have used so far.
pub fn cpu_time(pid: Tid) -> Nanos {
    threads(pid).into_iter().filter_map(thread_cpu_time).fold(Nanos::ZERO, |sum, time| sum + time)
}

/// The CPU time that one thread has used so far.
pub fn thread_cpu_time(tid: Tid) -> Option<Nanos> {
    let schedstat = fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
    schedstat.split(' ').next()?.parse().ok().map(Nanos)
}

pub fn session(pid: Tid) -> Option<Tid> {
    field(pid, 3)?.parse().ok().map(Tid)
}

/// Returns the number of page faults of a task so far, minor and major.
pub fn faults(tid: Tid) -> Option<u64> {
    let number = |index| field(tid, index)?.parse::<u64>().ok();
    Some(number(7)? + number(9)?)
}

/// Returns a word of /proc/PID/stat. Index 0 is the first one behind the name, which may contain
/// blanks and parentheses.
fn field(pid: Tid, index: usize) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let behind = stat.iter().rposition(|&b| b == b')')? + 2;
    let text = String::from_utf8_lossy(stat.get(behind..)?).into_owned();
    text.split(' ').nth(index).map(str::to_string)
}

/// Returns the value of a line of /proc/PID/status, behind its title and the colon.
pub fn status(pid: Tid, title: &str) -> Option<String> {
    // The name of the process is in it too, and may be any bytes.
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let value = |line: &str| Some(line.strip_prefix(title)?.strip_prefix(':')?.trim().to_string());
    status.lines().find_map(value)
}

/// Returns how often a task has left its CPU to sleep, by the kernel's count.
pub fn sleeps(tid: Tid) -> u64 {
    let count = status(tid, "voluntary_ctxt_switches").expect("cannot read the switches of a task");
    count.parse().expect("the count of switches is a number")
}

/// Returns whether a process has this capability, by the kernel's number for it.
pub fn has_capability(pid: Tid, number: u32) -> bool {
    let effective = status(pid, "CapEff").expect("cannot read the capabilities");
    u64::from_str_radix(&effective, 16).expect("capabilities are in hexadecimal") >> number & 1 == 1
}

/// Returns the number in a file of one line below /proc/PID.
pub fn number(pid: Tid, name: &str) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{name}")).expect("no such file below /proc");
    text.trim().parse().expect("no number")
}

pub fn threads(pid: Tid) -> Vec<Tid> {
    numbers(&format!("/proc/{pid}/task")).collect()
}

/// All processes of the host.
pub fn all() -> impl Iterator<Item = Tid> {
    numbers("/proc")
}

pub fn children(pid: Tid) -> Vec<Tid> {
    all().filter(|&process| parent(process) == Some(pid)).collect()
}

fn numbers(directory: &str) -> impl Iterator<Item = Tid> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Tid))
}

/// Returns the target of a descriptor's link in /proc.
pub fn descriptor(pid: Tid, number: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()
}

/// Returns the targets of all descriptors of a process.
pub fn descriptors(pid: Tid) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
}

/// Returns the types of the BPF links of a process, such as `iter`. They are attached for as long
/// as it lives.
pub fn bpf_links(pid: Tid) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let infos = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    infos
        .filter_map(|info| Some(info.split_once("link_type:")?.1.lines().next()?.trim().to_string()))
        .collect()
}
