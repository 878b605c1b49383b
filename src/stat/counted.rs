//! What was counted in an interval, as tables: a row for each task as it comes, or for each name in
//! the end.

use super::collector::{Counts, KINDS, Kind};
use super::histogram::Histogram;
use super::options::{Group, Options};
use super::perf::Named;
use super::table::{Cell, Column, Subject, Table, column};
use crate::task::{Comm, Cpu, Nanos};
use std::collections::BTreeMap;

pub struct Counted<'a> {
    context: Context<'a>,
    collapse: bool,
    tables: Vec<(What, Table)>,
    /// By name, where tasks of one name are one row.
    names: BTreeMap<[u8; 16], Sum>,
}

#[derive(Default)]
struct Sum {
    tasks: u64,
    counts: Counts,
}

/// What a row depends on besides its counts.
struct Context<'a> {
    events: &'a [Named],
    interval: Nanos,
}

/// What a table is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Latency,
    LatencyByCpu,
    Slice,
    Sleep,
    IdleByCpu,
    Waking,
    Migration,
    Perf,
}

/// The unit of what is no time: see bpf/count.h.
const UNIT: u64 = 1 << super::records::SLOT_SHIFT;

impl<'a> Counted<'a> {
    /// The tables of the groups that were asked for, with nothing in them yet.
    pub fn new(options: &Options, events: &'a [Named], interval: Nanos) -> Counted<'a> {
        let whats = options.groups.iter().flat_map(|&group| of_group(group));
        Counted {
            tables: whats.map(|&what| (what, what.table(events))).collect(),
            context: Context { events, interval },
            collapse: options.collapse,
            names: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, counts: &Counts) {
        if !self.collapse {
            return self.row(&Subject::Task(counts.comm, counts.tid), counts);
        }
        // What has only ended has nothing new to count.
        if counts.is_empty() {
            return;
        }
        let sum = self.names.entry(counts.comm.padded()).or_default();
        sum.tasks += 1;
        sum.counts.add(counts);
    }

    pub fn add_cpu(&mut self, cpu: Cpu, counts: &Counts) {
        self.row(&Subject::Cpu(cpu), counts);
    }

    pub fn into_tables(mut self) -> Vec<Table> {
        while let Some((name, sum)) = self.names.pop_first() {
            self.row(&Subject::Name(Comm::new(&name), sum.tasks), &sum.counts);
        }
        let mut tables: Vec<Table> = self.tables.into_iter().map(|(_, table)| table).collect();
        tables.iter_mut().for_each(Table::sort);
        tables
    }

    fn row(&mut self, subject: &Subject, counts: &Counts) {
        let is_of_cpu = matches!(subject, Subject::Cpu(_));
        for (what, table) in self.tables.iter_mut().filter(|(what, _)| what.is_of_cpus() == is_of_cpu) {
            if let Some(cells) = what.cells(counts, &self.context) {
                table.rows.push((subject.clone(), cells.into_boxed_slice()));
            }
        }
    }
}

fn of_group(group: Group) -> &'static [What] {
    match group {
        Group::Latency => &[What::Latency, What::LatencyByCpu],
        Group::Slice => &[What::Slice],
        Group::Sleep => &[What::Sleep, What::IdleByCpu],
        Group::Waking => &[What::Waking],
        Group::Migration => &[What::Migration],
        Group::Perf => &[What::Perf],
        Group::Schedstat => &[],
    }
}

impl What {
    fn is_of_cpus(self) -> bool {
        matches!(self, What::LatencyByCpu | What::IdleByCpu)
    }

    fn table(self, events: &[Named]) -> Table {
        // In order of the 99th percentile, where there is one.
        let (name, columns, order) = match self {
            What::Latency => {
                ("latency", [time_columns(), depth_columns()].into_iter().flatten().collect(), P99)
            }
            What::LatencyByCpu => ("latency by CPU", time_columns(), P99),
            What::Slice => ("slice", slice_columns(), slice_columns().len() - 1),
            What::Sleep => ("sleep", time_columns(), P99),
            What::IdleByCpu => ("idle by CPU", time_columns(), P99),
            What::Waking => ("waking", time_columns(), P99),
            What::Migration => ("migration", migration_columns(), 0),
            What::Perf => ("perf", event_columns(events), 0),
        };
        let bands = matches!(self, What::Latency | What::Sleep | What::Waking);
        Table { name, columns, order, rows: Vec::new(), bands }
    }

