//! Reads /proc/schedstat: the scheduler's counters per CPU, and per scheduling domain for load
//! balancing.
//!
//! Versions 15 (to Linux 6.9), 16 and 17 (since 6.14) differ in the order of the idle types, in the
//! parts of an imbalance, and in that a domain has a name.

use super::columns::{align, percent};
use crate::cpus::CpuSet;
use crate::error::{Context, Error, Result};
use crate::proc::text::number;
use crate::task::{Cpu, Escaped, Nanos};
use std::fmt;
use std::fs;
use std::path::Path;

/// Defines a struct of counters. The names of its fields are the names in the output.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$what])* pub $field: u64,)*
        }

        impl $name {
            /// Reads the fields from `numbers`, in order. A field that this version lacks stays 0.
            fn take(version: u32, numbers: &mut impl Iterator<Item = u64>) -> Option<$name> {
                Some($name {
                    $($field: if has(version, stringify!($field)) { numbers.next()? } else { 0 },)*
                })
            }

            /// Combines two values field by field.
            fn with(&self, other: &$name, combine: fn(u64, u64) -> u64) -> $name {
                $name { $($field: combine(self.$field, other.$field),)* }
            }

            /// Returns names and values of the fields that this version has.
            fn each(&self, version: u32) -> impl Iterator<Item = (&'static str, u64)> {
                let all = [$((stringify!($field), self.$field),)*];
                all.into_iter().filter(move |(name, _)| has(version, name))
            }
        }
    };
}

counters! {
    /// The counters of a CPU. All but the last three do not change while `kernel.sched_schedstats`
    /// is 0.
    CpuCounters {
        /// Calls of sched_yield(2).
        yields,
        schedules,
        /// Calls of the scheduler that found nothing to run.
        idles,
        wakeups,
        /// Wakeups by a task of this CPU.
        local_wakeups,
        ran_ns,
        waited_ns,
        /// The number of times that a task got the CPU.
        slices,
    }
}

counters! {
    /// The counters of attempts to balance a domain, as seen from one CPU.
    Balance {
        count,
        /// Attempts that found nothing to do.
        balanced,
        /// Attempts that could move no task.
        failed,
        /// The sum of imbalances in different units, in versions 15 and 16.
        imbalance,
        imbalance_load,
        imbalance_util,
        imbalance_task,
        imbalance_misfit,
        /// Tasks that were moved.
        gained,
        /// Tasks that were moved although their data was in a cache of the other CPU.
        hot_gained,
        no_busier_queue,
        no_busier_group,
    }
}

counters! {
    /// The other counters of a domain, as seen from one CPU. Kernels of these versions leave sbe
    /// and sbf 0.
    Moves {
        active_count,
        active_failed,
        active_pushed,
        sbe_count,
        sbe_balanced,
        sbe_pushed,
        sbf_count,
        sbf_balanced,
        sbf_pushed,
        wake_remote,
        wake_affine,
        wake_balance,
    }
}

/// The state of the CPU when it balanced.
const IDLE_TYPES: [&str; 3] = ["busy", "idle", "newly_idle"];

/// The kernel's counters at one time, or their growth between two times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedstat {
    pub version: u32,
    /// The CPUs in the order of the file.
    pub cpus: Vec<CpuStat>,
}

/// The growth of the counters.
pub(super) type Delta = Schedstat;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuStat {
    pub cpu: Cpu,
    pub counters: CpuCounters,
    /// The domains from the smallest, at level 0, to the largest.
    pub domains: Vec<Domain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    pub level: u32,
    /// `SMT`, `MC`, `PKG`, `NUMA`...; since version 17.
    pub name: Option<String>,
    pub cpus: CpuSet,
    /// In the order of `IDLE_TYPES`.
    pub balance: [Balance; 3],
    pub moves: Moves,
}

fn has(version: u32, counter: &str) -> bool {
    match counter {
        "imbalance" => version < 17,
        "imbalance_load" | "imbalance_util" | "imbalance_task" | "imbalance_misfit" => version >= 17,
        _ => true,
    }
}

/// Returns the growth of a counter. Most counters are 32 bits wide and wrap. Those of a domain also
/// restart at 0 when the kernel rebuilds it. If the wrapped growth is over half of the 32-bit
/// range, the counter has restarted.
fn grown(after: u64, before: u64) -> u64 {
    let wrapped = (after as u32).wrapping_sub(before as u32);
    match after.checked_sub(before) {
        Some(grown) => grown,
        None if u32::try_from(before).is_ok() && wrapped <= u32::MAX / 2 => u64::from(wrapped),
        None => after,
    }
}

/// Reads the counters of the kernel below `root`.
pub(super) fn read(root: &Path) -> Result<Schedstat> {
    let path = root.join("proc/schedstat");
    let text = fs::read(&path).context(format_args!("read {}", path.display()));
    let text = text.map_err(|error| match error.errno() {
        Some(libc::ENOENT) => error.with_note("this kernel is built without CONFIG_SCHEDSTATS"),
        _ => error,
    })?;
    parse(&text).map_err(|error| error.of(path.display()))
}

