//! Figures of /proc about a process that is being measured.

use stalld::error::{Context, Error, Result};
use stalld::task::{Cpu, Nanos, Tid};
use std::collections::HashMap;
use std::fs;

/// Returns the number of threads on the whole machine; 0 if it is not known.
pub fn threads_of_all() -> u32 {
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    loadavg.split(['/', ' ']).nth(4).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Returns the CPU time of all its threads. The kernel updates it when a thread goes to sleep.
pub fn cpu_time(pid: Tid) -> Result<Nanos> {
    let mut sum = Nanos::ZERO;
    for tid in numbers(&format!("/proc/{pid}/task"))? {
        sum = sum + computed(tid)?;
    }
    Ok(sum)
}

/// Returns the CPU time of one thread.
pub fn computed(tid: Tid) -> Result<Nanos> {
    let path = format!("/proc/{tid}/schedstat");
    let text = fs::read_to_string(&path).context(format!("read {path}"))?;
    let spent = text.split(' ').next().and_then(|field| field.parse().ok());
    spent.map(Nanos).ok_or_else(|| Error::new(format!("{path} has no CPU time")))
}

/// Returns the threads of these processes.
pub fn threads(processes: &[Tid]) -> Result<Vec<Tid>> {
    let lists = processes.iter().map(|pid| numbers(&format!("/proc/{pid}/task")));
    Ok(lists.collect::<Result<Vec<_>>>()?.concat())
}

/// Returns the idle time of all CPUs together, without that of `except`.
pub fn idle_time(except: Option<Cpu>) -> Result<Nanos> {
    const STAT: &str = "/proc/stat";
    let text = fs::read_to_string(STAT).context(format!("read {STAT}"))?;
    // A line is `cpuN user nice system idle iowait ...` in ticks of 10 ms. The first line is a sum.
    let idle = |line: &str| {
        let (cpu, figures) = line.strip_prefix("cpu")?.split_once(' ')?;
        let is_wanted = except != Some(Cpu(cpu.parse().ok()?));
        let ticks = figures.split(' ').skip(3).take(2).map(|figure| figure.parse::<u64>().ok());
        Some(ticks.sum::<Option<u64>>()? * u64::from(is_wanted))
    };
    Ok(Nanos(text.lines().filter_map(idle).sum::<u64>() * 10_000_000))
}

/// Memory of a process by /proc/PID/status.
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

/// Returns the children of a process, their children, and so on.
pub fn descendants(pid: Tid) -> Result<Vec<Tid>> {
    let mut found = vec![pid];
    let mut parents = HashMap::new();
    for process in numbers("/proc")? {
        // It may have exited in the meantime.
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

/// Returns the fields of /proc/PID/fdinfo for each open descriptor of a process.
pub fn descriptors(pid: Tid) -> Result<Vec<HashMap<String, String>>> {
    let fds = numbers(&format!("/proc/{pid}/fdinfo"))?;
    Ok(fds.iter().filter_map(|fd| fields(&format!("/proc/{pid}/fdinfo/{fd}")).ok()).collect())
}

/// Reads a file of lines `key:<blanks>value`.
fn fields(path: &str) -> Result<HashMap<String, String>> {
    // The name of a task may hold any bytes.
    let text = fs::read(path).context(format!("read {path}"))?;
    let text = String::from_utf8_lossy(&text);
    let pair =
        |line: &str| line.split_once(':').map(|(key, value)| (key.to_string(), value.trim().to_string()));
    Ok(text.lines().filter_map(pair).collect())
}

/// Returns the entries of a directory that are numbers.
pub fn numbers(directory: &str) -> Result<Vec<Tid>> {
    let entries = fs::read_dir(directory).context(format!("read {directory}"))?;
    let number = |name: std::ffi::OsString| name.to_str()?.parse().ok().map(Tid);
    Ok(entries.filter_map(|entry| number(entry.ok()?.file_name())).collect())
}
