//! Chooses how tasks are boosted: by SCHED_DEADLINE, or in pulses of SCHED_FIFO.

use super::log::Logger;
use super::options::{Boost, BoostMethod, Options};
use crate::boost::journal::BoostPolicy;
use crate::boost::max_loss::MaxLoss;
use crate::boost::plan::Pulsed;
use crate::error::{Context, Error, Reason, Result};
use crate::length::with_unit;
use crate::share::Share;
use crate::sys::{clock, switching, trial};
use crate::task::{Cpu, Nanos};
use std::io;

/// The facts about the host on which the choice depends.
pub(super) struct Circumstances {
    /// A CPU on which tasks may be boosted.
    pub cpu: Cpu,
    /// The host has no second CPU from which stalld could end a pulse.
    pub has_one_cpu: bool,
    /// HRTICK is on, or why that is not so or not known.
    pub hrtick: Result<(), String>,
}

/// How tasks are boosted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub how: BoostPolicy,
    /// If boosts by SCHED_DEADLINE are possible, the kernel ends their budgets in time.
    pub ends_in_time: bool,
    pub pulsed: Pulsed,
}

/// Chooses the method, after trials on child processes. Returns an error if the kernel allows none.
pub(super) fn choose(options: &Options, at: &Circumstances, log: &Logger) -> Result<Choice> {
    let tried = trial::policies(at.cpu, options.deadline()).context("try out what the kernel allows")?;
    let only_fifo = Choice { how: BoostPolicy::Fifo, ends_in_time: true, pulsed: Pulsed::All };
    match (tried.deadline, tried.fifo) {
        (Some(Ok(())), fifo) => {
            let may_pulse = options.boost_method == BoostMethod::Auto && !at.has_one_cpu && fifo.is_ok();
            let (pulsed, in_time) = preferred(may_pulse, &at.hrtick, trial::ends_budgets_in_time);
            log_choice(pulsed, &in_time, log);
            let Boost { runtime, period, .. } = options.boost;
            Ok(Choice {
                how: BoostPolicy::Deadline { runtime, period },
                ends_in_time: in_time.is_ok(),
                pulsed,
            })
        }
        (Some(Err(e)), Ok(())) => {
            log.warning(format_args!("{}", Error::io("make a pinned task SCHED_DEADLINE", &e)));
            log.info(format_args!("using SCHED_FIFO for boosting"));
            Ok(only_fifo)
        }
        (None, Ok(())) => {
            log.info(format_args!("forcing SCHED_FIFO for boosting"));
            Ok(only_fifo)
        }
        (_, Err(e)) => Err(Error::io("boost a task", &e).with_cure("it needs CAP_SYS_NICE")),
    }
}

/// Returns which tasks are boosted in pulses where both methods work, and whether the kernel ends
/// budgets of SCHED_DEADLINE in time, or why that is not so or not known.
fn preferred(
    may_pulse: bool,
    hrtick: &Result<(), String>,
    measure: impl FnOnce() -> io::Result<bool>,
) -> (Pulsed, Result<(), String>) {
    match hrtick {
        Ok(()) if may_pulse => (Pulsed::Bound, Ok(())),
        Ok(()) => (Pulsed::Nothing, Ok(())),
        Err(why) if may_pulse => match measure() {
            Ok(true) => (Pulsed::Bound, Ok(())),
            Ok(false) => (Pulsed::All, Err(format!("{why}: the kernel ends a budget only at a tick"))),
            Err(e) => (Pulsed::All, Err(format!("{why}: cannot measure how exactly: {}", Reason(&e)))),
        },
        Err(why) => (Pulsed::Nothing, Err(why.clone())),
    }
}

fn log_choice(pulsed: Pulsed, in_time: &Result<(), String>, log: &Logger) {
    let tick = with_unit(clock::tick());
    match (pulsed, in_time) {
        (Pulsed::All, _) => log.info(format_args!("using SCHED_FIFO for boosting")),
        _ => log.info(format_args!("using SCHED_DEADLINE for boosting")),
    }
    match (pulsed, in_time) {
        (_, Ok(())) => {}
        (Pulsed::All, Err(why)) => log.info(format_args!(
            "{why} (a boost by SCHED_DEADLINE may take a CPU for a tick, {tick}): tasks are boosted in pulses, unless \
             --boost deadline is given"
        )),
        (_, Err(why)) => log.info(format_args!(
            "{why}: a boost may take a CPU for a tick ({tick}), whatever its runtime"
        )),
    }
}

/// The time that is assumed for a switch to a boosted task and back, if it can't be measured.
pub(super) const ASSUMED_SWITCHING: Nanos = Nanos::from_micros(50);

/// Returns the bound on what boosts take from hogs. Fails if the bound allows no boost at all.
pub(super) fn bound(share: Share, runtime: Nanos, log: &Logger) -> Result<MaxLoss> {
    let switching = switching::switch_and_back().unwrap_or_else(|e| {
        let error = Error::io("measure how long a switch between tasks takes", &e);
        log.warning(format_args!("{error}: assuming {}", with_unit(ASSUMED_SWITCHING)));
        ASSUMED_SWITCHING
    });
    let max = MaxLoss { per_second: share.per_second(), switching };
    let (smallest, runtime_text) = (Share::of_a_second(max.hold(runtime)), with_unit(runtime));
    if share < smallest {
        return Err(Error::new(format!(
            "--max-loss {share}: one boost of {runtime_text} takes more of a second"
        ))
        .with_cure(format!("give {smallest} or more, or a shorter runtime (-r)")));
    }
    log.info(format_args!(
        "boosts take at most {share} of a CPU in any second, at {} us for the switches of each",
        switching.0.div_ceil(1000)
    ));
    Ok(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulses_are_preferred_unless_budgets_end_in_time() {
        let hidden = || Err("HRTICK is hidden".to_string());
        let refused = || Err(io::Error::from_raw_os_error(libc::EBUSY));
        for (may_pulse, hrtick, measured, pulsed, in_time) in [
            (true, Ok(()), Ok(false), Pulsed::Bound, true),
            (true, hidden(), Ok(true), Pulsed::Bound, true),
            (true, hidden(), Ok(false), Pulsed::All, false),
            (true, hidden(), refused(), Pulsed::All, false),
            // With --boost deadline, on one CPU, or where FIFO is refused.
            (false, Ok(()), Ok(false), Pulsed::Nothing, true),
            (false, hidden(), Ok(true), Pulsed::Nothing, false),
        ] {
            let chosen = preferred(may_pulse, &hrtick, || measured);
            assert_eq!((chosen.0, chosen.1.is_ok()), (pulsed, in_time), "{may_pulse} {hrtick:?}");
            // The log has the reason why HRTICK is not on.
            assert!(chosen.1.err().is_none_or(|why| why.starts_with("HRTICK is hidden")));
        }
    }
}
