//! What `stallstat` shows: who waits, for whom, how long.

pub mod groups;
pub mod topology;
