//! The names of events that processors and the kernel count.

use super::NAME;
use super::options::Options;
use crate::command_line::complain;
use crate::error::{Error, Result};
use crate::sys::perf::{self, CACHE, HARDWARE, PerfEvent, RAW, SOFTWARE};
use crate::task::Cpu;
use std::process::ExitCode;

/// An event, with the name that the user gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub name: String,
    pub event: PerfEvent,
}

const fn event(kind: u32, config: u64) -> PerfEvent {
    PerfEvent { kind, config }
}

/// Returns the event of a cache, an operation (0 read, 1 write) and a result (0 any, 1 miss).
const fn cache(cache: u64, deed: u64, miss: u64) -> PerfEvent {
    event(CACHE, cache | deed << 8 | miss << 16)
}

/// The events by their names in perf(1).
const EVENTS: &[(&str, PerfEvent)] = &[
    ("cycles", event(HARDWARE, 0)),
    ("cpu-cycles", event(HARDWARE, 0)),
    ("instructions", event(HARDWARE, 1)),
    ("cache-references", event(HARDWARE, 2)),
    ("cache-misses", event(HARDWARE, 3)),
    ("branches", event(HARDWARE, 4)),
    ("branch-misses", event(HARDWARE, 5)),
    ("bus-cycles", event(HARDWARE, 6)),
    ("stalled-cycles-frontend", event(HARDWARE, 7)),
    ("stalled-cycles-backend", event(HARDWARE, 8)),
    ("ref-cycles", event(HARDWARE, 9)),
    ("cpu-clock", event(SOFTWARE, 0)),
    ("task-clock", event(SOFTWARE, 1)),
    ("page-faults", event(SOFTWARE, 2)),
    ("context-switches", event(SOFTWARE, 3)),
    ("cpu-migrations", event(SOFTWARE, 4)),
    ("minor-faults", event(SOFTWARE, 5)),
    ("major-faults", event(SOFTWARE, 6)),
    ("alignment-faults", event(SOFTWARE, 7)),
    ("emulation-faults", event(SOFTWARE, 8)),
    ("L1-dcache-loads", cache(0, 0, 0)),
    ("L1-dcache-load-misses", cache(0, 0, 1)),
    ("L1-dcache-stores", cache(0, 1, 0)),
    ("L1-icache-load-misses", cache(1, 0, 1)),
    ("LLC-loads", cache(2, 0, 0)),
    ("LLC-load-misses", cache(2, 0, 1)),
    ("LLC-stores", cache(2, 1, 0)),
    ("LLC-store-misses", cache(2, 1, 1)),
    ("dTLB-loads", cache(3, 0, 0)),
    ("dTLB-load-misses", cache(3, 0, 1)),
    ("iTLB-load-misses", cache(4, 0, 1)),
    ("node-loads", cache(6, 0, 0)),
    ("node-load-misses", cache(6, 0, 1)),
];

/// Returns the events of the options. Fails if this machine can't count one of them.
pub(super) fn events(options: &Options) -> Result<Vec<Named>> {
    options.events.iter().map(|name| {
        let event = find(name).map_err(Error::new)?;
        perf::count(Cpu(0), event).map_err(|e| {
            let error = Error::io(format_args!("count {name}"), &e);
            match e.raw_os_error() {
                Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV) => error.with_cure(
                    "this machine has no counter for it, as many virtual ones; -e task-clock,page-faults goes without",
                ),
                _ => error,
            }
        })?;
        Ok(Named { name: name.clone(), event })
    }).collect()
}

/// Returns the events of the options. If one can't be counted, prints a message and returns none.
pub(super) fn events_or_none(options: &Options) -> Vec<Named> {
    events(options).unwrap_or_else(|error| {
        complain(NAME, &format!("without performance counters: {error}"), ExitCode::SUCCESS);
        Vec::new()
    })
}

/// Returns the event of a name. The error lists all names.
pub(super) fn find(name: &str) -> Result<PerfEvent, String> {
    if let Some((_, event)) = EVENTS.iter().find(|(known, _)| *known == name) {
        return Ok(*event);
    }
    let raw = name.strip_prefix('r').filter(|hex| !hex.is_empty() && !hex.starts_with('+'));
    match raw.and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
        Some(config) => Ok(PerfEvent { kind: RAW, config }),
        None => {
            let names: Vec<&str> = EVENTS.iter().map(|(name, _)| *name).collect();
            Err(format!("'{name}' is no event: give r and a number in hex, or {}", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_by_its_name_or_its_number() {
        assert_eq!(find("cycles"), Ok(PerfEvent { kind: 0, config: 0 }));
        assert_eq!(find("LLC-load-misses"), Ok(PerfEvent { kind: 3, config: 0x1_0002 }));
        assert_eq!(find("r01a2"), Ok(PerfEvent { kind: 4, config: 0x1a2 }));
        for nonsense in ["", "r", "rx", "r+1", "cycle", "r11111111111111111"] {
            assert!(find(nonsense).unwrap_err().contains("is no event"), "{nonsense}");
        }
    }
}
