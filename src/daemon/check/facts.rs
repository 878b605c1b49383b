//! Gathers the facts from which findings are derived, and prints one line for each.

use super::left_behind::{self, LeftBehind};
use crate::cpus::CpuSet;
use crate::daemon::options::{BoostMethod, Options};
use crate::error::{Reason, Result};
use crate::host::debugfs::{self, HrtickFile, Served};
use crate::host::mounts::{self, Hidepid};
use crate::host::privilege::{self, Capabilities, Capability, Lockdown};
use crate::host::{self, Namespace, Throttling};
use crate::length::with_unit;
use crate::observe::{self, Kind, Watch};
use crate::proc;
use crate::sys::{clock, cpu, switching, trial};
use crate::task::{Cpu, Escaped, Nanos, Tid};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// kthreadd, the parent of all kernel threads. A pid namespace has none.
const KTHREADD: Tid = Tid(2);

/// The facts about the host. `None` means unknown, unless documented otherwise.
pub(super) struct Facts {
    pub kernel: Option<String>,
    /// The monitored CPUs that are online.
    pub cpus: CpuSet,
    pub capabilities: Option<Capabilities>,
    /// The kernel counts BPF maps as locked memory.
    pub needs_memlock: bool,
    pub lockdown: Lockdown,
    pub pid_namespace: Namespace,
    pub user_namespace: Namespace,
    /// Also unknown before 5.6, which has no time namespaces.
    pub time_namespace: Namespace,
    /// `None` if /proc shows everything.
    pub hidepid: Option<Hidepid>,
    /// /proc shows kernel threads to this process.
    pub sees_kernel_threads: bool,
    /// `None` if there is no limit.
    pub descriptors: Option<u64>,
    pub btf: bool,
    pub stamps_queued_tasks: bool,
    /// `None` if it is not mounted.
    pub debugfs: Option<PathBuf>,
    pub backends: Vec<(Kind, Result<()>)>,
    /// Backend, program, and statistics of the verifier.
    pub verified: Vec<(Kind, String, String)>,
    pub throttling: Option<Throttling>,
    /// `None` if debugfs does not show it.
    pub hrtick: Option<HrtickFile>,
    /// The kernel ends budgets of SCHED_DEADLINE in time. Measured only where the choice of the
    /// method depends on it.
    pub ends_budgets_in_time: Option<bool>,
    /// The host has no second CPU from which stalld could end a pulse.
    pub has_one_cpu: bool,
    /// The time of a switch to a boosted task and back. Measured only for `--max-loss`.
    pub switching: Option<Nanos>,
    /// `None` if there is none, or if debugfs does not show it.
    pub dl_server: Option<Result<Vec<Served>>>,
    pub tick: Nanos,
    /// `None` if the kernel reports no RCU stalls.
    pub rcu_stall: Option<Nanos>,
    /// `None` if the kernel reports no hung tasks.
    pub hung_task: Option<Nanos>,
    pub trial: Trial,
    pub left_behind: Vec<LeftBehind>,
}

/// The result of a test boost on a child that is pinned to `cpu`.
pub(super) struct Trial {
    pub cpu: Cpu,
    pub outcome: io::Result<trial::Trial>,
}

impl Facts {
    pub(super) fn gather(root: &Path, options: &Options) -> Facts {
        let watched = options.cpus.clone().unwrap_or_else(|| CpuSet::first(cpu::configured()));
        let online = host::online_cpus(root);
        let is_online = |cpu: &Cpu| online.as_ref().is_none_or(|online| online.contains(*cpu));
        let cpus: CpuSet = watched.iter().filter(is_online).collect();
        // Offline CPUs stay in, because a scan of no CPU can't fail.
        let watch =
            Watch { cpus: watched.clone(), idle_detection: options.idle_detection, own_threads: false };
        let backends = Kind::ALL.map(|kind| (kind, observe::try_out(kind, &watch))).into();
        let verified = Kind::ALL.into_iter().flat_map(|kind| {
            observe::verified(kind).into_iter().map(move |(program, figures)| (kind, program, figures))
        });
        let cpu = cpus.iter().last().or(watched.iter().last()).unwrap_or_default();
        let hrtick = debugfs::hrtick(root);
        let has_one_cpu = online.is_some_and(|online| online.iter().count() == 1);
        let is_asked = depends_on_budgets(options, has_one_cpu, hrtick.as_ref());
        let measure = || trial::ends_budgets_in_time().ok();
        Facts {
            kernel: host::kernel_release(root),
            cpus,
            capabilities: privilege::capabilities(root),
            needs_memlock: privilege::needs_memlock(root),
            lockdown: privilege::lockdown(root),
            pid_namespace: host::pid_namespace(root),
            user_namespace: host::user_namespace(root),
            time_namespace: host::time_namespace(root),
            hidepid: mounts::hidepid(root),
            sees_kernel_threads: proc::try_start(KTHREADD).is_ok(),
            descriptors: host::descriptor_limit(root),
            btf: host::has_btf(root),
            stamps_queued_tasks: host::stamps_queued_tasks(root),
            debugfs: debugfs::mounts(root).into_iter().next(),
            backends,
            verified: verified.collect(),
            throttling: host::throttling(root),
            hrtick,
            ends_budgets_in_time: is_asked.then(measure).flatten(),
            has_one_cpu,
            switching: options.max_loss.and_then(|_| switching::switch_and_back().ok()),
            dl_server: debugfs::dl_server(root),
            tick: clock::tick(),
            rcu_stall: host::rcu_stall_timeout(root),
            hung_task: host::hung_task_timeout(root),
            trial: Trial { cpu, outcome: trial::policies(cpu, options.deadline()) },
            left_behind: left_behind::scan(root),
        }
    }

