//! What the daemon needs to boost: the journal, the guardian, the machine's settings, and the word
//! of the kernel on what it allows.

use super::instance::Instance;
use super::log::Logger;
use super::options::{Boost, Options};
use crate::boost::changes::Changes;
use crate::boost::guardian::{self, Guardian, Ward};
use crate::boost::journal::{BoostPolicy, Journal, RestoreRecord};
use crate::boost::journal_file::Leftover;
use crate::boost::kernel::Host;
use crate::boost::kernel_actuator::KernelActuator;
use crate::boost::plan::Rules;
use crate::boost::recover::{self, Recovered};
use crate::detect::Limits;
use crate::error::{Context, Error, Result};
use crate::host::settings::{self, UNTHROTTLED};
use crate::host::{self, debugfs};
use crate::sys::{clock, process, trial};
use crate::task::{Cpu, Nanos, Tid};
use std::path::Path;
use std::sync::Arc;

/// Set up while there is one thread, used from then on.
pub struct Boosting {
    journal: Arc<Journal>,
    guardian: Guardian,
    changes: Changes,
    /// RT throttling is off, by whomever, and has to stay so.
    unthrottled: bool,
    /// Somebody else has turned RT throttling on, and that has been said.
    told: bool,
    guarded: bool,
}

impl Boosting {
    /// Opens the journal, undoes what a former stalld has left, and starts the guardian. What was
    /// undone is returned, for the log.
    pub fn prepare(instance: &Instance, options: &Options) -> Result<(Boosting, Vec<Leftover>)> {
        let (journal, recovered) = instance.open_journal()?;
        let journal = Arc::new(journal);
        let ward = if options.foreground { Ward::Foreground } else { Ward::Daemon };
        let guardian = Guardian::fork(&journal, &instance.descriptors(), ward, process::child_of_one_thread)?;
        let changes = Changes::new(Arc::clone(&journal));
        let boosting =
            Boosting { journal, guardian, changes, unthrottled: false, told: false, guarded: true };
        Ok((boosting, recovered))
    }

    /// The process that must never be boosted.
    pub fn guardian(&self) -> Tid {
        self.guardian.tid
    }

    /// Sets the machine up and finds out how tasks can be boosted. None where they can't.
    pub fn start(
        &mut self,
        options: &Options,
        limits: &Limits,
        cpu: Cpu,
        log: &Logger,
    ) -> Result<Option<(Rules, KernelActuator)>> {
        if host::in_initial_pid_namespace(Path::new("/")) == Some(false) {
            log.warning(format_args!(
                "in a pid namespace of its own stalld can't tell the tasks of the machine apart: it only logs"
            ));
            return Ok(None);
        }
        if host::in_initial_time_namespace(Path::new("/")) == Some(false) {
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

    /// Notices what others have done meanwhile.
    pub fn watch(&mut self, log: &Logger) {
        if self.unthrottled {
            let now = settings::rt_runtime_us().unwrap_or(UNTHROTTLED);
            if now != UNTHROTTLED && !self.told {
                log.warning(format_args!(
                    "somebody has turned RT throttling on again (sched_rt_runtime_us is {now}): pinned tasks can't \
                     be boosted with SCHED_DEADLINE"
                ));
            }
            self.told = now != UNTHROTTLED;
        }
        if self.guarded && !self.guardian.is_there() {
            self.guarded = false;
            log.error(format_args!("{}", guardian::missing()));
        }
    }

    /// Puts everything back: the tasks of a thread that could not do so itself, if there are any,
    /// and the machine's settings.
    pub fn end(&mut self, log: &Logger) {
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

    /// Whether a budget ends when it is used up.
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

/// How tasks can be boosted here, tried out on a child of our own.
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
