//! What the daemon needs to boost: the journal, the guardian, the machine's settings, and the word of the
//! kernel on what it allows.

use super::guardian::{self, Guardian};
use super::instance::{Instance, Left};
use super::log::Logger;
use super::options::{Boost, Options};
use crate::boost::hands::HostHands;
use crate::boost::journal::{How, Journal, Slot, Undo};
use crate::boost::plan::Rules;
use crate::boost::recover;
use crate::error::{Context, Error, Result};
use crate::host::settings::{self, UNTHROTTLED};
use crate::host::{self, debugfs};
use crate::sys::{clock, trial};
use crate::task::{Cpu, Nanos, Tid};
use std::path::Path;
use std::sync::Arc;

/// Below it, a fair task that waits among fair tasks is a busy host, and no starvation.
const BUSY_HOST: Nanos = Nanos::from_secs(1);

/// Set up while there is one thread, used from then on.
pub struct Boosting {
    journal: Arc<Journal>,
    guardian: Guardian,
    throttling: Option<Slot>,
    hrtick: Option<Slot>,
    /// RT throttling is off, by whomever, and has to stay so.
    unthrottled: bool,
    /// Somebody else has turned RT throttling on, and that has been said.
    told: bool,
    guarded: bool,
}

impl Boosting {
    /// Opens the journal, undoes what a former stalld has left, and starts the guardian. What was undone
    /// is returned, for the log.
    pub fn prepare(instance: &Instance, options: &Options) -> Result<(Boosting, Vec<Left>)> {
        let (journal, recovered) = instance.open_journal()?;
        let journal = Arc::new(journal);
        let guardian = Guardian::fork(&journal, &instance.descriptors(), options.foreground)?;
        let boosting = Boosting {
            journal,
            guardian,
            throttling: None,
            hrtick: None,
            unthrottled: false,
            told: false,
            guarded: true,
        };
        Ok((boosting, recovered))
    }

    /// The process that must never be boosted.
    pub fn guardian(&self) -> Tid {
        self.guardian.tid
    }

    /// Sets the machine up and finds out how tasks can be boosted. None where they can't.
    pub fn start(&mut self, options: &Options, cpu: Cpu, log: &Logger) -> Result<Option<(Rules, HostHands)>> {
        if host::in_initial_pid_namespace(Path::new("/")) == Some(false) {
            log.warning(format_args!(
                "in a pid namespace of its own stalld can't tell the tasks of the machine apart: it only logs"
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
        let rules = Rules {
            how,
            runtime: options.boost.runtime,
            period: options.boost.period,
            duration: options.boost.duration,
            cost: if hrtick || how == How::Fifo { options.boost.runtime } else { clock::tick() },
            only_outranked: options.threshold < BUSY_HOST,
            retry: options.granularity,
        };
        let hands = HostHands::new(
            Arc::clone(&self.journal),
            options.boost.runtime,
            options.boost.period,
            self.guardian.waker(),
        );
        Ok(Some((rules, hands)))
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

    /// Puts everything back: the tasks of a thread that could not do so itself, if there are any, and the machine's
    /// settings.
    pub fn end(&mut self, log: &Logger) {
        for one in recover::overdue(&self.journal, Nanos::MAX) {
            log.warning(format_args!("{one}"));
        }
        self.unthrottled = false;
        for slot in [self.throttling.take(), self.hrtick.take()].into_iter().flatten() {
            let record = self.journal.live().find(|&(live, _)| live == slot).map(|(_, record)| record);
            let Some(record) = record.filter(|_| self.journal.claim(slot)) else { continue };
            let outcome = recover::setting(&record);
            self.journal.clear(slot);
            match (&record, &outcome) {
                (Undo::Throttling { runtime_us }, Ok(true)) => {
                    log.info(format_args!("RT Throttling runtime restored to {runtime_us}"));
                }
                (_, Ok(_)) => {}
                (_, Err(e)) => log.error(format_args!("{e}")),
            }
        }
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
        let undo = Undo::Throttling { runtime_us: now };
        let slot = self.journal.arm(&undo).ok_or_else(|| Error::new("the journal is full"))?;
        if let Err(e) = settings::set_rt_runtime_us(UNTHROTTLED) {
            if self.journal.claim(slot) {
                self.journal.clear(slot);
            }
            log.warning(format_args!("RT throttling stays on: {e}"));
            return Ok(());
        }
        self.throttling = Some(slot);
        self.unthrottled = true;
        log.verbose(format_args!("RT Throttling disabled"));
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
                let Some(slot) = self.journal.arm(&Undo::Hrtick(feature)) else { return false };
                match settings::set_hrtick(&found.path, feature, true) {
                    Ok(()) => {
                        self.hrtick = Some(slot);
                        return true;
                    }
                    Err(e) => {
                        if self.journal.claim(slot) {
                            self.journal.clear(slot);
                        }
                        log.info(format_args!("HRTICK stays off: {e}: {costs}"));
                    }
                }
            }
            (Err(e), _) => log.info(format_args!("{e}: if HRTICK is off, {costs}")),
            (Ok(false), None) => {}
        }
        false
    }
}

/// How tasks can be boosted here, tried out on a child of our own.
fn method(options: &Options, cpu: Cpu, log: &Logger) -> Result<How> {
    let Boost { runtime, period, .. } = options.boost;
    let tried = trial::policies(cpu, runtime, period).context("try out what the kernel allows")?;
    match (tried.deadline, tried.fifo) {
        (_, Ok(())) if options.force_fifo => {
            log.info(format_args!("forcing SCHED_FIFO for boosting"));
            Ok(How::Fifo)
        }
        (Ok(()), _) if !options.force_fifo => {
            log.info(format_args!("using SCHED_DEADLINE for boosting"));
            Ok(How::Deadline { runtime, period })
        }
        (deadline, Ok(())) => {
            if let Err(e) = deadline {
                log.warning(format_args!("{}", Error::io("make a pinned task SCHED_DEADLINE", &e)));
            }
            log.info(format_args!("using SCHED_FIFO for boosting"));
            Ok(How::Fifo)
        }
        (_, Err(e)) => Err(Error::io("boost a task", &e).with_cure("it needs CAP_SYS_NICE")),
    }
}
