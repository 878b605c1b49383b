//! What `stallstat` shows: who waits, for whom, how long.

pub mod columns;
pub mod groups;
pub mod jitter;
pub mod parquet;
pub mod resctrl;
pub mod schedstat;
mod thrift;
pub mod topology;
