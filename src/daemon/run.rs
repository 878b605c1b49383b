//! Runs the daemon: start, turns of the main thread, shutdown.

use super::boosting::Boosting;
use super::complain;
use super::files::{Files, Reports};
use super::instance::{Instance, RUNTIME_DIR};
use super::log::{KMSG, Kmsg, Level, Logger, Outlet, Syslog, Terminal, Writer, fatal};
use super::metrics::Figures;
use super::monitors::Monitors;
use super::notify::Manager;
use super::options::{Mode, Options};
use super::report::{Reporter, Role};
use super::watcher::{Turn, Watcher};
use crate::boost::plan::Booster;
use crate::cpus::CpuSet;
use crate::denylist::Ignore;
use crate::detect::Limits;
use crate::engine::Engine;
use crate::error::{Context, Error, Result};
use crate::host;
use crate::observe::{self, Backend, Shared, Watch};
use crate::sys::process::{self, Ready};
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, cpu, memory, sched};
use crate::task::{Nanos, Policy, Tid};
use std::io;
use std::path::{self, Path};
use std::process::ExitCode;
use std::sync::Arc;

/// The FIFO priority of stalld's own threads: above ordinary tasks, below usual real-time
/// applications.
pub(super) const OWN_PRIORITY: u32 = 10;

/// The longest time that the main thread waits for all monitors to end.
const MONITORS: Nanos = Nanos::from_millis(100);

/// The longest time that the main thread waits for the log to write its last lines.
const LOG_CLOSE_TIMEOUT: Nanos = Nanos::from_millis(200);

/// The longest time that the parent of a new daemon waits for the pidfile and the metrics.
const FILES_TIMEOUT: Nanos = Nanos::from_secs(1);

/// The interval between two checks whether the pidfile and the metrics are there.
const FILES_STEP: Nanos = Nanos::from_millis(10);

pub(super) fn run(mut options: Options) -> ExitCode {
    // A daemon changes its working directory, so resolve the user's paths before.
    for file in [&mut options.pidfile, &mut options.metrics, &mut options.trace].into_iter().flatten() {
        *file = path::absolute(&file).unwrap_or_else(|_| file.clone());
    }
    let raised = raise();
    let ready = match (!options.foreground).then(process::daemonize).transpose() {
        Ok(ready) => ready,
        Err(e) => return complain(&Error::io("become a daemon", &e).to_string(), ExitCode::FAILURE),
    };
    match run_daemon(&options, ready, raised) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fatal(&error, options.log_format);
            ExitCode::FAILURE
        }
    }
}

fn run_daemon(options: &Options, ready: Option<Ready>, raised: io::Result<()>) -> Result<()> {
    let signals = Signals::hold().context("block signals")?;
    if let Some(cpus) = &options.affinity {
        sched::set_affinity(Tid(0), cpus).context(format_args!("run on CPU {cpus} only (-a)"))?;
    }
    // A log-only stalld (-l) needs no lock, so it may run beside another stalld.
    let instance = match options.log_only {
        true => None,
        false => Some(Instance::claim(Path::new(RUNTIME_DIR))?),
    };
    let prepared = instance.as_ref().map(|instance| Boosting::prepare(instance, options));
    let (log, writer) = start_log(options)?;
    let mut boosting = match prepared {
        Some(Ok((boosting, recovered))) => {
            recovered.iter().for_each(|line| log.warning(format_args!("{line}")));
            Some(boosting)
        }
        Some(Err(e)) => {
            log.warning(format_args!("{e}: without a journal stalld only logs"));
            None
        }
        None => None,
    };
    let mut files = Files::default();
    let start = Start { options, raised, signals: &signals, log: &log };
    let outcome = start.into_life(boosting.as_mut(), &mut files).and_then(|life| life.main_loop(ready));
    if let Some(boosting) = &mut boosting {
        boosting.end(&log);
    }
    files.end(&log);
    if outcome.is_ok() {
        log.info(format_args!("stalld shutting down"));
    }
    writer.close(LOG_CLOSE_TIMEOUT);
    outcome
}

/// All that `into_life` needs to start a run.
struct Start<'a> {
    options: &'a Options,
    /// The result of raising this process to its real-time priority.
    raised: io::Result<()>,
    signals: &'a Signals,
    log: &'a Logger,
}