    pub(super) fn has(&self, capability: Capability) -> bool {
        self.capabilities.is_none_or(|own| own.has(capability))
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "stalld {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "kernel {}", Escaped(self.kernel.as_deref().unwrap_or("unknown").as_bytes()))?;
        writeln!(f, "machine {}", std::env::consts::ARCH)?;
        writeln!(f, "cpus {}", self.cpus)?;
        writeln!(f, "tick {}", with_unit(self.tick))?;
        for capability in Capability::ALL {
            let has = known(self.capabilities.map(|own| own.has(capability)));
            writeln!(f, "capability {} {has}", capability.name().to_lowercase())?;
        }
        writeln!(f, "lockdown {}", self.lockdown)?;
        writeln!(f, "initial_pid_namespace {}", is_initial(self.pid_namespace))?;
        writeln!(f, "initial_user_namespace {}", is_initial(self.user_namespace))?;
        writeln!(f, "initial_time_namespace {}", is_initial(self.time_namespace))?;
        let hidepid = self.hidepid.as_ref().map_or("none", |hidepid| &hidepid.options);
        writeln!(f, "hidepid {}", Escaped(hidepid.as_bytes()))?;
        writeln!(f, "sees_kernel_threads {}", known(Some(self.sees_kernel_threads)))?;
        match self.descriptors {
            Some(limit) => writeln!(f, "descriptors {limit}")?,
            None => writeln!(f, "descriptors unlimited")?,
        }
        writeln!(f, "btf {}", known(Some(self.btf)))?;
        writeln!(f, "sched_info {}", known(Some(self.stamps_queued_tasks)))?;
        match &self.debugfs {
            Some(at) => writeln!(f, "debugfs {}", Escaped(at.as_os_str().as_bytes()))?,
            None => writeln!(f, "debugfs none")?,
        }
        for (kind, outcome) in &self.backends {
            writeln!(f, "backend {} {}", kind.name(), worked(outcome))?;
        }
        for (kind, program, figures) in &self.verified {
            writeln!(f, "verified {} {program} {figures}", kind.name())?;
        }
        match self.throttling {
            Some(Throttling { runtime_us, period_us }) => {
                writeln!(f, "rt_throttling runtime_us {runtime_us} period_us {period_us}")?;
            }
            None => writeln!(f, "rt_throttling unknown")?,
        }
        self.fmt_debugfs(f)?;
        writeln!(f, "budgets_end_in_time {}", known(self.ends_budgets_in_time))?;
        if let Some(switching) = self.switching {
            writeln!(f, "switching {}", with_unit(switching))?;
        }
        writeln!(f, "rcu_stall_timeout {}", self.rcu_stall.map_or("none".into(), with_unit))?;
        writeln!(f, "hung_task_timeout {}", self.hung_task.map_or("none".into(), with_unit))?;
        self.fmt_trial(f)?;
        for task in &self.left_behind {
            writeln!(f, "left_behind {} {}", task.tid, task.comm)?;
        }
        Ok(())
    }
}

impl Facts {
    fn fmt_trial(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let cpu = self.trial.cpu;
        let tried = |outcome: &io::Result<()>| worked(&outcome.as_ref().copied().map_err(Reason));
        match &self.trial.outcome {
            Ok(trial) => {
                if let Some(deadline) = &trial.deadline {
                    writeln!(f, "trial cpu {cpu} deadline {}", tried(deadline))?;
                }
                writeln!(f, "trial cpu {cpu} fifo {}", tried(&trial.fifo))?;
            }
            Err(e) => writeln!(f, "trial cpu {cpu} impossible: {}", Reason(e))?,
        }
        Ok(())
    }

    fn fmt_debugfs(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.hrtick {
            Some(hrtick) => {
                match &hrtick.is_on {
                    Ok(is_on) => writeln!(f, "hrtick {}", known(Some(*is_on)))?,
                    Err(e) => writeln!(f, "hrtick unknown: {e}")?,
                }
                writeln!(f, "hrtick_writable {}", worked(&hrtick.writable))?;
            }
            None => writeln!(f, "hrtick unknown")?,
        }
        match &self.dl_server {
            Some(Ok(served)) => {
                for Served { cpu, runtime, period } in served {
                    writeln!(f, "dl_server cpu {cpu} runtime_ns {} period_ns {}", runtime.0, period.0)?;
                }
                Ok(())
            }
            Some(Err(e)) => writeln!(f, "dl_server unknown: {e}"),
            None if self.debugfs.is_some() => writeln!(f, "dl_server none"),
            None => writeln!(f, "dl_server unknown"),
        }
    }
}

/// Returns whether the method depends on how the kernel ends budgets: neither the command line nor
/// the host decides it, and HRTICK is not on, and stalld will not turn it on.
pub(super) fn depends_on_budgets(options: &Options, has_one_cpu: bool, hrtick: Option<&HrtickFile>) -> bool {
    let will_have_hrtick = hrtick.is_some_and(|hrtick| match hrtick.is_on {
        Ok(is_on) => is_on || hrtick.writable.is_ok(),
        Err(_) => false,
    });
    options.boost_method == BoostMethod::Auto && !has_one_cpu && !will_have_hrtick
}

fn is_initial(namespace: Namespace) -> &'static str {
    known(match namespace {
        Namespace::Initial => Some(true),
        Namespace::Other => Some(false),
        Namespace::Unknown => None,
    })
}

fn known(fact: Option<bool>) -> &'static str {
    match fact {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
}

fn worked<E: fmt::Display>(outcome: &Result<(), E>) -> String {
    match outcome {
        Ok(()) => "yes".to_string(),
        Err(e) => format!("no: {e}"),
    }
}
