//! /proc/schedstat at one moment, and behind a NUL at a later one.

use super::{is_one_line, item};
use stalld::stat::schedstat::{Schedstat, delta, parse, rows, show};
use stalld::task::Nanos;
use std::collections::BTreeSet;

pub fn run(mut input: &[u8]) {
    let Some(before) = understood(item(&mut input)) else { return };
    let same = delta(&before, &before);
    assert!(are_twice(&before) || rows(&same).iter().all(|(_, grown)| *grown == 0), "{same:?}");
    let Some(after) = understood(input) else { return };
    let grown = delta(&before, &after);
    assert!(grown.version == after.version && grown.cpus.len() <= after.cpus.len());
    assert_eq!(rows(&grown).iter().find(|(name, _)| !is_one_line(name)), None);
    for interval in [Nanos(0), Nanos::from_secs(1)] {
        let text = show(&grown, interval);
        let broken = text.lines().find(|line| !line.is_empty() && !is_one_line(line));
        assert!(broken.is_none() && text.is_empty() == grown.cpus.is_empty(), "{text:?}");
    }
}

/// Returns true if two lines are about the same CPU or domain, because it is unknown then which of
/// them has grown.
fn are_twice(stat: &Schedstat) -> bool {
    let mut seen = BTreeSet::new();
    let cpus = stat.cpus.iter().map(|cpu| (cpu.cpu, None));
    let domains = stat.cpus.iter().flat_map(|cpu| cpu.domains.iter().map(|it| (cpu.cpu, Some(it.level))));
    !cpus.chain(domains).all(|it| seen.insert(it))
}

fn understood(text: &[u8]) -> Option<Schedstat> {
    match parse(text) {
        Ok(stat) => {
            assert!((15..=17).contains(&stat.version));
            Some(stat)
        }
        Err(error) => {
            assert!(is_one_line(&error.to_string()), "{error:?}");
            None
        }
    }
}
