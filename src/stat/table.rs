//! The tables of a report, each of which can be written as text, JSON or CSV.

use super::columns::{align, quoted};
use crate::json::{Object, Value};
use crate::task::{Comm, Cpu, Nanos, Tid};
use std::borrow::Cow;
use std::io::{self, Write};

/// The subject of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// All tasks of this name, and their number.
    Name(Comm, u64),
    Task(Comm, Tid),
    Cpu(Cpu),
    /// A task that waits, with the task that it waits behind.
    TaskOfPod(Comm, Tid, String),
    /// The label of tasks that waited, and that of tasks that ran meanwhile.
    Pair(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    /// A time in nanoseconds.
    Time(u64),
    Number(u64),
    /// Text shows it with one decimal.
    Ratio(f64),
    Nothing,
}

/// The name of a column in text, and in JSON and CSV.
pub(super) struct Column(pub Cow<'static, str>, pub Cow<'static, str>);

pub(super) const fn column(head: &'static str, key: &'static str) -> Column {
    Column(Cow::Borrowed(head), Cow::Borrowed(key))
}

pub(super) type TableRow = (Subject, Box<[Cell]>);

pub(super) struct Table {
    pub name: &'static str,
    pub columns: Vec<Column>,
    /// The index of the column by which rows are sorted, the largest first, and put into bands.
    pub order: usize,
    pub rows: Vec<TableRow>,
    /// Show only the worst rows of each band, a power of ten, unless all are wanted.
    pub bands: bool,
}

/// The number of rows that text shows of a band.
const WORST: usize = 10;

impl Table {
    pub(super) fn sort(&mut self) {
        let order = self.order;
        let key = |row: &TableRow| row.1.get(order).map_or(0.0, |cell| cell.weight());
        self.rows.sort_by(|one, other| key(other).total_cmp(&key(one)));
    }

    /// Returns the table as text.
    pub(super) fn text(&self, detailed: bool) -> String {
        let mut lines = vec![self.heads()];
        if !self.bands || detailed {
            lines.extend(self.rows.iter().map(shown));
            return format!("{}\n", align(&lines));
        }
        let band = |row: &TableRow| row.1.get(self.order).map_or(0, |cell| cell.band());
        let mut notes = Vec::new();
        for rows in self.rows.chunk_by(|one, other| band(one) == band(other)) {
            let first = lines.len();
            lines.extend(rows.iter().take(WORST).map(shown));
            notes.push((first, rows.len(), rows.first().map_or(0, band)));
        }
        let text = align(&lines);
        let mut shown = String::new();
        for (index, line) in text.lines().enumerate() {
            if let Some(&(_, rows, band)) = notes.iter().find(|(first, ..)| *first == index) {
                let more =
                    if rows > WORST { format!(", the worst {WORST} of {rows}") } else { String::new() };
                shown += &format!("-- {} {}{more}\n", self.columns[self.order].0, range(band));
            }
            shown += line;
            shown.push('\n');
        }
        shown.push('\n');
        shown
    }

    fn heads(&self) -> Vec<String> {
        let first = self.name.to_uppercase();
        std::iter::once(first).chain(self.columns.iter().map(|column| column.0.to_string())).collect()
    }

    /// Returns the name of the table in JSON and CSV.
    fn key(&self) -> String {
        self.name.replace(' ', "_").to_lowercase()
    }

    /// Writes the table as a member of a JSON object: a list of objects.
    pub(super) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "\"{}\":[", self.key())?;
        let mut text = String::new();
        for (subject, cells) in &self.rows {
            {
                let mut row = Object::open(&mut text);
                subject.json(&mut row);
                for (Column(_, key), cell) in self.columns.iter().zip(cells) {
                    cell.json(&mut row, key);
                }
            }
            out.write_all(text.as_bytes())?;
            // A comma goes before each further row.
            text.clear();
            text.push(',');
        }
        out.write_all(b"]")
    }

    /// Writes lines of `begin,TABLE,COMM,TID,CPU,MEASURE,FIGURE`.
    pub(super) fn csv(&self, out: &mut dyn Write, begin: &str) -> io::Result<()> {
        for (subject, cells) in &self.rows {
            for (Column(_, key), cell) in self.columns.iter().zip(cells) {
                if let Some(figure) = cell.figure() {
                    writeln!(out, "{begin},{},{},{key},{figure}", self.key(), subject.csv())?;
                }
            }
        }
        Ok(())
    }
}

