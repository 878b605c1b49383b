//! Findings about boosts: whether they work, and what they cost.

use super::{Finding, why};
use crate::boost::max_loss::MaxLoss;
use crate::daemon::check::facts::{Facts, depends_on_budgets};
use crate::daemon::method::ASSUMED_SWITCHING;
use crate::daemon::options::{BoostMethod, Options};
use crate::error::Reason;
use crate::host::privilege::Capability;
use crate::length::with_unit;
use crate::share::Share;
use crate::sys::trial;
use std::io;

pub(super) fn boosting(facts: &Facts, options: &Options) -> Finding {
    let cpu = facts.trial.cpu;
    let trial = match &facts.trial.outcome {
        Ok(trial) => trial,
        Err(e) => {
            let fact = format!("cannot try a boost on a child that is pinned to CPU {cpu}: {}", Reason(e));
            return Finding::warning(fact)
                .cure("see that stalld's own cpuset has that CPU, or choose others by -c");
        }
    };
    let (policy, outcome) = match &trial.deadline {
        Some(deadline) if by_deadline(facts, options) => ("SCHED_DEADLINE", deadline),
        _ => ("SCHED_FIFO", &trial.fifo),
    };
    let able = format!("a task that is pinned to CPU {cpu} can be boosted with {policy}");
    let instead = match &trial.deadline {
        Some(deadline @ Err(e)) if !will_be_allowed(facts, options, deadline) => {
            Some((format!("with SCHED_DEADLINE it can't: {}", Reason(e)), deadline_cure(facts, e)))
        }
        _ => None,
    };
    match (outcome, instead) {
        (Err(e), instead) if !will_be_allowed(facts, options, outcome) => {
            let also = instead.map_or(String::new(), |(reason, _)| format!("; {reason}"));
            let fact = format!(
                "a task that is pinned to CPU {cpu} can't be boosted with {policy}: {}{also}",
                Reason(e)
            );
            Finding::failure(fact, "no boost is possible").cure(fifo_cure(facts, e))
        }
        (_, Some((reason, cure))) => Finding::warning(format!("{able} only; {reason}")).cure(cure),
        (Ok(()), None) => Finding::ok(able),
        (Err(_), None) => Finding::ok(format!("{able} once RT throttling is off")),
    }
}

pub(super) fn throttling(facts: &Facts, options: &Options) -> Finding {
    let Some(throttling) = facts.throttling else {
        return Finding::note("cannot tell whether RT throttling is on: /proc/sys/kernel can't be read");
    };
    let on = format!(
        "RT throttling is on: real-time tasks get {} us of each {} us",
        throttling.runtime_us, throttling.period_us
    );
    match (throttling.is_off(), options.systemd) {
        (true, _) => Finding::ok("RT throttling is off"),
        (false, false) => Finding::note(format!("{on}; stalld turns it off when it starts")),
        (false, true) => {
            Finding::warning(format!("{on}; with -S stalld leaves that as it is")).cure(THROTTLING_OFF)
        }
    }
}

/// Returns a finding about how the kernel ends budgets. Returns `None` with -F: stalld itself ends
/// a boost by FIFO.
pub(super) fn budgets(facts: &Facts, options: &Options) -> Option<Finding> {
    if options.boost_method == BoostMethod::Fifo {
        return None;
    }
    if is_measured(facts, options) {
        return Some(measured(facts));
    }
    let cost = format!(
        "a boost of {} may take a CPU for up to a tick ({})",
        with_unit(options.boost.runtime),
        with_unit(facts.tick)
    );
    let Some(hrtick) = &facts.hrtick else {
        let unknown = Finding::note(format!("HRTICK can be neither seen nor turned on: {cost}"));
        return Some(match facts.debugfs {
            None => unknown.cure(MOUNT_DEBUGFS),
            Some(_) => unknown,
        });
    };
    Some(match (&hrtick.is_on, &hrtick.writable) {
        (Ok(true), _) => Finding::ok("HRTICK is on: a boost ends on time"),
        (Ok(false), Ok(())) => Finding::ok("HRTICK is off; stalld turns it on when it starts"),
        (Err(_), Ok(())) => Finding::note(format!("HRTICK can't be seen; if it is off, {cost}")),
        (Ok(false), Err(refusal)) => {
            Finding::note(format!("HRTICK is off and can't be turned on ({}): {cost}", why(facts, refusal)))
        }
        (Err(_), Err(refusal)) => Finding::note(format!(
            "HRTICK can be neither seen nor turned on ({}): {cost}",
            why(facts, refusal)
        )),
    })
}

