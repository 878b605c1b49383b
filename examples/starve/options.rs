//! The command line of the rig.

use lexopt::prelude::*;
use stalld::cpus::CpuSet;
use stalld::error::{Context, Error, Result};
use stalld::task::{Comm, Cpu, Nanos, Policy};
use std::ffi::OsString;
use std::fs;

pub const HELP: &str = "\
starve: make tasks starve behind a real-time hog, on one CPU and for a bounded time

Usage: starve [--cpu N] [--for SECONDS] [--hog PRIO] [--hog-name NAME] [--after MS]
              [--woken] [--alone] [--victim SPEC]... [--scene NAME]...

  --cpu N          the CPU to hog; default is the last one online, CPU 0 is refused
  --for SECONDS    how long the hog holds it, 0.1 to 600; default 5
  --hog PRIO       its SCHED_FIFO priority; default 50
  --hog-name NAME  its name, with %XX for any byte; default 'hog'
  --after MS       how long the first victim runs before the hog comes, 0 to 60000; default 0
  --woken          let no victim run before the hog comes
  --alone          no victims, only the hog
  --victim SPEC    KIND[:PRIO[:NAME]][*COUNT], where KIND is
                     spin       SCHED_FIFO, computes; PRIO is 1 unless given
                     rr         the same in SCHED_RR
                     waitpid    the same in SCHED_FIFO, computes inside waitpid(2)
                     fair       SCHED_OTHER, computes; batch and idle likewise
                     throttled  SCHED_OTHER, and out of its cgroup's quota (1 ms in 1 s)
                   NAME may hold %XX for any byte, as in 'spin:1:a%0Ab'; default 'victim'
  --scene NAME     a set of victims:
                     one        spin, which is also what no victim at all means
                     sixteen    spin*16
                     hundred    spin*100
                     names      five with names that no parser likes
                     policies   one of each policy

How it goes: all threads are set up and sleep. The first victim is let go and computes; then the
hog comes, and preempts it. Once the hog has the CPU all other victims are woken: they are queued
and starve from that moment on. With --woken that goes for the first one too.

On stdout there is one line per event, times in ns of CLOCK_MONOTONIC, the name always last:
  skipped kind=KIND: REASON
  ready
  hog tid=N cpu=N at=NS until=NS name=NAME
  victim tid=N kind=KIND since=NS progress=N name=NAME
  end hog tid=N longest_gap_ns=NS most_lost_in_a_second_ns=NS loops=N
  end victim tid=N progress=N before=N last_ran=NS first_ran_after=NS|never longest_gap_ns=NS
'since' is when a victim last ran before the hog came, or when it was woken. A gap is the time between
two looks at the clock, and what the hog has lost is the sum of its gaps above 5 us.

Every thread looks at the clock as it computes and ends by itself, the hog first. Nothing is
changed system-wide: where sched_rt_runtime_us is 950000, the hog and all other real-time tasks
of the CPU pause for 50 ms a second, which its longest gap shows. Kernels from 6.12 on give fair
tasks 50 ms a second by a DL server: there only the real-time victims starve.
";

/// Limit on the numbers of CPUs, as the kernel has it.
const CPUS: u32 = 8192;
/// Limit on the number of victims, which is more than any test needs.
const VICTIMS: usize = 10_000;

const SCENES: [(&str, &[&str]); 5] = [
    ("one", &["spin"]),
    ("sixteen", &["spin:1:victim*16"]),
    ("hundred", &["spin:1:victim*100"]),
    (
        "names",
        &["spin:1:a%0Acpu#3,", "spin:1:%1B[2J R 1 2", "spin:1:", "spin:1:fifteen-letters", "spin:1:%FF%25s)"],
    ),
    ("policies", &["spin", "rr", "fair", "batch", "idle"]),
];

pub struct Options {
    pub cpu: Cpu,
    /// All other CPUs that are online.
    pub elsewhere: CpuSet,
    pub span: Nanos,
    pub hog: Part,
    pub after: Nanos,
    pub woken: bool,
    pub alone: bool,
    pub victims: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Spin,
    RoundRobin,
    Waitpid,
    Fair,
    Batch,
    Idle,
    Throttled,
}

/// The role of one thread.
#[derive(Clone, Copy)]
pub struct Part {
    pub kind: Kind,
    pub priority: u32,
    pub name: Comm,
}

impl Kind {
    const ALL: [(&'static str, Kind, Policy); 7] = [
        ("spin", Kind::Spin, Policy::FIFO),
        ("rr", Kind::RoundRobin, Policy::RR),
        ("waitpid", Kind::Waitpid, Policy::FIFO),
        ("fair", Kind::Fair, Policy::OTHER),
        ("batch", Kind::Batch, Policy::BATCH),
        ("idle", Kind::Idle, Policy::IDLE),
        ("throttled", Kind::Throttled, Policy::OTHER),
    ];

    pub fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(_, kind, _)| *kind == self).map_or("", |(name, ..)| name)
    }

    pub fn policy(self) -> Policy {
        Kind::ALL.iter().find(|(_, kind, _)| *kind == self).map_or(Policy::OTHER, |(.., policy)| *policy)
    }
}

