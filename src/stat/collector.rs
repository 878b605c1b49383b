//! The BPF side of stallstat: loads what is asked for, attaches it, and reads what was counted.

use super::histogram::Histogram;
use super::records::{
    self, COUNT_DEPTH, COUNT_KINDS, COUNT_LATENCY, COUNT_MIGRATIONS, COUNT_NOT, COUNT_PREEMPTED, COUNT_SLEEP,
    COUNT_VOLUNTARY, COUNT_WAKING, EVENTS, entry, histogram, losses, place, settings, turn,
};
use super::topology::Topology;
use crate::cpus::CpuSet;
use crate::error::{Context, Error, Result};
use crate::host::{self, privilege};
use crate::proc;
use crate::sys::bpf::{AttachHelper, Iterator, Object, ObjectBytes};
use crate::sys::map::{self, Plain, Queue};
use crate::sys::perf::{self, Event};
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
        queued, arrived, slept, waking, sleeps, cgroup, comm, tid, tgid, epoch, verdict, touched,
        ended, spare, seat, spares, second, migrations, moves, cross_cache, cross_node, events,
    }
    place { cache, node, watched, spare }
    turn {
        end, length, waited, cgroup, next_cgroup, events, cpu, tid, tgid, next_tid, next_tgid,
        runnable, moved, comm, next_comm,
    }
    losses { untracked, dropped }
}

static OBJECT: &ObjectBytes<[u8]> =
    &ObjectBytes(*include_bytes!(concat!(env!("OUT_DIR"), "/stallstat.bpf.o")));

/// What can be counted, each with a histogram of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Latency = COUNT_LATENCY as isize,
    Depth = COUNT_DEPTH as isize,
    Voluntary = COUNT_VOLUNTARY as isize,
    Preempted = COUNT_PREEMPTED as isize,
    /// Of a CPU, its idle time.
    Sleep = COUNT_SLEEP as isize,
    Waking = COUNT_WAKING as isize,
    Migrations = COUNT_MIGRATIONS as isize,
}

pub const KINDS: usize = COUNT_KINDS as usize;

/// What is to be counted, and of whom.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub kinds: Vec<Kind>,
    pub events: Vec<Event>,
    /// Turns one by one too, and pieces of those that take longer than this.
    pub turns: Option<Nanos>,
    pub numbers: Vec<Tid>,
    pub by_name: bool,
    pub by_group: bool,
    pub cpus: Option<CpuSet>,
    /// Shorter latencies are not counted.
    pub shortest: Nanos,
    /// As many tasks can be told apart.
    pub tasks: u32,
}

/// Whose counts they are: those of a task say which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Task,
    Cpu(Cpu),
}

/// What was counted of a task, or of a CPU, since it was last read.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub tid: Tid,
    pub tgid: Tid,
    pub comm: Comm,
    pub cgroup: u64,
    /// The programs leave it to the reader whether this task is wanted.
    pub is_open: bool,
    /// They have found that it is not.
    pub is_unwanted: bool,
    pub ended: bool,
    /// The number of its entry.
    pub seat: u32,
    pub histograms: [Histogram; KINDS],
    pub moves: u64,
    pub cross_cache: u64,
    pub cross_node: u64,
    pub events: [u64; EVENTS as usize],
}

impl Counts {
    pub fn histogram(&self, kind: Kind) -> &Histogram {
        &self.histograms[kind as usize]
    }
}

/// As many turns may wait to be read: half a second of 100,000 a second.
const TURNS: u32 = 50_000;

/// Attaching fails after this time.
const ATTACH_TIMEOUT: Nanos = Nanos::from_secs(30);

pub struct Collector {
    layout: settings,
    drain_tasks: Iterator,
    drain_cpus: Iterator,
    seats: OwnedFd,
    free_seats: Queue<u32>,
    names: OwnedFd,
    groups: OwnedFd,
    epoch: OwnedFd,
    losses: OwnedFd,
    turns: Queue<turn>,
    interval: u32,
    buffer: Vec<u8>,
    _counters: Vec<OwnedFd>,
    ticks: Result<Vec<OwnedFd>>,
    keeper: AttachHelper,
}

