//! Compares another stalld with ours, in turn, by the options and log lines of the C program, which
//! both have.

use crate::figures::{Effort, Line, Row, median, millis, quantile};
use crate::lateness::random;
use crate::pipe::PingPong;
use crate::process;
use crate::rescue::{THRESHOLD, starve};
use rig::{Rig, Stalld, hogged_cpu};
use stalld::error::{Error, Result};
use stalld::sys::clock;
use stalld::task::Nanos;
use std::path::Path;

/// Neither sleeps for longer than a second then. By default the C program may be five seconds late.
const THRESHOLD_OPTIONS: [&str; 4] = ["-t", "2", "-g", "1"];

const SPAN_SECS: u64 = 20;

/// Delay after the first scan, so that the cost of the start does not count.
const SETTLED: Nanos = Nanos::from_millis(300);

type Measure = fn(&Peers, &Effort) -> Result<Vec<Line>>;

const ROWS: [(&str, Measure); 6] = [
    ("sched-pipe with / without", Peers::pipe),
    ("CPU time", Peers::cpu_time),
    ("memory", Peers::memory),
    ("start to the first scan", Peers::start_up),
    ("lateness of the report, -t 2 -g 1", Peers::reports),
    ("first progress of a victim, -t 2 -g 1", Peers::rescues),
];

pub fn rows(peer: &str) -> Vec<Row> {
    let row = |(name, measure): (&'static str, Measure)| {
        let peers = Peers { paths: [Stalld::path().to_string(), peer.to_string()] };
        Row::new(name, move |effort| {
            peers.check()?;
            measure(&peers, effort)
        })
    };
    ROWS.into_iter().map(row).collect()
}

struct Peers {
    /// Ours first.
    paths: [String; 2],
}

impl Peers {
    fn check(&self) -> Result<()> {
        let [_, peer] = &self.paths;
        if Path::new(peer).is_file() { Ok(()) } else { Err(Error::new(format!("PEER={peer} is no file"))) }
    }

    /// Starts a stalld in the foreground that logs its scans.
    fn start(path: &str, options: &[&str]) -> Stalld {
        // The rig appends its own stalld to these words. The shell takes that as its `$0`.
        let exec = format!("exec '{path}' \"$@\"");
        Stalld::start_with_text_log_by(&["sh", "-c", &exec], &[&["-f", "-v"], options].concat())
    }

    /// Starts a stalld that boosts nothing, and waits until it has settled.
    fn watching(path: &str, options: &[&str]) -> Stalld {
        let mut stalld = Peers::start(path, &[&["-l"], options].concat());
        stalld.scan();
        clock::nap(SETTLED);
        stalld
    }

    /// Takes samples of ours and of the peer in turn. Each is first in half of the turns.
    fn in_turn(
        &self,
        times: usize,
        mut sample: impl FnMut(&str) -> Result<Vec<f64>>,
    ) -> Result<[Vec<f64>; 2]> {
        let [mut ours, mut theirs] = [Vec::new(), Vec::new()];
        let [our_path, their_path] = &self.paths;
        for turn in 0..times {
            if turn % 2 == 0 {
                ours.extend(sample(our_path)?);
                theirs.extend(sample(their_path)?);
            } else {
                theirs.extend(sample(their_path)?);
                ours.extend(sample(our_path)?);
            }
        }
        Ok([ours, theirs])
    }

    fn pipe(&self, effort: &Effort) -> Result<Vec<Line>> {
        let trips = effort.choose(50_000, 150_000);
        let mut pipe = PingPong::start(hogged_cpu())?;
        pipe.round_trips(trips)?;
        let samples = self.in_turn(effort.choose(4, 10), |path| {
            let without = pipe.round_trips(trips)?;
            let _stalld = Peers::watching(path, &[]);
            Ok(vec![pipe.round_trips(trips)?.0 as f64 / without.0 as f64])
        })?;
        Ok(compared("sched-pipe with / without", "", &samples))
    }

