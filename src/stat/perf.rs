//! Names of events that processors and the kernel count.

use super::NAME;
use super::options::Options;
use crate::command_line::complain;
use crate::error::{Error, Result};
use crate::sys::perf::{self, CACHE, Event, HARDWARE, RAW, SOFTWARE};
use crate::task::Cpu;
use std::process::ExitCode;

/// An event by the name that the user gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub event: Event,
}

const fn event(kind: u32, config: u64) -> Event {
    Event { kind, config }
}

/// A cache, what is done to it (0 to read, 1 to write) and what comes of it (0 for any, 1 for a
/// miss).
const fn cache(cache: u64, deed: u64, miss: u64) -> Event {
    event(CACHE, cache | deed << 8 | miss << 16)
}

/// As perf(1) calls them.
const EVENTS: &[(&str, Event)] = &[
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

/// The events that were asked for, if this machine has counters for all of them.
pub fn events(options: &Options) -> Result<Vec<Named>> {
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

/// The same, or none of them, with a word.
pub fn events_or_none(options: &Options) -> Vec<Named> {
    events(options).unwrap_or_else(|error| {
        complain(NAME, &format!("without performance counters: {error}"), ExitCode::SUCCESS);
        Vec::new()
    })
}

/// Finds an event, or says which there are.
pub fn find(name: &str) -> Result<Event, String> {
    if let Some((_, event)) = EVENTS.iter().find(|(known, _)| *known == name) {
        return Ok(*event);
    }
    let raw = name.strip_prefix('r').filter(|hex| !hex.is_empty() && !hex.starts_with('+'));
    match raw.and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
        Some(config) => Ok(Event { kind: RAW, config }),
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
        assert_eq!(find("cycles"), Ok(Event { kind: 0, config: 0 }));
        assert_eq!(find("LLC-load-misses"), Ok(Event { kind: 3, config: 0x1_0002 }));
        assert_eq!(find("r01a2"), Ok(Event { kind: 4, config: 0x1a2 }));
        for nonsense in ["", "r", "rx", "r+1", "cycle", "r11111111111111111"] {
            assert!(find(nonsense).unwrap_err().contains("is no event"), "{nonsense}");
        }
    }
}
