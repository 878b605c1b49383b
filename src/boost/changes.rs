//! Changes of the machine's settings: noted before they are made, and put back.

use super::journal::{Journal, RestoreRecord, Slot};
use super::recover::{self, Recovered};
use crate::error::{Error, Result};
use crate::host::settings::{self, UNTHROTTLED};
use std::sync::Arc;

pub struct Changes {
    journal: Arc<Journal>,
    made: Vec<Slot>,
}

impl Changes {
    pub fn new(journal: Arc<Journal>) -> Changes {
        Changes { journal, made: Vec::new() }
    }

    /// Turns RT throttling off, which was at this.
    pub fn lift_throttling(&mut self, runtime_us: i64) -> Result<()> {
        self.make(&RestoreRecord::Throttling { runtime_us }, || settings::set_rt_runtime_us(UNTHROTTLED))
    }

    /// Notes how to undo a change, and makes it.
    pub fn make(&mut self, undo: &RestoreRecord, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let slot = self.journal.arm(undo).ok_or_else(|| Error::new("the journal is full"))?;
        let made = change();
        match made {
            Ok(()) => self.made.push(slot),
            // It may have been made all the same, and only not been seen to be.
            Err(_) => {
                if self.journal.claim(slot) {
                    let _ = recover::settle_setting(&self.journal, slot, undo);
                }
            }
        }
        made
    }

    /// Puts back what has been changed, the first change first.
    pub fn put_back(&mut self) -> Vec<Recovered> {
        let mut put_back = Vec::new();
        for slot in self.made.drain(..) {
            let record = self.journal.live().find(|&(live, _)| live == slot).map(|(_, record)| record);
            let Some(record) = record.filter(|_| self.journal.claim(slot)) else { continue };
            let outcome = recover::settle_setting(&self.journal, slot, &record);
            put_back.push(Recovered::Setting(record, outcome));
        }
        put_back
    }
}
