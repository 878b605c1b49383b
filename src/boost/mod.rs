//! Boosts starving tasks for a bounded time, and restores them.
//!
//! [`plan`] decides which tasks are boosted. [`kernel_actuator`] boosts and restores them, and
//! keeps a record of each boost in the [`journal`]. [`recover`] restores from these records if the
//! thread that boosted a task can't. docs/ARCHITECTURE.md explains the terms.

mod active;
pub mod actuator;
mod adopt;
mod adoptions;
pub mod changes;
pub mod counters;
pub mod event;
mod identity;
pub mod journal;
pub mod kernel;
pub mod kernel_actuator;
pub mod max_loss;
mod own_priority;
pub mod plan;
pub mod probation;
pub mod pulse_children;
pub mod recover;
pub mod restore;
pub mod rules;
