//! What was counted in an interval, as tables.

use super::collector::{Counts, KINDS, Kind};
use super::histogram::Histogram;
use super::options::{Form, Group, Options};
use super::perf::Named;
use super::table::{Cell, Column, Subject, Table, column};
use crate::json::{Object, Value};
use crate::task::{Comm, Cpu, Nanos, Tid};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// What was counted of tasks with one name, or of one task; and of each CPU.
#[derive(Default)]
pub struct Counted {
    tasks: BTreeMap<(Vec<u8>, Tid), Sum>,
    cpus: BTreeMap<Cpu, Counts>,
}

#[derive(Default)]
struct Sum {
    tasks: u64,
    counts: Counts,
}

/// The unit of what is no time: see bpf/count.h.
const UNIT: u64 = 1 << super::records::SLOT_SHIFT;

impl Counted {
    pub fn add(&mut self, counts: Counts, collapse: bool) {
        // Nothing but an end was new of it.
        if counts.histograms.iter().all(|histogram| histogram.is_empty())
            && counts.moves == 0
            && counts.events.iter().all(|&count| count == 0)
        {
            return;
        }
        let tid = if collapse { Tid(0) } else { counts.tid };
        let sum = self.tasks.entry((counts.comm.as_bytes().to_vec(), tid)).or_default();
        sum.tasks += 1;
        sum.counts.add(&counts);
    }

    pub fn add_cpu(&mut self, cpu: Cpu, counts: Counts) {
        self.cpus.entry(cpu).or_default().add(&counts);
    }

    /// The tables of the groups that were asked for.
    pub fn tables(&self, options: &Options, events: &[Named], interval: Nanos) -> Vec<Table> {
        let mut tables = Vec::new();
        for group in &options.groups {
            match group {
                Group::Latency => {
                    tables.push(self.of_tasks("latency", Kind::Latency, latency));
                    tables.push(self.of_cpus("latency by CPU", Kind::Latency));
                }
                Group::Slice => tables.push(self.slices()),
                Group::Sleep => {
                    tables.push(self.of_tasks("sleep", Kind::Sleep, |_| Vec::new()));
                    tables.push(self.of_cpus("idle by CPU", Kind::Sleep));
                }
                Group::Waking => tables.push(self.of_tasks("waking", Kind::Waking, |_| Vec::new())),
                Group::Migration => tables.push(self.migrations(interval)),
                Group::Perf => tables.push(self.events(events)),
                Group::Schedstat => {}
            }
        }
        for table in &mut tables {
            table.sort();
        }
        tables
    }

    fn rows(&self) -> impl Iterator<Item = (Subject, &Counts)> {
        self.tasks.iter().map(|((name, tid), sum)| {
            let comm = Comm::new(name);
            let subject = match tid {
                Tid(0) => Subject::Name(comm, sum.tasks),
                tid => Subject::Task(comm, *tid),
            };
            (subject, &sum.counts)
        })
    }

    fn of_tasks(
        &self,
        name: &'static str,
        kind: Kind,
        more: fn(Option<&Counts>) -> Vec<(Column, Cell)>,
    ) -> Table {
        let rows = self.rows().filter(|(_, counts)| !counts.histogram(kind).is_empty());
        let row = |(subject, counts): (Subject, &Counts)| {
            let more = more(Some(counts)).into_iter().map(|(_, cell)| cell);
            (subject, times(counts, kind).into_iter().chain(more).collect())
        };
        let mut columns = time_columns();
        columns.extend(more(None).into_iter().map(|(column, _)| column));
        Table { name, columns, order: P99, rows: rows.map(row).collect(), bands: true }
    }

    fn of_cpus(&self, name: &'static str, kind: Kind) -> Table {
        let rows = self.cpus.iter().filter(|(_, counts)| !counts.histogram(kind).is_empty());
        let rows = rows.map(|(&cpu, counts)| (Subject::Cpu(cpu), times(counts, kind))).collect();
        Table { name, columns: time_columns(), order: P99, rows, bands: false }
    }

    fn slices(&self) -> Table {
        let columns = vec![
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
        ];
        let mut rows = Vec::new();
        for (subject, counts) in self.rows() {
            let (voluntary, preempted) =
                (counts.histogram(Kind::Voluntary), counts.histogram(Kind::Preempted));
            let all = voluntary.count() + preempted.count();
            if all == 0 {
                continue;
            }
            let mut cells = vec![
                Cell::Number(Some(all)),
                Cell::Number(Some(preempted.count())),
                Cell::Ratio(Some(preempted.count() as f64 * 100.0 / all as f64)),
            ];
            for histogram in [voluntary, preempted] {
                let figures = [histogram.percentile(50), histogram.percentile(99), histogram.longest()];
                cells.extend(figures.map(Cell::Time));
            }
            cells.push(Cell::Time(Some(voluntary.sum().saturating_add(preempted.sum()))));
            rows.push((subject, cells));
        }
        Table { name: "slice", order: columns.len() - 1, columns, rows, bands: false }
    }

