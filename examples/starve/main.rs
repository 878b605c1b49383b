//! Makes tasks starve behind a real-time hog: for the demo, the live tests and the measurements.
//! `starve --help` describes its options and its output.

#![allow(unreachable_pub)]

mod losses;
mod options;
mod part;
mod quota;

use options::{HELP, Kind, Options};
use part::{Actor, Stage};
use quota::Quota;
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, sched};
use stalld::task::{Nanos, Tid};
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

/// Limit on each wait for an action that the kernel performs at once on a healthy machine.
const TIMEOUT: Nanos = Nanos::from_secs(20);

fn main() -> ExitCode {
    let result = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => run(options).map_err(|error| (error, 1)),
        Ok(None) => emit(HELP.trim_end()).map_err(|error| (error, 1)),
        Err(error) => Err((error, 2)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, code)) => {
            eprintln!("starve: {error}");
            ExitCode::from(code)
        }
    }
}

fn run(mut options: Options) -> Result<()> {
    sched::set_affinity(Tid(0), &options.elsewhere)
        .context(format!("move to CPU {}, away from the hog", options.elsewhere))?;
    let quota = open_quota(&mut options)?.map(Arc::new);
    if options.victims.is_empty() && !options.alone {
        return Ok(());
    }

    let stage = Arc::new(Stage::new(options.cpu));
    let mut cast = Cast { stage: stage.clone(), actors: Vec::new() };
    for part in &options.victims {
        let children = if part.kind == Kind::Waitpid { CHILDREN } else { 0 };
        let quota = quota.clone().filter(|_| part.kind == Kind::Throttled);
        cast.actors.push(Actor::start(*part, stage.clone(), children, quota)?);
    }
    cast.actors.push(Actor::start_hog(options.hog, stage.clone())?);
    cast.wait_for("all threads to be set up", |actor| actor.is_parked())?;
    // The other threads have inherited the policy of this thread, so it becomes real-time only now.
    // It does so to print in time.
    let _ = sched::set_fifo(Tid(0), 20);
    emit("ready")?;
    play(&options, &stage, &mut cast)
}

/// The children of a `waitpid` victim: so many that most of the time between two of its preemption
/// points passes inside waitpid(2).
const CHILDREN: usize = 200;

/// Returns the cgroup for the throttled victims; `None` if there are none. Leaves these victims out
/// if the cgroup can't be made.
fn open_quota(options: &mut Options) -> Result<Option<Quota>> {
    if options.victims.iter().all(|part| part.kind != Kind::Throttled) {
        return Ok(None);
    }
    match Quota::new() {
        Ok(quota) => Ok(Some(quota)),
        Err(reason) => {
            options.victims.retain(|part| part.kind != Kind::Throttled);
            emit(format_args!("skipped kind={}: {reason}", Kind::Throttled.name()))?;
            Ok(None)
        }
    }
}

fn play(options: &Options, stage: &Stage, cast: &mut Cast) -> Result<()> {
    let Some((hog, victims)) = cast.actors.split_last() else { return Ok(()) };
    // Before the hog comes, this ends the victims only if this thread is delayed.
    stage.end_at(clock::monotonic() + options.after + options.span + TIMEOUT);
    let early = usize::from(!options.woken);
    for victim in victims.iter().take(early) {
        victim.release();
        wait("the first victim to run", || Ok(victim.progress() > 0))?;
    }
    clock::nap(options.after);

    let until = clock::monotonic() + options.span;
    stage.end_at(until);
    hog.release();
    wait("the hog to get its CPU", || Ok(stage.hog_at() > Nanos::ZERO))?;
    let mut since: Vec<Nanos> = victims.iter().take(early).map(Actor::last_ran).collect();
    for victim in victims.iter().skip(early) {
        since.push(clock::monotonic());
        victim.release();
    }
    let before: Vec<u64> = victims.iter().map(Actor::progress).collect();
    let at = stage.hog_at();
    emit(format_args!(
        "hog tid={} cpu={} at={} until={} name={}",
        hog.tid(),
        options.cpu,
        at.0,
        until.0,
        hog.part.name
    ))?;
    for ((victim, since), before) in victims.iter().zip(&since).zip(&before) {
        let (tid, part) = (victim.tid(), victim.part);
        emit(format_args!(
            "victim tid={tid} kind={} since={} progress={before} name={}",
            part.kind.name(),
            since.0,
            part.name
        ))?;
    }

    clock::sleep_until(until);
    cast.wait_for("all threads to end", |actor| actor.is_finished())?;
    report(cast, &before)
}

fn report(cast: &Cast, before: &[u64]) -> Result<()> {
    let Some((hog, victims)) = cast.actors.split_last() else { return Ok(()) };
    emit(format_args!(
        "end hog tid={} longest_gap_ns={} most_lost_in_a_second_ns={} loops={}",
        hog.tid(),
        hog.longest_gap().0,
        hog.most_lost().0,
        hog.progress()
    ))?;
    for (victim, before) in victims.iter().zip(before) {
        let first = match victim.first_ran_after() {
            Nanos::ZERO => "never".to_string(),
            Nanos(first) => first.to_string(),
        };
        emit(format_args!(
            "end victim tid={} progress={} before={before} last_ran={} first_ran_after={first} longest_gap_ns={}",
            victim.tid(),
            victim.progress(),
            victim.last_ran().0,
            victim.longest_gap().0
        ))?;
    }
    Ok(())
}

/// All threads but the main one, the hog last. Dropping this ends them, unless one of them starves
/// for good.
struct Cast {
    stage: Arc<Stage>,
    actors: Vec<Actor>,
}

impl Cast {
    fn wait_for(&mut self, what: &str, done: impl Fn(&Actor) -> bool) -> Result<()> {
        wait(what, || {
            for actor in &mut self.actors {
                actor.check()?;
            }
            Ok(self.actors.iter().all(&done))
        })
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.stage.end_at(Nanos::ZERO);
        self.actors.iter().for_each(Actor::release);
        let _ = wait("all threads to end", || Ok(self.actors.iter().all(Actor::is_finished)));
    }
}

/// Waits until `done` returns true. The threads report through atomics only, because a victim that
/// is preempted while it holds the lock of a channel would block the main thread for as long as it
/// starves.
fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = clock::monotonic() + TIMEOUT;
    while !done()? {
        if clock::monotonic() > until {
            return Err(Error::new(format!("waited {} s in vain for {what}", TIMEOUT.as_secs())));
        }
        clock::nap(Nanos::from_micros(500));
    }
    Ok(())
}

fn emit(line: impl fmt::Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("write to stdout")
}