pub(super) const CSV_HEAD: &str = "time,table,comm,tid,cpu,measure,value\n";

fn shown((subject, cells): &TableRow) -> Vec<String> {
    std::iter::once(subject.shown()).chain(cells.iter().map(|cell| cell.shown())).collect()
}

impl Subject {
    fn shown(&self) -> String {
        match self {
            Subject::Name(comm, 0 | 1) => comm.to_string(),
            Subject::Name(comm, tasks) => format!("{comm} ({tasks})"),
            Subject::Task(comm, tid) => format!("{comm}-{tid}"),
            Subject::Cpu(cpu) => format!("CPU {cpu}"),
            Subject::TaskOfPod(comm, tid, owner) if owner.is_empty() => format!("{comm}-{tid}"),
            Subject::TaskOfPod(comm, tid, owner) => format!("{comm}-{tid} {owner}"),
            Subject::Pair(victim, culprit) => format!("{victim} < {culprit}"),
        }
    }

    fn json(&self, object: &mut Object) {
        match self {
            Subject::Name(comm, tasks) => {
                object.put("comm", Value::Bytes(comm.as_bytes()));
                object.put("tasks", Value::Number(*tasks as i64));
            }
            Subject::Task(comm, tid) | Subject::TaskOfPod(comm, tid, _) => {
                object.put("comm", Value::Bytes(comm.as_bytes()));
                object.put("tid", Value::Number(tid.0.into()));
            }
            Subject::Cpu(cpu) => object.put("cpu", Value::Number(cpu.0.into())),
            Subject::Pair(victim, culprit) => {
                object.put("victim", Value::Text(victim));
                object.put("culprit", Value::Text(culprit));
            }
        }
        if let Subject::TaskOfPod(_, _, owner) = self {
            object.put("owner", Value::Text(owner));
        }
    }

    fn csv(&self) -> String {
        match self {
            Subject::Name(comm, _) => format!("{},,", quoted(&comm.to_string())),
            Subject::Task(comm, tid) | Subject::TaskOfPod(comm, tid, _) => {
                format!("{},{tid},", quoted(&comm.to_string()))
            }
            Subject::Cpu(cpu) => format!(",,{cpu}"),
            Subject::Pair(..) => format!("{},,", quoted(&self.shown())),
        }
    }
}

impl Cell {
    pub(super) fn time(ns: Option<u64>) -> Cell {
        ns.map_or(Cell::Nothing, Cell::Time)
    }

    pub(super) fn number(number: Option<u64>) -> Cell {
        number.map_or(Cell::Nothing, Cell::Number)
    }

    pub(super) fn ratio(ratio: Option<f64>) -> Cell {
        ratio.map_or(Cell::Nothing, Cell::Ratio)
    }

    fn weight(&self) -> f64 {
        match *self {
            Cell::Time(figure) | Cell::Number(figure) => figure as f64,
            Cell::Ratio(ratio) => ratio,
            Cell::Nothing => 0.0,
        }
    }

    /// Returns the index of the cell's band in `BANDS`.
    fn band(&self) -> u32 {
        let power = ((self.weight() / 1000.0) as u64).checked_ilog10().map_or(0, |power| power.max(1) - 1);
        power.min(BANDS.len() as u32 - 1)
    }

    fn shown(&self) -> String {
        match *self {
            Cell::Time(ns) => brief(Nanos(ns)),
            Cell::Number(number) => number.to_string(),
            Cell::Ratio(ratio) => format!("{ratio:.1}"),
            Cell::Nothing => "-".to_string(),
        }
    }

