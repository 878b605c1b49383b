//! The BPF side of stallstat: loads the wanted programs, attaches them, and reads the counts.

use super::bpf_abi::{
    self, COUNT_DEPTH, COUNT_KINDS, COUNT_LATENCY, COUNT_MIGRATIONS, COUNT_NOT, COUNT_PREEMPTED, COUNT_SLEEP,
    COUNT_VOLUNTARY, COUNT_WAKING, EVENTS, cpu_info, entry, histogram, losses, settings, turn,
};
use super::histogram::Histogram;
use super::topology::Topology;
use crate::cpus::CpuSet;
use crate::error::{Context, Error, Result};
use crate::host::{self, privilege};
use crate::proc;
use crate::sys::bpf::{AttachHelper, BpfIter, BpfObject, ObjectBytes};
use crate::sys::map::{self, BpfQueue, Plain};
use crate::sys::perf::{self, PerfEvent};
use crate::sys::{clock, cpu};
use crate::task::{Comm, Cpu, Nanos, Tid};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

crate::plain! {
    histogram { sums, counts, longest }
    entry {
        queued_since, on_cpu_since, asleep_since, waking_since, sleeps, cgroup, comm, tid, tgid, epoch, verdict, touched,
        ended, spare, index, spares, second, migrations, moves, cross_cache, cross_node, events,
    }
    cpu_info { cache, node, watched, spare }
    turn {
        end, length, waited, cgroup, next_cgroup, events, cpu, tid, tgid, next_tid, next_tgid,
        runnable, moved, comm, next_comm,
    }
    losses { untracked, dropped }
}

static OBJECT: &ObjectBytes<[u8]> =
    &ObjectBytes(*include_bytes!(concat!(env!("OUT_DIR"), "/stallstat.bpf.o")));

/// A quantity that can be counted, in a histogram of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    Latency = COUNT_LATENCY as isize,
    Depth = COUNT_DEPTH as isize,
    Voluntary = COUNT_VOLUNTARY as isize,
    Preempted = COUNT_PREEMPTED as isize,
    /// For a CPU, the idle time.
    Sleep = COUNT_SLEEP as isize,
    Waking = COUNT_WAKING as isize,
    Migrations = COUNT_MIGRATIONS as isize,
}

pub(super) const METRICS: usize = COUNT_KINDS as usize;

/// The metrics to count, and the filters.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub metrics: Vec<Metric>,
    pub events: Vec<PerfEvent>,
    /// If set, turns are recorded too. A turn that is longer than this is recorded in pieces.
    pub turns: Option<Nanos>,
    pub numbers: Vec<Tid>,
    pub by_name: bool,
    pub by_group: bool,
    pub cpus: Option<CpuSet>,
    /// Shorter latencies are not counted.
    pub shortest: Nanos,
    /// The number of entries for tasks.
    pub tasks: u32,
}

/// The subject of an entry. The counts of a task have its tid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Task,
    Cpu(Cpu),
}

/// The counts of a task, or of a CPU, since they were last read.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub tid: Tid,
    pub comm: Comm,
    pub cgroup: u64,
    /// The programs could not decide whether this task is wanted. The reader has to.
    pub is_open: bool,
    /// The programs have decided that this task is not wanted.
    pub is_unwanted: bool,
    pub ended: bool,
    /// The index of the task's entry.
    pub index: u32,
    pub histograms: [Histogram; METRICS],
    pub moves: u64,
    pub cross_cache: u64,
    pub cross_node: u64,
    pub events: [u64; EVENTS as usize],
}

impl Counts {
    pub(super) fn histogram(&self, metric: Metric) -> &Histogram {
        &self.histograms[metric as usize]
    }
}

/// The size of the queue of turns: half a second of 100,000 turns per second.
const TURNS: u32 = 50_000;

/// Attaching fails after this time.
const ATTACH_TIMEOUT: Nanos = Nanos::from_secs(30);

/// The loaded and attached programs, and their maps.
pub(super) struct Collector {
    layout: settings,
    drain_tasks: BpfIter,
    drain_cpus: BpfIter,
    entry_of_tid: OwnedFd,
    free_entries: BpfQueue<u32>,
    names: OwnedFd,
    groups: OwnedFd,
    epoch: OwnedFd,
    losses: OwnedFd,
    turns: BpfQueue<turn>,
    interval: u32,
    buffer: Vec<u8>,
    _counters: Vec<OwnedFd>,
    ticks: Result<Vec<OwnedFd>>,
    attach_helper: AttachHelper,
}