impl<'a> Start<'a> {
    /// Opens the backend, prepares boosts, and starts the monitors and the files.
    fn into_life(self, mut boosting: Option<&'a mut Boosting>, files: &'a mut Files) -> Result<Life<'a>> {
        let Start { options, raised, signals, log } = self;
        announce(options, log);
        let watch = Watch {
            cpus: options.cpus.clone().unwrap_or_else(|| CpuSet::first(cpu::configured())),
            idle_detection: options.idle_detection,
            own_threads: false,
        };
        let online = host::online_cpus(Path::new("/")).unwrap_or_else(|| watch.cpus.clone());
        let backend = open_backend(options, &watch, log)?;
        let manager = Manager::from_environment()?;
        let limits = Limits {
            threshold: options.threshold,
            granularity: manager.cap_to_watchdog(options.granularity),
        };
        let mut ignore = Ignore::new(options.ignore_threads.clone(), options.ignore_processes.clone());
        let helpers = [backend.helper(), boosting.as_ref().map(|boosting| boosting.guardian())];
        helpers.into_iter().flatten().for_each(|process| ignore.own(process));
        let watched_and_online: CpuSet = watch.cpus.iter().filter(|&cpu| online.contains(cpu)).collect();
        let boosts = match &mut boosting {
            Some(boosting) => {
                let last = watched_and_online.iter().last().unwrap_or_default();
                boosting.start(options, &limits, last, log)?
            }
            None => None,
        };
        let figures = Arc::new(Figures::new());
        let kind = backend.kind();
        let reports = Reports::new(log, options);
        let trace = files.begin_trace(options, &reports);
        let reporter = |role| Reporter::new(log.clone(), trace.clone(), Arc::clone(&figures), options, role);
        let (watcher, mut monitors) = if options.mode == Mode::Power {
            let mut engine = Engine::new(backend, limits, ignore);
            if let Some((rules, actuator)) = boosts {
                engine.boost(Booster::new(rules, Box::new(actuator), cpu::configured() as usize));
            }
            (Watcher::new(engine, reporter(Role::Alone), false), None)
        } else {
            let shared = Shared::new(backend, &watch);
            let all = shared.view(watch.cpus.clone());
            let engine = Engine::new(all, Monitors::supervision(limits), ignore);
            let monitors = Monitors::new(shared, limits, boosts, options, reporter(Role::Alone));
            (Watcher::new(engine, reporter(Role::Supervisor), true), Some(monitors))
        };
        prepare_thread(options, raised, log);
        lock_memory(log);
        if let (Some(monitors), Mode::Aggressive) = (&mut monitors, options.mode) {
            for cpu in watched_and_online.iter() {
                monitors.start(cpu, watcher.engine())?;
            }
        }
        files.begin(options, Arc::clone(&figures), kind, &reports);
        Ok(Life { watcher, monitors, manager, signals, log, boosting, figures, files })
    }
}

/// The state of the main thread during a run.
struct Life<'a> {
    watcher: Watcher,
    monitors: Option<Monitors>,
    manager: Manager,
    signals: &'a Signals,
    log: &'a Logger,
    boosting: Option<&'a mut Boosting>,
    figures: Arc<Figures>,
    files: &'a Files,
}

impl Life<'_> {
    /// Runs turns until a signal ends the run. Between turns the thread sleeps only in
    /// `Signals::wait_until`.
    fn main_loop(mut self, mut ready: Option<Ready>) -> Result<()> {
        let begun = clock::monotonic();
        let mut asked = false;
        loop {
            self.turn(asked);
            let waited = clock::monotonic() - begun;
            if self.files.have_settled() || waited >= FILES_TIMEOUT {
                if let Some(ready) = ready.take() {
                    ready.succeed().context("leave the terminal")?;
                }
            }
            let planned = self.watcher.plan();
            let until = match ready {
                Some(_) => planned.min(clock::monotonic() + FILES_STEP),
                None => planned,
            };
            let signal = self.signals.wait_until(until);
            self.watcher.woke((signal.is_none() && until == planned).then_some(planned));
            // SIGUSR1 triggers a scan, so that the status is current. That scan also reports
            // starving tasks.
            asked = signal == Some(Signal::Report);
            if let (true, Some(monitors)) = (asked, &self.monitors) {
                monitors.report();
            }
            if signal == Some(Signal::End) {
                self.end();
                return Ok(());
            }
        }
    }

    fn turn(&mut self, asked: bool) {
        let turn = self.watcher.turn(asked);
        let engine = self.watcher.engine();
        if turn == Turn::Scanned {
            let (counters, monitors) = (engine.counters(), self.monitors.as_ref());
            let counters = monitors.map_or(counters, |monitors| monitors.counters(counters));
            let now = clock::monotonic();
            let all_since = monitors.map_or(now, |monitors| monitors.scanned_since(now));
            self.manager.scanned(engine.kind(), counters, all_since, now);
        }
        if turn != Turn::Rested {
            if let Some(boosting) = &mut self.boosting {
                boosting.watch(self.figures.refused(), self.log);
            }
            if let Some(monitors) = &mut self.monitors {
                if let Err(e) = monitors.supervise(engine) {
                    self.log.warning(format_args!("{e}"));
                }
            }
        }
    }

    fn end(mut self) {
        self.manager.stopping();
        self.watcher.end();
        if self.monitors.is_some_and(|monitors| !monitors.end(MONITORS)) {
            self.log.warning(format_args!("a monitor did not exit in time: restoring its boosts"));
        }
    }
}

