//! What `stallstat` shows: who waits, for whom, how long.

pub mod topology;