impl Collector {
    pub fn open(plan: &Plan, topology: &Topology) -> Result<Collector> {
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
        tell_places(&object, plan, topology, layout.cpus)?;
        let numbers = object.take_map(c"numbers")?;
        for tid in &plan.numbers {
            map::update(numbers.as_fd(), &tid.0, &1u8).context("choose a task")?;
        }
        let free_seats = take_queue(&object, c"free_seats")?;
        for seat in 1..=plan.tasks {
            free_seats.push(seat).context("make room for tasks")?;
        }
        let counters = open_counters(&object, plan, layout.cpus)?;
        let wanted = programs.iter().filter(|(_, wanted)| *wanted);
        let programs = wanted.map(|(name, _)| object.take_program(name)).collect::<Result<Vec<_>>>()?;
        let mut collector = Collector {
            layout,
            drain_tasks: drain(c"drain_tasks", &tasks)?,
            drain_cpus: drain(c"drain_cpus", &cpus)?,
            seats: object.take_map(c"seats")?,
            free_seats,
            names: object.take_map(c"names")?,
            groups: object.take_map(c"groups")?,
            epoch: object.take_map(c".data.epoch")?,
            losses: object.take_map(c".data.losses")?,
            turns: take_queue(&object, c"turns")?,
            interval: 1,
            buffer: vec![0; 64 * 1024],
            _counters: counters,
            ticks: open_ticks(&object, plan),
            keeper: AttachHelper::attach(&programs)
                .context("start the process that attaches to the scheduler's events")?,
        };
        collector.await_attached()?;
        Ok(collector)
    }

