//! The cost of a scan by sched_debug, without the time that the kernel needs to write the text.

use crate::figures::{Effort, Line, Row, median, millis};
use crate::load::{Load, Role};
use stalld::cpus::CpuSet;
use stalld::error::{Context, Result};
use stalld::observe::sched_debug::{SchedDebug, Sources};
use stalld::observe::{self, Backend, Snapshot, Watch};
use stalld::sys::{clock, cpu};
use stalld::task::{Cpu, Nanos};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const THREADS: usize = 5_000;

/// Bound in ms: a fifth of the time that the C program needs for such a scan.
const BOUND_MS: f64 = 34.0 / 5.0;

const ROW: &str = "sched_debug, a scan of 5,000 threads";

pub fn rows() -> Vec<Row> {
    vec![Row::new(ROW, measure)]
}

fn measure(effort: &Effort) -> Result<Vec<Line>> {
    let _sleepers = Load::start(Role::Sleep, THREADS, Cpu(0))?;
    let watch = Watch { cpus: CpuSet::first(cpu::configured()), idle_detection: false, own_threads: false };
    let mut backend = SchedDebug::open(&watch)?;
    let text = Sources::find(Path::new("/"))?.text;
    let file = File::open(&text).context(format!("read {}", text.display()))?;
    let mut buffer = vec![0; 1 << 24];
    let mut snapshot = Snapshot::default();
    let (mut scans, mut reads, mut size) = (Vec::new(), Vec::new(), 0);
    for _ in 0..effort.choose(7, 25) {
        let start = clock::monotonic();
        backend.snapshot(Nanos::ZERO, observe::Effort::All, &mut snapshot)?;
        let middle = clock::monotonic();
        size = read_all(&file, &mut buffer).context(format!("read {}", text.display()))?;
        scans.push(millis(middle - start));
        reads.push(millis(clock::monotonic() - middle));
    }
    let (scan, read) = (median(&scans), median(&reads));
    let beyond = scan - read;
    Ok(vec![Line::new(
        ROW,
        format!("{beyond:.2} ms beyond the kernel's own {read:.2} ms for {} KiB of text", size >> 10),
        format!("{BOUND_MS} ms"),
        beyond <= BOUND_MS,
    )])
}

fn read_all(file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while let Some(free) = buffer.get_mut(len..) {
        match file.read_at(free, len as u64)? {
            0 => break,
            count => len += count,
        }
    }
    Ok(len)
}
