//! `stallstat` without a command: counts, and reports once an interval.

use super::NAME;
use super::collector::{Collector, Of, Plan};
use super::counted::Counted;
use super::options::{Group, Options};
use super::perf::{Named, events};
use super::report::{Extra, Report};
use super::schedstat::{self, Schedstat};
use super::screen::Screen;
use super::select::Selection;
use super::topology::Topology;
use super::turns::room_for_tasks;
use super::waiting::Waiting;
use crate::command_line::complain;
use crate::error::{Context, Result};
use crate::sys::clock;
use crate::sys::signal::{Signal, Signals};
use crate::task::Nanos;
use std::path::Path;
use std::process::ExitCode;

pub fn run(options: &Options) -> Result<()> {
    let signals = Signals::hold().context("hold signals back")?;
    let mut selection = Selection::new(options)?;
    let mut options = options.clone();
    let events = leave_out(&mut options, Group::Perf, events)?.unwrap_or_default();
    let mut schedstat = leave_out(&mut options, Group::Schedstat, |_| schedstat::read(Path::new("/")))?;
    let options = &options;
    let mut collector = match options.groups.iter().all(|&group| group == Group::Schedstat) {
        true => None,
        false => Some(Collector::open(&plan(options, &selection, &events), &Topology::read(Path::new("/")))?),
    };
    if let Some(collector) = &collector {
        selection.judge_names(collector);
    }
    let mut waiting = options.groups.contains(&Group::Latency).then(|| Waiting::new(options));
    let mut screen = Screen::new(options.form);
    let begun = clock::monotonic();
    let end = options.run_time.map_or(Nanos::MAX, |time| begun + time);
    let mut since = begun;
    let mut lost = Lost::default();
    loop {
        let interrupted = loop {
            let until = end.min(since + options.interval);
            match signals.wait_until(until) {
                Some(Signal::End) => break true,
                Some(Signal::Report) => break false,
                None if clock::monotonic() >= until => break false,
                None => {}
            }
        };
        let now = clock::monotonic();
        let mut counted = Counted::new(options, &events, now - since);
        if let Some(collector) = &mut collector {
            read(collector, &mut selection, &mut counted)?;
        }
        let mut tables = counted.into_tables();
        tables.extend(waiting.as_mut().and_then(|waiting| waiting.table(now - since)));
        let length = now - since;
        let more = change(&mut schedstat, length)?.into_iter().collect();
        let report = Report { length, tables, more, lost: lost.more(collector.as_ref()) };
        report.show(options, &mut screen)?;
        since = now;
        if interrupted || now >= end {
            return Ok(());
        }
    }
}

/// What a group needs, if it was asked for. Beside others it is left out where it can't be had,
/// with a word; alone that is an error.
fn leave_out<T>(
    options: &mut Options,
    group: Group,
    get: impl Fn(&Options) -> Result<T>,
) -> Result<Option<T>> {
    if !options.groups.contains(&group) {
        return Ok(None);
    }
    match get(options) {
        Ok(had) => Ok(Some(had)),
        Err(error) if options.groups.len() > 1 => {
            complain(NAME, &format!("{} is left out: {error}", group.name()), ExitCode::SUCCESS);
            options.groups.retain(|&other| other != group);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn plan(options: &Options, selection: &Selection, events: &[Named]) -> Plan {
    Plan {
        kinds: options.groups.iter().flat_map(|group| group.kinds()).copied().collect(),
        events: events.iter().map(|named| named.event).collect(),
        turns: None,
        numbers: options.numbers.clone(),
        by_name: selection.by_name(),
        by_group: selection.by_group(),
        cpus: options.cpus.clone(),
        shortest: options.shortest,
        tasks: room_for_tasks(),
    }
}

fn read(collector: &mut Collector, selection: &mut Selection, counted: &mut Counted) -> Result<()> {
    let mut open = Vec::new();
    collector.begin_interval()?;
    collector.read(|of, counts| match of {
        Of::Cpu(cpu) => counted.add_cpu(cpu, &counts),
        Of::Task if counts.is_open => open.push(counts),
        Of::Task => counted.add(&counts),
    })?;
    for counts in open {
        if selection.wants(&counts, collector) {
            counted.add(&counts);
        }
    }
    Ok(())
}

/// What has changed in /proc/schedstat since the last report.
fn change(before: &mut Option<Schedstat>, length: Nanos) -> Result<Option<Extra>> {
    let Some(before) = before else { return Ok(None) };
    let after = schedstat::read(Path::new("/"))?;
    let delta = schedstat::delta(before, &after);
    *before = after;
    Ok(Some(Extra {
        name: "schedstat",
        text: schedstat::show(&delta, length),
        rows: schedstat::rows(&delta),
    }))
}

/// What could not be counted.
#[derive(Clone, Copy, Default)]
struct Lost {
    untracked: u64,
}

impl Lost {
    fn more(&mut self, collector: Option<&Collector>) -> u64 {
        let now = collector.map_or(0, |collector| collector.losses().untracked);
        let more = now.wrapping_sub(self.untracked);
        self.untracked = now;
        more
    }
}
