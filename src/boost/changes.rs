//! Changes settings of the machine, with a restore record for each, and puts them back.

use super::journal::{Journal, RestoreRecord, Slot};
use super::kernel::{Host, Settings, UNTHROTTLED};
use super::recover::{self, Recovered};
use crate::error::{Error, Result};
use std::sync::Arc;

/// The settings that have been changed.
pub struct Changes {
    journal: Arc<Journal>,
    made: Vec<Slot>,
}

impl Changes {
    pub fn new(journal: Arc<Journal>) -> Changes {
        Changes { journal, made: Vec::new() }
    }

    /// Turns RT throttling off; `runtime_us` is its value until now.
    pub fn lift_throttling(&mut self, runtime_us: i64) -> Result<()> {
        self.make(&RestoreRecord::Throttling { runtime_us }, || Host.set_rt_runtime_us(UNTHROTTLED))
    }

    /// Writes the restore record `undo`, and makes the change.
    pub(crate) fn make(&mut self, undo: &RestoreRecord, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let slot = self.journal.arm(undo).ok_or_else(|| Error::new("the journal is full"))?;
        let made = change();
        match made {
            Ok(()) => self.made.push(slot),
            // The setting may have changed in spite of the error.
            Err(_) => {
                if self.journal.claim(slot) {
                    let _ = recover::settle_setting(&Host, &self.journal, slot, undo);
                }
            }
        }
        made
    }

    /// Puts back all changed settings, the first change first.
    pub fn put_back(&mut self) -> Vec<Recovered> {
        let mut put_back = Vec::new();
        for slot in self.made.drain(..) {
            let record = self.journal.live().find(|&(live, _)| live == slot).map(|(_, record)| record);
            let Some(record) = record.filter(|_| self.journal.claim(slot)) else { continue };
            let outcome = recover::settle_setting(&Host, &self.journal, slot, &record);
            put_back.push(Recovered::Setting(record, outcome));
        }
        put_back
    }
}
