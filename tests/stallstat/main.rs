//! Tests of stallstat with known workloads.

#![cfg(feature = "bpf")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod counting;
mod jitter;
mod neighbours;
mod parquet;
mod selection;
