//! Runs the real engine on random machines in simulated time, and checks the promises of stalld.
//!
//! `detect`, `boost` (plan, actuator, journal, recovery) and `engine` are the real code. The kernel
//! below them, the backend, the clock and the guardian's waiting are simulated.

// If the machine breaks its own rules, the test panics.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod kernel;
mod machine;
mod many_cpus;
mod promises;
mod run;
mod scans;
mod setup;
mod tasks;

use kernel::Lie;
use promises::Tally;
use run::{Broken, run};
use setup::Setup;

const STEPS_OF_ONE: u64 = 20_000;

/// Returns a small machine that breaks the same promise. It leaves one thing out after another, so
/// there may be a smaller machine.
fn shrink(mut broken: Broken, lie: Option<Lie>) -> Broken {
    let mut tries = 300;
    let promise = |it: &Broken| it.what.split(';').next().map(str::to_owned);
    'smaller: loop {
        for simpler in broken.setup.simpler() {
            tries -= 1;
            if tries == 0 {
                return broken;
            }
            match run(simpler.ending(STEPS_OF_ONE), lie) {
                Err(it) if it.step <= 4 * broken.step && promise(&it) == promise(&broken) => {
                    broken = it;
                    continue 'smaller;
                }
                _ => {}
            }
        }
        return broken;
    }
}

/// Runs machines with these seeds for this many steps. The error is the first broken promise, and
/// the number of steps until then.
fn search(seeds: impl Iterator<Item = u64>, steps: u64, lie: Option<Lie>) -> Result<Tally, (u64, Broken)> {
    let mut tally = Tally::default();
    let mut done = 0;
    for seed in seeds {
        match run(Setup::new(seed, STEPS_OF_ONE), lie) {
            Ok(of_one) => tally = tally.plus(of_one),
            Err(broken) => return Err((done + broken.step, broken)),
        }
        done += STEPS_OF_ONE;
        if done >= steps {
            break;
        }
    }
    Ok(tally)
}

/// Returns the number of steps of both searches together: STALLD_SIMULATION_STEPS, or a number that
/// takes seconds.
fn steps() -> u64 {
    std::env::var("STALLD_SIMULATION_STEPS").map_or(2_600_000, |steps| steps.parse().unwrap())
}

/// Checks half of the machines, so that two threads share the work.
fn keeps_its_promises(parity: u64) {
    let seeds = (0..).map(|seed| 2 * seed + parity);
    match search(seeds, steps() / 2, None) {
        Ok(tally) => {
            println!("{tally:?}");
            let Tally { named, boosts, refusals, overs, guarded, adopted, kills, .. } = tally;
            for count in [named, boosts, refusals, overs, guarded, kills] {
                assert!(count >= 100, "this shows too little: {tally:?}");
            }
            assert!(adopted > 0, "this shows too little: {tally:?}");
        }
        Err((_, broken)) => panic!("{}", shrink(broken, None)),
    }
}

#[test]
fn a_machine_of_an_even_seed_finds_all_promises_kept() {
    match std::env::var("STALLD_SIMULATION") {
        Ok(one) => match run(one.parse().unwrap(), None) {
            Ok(tally) => println!("all promises are kept: {tally:?}"),
            Err(broken) => panic!("{broken}"),
        },
        Err(_) => keeps_its_promises(0),
    }
}

#[test]
fn a_machine_of_an_odd_seed_finds_all_promises_kept() {
    if std::env::var_os("STALLD_SIMULATION").is_none() {
        keeps_its_promises(1);
    }
}

/// The number of steps of a large machine: each one takes long.
const STEPS_OF_LARGE: u64 = 300;

#[test]
fn a_machine_with_up_to_512_cpus_and_5000_tasks_finds_all_promises_kept() {
    let machines = steps() / 650_000;
    let mut tally = Tally::default();
    for seed in 0..machines {
        match run(Setup::large(seed, STEPS_OF_LARGE), None) {
            Ok(of_one) => tally = tally.plus(of_one),
            Err(broken) => panic!("{broken}"),
        }
    }
    println!("{machines} machines: {tally:?}");
    assert!(tally.boosts > 100 * machines, "this shows too little: {tally:?}");
}

/// The number of steps in which each fault must be found.
const STEPS_TO_FIND: u64 = 3_000_000;

fn found(name: &str, lie: Option<Lie>) -> bool {
    match search(1.., STEPS_TO_FIND, lie) {
        Ok(_) => println!("{name}: not found"),
        Err((steps, broken)) => {
            let what = broken.what.split(';').next().unwrap_or_default();
            println!("{name}: found at step {steps}: {what}");
            return true;
        }
    }
    false
}

#[test]
fn each_fault_between_stalld_and_its_machine_is_found() {
    use Lie::{EventLost, RecordLost, RestoreDropped, SavedWrong, SlackDropped, TidsSwapped};
    for lie in [EventLost, RecordLost, RestoreDropped, SavedWrong, SlackDropped, TidsSwapped] {
        assert!(found(&format!("{lie:?}"), Some(lie)));
    }
}

#[cfg(feature = "seeded-faults")]
#[test]
fn each_fault_in_stalld_is_found() {
    use stalld::fault::Fault::*;
    use stalld::fault::plant;
    let faults = [
        ProgressIgnored,
        StartIgnored,
        ThresholdHalved,
        NextScanLate,
        CapIgnored,
        SpacingIgnored,
        LossIgnored,
        EndIgnored,
        RefusalNotRetried,
        RecheckSkipped,
    ];
    for fault in faults {
        plant(Some(fault));
        let found = found(&format!("{fault:?}"), None);
        plant(None);
        assert!(found);
    }
}