pub fn parse(text: &[u8]) -> Result<Schedstat> {
    let mut lines = text.split(|&b| b == b'\n');
    let version = lines.next().and_then(|line| number(line.strip_prefix(b"version ")?));
    let version: u32 = version.ok_or_else(|| Error::new("the first line tells no version"))?;
    if !(15..=17).contains(&version) {
        return Err(Error::new(format!("version {version} is not known: 15, 16 and 17 are")));
    }
    let mut stat = Schedstat { version, cpus: Vec::new() };
    for line in lines {
        let mut words = line.split(|&b| b == b' ').filter(|word| !word.is_empty());
        let Some(first) = words.next() else { continue };
        let words: Vec<&[u8]> = words.collect();
        if let Some(id) = first.strip_prefix(b"cpu").and_then(number) {
            let counters = counters(version, &words)
                .ok_or_else(|| not_understood(format_args!("the line of CPU {id}")))?;
            stat.cpus.push(CpuStat { cpu: Cpu(id), counters, domains: Vec::new() });
        } else if let Some(level) = first.strip_prefix(b"domain").and_then(number) {
            let cpu = stat.cpus.last_mut();
            let cpu = cpu.ok_or_else(|| Error::new(format!("domain {level} belongs to no CPU")))?;
            let domain = domain(version, level, &words);
            let domain = domain.ok_or_else(|| {
                not_understood(format_args!("the line of domain {level} of CPU {}", cpu.cpu))
            })?;
            cpu.domains.push(domain);
        }
        // Any other line is the time stamp.
    }
    Ok(stat)
}

fn not_understood(what: fmt::Arguments) -> Error {
    Error::new(format!("{what} is not what its version has"))
}

fn counters(version: u32, words: &[&[u8]]) -> Option<CpuCounters> {
    let mut numbers = numbers(words)?;
    // The second number has no meaning since Linux 2.6.23.
    (numbers.len() > 1).then(|| numbers.remove(1))?;
    exactly(numbers, |numbers| CpuCounters::take(version, numbers))
}

/// Parses `[NAME] MASK NUMBER...`.
fn domain(version: u32, level: u32, words: &[&[u8]]) -> Option<Domain> {
    let (name, words) = match version {
        17 => (Some(words.first()?), words.get(1..)?),
        _ => (None, words),
    };
    let (cpus, words) = words.split_first()?;
    let (balance, moves) = exactly(numbers(words)?, |numbers| {
        let mut balance = [Balance::default(); 3];
        // Version 16 has swapped the first two.
        let order = if version < 16 { [1, 0, 2] } else { [0, 1, 2] };
        for index in order {
            balance[index] = Balance::take(version, numbers)?;
        }
        Some((balance, Moves::take(version, numbers)?))
    })?;
    let name = name.map(|name| Escaped(name).to_string());
    Some(Domain { level, name, cpus: mask(cpus)?, balance, moves })
}

fn numbers(words: &[&[u8]]) -> Option<Vec<u64>> {
    words.iter().map(|word| number(word)).collect()
}

/// Returns the result of `take`; `None` unless it takes all numbers.
fn exactly<T>(numbers: Vec<u64>, take: impl FnOnce(&mut std::vec::IntoIter<u64>) -> Option<T>) -> Option<T> {
    let mut numbers = numbers.into_iter();
    take(&mut numbers).filter(|_| numbers.next().is_none())
}

/// Parses a mask such as `00000003,00000000`: 32 CPUs in each word, the lowest in the last word.
fn mask(text: &[u8]) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for (index, word) in text.rsplit(|&b| b == b',').enumerate() {
        let bits = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        let first = u32::try_from(index).ok()?.checked_mul(32)?;
        (0..32).filter(|bit| bits >> bit & 1 == 1).for_each(|bit| set.insert(Cpu(first + bit)));
    }
    Some(set)
}

/// Returns the growth of the counters. Skips a CPU that is not in both. The counters of a domain
/// that is new have grown from 0.
pub fn delta(before: &Schedstat, after: &Schedstat) -> Delta {
    let cpu = |after: &CpuStat| {
        let before = before.cpus.iter().find(|before| before.cpu == after.cpu)?;
        let domain = |after: &Domain| {
            let same = |before: &&Domain| (before.level, &before.cpus) == (after.level, &after.cpus);
            before.domains.iter().find(same).map_or_else(|| after.clone(), |before| after.since(before))
        };
        let domains = after.domains.iter().map(domain).collect();
        Some(CpuStat { cpu: after.cpu, counters: after.counters.with(&before.counters, grown), domains })
    };
    Delta { version: after.version, cpus: after.cpus.iter().filter_map(cpu).collect() }
}

