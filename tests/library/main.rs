//! The C library as C programs meet it: what `make lib` builds, its header, and what it does.

#![allow(clippy::unwrap_used, clippy::panic)]

mod exports;
mod header;
#[cfg(feature = "bpf")]
mod live;
mod programs;