/// Returns a finding about budgets where neither HRTICK nor the command line decides the method.
fn measured(facts: &Facts) -> Finding {
    match facts.ends_budgets_in_time {
        Some(true) => Finding::ok("the kernel ends a budget of SCHED_DEADLINE in time, as measured"),
        Some(false) => {
            let fact = format!(
                "the kernel ends a budget of SCHED_DEADLINE only after a tick ({}): tasks are boosted in pulses",
                with_unit(facts.tick)
            );
            match facts.debugfs {
                // stalld might turn HRTICK on there.
                None => Finding::note(fact).cure(MOUNT_DEBUGFS),
                Some(_) => Finding::ok(fact),
            }
        }
        None => Finding::note(
            "whether the kernel ends a budget of SCHED_DEADLINE in time will be measured at the start: if not, \
             tasks are boosted in pulses",
        ),
    }
}

/// Returns a finding about the bound on what boosts take from hogs; `None` without such a bound.
pub(super) fn max_loss(facts: &Facts, options: &Options) -> Option<Finding> {
    let (share, runtime) = (options.max_loss?, options.boost.runtime);
    let switching = facts.switching.unwrap_or(ASSUMED_SWITCHING);
    let max = MaxLoss { per_second: share.per_second(), switching };
    let hold = max.hold(runtime);
    let smallest = Share::of_a_second(hold);
    Some(if share < smallest {
        let fact = format!("--max-loss {share}: one boost of {} takes more of a second", with_unit(runtime));
        Finding::failure(fact, "no boost is possible")
            .cure(format!("give {smallest} or more, or a shorter runtime (-r)"))
    } else if facts.switching.is_none() {
        let assumed = with_unit(switching);
        Finding::note(format!(
            "cannot measure how long a switch between tasks takes: stalld assumes {assumed}"
        ))
    } else {
        let count = max.pulses_of_a_second(runtime);
        let each = hold.0.div_ceil(1000);
        Finding::ok(format!(
            "--max-loss {share} allows at least {count} boosts a second on a CPU, of up to {each} us each"
        ))
    })
}

/// Returns whether the method depends on how the kernel ends budgets, by measurement.
fn is_measured(facts: &Facts, options: &Options) -> bool {
    depends_on_budgets(options, facts.has_one_cpu, facts.hrtick.as_ref())
}

/// Returns the policy by which tasks will be boosted.
pub(super) fn policy(facts: &Facts, options: &Options) -> &'static str {
    match by_deadline(facts, options) {
        true if is_measured(facts, options) && facts.ends_budgets_in_time.is_none() => {
            "SCHED_DEADLINE or SCHED_FIFO"
        }
        true => "SCHED_DEADLINE",
        false => "SCHED_FIFO",
    }
}

/// Returns whether boosts will use SCHED_DEADLINE; true if that is unknown.
fn by_deadline(facts: &Facts, options: &Options) -> bool {
    let tried = facts.trial.outcome.as_ref().ok();
    let allowed = |trial: &trial::Trial| {
        trial.deadline.as_ref().is_some_and(|outcome| will_be_allowed(facts, options, outcome))
    };
    let is_late = is_measured(facts, options) && facts.ends_budgets_in_time == Some(false);
    options.boost_method != BoostMethod::Fifo && !is_late && tried.is_none_or(allowed)
}

/// Returns whether the kernel will allow this boost during a run. It may do so even if the trial
/// failed, because stalld turns RT throttling off when it starts.
fn will_be_allowed(facts: &Facts, options: &Options, outcome: &io::Result<()>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(refusal) => !options.systemd && refused_by_throttling(facts, refusal),
    }
}

/// Returns whether RT throttling is the likely reason. While it is on, the kernel admits no
/// DEADLINE task that may not run on all CPUs of its domain. With RT_GROUP_SCHED it admits no
/// real-time task to a cgroup without real-time runtime.
fn refused_by_throttling(facts: &Facts, refusal: &io::Error) -> bool {
    refusal.raw_os_error() == Some(libc::EPERM)
        && facts.has(Capability::SysNice)
        && facts.throttling.is_some_and(|throttling| !throttling.is_off())
}

fn deadline_cure(facts: &Facts, refusal: &io::Error) -> &'static str {
    match refusal.raw_os_error() {
        Some(libc::EPERM) if refused_by_throttling(facts, refusal) => THROTTLING_OFF,
        Some(libc::EBUSY) => "other SCHED_DEADLINE tasks have reserved all of that CPU: reserve less",
        Some(libc::EINVAL) => {
            "keep -p within kernel.sched_deadline_period_min_us and kernel.sched_deadline_period_max_us"
        }
        _ => "see what forbids sched_setattr(2): a seccomp filter, a security module",
    }
}

fn fifo_cure(facts: &Facts, refusal: &io::Error) -> &'static str {
    match facts.has(Capability::SysNice) {
        false => "give stalld CAP_SYS_NICE",
        true if refused_by_throttling(facts, refusal) => THROTTLING_OFF,
        true => "see what forbids sched_setscheduler(2): a seccomp filter, a security module",
    }
}

const MOUNT_DEBUGFS: &str = "mount debugfs: mount -t debugfs debugfs /sys/kernel/debug";

const THROTTLING_OFF: &str = "sysctl -w kernel.sched_rt_runtime_us=-1";
