//! The cost of a snapshot through the C library, relative to the backend's own time.

use crate::figures::{Effort, Line, Row, median};
use rig::c::{Program, run};
use stalld::cpus::CpuSet;
use stalld::error::{Error, Result};
use stalld::observe::{self, Snapshot, Watch};
use stalld::sys::{clock, cpu};
use stalld::task::Nanos;

/// Bound on the time of a snapshot, relative to the backend's own.
const BOUND: f64 = 1.2;

const ROW: &str = "a snapshot through the C library";

pub fn rows() -> Vec<Row> {
    vec![Row::new(ROW, measure)]
}

fn measure(effort: &Effort) -> Result<Vec<Line>> {
    let program = Program::build("examples/waiters.c", &[]);
    let watch = Watch { cpus: CpuSet::first(cpu::configured()), idle_detection: true, own_threads: true };
    let (mut backend, _) = observe::open(None, &watch)?;
    let mut snapshot = Snapshot::default();
    let scans: usize = effort.choose(200, 1000);
    let (mut own, mut through) = (Vec::new(), Vec::new());
    // In turn, so that changes of the host affect both alike.
    for _ in 0..5 {
        let mut times = Vec::new();
        for _ in 0..scans {
            let start = clock::monotonic();
            backend.snapshot(Nanos::ZERO, observe::Effort::All, &mut snapshot)?;
            times.push((clock::monotonic() - start).0 as f64 / 1e3);
        }
        own.push(median(&times));
        let output = run(&mut program.command(&[&scans.to_string()]));
        let time =
            output.trim().strip_prefix("median ").and_then(|rest| rest.strip_suffix(" us")?.parse().ok());
        through.push(time.ok_or_else(|| Error::new(format!("waiters says '{output}'")))?);
    }
    let (own, through) = (median(&own), median(&through));
    let ratio = through / own;
    let measured = format!("{ratio:.2} times ({through:.0} us, the backend itself {own:.0} us)");
    Ok(vec![Line::new(ROW, measured, format!("{BOUND} times"), ratio <= BOUND)])
}