/// Opens a backend, and logs its remarks and why other backends were refused.
fn open_backend(options: &Options, watch: &Watch, log: &Logger) -> Result<Box<dyn Backend>> {
    let (mut backend, refusals) = observe::open(options.backend, watch)?;
    for refusal in &refusals {
        log.warning(format_args!("{refusal}"));
    }
    for remark in backend.remarks() {
        log.info(format_args!("{remark}"));
    }
    log.verbose(format_args!("using {} backend", backend.kind().name()));
    Ok(backend)
}

/// Locks stalld's memory, and exempts stalld from the OOM killer.
fn lock_memory(log: &Logger) {
    memory::trim_heap();
    if let Err(e) = memory::lock_all() {
        let error = Error::io("lock memory", &e);
        log.verbose(format_args!(
            "{}",
            if e.kind() == io::ErrorKind::PermissionDenied {
                error.with_cure("it needs CAP_IPC_LOCK")
            } else {
                error
            }
        ));
    }
    // Ignore an error: without CAP_SYS_RESOURCE this fails, and the service manager may already
    // have done it.
    let _ = memory::spare_from_oom_killer();
}

/// Logs the settings of the command line, in the lines of the C program.
fn announce(options: &Options, log: &Logger) {
    if let Some(cpus) = &options.cpus {
        cpus.iter().for_each(|cpu| log.verbose(format_args!("cpulist: adding cpu {cpu}")));
    }
    if let Some(cpus) = &options.affinity {
        cpus.iter().for_each(|cpu| log.verbose(format_args!("self-affinity: adding cpu {cpu}")));
    }
    for list in options.ignore_threads.sources() {
        log.verbose(format_args!("task ignore string {list}"));
    }
    for list in options.ignore_processes.sources() {
        log.verbose(format_args!("process ignore string {list}"));
    }
    if options.mode == Mode::Power {
        log.verbose(format_args!("single threaded mode"));
    }
    if !options.idle_detection {
        log.verbose(format_args!("idle detection disabled"));
    }
}

fn start_log(options: &Options) -> Result<(Logger, Writer)> {
    let mut outlets = Vec::new();
    let mut refused = None;
    if options.foreground {
        let terminal = Terminal::stderr(options.log_format).context("write to stderr")?;
        outlets.push(Outlet::new(terminal, if options.verbose { Level::Debug } else { Level::Error }));
    }
    if options.log_syslog {
        outlets.push(Outlet::new(Syslog::of_this_host(), Level::Info));
    }
    if options.log_kmsg {
        match Kmsg::open(Path::new(KMSG)) {
            Ok(kmsg) => outlets.push(Outlet::new(kmsg, Level::Info)),
            Err(e) => refused = Some(e),
        }
    }
    let (log, writer) = Writer::start("stalld-log", outlets, || raise().unwrap_or_default())?;
    if let Some(refused) = refused {
        log.warning(format_args!("{refused}"));
    }
    Ok((log, writer))
}

/// Prepares the main thread for its scans: timer slack, stack and the reservation of -R. Logs why
/// `raise` failed, if it did.
fn prepare_thread(options: &Options, raised: io::Result<()>, log: &Logger) {
    clock::be_punctual();
    memory::fault_in_stack();
    if let Some(percent) = options.reservation {
        match reserve(percent, options.granularity) {
            Ok((runtime, period)) => log.info(format_args!(
                "successfully set {percent}% SCHED_DEADLINE reservation runtime/period = {}/{}",
                runtime.0, period.0
            )),
            Err(e) => log.warning(format_args!("{}", Error::io("reserve CPU time for stalld (-R)", &e))),
        }
    }
    if let Err(e) = raised {
        let error = Error::io("run at real-time priority", &e);
        log.info(format_args!(
            "{}: scans may be late on a busy host",
            error.with_cure("it needs CAP_SYS_NICE")
        ));
    }
}

/// Makes the calling thread SCHED_DEADLINE with `percent` of a CPU.
fn reserve(percent: u8, granularity: Nanos) -> io::Result<(Nanos, Nanos)> {
    // By default the kernel rejects periods above 4.2 s (sched_deadline_period_max_us).
    let period = if granularity <= Nanos::from_secs(4) { granularity } else { Nanos::from_secs(1) };
    let runtime = Nanos(period.0 / 100 * u64::from(percent));
    sched::set_deadline(Tid(0), runtime, period, sched::RESET_ON_FORK)?;
    Ok((runtime, period))
}

/// Raises the calling thread to FIFO, unless it is real-time already. New threads and processes
/// inherit this: as ordinary ones they could starve on a hogged CPU.
pub(super) fn raise() -> io::Result<()> {
    let policy = sched::get_attr(Tid(0))?.policy;
    if policy.is_realtime() || policy == Policy::DEADLINE {
        return Ok(());
    }
    sched::set_scheduler(Tid(0), Policy::FIFO, OWN_PRIORITY, false)
}
