//! Lets starving tasks run for a bounded moment, and puts everything back.

mod adopt;
pub mod hands;
pub mod journal;
pub mod plan;
pub mod recover;
pub mod undo;
