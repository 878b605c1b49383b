//! Attacks on stalld by a user without privileges: `make test-adversary` runs them.
//!
//! SECURITY.md lists what such a user can do, and the test that shows what bounds it.

#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

/// Declares the scene of a module and one test for each of its acts.
macro_rules! scene {
    ($name:literal, $make:path, $others:ident, $($test:ident => $act:literal),+ $(,)?) => {
        $(
            #[test]
            #[ignore = "starves tasks, as root"]
            fn $test() {
                $crate::scene::act_fails($name, $make, $act);
            }
        )+

        #[test]
        #[ignore = "starves tasks, as root"]
        fn $others() {
            $crate::scene::others_are_served($name, $make);
        }
    };
}

mod changes;
mod crowds;
mod files;
mod groups;
mod lending;
#[cfg(feature = "seeded-faults")]
mod mutants;
mod names;
mod observer;
mod ranks;
mod scene;
mod thief;
mod tids;