    fn migrations(&self, interval: Nanos) -> Table {
        let columns = vec![
            column("COUNT", "count"),
            column("PER S", "per_second"),
            column("P50", "p50_per_second"),
            column("P90", "p90_per_second"),
            column("P99", "p99_per_second"),
            column("MAX", "max_per_second"),
            column("CACHE", "cross_cache"),
            column("NODE", "cross_node"),
        ];
        let rows = self.rows().filter(|(_, counts)| counts.moves > 0);
        let row = |(subject, counts): (Subject, &Counts)| {
            let rates = counts.histogram(Kind::Migrations);
            let figures = [rates.percentile(50), rates.percentile(90), rates.percentile(99), rates.longest()];
            let mut cells = vec![
                Cell::Number(Some(counts.moves)),
                Cell::Ratio((interval.0 > 0).then(|| counts.moves as f64 * 1e9 / interval.0 as f64)),
            ];
            cells.extend(figures.map(|figure| Cell::Number(figure.map(|units| units / UNIT))));
            cells.extend([counts.cross_cache, counts.cross_node].map(|moves| Cell::Number(Some(moves))));
            (subject, cells)
        };
        Table { name: "migration", columns, order: 0, rows: rows.map(row).collect(), bands: false }
    }

    fn events(&self, events: &[Named]) -> Table {
        let find = |name: &str| events.iter().position(|event| event.name == name);
        let of_both = find("instructions").zip(find("cycles"));
        let mut columns: Vec<Column> =
            events.iter().map(|event| Column(event.name.clone().into(), event.name.clone().into())).collect();
        if of_both.is_some() {
            columns.push(column("IPC", "instructions_per_cycle"));
        }
        let rows = self.rows().filter(|(_, counts)| counts.events.iter().any(|&count| count > 0));
        let row = |(subject, counts): (Subject, &Counts)| {
            let figures = counts.events.iter().take(events.len());
            let mut cells: Vec<Cell> = figures.map(|&count| Cell::Number(Some(count))).collect();
            if let Some((instructions, cycles)) = of_both {
                let (instructions, cycles) = (counts.events[instructions], counts.events[cycles]);
                cells.push(Cell::Ratio((cycles > 0).then(|| instructions as f64 / cycles as f64)));
            }
            (subject, cells)
        };
        Table { name: "perf", columns, order: 0, rows: rows.map(row).collect(), bands: false }
    }
}

/// What is no row for each task or CPU.
pub struct Extra {
    pub name: &'static str,
    pub text: String,
    pub rows: Vec<(String, u64)>,
}

/// One interval.
pub struct Report {
    pub length: Nanos,
    pub tables: Vec<Table>,
    /// What comes with a table of its own.
    pub more: Vec<Extra>,
    /// Events, or turns, that could not be counted.
    pub lost: u64,
}

impl Report {
    pub fn shown(&self, options: &Options) -> String {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = time.as_secs_f64();
        match options.form {
            Form::Text => self.text(options.detailed),
            Form::Json => self.json(time),
            Form::Csv => self.csv(&format!("{time:.3}")),
        }
    }

    fn text(&self, detailed: bool) -> String {
        let mut text = String::new();
        for table in self.tables.iter().filter(|table| !table.rows.is_empty()) {
            text += &table.text(detailed);
        }
        text.extend(self.more.iter().map(|extra| extra.text.as_str()));
        if text.is_empty() {
            text += "nothing happened\n";
        }
        if self.lost > 0 {
            text += &format!("{} events came that there was no room for, and are not counted\n", self.lost);
        }
        text
    }

    fn json(&self, time: f64) -> String {
        let mut text = String::new();
        {
            let mut report = Object::open(&mut text);
            report.put("time", Value::Ratio(time));
            report.put("interval_ns", Value::Number(self.length.0 as i64));
            report.put("not_counted", Value::Number(self.lost as i64));
            for table in &self.tables {
                table.json(&mut report);
            }
            for extra in &self.more {
                let mut object = report.object(extra.name);
                for (key, value) in &extra.rows {
                    object.put(key, Value::Number(*value as i64));
                }
            }
        }
        text.push('\n');
        text
    }

    fn csv(&self, time: &str) -> String {
        let mut text: String = self.tables.iter().map(|table| table.csv(time)).collect();
        for extra in &self.more {
            for (key, value) in &extra.rows {
                text += &format!("{time},{},,,,{key},{value}\n", extra.name);
            }
        }
        if self.lost > 0 {
            text += &format!("{time},all,,,,not_counted,{}\n", self.lost);
        }
        text
    }
}

impl Counts {
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

fn times(counts: &Counts, kind: Kind) -> Vec<Cell> {
    times_of(counts.histogram(kind))
}

pub fn times_of(histogram: &Histogram) -> Vec<Cell> {
    let percentiles = [50, 90, 99].map(|percent| Cell::Time(histogram.percentile(percent)));
    let mut cells = vec![Cell::Number(Some(histogram.count()))];
    cells.extend(percentiles);
    cells.extend([histogram.longest(), histogram.mean()].map(Cell::Time));
    cells
}

/// How many were queued where it was woken.
fn latency(counts: Option<&Counts>) -> Vec<(Column, Cell)> {
    let depth = counts.map(|counts| counts.histogram(Kind::Depth));
    let figure = |percent| Cell::Number(depth.and_then(|depth| Some(depth.percentile(percent)? / UNIT)));
    let deepest = Cell::Number(depth.and_then(|depth| Some(depth.longest()? / UNIT)));
    vec![
        (column("QUEUED P50", "queued_p50"), figure(50)),
        (column("P99", "queued_p99"), figure(99)),
        (column("MAX", "queued_max"), deepest),
    ]
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
