//! The speed at which the text of sched_debug is read, for machines of many sizes. Each text is
//! made from one that a kernel printed.

use crate::figures::{Effort, Line, Row, grouped, median};
use stalld::cpus::CpuSet;
use stalld::error::{Error, Result};
use stalld::observe::Snapshot;
use stalld::observe::sched_debug::{Scope, parse};
use stalld::sys::clock;

const PRINTED: &str = include_str!("../tests/fixtures/sched_debug/6.18.txt");

/// CPUs and threads. The last machine has the largest text.
const MACHINES: [(u32, usize); 7] =
    [(2, 100), (2, 1_000), (2, 20_000), (32, 20_000), (256, 20_000), (1_024, 5_000), (1_024, 20_000)];

const BOUND_MB_PER_S: f64 = 300.0;

/// Bound on the time for a byte of the largest text, relative to the cheapest. That is a byte of a
/// text that fits into the caches and has long lines.
const MAX_GROWTH: f64 = 3.0;

const ROW: &str = "sched_debug, reading the text of";

pub fn rows() -> Vec<Row> {
    vec![Row::new(format!("{ROW} 2 to 1,024 CPUs"), measure)]
}

fn measure(effort: &Effort) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let (mut cheapest, mut last) = (f64::INFINITY, f64::NAN);
    for (cpus, threads) in MACHINES {
        let text = simulated(cpus, threads)?;
        let mut scope = Scope::new(CpuSet::first(cpus), None);
        let mut snapshot = Snapshot::default();
        let mut times = Vec::new();
        for _ in 0..effort.choose(11, 51) {
            snapshot.clear();
            let start = clock::monotonic();
            parse(&text, &mut scope, &mut snapshot)?;
            times.push((clock::monotonic() - start).0 as f64);
        }
        if snapshot.load.len() != cpus as usize || snapshot.waiters.is_empty() {
            return Err(Error::new("the simulated text is not read as it is meant"));
        }
        let time = median(&times);
        last = time / text.len() as f64;
        cheapest = cheapest.min(last);
        let rate = 1e3 / last;
        let (cpus, threads) = (grouped(cpus as usize), grouped(threads));
        lines.push(Line::new(
            format!("{ROW} {cpus} CPUs and {threads} threads"),
            format!("{rate:.0} MB/s ({:.2} ms for {} KiB)", time / 1e6, text.len() >> 10),
            format!("{BOUND_MB_PER_S} MB/s"),
            rate >= BOUND_MB_PER_S,
        ));
    }
    let growth = last / cheapest;
    lines.push(Line::new(
        format!("{ROW} the largest, a byte against one of the cheapest"),
        format!("{growth:.2} times"),
        format!("{MAX_GROWTH} times"),
        growth <= MAX_GROWTH,
    ));
    Ok(lines)
}

/// Makes a text as the kernel would print it. Each CPU has the first section of the printed text.
/// The rows of that section are repeated, each with a tid of its own.
fn simulated(cpus: u32, threads: usize) -> Result<Vec<u8>> {
    let broken = || Error::new("the text to make others from has no section");
    let (head, sections) = PRINTED.split_once("cpu#0,").ok_or_else(broken)?;
    let (section, _) = sections.split_once("cpu#1,").ok_or_else(broken)?;
    let (above, table) = section.split_once("---\n").ok_or_else(broken)?;
    let rows: Vec<(&str, &str)> = table.lines().filter_map(split_at_number).collect();
    let mut text = head.to_string();
    let mut tid = 0;
    for cpu in 0..cpus as usize {
        text += &format!("cpu#{cpu},{}---\n", above.replace("[0]:", &format!("[{cpu}]:")));
        let until = threads * (cpu + 1) / cpus as usize;
        while tid < until {
            let (name, rest) = rows.get(tid % rows.len()).ok_or_else(broken)?;
            tid += 1;
            text += &format!("{name} {tid:>5}{rest}\n");
        }
        text += "\n";
    }
    Ok(text.into_bytes())
}

/// Returns the text before and after the tid of a row; `None` if it has no tid.
fn split_at_number(row: &str) -> Option<(&str, &str)> {
    let (name, numbers) = row.split_at_checked(" S ".len() + 15)?;
    let digits = numbers.trim_start();
    let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < digits.len()).then_some((name, rest))
}
