//! Prepares boosts: opens the journal, forks the guardian, and changes kernel settings.

use super::instance::Instance;
use super::log::{self, Level, Logger};
use super::method::{self, Choice, Circumstances};
use super::options::{BoostMethod, Options};
use crate::boost::changes::Changes;
use crate::boost::journal::{Journal, RestoreRecord};
use crate::boost::kernel::Host;
use crate::boost::kernel_actuator::KernelActuator;
use crate::boost::plan::Rules;
use crate::boost::recover::{self, Recovered};
use crate::detect::Limits;
use crate::error::{Error, Result};
use crate::guardian::journal_file::Leftover;
use crate::guardian::{self, GuardedProgram, Guardian};
use crate::host::settings::{self, UNTHROTTLED};
use crate::host::{self, debugfs};
use crate::sys::{clock, process};
use crate::task::{Cpu, Nanos, Tid};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The state for boosts outside of the engine. Created while the process has one thread, because
/// the guardian is forked then.
pub(super) struct Boosting {
    journal: Arc<Journal>,
    guardian: Guardian,
    changes: Changes,
    /// RT throttling is off, no matter which process turned it off, and has to stay off.
    unthrottled: bool,
    /// It is logged already that another process has turned RT throttling on.
    warned: bool,
    /// The number of refused boosts at the last check.
    refused: u64,
    /// The guardian was alive at the last check.
    guarded: bool,
}

impl Boosting {
    /// Opens the journal, restores what an earlier stalld has left changed, and forks the guardian.
    /// Returns what was restored, for the log.
    pub(super) fn prepare(instance: &Instance, options: &Options) -> Result<(Boosting, Vec<Leftover>)> {
        let (journal, recovered) = instance.open_journal()?;
        let journal = Arc::new(journal);
        let report = |text: fmt::Arguments| log::on_stderr_at_once(Level::Warning, text, options.log_format);
        let report = if options.foreground { Some(&report as guardian::ReportFn) } else { None };
        let descriptors = instance.descriptors();
        let guardian = Guardian::fork(
            &journal,
            &descriptors,
            GuardedProgram::Stalld,
            report,
            process::child_of_one_thread,
        )?;
        let changes = Changes::new(Arc::clone(&journal));
        let (unthrottled, warned, refused, guarded) = (false, false, 0, true);
        let boosting = Boosting { journal, guardian, changes, unthrottled, warned, refused, guarded };
        Ok((boosting, recovered))
    }

    /// Returns the pid of the guardian, which must never be boosted.
    pub(super) fn guardian(&self) -> Tid {
        self.guardian.tid
    }

    /// Changes kernel settings, and tests how tasks can be boosted. Returns `None` if stalld can
    /// only log.
    pub(super) fn start(
        &mut self,
        options: &Options,
        limits: &Limits,
        cpu: Cpu,
        log: &Logger,
    ) -> Result<Option<(Rules, KernelActuator)>> {
        if host::pid_namespace(Path::new("/")) == host::Namespace::Other {
            log.warning(format_args!(
                "in a pid namespace of its own stalld can't tell the tasks of the machine apart: it only logs"
            ));
            return Ok(None);
        }
        if host::time_namespace(Path::new("/")) == host::Namespace::Other {
            log.warning(format_args!(
                "in a time namespace of its own stalld can't tell when tasks started, so it can't tell them apart: it \
                 only logs"
            ));
            return Ok(None);
        }
        let max_loss =
            options.max_loss.map(|share| method::bound(share, options.boost.runtime, log)).transpose()?;
        self.lift_throttling(options, log)?;
        if debugfs::dl_server(Path::new("/")).is_some() {
            log.info(format_args!("DL-server detected."));
            log.verbose(format_args!(
                "the kernel gives fair tasks behind real-time ones some time by itself: what is left to boost is \
                 real-time tasks behind others"
            ));
        }
        let hrtick = match options.boost_method {
            // stalld itself ends pulses.
            BoostMethod::Fifo => Err("HRTICK is not needed".to_string()),
            BoostMethod::Auto | BoostMethod::Deadline => self.turn_hrtick_on(),
        };
        let online = host::online_cpus(Path::new("/"));
        let has_one_cpu = online.is_some_and(|online| online.iter().count() == 1);
        let at = Circumstances { cpu, has_one_cpu, hrtick };
        let Choice { how, ends_in_time, pulsed } = match method::choose(options, &at, log) {
            Ok(choice) => choice,
            Err(e) if options.systemd => return Err(e),
            Err(e) => {
                log.warning(format_args!("{e}: stalld only logs"));
                self.end(log);
                return Ok(None);
            }
        };
        let cost = if ends_in_time { options.boost.runtime } else { clock::tick() };
        let rules = Rules { pulsed, max_loss, ..Rules::new(how, &options.boost, limits, cost) };
        let actuator = KernelActuator::new(
            Arc::clone(&self.journal),
            options.boost.runtime,
            options.boost.period,
            self.guardian.waker(),
        );
        Ok(Some((rules, actuator)))
    }

