//! A soak: tasks starve at random on a busy machine, for any length of time. The kernel's trace
//! judges stalld; its own log doesn't count.

use crate::figures::{Line, Row, grouped, millis};
use crate::lateness::random;
use crate::observer::{Observer, Promise};
use crate::process;
use crate::rescue::rescued_at;
use crate::trace_line::Event;
use crate::tracer::{Scope, Sink, Trace, Tracer};
use rig::boosts::{guardian, journal, live_boosts};
use rig::process::signal;
use rig::throttling::limit;
use rig::{Rig, Stalld, keep_away_from_the_hog};
use stalld::error::{Context, Error, Result};
use stalld::proc;
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Policy, Tid};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PROMISE: Promise = Promise {
    threshold: Nanos::from_secs(2),
    // Sixteen victims run one after the other, and so do the tasks that the load adds.
    rescue: Nanos::from_millis(1200),
    // -d is 2 s for this threshold, and the guardian ends a boost that is a second overdue.
    boost: Nanos::from_secs(4),
};

/// Every event that the observer knows, on all CPUs.
const TRACED: Scope = Scope {
    events: &[
        "sched/sched_switch",
        "sched/sched_wakeup",
        "sched/sched_wakeup_new",
        "sched/sched_process_exit",
        "syscalls/sys_enter_sched_setattr",
        "syscalls/sys_enter_sched_setscheduler",
    ],
    cpu: None,
};

/// Casts of a starvation, one of which is chosen each time. The scene `names` is left out, because
/// the trace is text and a newline in a name breaks its lines.
const CASTS: [&[&str]; 6] = [
    &["--victim", "spin"],
    &["--victim", "spin*5"],
    &["--victim", "rr:7:rr*3", "--victim", "spin*2"],
    &["--victim", "waitpid", "--victim", "fair*2"],
    &["--scene", "policies"],
    &["--scene", "sixteen"],
];

impl Sink for Observer {
    fn note(&mut self, event: Event) {
        Observer::note(self, event);
    }
}

/// Bound on the growth of RSS after the warm-up, in KiB.
const GROWTH: u64 = 128;

/// Makes the row of a soak for `time`: seconds, or a number with s, m or h.
pub fn row(time: &str) -> Result<Row> {
    let unit = |unit, seconds| Some(time.strip_suffix(unit)?.parse::<u64>().ok()? * seconds);
    let seconds =
        time.parse().ok().or_else(|| unit('s', 1)).or_else(|| unit('m', 60)).or_else(|| unit('h', 3600));
    let seconds = seconds.filter(|&seconds| (10..=1_000_000).contains(&seconds)).ok_or_else(|| {
        Error::new(format!("'{time}' is no time for a soak"))
            .with_cure("seconds from 10 on, or as in 10m, 2h")
    })?;
    Ok(Row::new(format!("soak, {seconds} s"), move |_| soak(Nanos::from_secs(seconds))))
}

/// Memory and descriptors of the daemon and its guardian together.
struct Sample {
    resident_kib: u64,
    descriptors: usize,
}

fn soak(span: Nanos) -> Result<Vec<Line>> {
    let throttling = limit();
    let mut stalld = Stalld::start(&["-f", "-v", "-t", "2"]);
    stalld.scan();
    let own = [stalld.pid(), guardian(&stalld)];
    let before = policies()?;
    let observer = Observer::new(PROMISE, process::threads(&own)?, clock::monotonic());
    let tracer = Tracer::start(TRACED, observer, keep_away_from_the_hog)?;
    let load = Stress::start(span)?;

    let until = clock::monotonic() + span;
    let (mut samples, mut victims, mut late) = (Vec::new(), 0, Vec::new());
    while clock::monotonic() < until {
        clock::nap(Nanos(random() % PROMISE.threshold.0));
        let (count, unserved) = starve();
        victims += count;
        late.extend(unserved);
        samples.push(sample(&own)?);
    }
    load.check()?;
    drop(load);
    // Wait until the last boosts have ended.
    clock::nap(PROMISE.boost);
    let Trace { sink: mut observer, lost, until } = tracer.end()?;
    observer.finish(until, |tid| Path::new(&format!("/proc/{tid}")).exists());
    let open = live_boosts(&journal()).count();
    stalld.signal("TERM");
    let (code, log) = stalld.finish();
    let changed = changed(&before, &policies()?);
    let logged = log.count("boosted");

    for fault in [&observer.missed, &observer.unjust, &observer.left_boosted, &late, &changed] {
        fault.iter().take(20).for_each(|fault| eprintln!("{fault}"));
    }
    Ok(vec![
        Line::new(
            "soak: what the tracer saw",
            format!("{} events, {} lost", grouped(observer.events as usize), grouped(lost as usize)),
            "none lost",
            lost == 0 && observer.events > 0,
        ),
        Line::new(
            "soak: missed boosts, of all tasks",
            format!(
                "{} of {} that starved, longest wait {:.0} ms; {} of {victims} victims by their own account",
                observer.missed.len(),
                observer.starvations,
                millis(observer.longest_wait),
                late.len()
            ),
            format!("none waits {} ms", (PROMISE.threshold + PROMISE.rescue).as_millis()),
            observer.missed.is_empty() && late.is_empty() && observer.starvations > 0,
        ),
        Line::new(
            "soak: boosts of tasks that did not starve",
            format!(
                "{} of {}, and of {} pulses; stalld tells of {logged}",
                observer.unjust.len(),
                observer.boosts,
                observer.pulses
            ),
            "none",
            observer.unjust.is_empty() && observer.boosts > 0,
        ),
        Line::new(
            "soak: boosts not put back in time and as it was",
            format!("{}, {open} on record at the end", observer.left_boosted.len()),
            "none",
            observer.left_boosted.is_empty() && open == 0,
        ),
        flat(&samples),
        Line::new(
            "soak: the end",
            format!(
                "exit code {}, {} of {} tasks are scheduled otherwise, throttling {}",
                code.map_or("none".to_string(), |code| code.to_string()),
                changed.len(),
                before.len(),
                limit()
            ),
            format!("code 0, all as before, throttling {throttling}"),
            code == Some(0) && changed.is_empty() && limit() == throttling,
        ),
    ])
}

