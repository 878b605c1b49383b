//! What the kernel tells of a process that is being measured.

use stalld::error::{Context, Error, Result};
use stalld::task::{Nanos, Tid};
use std::collections::HashMap;
use std::fs;

/// How many threads there are on the whole machine.
pub fn threads_of_all() -> u32 {
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    loadavg.split(['/', ' ']).nth(4).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The CPU time of all its threads so far. The kernel brings it up to date when a thread goes to sleep.
pub fn cpu_time(pid: Tid) -> Result<Nanos> {
    let mut sum = Nanos::ZERO;
    for tid in numbers(&format!("/proc/{pid}/task"))? {
        sum = sum + computed(tid)?;
    }
    Ok(sum)
}

/// The same of a single thread.
pub fn computed(tid: Tid) -> Result<Nanos> {
    let path = format!("/proc/{tid}/schedstat");
    let text = fs::read_to_string(&path).context(format!("read {path}"))?;
    let spent = text.split(' ').next().and_then(|field| field.parse().ok());
    spent.map(Nanos).ok_or_else(|| Error::new(format!("{path} has no CPU time")))
}

/// The threads of these processes.
pub fn threads(processes: &[Tid]) -> Result<Vec<Tid>> {
    let lists = processes.iter().map(|pid| numbers(&format!("/proc/{pid}/task")));
    Ok(lists.collect::<Result<Vec<_>>>()?.concat())
}

/// What /proc/PID/status says of its memory.
pub struct Memory {
    pub resident_kib: u64,
    pub anonymous_kib: u64,
    pub peak_kib: u64,
}

pub fn memory(pid: Tid) -> Result<Memory> {
    let status = fields(&format!("/proc/{pid}/status"))?;
    let kib = |key: &str| {
        let value = status.get(key).and_then(|value| value.split(' ').next()?.parse().ok());
        value.ok_or_else(|| Error::new(format!("/proc/{pid}/status has no {key}")))
    };
    Ok(Memory { resident_kib: kib("VmRSS")?, anonymous_kib: kib("RssAnon")?, peak_kib: kib("VmHWM")? })
}

/// The children of a process, and theirs.
pub fn descendants(pid: Tid) -> Result<Vec<Tid>> {
    let mut found = vec![pid];
    let mut parents = HashMap::new();
    for process in numbers("/proc")? {
        // It may have gone meanwhile.
        let Ok(status) = fields(&format!("/proc/{process}/status")) else { continue };
        if let Some(parent) = status.get("PPid").and_then(|parent| parent.parse().ok()) {
            parents.insert(process, Tid(parent));
        }
    }
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|&(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

/// What the kernel tells of each open descriptor of a process.
pub fn descriptors(pid: Tid) -> Result<Vec<HashMap<String, String>>> {
    let fds = numbers(&format!("/proc/{pid}/fdinfo"))?;
    Ok(fds.iter().filter_map(|fd| fields(&format!("/proc/{pid}/fdinfo/{fd}")).ok()).collect())
}

/// A file of lines `key:<blanks>value`.
fn fields(path: &str) -> Result<HashMap<String, String>> {
    // A name in it may be any bytes.
    let text = fs::read(path).context(format!("read {path}"))?;
    let text = String::from_utf8_lossy(&text);
    let pair =
        |line: &str| line.split_once(':').map(|(key, value)| (key.to_string(), value.trim().to_string()));
    Ok(text.lines().filter_map(pair).collect())
}

/// The entries of a directory that are numbers.
pub fn numbers(directory: &str) -> Result<Vec<Tid>> {
    let entries = fs::read_dir(directory).context(format!("read {directory}"))?;
    let number = |name: std::ffi::OsString| name.to_str()?.parse().ok().map(Tid);
    Ok(entries.filter_map(|entry| number(entry.ok()?.file_name())).collect())
}
