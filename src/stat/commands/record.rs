//! `stallstat record FILE`: writes which tasks ran in each millisecond on each CPU, with
//! performance counters, as columns.

use crate::error::{Context, Error, Result};
use crate::host::own_file;
use crate::stat::bpf_abi::{EVENTS, turn};
use crate::stat::columns::quoted;
use crate::stat::options::Options;
use crate::stat::parquet::{ColumnSchema, ColumnType, ColumnValue, ParquetWriter};
use crate::stat::perf::{Named, events_or_none};
use crate::stat::select::Selection;
use crate::stat::task_table::{TaskIdentity, TaskIdx, TaskTable, runner};
use crate::stat::topology::Topology;
use crate::stat::turns::{self, TurnSink};
use crate::task::{Comm, Cpu, Nanos, Tid};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The length of a slot. The file has a row for each slot, CPU and task.
const SLOT: Nanos = Nanos::from_millis(1);

/// The time after which a slot is complete. Turns of different CPUs arrive slightly out of order.
const SETTLED: Nanos = Nanos::from_secs(1);

pub(super) fn run(options: &Options, path: &Path) -> Result<()> {
    let events = events_or_none(options);
    let mut record = Recorder {
        file: Sheet::create(path, &events)?,
        tasks: TaskTable::new(),
        selection: Selection::new(options)?,
        slots: BTreeMap::new(),
        events: events.len(),
        lost: 0,
    };
    turns::follow(options, &Topology::read(Path::new("/")), &events, SLOT, &mut record)?;
    record.write_before(Nanos::MAX)?;
    record.file.finish().context(format_args!("write {}", path.display()))?;
    turns::warn_missing(record.lost);
    Ok(())
}

struct Recorder {
    file: Sheet,
    tasks: TaskTable,
    selection: Selection,
    /// The slots by time, CPU and task.
    slots: BTreeMap<(Nanos, Cpu, TaskIdx), SlotSum>,
    events: usize,
    lost: u64,
}

#[derive(Clone, Copy, Default)]
struct SlotSum {
    ran: Nanos,
    events: [u64; EVENTS as usize],
}

impl TurnSink for Recorder {
    fn turn(&mut self, turn: &turn) -> Result<()> {
        let Some(start) = turns::start(turn).filter(|_| turn.tid != 0) else { return Ok(()) };
        let idx = self.tasks.add(runner(turn));
        let is_wanted = self.tasks.get(idx).is_some_and(|task| self.selection.covers(task));
        if !is_wanted || !self.selection.watches(Cpu(turn.cpu)) {
            return Ok(());
        }
        let end = Nanos(turn.end);
        let mut at = start;
        while at < end {
            let slot = Nanos(at.0 - at.0 % SLOT.0);
            let until = end.min(slot + SLOT);
            let sum = self.slots.entry((slot, Cpu(turn.cpu), idx)).or_default();
            sum.ran = sum.ran + (until - at);
            for (sum, count) in sum.events.iter_mut().zip(turn.events) {
                // The part of the count for this slot: a difference of totals, so that all parts
                // add up to the count.
                let share = |moment: Nanos| {
                    (u128::from(count) * u128::from((moment - start).0) / u128::from((end - start).0)) as u64
                };
                *sum += share(until) - share(at);
            }
            at = until;
        }
        Ok(())
    }

    fn interval(&mut self, _: Nanos, lost: u64) -> Result<()> {
        self.lost += lost;
        self.tasks.learn_cgroups();
        let last = self.slots.last_key_value().map_or(Nanos::ZERO, |((at, ..), _)| *at);
        self.write_before(last - SETTLED)?;
        if self.tasks.is_full() {
            self.write_before(Nanos::MAX)?;
            self.tasks.clear();
        }
        Ok(())
    }
}

impl Recorder {
    fn write_before(&mut self, moment: Nanos) -> Result<()> {
        let later = self.slots.split_off(&(moment, Cpu(0), TaskIdx::default()));
        for ((at, cpu, idx), slot) in std::mem::replace(&mut self.slots, later) {
            let Some(identity) = self.tasks.get(idx) else { continue };
            let row = SheetRow { at, cpu, identity: *identity, slot, events: self.events };
            self.file.push(&row, &self.tasks).context("write what was recorded")?;
        }
        Ok(())
    }
}

struct SheetRow {
    at: Nanos,
    cpu: Cpu,
    identity: TaskIdentity,
    slot: SlotSum,
    events: usize,
}

const TEXTS: [&str; 4] = ["comm", "cgroup", "container", "pod"];

/// A file in one of the supported formats.
enum Sheet {
    Csv(BufWriter<File>),
    Parquet(ParquetWriter<BufWriter<File>>),
}

