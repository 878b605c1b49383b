//! `stallstat` without a command: counts, and reports once per interval.

use crate::command_line::complain;
use crate::error::{Context, Result};
use crate::stat::NAME;
use crate::stat::collector::{Collector, EntryKind, Plan};
use crate::stat::interval_tables::IntervalTables;
use crate::stat::options::{MetricGroup, Options};
use crate::stat::perf::{Named, events};
use crate::stat::report::{Extra, IntervalReport};
use crate::stat::schedstat::{self, Schedstat};
use crate::stat::screen::Screen;
use crate::stat::select::Selection;
use crate::stat::topology::Topology;
use crate::stat::turns::room_for_tasks;
use crate::stat::waiting::Waiting;
use crate::sys::clock;
use crate::sys::signal::{Signal, Signals};
use crate::task::Nanos;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(options: &Options) -> Result<()> {
    let signals = Signals::hold().context("hold signals back")?;
    let mut selection = Selection::new(options)?;
    let mut options = options.clone();
    let events = probe_group(&mut options, MetricGroup::Perf, events)?.unwrap_or_default();
    let mut schedstat =
        probe_group(&mut options, MetricGroup::Schedstat, |_| schedstat::read(Path::new("/")))?;
    let options = &options;
    let mut collector = match options.groups.iter().all(|&group| group == MetricGroup::Schedstat) {
        true => None,
        false => Some(Collector::open(&plan(options, &selection, &events), &Topology::read(Path::new("/")))?),
    };
    if let Some(collector) = &collector {
        selection.judge_names(collector);
    }
    let mut waiting = options.groups.contains(&MetricGroup::Latency).then(|| Waiting::new(options));
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
        let mut counts = IntervalTables::new(options, &events, now - since);
        if let Some(collector) = &mut collector {
            read(collector, &mut selection, &mut counts)?;
        }
        let mut tables = counts.into_tables();
        tables.extend(waiting.as_mut().and_then(|waiting| waiting.table(now - since)));
        let length = now - since;
        let more = change(&mut schedstat, length)?.into_iter().collect();
        let report = IntervalReport { length, tables, more, lost: lost.more(collector.as_ref()) };
        report.show(options, &mut screen)?;
        since = now;
        if interrupted || now >= end {
            return Ok(());
        }
    }
}

/// Returns the result of `get` if the options select the group. If `get` fails, drops the group
/// with a message; fails if it is the only group.
fn probe_group<T>(
    options: &mut Options,
    group: MetricGroup,
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
        metrics: options.groups.iter().flat_map(|group| group.metrics()).copied().collect(),
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

fn read(collector: &mut Collector, selection: &mut Selection, tables: &mut IntervalTables) -> Result<()> {
    let mut open = Vec::new();
    collector.begin_interval()?;
    collector.read(|kind, counts| match kind {
        EntryKind::Cpu(cpu) => tables.add_cpu(cpu, &counts),
        EntryKind::Task if counts.is_open => open.push(counts),
        EntryKind::Task => tables.add(&counts),
    })?;
    for counts in open {
        if selection.wants(&counts, collector) {
            tables.add(&counts);
        }
    }
    Ok(())
}

/// Returns the growth of /proc/schedstat since the last report.
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

/// The number of events that could not be counted, as of the last report.
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