impl Collector {
    /// Loads and attaches the programs. Blocks until they are attached, for at most
    /// `ATTACH_TIMEOUT`.
    pub(super) fn open(plan: &Plan, topology: &Topology) -> Result<Collector> {
        let layout = layout(plan);
        let programs = programs(plan, &layout);
        let object = load(plan, &layout, &programs)?;
        let (tasks, cpus) = (object.take_map(c"tasks")?, object.take_map(c"cpus")?);
        let drain = |name, map: &OwnedFd| {
            object
                .take_program(name)?
                .link_iterator_over(map.as_fd())
                .context("make an iterator over what is counted")
        };
        set_cpu_infos(&object, plan, topology, layout.cpus)?;
        let numbers = object.take_map(c"numbers")?;
        for tid in &plan.numbers {
            map::update(numbers.as_fd(), &tid.0, &1u8).context("choose a task")?;
        }
        let free_entries = take_queue(&object, c"free_entries")?;
        for index in 1..=plan.tasks {
            free_entries.push(index).context("make room for tasks")?;
        }
        let counters = open_counters(&object, plan, layout.cpus)?;
        let wanted = programs.iter().filter(|(_, wanted)| *wanted);
        let programs = wanted.map(|(name, _)| object.take_program(name)).collect::<Result<Vec<_>>>()?;
        let mut collector = Collector {
            layout,
            drain_tasks: drain(c"drain_tasks", &tasks)?,
            drain_cpus: drain(c"drain_cpus", &cpus)?,
            entry_of_tid: object.take_map(c"entry_of_tid")?,
            free_entries,
            names: object.take_map(c"names")?,
            groups: object.take_map(c"groups")?,
            epoch: object.take_map(c".data.epoch")?,
            losses: object.take_map(c".data.losses")?,
            turns: take_queue(&object, c"turns")?,
            interval: 1,
            buffer: vec![0; 64 * 1024],
            _counters: counters,
            ticks: open_ticks(&object, plan),
            attach_helper: AttachHelper::attach(&programs)
                .context("start the process that attaches to the scheduler's events")?,
        };
        collector.await_attached()?;
        Ok(collector)
    }

    /// Waits until the programs are attached. Attaching waits for every CPU, so a hog may delay it
    /// for ever; hence the timeout.
    fn await_attached(&mut self) -> Result<()> {
        let begun = clock::monotonic();
        loop {
            match self.attach_helper.poll() {
                Some(outcome) => return outcome.context("attach to the scheduler's events"),
                None if clock::monotonic() - begun > ATTACH_TIMEOUT => {
                    return Err(Error::new(format!(
                        "cannot attach to the scheduler's events within {} s: some CPU keeps the kernel from it",
                        ATTACH_TIMEOUT.as_secs()
                    )));
                }
                None => clock::nap(Nanos::from_millis(1)),
            }
        }
    }

    /// Calls `each` for each task, and then for each CPU, with the counts since the last read.
    pub(super) fn read(&mut self, mut each: impl FnMut(EntryKind, Counts)) -> Result<()> {
        let mut ended = Vec::new();
        let indices = self.layout.histogram_index;
        drain(&self.drain_tasks, &mut self.buffer, self.layout.task_size as usize, |bytes| {
            let Some(counts) = counts(bytes, &indices) else { return };
            if counts.ended {
                ended.push((counts.tid, counts.index));
            }
            // An unwanted task may have counts from before the verdict, or under another name.
            if !counts.is_unwanted {
                each(EntryKind::Task, counts);
            }
        })?;
        for (tid, index) in ended {
            // Another task that has this tid by now gets a new entry.
            map::update(self.entry_of_tid.as_fd(), &tid.0, &0u32).context("forget who has ended")?;
            self.free_entries.push(index).context("make room for tasks")?;
        }
        let indices = self.layout.cpu_histogram_index;
        drain(&self.drain_cpus, &mut self.buffer, self.layout.cpu_size as usize, |bytes| {
            // For a CPU, `tid` is the number of the CPU.
            if let Some(counts) = counts(bytes, &indices) {
                each(EntryKind::Cpu(Cpu(counts.tid.0 as u32)), counts);
            }
        })
    }

    /// Sets the verdict on a name: NAME_IN_GROUP, NAME_ANYWHERE, both or none.
    pub(super) fn judge_name(&self, comm: &Comm, verdict: u8) {
        // If the map is full, such tasks are still counted, and the reader drops them.
        let _ = map::update(self.names.as_fd(), &comm.padded(), &verdict);
    }