impl Sheet {
    fn create(path: &Path, events: &[Named]) -> Result<Sheet> {
        let what = || format!("write {}", path.display());
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if !["csv", "parquet"].contains(&ending) {
            return Err(Error::new(format!(
                "cannot tell what {} is to be: end its name in .csv or .parquet",
                path.display()
            )));
        }
        let mut out = BufWriter::new(own_file::create_private(path)?);
        if ending == "csv" {
            let names = ["time_ns", "cpu", "tid", "tgid"].into_iter().chain(TEXTS).chain(["ran_ns"]);
            let names = names.chain(events.iter().map(|event| event.name.as_str()));
            writeln!(out, "{}", names.collect::<Vec<_>>().join(",")).context(what())?;
            return Ok(Sheet::Csv(out));
        }
        let column = |name: &str, kind| ColumnSchema { name: name.to_string(), kind };
        let mut columns = vec![
            column("time_ns", ColumnType::Int64),
            column("cpu", ColumnType::Int32),
            column("tid", ColumnType::Int32),
            column("tgid", ColumnType::Int32),
        ];
        columns.extend(TEXTS.map(|name| column(name, ColumnType::Text)));
        columns.push(column("ran_ns", ColumnType::Int64));
        columns.extend(events.iter().map(|event| column(&event.name, ColumnType::Int64)));
        Ok(Sheet::Parquet(ParquetWriter::create(out, &columns).context(what())?))
    }

    fn push(&mut self, row: &SheetRow, tasks: &TaskTable) -> std::io::Result<()> {
        let SheetRow { at, cpu, identity, slot, events } = row;
        let Tid(tid) = identity.tid;
        let task_owner = tasks.owner(identity);
        let (container, pod) =
            (task_owner.owner.container.unwrap_or_default(), task_owner.owner.pod.unwrap_or_default());
        let texts = [Comm::new(&identity.comm).to_string(), task_owner.cgroup, container, pod];
        match self {
            Sheet::Csv(out) => {
                write!(out, "{},{cpu},{tid},{}", at.0, identity.tgid)?;
                for text in &texts {
                    write!(out, ",{}", quoted(text))?;
                }
                write!(out, ",{}", slot.ran.0)?;
                for event in slot.events.iter().take(*events) {
                    write!(out, ",{event}")?;
                }
                writeln!(out)
            }
            Sheet::Parquet(writer) => {
                let mut values = vec![
                    ColumnValue::Int64(at.0 as i64),
                    ColumnValue::Int32(cpu.0 as i32),
                    ColumnValue::Int32(tid),
                    ColumnValue::Int32(identity.tgid.0),
                ];
                values.extend(texts.iter().map(|text| ColumnValue::Text(text)));
                values.push(ColumnValue::Int64(slot.ran.0 as i64));
                values
                    .extend(slot.events.iter().take(*events).map(|&event| ColumnValue::Int64(event as i64)));
                writer.push(&values)
            }
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Sheet::Csv(mut out) => out.flush(),
            Sheet::Parquet(writer) => writer.finish()?.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rig::scratch::Scratch;
    use std::fs;

    fn turn(cpu: u32, tid: i32, start: u64, end: u64, events: u64) -> turn {
        let mut turn = turn { cpu, tid, tgid: tid, end, length: end - start, ..turn::default() };
        turn.comm[..2].copy_from_slice(b"a,");
        turn.events[0] = events;
        turn
    }

    fn recorded(turns: &[turn]) -> String {
        let scratch = Scratch::new("record");
        let path = scratch.join("slots.csv");
        let event = Named { name: "cycles".to_string(), event: crate::stat::perf::find("cycles").unwrap() };
        let mut record = Recorder {
            file: Sheet::create(&path, &[event]).unwrap(),
            tasks: TaskTable::default(),
            selection: Selection::new(&Options::default()).unwrap(),
            slots: BTreeMap::new(),
            events: 1,
            lost: 0,
        };
        turns.iter().for_each(|turn| record.turn(turn).unwrap());
        record.write_before(Nanos::MAX).unwrap();
        record.file.finish().unwrap();
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_turn_is_shared_out_to_its_slots_and_nothing_is_lost_by_rounding() {
        let text = recorded(&[turn(1, 7, 1_900_000, 4_100_000, 1000)]);
        assert_eq!(
            text,
            "time_ns,cpu,tid,tgid,comm,cgroup,container,pod,ran_ns,cycles\n\
             1000000,1,7,7,\"a,\",,,,100000,45\n\
             2000000,1,7,7,\"a,\",,,,1000000,455\n\
             3000000,1,7,7,\"a,\",,,,1000000,454\n\
             4000000,1,7,7,\"a,\",,,,100000,46\n"
        );
    }

    #[test]
    fn turns_of_one_task_in_a_slot_are_one_row_and_idle_ones_none() {
        let text = recorded(&[
            turn(0, 7, 0, 100, 1),
            turn(0, 0, 100, 500, 1),
            turn(0, 7, 500, 700, 2),
            turn(1, 7, 700, 701, 4),
        ]);
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(rows, ["0,0,7,7,\"a,\",,,,300,3", "0,1,7,7,\"a,\",,,,1,4"]);
    }

    #[test]
    fn a_file_that_is_to_be_neither_form_is_refused() {
        let refused = Sheet::create(Path::new("/nowhere/slots.txt"), &[]).err().unwrap().to_string();
        assert_eq!(refused, "cannot tell what /nowhere/slots.txt is to be: end its name in .csv or .parquet");
    }
}
