//! Sets up boosting: the journal, the guardian and the settings of the machine, as the options
//! request.

use crate::abi;
use crate::failure::{Failure, Result};
use crate::options::{Log, Options};
use libc::{EIO, EPERM};
use stalld::boost::changes::Changes;
use stalld::boost::journal::BoostPolicy;
use stalld::boost::kernel_actuator::KernelActuator;
use stalld::boost::plan::{Booster, Rules};
use stalld::error::Error;
use stalld::guardian::journal_file;
use stalld::guardian::{self, GuardedProgram, Guardian};
use stalld::host::privilege::{Capability, capabilities};
use stalld::host::settings::{self, UNTHROTTLED};
use stalld::host::{Namespace, debugfs, pid_namespace, time_namespace};
use stalld::sys::{clock, cpu, process};
use stalld::task::{Nanos, Tid};
use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The time limit for the end of the guardian.
const GUARDIANS_END: Nanos = Nanos::from_secs(1);

/// The changes to restore, and the guardian, which restores them if this process dies.
pub struct Boosts {
    changes: Changes,
    guardian: Option<Guardian>,
    /// Whether it has been logged that the guardian was killed.
    reported: bool,
}

impl Boosts {
    /// Sets up boosting as the options request.
    pub fn prepare(options: &Options) -> Result<(Boosts, Booster)> {
        let root = Path::new("/");
        if options.has(abi::STALLD_RESCUE) {
            if pid_namespace(root) == Namespace::Other {
                let text = "in a pid namespace of its own a program can't tell the tasks of the machine apart, so \
                            it can't boost starving tasks";
                return Err(Failure::new(EPERM, text));
            }
            if time_namespace(root) == Namespace::Other {
                let text = "in a time namespace of its own a program can't tell when tasks started, so it can't boost \
                            starving tasks";
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
                Some(
                    Guardian::fork(&journal, &keep, GuardedProgram::Program, None, fork_beside_threads)
                        .map_err(failure)?,
                )
            }
            false => None,
        };
        let mut boosts = Boosts { changes: Changes::new(Arc::clone(&journal)), guardian, reported: false };
        if options.has(abi::STALLD_UNTHROTTLE) {
            if let Err(e) = boosts.lift_throttling() {
                boosts.end(&options.log);
                return Err(failure(e));
            }
        }
        let boost = &options.boost;
        let max_loss = options.max_loss;
        let how = match options.has(abi::STALLD_FORCE_FIFO) || max_loss.is_some() {
            true => BoostPolicy::Fifo,
            false => BoostPolicy::Deadline { runtime: boost.runtime, period: boost.period },
        };
        let is_cut_off = debugfs::hrtick(root).is_some_and(|hrtick| hrtick.is_on == Ok(true));
        let cost = if is_cut_off { boost.runtime } else { clock::tick() };
        let wake = match &boosts.guardian {
            Some(guardian) => guardian.waker(),
            None => Arc::new(|| {}),
        };
        let rules = Rules { max_loss, ..Rules::new(how, boost, &options.limits, cost) };
        let actuator = KernelActuator::new(journal, boost.runtime, boost.period, wake);
        Ok((boosts, Booster::new(rules, Box::new(actuator), cpu::configured() as usize)))
    }

    fn lift_throttling(&mut self) -> stalld::error::Result<()> {
        match settings::rt_runtime_us()? {
            UNTHROTTLED => Ok(()),
            runtime_us => self.changes.lift_throttling(runtime_us),
        }
    }

    /// Returns the guardian, which must never be boosted.
    pub fn guardian(&self) -> Option<Tid> {
        self.guardian.as_ref().map(|guardian| guardian.tid)
    }

    /// Logs once if the guardian was killed.
    pub fn watch(&mut self, log: &Log) {
        if !self.reported && self.guardian.as_ref().is_some_and(|guardian| !guardian.is_there()) {
            self.reported = true;
            log.error(guardian::missing());
        }
    }

    /// Restores the settings of the machine, and ends the guardian. Waits for at most
    /// `GUARDIANS_END`.
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
    // SAFETY: `life` is the code of the guardian. It restores tasks and RT throttling by system
    // calls, takes no lock and does not allocate. Only the restore of HRTICK would allocate, and
    // the library never turns HRTICK on.
    unsafe { process::child(name, keep, life) }
}

fn failure(error: Error) -> Failure {
    Failure::of(&error, EIO)
}
