//! `stallstat record FILE`: who ran in each millisecond on each CPU, and what the performance counters say of it, in columns.

use super::columns::quoted;
use super::options::Options;
use super::parquet::{self, Kind, Value, Writer};
use super::people::{People, Person, Who, runner};
use super::perf::{Named, events_or_none};
use super::records::{EVENTS, turn};
use super::select::Selection;
use super::topology::Topology;
use super::turns::{self, Sink};
use crate::error::{Context, Error, Result};
use crate::host::own_file;
use crate::task::{Comm, Cpu, Nanos, Tid};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// How long a slot is.
const SLOT: Nanos = Nanos::from_millis(1);

/// Turns on other CPUs come a little out of order; after so long none is missing.
const SETTLED: Nanos = Nanos::from_secs(1);

pub fn run(options: &Options, path: &Path) -> Result<()> {
    let events = events_or_none(options);
    let mut record = Record {
        file: Sheet::create(path, &events)?,
        people: People::new(),
        selection: Selection::new(options)?,
        slots: BTreeMap::new(),
        events: events.len(),
        lost: 0,
    };
    turns::follow(options, &Topology::read(Path::new("/")), &events, SLOT, &mut record)?;
    record.write_before(Nanos::MAX)?;
    record.file.finish().context(format_args!("write {}", path.display()))?;
    turns::tell_missing(record.lost);
    Ok(())
}

struct Record {
    file: Sheet,
    people: People,
    selection: Selection,
    /// By moment, CPU and task.
    slots: BTreeMap<(Nanos, Cpu, Who), Slot>,
    events: usize,
    lost: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    ran: Nanos,
    events: [u64; EVENTS as usize],
}

impl Sink for Record {
    fn turn(&mut self, turn: &turn) -> Result<()> {
        let Some(start) = turns::start(turn).filter(|_| turn.tid != 0) else { return Ok(()) };
        let who = self.people.number(runner(turn));
        let is_wanted = self.people.get(who).is_some_and(|person| self.selection.covers(person));
        if !is_wanted || !self.selection.watches(Cpu(turn.cpu)) {
            return Ok(());
        }
        let end = Nanos(turn.end);
        let mut at = start;
        while at < end {
            let slot = Nanos(at.0 - at.0 % SLOT.0);
            let until = end.min(slot + SLOT);
            let sum = self.slots.entry((slot, Cpu(turn.cpu), who)).or_default();
            sum.ran = sum.ran + (until - at);
            for (sum, count) in sum.events.iter_mut().zip(turn.events) {
                // Its share of the turn. What is left over by rounding goes to the last slot.
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
        self.people.look_up_groups();
        let last = self.slots.last_key_value().map_or(Nanos::ZERO, |((at, ..), _)| *at);
        self.write_before(last - SETTLED)?;
        if self.people.are_too_many() {
            self.write_before(Nanos::MAX)?;
            self.people.forget();
        }
        Ok(())
    }
}

impl Record {
    fn write_before(&mut self, moment: Nanos) -> Result<()> {
        let later = self.slots.split_off(&(moment, Cpu(0), Who::default()));
        for ((at, cpu, who), slot) in std::mem::replace(&mut self.slots, later) {
            let Some(person) = self.people.get(who) else { continue };
            let row = Row { at, cpu, person: *person, slot, events: self.events };
            self.file.push(&row, &self.people).context("write what was recorded")?;
        }
        Ok(())
    }
}

struct Row {
    at: Nanos,
    cpu: Cpu,
    person: Person,
    slot: Slot,
    events: usize,
}

const TEXTS: [&str; 4] = ["comm", "cgroup", "container", "pod"];

/// A file in one of the forms that others can read.
enum Sheet {
    Csv(BufWriter<File>),
    Parquet(Writer<BufWriter<File>>),
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
        let mut out = BufWriter::new(own_file::begin(path)?);
        if ending == "csv" {
            let names = ["time_ns", "cpu", "tid", "tgid"].into_iter().chain(TEXTS).chain(["ran_ns"]);
            let names = names.chain(events.iter().map(|event| event.name.as_str()));
            writeln!(out, "{}", names.collect::<Vec<_>>().join(",")).context(what())?;
            return Ok(Sheet::Csv(out));
        }
        let column = |name: &str, kind| parquet::Column { name: name.to_string(), kind };
        let mut columns = vec![
            column("time_ns", Kind::Int64),
            column("cpu", Kind::Int32),
            column("tid", Kind::Int32),
            column("tgid", Kind::Int32),
        ];
        columns.extend(TEXTS.map(|name| column(name, Kind::Text)));
        columns.push(column("ran_ns", Kind::Int64));
        columns.extend(events.iter().map(|event| column(&event.name, Kind::Int64)));
        Ok(Sheet::Parquet(Writer::create(out, &columns).context(what())?))
    }

    fn push(&mut self, row: &Row, people: &People) -> std::io::Result<()> {
        let Row { at, cpu, person, slot, events } = row;
        let Tid(tid) = person.tid;
        let address = people.address(person);
        let (container, pod) =
            (address.owner.container.unwrap_or_default(), address.owner.pod.unwrap_or_default());
        let texts = [Comm::new(&person.comm).to_string(), address.cgroup, container, pod];
        match self {
            Sheet::Csv(out) => {
                write!(out, "{},{cpu},{tid},{}", at.0, person.tgid)?;
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
                    Value::Int64(at.0 as i64),
                    Value::Int32(cpu.0 as i32),
                    Value::Int32(tid),
                    Value::Int32(person.tgid.0),
                ];
                values.extend(texts.iter().map(|text| Value::Text(text)));
                values.push(Value::Int64(slot.ran.0 as i64));
                values.extend(slot.events.iter().take(*events).map(|&event| Value::Int64(event as i64)));
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
        let mut record = Record {
            file: Sheet::create(&path, &[event]).unwrap(),
            people: People::default(),
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