    fn figure(&self) -> Option<String> {
        match *self {
            Cell::Time(figure) | Cell::Number(figure) => Some(figure.to_string()),
            Cell::Ratio(ratio) => Some(format!("{ratio:.3}")),
            Cell::Nothing => None,
        }
    }

    fn json(&self, object: &mut Object, key: &str) {
        match *self {
            Cell::Time(figure) | Cell::Number(figure) => {
                object.put(key, Value::Number(i64::try_from(figure).unwrap_or(i64::MAX)));
            }
            Cell::Ratio(ratio) => object.put(key, Value::Ratio(ratio)),
            Cell::Nothing => {}
        }
    }
}

const BANDS: [&str; 8] = [
    "below 100 us",
    "from 100 us",
    "from 1 ms",
    "from 10 ms",
    "from 100 ms",
    "from 1 s",
    "from 10 s",
    "from 100 s",
];

fn range(band: u32) -> &'static str {
    BANDS.get(band as usize).copied().unwrap_or_default()
}

/// Formats a time with three digits and a unit: `850 ns`, `12.3 us`, `30.0 s`.
pub(super) fn brief(time: Nanos) -> String {
    let ns = time.0 as f64;
    let (figure, unit) = match time.0 {
        0..1_000 => return format!("{} ns", time.0),
        1_000..1_000_000 => (ns / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    match figure {
        ..9.995 => format!("{figure:.2} {unit}"),
        ..99.95 => format!("{figure:.1} {unit}"),
        _ => format!("{figure:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, u64)]) -> Table {
        let row = |&(name, time): &(&str, u64)| {
            (Subject::Name(Comm::new(name.as_bytes()), 2), [Cell::Number(7), Cell::Time(time)].into())
        };
        Table {
            name: "latency",
            columns: vec![column("COUNT", "count"), column("P99", "p99_ns")],
            order: 1,
            rows: rows.iter().map(row).collect(),
            bands: true,
        }
    }

    #[test]
    fn a_time_has_three_digits_and_a_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (12_345, "12.3 us"),
            (999_400, "999 us"),
            (1_234_567, "1.23 ms"),
            (30_000_000_000, "30.0 s"),
            (120_000_000_000, "120 s"),
        ] {
            assert_eq!(brief(Nanos(ns)), text);
        }
    }

    #[test]
    fn rows_are_in_bands_the_worst_first() {
        let mut table = table(&[("a", 5_000), ("b", 30_000_000_000), ("c", 99_999), ("d", 100_000)]);
        table.sort();
        assert_eq!(
            table.text(false),
            "LATENCY  COUNT      P99\n\
             -- P99 from 10 s\n\
             b (2)        7   30.0 s\n\
             -- P99 from 100 us\n\
             d (2)        7   100 us\n\
             -- P99 below 100 us\n\
             c (2)        7   100 us\n\
             a (2)        7  5.00 us\n\n"
        );
        assert!(!table.text(true).contains("--"));
    }

    #[test]
    fn a_full_band_shows_the_number_of_its_rows() {
        let rows: Vec<(&str, u64)> = (0..25).map(|n| ("x", n * 100)).collect();
        let mut table = table(&rows);
        table.sort();
        let text = table.text(false);
        assert!(text.contains("the worst 10 of 25") && text.lines().count() == 13, "{text}");
    }

    #[test]
    fn programs_read_the_same_figures() {
        let table = table(&[("a\",\n", 5_000), ("b", 1)]);
        let mut json = Vec::new();
        table.json(&mut json).unwrap();
        let shown = br#""latency":[{"comm":"a\",\u000a","tasks":2,"count":7,"p99_ns":5000},{"comm":"b","tasks":2,"count":7,"p99_ns":1}]"#;
        assert_eq!(json, shown);
        let mut csv = Vec::new();
        table.csv(&mut csv, "1.5").unwrap();
        let first = b"1.5,latency,\"a\"\",\\x0a\",,,count,7\n1.5,latency,\"a\"\",\\x0a\",,,p99_ns,5000\n";
        assert!(csv.starts_with(first), "{}", String::from_utf8_lossy(&csv));
    }
}
