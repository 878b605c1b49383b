//! Makes tasks starve behind a real-time hog: for the demo, the live tests and the measurements.
//! `starve --help` says how it goes.

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

/// How long the kernel may take for what it does at once on a machine that works.
const PATIENCE: Nanos = Nanos::from_secs(20);

fn main() -> ExitCode {
    let result = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => run(options).map_err(|error| (error, 1)),
        Ok(None) => say(HELP.trim_end()).map_err(|error| (error, 1)),
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
    // Only now, as the threads have inherited what this one was: what is printed ought to be
    // timely.
    let _ = sched::set_fifo(Tid(0), 20);
    say("ready")?;
    play(&options, &stage, &mut cast)
}

/// Enough that most of the time between two preemption points goes by inside waitpid(2).
const CHILDREN: usize = 200;

/// The group for the throttled victims, if there are any; without one they are left out.
fn open_quota(options: &mut Options) -> Result<Option<Quota>> {
    if options.victims.iter().all(|part| part.kind != Kind::Throttled) {
        return Ok(None);
    }
    match Quota::new() {
        Ok(quota) => Ok(Some(quota)),
        Err(reason) => {
            options.victims.retain(|part| part.kind != Kind::Throttled);
            say(format_args!("skipped kind={}: {reason}", Kind::Throttled.name()))?;
            Ok(None)
        }
    }
}

fn play(options: &Options, stage: &Stage, cast: &mut Cast) -> Result<()> {
    let Some((hog, victims)) = cast.actors.split_last() else { return Ok(()) };
    // Until the hog comes this is only what ends a victim should this thread be held up.
    stage.end_at(clock::monotonic() + options.after + options.span + PATIENCE);
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
    say(format_args!(
        "hog tid={} cpu={} at={} until={} name={}",
        hog.tid(),
        options.cpu,
        at.0,
        until.0,
        hog.part.name
    ))?;
    for ((victim, since), before) in victims.iter().zip(&since).zip(&before) {
        let (tid, part) = (victim.tid(), victim.part);
        say(format_args!(
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
    say(format_args!(
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
        say(format_args!(
            "end victim tid={} progress={} before={before} last_ran={} first_ran_after={first} longest_gap_ns={}",
            victim.tid(),
            victim.progress(),
            victim.last_ran().0,
            victim.longest_gap().0
        ))?;
    }
    Ok(())
}

/// All threads but the main one, the hog last. None of them outlives this, unless it starves for
/// good.
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

/// The threads report through atomics, and nothing else: a victim preempted while it holds the lock
/// of a channel would stop the main thread for as long as it starves.
fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = clock::monotonic() + PATIENCE;
    while !done()? {
        if clock::monotonic() > until {
            return Err(Error::new(format!("waited {} s in vain for {what}", PATIENCE.as_secs())));
        }
        clock::nap(Nanos::from_micros(500));
    }
    Ok(())
}

fn say(line: impl fmt::Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("write to stdout")
}
