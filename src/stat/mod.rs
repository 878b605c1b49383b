//! What `stallstat` shows: who waits, for whom, how long.

pub mod columns;
pub mod groups;
pub mod jitter;
pub mod resctrl;
pub mod schedstat;
pub mod topology;