    /// Sets the verdict on a group: VERDICT_WANTED or VERDICT_UNWANTED.
    pub(super) fn judge_group(&self, id: u64, verdict: u8) {
        let _ = map::update(self.groups.as_fd(), &id, &verdict);
    }

    /// Makes the programs read each task's name and group again.
    pub(super) fn begin_interval(&mut self) -> Result<()> {
        self.interval = self.interval.wrapping_add(1).max(1);
        map::update(self.epoch.as_fd(), &0u32, &self.interval).context("begin an interval")
    }

    /// Returns the events that could not be counted since the start.
    pub(super) fn losses(&self) -> losses {
        map::read_value(self.losses.as_fd()).unwrap_or_default()
    }

    /// Returns why a long turn is recorded only at its end; `None` if it is recorded in pieces.
    pub(super) fn without_ticks(&self) -> Option<&Error> {
        self.ticks.as_ref().err()
    }

    /// Calls `each` for each turn that has ended since the last read. To be called several times a
    /// second.
    pub(super) fn turns(&self, mut each: impl FnMut(&turn) -> Result<()>) -> Result<()> {
        for _ in 0..TURNS {
            match self.turns.pop().context("read who ran")? {
                Some(turn) => each(&turn)?,
                None => break,
            }
        }
        Ok(())
    }
}