    /// None where there is nothing to be said.
    fn cells(self, counts: &Counts, context: &Context) -> Option<Vec<Cell>> {
        let times = |kind| Some(counts.histogram(kind)).filter(|it| !it.is_empty()).map(times_of);
        match self {
            What::Latency => {
                let mut cells = times(Kind::Latency)?;
                let depth = counts.histogram(Kind::Depth);
                let figures = [depth.percentile(50), depth.percentile(99), depth.longest()];
                cells.extend(figures.map(|figure| Cell::number(figure.map(|units| units / UNIT))));
                Some(cells)
            }
            What::LatencyByCpu => times(Kind::Latency),
            What::Slice => slice(counts),
            What::Sleep | What::IdleByCpu => times(Kind::Sleep),
            What::Waking => times(Kind::Waking),
            What::Migration => migration(counts, context.interval),
            What::Perf => events(counts, context.events),
        }
    }
}

fn slice(counts: &Counts) -> Option<Vec<Cell>> {
    let (voluntary, preempted) = (counts.histogram(Kind::Voluntary), counts.histogram(Kind::Preempted));
    let all = voluntary.count() + preempted.count();
    if all == 0 {
        return None;
    }
    let mut cells = vec![
        Cell::Number(all),
        Cell::Number(preempted.count()),
        Cell::Ratio(preempted.count() as f64 * 100.0 / all as f64),
    ];
    for histogram in [voluntary, preempted] {
        let figures = [histogram.percentile(50), histogram.percentile(99), histogram.longest()];
        cells.extend(figures.map(Cell::time));
    }
    cells.push(Cell::Time(voluntary.sum().saturating_add(preempted.sum())));
    Some(cells)
}

fn migration(counts: &Counts, interval: Nanos) -> Option<Vec<Cell>> {
    if counts.moves == 0 {
        return None;
    }
    let rates = counts.histogram(Kind::Migrations);
    let figures = [rates.percentile(50), rates.percentile(90), rates.percentile(99), rates.longest()];
    let per_second = (interval.0 > 0).then(|| counts.moves as f64 * 1e9 / interval.0 as f64);
    let mut cells = vec![Cell::Number(counts.moves), Cell::ratio(per_second)];
    cells.extend(figures.map(|figure| Cell::number(figure.map(|units| units / UNIT))));
    cells.extend([counts.cross_cache, counts.cross_node].map(Cell::Number));
    Some(cells)
}

fn events(counts: &Counts, events: &[Named]) -> Option<Vec<Cell>> {
    let figures = counts.events.get(..events.len())?;
    if figures.iter().all(|&count| count == 0) {
        return None;
    }
    let mut cells: Vec<Cell> = figures.iter().map(|&count| Cell::Number(count)).collect();
    if let Some((instructions, cycles)) = of_both(events) {
        let (instructions, cycles) = (figures[instructions], figures[cycles]);
        cells.push(Cell::ratio((cycles > 0).then(|| instructions as f64 / cycles as f64)));
    }
    Some(cells)
}

/// Where instructions and cycles are, if both are counted.
fn of_both(events: &[Named]) -> Option<(usize, usize)> {
    let find = |name: &str| events.iter().position(|event| event.name == name);
    find("instructions").zip(find("cycles"))
}

impl Counts {
    fn is_empty(&self) -> bool {
        self.histograms.iter().all(|histogram| histogram.is_empty())
            && self.moves == 0
            && self.events.iter().all(|&count| count == 0)
    }

    fn add(&mut self, other: &Counts) {
        for kind in 0..KINDS {
            self.histograms[kind].merge(&other.histograms[kind]);
        }
        self.moves += other.moves;
        self.cross_cache += other.cross_cache;
        self.cross_node += other.cross_node;
        for (sum, count) in self.events.iter_mut().zip(other.events) {
            *sum = sum.wrapping_add(count);
        }
    }
}

const P99: usize = 3;

pub fn time_columns() -> Vec<Column> {
    vec![
        column("COUNT", "count"),
        column("P50", "p50_ns"),
        column("P90", "p90_ns"),
        column("P99", "p99_ns"),
        column("MAX", "max_ns"),
        column("MEAN", "mean_ns"),
    ]
}

pub fn times_of(histogram: &Histogram) -> Vec<Cell> {
    let percentiles = [50, 90, 99].map(|percent| Cell::time(histogram.percentile(percent)));
    let mut cells = vec![Cell::Number(histogram.count())];
    cells.extend(percentiles);
    cells.extend([histogram.longest(), histogram.mean()].map(Cell::time));
    cells
}

/// How many were queued where a task was woken.
fn depth_columns() -> Vec<Column> {
    vec![column("QUEUED P50", "queued_p50"), column("P99", "queued_p99"), column("MAX", "queued_max")]
}

fn slice_columns() -> Vec<Column> {
    vec![
        column("COUNT", "count"),
        column("PREEMPTED", "preempted"),
        column("%", "preempted_percent"),
        column("VOLUNTARY P50", "voluntary_p50_ns"),
        column("P99", "voluntary_p99_ns"),
        column("MAX", "voluntary_max_ns"),
        column("PREEMPTED P50", "preempted_p50_ns"),
        column("P99", "preempted_p99_ns"),
        column("MAX", "preempted_max_ns"),
        column("RAN", "ran_ns"),
    ]
}

fn migration_columns() -> Vec<Column> {
    vec![
        column("COUNT", "count"),
        column("PER S", "per_second"),
        column("P50", "p50_per_second"),
        column("P90", "p90_per_second"),
        column("P99", "p99_per_second"),
        column("MAX", "max_per_second"),
        column("CACHE", "cross_cache"),
        column("NODE", "cross_node"),
    ]
}

fn event_columns(events: &[Named]) -> Vec<Column> {
    let named = |event: &Named| Column(event.name.clone().into(), event.name.clone().into());
    let mut columns: Vec<Column> = events.iter().map(named).collect();
    if of_both(events).is_some() {
        columns.push(column("IPC", "instructions_per_cycle"));
    }
    columns
}

#[cfg(test)]
#[path = "counted_tests.rs"]
mod tests;