    /// Attaching waits for every CPU to come by; where one doesn't, behind a hog, that is no reason
    /// to wait longer.
    fn await_attached(&mut self) -> Result<()> {
        let begun = clock::monotonic();
        loop {
            match self.keeper.poll() {
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

    /// Hands over what was counted of each task, and then of each CPU, since the last time.
    pub fn read(&mut self, mut each: impl FnMut(Of, Counts)) -> Result<()> {
        let mut ended = Vec::new();
        let places = self.layout.place;
        drain(&self.drain_tasks, &mut self.buffer, self.layout.task_size as usize, |bytes| {
            let Some(counts) = counts(bytes, &places) else { return };
            if counts.ended {
                ended.push((counts.tid, counts.seat));
            }
            // Something of it may have been counted before it was judged, or under another name.
            if !counts.is_unwanted {
                each(Of::Task, counts);
            }
        })?;
        for (tid, seat) in ended {
            // Somebody else may have its number already, who is given another seat then.
            map::update(self.seats.as_fd(), &tid.0, &0u32).context("forget who has ended")?;
            self.free_seats.push(seat).context("make room for tasks")?;
        }
        let places = self.layout.cpu_place;
        drain(&self.drain_cpus, &mut self.buffer, self.layout.cpu_size as usize, |bytes| {
            // A CPU's number stands where a task's does.
            if let Some(counts) = counts(bytes, &places) {
                each(Of::Cpu(Cpu(counts.tid.0 as u32)), counts);
            }
        })
    }

    /// What was found out of a name: NAME_IN_GROUP, NAME_ANYWHERE, both or none.
    pub fn judge_name(&self, comm: &Comm, verdict: u8) {
        // Where there is no more room, such tasks go on being counted, and the reader leaves them
        // out.
        let _ = map::update(self.names.as_fd(), &comm.padded(), &verdict);
    }

    /// What was found out of a group: VERDICT_WANTED or VERDICT_UNWANTED.
    pub fn judge_group(&self, id: u64, verdict: u8) {
        let _ = map::update(self.groups.as_fd(), &id, &verdict);
    }

    /// Has the programs look at each task's name and group again.
    pub fn begin_interval(&mut self) -> Result<()> {
        self.interval = self.interval.wrapping_add(1).max(1);
        map::update(self.epoch.as_fd(), &0u32, &self.interval).context("begin an interval")
    }

    /// What could not be counted since the start.
    pub fn losses(&self) -> losses {
        map::read_value(self.losses.as_fd()).unwrap_or_default()
    }

    /// Why a turn that lasts is told at its end only, if it is.
    pub fn without_ticks(&self) -> Option<&Error> {
        self.ticks.as_ref().err()
    }

    /// Hands over the turns that have ended since the last time. To be called several times a
    /// second.
    pub fn turns(&self, mut each: impl FnMut(&turn) -> Result<()>) -> Result<()> {
        for _ in 0..TURNS {
            match self.turns.pop().context("read who ran")? {
                Some(turn) => each(&turn)?,
                None => break,
            }
        }
        Ok(())
    }
}

/// Returns the programs that are attached to the scheduler's events, and whether each is wanted.
fn programs(plan: &Plan, layout: &settings) -> [(&'static CStr, bool); 6] {
    let wants = |kind: Kind| layout.place[kind as usize] != COUNT_NOT as u8;
    let waits = wants(Kind::Latency) || wants(Kind::Depth) || wants(Kind::Sleep) || plan.turns.is_some();
    [
        (c"on_rename", true),
        (c"on_wakeup", waits),
        (c"on_wakeup_new", true),
        (c"on_waking", wants(Kind::Waking)),
        (c"on_migrate", wants(Kind::Migrations) || plan.turns.is_some()),
        (c"on_switch", true),
    ]
}

/// Loads the wanted programs, with maps as large as the plan needs them.
fn load(plan: &Plan, layout: &settings, programs: &[(&CStr, bool)]) -> Result<Object> {
    let mut object = Object::open(OBJECT, c"stallstat")?;
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
    object.set_entries(c"seats", highest_tid())?;
    object.set_entries(c"tasks", plan.tasks + 1)?;
    object.set_entries(c"free_seats", plan.tasks)?;
    object.set_entries(c"cpus", layout.cpus)?;
    object.set_entries(c"places", layout.cpus)?;
    object.set_entries(c"counters", (layout.cpus * layout.events).max(1))?;
    object.set_entries(c"turns", if plan.turns.is_some() { TURNS } else { 1 })?;
    object.set_constants(layout)?;
    object.load().map_err(privilege::explain_bpf)?;
    Ok(object)
}

/// Where each histogram is, in the order in which they were asked for.
fn layout(plan: &Plan) -> settings {
    let size = |histograms: usize| (size_of::<entry>() + histograms * size_of::<histogram>()) as u32;
    let mut place = [COUNT_NOT as u8; KINDS];
    let mut cpu_place = place;
    let (mut histograms, mut cpu_histograms) = (0, 0);
    for &kind in &plan.kinds {
        if place[kind as usize] == COUNT_NOT as u8 {
            place[kind as usize] = histograms;
            histograms += 1;
        }
        if matches!(kind, Kind::Latency | Kind::Sleep) && cpu_place[kind as usize] == COUNT_NOT as u8 {
            cpu_place[kind as usize] = cpu_histograms;
            cpu_histograms += 1;
        }
    }
    settings {
        cpus: cpu::configured(),
        events: plan.events.len().min(EVENTS as usize) as u32,
        task_size: size(histograms.into()),
        // What was counted, and behind it what of that was read.
        cpu_size: size(2 * usize::from(cpu_histograms)),
        shortest: plan.shortest.0,
        place,
        cpu_place,
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

fn take_queue<V: Plain + Default>(object: &Object, name: &CStr) -> Result<Queue<V>> {
    Queue::new(object.take_map(name)?).context("take a queue")
}

fn tell_places(object: &Object, plan: &Plan, topology: &Topology, cpus: u32) -> Result<()> {
    let places = object.take_map(c"places")?;
    for cpu in (0..cpus).map(Cpu) {
        let known = topology.place(cpu);
        let place = place {
            cache: known.llc.0,
            node: known.node,
            watched: plan.cpus.as_ref().is_none_or(|cpus| cpus.contains(cpu)).into(),
            ..place::default()
        };
        map::update(places.as_fd(), &cpu.0, &place).context("tell where CPUs are")?;
    }
    Ok(())
}

fn open_counters(object: &Object, plan: &Plan, cpus: u32) -> Result<Vec<OwnedFd>> {
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
    // The kernel takes them out again when this is closed.
    open.push(counters);
    Ok(open)
}

fn open_ticks(object: &Object, plan: &Plan) -> Result<Vec<OwnedFd>> {
    let Some(period) = plan.turns else { return Ok(Vec::new()) };
    let program = object.take_program(c"on_tick")?;
    online()
        .iter()
        .map(|cpu| perf::tick(cpu, period, program.as_fd()).context("have a tick on each CPU"))
        .collect()
}

/// As high as tids may be now. Of those beyond, if somebody makes that more, nothing is counted,
/// and that is said.
fn highest_tid() -> u32 {
    const HIGHEST: u32 = 1 << 22;
    let text = fs::read("/proc/sys/kernel/pid_max").unwrap_or_default();
    proc::text::number(&text).unwrap_or(HIGHEST)
}

pub fn online() -> CpuSet {
    host::online_cpus(Path::new("/")).unwrap_or_else(|| CpuSet::first(cpu::configured()))
}

/// Walks over a map by one of the programs that write out and take away.
fn drain(iterator: &Iterator, buffer: &mut [u8], size: usize, mut each: impl FnMut(&[u8])) -> Result<()> {
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

fn counts(bytes: &[u8], places: &[u8; KINDS]) -> Option<Counts> {
    let (head, histograms) = bytes.split_at_checked(size_of::<entry>())?;
    let entry = map::records::<entry>(head).next()?;
    let histogram = |&place: &u8| {
        let raw = map::records::<histogram>(histograms).nth(place.into());
        raw.map(|raw| Histogram::read(&raw)).unwrap_or_default()
    };
    Some(Counts {
        tid: Tid(entry.tid),
        tgid: Tid(entry.tgid),
        comm: Comm::new(&entry.comm),
        cgroup: entry.cgroup,
        is_open: u32::from(entry.verdict) == records::VERDICT_OPEN,
        is_unwanted: u32::from(entry.verdict) == records::VERDICT_UNWANTED,
        ended: entry.ended != 0,
        seat: entry.seat,
        histograms: places.each_ref().map(histogram),
        moves: entry.moves,
        cross_cache: entry.cross_cache,
        cross_node: entry.cross_node,
        events: entry.events,
    })
}