/// Returns the programs for the scheduler's events, and whether each is wanted.
fn programs(plan: &Plan, layout: &settings) -> [(&'static CStr, bool); 6] {
    let wants = |metric: Metric| layout.histogram_index[metric as usize] != COUNT_NOT as u8;
    let waits =
        wants(Metric::Latency) || wants(Metric::Depth) || wants(Metric::Sleep) || plan.turns.is_some();
    [
        (c"on_rename", true),
        (c"on_wakeup", waits),
        (c"on_wakeup_new", true),
        (c"on_waking", wants(Metric::Waking)),
        (c"on_migrate", wants(Metric::Migrations) || plan.turns.is_some()),
        (c"on_switch", true),
    ]
}

/// Loads the wanted programs, with maps as large as the plan needs them.
fn load(plan: &Plan, layout: &settings, programs: &[(&CStr, bool)]) -> Result<BpfObject> {
    let mut object = BpfObject::open(OBJECT, c"stallstat")?;
    for &(name, wanted) in programs {
        object.want_program(name, wanted)?;
    }
    object.want_program(c"on_tick", plan.turns.is_some())?;
    for (name, size) in [
        (c"tasks", layout.task_size),
        (c"cpus", layout.cpu_size),
        (c"copies", layout.task_size.max(layout.cpu_size)),
    ] {
        object.set_value_size(name, size)?;
    }
    object.set_entries(c"entry_of_tid", highest_tid())?;
    object.set_entries(c"tasks", plan.tasks + 1)?;
    object.set_entries(c"free_entries", plan.tasks)?;
    object.set_entries(c"cpus", layout.cpus)?;
    object.set_entries(c"cpu_infos", layout.cpus)?;
    object.set_entries(c"counters", (layout.cpus * layout.events).max(1))?;
    object.set_entries(c"turns", if plan.turns.is_some() { TURNS } else { 1 })?;
    object.set_constants(layout)?;
    object.load().map_err(privilege::explain_bpf)?;
    Ok(object)
}

/// Returns the settings of the programs. The histograms of an entry are in the order of
/// `plan.metrics`.
fn layout(plan: &Plan) -> settings {
    let size = |histograms: usize| (size_of::<entry>() + histograms * size_of::<histogram>()) as u32;
    let mut histogram_index = [COUNT_NOT as u8; METRICS];
    let mut cpu_histogram_index = histogram_index;
    let (mut histograms, mut cpu_histograms) = (0, 0);
    for &metric in &plan.metrics {
        if histogram_index[metric as usize] == COUNT_NOT as u8 {
            histogram_index[metric as usize] = histograms;
            histograms += 1;
        }
        if matches!(metric, Metric::Latency | Metric::Sleep)
            && cpu_histogram_index[metric as usize] == COUNT_NOT as u8
        {
            cpu_histogram_index[metric as usize] = cpu_histograms;
            cpu_histograms += 1;
        }
    }
    settings {
        cpus: cpu::configured(),
        events: plan.events.len().min(EVENTS as usize) as u32,
        task_size: size(histograms.into()),
        // The histograms, and after them for each the part that was read already.
        cpu_size: size(2 * usize::from(cpu_histograms)),
        shortest: plan.shortest.0,
        histogram_index,
        cpu_histogram_index,
        task_histograms: histograms,
        cpu_histograms,
        by_number: (!plan.numbers.is_empty()).into(),
        by_name: plan.by_name.into(),
        by_group: plan.by_group.into(),
        by_cpu: plan.cpus.is_some().into(),
        turns: plan.turns.is_some().into(),
        ..settings::default()
    }
}

fn take_queue<V: Plain + Default>(object: &BpfObject, name: &CStr) -> Result<BpfQueue<V>> {
    BpfQueue::new(object.take_map(name)?).context("take a queue")
}

fn set_cpu_infos(object: &BpfObject, plan: &Plan, topology: &Topology, cpus: u32) -> Result<()> {
    let infos = object.take_map(c"cpu_infos")?;
    for cpu in (0..cpus).map(Cpu) {
        let location = topology.location(cpu);
        let info = cpu_info {
            cache: location.llc.0,
            node: location.node,
            watched: plan.cpus.as_ref().is_none_or(|cpus| cpus.contains(cpu)).into(),
            ..cpu_info::default()
        };
        map::update(infos.as_fd(), &cpu.0, &info).context("tell where CPUs are")?;
    }
    Ok(())
}

fn open_counters(object: &BpfObject, plan: &Plan, cpus: u32) -> Result<Vec<OwnedFd>> {
    let counters = object.take_map(c"counters")?;
    let mut open = Vec::new();
    for (index, &event) in plan.events.iter().enumerate() {
        for cpu in online().iter() {
            let fd = perf::count(cpu, event).context(format_args!("count event {event:?} on CPU {cpu}"))?;
            let key = index as u32 * cpus + cpu.0;
            map::update(counters.as_fd(), &key, &fd.as_raw_fd())
                .context("hand a counter to the BPF programs")?;
            open.push(fd);
        }
    }
    // Keep the map open: the kernel removes the counters when it is closed.
    open.push(counters);
    Ok(open)
}

fn open_ticks(object: &BpfObject, plan: &Plan) -> Result<Vec<OwnedFd>> {
    let Some(period) = plan.turns else { return Ok(Vec::new()) };
    let program = object.take_program(c"on_tick")?;
    online()
        .iter()
        .map(|cpu| perf::tick(cpu, period, program.as_fd()).context("have a tick on each CPU"))
        .collect()
}

/// Returns the limit of tids. If an administrator raises it later, tasks beyond it are not counted
/// but reported as lost.
fn highest_tid() -> u32 {
    const HIGHEST: u32 = 1 << 22;
    let text = fs::read("/proc/sys/kernel/pid_max").unwrap_or_default();
    proc::text::number(&text).unwrap_or(HIGHEST)
}

pub(super) fn online() -> CpuSet {
    host::online_cpus(Path::new("/")).unwrap_or_else(|| CpuSet::first(cpu::configured()))
}

/// Runs an iterator program over a map. The program writes out what was counted since its last run.
fn drain(iterator: &BpfIter, buffer: &mut [u8], size: usize, mut each: impl FnMut(&[u8])) -> Result<()> {
    let mut walk = File::from(iterator.start().context("start to read what was counted")?);
    let mut filled = 0;
    loop {
        let free = buffer.get_mut(filled..).unwrap_or_default();
        let read = match walk.read(free) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => continue,
            Err(e) => return Err(Error::io("read what was counted", &e)),
        };
        filled += read;
        let whole = filled - filled % size;
        buffer.get(..whole).unwrap_or_default().chunks_exact(size).for_each(&mut each);
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

fn counts(bytes: &[u8], indices: &[u8; METRICS]) -> Option<Counts> {
    let (head, histograms) = bytes.split_at_checked(size_of::<entry>())?;
    let entry = map::records::<entry>(head).next()?;
    let histogram = |&index: &u8| {
        let raw = map::records::<histogram>(histograms).nth(index.into());
        raw.map(|raw| Histogram::read(&raw)).unwrap_or_default()
    };
    Some(Counts {
        tid: Tid(entry.tid),
        comm: Comm::new(&entry.comm),
        cgroup: entry.cgroup,
        is_open: u32::from(entry.verdict) == bpf_abi::VERDICT_OPEN,
        is_unwanted: u32::from(entry.verdict) == bpf_abi::VERDICT_UNWANTED,
        ended: entry.ended != 0,
        index: entry.index,
        histograms: indices.each_ref().map(histogram),
        moves: entry.moves,
        cross_cache: entry.cross_cache,
        cross_node: entry.cross_node,
        events: entry.events,
    })
}
