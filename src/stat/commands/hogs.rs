//! `stallstat hogs`: which tasks ran while others waited.

use crate::error::Result;
use crate::stat::blame::{Blame, Charge, Suffered};
use crate::stat::bpf_abi::turn;
use crate::stat::options::Options;
use crate::stat::report::{Extra, IntervalReport};
use crate::stat::resctrl::{self, Reading};
use crate::stat::screen::Screen;
use crate::stat::select::Selection;
use crate::stat::table::{Cell, Subject, Table, column};
use crate::stat::task_table::{TaskIdx, TaskTable, next, runner};
use crate::stat::topology::Topology;
use crate::stat::turns::{self, TurnSink};
use crate::stat::waiting::Waiting;
use crate::sys::cpu;
use crate::task::{Cpu, Nanos, Tid};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A long turn is recorded in pieces of this length.
const PIECE: Nanos = Nanos::from_millis(100);

pub(super) fn run(options: &Options) -> Result<()> {
    let topology = Topology::read(Path::new("/"));
    let siblings = |cpu| topology.siblings(Cpu(cpu)).map(|sibling| sibling.0 as usize).collect();
    let mut hogs = Hogs {
        blame: Blame::new((0..cpu::configured()).map(siblings).collect()),
        tasks: TaskTable::new(),
        selection: Selection::new(options)?,
        waiting: Waiting::new(options),
        charged: HashMap::new(),
        screen: Screen::new(options.form),
        caches: Caches::new(),
        options,
    };
    turns::follow(options, &topology, &[], PIECE, &mut hogs)
}

struct Hogs<'a> {
    blame: Blame,
    tasks: TaskTable,
    selection: Selection,
    waiting: Waiting,
    /// The time up to which a wait that continues is charged, by tid.
    charged: HashMap<Tid, Nanos>,
    screen: Screen,
    caches: Caches,
    options: &'a Options,
}

impl Hogs<'_> {
    fn wants(&mut self, idx: TaskIdx, cpu: Cpu) -> bool {
        self.selection.watches(cpu) && self.tasks.get(idx).is_some_and(|task| self.selection.covers(task))
    }

    /// Charges the waits that continue, up to now.
    fn charge_waiters(&mut self) {
        let Some((at, waiters)) = self.waiting.now() else { return };
        for (task, since) in waiters.collect::<Vec<_>>() {
            let since = self.charged.insert(task.tid, at).map_or(since, |charged| charged.max(since));
            let victim = self.tasks.add_waiter(&task);
            if self.wants(victim, task.cpu) {
                self.blame.waited(task.cpu, victim, since, at, false);
            }
        }
        self.charged.retain(|_, &mut charged| charged == at);
    }

    /// Returns a table with a row for each pair of labels: of victims, and of tasks that ran
    /// meanwhile.
    fn table(&self) -> Table {
        let label = |idx: TaskIdx| {
            self.tasks.get(idx).map_or_else(String::new, |task| self.tasks.label(task, self.options.by))
        };
        let mut suffered: BTreeMap<String, Suffered> = BTreeMap::new();
        for (&victim, more) in &self.blame.suffered {
            let sum = suffered.entry(label(victim)).or_default();
            sum.waits += more.waits;
            sum.waited = sum.waited + more.waited;
        }
        let mut pairs: BTreeMap<(String, String), Charge> = BTreeMap::new();
        for (&(victim, culprit), more) in &self.blame.charges {
            let sum = pairs.entry((label(victim), label(culprit))).or_default();
            sum.same = sum.same + more.same;
            sum.beside = sum.beside + more.beside;
        }
        let rows = pairs.into_iter().map(|((victim, culprit), charge)| {
            let Suffered { waits, waited } = suffered.get(&victim).copied().unwrap_or_default();
            let share = (waited.0 > 0).then(|| charge.same.0 as f64 * 100.0 / waited.0 as f64);
            let cells = [
                Cell::Time(charge.same.0),
                Cell::ratio(share),
                Cell::Time(charge.beside.0),
                Cell::Number(waits),
                Cell::Time(waited.0),
            ];
            (Subject::Pair(victim, culprit), cells.into())
        });
        let columns = vec![
            column("RAN FOR", "ran_ns"),
            column("% OF WAIT", "percent_of_wait"),
            column("BESIDE", "ran_beside_ns"),
            column("WAITS", "waits"),
            column("WAITED", "waited_ns"),
        ];
        let mut table = Table { name: "hogs", columns, order: 0, rows: rows.collect(), bands: false };
        table.sort();
        table
    }
}

/// The use of the last-level caches, if resctrl is mounted.
struct Caches {
    mount: Option<PathBuf>,
    before: Vec<Reading>,
}

impl Caches {
    fn new() -> Caches {
        let mount = resctrl::mount(Path::new("/"));
        let before = mount.as_ref().and_then(|mount| resctrl::read(mount).ok()).unwrap_or_default();
        Caches { mount, before }
    }

    fn change(&mut self, length: Nanos) -> Option<Extra> {
        let after = resctrl::read(self.mount.as_ref()?).ok()?;
        let delta = resctrl::delta(&self.before, &after);
        self.before = after;
        Some(Extra { name: "resctrl", text: resctrl::show(&delta, length), rows: resctrl::rows(&delta) })
    }
}

impl TurnSink for Hogs<'_> {
    fn turn(&mut self, turn: &turn) -> Result<()> {
        let (cpu, end) = (Cpu(turn.cpu), Nanos(turn.end));
        if let Some(start) = turns::start(turn) {
            let runner = self.tasks.add(runner(turn));
            self.blame.ran(cpu, runner, start, end);
        }
        if turn.next_tid == 0 || turn.waited == 0 {
            return Ok(());
        }
        let begun = end - Nanos(turn.waited);
        let start = self.charged.remove(&Tid(turn.next_tid)).map_or(begun, |charged| charged.max(begun));
        let victim = self.tasks.add(next(turn));
        if self.wants(victim, cpu) {
            self.blame.waited(cpu, victim, start, end, turn.moved == 0);
        }
        Ok(())
    }

    fn interval(&mut self, length: Nanos, lost: u64) -> Result<()> {
        self.charge_waiters();
        self.tasks.learn_cgroups();
        let more = self.caches.change(length).into_iter().collect();
        let report = IntervalReport { length, tables: vec![self.table()], more, lost };
        report.show(self.options, &mut self.screen)?;
        self.blame.start_interval();
        if self.tasks.is_full() {
            self.tasks.clear();
            self.blame.clear();
        }
        Ok(())
    }
}
