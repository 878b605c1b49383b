//! Lets starving tasks run for a bounded moment, and puts everything back.

pub mod actions;
mod active;
mod adopt;
pub mod changes;
pub mod event;
pub mod guardian;
pub mod hands;
pub mod journal;
pub mod journal_file;
pub mod kernel;
pub mod plan;
mod probation;
pub mod recover;
pub mod rules;
pub mod undo;
mod wards;
