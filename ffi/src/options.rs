//! Reads and checks the options of a program.

use crate::abi::{self, stalld_log_fn, stalld_options};
use crate::failure::{Failure, Result};
use crate::input::{self, Versioned};
use libc::{EINVAL, c_char, c_int, c_void};
use stalld::boost::max_loss::MaxLoss;
use stalld::cpus::CpuSet;
use stalld::denylist::Ignore;
use stalld::detect::Limits;
use stalld::observe::Kind;
use stalld::patterns::Patterns;
use stalld::share::Share;
use stalld::sys::cpu;
use stalld::task::Nanos;
use stalld::timing::{self, Boost, Misfit};
use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;

// SAFETY: it is repr(C), of integers and pointers, and begins with its size; a function pointer
// that may be NULL is an Option.
unsafe impl Versioned for stalld_options {}

const FLAGS: u64 =
    abi::STALLD_RESCUE | abi::STALLD_GUARDIAN | abi::STALLD_UNTHROTTLE | abi::STALLD_FORCE_FIFO;

const MOST_EVENTS: u32 = 65536;

/// The checked options.
#[derive(Debug)]
pub struct Options {
    pub flags: u64,
    pub limits: Limits,
    pub boost: Boost,
    pub max_loss: Option<MaxLoss>,
    pub cpus: CpuSet,
    pub ignore_threads: Patterns,
    pub ignore_processes: Patterns,
    pub backend: Option<Kind>,
    pub journal: Option<PathBuf>,
    pub events: usize,
    pub log: Log,
}

impl Options {
    /// # Safety
    /// `from` is NULL, or a struct as include/stalld.h describes it.
    pub unsafe fn read(from: *const stalld_options) -> Result<Options> {
        let raw = match from.is_null() {
            // SAFETY: integers, pointers that may be NULL, and an Option of one: zeros are valid.
            true => unsafe { std::mem::zeroed() },
            // SAFETY: the caller guarantees it.
            false => unsafe { input::take(from, "options") }?,
        };
        let unknown = raw.flags & !FLAGS;
        if unknown != 0 {
            return Err(refused("flags", format_args!("{unknown:#x} is no flag of this version")));
        }
        let limits = limits(&raw)?;
        let boost = boost(&raw, limits.threshold)?;
        if raw.events > MOST_EVENTS {
            return Err(refused("events", format_args!("{} is more than {MOST_EVENTS}", raw.events)));
        }
        // SAFETY: the caller guarantees that the strings are valid during this call.
        let [cpus, threads, processes, journal] = unsafe {
            [
                input::text(raw.cpus, "cpus")?,
                input::text(raw.ignore_threads, "ignore_threads")?,
                input::text(raw.ignore_processes, "ignore_processes")?,
                input::text(raw.journal, "journal")?,
            ]
        };
        let max_loss = max_loss(raw.max_loss_ppm, boost.runtime)?;
        let configured = cpu::configured();
        Ok(Options {
            flags: raw.flags,
            limits,
            boost,
            max_loss,
            cpus: match cpus {
                Some(list) => CpuSet::parse(list, configured).map_err(|reason| refused("cpus", reason))?,
                None => CpuSet::first(configured),
            },
            ignore_threads: denylist("ignore_threads", threads)?,
            ignore_processes: denylist("ignore_processes", processes)?,
            backend: backend(raw.backend)?,
            journal: match journal {
                Some("") => return Err(refused("journal", "a path is missing")),
                journal => journal.map(PathBuf::from),
            },
            events: if raw.events == 0 { 1024 } else { raw.events as usize },
            log: Log { function: raw.log, userdata: raw.userdata },
        })
    }

    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    pub fn ignore(&self) -> Ignore {
        Ignore::new(self.ignore_threads.clone(), self.ignore_processes.clone())
    }
}

fn refused(field: &str, reason: impl Display) -> Failure {
    Failure::new(EINVAL, format!("{field}: {reason}"))
}

/// Returns the limits of a wait.
fn limits(raw: &stalld_options) -> Result<Limits> {
    Ok(Limits {
        threshold: length("threshold_ns", raw.threshold_ns, &timing::THRESHOLD)?
            .unwrap_or(timing::DEFAULT_THRESHOLD),
        granularity: length("granularity_ns", raw.granularity_ns, &timing::GRANULARITY)?
            .unwrap_or(timing::DEFAULT_GRANULARITY),
    })
}