/// Starves one cast. Returns the number of victims, and a message for each that ran too late by its
/// own account.
fn starve() -> (usize, Vec<String>) {
    let cast = CASTS.get(random() as usize % CASTS.len()).copied().unwrap_or_default();
    let seconds = (3 + random() % 5).to_string();
    let woken: &[&str] = if random() % 4 == 0 { &["--woken"] } else { &[] };
    let mut rig = Rig::start(&[&["--for", &seconds], cast, woken].concat());
    let hog = rig.event("hog");
    let until = hog.moment("until");
    let (mut waits, mut late, mut ended) = (HashMap::new(), Vec::new(), 0);
    loop {
        let event = rig.first_of(&["victim", "end victim"]);
        if event.line.starts_with("victim") {
            waits.insert(event.tid(), event.moment("since"));
            continue;
        }
        let deadline = waits.get(&event.tid()).map(|&since| since + PROMISE.threshold + PROMISE.rescue);
        let ran = rescued_at(&hog, &event).unwrap_or(until);
        if let Some(deadline) = deadline.filter(|&deadline| ran > deadline) {
            late.push(format!(
                "victim {} ran {:.0} ms too late: {event:?}",
                event.tid(),
                millis(ran - deadline)
            ));
        }
        ended += 1;
        if ended == waits.len() {
            return (ended, late);
        }
    }
}

fn sample(processes: &[Tid]) -> Result<Sample> {
    let mut sum = Sample { resident_kib: 0, descriptors: 0 };
    for &pid in processes {
        sum.resident_kib += process::memory(pid)?.resident_kib;
        sum.descriptors += process::descriptors(pid)?.len();
    }
    Ok(sum)
}

/// Compares all samples with the last one of the first quarter, which is the warm-up.
fn flat(samples: &[Sample]) -> Line {
    let (warming, warm) = samples.split_at(samples.len().div_ceil(4));
    let first = warming.last().map_or((0, 0), |sample| (sample.resident_kib, sample.descriptors));
    let resident = warm.iter().map(|sample| sample.resident_kib).max().unwrap_or(first.0);
    let descriptors = warm.iter().map(|sample| sample.descriptors).max().unwrap_or(first.1);
    Line::new(
        "soak: RSS and descriptors of stalld and its guardian",
        format!("{} to {resident} KiB, {} to {descriptors} descriptors", first.0, first.1),
        format!("{GROWTH} KiB more, no descriptor more"),
        resident <= first.0 + GROWTH && descriptors <= first.1,
    )
}

/// Policy, priority and nice value of each thread of the machine, by its tid and start time.
type Policies = HashMap<(Tid, u64), (Policy, u32, i32)>;

fn policies() -> Result<Policies> {
    let mut policies = HashMap::new();
    for pid in process::numbers("/proc")? {
        // A task may exit in the meantime, here and below.
        for tid in process::numbers(&format!("/proc/{pid}/task")).unwrap_or_default() {
            let start = proc::start(tid);
            if let (Some(start), Ok(attr)) = (start, sched::get_attr(tid)) {
                policies.insert((tid, start), (attr.policy, attr.priority, attr.nice));
            }
        }
    }
    Ok(policies)
}

fn changed(before: &Policies, after: &Policies) -> Vec<String> {
    let pairs = before.iter().filter_map(|(task, was)| Some((task, was, after.get(task)?)));
    let others = pairs.filter(|(_, was, is)| was != is);
    others.map(|((tid, _), was, is)| format!("task {tid} was {was:?} and is {is:?}")).collect()
}

/// stress-ng on all CPUs. It ends when dropped, or by itself a minute after the soak.
struct Stress(Child);

impl Stress {
    fn start(span: Nanos) -> Result<Stress> {
        let seconds = (span + Nanos::from_secs(60)).as_secs().to_string();
        let mut command = Command::new("stress-ng");
        command.args([
            "--quiet",
            "--cpu",
            "0",
            "--vm",
            "1",
            "--vm-bytes",
            "64M",
            "--fork",
            "1",
            "--fork-max",
            "1",
        ]);
        command.args(["--pthread", "1", "--pthread-max", "8", "--timer", "1", "--timer-freq", "1000"]);
        command.args(["--hdd", "1", "--hdd-bytes", "16M", "--temp-path", "/tmp", "--timeout", &seconds]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Stress).context("start stress-ng").map_err(|e| e.with_cure("make setup PARTS=soak"))
    }

    fn pid(&self) -> Tid {
        Tid(self.0.id() as i32)
    }

    /// Fails if stress-ng has ended too early.
    fn check(&self) -> Result<()> {
        let children = process::descendants(self.pid())?.len();
        let alive = fs::exists(format!("/proc/{}/exe", self.pid())).unwrap_or(false);
        if alive && children > 0 { Ok(()) } else { Err(Error::new("stress-ng has ended too early")) }
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        // stress-ng ends its children when it gets this signal.
        signal(self.pid(), "INT");
        let _ = self.0.wait();
    }
}
