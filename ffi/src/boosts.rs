//! What it takes to boost: the journal, the guardian and the machine's settings, as far as the
//! program asks for them.

use crate::abi;
use crate::failure::{Failure, Result};
use crate::options::{Log, Options};
use libc::{EIO, EPERM};
use stalld::boost::changes::Changes;
use stalld::boost::guardian::{self, Guardian, Ward};
use stalld::boost::journal::BoostPolicy;
use stalld::boost::journal_file;
use stalld::boost::kernel_actuator::KernelActuator;
use stalld::boost::plan::{Booster, Rules};
use stalld::error::Error;
use stalld::host::privilege::{Capability, capabilities};
use stalld::host::settings::{self, UNTHROTTLED};
use stalld::host::{debugfs, in_initial_pid_namespace, in_initial_time_namespace};
use stalld::sys::{clock, process};
use stalld::task::{Nanos, Tid};
use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// As long as it takes a guardian to find that nothing is left to do.
const GUARDIANS_END: Nanos = Nanos::from_secs(1);

/// What has to be put back, and who would do that.
pub struct Boosts {
    changes: Changes,
    guardian: Option<Guardian>,
    /// The guardian was killed, and that has been said.
    told: bool,
}

impl Boosts {
    /// Sets up what the options ask for.
    pub fn prepare(options: &Options) -> Result<(Boosts, Booster, KernelActuator)> {
        let root = Path::new("/");
        if options.has(abi::STALLD_RESCUE) {
            if in_initial_pid_namespace(root) == Some(false) {
                let text = "in a pid namespace of its own a program can't tell the tasks of the machine apart, so \
                            it can't boost who starves";
                return Err(Failure::new(EPERM, text));
            }
            if in_initial_time_namespace(root) == Some(false) {
                let text = "in a time namespace of its own a program can't tell when tasks started, so it can't boost \
                            who starves";
                return Err(Failure::new(EPERM, text));
            }
            if !capabilities(root).is_some_and(|own| own.has(Capability::SysNice)) {
                return Err(Failure::new(EPERM, "boosting needs CAP_SYS_NICE"));
            }
        }
        let journal = match &options.journal {
            Some(path) => {
                let (journal, left) = journal_file::open(path).map_err(failure)?;
                left.iter().for_each(|left| options.log.warning(left));
                journal
            }
            None => journal_file::in_memory().map_err(failure)?,
        };
        let journal = Arc::new(journal);
        let guardian = match options.has(abi::STALLD_GUARDIAN) {
            true => {
                let keep: Vec<_> = journal.descriptor().into_iter().collect();
                Some(Guardian::fork(&journal, &keep, Ward::Program, fork_beside_threads).map_err(failure)?)
            }
            false => None,
        };
        let mut boosts = Boosts { changes: Changes::new(Arc::clone(&journal)), guardian, told: false };
        if options.has(abi::STALLD_UNTHROTTLE) {
            if let Err(e) = boosts.lift_throttling() {
                boosts.end(&options.log);
                return Err(failure(e));
            }
        }
        let boost = &options.boost;
        let how = match options.has(abi::STALLD_FORCE_FIFO) {
            true => BoostPolicy::Fifo,
            false => BoostPolicy::Deadline { runtime: boost.runtime, period: boost.period },
        };
        let is_cut_off = debugfs::hrtick(root).is_some_and(|hrtick| hrtick.is_on == Ok(true));
        let cost = if is_cut_off { boost.runtime } else { clock::tick() };
        let booster = Booster::new(Rules::new(how, boost, &options.limits, cost));
        let wake = match &boosts.guardian {
            Some(guardian) => guardian.waker(),
            None => Arc::new(|| {}),
        };
        Ok((boosts, booster, KernelActuator::new(journal, boost.runtime, boost.period, wake)))
    }

    fn lift_throttling(&mut self) -> stalld::error::Result<()> {
        match settings::rt_runtime_us()? {
            UNTHROTTLED => Ok(()),
            runtime_us => self.changes.lift_throttling(runtime_us),
        }
    }

    /// The process that must never be boosted.
    pub fn guardian(&self) -> Option<Tid> {
        self.guardian.as_ref().map(|guardian| guardian.tid)
    }

    /// Notices that the guardian was killed.
    pub fn watch(&mut self, log: &Log) {
        if !self.told && self.guardian.as_ref().is_some_and(|guardian| !guardian.is_there()) {
            self.told = true;
            log.error(guardian::missing());
        }
    }

    /// Puts the machine's settings back, and lets the guardian go.
    pub fn end(&mut self, log: &Log) {
        for one in self.changes.put_back().iter().filter(|one| !one.is_done()) {
            log.error(one);
        }
        if let Some(guardian) = self.guardian.take() {
            guardian.dismiss(GUARDIANS_END);
        }
    }
}

/// Forks the guardian of a program that may have threads.
fn fork_beside_threads(name: &CStr, keep: &[i32], life: &mut dyn FnMut()) -> io::Result<Tid> {
    // SAFETY: `life` is the guardian's. It restores tasks and RT throttling by system calls, and
    // takes no lock and no memory from the allocator. The library never turns HRTICK on, whose
    // restore would.
    unsafe { process::child(name, keep, life) }
}

fn failure(error: Error) -> Failure {
    Failure::of(&error, EIO)
}
