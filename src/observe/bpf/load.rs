//! Loads the BPF programs, as many as the kernel accepts.

use super::records::settings;
use crate::error::{Context, Error, Result};
use crate::host::privilege;
use crate::observe::Kind;
use crate::sys::bpf::{self, AttachHelper, BpfObject, ObjectBytes};
use crate::sys::cpu;
use std::ffi::CStr;

static OBJECT: &ObjectBytes<[u8]> = &ObjectBytes(*include_bytes!(concat!(env!("OUT_DIR"), "/stalld.bpf.o")));

pub(super) const EVENTS: [&CStr; 4] = [c"on_wakeup", c"on_wakeup_new", c"on_switch", c"on_exit"];

/// The most tasks that `queue_track` can track by tid, on kernels without task storage.
const TRACKED_BY_TID: u32 = 65_536;

/// The programs that are run by BPF_PROG_TEST_RUN, as far as the kernel accepts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reads {
    /// None: every scan is a walk.
    Nothing,
    /// The number of tasks of each queue.
    Counts,
    /// The tasks of each queue too.
    Tasks,
}

impl Reads {
    /// Returns what a backend uses if the kernel accepts it, and what it falls back to.
    pub(super) fn of(kind: Kind) -> &'static [Reads] {
        match kind {
            // Its own records of waits are in maps that only `walk` reads.
            Kind::QueueTrack => &[Reads::Counts, Reads::Nothing],
            _ => &[Reads::Tasks, Reads::Counts, Reads::Nothing],
        }
    }
}

pub(super) fn settings_for(kind: Kind) -> settings {
    let tracking = kind == Kind::QueueTrack;
    settings {
        cpus: cpu::configured(),
        tracking: tracking.into(),
        by_tid: (tracking && !bpf::has_task_storage()).into(),
        own_threads: 0,
    }
}

/// Loads as many programs as the kernel accepts. Returns also why it rejected more.
pub(super) fn load_best(kind: Kind, settings: &settings) -> Result<(BpfObject, Reads, Option<Error>)> {
    first_that_works(kind, |reads| {
        let mut object = open(settings, reads)?;
        object.load().map_err(privilege::explain_bpf)?;
        Ok(object)
    })
}

pub(super) fn first_that_works<T>(
    kind: Kind,
    mut attempt: impl FnMut(Reads) -> Result<T>,
) -> Result<(T, Reads, Option<Error>)> {
    let mut refusal = None;
    for &reads in Reads::of(kind) {
        match attempt(reads) {
            Ok(done) => return Ok((done, reads, refusal)),
            Err(e) => refusal = Some(e),
        }
    }
    Err(refusal.unwrap_or_else(|| Error::new("no program to load")))
}

pub(super) fn open(settings: &settings, reads: Reads) -> Result<BpfObject> {
    let mut object = BpfObject::open(OBJECT, c"stalld")?;
    let tracking = settings.tracking != 0;
    object.want_program(c"runnable", reads >= Reads::Counts)?;
    object.want_program(c"tasks_of_queue", reads >= Reads::Tasks)?;
    for event in EVENTS {
        object.want_program(event, tracking)?;
    }
    object.want_map(c"waits_by_task", tracking && settings.by_tid == 0)?;
    object.want_map(c"waits_by_tid", tracking && settings.by_tid != 0)?;
    object.set_entries(c"waits_by_tid", TRACKED_BY_TID)?;
    object.set_entries(c"queues", settings.cpus)?;
    object.set_constants(settings)?;
    Ok(object)
}

pub(super) fn attach(object: &BpfObject) -> Result<AttachHelper> {
    let programs = EVENTS.iter().map(|event| object.take_program(event)).collect::<Result<Vec<_>>>()?;
    AttachHelper::attach(&programs).context("start the process that attaches to the scheduler's events")
}
