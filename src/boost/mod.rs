//! Lets starving tasks run for a bounded moment, and puts everything back.

mod active;
pub mod actuator;
mod adopt;
pub mod changes;
pub mod event;
pub mod guardian;
pub mod journal;
pub mod journal_file;
pub mod kernel;
pub mod kernel_actuator;
pub mod plan;
mod probation;
pub mod recover;
pub mod restore;
pub mod rules;
mod wards;
