//! Changes of the victim in the middle of its boost.

use crate::sys;
use crate::victim::{Play, Victim};
use stalld::cpus::CpuSet;
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Tid};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;

/// The victim goes to another CPU, and comes back.
pub fn affinity(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let elsewhere = sched::get_affinity(Tid(0)).context("read the CPUs of this process")?;
    let hogged: CpuSet = [play.cpu].into_iter().collect();
    let victim = Victim::start(play, move |victim, is_boosted| {
        if is_boosted {
            victim.tried(sched::set_affinity(Tid(0), &elsewhere));
            // It must not compute there, because a rank that it keeps would starve that CPU.
            clock::nap(Nanos::from_millis(20));
            victim.tried(sched::set_affinity(Tid(0), &hogged));
        }
        Ok(())
    })?;
    Ok(vec![victim])
}

/// The victim changes its timer slack.
pub fn timer_slack(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let victim = Victim::start(play, |victim, is_boosted| {
        if is_boosted {
            victim.tried(sys::set_timer_slack(Nanos(1)));
        }
        Ok(())
    })?;
    Ok(vec![victim])
}

/// The victim raises its nice value, which it can't lower again.
pub fn nice(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let victim = Victim::start(play, |victim, is_boosted| {
        if is_boosted {
            victim.tried(sched::set_nice(Tid(0), 5));
        }
        Ok(())
    })?;
    Ok(vec![victim])
}

/// The victim goes to another control group.
pub fn group(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let path = play.group.as_deref().ok_or_else(|| Error::new("this act takes --group"))?;
    let mut file: File = OpenOptions::new().write(true).open(path).context("open the file of a group")?;
    let victim = Victim::start(play, move |victim, is_boosted| {
        if is_boosted {
            victim.tried(file.write_all(b"0"));
        }
        Ok(())
    })?;
    Ok(vec![victim])
}

/// The process ends in the boost, on another CPU, where its number is free at once.
pub fn end(play: &Play) -> Result<Vec<Arc<Victim>>> {
    let elsewhere = sched::get_affinity(Tid(0)).context("read the CPUs of this process")?;
    let victim = Victim::start(play, move |_, is_boosted| {
        if is_boosted {
            let _ = sched::set_affinity(Tid(0), &elsewhere);
            sys::exit();
        }
        Ok(())
    })?;
    Ok(vec![victim])
}