/// Returns the lengths of a boost, if they fit each other and the threshold.
fn boost(raw: &stalld_options, threshold: Nanos) -> Result<Boost> {
    let boost = Boost::fit(
        threshold,
        length("duration_ns", raw.duration_ns, &timing::DURATION)?,
        length("period_ns", raw.period_ns, &timing::PERIOD)?,
        length("runtime_ns", raw.runtime_ns, &timing::RUNTIME)?,
    );
    match boost.misfit(threshold) {
        None => Ok(boost),
        Some(Misfit::Duration) => Err(refused("duration_ns", "the boost lasts longer than the threshold")),
        Some(Misfit::Period) => Err(refused("period_ns", "the period is longer than the boost")),
    }
}

/// The time that is assumed for a switch to a boosted task and back. The library starts no process
/// to measure it.
const SWITCHING: Nanos = Nanos::from_micros(10);

/// Returns the bound on what boosts may take; `None` for 0.
fn max_loss(millionths: u64, runtime: Nanos) -> Result<Option<MaxLoss>> {
    if millionths == 0 {
        return Ok(None);
    }
    let bound = MaxLoss { per_second: Nanos::from_micros(millionths), switching: SWITCHING };
    let least = Share::of_a_second(bound.hold(runtime)).max(Share::LEAST).millionths.into();
    let most = Share::MOST.millionths.into();
    if (least..=most).contains(&millionths) {
        return Ok(Some(bound));
    }
    let reason = format!("{millionths} is out of range: give {least} to {most} with this runtime");
    Err(refused("max_loss_ppm", reason))
}

/// Checks a length of time; `None` for 0, which means the default.
fn length(field: &str, nanos: u64, range: &RangeInclusive<Nanos>) -> Result<Option<Nanos>> {
    match Nanos(nanos) {
        Nanos::ZERO => Ok(None),
        nanos if range.contains(&nanos) => Ok(Some(nanos)),
        Nanos(nanos) => {
            let (least, most) = (range.start().0, range.end().0);
            Err(refused(field, format_args!("{nanos} is out of range: give {least} to {most}")))
        }
    }
}

fn denylist(field: &str, list: Option<&str>) -> Result<Patterns> {
    let mut denylist = Patterns::default();
    if let Some(list) = list {
        denylist.add(list).map_err(|reason| refused(field, reason))?;
    }
    Ok(denylist)
}

fn backend(number: i32) -> Result<Option<Kind>> {
    match number {
        abi::STALLD_BACKEND_AUTO => Ok(None),
        _ => match Kind::ALL.into_iter().find(|&kind| number_of(kind) == number) {
            Some(kind) => Ok(Some(kind)),
            None => Err(refused("backend", format_args!("{number} is no backend of this version"))),
        },
    }
}

pub fn number_of(kind: Kind) -> i32 {
    match kind {
        Kind::TaskIter => abi::STALLD_BACKEND_TASK_ITER,
        Kind::QueueTrack => abi::STALLD_BACKEND_QUEUE_TRACK,
        Kind::SchedDebug => abi::STALLD_BACKEND_SCHED_DEBUG,
    }
}

pub fn name_of_backend(number: i32) -> *const c_char {
    let name = match number {
        abi::STALLD_BACKEND_AUTO => c"auto",
        abi::STALLD_BACKEND_TASK_ITER => c"task_iter",
        abi::STALLD_BACKEND_QUEUE_TRACK => c"queue_track",
        abi::STALLD_BACKEND_SCHED_DEBUG => c"sched_debug",
        _ => return std::ptr::null(),
    };
    CStr::as_ptr(name)
}

/// The log function of the program, and its argument.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    pub function: stalld_log_fn,
    pub userdata: *mut c_void,
}

// SAFETY: the library does not use the pointer, but passes it back to the program. The program
// knows that its function runs in the thread that calls the library.
unsafe impl Send for Log {}

impl Log {
    pub fn error(&self, message: impl Display) {
        self.say(abi::STALLD_LOG_ERROR, message);
    }

    pub fn warning(&self, message: impl Display) {
        self.say(abi::STALLD_LOG_WARNING, message);
    }