impl Options {
    /// Parses the arguments. Returns `None` if they ask for the help.
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>> {
        let mut cpu = None;
        let mut options = Options {
            cpu: Cpu(0),
            elsewhere: CpuSet::new(),
            span: Nanos::from_secs(5),
            hog: Part { kind: Kind::Spin, priority: 50, name: Comm::new(b"hog") },
            after: Nanos::ZERO,
            woken: false,
            alone: false,
            victims: Vec::new(),
        };
        let wrong = |e: lexopt::Error| Error::new(e.to_string()).with_cure("see --help");
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(wrong)? {
            let Long(option) = argument else { return Err(wrong(argument.unexpected())) };
            let option = option.to_string();
            if option == "help" {
                return Ok(None);
            }
            let flag = match option.as_str() {
                "woken" => Some(&mut options.woken),
                "alone" => Some(&mut options.alone),
                _ => None,
            };
            if let Some(flag) = flag {
                *flag = true;
                continue;
            }
            let value = parser.value().and_then(|value| value.string()).map_err(wrong)?;
            let bad = || Error::new(format!("--{option} '{value}' is out of range")).with_cure("see --help");
            match option.as_str() {
                "cpu" => cpu = Some(Cpu(value.parse().map_err(|_| bad())?)),
                "for" => options.span = seconds(&value).ok_or_else(bad)?,
                "hog" => options.hog.priority = priority(&value).ok_or_else(bad)?,
                "hog-name" => options.hog.name = name(&value).ok_or_else(bad)?,
                "after" => {
                    options.after = value
                        .parse()
                        .ok()
                        .filter(|&ms| ms <= 60_000)
                        .map(Nanos::from_millis)
                        .ok_or_else(bad)?;
                }
                "victim" => options.victims.extend(victims(&value)?),
                "scene" => {
                    let (_, scene) = SCENES.iter().find(|(name, _)| *name == value).ok_or_else(bad)?;
                    for spec in *scene {
                        options.victims.extend(victims(spec)?);
                    }
                }
                _ => return Err(Error::new(format!("there is no --{option}")).with_cure("see --help")),
            }
        }
        match (options.alone, options.victims.is_empty()) {
            (true, false) => return Err(Error::new("a hog with victims is not --alone")),
            (false, true) => options.victims.extend(victims("spin")?),
            _ => {}
        }
        options.check(cpu)?;
        Ok(Some(options))
    }

    fn check(&mut self, wanted: Option<Cpu>) -> Result<()> {
        const ONLINE: &str = "/sys/devices/system/cpu/online";
        let online = fs::read_to_string(ONLINE).context(format!("read {ONLINE}"))?;
        let online = CpuSet::parse(online.trim(), CPUS).map_err(Error::new)?;
        let last = online.iter().last().unwrap_or_default();
        self.cpu = wanted.unwrap_or(last);
        if online.len() < 2 {
            return Err(Error::new("there is only one CPU, and a hog on it would stop the machine"));
        }
        if self.cpu == Cpu(0) {
            return Err(Error::new(format!("a hog on CPU 0 can stop the machine; use --cpu {last}")));
        }
        if !online.contains(self.cpu) {
            return Err(Error::new(format!("CPU {} is not online, {online} are", self.cpu)));
        }
        self.elsewhere = online.iter().filter(|&cpu| cpu != self.cpu).collect();
        if self.victims.len() > VICTIMS {
            return Err(Error::new(format!("{} victims are more than {VICTIMS}", self.victims.len())));
        }
        match self.victims.iter().find(|victim| victim.priority >= self.hog.priority) {
            Some(victim) => Err(Error::new(format!(
                "a victim of priority {} would not starve behind a hog of priority {}",
                victim.priority, self.hog.priority
            ))),
            None => Ok(()),
        }
    }
}

fn victims(spec: &str) -> Result<Vec<Part>> {
    let bad = |what| Error::new(format!("--victim '{spec}': {what}")).with_cure("see --help");
    let (spec, count) = match spec.rsplit_once('*') {
        Some((spec, count)) => (spec, count.parse().map_err(|_| bad("the count is not a number"))?),
        None => (spec, 1),
    };
    if !(1..=VICTIMS).contains(&count) {
        return Err(bad("the count is not one of 1 to 10000"));
    }
    let mut fields = spec.splitn(3, ':');
    let kind = fields.next().unwrap_or_default();
    let Some((_, kind, policy)) = Kind::ALL.iter().find(|(name, ..)| *name == kind) else {
        return Err(bad("there is no such kind"));
    };
    let priority = match fields.next().unwrap_or_default() {
        "" => policy.is_realtime().into(),
        text if policy.is_realtime() => {
            priority(text).ok_or_else(|| bad("the priority is not one of 1 to 99"))?
        }
        _ => return Err(bad("only SCHED_FIFO and SCHED_RR have a priority")),
    };
    let name =
        name(fields.next().unwrap_or("victim")).ok_or_else(|| bad("the name has a % without two digits"))?;
    Ok(vec![Part { kind: *kind, priority, name }; count])
}

fn priority(text: &str) -> Option<u32> {
    text.parse().ok().filter(|priority| (1..=99).contains(priority))
}

fn seconds(text: &str) -> Option<Nanos> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=600.0).contains(seconds))?;
    Some(Nanos((seconds * 1e9) as u64))
}

/// Returns the name, in which `%XX` stands for any byte; `None` if two digits are missing behind a
/// `%`.
fn name(text: &str) -> Option<Comm> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(Comm::new(&bytes))
}
