//! Lists the tasks that still wait, and have waited for the whole interval. The counts do not show
//! them, because a wait is counted when it ends.

use super::options::Options;
use super::table::{Cell, Subject, Table, column};
use crate::cpus::CpuSet;
use crate::observe::bpf::BpfBackend;
use crate::observe::{Backend, Effort, Kind, Snapshot, Watch};
use crate::sys::{clock, cpu};
use crate::task::{Nanos, Task};

pub(super) struct Waiting {
    /// `None` if this kernel keeps no record of waits.
    backend: Option<BpfBackend>,
    snapshot: Snapshot,
    options: Options,
}

impl Waiting {
    pub(super) fn new(options: &Options) -> Waiting {
        let cpus = options.cpus.clone().unwrap_or_else(|| CpuSet::first(cpu::configured()));
        let watch = Watch { cpus, idle_detection: false, own_threads: false };
        let backend = BpfBackend::open(Kind::TaskIter, watch).ok();
        Waiting { backend, snapshot: Snapshot::default(), options: options.clone() }
    }

    /// Scans once. Returns the time of the scan, and each waiter with the start of its wait. `None`
    /// if the scan fails.
    pub(super) fn now(&mut self) -> Option<(Nanos, impl Iterator<Item = (Task, Nanos)> + '_)> {
        let backend = self.backend.as_mut()?;
        backend.snapshot(clock::monotonic(), Effort::All, &mut self.snapshot).ok()?;
        let waiters = self.snapshot.waiters.iter();
        Some((self.snapshot.at, waiters.filter_map(|waiter| Some((waiter.task, waiter.since?)))))
    }

    /// Returns a table of the tasks that have waited for at least `least`, each with the hog of its
    /// CPU.
    pub(super) fn table(&mut self, least: Nanos) -> Option<Table> {
        let (at, waiters) = self.now()?;
        let waiters: Vec<(Task, Nanos)> = waiters.filter(|(_, since)| at - *since >= least).collect();
        let mut rows = Vec::new();
        for (task, since) in waiters.iter().filter(|(task, _)| self.wants(task)) {
            let hog = self.snapshot.running.iter().find(|running| running.cpu == task.cpu);
            let behind = hog.map(|hog| format!("behind {}-{}", hog.comm, hog.tid)).unwrap_or_default();
            let cells = [Cell::Time((at - *since).0), Cell::Number(task.cpu.0.into())];
            rows.push((Subject::TaskOfPod(task.comm, task.tid, behind), cells.into()));
        }
        let columns = vec![column("SO FAR", "waited_ns"), column("CPU", "on_cpu")];
        let mut table = Table { name: "still waiting", columns, order: 0, rows, bands: false };
        table.sort();
        Some(table)
    }

    fn wants(&self, task: &Task) -> bool {
        let Options { names, global_names, numbers, .. } = &self.options;
        let name = task.comm.as_bytes();
        let by_name = names.is_empty() && global_names.is_empty();
        let by_number = numbers.is_empty() || numbers.contains(&task.tid);
        (by_name || names.matches(name) || global_names.matches(name))
            && (by_number || task.tgid.is_some_and(|tgid| numbers.contains(&tgid)))
    }
}