    pub fn info(&self, message: impl Display) {
        self.say(abi::STALLD_LOG_INFO, message);
    }

    fn say(&self, level: c_int, message: impl Display) {
        let Some(function) = self.function else { return };
        let Ok(message) = CString::new(message.to_string()) else { return };
        // SAFETY: the options state that this function takes these arguments and this `userdata`.
        // The message outlives the call.
        unsafe { function(self.userdata, level, message.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeros() -> stalld_options {
        // SAFETY: as in `read`.
        let mut options: stalld_options = unsafe { std::mem::zeroed() };
        options.sz = size_of::<stalld_options>();
        options
    }

    fn read(change: impl FnOnce(&mut stalld_options)) -> Result<Options> {
        let mut options = zeros();
        change(&mut options);
        // SAFETY: it has its own size, and strings that live long enough.
        unsafe { Options::read(&options) }
    }

    #[test]
    fn zeros_are_the_defaults_and_so_is_null() {
        // SAFETY: NULL is allowed.
        for options in [read(|_| {}).unwrap(), unsafe { Options::read(std::ptr::null()) }.unwrap()] {
            assert_eq!(options.limits.threshold, Nanos::from_secs(60));
            assert_eq!(options.limits.granularity, Nanos::from_secs(5));
            assert_eq!(options.boost, Boost::fit(Nanos::from_secs(60), None, None, None));
            assert_eq!((options.flags, options.events, options.backend), (0, 1024, None));
            assert_eq!(options.max_loss, None);
            assert_eq!(options.cpus, CpuSet::first(cpu::configured()));
        }
    }

    #[test]
    fn invalid_options_are_refused_with_a_reason() {
        for (change, reason) in [
            (
                Box::new(|o: &mut stalld_options| o.flags = 1 << 40) as Box<dyn Fn(&mut stalld_options)>,
                "flags: 0x10000000000 is no flag of this version",
            ),
            (
                Box::new(|o| o.threshold_ns = 1),
                "threshold_ns: 1 is out of range: give 10000000 to 3600000000000",
            ),
            (Box::new(|o| o.backend = 9), "backend: 9 is no backend of this version"),
            (Box::new(|o| o.backend = -1), "backend: -1 is no backend of this version"),
            (
                Box::new(|o| o.max_loss_ppm = 59),
                "max_loss_ppm: 59 is out of range: give 60 to 100000 with this runtime",
            ),
            (
                Box::new(|o| (o.max_loss_ppm, o.runtime_ns) = (1000, 1_000_000)),
                "max_loss_ppm: 1000 is out of range: give 1040 to 100000 with this runtime",
            ),
            (Box::new(|o| o.events = 65537), "events: 65537 is more than 65536"),
            (Box::new(|o| o.cpus = c"1,x".as_ptr()), "cpus: 'x' is not a CPU number"),
            (Box::new(|o| o.cpus = c"1\n2".as_ptr()), "cpus: '1\\x0a2' is not a CPU number"),
            (Box::new(|o| o.ignore_threads = c"".as_ptr()), "ignore_threads: an expression is missing"),
            (Box::new(|o| o.ignore_processes = c"\xff".as_ptr()), "ignore_processes: it is not UTF-8"),
            (Box::new(|o| o.journal = c"".as_ptr()), "journal: a path is missing"),
            (
                Box::new(|o| (o.threshold_ns, o.duration_ns) = (1_000_000_000, 1_000_000_001)),
                "duration_ns: the boost lasts longer than the threshold",
            ),
            (
                Box::new(|o| (o.duration_ns, o.period_ns) = (300_000_000, 400_000_000)),
                "period_ns: the period is longer than the boost",
            ),
        ] {
            assert_eq!(read(|o| change(o)).unwrap_err(), Failure::new(EINVAL, reason));
        }
    }

    #[test]
    fn each_backend_has_a_number_and_by_that_its_name() {
        for kind in Kind::ALL {
            assert_eq!(backend(number_of(kind)).unwrap(), Some(kind));
            // SAFETY: a name that is there is a string.
            let name = unsafe { CStr::from_ptr(name_of_backend(number_of(kind))) };
            assert_eq!(name.to_str().unwrap(), kind.name());
        }
        assert!(name_of_backend(4).is_null() && name_of_backend(-1).is_null());
    }
}