    fn cpu_time(&self, effort: &Effort) -> Result<Vec<Line>> {
        let samples = self.in_turn(effort.choose(2, 6), |path| {
            let stalld = Peers::watching(path, &[]);
            let before = process::cpu_time(stalld.pid())?;
            clock::nap(Nanos::from_secs(SPAN_SECS));
            let spent = process::cpu_time(stalld.pid())? - before;
            Ok(vec![spent.0 as f64 / 1e3 / SPAN_SECS as f64])
        })?;
        Ok(compared("CPU time, nothing starving", " us a second", &samples))
    }

    /// Includes the processes that it has started.
    fn memory(&self, effort: &Effort) -> Result<Vec<Line>> {
        let samples = self.in_turn(effort.choose(2, 4), |path| {
            let stalld = Peers::watching(path, &[]);
            let mut sum = process::memory(stalld.pid())?.resident_kib;
            for child in process::descendants(stalld.pid())? {
                sum += process::memory(child)?.resident_kib;
            }
            Ok(vec![sum as f64])
        })?;
        Ok(compared("RSS of all its processes", " KiB", &samples))
    }

    fn start_up(&self, effort: &Effort) -> Result<Vec<Line>> {
        let samples = self.in_turn(effort.choose(4, 12), |path| {
            let start = clock::monotonic();
            let mut stalld = Peers::start(path, &["-l"]);
            Ok(vec![millis(stalld.scan() - start)])
        })?;
        Ok(compared("start to the first scan", " ms", &samples))
    }

    fn reports(&self, effort: &Effort) -> Result<Vec<Line>> {
        let late = |path: &str| {
            let mut stalld = Peers::watching(path, &THRESHOLD_OPTIONS);
            // Begin at a random phase of its sleep.
            clock::nap(Nanos(random() % THRESHOLD.0));
            let mut rig = Rig::start(&["--for", "6"]);
            let victim = rig.event("victim");
            let line = format!("victim-{} starved", victim.tid());
            let found = stalld.wait_for(|record| record.message().contains(&line), Nanos::from_secs(6));
            Ok(found
                .map(|report| millis(report.at) - millis(victim.moment("since") + THRESHOLD))
                .into_iter()
                .collect())
        };
        self.compare_delays("lateness of the report, -t 2 -g 1", effort, late)
    }

    fn rescues(&self, effort: &Effort) -> Result<Vec<Line>> {
        let late = |path: &str| {
            let mut stalld = Peers::start(path, &[&THRESHOLD_OPTIONS[..], &Stalld::RIG_ONLY].concat());
            stalld.scan();
            clock::nap(Nanos(random() % THRESHOLD.0));
            let late = starve(1, "6").into_iter().flatten().collect();
            // At its end it restores the settings that it has changed.
            stalld.terminate();
            Ok(late)
        };
        self.compare_delays("first progress of a victim, -t 2 -g 1", effort, late)
    }

    fn compare_delays(
        &self,
        what: &str,
        effort: &Effort,
        late: impl FnMut(&str) -> Result<Vec<f64>>,
    ) -> Result<Vec<Line>> {
        let starts = effort.choose(4, 100);
        let samples = self.in_turn(starts, late)?;
        let mut lines = compared(what, " ms", &samples);
        let [ours, theirs] = samples.map(|samples| starts - samples.len());
        for line in &mut lines {
            line.measured += &format!("; never: {ours} and {theirs} of {starts}");
        }
        Ok(lines)
    }
}

fn compared(what: &str, unit: &str, [ours, theirs]: &[Vec<f64>; 2]) -> Vec<Line> {
    let summary = |samples: &[f64]| {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(samples, share));
        format!("p50 {p50:.2}, p99 {p99:.2}, max {max:.2}{unit}")
    };
    let ratio = median(ours) / median(theirs);
    let measured = format!("ours {}; the peer's {}; {ratio:.3} times", summary(ours), summary(theirs));
    vec![Line { met: None, ..Line::new(format!("beside the peer: {what}"), measured, "none", true) }]
}