impl Domain {
    fn since(&self, before: &Domain) -> Domain {
        let mut since = self.clone();
        for (now, before) in since.balance.iter_mut().zip(&before.balance) {
            *now = now.with(before, grown);
        }
        since.moves = self.moves.with(&before.moves, grown);
        since
    }

    /// Returns a title such as `0 SMT`.
    fn title(&self) -> String {
        self.name.as_ref().map_or_else(|| self.level.to_string(), |name| format!("{} {name}", self.level))
    }
}

/// Returns tables of the growth in `interval`: by CPU, and by domain for all CPUs together.
pub fn show(delta: &Delta, interval: Nanos) -> String {
    let rate = |count: u64| match interval.0 {
        0 => "-".to_string(),
        _ => format!("{:.1}", count as f64 * 1e9 / interval.0 as f64),
    };
    let mut cpus = vec![header("CPU RAN% WAITED% US/SLICE SCHED/S IDLE% WAKE/S LOCAL% YIELD/S")];
    for CpuStat { cpu, counters, .. } in &delta.cpus {
        let per_slice = counters.waited_ns.checked_div(counters.slices);
        cpus.push(vec![
            cpu.to_string(),
            percent(counters.ran_ns, interval.0),
            percent(counters.waited_ns, interval.0),
            per_slice.map_or_else(|| "-".to_string(), |ns| format!("{:.1}", ns as f64 / 1000.0)),
            rate(counters.schedules),
            percent(counters.idles, counters.schedules),
            rate(counters.wakeups),
            percent(counters.local_wakeups, counters.wakeups),
            rate(counters.yields),
        ]);
    }
    let mut balances = vec![header("DOMAIN WHEN BALANCE/S BALANCED% FAILED% GAINED/S HOT/S")];
    let mut moves = vec![header("DOMAIN ACTIVE/S FAILED% PUSHED/S REMOTE/S AFFINE/S PASSIVE/S")];
    for domain in of_all_cpus(delta) {
        for (when, balance) in IDLE_TYPES.iter().zip(&domain.balance) {
            balances.push(vec![
                domain.title(),
                (*when).to_string(),
                rate(balance.count),
                percent(balance.balanced, balance.count),
                percent(balance.failed, balance.count),
                rate(balance.gained),
                rate(balance.hot_gained),
            ]);
        }
        moves.push(vec![
            domain.title(),
            rate(domain.moves.active_count),
            percent(domain.moves.active_failed, domain.moves.active_count),
            rate(domain.moves.active_pushed),
            rate(domain.moves.wake_remote),
            rate(domain.moves.wake_affine),
            rate(domain.moves.wake_balance),
        ]);
    }
    // A machine with one CPU has no domains.
    let tables = [cpus, balances, moves];
    tables.iter().filter(|rows| rows.len() > 1).map(|rows| align(rows)).collect::<Vec<_>>().join("\n")
}

fn header(titles: &str) -> Vec<String> {
    titles.split(' ').map(String::from).collect()
}

/// Returns one domain for each level and name, with the sums of all CPUs.
fn of_all_cpus(delta: &Delta) -> Vec<Domain> {
    let mut sums: Vec<Domain> = Vec::new();
    for domain in delta.cpus.iter().flat_map(|cpu| &cpu.domains) {
        let same = |sum: &&mut Domain| (sum.level, &sum.name) == (domain.level, &domain.name);
        let Some(sum) = sums.iter_mut().find(same) else {
            sums.push(domain.clone());
            continue;
        };
        for (sum, balance) in sum.balance.iter_mut().zip(&domain.balance) {
            *sum = sum.with(balance, u64::saturating_add);
        }
        sum.moves = sum.moves.with(&domain.moves, u64::saturating_add);
    }
    sums.sort_by(|a, b| (a.level, &a.name).cmp(&(b.level, &b.name)));
    sums
}

/// Returns all counters by names such as `cpu0.ran_ns` and `cpu0.domain1.newly_idle.count`.
pub fn rows(delta: &Delta) -> Vec<(String, u64)> {
    let version = delta.version;
    let mut rows = Vec::new();
    for CpuStat { cpu, counters, domains } in &delta.cpus {
        rows.extend(counters.each(version).map(|(name, value)| (format!("cpu{cpu}.{name}"), value)));
        for Domain { level, balance, moves, .. } in domains {
            let of = format!("cpu{cpu}.domain{level}");
            for (when, balance) in IDLE_TYPES.iter().zip(balance) {
                rows.extend(
                    balance.each(version).map(|(name, value)| (format!("{of}.{when}.{name}"), value)),
                );
            }
            rows.extend(moves.each(version).map(|(name, value)| (format!("{of}.{name}"), value)));
        }
    }
    rows
}

#[cfg(test)]
#[path = "schedstat_tests.rs"]
mod tests;