    /// Warns if another process has turned RT throttling on, or if the guardian has died. `refused`
    /// is the number of refused boosts.
    ///
    /// Throttling is read only after a refusal. From 6.17 on, and in stable kernels, the kernel
    /// rebuilds the scheduling domains when it is read, under locks that a hog can block.
    pub(super) fn watch(&mut self, refused: u64, log: &Logger) {
        let has_refused = std::mem::replace(&mut self.refused, refused) != refused;
        if self.unthrottled && has_refused {
            let now = settings::rt_runtime_us().unwrap_or(UNTHROTTLED);
            if now != UNTHROTTLED && !self.warned {
                log.warning(format_args!(
                    "another process has turned RT throttling on again (sched_rt_runtime_us is {now}): pinned tasks can't \
                     be boosted with SCHED_DEADLINE"
                ));
            }
            self.warned = now != UNTHROTTLED;
        }
        if self.guarded && !self.guardian.is_there() {
            self.guarded = false;
            log.error(format_args!("{}", guardian::missing()));
        }
    }

    /// Restores the tasks of monitors that did not end in time, and the kernel settings.
    pub(super) fn end(&mut self, log: &Logger) {
        recover::overdue(&Host, &self.journal, Nanos::MAX, |one| log.warning(format_args!("{one}")));
        for one in self.changes.put_back() {
            match one {
                Recovered::Setting(RestoreRecord::Throttling { .. }, Ok(true)) => {
                    log.info(format_args!("{one}"));
                }
                Recovered::Setting(_, Err(_)) => log.error(format_args!("{one}")),
                _ => {}
            }
        }
        self.unthrottled = false;
    }

    fn lift_throttling(&mut self, options: &Options, log: &Logger) -> Result<()> {
        let now = match settings::rt_runtime_us() {
            Ok(now) => now,
            Err(e) if options.systemd => return Err(e),
            Err(e) => {
                log.warning(format_args!("RT throttling stays as it is: {e}"));
                return Ok(());
            }
        };
        if now == UNTHROTTLED {
            self.unthrottled = true;
            return Ok(());
        }
        if options.systemd {
            return Err(Error::new("RT throttling is on! stalld cannot run...")
                .with_cure("turn it off before (throttlectl off), or start stalld without --systemd"));
        }
        match self.changes.lift_throttling(now) {
            Ok(()) => {
                self.unthrottled = true;
                log.verbose(format_args!("RT Throttling disabled"));
            }
            Err(e) => log.warning(format_args!("RT throttling stays on: {e}")),
        }
        Ok(())
    }

    /// Turns HRTICK on, with which the kernel ends a budget of SCHED_DEADLINE as soon as it is used
    /// up. The error is why it is not on, or not known to be on.
    fn turn_hrtick_on(&mut self) -> Result<(), String> {
        let found = debugfs::hrtick(Path::new("/")).ok_or("cannot find the scheduler's features")?;
        match (&found.is_on, found.feature) {
            (Ok(true), _) => Ok(()),
            (Ok(false), Some(feature)) => {
                let change = || settings::set_hrtick(&found.path, feature, true);
                let changed = self.changes.make(&RestoreRecord::Hrtick(feature), change);
                changed.map_err(|e| format!("HRTICK stays off: {e}"))
            }
            (Err(e), _) => Err(e.to_string()),
            (Ok(false), None) => Err("this kernel has no HRTICK".to_string()),
        }
    }
}
