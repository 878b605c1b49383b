//! Random machines in simulated time, driven by the real engine, and what it promises about them.
//!
//! Real are `detect`, `boost` (plan, hands, journal, recovery) and `engine`; simulated are the
//! kernel below them, the backend, the clock and the guardian's waiting.

// A machine that breaks its own rules is a broken test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod kernel;
mod looks;
mod machine;
mod promises;
mod run;
mod setup;
mod tasks;

use kernel::Lie;
use promises::Tally;
use run::{Broken, run};
use setup::Setup;

const STEPS_OF_ONE: u64 = 20_000;

/// The smallest machine that breaks the same promise, as far as leaving things out one by one finds
/// it.
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

/// The first promise that is broken, at all machines from this seed on, and how many steps it took.
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

/// How many steps the search takes altogether: STALLD_SIMULATION_STEPS, or a number that takes
/// seconds.
fn steps() -> u64 {
    std::env::var("STALLD_SIMULATION_STEPS").map_or(2_600_000, |steps| steps.parse().unwrap())
}

/// Half of the machines, so that two threads share the work.
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

/// Has this many steps to find each fault.
const STEPS_TO_FIND: u64 = 1_000_000;

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
        NextLookLate,
        CapIgnored,
        SpacingIgnored,
        EndIgnored,
        RefusalNotRetried,
    ];
    for fault in faults {
        plant(Some(fault));
        let found = found(&format!("{fault:?}"), None);
        plant(None);
        assert!(found);
    }
}
