//! Prepares boosts: opens the journal, forks the guardian, changes kernel settings, and tests which
//! policies the kernel allows.

use super::instance::Instance;
use super::log::{self, Level, Logger};
use super::options::{Boost, Options};
use crate::boost::changes::Changes;
use crate::boost::journal::{BoostPolicy, Journal, RestoreRecord};
use crate::boost::kernel::Host;
use crate::boost::kernel_actuator::KernelActuator;
use crate::boost::plan::Rules;
use crate::boost::recover::{self, Recovered};
use crate::detect::Limits;
use crate::error::{Context, Error, Result};
use crate::guardian::journal_file::Leftover;
use crate::guardian::{self, GuardedProgram, Guardian};
use crate::host::settings::{self, UNTHROTTLED};
use crate::host::{self, debugfs};
use crate::sys::{clock, process, trial};
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
        self.lift_throttling(options, log)?;
        let hrtick = self.turn_hrtick_on(log);
        if debugfs::dl_server(Path::new("/")).is_some() {
            log.info(format_args!("DL-server detected."));
            log.verbose(format_args!(
                "the kernel gives fair tasks behind real-time ones some time by itself: what is left to boost is \
                 real-time tasks behind others"
            ));
        }
        let how = match method(options, cpu, log) {
            Ok(how) => how,
            Err(e) if options.systemd => return Err(e),
            Err(e) => {
                log.warning(format_args!("{e}: stalld only logs"));
                self.end(log);
                return Ok(None);
            }
        };
        let cost = if hrtick { options.boost.runtime } else { clock::tick() };
        let rules = Rules::new(how, &options.boost, limits, cost);
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

    /// Turns HRTICK on. Returns whether it is on: then the kernel ends a boost as soon as its
    /// runtime is used up.
    fn turn_hrtick_on(&mut self, log: &Logger) -> bool {
        let tick = clock::tick().as_millis();
        let costs = format!("a boost may take a CPU for a tick ({tick} ms) at a time, whatever its runtime");
        let Some(found) = debugfs::hrtick(Path::new("/")) else {
            log.info(format_args!("cannot find the scheduler's features: if HRTICK is off, {costs}"));
            return false;
        };
        match (&found.is_on, found.feature) {
            (Ok(true), _) => return true,
            (Ok(false), Some(feature)) => {
                let change = || settings::set_hrtick(&found.path, feature, true);
                match self.changes.make(&RestoreRecord::Hrtick(feature), change) {
                    Ok(()) => return true,
                    Err(e) => log.info(format_args!("HRTICK stays off: {e}: {costs}")),
                }
            }
            (Err(e), _) => log.info(format_args!("{e}: if HRTICK is off, {costs}")),
            (Ok(false), None) => {}
        }
        false
    }
}

/// Returns the policy for boosts, after a trial on a child process.
fn method(options: &Options, cpu: Cpu, log: &Logger) -> Result<BoostPolicy> {
    let tried = trial::policies(cpu, options.deadline()).context("try out what the kernel allows")?;
    match (tried.deadline, tried.fifo) {
        (Some(Ok(())), _) => {
            log.info(format_args!("using SCHED_DEADLINE for boosting"));
            let Boost { runtime, period, .. } = options.boost;
            Ok(BoostPolicy::Deadline { runtime, period })
        }
        (Some(Err(e)), Ok(())) => {
            log.warning(format_args!("{}", Error::io("make a pinned task SCHED_DEADLINE", &e)));
            log.info(format_args!("using SCHED_FIFO for boosting"));
            Ok(BoostPolicy::Fifo)
        }
        (None, Ok(())) => {
            log.info(format_args!("forcing SCHED_FIFO for boosting"));
            Ok(BoostPolicy::Fifo)
        }
        (_, Err(e)) => Err(Error::io("boost a task", &e).with_cure("it needs CAP_SYS_NICE")),
    }
}
