//! Reads the tasks of one run queue at a time.

use super::records::{self, record};
use crate::error::{Context, Result};
use crate::sys::bpf::{BpfObject, Program};
use crate::sys::map::SharedArray;
use crate::task::Cpu;
use std::os::fd::AsFd;

/// How often a queue is read that changes under the reader.
const MAX_READINGS: u32 = 3;

/// The program that reads the tasks of one queue, and its records.
pub(super) struct Reader {
    program: Program,
    pub records: SharedArray<record>,
}

impl Reader {
    pub(super) fn of(object: &BpfObject) -> Result<Reader> {
        let records = object.take_map(c"queued_tasks")?;
        let records = SharedArray::map(records.as_fd(), records::MAX_QUEUED as usize);
        let program = object.take_program(c"tasks_of_queue")?;
        Ok(Reader { program, records: records.context("map what the BPF programs write")? })
    }

    /// Reads the queue of a CPU. Returns the number of records; `None` if the queue changed each
    /// time.
    pub(super) fn read(&self, cpu: Cpu) -> Option<usize> {
        let attempts = (0..MAX_READINGS).map(|_| self.program.run(&[cpu.0.into()]).ok());
        attempts.flatten().find(|&count| count != records::QUEUE_CHANGED).map(|count| count as usize)
    }
}
