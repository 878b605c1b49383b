//! The counts of an interval as tables, with a row for each task or for each name.

use super::collector::{Counts, METRICS, Metric};
use super::histogram::Histogram;
use super::options::{MetricGroup, Options};
use super::perf::Named;
use super::table::{Cell, Column, Subject, Table, column};
use crate::task::{Comm, Cpu, Nanos};
use std::collections::BTreeMap;

pub(super) struct IntervalTables<'a> {
    context: RowContext<'a>,
    collapse: bool,
    tables: Vec<(TableKind, Table)>,
    /// The sums by name, if tasks of one name share a row.
    names: BTreeMap<[u8; 16], Sum>,
}

#[derive(Default)]
struct Sum {
    tasks: u64,
    counts: Counts,
}

/// The context of a row: all it depends on besides its counts.
struct RowContext<'a> {
    events: &'a [Named],
    interval: Nanos,
}

/// The kind of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TableKind {
    Latency,
    LatencyByCpu,
    Slice,
    Sleep,
    IdleByCpu,
    Waking,
    Migration,
    Perf,
}

/// The unit of a metric that is no time: see bpf/count.h.
const UNIT: u64 = 1 << super::bpf_abi::SLOT_SHIFT;

impl<'a> IntervalTables<'a> {
    /// Makes empty tables for the groups that the options select.
    pub(super) fn new(options: &Options, events: &'a [Named], interval: Nanos) -> IntervalTables<'a> {
        let kinds = options.groups.iter().flat_map(|&group| of_group(group));
        IntervalTables {
            tables: kinds.map(|&kind| (kind, kind.table(events))).collect(),
            context: RowContext { events, interval },
            collapse: options.collapse,
            names: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, counts: &Counts) {
        if !self.collapse {
            return self.row(&Subject::Task(counts.comm, counts.tid), counts);
        }
        // A task without counts has only ended.
        if counts.is_empty() {
            return;
        }
        let sum = self.names.entry(counts.comm.padded()).or_default();
        sum.tasks += 1;
        sum.counts.add(counts);
    }

    pub(super) fn add_cpu(&mut self, cpu: Cpu, counts: &Counts) {
        self.row(&Subject::Cpu(cpu), counts);
    }

    pub(super) fn into_tables(mut self) -> Vec<Table> {
        while let Some((name, sum)) = self.names.pop_first() {
            self.row(&Subject::Name(Comm::new(&name), sum.tasks), &sum.counts);
        }
        let mut tables: Vec<Table> = self.tables.into_iter().map(|(_, table)| table).collect();
        tables.iter_mut().for_each(Table::sort);
        tables
    }

    fn row(&mut self, subject: &Subject, counts: &Counts) {
        let is_of_cpu = matches!(subject, Subject::Cpu(_));
        for (kind, table) in self.tables.iter_mut().filter(|(kind, _)| kind.is_of_cpus() == is_of_cpu) {
            if let Some(cells) = kind.cells(counts, &self.context) {
                table.rows.push((subject.clone(), cells.into_boxed_slice()));
            }
        }
    }
}

fn of_group(group: MetricGroup) -> &'static [TableKind] {
    match group {
        MetricGroup::Latency => &[TableKind::Latency, TableKind::LatencyByCpu],
        MetricGroup::Slice => &[TableKind::Slice],
        MetricGroup::Sleep => &[TableKind::Sleep, TableKind::IdleByCpu],
        MetricGroup::Waking => &[TableKind::Waking],
        MetricGroup::Migration => &[TableKind::Migration],
        MetricGroup::Perf => &[TableKind::Perf],
        MetricGroup::Schedstat => &[],
    }
}

impl TableKind {
    fn is_of_cpus(self) -> bool {
        matches!(self, TableKind::LatencyByCpu | TableKind::IdleByCpu)
    }

    fn table(self, events: &[Named]) -> Table {
        // Sort by the 99th percentile, if the table has one.
        let (name, columns, order) = match self {
            TableKind::Latency => {
                ("latency", [time_columns(), depth_columns()].into_iter().flatten().collect(), P99)
            }
            TableKind::LatencyByCpu => ("latency by CPU", time_columns(), P99),
            TableKind::Slice => ("slice", slice_columns(), slice_columns().len() - 1),
            TableKind::Sleep => ("sleep", time_columns(), P99),
            TableKind::IdleByCpu => ("idle by CPU", time_columns(), P99),
            TableKind::Waking => ("waking", time_columns(), P99),
            TableKind::Migration => ("migration", migration_columns(), 0),
            TableKind::Perf => ("perf", event_columns(events), 0),
        };
        let bands = matches!(self, TableKind::Latency | TableKind::Sleep | TableKind::Waking);
        Table { name, columns, order, rows: Vec::new(), bands }
    }

    /// Returns the cells of a row; `None` if nothing was counted for this table.
    fn cells(self, counts: &Counts, context: &RowContext) -> Option<Vec<Cell>> {
        let times = |metric| Some(counts.histogram(metric)).filter(|it| !it.is_empty()).map(times_of);
        match self {
            TableKind::Latency => {
                let mut cells = times(Metric::Latency)?;
                let depth = counts.histogram(Metric::Depth);
                let figures = [depth.percentile(50), depth.percentile(99), depth.longest()];
                cells.extend(figures.map(|figure| Cell::number(figure.map(|units| units / UNIT))));
                Some(cells)
            }
            TableKind::LatencyByCpu => times(Metric::Latency),
            TableKind::Slice => slice(counts),
            TableKind::Sleep | TableKind::IdleByCpu => times(Metric::Sleep),
            TableKind::Waking => times(Metric::Waking),
            TableKind::Migration => migration(counts, context.interval),
            TableKind::Perf => events(counts, context.events),
        }
    }
}

fn slice(counts: &Counts) -> Option<Vec<Cell>> {
    let (voluntary, preempted) = (counts.histogram(Metric::Voluntary), counts.histogram(Metric::Preempted));
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
    let rates = counts.histogram(Metric::Migrations);
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

/// Returns the indices of instructions and cycles, if both are counted.
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
        for metric in 0..METRICS {
            self.histograms[metric].merge(&other.histograms[metric]);
        }
        self.moves += other.moves;
        self.cross_cache += other.cross_cache;
        self.cross_node += other.cross_node;
        for (sum, count) in self.events.iter_mut().zip(other.events) {
            *sum = sum.wrapping_add(count);
        }
    }
}

/// The index of the 99th percentile in `time_columns`.
const P99: usize = 3;

pub(super) fn time_columns() -> Vec<Column> {
    vec![
        column("COUNT", "count"),
        column("P50", "p50_ns"),
        column("P90", "p90_ns"),
        column("P99", "p99_ns"),
        column("MAX", "max_ns"),
        column("MEAN", "mean_ns"),
    ]
}

pub(super) fn times_of(histogram: &Histogram) -> Vec<Cell> {
    let percentiles = [50, 90, 99].map(|percent| Cell::time(histogram.percentile(percent)));
    let mut cells = vec![Cell::Number(histogram.count())];
    cells.extend(percentiles);
    cells.extend([histogram.longest(), histogram.mean()].map(Cell::time));
    cells
}

/// The columns for the number of tasks that were queued on a CPU when a task was woken there.
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
#[path = "interval_tables_tests.rs"]
mod tests;
