//! Lets starving tasks run for a bounded moment, and puts everything back.

pub mod journal;
