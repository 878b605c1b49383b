//! Attacks on stalld by a user without any privilege: for `make test-adversary`. `attack --help`
//! lists them.

#![allow(unreachable_pub)]

mod changes;
mod crowds;
mod ranks;
mod sys;
mod victim;

use ranks::{Demand, Owner, Stop};
use stalld::cpus::CpuSet;
use stalld::error::{Context, Error, Result};
use stalld::sys::{clock, cpu, process, sched};
use stalld::task::{Comm, Cpu, Nanos, Tid};
use std::process::ExitCode;
use std::sync::Arc;
use victim::{Play, Victim};

const HELP: &str = "\
attack: what a user without privileges does to stalld, on the CPU of a hog and for a bounded time

Usage: attack --cpu N --for SECONDS [--user UID] [--name NAME] [--group FILE] ACT

  --cpu N        the hogged CPU, where the victim starves; CPU 0 is refused
  --for SECONDS  the attack ends by itself after this, 0.1 to 300
  --user UID     become this user first, without any privilege; for a machine without setpriv(1)
  --name NAME    name of the process and of the victim, with %XX for any byte
  --group FILE   file of a control group that takes threads, for the act 'group'

Acts that try to keep the rank of a boost, in a loop:
  keep-fifo keep-rr keep-equal keep-lowest keep-batch keep-idle keep-deadline keep-nice
  helper       a thread on another CPU does it
  child        a child does it that was forked in the boost
  handler      a signal handler does it
  born         twelve victims fork at each pulse, so that the next one begins in the middle of a fork
  exec         a program does it that was executed in the boost
Acts that lend the rank to the owner of a PI mutex, which spins:
  lend-same    on the same CPU
  lend-other   on another CPU, for 300 ms at most
  lend-chain   on the same CPU, through a second owner
Acts in the middle of a boost:
  move slack nice group end
  stop trace   another process stops the victim
  ping-pong    executes itself in each boost
  brood        forks 1,000 children on another CPU
Others:
  spin         computes
  threads:N    N threads compute
  turns:N      N threads sleep and wake in turn
  sleepers:N   N threads sleep, one computes
  forks        forks 1,000 times a second

On stdout: 'victim tid=N', 'crowd count=N', 'boosted tid=N' at the first boost that the victim sees,
'ready', and 'end victim tid=N boosts=N tries=N granted=N'.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((play, act)) = parse(&words) else {
        eprint!("{HELP}");
        return ExitCode::from(2);
    };
    match attack(&play, act) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse<'a>(words: &[&'a str]) -> Option<(Play, &'a str)> {
    let (act, options) = words.split_last()?;
    let (mut cpu, mut length, mut user, mut name, mut group) = (None, None, None, None, None);
    for pair in options.chunks(2) {
        match *pair {
            // CPU 0 never has a hog, so the attack would be the hog there.
            ["--cpu", value] => cpu = value.parse().ok().filter(|&cpu| cpu != 0),
            ["--for", value] => length = value.parse::<f64>().ok().filter(|it| (0.1..=300.0).contains(it)),
            ["--user", value] => user = Some(value.parse().ok().filter(|&user| user != 0)?),
            ["--name", value] => name = Some(unescape(value)?),
            ["--group", value] => group = Some(value.to_string()),
            _ => return None,
        }
    }
    let until = clock::monotonic() + Nanos((length? * 1e9) as u64);
    Some((Play { cpu: Cpu(cpu?), until, user, name, group }, act))
}

/// Returns the name in which `%XX` stands for any byte.
fn unescape(text: &str) -> Option<Comm> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    Some(Comm::new(&bytes))
}

fn attack(play: &Play, act: &str) -> Result<()> {
    if let Some(user) = play.user {
        sys::become_user(user).context("become an ordinary user")?;
    }
    if process::effective_uid() == 0 || sys::limits() != (0, 0) {
        return Err(Error::new("an attack has no privileges")
            .with_cure("run it by setpriv and prlimit, as tests/rig/attack.rs does, or with --user"));
    }
    // After an exec of the victim this process may only use the hog's CPU.
    let all = CpuSet::first(cpu::configured());
    let elsewhere: CpuSet = all.iter().filter(|&cpu| cpu != play.cpu).collect();
    sched::set_affinity(Tid(0), &elsewhere).context("keep away from the hog")?;
    if let Some(name) = &play.name {
        sched::set_name(name).context("name the process")?;
    }
    let victims = begin(play, act)?;
    println!("ready");
    victim::report(play, &victims);
    Ok(())
}

fn begin(play: &Play, act: &str) -> Result<Vec<Arc<Victim>>> {
    if let Some((_, demand)) = Demand::ALL.iter().find(|(name, _)| *name == act) {
        return ranks::keep(play, *demand);
    }
    let (kind, count) = act.split_once(':').unwrap_or((act, "0"));
    let count = count.parse().map_err(|_| Error::new(format!("{act}: the count is not a number")))?;
    match kind {
        "helper" => ranks::by_helper(play),
        "child" => ranks::by_child(play),
        "born" => ranks::born(play),
        "handler" => ranks::by_handler(play),
        "exec" => ranks::exec(play, "keep-fifo"),
        "ping-pong" => ranks::exec(play, "ping-pong"),
        "lend-same" => ranks::lend(play, Owner::Same),
        "lend-other" => ranks::lend(play, Owner::Other),
        "lend-chain" => ranks::lend(play, Owner::Chain),
        "stop" => ranks::stop(play, Stop::Signal),
        "trace" => ranks::stop(play, Stop::Trace),
        "move" => changes::affinity(play),
        "slack" => changes::timer_slack(play),
        "nice" => changes::nice(play),
        "group" => changes::group(play),
        "end" => changes::end(play),
        "spin" => Ok(vec![Victim::start(play, |_, _| Ok(()))?]),
        "brood" => crowds::brood(play),
        "threads" => crowds::threads(play, count),
        "turns" => crowds::turns(play, count),
        "sleepers" => crowds::sleepers(play, count),
        "forks" => crowds::forks(play),
        _ => Err(Error::new(format!("there is no act '{act}'")).with_cure("see --help")),
    }
}
