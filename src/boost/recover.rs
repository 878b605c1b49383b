//! Undoes what the journal says, for whoever has to do it in stalld's place.

use super::journal::{Boosted, Journal, Undo};
use super::undo::{Undone, undo};
use crate::error::{Error, Result};
use crate::host::debugfs;
use crate::host::settings::{self, UNTHROTTLED};
use crate::task::Nanos;
use std::fmt;
use std::path::Path;

/// What was done about a record.
#[derive(Debug)]
pub enum Recovered {
    Task(Boosted, Undone),
    Setting(Undo, Result<()>),
}

/// Undoes all boosts that should have ended before `moment`. Those who do it too are not in the way.
pub fn boosts(journal: &Journal, moment: Nanos) -> Vec<Recovered> {
    let mut recovered = Vec::new();
    for (slot, undo_record) in journal.live() {
        let Undo::Boost(boosted) = undo_record else { continue };
        if boosted.end <= moment && journal.claim(slot) {
            let outcome = undo(&boosted);
            journal.clear(slot);
            recovered.push(Recovered::Task(boosted, outcome));
        }
    }
    recovered
}

/// Undoes everything: tasks first, because pinned ones can be DEADLINE only while throttling is off.
pub fn everything(journal: &Journal) -> Vec<Recovered> {
    let mut recovered = boosts(journal, Nanos::MAX);
    for (slot, record) in journal.live() {
        if journal.claim(slot) {
            let outcome = setting(&record);
            journal.clear(slot);
            recovered.push(Recovered::Setting(record, outcome));
        }
    }
    recovered
}

/// Puts back a setting of the machine, unless somebody else has changed it since.
pub fn setting(record: &Undo) -> Result<()> {
    match *record {
        Undo::Throttling { runtime_us } => match settings::rt_runtime_us()? {
            UNTHROTTLED => settings::set_rt_runtime_us(runtime_us),
            _ => Ok(()),
        },
        Undo::Hrtick(hrtick) => {
            let found = debugfs::hrtick(Path::new("/"));
            let found =
                found.ok_or_else(|| Error::new("cannot find the scheduler's features to turn HRTICK off"))?;
            settings::set_hrtick(&found.path, hrtick, false)
        }
        Undo::Boost(_) => Ok(()),
    }
}

impl Recovered {
    pub fn is_done(&self) -> bool {
        !matches!(self, Recovered::Task(_, Undone::Failed(_)) | Recovered::Setting(_, Err(_)))
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Recovered::Task(boosted, outcome) => {
                write!(f, "task {}: ", boosted.tid)?;
                match outcome {
                    Undone::Restored(_) => write!(f, "restored to {}", boosted.before),
                    Undone::NeverBoosted => write!(f, "was not boosted yet"),
                    Undone::Gone => write!(f, "has ended"),
                    Undone::ChangedByOthers(policy) => {
                        write!(
                            f,
                            "left as it is, somebody has made it {}",
                            policy.name().unwrap_or("another policy")
                        )
                    }
                    Undone::Failed(e) => write!(f, "{}", Error::io("restore its policy", e)),
                }
            }
            Recovered::Setting(record, outcome) => {
                match record {
                    Undo::Throttling { runtime_us } => {
                        write!(f, "RT Throttling runtime restored to {runtime_us}")?
                    }
                    _ => write!(f, "HRTICK turned off again")?,
                }
                match outcome {
                    Ok(()) => Ok(()),
                    Err(e) => write!(f, ": failed, {e}"),
                }
            }
        }
    }
}
